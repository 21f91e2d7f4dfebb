"""Statistics of measurements: means, shares and win rates with intervals, frontiers, calibration, variety."""

import math
import reprlib
from typing import NamedTuple, SupportsFloat

import numpy as np
import torch
from scipy import stats


class Estimate(NamedTuple):
    """A mean and the interval that covers the true one 95 % of the time."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


# --- what is given, as numbers ---

FORMS = {
    None: "real numbers",
    0: "one real number",
    1: "a row of real numbers, (n,)",
    2: "a table of real numbers, (n, m)",
    3: "a block of real numbers, (s, n, m)",
}


def numbers(values, name: str = "values", ndim: int | None = None) -> np.ndarray:
    """What is given for numbers, as float64: one number, lists, arrays, tensors, also on a gradient or a GPU.

    Where `ndim` dimensions are wanted, a last one of length 1 may be too many: a column is a row. Raises
    ValueError for another shape and for what is not real numbers.
    """
    try:
        array = np.asarray(_without_tensors(values))
        kind = array.dtype.kind
        real = kind in "biuf" or kind == "O" and all(isinstance(value, SupportsFloat) for value in array.flat)
        array = array.astype(np.float64) if real else None
    except Exception:  # whatever the conversions of a foreign object raise
        array = None
    if array is not None and array.ndim - 1 == ndim and array.shape[-1] == 1:
        array = array[..., 0]
    if array is None or ndim not in (None, array.ndim):
        here = in_short(values) if array is None else f"of shape {array.shape}"
        raise ValueError(f"{name} must be {FORMS[ndim]}, not {here}")
    return array


def _without_tensors(values):
    """Arrays in place of the tensors, which numpy does not read while they are on a gradient or a GPU."""
    if isinstance(values, torch.Tensor):
        return (values.double() if values.is_floating_point() else values).numpy(force=True)
    if isinstance(values, np.ma.MaskedArray):  # numpy would drop the mask
        return values.astype(np.float64).filled(np.nan)
    return [*map(_without_tensors, values)] if isinstance(values, (list, tuple)) else values


def in_short(value) -> str:
    """What an error says of a value: its repr, on one line and not too long, whatever that repr does."""
    return " ".join(reprlib.repr(value).split())


def measured(values, name: str = "values", ndim: int = 1) -> np.ndarray:
    """`numbers` that can be counted with: at least one, all finite. Raises ValueError for others."""
    array = numbers(values, name, ndim)
    if not array.size:
        raise ValueError(f"{name} must hold at least one number, here is none")
    if not np.isfinite(array).all():
        what = "a finite number" if ndim == 0 else "finite numbers"
        raise ValueError(f"{name} must be {what}, here is {array[~np.isfinite(array)][0]}")
    return array


def whole_number(value, name: str, low: int, high: float = math.inf) -> int:
    """A whole number from `low` to `high`, whether it comes as 4, 4.0 or a scalar of numpy or torch.

    Raises ValueError for others.
    """
    number = float(measured(value, name, ndim=0))
    if number % 1 or not low <= number <= high:
        least = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        raise ValueError(f"{name} is {number:g}: choose a whole number {least}")
    return int(number)


# --- means and shares ---


def standard_error(values) -> float:
    """Standard error of the mean of independent values: their standard deviation (with n − 1) over √n.

    Raises ValueError for fewer than two values.
    """
    values = measured(values)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, here are {len(values)}")
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def mean_with_interval(values) -> Estimate:
    """Mean of independent values with Student's 95 % interval. Raises ValueError for fewer than two."""
    values = measured(values)
    half = standard_error(values) * float(stats.t.ppf(0.975, len(values) - 1))
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half)


def share_with_interval(successes: int, n: int) -> Estimate:
    """A share with Wilson's 95 % interval (Wilson 1927), which is sensible near 0 and 1 too.

    Raises ValueError for n < 1 and for successes outside 0 … n.
    """
    n = whole_number(n, "n", 1)
    successes = whole_number(successes, "successes", 0, n)
    interval = stats.binomtest(successes, n).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


# --- comparisons ---


def win_rate(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """How often a response of ours is worth more than one of theirs to the same prompt; a tie is half a win.

    ours (P, n), theirs (P, m): rewards of n and m responses to each of P ≥ 2 prompts, every one compared with
    every one. The 95 % interval is over prompts: comparisons within one share it, and are not independent.
    """
    ours, theirs = measured(ours, "ours", 2), measured(theirs, "theirs", 2)
    if len(ours) != len(theirs):
        raise ValueError(f"ours are of {len(ours)} prompts, theirs of {len(theirs)}: give the same prompts")
    difference = ours[:, :, None] - theirs[:, None, :]
    return mean_with_interval(((difference > 0) + 0.5 * (difference == 0)).mean((1, 2)))


def one_standard_error_rule(means, errors, order) -> int:
    """Which setting to choose, its place in means (N,): the simplest within one standard error of the best.

    errors (N,) are the standard errors of the means, order (N,) says how simple a setting is, or how cheap:
    the lowest is chosen, of equals the one with the higher mean. The best of many settings is partly lucky;
    this rule does not pay for what may be luck. Source: Breiman et al. 1984, chapter 3.
    """
    means, errors, order = (
        measured(x, name) for x, name in ((means, "means"), (errors, "errors"), (order, "order"))
    )
    if not len(means) == len(errors) == len(order):
        sizes = f"{len(means)} means, {len(errors)} errors and {len(order)} places in the order"
        raise ValueError(f"here are {sizes}: a setting has one of each")
    if errors.min() < 0:
        raise ValueError(f"a standard error is {errors.min():g}: it must be at least 0")
    best = means.argmax()
    near = np.flatnonzero(means >= means[best] - errors[best])
    return int(min(near, key=lambda i: (order[i], -means[i])))


def frontier(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which points nobody beats, (N,) of bool.

    No other point has a value at least as high at a cost at least as low, one of them strictly.
    """
    costs, values = measured(costs, "costs"), measured(values)
    if len(costs) != len(values):
        raise ValueError(f"here are {len(costs)} costs and {len(values)} values: a point has one of each")
    no_dearer = costs[None, :] <= costs[:, None]
    no_worse = values[None, :] >= values[:, None]
    strictly = (costs[None, :] < costs[:, None]) | (values[None, :] > values[:, None])
    return ~(no_dearer & no_worse & strictly).any(1)


# --- calibration ---


def equal_mass_bins(values: np.ndarray, bins: int, name: str = "values") -> list[np.ndarray]:
    """The places of values (N,) in bins of equally many, from the lowest values to the highest.

    Where N is no multiple, the first bins have one more. Of equal values the earlier one comes first. Raises
    ValueError unless there are from 1 to N bins.
    """
    values = measured(values, name)
    bins = whole_number(bins, f"the number of bins of {len(values)} {name}", 1, len(values))
    return np.array_split(np.argsort(values, kind="stable"), bins)


def reliability(margins: np.ndarray, bins: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """How sure a preference model was, and how often it was right, (bins,) each, of equally many comparisons.

    margins (M,) = r(x, y_w) − r(x, y_l). The model takes the side with the higher reward, with confidence
    σ(|margin|) ≥ ½; the label agrees where the margin is positive. A calibrated model has both arrays equal.
    """
    margins = measured(margins, "margins")
    confidence, right = 1 / (1 + np.exp(-np.abs(margins))), margins > 0
    places = equal_mass_bins(np.abs(margins), bins, "margins")
    return tuple(np.array([values[place].mean() for place in places]) for values in (confidence, right))


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """ECE = Σ_b (N_b / N) |mean confidence of bin b − share of it that is right|, in [0, 1].

    confidence (N,), the probability given to the answer that was taken, and right (N,), 1 or 0, or the
    probability that it is right; the bins hold equally many answers. 0 is calibrated. Of finitely many
    answers a calibrated model has a little more by chance, and the more, the more bins there are. Source: Guo
    et al. 2017, Eq. 3, there with bins of equal width. Raises ValueError for what is no probability.
    """
    confidence, right = measured(confidence, "confidence"), measured(right, "right")
    if len(confidence) != len(right):
        raise ValueError(
            f"here are {len(confidence)} confidences and {len(right)} results: an answer has one of each"
        )
    for name, values in (("confidence", confidence), ("right", right)):
        if not 0 <= values.min() <= values.max() <= 1:
            worst = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{name} must hold probabilities, from 0 to 1, here is {worst:g}")
    gaps = confidence - right
    return float(sum(abs(gaps[place].sum()) for place in equal_mass_bins(confidence, bins)) / len(gaps))


# --- variety ---


def counted(counts, name: str = "counts") -> np.ndarray:
    """How often each of some things occurred, (K,) whole numbers. Raises ValueError where none occurred."""
    counts = measured(counts, name)
    if counts.min() < 0 or (counts % 1).any() or not counts.any():
        raise ValueError(f"{name} must be whole numbers of at least 0, and not all of them 0")
    return counts


def effective_number(counts: np.ndarray) -> float:
    """exp(−Σ p log p) with p = counts/Σ counts: so many equally frequent things would be as varied, 1 … K.

    counts (K,) say how often each thing occurred. The entropy of a sample is too low, and of a smaller sample
    lower: compare samples of one size only. Source: Hill 1973 (his number of order 1).
    """
    p = counted(counts)
    p = p[p > 0] / p.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def expected_distinct(counts: np.ndarray, m: int) -> float:
    """How many different things m of the n = Σ counts occurrences hold, on average over all choices of m.

    Σ_i 1 − C(n − n_i, m)/C(n, m), for each thing the probability that it is among the m (rarefaction,
    Hurlbert 1971). Samples of different sizes can so be compared at one size. Raises ValueError for m outside
    1 … n.
    """
    counts = counted(counts)
    n = int(counts.sum())
    m = whole_number(m, f"m, of {n} occurrences,", 1, n)
    return float(stats.hypergeom.sf(0, n, counts, m).sum())
