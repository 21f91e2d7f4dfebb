"""The figures of notebook 00."""

from collections.abc import Mapping

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.lesson import show
from minialign.statistics import Estimate
from minialign.world.judge import WEIGHTS, Judgement

# As in notebook 07; the base model in its frame as in notebook 02.
COLOURS = {"base": plots.GREEN, "sft": "#777777", "ppo": plots.BLUE, "dpo": plots.RED}
MARKERS = {"base": "D", "sft": "o", "ppo": "v", "dpo": "X"}


def costs(judgements: Mapping[str, Judgement]) -> None:
    """What each attribute adds to the gold of some answers, or takes from it."""
    figure = plots.attribute_bars(dict(judgements), WEIGHTS)
    said = ", ".join(f"{name} {judgement.gold:.2f}" for name, judgement in judgements.items())
    show(
        figure,
        "Stacked bars: to the right of zero what the attributes add to the gold reward of each answer, to "
        f"the left what they cost. The gold is: {said}.",
    )


def policies(
    golds: Mapping[str, Mapping[float, Estimate]], free: Mapping[str, Mapping[float, float]], people: float
) -> None:
    """Gold at several temperatures: of policies with intervals, of what needs no training, of people."""
    temperatures = list(next(iter(golds.values())))
    place = {t: x for x, t in enumerate(temperatures)}
    figure, axes = plt.subplots(figsize=(7.5, 3.2))
    for i, (name, found) in enumerate(golds.items()):
        x = np.array([place[t] for t in found]) + 0.12 * (i - (len(golds) - 1) / 2)
        mean, low, high = np.transpose([*found.values()])
        look = dict(color=COLOURS[name], marker=MARKERS[name], linestyle="none", capsize=3, label=name)
        axes.errorbar(x, mean, (mean - low, high - mean), **look)
    bottom = min(low for found in golds.values() for _, low, _ in found.values()) - 0.2
    for name, found in free.items():
        seen = {place[t] + 0.3: gold for t, gold in found.items() if gold > bottom}
        if seen:
            look = dict(color=COLOURS["base"], marker=MARKERS["base"], linestyle="none", label=name)
            axes.plot([*seen], [*seen.values()], **look)
        for t, gold in found.items():
            if gold <= bottom:
                text = dict(ha="center", va="bottom", fontsize=9, color="#555555")
                axes.text(place[t] + 0.3, bottom, f"{name}:\n{gold:.2f} ↓", **text)
    axes.axhline(people, color="#222222", linestyle="--", label="the demonstrators")
    ticks = [f"T = {t:g}" if t else "T = 0, greedy" for t in temperatures]
    axes.set(xticks=range(len(ticks)), xticklabels=ticks, ylabel="gold reward", ylim=(bottom, None))
    axes.set(xlim=(-0.4, len(ticks) - 0.5))
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    said = [f"{name} {', '.join(map(str, found.values()))}" for name, found in golds.items()]
    for name, found in free.items():
        said.append(f"{name} {', '.join(f'{gold:.2f} at T = {t:g}' for t, gold in found.items())}")
    at = ", ".join(f"{t:g}" for t in temperatures)
    text = f"Mean gold with 95 % intervals at T = {at}: {'; '.join(said)}; the demonstrators {people:.2f}."
    show(figure, text)


def twice(first: np.ndarray, second: np.ndarray) -> None:
    """Means of one model, measured twice on the same few prompts, for many sets of prompts."""
    difference = first - second
    order, x = np.argsort(difference), np.arange(len(first))
    figure, axes = plt.subplots(figsize=(7.5, 2.6))
    axes.vlines(x, first[order], second[order], color=plots.GREY, linewidth=1, zorder=0)
    for values, fill, label in ((first, "full", "measured once"), (second, "none", "the same model again")):
        look = dict(color=COLOURS["sft"], marker=MARKERS["sft"], fillstyle=fill, linestyle="none")
        axes.plot(x, values[order], label=label, **look)
    axes.set(xlabel=f"{len(x)} sets of 8 prompts, in the order of the difference", xticks=[])
    axes.set(ylabel="mean gold of 8 answers")
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    size = np.abs(difference)
    show(
        figure,
        f"{len(first)} pairs of dots: the mean gold of eight answers, twice by the same model to the same "
        f"prompts. The two differ by {np.median(size):.2f} in the middle case, by {size.max():.2f} at most.",
    )
