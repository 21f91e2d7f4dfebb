"""The figures that several notebooks share. Each returns a matplotlib figure; `lesson.show` displays it with
its alt text.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers and hatches differ as well.
"""

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

BLUE, ORANGE, GREEN, PURPLE, SKY, RED, YELLOW, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#F0E442",
    "#999999",
)
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
    """A horizontal bar of shares for each row: {row: {part: share}}, the parts in the same order
    everywhere.
    """
    parts = list(next(iter(rows.values())))
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.38 * len(rows)))
    left = np.zeros(len(rows))
    for i, part in enumerate(parts):
        widths = np.array([row[part] for row in rows.values()])
        bars = axes.barh(
            list(rows), widths, left=left, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=part
        )
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
    axes.legend(frameon=False, ncols=min(len(parts), 4), loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def attribute_bars(judgements: dict, weights: dict[str, float]):
    """What each attribute adds to or takes from the gold reward of some judged answers: {name: Judgement}."""
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.42 * len(judgements)))
    right, left = np.zeros(len(judgements)), np.zeros(len(judgements))
    shown = [name for name in weights if any(j.attributes[name] for j in judgements.values())]
    for i, name in enumerate(shown):
        widths = np.array([weights[name] * j.attributes[name] for j in judgements.values()])
        start = np.where(widths >= 0, right, left)
        axes.barh(
            list(judgements),
            widths,
            left=start,
            color=COLOURS[i % 8],
            hatch=HATCHES[i % 8],
            edgecolor="white",
            label=name,
        )
        right, left = right + np.maximum(widths, 0), left + np.minimum(widths, 0)
    for row, judgement in enumerate(judgements.values()):
        axes.plot(
            judgement.gold, row, "k|", markersize=16, markeredgewidth=2, label="gold" if row == 0 else None
        )
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("contribution to the gold reward")
    # the last mark stays whole
    axes.set_xlim(right=1.05 * max(right.max(), max(j.gold for j in judgements.values())))
    axes.legend(frameon=False, ncols=5, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
    return figure


def smoothed(values, window: int = 20) -> np.ndarray:
    """Running mean over the last `window` values, so that a noisy curve shows its course."""
    values = np.asarray(values, dtype=float)
    total = np.cumsum(np.insert(values, 0, 0.0))
    low = np.maximum(np.arange(1, len(values) + 1) - window, 0)
    return (total[1:] - total[low]) / (np.arange(1, len(values) + 1) - low)


def curve_over_seeds(axes, rows: list[dict], x: str, y: str, label: str, index: int = 0) -> None:
    """Mean over seeds as a line, the seeds' range as a band."""
    places = sorted({row[x] for row in rows})
    values = [[row[y] for row in rows if row[x] == place] for place in places]
    axes.plot(places, [np.mean(v) for v in values], marker=MARKERS[index], color=COLOURS[index], label=label)
    axes.fill_between(
        places,
        [min(v) for v in values],
        [max(v) for v in values],
        color=COLOURS[index],
        alpha=0.2,
        linewidth=0,
    )


def metric_panels(rows: list[dict], names: tuple[str, ...], columns: int = 3):
    """One small panel for each metric of a run against its step: what to watch while it runs."""
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.6 * columns, 2.1 * lines), squeeze=False)
    for i, (name, ax) in enumerate(zip(names, axes.flat)):
        ax.plot(
            [row["step"] for row in rows],
            [row[name] for row in rows],
            color=COLOURS[i % 8],
            marker=MARKERS[i % 8],
            markersize=3,
        )
        ax.set(title=name, xlabel="step" if i >= len(names) - columns else "")
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    return figure
