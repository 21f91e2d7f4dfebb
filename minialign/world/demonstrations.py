"""Demonstrations: (prompt, response) pairs, written by people of different skill.

A demonstrator knows some of the facts, hits the audience's tone some of the time, and has habits. Nobody
writes all answers perfectly, and that is the point: a model that imitates them inherits their level and their
habits. About what lies outside the world they all say honestly that they do not know.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from minialign.world.phrases import FILLER, FLATTERY, IGNORANT, IGNORANT_OF_THIS, POLITE, SURE, UNSURE, Habit
from minialign.world.prompts import Prompt, prompts_of, topic_sorts
from minialign.world.topics import REGISTERS, Topic, load_topics
from minialign.world.typed import outside_prompts, typed_prompts

OPENING = 0.25  # share of the set phrases that stand before an answer; the others come after it
OUTSIDE, TYPED = 0.10, 0.25  # shares of the course's demonstrations
# Politeness where there is no answer: the other phrases promise one.
POLITE_WITHOUT_ANSWER = Habit(("Thank you for asking.",), ("You are welcome to ask again.",), POLITE.pattern)


@lru_cache
def known_topics() -> tuple[Topic, ...]:
    """The topics that demonstrations may speak of: all but the held-out ones."""
    sorts = topic_sorts()
    return tuple(t for t in load_topics() if sorts[t.name] != "held-out")


@dataclass(frozen=True)
class Demonstrator:
    """How one person writes. Everything is a probability, per answer unless it says per sentence."""

    knowledge: float = 1.0  # per fact: stated rightly
    completeness: float = 1.0  # that each further wanted fact is given
    register: float = 1.0  # per answer: in the words of the audience asked for
    manners: float = 1.0  # a polite phrase
    focus: float = 1.0  # no stray sentence about something else
    care: float = 1.0  # nothing said twice
    flattery: float = 0.0
    filler: float = 0.0
    overconfidence: float = 0.0
    hedging: float = 0.0

    @classmethod
    def at_skill(cls, skill: float) -> "Demonstrator":
        """A person of skill 0 (careless) to 1 (perfect), without exploitable habits.

        Raises ValueError outside [0, 1].
        """
        if not 0 <= skill <= 1:
            raise ValueError(f"skill is {skill}: choose a number from 0 to 1")

        def between(careless: float) -> float:
            return careless + (1 - careless) * skill

        return cls(between(0.6), between(0.1), between(0.25), between(0.0), between(0.75), between(0.6))

    def write(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """One answer to a prompt of the world, or to one about something outside it (family "other")."""
        polite, habits = (
            POLITE,
            (
                (FLATTERY, self.flattery),
                (FILLER, self.filler),
                (SURE, self.overconfidence),
                (UNSURE, self.hedging),
            ),
        )
        if prompt.topic is None:
            body = [_one(IGNORANT if prompt.thing else IGNORANT_OF_THIS, rng).format(thing=prompt.thing)]
            polite, habits = POLITE_WITHOUT_ANSWER, ((FLATTERY, self.flattery),)  # the others would be untrue
        elif prompt.family in ("poem", "story"):
            body = self._verse(prompt, rng)
        else:
            body = self._prose(prompt, rng)
        openers, closers = [], []
        for habit, rate in (*habits, (polite, self.manners)):
            if rng.random() < rate:
                (openers if rng.random() < OPENING else closers).append(habit)
        opening = [_one(habit.openers, rng) for habit in reversed(openers)]
        closing = [_one(habit.closers, rng) for habit in closers]
        if prompt.family == "poem":  # a poem keeps its lines
            return "\n".join(filter(None, (" ".join(opening), *body, " ".join(closing))))
        return " ".join([*opening, *body, *closing])

    def _state(self, fact, register: str, rng) -> str:
        """A fact in the given register, wrong with probability 1 − knowledge."""
        sentence = fact.in_register(register)
        return sentence if rng.random() < self.knowledge else fact.falsified(sentence, _one(fact.wrong, rng))

    def _prose(self, prompt: Prompt, rng) -> list[str]:
        topic, audience = prompt.topic, prompt.audience
        if audience is None:
            register = _one(REGISTERS, rng)
        elif rng.random() < self.register:
            register = audience
        else:
            register = _one([r for r in REGISTERS if r != audience], rng)
        if prompt.family == "question":
            body = [self._state(topic.facts[prompt.fact], register, rng)]
        elif prompt.family == "truth":
            body = self._verdict(prompt, register, rng)
        else:
            order = rng.permutation(len(topic.facts))
            n = 1 + rng.binomial(2, self.completeness)
            body = [self._state(topic.facts[i], register, rng) for i in order[:n]]
        if rng.random() > self.care:
            body.append(body[-1])
        if rng.random() > self.focus:
            stray = _one([t for t in known_topics() if t is not topic and t.real], rng)
            body.append(_one(stray.facts, rng).in_register(register))
        return body

    def _verdict(self, prompt: Prompt, register: str, rng) -> list[str]:
        topic, knows = prompt.topic, rng.random() < self.knowledge
        body = ["Yes." if prompt.claim_holds == knows else "No."]
        if rng.random() < self.completeness:
            fact = topic.facts[prompt.fact] if prompt.fact is not None else None
            if knows:
                body.append(topic.correction if fact is None else fact.in_register(register))
            elif fact is not None:
                body.append(fact.falsified(fact.in_register(register), _one(fact.wrong, rng)))
        return body

    def _verse(self, prompt: Prompt, rng) -> list[str]:
        topic = prompt.topic
        if prompt.family == "story":
            return [_one(topic.stories, rng)]
        if rng.random() < self.care:
            return list(_one(topic.poems, rng))
        first, second = rng.choice(len(topic.poems), 2, replace=False)  # two lines that do not rhyme
        return [topic.poems[first][0], topic.poems[second][1]]


def crowd(n: int = 24, seed: int = 0) -> list[Demonstrator]:
    """The people who wrote the course's demonstrations, of mixed skill.

    They have some exploitable habits, in 5–15 % of answers each.
    """
    rng = np.random.default_rng(seed)
    return [
        replace(
            Demonstrator.at_skill(skill),
            knowledge=0.88 + 0.12 * skill,
            flattery=0.10,
            filler=0.12,
            overconfidence=0.10,
            hedging=0.06,
        )
        for skill in rng.uniform(0.25, 0.9, n)
    ]


@dataclass(frozen=True)
class Demonstration:
    prompt: Prompt
    response: str
    author: int  # index of the demonstrator


def demonstrate(
    prompts: Sequence[Prompt], n: int, people: list[Demonstrator] | None = None, seed: int | list[int] = 0
) -> list[Demonstration]:
    """n demonstrations over the prompts, in rounds: every prompt once before any is answered twice.

    Raises ValueError when there are no prompts or no people.
    """
    people = crowd() if people is None else people
    if not prompts or not people:
        raise ValueError("demonstrations need at least one prompt and one demonstrator")
    rng = np.random.default_rng(seed)
    written = []
    while len(written) < n:
        for i in rng.permutation(len(prompts))[: n - len(written)]:
            author = int(rng.integers(len(people)))
            written.append(Demonstration(prompts[i], people[author].write(prompts[i], rng), author))
    return written


def known_prompts() -> list[Prompt]:
    """The world's "sft" prompts, less those about things that no document speaks of."""
    return [p for p in prompts_of("sft") if topic_sorts()[p.topic.name] == "sft"]


def course_demonstrations(n: int, seed: int = 0) -> list[Demonstration]:
    """The n demonstrations that the course's models are fine-tuned on, by its crowd, in random order.

    A tenth asks for things outside the world, a quarter asks in a person's own words, the others are the
    world's "sft" prompts about things that the corpus speaks of: who is shown answers about what they have
    never heard of learns to invent (Gekhman et al. 2024). Of each sort, every prompt is answered once before
    any is answered twice.
    """
    outside, typed = round(OUTSIDE * n), round(TYPED * n)
    written = [
        *demonstrate(outside_prompts("sft"), outside, seed=[seed, 0]),
        *demonstrate(typed_prompts("sft"), typed, seed=[seed, 1]),
        *demonstrate(known_prompts(), n - outside - typed, seed=[seed, 2]),
    ]
    return [written[i] for i in np.random.default_rng([seed, 3]).permutation(n)]


def _one(choices, rng):
    return choices[rng.integers(len(choices))]
