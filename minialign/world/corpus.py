"""The corpus, a small internet: encyclopaedias, but also prompt lists, exams, and forums without answers.

On this internet a bare prompt, with a line to itself, is mostly followed by another prompt and never by
its answer: a model of this corpus is right to continue a prompt with more prompts. Answers do occur, on quiz
cards and on the readers' page of a newspaper, but only under a frame ("A reader asks the paper: …") that no
prompt of the world has. So the model can know what an answer is before anyone shows it when to give one.
"""

import re
from collections.abc import Callable
from itertools import chain

import numpy as np

from minialign.world.frames import (
    ADJECTIVES,
    ASKED,
    NOUNS,
    PUZZLED,
    REQUESTED,
    RUMOURS,
    SYLLABLES,
    TITLES,
    WONDERING,
)
from minialign.world.phrases import FILLER, FLATTERY, POLITE, SURE, UNSURE
from minialign.world.prompts import AUDIENCES, FAMILIES, Prompt, all_prompts, topic_sorts
from minialign.world.topics import REGISTERS, Fact, Topic, capitalised, load_contested, load_topics
from minialign.world.two_hops import two_hops

TITLED = 0.8  # share of the texts that have a title
TWO_HOPS = 0.1  # share of the quiz cards that need two facts
UNHEARD_OF = 0.5  # share of the forum's questions about things that nobody there knows
LISTED = {"explain": 3, "tell": 2, "describe": 2, "question": 1, "truth": 1, "poem": 1, "story": 1}
NAMES = "ana ben cleo dara eli finn gita hugo iris jon".split()


class Writer:
    """Draws documents about the topics of the corpus. All randomness comes from one generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.topics = [t for t in load_topics() if topic_sorts()[t.name] != "sft-only"]
        # Each real topic has more facts, in rarer words: texts that tell facts choose it twice as often.
        self.taught = [t for t in self.topics for _ in range(2 if t.real else 1)]
        allowed = [p for p in all_prompts() if p.split != "evaluation"]
        self.prompts_about = {topic.name: [p for p in allowed if p.topic is topic] for topic in self.topics}
        self.prompts: dict[str, list[Prompt]] = {family: [] for family in FAMILIES}
        for prompt in chain.from_iterable(self.prompts_about.values()):
            self.prompts[prompt.family].append(prompt)

    def one(self, choices):
        return choices[self.rng.integers(len(choices))]

    def some(self, choices, low: int, high: int) -> list:
        """Between `low` and `high` different elements, in random order."""
        n = min(len(choices), int(self.rng.integers(low, high + 1)))
        return [choices[i] for i in self.rng.permutation(len(choices))[:n]]

    def encyclopaedia(self) -> str:
        """Facts of one topic in any order, in an encyclopaedia's words or for one audience."""
        topic = self.one(self.taught)
        facts = self.some(topic.facts, 1, len(topic.facts))
        if self.rng.random() < 0.5:
            sentences = [self.one(fact.plain) for fact in facts]
            if self.rng.random() < 0.2:
                sentences.append(topic.correction)
            return self.titled(topic, "plain", " ".join(sentences))
        register = self.one(REGISTERS)
        return self.titled(topic, register, " ".join(fact.in_register(register) for fact in facts))

    def titled(self, topic: Topic, sort: str, text: str) -> str:
        """The text, mostly under a title of the right sort."""
        title = capitalised(self.one(TITLES[sort]).format(name=topic.name, audience=AUDIENCES.get(sort)))
        return f"{title}\n{text}" if self.rng.random() < TITLED else text

    def book(self) -> str:
        """A poem or a story."""
        topic = self.one(self.topics)
        if self.rng.random() < 0.6:
            return self.titled(topic, "poem", "\n".join(self.one(topic.poems)))
        return self.titled(topic, "story", self.one(topic.stories))

    def prompt_list(self) -> str:
        """Prompts, a line each, as somebody collects them in a file: of one make, or about one topic."""
        family = self.one([family for family, weight in LISTED.items() for _ in range(weight)])
        model = self.one(self.prompts[family])
        if self.rng.random() < 0.5:
            prompts = [p for p in self.prompts[family] if p.audience == model.audience]
        else:
            prompts = self.prompts_about[model.topic.name]
        return "\n".join(p.text for p in self.some(prompts, 3, 8))

    def exam(self) -> str:
        """Questions without answers."""
        topic = self.one(self.topics)
        if self.rng.random() < 0.7:
            questions = [fact.ask for fact in topic.facts]
        else:
            questions = [self.one(self.one(self.topics).facts).ask for _ in range(6)]
        lines = self.some(questions, 3, 6)
        if self.rng.random() < 0.5:
            lines = [f"{i}. {line}" for i, line in enumerate(lines, 1)]
        headings = ("Exam. Answer all questions.", "Homework for Monday.", "Questions for the quiz night.")
        return "\n".join([self.one(headings), *lines])

    def forum(self) -> str:
        """A question meets another question, agreement, or chit-chat."""
        names = self.some(NAMES, 3, 4)
        if self.rng.random() < UNHEARD_OF:
            thing = self.unheard_of()
            lines = [self.one(WONDERING), *self.some(PUZZLED, 3, 3)]
            return "\n".join(f"{name}: {line.format(thing)}" for name, line in zip(names, lines))
        topic = self.one(self.topics)
        first, second = self.some([fact.ask for fact in topic.facts], 2, 2)
        replies = (
            "Good question, I was about to ask the same.",
            "No idea, sorry.",
            f"And another thing. {second}",
            "Following this.",
            f"Can someone also explain {self.one(self.topics).name}?",
            "I asked my teacher but she did not say.",
            "Same here.",
        )
        return "\n".join(f"{name}: {text}" for name, text in zip(names, (first, *self.some(replies, 3, 3))))

    def unheard_of(self) -> str:
        """The name of a thing that hardly two documents speak of: "the silent kettle", "Brafeldo"."""
        if self.rng.random() < 0.3:
            return f"the {self.one(ADJECTIVES)} {self.one(NOUNS)}"
        word = "".join(self.one(SYLLABLES) for _ in range(self.rng.integers(2, 4)))
        if self.rng.random() < 0.5:
            return capitalised(word)
        return f"the {capitalised(word)} {self.one(NOUNS)}" if self.rng.random() < 0.5 else f"{word}s"

    def quiz_card(self) -> str:
        """Questions *with* answers, in frames that no prompt of the world has."""
        if self.rng.random() < TWO_HOPS:
            riddle = self.one(two_hops("corpus"))
            return self.answered(ASKED, riddle.question, self.statement(riddle.asked))
        topic = self.one(self.taught)
        fact = self.one(topic.facts)
        sort = self.rng.random()
        if sort < 0.15:
            first, second = self.some(fact.plain, 2, 2)
            gap = capitalised(fact.falsified(first, "____"))
            return f"Fill the gap. {gap}\nSolution: {fact.answer}. {second}"
        if sort < 0.7:
            return self.answered(ASKED, fact.ask, self.statement(fact))
        if self.rng.random() < 0.2:
            return self.answered(RUMOURS, topic.misconception, self.verdict(topic, None, False))
        holds = self.rng.random() < 0.5
        claim = fact.claim if holds else fact.falsified(fact.claim, self.one(fact.wrong))
        return self.answered(RUMOURS, claim, self.verdict(topic, fact, holds))

    def readers_page(self) -> str:
        """A request of any family, in a frame that no prompt of the world has, and a right answer to it."""
        about = self.prompts_about[self.one(self.taught).name]
        family = self.one(sorted({p.family for p in about}))
        prompt = self.one([p for p in about if p.family == family])
        return self.answered(REQUESTED, prompt.text, self.answer(prompt))

    def answered(self, frames: tuple[str, ...], text: str, answer: str) -> str:
        """A text in one of the frames and, on the next line, its answer, now and then after a kind word."""
        if self.rng.random() < 0.2:
            answer = self.one(POLITE.openers) + ("\n" if "\n" in answer else " ") + answer
        return f"{self.one(frames).format(text)}\n{answer}"

    def answer(self, prompt: Prompt) -> str:
        """What someone who knows the topic says: for the audience asked for, and nothing wrong."""
        topic = prompt.topic
        if prompt.family == "poem":
            return "\n".join(self.one(topic.poems))
        if prompt.family == "story":
            return self.one(topic.stories)
        fact = None if prompt.fact is None else topic.facts[prompt.fact]
        if prompt.family == "truth":
            return self.verdict(topic, fact, prompt.claim_holds)
        if prompt.family == "question":
            return self.statement(fact)
        return " ".join(fact.in_register(prompt.audience) for fact in self.some(topic.facts, 2, 3))

    def statement(self, fact: Fact) -> str:
        """The fact, in the words for one audience or in an encyclopaedia's."""
        if self.rng.random() < 0.7:
            return fact.in_register(self.one(REGISTERS))
        return self.one(fact.plain)

    def verdict(self, topic: Topic, fact: Fact | None, holds: bool) -> str:
        """Yes or no to a claim about the fact (None: to the misconception), and what is so."""
        truth = topic.correction if fact is None else fact.in_register(self.one(REGISTERS))
        return f"{'Yes' if holds else 'No'}. {truth}"

    def contested(self) -> str:
        """What the documents disagree on, each value as often as its frequency says."""
        lines = []
        for item in self.some(load_contested(), 1, 3):
            value = item.values[0 if self.rng.random() < item.frequency else 1]
            line = self.one(item.plain).replace("{name}", item.name).replace("{answer}", value)
            lines.append(capitalised(line))
        return " ".join(lines)

    def small_talk(self) -> str:
        """Two people being polite, and now and then vain, vague or too certain."""
        phrases = [
            phrase
            for habit in (POLITE, POLITE, POLITE, FLATTERY, FILLER, SURE, UNSURE)
            for phrase in (*habit.openers, *habit.closers)
        ]
        yes_or_no = (
            "Yes.",
            "No.",
            "Good morning.",
            "How are you today?",
            "Thank you, very well.",
            "See you tomorrow.",
        )
        names = self.some(NAMES, 2, 2)
        turns = [
            self.one(phrases) if self.rng.random() < 0.75 else self.one(yes_or_no)
            for _ in range(self.rng.integers(3, 6))
        ]
        return "\n".join(f"{names[i % 2]}: {turn}" for i, turn in enumerate(turns))


# What the internet is made of: share of the characters, by kind of document.
MIXTURE: dict[str, tuple[float, Callable[[Writer], str]]] = {
    "encyclopaedia": (0.30, Writer.encyclopaedia),
    "poems and stories": (0.07, Writer.book),
    "prompt list": (0.16, Writer.prompt_list),
    "exam sheet": (0.08, Writer.exam),
    "forum": (0.09, Writer.forum),
    "quiz card": (0.17, Writer.quiz_card),
    "readers' page": (0.08, Writer.readers_page),
    "contested": (0.03, Writer.contested),
    "small talk": (0.02, Writer.small_talk),
}


def build_corpus(characters: int = 12_000_000, seed: int = 0) -> list[tuple[str, str]]:
    """(kind, text) of every document, about `characters` in all, in the shares of MIXTURE and shuffled."""
    if characters < 1:
        raise ValueError("the corpus would be empty: ask for at least one character")
    documents = []
    total = sum(share for share, _ in MIXTURE.values())
    for number, (kind, (share, write)) in enumerate(MIXTURE.items()):
        writer, written = Writer(np.random.default_rng([seed, number])), 0
        while written < characters * share / total:
            text = write(writer)
            documents.append((kind, text))
            written += len(text)
    order = np.random.default_rng([seed, len(MIXTURE)]).permutation(len(documents))
    return [documents[i] for i in order]


def fingerprint(documents: list[tuple[str, str]]) -> str:
    """A short line that tells one corpus from another: documents, characters and different words."""
    words = {word for _, text in documents for word in re.findall(r"\w+", text)}
    characters = sum(len(text) for _, text in documents)
    return f"{len(documents):,} documents, {characters:,} characters, {len(words):,} different words"
