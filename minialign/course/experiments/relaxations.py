"""Notebook 03: ways to backpropagate through a choice, and where they lead, for one choice out of N.

A policy is a table of logits over the N responses to one prompt of the micro-world. The reward is a network
that reads a response's vector, so it has a slope. Straight-through (Bengio et al. 2013) and Gumbel-softmax
(Jang et al. 2016; Maddison et al. 2016) use the slope, the policy gradient does not. How far they are off
depends on the network, also when networks agree on every response: so there are several, and a linear one.
"""

from collections.abc import Callable

import torch

from minialign.gpt import GPT
from minialign.world import exact

NETWORKS = {"tanh": tuple(range(10)), "relu": tuple(range(5)), "linear": (0,)}  # kind: seeds
TEMPERATURES = (1.0, 0.1)  # of Gumbel-softmax
Network = Callable[[torch.Tensor], torch.Tensor]  # vectors (…, D) -> rewards (…)


def response_vectors(model: GPT, responses: tuple[str, ...]) -> torch.Tensor:
    """The mean token embedding of each response, (N, D) float64, together of mean 0 and spread 1."""
    embedding = model.token_embedding.weight.detach().double().cpu()
    vectors = torch.stack([embedding[model.chat.encode_response(y)].mean(0) for y in responses])
    return (vectors - vectors.mean(0)) / vectors.std()


def reward_network(kind: str, vectors: torch.Tensor, rewards: torch.Tensor, seed: int = 0) -> Network:
    """A network that gives vectors (N, D) their rewards (N,).

    One hidden layer of 32 units can; a linear one comes as near as least squares does. The rewards are then
    its own: its policy gradient is the true one.
    """
    if kind == "linear":
        ones = torch.ones(len(vectors), 1, dtype=vectors.dtype)
        solution = torch.linalg.lstsq(torch.cat([vectors, ones], 1), rewards[:, None]).solution[:, 0]
        return lambda x: x @ solution[:-1] + solution[-1]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        layers = torch.nn.Linear(vectors.shape[1], 32), torch.nn.Linear(32, 1)
    between = {"tanh": torch.nn.Tanh(), "relu": torch.nn.ReLU()}[kind]
    network = torch.nn.Sequential(layers[0], between, layers[1], torch.nn.Flatten(-2)).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(600):
        optimizer.zero_grad()
        (network(vectors) - rewards).square().mean().backward()
        optimizer.step()
    return network.requires_grad_(False)


def through_softmax(probabilities: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Slopes (…, N) with respect to the probabilities (…, N), as a gradient of the logits, (…, N)."""
    return probabilities * (slopes - (probabilities * slopes).sum(-1, keepdim=True))


def slopes_at(network: Network, vectors: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
    """How the reward of each mixture (M, N) of the responses changes with the share of each, (M, N)."""
    points = (mixtures @ vectors).requires_grad_()
    (slope,) = torch.autograd.grad(network(points).sum(), points)
    return slope @ vectors.T


def straight_through(log_probs: torch.Tensor, one_hot_slopes: torch.Tensor) -> torch.Tensor:
    """The mean over y ~ π of the straight-through gradient, (N,), nothing sampled.

    log_probs (N,); one_hot_slopes (N, N): `slopes_at` each of the responses itself.
    """
    return through_softmax(log_probs.exp(), log_probs.exp() @ one_hot_slopes)


def gumbel_softmax(
    network: Network, vectors: torch.Tensor, log_probs: torch.Tensor, tau: float, samples: int, seed: int
) -> torch.Tensor:
    """The mean of `samples` gradients through softmax((logits + Gumbel noise)/τ), (N,)."""
    generator, total = torch.Generator().manual_seed(seed), torch.zeros_like(log_probs)
    for part in torch.arange(samples).split(5000):
        noise = torch.rand(len(part), len(log_probs), generator=generator, dtype=log_probs.dtype)
        soft = ((log_probs - (-noise.log()).log()) / tau).softmax(-1)
        total += through_softmax(soft, slopes_at(network, vectors, soft)).sum(0) / tau
    return total / samples


def compared_with(true: torch.Tensor, gradient: torch.Tensor) -> dict[str, float]:
    """How much of the true gradient is in another, 1 for all; and what else is, in lengths of ∇J."""
    share = gradient @ true / true.square().sum()
    return {"share": float(share), "elsewhere": float((gradient - share * true).norm() / true.norm())}


def ascended(
    log_probs: torch.Tensor, gradient_at: Callable[[torch.Tensor], torch.Tensor], steps: int, rate: float
) -> torch.Tensor:
    """log π (N,) after that many steps along the gradient, by the logits."""
    logits = log_probs.clone()
    for _ in range(steps):
        logits += rate * gradient_at(logits.log_softmax(-1))
    return logits.log_softmax(-1)


def relaxations(sft: GPT, samples: int = 40_000, steps: int = 3000, rate: float = 2.0) -> list[dict]:
    """Straight-through, Gumbel-softmax and the true gradient, through 16 networks, on the octopus prompt.

    A row has the `network` and its seed, the `estimator`, its mean's share of ∇J and what lies elsewhere, how
    far the network is from the judge on the responses (`off`), and J where ascent begins, what it can be at
    most, and where it arrives. The policy is the fine-tuned model at temperature 2.
    """
    world, rows = exact.micro_world(), []
    with torch.no_grad():
        start = (0.5 * exact.EnumeratedPolicy(sft, world)().cpu()[0]).log_softmax(-1)
    vectors, gold = response_vectors(sft, world.responses[0]), world.rewards[0]
    for kind, seed in ((kind, seed) for kind, seeds in NETWORKS.items() for seed in seeds):
        network = reward_network(kind, vectors, gold, seed)
        rewards = network(vectors)
        slopes = slopes_at(network, vectors, torch.eye(len(gold), dtype=gold.dtype))

        def policy_gradient(log_probs: torch.Tensor) -> torch.Tensor:
            return exact.logit_gradient(log_probs[None], rewards[None])[0]

        means = {
            "policy gradient": policy_gradient(start),
            "straight-through": straight_through(start, slopes),
        }
        for tau in TEMPERATURES:
            name = f"Gumbel-softmax, τ = {tau:g}"
            means[name] = gumbel_softmax(network, vectors, start, tau, samples, seed)
        followed = {
            "policy gradient": policy_gradient,
            "straight-through": lambda log_probs: straight_through(log_probs, slopes),
        }
        of = {"network": kind, "seed": seed, "off": float((rewards - gold).abs().max())}
        ends = {"begins": float(start.exp() @ rewards), "at_most": float(rewards.max())}
        for name, gradient in means.items():
            row = of | {"estimator": name, **compared_with(policy_gradient(start), gradient), **ends}
            if name in followed:
                arrived = ascended(start, followed[name], steps, rate)
                row["arrives"] = float(arrived.exp() @ rewards)
            rows.append(row)
    return rows


TABLES = (relaxations,)
