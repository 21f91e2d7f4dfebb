"""Notebook 06: DPO on the comparisons of notebook 04, how it over-optimises, and what some famous bugs do to it."""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import torch

from minialign import dpo
from minialign.chat import Batch
from minialign.dpo import DPOConfig, dpo_loss
from minialign.experiments import SEEDS
from minialign.experiments.reward_models import preferences
from minialign.experiments.rlhf import measured
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.preferences import Preference
from minialign.reward_model import RewardModel
from minialign.training import stop_if_interrupted

BETAS = (0.03, 0.1, 0.3)
EPOCH = 62  # updates in which the shipped comparisons are seen once
LONG = DPOConfig(steps=3 * EPOCH, final_lr=1.0)  # a constant rate, so that steps can be compared
MEASURED = (8, 16, 31, 46, 62, 93, 124, 186)  # updates after which held-out prompts are answered


def optimised(
    sft: GPT, reward: RewardModel, pairs: Sequence[Preference], config: DPOConfig, at: Sequence[int], loss: Callable = dpo_loss, **options
) -> tuple[GPT, list[dict]]:
    """DPO from `sft`, and one row for each step: the run's own metrics and, after the steps in `at`, what prompts show.

    `options` go to `measured`. The reward model only measures the proxy: DPO does not see it.
    """
    policy, rows = copy.deepcopy(sft), [{"step": 0, **measured(sft, sft, reward.score, config.seed, **options)}]

    def on_step(metrics: dict) -> None:
        if metrics["step"] in at:
            metrics |= measured(policy, sft, reward.score, config.seed, **options)

    history = dpo.train(policy, pairs, config, loss=loss, reference=sft, on_step=on_step)
    stop_if_interrupted(history)
    return policy, rows + list(history)


def dpo_overoptimisation(sft: GPT, reward: RewardModel) -> list[dict]:
    """Three passes over the shipped comparisons with three β."""
    pairs, rows = preferences("comparisons"), []
    for seed in SEEDS:
        for beta in BETAS:
            _, found = optimised(sft, reward, pairs, replace(LONG, beta=beta, seed=seed), MEASURED)
            rows += [{"seed": seed, "beta": beta, **row} for row in found]
    return rows


# --- what goes wrong: each bug is another log π(y|x) or another loss -----------------------------------------------------


def mean_for_sum(model: GPT, batch: Batch) -> torch.Tensor:
    """The mean over the response's tokens in place of their sum."""
    return sequence_log_probs(model, batch) / batch.response_mask.sum(-1)


def prompt_counted(model: GPT, batch: Batch) -> torch.Tensor:
    """The prompt's tokens count as if the model had written them."""
    everything = batch.mask.clone()
    everything[:, 0] = False
    return token_log_probs(model, Batch(batch.ids, batch.mask, everything)).sum(-1)


def swapped(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """Chosen and rejected the wrong way round."""
    return dpo_loss(policy_rejected, policy_chosen, reference_rejected, reference_chosen, beta)


def no_reference(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """The reference left out."""
    return dpo_loss(policy_chosen, policy_rejected, 0 * reference_chosen, 0 * reference_rejected, beta)


VARIANTS: dict[str, tuple[Callable, Callable]] = {
    "correct": (sequence_log_probs, dpo_loss),
    "mean for sum": (mean_for_sum, dpo_loss),
    "no reference": (sequence_log_probs, no_reference),
    "pairs swapped": (sequence_log_probs, swapped),
    "prompt counted": (prompt_counted, dpo_loss),
    "cDPO": (sequence_log_probs, dpo.conservative_dpo_loss),
    "IPO": (sequence_log_probs, dpo.ipo_loss),
}


@contextmanager
def scoring(log_probs: Callable):
    """DPO reads this as log π(y|x)."""
    with mock.patch.object(dpo, "sequence_log_probs", log_probs):
        yield


def dpo_variants(sft: GPT, reward: RewardModel) -> list[dict]:
    """One pass over the comparisons with each bug, and with the other losses."""
    pairs, rows = preferences("comparisons"), []
    for seed in SEEDS:
        for name, (log_probs, loss) in VARIANTS.items():
            with scoring(log_probs):
                _, found = optimised(sft, reward, pairs, replace(LONG, steps=EPOCH, seed=seed), (EPOCH,), loss)
            rows += [{"seed": seed, "variant": name, **row} for row in found]
    return rows


TABLES = (dpo_overoptimisation, dpo_variants)
