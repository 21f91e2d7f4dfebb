"""The figures of notebook 02."""

import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from minialign.chat import Batch, Chat
from minialign.course import plots
from minialign.course.experiments.mask_bugs import BUGS
from minialign.course.experiments.measuring import over_seeds
from minialign.course.lesson import show


def golds(values: np.ndarray, mean_at: float) -> None:
    """A histogram of what demonstrations are worth."""
    figure, axes = plt.subplots(figsize=(7, 2.4))
    counts, edges, _ = axes.hist(values, bins=40, color=plots.BLUE)
    axes.axvline(mean_at, color=plots.RED, linestyle="--")
    label = dict(xytext=(-6, 0), textcoords="offset points", ha="right", color=plots.RED)
    axes.annotate(f"mean {mean_at:.2f}", (mean_at, axes.get_ylim()[1] * 0.9), **label)
    axes.set(xlabel="gold reward of a demonstration (4 is perfect)", ylabel="demonstrations")
    show(
        figure,
        f"Histogram of the gold reward of {len(values):,} demonstrations, from {values.min():.1f} to "
        f"{values.max():.1f}: a ragged tail that rises, and the highest bar at {edges[counts.argmax()]:.1f}. "
        f"Their mean, {mean_at:.1f}, is marked.",
    )


def mask(chat: Chat, batch: Batch) -> None:
    """The first conversation of a batch: its tokens, what each place predicts, and whether that counts."""
    ids, response = batch.ids[0].tolist(), batch.response_mask[0].tolist()
    rows = {"the token at t": zip(ids, response), "predicts": zip(ids[1:], response[1:])}
    figure, axes = plt.subplots(figsize=(11, 3.2))
    for y, row in enumerate(rows.values()):
        for x, (token, lit) in enumerate(row):
            box = dict(boxstyle="round,pad=0.2", facecolor=plots.SKY if lit else "#EEEEEE", edgecolor="none")
            text = chat.decode([token]).strip()
            axes.text(x, -y, text, ha="center", va="center", fontsize=10, rotation=60, bbox=box)
            if y:
                axes.text(x, -1.9, "✓" if lit else "–", ha="center", va="center", fontsize=11)
    ticks = dict(yticks=[0, -1, -1.9], yticklabels=[*rows, "in the loss?"], xticks=[])
    axes.set(xlim=(-0.7, len(ids) - 0.3), ylim=(-2.3, 0.6), **ticks)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    show(
        figure,
        "The tokens of one conversation in a row and, below each, the token that it has to predict, which is "
        f"the next one. The {sum(response)} tokens of the response are blue. The loss counts the places that "
        "predict them: from the assistant token, which predicts the first word of the response, to the full "
        "stop, which predicts the end token.",
    )


def losses(yours: Sequence[float], shipped: Sequence[float]) -> None:
    """The training losses of two runs over the steps, smoothed."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    for values, look, label in ((yours, "--", "yours: 300"), (shipped, "-", "shipped: 48,000")):
        smooth = plots.smoothed(values, 10)
        axes.plot(np.arange(1, len(smooth) + 1), smooth, look, label=f"{label} demonstrations")
    axes.set(xscale="log", xlabel="step", ylabel="loss (nats per response token)", ylim=(0, None))
    axes.legend(frameon=False)
    show(
        figure,
        "Two training losses over a logarithmic axis of steps, smoothed. Yours is flat for the first steps "
        f"and has fallen by more than half after {len(yours)}. The shipped model's falls from "
        f"{shipped[0]:.1f} nats a token to {np.mean(shipped[-100:]):.2f} in {len(shipped):,} steps.",
    )


def replies(shares: dict[str, dict[str, float]], n: int) -> None:
    """What kinds of replies n prompts get, by who replies."""
    said = ", ".join(f"{who} {row['answer']:.0%}" for who, row in shares.items() if "yours" not in who)
    figure = plots.stacked_shares(shares, xlabel=f"share of {n} held-out prompts")
    show(figure, f"Stacked bars of replies: answers, other prompts, something else. Answers: {said}.")


QUALITY = {  # what is shown of `fine_tuning_quality`, and what it is called
    "gold": "gold",
    "best of 16": "best of 16",
    "attribute/correctness": "correct",
    "attribute/fluency": "fluent",
    "right/real, held-out wording": "real",
    "right/invented, held-out wording": "invented",
    "says so/outside": "outside",
    "says so/typed": "typed",
    "says so/inside": "inside",
}


def quality(rows: Sequence[dict]) -> None:
    """A table: models of the shipped kind at three temperatures and their demonstrators, means over seeds."""
    who = {"demonstrators": dict(who="demonstrators")}
    who |= {f"SFT, T = {t:g}": dict(who="sft", temperature=t) for t in (1.0, 0.7, 0.0)}
    print(f"{'facts right':>75}   “I do not know”")
    print(" " * 13 + "".join(f"{name:>11s}" for name in QUALITY.values()))
    for name, where in who.items():
        known = next(row for row in rows if where.items() <= row.items())
        means = (f"{over_seeds(rows, c, **where).mean():.2f}" if c in known else "" for c in QUALITY)
        print((f"{name:13s}" + "".join(f"{mean:>11s}" for mean in means)).rstrip())


def knowledge(rows: Sequence[dict]) -> None:
    """Facts right over the epochs, by where the facts stand; and real and invented topics apart."""
    learned = [row for row in rows if row["arm"] == "with unknown things"]
    before = next(row for row in rows if row["arm"].startswith("base"))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.4))
    curves = {
        "sft": "in the corpus and in demonstrations",
        "held-out": "in the corpus only",
        "sft-only": "in demonstrations only",
        "shuffled": "control: another thing's facts",
    }
    for i, (name, label) in enumerate(curves.items()):
        plots.curve_over_seeds(left, learned, "epoch", name, label, i)
    left.axhline(before["held-out"], color=plots.GREY, linestyle=":", label="base, in its corpus's frame")
    arms = {"with unknown things": "unknown things taught, too", "known things only": "known things only"}
    for i, (arm, label) in enumerate(arms.items()):
        for j, kind in enumerate(("real", "invented")):
            of_arm = [row for row in rows if row["arm"] == arm]
            name = f"{kind} topics, {label}"
            plots.curve_over_seeds(right, of_arm, "epoch", f"held-out/{kind}", name, (1, 4)[i])
            right.lines[-1].set_linestyle(("-", "--")[j])
    left.set(xlabel="epoch", ylabel="facts right", ylim=(-0.03, 1.03))
    right.set(xlabel="epoch", title="topics in the corpus only", ylim=(0.6, 1.02))
    left.legend(frameon=False, fontsize=8, loc="center right")
    right.legend(frameon=False, fontsize=8, loc="lower right")

    def mean(name: str, epoch: float, arm: str = "with unknown things") -> float:
        return float(over_seeds(rows, name, arm=arm, epoch=epoch).mean())

    first, last = (end(row["epoch"] for row in learned) for end in (min, max))
    ends = {
        arm: [f"{mean(f'held-out/{kind}', last, arm):.2f}" for kind in ("real", "invented")] for arm in arms
    }
    show(
        figure,
        f"Two panels over {last:g} epochs, three seeds. Left, facts right: topics of the corpus come to "
        f"{mean('sft', last):.2f} if demonstrations mention them and to {mean('held-out', last):.2f} if not; "
        f"the base model in its corpus's frame has {before['held-out']:.2f}. Things in demonstrations only "
        f"begin at {mean('sft-only', first):.2f}, have {mean('sft-only', 1.0):.2f} after one epoch and "
        f"{mean('sft-only', last):.2f} at the end; the control stays at 0. Right, topics in the corpus only: "
        f"at the end {' and '.join(ends['with unknown things'])} of the facts about real and invented ones "
        f"are right where unknown things were taught, {' and '.join(ends['known things only'])} where not.",
    )


def kl_by_class(values: dict[str, float]) -> None:
    """Mean KL(SFT ‖ base) of a token, by its class."""
    colours = {"wording": plots.ORANGE, "fact": plots.GREEN}
    figure, axes = plt.subplots(figsize=(7, 2.4))
    bars = axes.bar([*values], [*values.values()], color=[colours.get(name, plots.BLUE) for name in values])
    axes.bar_label(bars, [f"{value:.2f}" for value in values.values()])
    axes.set(ylabel="mean KL(SFT ‖ base), nats", ylim=(0, 1.12 * max(values.values())))
    said = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
    show(figure, f"Bars of the mean KL divergence between the two models by class of token, in nats: {said}.")


TAXED = ("replay", "no replay", "no replay, low rate")


def tax(rows: Sequence[dict]) -> None:
    """What the base could be asked for, and what the assistant is worth, fine-tuned in three ways."""
    panels = {
        "in frame/real": "facts right about real topics,\nasked as the corpus asks",
        "gold, T=0": "gold reward as an assistant,\ngreedily (T = 0)",
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
    for ax, (name, title) in zip(axes, panels.items()):
        for i, arm in enumerate(TAXED):
            of_arm = [row for row in rows if row["arm"] in (arm, "base") and name in row]
            plots.curve_over_seeds(ax, of_arm, "step", name, arm, i)
        ax.set(title=title, xlabel="step of fine-tuning")
    axes[0].set(ylim=(0, 1.05))
    axes[0].legend(frameon=False)
    axes[1].set(xlim=axes[0].get_xlim(), ylim=(0, 4))
    steps = sorted({row["step"] for row in rows if row["step"]})

    def means(name: str) -> str:
        found = {arm: [over_seeds(rows, name, arm=arm, step=s).mean() for s in steps] for arm in TAXED}
        return "; ".join(f"{arm} {', '.join(f'{value:.2f}' for value in of)}" for arm, of in found.items())

    before = next(row for row in rows if row["arm"] == "base")
    right, gold = panels
    show(
        figure,
        f"Two panels, three seeds; means after {', '.join(map(str, steps))} steps. Left, facts right about "
        f"real topics, asked in the frame of the corpus, {before[right]:.2f} before: {means(right)}. Right, "
        f"gold of greedy answers: {means(gold)}.",
    )


def by_size(rows: Sequence[dict], people: float) -> None:
    """Gold against the number of demonstrations, beside what needs none; `people` is the demonstrators'."""
    trained = [row for row in rows if row["demonstrations"]]
    free = {row["who"]: row["gold"] for row in rows if not row["demonstrations"]}
    framed, bare = free["base, in the corpus's frame"], free["base"]
    sizes = sorted({row["demonstrations"] for row in trained})
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for i, (name, label) in enumerate((("gold", "SFT at T = 1"), ("gold, T=0", "SFT at T = 0"))):
        plots.curve_over_seeds(axes, trained, "demonstrations", name, label, i)
    lines = {
        "the demonstrators": (people, plots.RED, "--"),
        "base in its corpus's frame, T = 1": (framed, plots.GREEN, "-."),
        "the base model, T = 1": (bare, plots.GREY, ":"),
    }
    for label, (height, colour, style) in lines.items():
        axes.axhline(height, color=colour, linestyle=style, label=label)
    axes.set(xscale="log", xlabel="demonstrations", ylabel="gold reward", ylim=(0, 4))
    axes.set(xticks=sizes, xticklabels=[f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))

    def of(name: str) -> str:
        means = [np.mean([row[name] for row in trained if row["demonstrations"] == n]) for n in sizes]
        return ", ".join(f"{mean:.1f}" for mean in means)

    show(
        figure,
        f"Gold reward against {', '.join(f'{n:,}' for n in sizes)} demonstrations, three seeds. At T = 1: "
        f"{of('gold')}. At T = 0: {of('gold, T=0')}. Lines: the base model at {bare:.1f}, in its corpus's "
        f"frame at {framed:.1f}, the demonstrators at {people:.1f}.",
    )


def equals(before: dict[str, float], after: dict[str, float]) -> None:
    """log π of a label, of its equals and of careless answers, before and after training on the label."""
    figure, axes = plt.subplots(figsize=(7, 2.2))
    for y, name in enumerate(before):
        look = dict(color=plots.COLOURS[y], marker=plots.MARKERS[y])
        axes.plot([before[name]], [y], fillstyle="none", markersize=8, **look)
        axes.plot([after[name]], [y], markersize=8, **look)
        axes.annotate(
            "", (after[name], y), (before[name], y), arrowprops=dict(arrowstyle="->", color="#777777")
        )
    axes.set(
        yticks=range(len(before)), yticklabels=[*before], xlabel="mean log π(y | x), nats", xlim=(None, 3)
    )
    axes.set(ylim=(len(before) - 0.5, -0.5))
    show(
        figure,
        "Arrows from before to after training on one label a prompt, in nats of log-probability: the label "
        "comes close to 0, its equals and the careless answers both end far below it, side by side.",
    )


STYLES = ("many ways", "one answer a prompt", "one way")


def styles(rows: Sequence[dict]) -> None:
    """How varied models are that learned from perfect answers in many ways or in one."""
    panels = {
        "entropy": "entropy of a whole answer, nats",
        "different": "different ones of 8 verses, share",
        "gold": "gold reward at T = 1",
    }
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8))
    said = []
    for ax, (name, title) in zip(axes, panels.items()):
        found = [over_seeds(rows, name, style=style) for style in STYLES]
        for x, values in enumerate(found):
            ax.bar(x, values.mean(), 0.6, color=plots.COLOURS[x], hatch=plots.HATCHES[x], edgecolor="white")
            ax.plot([x] * len(values), values, "ko", markersize=4)
        ax.set(xticks=range(3), xticklabels=["many\nways", "one answer\na prompt", "one\nway"], title=title)
        said.append(f"{title}: {', '.join(f'{values.mean():.3g}' for values in found)}")
    show(
        figure,
        f"Three panels of three bars, for many ways, one answer a prompt and one way, with three seeds each. "
        f"{'. '.join(said)}.",
    )


TEMPERATURES, NS = (0, 0.4, 0.7, 1, 1.2), (1, 2, 4, 8, 16)


def ceiling(rows: Sequence[dict]) -> None:
    """An imitator and its demonstrators: gold against temperature, and the best of n."""

    def of(who: str, name: str = "best of 1") -> np.ndarray:
        return over_seeds(rows, f"{who}, {name}")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
    cooled = [{"T": t, "gold": gold} for t in TEMPERATURES for gold in of("imitator", f"T={t:g}")]
    plots.curve_over_seeds(left, cooled, "T", "gold", "imitator", 0)
    left.axhline(of("demonstrators").mean(), color=plots.RED, linestyle="--", label="demonstrators")
    left.set(xlabel="temperature", ylabel="gold reward")
    for who, index, label in (("imitator", 0, "imitator, T = 1"), ("demonstrators", 5, "demonstrators")):
        best = [{"n": n, "gold": gold} for n in NS for gold in of(who, f"best of {n}")]
        plots.curve_over_seeds(right, best, "n", "gold", label, index)
    right.set(xscale="log", xlabel="best of n answers", xticks=NS, xticklabels=NS)
    right.minorticks_off()
    for axes in (left, right):
        axes.legend(frameon=False)
    cold = ", ".join(f"{of('imitator', f'T={t:g}').mean():.1f} at {t:g}" for t in TEMPERATURES)
    ends = {who: [of(who, f"best of {n}").mean() for n in (1, 16)] for who in ("demonstrators", "imitator")}
    best = "; ".join(f"{who} from {low:.1f} to {high:.1f}" for who, (low, high) in ends.items())
    show(
        figure,
        f"Two panels of gold reward, three seeds. Left, the imitator against temperature: {cold}; its "
        f"demonstrators are at {of('demonstrators').mean():.1f}. Right, the best of 1 to 16 answers: {best}.",
    )


SETS = ("best 200", "all 2,000", "random 200")


def loss_and_gold(rows: Sequence[dict]) -> None:
    """Checkpoints: loss on held-out demonstrations against gold."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    steps, said = sorted({row["step"] for row in rows}), []
    for i, data in enumerate(SETS):
        look = dict(marker=plots.MARKERS[i], color=plots.COLOURS[i])
        loss, gold = ([over_seeds(rows, c, data=data, step=s) for s in steps] for c in ("loss", "gold"))
        axes.plot(np.ravel(loss), np.ravel(gold), linestyle="none", **look, label=f"fine-tuned on {data}")
        axes.plot(np.mean(loss, 1), np.mean(gold, 1), color=plots.COLOURS[i], alpha=0.5)
        path = ", ".join(f"{a:.2f} and {b:.1f}" for a, b in zip(np.mean(loss, 1), np.mean(gold, 1)))
        said.append(f"{data}: {path}")
    axes.set(xlabel="loss on held-out demonstrations (nats per token)", ylabel="gold reward at T = 1")
    axes.legend(frameon=False)
    show(
        figure,
        f"Scatter of checkpoints, loss against gold, three seeds. Means of loss and gold after "
        f"{', '.join(map(str, steps))} steps: {'; '.join(said)}.",
    )


def masks(rows: Sequence[dict], names: Sequence[str], labels: Sequence[str] | None = None) -> None:
    """What models do that were trained with each mask; `labels` may hide the masks' names."""
    panels = {
        "answer": "answers",
        "ended": "stops by itself",
        "words": "words in a reply",
        "gold": "gold reward",
    }
    labels = list(labels or names)
    figure, axes = plt.subplots(1, 4, figsize=(11, 0.8 + 0.33 * len(names)), sharey=True)
    said = []
    for ax, (name, title) in zip(axes, panels.items()):
        found = [over_seeds(rows, name, bug=bug) for bug in names]
        for y, (bug, values) in enumerate(zip(names, found)):
            i = [*BUGS].index(bug)
            look = dict(color=plots.COLOURS[i], hatch=plots.HATCHES[i], edgecolor="white")
            ax.barh(y, values.mean(), 0.6, **look)
            ax.plot(values, [y] * len(values), "ko", markersize=3)
        ax.set(title=title, yticks=range(len(names)), yticklabels=labels)
        said.append(f"{title}: {', '.join(f'{label} {v.mean():.3g}' for label, v in zip(labels, found))}")
    axes[0].invert_yaxis()
    show(figure, f"Four panels with a bar for each mask and three seeds. {'. '.join(said)}.")


def mask_losses(rows: Sequence[dict], names: Sequence[str]) -> None:
    """The training losses that the authors of the masks would have looked at."""
    figure, axes = plt.subplots(figsize=(7, 2.8))
    ends = {}
    for bug in names:
        i, mean = [*BUGS].index(bug), over_seeds(rows, "losses", bug=bug).mean(0)  # each of ten steps
        look = dict(color=plots.COLOURS[i], marker=plots.MARKERS[i], markersize=4)
        axes.plot(10 * np.arange(1, len(mean) + 1), mean, label=bug, **look)
        ends[bug] = mean[-1]
    axes.set(xlabel="step", ylabel="the loss that its author sees", ylim=(0, None))
    axes.legend(frameon=False, fontsize=8, ncols=2)
    said = ", ".join(f"{bug} {value:.2f}" for bug, value in ends.items())
    show(figure, f"{len(names)} training losses that fall alike. At the end: {said} nats a token.")


def moved_mass(
    before: torch.Tensor, after: torch.Tensor, golds: Sequence[float], texts: Sequence[str]
) -> None:
    """Two policies at one place: the probabilities of their next tokens, and what the answers are worth."""
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.28 * len(texts)))
    y = np.arange(len(texts))
    axes.barh(y - 0.2, before, 0.4, color=plots.BLUE, label="the model")
    axes.barh(y + 0.2, after, 0.4, color=plots.ORANGE, hatch="//", edgecolor="white", label="mass moved")
    for place, (p, q, gold) in enumerate(zip(before, after, golds)):
        axes.text(max(p, q) + 0.01, place, f"gold {gold:.1f}", va="center", fontsize=8)
    begin = [textwrap.shorten(text, 48, placeholder=" …") for text in texts]
    axes.set(yticks=y, yticklabels=begin, xlabel="probability of the first token")
    axes.invert_yaxis()
    axes.legend(frameon=False)
    show(
        figure,
        "Bars of the probabilities of the most probable first tokens under two policies. They agree on all "
        "but two tokens: what one of these had, the other has now. Beside each stands what the answer that "
        "begins so is worth.",
    )
