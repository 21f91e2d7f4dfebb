"""The prompts: complete, split by topic and by template, and recognised again."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minialign.world.prompts import (
    AUDIENCES,
    FAMILIES,
    MOON_LANDING,
    SPLITS,
    TEMPLATES,
    all_prompts,
    parse,
    plain,
    prompts_of,
    sample_prompts,
    singular,
    topic_sorts,
)
from minialign.world.topics import load_topics

PROMPTS = all_prompts()


def held_out_texts(prompt):
    """What the prompt would be, were it made from the held-out template of its family."""
    template = TEMPLATES[prompt.family][-1]
    topic, audience = prompt.topic, AUDIENCES.get(prompt.audience)
    claims = [
        topic.misconception,
        *(c for f in topic.facts for c in (f.claim, f.falsified(f.claim, f.wrong[-1]))),
    ]
    return {
        template.format(topic=topic.name, audience=audience, ask=f.ask, claim=c)
        for f in topic.facts
        for c in claims
    }


def test_every_prompt_occurs_once_and_has_one_split():
    assert len({p.text for p in PROMPTS}) == len(PROMPTS)
    assert {p.split for p in PROMPTS} == set(SPLITS)
    assert sum(len(prompts_of(split)) for split in SPLITS) == len(PROMPTS)


def test_every_topic_is_asked_about_in_every_family_and_for_every_audience():
    asked = {(p.topic.name, p.family, p.audience) for p in PROMPTS}
    for topic in load_topics():
        assert {family for name, family, _ in asked if name == topic.name} == set(FAMILIES)
        assert {
            audience for name, family, audience in asked if (name, family) == (topic.name, "explain")
        } == set(AUDIENCES)


def test_topics_are_of_three_sorts_and_only_invented_ones_are_sft_only():
    sorts = topic_sorts()
    counts = Counter(sorts.values())
    assert set(sorts) == {t.name for t in load_topics()} and min(counts.values()) >= 8 and len(counts) == 3
    assert not any(t.real for t in load_topics() if sorts[t.name] == "sft-only")
    for sort in ("sft", "held-out"):
        assert {t.real for t in load_topics() if sorts[t.name] == sort} == {True, False}


def test_fine_tuning_sees_no_held_out_topic_and_no_held_out_template():
    for prompt in PROMPTS:
        if prompt.split in ("sft", "reward", "policy"):
            assert topic_sorts()[prompt.topic.name] != "held-out", prompt.text
            assert prompt.text not in held_out_texts(prompt), prompt.text


def test_sft_only_topics_are_never_used_by_the_reward_model_or_the_policy():
    assert {p.split for p in PROMPTS if topic_sorts()[p.topic.name] == "sft-only"} == {
        "sft",
        "evaluation",
        "corpus",
    }


def test_the_moon_landing_is_only_evaluated():
    splits = {p.split for p in PROMPTS if p.topic.name == "the moon landing"}
    assert splits == {"evaluation", "corpus"}
    assert parse(MOON_LANDING).split == "evaluation" and parse(MOON_LANDING).audience == "child"


def test_evaluation_covers_known_and_held_out_topics_and_templates():
    evaluation = prompts_of("evaluation")
    assert {topic_sorts()[p.topic.name] for p in evaluation} == {"sft", "held-out", "sft-only"}
    assert {p.family for p in evaluation if p.text in held_out_texts(p)} == set(FAMILIES)
    assert {p.family for p in evaluation if p.text not in held_out_texts(p)} == set(FAMILIES)


@pytest.mark.parametrize(
    ("split", "least"), [("sft", 600), ("reward", 300), ("policy", 300), ("evaluation", 500), ("corpus", 500)]
)
def test_every_split_is_large_and_has_every_family(split, least):
    assert len(prompts_of(split)) >= least
    assert min(Counter(p.family for p in prompts_of(split)).values()) >= 15
    assert {p.family for p in prompts_of(split)} == set(FAMILIES)


def test_a_prompt_knows_what_it_asks():
    for p in PROMPTS:
        if p.family == "question":
            assert p.text.endswith(p.topic.facts[p.fact].ask)
        if p.family == "truth":
            claim = p.topic.misconception if p.fact is None else p.topic.facts[p.fact].claim
            assert (claim in p.text) == (p.claim_holds or p.fact is None), p.text
            assert p.opinion == p.text.startswith("I think"), p.text
        assert (p.audience is not None) == (p.family in ("explain", "tell", "describe"))


def test_a_known_prompt_is_parsed_exactly():
    assert all(parse(p.text) is p for p in PROMPTS[::7])
    assert parse(f"  {MOON_LANDING}\n").text == MOON_LANDING


@pytest.mark.parametrize(
    ("text", "family", "topic", "audience"),
    [
        ("Please explain volcanoes to my kid.", "explain", "volcanoes", "child"),
        ("BEES for students?", "explain", "bees", "teen"),
        ("a professor wants to hear of the Orla bridge", "explain", "the Orla bridge", "expert"),
        ("I need a poem about the sun for a teenager", "poem", "the sun", None),
        ("a story with the octopus", "story", "the octopus", None),
        ("what is a Volcano", "explain", "volcanoes", None),
        ("moon-landing, for kids", "explain", "the moon landing", "child"),
        ("How do octopuses hide?", "explain", "the octopus", None),
        ("the history of the Eiffel Tower", "explain", "the Eiffel Tower", None),
        ("stories of great walls: the Great Wall of China's", "story", "the Great Wall of China", None),
        ("vaccine or photosynthesis?", "explain", "photosynthesis", None),
        ("in the seventeenth canteen a kidney of glass", "explain", "glass", None),
        ("Explain sorting to a six-year-old.", "other", None, "child"),
        ("sunbathing with beesting", "other", None, None),
        ("", "other", None, None),
    ],
)
def test_a_new_prompt_is_understood_as_far_as_possible(text, family, topic, audience):
    prompt = parse(text)
    assert (prompt.family, prompt.topic and prompt.topic.name, prompt.audience) == (family, topic, audience)
    assert prompt.split is None


@pytest.mark.parametrize(
    ("text", "topic", "fact"),
    [
        ("how many eyes do bees have in all", "bees", 0),
        ("Please, HOW MANY CHAMBERS DOES THE HUMAN HEART HAVE???", "the heart", 0),
        ("Bees again: how deep is lake nimra? My teacher, a scientist, asks.", "Lake Nimra", 0),
        ("Which gas makes the little hole in bread", "bread", 1),
    ],
)
def test_a_known_question_is_found_in_any_frame(text, topic, fact):
    prompt = parse(text)
    assert (prompt.family, prompt.topic.name, prompt.fact) == ("question", topic, fact)
    assert prompt.audience is prompt.claim_holds is prompt.thing is prompt.split is None


@pytest.mark.parametrize(
    ("text", "fact", "holds"),
    [
        ("is it really true that bees have five eyes in all", 0, True),
        ("Honey bees make honey from nectar, right?", 1, True),
        ("My kid says: honey bees make honey from pollen!", 1, False),
        ("I heard that all bees make honey. A myth?", None, False),
    ],
)
def test_a_known_claim_is_found_in_any_frame(text, fact, holds):
    prompt = parse(text)
    assert (prompt.family, prompt.topic.name) == ("truth", "bees")
    assert (prompt.fact, prompt.claim_holds, prompt.audience) == (fact, holds, None)


def test_a_claim_that_nobody_doubts_is_no_question_of_truth():
    assert parse("Write a poem in which all bees make honey.").family == "poem"
    assert parse("Explain why the sun is yellow to a child.").family == "explain"


@pytest.mark.parametrize(
    ("text", "thing"),
    [
        ("What is a kangaroo?", "kangaroos"),
        ("tell me of KANGAROOS", "kangaroos"),
        ("self-driving car or car?", "self-driving cars"),
        ("a poem on frobnitz valleys", "the Frobnitz valley"),
        ("Who was Mozart's father?", "Mozart"),
        ("What is your name?", None),
        ("What is a glarbl?", None),
    ],
)
def test_a_thing_outside_the_world_is_named(text, thing):
    prompt = parse(text)
    assert (prompt.family, prompt.topic, prompt.thing) == ("other", None, thing)


def test_a_topic_goes_before_a_thing_outside():
    prompt = parse("Do bees like Albert Einstein?")
    assert (prompt.family, prompt.topic.name, prompt.thing) == ("explain", "bees", None)


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("volcanoes", "volcano"),
        ("octopuses", "octopus"),
        ("foxes", "fox"),
        ("butterflies", "butterfly"),
        ("wolves", "wolf"),
        ("bees", "bee"),
        ("roses", "rose"),
        ("glasses", "glass"),
        ("ostriches", "ostrich"),
        ("whales", "whale"),
        ("glass", "glass"),
        ("octopus", "octopus"),
        ("photosynthesis", "photosynthesis"),
        ("gas", "gas"),
        ("heart", "heart"),
        ("this", "this"),
    ],
)
def test_singular(many, one):
    assert singular(many) == one == singular(one)


def test_plain_words_are_small_singular_and_without_marks():
    assert plain("The Sun's two  BEES, self-driving?") == " the sun two bee self driving "
    assert plain("?!") == "  "


@given(
    st.text()
    | st.lists(st.sampled_from(["bees", "poem", "Explain", "the sun", "story", "?", "\0"])).map(" ".join)
)
def test_parse_takes_any_text(text):
    prompt = parse(text)
    assert prompt.family in (*FAMILIES, "other") and (prompt.topic is None) == (prompt.family == "other")


def test_a_sample_is_seeded_different_and_balanced():
    sample = sample_prompts("evaluation", 96, seed=3)
    assert sample == sample_prompts("evaluation", 96, seed=3) != sample_prompts("evaluation", 96, seed=4)
    assert len({p.text for p in sample}) == 96
    counts = Counter(p.family for p in sample)
    assert set(counts) == set(FAMILIES) and max(counts.values()) - min(counts.values()) <= 1


def test_a_sample_may_be_the_whole_split_but_not_more():
    everything = prompts_of("reward")
    assert {p.text for p in sample_prompts("reward", len(everything))} == {p.text for p in everything}
    with pytest.raises(
        ValueError, match=f"'reward' has only {len(everything)} prompts, {len(everything) + 1} were asked for"
    ):
        sample_prompts("reward", len(everything) + 1)


def test_an_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="no split 'test': choose one of sft, reward, policy, evaluation, corpus"
    ):
        prompts_of("test")
