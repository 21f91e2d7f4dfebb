"""The figures of notebook 08 on what people feel now and what it is worth to them later, and its tables."""

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments import dishonesty
from minialign.course.experiments.horizons import along, change, column, for_the_money
from minialign.course.lesson import show
from minialign.statistics import Estimate

# One colour and one marker for one arm, here and where dishonesty is measured.
LOOK = {
    "start": ("#777777", "."),
    "immediate": (plots.RED, "X"),
    "typical": (plots.ORANGE, "D"),
    "hindsight": (plots.BLUE, "v"),
    "no tastes": (plots.GREEN, "^"),
    "immediate, agreeing": (plots.PURPLE, "p"),
    "immediate, conflicting": ("#8C2D04", "P"),
    "hindsight, conflicting": ("#08306B", "s"),
    "half in a hurry": ("#222222", "o"),
}
SHOWN = tuple(arm for arm in LOOK if arm != "half in a hurry")
COOLED = {0.7: plots.SKY, 0.0: "#3A3A98"}  # the start, sampled at a lower temperature
ZERO = "#444444"
SETS = {"held-out": "all families of prompts", "facts": "questions and claims only"}
NAMES = {"immediate, agreeing": "immediate, agreeing pairs (control)"}
NAMES |= {f"{who}, conflicting": f"{who}, conflicting pairs" for who in ("immediate", "hindsight")}


def look(arm: str) -> dict:
    colour, marker = LOOK[arm]
    return dict(color=colour, marker=marker)


def there() -> list[str]:
    """The arms of this part that the table has."""
    found = {row["arm"] for row in dishonesty.results()}
    return [arm for arm in SHOWN if arm in found]


def pairs_of(changes: Mapping[str, tuple[Estimate, Estimate]]) -> str:
    """What was found, in words: of each row the changes now and later."""
    return "; ".join(
        f"{name} {now.mean:+.2f} and {later.mean:+.2f}" for name, (now, later) in changes.items()
    )


# --- before anything is trained ---


def what_labels_say() -> None:
    """A table: what the chosen responses are worth more than the others, by the labels of each arm."""
    print(f"{'chosen less rejected':36}  labels    now  later")
    for arm in there()[1:]:
        many, now, later = (column(arm, n).mean() for n in ("labels", "labels say now", "labels say later"))
        print(f"{NAMES.get(arm, arm):36}  {many:6,.0f}  {now:+.2f}  {later:+.2f}")


# --- what was trained ---


def changes_of(prompts: str) -> dict[str, tuple[Estimate, Estimate]]:
    """By how much each arm, and the cooled start, has more than the start at T = 1: now, and later."""
    found = {}
    for t in COOLED:
        found[f"start, T = {t:g}"] = tuple(
            change("start", name, temperature=t, prompts=prompts) for name in ("now", "later")
        )
    for arm in there()[1:]:
        found[NAMES.get(arm, arm)] = tuple(change(arm, name, prompts=prompts) for name in ("now", "later"))
    return found


def now_and_later() -> None:
    """What people feel at once (hollow), and what it is worth later (filled), over the start at T = 1."""
    arms = there()[1:]
    looks = [dict(color=colour, marker="s") for colour in COOLED.values()] + [look(arm) for arm in arms]
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.36 * len(looks)), sharey=True)
    said = []
    for ax, (prompts, title) in zip(axes, SETS.items()):
        changes = changes_of(prompts)
        for y, ((now, later), style) in enumerate(zip(changes.values(), looks)):
            for estimate, shift, fill in ((now, -0.14, "none"), (later, 0.14, "full")):
                ax.plot([estimate.low, estimate.high], [y + shift] * 2, color=style["color"], linewidth=1.8)
                ax.plot(estimate.mean, y + shift, markersize=7, linestyle="none", fillstyle=fill, **style)
        ax.axvline(0, color=ZERO, linestyle=":")
        ax.set(title=title, xlabel="change over the start at T = 1 (95 %)")
        ax.set(yticks=range(len(changes)), yticklabels=list(changes), ylim=(len(changes) - 0.5, -0.5))
        said.append(f"{title}: {pairs_of(changes)}")
    figure.suptitle("now ○ and later ●, in units of gold", fontsize=10)
    show(
        figure,
        "Two panels of changes over the start at T = 1 with intervals, for each row first now, then later. "
        f"Left, {said[0]}. Right, {said[1]}.",
    )


def table() -> None:
    """Each arm at T = 1: its worth now and later, what its seeming better is due to, and its habits."""
    print(f"{'':36}    now  later    gap  tastes  facts    KL  flattery  sure  right")
    for arm in there():
        now, believed, later, kl, flattery, sure = (
            column(arm, name).mean() for name in ("now", "believed", "later", "kl", "flattery", "confidence")
        )
        right = column(arm, "right", prompts="facts").mean()
        print(
            f"{NAMES.get(arm, arm):36}  {now:5.2f}  {later:5.2f}  {now - later:5.2f}  {now - believed:6.2f}  "
            f"{believed - later:5.2f}  {kl:4.1f}  {flattery:8.0%}  {sure:4.0%}  {right:5.0%}"
        )


# --- what it costs ---


def money(price: float) -> None:
    """What labels bring, later; and what hindsight brings for the same money, at a price that is given."""
    figure, ax = plt.subplots(figsize=(6.5, 3))
    said = []
    for arm in ("immediate", "hindsight"):
        bought, values = along(arm)
        mean = values.mean(1)
        ax.plot(bought, mean, label=arm, **look(arm))
        ax.fill_between(bought, values.min(1), values.max(1), color=LOOK[arm][0], alpha=0.15, linewidth=0)
        said.append(f"{arm} from {mean[0]:.2f} to {mean[-1]:.2f} after {bought[-1]:,.0f} labels")
    equal = for_the_money(price, bought, mean)
    ax.plot(bought[-1] / price, equal, "*", color=LOOK["hindsight"][0], markersize=14, label="equal cost")
    ax.set(xlabel="labels", ylabel="worth later (gold), T = 1")
    ax.legend(frameon=False)
    show(
        figure,
        f"Gold against the number of labels, with the range of the seeds: {'; '.join(said)}. A star at "
        f"{bought[-1] / price:,.0f} labels in hindsight, which cost as much at a price of {price:g}, is at "
        f"{equal:.2f}.",
    )


# --- whose labels were these? ---

CROWDS = {"A": "half in a hurry", "B": "immediate", "C": "no tastes"}
SIGNS = {"flattery": "flattery", "filler": "filler", "confidence": "sounds sure", "politeness": "kind"}


def crowds() -> None:
    """A table of what three policies do more often than the start, in points of a hundred answers."""
    print(
        f"{'points over the start':24}" + "".join(f"{name:>12}" for name in SIGNS.values()) + f"{'right':>12}"
    )
    for letter, arm in CROWDS.items():
        gains = [(column(arm, name) - column("start", name)).mean() for name in SIGNS]
        right = column(arm, "right", prompts="facts") - column("start", "right", prompts="facts")
        cells = "".join(f"{100 * gain:+12.0f}" for gain in (*gains, np.mean(right)))
        print(f"{letter:24}{cells}")
