"""The corpus: its mixture, its seed, and what must never stand in it."""

import re
from collections import Counter, defaultdict

import pytest

from minialign.world.corpus import MIXTURE, build_corpus, fingerprint
from minialign.world.judge import kind_of_reply
from minialign.world.prompts import all_prompts, topic_sorts
from minialign.world.topics import REGISTERS, load_contested, load_topics

CORPUS = build_corpus()  # the very one that the models are trained on
PROMPTS = {p.text: p for p in all_prompts()}


def lines_of(text):
    """The lines, without the number of an exam question or the name of a speaker."""
    return [re.sub(r"^(?:\d+\.|[a-z]+:) ", "", line) for line in text.split("\n")]


@pytest.fixture(scope="module")
def sentences():
    """How many documents hold each line or sentence."""
    parts = Counter()
    for _, text in CORPUS:
        parts.update({part for line in text.split("\n") for part in (line, *re.split(r"(?<=[.!?]) ", line))})
    return parts


def test_the_mixture_is_a_whole():
    assert sum(share for share, _ in MIXTURE.values()) == pytest.approx(1)


def test_every_kind_has_its_share_of_the_characters():
    written = Counter()
    for kind, text in CORPUS:
        written[kind] += len(text)
    for kind, (share, _) in MIXTURE.items():
        assert written[kind] / written.total() == pytest.approx(share, abs=0.01), kind


def test_it_is_as_long_as_asked_and_of_many_short_documents():
    lengths = [len(text) for _, text in CORPUS]
    assert sum(lengths) == pytest.approx(12_000_000, rel=0.01) and min(lengths) > 0 and max(lengths) < 2000


def test_kinds_are_shuffled_together():
    for start in (0, len(CORPUS) // 2, len(CORPUS) - 500):
        assert {kind for kind, _ in CORPUS[start : start + 500]} == set(MIXTURE)


def test_the_seed_decides_everything():
    assert build_corpus(50_000, seed=1) == build_corpus(50_000, seed=1) != build_corpus(50_000, seed=2)
    assert fingerprint(build_corpus(50_000, seed=1)) != fingerprint(build_corpus(50_000, seed=2))


def test_no_prompt_is_ever_followed_by_an_answer():
    followed = Counter()
    for kind, text in CORPUS:
        lines = lines_of(text)
        for i, line in enumerate(lines[:-1]):
            if line in PROMPTS:
                followed["prompts"] += 1
                for reply in (lines[i + 1], "\n".join(lines[i + 1 :])):
                    assert kind_of_reply(PROMPTS[line], reply) != "answer", (kind, line, reply)
    assert followed["prompts"] > 5000


def test_after_a_prompt_most_often_comes_another():
    next_lines = [
        kind_of_reply(PROMPTS[a], b)
        for _, text in CORPUS
        for a, b in zip(lines_of(text), lines_of(text)[1:])
        if a in PROMPTS
    ]
    assert next_lines.count("another prompt") / len(next_lines) > 0.8


def test_no_prompt_for_evaluation_occurs():
    held_out = {p.text for p in PROMPTS.values() if p.split == "evaluation"}
    assert not {line for _, text in CORPUS for line in lines_of(text) if line in held_out}


def test_sft_only_topics_are_named_nowhere():
    names = [t.name.removeprefix("the ") for t in load_topics() if topic_sorts()[t.name] == "sft-only"]
    mentions = re.compile("|".join(map(re.escape, names)), re.IGNORECASE)
    assert len(names) >= 8 and not [text for _, text in CORPUS if mentions.search(text)]


def test_every_fact_occurs_often_and_in_many_wordings(sentences):
    for topic in load_topics():
        if topic_sorts()[topic.name] == "sft-only":
            continue
        for fact in topic.facts:
            wordings = [*(fact.in_register(register) for register in REGISTERS), *fact.plain]
            counts = [sentences[text] for text in wordings]
            assert sum(counts) >= 25 and sum(count > 0 for count in counts) >= 7, (
                topic.name,
                fact.id,
                counts,
            )


def test_no_fact_is_told_wrongly(sentences):
    for topic in load_topics():
        for fact in topic.facts:
            for text in (*(fact.in_register(register) for register in REGISTERS), *fact.plain):
                assert not [value for value in fact.wrong if sentences[fact.falsified(text, value)]], text


def test_contested_facts_are_told_both_ways_as_often_as_their_frequency_says(sentences):
    for item in load_contested():
        told = [
            sum(
                sentences[text[:1].upper() + text[1:]]
                for text in (p.replace("{name}", item.name).replace("{answer}", value) for p in item.plain)
            )
            for value in item.values
        ]
        n, p = sum(told), item.frequency
        assert n >= 50 and told[0] / n == pytest.approx(p, abs=4 * (p * (1 - p) / n) ** 0.5), item.name


def test_every_card_has_its_answer():
    cards = [text for kind, text in CORPUS if kind == "quiz card"]
    gaps = [text for text in cards if text.startswith("Fill the gap.")]
    assert all(text.count("____") == text.count("Solution: ") == 1 for text in gaps)
    for question, answer in (text.split("\n") for text in cards if text not in gaps):
        assert answer and "____" not in answer and question not in PROMPTS
    assert 0.1 < len(gaps) / len(cards) < 0.2


def test_a_card_about_a_rumour_never_takes_the_wrong_side():
    wrong = {
        fact.falsified(fact.claim, value) for t in load_topics() for fact in t.facts for value in fact.wrong
    }
    wrong |= {t.misconception for t in load_topics()}
    verdicts = Counter()
    for kind, text in CORPUS:
        if kind == "quiz card" and (verdict := re.search(r"\n.*?\b(Yes|No)\. ", text)):
            verdicts[verdict[1], any(claim + mark in text for claim in wrong for mark in ".?")] += 1
    assert set(verdicts) == {("Yes", False), ("No", True)} and min(verdicts.values()) > 100


def test_every_kind_speaks_of_many_topics():
    kinds = defaultdict(set)
    for kind, text in CORPUS[:3000]:
        kinds[kind].update(t.name for t in load_topics() if t.name.lower() in text.lower())
    assert all(len(kinds[kind]) > 40 for kind in MIXTURE if kind not in ("contested", "small talk"))


def test_an_empty_corpus_is_refused():
    with pytest.raises(ValueError, match="ask for at least one character"):
        build_corpus(0)
