"""Notebook 08: what people feel when they read an answer, and what it is worth to them later.

*Now* is what the course's people feel at once: they take every statement for right, and like compliments,
filler, certainty and agreement. *Later* is the gold reward, when it has turned out what was right. Policies
are trained by DPO on labels for the same responses, given by people who differ in one thing at a time.

That the two differ, and by what, is built in: facts, and tastes. Measured is how much of it comes through
noisy labels into a policy, and who prevents it. After Liang et al. 2025 (RLHS).
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from minialign import dpo
from minialign.bootstrap import bootstrap_difference
from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import SEEDS, Part, dishonesty, held_out_prompts
from minialign.course.experiments.comparisons import crowd, preferences, relabelled, updates
from minialign.course.experiments.direct_preference import CONSTANT
from minialign.course.experiments.measuring import in_means, kl_from, over_seeds, row_of
from minialign.course.experiments.race_methods import few_labels
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.statistics import Estimate, measured
from minialign.training import stop_if_interrupted
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import judge, weighted_sum
from minialign.world.prompts import Prompt

# Who labels: the course's crowd with these knobs turned.
PEOPLE = {
    "immediate": dict(horizon="immediate"),
    "typical": {},  # the course's people check seven facts of ten
    "hindsight": dict(checks_facts=1.0),  # the same tastes, and they know what came of the answer
    "no tastes": dishonesty.CHECKING,  # what they feel at once is what it is worth
}
# Who labels which pairs: all, or those where what is worth more now is worth more later, or worth less.
ARMS = {
    **{name: (name, "all") for name in PEOPLE},
    "immediate, agreeing": ("immediate", "agreeing"),
    "half in a hurry": ("half in a hurry", "all"),
    "immediate, conflicting": ("immediate", "conflicting"),
    "hindsight, conflicting": ("hindsight", "conflicting"),
}
PASSES = (0.25, 0.5, 1.0)
ON_THE_WAY = ("immediate", "hindsight")  # which arms are measured before the end
COOLER = (0.7, 0.0)  # temperatures of the start, beside 1; trained policies are measured at 1 and 0
ANSWERS = 2  # to each prompt
PROMPTS = {"held-out": held_out_prompts, "facts": dishonesty.fact_prompts}


# --- who labels what ---


def people(who: str, seed: int) -> list[Annotator]:
    """A crowd of the seed's, other people than those of the shipped comparisons."""
    if who == "half in a hurry":
        return dishonesty.half_in_a_hurry(2 + seed)
    return crowd(2 + seed, **PEOPLE[who])


def felt_now(prompt: Prompt | str, response: str) -> float:
    """What an answer is worth to the course's people before anything is checked, in units of gold."""
    return typical_annotator(**PEOPLE["immediate"]).felt(prompt, response, checked=False)


def ahead(pairs: Sequence[Preference]) -> np.ndarray:
    """By how much the chosen response is worth more than the other, (M, 2): now, and later."""

    @cache
    def worth(prompt: str, response: str) -> np.ndarray:
        return np.array([felt_now(prompt, response), judge(prompt, response).gold])

    return np.array([worth(p.prompt, p.chosen) - worth(p.prompt, p.rejected) for p in pairs])


def asked(which: str) -> list[Preference]:
    """The first six shipped pairs of each prompt: of "all", of the "agreeing" or of the "conflicting" ones.

    Who tells agreeing from conflicting pairs knows the gold reward: these are controls, not methods.
    """
    pairs = preferences("comparisons")
    if which != "all":
        now, later = np.sign(ahead(pairs)).T
        wanted = 1 if which == "agreeing" else -1
        pairs = [pairs[i] for i in np.flatnonzero(now * later == wanted)]
    return few_labels(pairs)


def labels(arm: str, seed: int) -> list[Preference]:
    """What an arm learns from: its pairs, compared by its people."""
    who, which = ARMS[arm]
    return relabelled(asked(which), people(who, seed), seed)


# --- what is measured ---


def worth(answers: Answers) -> dict[str, np.ndarray]:
    """What each answer is worth, (P, n): "now", to who checks and likes nothing ("believed"), and "later".

    now − believed is what people's tastes add, believed − later what nobody has checked.
    """
    pairs = [(prompt, y) for prompt, texts in zip(answers.prompts, answers.texts) for y in texts]
    found = {
        "now": [felt_now(prompt, y) for prompt, y in pairs],
        "believed": [weighted_sum(judge(prompt, y).believed) for prompt, y in pairs],
    }
    shaped = {name: np.reshape(values, answers.texts.shape) for name, values in found.items()}
    return shaped | {"later": answers.values["gold"]}


def shown(
    policy: GPT, sft: GPT, which: str, drawn: Sequence[int], temperatures: Sequence[float]
) -> list[dict]:
    """What answers to one set of PROMPTS show, a row for each temperature.

    Means of what `measure` and `worth` find, "now" and "later" by prompt, (P,); on held-out prompts at T = 1
    the "kl" from `sft`, on "facts" what is `dishonesty.examined`.
    """
    rows = []
    for temperature, answers in measure(policy, PROMPTS[which](), temperatures, ANSWERS, drawn).items():
        values = worth(answers)
        means = in_means(row_of(answers)) | {name: float(table.mean()) for name, table in values.items()}
        if which == "held-out" and temperature == 1:
            means["kl"] = kl_from(sft, policy, answers)
        row = {name: round(value, 4) for name, value in means.items()}
        row |= {f"{name} by prompt": values[name].mean(-1).round(2).tolist() for name in ("now", "later")}
        rows.append({"prompts": which, **row, **(dishonesty.examined(answers) if which == "facts" else {})})
    return rows


# --- the table ---


def in_arm(sft: GPT, arm: str, seed: int, passes: Sequence[float] = PASSES) -> list[dict]:
    """DPO over an arm's labels, once: what the policy shows at the end, and of some arms on the way.

    "labels say now" and "labels say later" are by how much the chosen responses are worth more, on average.
    """
    pairs, policy, rows = labels(arm, seed), copy.deepcopy(sft), []
    now, later = ahead(pairs).mean(0).round(4).tolist()
    at = {updates(pairs, share, CONSTANT.prompts_per_step): share for share in passes}
    last = max(at)

    def on_step(metrics: dict) -> None:
        step = metrics["step"]
        if step not in at or (step < last and arm not in ON_THE_WAY):
            return
        drawn, temperatures = (1 + [*ARMS].index(arm), seed, step), (1.0, 0.0) if step == last else (1.0,)
        found = shown(policy, sft, "held-out", drawn, temperatures)
        if step == last:
            found += shown(policy, sft, "facts", (*drawn, 1), temperatures)
        place = {"arm": arm, "seed": seed, "passes": at[step], "labels": round(len(pairs) * step / last)}
        place |= {"labels say now": now, "labels say later": later}
        rows.extend(place | row for row in found)

    config = replace(CONSTANT, steps=last, seed=seed)
    stop_if_interrupted(dpo.train(policy, pairs, config, reference=sft, on_step=on_step))
    return rows


def untrained(sft: GPT, seed: int) -> list[dict]:
    """The start, as it is and sampled more coolly, which costs nothing."""
    drawn, temperatures = (0, seed), (1.0, *COOLER)
    rows = shown(sft, sft, "held-out", drawn, temperatures)
    rows += shown(sft, sft, "facts", (*drawn, 1), temperatures)
    return [{"arm": "start", "seed": seed, "passes": 0.0, "labels": 0, **row} for row in rows]


def horizons(sft: GPT) -> dict[str, Part]:
    """The start and every arm, measured on both sets of PROMPTS: rows as `shown` gives them.

    "labels" is how many of its labels an arm has seen after so many "passes". `dishonesty` reads it, too.
    """
    parts: dict[str, Part] = {f"start, seed {seed}": partial(untrained, sft, seed) for seed in SEEDS}
    return parts | {f"{arm}, seed {seed}": partial(in_arm, sft, arm, seed) for seed in SEEDS for arm in ARMS}


# --- read from the table ---


def column(
    arm: str,
    name: str,
    temperature: float = 1.0,
    prompts: str = "held-out",
    passes: float | None = None,
) -> np.ndarray:
    """A column of an arm over seeds, (S,), at its end where no number of passes is said.

    Of "now by prompt" and "later by prompt" it is (S, P).
    """
    passes = (0.0 if arm == "start" else 1.0) if passes is None else passes
    where = dict(arm=arm, temperature=temperature, prompts=prompts, passes=passes)
    return over_seeds(dishonesty.results(), name, **where)


def change(
    arm: str, name: str, over: str = "start", temperature: float = 1.0, prompts="held-out"
) -> Estimate:
    """What an arm has of "now" or "later" less what another has at T = 1, over seeds and prompts.

    The arm itself is sampled at `temperature`.
    """
    ours = column(arm, f"{name} by prompt", temperature, prompts)
    return bootstrap_difference(ours, column(over, f"{name} by prompt", 1.0, prompts))


def restored(name: str = "later", prompts: str = "held-out") -> np.ndarray:
    """Of what conflicting pairs cost, the share that the same pairs, labelled in hindsight, give back, (S,).

    (hindsight − immediate) / (start − immediate); 1 is all of it, more than 1 is a gain. Of "later", or of
    another column.
    """
    start, lost, hindsight = (
        column(arm, name, prompts=prompts)
        for arm in ("start", "immediate, conflicting", "hindsight, conflicting")
    )
    return (hindsight - lost) / (start - lost)


def along(arm: str, name: str = "later") -> tuple[np.ndarray, np.ndarray]:
    """An arm of ON_THE_WAY: labels seen, (K,), from none on, and a column there for each seed, (K, S)."""
    labels = [float(column(arm, "labels", passes=share).mean()) for share in PASSES]
    values = [column("start", name), *(column(arm, name, passes=share) for share in PASSES)]
    return np.array([0.0, *labels]), np.array(values)


def for_the_money(price: float, labels, values) -> float:
    """What as much money buys as all `labels` would cost at price 1, when one of them costs `price`.

    labels (K,) rise from 0, values (K,) are what a run has after so many; between them it is straight.
    Raises ValueError for a price below 1: so many labels were never bought.
    """
    labels, values = (measured(x, name) for x, name in ((labels, "labels"), (values, "values")))
    if price < 1:
        raise ValueError(
            f"price is {price}: the table has no more labels than {labels[-1]:g}; choose at least 1"
        )
    return float(np.interp(labels[-1] / price, labels, values))
