"""Comparisons of sampled responses: who makes them, which are shipped, and what is measured on them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from minialign.course.experiments import answers, held_out_prompts
from minialign.course.experiments.measuring import by_prompt
from minialign.files import read_verified
from minialign.gpt import GPT
from minialign.preferences import Preference, parse_preferences
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import gold_rewards
from minialign.world.prompts import Prompt, prompts_of, topic_sorts
from minialign.world.reading import told_of

RATERS = 8  # people who share the work: each pair goes to one of them
SAMPLES = 8  # of each prompt that is compared: 28 possible pairs
PAIRS = 10_000  # in the shipped "comparisons", at most
HELD_OUT_PER_PROMPT = 12  # pairs of each held-out prompt, to measure on


class Scorer(Protocol):
    """What gives responses a number: a reward model, or anything that it is to be compared with."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray: ...


# --- how comparisons are made ---


def crowd(seed: int = 0, **changes) -> list[Annotator]:
    """The people who label; each run has its own. `changes` turn the knobs of all of them."""
    return [typical_annotator(seed=RATERS * seed + i, **changes) for i in range(RATERS)]


def sampled(policy: GPT, prompts: Sequence[Prompt], n: int = SAMPLES, seed: int = 0) -> dict[str, list[str]]:
    """n responses of the policy to each prompt, at temperature 1, by the prompt's text."""
    texts = answers(policy, prompts, seed=seed, n=n)
    return {prompt.text: texts[i * n : (i + 1) * n] for i, prompt in enumerate(prompts)}


def silent_on_held_out_topics(responses: dict[str, list[str]]) -> dict[str, list[str]]:
    """The responses without those that state a fact of a held-out topic.

    A sample may stray to any topic. What it says there would be learned from the labels.
    """
    held_out = {name for name, sort in topic_sorts().items() if sort == "held-out"}
    return {prompt: [y for y in texts if not told_of(y) & held_out] for prompt, texts in responses.items()}


def compared(
    responses: dict[str, list[str]], raters: list[Annotator], per_prompt: int, seed: int = 0
) -> list[Preference]:
    """Some pairs of different responses of each prompt; one of the raters says which is better."""
    rng, pairs = np.random.default_rng(seed), []
    for prompt, texts in responses.items():
        possible = [pair for pair in combinations(texts, 2) if pair[0] != pair[1]]
        for i in rng.permutation(len(possible))[:per_prompt]:
            pairs.append(labelled(prompt, *possible[i], raters[int(rng.integers(len(raters)))]))
    return pairs


def labelled(prompt: str, first: str, second: str, rater: Annotator) -> Preference:
    """One comparison by one person."""
    pair = first, second
    winner = rater.prefer(prompt, *pair)
    return Preference(prompt, pair[winner], pair[1 - winner])


def relabelled(pairs: Sequence[Preference], raters: list[Annotator], seed: int = 0) -> list[Preference]:
    """The same pairs of responses, compared by other people."""
    rng = np.random.default_rng(seed)
    return [labelled(p.prompt, p.chosen, p.rejected, raters[int(rng.integers(len(raters)))]) for p in pairs]


def build_preferences(sft: GPT) -> dict[str, list[Preference]]:
    """The shipped pairs: "comparisons" on the prompts for reward models, "held_out" on the held-out ones."""
    prompts = prompts_of("reward")
    train = silent_on_held_out_topics(sampled(sft, prompts))
    test = sampled(sft, held_out_prompts(), seed=1)
    return {
        "comparisons": compared(train, crowd(), PAIRS // len(prompts)),
        "held_out": compared(test, crowd(1), HELD_OUT_PER_PROMPT, seed=1),
    }


def preferences(which: str) -> list[Preference]:
    """The shipped "comparisons", or the "held_out" ones for measuring.

    Their prompts, and those of policy training, are all different.
    """
    name = f"preferences/{which}.jsonl"
    return parse_preferences(read_verified(name).decode(), name)


# --- parts of them ---


def subset(pairs: Sequence[Preference], n: int, seed: int) -> list[Preference]:
    """n of the pairs, drawn at random."""
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:n]]


def updates(pairs: Sequence[Preference], passes: float, prompts_per_step: int) -> int:
    """How many updates it takes to see the pairs so many times."""
    per_pass = math.ceil(len({pair.prompt for pair in pairs}) / prompts_per_step)
    return max(1, round(passes * per_pass))


def shuffled_prompts(pairs: Sequence[Preference], seed: int) -> list[str]:
    """The prompts of the pairs, each once, in an order that only the seed decides."""
    prompts = sorted({p.prompt for p in pairs})
    return [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))]


def of_few_prompts(pairs: Sequence[Preference], n: int, seed: int) -> list[Preference]:
    """About n of the pairs: all that there are of some prompts, of no more prompts than it takes."""
    found, by_prompt = [], {}
    for pair in pairs:
        by_prompt.setdefault(pair.prompt, []).append(pair)
    for prompt in shuffled_prompts(pairs, seed):
        if len(found) >= n:
            break
        found += by_prompt[prompt]
    return found


def halves(
    pairs: Sequence[Preference], n: int, seed: int
) -> tuple[list[Preference], list[Preference], list[Preference]]:
    """n pairs on one half of the prompts, the other pairs on that half, and all pairs on the other half."""
    prompts = shuffled_prompts(pairs, seed)
    half = set(prompts[: len(prompts) // 2])
    mine = [p for p in pairs if p.prompt in half]
    train = subset(mine, n, seed)
    used = set(train)
    return train, [p for p in mine if p not in used], [p for p in pairs if p.prompt not in half]


# --- what is measured on them, of margins r(x, y_w) − r(x, y_l) ---


def margins_of(pairs: Sequence[Preference], rewards: dict[tuple[str, str], float]) -> np.ndarray:
    """r(x, y_w) − r(x, y_l) of each pair, (M,), from the rewards by (prompt, response)."""
    return np.array(
        [rewards[pair.prompt, pair.chosen] - rewards[pair.prompt, pair.rejected] for pair in pairs]
    )


def hits(margins: np.ndarray, right: np.ndarray | bool = True) -> np.ndarray:
    """Which pairs are decided rightly, (M,): 1, 0, or ½ for a margin of 0, which decides nothing."""
    return np.where(margins == 0, 0.5, (margins > 0) == right)


@dataclass(frozen=True)
class HeldOut:
    """Comparisons to measure on: the pairs, their gold rewards (M, 2), and the labels' probability (M,)."""

    pairs: list[Preference]
    gold: np.ndarray
    probability: np.ndarray

    @classmethod
    def of(cls, pairs: list[Preference]) -> "HeldOut":
        prompts, typical = [p.prompt for p in pairs], typical_annotator()
        sides = [p.chosen for p in pairs], [p.rejected for p in pairs]
        gold = np.stack([gold_rewards(prompts, side) for side in sides], 1)
        probability = [typical.probability(p.prompt, p.chosen, p.rejected) for p in pairs]
        return cls(pairs, gold, np.array(probability))

    @property
    def better(self) -> np.ndarray:
        """By how much the chosen response is worth more in gold, (M,); below 0 people chose wrongly."""
        return self.gold[:, 0] - self.gold[:, 1]

    def answers(self) -> list[tuple[str, str]]:
        """Each different (prompt, response) once, in a fixed order."""
        return sorted({(p.prompt, y) for p in self.pairs for y in (p.chosen, p.rejected)})

    def scores(self, scorer: Scorer) -> np.ndarray:
        """r(x, y) of each of `answers()`, (N,) float64."""
        return np.asarray(scorer.score(*map(list, zip(*self.answers()))), dtype=float)

    def margins(self, scorer: Scorer) -> np.ndarray:
        """r(x, y_w) − r(x, y_l), (M,); each different response is scored once."""
        return self.margins_of(self.scores(scorer))

    def margins_of(self, scores: np.ndarray) -> np.ndarray:
        """The same, of the scores of `answers()`."""
        return margins_of(self.pairs, dict(zip(self.answers(), scores)))

    def crowd_margins(self) -> np.ndarray:
        """log p/(1 − p), (M,), for the true probability p of each label: the margins of who knows the crowd.

        No scorer has a higher accuracy on labels, on average over labels (the Bayes accuracy).
        """
        return np.log(self.probability / (1 - self.probability))

    def accuracy(self, margins: np.ndarray) -> float:
        """How often the labelled winner scores higher; a tie is half right."""
        return float(hits(margins).mean())

    def bayes_accuracy(self) -> float:
        """The accuracy to be expected, over labels, of who knows the crowd: E max(p, 1 − p)."""
        return float(np.maximum(self.probability, 1 - self.probability).mean())

    def order_accuracy(self, margins: np.ndarray, among: np.ndarray | bool = True) -> float:
        """How often the response with the higher *gold* reward scores higher, where the two differ."""
        rows = (self.better != 0) & among
        return float(hits(margins, self.better > 0)[rows].mean())

    def accuracy_by_prompt(self, margins: np.ndarray) -> list[float]:
        """`accuracy` of each prompt, in the order of the pairs.

        What may be drawn again for an interval is the prompt: its pairs share their responses.
        """
        return by_prompt([pair.prompt for pair in self.pairs], hits(margins))

    def order_by_prompt(self, margins: np.ndarray) -> list[float]:
        """`order_accuracy` of each prompt whose responses differ in gold, in the order of the pairs."""
        rows = np.flatnonzero(self.better)
        return by_prompt([self.pairs[i].prompt for i in rows], hits(margins, self.better > 0)[rows])

    def loss(self, margins: np.ndarray) -> float:
        """−mean log σ(margin), nats, of margins in log-odds: the Bradley-Terry loss on these labels."""
        return float(np.logaddexp(0, -margins).mean())

    def measured(self, scorer: Scorer) -> dict[str, float]:
        """Accuracy on labels and on the gold order, and the loss of a scorer whose unit is log-odds."""
        return self.measures(self.margins(scorer))

    def measures(self, margins: np.ndarray) -> dict[str, float]:
        """The same of margins, (M,)."""
        return {
            "accuracy": self.accuracy(margins),
            "order": self.order_accuracy(margins),
            "loss": self.loss(margins),
        }
