"""The figures of notebook 01. The shipped base model is blue in all of them, the reader's own orange."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments.measuring import over_seeds
from minialign.course.lesson import show

BASE, YOURS, CORPUS = plots.BLUE, plots.ORANGE, plots.PURPLE


def attention(tokens: Sequence[str], weights: torch.Tensor) -> None:
    """One head's weights (T, T) over a text of T tokens: from each place to those that it may see."""
    weights = weights.detach().numpy()
    figure, axes = plt.subplots(figsize=(5.6, 4.6))
    later = np.triu(np.ones_like(weights, dtype=bool), 1)
    image = axes.imshow(np.ma.masked_where(later, weights), cmap="Blues", vmin=0, vmax=1)
    axes.set_facecolor("#EEEEEE")
    for t, s in zip(*np.nonzero(weights > 0.15)):
        ink = "white" if weights[t, s] > 0.6 else "black"
        axes.text(s, t, f"{weights[t, s]:.2f}", ha="center", va="center", fontsize=7, color=ink)
    names = [token.strip() for token in tokens]
    axes.set(xticks=range(len(names)), yticks=range(len(names)), ylabel="at this token …")
    axes.set_xticklabels(names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticklabels(names)
    axes.set_xlabel("… so much weight is on these")
    figure.colorbar(image, shrink=0.7)
    most = [f"{names[t]} on {names[s]} {weights[t, s]:.2f}" for t, s in enumerate(weights.argmax(-1))]
    show(
        figure,
        f"The attention weights of one head as a square of {len(names)} rows and columns, one for a token. "
        "Everything above the diagonal is grey: no place sees a later one. The largest weight of each row: "
        f"{', '.join(most)}.",
    )


def mixture(shares: dict[str, float]) -> None:
    """What a corpus is made of, by kind of document."""
    figure = plots.stacked_shares({"corpus": shares}, xlabel="share of the characters")
    said = ", ".join(f"{kind} {share:.0%}" for kind, share in shares.items())
    show(figure, f"One stacked bar of the corpus: {said}.")


def losses(yours: Sequence[float], shipped: Sequence[float], guessing: float) -> None:
    """The losses of two pre-training runs over the steps, and what guessing costs."""
    figure, axes = plt.subplots(figsize=(7, 3))
    smooth = plots.smoothed(shipped)
    axes.plot(np.arange(1, len(smooth) + 1), smooth, color=BASE, label=f"shipped: {len(shipped):,} steps")
    smooth = plots.smoothed(yours, 5)
    label = f"yours: {len(yours)} steps, smaller model"
    axes.plot(np.arange(1, len(smooth) + 1), smooth, "--", color=YOURS, label=label)
    axes.axhline(guessing, color=plots.GREY, linestyle=":", label="guessing: ln V")
    axes.set(xscale="log", xlabel="step", ylabel="loss (nats a token)", ylim=(0, None))
    axes.legend(frameon=False)
    show(
        figure,
        f"Loss against step, on a logarithmic axis of steps. Both curves start near ln V, {guessing:.1f} "
        f"nats, and fall. The shipped model's ends at {np.mean(shipped[-100:]):.2f}, after {len(shipped):,}; "
        f"yours ends higher, after {len(yours)}.",
    )


def turns(corpus: Mapping[str, float], model: Mapping[str, Sequence[float]]) -> None:
    """How often another prompt follows, by family: in the corpus and, seed by seed, in a model's samples."""
    figure, axes = plt.subplots(figsize=(7.5, 2.8))
    places, means = np.arange(len(corpus)), [np.mean(model[family]) for family in corpus]
    axes.bar(places - 0.2, corpus.values(), 0.4, label="corpus", color=CORPUS)
    look = dict(color=BASE, hatch="//", edgecolor="white", label="base model, at T = 1")
    axes.bar(places + 0.2, means, 0.4, **look)
    for place, family in zip(places, corpus):
        axes.plot([place + 0.2] * len(model[family]), model[family], "ko", markersize=3)
    axes.set(xticks=places, xticklabels=[*corpus], ylabel="another prompt follows", ylim=(0, 1.05))
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    said = ", ".join(f"{family} {share:.2f} and {m:.2f}" for (family, share), m in zip(corpus.items(), means))
    show(
        figure,
        "Paired bars, corpus and model, for seven families of prompts, with a dot for each of "
        f"{len(next(iter(model.values())))} samples of each. Share that goes on with another prompt: {said}.",
    )


ARMS = {  # colour and hatch, by what the words around a prompt say
    "the prompt": (BASE, ""),
    "its corpus's words for it": (plots.GREEN, "//"),
    "the same in new words": (plots.SKY, "\\\\"),
    "says nothing": (plots.GREY, ".."),
    "begins an exam or a forum": (plots.RED, "++"),
    "about known things": (plots.YELLOW, "xx"),
    "about unknown things": (plots.YELLOW, "oo"),
    "known things, no empty lines": (plots.YELLOW, "--"),
    "known things, in its corpus's words": (plots.YELLOW, "//"),
}


def without_training(rows: Sequence[Mapping]) -> None:
    """Answers and gold of one model, by what stands around a prompt: a bar for each arm, a dot for each row.

    A row has "where", "says", "answer" (a share) and "gold".
    """
    names = list(dict.fromkeys((row["where"], row["says"]) for row in rows))
    panels = {"answer": "share of replies that answer", "gold": "gold reward, greedy"}
    figure, axes = plt.subplots(1, 2, figsize=(10, 0.8 + 0.34 * len(names)), sharey=True)
    said = []
    for ax, (column, title) in zip(axes, panels.items()):
        ax.set(title=title)
        ax.axvline(0, color="#444444", linewidth=0.8)
        means = []
        for y, name in enumerate(names):
            values = [row[column] for row in rows if (row["where"], row["says"]) == name]
            colour, hatch = ARMS[name[1]]
            ax.barh(y, np.mean(values), 0.65, color=colour, hatch=hatch, edgecolor="white")
            if len(values) > 1:
                ax.plot(values, [y] * len(values), "ko", markersize=3.5)
            means.append(f"{', '.join(name)}: {np.mean(values):.2f}")
        said.append(f"{title.capitalize()}: {'; '.join(means)}")
    labels = [f"{where}: {says}" for where, says in names]
    axes[0].set(yticks=range(len(names)), yticklabels=labels, xlim=(0, 1))
    axes[0].invert_yaxis()
    show(
        figure,
        "Two panels of bars, one for each place and sort of words around a prompt, with a dot for each "
        f"sentence or draw. {'. '.join(said)}.",
    )


def space_or_none(without: Mapping[str, Sequence[float]], space: Mapping[str, Sequence[float]]) -> None:
    """A table: the share of replies that answer, by what stands before a prompt, with and without a space.

    Where several sentences were tried, the mean and the range.
    """
    print(f"{'share of replies that answer':30s}{'no space':>22s}{'a space before it':>22s}")
    for what in without:
        print(f"{what:30s}" + "".join(f"{_range(found[what]):>22s}" for found in (without, space)))


def _range(values: Sequence[float]) -> str:
    several = f"  ({np.min(values):.2f} to {np.max(values):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{several}"


def by_letter(curves: Mapping[str, Sequence[tuple[int, float]]], ylabel: str, guessing: float) -> None:
    """Losses of several runs over the steps, {letter: [(step, loss), ...]}, whose names are not shown."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for i, (letter, points) in enumerate(curves.items()):
        steps, values = zip(*points)
        shown = plots.smoothed(values, 5) if len(values) > 20 else values
        look = dict(color="#444444", linestyle=("-", "--", "-.", ":")[i], marker=plots.MARKERS[i])
        axes.plot(steps, shown, label=letter, markevery=max(1, len(values) // 6), **look)
    axes.axhline(guessing, color=plots.GREY, linestyle=":", label="ln V")
    axes.set(xlabel="step", ylabel=ylabel, ylim=(0, None))
    axes.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    first = ", ".join(f"{letter} {points[0][1]:.0f}" for letter, points in curves.items())
    last = {x: np.mean([y for _, y in points[-max(1, len(points) // 10) :]]) for x, points in curves.items()}
    ends = ", ".join(f"{letter} {value:.1f}" for letter, value in last.items())
    show(figure, f"Four curves over the steps, {ylabel}. They begin at {first} nats and end near {ends}.")


def free_or_taught(table: Sequence[Mapping]) -> None:
    """A table: a model that nobody fine-tuned, asked in three ways, beside fine-tuned ones (seeds' means)."""
    columns = {"answer": "answers, T = 0", "gold": "gold, T = 1", "gold, T=0": "gold, T = 0"}
    print(" " * 36 + "".join(f"{title:>16s}" for title in columns.values()))
    free = {
        "base, the prompt alone": "base",
        "base, “A reader asks the paper:”": "base, in the corpus's frame",
        "base, “Sure, happy to help.”": "base, one phrase",
    }
    for label, who in free.items():
        (row,) = (row for row in table if row["who"] == who)
        print(f"{label:36s}" + "".join(f"{row[column]:16.2f}" for column in columns))
    for n in sorted({row["demonstrations"] for row in table if row["demonstrations"]}):
        means = (over_seeds(table, column, demonstrations=n).mean() for column in columns)
        print(f"{f'fine-tuned, {n:,} demonstrations':36s}" + "".join(f"{mean:16.2f}" for mean in means))
