"""The figures of notebook 07, and its tables."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.experiments import SEEDS, race, race_costs, race_labels, race_methods, race_tuning
from minialign.course.lesson import show
from minialign.statistics import Estimate, mean_with_interval

# One colour and one marker for one entry, through the notebook.
LOOK = {
    "SFT": ("#777777", "."),
    "SFT, cooler": (plots.SKY, "s"),
    "SFT on chosen": (plots.ORANGE, "D"),
    "best-of-n": (plots.GREEN, "^"),
    "PPO": (plots.BLUE, "v"),
    "GRPO": (plots.PURPLE, "p"),
    "DPO": (plots.RED, "X"),
    "online DPO": ("#222222", "o"),
    "online DPO, sampled labels": ("#8C6239", "P"),
}
ENTRIES = tuple(name for name in LOOK if name != "SFT")
TRAINED = tuple(name for name in ENTRIES if name in race_methods.METHODS)
START = "#444444"  # a line for what the start has
T = (1.0, 0.7, 0.0)


def look(entry: str) -> dict:
    colour, marker = LOOK[entry]
    return dict(color=colour, marker=marker)


def named(entries: Sequence[str]) -> list[str]:
    """Labels of entries that fit beside a row."""
    return [entry.replace(", sampled", ",\nsampled") for entry in entries]


def listed(values: Mapping[str, float], form: str = ".2f") -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def mean_end(entry: str, name: str = "gold", temperature: float | None = None) -> float:
    """The mean over seeds at the end of an entry's race, at its own temperature where none is said."""
    at = race.temperature_of(entry) if temperature is None else temperature
    return float(race.ends(entry, name)[at].mean())


def mean_course(entry: str, name: str) -> np.ndarray:
    return race.course(entry, name)[1].mean(1)


# --- what was tuned ---


def settings(choose) -> None:
    """A table of what `choose(golds, errors, KLs)` takes of each entry's last round."""
    print(f"{'':26}  gold  error    KL  of the time  tied  setting")
    for entry in ENTRIES:
        rows = race_tuning.last_round(entry)
        row = rows[choose(*(np.array([row[name] for row in rows]) for name in ("gold", "error", "kl")))]
        print(f"{entry:26}  {row['gold']:.2f}  {row['error']:5.2f}  {row['kl']:4.2f}", end="")
        print(f"  {row['share']:11.0%}  {len(race_tuning.tied(entry)):4}  {race_tuning.in_words(row)}")


# --- the live run ---


def live(rows: Sequence[Sequence[float]]) -> None:
    """A live run of online DPO: loss, the reward model's score of its samples, and how far it has gone."""
    titles = ("loss", "score of its samples", "KL from the start, nats")
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.4))
    for ax, values, title in zip(axes, np.transpose(rows), titles):
        ax.plot(range(1, len(values) + 1), values, markersize=5, **look("online DPO"))
        ax.set(title=title, xlabel="update", xticks=range(1, len(values) + 1, 3))
    axes[0].axhline(np.log(2), color=START, linestyle=":")
    show(
        figure,
        f"Three curves over {len(rows)} updates: the loss, which begins at ln 2, where a dotted line is; the "
        "reward model's score of the samples; and the KL from the start, which begins at 0.",
    )


# --- who wins ---


def won(ax, rates: Mapping[str, Estimate], shift: float = 0.0, fill: str = "full") -> None:
    """Win rates with their intervals, a row for each entry."""
    for y, (entry, rate) in enumerate(rates.items()):
        colour = LOOK[entry][0]
        ax.plot([rate.low, rate.high], [y + shift] * 2, color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(rate.mean, y + shift, markersize=8, linestyle="none", fillstyle=fill, **look(entry))
    ax.axvline(0.5, color=START, linestyle=":")
    ax.set(yticks=range(len(rates)), yticklabels=named([*rates]), ylim=(len(rates) - 0.5, -0.5))


def results() -> None:
    """Win rates over the start at T = 1, and the gold of three seeds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), sharey=True)
    rates = {entry: race.over(entry, "SFT")["all"] for entry in ENTRIES}
    won(left, rates)
    golds = {entry: race.ends(entry)[race.temperature_of(entry)] for entry in ENTRIES}
    for y, (entry, values) in enumerate(golds.items()):
        right.plot(values.mean(), y, markersize=8, **look(entry))
        right.plot(values, [y + 0.3] * len(values), "|", color=LOOK[entry][0], markersize=7)
    right.axvline(mean_end("SFT"), color=LOOK["SFT"][0], linestyle="--")
    left.set(xlabel="win rate over SFT at T = 1 (95 %, prompts and seeds)")
    right.set(xlabel=f"gold reward (strokes: {len(SEEDS)} seeds; dashed: SFT at T = 1)")
    show(
        figure,
        f"Left, win rates over SFT at T = 1 with intervals: "
        f"{listed({e: rate.mean for e, rate in rates.items()})}; the lowest end of an interval is "
        f"{min(rate.low for rate in rates.values()):.2f}. Right, gold at T = 1, SFT, cooler at "
        f"{race.temperature_of('SFT, cooler'):g}: {listed({e: v.mean() for e, v in golds.items()})}; SFT has "
        f"{mean_end('SFT'):.2f}.",
    )


def table() -> None:
    """The entries at T = 1: words, KL, and win rates over SFT and over SFT, cooler."""
    print(
        f"{'':26}  words    KL  over SFT             … at equal length    over SFT, cooler     … equal length"
    )
    for entry in ("SFT", *ENTRIES):
        words, kl = mean_end(entry, "words"), mean_end(entry, "kl")
        cells = ""
        for theirs in ("SFT", "SFT, cooler"):
            rates = race.over(entry, theirs) if entry not in ("SFT", theirs) else {}
            cells += "".join(f"{rates.get(name, '')!s:21}" for name in ("all", "equal length"))
        print(f"{entry:26}  {words:5.0f}  {kl:4.2f}  {cells}".rstrip())


# --- what did it measure ---


def temperatures() -> None:
    """Gold at three temperatures, and the win rate over the start sampled as warm."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
    said = []
    for entry in ("SFT", *TRAINED):
        golds = {t: values.mean() for t, values in race.ends(entry).items()}
        left.plot([*golds], [*golds.values()], label=entry, **look(entry), linewidth=1 + 2 * (entry == "SFT"))
        said.append(f"{entry} " + ", ".join(f"{value:.2f}" for value in golds.values()))
    cooler = race.temperature_of("SFT, cooler")
    left.plot(cooler, mean_end("SFT, cooler"), linestyle="none", label="SFT, cooler", **look("SFT, cooler"))
    won_at = {}
    for entry in TRAINED:
        rates = {t: race.win_rates(entry, "SFT", t)["all"].mean for t in race.ends(entry)}
        right.plot([*rates], [*rates.values()], **look(entry))
        won_at[entry] = " and ".join(f"{rates[t]:.2f}" for t in (1.0, 0.0))
    right.axhline(0.5, color=START, linestyle=":")
    for ax, title in ((left, "gold reward"), (right, "win rate over SFT at the same temperature")):
        ax.set(xlabel="temperature of the samples", title=title, xlim=(1.05, -0.05), xticks=[1, 0.7, 0.5, 0])
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside right upper", fontsize=9)
    show(
        figure,
        f"Left, gold at T = 1, 0.7 and 0; all rise: {'; '.join(said)}. Right, win rates over SFT sampled "
        f"alike, at T = 1 and 0: {listed(won_at, '')}.",
    )


def with_a_sentence(kind: Mapping[float, Mapping[str, float]]) -> None:
    """Leads in gold over the start: what a sentence behind its answers adds, and those of the trained."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), sharex=True, sharey=True)
    said = []
    for ax, t in zip(axes, (1.0, 0.0)):
        start = mean_end("SFT", temperature=t)
        trained = ("PPO", "GRPO", "DPO", "online DPO")
        leads = kind[t] | {entry: mean_end(entry, temperature=t) - start for entry in trained}
        for y, (name, lead) in enumerate(leads.items()):
            free = name in kind[t]
            colour = LOOK["SFT" if free else name][0]
            bar = ax.barh(y, lead, 0.6, color=colour, hatch="//" * free, edgecolor="white")
            ax.bar_label(bar, [f"{lead:.2f}"], padding=3)
        labels = [f"SFT and {name}" if name == "the sentence" else name for name in leads]
        ax.axvline(max(kind[t].values()), color=START, linestyle=":")
        ax.set(yticks=range(len(leads)), yticklabels=labels, xlabel=f"gold over SFT's, all at T = {t:g}")
        said.append(f"at T = {t:g}: {listed(leads)}")
    axes[0].invert_yaxis()
    show(figure, f"Bars of the lead in gold over SFT, sampled alike. {'; '.join(said)}.")


def families() -> None:
    """Win rates over SFT, cooler: all, at equal length, and by family of prompts."""
    entries = [entry for entry in ENTRIES if entry != "SFT, cooler"]
    rates = {entry: race.over(entry, "SFT, cooler") for entry in entries}
    names = [name for name in rates["DPO"] if name not in ("all", "equal length")]
    grid = np.array([[rates[entry][name].mean for name in names] for entry in entries])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), width_ratios=(1, 1.5), sharey=True)
    won(left, {entry: rates[entry]["all"] for entry in entries}, -0.15)
    won(left, {entry: rates[entry]["equal length"] for entry in entries}, 0.2, "none")
    left.set(xlabel="win rate over SFT, cooler: all ●, at equal length ○")
    right.imshow(grid, cmap="RdBu", vmin=0.2, vmax=0.8, aspect="auto")
    for y, entry in enumerate(entries):
        for x, name in enumerate(names):
            rate = rates[entry][name]
            sure = rate.low > 0.5 or rate.high < 0.5
            weight = "bold" if sure else "normal"
            right.text(x, y, f"{rate.mean:.2f}", ha="center", va="center", fontsize=9, fontweight=weight)
    right.set(xticks=range(len(names)), xticklabels=names, title="by family (bold: interval without ½)")
    right.spines[:].set_visible(False)
    right.tick_params(length=0)
    equal = listed({entry: rates[entry]["equal length"].mean for entry in entries})
    worst, best = (
        max(names, key=lambda name, s=s: s * np.mean([rates[e][name].mean for e in TRAINED])) for s in (-1, 1)
    )
    show(
        figure,
        f"Win rates over SFT, cooler. Left: {listed({e: rates[e]['all'].mean for e in entries})}; at equal "
        f"length {equal}. Right, a heat map by family of prompts. On average over those that are trained "
        f"{worst} is lowest ({listed({e: rates[e][worst].mean for e in TRAINED})}) and {best} highest "
        f"({listed({e: rates[e][best].mean for e in TRAINED})}).",
    )


PAIRS = (
    *(("DPO", "PPO"), ("GRPO", "PPO"), ("best-of-n", "DPO"), ("best-of-n", "PPO")),
    *(("online DPO", "DPO"), ("online DPO", "PPO"), ("PPO", "SFT on chosen")),
)


def pairs() -> None:
    """A table of entries against each other at T = 1."""
    families = [name for name in race.over("DPO", "PPO") if name not in ("all", "equal length")]
    print(f"{'win rates at T = 1':26}{'all':20}{'equal length':20}" + "".join(f"{f:>9}" for f in families))
    for ours, theirs in PAIRS:
        rates = race.over(ours, theirs)
        means = "".join(f"{rates[family].mean:9.2f}" for family in families)
        print(f"{ours + ' over ' + theirs:26}{rates['all']!s:20}{rates['equal length']!s:20}{means}")


def judges() -> None:
    """What the race's own reward models say of the entries, beside the gold: lowest score first."""
    scores = {entry: (mean_end(entry, "reward"), mean_end(entry)) for entry in LOOK}
    print(f"{'':26}  score of the reward model   gold")
    for entry, (score, gold) in sorted(scores.items(), key=lambda item: item[1]):
        print(f"{entry:26}  {score:25.2f}  {gold:5.2f}")


def measured(rows: Sequence[dict]) -> None:
    """A table of what `evaluation.comparison` finds."""
    shown = "win rate, same temperature", "win rate, T=1", "equal-length win rate, T=1"
    print(f"{'':17}   T  {'gold':20}{'over SFT at the same T':24}{'over SFT at T = 1':24}… at equal length")
    for row in rows:
        rates = "".join(f"{row.get(name, '')!s:24}" for name in shown)
        print(f"{row['policy']:17} {row['temperature']:3g}  {row['gold']!s:20}{rates}".rstrip())


# --- at what KL ---


def frontiers(on_it: np.ndarray) -> None:
    """Gold against √KL: all trials, with those that are `on_it` joined, and the race itself."""
    rows = all_trials()
    kls, gains = (np.array([of(row) for row in rows]) for of in (lambda row: row["kl"], race.gained))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8))
    for entry in ENTRIES:
        of_it = np.array([row["method"] == entry for row in rows])
        points = np.sqrt(kls[of_it]), gains[of_it]
        left.plot(*points, linestyle="none", markersize=5, alpha=0.65, label=entry, **look(entry))
        if entry in TRAINED:
            right.plot(np.sqrt(mean_course(entry, "kl")), mean_course(entry, "gold"), **look(entry))
    order = np.argsort(kls[on_it])
    left.plot(np.sqrt(kls[on_it][order]), gains[on_it][order], color=START, linewidth=1, label="frontier")
    left.axhline(0, color=LOOK["SFT"][0], linestyle=":")
    cool = [("SFT", 1.0), ("SFT", 0.7), ("SFT, cooler", race.temperature_of("SFT, cooler")), ("SFT", 0.0)]
    untrained = {"SFT, cooler": cool, "best-of-n": [("best-of-n", 1.0)]}
    for entry, points in untrained.items():
        kl, gold = ([mean_end(e, name, t) for e, t in points] for name in ("kl", "gold"))
        right.plot(np.sqrt(kl), gold, **look(entry))
    left.set(title="all trials, prompts for tuning", ylabel="gold over the start's, same prompts")
    right.set(title="the race, held-out prompts, mean of three seeds", ylabel="gold reward")
    for ax in (left, right):
        ax.set(xlabel="√KL from the start")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside right upper")
    ends = ", ".join(f"{e} {mean_end(e):.2f} at {mean_end(e, 'kl') ** 0.5:.1f}" for e in ENTRIES)
    on = [rows[i]["method"] for i in np.flatnonzero(on_it)]
    most = max(dict.fromkeys(on), key=on.count)
    show(
        figure,
        f"Gold against the square root of the KL. Left, {len(rows)} trials over the start: the highest has "
        f"{gains.max():+.2f}, the lowest {gains.min():+.2f}, at {np.sqrt(kls[gains.argmin()]):.1f}; of the "
        f"{len(on)} on the frontier {on.count(most)} are of {most}. Right, the race: all begin at "
        f"{mean_end('SFT'):.2f} and end so: {ends}; the start sampled greedily has "
        f"{mean_end('SFT', temperature=0.0):.2f} at {mean_end('SFT', 'kl', 0.0) ** 0.5:.1f}.",
    )


def all_trials() -> list[dict]:
    """The trials of all entries of the race, whatever their round and length."""
    return [row for row in race_tuning.tuning() if row["method"] in ENTRIES]


def on_the_frontier(on_it: np.ndarray) -> None:
    """A table of the trials that are on the frontier, by KL."""
    rows = [row for row, on in zip(all_trials(), on_it) if on]
    for row in sorted(rows, key=lambda row: row["kl"]):
        setting = f"{row['method']}: {race_tuning.in_words(row)}, {row['share']:.0%} of the time"
        print(f"KL {row['kl']:5.2f}  gold {race.gained(row):+.2f}  {setting}")


# --- what it costs ---


def costs() -> None:
    """A table of what each entry's training took, to where its tuning stopped it."""
    print(f"{'':26}  seconds  tied settings' seconds  TFLOP  peak MB  networks held")
    for entry in ENTRIES:
        share = race_tuning.chosen(entry)["share"]
        flops = sum(race_costs.spent("flops", entry, share).values()) / 1e12
        tied = [race_costs.seconds(entry, row["share"]) for row in race_tuning.tied(entry)]
        span = f"{min(tied):.0f} to {max(tied):.0f}"
        print(f"{entry:26}  {race_costs.seconds(entry):7.0f}  {span:>22}  {flops:5.1f}", end="")
        print(f"  {race_costs.peak(entry):7.0f}  {race_costs.HELD[entry]}")


def clock(target: float) -> None:
    """Gold against seconds of training, and where the settings stop that tie with the chosen one."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 3.6), width_ratios=(1.5, 1), sharex=True)
    said = []
    for entry in ENTRIES:
        if entry in TRAINED:
            seconds, golds = race_costs.raced(entry)
            left.plot(seconds, golds.mean(1), label=entry, **look(entry))
        else:
            seconds = [race_costs.seconds(entry)]
            left.plot(seconds, mean_end(entry), linestyle="none", label=entry, markersize=10, **look(entry))
        said.append(f"{entry} {mean_end(entry):.2f} at {seconds[-1]:.0f} s")
        rows = race_tuning.tied(entry)
        of_tied = (
            [race_costs.seconds(entry, row["share"]) for row in rows],
            [race.gained(row) for row in rows],
        )
        right.plot(*of_tied, linestyle="none", fillstyle="none", **look(entry))
        best = race_tuning.chosen(entry)
        right.plot(race_costs.seconds(entry), race.gained(best), linestyle="none", **look(entry))
    left.axhline(target, color=LOOK["SFT, cooler"][0], linestyle=":")
    begin = race_costs.seconds("best-of-n")
    left.axvline(begin, color=START, linestyle=":")
    left.text(begin - 6, left.get_ylim()[1], "the reward model\nis trained", ha="right", va="top", fontsize=9)
    left.set(xlabel="seconds, the reward model's training included", ylabel="gold reward, held-out prompts")
    right.set(xlabel="seconds", ylabel="gold over the start's", title="all settings that tie ○, the chosen ●")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside right upper")
    spans = {e: [race_costs.seconds(e, row["share"]) for row in race_tuning.tied(e)] for e in ("PPO", "DPO")}
    show(
        figure,
        f"Left, gold against seconds, to where each stops: {', '.join(said)}; a dotted line is at what SFT, "
        f"cooler has. Those with a reward model begin when it is trained, after {begin:.0f} s, where another "
        "dotted line is. Right, gold and seconds of all settings that tie with the best one of their entry, "
        f"on the prompts for tuning: PPO's take {min(spans['PPO']):.0f} to {max(spans['PPO']):.0f} s, DPO's "
        f"{min(spans['DPO']):.0f} to {max(spans['DPO']):.0f} s.",
    )


# --- how much tuning ---

SHOWN = tuple(entry for entry in TRAINED if entry != "SFT on chosen")


LOOKS = {  # (round, share of the time): which settings are compared, and when
    (0, 1 / 3): "eight settings after a third",
    (1, 2 / 3): "three after two thirds",
    (1, 1.0): "three at the end",
}


def spread(entry: str, number: int, share: float) -> np.ndarray:
    """Gold over the start's, of all settings of a round after a share of the time."""
    return np.array([race.gained(row) for row in race_tuning.trials_at(entry, number, share)])


def tuning() -> None:
    """Gold of every setting against the length of training, a panel for each entry."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(12, 3), sharey=True)
    shares, said = (1 / 3, 2 / 3, 1.0), []
    for ax, entry in zip(axes, SHOWN):
        eight = spread(entry, 0, 1 / 3)
        dots = dict(linestyle="none", fillstyle="none", markersize=5)
        ax.plot([1 / 3 - 0.05] * len(eight), eight, **dots, **look(entry))
        found = np.array([spread(entry, 1, share) for share in shares])
        ax.plot([0, *shares], np.vstack([np.zeros(found.shape[1]), found]), **look(entry), markersize=5)
        ax.axhline(0, color=START, linestyle=":")
        ax.set(title=entry.replace(", ", ",\n"), xticks=[0, *shares], xticklabels=["0", "⅓", "⅔", "1"])
        ends = ", ".join(f"{value:+.2f}" for value in found[-1])
        said.append(f"{entry}: {eight.min():+.2f} to {eight.max():+.2f}, at the end {ends}")
    axes[0].set(ylabel="gold over the start's")
    figure.supxlabel(
        "share of the time: eight settings after ⅓ (○), the three that went on (lines)", fontsize=10
    )
    show(
        figure,
        "A panel for each entry, gold over the start's against the length of training. Of the eight settings "
        f"after a third of the time, and of the three that went on: {'; '.join(said)}.",
    )


def sensitivity() -> None:
    """A table: how far settings lie apart after the same length of training, and what one knob moves."""
    print(f"{'':26}  {'best − worst gold':36}  mean change by one step, after ⅓")
    print(f"{'':26}  eight, ⅓   three: ⅓     ⅔     1       β    learning rate    above the start, ⅓")
    for entry in SHOWN:
        eight = race_tuning.trials_at(entry, 0, 1 / 3)
        spans = [np.ptp(spread(entry, 1, share)) for share in (1 / 3, 2 / 3, 1.0)]
        moves = [race_tuning.sensitivity(entry, knob) for knob in ("beta", "learning_rate")]
        sure = sum(race.gained(row) > 2 * row["error"] for row in eight)
        print(f"{entry:26}  {np.ptp(spread(entry, 0, 1 / 3)):8.2f}  {spans[0]:9.2f} {spans[1]:5.2f}", end="")
        print(f" {spans[2]:5.2f}  {moves[0]:6.2f}  {moves[1]:15.2f}  {sure:11} of {len(eight)}")


# --- what goes wrong ---


def conclusions() -> None:
    """Five sentences, each with a slip; the numbers are those of the tables."""
    imitated, ahead = race.over("SFT on chosen", "SFT")["all"], race.over("best-of-n", "DPO")["all"]
    pair = [np.concatenate(race.judged(entry), axis=1) for entry in ("DPO", "SFT")]
    won = (np.sign(pair[0][:, :, None] - pair[1][:, None, :]) + 1) / 2
    naive = mean_with_interval(won.ravel())
    gains = {entry: spread(entry, 0, 1 / 3).max() for entry in ("DPO", "PPO")}
    scores = {entry: mean_end(entry, "reward") for entry in ("PPO", "DPO")}
    print(f"A. “Imitation works: SFT on chosen beats SFT, {imitated}.”")
    print(f"B. “DPO beats SFT in {naive} of {won.size:,} comparisons.”")
    print(f"C. “The best of eight settings of DPO gains {gains['DPO']:.2f} gold, of PPO {gains['PPO']:.2f}.”")
    print(f"D. “PPO is better: the reward model gives it {scores['PPO']:.2f}, and DPO {scores['DPO']:.2f}.”")
    print(f"E. “Whatever one asks, best-of-n is a little ahead of DPO: {ahead}.”")


# --- more labels, and fresh ones ---

ARMS = ("PPO", "PPO, all labels", race.AS_SHIPPED, "DPO", "DPO, all labels")
LINES = {"PPO, all labels": "--", "DPO, all labels": "--", race.AS_SHIPPED: ":"}


def more_labels() -> None:
    """The controls that had all labels, beside PPO and DPO: gold against √KL, and by temperature."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2), sharey=True)
    ends = {}
    for arm in ARMS:
        fill = "full" if arm in LOOK else "none"
        style = dict(linestyle=LINES.get(arm, "-"), fillstyle=fill, **look(arm.split(",")[0]))
        left.plot(np.sqrt(mean_course(arm, "kl")), mean_course(arm, "gold"), label=arm, **style)
        golds = {t: values.mean() for t, values in race.ends(arm).items()}
        right.plot([*golds], [*golds.values()], **style)
        ends[arm] = ", ".join(f"{value:.2f}" for value in golds.values())
    free = {t: values.mean() for t, values in race.ends("SFT").items()}
    right.plot([*free], [*free.values()], color=LOOK["SFT"][0], label="SFT")
    left.axhline(free[1.0], color=LOOK["SFT"][0])
    left.set(xlabel="√KL from the start, T = 1", ylabel="gold reward", title="on the way")
    right.set(xlabel="temperature", xlim=(1.05, -0.05), xticks=T, title="at the end")
    figure.legend(frameon=False, loc="outside right upper")
    show(
        figure,
        "Left, gold against the square root of the KL at T = 1. Right, gold at the end at T = 1, 0.7 and 0: "
        f"{listed(ends, '')}; SFT {', '.join(f'{value:.2f}' for value in free.values())}.",
    )


def controls() -> None:
    """A table of the controls at T = 1: gold by seed, flattery (also greedily), KL, and win rates."""
    print(f"{'':16}  {'gold by seed':16}  flatter  at T = 0    KL  over SFT             over DPO")
    for arm in ARMS:
        golds, kl = race.ends(arm)[1.0], race.ends(arm, "kl")[1.0].mean()
        flatter = {t: values.mean() for t, values in race.ends(arm, "flattery").items()}
        rates = [race.win_rates(arm, theirs)["all"] if arm != theirs else "" for theirs in ("SFT", "DPO")]
        print(f"{arm:16}  {' '.join(f'{g:.2f}' for g in golds):16}  {flatter[1.0]:7.0%}", end="")
        print(f"  {flatter[0.0]:8.0%}  {kl:4.1f}  " + "".join(f"{rate!s:21}" for rate in rates).rstrip())


# The arms that buy labels are all DPO; their colours are those of DPO and of online DPO.
BUYERS = {
    "at once": dict(linestyle="-", fillstyle="full", **look("DPO")),
    "in rounds": dict(linestyle="--", fillstyle="none", **look("DPO")),
    "in rounds, own samples": dict(linestyle="--", fillstyle="none", **look("online DPO")),
    "online": dict(linestyle="-", fillstyle="full", **look("online DPO")),
}


def fresh_labels() -> None:
    """Gold against labels bought, and against √KL, of four ways to spend them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.3), sharey=True)
    said = {}
    for arm in race_labels.ARMS:
        golds, labels, kls = (race_labels.on_the_way(arm, name) for name in ("gold", "labels", "kl"))
        left.plot(labels.mean(1), golds.mean(1), label=arm, **BUYERS[arm])
        left.plot(labels.mean(1), golds, "_", color=BUYERS[arm]["color"])
        right.plot(np.sqrt(kls.mean(1)), golds.mean(1), **BUYERS[arm])
        said[arm] = f"{golds[-1].mean():.2f} at {kls[-1].mean() ** 0.5:.1f}"
    for ax in (left, right):
        ax.axhline(mean_end("SFT"), color=LOOK["SFT"][0], linestyle=":")
    left.set(xlabel="labels bought (strokes: seeds)", ylabel="gold reward, T = 1")
    right.set(xlabel="√KL from the start")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside right upper")
    all_of_them = race_labels.on_the_way("at once", "labels").mean(1)[-1]
    show(
        figure,
        f"Left, gold at T = 1 against labels bought, up to {all_of_them:,.0f}. Right, the same against the "
        f"square root of the KL. At the end gold, and the root of the KL: {listed(said, '')}; SFT has "
        f"{mean_end('SFT'):.2f}.",
    )


def labellers() -> None:
    """A table: online DPO by β and rate after a third of the time, with two sorts of labels."""
    for entry in ("online DPO", "online DPO, sampled labels"):
        print(entry)
        for rate in race_methods.RATES:
            rows = [row for row in race_tuning.trials_at(entry, 0, 1 / 3) if row["learning_rate"] == rate]
            cells = "   ".join(f"β {row['beta']:g}: {row['gold']:.2f} ({row['kl']:.1f})" for row in rows)
            print(f"    learning rate {rate:g}:  {cells}")
