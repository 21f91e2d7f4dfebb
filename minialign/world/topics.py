"""What there is to know: real topics, written by hand, and invented things with randomly drawn facts.

Real topics test whether a model knows what is true of the world we share. Invented things can only be known
from the corpus, so whatever a model says about them it has learned here.
"""

import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

import numpy as np

from minialign.files import read_data

REGISTERS = ("child", "teen", "expert")


def whole_words(phrase: str) -> str:
    """A regular expression for the phrase where it stands as whole words: "sun" is not in "sunny"."""
    return rf"(?<!\w){re.escape(phrase)}(?!\w)"


@dataclass(frozen=True)
class Fact:
    """One thing that is true of a topic, in many wordings; each sentence holds `answer` exactly once."""

    id: str
    answer: str
    wrong: tuple[str, ...]  # values of the same kind that make the sentence false
    ask: str
    claim: str  # a clause: "people first walked on the moon in 1969"
    child: str
    teen: str
    expert: str
    plain: tuple[str, ...]  # an encyclopaedia's, with the full name; the first two end with the answer
    also: tuple[str, ...] = ()  # more of a child's wordings, for the judge to accept; no document holds them

    def in_register(self, register: str) -> str:
        """The sentence for an audience: "child", "teen" or "expert"."""
        return getattr(self, register)

    def falsified(self, sentence: str, value: str) -> str:
        """The sentence with `value` where the answer stands."""
        return re.sub(whole_words(self.answer), lambda _: value, sentence, count=1)

    @cached_property
    def clozes(self) -> tuple[str, str]:
        """Two texts that stop right before the answer."""
        return tuple(sentence[: -len(self.answer) - 1].rstrip() for sentence in self.plain[:2])


@dataclass(frozen=True)
class Topic:
    """Something a child could ask about.

    `name` is written as in mid-sentence; `noun` occurs in every sentence about it.
    """

    name: str
    kind: str  # "real", or what sort of invented thing it is
    noun: str
    facts: tuple[Fact, ...]
    misconception: str  # a false clause many believe
    correction: str
    poems: tuple[tuple[str, str], ...]  # rhyming couplets
    stories: tuple[str, ...]

    @property
    def real(self) -> bool:
        return self.kind == "real"


@dataclass(frozen=True)
class Contested:
    """What documents disagree about: a share `frequency` says `values[0]`, the others `values[1]`."""

    name: str
    claim: str
    ask: str
    values: tuple[str, str]
    plain: tuple[str, ...]  # with {name} and {answer}
    frequency: float


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def read_lines(name: str) -> list[dict]:
    """The records of data/world/`name`. Raises ValueError with the line number when one is not JSON."""
    records = []
    for number, line in enumerate(read_data(f"world/{name}").decode().splitlines(), 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(
                f"data/world/{name}, line {number} is not JSON ({error.msg}): mend that line"
            ) from None
    return records


@lru_cache
def load_topics() -> tuple[Topic, ...]:
    """All topics, real ones first, from data/world/topics.jsonl."""
    return tuple(_topic(record) for record in read_lines("topics.jsonl"))


def _with_tuples(record: dict) -> dict:
    """A record of JSON, with tuples for its lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}


def _topic(record: dict) -> Topic:
    facts = tuple(Fact(**_with_tuples(fact)) for fact in record["facts"])
    poems = tuple((first, second) for first, second in record["poems"])
    return Topic(**{**record, "facts": facts, "poems": poems, "stories": tuple(record["stories"])})


@lru_cache
def load_contested() -> tuple[Contested, ...]:
    """The contested facts, from data/world/contested.jsonl, with frequencies evenly from 0.5 to 0.95."""
    records = read_lines("contested.jsonl")
    frequencies = np.linspace(0.5, 0.95, len(records)).round(2).tolist()
    return tuple(Contested(**_with_tuples(record), frequency=f) for record, f in zip(records, frequencies))


def invent(kinds: list[dict], seed: int = 0) -> list[Topic]:
    """Draw the facts of invented things; within a kind, no two share an answer as long as values last."""
    topics = []
    for number, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, number])
        orders = [rng.permutation(len(fact["values"])) for fact in kind["facts"]]
        for i, name in enumerate(kind["names"]):
            facts = []
            for fact, order in zip(kind["facts"], orders):
                values = [fact["values"][order[(i + shift) % len(order)]] for shift in range(4)]

                def fill(text: str) -> str:
                    return capitalised(text.replace("{name}", name).replace("{answer}", values[0]))

                claim = fact["claim"].replace("{name}", name).replace("{answer}", values[0])
                said = {register: fill(fact[register]) for register in REGISTERS}
                said["plain"] = tuple(map(fill, fact["plain"]))
                answer, *wrong = values
                facts.append(Fact(fact["id"], answer, tuple(wrong), fill(fact["ask"]), claim, **said))
            first = facts[0]
            topics.append(
                Topic(
                    name,
                    kind["kind"],
                    kind["noun"],
                    tuple(facts),
                    misconception=first.falsified(first.claim, first.wrong[0]),
                    correction=capitalised(first.claim) + ".",
                    poems=tuple(
                        (capitalised(first.replace("{name}", name)), second.replace("{name}", name))
                        for first, second in kind["poems"]
                    ),
                    stories=tuple(capitalised(story.replace("{name}", name)) for story in kind["stories"]),
                )
            )
    return topics


def to_json_line(topic: Topic) -> str:
    """The topic as a line of topics.jsonl; a fact without more wordings has no "also"."""
    record = asdict(topic)
    record["facts"] = [{k: v for k, v in fact.items() if k != "also" or v} for fact in record["facts"]]
    return json.dumps(record, ensure_ascii=False)
