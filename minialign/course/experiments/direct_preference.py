"""Notebook 06: DPO on notebook 04's comparisons, and what held-out prompts show after each pass over them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minialign import dpo
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import hits, margins_of, preferences, updates
from minialign.course.experiments.measuring import by_prompt, measured, over_seeds
from minialign.course.experiments.scorers import as_batch, log_probs
from minialign.dpo import DPOConfig, dpo_loss
from minialign.gpt import GPT
from minialign.preferences import Comparisons, Preference
from minialign.statistics import mean_with_interval
from minialign.training import load_history, stop_if_interrupted

BETAS = (0.03, 0.1, 0.3)
# Passes over the comparisons after which a policy is measured: fixed before any was trained, so that an
# effect is a difference of two points that nobody has chosen by looking.
PASSES = (0.5, 1.0, 1.5, 2.0, 3.0)
COOLER = (0.7, 0.0)  # temperatures, beside 1
CONSTANT = DPOConfig(final_lr=1.0)  # a constant rate, so that half a run is a run of half the length
LOGGED = (
    "loss",
    "rewards/accuracies",
    "rewards/margins",
    "rewards/chosen",
    "rewards/rejected",
    "logps/chosen",
    "logps/rejected",
)


def responses_in(pairs: Sequence[Preference]) -> list[tuple[str, str]]:
    """Every different (prompt, response) in the pairs, once."""
    return list(dict.fromkeys((pair.prompt, y) for pair in pairs for y in (pair.chosen, pair.rejected)))


def exam() -> list[Preference]:
    """The shipped held-out pairs of every second prompt: enough to see what a run has learned to rank."""
    pairs = preferences("held_out")
    half = set(list(dict.fromkeys(pair.prompt for pair in pairs))[::2])
    return [pair for pair in pairs if pair.prompt in half]


def optimised(
    sft: GPT,
    pairs: Sequence[Preference],
    config: DPOConfig,
    passes: Sequence[float] = (1.0,),
    loss: Callable = dpo_loss,
) -> tuple[GPT, list[dict]]:
    """DPO from `sft` until the last of `passes`, and one row for each step, with the run's own metrics.

    The rows after the `passes`, and only they, have that number, what held-out prompts show (`measured`), and
    how often the policy ranks the pairs of the `exam` as people did, "held_out" and by prompt. That is read
    with the right formula, whatever the loss: a bug in the run is none in its exam.
    """
    policy, rows, test = copy.deepcopy(sft), [], exam()
    texts = responses_in(test)
    read = as_batch(sft, *zip(*texts))
    of_reference = log_probs(sft, read)
    at = {updates(pairs, number, config.prompts_per_step): number for number in passes}

    def on_step(metrics: dict) -> None:
        step = metrics["step"]
        rows.append({"step": step, **{name: round(metrics[name], 5) for name in LOGGED}})
        if step in at:
            (found,) = measured(policy, sft, held_out_prompts(), (config.seed, step))
            margins = margins_of(test, dict(zip(texts, log_probs(policy, read) - of_reference)))
            marks = by_prompt([pair.prompt for pair in test], hits(margins))
            ranked = {"held_out": float(np.mean(marks)), "held_out_by_prompt": marks}
            rows[-1] |= {"passes": at[step], **ranked, **found}

    config = replace(config, steps=max(at))
    stop_if_interrupted(dpo.train(policy, pairs, config, loss=loss, reference=sft, on_step=on_step))
    return policy, rows


def at_temperatures(policy: GPT, sft: GPT, step: int, seed: int, temperatures: Sequence[float]) -> list[dict]:
    """What held-out prompts show after `step` updates, a row for each temperature."""
    found = measured(policy, sft, held_out_prompts(), (seed, step), temperatures=temperatures)
    return [{"step": step, **row} for row in found]


def untrained(sft: GPT, seed: int, temperatures: Sequence[float] = (1.0,)) -> list[dict]:
    """The rows of the start, zero passes. To sample it more coolly costs nothing."""
    found = at_temperatures(sft, sft, 0, seed, temperatures)
    return [{"seed": seed, "passes": 0.0, **row} for row in found]


# --- live in the notebook ---


@torch.no_grad()
def watched(
    step: int,
    pairs: Comparisons,
    losses: torch.Tensor,
    rewards: Sequence[torch.Tensor],
    log_probs: torch.Tensor,
) -> dict[str, float]:
    """The metrics of an update under TRL's names: LOGGED, and the "step", counted from 1.

    losses, and the two rewards, of chosen and rejected responses, are (M,) each; log_probs (R,) are log π of
    all responses of the M pairs.
    """
    z = rewards[0] - rewards[1]
    logs = log_probs[pairs.chosen], log_probs[pairs.rejected]
    means = (x.mean().item() for x in (losses, (z > 0).float(), z, *rewards, *logs))
    return {"step": step, **dict(zip(LOGGED, means))}


# --- read from the tables ---


def by_rate() -> dict[str, dict]:
    """Runs that differ in the learning rate only: "gold" and "kl" by "passes", two runs with each of two β.

    With β = 0.03 they are notebook 07's trials: one seed, six labels a prompt, on the tuning prompts; "half"
    the 95 % interval is over prompts. With β = 0.3 they are the race's runs on all labels, and this module's:
    three seeds on the held-out prompts, and the interval is over seeds.
    """
    per_pass = updates(preferences("comparisons"), 1.0, CONSTANT.prompts_per_step)
    tried = [row for row in load_history("race_tuning") if row["method"] == "DPO" and row["round"] == 1]
    raced = [row for row in load_history("race") if row["method"] == "DPO, all labels" and "step" in row]
    raced = [row for row in raced if row["temperature"] == 1.0]
    ours = [row for row in load_history("dpo_overoptimisation") if row.get("beta") == 0.3]
    ours = [row for row in ours if row.get("temperature") == 1.0]
    found = {}
    for rate in (3e-4, 1e-4):
        rows = [row for row in tried if row["beta"] == 0.03 and row["learning_rate"] == rate]
        columns = {name: [row[name] for row in rows] for name in ("step", "gold", "kl", "error")}
        half = [1.96 * error for error in columns.pop("error")]
        found[f"β = 0.03, rate {rate:g}"] = {"beta": 0.03, "rate": rate, **columns, "half": half}
    for rate, rows in ((3e-4, ours), (1e-4, raced)):
        steps = sorted({row["step"] for row in rows})
        gold, kl = ([over_seeds(rows, name, step=step) for step in steps] for name in ("gold", "kl"))
        intervals = [*map(mean_with_interval, gold)]
        columns = {"gold": [x.mean for x in intervals], "half": [x.high - x.mean for x in intervals]}
        columns |= {"step": steps, "kl": [float(values.mean()) for values in kl]}
        found[f"β = 0.3, rate {rate:g}"] = {"beta": 0.3, "rate": rate, **columns}
    for run in found.values():
        run["passes"] = [step / per_pass for step in run.pop("step")]
    return found


# --- the table ---


def dpo_overoptimisation(sft: GPT) -> dict[str, Part]:
    """Three passes over the shipped comparisons with three β; and where they begin.

    Both ends are measured at COOLER temperatures, too.
    """

    def part(beta: float, seed: int) -> list[dict]:
        config = replace(CONSTANT, beta=beta, seed=seed)
        policy, rows = optimised(sft, preferences("comparisons"), config, PASSES)
        ends = at_temperatures(policy, sft, rows[-1]["step"], seed, COOLER)
        rows += [{"passes": PASSES[-1], **row} for row in ends]
        return [{"seed": seed, "beta": beta, **row} for row in rows]

    free = partial(untrained, sft, temperatures=(1.0, *COOLER))
    parts: dict[str, Part] = {f"SFT, seed {seed}": partial(free, seed) for seed in SEEDS}
    return parts | {f"β = {beta}, seed {seed}": partial(part, beta, seed) for seed in SEEDS for beta in BETAS}
