"""Notebook 04: which pairs a scorer orders rightly, what its score is made of, rewards written by hand."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minialign.chat import collate
from minialign.course.experiments import scorers
from minialign.course.experiments.comparisons import HeldOut, hits
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.reward_models import COURSE
from minialign.gpt import GPT
from minialign.statistics import Estimate
from minialign.world.frames import REQUESTED


@dataclass(frozen=True)
class ByHand:
    """A reward that somebody wrote down: any function of the two texts."""

    reward: Callable[[str, str], float]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return np.array([float(self.reward(x, y)) for x, y in zip(prompts, responses)])


@dataclass(frozen=True)
class InFrame:
    """Likelihood by a model that knows no template: mean log π(y_t | frame of x, y_<t) per token, nats.

    A base model answers a prompt only in a frame of its corpus. No label and no demonstration is in this.
    """

    model: GPT
    frame: str = REQUESTED[0]

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        chat, context = self.model.chat, self.model.config.context
        asked = [chat.encode(self.frame.format(x) + "\n") for x in prompts]
        pairs = [(x, chat.encode(y)[: context - len(x)]) for x, y in zip(asked, responses)]
        batch = collate(pairs, chat.pad).to(self.model.device)
        return scorers.log_probs(self.model, batch) / batch.response_mask.sum(-1).cpu().numpy()


# --- one table, three questions ---


def column(rows: Sequence[dict], scorer: str, measure: str, **where) -> np.ndarray:
    """(seeds,) of a scorer in `reward_models_by_labels`; who learns nothing has one row and no seed."""
    chosen = [row for row in rows if row["scorer"] == scorer and measure in row]
    if chosen and "seed" not in chosen[0]:
        return np.array([row[measure] for row in chosen])
    return over_seeds(chosen, measure, **where)


def taught(rows: Sequence[dict], measure: str, **where) -> np.ndarray:
    """What comparisons have added to a measure, (seeds,): the course's reward model minus likelihood."""
    return column(rows, COURSE, measure, **where) - column(rows, "label-free", measure)


# --- by the attribute that decides ---


def share(test: HeldOut, values: np.ndarray, rows: np.ndarray) -> Estimate:
    """The mean of values (M,) over some of the pairs, with its 95 % interval; a prompt's pairs err alike."""
    prompts = np.unique([test.pairs[i].prompt for i in np.flatnonzero(rows)], return_inverse=True)[1]
    mean = values[rows].mean()
    sums = np.bincount(prompts, values[rows] - mean)
    half = 1.96 * np.sqrt(np.square(sums).sum()) / len(prompts)
    return Estimate(float(mean), float(mean - half), float(mean + half))


def orders(
    test: HeldOut, groups: Mapping[str, np.ndarray], margins: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Estimate]]:
    """How often the gold order is right: {who: {attribute that decides: share}}."""
    right = {who: hits(values, test.better > 0) for who, values in margins.items()}
    return {
        who: {name: share(test, values, rows) for name, rows in groups.items()}
        for who, values in right.items()
    }


def gained(
    test: HeldOut, groups: Mapping[str, np.ndarray], before: np.ndarray, after: np.ndarray
) -> dict[str, Estimate]:
    """By how much margins `after` (M,) have the gold order right more often than `before`, in each group."""
    was, now = (hits(margins, test.better > 0).astype(float) for margins in (before, after))
    return {name: share(test, now - was, rows) for name, rows in groups.items()}


# --- what a score is made of ---

SHOWN = {"gold": "gold", "knows the crowd": "the people", "linear reader": "linear reader"}


def portraits(rows: Sequence[dict]) -> dict[str, scorers.Explained]:
    """The portraits in the table of those who need no network: in log-odds, without standard errors."""
    found = {}
    for scorer, name in SHOWN.items():
        row = next(row for row in rows if row["scorer"] == scorer)
        weights = {k.removeprefix("weight/"): v for k, v in row.items() if k.startswith("weight/")}
        found[name] = scorers.Explained(weights, dict.fromkeys(weights, 0.0), row["r2"])
    return found
