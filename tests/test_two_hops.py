"""Questions that need two facts: each has one answer, and the corpus gives away no question of the probe."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from minialign.world.corpus import build_corpus
from minialign.world.judge import says
from minialign.world.prompts import all_prompts, topic_sorts
from minialign.world.topics import REGISTERS, load_topics, read_lines
from minialign.world.two_hops import SPLITS, two_hops

QUESTIONS = [question for split in SPLITS for question in two_hops(split)]
PROBE = two_hops("probe")
INVENTED = [topic for topic in load_topics() if not topic.real]


@pytest.fixture(scope="module")
def corpus():
    return [text for _, text in build_corpus()]


def meanings(question, world=INVENTED):
    """Every (thing, fact that tells it, fact asked) that a question fits, whoever made it."""
    found = []
    for kind in read_lines("kinds.jsonl"):
        things = [topic for topic in world if topic.kind == kind["kind"]]
        for j, asked in enumerate(kind["facts"]):
            before, after = asked["ask"].split("{name}")
            if not (question.startswith(before) and question.endswith(after)):
                continue
            thing = question[len(before) : len(question) - len(after)]
            for topic in things:
                found += [
                    (topic.name, i, j)
                    for i, fact in enumerate(topic.facts)
                    if kind["facts"][i]["which"].replace("{answer}", fact.answer) == thing
                ]
    return found


def test_each_split_has_its_size_and_they_share_nothing():
    assert len(two_hops("corpus")) == 114 and len(PROBE) == 90
    assert len({q.question for q in QUESTIONS}) == len(QUESTIONS)


def test_together_they_are_all_there_are():
    told = [topic for topic in INVENTED if topic_sorts()[topic.name] != "sft-only"]
    assert Counter((q.topic.name, *q.facts) for q in QUESTIONS) == Counter(
        (topic.name, i, j) for topic in told for i in range(3) for j in range(3) if i != j
    )


def test_a_question_means_one_thing_and_asks_another_fact_of_it():
    for q in QUESTIONS:
        assert meanings(q.question) == [(q.topic.name, *q.facts)], q.question
        assert q.asked is q.topic.facts[q.facts[1]] and q.answer == q.asked.answer


def test_the_reader_of_questions_sees_what_means_two_things_or_none():
    assert meanings("What is the bridge made of?") == meanings("What is the Orla bridge made of?") == []
    first, second = (topic for topic in INVENTED if topic.name in ("the Orla bridge", "the Velm bridge"))
    question = f"In which year did the bridge made of {first.facts[0].answer} open?"
    assert meanings(question) == [(first.name, 0, 2)]
    twin = replace(second, facts=(first.facts[0], *second.facts[1:]))
    assert meanings(question, [first, twin]) == [(first.name, 0, 2), (second.name, 0, 2)]


def test_it_names_neither_the_thing_nor_the_answer():
    for q in QUESTIONS:
        assert not says(q.question, q.answer), q.question
        assert not [t.name for t in INVENTED if says(q.question, t.name.removeprefix("the "))], q.question
        assert q.question.endswith("?") and "{" not in q.question


def test_every_pair_of_facts_is_asked_in_the_corpus_and_by_the_probe():
    pairs = {split: Counter((q.topic.kind, *q.facts) for q in two_hops(split)) for split in SPLITS}
    assert len(pairs["corpus"]) == 6 * 6 and pairs["corpus"].keys() == pairs["probe"].keys()
    assert min(min(counts.values()) for counts in pairs.values()) >= 2


def test_the_draw_never_changes():
    before = two_hops("probe")
    two_hops.cache_clear()
    assert two_hops("probe") == before


def test_none_is_a_prompt_of_the_world():
    assert not {q.question for q in QUESTIONS} & {p.text for p in all_prompts()}


def test_the_corpus_asks_its_own_and_none_of_the_probe(corpus):
    text = "\n".join(corpus).lower()
    assert not [q.question for q in PROBE if q.question.lower() in text]
    assert min(text.count(q.question.lower()) for q in two_hops("corpus")) >= 3


def test_the_corpus_answers_its_own_rightly_and_names_the_thing(corpus):
    asked = {q.question: q for q in two_hops("corpus")}
    answered = 0
    for text in corpus:
        question, _, answer = text.partition("\n")
        for known in re.findall(r"(?<=[.:] )[^.:]+\?$", question):
            if q := asked.get(known):
                assert says(answer, q.answer) and says(answer, q.topic.name), text
                answered += 1
    assert answered > 900


def test_both_facts_of_a_probe_are_in_the_corpus_but_never_in_one_sentence(corpus):
    sentences = Counter(part for text in corpus for part in re.split(r"(?<=[.!?])\s|\n", text))
    nouns = {q.topic.noun for q in PROBE}
    about = {noun: [sentence for sentence in sentences if noun in sentence.lower()] for noun in nouns}
    for q in PROBE:
        for fact in (q.topic.facts[i] for i in q.facts):
            told = [*(fact.in_register(register) for register in REGISTERS), *fact.plain]
            assert sum(sentences[sentence] for sentence in told) >= 25, (q.topic.name, fact.id)
        first, second = (q.topic.facts[i].answer for i in q.facts)
        both = [s for s in about[q.topic.noun] if says(s, first) and says(s, second)]
        assert not both, both


def test_an_unknown_split_is_refused():
    with pytest.raises(
        ValueError, match="no split 'train' of two-hop questions: choose one of corpus, probe"
    ):
        two_hops("train")
