"""The figures of notebook 08 on people of different tastes, and its tables.

`rows` are those of the table tastes.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments import tastes
from minialign.course.experiments.tastes import SHARES, SMALLER, other
from minialign.course.lesson import show

# One colour and one marker for one arm; what belongs to the larger group is not filled.
LOOK = {
    "one reward": (plots.BLUE, "o"),
    "told": (plots.GREEN, "^"),
    "told, mixed up": (plots.RED, "X"),
    "inferred": (plots.ORANGE, "D"),
}
FREE = "#777777"


def look(arm: str) -> dict:
    colour, marker = LOOK[arm]
    return dict(color=colour, marker=marker)


def shares(rows: Sequence[dict]) -> None:
    """How often people agree with their reward, by the size of the groups: linear rewards, and the GPT's."""
    panels = [("linear", smaller, SHARES) for smaller in (SMALLER, other(SMALLER))]
    panels.append(("GPT", SMALLER, tastes.GPT_SHARES))
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), sharey=True)
    said = []
    for ax, (reader, smaller, places) in zip(axes, panels):
        where = dict(reader=reader, smaller=smaller)
        of = {group: f"accuracy/{group}" for group in (smaller, other(smaller))}
        for arm in ("one reward", "told", "told, mixed up"):
            if reader == "GPT" and arm == "told, mixed up":
                continue
            found = [tastes.column(rows, arm, of[smaller], share=share, **where) for share in places]
            ax.plot(places, [x.mean() for x in found], label=f"smaller group, {arm}", **look(arm))
            ax.plot(places, found, "_", color=LOOK[arm][0])
            said.append(f"{reader}, fewer {smaller}, {arm}: {found[0].mean():.0%} to {found[-1].mean():.0%}")
        larger = [
            tastes.column(rows, "one reward", of[other(smaller)], share=share, **where).mean()
            for share in places
        ]
        ax.plot(
            places,
            larger,
            fillstyle="none",
            linestyle="--",
            label="larger group, one reward",
            **look("one reward"),
        )
        said.append(f"the larger group, one reward: {larger[0]:.0%} to {larger[-1]:.0%}")
        lines = {"smaller group, knows it": ("knows", ":"), "smaller group, likelihood": ("likelihood", "-.")}
        for label, (arm, style) in lines.items():
            value = tastes.column(rows, arm, of[smaller], reader="none").mean()
            ax.axhline(value, color=FREE, linestyle=style, label=label)
            said.append(f"{label}: {value:.0%}")
        ax.set(title=f"{reader}, the smaller group likes it {smaller}", xticks=places)
        ax.set(xlabel="share of the larger group", xticklabels=[f"{100 * x:.0f}" for x in places])
    axes[0].set_ylabel("people agree with their reward")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside lower center")
    show(
        figure,
        "Three panels: how often people of a group agree with a reward, over the share of the larger group. "
        f"{'; '.join(said)}.",
    )


def introductions(rows: Sequence[dict], share: float = 0.9) -> None:
    """What comparisons of a new person bring: agreement of both groups, and who they are taken for."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.3))
    said = []
    for ax, reader in zip(axes, ("linear", "GPT")):
        where = dict(reader=reader, share=share, smaller=SMALLER)
        for group, fill in ((SMALLER, "full"), (other(SMALLER), "none")):
            name = f"accuracy/{group}"
            found = [tastes.column(rows, "inferred", name, known=k, **where) for k in tastes.KNOWN]
            label = f"{group}, inferred"
            ax.plot(tastes.KNOWN, [x.mean() for x in found], fillstyle=fill, label=label, **look("inferred"))
            ax.plot(tastes.KNOWN, found, "_", color=LOOK["inferred"][0])
            ends = f"{found[0].mean():.0%} to {found[-1].mean():.0%}"
            said.append(f"{reader}, {group}, after {tastes.KNOWN[0]} to {tastes.KNOWN[-1]}: {ends}")
        for arm, style in {"one reward": "--", "told": ":"}.items():
            value = tastes.column(rows, arm, f"accuracy/{SMALLER}", **where).mean()
            ax.axhline(value, color=LOOK[arm][0], linestyle=style, label=f"{SMALLER}, {arm}")
            said.append(f"{SMALLER}, {arm}: {value:.0%}")
        ax.set(title=reader, ylabel="people agree with their reward")
    for reader, style in (("linear", "-"), ("GPT", "--")):
        where = dict(reader=reader, share=share, smaller=SMALLER)
        found = [
            tastes.column(rows, "inferred", f"posterior/{SMALLER}", known=k, **where) for k in tastes.KNOWN
        ]
        axes[2].plot(
            tastes.KNOWN, [x.mean() for x in found], linestyle=style, label=reader, **look("inferred")
        )
        said.append(f"{reader}, taken for {SMALLER}: {found[0].mean():.0%} to {found[-1].mean():.0%}")
    axes[2].set(ylim=(0, 1), title=f"P({SMALLER}) of who is {SMALLER}")
    axes[2].legend(frameon=False)
    for ax in axes:
        ax.set(xlabel="comparisons of the new person", xticks=tastes.KNOWN)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=4, loc="outside lower center")
    show(
        figure,
        f"Two panels of agreement and one of the posterior, over the comparisons of a new person, where "
        f"{share:.0%} are {other(SMALLER)}. {'; '.join(said)}.",
    )


def utilities(rows: Sequence[dict], share: float = 0.9) -> None:
    """A table: agreement, and what the best of 8 is worth to each group, above a response at random."""
    groups = (other(SMALLER), SMALLER)
    print(f"{share:.0%} {groups[0]}, {1 - share:.0%} {groups[1]}")
    print(f"{'':22}  agree: {groups[0]}  {groups[1]}    best of 8: {groups[0]}  {groups[1]}")
    found: list[tuple[str, str, dict]] = [("none", arm, {}) for arm in ("likelihood", "length", "knows")]
    place = dict(share=share, smaller=SMALLER)
    for reader in ("linear", "GPT"):
        found += [(reader, "one reward", place), (reader, "told", place)]
        found += [(reader, "inferred", place | {"known": k}) for k in (4, 16)]
    for reader, arm, where in found:
        numbers = [
            tastes.column(rows, arm, f"{measure}/{group}", reader=reader, **where).mean()
            for measure in ("accuracy", "utility")
            for group in groups
        ]
        name = f"{arm} from {where['known']}" if "known" in where else arm
        head = name if reader == "none" else f"{reader}, {name}"
        print(f"{head:22}  {numbers[0]:15.1%}  {numbers[1]:5.1%}  {numbers[2]:19.2f}  {numbers[3]:5.2f}")


def posteriors(paths: Mapping[str, np.ndarray], prior: float) -> None:
    """Live: P(brief) of some people after each of their comparisons, {who: (k,)}."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for i, (who, path) in enumerate(paths.items()):
        style = dict(color=plots.COLOURS[i % 8], marker=plots.MARKERS[i % 8], markersize=4)
        axes.plot(np.arange(len(path) + 1), [prior, *path], label=who, **style)
    axes.axhline(0.5, color=FREE, linestyle=":")
    axes.set(xlabel="comparisons", ylabel=f"P({SMALLER} | comparisons)", ylim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, f"Lines from {prior:.2f}, one for each of {len(paths)} people, over their comparisons.")


def preferred(names: Sequence[str], table: np.ndarray, columns: Mapping[str, Sequence[float]]) -> None:
    """A preference matrix in percent, and beside it what each answer has in some `columns`."""
    print(f"{'':12}" + "".join(f"over {name:11}" for name in names) + "".join(f"{c:>14}" for c in columns))
    for i, name in enumerate(names):
        cells = "".join(f"{'':16}" if i == j else f"{table[i, j]:<16.0%}" for j in range(len(names)))
        scores = (round(float(values[i]), 3) + 0.0 for values in columns.values())  # no −0.000
        print(f"{name:12}" + cells + "".join(f"{score:14.3f}" for score in scores))


def cycle(names: Sequence[str], table: np.ndarray, policy: Sequence[float]) -> None:
    """Three answers in a ring: who is preferred to whom by how many, and with what probability to answer."""
    angles = np.pi / 2 - 2 * np.pi * np.arange(3) / 3
    x, y = 1.7 * np.cos(angles), np.sin(angles)
    figure, axes = plt.subplots(figsize=(6.5, 2.9))
    said = []
    for i in range(3):
        for j in range(3):
            if i != j and table[i, j] > 0.5:
                ends = dict(xy=(x[j], y[j]), xytext=(x[i], y[i]))
                axes.annotate(
                    "", **ends, arrowprops=dict(arrowstyle="-|>", shrinkA=34, shrinkB=34, color=FREE)
                )
                axes.text(
                    (x[i] + x[j]) / 2,
                    (y[i] + y[j]) / 2,
                    f"{table[i, j]:.0%}",
                    ha="center",
                    va="center",
                    bbox=dict(facecolor="white", edgecolor="none", pad=1),
                )
                said.append(f"{table[i, j]:.0%} prefer {names[i]} to {names[j]}")
        axes.text(
            x[i],
            y[i],
            f"{names[i]}\nNash {policy[i]:.2f}",
            ha="center",
            va="center",
            bbox=dict(boxstyle="round", facecolor="#F2F2F2", edgecolor=LOOK["one reward"][0]),
        )
    axes.set(xlim=(-2.3, 2.3), ylim=(-1, 1.35))
    axes.axis("off")
    of = ", ".join(f"{name} {p:.2f}" for name, p in zip(names, policy))
    show(figure, f"Three answers in a ring: {'; '.join(said)}. The Nash policy: {of}.")
