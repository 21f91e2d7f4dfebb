"""Notebook 08: what preference data cost: people's labels, a cheap judge's, both, and pairs chosen with care.

The cheap judge stands for a language model that labels in place of people. It is made of the course's people:
it has all of their biases, is never tired, and is surer of what it says. It is weaker in two ways that are
built in: it takes every statement for right, and a long answer for a good one. The control is a fair judge,
which is as cheap and as sure, and has people's tastes: what the cheap one does and this one does not is not
the price's fault.

Everybody labels pairs of the same POOL, in the same order, and each reward model takes the same number of
updates: what differs is who has labelled how many. Prices are not in the table. Two sorts of reward model
learn from the same labels: the course's GPT, and a linear one that reads as well as the world's judge does.
With the second one, what is missing is missing from the labels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from scipy.special import expit

from minialign.best_of_n import expected_best
from minialign.bootstrap import logistic_fit
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.comparisons import (
    HeldOut,
    Scorer,
    crowd,
    hits,
    margins_of,
    of_few_prompts,
    preferences,
    relabelled,
)
from minialign.course.experiments.goodhart import candidates
from minialign.course.experiments.measuring import by_prompt, over_seeds
from minialign.course.experiments.reward_models import LARGE, fitted
from minialign.course.experiments.scorers import Crowd, Likelihood, seen, unbiased
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.training import load_history
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import judge

FAIR = dict(temperature=0.2, inattention=0.0)
CHEAP = FAIR | dict(checks_facts=0.0, length_bias=0.5)
JUDGES = {  # by labeller: what is changed of one of the course's people
    "judge": CHEAP,
    "both": CHEAP,
    "fair judge": FAIR,
    "judge that likes length": FAIR | dict(length_bias=CHEAP["length_bias"]),
    "judge that checks nothing": FAIR | dict(checks_facts=CHEAP["checks_facts"]),
}
PRICES = {"people": 1.0, "judge": 0.1}  # for a label; the reader may type others
POOL = 3000  # pairs that can be labelled: all that there are of about 150 prompts
CONFIG = replace(LARGE, steps=40)  # two passes over the prompts of the pool
FIRST = 100  # labels of people, after which further pairs are chosen
N, EVERY = 16, 3  # best-of-16 on every third held-out prompt

# (labels of people, of the judge), by labeller. At PRICES 300, 3000, and 150 with 1500, cost the same.
BOUGHT: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {
    "GPT": {
        "people": ((100, 0), (300, 0), (1000, 0)),
        "judge": ((0, 1000), (0, 3000)),
        "both": ((150, 1500),),
        "fair judge": ((0, 3000),),
    },
    "linear": {
        "people": ((30, 0), (100, 0), (300, 0), (1000, 0), (3000, 0)),
        "judge": ((0, 100), (0, 300), (0, 1000), (0, 3000)),
        "both": ((15, 150), (50, 500), (150, 1500)),
        "fair judge": ((0, 100), (0, 300), (0, 1000), (0, 3000)),
        "judge that likes length": ((0, 3000),),
        "judge that checks nothing": ((0, 3000),),
    },
}
CHOSEN = {"GPT": (300,), "linear": (300, 1000)}  # labels in all, the FIRST included, where pairs are chosen


def judge_of(labeller: str, seed: int = 0) -> Annotator:
    """The judge who labels for "judge", "both" and the others of JUDGES."""
    return typical_annotator(seed, **JUDGES[labeller])


# --- who labels what ---


@lru_cache
def pool(seed: int, n: int = POOL) -> list[Preference]:
    """About n of the shipped pairs, all that there are of some prompts, in an order of the seed's.

    They will be labelled anew.
    """
    pairs = of_few_prompts(preferences("comparisons"), n, seed)
    return [pairs[i] for i in np.random.default_rng([seed, 11]).permutation(len(pairs))]


def bought(seed: int, people: int = 0, judge: int = 0, labeller: str = "judge") -> list[Preference]:
    """The first pairs of the pool, labelled by people, and the next ones, labelled by the labeller's judge.

    Who buys more labels of one sort has the same ones, and further ones.
    """
    pairs = pool(seed)
    if people + judge > len(pairs):
        raise ValueError(f"the pool has {len(pairs)} pairs, not {people + judge}")
    found = relabelled(pairs[:people], crowd(seed), seed)
    if judge:
        found += relabelled(pairs[people : people + judge], [judge_of(labeller, seed)], seed)
    return found


def bought_first(seed: int, then: Sequence[int]) -> list[Preference]:
    """The FIRST pairs of the pool and those at the places `then`, all labelled by people."""
    pairs = pool(seed)
    return relabelled(pairs[:FIRST] + [pairs[i] for i in then], crowd(seed), seed)


# --- which pairs to ask about ---


def unsure(margins: np.ndarray, n: int) -> np.ndarray:
    """The places (n,) of the pairs that a model, of margins (M,), can tell apart least."""
    return np.argsort(np.abs(margins), kind="stable")[:n]


def disputed(margins: np.ndarray, others: np.ndarray, n: int) -> np.ndarray:
    """The places (n,) of the pairs on which two models differ most in P(first is preferred).

    Of an ensemble of two it is the largest variance (Christiano et al. 2017, §2.2.4).
    """
    return np.argsort(-np.abs(expit(margins) - expit(others)), kind="stable")[:n]


def margins_on(pairs: Sequence[Preference], scorer: Scorer) -> np.ndarray:
    """r(x, y_w) − r(x, y_l), (M,); each different response is scored once."""
    answers = sorted({(p.prompt, y) for p in pairs for y in (p.chosen, p.rejected)})
    return margins_of(pairs, dict(zip(answers, scorer.score(*map(list, zip(*answers))))))


# --- a reward model that need not learn to read ---


@lru_cache(maxsize=50_000)
def read(prompt: str, response: str) -> np.ndarray:
    """What the judge sees in an answer, and its length in 20 words, (16,)."""
    judgement = judge(prompt, response)
    return np.append(seen(judgement), judgement.counts["words"] / 20)


@dataclass(frozen=True)
class Linear:
    """r(x, y) = w · what is `read` of y; `scorers.LinearReader` that counts words, too."""

    weights: np.ndarray

    @classmethod
    def fitted(cls, pairs: Sequence[Preference]) -> "Linear":
        """The weights that make the labels most likely (Bradley and Terry 1952), with a tiny ridge."""
        differences = np.array([read(p.prompt, p.chosen) - read(p.prompt, p.rejected) for p in pairs])
        return cls(logistic_fit(differences, np.ones(len(pairs))))

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return np.array([read(x, y) for x, y in zip(prompts, responses)]) @ np.asarray(self.weights)


def learner(reader: str, sft: GPT, seed: int) -> Callable[[Sequence[Preference]], Scorer]:
    """What turns labels into a reward model: `fit(pairs)`."""
    if reader == "linear":
        return Linear.fitted
    return lambda pairs: fitted(sft, pairs, replace(CONFIG, seed=seed))[0]


# --- what is measured ---


@lru_cache
def exam() -> HeldOut:
    """The shipped held-out pairs of every second prompt, 98 of 196."""
    pairs = preferences("held_out")
    kept = set([*dict.fromkeys(p.prompt for p in pairs)][::2])
    return HeldOut.of([p for p in pairs if p.prompt in kept])


def agreement(margins: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """How often people will agree with a model, (M,) in [0, 1], of pairs whose first is preferred with p.

    p where the margin is positive, 1 − p where it is negative, ½ for none. It is the accuracy on labels, with
    the luck of the single label taken out; margins, probability (M,).
    """
    right = hits(margins)
    return right * probability + (1 - right) * (1 - probability)


def shown(scorer: Scorer, sft: GPT, seed: int) -> dict:
    """How often people agree with a scorer ("accuracy"), how often gold does, and the gold of its best of 16.

    These are "order" and "best"; accuracy and best also by prompt. The 16 candidates of a prompt are drawn
    once for a seed, whoever chooses among them.
    """
    test, found = exam(), candidates(sft, seed, N, EVERY)
    margins = test.margins(scorer)
    agreed = by_prompt([p.prompt for p in test.pairs], agreement(margins, test.probability))
    values = found.scored(scorer.score).values
    best = expected_best(values["reward"], values["gold"], N)
    return {
        "accuracy": round(float(agreement(margins, test.probability).mean()), 4),
        "order": round(test.order_accuracy(margins), 4),
        "best": round(float(best.mean()), 4),
        "accuracy_by_prompt": np.round(agreed, 3).tolist(),
        "best_by_prompt": best.round(2).tolist(),
    }


def sureness(pairs: Sequence[Preference]) -> float:
    """How sure people are of pairs, on average: max(p, 1 − p), from ½ to 1."""
    person = typical_annotator()
    p = np.array([person.probability(x.prompt, x.chosen, x.rejected) for x in pairs])
    return round(float(np.maximum(p, 1 - p).mean()), 4)


def in_short(row: dict) -> dict:
    return {name: value for name, value in row.items() if not name.endswith("_by_prompt")}


# --- the table ---


def label_cost(sft: GPT) -> dict[str, Part]:
    """Reward models by who has labelled: "people" and "judge" are how many labels of each there were.

    `reader` is "GPT" or "linear"; `labeller` is "people", one of JUDGES, or people who are asked about pairs
    that are "unsure" or "disputed" after the FIRST labels. And what needs no label:
    "likelihood", "one sample" (no choice at all), and those who know somebody's taste exactly.
    """

    def free(seed: int) -> list[dict]:
        people = typical_annotator()
        scorers = {
            "likelihood": Likelihood(sft),
            "knows the people": Crowd(people),
            "knows the judge": Crowd(judge_of("judge")),
            "gold": unbiased(people.temperature),
        }
        one = float(candidates(sft, seed, N, EVERY).values["gold"].mean())
        rows = [{"reader": "one sample", "accuracy": 0.5, "order": 0.5, "best": round(one, 4)}]
        rows += [{"reader": name, **shown(scorer, sft, seed)} for name, scorer in scorers.items()]
        return [{"seed": seed, **row} for row in rows]

    def row(reader: str, labeller: str, scorer: Scorer, people: int, judge: int, seed: int) -> dict:
        place = {"seed": seed, "reader": reader, "labeller": labeller, "people": people, "judge": judge}
        found = place | shown(scorer, sft, seed)
        return found if reader == "GPT" else in_short(found)

    def run(reader: str, labeller: str, people: int, judge: int, seed: int) -> list[dict]:
        pairs = bought(seed, people, judge, labeller)
        found = row(reader, labeller, learner(reader, sft, seed)(pairs), people, judge, seed)
        if labeller == "people" and people in CHOSEN[reader]:
            found["sure"] = sureness(pairs[FIRST:])
        return [found]

    def begun(reader: str, seed: int) -> list[dict]:
        """The FIRST labels, and what is learned from further ones that this model, or two, ask for."""
        fit, left = learner(reader, sft, seed), pool(seed)[FIRST:]
        first = bought(seed, FIRST)
        model = fit(first)
        rows, ways = [row(reader, "people", model, FIRST, 0, seed)], {}
        ways["unsure"] = partial(unsure, margins_on(left, model))
        if reader == "linear":
            two = (margins_on(left, fit(half)) for half in (first[::2], first[1::2]))
            ways["disputed"] = partial(disputed, *two)
        for labeller, choose in ways.items():
            for n in CHOSEN[reader]:
                pairs = bought_first(seed, choose(n - FIRST) + FIRST)
                found = row(reader, labeller, fit(pairs), n, 0, seed)
                rows.append(found | {"sure": sureness(pairs[FIRST:])})
        return rows

    def linear(seed: int) -> list[dict]:
        rows = begun("linear", seed)
        for labeller, amounts in BOUGHT["linear"].items():
            for amount in amounts:
                if amount != (FIRST, 0):
                    rows += run("linear", labeller, *amount, seed)
        return rows

    parts: dict[str, Part] = {}
    for seed in SEEDS:
        parts[f"without labels, seed {seed}"] = partial(free, seed)
        parts[f"linear, seed {seed}"] = partial(linear, seed)
        parts[f"GPT, the first {FIRST} and what it is unsure of, seed {seed}"] = partial(begun, "GPT", seed)
        for labeller, amounts in BOUGHT["GPT"].items():
            for amount in amounts:
                if amount != (FIRST, 0):
                    name = f"GPT, {labeller}, {max(amount)} labels, seed {seed}"
                    parts[name] = partial(run, "GPT", labeller, *amount, seed)
    return parts


# --- read from the table ---


def results() -> list[dict]:
    return load_history("label_cost")


def cost(row: Mapping, prices: Mapping[str, float] = PRICES) -> float:
    """What a row's labels cost: how many of people and of the judge, each at its price."""
    return sum(row[who] * prices[who] for who in PRICES)


def curve(
    rows: Sequence[Mapping],
    labeller: str,
    measure: str,
    prices: Mapping[str, float] = PRICES,
    reader: str = "GPT",
) -> tuple[np.ndarray, np.ndarray]:
    """What a labeller's labels cost, (K,), ascending, and what a reward model makes of them, (K, S)."""
    chosen = [row for row in rows if row["reader"] == reader and row.get("labeller") == labeller]
    amounts = {(row["people"], row["judge"]): cost(row, prices) for row in chosen}
    found = sorted(amounts, key=amounts.get)
    values = [over_seeds(chosen, measure, people=people, judge=judge) for people, judge in found]
    return np.array([amounts[bundle] for bundle in found]), np.array(values)


def at_cost(
    rows: Sequence[Mapping],
    money: float,
    labeller: str,
    measure: str,
    prices: Mapping[str, float] = PRICES,
    reader: str = "GPT",
) -> np.ndarray:
    """What so much money buys from a labeller, (S,): between two points of its curve by log cost.

    Raises ValueError for what lies beyond the curve: nothing is extrapolated.
    """
    costs, values = curve(rows, labeller, measure, prices, reader)
    if not costs[0] * (1 - 1e-9) <= money <= costs[-1] * (1 + 1e-9):
        raise ValueError(
            f"{labeller}: labels for {costs[0]:g} to {costs[-1]:g} were bought, not for {money:g}; "
            "choose another sum, or other prices"
        )
    return np.array([np.interp(np.log(money), np.log(costs), of_seed) for of_seed in values.T])


def known(rows: Sequence[Mapping], reader: str, measure: str) -> np.ndarray:
    """Of what needs no label, by seed, (S,)."""
    return over_seeds(rows, measure, reader=reader)
