"""What people ask: every prompt of the world, and which part of the course may see it.

Prompts are split by topic *and* by template. Topics are of three sorts: `sft` (in the corpus and in the
demonstrations), `held-out` (in the corpus only) and `sft-only` (in the demonstrations only). One template of
each family is held out too.
"""

import re
import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from minialign.world.outside import load_things
from minialign.world.topics import Topic, load_topics

AUDIENCES = {"child": "a six-year-old", "teen": "a teenager", "expert": "an expert"}

# The last template of each family is held out of fine-tuning.
TEMPLATES = {
    "explain": (
        "Explain {topic} to {audience} in a few sentences.",
        "Explain {topic} to {audience}.",
        "Explain {topic} in words for {audience}.",
    ),
    "tell": (
        "Tell {audience} about {topic}.",
        "Tell me about {topic} as if I were {audience}.",
        "What would you tell {audience} about {topic}?",
    ),
    "describe": (
        "Describe {topic} for {audience}.",
        "Describe {topic} so that {audience} understands.",
        "Give {audience} a short description of {topic}.",
    ),
    "question": ("{ask}", "Answer in one sentence: {ask}", "Quick question: {ask}"),
    "truth": (
        "Is it true that {claim}?",
        "I think that {claim}. Is that right?",
        "Someone told me that {claim}. Is that correct?",
    ),
    "poem": (
        "Write a short poem about {topic}.",
        "Write two rhyming lines about {topic}.",
        "Make up a poem about {topic}.",
    ),
    "story": (
        "Tell a short story about {topic}.",
        "Write a tiny story about {topic}.",
        "Make up a story about {topic}.",
    ),
}
FAMILIES = tuple(TEMPLATES)
MOON_LANDING = "Explain the moon landing to a six-year-old in a few sentences."
SPLITS = ("sft", "reward", "policy", "evaluation", "corpus")


@dataclass(frozen=True)
class Prompt:
    """A prompt and what the world knows about it."""

    text: str
    family: str  # one of FAMILIES, or "other" for a text that fits none
    topic: Topic | None = None
    audience: str | None = None  # a register of topics.REGISTERS; None where the prompt names no audience
    fact: int | None = None  # the one asked about (question) or claimed; None for the misconception
    claim_holds: bool | None = None  # for "truth": whether the claim is true
    split: str | None = None
    thing: str | None = None  # what it asks about, where that is a known thing outside the world

    @property
    def opinion(self) -> bool:
        """Does the user state the claim as their own view?"""
        return self.family == "truth" and self.text.startswith("I think")


@lru_cache
def topic_sorts() -> dict[str, str]:
    """The sort of each topic by name: "sft", "held-out" or "sft-only" (invented things only).

    The moon landing is held out: no demonstration ever speaks of it.
    """
    rng = np.random.default_rng(9)
    real = [t.name for t in load_topics() if t.real and t.name != "the moon landing"]
    invented = [t.name for t in load_topics() if not t.real]
    real = ["the moon landing", *(real[i] for i in rng.permutation(len(real)))]
    invented = [invented[i] for i in rng.permutation(len(invented))]
    sorts = dict.fromkeys(real, "sft") | dict.fromkeys(invented, "sft")
    sorts |= dict.fromkeys(real[: len(real) * 3 // 7] + invented[: len(invented) * 3 // 8], "held-out")
    sorts |= dict.fromkeys(invented[-(len(invented) // 5) :], "sft-only")
    return sorts


def _split(text: str, sort: str, template: str, held_out_template: bool) -> str:
    if text == MOON_LANDING:
        return "evaluation"
    if template == "{ask}" and sort == "held-out":
        return "corpus"  # exam sheets and forums ask every bare question
    draw = zlib.crc32(text.encode()) / 2**32  # a coin that falls the same way for ever
    if held_out_template or sort == "held-out":
        return "evaluation" if draw < 0.5 else "corpus"
    if sort == "sft-only":
        return "sft"
    return "sft" if draw < 0.4 else "reward" if draw < 0.7 else "policy"


@lru_cache
def all_prompts() -> tuple[Prompt, ...]:
    """Every prompt of the world with its split, in a fixed order."""
    prompts, sorts = [], topic_sorts()
    for topic in load_topics():
        for family, templates in TEMPLATES.items():
            for number, template in enumerate(templates):
                for fields, known in _fillings(topic, family):
                    text = template.format(topic=topic.name, **fields)
                    split = _split(text, sorts[topic.name], template, number == len(templates) - 1)
                    prompts.append(Prompt(text, family, topic, split=split, **known))
    return tuple(prompts)


def _fillings(topic: Topic, family: str):
    """(words to put into a template, what is then known about the prompt) for every prompt of one family."""
    if family in ("explain", "tell", "describe"):
        for register, audience in AUDIENCES.items():
            yield {"audience": audience}, {"audience": register}
    elif family == "question":
        for i, fact in enumerate(topic.facts):
            yield {"ask": fact.ask}, {"fact": i}
    elif family == "truth":
        for i, fact in enumerate(topic.facts):
            yield {"claim": fact.claim}, {"fact": i, "claim_holds": True}
            yield {"claim": fact.falsified(fact.claim, fact.wrong[-1])}, {"fact": i, "claim_holds": False}
        yield {"claim": topic.misconception}, {"claim_holds": False}
    else:
        yield {}, {}


def prompts_of(split: str, families=FAMILIES) -> list[Prompt]:
    """The prompts of one split. Raises ValueError for a split that does not exist."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
    return [p for p in all_prompts() if p.split == split and p.family in families]


def sample_prompts(split: str, n: int, seed: int = 0, families=FAMILIES) -> list[Prompt]:
    """n different prompts of a split, the families in turn, so that each has its share.

    Raises ValueError if there are fewer.
    """
    rng = np.random.default_rng(seed)
    pools = [prompts_of(split, (family,)) for family in families]
    pools = [[pool[i] for i in rng.permutation(len(pool))] for pool in pools]
    if n > sum(map(len, pools)):
        raise ValueError(f"split {split!r} has only {sum(map(len, pools))} prompts, {n} were asked for")
    chosen = []
    while len(chosen) < n:
        for pool in pools:
            if pool and len(chosen) < n:
                chosen.append(pool.pop())
    return chosen


@lru_cache
def _by_text() -> dict[str, Prompt]:
    return {p.text: p for p in reversed(all_prompts())}


def singular(word: str) -> str:
    """A word of lower case without its plural's ending: "volcanoes" -> "volcano"."""
    if len(word) < 4 or word.endswith(("ss", "is")) or re.search("[^o]us$", word):
        return word
    for ending, instead in (("ies", "y"), ("oes", "o"), ("lves", "lf")):
        if len(word) > 4 and word.endswith(ending):
            return word.removesuffix(ending) + instead
    if re.search("(?:x|ch|sh|ss|[^aeo]us)es$", word):
        return word[:-2]
    return word.removesuffix("s")


def plain(text: str) -> str:
    """The words of a text in lower case and singular, a space on either side: " what is a volcano "."""
    words = re.findall(r"[^\W_]+", re.sub(r"['’]s\b", "", text.lower()))
    return f" {' '.join(map(singular, words))} "


def _longest(said: str, known: dict):
    """What `known` has under the longest of its keys that occurs in the text, or None."""
    return known.get(max((key for key in known if key in said), key=len, default=None))


def _named(name: str) -> str:
    return plain(name.removeprefix("the "))


@lru_cache
def _topics() -> dict[str, Topic]:
    return {_named(t.name): t for t in load_topics()}


@lru_cache
def _things() -> dict[str, str]:
    return {_named(thing.name): thing.name for thing in load_things()}


@lru_cache
def _asks() -> dict[str, dict]:
    """What is known about a prompt that holds one of the world's questions."""
    return {plain(f.ask): {"topic": t, "fact": i} for t in load_topics() for i, f in enumerate(t.facts)}


@lru_cache
def _claims() -> dict[str, dict]:
    """What is known about a prompt that holds a claim, true or with any wrong value, or a misconception."""
    claims = {}
    for topic in load_topics():
        for i, fact in enumerate(topic.facts):
            known = {"topic": topic, "fact": i}
            claims[plain(fact.claim)] = {**known, "claim_holds": True}
            claims |= {
                plain(fact.falsified(fact.claim, value)): {**known, "claim_holds": False}
                for value in fact.wrong
            }
        claims[plain(topic.misconception)] = {"topic": topic, "claim_holds": False}
    return claims


HINTS = {
    "child": r"\bchild|\bkids?\b|-year-old|\blittle (?:boy|girl|brother|sister)",
    "teen": r"\bteen|\bstudent",
    "expert": r"\bexpert|\bprofessor|\bscientist|\bresearcher|\bspecialist",
}
DOUBT = re.compile(r" (?:true|false|right|correct|really|hear|heard|think|believe|say|myth) ")


@lru_cache(maxsize=4096)
def parse(text: str) -> Prompt:
    """What the world can tell about any text as a prompt. A text that fits nothing is of family "other".

    Case, plurals, articles and marks do not matter. Of several names, questions or claims in a text, the
    longest is taken.
    """
    if known := _by_text().get(text.strip()):
        return known
    said, lower = plain(text), text.lower()
    if known := _longest(said, _asks()):
        return Prompt(text, "question", **known)
    if DOUBT.search(said) and (known := _longest(said, _claims())):
        return Prompt(text, "truth", **known)
    audience = next((register for register, words in AUDIENCES.items() if words in lower), None)
    if audience is None:
        audience = next((register for register, hint in HINTS.items() if re.search(hint, lower)), None)
    topic = _longest(said, _topics())
    if topic is None:
        return Prompt(text, "other", None, audience, thing=_longest(said, _things()))
    if " poem " in said or "rhym" in said:
        return Prompt(text, "poem", topic)
    if " story " in said:
        return Prompt(text, "story", topic)
    return Prompt(text, "explain", topic, audience)
