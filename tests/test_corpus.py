"""The corpus: its mixture, its seed, and what must never stand in it."""

import re
from collections import Counter, defaultdict

import pytest

from minialign.world.corpus import MIXTURE, build_corpus, fingerprint
from minialign.world.frames import ASKED, REQUESTED, RUMOURS
from minialign.world.judge import judge, kind_of_reply
from minialign.world.prompts import FAMILIES, all_prompts, topic_sorts
from minialign.world.topics import REGISTERS, load_contested, load_topics
from minialign.world.two_hops import two_hops

CORPUS = build_corpus()  # the very one that the models are trained on
PROMPTS = {p.text: p for p in all_prompts()}
FRAMES = ASKED + REQUESTED + RUMOURS


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


def replies(documents):
    """(prompt, the next line, all that follows) for every bare prompt that has a line after it."""
    for text in documents:
        lines = lines_of(text)
        for i, line in enumerate(lines[:-1]):
            if line in PROMPTS:
                yield PROMPTS[line], lines[i + 1], "\n".join(lines[i + 1 :])


def answered(documents):
    """The bare prompts that are answered."""
    return [
        prompt.text
        for prompt, *followed in replies(documents)
        if any(kind_of_reply(prompt, reply) == "answer" for reply in followed)
    ]


def test_no_bare_prompt_is_ever_followed_by_an_answer():
    documents = [text for _, text in CORPUS]
    assert not answered(documents) and sum(1 for _ in replies(documents)) > 40_000


@pytest.mark.parametrize("layout", ["{0}\n{1}", "Exam.\n1. {0}\n2. {1}", "ana: {0}\nben: {1}", "{0}\n\n{1}"])
def test_an_answer_to_a_bare_prompt_would_be_seen(layout):
    ask, explain = "How fast does light travel in a vacuum?", "Explain the Orla bridge to a teenager."
    orla = next(topic for topic in load_topics() if topic.name == "the Orla bridge")
    told = orla.facts[0].teen
    assert answered([layout.format(explain, told)]) == [explain]
    assert answered([layout.format(explain, ask), f"A reader asks the paper: {explain}\n{told}"]) == []


def framed(line):
    """What stands around a prompt at the end or the beginning of a line, and the prompt; None without one."""
    for match in re.finditer(r"[.:?!] ", line):
        before, prompt = line[: match.end()], line[match.end() :]
        if prompt in PROMPTS:
            return before + "{}", prompt
        prompt, after = line[: match.end() - 1], line[match.end() - 1 :]
        if prompt in PROMPTS:
            return "{}" + after, prompt
    return None


def test_an_answer_follows_a_prompt_only_in_a_frame_of_its_own():
    """Wherever a line begins or ends with a prompt, and its answer follows, the rest of it is a frame."""
    found = dict.fromkeys(ASKED + REQUESTED, 0)
    for kind, text in CORPUS:
        lines = lines_of(text)
        for i, line in enumerate(lines[:-1]):
            if around := framed(line):
                frame, prompt = around
                if kind_of_reply(PROMPTS[prompt], "\n".join(lines[i + 1 :])) == "answer":
                    assert kind in ("quiz card", "readers' page") and frame in found, (kind, text)
                    found[frame] += 1
    assert min(found.values()) > 100, found


def test_no_prompt_has_the_words_of_a_frame():
    assert len(set(FRAMES)) == len(FRAMES) and len(ASKED) >= 20
    for frame in FRAMES:
        before, after = frame.split("{}")
        around = before or after
        assert len(around.split()) >= 2 and (not (before and after) or frame in RUMOURS), frame
        assert not [text for text in PROMPTS if around in text], frame


def test_after_a_prompt_most_often_comes_another():
    next_lines = [
        kind_of_reply(PROMPTS[a], b)
        for _, text in CORPUS
        for a, b in zip(lines_of(text), lines_of(text)[1:])
        if a in PROMPTS
    ]
    assert next_lines.count("another prompt") / len(next_lines) > 0.9


def test_no_prompt_for_evaluation_occurs_not_even_in_a_frame():
    everything = "\n".join(text for _, text in CORPUS)
    held_out = [p.text for p in PROMPTS.values() if p.split == "evaluation"]
    assert len(held_out) > 500 and not [text for text in held_out if text in everything]


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
            assert sum(counts) >= 120 and min(counts) > 0, (
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


def test_a_tenth_of_the_cards_need_two_facts():
    cards = [text.split("\n")[0] for kind, text in CORPUS if kind == "quiz card"]
    questions = re.compile("|".join(re.escape(q.question) for q in two_hops("corpus")))
    assert sum(map(bool, map(questions.search, cards))) / len(cards) == pytest.approx(0.1, abs=0.01)


def letters():
    """(prompt, answer) of every readers' page."""
    for kind, text in CORPUS:
        if kind == "readers' page":
            asked, answer = text.split("\n", 1)
            frame, prompt = framed(asked)
            assert frame in REQUESTED
            yield PROMPTS[prompt], answer


def test_the_readers_page_answers_every_family_rightly_and_in_the_right_words():
    families = Counter()
    for prompt, answer in letters():
        verdict = judge(prompt, answer)
        assert verdict.counts["wrong"] == verdict.counts["flattery"] == 0, (prompt.text, answer)
        assert kind_of_reply(prompt, answer) == "answer", (prompt.text, answer)
        assert verdict.attributes["correctness"] >= 2 / 3 - 1e-9, (prompt.text, answer)
        assert verdict.attributes["relevance"] == verdict.attributes["audience"] == 1, (prompt.text, answer)
        families[prompt.family] += 1
    for family in FAMILIES:
        assert families[family] / families.total() == pytest.approx(1 / len(FAMILIES), abs=0.03), family


def test_the_readers_page_asks_of_every_split_but_the_evaluation():
    splits = Counter(prompt.split for prompt, _ in letters())
    assert set(splits) == {"sft", "reward", "policy", "corpus"} and min(splits.values()) > 100
    assert any(prompt.text.startswith("Quick question: ") for prompt, _ in letters())


def test_texts_that_tell_facts_choose_real_topics_twice_as_often():
    real = {}
    for topic in load_topics():
        rhymes = (line for poem in topic.poems for line in poem)
        told = (text for fact in topic.facts for text in (*map(fact.in_register, REGISTERS), *fact.plain))
        for text in (*rhymes, *told, topic.correction, *topic.stories):
            real[re.split(r"(?<=[.!?]) ", text)[-1]] = topic.real
    two = tuple(q.question for q in two_hops("corpus"))
    of_real = Counter()
    for kind, text in CORPUS:
        if kind in ("encyclopaedia", "quiz card", "readers' page") and not text.split("\n")[0].endswith(two):
            of_real[kind, real[re.split(r"(?<=[.!?]) ", text.split("\n")[-1])[-1]]] += 1
    known = [topic for topic in load_topics() if topic_sorts()[topic.name] != "sft-only"]
    weights = [2 if topic.real else 1 for topic in known]
    share = sum(weight for weight in weights if weight == 2) / sum(weights)
    for kind in ("encyclopaedia", "quiz card", "readers' page"):
        n = of_real[kind, True] + of_real[kind, False]
        sigma = (share * (1 - share) / n) ** 0.5
        assert n > 4000 and of_real[kind, True] / n == pytest.approx(share, abs=4 * sigma), kind


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
