"""Notebook 05: what goes wrong in PPO. Each bug replaces functions of minialign.ppo."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from unittest import mock

import numpy as np
import torch

from minialign import ppo
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.rlhf import LONG, WARMUP, optimised
from minialign.gpt import GPT
from minialign.reward_model import RewardModel
from minialign.rollouts import roll_out


def kl_sign_flipped(scores, log_probs, reference_log_probs, response_mask, beta):
    """A bonus for leaving the reference."""
    return ppo_kl_penalized_rewards(scores, log_probs, reference_log_probs, response_mask, -beta)


def reward_on_padding(scores, log_probs, reference_log_probs, response_mask, beta):
    """The score one place too late: on the padding after the end token, or nowhere."""
    late = ppo_kl_penalized_rewards(scores, 0 * log_probs, 0 * log_probs, response_mask, beta).roll(1, dims=1)
    return late + ppo_kl_penalized_rewards(0 * scores, log_probs, reference_log_probs, response_mask, beta)


def end_token_dropped(log_probs, old_log_probs, advantages, response_mask, clip):
    """A policy loss without the last token of each response: when to stop is not trained."""
    last = response_mask & ~torch.nn.functional.pad(response_mask, (0, 1))[:, 1:]
    return ppo_clipped_policy_loss(log_probs, old_log_probs, advantages, response_mask & ~last, clip)


def ratio_to_itself(log_probs, old_log_probs, advantages, response_mask, clip):
    """π_old read anew at every update and not detached: the ratio is always 1, and its gradient 0."""
    return ppo_clipped_policy_loss(log_probs, log_probs, advantages, response_mask, clip)


def cooler_rollout(policy, prompts, reward, *, temperature, **options):
    """Samples at 0.7 of the temperature at which they are scored."""
    return roll_out(policy, prompts, reward, temperature=0.7 * temperature, **options)


ppo_kl_penalized_rewards, ppo_clipped_policy_loss = ppo.kl_penalized_rewards, ppo.clipped_policy_loss
UNCHECKED = {"require_same": lambda *_: None}
BUGS: dict[str, dict[str, Callable]] = {
    "correct": {},
    "KL sign flipped": {"kl_penalized_rewards": kl_sign_flipped},
    "end token dropped": {"clipped_policy_loss": end_token_dropped},
    "reward on padding": {"kl_penalized_rewards": reward_on_padding},
    "ratio to itself": {"clipped_policy_loss": ratio_to_itself},
    "sampled at T = 0.7": {"roll_out": cooler_rollout, **UNCHECKED},
    "dropout on": UNCHECKED,
}
ROLLOUTS = WARMUP + 10  # after which held-out prompts are answered; the policy learns from ten


@contextmanager
def bug(name: str) -> Iterator[None]:
    """Inside, minialign.ppo has one of BUGS.

    The check that would catch two of them is switched off, or there would be no curve.
    """
    with ExitStack() as stack:
        for function, wrong in BUGS[name].items():
            stack.enter_context(mock.patch.object(ppo, function, wrong))
        yield


class AlwaysDrops(torch.nn.Dropout):
    """Dropout that nobody can switch off."""

    def forward(self, x):
        return torch.nn.functional.dropout(x, self.p, training=True)


def dropping(policy: GPT, p: float = 0.1) -> GPT:
    """A copy of the policy with dropout on, which it has never been trained with."""
    policy = copy.deepcopy(policy)
    for module in (policy, *policy.blocks):
        module.drop = AlwaysDrops(p)
    return policy


def ppo_bugs(sft: GPT, reward: RewardModel) -> dict[str, Part]:
    """ROLLOUTS rollouts with each of BUGS: the run's own metrics, and what held-out prompts show at the end.

    The bug that is no wrong line, λ < 1 with a cold critic, is in `critics.ppo_advantages`: only there does
    it stand beside λ = 1 with as many updates of the policy.
    """

    def run(name: str, seed: int) -> list[dict]:
        start = dropping(sft) if name == "dropout on" else sft
        config = replace(LONG, steps=ROLLOUTS, beta=0.05, seed=seed)
        with bug(name):
            _, rows = optimised(start, reward, config, (ROLLOUTS,))
        return [{"bug": name, "seed": seed, **row} for row in rows]

    return {f"{name}, seed {seed}": partial(run, name, seed) for name in BUGS for seed in SEEDS}


# --- which of a run's own curves shows it ---

WATCHED = (
    "objective/scores",
    "objective/kl",
    "objective/entropy",
    "response_length",
    "finished",
    "policy/approxkl_avg",
    "policy/clipfrac_avg",
    "val/ratio",
    "val/explained_variance",
    "grad_norm",
)


def shown_by(rows: Sequence[dict], name: str, step: int) -> list[str]:
    """Which of the WATCHED metrics give a bug away after `step` rollouts, from the rows of `ppo_bugs`.

    A metric does where every seed's value lies outside the range of the correct runs, by more than the width
    of that range: or where it is no number, and a number in the correct runs.
    """

    def values(of: str, metric: str) -> np.ndarray:
        chosen = [row for row in rows if row["bug"] == of and row["step"] == step and metric in row]
        return np.array([row[metric] for row in chosen], dtype=np.float64)

    shown = []
    for metric in WATCHED:
        right, wrong = values("correct", metric), values(name, metric)
        if not right.size or np.isnan(right).any():
            continue
        low, high = right.min(), right.max()
        width = high - low
        if wrong.size and (
            (wrong > high + width).all() or (wrong < low - width).all() or np.isnan(wrong).all()
        ):
            shown.append(metric)
    return shown
