"""Notebook 06: DPO in the enumerable world, where the policy it should find is known."""

import copy
import math
from collections.abc import Callable

import torch

from minialign.course.experiments import Part
from minialign.course.experiments.ppo_exact import total_variation
from minialign.dpo import dpo_loss
from minialign.gpt import GPT
from minialign.world import exact

BETAS = (1.0, 0.25)
TWELVE = (  # prompts to enumerate, so that each has a Z of its own
    "Tell a teenager about the heart.",
    "Explain vaccines to a six-year-old in a few sentences.",
    "Explain dinosaurs to a six-year-old.",
    "Explain earthquakes to a teenager in a few sentences.",
    "Explain photosynthesis to an expert in a few sentences.",
    "Explain the brain to an expert in a few sentences.",
    "Explain magnets to a six-year-old in a few sentences.",
    "Explain tides to an expert in a few sentences.",
    "Explain chocolate to a teenager.",
    "Explain snow to a teenager in a few sentences.",
    "Explain glass to a six-year-old in a few sentences.",
    "Tell a six-year-old about bicycles.",
)


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


# --- live in the notebook ---


def mean_optimum(
    reference: torch.Tensor, rewards: torch.Tensor, lengths: torch.Tensor, beta: float
) -> torch.Tensor:
    """The policy whose log-ratios *divided by the length* explain the labels best, log π (P, N).

    Its β/|y| log(π/π_ref) is r + c, with c, one for each prompt, by bisection: what makes π add up to 1.
    """
    high = torch.full((len(rewards), 1), 1e3, dtype=torch.float64)
    low = -high
    for _ in range(200):
        c = (low + high) / 2
        above = (reference + lengths * (rewards + c) / beta).logsumexp(-1, keepdim=True) > 0
        low, high = torch.where(above, low, c), torch.where(above, c, high)
    return reference + lengths * (rewards + c) / beta


def on_one_pair(loss: Callable, beta: float, steps: int = 4000) -> list[float]:
    """π(y_w) after every step of Adam on one comparison of two responses, equally probable at first."""
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.01)
    half = torch.full((1,), math.log(0.5), dtype=torch.float64)
    course = []
    for _ in range(steps):
        optimizer.zero_grad()
        log_p = logits.log_softmax(-1)
        course.append(float(log_p[0].detach().exp()))
        loss(log_p[:1], log_p[1:], half, half, beta)[0].sum().backward()
        optimizer.step()
    return course
