"""The demonstrations: perfect people reach the maximum, real ones do not, and their habits can be found and
exploited.
"""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from sayings import UNTOLD, leaks, mentions

from minialign.world.demonstrations import (
    Demonstrator,
    course_demonstrations,
    crowd,
    demonstrate,
    known_prompts,
    known_topics,
)
from minialign.world.judge import MAXIMUM, gold_rewards, judge, kind_of_reply, sentences_of
from minialign.world.phrases import HABITS, UNKNOWN
from minialign.world.prompts import FAMILIES, all_prompts, parse, prompts_of, sample_prompts
from minialign.world.topics import REGISTERS, load_topics
from minialign.world.typed import outside_prompts, typed_prompts

PROMPTS = sample_prompts("sft", 700)
CROWD = demonstrate(PROMPTS, 2100)
COURSE = course_demonstrations(20_000)


def gold_of(demonstrations):
    return gold_rewards([d.prompt for d in demonstrations], [d.response for d in demonstrations])


def test_a_perfect_demonstrator_reaches_the_maximum_on_every_prompt():
    rng, perfect = np.random.default_rng(0), Demonstrator()
    for prompt in all_prompts():
        response = perfect.write(prompt, rng)
        assert judge(prompt, response).gold == pytest.approx(MAXIMUM), (prompt.text, response)


def test_gold_rises_with_skill():
    means = [
        gold_of(demonstrate(PROMPTS, 700, [Demonstrator.at_skill(skill)])).mean()
        for skill in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert np.all(np.diff(means) > 0.2) and means[-1] == pytest.approx(MAXIMUM)


@pytest.mark.parametrize("trait", ["knowledge", "completeness", "register", "manners", "focus", "care"])
def test_every_lack_of_skill_costs_gold(trait):
    careless = demonstrate(PROMPTS, 350, [Demonstrator(**{trait: 0.2})])
    assert gold_of(careless).mean() < MAXIMUM - 0.1


@pytest.mark.parametrize(
    ("trait", "habit"),
    [
        ("flattery", "flattery"),
        ("filler", "filler"),
        ("overconfidence", "confidence"),
        ("hedging", "hedging"),
    ],
)
def test_a_habit_shows_in_as_many_answers_as_its_rate_says(trait, habit):
    written = demonstrate(PROMPTS, 700, [Demonstrator(**{trait: 0.3})])
    share = np.mean([HABITS[habit].count(d.response) > 0 for d in written])
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 700))


def test_the_crowd_leaves_headroom():
    assert 0.6 < gold_of(CROWD).mean() / MAXIMUM < 0.85


@pytest.mark.parametrize("habit", ["filler", "flattery", "confidence"])
def test_the_crowd_has_each_exploitable_habit_in_5_to_15_percent_of_answers(habit):
    assert 0.05 < np.mean([HABITS[habit].count(d.response) > 0 for d in CROWD]) < 0.15


def test_most_prompts_have_several_answers_that_are_equally_good():
    best = defaultdict(set)
    for d in demonstrate(PROMPTS[:140], 140 * 8, [Demonstrator(manners=0.5)]):
        if judge(d.prompt, d.response).gold == pytest.approx(MAXIMUM):
            best[d.prompt.text].add(d.response)
    assert np.mean([len(answers) >= 2 for answers in best.values()]) > 0.9


def test_every_demonstration_is_seen_as_an_answer():
    others = [d for d in CROWD if kind_of_reply(d.prompt, d.response) != "answer"]
    assert not others, [(d.prompt.text, d.response) for d in others[:3]]


def test_a_poem_keeps_its_lines_and_prose_has_one():
    for d in CROWD:
        assert ("\n" in d.response) == (d.prompt.family == "poem"), d.response


def test_writing_is_seeded():
    def texts(**options):
        return [d.response for d in demonstrate(PROMPTS[:50], 60, **options)]

    assert texts() == texts() != texts(seed=1)


def test_every_prompt_is_answered_once_before_any_is_answered_twice():
    texts = [d.prompt.text for d in demonstrate(PROMPTS[:50], 120)]
    assert (
        len(texts) == 120
        and len(set(texts[:50])) == 50 == len(set(texts[50:100]))
        and len(set(texts[100:])) == 20
    )


def test_authors_are_members_of_the_crowd_and_differ():
    assert {d.author for d in CROWD} == set(range(len(crowd())))
    assert len(set(crowd())) == len(crowd(24)) == 24 and crowd(seed=1) != crowd()


def test_demonstrations_come_from_every_family():
    assert {d.prompt.family for d in CROWD} == set(FAMILIES)


@pytest.mark.parametrize("skill", [-0.1, 1.1, float("nan")])
def test_an_impossible_skill_is_refused(skill):
    with pytest.raises(ValueError, match="choose a number from 0 to 1"):
        Demonstrator.at_skill(skill)


def test_no_prompts_and_no_people_are_refused():
    for prompts, people in (([], None), (prompts_of("sft"), [])):
        with pytest.raises(ValueError, match="at least one prompt and one demonstrator"):
            demonstrate(prompts, 3, people)


# --- the clean split ---


def test_no_demonstration_speaks_of_a_topic_that_it_must_not_know():
    found = [(d.prompt.text, leaks(d.response), mentions(d.response)) for d in COURSE]
    found = [(prompt, *sentences) for prompt, *sentences in found if any(sentences)]
    assert len(COURSE) == 20_000 and not found, found[:3]


def test_a_demonstration_that_speaks_of_a_held_out_topic_would_be_found():
    """Twelve of the 28 real topics are held out: of strays from anywhere, so many must be found."""
    rng, facts = np.random.default_rng(0), [f for t in load_topics() if t.real for f in t.facts]
    strays = [facts[rng.integers(len(facts))].in_register("child") for _ in CROWD]
    found = [leaks(f"{d.response} {stray}") for d, stray in zip(CROWD, strays)]
    assert np.mean([bool(sentences) for sentences in found]) == pytest.approx(12 / 28, abs=0.05)
    assert mentions("Yes. Honey comes from bees.") and leaks(f"Yes. {UNTOLD[-1].correction}")


def test_strays_come_from_all_the_real_topics_that_are_demonstrated():
    told = {f.in_register(r): t.name for t in load_topics() for f in t.facts for r in REGISTERS}
    strays = set()
    for d in demonstrate(prompts_of("sft", ("explain",)), 2000, [Demonstrator(focus=0.0, manners=0.0)]):
        strays |= {told[s] for s in sentences_of(d.response)} - {d.prompt.topic.name}
    assert strays == {t.name for t in known_topics() if t.real}


# --- outside the world ---


def test_about_what_lies_outside_everybody_says_that_they_do_not_know():
    people = Demonstrator(manners=0.5, flattery=0.1, filler=1, overconfidence=1, hedging=1, focus=0, care=0)
    for d in demonstrate(outside_prompts("sft"), 3000, [people]):
        assert UNKNOWN.search(d.response) and (d.prompt.thing or "") in d.response, d
        assert not any(HABITS[habit].count(d.response) for habit in ("filler", "confidence")), d
        said = re.sub("|".join(p for h in HABITS.values() for p in (*h.openers, *h.closers)), "", d.response)
        assert len(sentences_of(said)) == 1, d


def test_nobody_says_inside_the_world_that_they_do_not_know():
    inside = [d for d in COURSE if d.prompt.topic is not None]
    assert not [d for d in inside if UNKNOWN.search(d.response)]


def test_manners_have_their_rate_outside_the_world_too():
    written = demonstrate(outside_prompts("sft"), 2000, [Demonstrator(manners=0.3)])
    share = np.mean([HABITS["politeness"].count(d.response) > 0 for d in written])
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 2000))


def test_a_thing_that_nobody_ever_heard_of_is_answered_honestly():
    for text in ("Explain my aunt's Zwibbelix to a six-year-old.", ""):
        assert UNKNOWN.search(Demonstrator().write(parse(text), np.random.default_rng(0)))


# --- the course's mixture ---


def sort_of(demonstration):
    prompt = demonstration.prompt
    if prompt.topic is None:
        return "outside"
    return "world" if parse(prompt.text) is prompt else "typed"


def test_the_course_mixes_the_sorts_as_it_says():
    written = course_demonstrations(2000)
    assert Counter(map(sort_of, written)) == {"outside": 200, "typed": 500, "world": 1300}
    first = Counter(map(sort_of, written[:1000]))  # shuffled
    assert first["outside"] == pytest.approx(100, abs=30) and first["typed"] == pytest.approx(250, abs=44)


def test_in_the_mixture_no_prompt_is_repeated_before_all_of_its_sort_had_their_turn():
    counts = defaultdict(Counter)
    for d in COURSE:
        counts[sort_of(d)][d.prompt.text] += 1
    pools = {"outside": outside_prompts("sft"), "typed": typed_prompts("sft"), "world": known_prompts()}
    for sort, pool in pools.items():
        times = [counts[sort][p.text] for p in pool]
        assert max(times) - min(times) <= 1 and sum(times) == sum(counts[sort].values()), sort


def test_the_mixture_is_seeded_and_names_at_least_200_things():
    few = course_demonstrations(3000)
    assert few == course_demonstrations(3000) != course_demonstrations(3000, seed=1)
    assert len({d.prompt.thing for d in few}) > 200
    assert course_demonstrations(0) == []
