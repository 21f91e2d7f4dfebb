"""The figures that several notebooks share.

Each function returns a matplotlib figure; `lesson.show` displays it with its alt text. Colours are Okabe and
Ito's, which colour-blind readers can tell apart; markers and hatches differ as well.
"""

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from minialign.statistics import measured, numbers, whole_number

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW, GREY = "#56B4E9", "#D55E00", "#F0E442", "#999999"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY)
MARKERS = "osD^vPX*"
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo", "--")

plt.rcParams.update(
    {
        "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
    }
)


def stacked_shares(rows: dict[str, dict[str, float]], xlabel: str = "share"):
    """A horizontal bar of shares for each row: {row: {part: share}}, with the same parts in each."""
    parts = list(next(iter(rows.values()), ()))
    shares = measured([[row[part] for part in parts] for row in rows.values()], "shares", 2)
    columns = min(len(parts), 4)
    legend = 0.25 * max(0, -(-len(parts) // max(columns, 1)) - 2)  # a third line of the legend needs room
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.38 * len(rows) + legend))
    left = np.zeros(len(rows))
    for i, (part, widths) in enumerate(zip(parts, shares.T)):
        # From the ninth part on a colour comes again, with another hatch.
        look = dict(color=COLOURS[i % 8], hatch=HATCHES[(i + i // 8) % 8], edgecolor="white")
        bars = axes.barh(list(rows), widths, left=left, label=part, **look)
        axes.bar_label(
            bars,
            [f"{w:.0%}" if w >= 0.06 else "" for w in widths],
            label_type="center",
            fontsize=9,
            bbox=dict(facecolor="white", edgecolor="none", pad=1, alpha=0.85),
        )
        left += widths
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel=xlabel)
    axes.legend(frameon=False, ncols=columns, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def attribute_bars(judgements: dict, weights: dict[str, float]):
    """What each attribute adds to or takes from the gold reward of some judged answers: {name: Judgement}."""
    gold = measured([j.gold for j in judgements.values()], "gold")
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.42 * len(judgements)))
    right, left = np.zeros(len(judgements)), np.zeros(len(judgements))
    shown = [name for name in weights if any(j.attributes[name] for j in judgements.values())]
    for i, name in enumerate(shown):
        widths = np.array([weights[name] * j.attributes[name] for j in judgements.values()])
        start = np.where(widths >= 0, right, left)
        look = dict(color=COLOURS[i % 8], hatch=HATCHES[(i + i // 8) % 8], edgecolor="white")
        axes.barh(list(judgements), widths, left=start, label=name, **look)
        right, left = right + np.maximum(widths, 0), left + np.minimum(widths, 0)
    axes.plot(gold, range(len(gold)), "k|", markersize=16, markeredgewidth=2, label="gold")
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("contribution to the gold reward")
    axes.set_xlim(right=1.05 * max(right.max(), gold.max()))  # the last mark stays whole
    axes.legend(frameon=False, ncols=5, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def smoothed(values, window: int = 20) -> np.ndarray:
    """Running mean over the last `window` values, so that a noisy curve shows its course."""
    values, window = numbers(values, ndim=1), whole_number(window, "window", 1)
    return np.array([values[max(0, end - window) : end].mean() for end in range(1, len(values) + 1)])


def _column(rows: list[dict], name: str) -> np.ndarray:
    """The values of one metric, (rows,), whoever's scalars they are."""
    return np.array([numbers(row[name], name, 0) for row in rows])


def curve_over_seeds(axes, rows: list[dict], x: str, y: str, label: str, index: int = 0) -> None:
    """Mean over seeds as a line, the seeds' range as a band."""
    at, values = _column(rows, x), _column(rows, y)
    places = np.unique(at)
    groups = [values[at == place] for place in places]
    colour, marker = COLOURS[index % 8], MARKERS[index % 8]
    axes.plot(places, [group.mean() for group in groups], marker=marker, color=colour, label=label)
    low, high = [group.min() for group in groups], [group.max() for group in groups]
    axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def metric_panels(rows: list[dict], names: tuple[str, ...], columns: int = 3):
    """A small panel for each metric of a run against its step, where recorded: to watch while it runs."""
    known = dict.fromkeys(name for row in rows for name in row)
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.6 * columns, 2.1 * lines), squeeze=False)
    for i, (name, ax) in enumerate(zip(names, axes.flat)):
        if rows and name not in known:
            raise ValueError(f"there is no metric {name!r}: choose from {', '.join(known)}")
        recorded = [row for row in rows if name in row]
        look = dict(color=COLOURS[i % 8], marker=MARKERS[i % 8], markersize=3)
        ax.plot(_column(recorded, "step"), _column(recorded, name), **look)
        ax.set(title=name, xlabel="step" if i >= len(names) - columns else "")
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    return figure
