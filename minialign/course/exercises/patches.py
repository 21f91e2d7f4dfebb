"""The exercises of notebook 08 on reward hacking."""

import numpy as np

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.ensembles import conservative


def _scores(generator):
    """Scores of four members for six answers, and λ. Members agree on some answers more than on others."""
    rng = np.random.default_rng(generator.initial_seed())
    spread = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 3.0])
    return rng.normal(size=6) + spread * rng.normal(size=(4, 6)), float(rng.uniform(0.3, 0.8))


def _weighted(scores, lam, axis=0, sign=-1, power=2, ddof=0):
    """Mean ± λ times a power of the standard deviation, along an axis."""
    return scores.mean(axis) + sign * lam * scores.std(axis, ddof=ddof) ** power


PATCHES = {
    "conservative": Exercise(
        conservative,
        _scores,
        (
            Mistake(
                "the first result is the mean: one member that is wrong by much still carries it. "
                "The worst case is what the most sceptical member says.",
                lambda scores, lam: (scores.mean(0), _weighted(scores, lam)),
            ),
            Mistake(
                "the first result is the *best* case: the worst case is the lowest score, not the highest.",
                lambda scores, lam: (scores.max(0), _weighted(scores, lam)),
            ),
            Mistake(
                "you combine the answers, and there is one number for each member: combine the members, "
                "the first axis, so that each answer has one number.",
                lambda scores, lam: (scores.min(1), _weighted(scores, lam, axis=1)),
                lambda scores, lam: (scores.min(-1), _weighted(scores, lam)),
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, axis=1)),
            ),
            Mistake(
                "you combine all scores into one number: there is one for each answer.",
                lambda scores, lam: (scores.min(), scores.mean() - lam * scores.var()),
                lambda scores, lam: (scores.min(), _weighted(scores, lam)),
                lambda scores, lam: (scores.min(0), scores.mean() - lam * scores.var()),
            ),
            Mistake(
                "you take the answers of the worst *member*, the one whose mean is lowest: "
                "the worst case is asked of each answer anew.",
                lambda scores, lam: (scores[scores.mean(1).argmin()], _weighted(scores, lam)),
            ),
            Mistake(
                "you take λ times the *standard deviation*: Coste et al. take the variance, its square.",
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, power=1)),
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, power=1, ddof=1)),
            ),
            Mistake(
                "you *add* λ times the variance: that pays for disagreement. Subtract it.",
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, sign=1)),
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, sign=1, ddof=1)),
            ),
            Mistake(
                "your variance divides by k − 1, that of a sample: these k members are all that there are, "
                "so divide by k.",
                lambda scores, lam: (scores.min(0), _weighted(scores, lam, ddof=1)),
            ),
            Mistake(
                "that is the standard error of the mean: it shrinks with more members, as if the truth were "
                "their mean. The disagreement itself is asked for.",
                lambda scores, lam: (scores.min(0), scores.mean(0) - lam * scores.var(0) / len(scores)),
                lambda scores, lam: (
                    scores.min(0),
                    scores.mean(0) - lam * scores.std(0, ddof=1) / len(scores) ** 0.5,
                ),
            ),
            Mistake(
                "λ is missing from the second result: it is the price of a unit of variance.",
                lambda scores, lam: (scores.min(0), _weighted(scores, 1.0)),
                lambda scores, lam: (scores.min(0), _weighted(scores, 1.0, ddof=1)),
            ),
            Mistake(
                "λ weighs mean against variance, as (1 − λ) and λ: the mean counts in full.",
                lambda scores, lam: (scores.min(0), (1 - lam) * scores.mean(0) - lam * scores.var(0)),
            ),
            Mistake(
                "you subtract the variance from the worst case: the second result starts from the mean.",
                lambda scores, lam: (scores.min(0), scores.min(0) - lam * scores.var(0)),
            ),
            Mistake(
                "the second result is the mean alone, which is not conservative: subtract λ times the "
                "variance.",
                lambda scores, lam: (scores.min(0), scores.mean(0)),
            ),
            Mistake(
                "the two are swapped: first the worst case, then the variance-weighted mean.",
                lambda scores, lam: conservative(scores, lam)[::-1],
            ),
        ),
    ),
}


FLAWS = Puzzle(
    options=("in the labels", "an error of its own"),
    answers={
        "a compliment": "in the labels",
        "filler": "in the labels",
        "last sentence twice": "an error of its own",
        "scrambled words": "an error of its own",
    },
    look={
        "a compliment": "On which side of zero are the people?",
        "filler": "On which side of zero are the people?",
        "last sentence twice": "Do people pay for it, too?",
        "scrambled words": "How much do people take off, and how much does the reward model?",
    },
    why={
        "a compliment": "People pay for it, so the reward model has learned rightly what it was told.",
        "filler": "People pay for it. The gold reward neither pays nor charges, until an answer is too long.",
        "last sentence twice": "People charge for it, and the reward model pays.",
        "scrambled words": "People charge six, in log-odds, for it, and the reward model hardly anything.",
    },
)
PATCHES_PUZZLES = {"in the labels or not": FLAWS}
