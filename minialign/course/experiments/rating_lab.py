"""Notebook 04's first lab: its table read, and any crowd of the reader's own tried."""

from collections.abc import Sequence

import numpy as np

from minialign.course.experiments.ratings import METHODS, Crowd, recovered
from minialign.statistics import Estimate, mean_with_interval

PAIRS, RANKINGS, OF_RATINGS = METHODS[:3]  # comparisons two by two, orders, and orders of ratings
NUMBERS = METHODS[3:]  # the ways of using ratings as numbers


def lead(rows: Sequence[dict], over: str, per_rater: int, ours: str = PAIRS, **knob) -> Estimate:
    """By how much `ours` recovers the true order better than another method, with an interval over seeds.

    `knob` is the one that was turned, and how far: drift=0.5; none is all faults at once. Raises ValueError
    for what the table has not.
    """
    name = next(iter(knob), "all of it")
    wanted = {"knob": name, "per_rater": per_rater, **knob}
    found = [row[ours] - row[over] for row in rows if wanted.items() <= row.items()]
    if not found:
        raise ValueError(f"the table has no {name} like that for raters of {per_rater} items: {knob}")
    return mean_with_interval(found)


def lowest(rows: Sequence[dict], ours: str, per_rater: Sequence[int]) -> float:
    """The smallest lead (mean) of `ours` over any way of using numbers, whichever knob is turned how far."""
    turned = {(row["knob"], row.get(row["knob"])) for row in rows}
    settings = [{} if name == "all of it" else {name: value} for name, value in turned]
    leads = (
        lead(rows, over, m, ours, **setting) for setting in settings for m in per_rater for over in NUMBERS
    )
    return min(estimate.mean for estimate in leads)


def tried(crowd: Crowd, worlds: int = 30) -> dict[str, np.ndarray]:
    """How well each method recovers the true order in some worlds with this crowd: {method: (worlds,)}."""
    found = [recovered(crowd, (world, crowd.per_rater)) for world in range(worlds)]
    return {name: np.array([row[name] for row in found]) for name in METHODS}
