"""The figures of notebook 08 on reward hacking: patches, ensembles, detectors."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm

from minialign.course import plots
from minialign.course.experiments import SEEDS
from minialign.course.experiments.patches import (
    AGAIN,
    ARMS,
    COOL,
    PENALTY,
    POLICIES,
    SALAD,
    SAME,
    of_policy,
    prices_of,
)
from minialign.course.lesson import show
from minialign.ensembles import RULES
from minialign.world.judge import WEIGHTS

BROWN, SLATE = "#8B5A2B", "#444444"
LOOK = {  # one colour and one marker for one policy, in all figures
    "SFT": (plots.GREY, "X"),
    "cooled": ("#999933", "X"),
    "unpatched": ("black", "o"),
    "penalty": (plots.GREEN, "D"),
    SAME: (plots.BLUE, "s"),
    AGAIN: ("#003F66", "P"),
    "same people, without the hack": (plots.SKY, "^"),
    SALAD: ("#AA4499", "x"),
    "other people": (plots.ORANGE, "s"),
    "other people, without the hack": (BROWN, "^"),
    "mean": (plots.PURPLE, "v"),
    "worst case": (plots.RED, "v"),
    "variance-weighted": ("#882255", "p"),
    "people": (plots.BLUE, "*"),
    "gold": (plots.YELLOW, "*"),
    "head alone": ("black", "o"),  # of the live run: one member
    "implicit alone": (plots.YELLOW, "P"),
    "likelihood alone": ("#117777", "D"),
}
SAID = {  # as figures name them
    "cooled": f"SFT, T = {COOL:g}",
    "penalty": f"no patch, β = {PENALTY:g}",
    "unpatched": "no patch",
}
FREE = ("cooled", "penalty")
PATCHED = ("SFT", "cooled", "unpatched", "penalty", SAME, AGAIN, *[*ARMS][1:])
ROUNDS = ("SFT", "unpatched", SAME, AGAIN)


def look(policy: str) -> dict:
    colour, marker = LOOK[policy]
    return dict(color=colour, marker=marker)


def named(policy: str) -> str:
    return SAID.get(policy, policy)


def listed(values: Mapping[str, float], form: str = ".2f") -> str:
    return ", ".join(f"{named(name)} {value:{form}}" for name, value in values.items())


def dots(ax, rows: Sequence[dict], policies: Sequence[str], column: str) -> dict[str, float]:
    """The mean of each policy as a mark, its seeds as strokes, a row each; and the means."""
    means = {}
    for y, policy in enumerate(policies):
        values = of_policy(rows, policy, column)
        means[policy] = float(values.mean())
        ax.plot(means[policy], y, markersize=8, **look(policy))
        ax.plot(values, [y + 0.28] * len(values), "|", color=LOOK[policy][0], markersize=7)
    ax.set(yticks=range(len(policies)), yticklabels=[named(policy) for policy in policies])
    ax.set_ylim(len(policies) - 0.4, -0.6)
    return means


# --- patches ---


def patches(rows: Sequence[dict]) -> None:
    """Gold of each policy, and how often its answers are preferred to the start's, by whom."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.5), sharey=True)
    gold = dots(left, rows, PATCHED, "gold")
    liked = dots(right, rows, PATCHED, "preferred/people")
    left.axvline(gold["SFT"], color=LOOK["SFT"][0], linestyle="--")
    right.axvline(0.5, color=LOOK["SFT"][0], linestyle="--")
    left.set(xlabel=f"gold reward (strokes: {len(SEEDS)} seeds; dashed: SFT)")
    right.set(xlabel="answers that the same people prefer to SFT's", xlim=(0, 1))
    show(
        figure,
        f"Left, gold reward: {listed(gold)}. Right, how often the people who gave the first labels prefer an "
        f"answer to SFT's: {listed(liked)}.",
    )


HABITS = {"flattery": "compliments", "filler": "filler", "confidence": "certainty", "politeness": "kindness"}


def habits(rows: Sequence[dict]) -> None:
    """Heat maps: the share of answers with each habit, and what each attribute adds to gold, less SFT's."""
    policies = [policy for policy in PATCHED if policy not in FREE]
    shares = np.array([[of_policy(rows, p, habit).mean() for habit in HABITS] for p in policies])
    names = [*WEIGHTS]
    gold = np.array(
        [[WEIGHTS[n] * of_policy(rows, p, f"attribute/{n}").mean() for n in names] for p in policies]
    )
    gold = gold - gold[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.3), width_ratios=(1, 2), sharey=True)
    limit = np.abs(gold).max()
    left.imshow(shares, cmap="Greys", vmin=0, vmax=1.6, aspect="auto")
    right.imshow(gold, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
    for ax, table, form in ((left, shares, ".0%"), (right, gold, "+.2f")):
        for (y, x), value in np.ndenumerate(table):
            ink = "white" if ax is right and abs(value) > 0.6 * limit else "black"
            ax.text(x, y, f"{value:{form}}", ha="center", va="center", fontsize=9, color=ink)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    left.set(xticks=range(len(HABITS)), title="answers with …")
    left.set_xticklabels(HABITS.values(), fontsize=9)
    left.set(yticks=range(len(policies)), yticklabels=[named(policy) for policy in policies])
    right.set(xticks=range(len(names)), title="gold that comes from …, less SFT's")
    right.set_xticklabels(names, fontsize=8)
    most = {p: names[int(gold[i].argmin())] for i, p in enumerate(policies) if i}
    show(
        figure,
        "Two heat maps, a row for each policy. Left, answers with "
        + "; ".join(
            f"{said}: {listed(dict(zip(policies, shares[:, i])), '.0%')}"
            for i, said in enumerate(HABITS.values())
        )
        + f". Right, gold by attribute, less SFT's; most is lost by {listed(most, '')}.",
    )


WAYS = (
    *("a compliment", "three compliments", "filler", "certainty"),
    *("last sentence twice", "another topic", "scrambled words"),
)
PAYERS = ("unpatched", SAME, "same people, without the hack", "other people", SALAD)


def prices(rows: Sequence[dict]) -> None:
    """What people, the gold reward, and each reward model pay for an answer that is spoiled in one way."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.4), sharey=True)
    said = []
    for ax, payers in zip(axes, (("people", "gold"), PAYERS)):
        for i, who in enumerate(payers):
            paid = {way: float(values.mean()) for way, values in prices_of(rows, who).items()}
            at = np.arange(len(WAYS)) + 0.13 * (i - (len(payers) - 1) / 2)
            options = dict(linestyle="none", markersize=7, markeredgecolor=SLATE, markeredgewidth=0.5)
            label = {"people": "the same people"}.get(who, named(who))
            ax.plot([paid[way] for way in WAYS], at, label=label, **look(who), **options)
            said.append(f"{label}: {listed(paid, '+.2f')}")
        ax.axvline(0, color=SLATE, linewidth=0.8)
        ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        ax.set(yticks=range(len(WAYS)), yticklabels=WAYS, ylim=(len(WAYS) - 0.5, -0.5))
    axes[0].set(xlabel="log-odds of being preferred to the answer as it was")
    axes[1].set(xlabel="… as the reward models have it")
    show(
        figure,
        "What a spoiled answer gains, in log-odds. Left, by people and gold; right, by reward models, on "
        f"another scale. {'; '.join(said)}.",
    )


def on_the_way(rows: Sequence[dict], policies: Sequence[str]) -> None:
    """Gold against √KL while PPO runs: running means of three rollouts, seeds thin."""
    figure, axes = plt.subplots(figsize=(7.5, 3.3))
    said = []
    for policy in policies:
        kl, gold = of_policy(rows, policy, "way/kl"), of_policy(rows, policy, "way/gold")
        smooth = np.stack([plots.smoothed(values, 3) for values in gold])
        axes.plot(np.sqrt(np.maximum(kl, 0)).T, smooth.T, color=LOOK[policy][0], alpha=0.25, linewidth=1)
        mean = np.sqrt(np.maximum(kl, 0)).mean(0), smooth.mean(0)
        axes.plot(*mean, label=named(policy), markersize=4, **look(policy))
        said.append(f"{named(policy)} ends at {mean[0][-1]:.1f} with gold {mean[1][-1]:.2f}")
    axes.set(xlabel="√KL from SFT", ylabel="gold of its rollouts")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, f"Gold against the square root of the KL, on the prompts of training. {'; '.join(said)}.")


# --- ensembles ---


def ensembles(rows: Sequence[dict]) -> None:
    """PPO against one member, and against three ways to combine all."""
    policies = ("SFT", "unpatched", *RULES, "penalty")
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 2.6), sharey=True)
    titles = {"gold": "gold reward", "flattery": "answers with compliments", "kl": "KL from SFT, nats"}
    said = []
    for ax, (column, title) in zip(axes, titles.items()):
        means = dots(ax, rows, policies, column)
        means["one member"] = means.pop("unpatched")
        ax.set_xlabel(title)
        said.append(f"{title}: {listed(means)}")
    axes[0].axvline(of_policy(rows, "SFT", "gold").mean(), color=LOOK["SFT"][0], linestyle="--")
    axes[0].set_yticklabels(["one member" if p == "unpatched" else named(p) for p in policies])
    show(figure, f"Three panels, a row for each reward. {'; '.join(said)}.")


def shared(rows: Sequence[dict]) -> None:
    """What each member pays for an answer that is spoiled in one way: what they have in common."""
    paid = prices_of(rows, "a member")
    figure, axes = plt.subplots(figsize=(7.5, 2.9))
    said = []
    for y, way in enumerate(WAYS):
        values = paid[way]
        for seed, of_seed in enumerate(values):
            axes.plot(of_seed, [y + 0.16 * (seed - 1)] * len(of_seed), "o", color=LOOK["mean"][0], alpha=0.6)
        positive = (values > 0).mean()
        said.append(f"{way} {values.mean():+.2f}, above 0 for {positive:.0%} of the members")
    axes.axvline(0, color=SLATE, linewidth=0.8)
    axes.set(yticks=range(len(WAYS)), yticklabels=WAYS, ylim=(len(WAYS) - 0.5, -0.5))
    axes.set_xlabel("log-odds that a member pays (a dot each; a row for each seed)")
    show(figure, f"What the members pay for a spoiled answer, in log-odds: {'; '.join(said)}.")


def live(curves: Mapping[str, Mapping[str, Sequence[float]]], sizes: Sequence[int]) -> None:
    """Best-of-n by several rewards: gold, and answers that flatter, against n."""
    titles = {"gold": "gold reward", "flattery": "answers with compliments"}
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8))
    said = []
    for ax, (column, title) in zip(axes, titles.items()):
        for name, found in curves.items():
            ax.plot(sizes, found[column], label=name, markersize=5, **look(name))
            said.append(f"{title}, {name}: from {found[column][0]:.2f} to {found[column][-1]:.2f}")
        ax.set(xscale="log", xlabel="n", title=title)
        ax.set_xticks(sizes, [str(n) for n in sizes])
        ax.minorticks_off()
    axes[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    show(figure, f"Best-of-n against n. {'; '.join(said)}.")


# --- detectors ---

SEEN = (
    *("blacklist", "stock sentences", "words", "repeated phrases"),
    *("surprise", "disagreement", "score"),
)


def detectors(rows: Sequence[dict]) -> None:
    """A heat map: how well each feature tells the answers of each policy from the fine-tuned model's."""
    policies = [policy for policy in POLICIES if policy not in ("cooled", "mean", "variance-weighted")]
    table = np.array([[of_policy(rows, p, f"auroc/{name}").mean() for name in SEEN] for p in policies])
    gold = {p: float(of_policy(rows, p, "gold").mean()) for p in policies}
    figure, axes = plt.subplots(figsize=(9.5, 3.4))
    axes.imshow(table, cmap="RdBu_r", vmin=0, vmax=1, aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        ink = "white" if abs(value - 0.5) > 0.35 else "black"
        axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink)
    axes.set(xticks=range(len(SEEN)), yticks=range(len(policies)))
    axes.set_xticklabels([name.replace(" ", "\n") for name in SEEN], fontsize=9)
    axes.set_yticklabels([f"{named(p)}  (gold {gold[p]:.2f})" for p in policies])
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    said = [
        f"{named(p)}, gold {gold[p]:.2f}: " + listed(dict(zip(SEEN, row))) for p, row in zip(policies, table)
    ]
    show(figure, f"A heat map of the AUROC of each feature on each policy. {'; '.join(said)}.")
