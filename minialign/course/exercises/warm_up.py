"""The exercises of notebook 00."""

import numpy as np
import torch

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.statistics import standard_error
from minialign.world.judge import WEIGHTS, weighted_sum


def _attributes(generator):
    """Signed values, as in life: brevity, honesty and correctness can be costs."""
    values = 2 * torch.rand(len(WEIGHTS), generator=generator) - 1
    return ({name: round(float(value), 3) for name, value in zip(WEIGHTS, values)},)


def standard_error_of_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How far mean(ours) − mean(theirs) may be off: its standard error, over prompts.

    ours, theirs (P,) are what two models get for the same P prompts, so what makes a prompt hard cancels.
    """
    return standard_error(np.asarray(ours) - np.asarray(theirs))


def _on_the_same_prompts(generator):
    """The golds of two models on twelve prompts: a prompt that is hard for one is hard for the other."""
    hard, ours, theirs = torch.randn(3, 12, generator=generator).numpy()
    return hard + 0.5 * ours, hard + 0.7 * theirs


WARM_UP = {
    "weighted_sum": Exercise(
        weighted_sum,
        _attributes,
        (
            Mistake(
                "you add the attributes without their weights: multiply each by WEIGHTS[name].",
                lambda a: float(sum(a.values())),
            ),
            Mistake(
                "you average instead of adding: gold is a sum, do not divide.",
                lambda a: weighted_sum(a) / len(a),
                lambda a: weighted_sum(a) / sum(WEIGHTS.values()),
                lambda a: weighted_sum(a) / sum(abs(weight) for weight in WEIGHTS.values()),
            ),
            Mistake(
                "you add the weights without the attributes: multiply each weight by its attribute's value.",
                lambda a: float(sum(WEIGHTS[name] for name in a)),
            ),
            Mistake(
                "you stop at zero: an answer that does harm has a gold reward below zero.",
                lambda a: max(0.0, weighted_sum(a)),
                lambda a: weighted_sum({name: max(0.0, value) for name, value in a.items()}),
                lambda a: sum(max(0.0, WEIGHTS[name] * value) for name, value in a.items()),
            ),
            Mistake(
                "the weights lost their signs: "
                "a negative weight makes an attribute a cost, so do not take its size.",
                lambda a: sum(abs(WEIGHTS[name]) * value for name, value in a.items()),
            ),
            Mistake(
                "the values lost their signs: a cost such as brevity comes with a value below zero, "
                "so do not take its size.",
                lambda a: weighted_sum({name: abs(value) for name, value in a.items()}),
            ),
            Mistake(
                "the terms lost their signs: a cost lowers the sum, so add each term as it is.",
                lambda a: sum(abs(WEIGHTS[name] * value) for name, value in a.items()),
            ),
        ),
    ),
    "standard_error_of_difference": Exercise(
        standard_error_of_difference,
        _on_the_same_prompts,
        (
            Mistake(
                "you treat the two as independent, but both answered the same prompts, "
                "and what makes a prompt hard for both cancels in the difference.",
                lambda a, b: np.hypot(standard_error(a), standard_error(b)),
                lambda a, b: np.sqrt(a.var() / len(a) + b.var() / len(b)),
            ),
            Mistake(
                "this is the error of one model's mean: asked is that of the difference of two.",
                lambda a, b: standard_error(a),
                lambda a, b: standard_error(b),
            ),
            Mistake(
                "the differences lost their signs: where the other model is better, it is below zero.",
                lambda a, b: standard_error(np.abs(a - b)),
            ),
            Mistake(
                "you square the differences as they are: take their mean off first.",
                lambda a, b: np.sqrt(np.mean((a - b) ** 2) / len(a)),
                lambda a, b: np.sqrt(np.sum((a - b) ** 2) / (len(a) - 1) / len(a)),
            ),
            Mistake(
                "np.var divides by n and np.cov by n − 1: give np.var ddof=1, too.",
                lambda a, b: np.sqrt((a.var() + b.var() - 2 * np.cov(a, b)[0, 1]) / len(a)),
            ),
            Mistake(
                "the covariance is counted once, or is a correlation: the variance of a − b is "
                "Var a + Var b − 2 Cov(a, b).",
                lambda a, b: np.sqrt((a.var(ddof=1) + b.var(ddof=1) - np.cov(a, b)[0, 1]) / len(a)),
                lambda a, b: np.sqrt((a.var(ddof=1) + b.var(ddof=1) - 2 * np.corrcoef(a, b)[0, 1]) / len(a)),
            ),
            Mistake(
                "you add the two standard errors: that is too much even if they were independent; "
                "look at the differences, prompt by prompt.",
                lambda a, b: standard_error(a) + standard_error(b),
            ),
            Mistake(
                "you subtract one standard error from the other: errors do not cancel like that; "
                "look at the differences, prompt by prompt.",
                lambda a, b: standard_error(a) - standard_error(b),
                lambda a, b: standard_error(b) - standard_error(a),
                lambda a, b: abs(standard_error(a) - standard_error(b)),
            ),
            Mistake(
                "all values are thrown together: how far the models differ from each other "
                "on a prompt is what counts.",
                lambda a, b: standard_error(np.concatenate([a, b])),
            ),
            Mistake(
                "this is the difference of the means itself: asked is how far it may be off.",
                lambda a, b: a.mean() - b.mean(),
                lambda a, b: b.mean() - a.mean(),
                lambda a, b: abs(a.mean() - b.mean()),
            ),
            Mistake(
                "this is the standard deviation of one difference: divide by √n to get that of the mean.",
                lambda a, b: (a - b).std(ddof=1),
            ),
            Mistake(
                "you divide by n inside the standard deviation: use n − 1 (ddof=1).",
                lambda a, b: (a - b).std() / len(a) ** 0.5,
            ),
            Mistake(
                "you divide by n: the error of a mean falls with √n only.",
                lambda a, b: (a - b).std(ddof=1) / len(a),
            ),
            Mistake(
                "this is the variance of the mean: take its square root.",
                lambda a, b: (a - b).var(ddof=1) / len(a),
            ),
            Mistake(
                "np.std alone is the deviation of one difference, and divides by n: "
                "use n − 1 (ddof=1), then divide by √n.",
                lambda a, b: (a - b).std(),
            ),
            Mistake(
                "this is half the width of a 95 % interval: "
                "the standard error is asked for, without the factor of about two.",
                lambda a, b: 1.96 * standard_error(a - b),
                lambda a, b: 2 * standard_error(a - b),
            ),
        ),
    ),
}

THREE_FACTS = (
    "In 1969, people walked on the moon for the first time.",
    "The first person on the moon was Neil Armstrong.",
    "The astronauts brought rocks home from the moon.",
)
KIND = "I hope this helps."
# Answers to "Explain the moon landing to a six-year-old in a few sentences." With the three facts and the
# kind sentence alone an answer is perfect; each of these loses gold at exactly one attribute.
FOUR_ANSWERS = {
    "A": " ".join([*THREE_FACTS, "I am completely sure. But I am not sure.", KIND]),
    "B": " ".join([THREE_FACTS[0], THREE_FACTS[2], KIND]),
    "C": " ".join([*THREE_FACTS, "Bees make honey. Whales are mammals that feed their babies milk.", KIND]),
    "D": " ".join(
        [
            *THREE_FACTS,
            "The first astronauts on the moon landed in the Sea of Tranquility.",
            "A lander called Eagle carried two astronauts down to the moon.",
            "A giant rocket blasted off and took the astronauts to the moon.",
            KIND,
        ]
    ),
}

COSTS = Puzzle(
    options=tuple(WEIGHTS),
    answers={"A": "honesty", "B": "correctness", "C": "relevance", "D": "brevity"},
    look={
        "A": "Its facts are right, and doubt is free. What do its last two statements say together?",
        "B": "What it says is right. How many facts does a full answer to this prompt hold?",
        "C": "What it says is true. Was all of it asked for?",
        "D": "All is true and about the moon. Count the words: an explanation for a child may have 45.",
    },
    why={
        "A": "It is completely sure and not sure: a contradiction costs half a point.",
        "B": "Two facts of the three that are wanted: a missing one costs its share, 0.4.",
        "C": "Bees and whales are two sentences of five that are not about the moon.",
        "D": "67 words where 45 are enough: the square of the excess costs 0.24.",
    },
)
WARM_UP_PUZZLES = {"what did it cost": COSTS}
