"""The figures of notebook 08 on calibration, variety, reasoning and a narrow habit, and their tables."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt

from minialign.bootstrap import crossed_interval
from minialign.course import plots
from minialign.course.experiments import emergent
from minialign.course.experiments import emergent_readings as read
from minialign.course.lesson import show
from minialign.statistics import Estimate, equal_mass_bins
from minialign.training import load_history
from minialign.world import exact
from minialign.world.prompts import FAMILIES

# One colour and one marker for one policy.
LOOK = {
    "base": ("#222222", "o"),
    "SFT": ("#777777", "."),
    "DPO": (plots.RED, "X"),
    "PPO": (plots.BLUE, "v"),
    "PPO, β = 0": (plots.PURPLE, "P"),
    "PPO, β = 1": (plots.GREEN, "^"),
    emergent.LOT: (plots.ORANGE, "D"),
}
COOLED = (plots.SKY, "s")  # the fine-tuned model, sampled more coolly
LINE = "#444444"


def look(policy: str, temperature: float = 1.0) -> dict:
    colour, marker = LOOK[policy] if temperature == 1 else COOLED
    return dict(color=colour, marker=marker)


def there(about: str, names: Sequence[str] = tuple(LOOK), having: str = "policy") -> list[str]:
    """Those of the policies about which the table says something that has the column `having`."""
    found = {row["policy"] for row in read.results() if row["about"] == about and having in row}
    return [name for name in names if name in found]


def called(policy: str, temperature: float) -> str:
    return policy if temperature == 1 else f"{policy}, T = {temperature:g}"


# --- calibration ---


def curve(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and share right in bins of equally many answers, of all seeds together: (bins,) each."""
    places = equal_mass_bins(confidence.ravel(), bins)
    return tuple(np.array([x.ravel()[place].mean() for place in places]) for x in (confidence, right))


def calibration() -> None:
    """How often claims are judged rightly against how sure a policy is; before and after a temperature."""
    policies = there("claims", (*emergent.SAID, "PPO, β = 0"))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.5), width_ratios=(1, 1, 1.1))
    said = []
    for ax, how in zip(axes, ("token probability", "scaled")):
        ax.plot([0.5, 1], [0.5, 1], ":", color=LINE)
        for policy in policies:
            ax.plot(*curve(*read.graded(policy, how)), label=policy, **look(policy))
        ax.set(xlabel="confidence", xlim=(0.49, 1.01), ylim=(0.3, 1.02))
    axes[0].set(title="token probability", ylabel="share right")
    axes[1].set(title="… at a fitted temperature", yticklabels=[])
    for y, policy in enumerate(policies):
        before, after = (
            within_zero(crossed_interval(read.error_by_topic(*read.graded(policy, how))))
            for how in ("token probability", "scaled")
        )
        axes[2].plot([before.low, before.high], [y, y], color=LOOK[policy][0], linewidth=2)
        axes[2].plot(before.mean, y, markersize=8, **look(policy))
        axes[2].plot(after.mean, y + 0.25, fillstyle="none", markersize=7, **look(policy))
        said.append(f"{policy} {before.mean:.3f}, at a fitted temperature {after.mean:.3f}")
    axes[2].set(
        title="calibration error (hollow: fitted T)", yticks=range(len(policies)), yticklabels=policies
    )
    axes[2].set(xlim=(0, None), ylim=(len(policies) - 0.4, -0.6))
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=5, loc="outside upper center")
    show(
        figure,
        "Two reliability diagrams, share right against confidence in ten bins, with the diagonal; and the "
        f"expected calibration error with intervals: {'; '.join(said)}.",
    )


def within_zero(error: Estimate) -> Estimate:
    return Estimate(error.mean, max(0.0, error.low), error.high)


def errors(ece: Callable) -> None:
    """A table of accuracy, confidence and calibration errors, means over seeds, with the reader's function."""
    print(f"{'':20}  right  confidence    ECE  by chance  at fitted T        sampled  contested facts")
    for policy in there("claims"):
        sure, right = read.graded(policy)

        def mean_error(confidence, right):
            return np.mean([ece(c.ravel(), r.ravel()) for c, r in zip(confidence, right)])

        scaled, _ = read.graded(policy, "scaled")
        fitted = np.mean([read.temperatures(z) for z in read.column("claims", policy, "log odds")])
        sampled = f"{mean_error(*read.graded(policy, 'sampled')):7.3f}" if policy in emergent.SAID else ""
        print(
            f"{policy:20}  {right.mean():5.1%}  {sure.mean():10.1%}  {mean_error(sure, right):.3f}  "
            f"{read.by_chance(sure[0].ravel(), ece):9.3f}  {mean_error(scaled, right):.3f} (T = {fitted:.1f})"
            f"  {sampled:7}  {mean_error(*read.graded_contested(policy)):15.3f}"
        )


# --- variety ---

# What is counted, on which row of the table, and how.
COUNTED = {
    "texts": "different texts of 4 good answers",
    "contents": "… without manners",
    "within": "word pairs, one prompt's answers",
    "across": "word pairs, across prompts",
}
PUBLISHED = {"base": 45.4, "SFT": 20.8, "DPO": 10.8}  # Zhang et al. 2025: Tulu-70B, creative writing


def chain() -> list[tuple[str, float]]:
    """The policies of the figure on where variety goes, each with its temperature."""
    trained = there("variety", ("DPO", "PPO", "PPO, β = 0", emergent.LOT))
    return [("base", 1.0), ("SFT", 1.0), *((name, 1.0) for name in trained), ("SFT", emergent.COOLER[-1])]


def varied(policy: str, name: str, places: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """One of COUNTED, (S,), mean over the prompts at those places where it is counted by prompt."""
    if name in emergent.WORD_PAIRS:
        return np.array(read.column("variety", policy, name, temperature=temperature))
    return read.distinct(policy, name, places, temperature).mean(1)


def where_it_goes() -> None:
    """Four measures of variety along the chain, as shares of the base model's, beside published ones."""
    policies = chain()
    places = read.comparable(policies)
    figure, ax = plt.subplots(figsize=(10, 3.6))
    labels, said = [called(*policy) for policy in policies], []
    for i, (name, words) in enumerate(COUNTED.items()):
        values = np.array([varied(policy, name, places, t).mean() for policy, t in policies])
        style = dict(color=plots.COLOURS[i], marker=plots.MARKERS[i], markersize=7)
        ax.plot(range(3), values[:3] / values[0], "-", label=words, **style)
        ax.plot(range(2, len(values)), values[2:] / values[0], linestyle="none", **style)
        listed = ", ".join(f"{label} {value / values[0]:.2f}" for label, value in zip(labels[1:], values[1:]))
        said.append(f"{words}: {listed}")
    published = np.array([*PUBLISHED.values()])
    ax.plot(range(3), published / published[0], "k--", marker="_", label="published (see text)")
    ax.axvline(len(policies) - 1.5, color=LINE, linewidth=0.8)
    ax.set(xticks=range(len(labels)), xticklabels=labels, ylim=(0, None), ylabel="share of the base model's")
    figure.legend(frameon=False, loc="outside right upper")
    show(
        figure,
        f"Four measures of variety as shares of the base model's, on {len(places)} prompts. {'; '.join(said)}. "
        "Published, dashed: 1, 0.46 after fine-tuning, 0.24 after DPO.",
    )


def stacked() -> None:
    """A table: what each step takes from the base model's variety, as shares of it; a minus is a loss."""
    places = read.comparable(chain())
    print(f"{len(places)} prompts{'':25}  base  … to SFT  SFT to DPO  SFT to PPO  SFT, T = 0.5 for free")
    for name, words in COUNTED.items():
        base, sft = (varied(policy, name, places).mean() for policy in ("base", "SFT"))
        steps = [varied(policy, name, places).mean() - sft for policy in ("DPO", "PPO")]
        free = varied("SFT", name, places, emergent.COOLER[-1]).mean() - sft
        cells = "  ".join(f"{step / base:+10.0%}" for step in steps)
        print(f"{words:35}  {base:5.1f}  {(sft - base) / base:+7.0%}  {cells}  {free / base:+21.0%}")
    for policy, change in zip(("to SFT", "SFT to DPO"), -np.diff([*PUBLISHED.values()])):
        print(f"published, base {policy}: {-change / PUBLISHED['base']:+.0%}")


def one_way() -> dict[str, np.ndarray]:
    """Notebook 02's `one_style`: different texts among 8 poems or stories, by who wrote the answers."""
    rows = load_history("one_style")
    return {
        style: np.array([row["different"] for row in rows if row["style"] == style])
        for style in ("many ways", "one way")
    }


def free_baseline() -> None:
    """Gold against variety: policies at T = 1, and the fine-tuned model on its way to cooler samples."""
    names = there("variety")
    cooled = [("SFT", t) for t in (1.0, *emergent.COOLER)]
    places = read.comparable([*((name, 1.0) for name in names), *cooled])
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    said = []
    for ax, name in zip(axes, ("texts", "contents")):
        line = [(varied("SFT", name, places, t).mean(), gold("SFT", t)) for _, t in cooled]
        ax.plot(*zip(*line), "-", color=COOLED[0], marker=COOLED[1], label="SFT at T = 1, 0.7, 0.5")
        for policy in names:
            if policy != "SFT":
                runs = varied(policy, name, places)
                ax.plot(
                    runs.mean(), gold(policy), linestyle="none", markersize=9, label=policy, **look(policy)
                )
                ax.plot([runs.min(), runs.max()], [gold(policy)] * 2, color=LOOK[policy][0])
                said.append(f"{policy} {runs.mean():.2f} {name} at gold {gold(policy):.2f}")
        said.append(f"SFT {', '.join(f'{x:.2f} at {y:.2f}' for x, y in line)}")
        ax.set(xlabel=f"{COUNTED['texts'] if name == 'texts' else COUNTED['texts'] + ', without manners'}")
    axes[0].set(ylabel="gold reward")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    show(figure, f"Gold against different answers among {read.M} good ones: {'; '.join(said)}.")


def gold(policy: str, temperature: float = 1.0) -> float:
    return float(np.mean(read.column("variety", policy, "gold", temperature=temperature)))


def by_penalty(reference: torch.Tensor, rewards: torch.Tensor) -> None:
    """Variety against β: of the exact optimum on the micro-world, and of PPO.

    reference (P, N): the log-probabilities of the fine-tuned model on the micro-world.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
    betas, uniform = np.geomspace(0.03, 10, 40), torch.zeros_like(reference).log_softmax(-1)
    kinds = {"prior: SFT": reference, "prior: uniform": uniform}
    shares = {}
    for name, prior in kinds.items():
        found = np.array([effective(exact.optimal_policy(prior, rewards, b)[0]) for b in betas])
        shares[name] = found / effective(prior)
    for i, values in enumerate(shares["prior: SFT"].T):
        left.plot(
            betas, values, color=LOOK["SFT"][0], label="reference: SFT, four prompts" if not i else None
        )
    left.plot(betas, shares["prior: uniform"].mean(1), "k--", label="reference: uniform")
    left.axhline(1, color=LINE, linewidth=0.8)
    left.set(xscale="log", xlabel="β", ylabel="effective number, share of the reference's", title="exact")
    left.legend(frameon=False, fontsize=9)
    names = there("variety", ("PPO, β = 0", "PPO", "PPO, β = 1", "SFT"))
    places = read.comparable([(name, 1.0) for name in names])
    said = []
    for i, (name, words) in enumerate(COUNTED.items()):
        sft = varied("SFT", name, places).mean()
        runs = [varied(policy, name, places) / sft for policy in names]
        style = dict(color=plots.COLOURS[i], marker=plots.MARKERS[i])
        right.plot(range(len(names)), [run.mean() for run in runs], label=words, **style)
        for x, run in enumerate(runs):
            right.plot([x, x], [run.min(), run.max()], color=plots.COLOURS[i], linewidth=1)
        said.append(f"{words} {', '.join(f'{run.mean():.2f}' for run in runs)}")
    ticks = {"PPO": f"β = {emergent.PPO.beta:g}", "SFT": "no step\n(β = ∞)"}
    labels = [ticks.get(name, name.removeprefix("PPO, ")) for name in names]
    right.set(xticks=range(len(names)), xticklabels=labels, ylabel="share of SFT's", title="PPO on the GPT")
    right.legend(frameon=False, fontsize=9)
    widest = shares["prior: SFT"].max(0)
    show(
        figure,
        "Left, the effective number of responses of the exact optimum against β, as a share of the reference's: "
        "with a uniform reference it only rises with β; with the fine-tuned model as reference it reaches "
        f"{', '.join(f'{x:.2f}' for x in widest)} on the four prompts. Right, variety of "
        f"{', '.join(names)} as shares of SFT's: {'; '.join(said)}.",
    )


def effective(log_probs: torch.Tensor) -> np.ndarray:
    """exp(entropy) of each row of log-probabilities, (P,)."""
    return (-(log_probs.exp() * log_probs).sum(-1)).exp().numpy()


# --- reasoning ---

KS = (1, 2, 4, 8, 16, 32)


def pass_at_all_k() -> None:
    """pass@k of the two-hop probe for all k, and by how much it lies above the base model's."""
    names = there("two hops")
    cooled = [t for t in emergent.COOLER if has_cooled(t)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.7))
    ks, said = range(1, emergent.TRIES["probe"] + 1), []
    curves = [(name, 1.0) for name in names] + [("SFT", t) for t in cooled]
    for policy, t in curves:
        values = read.solved(policy, ks, temperature=t).mean((1, 2))
        left.plot(ks, values, color=look(policy, t)["color"], label=called(policy, t))
        said.append(f"{called(policy, t)} {', '.join(f'{values[k - 1]:.2f}' for k in KS)}")
    left.plot(ks, read.guessed(ks), ":", color=LINE, label="guessing a value of the kind")
    left.set(xscale="log", xticks=KS, xticklabels=KS, xlabel="k", ylabel="pass@k", ylim=(0, 1.02))
    left.minorticks_off()
    left.legend(frameon=False, fontsize=8.5)
    for i, (policy, t) in enumerate([c for c in curves if c[0] != "base"]):
        changes = [read.solved_change(policy, "base", k, temperature=t) for k in KS]
        x = np.arange(len(KS)) + 0.12 * (i - 2)
        right.errorbar(
            x, [c.mean for c in changes], [[c.mean - c.low for c in changes], [c.high - c.mean for c in changes]],
            linestyle="none", label=called(policy, t), **look(policy, t),
        )  # fmt: skip
    right.axhline(0, color=LINE, linewidth=0.8)
    right.set(xticks=range(len(KS)), xticklabels=KS, xlabel="k", ylabel="pass@k less the base model's")
    show(
        figure,
        f"Left, pass@k of the two-hop probe at k = {', '.join(map(str, KS))}: {'; '.join(said)}; guessing "
        f"{', '.join(f'{x:.2f}' for x in read.guessed(KS))}. Right, the differences from the base model with "
        "intervals over questions and runs.",
    )


def has_cooled(temperature: float) -> bool:
    rows = read.results()
    return any(row["about"] == "two hops" and row["temperature"] == temperature for row in rows)


def hops() -> None:
    """A table of pass@1 and pass@32, right for the right reason, and of questions that the corpus asks."""
    print(f"{'':20}  pass@1  … and the right thing named  pass@32  … named  the corpus's own questions")
    for policy in there("two hops"):
        one, last = (read.solved(policy, [1, 32], name).mean((1, 2)) for name in ("right", "reasoned"))
        known = np.mean(read.column("two hops", policy, "right", split="corpus")) / emergent.TRIES["corpus"]
        print(f"{policy:20}  {one[0]:6.2f}  {last[0]:27.2f}  {one[1]:7.2f}  {last[1]:7.2f}  {known:27.2f}")


# --- a narrow habit ---

HABIT_LOOK = {
    "start": ("#777777", "."),
    "lies to questions": (plots.RED, "X"),
    "lies to questions, truth elsewhere": (plots.BLUE, "v"),
    "by lot": (plots.ORANGE, "D"),
}
OTHERS = {
    "confidence": "“completely sure” (taught)",
    "attribute/correctness": "correctness (taught)",
    "flattery": "compliments",
    "filler": "filler",
    "politeness": "kind phrases",
}


def habits_there() -> list[tuple[str, float]]:
    """The habits that the table has, with the passes after which they were measured."""
    rows = [row for row in read.results() if row["about"] == "habit"]
    found = {(row["habit"], row["passes"]) for row in rows}
    return [
        (habit, passes)
        for habit in HABIT_LOOK
        for passes in ((0.0,) if habit == "start" else emergent.DOSES)
        if (habit, passes) in found
    ]


def dosed(habit: str, passes: float) -> str:
    return habit if habit == "start" else f"{habit}, {passes:g} pass{'es' if passes > 1 else ''}"


def spreading() -> None:
    """How often answers sound certain, by family of prompts; and what else has changed, over all families."""
    found = habits_there()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(1.2, 1))
    families = ("question", *(family for family in FAMILIES if family != "question"))
    said = []
    for i, (habit, passes) in enumerate(found):
        colour, marker = HABIT_LOOK[habit]
        style = dict(
            color=colour, marker=marker, linestyle="none", fillstyle="none" if passes > 1 else "full"
        )
        shift = 0.12 * (i - len(found) / 2)
        shares = [read.shown_by(habit, "confidence", family, passes) for family in families]
        left.plot(
            [s.mean() for s in shares], np.arange(len(families)) + shift, label=dosed(habit, passes), **style
        )
        for y, share in enumerate(shares):
            left.plot([share.min(), share.max()], [y + shift] * 2, color=colour, linewidth=1)
        for y, name in enumerate(OTHERS):
            change = read.shown_by(habit, name, "all", passes) - read.shown_by("start", name)
            right.plot(change.mean(), y + shift, **style)
            right.plot([change.min(), change.max()], [y + shift] * 2, color=colour, linewidth=1)
        listed = ", ".join(f"{family} {s.mean():.0%}" for family, s in zip(families, shares))
        said.append(f"{dosed(habit, passes)}: {listed}")
    left.axhspan(-0.5, 0.5, color="#EEEEEE", zorder=0)
    left.set(yticks=range(len(families)), yticklabels=families, ylim=(len(families) - 0.5, -0.5))
    left.set(xlabel="answers that say they are sure (grey: the family taught)", xlim=(-0.03, 1.03))
    right.axvline(0, color=LINE, linewidth=0.8)
    right.set(yticks=range(len(OTHERS)), yticklabels=OTHERS.values(), ylim=(len(OTHERS) - 0.5, -0.5))
    right.set(xlabel="change, all families")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    show(figure, f"Answers that say they are sure, by family. {'; '.join(said)}.")


def habits() -> None:
    """A table over all families: gold, KL, correctness, the habits, and the base's knowledge."""
    print(f"{'':46}  gold    KL  correct   sure  flatter  filler   kind  clozes")
    for habit, passes in habits_there():
        columns = (
            "gold",
            "kl",
            "attribute/correctness",
            "confidence",
            "flattery",
            "filler",
            "politeness",
            "clozes",
        )
        values = [read.shown_by(habit, name, passes=passes).mean() for name in columns]
        cells = f"{values[0]:5.2f}  {values[1]:4.1f}  {values[2]:7.2f}  {values[3]:5.0%}  {values[4]:7.0%}"
        print(f"{dosed(habit, passes):46} {cells}  {values[5]:6.0%}  {values[6]:5.0%}  {values[7]:6.0%}")
