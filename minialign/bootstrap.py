"""Intervals over seeds *and* prompts: another run, or other prompts, would have given another number.

A table of measurements has one axis for the seeds and one for the prompts, and both are samples. The
bootstrap redraws the units of each axis, with replacement (Owen 2007, for tables). Of a mean its variance is
known without a single draw, and that is what is used here, with three corrections that matter for 3 seeds:

- Of n units n − 1 are drawn (McCarthy and Snowden 1985): with n the variance is too small by (n − 1)/n.
- What belongs to single cells, a seed on a prompt, would count once for each axis and once for both; it is
  counted once. (The inclusion and exclusion of Cameron, Gelbach and Miller 2011.)
- The interval is Student's, not the percentiles of the draws: where the seeds differ, percentiles of three
  cover the truth three times of four. The degrees of freedom are Satterthwaite's (1946).

An axis of one unit cannot be redrawn: the interval of a single run says nothing about other seeds.
"""

import math
from itertools import chain, combinations

import numpy as np
from scipy import optimize, stats
from scipy.special import expit

from minialign.statistics import Estimate, measured


def variances(table: np.ndarray) -> dict[tuple[int, ...], tuple[float, int]]:
    """For every set of axes: how much the table's mean varies with its units, and the degrees of freedom.

    table (n_1, …, n_k). For a single axis it is the squared standard error of its units' means; for several,
    of what their combinations add to the single ones, an interaction. Axes of one unit are left out.
    """
    free = [axis for axis in range(table.ndim) if table.shape[axis] > 1]
    found = {}
    for axes in chain.from_iterable(combinations(free, k) for k in range(1, len(free) + 1)):
        part = table.mean(tuple(axis for axis in range(table.ndim) if axis not in axes), keepdims=True)
        for axis in axes:
            part = part - part.mean(axis, keepdims=True)
        freedom = math.prod(table.shape[axis] - 1 for axis in axes)
        found[axes] = (
            float((part**2).sum()) / freedom / math.prod(table.shape[axis] for axis in axes),
            freedom,
        )
    return found


def crossed_interval(table: np.ndarray) -> Estimate:
    """The mean of a table with its 95 % interval over the units of all axes. ValueError if none has two."""
    found = variances(table)
    if not found:
        raise ValueError("an interval needs at least two seeds or two prompts, here is one of each")
    alone = {axes: value for axes, value in found.items() if len(axes) == 1}
    # Each interaction is in every one of its axes. No estimate of the sum is below its largest part.
    total = sum(-((-1) ** len(axes)) * variance for axes, (variance, _) in found.items())
    variance = max([total, *(value for value, _ in alone.values())])
    spread = sum(value**2 / freedom for value, freedom in found.values())
    freedom = max(variance**2 / spread if spread else 0, min(freedom for _, freedom in alone.values()))
    mean, half = float(table.mean()), float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Estimate(mean, mean - half, mean + half)


def bootstrap_mean(values) -> Estimate:
    """The mean of values (S, P), of S seeds on P prompts, with its 95 % interval over both."""
    return crossed_interval(measured(values, ndim=2))


def bootstrap_difference(ours, theirs) -> Estimate:
    """mean(ours) − mean(theirs) of values (S, P) and (S', P), with its 95 % interval over seeds and prompts.

    Both are of the same prompts, so what makes a prompt hard cancels. Seeds are those of independent runs:
    ours need not be as many as theirs.
    """
    ours, theirs = measured(ours, "ours", 2), measured(theirs, "theirs", 2)
    require_same_prompts(ours, theirs)
    return crossed_interval(ours[:, None] - theirs[None])


def bootstrap_win_rate(ours, theirs) -> Estimate:
    """`statistics.win_rate` of several runs: the 95 % interval is over the seeds of both sides and prompts.

    ours (S, P, n), theirs (S', P, m): rewards of n and m responses to each of P prompts in each run; every
    one is compared with every one to the same prompt, and a tie is half a win.
    """
    return within_bounds(crossed_interval(wins(ours, theirs).mean((-2, -1))))


def equal_length_win_rate(ours, theirs, our_lengths, their_lengths) -> Estimate:
    """The win rate as it would be between responses of equal length, with an interval over runs and prompts.

    All four (S, P, n) or (S', P, m): rewards, and lengths in words or tokens. A logistic regression explains
    who wins by θ + φ tanh(Δ/σ), with Δ our length minus theirs and σ its root mean square; the result is
    1/(1 + e^(−θ)), the share at Δ = 0. Source: Dubois et al. 2024 (length-controlled AlpacaEval), without
    their term for each prompt's difficulty: here prompts are what the interval is over. It answers "is ours
    better for another reason than its length?", and extrapolates where lengths hardly overlap.
    """
    won = wins(ours, theirs)
    longer = compared(
        lengths_of(our_lengths, ours, "our"), lengths_of(their_lengths, theirs, "their")
    ).ravel()
    scale = math.sqrt(float((longer**2).mean())) or 1.0
    x, y = np.stack([np.ones_like(longer), np.tanh(longer / scale)], -1), won.ravel()
    fitted = logistic_fit(x, y)
    share, p = expit(fitted[0]), expit(x @ fitted)
    # What each comparison adds to the result, by the slope of the fit: a mean again, with its interval.
    curvature = (x * (p * (1 - p))[:, None]).T @ x / len(y) + RIDGE * np.eye(2)
    adds = share * (1 - share) * (y - p) * (x @ np.linalg.inv(curvature)[0])
    adds = (adds - adds.mean()).reshape(won.shape)
    return within_bounds(crossed_interval(share + adds.mean((-2, -1))))


# --- comparisons ---

RIDGE = 1e-6  # keeps the fit finite where one side always wins, or all lengths are equal


def logistic_fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The coefficients (k,) of the logistic regression of y (N,), in [0, 1], on x (N, k)."""

    def loss(w):
        z = x @ w
        return float((np.logaddexp(0, z) - y * z).mean() + RIDGE * w @ w / 2)

    def slope(w):
        return x.T @ (expit(x @ w) - y) / len(y) + RIDGE * w

    return optimize.minimize(loss, np.zeros(x.shape[1]), jac=slope, options={"gtol": 1e-9}).x


def wins(ours, theirs) -> np.ndarray:
    """Who is worth more, (S, S', P, n, m), of ours (S, P, n) and theirs (S', P, m): 1 is ours, ½ a tie."""
    ours, theirs = measured(ours, "ours", 3), measured(theirs, "theirs", 3)
    require_same_prompts(ours, theirs)
    return (np.sign(compared(ours, theirs)) + 1) / 2


def compared(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """ours (S, P, n) minus theirs (S', P, m), every one with every one to its prompt: (S, S', P, n, m)."""
    return ours[:, None, :, :, None] - theirs[None, :, :, None, :]


def lengths_of(lengths, rewards, whose: str) -> np.ndarray:
    """The lengths as numbers. Raises ValueError unless every response has one, and a reward."""
    lengths, rewards = measured(lengths, f"{whose}_lengths", 3), measured(rewards, f"{whose}s", 3)
    if lengths.shape != rewards.shape:
        raise ValueError(
            f"{whose} lengths are {lengths.shape}, the rewards {rewards.shape}: a response has one of each"
        )
    return lengths


def require_same_prompts(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Raises ValueError unless both are of equally many prompts."""
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"ours are of {ours.shape[1]} prompts, theirs of {theirs.shape[1]}: give the same prompts"
        )


def within_bounds(share: Estimate) -> Estimate:
    """A share's interval, cut where there are no shares."""
    return Estimate(share.mean, max(0.0, share.low), min(1.0, share.high))
