"""The figures of notebook 08 on what preference data cost, and its tables.

`rows` are those of the table label_cost, `prices` what a label of each labeller costs.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments import label_cost
from minialign.course.experiments.measuring import over_seeds
from minialign.course.lesson import show

# One colour and one marker for one labeller.
LOOK = {
    "people": (plots.BLUE, "o"),
    "judge": (plots.RED, "s"),
    "both": (plots.PURPLE, "D"),
    "fair judge": (plots.GREEN, "^"),
}
NAMES = {
    "people": "people",
    "judge": "cheap judge",
    "both": "half the money each",
    "fair judge": "fair judge",
}
FREE = "#777777"  # what needs no label
MEASURES = {"accuracy": "people agree with it", "best": "gold of its best of 16"}
READERS = {"GPT": "the course's reward model", "linear": "a linear reward that reads as the judge"}


def costs(rows: Sequence[dict], prices: Mapping[str, float] = label_cost.PRICES) -> None:
    """Two measures against what the labels cost, for both sorts of reward model, by labeller."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6), sharex=True)
    said = []
    for column, (measure, ylabel) in zip(axes.T, MEASURES.items()):
        for ax, (reader, title) in zip(column, READERS.items()):
            for labeller, (colour, marker) in LOOK.items():
                bills, values = label_cost.curve(rows, labeller, measure, prices, reader)
                look = dict(color=colour, marker=marker, label=NAMES[labeller])
                ax.plot(bills, values.mean(1), **look)
                if values.shape[1] > 1:
                    ax.plot(bills, values, "_", color=colour)
                said.append(f"{reader}, {ylabel}, {NAMES[labeller]}: {_ends(bills, values, measure)}")
            free = label_cost.known(rows, "likelihood", measure).mean()
            ax.axhline(free, color=FREE, linestyle="--", label="likelihood: no label")
            ax.set(title=title, ylabel=ylabel, xscale="log")
    for ax in axes[-1]:
        ax.set_xlabel(f"cost of the labels (people {prices['people']:g}, a judge {prices['judge']:g} each)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    free = {name: label_cost.known(rows, "likelihood", name).mean() for name in MEASURES}
    show(
        figure,
        f"Four panels over the cost of the labels. {'. '.join(said)}. The likelihood, without a label: "
        f"{free['accuracy']:.1%} and {free['best']:.2f}.",
    )


def _ends(bills: np.ndarray, values: np.ndarray, measure: str) -> str:
    form = ".1%" if measure == "accuracy" else ".2f"
    ends = [f"{values[i].mean():{form}} for {bills[i]:,.0f}" for i in dict.fromkeys((0, len(bills) - 1))]
    return " to ".join(ends)


def free(rows: Sequence[dict]) -> None:
    """A table of what needs no label, and of those who know a taste exactly."""
    print(f"{'':18}  people agree  gold agrees  gold of best of 16")
    for reader in ("one sample", "likelihood", "knows the judge", "knows the people", "gold"):
        accuracy, order, best = (
            label_cost.known(rows, reader, name).mean() for name in ("accuracy", "order", "best")
        )
        print(f"{reader:18}  {accuracy:12.1%}  {order:11.1%}  {best:18.2f}")


def same_money(rows: Sequence[dict], money: float, prices: Mapping[str, float] = label_cost.PRICES) -> None:
    """A table of what so much money buys, for both sorts of reward model; by seed for the best of 16."""
    print(f"{'labels for':10} {money:<10g} people agree  gold agrees  gold of best of 16, by seed")
    for reader in READERS:
        for labeller in LOOK:
            try:
                accuracy, order, best = (
                    label_cost.at_cost(rows, money, labeller, name, prices, reader)
                    for name in ("accuracy", "order", "best")
                )
            except ValueError:
                print(f"{reader:7} {NAMES[labeller]:20}  not bought for this sum")
                continue
            golds = " ".join(f"{value:.2f}" for value in best)
            print(f"{reader:7} {NAMES[labeller]:20} {accuracy.mean():6.1%}  {order.mean():11.1%}  {golds}")


FAULTS = ("fair judge", "judge that likes length", "judge that checks nothing", "judge")


def faults(rows: Sequence[dict]) -> None:
    """A table: which of the judge's two faults costs what, by the linear reward of the most labels."""
    most = max(amount for amount in label_cost.BOUGHT["linear"]["judge"])
    where = dict(reader="linear", people=most[0], judge=most[1])
    print(f"{most[1]:,} labels of a …            people agree  gold agrees  gold of best of 16")
    for labeller in FAULTS:
        accuracy, order, best = (
            over_seeds(rows, name, labeller=labeller, **where).mean()
            for name in ("accuracy", "order", "best")
        )
        name = "judge with both faults" if labeller == "judge" else labeller
        print(f"{name:28}  {accuracy:10.1%}  {order:11.1%}  {best:18.2f}")


WAYS = {"people": "at random", "unsure": "unsure", "disputed": "disputed"}


def chosen(rows: Sequence[dict]) -> None:
    """A table of pairs chosen at random, where a first model is unsure, and where two disagree."""
    print("reward  labels  pairs       people are sure  people agree  gold agrees  gold of best of 16")
    for reader, amounts in label_cost.CHOSEN.items():
        for n in amounts:
            for labeller, way in WAYS.items():
                where = dict(reader=reader, labeller=labeller, people=n, judge=0)
                if not any(where.items() <= row.items() for row in rows):
                    continue
                sure, accuracy, order, best = (
                    over_seeds(rows, name, **where).mean() for name in ("sure", "accuracy", "order", "best")
                )
                print(f"{reader:7} {n:6}  {way:10}  {sure:15.1%}  {accuracy:12.1%}  {order:11.1%}", end="")
                print(f"  {best:18.2f}")
