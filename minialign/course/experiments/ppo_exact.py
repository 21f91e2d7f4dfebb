"""Notebook 05: PPO where every response can be enumerated. Does it arrive at π*, and what does λ do to it?"""

import copy
from collections.abc import Callable
from functools import partial

import torch

from minialign import ppo
from minialign.course.experiments import SEEDS, Part
from minialign.gpt import GPT
from minialign.logprobs import token_log_probs
from minialign.world import exact

BETAS = (1.0, 0.25)
ROUNDS = 32
LAMBDAS = (1.0, 0.99, 0.97, 0.95, 0.9, 0.5, 0.0)


def enumerated_ppo(
    policy: torch.nn.Module,
    reference: torch.Tensor,
    rewards: torch.Tensor,
    beta: float,
    *,
    rounds: int,
    lr: float,
    samples: int = 512,
    epochs: int = 2,
    seed: int = 0,
    penalise: Callable = ppo.kl_penalized_rewards,
    loss: Callable = ppo.clipped_policy_loss,
) -> list[float]:
    """PPO's clipped loss where a whole response is one action; returns TV(π, π*) after each round.

    `policy()` gives log π of all responses, (P, N). The pieces are those of minialign.ppo,
    or a reader's. There is no critic: the baseline is the mean reward of the prompt's samples. The learning
    rate falls to 0.
    """
    optimum, _ = exact.optimal_policy(reference, rewards, beta)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr, eps=1e-5)
    mask, distances = torch.ones(len(rewards) * samples, 1, dtype=torch.bool), []
    old = policy().detach()
    for done in range(rounds):
        optimizer.param_groups[0]["lr"] = lr * (1 - done / rounds)
        drawn = torch.multinomial(old.exp(), samples, replacement=True, generator=generator)

        def of_drawn(table: torch.Tensor) -> torch.Tensor:
            return table.gather(1, drawn).reshape(-1, 1)

        penalised = penalise(of_drawn(rewards)[:, 0], of_drawn(old), of_drawn(reference), mask, beta)
        values = penalised.view(-1, samples).mean(1).repeat_interleave(samples)[:, None]
        advantages, _ = ppo.gae(penalised, values, mask)
        for _ in range(epochs):
            optimizer.zero_grad()
            loss(of_drawn(policy()), of_drawn(old), advantages, mask, 0.2).backward()
            optimizer.step()
        with torch.no_grad():
            old = policy()
        distances.append(total_variation(old, optimum))
    return distances


def total_variation(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    """½ Σ_y |p(y) − q(y)|, the mean over prompts, between 0 and 1.

    It is the most that two policies can differ about any set of responses.
    """
    return float((log_p.exp() - log_q.exp()).abs().sum(-1).mean() / 2)


def ppo_on_micro_world(sft: GPT) -> dict[str, Part]:
    """The distance of a GPT from π_ref exp(r/β)/Z while PPO trains it on 4 prompts × 64 responses."""
    world = exact.micro_world(n=64)
    with torch.no_grad():
        reference = exact.EnumeratedPolicy(sft, world)()

    def run(beta: float, seed: int) -> list[dict]:
        start = total_variation(reference, exact.optimal_policy(reference, world.rewards, beta)[0])
        policy = exact.EnumeratedPolicy(copy.deepcopy(sft), world)
        distances = enumerated_ppo(policy, reference, world.rewards, beta, rounds=ROUNDS, lr=4e-4, seed=seed)
        return [
            {"beta": beta, "seed": seed, "round": i, "tv": tv} for i, tv in enumerate([start, *distances])
        ]

    return {f"β = {beta:g}, seed {seed}": partial(run, beta, seed) for beta in BETAS for seed in SEEDS}


# --- what λ does when the critic knows only the mean ---


def expected_gradient(policy: exact.EnumeratedPolicy, rewards: torch.Tensor, lam: float) -> torch.Tensor:
    """E_x Σ_y π(y|x) Σ_t A_t ∇ log π(y_t|·) over all parameters, (D,): what PPO's first step estimates.

    A_t is GAE's, with γ = 1 and a critic that says E_π r of the prompt before every token. With λ = 1 it is
    the policy gradient itself. Below, A_t = λ^(tokens to go) (r − E_π r): the earlier a token, the less of
    the credit it gets.
    """
    mask, (n_prompts, n) = policy.batch.response_mask, rewards.shape
    with torch.no_grad():
        probabilities = policy().exp()
    values = (probabilities * rewards).sum(-1).repeat_interleave(n)[:, None] * mask
    nothing = torch.zeros_like(values)
    at_the_end = ppo.kl_penalized_rewards(rewards.flatten(), nothing, nothing, mask, beta=0.0)
    advantages, _ = ppo.gae(at_the_end, values, mask, lam=lam)
    weights = probabilities.flatten()[:, None] * advantages / n_prompts
    total = (weights * token_log_probs(policy.model, policy.batch)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, [*policy.model.parameters()])])


def lambda_on_micro_world(sft: GPT) -> list[dict]:
    """For each λ: cosine with the policy gradient of the fine-tuned model, and length beside it.

    Of 4 prompts × 192 responses, exact. `tokens` is the mean length of a response under the policy.
    """
    world = exact.micro_world()
    policy = exact.EnumeratedPolicy(sft, world)
    true = expected_gradient(policy, world.rewards, 1.0).double()
    with torch.no_grad():
        tokens = float((policy().exp() * world.lengths).sum(-1).mean())
    rows = []
    for lam in LAMBDAS:
        found = expected_gradient(policy, world.rewards, lam).double()
        cosine = float(found @ true / (found.norm() * true.norm()))
        rows.append(
            {"lam": lam, "cosine": cosine, "length": float(found.norm() / true.norm()), "tokens": tokens}
        )
    return rows
