"""The exercises of notebook 07."""

import math

import numpy as np
import torch

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.course.experiments.race_costs import seconds_to
from minialign.labels import best_and_worst
from minialign.statistics import (
    Estimate,
    frontier,
    mean_with_interval,
    one_standard_error_rule,
    win_rate,
)


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


def _trials(generator):
    """Gold, standard errors and KL of nine settings.

    The best ties with the next four. The first of these has gone farthest, the last two least far, both
    equally far, and the very last is worth more. What follows is worth less, and has gone less far. The
    errors differ, so that it matters whose is taken.
    """
    rng = np.random.default_rng(generator.initial_seed())
    below = np.array([0, 0.35, 0.9, 0.75, 0.6, 1.5, 2.5, 4, 6])
    kl = np.array([4, 9, 3, 1, 1, 0.8, 0.5, 0.3, 0.0]) * rng.uniform(0.8, 1.2)
    error = rng.uniform(0.05, 0.08)
    means = 3 + rng.normal(0, 0.1) - below * error
    errors = error * np.array([1, 0.3, 0.3, 0.3, 0.3, 0.5, 3, 1, 1])
    order = rng.permutation(9)
    return means[order], errors[order], kl[order]


def _near(means, errors, times=1.0):
    """Which settings are within so many of the best one's standard errors."""
    return means >= means.max() - times * errors[means.argmax()]


def _least(places, order):
    """Of some places the one with the lowest order, of equals the first."""
    return min(places, key=lambda i: order[i])


def _scores(generator):
    """Rewards of three samples of each of five prompts, side by side, no two alike; and that number."""
    return torch.randn(15, generator=generator), 3


def _curve(generator):
    """A target, and seconds and gold of a run, which rises and falls three times.

    By the seed, it passes the target once or three times, never, or begins above it.
    """
    seed = generator.initial_seed()
    rng = np.random.default_rng(seed)
    seconds = np.cumsum(rng.uniform(5, 40, 12))
    golds = np.array([2.6, 2.66, 2.7, 2.74, 2.95, 2.85, 2.84, 3.0, 3.1, 2.85, 3.0, 2.95])
    target = (2.9, 3.05, 3.4, 2.5, 2.9)[seed % 5]
    return target + rng.normal(0, 0.01), seconds, golds + rng.normal(0, 0.01, 12)


def _reached(golds, target):
    return [k for k in range(len(golds)) if golds[k] >= target]


def _straight(target, seconds, golds, k):
    """When the straight line from point k − 1 to point k is at the target."""
    part = (target - golds[k - 1]) / (golds[k] - golds[k - 1])
    return seconds[k - 1] + part * (seconds[k] - seconds[k - 1])


def _from_the_point_before(place, never=math.inf):
    """A reader's function that takes the first point above the target, and makes of it `place(…, k)`."""

    def attempt(target, seconds, golds):
        above = _reached(golds, target)
        if not above:
            return never(seconds) if callable(never) else never
        return seconds[0] if above[0] == 0 else place(target, seconds, golds, above[0])

    return attempt


def _with_a_point_before(never, first=0):
    """A reader's function that looks for the first point above the target from `first` on, and no further."""

    def attempt(target, seconds, golds):
        above = [k for k in _reached(golds, target) if k >= first]
        return _straight(target, seconds, golds, above[0]) if above else never

    return attempt


def _sorted(golds, seconds):
    order = np.argsort(golds)
    return golds[order], seconds[order]


def _last_crossing(target, seconds, golds):
    rising = [k for k in range(1, len(golds)) if golds[k] >= target > golds[k - 1]]
    if not rising:
        return seconds[0] if golds[0] >= target else math.inf
    return _straight(target, seconds, golds, rising[-1])


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


def _best_so_far(costs, values, kind=None):
    """Sorted by cost, a point counts when it beats all before it; of equal costs, whichever comes first.

    Which comes first, the kind of sorting decides.
    """
    found, best = np.zeros(len(costs), dtype=bool), -np.inf
    for i in np.argsort(costs, kind=kind):
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
                lambda ours, theirs: mean_with_interval((ours > theirs).mean(1)),
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
            Mistake(
                "a loss counts −1: wins less losses are no win rate. A win is 1, a tie one half, a loss 0.",
                lambda ours, theirs: _share(np.sign(_differences(ours, theirs))),
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
                lambda costs, values: _best_so_far(costs, values, "stable"),
            ),
            Mistake(
                "these are the points that *are* beaten.", lambda costs, values: ~frontier(costs, values)
            ),
        ),
    ),
    "one_standard_error_rule": Exercise(
        one_standard_error_rule,
        _trials,
        (
            Mistake(
                "this is the best one: the rule takes the simplest of all that tie with it.",
                lambda means, errors, order: means.argmax(),
            ),
            Mistake(
                "this is the simplest of all: first leave out what is worse than the best by more than its "
                "standard error.",
                lambda means, errors, order: order.argmin(),
            ),
            Mistake(
                "each setting's own standard error is added to its mean: the rule takes the best one's.",
                lambda means, errors, order: _least(np.flatnonzero(means + errors >= means.max()), order),
            ),
            Mistake(
                "two standard errors are allowed: the rule allows one.",
                lambda means, errors, order: _least(np.flatnonzero(_near(means, errors, 2)), order),
                lambda means, errors, order: _least(np.flatnonzero(_near(means, errors, 1.96)), order),
            ),
            Mistake(
                "that is the place among those that tie: say which of *all* settings it is.",
                lambda means, errors, order: order[_near(means, errors)].argmin(),
            ),
            Mistake(
                "this one has gone farthest of those that tie: take the lowest, not the highest.",
                lambda means, errors, order: max(
                    np.flatnonzero(_near(means, errors)), key=lambda i: order[i]
                ),
            ),
            Mistake(
                "these are all that tie: choose one of them.",
                lambda means, errors, order: np.flatnonzero(_near(means, errors)),
                lambda means, errors, order: _near(means, errors),
            ),
            Mistake(
                "of two that have gone equally far take the one with the higher mean.",
                lambda means, errors, order: _least(np.flatnonzero(_near(means, errors)), order),
                lambda means, errors, order: min(
                    np.flatnonzero(_near(means, errors)), key=lambda i: (order[i], means[i])
                ),
            ),
            Mistake(
                "this is the mean of the setting: its place is asked for.",
                lambda means, errors, order: means[one_standard_error_rule(means, errors, order)],
            ),
        ),
    ),
    "best_and_worst": Exercise(
        best_and_worst,
        _scores,
        (
            Mistake(
                "best and worst are swapped: the best first.",
                lambda scores, n: best_and_worst(-scores, n),
            ),
            Mistake(
                "these are places among the samples of a prompt, from 0 to n − 1: "
                "a prompt's first row is n times its number.",
                lambda scores, n: (scores.view(-1, n).argmax(-1), scores.view(-1, n).argmin(-1)),
            ),
            Mistake(
                "the number of the prompt is added once: its first row is n times that.",
                lambda scores, n: tuple(
                    torch.arange(len(scores) // n) + places
                    for places in (scores.view(-1, n).argmax(-1), scores.view(-1, n).argmin(-1))
                ),
            ),
            Mistake(
                "these are the scores themselves: the rows that hold them are asked for.",
                lambda scores, n: (scores.view(-1, n).amax(-1), scores.view(-1, n).amin(-1)),
            ),
            Mistake(
                "the samples of one prompt stand side by side: you compare samples of different prompts.",
                lambda scores, n: tuple(
                    places * (len(scores) // n) + torch.arange(len(scores) // n)
                    for places in (scores.view(n, -1).argmax(0), scores.view(n, -1).argmin(0))
                ),
                lambda scores, n: (scores.view(n, -1).argmax(0), scores.view(n, -1).argmin(0)),
            ),
            Mistake(
                "that is the best and the worst of all: take them of each prompt.",
                lambda scores, n: (scores.argmax(), scores.argmin()),
            ),
        ),
        errors=(
            Mistake(
                "there is one first row for each prompt, len(scores) // n of them.",
                lambda scores, n: torch.arange(len(scores)) * n + scores.view(-1, n).argmax(-1),
                lambda scores, n: torch.arange(n) * n + scores.view(-1, n).argmax(-1),
                lambda scores, n: torch.arange(n) + scores.view(-1, n).argmax(-1),
            ),
        ),
    ),
    "seconds_to": Exercise(
        seconds_to,
        _curve,
        (
            Mistake(
                "this is the first point that was measured above the target: it was passed before, "
                "on the straight line from the point before.",
                _from_the_point_before(lambda target, seconds, golds, k: seconds[k]),
            ),
            Mistake(
                "this is the last point that was measured below the target: it was passed after that.",
                _from_the_point_before(lambda target, seconds, golds, k: seconds[k - 1]),
            ),
            Mistake(
                "where the target is never met, argmax of nothing but False is 0: the answer is infinity.",
                _from_the_point_before(_straight, lambda seconds: seconds[0]),
                _from_the_point_before(lambda target, seconds, golds, k: seconds[k], lambda s: s[0]),
            ),
            Mistake(
                "where the first point meets the target there is none before it (place −1 is the last one): "
                "the answer is the first point's time.",
                _with_a_point_before(math.inf),
                _with_a_point_before(math.inf, first=1),
            ),
            Mistake(
                "two cases are left: what if no point meets the target (argmax of nothing but False is 0), "
                "and what if the first one does?",
                lambda target, seconds, golds: _straight(target, seconds, golds, (golds >= target).argmax()),
            ),
            Mistake(
                "where the target is never met the answer is infinity, not the end of the run.",
                _from_the_point_before(_straight, lambda seconds: seconds[-1]),
                _from_the_point_before(lambda target, seconds, golds, k: seconds[k], lambda s: s[-1]),
            ),
            Mistake(
                "where the target is never met the answer is infinity.",
                _from_the_point_before(_straight, math.nan),
            ),
            Mistake(
                "np.interp wants golds that only rise, and says nothing if they do not: "
                "look for the first point above the target yourself.",
                lambda target, seconds, golds: np.interp(target, golds, seconds),
                lambda target, seconds, golds: np.interp(target, golds, seconds, right=math.inf),
            ),
            Mistake(
                "with the points sorted by gold it is no run any more: keep the order of time.",
                lambda target, seconds, golds: np.interp(target, *_sorted(golds, seconds)),
                lambda target, seconds, golds: np.interp(target, *_sorted(golds, seconds), right=math.inf),
            ),
            Mistake(
                "the run passes the target more than once: take the first time.",
                _last_crossing,
            ),
            Mistake(
                "the part of the way is measured from the wrong end: it is 0 at the point before.",
                _from_the_point_before(
                    lambda target, seconds, golds, k: (
                        seconds[k] + seconds[k - 1] - _straight(target, seconds, golds, k)
                    )
                ),
            ),
            Mistake(
                "this is when the run is best: when does it first meet the target?",
                lambda target, seconds, golds: seconds[golds.argmax()],
            ),
            Mistake(
                "the seconds are counted from the first point: count from 0, "
                "for what comes before it takes time, too.",
                lambda target, seconds, golds: seconds_to(target, seconds - seconds[0], golds),
            ),
        ),
    ),
}


SLIPS = Puzzle(
    options=(
        "a free baseline is left out",
        "the judge was optimised",
        "one look at the clock",
        "an average hides opposite signs",
        "not independent",
        "tuned on the test",
    ),
    answers={
        "A": "a free baseline is left out",
        "B": "not independent",
        "C": "one look at the clock",
        "D": "the judge was optimised",
        "E": "an average hides opposite signs",
    },
    look={
        "A": "Who else beats SFT, and what did that cost?",
        "B": "How many prompts were asked?",
        "C": "What would the same sentence say a third of the time later?",
        "D": "What was PPO trained to make large?",
        "E": "Ask the same by family of prompts.",
    },
    why={
        "A": "The start, sampled cooler, beats SFT more often, and has learned nothing.",
        "B": "There are 196 prompts and three seeds, and comparisons that share one of them go together.",
        "C": "At the end the same settings of PPO are far above the start, and DPO's are falling.",
        "D": "PPO was trained on this very score, DPO has never seen it. Their gold is equal.",
        "E": "Best-of-n is clearly ahead in poems, and not at all where facts are explained.",
    },
)
VERDICTS = Puzzle(
    options=("true", "half true", "open"),
    answers={
        "simplicity": "true",
        "stability": "half true",
        "efficiency": "true",
        "performance": "open",
        "hyperparameters": "half true",
    },
    look={
        "simplicity": "What does RLHF hold, train and run that DPO does not? (Section 6.)",
        "stability": "Look at DPO's lines before and after the first third. (Section 7.)",
        "efficiency": "Who needs longer to the same gold, with any setting that ties? (Section 6.)",
        "performance": "What does the interval say at T = 1, and what do others find? (Section 3.)",
        "hyperparameters": "How many are there, and what moves the gold most? (Section 7.)",
    },
    why={
        "simplicity": "One network is trained; there is no reward model and no sampling.",
        "stability": "Quick and safe at first, and it falls if nobody stops it.",
        "efficiency": "About 2.6 times faster here, since it needs no reward model; 14 times fewer "
        "node-hours in Tülu 3.",
        "performance": "Equal to within 0.1 here at T = 1, and the literature goes both ways.",
        "hyperparameters": "Two against sixteen; but β is not the one that matters most.",
    },
)
RACE_PUZZLES = {"which slip": SLIPS, "five verdicts": VERDICTS}
