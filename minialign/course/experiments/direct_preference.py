"""Notebook 06: DPO on notebook 04's comparisons, how it over-optimises, famous bugs, and near-duplicates."""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from unittest import mock

import numpy as np
import torch

from minialign import dpo
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, answers
from minialign.course.experiments.comparisons import margins_of, preferences
from minialign.course.experiments.rlhf import measured, total_variation
from minialign.dpo import DPOConfig, dpo_loss
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.preferences import Preference
from minialign.reward_model import RewardModel
from minialign.training import stop_if_interrupted
from minialign.world import exact
from minialign.world.prompts import prompts_of

BETAS = (0.03, 0.1, 0.3)
EPOCH = 62  # updates in which the shipped comparisons are seen once
LONG = DPOConfig(steps=3 * EPOCH, final_lr=1.0)  # a constant rate, so that steps can be compared
MEASURED = (8, 16, 31, 46, 62, 93, 124, 186)  # updates after which held-out prompts are answered


def implicit_margins(policy: GPT, reference: GPT, pairs: Sequence[Preference], beta: float) -> np.ndarray:
    """r̂(x, y_w) − r̂(x, y_l) of each pair, (M,): the policy as a reward model."""
    logps, reference_logps = (dpo.reference_log_probs(model, pairs) for model in (policy, reference))
    return margins_of(pairs, {text: beta * (logps[text] - reference_logps[text]) for text in logps})


def optimised(
    sft: GPT,
    reward: RewardModel,
    pairs: Sequence[Preference],
    config: DPOConfig,
    at: Sequence[int],
    loss: Callable = dpo_loss,
) -> tuple[GPT, list[dict]]:
    """DPO from `sft`, and one row for each step.

    A row has the run's own metrics and, after the steps in `at`, what held-out prompts and pairs show. The
    reward model only measures the proxy: DPO does not see it.
    """
    policy, rows = copy.deepcopy(sft), [{"step": 0, **measured(sft, sft, reward.score, config.seed)}]

    def on_step(metrics: dict) -> None:
        if metrics["step"] in at:
            metrics |= measured(policy, sft, reward.score, config.seed)
            margins = implicit_margins(policy, sft, preferences("held_out"), config.beta)
            metrics["held_out"] = float((margins > 0).mean())

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


# --- what goes wrong: each bug is another log π(y|x) or another loss ---


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
        config = replace(LONG, steps=EPOCH, seed=seed)
        for name, (log_probs, loss) in VARIANTS.items():
            with scoring(log_probs):
                _, found = optimised(sft, reward, pairs, config, (EPOCH,), loss)
            rows += [{"seed": seed, "variant": name, **row} for row in found]
    return rows


# --- near-duplicates: pairs that differ in one value ---

DISPLACING = DPOConfig(steps=60, prompts_per_step=16)
# Where a token stands: before the first difference of the pair, within it, after it.
PLACES = ("before", "at", "after")


def near_duplicates(sft: GPT, seed: int = 0) -> list[Preference]:
    """Answers of `sft` that state a fact rightly, each against the same text with a wrong value in it."""
    asked = prompts_of("policy", ("explain", "tell", "describe", "question"))
    prompts = [p for p in asked if p.topic is not None and p.topic.real]
    pairs = []
    for prompt, text in zip(prompts, answers(sft, prompts, seed=seed)):
        stated = [fact for fact in prompt.topic.facts if fact.falsified(text, fact.wrong[0]) != text]
        pairs += [Preference(prompt.text, text, fact.falsified(text, fact.wrong[0])) for fact in stated[:1]]
    return pairs


def common(a: Sequence, b: Sequence) -> int:
    """The length of the longest common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


@torch.no_grad()
def log_probs_by_place(model: GPT, pairs: Sequence[Preference]) -> dict[str, float]:
    """Mean log-probability of chosen and rejected responses, in three parts: the tokens of each of PLACES."""
    ids, logps = {}, {}
    for which in ("chosen", "rejected"):
        texts = [(pair.prompt, getattr(pair, which)) for pair in pairs]
        batch = model.chat.collate(texts, model.config.context)
        lengths = batch.response_mask.sum(-1).tolist()
        ids[which] = batch.ids[batch.response_mask].split(lengths)
        logps[which] = token_log_probs(model, batch)[batch.response_mask].split(lengths)
    found: dict[str, list[float]] = {f"{which}/{place}": [] for which in ids for place in PLACES}
    for i in range(len(pairs)):
        chosen, rejected = (ids[which][i].tolist() for which in ids)
        first = common(chosen, rejected)
        last = min(common(chosen[::-1], rejected[::-1]), min(len(chosen), len(rejected)) - first)
        for which in ids:
            n = len(ids[which][i])
            for place, part in zip(PLACES, logps[which][i].split([first, n - last - first, last])):
                found[f"{which}/{place}"].append(float(part.sum()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def dpo_displacement(sft: GPT) -> list[dict]:
    """DPO on near-duplicates: the run's metrics, and before and after it, `log_probs_by_place`."""
    rows = []
    for seed in SEEDS:
        pairs, policy = near_duplicates(sft, seed), copy.deepcopy(sft)
        before = {"step": 0, "pairs": len(pairs), **log_probs_by_place(policy, pairs)}
        history = dpo.train(policy, pairs, replace(DISPLACING, seed=seed))
        stop_if_interrupted(history)
        history[-1] |= log_probs_by_place(policy, pairs)
        rows += [{"seed": seed, **row} for row in (before, *history)]
    return rows


# --- the enumerable world ---


def soft_dpo(
    policy: torch.nn.Module,
    log_probs: Callable,
    reference: torch.Tensor,
    rewards: torch.Tensor,
    beta: float,
    *,
    steps: int,
    lr: float,
) -> list[float]:
    """DPO on every pair of enumerated responses, each label weighted by its Bradley-Terry probability.

    `log_probs()` gives the policy's log π of all responses, (P, N), normalised or not: a constant for each
    prompt cancels. The learning rate falls to 0. Returns TV(π, π*) at the start and after each step.
    """
    labels = torch.sigmoid(rewards[:, :, None] - rewards[:, None, :])
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr)
    optimum, _ = exact.optimal_policy(reference, rewards, beta)
    distances = []
    for done in range(steps + 1):
        log_p = log_probs()
        distances.append(total_variation(log_p.detach().log_softmax(-1), optimum))
        if done < steps:
            optimizer.param_groups[0]["lr"] = lr * (1 - done / steps)
            optimizer.zero_grad()
            losses, _, _ = dpo_loss(
                log_p[:, :, None], log_p[:, None, :], reference[:, :, None], reference[:, None, :], beta
            )
            (labels * losses).mean().backward()
            optimizer.step()
    return distances


def dpo_on_micro_world(sft: GPT) -> list[dict]:
    """The distance of a GPT from π_ref exp(r/β)/Z while DPO trains it on 4 prompts × 64 responses.

    It sees all pairs of a prompt's responses. Nothing in it is random.
    """
    world, rows = exact.micro_world(n=64), []
    with torch.no_grad():
        reference = exact.EnumeratedPolicy(sft, world)()
    for beta in (1.0, 0.25):
        policy = exact.EnumeratedPolicy(copy.deepcopy(sft), world)
        distances = soft_dpo(policy, policy.joint, reference, world.rewards, beta, steps=120, lr=3e-4)
        rows += [{"beta": beta, "step": i, "tv": tv} for i, tv in enumerate(distances)]
        rows[-1]["off_set_mass"] = policy.off_set_mass().tolist()
    return rows


OF_SFT = (dpo_displacement, dpo_on_micro_world)
OF_SFT_AND_REWARD = (dpo_overoptimisation, dpo_variants)
