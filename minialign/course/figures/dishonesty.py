"""The figures of notebook 08 on wrong answers that a person approves of, and its tables."""

from collections.abc import Callable

import numpy as np
from matplotlib import pyplot as plt

from minialign.bootstrap import crossed_interval
from minialign.course.experiments.comparisons import crowd
from minialign.course.experiments.dishonesty import (
    CHECKING,
    HURRIED,
    accuracy,
    among,
    approval,
    column,
    results,
    told_plainly,
)
from minialign.course.experiments.horizons import felt_now
from minialign.course.figures.horizons import COOLED, LOOK
from minialign.course.lesson import show
from minialign.statistics import Estimate
from minialign.world.judge import judge
from minialign.world.prompts import parse

ARMS = ("half in a hurry", "no tastes", "hindsight", "typical", "immediate")
NAMES = {"no tastes": "everything checked (control)"}


def rows() -> dict[str, tuple[str, float]]:
    """What is shown: the start, also cooler, and the arms that the table has, each with its temperature."""
    found = {row["arm"] for row in results()}
    cooled = {f"start, T = {t:g}": ("start", t) for t in COOLED}
    return {"start": ("start", 1.0), **cooled} | {
        NAMES.get(arm, arm): (arm, 1.0) for arm in ARMS if arm in found
    }


def colour_of(arm: str, temperature: float) -> str:
    return LOOK[arm][0] if temperature == 1 else COOLED[temperature]


def counted(approval_of_wrong: Callable) -> None:
    """A table of the start and the arms at T = 1 and greedily, with the reader's function."""
    found = {row["arm"] for row in results()}
    print(f"{'':30}    T  right  wrong  approval of wrong  sure when wrong  sure when right")
    for arm in ("start", *(arm for arm in ARMS if arm in found)):
        for t in (1.0, 0.0):
            right, wrong, if_wrong, if_right = (
                column(arm, name, t).mean()
                for name in ("right", "wrong", "sure when wrong", "sure when right")
            )
            tables = zip(column(arm, "correctness", t), column(arm, "approved", t))
            rate = np.mean([approval_of_wrong(*of_seed) for of_seed in tables])
            print(
                f"{NAMES.get(arm, arm):30}  {t:3g}  {right:5.0%}  {wrong:5.0%}  {rate:17.0%}  "
                f"{if_wrong:15.0%}  {if_right:15.0%}"
            )


def approved() -> None:
    """Approval of wrong answers, and the part of it that is for being sure; and how many are right."""
    shown = rows()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1 + 0.36 * len(shown)), sharey=True)
    said = []
    for y, (name, (arm, t)) in enumerate(shown.items()):
        whole, sure, hits = (
            crossed_interval(table)
            for table in (among(arm, "approved", t), among(arm, "for being sure", t), accuracy(arm, t))
        )
        colour = colour_of(arm, t)
        left.barh(y, whole.mean - sure.mean, 0.6, color=colour, alpha=0.45)
        look = dict(left=whole.mean - sure.mean, color=colour, hatch="//", edgecolor="white")
        left.barh(y, sure.mean, 0.6, **look)
        left.plot([whole.low, whole.high], [y + 0.42, y + 0.42], color="black", linewidth=1.2)
        interval_at(right, hits, y, colour)
        said.append(f"{name} {whole.mean:.0%} ({sure.mean:.0%} for being sure), right {hits.mean:.0%}")
    left.set(xlabel="approval of wrong answers (hatched: for being sure)", xlim=(0, None))
    right.set(xlabel="answers that are right")
    left.set(yticks=range(len(shown)), yticklabels=list(shown), ylim=(len(shown) - 0.5, -0.5))
    for ax in (left, right):
        ax.xaxis.set_major_formatter("{x:.0%}")
    show(
        figure,
        "Bars of how often a crowd half in a hurry approves of a wrong answer, with intervals, and beside "
        f"them the share of right answers: {'; '.join(said)}.",
    )


def interval_at(ax, estimate: Estimate, y: float, colour: str) -> None:
    ax.plot([estimate.low, estimate.high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
    ax.plot(estimate.mean, y, "o", color=colour, markersize=7)


def by_family() -> None:
    """A table of the approval of wrong answers to questions and to claims, at T = 1, mean over seeds."""
    print(f"{'approval of wrong answers':30}  to questions  to claims")
    for name, (arm, t) in rows().items():
        correctness, given = column(arm, "correctness", t), column(arm, "approved", t)
        rates = [given[:, k::2][correctness[:, k::2] < 0].mean() for k in (0, 1)]  # they come in turn
        print(f"{name:30}  {rates[0]:12.0%}  {rates[1]:9.0%}")


# --- live ---


def verdicts(prompt: str, answers: tuple[str, ...]) -> None:
    """What answers of the reader's to a question or a claim are worth, and who approves of them."""
    known = parse(prompt)
    if known.family not in ("question", "truth"):
        raise ValueError(f"{prompt!r} is no question and no claim: take one of data/world/topics.jsonl")
    people = {name: [crowd(0, **of)[0]] for name, of in (("in a hurry", HURRIED), ("checks", CHECKING))}
    print(f"the true answer, told plainly: {told_plainly(known)}")
    print("  now  later  approves: in a hurry  checks")
    for answer in answers:
        in_a_hurry, checks = (approval(known, answer, person) for person in people.values())
        worth = f"{felt_now(known, answer):5.2f}  {judge(known, answer).gold:5.2f}"
        print(f"{worth}  {in_a_hurry:20.0%}  {checks:6.0%}  {answer}")
