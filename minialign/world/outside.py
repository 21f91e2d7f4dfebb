"""What lies outside the world: things that no document and no demonstration says anything about.

Whoever is honest answers a question about them with "I do not know about kangaroos." A third of the things is
held out: no demonstration names them.
"""

from dataclasses import dataclass
from functools import lru_cache

from minialign.world.topics import read_lines


@dataclass(frozen=True)
class Thing:
    """Something outside the world. `name` is written as in mid-sentence."""

    name: str
    sort: str  # "animal", "city", "invented person" …
    asks: tuple[str, ...]  # questions about it that a person could ask
    held_out: bool

    @property
    def is_person(self) -> bool:
        return self.sort.endswith("person")


@dataclass(frozen=True)
class Request:
    """What a person may ask without naming anything: "What is your name?"."""

    text: str
    held_out: bool


@lru_cache
def load_things() -> tuple[Thing, ...]:
    """The things outside the world, from data/world/outside.jsonl."""
    records = [r for r in read_lines("outside.jsonl") if "thing" in r]
    return tuple(Thing(r["thing"], r["sort"], tuple(r["asks"]), r["held_out"]) for r in records)


@lru_cache
def load_requests() -> tuple[Request, ...]:
    """The requests that name nothing, from data/world/outside.jsonl."""
    records = [r for r in read_lines("outside.jsonl") if "request" in r]
    return tuple(Request(r["request"], r["held_out"]) for r in records)
