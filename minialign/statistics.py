"""Statistics of measurements: means, shares and win rates with their uncertainty, frontiers, calibration."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean and the interval that covers the true one 95 % of the time."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def standard_error(values) -> float:
    """Standard error of the mean of independent values: their standard deviation (with n − 1) over √n."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def mean_with_interval(values) -> Estimate:
    """Mean of independent values with Student's 95 % interval. Raises ValueError for fewer than two
    values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, here are {len(values)}")
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1)) * standard_error(values)
    return Estimate(mean, mean - half, mean + half)


def share_with_interval(successes: int, n: int) -> Estimate:
    """A share with Wilson's 95 % interval (Wilson 1927), which is sensible near 0 and 1 too. Raises
    ValueError for n < 1.
    """
    if n < 1:
        raise ValueError("a share of nothing: n must be at least 1")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def win_rate(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """How often a response of ours is worth more than one of theirs to the same prompt, with its 95 %
    interval; a tie is half a win.

    ours (P, n), theirs (P, m): rewards of n and m responses to each of P ≥ 2 prompts, every one compared with
    every one. The interval is over prompts: comparisons within one prompt share it, and are not independent.
    """
    difference = np.asarray(ours)[:, :, None] - np.asarray(theirs)[:, None, :]
    return mean_with_interval(((difference > 0) + 0.5 * (difference == 0)).mean((1, 2)))


def frontier(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which points nobody beats, (N,) of bool: no other point has a value at least as high at a cost at least
    as low, one of them strictly.
    """
    costs, values = np.asarray(costs), np.asarray(values)
    no_dearer = costs[None, :] <= costs[:, None]
    no_worse = values[None, :] >= values[:, None]
    strictly = (costs[None, :] < costs[:, None]) | (values[None, :] > values[:, None])
    return ~(no_dearer & no_worse & strictly).any(1)


def reliability(margins: np.ndarray, bins: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """How sure a preference model was, and how often it was right: two arrays (bins,), of bins with equally
    many comparisons.

    margins (M,) = r(x, y_w) − r(x, y_l). The model takes the side with the higher reward, with confidence
    σ(|margin|) ≥ ½; the label agrees where the margin is positive. A calibrated model has both arrays equal.
    """
    order = np.argsort(np.abs(margins), kind="stable")
    confidence, right = 1 / (1 + np.exp(-np.abs(margins[order]))), margins[order] > 0
    means = [[part.mean() for part in np.array_split(values, bins)] for values in (confidence, right)]
    return np.array(means[0]), np.array(means[1])
