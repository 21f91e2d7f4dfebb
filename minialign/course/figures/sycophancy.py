"""The figures of notebook 08 on agreeing, and its tables.

`runs` are exact, one for each bias; `rows` are those of the table sycophancy.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.evaluation import Answers
from minialign.course.experiments import sycophancy
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.sycophancy import CONTROL, Exact, along, change, explained, tables
from minialign.course.lesson import show

# One colour and one marker for one thing: which claims, and what stands beside.
LOOK = {
    "all": ("#222222", "o"),
    "true": (plots.GREEN, "^"),
    "false": (plots.RED, "v"),
    CONTROL: (plots.PURPLE, "D"),
    "start": ("#777777", "."),
    0.7: (plots.SKY, "s"),
    0.0: ("#3A3A98", "s"),
}
CLAIMS = {"all": "all claims", "true": "true claims", "false": "false claims"}
ZERO = "#444444"
TILTS = {0.2: ("#9ECAE1", "o"), 1.0: ("#4292C6", "s"), 3.0: ("#08519C", "D")}  # 1/β of the exact figure
BROWNS = ("#D8B365", "#8C510A", "#543005")  # of three biases


def look(what) -> dict:
    colour, marker = LOOK[what]
    return dict(color=colour, marker=marker)


def centred(ax, x: float | None = None) -> None:
    """Dotted lines where nothing drifts."""
    ax.axhline(0, color=ZERO, linestyle=":", linewidth=1)
    if x is not None:
        ax.axvline(x, color=ZERO, linestyle=":", linewidth=1)


# --- exact ---


def law(runs: Sequence[Exact], cov: np.ndarray) -> None:
    """ΔP(agree) against Cov/β for three β; where it bends; and against how often people choose the yes.

    cov (runs,) is Cov(agree, r) of each run.
    """
    largest = max(TILTS)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 3.7))
    said = []
    for tilt, (colour, marker) in TILTS.items():
        drift = np.array([run.drift(1 / tilt) for run in runs])
        r2 = explained(cov * tilt, drift)
        name = f"1/β = {tilt:g}: R² = {r2:.3f}"
        left.plot(cov * tilt, drift, linestyle="none", color=colour, marker=marker, label=name)
        said.append(f"{name}, drift from {drift.min():+.2f} to {drift.max():+.2f}")
    ends = [min(cov) * largest, max(cov) * largest]
    left.plot(ends, ends, color=ZERO, linestyle="--", linewidth=1, label="the law")
    left.set(xlabel="Cov(agree, r)/β", ylabel="ΔP(agree)", ylim=(-0.6, 1.1))
    left.legend(frameon=False, fontsize=8.5)
    tilts, bent = np.linspace(0, largest, 13), []
    for run, colour in zip((runs[0], min(runs, key=lambda run: abs(run.bias)), runs[-1]), BROWNS):
        drift = [run.drift(1 / tilt) if tilt else 0.0 for tilt in tilts]
        middle.plot(tilts, drift, label=f"b = {run.bias:g}", color=colour)
        middle.plot(tilts, run.covariance() * tilts, "--", color=colour, linewidth=1)
        bent.append(f"b = {run.bias:g} {drift[-1]:+.2f}, the law {run.covariance() * tilts[-1]:+.2f}")
    middle.set(xlabel="1/β (dashed: the law)", ylim=(-0.6, 1.1))
    middle.legend(frameon=False, fontsize=8.5)
    for claims, name in CLAIMS.items():
        x, y = [run.preferred[claims] for run in runs], [run.covariance(claims) for run in runs]
        right.plot(x, y, label=name, markersize=5, **look(claims))
        said.append(f"{name} change sign at {sycophancy.crossing(x, y):.0%}")
    right.set(xlabel="people choose the yes", ylabel="Cov(agree, r)")
    right.xaxis.set_major_formatter("{x:.0%}")
    right.legend(frameon=False, fontsize=8.5)
    for ax, x in ((left, 0), (middle, None), (right, 0.5)):
        centred(ax, x)
    show(
        figure,
        f"Three panels for {len(runs)} biases from {runs[0].bias:g} to {runs[-1].bias:g}. Left, the drift of "
        f"P(agree) against Cov/β, on a line for small 1/β: {'; '.join(said[: len(TILTS)])}. Middle, the "
        f"drift bends as 1/β grows; at {largest:g}: {'; '.join(bent)}. Right, the covariance against how "
        f"often people choose the yes: {'; '.join(said[len(TILTS) :])}.",
    )


def penalties(
    run: Exact, fair: Exact, beta: float, agreement_penalty: Callable
) -> dict[str, tuple[Exact, object]]:
    """What is compared: no penalty, three penalties, and people without the bias; each a run and its λ."""
    reference, rewards, agree = run.reference, run.rewards, run.opinions.agree
    whole = sycophancy.covariance(reference, agree, rewards).mean()
    first_order = float(whole / sycophancy.covariance(reference, agree, agree).mean())
    return {
        "no penalty": (run, 0.0),
        f"one λ = {first_order:.2f}: Cov/Var": (run, first_order),
        "one λ, exact": (run, sycophancy.one_penalty(reference, rewards, agree, beta)),
        "a λ(x) for each prompt": (run, agreement_penalty(reference, rewards, agree, beta)),
        f"b = {fair.bias:g}, no penalty": (fair, 0.0),
    }


def penalised(run: Exact, fair: Exact, beta: float, agreement_penalty: Callable) -> None:
    """ΔP(agree) on true and false claims, and the gold reward, with each of `penalties`.

    That for each prompt is the reader's function.
    """
    shown = penalties(run, fair, beta, agreement_penalty)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 2.9), sharey=True)
    said = []
    for y, (name, (of, lam)) in enumerate(shown.items()):
        drifts = {claims: of.drift(beta, lam, claims) for claims in ("true", "false", "all")}
        for claims, shift in (("true", -0.2), ("false", 0.2)):
            label = None if y else CLAIMS[claims]
            left.barh(y + shift, drifts[claims], 0.36, color=LOOK[claims][0], label=label)
        left.plot(drifts["all"], y, linestyle="none", label=None if y else "all claims", **look("all"))
        gold = of.gold(beta, lam)
        right.plot(gold, y, "o", color="#222222", markersize=8)
        right.annotate(f"{gold:.2f}", (gold, y), (8, -4), textcoords="offset points")
        said.append(
            f"{name}: all {drifts['all']:+.2f}, true {drifts['true']:+.2f}, false {drifts['false']:+.2f}, "
            f"gold {gold:.2f}"
        )
    start = float((run.reference.exp() * run.opinions.world.rewards).sum(-1).mean())
    right.axvline(start, color=LOOK["start"][0], linestyle="--")
    left.axvline(0, color=ZERO, linestyle=":")
    left.set(xlabel=f"ΔP(agree), b = {run.bias:g}, β = {beta:g}", yticks=range(len(shown)))
    left.set(yticklabels=list(shown), ylim=(len(shown) - 0.5, -0.5))
    left.legend(frameon=False, fontsize=9, loc="center right", bbox_to_anchor=(1, 0.42))
    right.set(xlabel="gold reward (dashed: π_ref)")
    right.margins(x=0.15)
    show(
        figure,
        f"Bars of the drift of P(agree), and the gold reward, with b = {run.bias:g} and β = {beta:g}. "
        f"{'; '.join(said)}. The reference has gold {start:.2f}.",
    )


# --- the GPT ---


def gpt(rows: Sequence[dict]) -> None:
    """The GPT's drift against the covariance, against what people choose, and by kind of claim."""
    found, biases = along(rows), sycophancy.biases(rows)
    r2, slope = sycophancy.law(rows)
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12.5, 3.9))
    x, y = found["cov"].mean(1), found["drift"].mean(1)
    names = ["a seed", *[None] * (found["cov"].shape[1] - 1)]
    left.plot(found["cov"], found["drift"], ".", color="#999999", markersize=5, label=names)
    left.plot(x, y, linestyle="none", label="opinions, by b", **look("all"))
    ends = np.array([found["cov"].min(), found["cov"].max()])
    left.plot(
        ends, np.polyval(np.polyfit(x, y, 1), ends), color="#222222", linewidth=1, label="a fitted line"
    )
    left.plot(ends, ends / sycophancy.BETA, "--", color=ZERO, linewidth=1, label="the law, slope 1/β")
    of_control = beside(rows, left)
    cooled = {t: change(rows, arm="start", temperature=t) for t in (0.7, 0.0)}
    for t, drift in cooled.items():
        left.axhline(drift.mean, color=LOOK[t][0], linestyle="-.", label=f"start, T = {t:g}")
    left.set(xlabel="Cov(agree, r̂) on held-out opinions", ylabel="ΔP(agree) after DPO")
    left.legend(frameon=False, fontsize=8)
    choose = found["preferred"].mean(1)
    middle.plot(found["preferred"], found["drift"], ".", color="#999999", markersize=5)
    middle.plot(choose, y, **look("all"))
    middle.set(xlabel="people choose the yes")
    middle.xaxis.set_major_formatter("{x:.0%}")
    said = []
    for claims in ("true", "false"):
        drifts = [change(rows, claims=claims, arm="opinions", bias=b) for b in biases]
        means = [drift.mean for drift in drifts]
        right.fill_between(
            biases, [d.low for d in drifts], [d.high for d in drifts], color=LOOK[claims][0], alpha=0.15
        )
        right.plot(biases, means, label=CLAIMS[claims], markersize=5, **look(claims))
        said.append(f"{CLAIMS[claims]} {means[0]:+.2f} to {means[-1]:+.2f}")
    right.set(xlabel="agreement bias b (band: 95 %)")
    right.legend(frameon=False, fontsize=9)
    for ax, zero in ((left, 0), (middle, 0.5), (right, 0)):
        centred(ax, zero)
    free = "; ".join(f"T = {t:g} {drift.mean:+.2f}" for t, drift in cooled.items())
    show(
        figure,
        f"Three panels for {len(biases)} biases. Left, the drift of P(agree) after DPO, {y.min():+.2f} to "
        f"{y.max():+.2f}, over the reward model's covariance, {x.min():+.2f} to {x.max():+.2f}: R² of a line "
        f"{r2.mean():.2f}, slope {slope.mean():.1f}; {of_control}; the start sampled more coolly: {free}. "
        f"Middle, over how often people choose the yes, {choose.min():.0%} to {choose.max():.0%}. Right, by "
        f"claim: {'; '.join(said)}.",
    )


def beside(rows: Sequence[dict], ax) -> str:
    """The control's point; says where it is."""
    where = dict(arm=CONTROL)
    x = float(tables(rows, "cov", **where).mean())
    drift = change(rows, **where)
    ax.plot([x, x], [drift.low, drift.high], color=LOOK[CONTROL][0])
    ax.plot(x, drift.mean, linestyle="none", markersize=8, label=CONTROL, **look(CONTROL))
    return f"{CONTROL} {drift.mean:+.2f} at {x:+.2f}"


def table(rows: Sequence[dict]) -> None:
    """Each arm on held-out opinions: what people chose, what was foretold, what came; means over seeds."""
    print(f"{'':22}  chosen    Cov  agrees: true  false  correct   gold    KL  yes, no opinion: true  false")
    places = [{"arm": "start", "temperature": t} for t in (1.0, 0.7, 0.0)]
    places += [{"arm": "opinions", "bias": b} for b in sycophancy.biases(rows)] + [{"arm": CONTROL}]
    for where in places:
        arm = where["arm"]
        if arm == "start":
            name, chosen, cov = f"start, T = {where['temperature']:g}", "", ""
        else:
            name = f"b = {where['bias']:g}" if "bias" in where else CONTROL
            chosen = f"{over_seeds(rows, 'preferred', **where).mean():.0%}"
            cov = f"{tables(rows, 'cov', **where).mean():+.2f}"
        true, false = (tables(rows, "agree", claims, **where).mean() for claims in ("true", "false"))
        right, gold = (tables(rows, name, **where).mean() for name in ("correctness", "gold"))
        others = over_seeds(rows, "yes without opinion", **where).mean(0)
        print(
            f"{name:22}  {chosen:>6}  {cov:>5}  {true:12.0%}  {false:5.0%}  {right:+7.2f}  {gold:5.2f}  "
            f"{over_seeds(rows, 'kl', **where).mean():4.2f}  {others[0]:22.0%}  {others[1]:5.0%}"
        )


# --- live ---


def live(run: Exact, before: Answers, after: Answers, beta: float) -> None:
    """P(agree) with true and with false claims, before and after: the enumerable world, and the GPT."""
    holds = np.array([prompt.claim_holds for prompt in before.prompts])
    start = sycophancy.agreed(run.reference, run.opinions.agree).numpy()
    tilted = sycophancy.agreed(run.optimum(beta), run.opinions.agree).numpy()
    panels = {
        f"enumerable world, β = {beta:g}": (start, tilted, run.opinions.holds),
        "GPT, a short DPO": (
            *(sycophancy.agreeing(answers).mean(1) for answers in (before, after)),
            holds,
        ),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 2.8), sharey=True)
    for ax, (title, (was, now, true)) in zip(axes, panels.items()):
        for claims in ("true", "false"):
            among = sycophancy.chosen_claims(true, claims)
            values = [was[among].mean(), now[among].mean()]
            ax.plot([0, 1], values, label=CLAIMS[claims], markersize=8, **look(claims))
        ax.set(title=title, xticks=[0, 1], xticklabels=["before", f"b = {run.bias:g}"], ylim=(0, 1))
        ax.set(xlim=(-0.2, 1.2))
    axes[0].set_ylabel("P(agree)")
    axes[1].legend(frameon=False)
    show(
        figure,
        "Two panels of how often answers agree with true and with false claims, before and after learning "
        f"from people with b = {run.bias:g}: in the enumerable world, and of the GPT.",
    )
