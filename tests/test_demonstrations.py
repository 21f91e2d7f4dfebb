"""The demonstrations: perfect people reach the maximum, real ones do not, and their habits can be found and
exploited.
"""

from collections import defaultdict

import numpy as np
import pytest

from minialign.world.demonstrations import Demonstrator, crowd, demonstrate
from minialign.world.judge import MAXIMUM, gold_rewards, judge, kind_of_reply
from minialign.world.phrases import HABITS
from minialign.world.prompts import FAMILIES, all_prompts, prompts_of, sample_prompts

PROMPTS = sample_prompts("sft", 700)
CROWD = demonstrate(PROMPTS, 2100)


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
