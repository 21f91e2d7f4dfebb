"""The exercises of notebook 08 on whose labels they were, and on wrong answers that people approve of."""

import numpy as np

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.course.experiments.dishonesty import approval_of_wrong


def _graded(generator):
    """Correctness and approval of four answers to each of twelve prompts.

    Each prompt has from none to three wrong ones, some have answers that are neither right nor wrong, and
    approval is higher of right ones.
    """
    rng = np.random.default_rng(generator.initial_seed())
    correctness = rng.choice([0.0, 0.5, 1.0], (12, 4), p=[0.2, 0.3, 0.5])
    for i in range(12):
        correctness[i, : i % 4] = rng.choice([-1.0, -0.5], i % 4)
    correctness = rng.permuted(correctness, axis=1)
    approved = np.clip(0.35 + 0.2 * correctness + rng.normal(0, 0.15, (12, 4)), 0.01, 0.99)
    return correctness, approved


def _by_prompt(correctness, approved):
    """The means of the prompts that have wrong answers, averaged."""
    rows = [given[right < 0].mean() for right, given in zip(correctness, approved) if (right < 0).any()]
    return float(np.mean(rows))


HORIZONS = {
    "approval_of_wrong": Exercise(
        approval_of_wrong,
        _graded,
        (
            Mistake(
                "that is the mean over all answers: leave out those that are not wrong.",
                lambda correctness, approved: approved.mean(),
            ),
            Mistake(
                "these are the right answers: ask about the wrong ones.",
                lambda correctness, approved: approved[correctness > 0].mean(),
                lambda correctness, approved: approved[correctness >= 0].mean(),
            ),
            Mistake(
                "an answer of correctness 0 states nothing that decides: it is neither right nor wrong.",
                lambda correctness, approved: approved[correctness <= 0].mean(),
            ),
            Mistake(
                "what is not wholly right need not be wrong: wrong is a correctness below 0.",
                lambda correctness, approved: approved[correctness < 1].mean(),
                lambda correctness, approved: approved[correctness <= 0.5].mean(),
            ),
            Mistake(
                "half wrong is wrong, too: a correctness below 0.",
                lambda correctness, approved: approved[correctness == -1].mean(),
            ),
            Mistake(
                "approval is a probability, not a yes or no: average it as it is, without a threshold.",
                lambda correctness, approved: (approved[correctness < 0] > 0.5).mean(),
                lambda correctness, approved: (approved[correctness < 0] >= 0.5).mean(),
            ),
            Mistake(
                "the denominator is all answers: this is how many are wrong *and* approved of. "
                "Divide by the number of wrong ones.",
                lambda correctness, approved: (approved * (correctness < 0)).mean(),
                lambda correctness, approved: np.where(correctness < 0, approved, 0).mean(),
            ),
            Mistake(
                "the condition is turned round: of what is approved of, this is the share that is wrong.",
                lambda correctness, approved: (approved * (correctness < 0)).sum() / approved.sum(),
            ),
            Mistake(
                "each prompt counts the same here, whether it has one wrong answer or three: "
                "average over wrong answers.",
                _by_prompt,
            ),
            Mistake(
                "this is the sum: divide it by the number of wrong answers.",
                lambda correctness, approved: approved[correctness < 0].sum(),
            ),
            Mistake(
                "this is how often people do *not* approve.",
                lambda correctness, approved: 1 - approved[correctness < 0].mean(),
            ),
            Mistake(
                "this is the share of answers that are wrong: what do people say of these?",
                lambda correctness, approved: (correctness < 0).mean(),
            ),
        ),
    ),
}


WHOSE_LABELS = Puzzle(
    options=("immediate", "hindsight", "no tastes", "half in a hurry"),
    answers={"A": "half in a hurry", "B": "immediate", "C": "no tastes"},
    look={
        "A": "Which habit has grown, and which have not? Who likes just this one?",
        "B": "All habits have grown, so these people like them. Now look at the right answers.",
        "C": "No habit has grown. Who likes none?",
    },
    why={
        "A": "It sounds sure more often, and has fewer compliments and less filler: people in a hurry go by "
        "certainty alone, and those who check like no habit.",
        "B": "Compliments, filler and certainty have grown, and the right answers least: these people like "
        "habits, and check nothing. In hindsight the right answers would have grown as with the others.",
        "C": "No habit has grown but kindness, for which the gold reward pays, and the right answers have.",
    },
)
HORIZON_PUZZLES = {"whose labels": WHOSE_LABELS}
