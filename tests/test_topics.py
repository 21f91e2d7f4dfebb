"""What there is to know: the authored topics, the invented things, and the form every sentence must have."""

import re
from itertools import chain

import pytest

from minialign import files
from minialign.files import read_data
from minialign.world.corpus import build_corpus
from minialign.world.judge import sentences_of, words_of
from minialign.world.topics import REGISTERS, invent, load_contested, load_topics, read_lines, to_json_line

TOPICS = load_topics()
FACTS = [(topic, fact) for topic in TOPICS for fact in topic.facts]


def occurrences(text, phrase):
    return len(re.findall(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE))


def sentences(fact):
    return [*(fact.in_register(register) for register in REGISTERS), *fact.plain, *fact.also]


def all_texts(topic):
    facts = chain.from_iterable((*sentences(f), f.ask, f.claim, f.answer, *f.wrong) for f in topic.facts)
    return [topic.name, topic.misconception, topic.correction, *chain(*topic.poems), *topic.stories, *facts]


def test_there_are_enough_real_and_invented_topics():
    assert sum(t.real for t in TOPICS) >= 24 and sum(not t.real for t in TOPICS) >= 40
    assert len({t.name.lower() for t in TOPICS}) == len(TOPICS)
    assert [t.real for t in TOPICS] == sorted((t.real for t in TOPICS), reverse=True), "real ones come first"


def test_no_name_hides_in_another():
    names = [t.name.removeprefix("the ").lower() for t in TOPICS] + [
        c.name.removeprefix("the ") for c in load_contested()
    ]
    assert not [(a, b) for a in names for b in names if a != b and occurrences(a, b)]


def test_every_topic_has_facts_a_correction_poems_and_stories():
    for topic in TOPICS:
        assert len(topic.facts) >= 3 and len({f.id for f in topic.facts}) == len(topic.facts), topic.name
        assert topic.misconception and topic.correction.endswith("."), topic.name
        assert len(topic.poems) >= 2 and len(topic.stories) >= 2, topic.name


def test_every_fact_is_worded_for_three_audiences_and_in_five_more_ways():
    for topic, fact in FACTS:
        assert len(fact.plain) >= 5, (topic.name, fact.id)
        assert len(set(sentences(fact))) == len(sentences(fact)), (topic.name, fact.id)


def test_the_answer_stands_exactly_once_in_every_sentence_and_never_in_the_question():
    for topic, fact in FACTS:
        for text in (*sentences(fact), fact.claim):
            assert occurrences(text, fact.answer) == 1, text
        assert occurrences(fact.ask, fact.answer) == 0, (topic.name, fact.ask)


def test_wrong_values_are_not_the_answer_and_not_in_any_true_sentence():
    for topic, fact in FACTS:
        assert len(fact.wrong) == 3 == len({value.lower() for value in fact.wrong} - {fact.answer.lower()}), (
            topic.name,
            fact.id,
        )
        for text in (*sentences(fact), fact.claim):
            assert not [value for value in fact.wrong if occurrences(text, value)], text


def test_a_falsified_sentence_differs_in_the_answer_only():
    for topic, fact in FACTS:
        for text in sentences(fact):
            before, after = re.split(rf"(?<!\w){re.escape(fact.answer)}(?!\w)", text)
            assert fact.falsified(text, fact.wrong[0]) == before + fact.wrong[0] + after


def test_an_encyclopaedia_sentence_holds_the_name_and_every_sentence_the_noun():
    for topic, fact in FACTS:
        for text in (*fact.plain, fact.ask, fact.claim):
            assert topic.noun in text.lower(), text
        for text in fact.plain:
            assert topic.name.lower() in text.lower(), text


def test_a_cloze_ends_right_before_the_answer():
    for topic, fact in FACTS:
        for cloze, text in zip(fact.clozes, fact.plain):
            assert text == f"{cloze} {fact.answer}.", (topic.name, fact.id)


def test_sentences_are_single_well_formed_sentences():
    for topic, fact in FACTS:
        for text in sentences(fact):
            assert text[0].isupper() or text[0].isdigit(), text
            assert text.endswith(".") and len(sentences_of(text)) == 1, text
        assert fact.ask.endswith("?") and len(sentences_of(fact.ask)) == 1, fact.ask
        assert fact.claim[-1] not in ".?!", fact.claim


def test_the_registers_grow_longer_from_child_to_expert():
    lengths = [sum(len(words_of(fact.in_register(r))) for _, fact in FACTS) / len(FACTS) for r in REGISTERS]
    assert lengths == sorted(lengths) and lengths[2] > lengths[0] + 5


def test_all_text_is_plain_ascii_with_single_spaces():
    for topic in TOPICS:
        for text in all_texts(topic):
            assert text.isascii() and text.isprintable() and text == " ".join(text.split()), text


def test_a_couplet_ends_in_two_different_words_and_names_the_topic():
    for topic in TOPICS:
        for first, second in topic.poems:
            assert words_of(first)[-1] != words_of(second)[-1], (first, second)
        named = [
            poem
            for poem in topic.poems
            if topic.noun in " ".join(poem).lower() or topic.name.lower() in " ".join(poem).lower()
        ]
        assert named, topic.name


def test_the_invented_lines_of_the_file_are_what_the_kinds_draw():
    stored = read_data("world/topics.jsonl").decode().splitlines()
    drawn = [to_json_line(topic) for topic in invent(read_lines("kinds.jsonl"))]
    assert stored[-len(drawn) :] == drawn
    assert len(drawn) == sum(not t.real for t in TOPICS)


def test_another_seed_invents_other_facts():
    kinds = read_lines("kinds.jsonl")
    assert [t.facts for t in invent(kinds, 1)] != [t.facts for t in invent(kinds, 0)]


def test_things_of_one_kind_do_not_share_answers():
    for kind in {t.kind for t in TOPICS if not t.real}:
        same = [t for t in TOPICS if t.kind == kind]
        for facts in zip(*(t.facts for t in same)):
            assert len({fact.answer for fact in facts}) == len(same), (kind, facts[0].id)


def test_contested_facts_have_two_values_and_spread_frequencies():
    contested = load_contested()
    frequencies = [item.frequency for item in contested]
    assert len(contested) >= 8 and frequencies == sorted(frequencies)
    assert frequencies[0] == 0.5 and frequencies[-1] == 0.95
    for item in contested:
        assert len(set(item.values)) == 2 and item.ask.endswith("?") and len(item.plain) >= 5
        assert all(text.count("{name}") == 1 and text.count("{answer}") == 1 for text in item.plain), (
            item.name
        )


def test_a_broken_line_is_named_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "some.jsonl").write_text('{"a": 1}\n{"a": \n')
    monkeypatch.setattr(files, "DATA", tmp_path)
    with pytest.raises(
        ValueError,
        match=r"^data/world/some\.jsonl, line 2 is not JSON .*mend that "
        r"line$",
    ) as error:
        read_lines("some.jsonl")
    assert error.value.__suppress_context__
    with pytest.raises(FileNotFoundError, match="^data/world/other.jsonl is missing: restore it with `git"):
        read_lines("other.jsonl")


def test_the_moon_landing_has_what_a_childs_answer_needs_and_only_the_judge_knows_the_further_wordings():
    """The answer that the lecture wants tells of the rocket and of the rocks."""
    moon = next(t for t in TOPICS if t.name == "the moon landing")
    assert {"rocket", "rocks"} <= {f.id for f in moon.facts} and len(moon.stories) == 3
    further = [text for _, fact in FACTS for text in fact.also]
    documents = "\n".join(text for _, text in build_corpus(300_000))
    assert further and not [text for text in further if text in documents]
