"""The figures of notebook 06."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from minialign.bootstrap import bootstrap_difference, bootstrap_mean
from minialign.course import plots
from minialign.course.experiments import displacement, dpo_variants
from minialign.course.experiments.measuring import over_seeds
from minialign.course.lesson import show
from minialign.preferences import Preference
from minialign.statistics import Estimate, mean_with_interval
from minialign.world import exact

# One colour for one arm, through the notebook. DPO with β = 0.1 is the one to compare with.
BETAS = {0.03: plots.ORANGE, 0.1: plots.BLUE, 0.3: plots.GREEN}
SIDES = {"chosen": plots.SKY, "rejected": plots.RED}
LOOKS = {  # the variants' colours, and hatches, by number
    "correct": 0,
    "mean for sum": 4,
    "mean, β × length": 6,
    "no reference": 7,
    "the reference moves": 1,
    "pairs swapped": 5,
    "IPO": 3,
}
START = "#444444"  # a line for what the start has


def look(variant: str) -> dict:
    return dict(color=plots.COLOURS[LOOKS[variant]], hatch=plots.HATCHES[LOOKS[variant]], edgecolor="white")


def several(values: Sequence[float], form: str = ".2f") -> str:
    return ", ".join(format(value, form) for value in values)


# --- two ways from comparisons to a policy ---

DATA, TRAINED, FROZEN = "#FFF3D6", "#CFE5F5", "#F2F2F2"


def box(ax, x: float, y: float, text: str, face: str) -> None:
    shape = dict(boxstyle="round,pad=0.04", facecolor=face, edgecolor="#777777")
    ax.add_patch(FancyBboxPatch((x - 1, y - 0.31), 2, 0.62, **shape))
    ax.text(x, y, text, ha="center", va="center", fontsize=8.5, linespacing=1.1)


def arrow(ax, start: tuple[float, float], end: tuple[float, float], text: str = "") -> None:
    ax.annotate("", end, start, arrowprops=dict(arrowstyle="->", color="#555555", linewidth=1.1))
    if text:
        x, y = np.mean([start, end], 0)
        white = dict(facecolor="white", edgecolor="none", pad=0.8)
        ax.text(x, y, text, ha="center", va="center", fontsize=7.5, color="#333333", bbox=white)


def two_ways() -> None:
    """RLHF and DPO as box diagrams, side by side."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.5), width_ratios=(1.45, 1))
    left.set_title("RLHF: two training runs, and a loop that samples")
    box(left, 0, 3, "comparisons\nof people", DATA)
    box(left, 3.1, 3, "reward model", TRAINED)
    box(left, 6.2, 3, "answers, scored", DATA)
    box(left, 6.2, 1.5, "critic: what was\nto be expected?", TRAINED)
    box(left, 3.1, 1.5, "policy", TRAINED)
    box(left, 3.1, 0, "reference", FROZEN)
    arrow(left, (1.1, 3), (2.0, 3), "fit")
    arrow(left, (4.2, 3), (5.1, 3), "scores")
    arrow(left, (4.0, 1.9), (5.3, 2.6), "samples")
    arrow(left, (6.2, 2.6), (6.2, 1.9), "reward")
    arrow(left, (5.1, 1.5), (4.2, 1.5), "PPO step")
    arrow(left, (3.1, 0.4), (3.1, 1.1), "KL penalty")
    right.set_title("DPO: one training run, no sampling")
    box(right, 0, 3, "comparisons\nof people", DATA)
    box(right, 0, 1.5, "policy", TRAINED)
    box(right, 3.1, 1.5, "reference,\nread once", FROZEN)
    arrow(right, (0, 2.6), (0, 1.9), "−log σ(z)")
    arrow(right, (2.0, 1.5), (1.1, 1.5), "log π_ref")
    for name, face in (("data", DATA), ("trained", TRAINED), ("only read", FROZEN)):
        right.plot([], [], "s", markersize=9, color=face, markeredgecolor="#777777", label=name)
    right.legend(frameon=False, loc="lower right", ncols=3, fontsize=8.5)
    for ax, end in ((left, 7.4), (right, 4.4)):
        ax.set(xlim=(-1.3, end), ylim=(-0.5, 3.5))
        ax.axis("off")
    show(
        figure,
        "Two box diagrams. RLHF: a reward model is fitted to comparisons; the policy samples answers, the "
        "reward model scores them, a critic says what was to be expected, and a PPO step changes the policy, "
        "which a reference holds by a KL penalty. DPO: comparisons change the policy directly, by a loss in "
        "which the log-probabilities of a reference stand, read once.",
    )


# --- the derivation ---


class Optimum:
    """π* of the micro-world for any β: how its probability lies over the rewards."""

    def __init__(self, log_ref: torch.Tensor, rewards: torch.Tensor, optimal_policy: Callable):
        self.log_ref, self.rewards, self.optimal_policy = log_ref, rewards, optimal_policy
        self.edges = np.linspace(float(rewards.min()) - 0.1, float(rewards.max()) + 0.1, 17)

    def mass(self, log_p: torch.Tensor) -> np.ndarray:
        """The probability of each bin of reward, the mean over the prompts."""
        weights = (log_p.exp() / len(self.rewards)).numpy()
        return np.histogram(self.rewards.numpy(), self.edges, weights=weights)[0]

    def draw(self, ax, beta: float) -> tuple[float, float]:
        log_p, _ = self.optimal_policy(self.log_ref, self.rewards, beta)
        bars = dict(align="edge", color=plots.PURPLE, edgecolor="white", label="π*")
        ax.bar(self.edges[:-1], self.mass(log_p), np.diff(self.edges), **bars)
        ax.stairs(self.mass(self.log_ref), self.edges, color=START, linewidth=1.5, label="π_ref")
        reward = float(exact.expected_reward(log_p, self.rewards))
        kl = float((log_p.exp() * (log_p - self.log_ref)).sum(-1).mean())
        ax.set_title(f"β = {beta:g}: reward {reward:.2f}, KL {kl:.2f}", fontsize=9.5)
        return reward, kl

    def one(self, beta: float):
        """The figure of one β, for a slider."""
        figure, ax = plt.subplots(figsize=(6, 3))
        self.draw(ax, beta)
        ax.set(xlabel="reward of the response", ylabel="probability", ylim=(0, 1))
        ax.legend(frameon=False)
        return figure

    def several(self, betas: Sequence[float]) -> None:
        figure, axes = plt.subplots(1, len(betas), figsize=(11.5, 2.7), sharey=True)
        found = [self.draw(ax, beta) for ax, beta in zip(axes, betas)]
        for ax in axes:
            ax.set_xlabel("reward")
        axes[0].set_ylabel("probability")
        axes[0].legend(frameon=False)
        said = "; ".join(f"β = {b:g}: reward {r:.2f}, KL {kl:.2f}" for b, (r, kl) in zip(betas, found))
        show(
            figure,
            "Histograms of probability against reward, the reference outlined in each. With smaller β the "
            f"mass of the optimum moves to the right. {said}.",
        )


def z_cancels(prompts: Sequence[str], log_z: torch.Tensor, wanted: torch.Tensor, found: torch.Tensor) -> None:
    """log Z of each prompt, and differences of implicit rewards against those of rewards, (P, N, N)."""
    names = [text.removesuffix(".").removesuffix(" in a few sentences") for text in prompts]
    names = [text.replace("a six-year-old", "a child") for text in names]
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1.35, 1))
    tens = log_z.numpy() / math.log(10)
    axes[0].barh(names, tens, color=plots.BLUE)
    axes[0].invert_yaxis()
    axes[0].set(xlabel="log₁₀ Z(x)", title="what would have to be computed")
    i, j = np.triu_indices(wanted.shape[-1], 1)
    for k, (differences, rewards) in enumerate(zip(found, wanted)):
        some = np.random.default_rng(k).permutation(len(i))[:40]
        style = dict(color=plots.COLOURS[k % 8], markersize=4, alpha=0.6)
        x, y = (values[i[some], j[some]] for values in (rewards, differences))
        axes[1].plot(x, y, plots.MARKERS[k % 8], **style)
    axes[1].axline((0, 0), slope=1, color=START, linewidth=0.8)
    labels = dict(xlabel="r(x, y) − r(x, y′)", ylabel="difference of implicit rewards")
    axes[1].set(**labels, title="what comparisons need: one line")
    show(
        figure,
        f"Left: a bar for each of {len(names)} prompts, the base-10 logarithm of Z, from {tens.min():.1f} to "
        f"{tens.max():.1f}. Right: differences of implicit rewards against differences of rewards for pairs "
        "of all prompts, all on the diagonal.",
    )


# --- the gradient ---


def weights(gradient_weight: Callable, betas: Sequence[float] = (0.05, 0.1, 0.5)) -> None:
    """The loss of a pair against h, and how strongly it pulls, relative to the start."""
    h = torch.linspace(-40, 40, 321)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.1))
    dashes, said = {b: ("-", "--", ":")[k] for k, b in enumerate(betas)}, []

    def pull(h, b):
        return gradient_weight(b * h, 0 * h, b) / (b / 2)

    for b, dash in dashes.items():
        style = dict(color=plots.BLUE, linestyle=dash, linewidth=2, label=f"β = {b:g}")
        axes[0].plot(h, -F.logsigmoid(b * h), **style)
        axes[1].plot(h, pull(h, b), **style)
        far = [float(pull(torch.tensor(nats), b)) for nats in (10.0, 40.0)]
        said.append(f"for β = {b:g} it is {far[0]:.3f} at 10 nats and {far[1]:.3f} at 40")
    axes[0].axhline(math.log(2), color=plots.GREY, linewidth=0.8)
    axes[0].set(ylabel="loss", title="the loss of a pair", ylim=(0, 6))
    axes[1].set(ylabel="weight ÷ (β/2)", title="how strongly the pair pulls, relative to the start")
    for ax in axes:
        ax.axvline(0, color=plots.GREY, linewidth=0.8)
        ax.set_xlabel("h: log-ratio of chosen − log-ratio of rejected (nats)")
    axes[0].legend(frameon=False)
    show(
        figure,
        "Left: the loss of a pair against h for three β; all pass through ln 2 at 0, larger β falls more "
        "steeply. Right: the weight over its value at the start, near 2 at the far left and 1 at 0; "
        f"{'; '.join(said)}.",
    )


# --- does it find the optimum? ---


def distances(of_table: Mapping[float, Sequence[float]], of_gpt: Sequence[dict]) -> None:
    """Total variation from π* against steps of DPO, of a table and of a GPT."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
    said = {"the table": [], "the GPT": []}
    for k, (b, table) in enumerate(of_table.items()):
        style = dict(color=plots.BLUE, linestyle=("-", "--")[k], label=f"β = {b:g}")
        gpt = [row["tv"] for row in of_gpt if row["beta"] == b]
        for ax, who, values in zip(axes, said, (table, gpt)):
            ax.plot(values, **style)
            said[who].append(f"from {values[0]:.2f} to {values[-1]:.1g} for β = {b:g}")
    axes[0].set(yscale="log", ylim=(1e-5, 1), ylabel="total variation from π*")
    titles = ("a table of 192 logits a prompt", "the GPT, 64 responses a prompt")
    for ax, threshold, title in zip(axes, (1e-3, 0.05), titles):
        ax.axhline(threshold, color=plots.GREY, linestyle=":")
        ax.set(xlabel="step", title=title)
    axes[0].legend(frameon=False)
    ends = "; ".join(f"{who} {' and '.join(parts)}" for who, parts in said.items())
    show(
        figure,
        f"Total variation distance from the optimum against steps of DPO, on a log scale. They fall: {ends}.",
    )


# --- the live run, and its rewards ---


def run(history: Sequence[dict], names: Sequence[str]) -> None:
    """The metrics of the live run, a panel each."""
    show(
        plots.metric_panels(list(history), tuple(names)),
        f"{len(names)} panels against the step of the live run: {', '.join(names)}. The loss begins at 0.69 "
        "and falls a little, with jumps; the accuracy rises within ten steps and then varies; the rewards of "
        "chosen and rejected responses part.",
    )


def strips(rows: Mapping[str, Sequence[tuple[str, float]]], limit: float = 0.5) -> None:
    """Answers token by token, coloured by the implicit reward of each token: blue above 0, red below."""
    shade = plt.get_cmap("RdBu")
    scale = colors.Normalize(-limit, limit)
    figure, axes = plt.subplots(figsize=(13, 0.4 + 0.62 * len(rows)))
    end = 0.0
    for y, (name, tokens) in enumerate(rows.items()):
        total, x = sum(value for _, value in tokens), 0.0
        axes.text(-0.2, -y, f"{name}\n{total:+.2f} in all", ha="right", va="center", fontsize=8.5)
        for text, value in tokens:
            text = text.strip() or "·"
            width = max(0.15 * len(text) + 0.12, 0.32, 0.6 if abs(value) >= 0.05 else 0)
            middle = dict(ha="center", va="center")
            ink = "white" if abs(value) > 0.6 * limit else "black"
            face = dict(boxstyle="round,pad=0.2", facecolor=shade(scale(value)), edgecolor="#CCCCCC")
            axes.text(x + width / 2, -y, text, fontsize=8.5, color=ink, bbox=face, **middle)
            if abs(value) >= 0.05:
                axes.text(x + width / 2, -y - 0.42, f"{value:+.2f}", fontsize=7, color=START, **middle)
            x += width + 0.1
        end = max(end, x)
    axes.set(xlim=(-1.9, end), ylim=(0.4 - len(rows), 0.5))
    axes.axis("off")

    def extremes(tokens: Sequence[tuple[str, float]]) -> str:
        lowest = min(tokens, key=lambda token: token[1])
        return f"its lowest token is “{lowest[0].strip()}” with {lowest[1]:+.2f}"

    said = [
        f"{name}: {sum(value for _, value in tokens):+.2f} in all, {extremes(tokens)}"
        for name, tokens in rows.items()
    ]
    show(
        figure,
        f"{len(rows)} answers, token by token, coloured by each token's implicit reward. {'; '.join(said)}.",
    )


def paid(columns: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """By how much changes of an answer change what scorers give, in log-odds; a panel for each scorer."""
    edits = list(next(iter(columns.values())))
    figure, axes = plt.subplots(1, len(columns), figsize=(11, 0.8 + 0.27 * len(edits)), sharey=True)
    said = []
    for ax, (who, found) in zip(axes, columns.items()):
        means = np.array([found[edit].mean() for edit in edits])
        ax.barh(edits, means, color=np.where(means < 0, SIDES["rejected"], SIDES["chosen"]))
        for y, mean in enumerate(means):
            beside = dict(va="center", fontsize=8, ha="left" if mean >= 0 else "right")
            ax.text(mean, y, f" {mean:+.2f} ", **beside)
        ax.axvline(0, color=START, linewidth=0.8)
        ax.margins(x=0.35)
        ax.set(title=who, xlabel="log-odds")
        said.append(f"{who}: {', '.join(f'{edit} {mean:+.2f}' for edit, mean in zip(edits, means))}")
    axes[0].invert_yaxis()
    show(
        figure,
        f"Bars of how a change of an answer changes its reward, in log-odds. {'. '.join(said)}.",
    )


SCORERS = ("label-free", "implicit", "reward model", "judge")
MEASURES = {"accuracy": "labels", "order": "gold order", "best": "gold of its first"}


def rerankers(of: Callable) -> None:
    """A table: how often scorers are right on held-out pairs, and the gold of what they put first.

    `of(scorer, measure)` is (seeds, prompts).
    """
    print(f"{'':>12}  " + "  ".join(f"{title:17}" for title in MEASURES.values()).rstrip())
    for scorer in SCORERS:
        found = (str(bootstrap_mean(of(scorer, name))) for name in MEASURES)
        print(f"{scorer:>12}  " + "  ".join(f"{estimate:17}" for estimate in found).rstrip())
    print(f"gold of any of a prompt's responses: {of('any', 'best').mean():.2f}")


# --- over-optimisation ---


def over_optimised(of: Callable, passes: Sequence[float]) -> None:
    """Gold by passes and by √KL, and the length of the answers; `of(β, name, passes)` by seed."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5))
    said = []
    for k, (b, colour) in enumerate(BETAS.items()):
        style = dict(color=colour, marker=plots.MARKERS[k], markersize=5)
        gold, kl, words = (np.array([of(b, name, n) for n in passes]) for name in ("gold", "kl", "words"))
        for ax, values in ((axes[0], gold), (axes[2], words)):
            ax.plot(passes, values, color=colour, alpha=0.25, linewidth=1)
            ax.plot(passes, values.mean(1), label=f"β = {b:g}", **style)
        axes[1].plot(np.sqrt(kl.mean(1)), gold.mean(1), **style)
        said.append(
            f"β = {b:g}: gold {several(gold.mean(1))}; √KL {several(np.sqrt(kl.mean(1)), '.1f')}; "
            f"words {several(words.mean(1), '.0f')}"
        )
    axes[0].set(xlabel="passes over the comparisons", ylabel="gold reward", title="gold, by passes")
    axes[1].set(xlabel="√KL from the fine-tuned model", title="gold, by √KL")
    axes[2].set(xlabel="passes over the comparisons", ylabel="words", title="length of the answers")
    axes[0].legend(frameon=False)
    show(
        figure,
        f"Three panels, three β, mean and single seeds, after {several(passes, 'g')} passes. "
        f"{'. '.join(said)}.",
    )


def gains(gain: Callable) -> None:
    """A table of gold gained: by points that were fixed beforehand, and beside the start sampled alike."""
    spans = {"first half pass": (0, 0.5), "½ to 1½": (0.5, 1.5), "first pass": (0, 1), "1 to 3": (1, 3)}
    print(f"{'gold gained':>22}  " + "  ".join(f"{f'β = {b:g}':21}" for b in BETAS).rstrip())
    rows = {name: [gain(b, *span) for b in BETAS] for name, span in spans.items()}
    for t in (1.0, 0.7, 0.0):
        rows[f"all three, at T = {t:g}"] = [gain(b, 0, 3, t) for b in BETAS]
    for name, found in rows.items():
        print(f"{name:>22}  " + "  ".join(f"{estimate!s:21}" for estimate in found).rstrip())


def rates(runs: Mapping[str, Mapping]) -> None:
    """Gold against passes, and against learning rate × passes, of runs as `by_rate` gives them."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.2), sharey=True)
    said = []
    for name, found in runs.items():
        slow = found["rate"] < 2e-4
        style = dict(color=BETAS[found["beta"]], linestyle="--" if slow else "-", capsize=3)
        style |= dict(marker="o" if slow else "s", fillstyle="none" if slow else "full", label=name)
        passes, rate = np.array(found["passes"]), found["rate"] / 1e-4
        for ax, x in zip(axes, (passes, rate * passes)):
            ax.errorbar(x, found["gold"], found["half"], **style)
        said.append(f"{name}: {several(found['gold'])} after {several(found['passes'], '.1f')} passes")
    axes[0].set(xlabel="passes", ylabel="gold reward", title="by passes: a third of the rate is slower")
    axes[1].set(xlabel="learning rate × passes, in 1e-4", title="by learning rate × passes")
    axes[0].legend(frameon=False, fontsize=8, loc="lower left")
    show(
        figure,
        "Gold reward with 95 % intervals, left against passes, right against learning rate times passes. "
        f"{'; '.join(said)}.",
    )


def accuracies(rows: Sequence[dict], of: Callable, scored: np.ndarray) -> None:
    """A table: accuracy in training and on held-out pairs, by pass; `scored` is a reward model's there."""
    per_pass = max(row["step"] for row in rows) / max(row.get("passes", 0) for row in rows)
    for b in BETAS:
        mine = [row for row in rows if row.get("beta") == b and "loss" in row]
        seen = [
            np.mean([row["rewards/accuracies"] for row in mine if k < row["step"] / per_pass <= k + 1])
            for k in range(3)
        ]
        unseen = [of(b, "held_out", n).mean() for n in (1, 2, 3)]
        print(
            f"β = {b:<4g}: in training, by pass {several(seen)}; on held-out pairs after it {several(unseen)}"
        )
        short = (str(bootstrap_difference(scored, of(b, "held_out_by_prompt", n))) for n in (1, 2))
        print(f"{'':>10}a reward model's minus that after one pass {next(short)}, after two {next(short)}")
        for begin, end in ((1, 2), (2, 3)):
            more = bootstrap_difference(*(of(b, "held_out_by_prompt", n) for n in (end, begin)))
            gold = bootstrap_difference(*(of(b, "golds", n).mean(-1) for n in (end, begin)))
            print(f"{'':>10}from {begin} to {end}: gold {gold}, accuracy {more}")


# --- a falling chosen log-probability ---


def displaced(rows: Sequence[dict]) -> None:
    """Near-duplicates under DPO: log π of both sides over the steps, and where in the text it changes."""
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.2), width_ratios=(1, 1.15))
    last, beta = displacement.DISPLACING.steps, displacement.DISPLACING.beta
    of_dpo = [row for row in rows if row["method"] == "DPO" and "loss" in row]
    drawn = [row for row in of_dpo if row["step"] % 6 == 1 or row["step"] == last]
    said = []
    for k, (side, colour) in enumerate(SIDES.items()):
        steps = sorted({row["step"] for row in drawn})
        nats = np.array([over_seeds(drawn, f"rewards/{side}", step=step) / beta for step in steps])
        axes[0].plot(steps, nats.mean(1), color=colour, marker=plots.MARKERS[k], label=side)
        axes[0].fill_between(steps, nats.min(1), nats.max(1), color=colour, alpha=0.2, linewidth=0)
        means = [displacement.changes(rows, f"{side}/{place}").mean() for place in displacement.PLACES]
        style = dict(color=colour, hatch=plots.HATCHES[k], edgecolor="white", label=side)
        bars = axes[1].bar(np.arange(3) + 0.4 * k, means, 0.38, **style)
        axes[1].bar_label(bars, fmt="%.1f", fontsize=9, padding=3)
        said.append((side, nats[-1].mean(), several(means, ".1f")))
    axes[0].set(
        xlabel="step", ylabel="log-probability, change (nats)", title="both fall (pairs of that step)"
    )
    axes[1].axhline(0, color=START, linewidth=0.8)
    places = ["before the value\n(same tokens)", "the value", "after it (same tokens,\nother context)"]
    axes[1].set(xticks=np.arange(3) + 0.2, xticklabels=places, title="where, by token (all pairs, nats)")
    axes[1].margins(y=0.15)
    for ax in axes:
        ax.legend(frameon=False, loc="lower left")
    show(
        figure,
        f"Left: the change of log π over {last} steps, mean and range of three seeds: "
        f"{' and '.join(f'{side} {end:.1f}' for side, end, _ in said)} nats at the end. Right, before the "
        f"value, at it and after it: {'; '.join(f'{side} {means}' for side, _, means in said)}.",
    )


def cures(rows: Sequence[dict], gold: Mapping[str, Estimate]) -> None:
    """A table: what each loss does to both sides of near-duplicates, and to gold."""
    print(f"{'':>13}  chosen (nats)           rejected (nats)         gold on held-out prompts")
    for method in displacement.LOSSES:
        nats = [str(mean_with_interval(displacement.changes(rows, side, method))) for side in SIDES]
        print(f"{method:>13}  {nats[0]:22}  {nats[1]:22}  {gold[method]} more")


# --- bugs ---


def logs(rows: Sequence[dict], names: Sequence[str], labels: Sequence[str] | None = None) -> None:
    """What runs show of themselves, smoothed, and how they rank held-out pairs; `labels` may hide names."""
    labels = list(labels or names)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3))
    panels = {
        "loss": lambda v: dpo_variants.course_of(rows, v, "loss"),
        "rewards/accuracies": lambda v: dpo_variants.course_of(rows, v, "rewards/accuracies"),
        "logps/chosen − logps/rejected": lambda v: (
            dpo_variants.course_of(rows, v, "logps/chosen")
            - dpo_variants.course_of(rows, v, "logps/rejected")
        ),
    }
    said = []
    for ax, (title, course) in zip(axes, panels.items()):
        ends = []
        for k, (variant, label) in enumerate(zip(names, labels)):
            mean = course(variant).mean(0)
            smooth = plots.smoothed(mean, 12)
            colour = plots.COLOURS[LOOKS[variant]]
            every = dict(marker=plots.MARKERS[k], markevery=10, markersize=5)
            ax.plot(np.arange(1, len(smooth) + 1), smooth, color=colour, label=label, **every)
            ends.append(f"{label} from {mean[0]:.2f} to {smooth[-1]:.2f}")
        ax.set(title=title, xlabel="step")
        said.append(f"{title}: {', '.join(ends)}")
    values = [over_seeds(rows, "held_out", variant=variant, passes=1.0) for variant in names]
    for x, (variant, found) in enumerate(zip(names, values)):
        axes[3].bar(x, found.mean(), 0.6, color=plots.COLOURS[LOOKS[variant]])
        axes[3].plot([x] * len(found), found, "k.", markersize=4)
    axes[3].axhline(0.5, color=START, linestyle=":")
    axes[3].set(xticks=range(len(names)), xticklabels=labels, title="accuracy on held-out pairs")
    axes[0].legend(frameon=False, fontsize=8)
    said.append(f"accuracy on held-out pairs: {several([found.mean() for found in values])}")
    show(figure, f"Four panels of {len(names)} runs, means of three seeds. {'. '.join(said)}.")


def variants(rows: Sequence[dict], names: Sequence[str]) -> None:
    """Bars: what each variant has done after one pass, and what it has shown of itself."""

    def at_end(name: str) -> Callable:
        return lambda variant: over_seeds(rows, name, variant=variant, passes=1.0)

    panels = {
        "gold reward": at_end("gold"),
        "KL from the reference (nats)": at_end("kl"),
        "accuracy in training, last 12 steps": lambda variant: dpo_variants.course_of(
            rows, variant, "rewards/accuracies"
        )[:, -12:].mean(1),
        "accuracy on held-out pairs": at_end("held_out"),
    }
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), sharey=True)
    said = []
    for ax, (title, values_of) in zip(axes, panels.items()):
        found = {variant: values_of(variant) for variant in names}
        for k, (variant, values) in enumerate(found.items()):
            ax.barh(k, values.mean(), **look(variant))
            ax.plot(values, [k] * len(values), "k.", markersize=4)
        ax.set(title=title, yticks=range(len(names)), yticklabels=names)
        said.append(f"{title}: {', '.join(f'{name} {values.mean():.2f}' for name, values in found.items())}")
    start = over_seeds(rows, "gold", passes=0.0).mean()
    axes[0].axvline(start, color=START, linestyle=":")
    for ax in axes[2:]:
        ax.axvline(0.5, color=START, linestyle=":")
    axes[0].invert_yaxis()
    show(figure, f"Bars with three seeds each; the start has a gold of {start:.2f}. {'. '.join(said)}.")


def variant_table(rows: Sequence[dict]) -> None:
    """A table: what the policies of all variants are like after one pass, means over seeds."""
    shown = ("gold", "kl", "words", "finished", "held_out", "rewards/chosen")
    print(f"{'':>19}", "  ".join(shown))
    for variant in dpo_variants.VARIANTS:
        found = ((name, over_seeds(rows, name, variant=variant, passes=1.0).mean()) for name in shown)
        print(f"{variant:>19}", "  ".join(f"{mean:{len(name)}.2f}" for name, mean in found))


# --- for the curious ---


def on_one_pair(courses: Mapping[tuple[str, float], Sequence[float]]) -> None:
    """π(y_w) against steps, for some losses and two β."""
    arms = {"DPO": plots.BLUE, "IPO": plots.PURPLE, "cDPO": plots.GREEN}
    betas = sorted({b for _, b in courses})
    figure, ax = plt.subplots(figsize=(7.5, 3))
    for (name, b), course in courses.items():
        style = dict(color=arms[name], linestyle=("-", "--")[betas.index(b)], label=f"{name}, β = {b:g}")
        ax.plot(np.arange(1, len(course) + 1), course, **style)
    ax.set(xscale="log", xlabel="step", ylabel="π(y_w)")
    ax.legend(frameon=False, fontsize=9, ncols=3)
    ends = ", ".join(f"{name} with β = {b:g} at {course[-1]:.2f}" for (name, b), course in courses.items())
    show(
        figure, f"The probability of the chosen response against steps, on a log axis, from 0.5. End: {ends}."
    )


def uncovered(shares, losses, objectives, best: float) -> None:
    """DPO's loss and RLHF's objective against the probability of a response that nobody compared."""
    figure, ax = plt.subplots(figsize=(7, 3))
    ax.plot(shares, losses, color=plots.BLUE, linewidth=2, label="DPO's loss")
    style = dict(color=plots.PURPLE, linestyle="--", linewidth=2)
    ax.plot(shares, -objectives, label="−(E[r] − β KL), what RLHF makes small", **style)
    ax.axvline(best, color=plots.GREY, linestyle=":", label="y₃'s share in π*")
    ax.set(xlabel="probability of y₃, which nobody compared", ylabel="nats")
    ax.legend(frameon=False, loc="center", bbox_to_anchor=(0.55, 0.62))
    lowest = float(shares[objectives.argmax()])
    show(
        figure,
        "Against the probability of the response that nobody compared: DPO's loss, a horizontal line at "
        f"{float(losses[0]):.2f}; and minus RLHF's objective, a curve with its minimum at {lowest:.2f}; the "
        f"optimum's share is {best:.2f}.",
    )


def attributes(worth: Callable[[str, float], float], names: Sequence[str]) -> None:
    """A table: what each attribute contributes to gold at the start, after one pass and after three."""
    for name in names:
        start, one, three = (worth(name, n) for n in (0, 1, 3))
        print(f"{name:>12}: {start:+.2f} -> {one:+.2f} after one pass -> {three:+.2f} after three")


def lengths(pairs: Sequence[Preference], of: Callable) -> None:
    """How long chosen and rejected responses are, and the answers of the runs with β = 0.1."""
    chosen, rejected = (
        np.array([len(y.split()) for y in side]) for side in zip(*((p.chosen, p.rejected) for p in pairs))
    )
    longer = (chosen > rejected)[chosen != rejected].mean()
    print(f"words: chosen {chosen.mean():.1f}, rejected {rejected.mean():.1f}; the longer wins {longer:.0%}")
    words = [of(0.1, "words", n).mean() for n in (0, 1, 3)]
    print(f"words in the answers, β = 0.1, after 0, 1 and 3 passes: {several(words, '.1f')}")
    grown = bootstrap_difference(*(of(0.1, "lengths", n).mean(-1) for n in (3, 1)))
    print(f"three passes minus one: {grown.mean:.1f} [{grown.low:.1f}, {grown.high:.1f}]")


def first_words(found: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
    """A table: a preference of words, and the mean probabilities of first tokens, before and after."""
    for (chosen, rejected), shares in found.items():
        said = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        print(f"{chosen} ≻ {rejected}: {said}")
