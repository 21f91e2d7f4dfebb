"""Notebook 06: DPO in the enumerable world, where the policy it should find is known."""

import copy
from collections.abc import Callable

import torch

from minialign.course.experiments import Part
from minialign.course.experiments.ppo_exact import total_variation
from minialign.dpo import dpo_loss
from minialign.gpt import GPT
from minialign.world import exact

BETAS = (1.0, 0.25)


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


def dpo_on_micro_world(sft: GPT) -> dict[str, Part]:
    """The distance of a GPT from π_ref exp(r/β)/Z while DPO trains it on 4 prompts × 64 responses.

    It sees all pairs of a prompt's responses. Nothing in it is random.
    """
    world = exact.micro_world(n=64)

    def part(beta: float) -> list[dict]:
        with torch.no_grad():
            reference = exact.EnumeratedPolicy(sft, world)()
        policy = exact.EnumeratedPolicy(copy.deepcopy(sft), world)
        distances = soft_dpo(policy, policy.joint, reference, world.rewards, beta, steps=100, lr=3e-4)
        rows = [{"beta": beta, "step": i, "tv": tv} for i, tv in enumerate(distances)]
        rows[-1]["off_set_mass"] = policy.off_set_mass().tolist()
        return rows

    return {f"β = {beta}": lambda beta=beta: part(beta) for beta in BETAS}
