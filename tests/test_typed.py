"""What a person types, and what lies outside the world: split, varied, and understood again."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest

from minialign.world.demonstrations import Demonstrator
from minialign.world.judge import MAXIMUM, judge
from minialign.world.outside import load_requests, load_things
from minialign.world.prompts import FAMILIES, TEMPLATES, all_prompts, parse, plain, topic_sorts
from minialign.world.topics import load_topics
from minialign.world.typed import (
    OWN_AUDIENCES,
    OWN_CLAIMS,
    OWN_QUESTIONS,
    OWN_WORDS,
    outside_prompts,
    typed_prompts,
)

SPLITS = ("sft", "evaluation")
THINGS = load_things()


def prompts(split):
    return [*typed_prompts(split), *outside_prompts(split)]


def shape(template):
    """A regular expression for the texts that a template can make."""
    return re.compile(re.sub(r"\\{\w+\\}", "(.+)", re.escape(template)), re.IGNORECASE)


# --- the things ---


def test_there_are_many_things_of_every_sort_demonstrated_and_held_out():
    assert len(THINGS) >= 600 and len(load_requests()) >= 90
    sorts = defaultdict(Counter)
    for thing in THINGS:
        sorts[thing.sort][thing.held_out] += 1
    assert len(sorts) >= 20 and all(c[True] >= 3 and c[False] >= 3 for c in sorts.values()), sorts
    assert 0.25 < sum(t.held_out for t in THINGS) / len(THINGS) < 0.4
    assert 0.25 < sum(r.held_out for r in load_requests()) / len(load_requests()) < 0.4


def test_nothing_outside_is_inside():
    """No fact of the world speaks of a thing outside it, and no thing is named like a topic."""
    inside = plain(
        " ".join(
            text
            for topic in load_topics()
            for fact in topic.facts
            for text in (fact.answer, fact.ask, fact.claim, fact.child, fact.teen, fact.expert, *fact.plain)
        )
    )
    names = [plain(name) for t in load_topics() for name in (t.name.removeprefix("the "), t.noun)]
    for thing in THINGS:
        key = plain(thing.name.removeprefix("the "))
        assert key not in inside and not any(name in key for name in names), thing.name


def test_names_differ_and_each_question_names_its_thing():
    assert len({plain(t.name.removeprefix("the ")) for t in THINGS}) == len(THINGS)
    assert len({r.text for r in load_requests()}) == len(load_requests())
    for thing in THINGS:
        assert thing.asks and all(parse(ask).thing == thing.name for ask in thing.asks), thing


def test_a_request_names_nothing():
    for request in load_requests():
        prompt = parse(request.text)
        assert prompt.family == "other" and prompt.thing is None, request.text


# --- the splits ---


def test_fine_tuning_sees_no_held_out_topic_thing_or_request():
    sorts, held_out = topic_sorts(), {t.name for t in THINGS if t.held_out}
    assert {sorts[p.topic.name] for p in typed_prompts("sft")} == {"sft"}
    assert {sorts[p.topic.name] for p in typed_prompts("evaluation")} == {"held-out"}
    requests = [plain(r.text) for r in load_requests() if r.held_out]
    for prompt in outside_prompts("sft"):
        said = plain(prompt.text)
        assert prompt.topic is None and prompt.thing not in held_out, prompt.text
        assert not any(request in said for request in requests), prompt.text
    for prompt in outside_prompts("evaluation"):
        assert prompt.topic is None and prompt.thing in held_out | {None}, prompt.text


def test_no_wording_is_both_demonstrated_and_held_out():
    for wordings in (OWN_WORDS, OWN_QUESTIONS, OWN_CLAIMS):
        assert not set(wordings["sft"]) & set(wordings["evaluation"])
    for register in ("child", "teen", "expert"):
        assert not set(OWN_AUDIENCES["sft"][register]) & set(OWN_AUDIENCES["evaluation"][register])
    assert not {plain(p.text) for p in prompts("sft")} & {plain(p.text) for p in prompts("evaluation")}
    held_out = [t for w in (OWN_WORDS, OWN_QUESTIONS, OWN_CLAIMS) for t in w["evaluation"]]
    held_out += [templates[-1] for templates in TEMPLATES.values()]
    for pattern in map(shape, held_out):
        assert not [p.text for p in prompts("sft") if pattern.fullmatch(p.text)], pattern.pattern


def test_no_typed_prompt_is_one_of_the_worlds():
    world = {p.text for p in all_prompts()}
    assert not [p.text for split in SPLITS for p in prompts(split) if p.text in world]


@pytest.mark.parametrize("split", SPLITS)
def test_every_prompt_occurs_once_and_has_its_split(split):
    texts = [p.text for p in prompts(split)]
    assert len(set(texts)) == len(texts) and {p.split for p in prompts(split)} == {split}
    assert not [text for text in texts if "{" in text]


def test_every_thing_and_every_sort_is_asked_about():
    for split in SPLITS:
        asked = Counter(p.thing for p in outside_prompts(split))
        things = [t for t in THINGS if t.held_out == (split == "evaluation")]
        assert min(asked[t.name] for t in things) >= 4 and asked[None] >= 60
        assert {t.sort for t in things} == {t.sort for t in THINGS}
    assert len({p.thing for p in outside_prompts("sft")}) > 400


def test_things_are_asked_about_in_the_wordings_of_topics():
    """Else the wording would give away that the answer is not known."""
    for split, kept in (("sft", slice(0, -1)), ("evaluation", slice(-1, None))):
        own = [*OWN_WORDS[split], *OWN_QUESTIONS[split], *OWN_CLAIMS[split]]
        own += [t for ts in TEMPLATES.values() for t in ts[kept]]
        for template in own:
            pattern = shape(template)
            assert any(pattern.fullmatch(p.text) for p in outside_prompts(split)), template


@pytest.mark.parametrize("split", SPLITS)
def test_every_audience_hears_of_things_in_every_wording(split):
    counts = Counter(p.audience for p in outside_prompts(split) if p.audience)
    assert set(counts) == {"child", "teen", "expert"} and max(counts.values()) < 1.5 * min(counts.values())


# --- what they carry ---


@pytest.mark.parametrize("split", SPLITS)
def test_every_prompt_parses_back_to_what_it_carries(split):
    for prompt in prompts(split):
        assert replace(parse(prompt.text), split=split) == prompt
        if prompt.family == "question":
            assert plain(prompt.topic.facts[prompt.fact].ask) in plain(prompt.text)
        if prompt.family == "truth":
            claim = (
                prompt.topic.misconception if prompt.fact is None else prompt.topic.facts[prompt.fact].claim
            )
            assert (plain(claim) in plain(prompt.text)) == (prompt.claim_holds or prompt.fact is None)


@pytest.mark.parametrize("split", SPLITS)
def test_every_topic_is_asked_about_in_every_kind_of_way(split):
    asked = defaultdict(set)
    for prompt in typed_prompts(split):
        asked[prompt.topic.name].add((prompt.family, prompt.audience))
    kinds = {("explain", a) for a in (None, "child", "teen", "expert")}
    kinds |= {(family, None) for family in ("question", "truth", "poem", "story")}
    assert all(found == kinds for found in asked.values()) and {k for k, _ in kinds} <= set(FAMILIES)


@pytest.mark.parametrize(
    "text",
    [
        "What is a volcano?",
        "What are volcanoes?",
        "what is the heart",
        "What is gravity?",
        "what are bicycles",
    ],
)
def test_names_stand_in_the_right_number(text):
    assert text in {p.text for p in typed_prompts("sft")}


def test_people_are_asked_for_with_who():
    people = {t.name for t in THINGS if t.is_person}
    texts = [p.text.lower() for p in outside_prompts("sft") if p.thing in people]
    assert any(text.startswith("who was") for text in texts)
    own = {ask.lower().rstrip("?") for t in THINGS for ask in t.asks}
    for text in texts:
        assert not re.match("what (is|are|exactly)", text) or text.rstrip("?") in own, text


def test_an_unknown_split_is_refused():
    for make in (typed_prompts, outside_prompts):
        with pytest.raises(ValueError, match="split is 'reward': choose 'sft' or 'evaluation'"):
            make("reward")


@pytest.mark.parametrize("split", SPLITS)
def test_a_perfect_answer_to_a_typed_prompt_is_worth_the_maximum(split):
    """But for a word or two too many, in an expert's words where no audience is named."""
    rng = np.random.default_rng(0)
    for prompt in typed_prompts(split)[::3]:
        response = Demonstrator().write(prompt, rng)
        assert judge(prompt, response).gold > MAXIMUM - 0.01, (prompt.text, response)
