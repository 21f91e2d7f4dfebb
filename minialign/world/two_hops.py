"""Questions that need two facts: one tells which thing is meant, another is asked about that thing.

"In which year did the bridge made of granite open?" No document says it in one sentence: a model must find
the bridge by the first fact and then recall the second. The corpus asks, and answers, some combinations; the
others are the probe, and no text of the world asks them. What is held out is the combination: both facts are
in the corpus, and the words for a thing may lead to another question there.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minialign.world.prompts import topic_sorts
from minialign.world.topics import Fact, Topic, load_topics, read_lines

SPLITS = ("corpus", "probe")
HELD_OUT = 4 / 9  # share of the things, for each pair of facts, whose combination is left to the probe


@dataclass(frozen=True)
class TwoHops:
    """A question about an invented thing that it does not name."""

    question: str
    topic: Topic
    facts: tuple[int, int]  # the one that picks the thing, and the one asked for

    @property
    def asked(self) -> Fact:
        return self.topic.facts[self.facts[1]]

    @property
    def answer(self) -> str:
        return self.asked.answer


def clause(kind: dict, topic: Topic, fact: int) -> str:
    """Words that mean the topic by one of its facts: "the bridge made of granite"."""
    return kind["facts"][fact]["which"].replace("{answer}", topic.facts[fact].answer)


@lru_cache
def two_hops(split: str) -> tuple[TwoHops, ...]:
    """The questions of one split, in a fixed order, about the invented things that the corpus speaks of.

    Raises ValueError for a split that does not exist.
    """
    if split not in SPLITS:
        raise ValueError(
            f"there is no split {split!r} of two-hop questions: choose one of {', '.join(SPLITS)}"
        )
    questions, rng = [], np.random.default_rng(16)
    for kind in read_lines("kinds.jsonl"):
        things = [t for t in load_topics() if t.kind == kind["kind"] and topic_sorts()[t.name] != "sft-only"]
        held_out = round(HELD_OUT * len(things))
        pairs = [(i, j) for i in range(len(kind["facts"])) for j in range(len(kind["facts"])) if i != j]
        for i, j in pairs:
            order = rng.permutation(len(things))
            for number in order[:held_out] if split == "probe" else order[held_out:]:
                question = kind["facts"][j]["ask"].replace("{name}", clause(kind, things[number], i))
                questions.append(TwoHops(question, things[number], (i, j)))
    return tuple(questions)
