"""The exercises of notebook 07."""

import numpy as np

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.statistics import Estimate, frontier, mean_with_interval, win_rate


def _two_policies(generator):
    """Rewards of 30 prompts, which differ in difficulty, with 4 responses each from two policies.

    They are rounded so that there are ties.
    """
    rng = np.random.default_rng(generator.initial_seed())
    difficulty = rng.normal(size=(30, 1))
    return tuple(np.round(2 * (better + difficulty + rng.normal(size=(30, 4)))) / 2 for better in (0.4, 0.0))


def _points(generator):
    """KL and gold reward of twelve policies; two are the same point, and two more have the same KL.

    The last is as good as the best of the others, at a higher KL.
    """
    rng = np.random.default_rng(generator.initial_seed())
    kl = rng.uniform(0, 10, 11)
    gold = 2 + np.sqrt(kl) / 4 + rng.normal(0, 0.3, 11)
    kl[1], gold[1], kl[2] = kl[0], gold[0], kl[3]
    best = gold.argmax()
    return np.append(kl, kl[best] + 1), np.append(gold, gold[best])


def _share(wins) -> Estimate:
    """Mean and interval of a table of wins, (P, n, m), over prompts."""
    return mean_with_interval(wins.mean((1, 2)))


def _differences(ours, theirs):
    return ours[:, :, None] - theirs[:, None, :]


def _wins(ours, theirs):
    difference = _differences(ours, theirs)
    return (difference > 0) + 0.5 * (difference == 0)


def _without_ties(ours, theirs):
    """Wins, and NaN where there is a tie."""
    difference = _differences(ours, theirs)
    return np.where(difference == 0, np.nan, difference > 0)


def _decided(differences):
    return differences[differences != 0]


def _beaten(costs, values, no_dearer, no_worse):
    """Which points another one (or the point itself) beats, by these two comparisons of all with all."""
    return (no_dearer(costs[None], costs[:, None]) & no_worse(values[None], values[:, None])).any(1)


def _best_so_far(costs, values):
    """Sorted by cost, a point counts when it beats all before it; of equal costs, whichever comes first."""
    found, best = np.zeros(len(costs), dtype=bool), -np.inf
    for i in np.argsort(costs, kind="stable"):
        found[i], best = values[i] > best, max(best, values[i])
    return found


RACE = {
    "win_rate": Exercise(
        win_rate,
        _two_policies,
        (
            Mistake(
                "a tie counts as a loss: let it count half a win, or two equal policies would both lose.",
                lambda ours, theirs: _share(_differences(ours, theirs) > 0),
            ),
            Mistake(
                "a tie counts as a win: let it count half, or two equal policies would both win.",
                lambda ours, theirs: _share(_differences(ours, theirs) >= 0),
            ),
            Mistake(
                "ties are left out: let a tie count half a win, or the few pairs that differ decide for all.",
                lambda ours, theirs: mean_with_interval(np.nanmean(_without_ties(ours, theirs), (1, 2))),
                lambda ours, theirs: mean_with_interval(_decided(_differences(ours, theirs)) > 0),
            ),
            Mistake(
                "this is the share alone: its interval is asked for, too, so return what "
                "mean_with_interval gives.",
                lambda ours, theirs: win_rate(ours, theirs).mean,
            ),
            Mistake("that is *their* win rate.", lambda ours, theirs: win_rate(theirs, ours)),
            Mistake(
                "the interval treats all comparisons as independent; "
                "those of one prompt are not. Take the mean of each prompt first.",
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).ravel()),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean(1).ravel()),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean(2).ravel()),
            ),
            Mistake(
                "a tie counts as a loss, and the interval treats all comparisons as independent: "
                "let a tie count half, and take the mean of each prompt first.",
                lambda ours, theirs: mean_with_interval((_differences(ours, theirs) > 0).ravel()),
            ),
            Mistake(
                "the mean runs over the prompts: take that of each prompt, .mean((1, 2)), "
                "so that the interval is over prompts.",
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean(0).ravel()),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean((0, 1))),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean((0, 2))),
            ),
            Mistake(
                "you compare each response with one of theirs: "
                "compare it with all of theirs to the same prompt, it costs nothing.",
                lambda ours, theirs: mean_with_interval(((ours > theirs) + 0.5 * (ours == theirs)).mean(1)),
            ),
            Mistake(
                "you compare the means of the responses: a win is decided between two responses.",
                lambda ours, theirs: mean_with_interval(
                    (ours.mean(1) > theirs.mean(1)) + 0.5 * (ours.mean(1) == theirs.mean(1))
                ),
                lambda ours, theirs: mean_with_interval(ours.mean(1) > theirs.mean(1)),
            ),
            Mistake(
                "responses to different prompts are compared: then the prompts' difficulty decides.",
                lambda ours, theirs: _share(
                    _wins(ours.reshape(1, -1), theirs.reshape(1, -1)).reshape(len(ours), ours.shape[1], -1)
                ),
            ),
            Mistake(
                "that is the mean difference of the rewards: count wins.",
                lambda ours, theirs: _share(_differences(ours, theirs)),
            ),
        ),
        errors=(
            Mistake(
                "mean_with_interval takes one number for each prompt, "
                "so average over both axes of responses first, .mean((1, 2)).",
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs)),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean(0)),
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).mean(1)),
            ),
        ),
    ),
    "frontier": Exercise(
        frontier,
        _points,
        (
            Mistake(
                "you take the points with a *low* value: "
                "for its cost, a point on the frontier has the highest value.",
                lambda costs, values: frontier(costs, -values),
            ),
            Mistake(
                "you take the points with a *high* cost: on the frontier nobody is as good and cheaper.",
                lambda costs, values: frontier(-costs, values),
            ),
            Mistake(
                "a point that equals another one is not beaten by it: "
                "one of the two inequalities must be strict.",
                lambda costs, values: (
                    ~(
                        (costs[None] <= costs[:, None])
                        & (values[None] >= values[:, None])
                        & ~np.eye(len(costs), dtype=bool)
                    ).any(1)
                ),
            ),
            Mistake(
                "both inequalities are strict: a point of the same cost and a higher value beats, too.",
                lambda costs, values: ~_beaten(costs, values, np.less, np.greater),
            ),
            Mistake(
                "the inequality of the costs is strict: at the same cost, a higher value beats, too.",
                lambda costs, values: ~_beaten(costs, values, np.less, np.greater_equal),
            ),
            Mistake(
                "no inequality is strict, so every point beats itself: "
                "at least one of the two must be strict.",
                lambda costs, values: ~_beaten(costs, values, np.less_equal, np.greater_equal),
                lambda costs, values: _beaten(costs, values, np.less_equal, np.greater_equal),
            ),
            Mistake(
                "a point of the same value at a lower cost beats, too: "
                "it is not enough to have the highest value up to one's cost.",
                lambda costs, values: ~_beaten(costs, values, np.less_equal, np.greater),
            ),
            Mistake(
                "rows and columns are exchanged: these are the points that beat nobody. "
                "Ask of each point whether some other one beats it.",
                lambda costs, values: frontier(-costs, -values),
            ),
            Mistake(
                "these are the places of the points: a True or False for each point is asked for.",
                lambda costs, values: np.flatnonzero(frontier(costs, values)),
            ),
            Mistake(
                "of points with the same cost the one that comes first is kept: order decides nothing.",
                _best_so_far,
            ),
            Mistake(
                "these are the points that *are* beaten.", lambda costs, values: ~frontier(costs, values)
            ),
        ),
    ),
}
