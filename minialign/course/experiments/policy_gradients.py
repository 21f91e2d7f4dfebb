"""Notebook 03: REINFORCE on the fine-tuned model, with the judge's gold as reward, and famous bugs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minialign import policy_gradient
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, habit_shares, held_out_prompts
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.policy_gradient import PolicyGradientConfig
from minialign.rollouts import roll_out
from minialign.training import History, stop_if_interrupted
from minialign.world.judge import gold_rewards, judge
from minialign.world.prompts import prompts_of

LONG = PolicyGradientConfig(steps=100)
EVERY = 10  # updates between two measurements


def trained(
    sft: GPT, config: PolicyGradientConfig, measure: Callable = lambda policy, metrics: None, **options
) -> tuple[GPT, History]:
    """A copy of `sft`, trained for the gold reward on the `policy` prompts, and its history.

    `measure(policy, metrics)` sees every step.
    """
    policy = copy.deepcopy(sft)
    prompts, on_step = [p.text for p in prompts_of("policy")], partial(measure, policy)
    return policy, policy_gradient.train(policy, prompts, gold_rewards, config, on_step=on_step, **options)


def measured(policy: GPT, seed: int) -> dict[str, float]:
    """One sample (T = 1) for each held-out prompt: gold reward, words, and two sorts of shares.

    These are of those that end by themselves, and of those that show a habit.
    """
    rollout = roll_out(policy, [p.text for p in held_out_prompts()], gold_rewards, seed=seed)
    judged = [judge(prompt, response) for prompt, response in zip(rollout.prompts, rollout.responses)]
    return {
        "gold": float(rollout.rewards.mean()),
        "words": float(np.mean([j.counts["words"] for j in judged])),
        "finished": float(rollout.finished.float().mean()),
        **habit_shares(judged),
    }


def reinforce(sft: GPT) -> list[dict]:
    """A hundred updates: what the run records at every step, and every 10 what held-out prompts show."""
    rows = []
    for seed in SEEDS:

        def measure(policy: GPT, metrics: dict) -> None:
            if metrics["step"] % EVERY == 0:
                metrics |= measured(policy, seed)

        _, history = trained(sft, replace(LONG, seed=seed), measure)
        stop_if_interrupted(history)
        rows += [
            {"seed": seed, "step": 0, **measured(sft, seed)},
            *({"seed": seed, **row} for row in history),
        ]
    return rows


# --- the famous bugs of policy gradients: each is another log π(y|x) ---


def sign_flipped(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """Descent where there should be ascent."""
    return -sequence_log_probs(policy, batch, temperature)


def averaged_over_tokens(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """log π(y|x) divided by the number of tokens."""
    return sequence_log_probs(policy, batch, temperature) / batch.response_mask.sum(-1)


def end_token_dropped(policy: GPT, batch: Batch, temperature: float) -> torch.Tensor:
    """log π(y|x) without its last factor: when to stop is never trained."""
    return token_log_probs(policy, batch, temperature).masked_fill(batch.ids == policy.chat.end, 0.0).sum(-1)


BUGS: dict[str, Callable] = {
    "correct": sequence_log_probs,
    "sign flipped": sign_flipped,
    "averaged over tokens": averaged_over_tokens,
    "end token dropped": end_token_dropped,
}


def reinforce_bugs(sft: GPT) -> list[dict]:
    """Twenty-five updates with each bug, and without a baseline, which is no bug but slower."""
    rows = []
    for seed in SEEDS:
        rows.append({"seed": seed, "bug": "before", **measured(sft, seed)})
        for bug in (*BUGS, "no baseline"):
            config = PolicyGradientConfig(seed=seed, baseline="none" if bug == "no baseline" else "rloo")
            policy, history = trained(sft, config, log_prob=BUGS.get(bug, sequence_log_probs))
            stop_if_interrupted(history)
            rows.append({"seed": seed, "bug": bug, **measured(policy, seed)})
    return rows


TABLES = (reinforce, reinforce_bugs)
