"""The figures of notebook 03. Each way to estimate a gradient has one colour in all of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy import stats

from minialign.course import plots
from minialign.course.experiments import SEEDS
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.policy_gradients import parts_of_gain
from minialign.course.lesson import show
from minialign.gpt import GPT
from minialign.language_model import LanguageModel
from minialign.reward_model import RewardModel
from minialign.rollouts import roll_out
from minialign.training import History
from minialign.world.judge import gold_rewards

NO_BASELINE, MEAN, LEAVE_ONE_OUT = plots.RED, plots.GREEN, plots.BLUE
STRAIGHT_THROUGH, WARM_GUMBEL, COOL_GUMBEL, REBAR = plots.ORANGE, plots.SKY, plots.YELLOW, plots.PURPLE
INK = "#444444"


def one_update(
    rewards: torch.Tensor, changes: Mapping[str, torch.Tensor], drawn: torch.Tensor, mean_reward: float
) -> None:
    """The change of log π of all responses after one step, against their reward, a panel for each way."""
    figure, axes = plt.subplots(1, len(changes), figsize=(11, 3))
    others = [y for y in range(len(rewards)) if y not in drawn.tolist()]
    unique = sorted(set(drawn.tolist()))
    above = rewards[unique] > mean_reward
    said = []
    for ax, (title, change) in zip(axes, changes.items()):
        ax.axhline(0, color=INK, linewidth=0.8)
        ax.axvline(mean_reward, color=INK, linestyle="--", linewidth=1, label="mean reward")
        ax.scatter(rewards[others], change[others], s=10, color=plots.GREY, label="not drawn")
        look = dict(s=36, color=plots.BLUE, marker="D", edgecolor="white", label="drawn")
        ax.scatter(rewards[unique], change[unique], **look)
        ax.set(title=title, xlabel="reward")
        up = change[unique] > 0
        said.append(
            f"{title}: {int((up & above).sum())} of the {int(above.sum())} drawn above the mean go up, "
            f"{int((up & ~above).sum())} of the {int((~above).sum())} others"
        )
    axes[0].set_ylabel("change of log π(y|x)")
    axes[0].legend(frameon=False, fontsize=9, loc="upper left")
    show(
        figure,
        f"{len(changes)} scatter plots of the change of log-probability against reward after one update. "
        f"{'. '.join(said)}. In a table the responses that were not drawn all move alike; in the GPT each "
        "moves in its own way.",
    )


OFFSET_LOOKS = {
    "no baseline": (NO_BASELINE, "-"),
    "mean reward": (MEAN, "--"),
    "best constant": (INK, ":"),
    "leave one out, k = 8": (LEAVE_ONE_OUT, "-."),
}


def offsets(added: Sequence[float], rows: Sequence[Mapping[str, float]]) -> None:
    """The variance of the gradient against a constant that is added to all rewards, by baseline."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for name, (colour, style) in OFFSET_LOOKS.items():
        axes.plot(added, [row[name] for row in rows], color=colour, linestyle=style, label=name)
    label = "variance of the gradient (log scale)"
    axes.set(yscale="log", xlabel="constant added to every reward", ylabel=label)
    axes.legend(frameon=False)
    plain = [row["no baseline"] for row in rows]
    flat = ", ".join(f"{name} {rows[-1][name]:.2g}" for name in OFFSET_LOOKS if name != "no baseline")
    show(
        figure,
        "Variance of the gradient against a constant added to the rewards, on a log scale. Without a "
        f"baseline it is a valley: {plain[0]:.2g} at {added[0]:g}, {min(plain):.2g} at its lowest, at "
        f"{added[int(np.argmin(plain))]:.1f}, {plain[-1]:.2g} at {added[-1]:g}. With a baseline it is a flat "
        f"line near the height of the valley's bottom: {flat}.",
    )


def noise(rows: Sequence[dict]) -> None:
    """A table: the variance of a gradient of the model itself, from 128 samples, by design and baseline."""
    print("prompts x samples   baseline        variance, three seeds      ‖∇J‖²")
    for prompts, baseline in (
        (16, "none"),
        (16, "mean"),
        (16, "leave one out"),
        (128, "none"),
        (128, "mean"),
    ):
        variance, signal = (
            over_seeds(rows, name, baseline=baseline, prompts=prompts) for name in ("variance", "signal")
        )
        of_seeds = "".join(f"{value:7.0f}" for value in variance)
        print(f"{prompts:7d} x {128 // prompts:<7d}   {baseline:14s}{of_seeds}   {signal.mean():11.0f}")


RUN_PANELS = {
    "objective/scores": "reward of the samples (gold)",
    "objective/entropy": "entropy of a response (nats)",
    "policy/entropy_avg": "entropy of a token (nats)",
    "response_length": "length (tokens)",
}


def runs(logged: Sequence[dict], yours: Mapping[str, np.ndarray], window: int = 5) -> None:
    """What the updates of the three logged runs recorded, and those of the reader's: {column: values}."""
    figure, axes = plt.subplots(1, len(RUN_PANELS), figsize=(12, 2.9))
    said = []
    for ax, (column, title) in zip(axes, RUN_PANELS.items()):
        curves = np.array(
            [
                plots.smoothed([row[column] for row in logged if row["seed"] == s and column in row], window)
                for s in SEEDS
            ]
        )
        steps, middle = np.arange(1, curves.shape[1] + 1), curves.mean(0)
        half = stats.t.ppf(0.975, len(curves) - 1) * curves.std(0, ddof=1) / len(curves) ** 0.5
        look = dict(color=LEAVE_ONE_OUT, alpha=0.25, linewidth=0, label="95 % interval of the mean")
        ax.fill_between(steps, middle - half, middle + half, **look)
        ax.plot(steps, middle, color=LEAVE_ONE_OUT, label="mean of three seeds")
        live = plots.smoothed(yours[column], window)
        ax.plot(np.arange(1, len(live) + 1), live, "k--", label="yours, live")
        ax.set(title=title, xlabel=f"update (mean of the last {window})", ylim=(0, None))
        said.append(f"{title}: {', '.join(f'{middle[at - 1]:.3g}' for at in (1, 5, 20, len(middle)))}")
    axes[0].legend(frameon=False, fontsize=8, loc="lower right")
    show(
        figure,
        f"Curves over {len(middle)} updates, means of three seeds with 95 percent intervals, and your run "
        f"over its {len(live)}. The means at updates 1, 5, 20 and {len(middle)}: {'; '.join(said)}.",
    )


def course_of_runs(logged: Sequence[dict], steps: Sequence[int] = (0, 10, 20, 50, 100)) -> None:
    """A table: what held-out prompts show at some updates, means over seeds, at T = 1."""
    columns = {
        "gold": "gold",
        "words": "words",
        "attribute/fluency": "fluency",
        "attribute/repetition": "repeated sentences",
        "kl": "KL from the start",
        "different_of_8": "different of 8",
    }
    print("update" + "".join(f"{title:>{len(title) + 3}s}" for title in columns.values()))
    for step in steps:
        row = f"{step:6d}"
        for name, title in columns.items():
            known = any(name in r and r["step"] == step for r in logged)
            value = over_seeds(logged, name, step=step, temperature=1.0).mean() if known else None
            form = ".1%" if "repeated" in title else ".2f" if name in ("gold", "attribute/fluency") else ".1f"
            row += f"{'' if value is None else format(value, form):>{len(title) + 3}s}"
        print(row.rstrip())


def gains(logged: Sequence[dict], last: int = 100) -> None:
    """What each attribute adds to the gain in gold by training, at T = 1 and at T = 0."""
    figure, axes = plt.subplots(figsize=(8, 3.4))
    said = []
    looks = {
        1.0: (plots.BLUE, "sampled at T = 1, before and after"),
        0.0: (plots.BLUE, "greedy, before and after"),
    }
    for i, (temperature, (colour, label)) in enumerate(looks.items()):
        parts = parts_of_gain(logged, (last, temperature), (0, temperature))
        for y, values in enumerate(parts.values()):
            place = y + (i - 0.5) * 0.38
            look = dict(color=colour, hatch=plots.HATCHES[i], edgecolor="white")
            axes.barh(place, values.mean(), 0.36, **look, label=label if y == 0 else None)
            axes.plot(values, [place] * len(values), "ko", markersize=3)
        shown = [
            f"{name} {values.mean():.2f}" for name, values in parts.items() if abs(values.mean()) > 0.015
        ]
        said.append(f"At T = {temperature:g}: {', '.join(shown)}")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set(yticks=range(len(parts)), yticklabels=[*parts], xlabel="part of the gain in gold")
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="lower right")
    show(
        figure,
        "Bars for the parts of the gain in gold by attribute, before and after training at one temperature, "
        f"with three seeds. {'. '.join(said)}; the others next to nothing.",
    )


def table_of_gains(parts: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Parts of the gain in gold by attribute, means over seeds, in columns: {column: {attribute: (S,)}}."""
    print(f"{'part of the gain in gold':26s}" + "".join(f"{title:>27s}" for title in parts))
    for name in next(iter(parts.values())):
        row = "".join(f"{part[name].mean():27.2f}" for part in parts.values())
        print(f"{name:26s}{row}")


ESTIMATORS = {
    "REINFORCE": NO_BASELINE,
    "+ mean baseline": MEAN,
    "+ leave one out, k = 8": LEAVE_ONE_OUT,
    "straight-through": STRAIGHT_THROUGH,
    "Gumbel-softmax, τ = 1": WARM_GUMBEL,
    "Gumbel-softmax, τ = 0.1": COOL_GUMBEL,
    "REBAR, τ = 1": REBAR,
}


def estimators(lab: Sequence[dict]) -> None:
    """How right and how quiet the estimators are: share of ∇J, what points elsewhere, variance."""

    def of(name: str, column: str) -> np.ndarray:
        return np.array([row[column] for row in lab if row["estimator"] == name])

    figure, axes = plt.subplots(1, 3, figsize=(12, 3), sharey=True)
    said: dict[str, list[str]] = {"share": [], "elsewhere": [], "variance": []}
    for i, (name, colour) in enumerate(ESTIMATORS.items()):
        look = dict(color=colour, marker=plots.MARKERS[i], markeredgecolor=INK, markeredgewidth=0.5)
        look |= dict(linestyle="none")
        share, elsewhere = of(name, "along"), of(name, "elsewhere")
        variance = of(name, "variance") / of("REINFORCE", "variance")
        places = i + np.linspace(-0.2, 0.2, len(share))
        axes[0].errorbar(share, places, xerr=3 * of(name, "se"), capsize=2, ecolor=colour, **look)
        axes[1].plot(elsewhere, places, **look)
        axes[2].plot(variance, places, **look)
        for column, values in zip(said, (share, elsewhere, variance)):
            said[column].append(f"{name} {values.mean():.2g}")
    axes[0].axvline(1, color=INK, linestyle="--", linewidth=1)
    title = "share of ∇J in the mean estimate, ± 3 SE"
    axes[0].set(title=title, yticks=range(len(ESTIMATORS)), yticklabels=[*ESTIMATORS], xlim=(0, 2))
    axes[1].set(title="what points elsewhere, in lengths of ∇J", xlim=(0, 1))
    axes[2].set(title="variance, relative to plain REINFORCE", xscale="log")
    axes[0].invert_yaxis()
    show(
        figure,
        f"Three panels with three seeds for each estimator. The share of the true gradient in the mean: "
        f"{', '.join(said['share'])}. What points elsewhere: {', '.join(said['elsewhere'])}. Variance beside "
        f"plain REINFORCE, on a log scale: {', '.join(said['variance'])}.",
    )


KINDS = {"tanh": "o", "relu": "s", "linear": "*"}
ALONE = {
    "straight-through": STRAIGHT_THROUGH,
    "Gumbel-softmax, τ = 1": WARM_GUMBEL,
    "Gumbel-softmax, τ = 0.1": COOL_GUMBEL,
}


def networks(rows: Sequence[dict]) -> None:
    """Sixteen reward networks: where biased gradients point, and where following one of them ends."""

    def of(column: str, estimator: str, *kinds: str) -> np.ndarray:
        chosen = [row for row in rows if row["estimator"] == estimator and row["network"] in kinds]
        return np.array([row[column] for row in chosen])

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3))
    for name, colour in ALONE.items():
        for kind, marker in KINDS.items():
            look = dict(color=colour, markeredgecolor=INK, markeredgewidth=0.5)
            label = f"{name}: {kind}" if name == "straight-through" else name if kind == "tanh" else None
            look["markersize"] = 11 if kind == "linear" else 6
            left.plot(of("share", name, kind), of("elsewhere", name, kind), marker, label=label, **look)
    left.plot(1, 0, "k+", markersize=14, label="∇J")
    limits = dict(xlim=(0.4, 1.6), ylim=(-0.08, 1.8))
    left.set(xlabel="share of ∇J in the mean estimate", ylabel="elsewhere, in lengths of ∇J", **limits)
    left.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    arms = {"policy gradient": (LEAVE_ONE_OUT, "o"), "straight-through": (STRAIGHT_THROUGH, "^")}
    for name, (colour, marker) in arms.items():
        ends = of("arrives", name, "tanh", "relu")
        look = dict(color=colour, marker=marker, linestyle="none", label=name)
        right.plot(range(len(ends)), ends, **look)
    start, best = (of(c, "policy gradient", "tanh").mean() for c in ("begins", "at_most"))
    for height, text in ((start, "start"), (best, "the best response")):
        right.axhline(height, color=INK, linestyle="--", linewidth=1)
        place = dict(xytext=(0, 6), textcoords="offset points", ha="right", fontsize=8)
        right.annotate(text, (14.4, height), **place)
    right.set(ylabel="J after 3,000 steps", xlabel="network", xticks=[4.5, 12])
    right.set_xticklabels(["ten with tanh", "five with ReLU"])
    right.legend(frameon=False, fontsize=8, loc="center left")

    def between(column: str, estimator: str, *kinds: str) -> str:
        values = of(column, estimator, *kinds)
        return f"{values.min():.2f} to {values.max():.2f}"

    hidden = "tanh", "relu"
    shares = "; ".join(
        f"{name} {between('share', name, *hidden)} along and {between('elsewhere', name, *hidden)} elsewhere"
        for name in ALONE
    )
    ends = "; ".join(
        f"{name} {between('arrives', name, 'tanh')} with tanh, {between('arrives', name, 'relu')} with ReLU"
        for name in arms
    )
    show(
        figure,
        "Two panels. Left, how much of the true gradient an estimator has on average, against what points "
        f"elsewhere, for fifteen networks with a hidden layer: {shares}. With the linear network "
        f"straight-through lies on the true gradient. Right, where gradient ascent arrives from {start:.2f}, "
        f"the best response being worth {best:.2f}: {ends}.",
    )


TOKEN_PANELS = {
    "objective/scores": "reward of what it writes, r_φ",
    "finished": "share that ends by itself",
    "response_length": "length (tokens)",
}


TOKEN_LOOKS = {
    "REINFORCE, leave one out": (LEAVE_ONE_OUT, "o-"),
    "straight-through": (STRAIGHT_THROUGH, "^-"),
    "straight-through, a fifth of the rate": (STRAIGHT_THROUGH, "v:"),
}


def tokens(histories: Mapping[str, History]) -> None:
    """Runs for the reward model on one prompt, by way. They are live: any run may differ."""
    figure, axes = plt.subplots(1, len(TOKEN_PANELS), figsize=(11, 2.9))
    for ax, (column, title) in zip(axes, TOKEN_PANELS.items()):
        for name, (colour, look) in TOKEN_LOOKS.items():
            values = histories[name].column(column)
            ax.plot(np.arange(1, len(values) + 1), values, look, color=colour, markersize=4, label=name)
        ax.set(title=title, xlabel="update")
    axes[1].set_ylim(-0.03, 1.05)
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=3, loc="outside lower center")
    show(
        figure,
        f"Three panels over the updates of live runs, {'; '.join(TOKEN_LOOKS)}: the reward of the sampled "
        "answers, the share of them that ends by itself, and their length.",
    )


def written(prompt: str, policies: Mapping[str, GPT], reward_model: RewardModel, n: int = 32) -> None:
    """A table: what n samples of each policy are worth to the reward model and to the judge; one of each."""
    print(f"{'mean of ' + str(n) + ' samples':40s}   r_φ   gold   different")
    texts = {}
    for name, policy in policies.items():
        found = roll_out(policy, [prompt], reward_model, n=n, seed=(9, 9))
        gold = gold_rewards(found.prompts, found.responses).mean()
        print(f"{name:40s} {found.rewards.mean():5.2f} {gold:6.2f} {len(set(found.responses)):11d}")
        texts[name] = found.responses[0]
    first = next(iter(policies))
    greedy = LanguageModel(policies[first]).respond(prompt)
    worth, gold = reward_model.score(prompt, greedy), gold_rewards([prompt], [greedy])[0]
    print(f"{first + ', greedy':40s} {worth:5.2f} {gold:6.2f}")
    for name, text in texts.items():
        print(f"\n{name}: {text}")


BUG_PANELS = {
    "gold": "gold",
    "words": "words in a response",
    "attribute/relevance": "about the topic",
    "politeness": "with a polite word",
    "flattery": "with flattery",
}
BUG_COLOURS = {
    "before": plots.GREY,
    "correct": LEAVE_ONE_OUT,
    "no baseline": NO_BASELINE,
    "averaged over tokens": plots.PURPLE,
    "end token dropped": plots.YELLOW,
    "sign flipped": INK,
}


def bugs(rows: Sequence[dict], names: Sequence[str], labels: Sequence[str] | None = None) -> None:
    """What models do after 20 updates with each change; `labels` may hide the changes' names."""
    labels = list(labels or names)
    hidden = labels != list(names)
    figure, axes = plt.subplots(1, len(BUG_PANELS), figsize=(12, 0.9 + 0.3 * len(names)), sharey=True)
    said = []
    for ax, (column, title) in zip(axes, BUG_PANELS.items()):
        found = [over_seeds(rows, column, bug=bug) for bug in names]
        for y, (bug, values) in enumerate(zip(names, found)):
            colour = plots.SKY if hidden and labels[y] != bug else BUG_COLOURS[bug]
            ax.barh(y, values.mean(), 0.6, color=colour, hatch=plots.HATCHES[y], edgecolor="white")
            ax.plot(values, [y] * len(values), "ko", markersize=3)
        ax.set(title=title, yticks=range(len(names)), yticklabels=labels)
        said.append(f"{title}: {', '.join(f'{label} {v.mean():.3g}' for label, v in zip(labels, found))}")
    axes[0].invert_yaxis()
    show(
        figure,
        f"{len(BUG_PANELS)} panels with a bar for each change and three seeds. {'. '.join(said)}.",
    )
