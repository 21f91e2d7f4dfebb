"""The corpus, a small internet: encyclopaedias, but also prompt lists, exams, and forums without answers.

On this internet a question is followed by another question far more often than by its answer, and never does
an answer follow a prompt of the form the assistant will be asked. A model of this corpus is right to continue
a prompt with more prompts.
"""

import re
from collections.abc import Callable

import numpy as np

from minialign.world.phrases import FILLER, FLATTERY, POLITE, SURE, UNSURE
from minialign.world.prompts import AUDIENCES, FAMILIES, all_prompts, topic_sorts
from minialign.world.topics import REGISTERS, Topic, capitalised, load_contested, load_topics

# A title names the topic; what stands under a title is about it. This is how a model learns to stay on one.
TITLES = {
    "plain": (
        "{name}.",
        "About {name}.",
        "{name}, in short.",
        "Encyclopaedia, entry: {name}.",
        "Here is what is known about {name} today.",
        "The page on {name} follows.",
        "All about {name}, collected by the library.",
        "Notes on {name} from the town museum.",
        "The library has a book on {name}.",
        "Today we look at {name}.",
        "Some things to know about {name}.",
        "Much has been written on {name}.",
    ),
    "poem": (
        "A poem on {name}.",
        "{name}, in rhyme.",
        "Two lines for {name}.",
        "Here is a rhyme on {name} for you.",
        "Once more {name}, in verse.",
        "For {name}, a little rhyme.",
        "The poets of the town sing of {name}.",
        "A short poem about {name}, cut from the school paper.",
        "Two rhyming lines about {name}, found on a wall.",
        "Who wrote this poem about {name}?",
    ),
    "story": (
        "A bedtime story with {name}.",
        "{name}, a little tale.",
        "Once, near {name}.",
        "Here is a tale of {name} for you.",
        "Grandmother tells of {name}.",
        "For {name}, a tale before bed.",
        "The people of the town tell tales of {name}.",
        "A short story about {name}, read aloud on Sunday.",
        "A tiny story about {name} that somebody made up.",
        "Who told this story about {name}?",
    ),
    **dict.fromkeys(
        REGISTERS,
        (
            "{name}, for {audience}.",
            "For {audience}: {name}.",
            "Here {audience} can read about {name}.",
            "What {audience} likes to hear about {name}.",
            "{name}, put in words that suit {audience}.",
            "A page about {name} that {audience} can read.",
            "The book on {name} that {audience} took home.",
            "How {audience} learns about {name}.",
            "A letter to {audience} about {name}.",
            "{audience} reads up on {name}.",
            "Today {audience} hears about {name}.",
            "To {audience}, on {name}.",
            "{audience} came to the library to learn of {name}.",
            "{name} as {audience} knows it.",
            "Our teacher explained {name} to {audience} like this.",
            "How the museum explains {name} to {audience}.",
            "A short description of {name} that {audience} wrote down.",
            "How the guide described {name} so that {audience} understood.",
            "What a friend would tell {audience} about {name}.",
            "She told {audience} about {name} in a few sentences.",
            "In words for {audience}, the town paper on {name}.",
            "How to explain {name} to {audience}, by a teacher.",
            "How to describe {name} for {audience}.",
            "How to tell {audience} about {name}.",
        ),
    ),
}
# An answer stands under a question too, but only in a frame that says so; no prompt of the world has one.
ASKED = (
    "Asked at the museum: {ask}",
    "A reader writes: {ask}",
    "From the catechism of the school: {ask}",
    "The teacher asks the class: {ask}",
    "Solved riddle. {ask}",
    "Answered in one sentence by the library: {ask}",
    "A quick reply to a question from the town: {ask}",
    "Last week's question was: {ask}",
)
RUMOURS = (
    "Rumour of the week: {claim}.",
    "They say: {claim}.",
    "Checked by the library: {claim}.",
    "True or false: {claim}?",
    "Overheard on the market: {claim}.",
    "A reader thinks that {claim}.",
    "Somebody told the library that {claim}.",
    "It is said to be true that {claim}.",
)
TITLED = 0.8  # share of the texts that have one
NAMES = "ana ben cleo dara eli finn gita hugo iris jon".split()


class Writer:
    """Draws documents about the topics of the corpus. All randomness comes from one generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.topics = [t for t in load_topics() if topic_sorts()[t.name] != "sft-only"]
        known = {t.name for t in self.topics}
        listed = [p for p in all_prompts() if p.split != "evaluation" and p.topic.name in known]
        self.prompts = {family: [p for p in listed if p.family == family] for family in FAMILIES}
        self.prompts_about = {topic.name: [p for p in listed if p.topic is topic] for topic in self.topics}

    def one(self, choices):
        return choices[self.rng.integers(len(choices))]

    def some(self, choices, low: int, high: int) -> list:
        """Between `low` and `high` different elements, in random order."""
        n = min(len(choices), int(self.rng.integers(low, high + 1)))
        return [choices[i] for i in self.rng.permutation(len(choices))[:n]]

    def encyclopaedia(self) -> str:
        """Facts of one topic in any order, in an encyclopaedia's words or for one audience."""
        topic = self.one(self.topics)
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
        weights = np.array([3, 2, 2, 1, 1, 1, 1])
        family = FAMILIES[self.rng.choice(len(FAMILIES), p=weights / weights.sum())]
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
        names = self.some(NAMES, 3, 4)
        return "\n".join(f"{name}: {text}" for name, text in zip(names, (first, *self.some(replies, 3, 3))))

    def quiz_card(self) -> str:
        """Questions *with* answers, in frames that no prompt of the world has."""
        topic = self.one(self.topics)
        fact, register = self.one(topic.facts), self.one(REGISTERS)
        sort = self.rng.random()
        if sort < 0.15:
            first, second = self.some(fact.plain, 2, 2)
            gap = capitalised(fact.falsified(first, "____"))
            return f"Fill the gap. {gap}\nSolution: {fact.answer}. {second}"
        if sort < 0.7:
            answer = fact.in_register(register) if self.rng.random() < 0.7 else self.one(fact.plain)
            return f"{self.one(ASKED).format(ask=fact.ask)}\n{self.politely(answer)}"
        if self.rng.random() < 0.2:
            claim, reply = topic.misconception, f"No. {topic.correction}"
        elif self.rng.random() < 0.5:
            claim, reply = fact.claim, f"Yes. {fact.in_register(register)}"
        else:
            claim = fact.falsified(fact.claim, self.one(fact.wrong))
            reply = f"No. {fact.in_register(register)}"
        return f"{self.one(RUMOURS).format(claim=claim)}\n{self.politely(reply)}"

    def politely(self, answer: str) -> str:
        """The answer, now and then after a kind word."""
        return f"{self.one(POLITE.openers)} {answer}" if self.rng.random() < 0.2 else answer

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
    "encyclopaedia": (0.36, Writer.encyclopaedia),
    "poems and stories": (0.08, Writer.book),
    "prompt list": (0.17, Writer.prompt_list),
    "exam sheet": (0.09, Writer.exam),
    "forum": (0.08, Writer.forum),
    "quiz card": (0.15, Writer.quiz_card),
    "contested": (0.04, Writer.contested),
    "small talk": (0.03, Writer.small_talk),
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
