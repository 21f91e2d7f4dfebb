"""Notebook 04's first lab: is it better to ask people for ratings, or for comparisons?

Nothing but numbers here, no language model. Items have a true quality, N(0, 1). A rater reads an item with
noise, and has an offset and a gain of their own for writing the impression down as a number; the offset may
drift from one rating to the next, and the number may have to be one of few. Comparisons are made side by
side: neither scale nor drift nor rounding enters. Rating costs one reading, comparing two, and putting m
items in order m; all methods get the same number of readings.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy.stats import rankdata

from minialign.statistics import Estimate, mean_with_interval
from minialign.world.exact import bradley_terry_optimum

METHODS = (
    "Bradley-Terry",  # a rater's items compared two by two
    "Bradley-Terry on rankings",  # … put in order
    "Bradley-Terry on ratings",  # … rated, and only the order of the ratings used
    "ratings",
    "z-scored ratings",
    "offsets fitted",
)


@dataclass(frozen=True)
class Crowd:
    """A crowd whose members read `per_rater` items each, `readings` in all, of `items` different ones."""

    items: int = 30
    readings: int = 640
    per_rater: int = 16
    offset: float = 1.0  # standard deviation over raters of what they add to every rating
    gain: float = 0.25  # standard deviation of the logarithm of what they multiply it with
    noise: float = 0.5  # standard deviation of one impression of one item
    drift: float = 0.0  # standard deviation of the step that a rater's offset takes after each rating
    points: int | None = None  # of the scale, from −2 to 2 standard deviations of quality; None: any number

    def __post_init__(self):
        if self.per_rater % 2 or self.readings % self.per_rater:
            raise ValueError(
                f"{self.readings} readings cannot be shared out in pairs to raters of {self.per_rater}: "
                "choose an even divisor"
            )
        if self.points is not None and self.points < 2:
            raise ValueError(f"a scale of {self.points} points tells nothing apart: give it at least 2")


def read(crowd: Crowd, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True qualities (items,), which items each rater read (raters, per_rater), and their impressions."""
    quality = rng.normal(size=crowd.items)
    raters = crowd.readings // crowd.per_rater
    rounds = 1 + crowd.per_rater // crowd.items

    # Each rater gets distinct items as far as there are enough, so that nobody compares an item with itself.
    def items_of_one() -> np.ndarray:
        return np.concatenate([rng.permutation(crowd.items) for _ in range(rounds)])[: crowd.per_rater]

    shown = np.stack([items_of_one() for _ in range(raters)])
    return quality, shown, quality[shown] + crowd.noise * rng.normal(size=shown.shape)


def rated(crowd: Crowd, impressions: np.ndarray, rng) -> np.ndarray:
    """What the raters write down, in the order of reading: offset + gain · impression, each rater their own.

    The offset is a random walk with steps of the crowd's drift; what is written is the nearest of its points.
    """
    raters, m = impressions.shape
    offset = crowd.offset * rng.normal(size=(raters, 1))
    gain = np.exp(crowd.gain * rng.normal(size=(raters, 1)))
    steps = crowd.drift * rng.normal(size=(raters, m - 1))
    offset = offset + np.concatenate([np.zeros((raters, 1)), steps.cumsum(1)], 1)
    return on_a_scale(offset + gain * impressions, crowd.points)


def on_a_scale(values: np.ndarray, points: int | None) -> np.ndarray:
    """The nearest of `points` whole numbers 1, 2, …, 1 for −2 and the last for 2; without points as it is."""
    if points is None:
        return values
    return 1 + np.clip(np.rint((values + 2) / 4 * (points - 1)), 0, points - 1)


def drift_between(first, second) -> Estimate:
    """How far a rater's scale has moved between two sittings, from ratings (m,) of the same m ≥ 2 items.

    The mean difference, with its 95 % interval: what is left when the items' qualities cancel.
    """
    return mean_with_interval(np.subtract(second, first))


def z_scored(ratings: np.ndarray) -> np.ndarray:
    """Each rater's ratings moved to mean 0 and scaled to standard deviation 1; all alike, they are all 0."""
    centred, spread = ratings - ratings.mean(1, keepdims=True), ratings.std(1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def item_means(ratings: np.ndarray, shown: np.ndarray, items: int) -> np.ndarray:
    """Mean rating of each item, (items,); the overall mean for an item that nobody read."""
    sums = np.bincount(shown.ravel(), ratings.ravel(), minlength=items)
    counts = np.bincount(shown.ravel(), minlength=items)
    return np.where(counts > 0, sums / np.maximum(counts, 1), ratings.mean())


def offsets_fitted(ratings: np.ndarray, shown: np.ndarray, items: int) -> np.ndarray:
    """Item effects (items,) of rating = item + rater + noise, by least squares.

    This is for numbers what Bradley-Terry is for comparisons. With the raters eliminated, the normal
    equations are L · items = b: b sums each item's ratings, taken from their rater's mean.
    """
    read = np.zeros((len(shown), items))
    np.add.at(read, (np.arange(len(shown))[:, None], shown), 1)
    b = np.bincount(shown.ravel(), (ratings - ratings.mean(1, keepdims=True)).ravel(), minlength=items)
    return np.linalg.pinv(np.diag(read.sum(0)) - read.T @ read / shown.shape[1]) @ b


def two_by_two(m: int) -> np.ndarray:
    """Which of a rater's m items are compared, (2, m/2): first with second, third with fourth, and so on."""
    return np.arange(m).reshape(-1, 2).T


def in_order(m: int) -> np.ndarray:
    """The comparisons contained in an order of m items, (2, m(m − 1)/2): each with every other."""
    return np.stack(np.triu_indices(m, 1))


def wins(shown: np.ndarray, impressions: np.ndarray, items: int, places: np.ndarray) -> np.ndarray:
    """(items, items): how often i beat j when each rater compares their items at `places` (2, K).

    The impressions may also be ratings, of which several can be equal: a tie is half a win for both.
    """
    (i, j), (u, v) = ((x[:, places[0]], x[:, places[1]]) for x in (shown, impressions))
    table = np.zeros((items, items))
    won = np.where(u == v, 0.5, u > v)
    np.add.at(table, (i, j), won)
    np.add.at(table, (j, i), 1 - won)
    np.fill_diagonal(table, 0)  # an item that was read twice has not beaten itself
    return table


def bradley_terry(table: np.ndarray, prior: float = 0.1) -> np.ndarray:
    """The scores of the items, (items,).

    `prior` wins of everybody over everybody keep those who always won finite.
    """
    return bradley_terry_optimum(torch.from_numpy(table + prior * (1 - np.eye(len(table))))).numpy()


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks. Numbers that only rounding tells apart are equal."""
    ranks = (rankdata(np.round(values, 9)) for values in (a, b))
    return float(np.corrcoef(*ranks)[0, 1])


def recovered(crowd: Crowd, seed) -> dict[str, float]:
    """How well each of METHODS recovers the true order in one world: Spearman's correlation with it."""
    rng = np.random.default_rng(seed)
    quality, shown, impressions = read(crowd, rng)
    ratings = rated(crowd, impressions, rng)
    scores = (
        *(
            bradley_terry(wins(shown, read_off, crowd.items, places(crowd.per_rater)))
            for read_off, places in ((impressions, two_by_two), (impressions, in_order), (ratings, in_order))
        ),
        item_means(ratings, shown, crowd.items),
        item_means(z_scored(ratings), shown, crowd.items),
        offsets_fitted(ratings, shown, crowd.items),
    )
    return {name: spearman(score, quality) for name, score in zip(METHODS, scores)}


# --- the table ---

PER_RATER = (2, 4, 8, 16, 32)
CROWDS = {
    "offset": [Crowd(offset=sd) for sd in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)],
    "gain": [Crowd(gain=sd) for sd in (0.0, 0.5, 1.0)],
    "drift": [Crowd(drift=sd) for sd in (0.0, 0.25, 0.5, 1.0, 2.0)],
    "points": [Crowd(points=points) for points in (None, 7, 5, 3)],
    "all of it": [Crowd(gain=0.5, drift=0.5, points=5)],
}
WORLDS = 6  # to each of ten seeds


def ratings_or_comparisons() -> list[dict]:
    """Every method's rank correlation with the truth, for each knob of the crowd and size of a rater's share.

    A row has the `knob` that is turned, the crowd's fields, and the means over six worlds.
    """
    rows = []
    for knob, crowds in CROWDS.items():
        for crowd in (replace(crowd, per_rater=m) for crowd in crowds for m in PER_RATER):
            for seed in range(10):
                worlds = [recovered(crowd, (seed, world)) for world in range(WORLDS)]
                means = {name: float(np.mean([found[name] for found in worlds])) for name in METHODS}
                rows.append({"seed": seed, "knob": knob, **asdict(crowd), **means})
    return rows


TABLES = (ratings_or_comparisons,)
