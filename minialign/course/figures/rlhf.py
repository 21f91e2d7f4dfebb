"""The figures of notebook 05."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minialign.course import plots
from minialign.course.experiments import critics, goodhart, ppo_bugs
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.rlhf import WARMUP
from minialign.course.lesson import show

BROWN, VIOLET, TEAL, ROSE, OLIVE, SLATE = "#8B5A2B", "#6A3D9A", "#117777", "#AA4466", "#777733", "#444444"
LOOKS = {  # of each arm, in all figures of the notebook: colour, marker, line
    "fine-tuned": (plots.GREY, "X", "-"),
    "β = 0": (plots.BLUE, "o", "-"),
    "β = 0.1": (plots.ORANGE, "s", "-"),
    "β = 0.3": (plots.GREEN, "D", "-"),
    "β = 1": ("black", "^", "-"),
    "β = 0.1 + mix": (plots.RED, "P", "-"),
    "best-of-n": (plots.PURPLE, "^", ":"),
    "tilted optimum": (plots.SKY, "v", "--"),
    "as they are": (plots.BLUE, "o", "--"),  # β = 0 once more, with other crowds
    "without biases": (BROWN, "s", "--"),
    "head only": (VIOLET, "D", "--"),
    "no labels": (SLATE, "X", "--"),
    "λ = 0.95": (TEAL, "s", "-"),
    "λ = 1": (ROSE, "o", "-"),
}
PENALTIES = {beta: f"β = {beta:g}" for beta in goodhart.BETAS}
UNTRAINED = {"best-of-n": "best-of-n", "tilted optimum": "tilted", "fine-tuned": "sft"}


def _look(name: str, **options) -> dict:
    colour, marker, line = LOOKS[name]
    return dict(color=colour, marker=marker, linestyle=line, markersize=5) | options


def _listed(values, form: str = ".2f") -> str:
    return ", ".join(format(value, form) for value in np.ravel(values))


# --- the four models ---

MODELS = {  # name: its place, its text, and whether it is trained
    "policy": ((0.0, 0.0), "policy π\n(trained)", True),
    "rollout": ((2.6, 0.0), "prompt x,\nresponse y", None),
    "reference": ((5.2, 1.1), "reference π_ref\n(frozen)", False),
    "reward": ((5.2, 0.0), "reward model r\n(frozen)", False),
    "critic": ((5.2, -1.1), "critic V\n(trained)", True),
    "advantage": ((8.2, 0.0), "a reward and an\nadvantage a token", None),
}
CALLS = {  # who hands what to whom; and where that is written
    ("policy", "rollout"): ("samples, with log π", (1.3, 0.12)),
    ("rollout", "reference"): None,
    ("rollout", "reward"): None,
    ("rollout", "critic"): None,
    ("reference", "advantage"): ("log π_ref, a token", (7.4, 0.8)),
    ("reward", "advantage"): ("one score", (6.5, 0.12)),
    ("critic", "advantage"): ("V, a token", (6.75, -1.05)),
}


def four_models() -> None:
    """The loop of PPO as a picture: who calls whom, and along which arrows gradients flow."""
    figure, axes = plt.subplots(figsize=(10, 3.4))
    for name, (place, text, trained) in MODELS.items():
        face = {True: "#CFE6F5", False: "#EEEEEE", None: "white"}[trained]
        edge = {True: plots.BLUE, False: "#777777", None: "#BBBBBB"}[trained]
        box = dict(boxstyle="round,pad=0.5", facecolor=face, edgecolor=edge, linewidth=1.6 if trained else 1)
        axes.text(*place, text, ha="center", va="center", fontsize=10.5, bbox=box)
    half = {name: 0.98 if name == "advantage" else 0.68 for name in MODELS}
    for (start, end), written in CALLS.items():
        (x0, y0), (x1, y1) = MODELS[start][0], MODELS[end][0]
        tail, head = (x0 + half[start], y0), (x1 - half[end], y1)
        axes.annotate("", head, tail, arrowprops=dict(arrowstyle="->", color="#555555"))
        if written:
            text, place = written
            axes.text(*place, text, ha="center", fontsize=9, color="#555555")
    back = dict(arrowstyle="->", color=plots.RED, linewidth=2, linestyle="--")
    for end, bend in (("policy", -0.32), ("critic", -0.25)):
        (x, y), start = MODELS[end][0], MODELS["advantage"][0]
        axes.annotate(
            "",
            (x, y - 0.4),
            (start[0], start[1] - 0.4),
            arrowprops=back | dict(connectionstyle=f"arc3,rad={bend}"),
        )
    axes.text(3.0, -2.35, "gradients: the clipped loss to π, squared error to V", color=plots.RED, fontsize=9)
    axes.set(xlim=(-1.1, 9.4), ylim=(-2.6, 1.7))
    axes.axis("off")
    show(
        figure,
        "A picture of the loop. The policy samples a response. Reference, reward model and critic read it, "
        "and give log π_ref and V for each token and one score. From these come a reward and an advantage "
        "for each token. Dashed arrows, the gradients, lead back from there to the policy and to the critic "
        "only; reference and reward model are frozen.",
    )


# --- what β does ---


def tilted_by(log_ref: torch.Tensor, rewards: torch.Tensor, beta: float) -> torch.Tensor:
    """log π* of one prompt, (N,), for any β: at ∞ the reference, at 0 all mass on the best responses."""
    if beta == 0:
        best = rewards == rewards.max()
        return log_ref.masked_fill(~best, -math.inf).log_softmax(-1)
    return (log_ref + rewards / beta).log_softmax(-1)


def _of_tilt(log_ref: torch.Tensor, rewards: torch.Tensor, beta: float) -> tuple[np.ndarray, float, float]:
    """π*, its mean reward and its KL from the reference."""
    log_star = tilted_by(log_ref, rewards, beta)
    p = log_star.exp()
    kl = torch.where(p > 0, p * (log_star - log_ref), 0.0).sum()
    return p.numpy(), float((p * rewards).sum()), max(0.0, float(kl))


def _draw_tilt(axes, log_ref: torch.Tensor, rewards: torch.Tensor, beta: float) -> str:
    p, reward, kl = _of_tilt(log_ref, rewards, beta)
    low, high = math.floor(10 * float(rewards.min())) / 10, float(rewards.max())
    axes.hist(rewards.numpy(), np.arange(low, high + 0.11, 0.1), weights=p, color=LOOKS["tilted optimum"][0])
    name = "∞" if math.isinf(beta) else f"{beta:g}"
    axes.set(title=f"β = {name}\nE[r] = {reward:.2f}, KL = {kl:.2f}", xlabel="reward", ylim=(0, 1))
    return f"at β = {name} the mean reward is {reward:.2f} and the KL {kl:.2f} nats"


def tilts(log_ref: torch.Tensor, rewards: torch.Tensor, betas: Sequence[float]) -> None:
    """The rewards that π* of one prompt gets, for several β."""
    figure, axes = plt.subplots(1, len(betas), figsize=(12, 2.6), sharey=True)
    said = [_draw_tilt(ax, log_ref, rewards, beta) for ax, beta in zip(axes, betas)]
    axes[0].set_ylabel("probability under π*")
    show(
        figure,
        f"Histograms of the rewards that the optimal policy gets, over {len(rewards)} responses to a prompt, "
        f"for {len(betas)} values of β: {'; '.join(said)}.",
    )


def tilt(log_ref: torch.Tensor, rewards: torch.Tensor) -> Callable[[float], Figure]:
    """What the slider draws for a β: π* of one prompt, and where it lies on the curve of all β."""

    def draw(beta: float) -> Figure:
        figure, (left, right) = plt.subplots(1, 2, figsize=(9, 2.8))
        _draw_tilt(left, log_ref, rewards, beta)
        path = [_of_tilt(log_ref, rewards, b)[1:] for b in (math.inf, *np.geomspace(30, 0.01, 80), 0)]
        right.plot([kl for _, kl in path], [reward for reward, _ in path], color=plots.SKY)
        _, reward, kl = _of_tilt(log_ref, rewards, beta)
        right.plot([kl], [reward], "o", color="black")
        right.set(xlabel="KL from the reference, nats", ylabel="E[r]")
        return figure

    return draw


# --- PPO's loss, and one answer ---


def clip(of_one_token: Callable[[torch.Tensor, float], torch.Tensor]) -> None:
    """The clipped objective of one token against its ratio, for a good and a bad token."""
    rho = torch.linspace(0.4, 1.8, 141)
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
    for ax, advantage in zip(axes, (1.0, -1.0)):
        clipped = [float(of_one_token(x, advantage)) for x in rho]
        ax.plot(rho, advantage * rho, color=plots.GREY, linestyle="--", label="ρ A, not clipped")
        ax.plot(rho, clipped, color=plots.BLUE, linewidth=2.5, label="what PPO maximises")
        ax.axvspan(0.8, 1.2, color=plots.SKY, alpha=0.15)
        kind = "a better token" if advantage > 0 else "a worse token"
        ax.set(xlabel="ratio ρ = π/π_old", title=f"advantage {advantage:+.0f}: {kind} than expected")
    axes[0].set_ylabel("objective of one token")
    axes[0].legend(frameon=False, fontsize=9)
    show(
        figure,
        "The clipped objective against the ratio. For a positive advantage it rises until 1.2 and is flat "
        "beyond; for a negative one it is flat below 0.8 and falls without bound above.",
    )


def strip(tokens: Sequence[str], rows: Mapping[str, torch.Tensor]) -> None:
    """Numbers of every token of one answer, a line each, as a coloured strip: {"critic: V": (1, T)}.

    Where what stands before the colon changes there is a gap.
    """
    lines = {name: values.ravel().numpy() for name, values in rows.items()}
    groups = [name.split(": ")[0] if ": " in name else "" for name in lines]
    names = []
    for name, group, before in zip(lines, groups, ["", *groups]):
        names += [f"gap before {group}", name] if group != before else [name]
    limit = max(np.abs(values).max() for values in lines.values())
    table = np.array([lines.get(name, np.full(len(tokens), np.nan)) for name in names])
    figure, axes = plt.subplots(figsize=(13, 1 + 0.33 * len(names)))
    axes.imshow(table, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
    for (y, x), value in np.ndenumerate(table):
        if abs(value) >= 0.05:
            ink = "white" if abs(value) > 0.6 * limit else "black"
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(
        range(len(tokens)),
        [token.strip() for token in tokens],
        rotation=60,
        ha="left",
        rotation_mode="anchor",
        fontsize=10,
    )
    axes.set_yticks(range(len(names)), [name if name in lines else "" for name in names], fontsize=10)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    said = []
    for name, values in lines.items():
        low, high = int(values.argmin()), int(values.argmax())
        said.append(
            f"{name}: from {values[low]:.1f} at “{tokens[low].strip()}” "
            f"to {values[high]:.1f} at “{tokens[high].strip()}”"
        )
    show(figure, f"A strip of {len(tokens)} tokens with {len(lines)} lines of numbers. {'; '.join(said)}.")


# --- PPO where the optimum is known ---


def arrival(tables: Mapping[float, Sequence[float]], of_gpt: Sequence[dict]) -> None:
    """The distance from π* over rounds, of a table and of the GPT."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3), sharey=True)
    colours = {1.0: LOOKS["β = 1"][0], 0.25: OLIVE}
    said = []
    for i, (beta, distances) in enumerate(tables.items()):
        look = dict(color=colours[beta], linestyle=("-", "--")[i], label=f"β = {beta:g}")
        rows = [row for row in of_gpt if row["beta"] == beta]
        rounds = sorted({row["round"] for row in rows})
        gpt = np.stack([over_seeds(rows, "tv", round=step) for step in rounds])
        axes[0].plot(distances, **look)
        axes[1].plot(rounds, gpt.mean(1), **look)
        axes[1].fill_between(rounds, gpt.min(1), gpt.max(1), color=colours[beta], alpha=0.2, linewidth=0)
        said.append(
            f"β = {beta:g}: the table from {distances[0]:.2f} to {distances[-1]:.4f}, "
            f"the GPT from {gpt[0].mean():.2f} to {gpt[-1].mean():.2f}"
        )
    titles = "a table of 192 logits a prompt", "the GPT, 64 possible responses a prompt, 3 seeds"
    for ax, title in zip(axes, titles):
        ax.set(yscale="log", xlabel="round", title=title)
        ax.legend(frameon=False)
    axes[0].set_ylabel("total variation from π*")
    show(figure, f"Distance from the optimum against rounds of PPO, on a log scale. {'; '.join(said)}.")


# --- live runs ---


def live(rows: Sequence[dict], names: Sequence[str], arm: str) -> None:
    """A run's metrics, one panel each, in the colour of its arm."""
    ends = [f"{name} from {rows[0][name]:.2f} to {rows[-1][name]:.2f}" for name in names]
    figure = plots.metric_panels(rows, tuple(names))
    for ax in figure.axes:
        for line in ax.lines:
            line.set(color=LOOKS[arm][0], marker=LOOKS[arm][1])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel(ax.get_xlabel().replace("step", "rollout"))
    show(figure, f"Panels over {len(rows)} rollouts: {', '.join(ends)}.")


# --- Goodhart ---


def frontier(rows: Sequence[dict]) -> None:
    """Proxy and gold against √KL: PPO with each β, and what trains nothing."""
    rows = goodhart.with_quarter(rows)
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.9), sharex=True)
    titles = "proxy: the reward model's score", "gold, on the 49 prompts of best-of-n"
    said = []
    for ax, name, title, short in zip(axes, ("proxy", "quarter"), titles, ("proxy", "gold")):
        for beta, label in PENALTIES.items():
            kl, values = (goodhart.along(rows, column, beta=beta) for column in ("kl", name))
            ax.plot(np.sqrt(kl).T, values.T, color=LOOKS[label][0], alpha=0.25, linewidth=1)
            ax.plot(np.sqrt(kl.mean(0)), values.mean(0), label=f"PPO, {label}", **_look(label))
            said.append(f"{short} of PPO with {label}: {_listed(values.mean(0))}")
        for label, method in UNTRAINED.items():
            kl, values = (goodhart.untrained(rows, method, column) for column in ("kl", name))
            ax.plot(np.sqrt(kl), values, label=label, **_look(label))
            said.append(f"{short} of {label}: {_listed(values)}")
        ax.set(xlabel="√KL from the fine-tuned model", title=title)
    axes[0].set_ylabel("score")
    axes[1].set_ylabel("gold reward")
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, ncols=7, fontsize=8, loc="outside lower center")
    show(
        figure,
        f"Two panels against the square root of the KL, each line in the order of its KL. {'; '.join(said)}.",
    )


TEMPERATURES = (1.0, 0.7, 0.0)


def temperatures(rows: Sequence[dict]) -> None:
    """Gold at three temperatures: the fine-tuned model and PPO at its end, three seeds each."""
    arms = {"fine-tuned": None, **{label: beta for beta, label in PENALTIES.items()}}
    figure, axes = plt.subplots(figsize=(8, 2.8))
    said = []
    for i, (label, beta) in enumerate(arms.items()):
        found = [goodhart.golds(rows, t, beta).mean(-1) for t in TEMPERATURES]
        colour, marker, _ = LOOKS[label]
        for x, values in enumerate(found):
            at = x + 0.14 * (i - 2)
            axes.plot([at] * len(values), values, marker, color=colour, alpha=0.5, markersize=5)
            axes.hlines(values.mean(), at - 0.06, at + 0.06, color=colour, linewidth=2.5)
        axes.plot([], [], marker, color=colour, label=label)
        said.append(f"{label} {_listed([values.mean() for values in found])}")
    axes.set(xticks=range(3), xticklabels=["T = 1", "T = 0.7", "greedy"], ylabel="gold reward")
    axes.legend(frameon=False, ncols=5, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1))
    show(figure, f"Gold reward at T = 1, T = 0.7 and greedily, means of three seeds: {'; '.join(said)}.")


def controls(rows: Sequence[dict], sft: Sequence[dict]) -> None:
    """Gold and flattery of PPO without a penalty, by who labelled and what the reward model is."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.3))
    at, said = (0, goodhart.RISEN, goodhart.FALLEN), []
    for ax, name in zip(axes, ("gold", "flattery")):
        for control in goodhart.CONTROLS:
            values = goodhart.controlled(rows, control, name, sft)
            ax.plot(at, values.T, color=LOOKS[control][0], alpha=0.25, linewidth=1)
            ax.plot(at, values.mean(0), label=control, **_look(control))
            said.append(f"{name}, {control}: {_listed(values.mean(0))}")
        ax.set(xlabel="rollouts", title={"gold": "gold", "flattery": "share of answers that flatter"}[name])
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, ncols=4, fontsize=9, loc="outside lower center")
    show(figure, f"Two panels after {', '.join(map(str, at))} rollouts with β = 0. {'; '.join(said)}.")


# --- what a response is compared with ---

WITH_LAMBDA = {"λ = 0.95": "λ = 0.95, warm critic", "λ = 1": "λ = 1, warm critic"}


def credit(rows: Sequence[dict]) -> None:
    """Where the credit goes with two λ and a warm critic, and what becomes of KL and length."""
    groups = [f"squared/{low}" for low in critics.TO_GO]
    names = ["0", "1–2", "3–5", "6–11", "12–23", "24 or more"]
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2))
    said = []
    for i, (label, arm) in enumerate(WITH_LAMBDA.items()):
        of_arm = [row for row in rows if row["arm"] == arm and "objective/kl" in row]
        learning = [row for row in of_arm if row["step"] > WARMUP]
        shares = [np.mean([row.get(group, 0) for row in learning]) for group in groups]
        look = dict(color=LOOKS[label][0], hatch=("//", "")[i], edgecolor="#444444", linewidth=0.5)
        axes[0].bar(np.arange(len(names)) + 0.4 * i - 0.2, shares, 0.4, label=label, **look)
        said.append(f"{label}: shares {_listed(shares)}")
        steps = sorted({row["step"] for row in of_arm})
        for ax, name in zip(axes[1:], ("objective/kl", "response_length")):
            values = np.stack([over_seeds(of_arm, name, step=step) for step in steps])
            ax.plot(steps, values.mean(1), **_look(label, markersize=4, markeredgecolor="#444444"))
            ax.fill_between(steps, values.min(1), values.max(1), color=LOOKS[label][0], alpha=0.3)
            said.append(f"{name} from {values[0].mean():.1f} to {values[-1].mean():.1f}")
    axes[0].set(xlabel="tokens to go", title="share of all squared advantages")
    axes[0].set_xticks(range(len(names)), names, fontsize=8)
    axes[1].set(xlabel="rollout", title="KL from the reference, nats a response")
    axes[2].set(xlabel="rollout", title="length, tokens")
    axes[0].legend(frameon=False)
    show(figure, f"Share of the squared advantages by tokens to go, KL and length. {'; '.join(said)}.")


COLUMNS = {
    "kl": ("KL", "{:6.1f}"),
    "proxy": ("score", "{:7.2f}"),
    "words": ("words", "{:7.1f}"),
    "politeness": ("polite", "{:8.2f}"),
    "attribute/correctness": ("correct", "{:9.2f}"),
    "flattery": ("flattery", "{:10.2f}"),
    "gold": ("gold", "{:6.2f}"),
}


def arms(rows: Sequence[dict]) -> None:
    """Prints what held-out prompts show of each arm after the last rollout, and how good its critic was."""
    heads = (f"{head:>{len(form.format(0))}}" for head, form in COLUMNS.values())
    print(" " * 29 + "".join(heads) + "  T = 0.7   explained   V − R")
    for arm in ("start", *critics.ARMS):
        line = "".join(form.format(ended(rows, arm, name).mean()) for name, (_, form) in COLUMNS.items())
        line += f"{ended(rows, arm, 'gold', 0.7).mean():9.2f}"
        if arm in critics.WITH_CRITIC:
            explained, bias = (
                late(rows, arm, f"val/{name}").mean() for name in ("explained_variance", "bias")
            )
            line += f"{explained:12.2f}{bias:8.2f}"
        print(f"{arm:>29}{line}")


def ended(rows: Sequence[dict], arm: str, name: str, temperature: float = 1.0) -> np.ndarray:
    """A metric of an arm on held-out prompts after the last rollout, (seeds, …)."""
    step = 0 if arm == "start" else critics.MEASURED[-1]
    return over_seeds(rows, name, arm=arm, step=step, temperature=temperature)


def late(rows: Sequence[dict], arm: str, name: str) -> np.ndarray:
    """A run's own metric, the mean of its last ten rollouts, (seeds,)."""
    steps = range(critics.MEASURED[0] + 1, critics.MEASURED[-1] + 1)
    return np.mean([over_seeds(rows, name, arm=arm, step=step) for step in steps], 0)


# --- what is preserved, and what goes wrong ---

ARMS = {
    "fine-tuned": dict(method="sft"),
    **{label: dict(method="ppo", beta=beta) for beta, label in PENALTIES.items()},
    "β = 0.1 + mix": dict(method="ppo-ptx"),
}
KEPT = {
    "perplexity": "perplexity (lower is better)",
    "facts/sft": "facts answered, demonstrated topics",
    "facts/held-out": "facts answered, other topics",
}


def preserved(rows: Sequence[dict]) -> None:
    """What is left of the base model in each arm, three seeds."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 2.8))
    said = []
    for ax, (name, title) in zip(axes, KEPT.items()):
        found = {arm: over_seeds(rows, name, **where) for arm, where in ARMS.items()}
        for x, (arm, values) in enumerate(found.items()):
            colour, marker, _ = LOOKS[arm]
            ax.plot([x] * len(values), values, marker, color=colour, alpha=0.6)
            ax.hlines(values.mean(), x - 0.3, x + 0.3, color=colour)
        ax.set(xticks=range(len(found)), title=title)
        ax.set_xticklabels([arm.replace(" +", "\n+") for arm in found], fontsize=7)
        said.append(f"{title}: {', '.join(f'{arm} {v.mean():.3f}' for arm, v in found.items())}")
    axes[1].sharey(axes[2])
    axes[1].set_ylim(0.85, 1.005)
    show(figure, f"Three panels of six arms, three seeds each. {'; '.join(said)}.")


WATCHED = ("objective/scores", "objective/kl", "objective/entropy", "response_length")


def bugs(rows: Sequence[dict], names: Sequence[str], labels: Sequence[str] | None = None) -> None:
    """The curves of runs with bugs, means of three seeds; `labels` may hide the bugs' names."""
    labels = list(labels or names)
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2))
    place = {name: i for i, name in enumerate(ppo_bugs.BUGS)}  # a bug keeps its look, by whatever name
    said = []
    for ax, metric in zip(axes, WATCHED):
        for name, label in zip(names, labels):
            steps = sorted({row["step"] for row in rows if row["bug"] == name})
            means = [over_seeds(rows, metric, bug=name, step=step).mean() for step in steps]
            colour = [SLATE, *plots.COLOURS][place[name]]
            look = dict(color=colour, marker=plots.MARKERS[place[name]], markersize=3)
            ax.plot(steps, means, label=label if ax is axes[0] else None, **look)
            said.append(f"{metric}, {label}: from {means[0]:.1f} to {means[-1]:.1f}")
        ax.axvline(WARMUP + 0.5, color=plots.GREY, linestyle=":")  # left of it the policy waits
        ax.set(title=metric, xlabel="rollout")
    figure.legend(frameon=False, ncols=4, fontsize=9, loc="outside lower center")
    show(figure, f"Four panels over {len(steps)} rollouts, means of three seeds. {'; '.join(said)}.")
