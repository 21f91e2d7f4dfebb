"""Notebook 06: DPO on notebook 04's comparisons, and what held-out prompts show after each pass over them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minialign import dpo
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import hits, margins_of, preferences, updates
from minialign.course.experiments.measuring import by_prompt, measured
from minialign.course.experiments.scorers import as_batch, log_probs
from minialign.dpo import DPOConfig, dpo_loss
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.training import stop_if_interrupted

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
