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
    """KL and gold reward of twelve policies; two are the same point, and two more have the same KL."""
    rng = np.random.default_rng(generator.initial_seed())
    kl = rng.uniform(0, 10, 12)
    gold = 2 + np.sqrt(kl) / 4 + rng.normal(0, 0.3, 12)
    kl[1], gold[1], kl[2] = kl[0], gold[0], kl[3]
    return kl, gold


def _share(wins) -> Estimate:
    """Mean and interval of a table of wins, (P, n, m), over prompts."""
    return mean_with_interval(wins.mean((1, 2)))


def _differences(ours, theirs):
    return ours[:, :, None] - theirs[:, None, :]


def _wins(ours, theirs):
    difference = _differences(ours, theirs)
    return (difference > 0) + 0.5 * (difference == 0)


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
            Mistake("that is *their* win rate.", lambda ours, theirs: win_rate(theirs, ours)),
            Mistake(
                "the interval treats all comparisons as independent; "
                "those of one prompt are not. Take the mean of each prompt first.",
                lambda ours, theirs: mean_with_interval(_wins(ours, theirs).ravel()),
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
                lambda costs, values: (
                    ~((costs[None] < costs[:, None]) & (values[None] > values[:, None])).any(1)
                ),
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
