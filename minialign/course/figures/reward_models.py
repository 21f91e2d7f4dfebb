"""The figures of notebook 04."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments.comparisons import HeldOut
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.rating_lab import PAIRS, lead
from minialign.course.experiments.ratings import PER_RATER
from minialign.course.experiments.reward_models import BUGS, COURSE, MEASURED
from minialign.course.experiments.scorers import Explained
from minialign.course.experiments.what_it_reads import column, share
from minialign.course.lesson import show
from minialign.statistics import Estimate, reliability

LOOKS = {  # of each arm, in all figures of the notebook: colour and hatch
    "reward model": (plots.BLUE, ""),
    "likelihood": (plots.GREY, ".."),
    "labels": (plots.ORANGE, "//"),
    "crowd": (plots.GREEN, "xx"),
    "linear reader": (plots.PURPLE, "\\\\"),
    "gold": (plots.SKY, "++"),
    "head only": (plots.RED, "--"),
    "likelihood only": (plots.YELLOW, "oo"),
}

# --- ratings or comparisons ---

OFFSETS, DRIFTS, POINTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0), (0.0, 0.25, 0.5, 1.0, 2.0), (None, 7, 5, 3)
AXES = {
    "offset": "SD of the raters' offsets",
    "drift": "SD of a step of a rater's offset",
    "points": "points of the scale",
}


def offsets(rows: Sequence[dict]) -> None:
    """Comparing two by two against three ways of using numbers, over the spread of the raters' offsets."""
    leads(rows, *((PAIRS, over, "offset") for over in ("ratings", "z-scored ratings", "offsets fitted")))


def drift_and_points(rows: Sequence[dict]) -> None:
    """Comparing, and orders, against ratings with fitted offsets: scales that drift, and coarse ones."""
    fitted = "offsets fitted"
    rankings = "Bradley-Terry on rankings"
    leads(rows, (PAIRS, fitted, "drift"), (rankings, fitted, "drift"), (PAIRS, fitted, "points"))


def leads(rows: Sequence[dict], *panels: tuple[str, str, str]) -> None:
    """Heat maps of how far one method is ahead of another; a panel is (ours, over, knob)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4), sharey=True)
    said = []
    for ax, (ours, over, knob) in zip(axes, panels):
        values = {"offset": OFFSETS, "drift": DRIFTS, "points": POINTS}[knob]
        found = [[lead(rows, over, m, ours, **{knob: value}) for value in values] for m in PER_RATER]
        means = np.array([[estimate.mean for estimate in row] for row in found])
        for i, j in np.ndindex(means.shape):
            mean, low, high = found[i][j]
            look = dict(color="white" if abs(mean) > 0.075 else "black", fontsize=9, ha="center", va="center")
            weight = "bold" if low > 0 else "normal"
            ax.text(j, i, f"{mean:+.3f}\n±{(high - low) / 2:.3f}", fontweight=weight, **look)
        ax.imshow(means, cmap="PuOr_r", vmin=-0.12, vmax=0.12, aspect="auto")
        names = ["any" if value is None else f"{value:g}" for value in values]
        ax.set(xticks=range(len(values)), xticklabels=names, xlabel=AXES[knob], title=f"{ours} minus {over}")
        ax.set(yticks=range(len(found)), yticklabels=PER_RATER)
        ends = [
            f"{m} items: {row[0]:+.2f} to {row[-1]:+.2f}"
            for m, row in zip(PER_RATER, means)
            if m in (2, 8, 32)
        ]
        said.append(f"{ours} minus {over}, {names[0]} to {names[-1]} {AXES[knob]}: {', '.join(ends)}")
    axes[0].set_ylabel("items each rater reads")
    show(
        figure,
        "Heat maps of differences in rank correlation, over a fault of the scales and the items that a rater "
        f"reads. {'. '.join(said)}.",
    )


# --- Bradley and Terry ---


def recovered(
    truth: torch.Tensor, scores: torch.Tensor, errors: torch.Tensor, covered: Sequence[float], sets: int
) -> None:
    """One data set's scores with their intervals, and how often such intervals hold the truth."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3))
    left.plot(truth, truth, color="#777777", linestyle="--", label="truth")
    left.errorbar(truth, scores, yerr=1.96 * errors, fmt="o", color="black", capsize=3, label="one data set")
    left.set(xlabel="true reward", ylabel="score, with its 95 % interval")
    left.legend(frameon=False)
    right.plot(truth, covered, "o", color="black")
    right.axhline(0.95, color="#777777", linestyle="--")
    right.set(xlabel="true reward", ylabel=f"share of {sets} intervals\nthat hold it", ylim=(0.85, 1))
    held = int(((scores - truth).abs() < 1.96 * errors).sum())
    show(
        figure,
        f"Left, scores against true rewards of {len(truth)} responses from one data set, with error bars of "
        f"about {1.96 * float(errors.mean()):.2f}: {held} of them meet the diagonal. Right, the shares of "
        f"{sets} such intervals that hold the truth: {min(covered):.2f} to {max(covered):.2f}.",
    )


# --- the reward model ---


def losses(
    training: Sequence[float], unseen: Mapping[int, float], before: float, knowing: float, prompts: int
) -> None:
    """The training loss of the reader's run, and the loss on held-out pairs, before and after."""
    smooth = plots.smoothed(training, 10)
    figure, axes = plt.subplots(figsize=(7, 3))
    axes.plot(
        np.arange(1, len(smooth) + 1), smooth, color=plots.BLUE, label="training loss, mean of 10 steps"
    )
    held_out = {0: before, **unseen}
    look = dict(color=plots.BLUE, markersize=6, linestyle="none", label="loss on held-out pairs")
    axes.plot([*held_out], [*held_out.values()], marker="D", **look)
    axes.axhline(np.log(2), color="black", linestyle="--", label="ln 2: knowing nothing")
    axes.axhline(knowing, color=plots.GREEN, linestyle=":", label="knowing the crowd (on held-out pairs)")
    axes.set(xlabel=f"step ({prompts} prompts, all their pairs)", ylabel="loss, nats a comparison")
    axes.legend(frameon=False, fontsize=9, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    show(
        figure,
        f"The training loss over {len(smooth)} steps, and as two marks the loss on held-out pairs, before "
        f"and after. All lie far above the entropy of the labels at {knowing:.2f}; the marks are near ln 2.",
    )


def calibration(test: HeldOut, margins: np.ndarray, divisor: float) -> None:
    """Confidence against the share of labels that agree, and the same of the log-odds over one number."""
    right = margins > 0
    bins = np.array_split(np.argsort(np.abs(margins), kind="stable"), 8)
    shares = [share(test, right, np.isin(np.arange(len(margins)), rows)) for rows in bins]
    confidence, cooler = (reliability(margins / t)[0] for t in (1.0, divisor))
    means = np.array([estimate.mean for estimate in shares])
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    axes.plot([0.5, 1], [0.5, 1], color="black", linestyle="--", label="perfectly calibrated")
    bars = dict(yerr=means - [estimate.low for estimate in shares], capsize=3)
    axes.errorbar(confidence, means, fmt="o-", color=plots.BLUE, label="reward model", **bars)
    label = f"its log-odds divided by {divisor:.1f}"
    axes.plot(cooler, means, "s:", color=plots.BLUE, fillstyle="none", label=label)
    axes.set(xlabel="its confidence σ(|margin|)", ylabel="share of labels that agree")
    axes.legend(frameon=False, fontsize=9)
    said = ", ".join(f"{sure:.2f} and {agree:.2f}" for sure, agree in zip(confidence, means))
    show(
        figure,
        "Reliability curve on held-out comparisons, with 95 % intervals over prompts. Confidence and "
        f"agreement: {said}. Divided by {divisor:.1f}, the confidences go from {cooler[0]:.2f} to "
        f"{cooler[-1]:.2f}.",
    )


# --- what comparisons add ---

LINES = {  # who stands beside the reward models: label, arm, style
    "label-free": ("no comparison: likelihood", "likelihood", "--"),
    "labels": ("one person's labels", "labels", "-."),
    "knows the crowd": ("who knows the crowd", "crowd", ":"),
}


def by_labels(rows: Sequence[dict], yours: Mapping[str, float], by_hand: Mapping[str, float]) -> None:
    """Accuracy on labels and on the gold order against the number of comparisons, beside what needs none.

    `yours` is the live run's, with the "pairs" that it has read; `by_hand` likelihood with a reward by hand.
    """
    most = max(row.get("pairs", 0) for row in rows)
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharex=True)
    said = []
    for ax, measure, title in zip(axes, ("accuracy", "order"), ("held-out labels", "gold order")):
        for scorer, index in ((COURSE, 0), ("head only", 5)):
            of = [row for row in rows if row["scorer"] == scorer]
            plots.curve_over_seeds(ax, of, "pairs", measure, scorer, index)
        alone = column(rows, "likelihood only", measure)
        look = dict(
            color=plots.YELLOW, markeredgecolor="black", linestyle="none", label="likelihood only (all)"
        )
        ax.plot([1.3 * most] * len(alone), alone, "v", **look)
        look = dict(color=plots.BLUE, markeredgecolor="black", markersize=13, linestyle="none", label="yours")
        ax.plot(yours["pairs"], yours[measure], "*", **look)
        lines = {}
        for who, (label, arm, style) in LINES.items():
            bayes = who == "knows the crowd" and measure == "accuracy"
            lines[label] = column(rows, who, "bayes" if bayes else measure)[0]
            ax.axhline(lines[label], color=LOOKS[arm][0], linestyle=style, label=label)
        ax.axhline(
            by_hand[measure], color="black", linestyle=(0, (1, 3)), label="likelihood, and kind words by hand"
        )
        lines["likelihood and kind words by hand"] = by_hand[measure]
        ax.set(xscale="log", xlabel="comparisons", title=f"accuracy on the {title}", ylim=(0.47, 0.9))
        ours = {
            n: np.mean([r[measure] for r in rows if r["scorer"] == COURSE and r["pairs"] == n])
            for n in sizes(rows)
        }
        course = ", ".join(f"{value:.2f} with {n:,}" for n, value in ours.items())
        others = ", ".join(f"{label} {value:.2f}" for label, value in lines.items())
        head = column(rows, "head only", measure, pairs=most).mean()
        said.append(
            f"{title}: the course's model {course}; with all, a head only {head:.2f} and likelihood only "
            f"{alone.mean():.2f}; {others}"
        )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=4)
    show(figure, f"Two panels, accuracy against the number of comparisons. {'. '.join(said)}.")


def sizes(rows: Sequence[dict]) -> list[int]:
    """From how many comparisons the course's model was trained."""
    return sorted({row["pairs"] for row in rows if row["scorer"] == COURSE})


ARMS = {
    "likelihood": "likelihood",
    "reward model": "reward model",
    "the labels": "labels",
    "knows the crowd": "crowd",
}


def by_attribute(found: Mapping[str, Mapping[str, Estimate]], groups: Mapping[str, np.ndarray]) -> None:
    """How often the gold order is right, {who: {attribute: share}}, in the groups that attributes decide."""
    figure, axes = plt.subplots(figsize=(11, 3.6))
    places, said = np.arange(len(groups)), []
    for i, (who, shares) in enumerate(found.items()):
        colour, hatch = LOOKS[ARMS[who]]
        means = np.array([estimate.mean for estimate in shares.values()])
        spread = means - [estimate.low for estimate in shares.values()]
        look = dict(width=0.19, color=colour, hatch=hatch, edgecolor="white", label=who)
        bars = axes.bar(places + 0.21 * (i - 1.5), means, yerr=spread, capsize=2, **look)
        axes.bar_label(bars, [f"{mean:.2f}" for mean in means], fontsize=8)
        said.append(f"{who}: {', '.join(f'{n} {m:.2f}' for n, m in zip(shares, means))}")
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set(xticks=places, ylabel="gold order right", ylim=(0, 1.12), yticks=np.arange(0, 1.1, 0.25))
    axes.set_xticklabels([f"{name}\n({rows.sum()} pairs)" for name, rows in groups.items()])
    axes.legend(frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
    show(figure, f"Bars of how often the gold order is right, by what decides a pair. {'. '.join(said)}.")


PORTRAYED = {
    "gold": "gold",
    "the people": "crowd",
    "linear reader": "linear reader",
    "untrained": "likelihood",
    "reward model": "reward model",
}


def portraits(fits: Mapping[str, Explained]) -> None:
    """What scores are made of, in log-odds a unit: grouped bars, with 95 % intervals where they are known."""
    figure, axes = plt.subplots(figsize=(12, 3.8))
    said = []
    for i, (name, found) in enumerate(fits.items()):
        colour, hatch = LOOKS[PORTRAYED[name]]
        places = np.arange(len(found.coefficients)) + 0.17 * (i - 2)
        look = dict(color=colour, hatch=hatch, edgecolor="white", width=0.155)
        errors = 1.96 * np.array([*found.errors.values()])
        bars = dict(yerr=errors, capsize=2) if errors.any() else {}
        label = f"{name} (R² {found.r2:.2f})"
        axes.bar(places, [*found.coefficients.values()], label=label, **bars, **look)
        weights = ", ".join(f"{part} {weight:.1f}" for part, weight in found.coefficients.items())
        said.append(f"{name}: {weights}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xticks=range(len(found.coefficients)), ylabel="log-odds a unit")
    axes.set_xticklabels(found.coefficients, rotation=20, ha="right")
    axes.legend(frameon=False, ncols=5, loc="lower left", bbox_to_anchor=(0, 1))
    show(figure, f"Grouped bars of regression weights in log-odds. {'. '.join(said)}.")


# --- what goes wrong ---


def bugs(rows: Sequence[dict]) -> None:
    """Labels predicted after the last measured update with each bug; and one model tested in two ways."""
    last = MEASURED[-1]
    found = {bug.replace(" on ", "\non "): over_seeds(rows, "accuracy", bug=bug, step=last) for bug in BUGS}
    found["correct, tested on\nits own prompts"] = over_seeds(rows, "leaked", bug="correct", step=last)
    found["correct, tested on\nprompts like them"] = over_seeds(rows, "fresh", bug="correct", step=last)
    figure, axes = plt.subplots(figsize=(9, 2.8))
    for i, values in enumerate(found.values()):
        hatch = "" if i == 0 else "//" if i > 3 else "xx"  # correct, tested elsewhere, with a mistake
        axes.bar(i, values.mean(), color=LOOKS["head only"][0], hatch=hatch, edgecolor="white")
        axes.plot([i] * len(values), values, "k.", markersize=5)
        axes.text(i, values.max() + 0.02, f"{values.mean():.3f}", ha="center", fontsize=9)
    axes.axhline(0.5, color="black", linewidth=0.8)
    axes.set(xticks=range(len(found)), ylabel="accuracy on labels", ylim=(0, 0.85))
    axes.set_xticklabels(found, fontsize=9)
    said = ", ".join(f"{' '.join(name.split())} {values.mean():.2f}" for name, values in found.items())
    show(figure, f"Bars of the accuracy on labels, three seeds each: {said}.")
