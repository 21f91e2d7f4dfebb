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
from minialign.statistics import equal_mass_bins
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


def there(about: str, names: Sequence[str] = tuple(LOOK)) -> list[str]:
    """Those of the policies about which the table says something."""
    found = {row["policy"] for row in read.results() if row["about"] == about}
    return [name for name in names if name in found]


def called(policy: str, temperature: float) -> str:
    return policy if temperature == 1 else f"{policy}, T = {temperature:g}"


def listed(values: Sequence[float], form: str = ".2f") -> str:
    return ", ".join(format(value, form) for value in values)


# --- calibration ---


def curve(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean confidence and share right in bins of equally many answers, all seeds together: (bins,) each."""
    places = equal_mass_bins(confidence.ravel(), bins)
    return tuple(np.array([x.ravel()[place].mean() for place in places]) for x in (confidence, right))


def calibration() -> None:
    """How often claims are judged rightly against how sure a policy is; before and after a temperature."""
    policies = there("claims", (*emergent.SAID, "PPO, β = 0"))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), width_ratios=(1, 1, 1.1))
    for ax, how in zip(axes, ("token probability", "scaled")):
        ax.plot([0.5, 1], [0.5, 1], ":", color=LINE)
        for policy in policies:
            ax.plot(*curve(*read.graded(policy, how)), label=policy, **look(policy))
        ax.set(xlabel="confidence", xlim=(0.49, 1.01), ylim=(0.3, 1.02))
    axes[0].set(title="token probability", ylabel="share right")
    axes[1].set(title="… at a fitted temperature", yticklabels=[])
    said = [errors_of(axes[2], policy, y) for y, policy in enumerate(policies)]
    axes[2].set(title="calibration error (hollow: fitted T)", xlim=(0, None))
    axes[2].set(yticks=range(len(policies)), yticklabels=policies, ylim=(len(policies) - 0.4, -0.6))
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=5, loc="outside upper center")
    show(
        figure,
        "Two reliability diagrams, share right against confidence in ten bins, with the diagonal; and the "
        f"expected calibration error with intervals: {'; '.join(said)}.",
    )


def errors_of(ax, policy: str, y: float) -> str:
    """The calibration errors of a policy in a row, with the interval of the first; and in words."""
    before, after = (
        crossed_interval(read.error_by_topic(*read.graded(policy, how)))
        for how in ("token probability", "scaled")
    )
    ax.plot([max(0, before.low), before.high], [y, y], color=LOOK[policy][0], linewidth=2)
    ax.plot(before.mean, y, markersize=8, **look(policy))
    ax.plot(after.mean, y + 0.25, fillstyle="none", markersize=7, **look(policy))
    return f"{policy} {before.mean:.3f}, at a fitted temperature {after.mean:.3f}"


def errors(ece: Callable) -> None:
    """A table of accuracy, confidence and calibration errors, means over seeds, by the reader's function."""

    def mean_error(graded: tuple[np.ndarray, np.ndarray]) -> float:
        return float(np.mean([ece(sure.ravel(), right.ravel()) for sure, right in zip(*graded)]))

    print(f"{'':18}  right  confidence    ECE  by chance  at fitted T      in frames  sampled  contested")
    for policy in there("claims"):
        sure, right = read.graded(policy)
        chance, scaled = read.by_chance(sure[0].ravel(), ece), mean_error(read.graded(policy, "scaled"))
        fitted = np.mean([read.temperatures(odds) for odds in read.column("claims", policy, "log odds")])
        said = f"{mean_error(read.graded(policy, 'sampled')):.3f}" if policy in emergent.SAID else ""
        framed, contested = mean_error(read.graded(policy, "framed")), read.graded_contested(policy)
        print(
            f"{policy:18}  {right.mean():5.1%}  {sure.mean():10.1%}  {mean_error((sure, right)):.3f}"
            f"  {chance:9.3f}  {scaled:.3f} (T = {fitted:3.1f})  {framed:9.3f}  {said:7}"
            f"  {mean_error(contested):9.3f}"
        )


# --- variety ---

# What is counted, and colours that no policy has.
COUNTED = {
    "texts": f"different texts of {read.M} good answers",
    "contents": "… without manners",
    "within": "word pairs, one prompt's answers",
    "across": "word pairs, across prompts",
}
INKS = dict(zip(COUNTED, (("#3A3A98", "o"), ("#8C6239", "s"), ("#1B7837", "d"), ("#B2182B", "^"))))
PUBLISHED = {"base": 45.4, "SFT": 20.8, "DPO": 10.8}  # Zhang et al. 2025: Tulu-70B, its diversity in percent


def chain() -> list[tuple[str, float]]:
    """The policies of the figure on where variety goes, each with its temperature."""
    trained = there("variety", ("DPO", "PPO", "PPO, β = 0", emergent.LOT))
    return [("base", 1.0), ("SFT", 1.0), *((name, 1.0) for name in trained), ("SFT", emergent.COOLER[-1])]


def varied(policy: str, name: str, places: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """One of COUNTED, (S,): a mean over the prompts at those places, where it is counted by prompt."""
    if name in emergent.WORD_PAIRS:
        return np.array(read.column("variety", policy, name, temperature=temperature))
    return read.distinct(policy, name, places, temperature).mean(1)


def gold(policy: str, temperature: float = 1.0) -> float:
    return float(np.mean(read.column("variety", policy, "gold", temperature=temperature)))


def where_it_goes() -> None:
    """Four measures of variety along the chain, as shares of the base model's, beside published ones."""
    policies = chain()
    places = read.comparable(policies)
    figure, ax = plt.subplots(figsize=(10.5, 3.6))
    labels, said = [called(*policy) for policy in policies], []
    for name, words in COUNTED.items():
        values = np.array([varied(policy, name, places, t).mean() for policy, t in policies])
        style = dict(color=INKS[name][0], marker=INKS[name][1], markersize=7)
        ax.plot(range(3), values[:3] / values[0], label=words, **style)
        ax.plot(range(3, len(values)), values[3:] / values[0], linestyle="none", **style)
        of_all = (f"{label} {value / values[0]:.2f}" for label, value in zip(labels[1:], values[1:]))
        said.append(f"{words}: {', '.join(of_all)}")
    published = np.array([*PUBLISHED.values()]) / PUBLISHED["base"]
    ax.plot(range(3), published, "k--", marker="_", label="Zhang et al. 2025: another model and measure")
    ax.axvline(len(policies) - 1.5, color=LINE, linewidth=0.8)
    ax.set(ylim=(0, None), ylabel="share of the base model's", xticks=range(len(labels)))
    ax.set(xticklabels=[label.replace(", ", ",\n") for label in labels])
    figure.legend(frameon=False, loc="outside right upper")
    show(
        figure,
        f"Four measures of variety as shares of the base model's, the first two on {len(places)} prompts. "
        f"{'; '.join(said)}. Published, dashed: {listed(published)}.",
    )


def stacked() -> None:
    """A table: what each step adds to the base model's variety, or takes, as shares of it."""
    places, cool = read.comparable(chain()), emergent.COOLER[-1]
    print(f"{len(places)} prompts{'':26}  base  … to SFT  SFT to DPO  SFT to PPO  SFT to SFT, T = {cool:g}")
    for name, words in COUNTED.items():
        base, sft, dpo, ppo = (varied(policy, name, places).mean() for policy in emergent.SAID)
        steps = np.array([sft - base, dpo - sft, ppo - sft, varied("SFT", name, places, cool).mean() - sft])
        cells = "  ".join(f"{step:+{width}.0%}" for step, width in zip(steps / base, (8, 10, 10, 19)))
        print(f"{words:36}  {base:5.1f}  {cells}")
    to_sft, to_dpo = np.diff([*PUBLISHED.values()]) / PUBLISHED["base"]
    print(f"{'published':36}  {PUBLISHED['base']:5.1f}  {to_sft:+8.0%}  {to_dpo:+10.0%}")


def one_way() -> dict[str, np.ndarray]:
    """Notebook 02's table `one_style`: the share of different texts among 8, by how people wrote, (S,)."""
    rows = load_history("one_style")
    styles = "many ways", "one way"
    return {style: np.array([row["different"] for row in rows if row["style"] == style]) for style in styles}


def free_baseline() -> None:
    """Gold against variety: policies at T = 1, and the fine-tuned model on its way to cooler samples."""
    names, cooled = there("variety"), [("SFT", t) for t in (1.0, *emergent.COOLER)]
    places = read.comparable([*((name, 1.0) for name in names), *cooled])
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), sharey=True)
    said = []
    for ax, name in zip(axes, ("texts", "contents")):
        line = [(varied("SFT", name, places, t).mean(), gold("SFT", t)) for _, t in cooled]
        ax.plot(*zip(*line), color=COOLED[0], marker=COOLED[1], label="SFT, T = 1, 0.7, 0.5")
        said.append(f"{name}: SFT {', '.join(f'{x:.2f} at gold {y:.2f}' for x, y in line)}")
        for policy in (name for name in names if name != "SFT"):
            runs = varied(policy, name, places)
            ax.plot(runs.mean(), gold(policy), linestyle="none", markersize=9, label=policy, **look(policy))
            ax.plot([runs.min(), runs.max()], [gold(policy)] * 2, color=LOOK[policy][0])
            said[-1] += f", {policy} {runs.mean():.2f} at {gold(policy):.2f}"
        ax.set(xlabel=COUNTED["texts"] + (", without manners" if name == "contents" else ""))
    axes[0].set(ylabel="gold reward")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper")
    show(figure, f"Gold against different answers among {read.M} good ones. {'; '.join(said)}.")


def effective(log_probs: torch.Tensor) -> np.ndarray:
    """exp(entropy) of each row of log-probabilities, (P,)."""
    return (-(log_probs.exp() * log_probs).sum(-1)).exp().numpy()


def by_penalty(reference: torch.Tensor, rewards: torch.Tensor) -> None:
    """Variety against β: of the exact optimum on the micro-world, and of PPO.

    reference (P, N): the log-probabilities of the fine-tuned model on the micro-world.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
    betas, uniform = np.geomspace(0.03, 10, 40), torch.zeros_like(reference).log_softmax(-1)
    of_sft, of_uniform = (
        np.array([effective(exact.optimal_policy(start, rewards, beta)[0]) for beta in betas])
        / effective(start)
        for start in (reference, uniform)
    )
    for i, values in enumerate(of_sft.T):
        left.plot(betas, values, color=LOOK["SFT"][0], label="" if i else "reference: SFT, by prompt")
    left.plot(betas, of_uniform.mean(1), "k--", label="reference: uniform")
    left.axhline(1, color=LINE, linewidth=0.8)
    left.set(xscale="log", xlabel="β", ylabel="effective number over the reference's", title="exact optimum")
    left.legend(frameon=False, fontsize=9)
    said = of_ppo(right)
    falls, straight = (np.diff(of_sft, axis=0) < 0).any(0).sum(), (np.diff(of_uniform, axis=0) > 0).all()
    show(
        figure,
        "Left, the effective number of responses of the exact optimum against β, over the reference's. With "
        f"a uniform reference it {'only rises' if straight else 'rises and falls'} with β; with SFT as the "
        f"reference it falls somewhere on {falls} of {of_sft.shape[1]} prompts, and is at most "
        f"{listed(of_sft.max(0))}. Right, variety of PPO over that of SFT. {said}.",
    )


def of_ppo(ax) -> str:
    """Four measures of variety of PPO against β, over those of the fine-tuned model; and in words."""
    names = there("variety", ("PPO, β = 0", "PPO", "PPO, β = 1", "SFT"))
    places, said = read.comparable([(name, 1.0) for name in names]), []
    ticks = {"PPO": f"β = {emergent.PPO.beta:g}", "SFT": "no step\n(β = ∞)"}
    labels = [ticks.get(name, name.removeprefix("PPO, ")) for name in names]
    for name, words in COUNTED.items():
        (ink, marker), sft = INKS[name], varied("SFT", name, places).mean()
        runs = [varied(policy, name, places) / sft for policy in names]
        means = [run.mean() for run in runs]
        ax.plot(range(len(names)), means, color=ink, marker=marker, label=words)
        ax.vlines(range(len(names)), [run.min() for run in runs], [run.max() for run in runs], ink)
        said.append(f"{words}: {listed(means)}")
    ax.set(xticks=range(len(names)), xticklabels=labels, ylabel="over SFT's", title="PPO on the GPT")
    ax.legend(frameon=False, fontsize=9)
    in_words = [label.replace("\n", " ") for label in labels]
    return f"At {', '.join(in_words)}: {'; '.join(said)}"


# --- reasoning ---

KS = (1, 2, 4, 8, 16, 32)


def solvers() -> list[tuple[str, float]]:
    """Who has answered the two-hop probe, each with its temperature."""
    rows = [row for row in read.results() if row["about"] == "two hops"]
    found = {(row["policy"], row["temperature"]) for row in rows}
    everybody = [*((name, 1.0) for name in LOOK), *(("SFT", t) for t in emergent.COOLER)]
    return [solver for solver in everybody if solver in found]


def pass_at_all_k() -> None:
    """pass@k of the two-hop probe for all k, and by how much it lies above the base model's."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    ks, said = np.arange(1, emergent.TRIES["probe"] + 1), []
    for i, (policy, t) in enumerate(solvers()):
        values, colour = read.solved(policy, ks, temperature=t).mean((1, 2)), look(policy, t)["color"]
        left.plot(ks, values, color=colour, label=called(policy, t))
        said.append(f"{called(policy, t)} {listed(values[np.array(KS) - 1])}")
        if policy != "base":
            changes = [read.solved_change(policy, "base", k, temperature=t) for k in KS]
            x, (means, lows, highs) = np.arange(len(KS)) + 0.12 * (i - 3), np.transpose(changes)
            right.plot(x, means, linestyle="none", markersize=5, **look(policy, t))
            right.vlines(x, lows, highs, colour, linewidth=1)
    left.plot(ks, read.guessed(ks), ":", color=LINE, label="guessing a value of the kind")
    left.set(xscale="log", xlabel="k", ylabel="pass@k", ylim=(0, 1.02))
    left.set_xticks(KS, KS)
    left.minorticks_off()
    right.axhline(0, color=LINE, linewidth=0.8)
    right.set(xticks=range(len(KS)), xticklabels=KS, xlabel="k", ylabel="pass@k less the base model's")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, ncols=4, loc="outside upper center")
    show(
        figure,
        f"Left, pass@k of the two-hop probe at k = {', '.join(map(str, KS))}: {'; '.join(said)}; guessing "
        f"{listed(read.guessed(KS))}. Right, the differences from the base model, with intervals over "
        "questions and runs.",
    )


def hops() -> None:
    """A table: pass@1 and pass@32, also where the right thing is named; and questions of the corpus."""
    last = emergent.TRIES["probe"]
    print(f"{'':20}  pass@1  … the thing named  pass@{last}  … the thing named  the corpus's own, pass@1")
    for policy, t in solvers():
        found = {name: read.solved(policy, [1, last], name, t).mean((1, 2)) for name in ("right", "reasoned")}
        cells = "  ".join(f"{found['right'][i]:7.2f}  {found['reasoned'][i]:17.2f}" for i in (0, 1))
        known = ""
        if t == 1:
            counts = read.column("two hops", policy, "right", split="corpus")
            known = f"{np.mean(counts) / emergent.TRIES['corpus']:24.2f}"
        print(f"{called(policy, t):19}  {cells}  {known}")


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
IN_TABLE = ("gold", "kl", *(name for name in OTHERS), "clozes")


def learned() -> list[tuple[str, float]]:
    """The habits that the table has, with the passes after which they were measured."""
    found = {(row["habit"], row["passes"]) for row in read.results() if row["about"] == "habit"}
    return [
        (habit, dose) for habit in HABIT_LOOK for dose in (0.0, *emergent.DOSES) if (habit, dose) in found
    ]


def dosed(habit: str, passes: float) -> str:
    return habit if not passes else f"{habit}, {passes:g} pass{'es' if passes > 1 else ''}"


def spreading() -> None:
    """How often answers sound certain, by family of prompts; and what else has changed, over all families."""
    families = (*emergent.NARROW, *(family for family in FAMILIES if family not in emergent.NARROW))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1.2, 1))
    said = []
    for i, (habit, passes) in enumerate(learned()):
        colour, marker = HABIT_LOOK[habit]
        style = dict(color=colour, marker=marker, fillstyle="none" if passes > 1 else "full")
        shift = 0.11 * (i - 3)
        shares = [read.shown_by(habit, "confidence", family, passes) for family in families]
        in_rows(left, shares, shift, label=dosed(habit, passes), **style)
        changes = [
            read.shown_by(habit, name, "all", passes) - read.shown_by("start", name).mean() for name in OTHERS
        ]
        in_rows(right, changes, shift, **style)
        by_family = (f"{family} {share.mean():.0%}" for family, share in zip(families, shares))
        said.append(f"{dosed(habit, passes)}: {', '.join(by_family)}")
    left.axhspan(-0.5, 0.5, color="#EEEEEE", zorder=0)
    names = ["claims" if family == "truth" else family for family in families]
    left.set(yticks=range(len(families)), yticklabels=names, ylim=(len(families) - 0.5, -0.5))
    left.set(xlabel="answers that say they are sure (grey: the family taught)", xlim=(-0.03, 1.03))
    right.axvline(0, color=LINE, linewidth=0.8)
    right.set(yticks=range(len(OTHERS)), yticklabels=OTHERS.values(), ylim=(len(OTHERS) - 0.5, -0.5))
    right.set(xlabel="change from the start, all families")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, ncols=3, loc="outside upper center")
    show(figure, f"Answers that say they are sure, by family. {'; '.join(said)}.")


def in_rows(ax, values: Sequence[np.ndarray], shift: float, label: str = "", **style) -> None:
    """A mark for the mean of each of some values (S,), one below the other, and a stroke for their range."""
    rows = np.arange(len(values)) + shift
    ax.plot([of_one.mean() for of_one in values], rows, linestyle="none", label=label, **style)
    ax.hlines(rows, [of_one.min() for of_one in values], [of_one.max() for of_one in values], style["color"])


def habits() -> None:
    """A table over all families: gold, KL, what was taught, other habits, and the base's knowledge."""
    print(f"{'':46}  gold    KL   sure  correct  flatter  filler   kind  clozes")
    for habit, passes in learned():
        found = [read.shown_by(habit, name, passes=passes).mean() for name in IN_TABLE]
        cells = f"{found[0]:4.2f}  {found[1]:4.1f}  {found[2]:5.0%}  {found[3]:7.2f}  {found[4]:7.0%}"
        print(f"{dosed(habit, passes):46}  {cells}  {found[5]:6.0%}  {found[6]:5.0%}  {found[7]:6.0%}")
