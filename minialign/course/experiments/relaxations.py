"""Notebook 03: ways to backpropagate through a choice, and where they lead, for one choice out of N.

A policy is a table of logits over the N responses to one prompt of the micro-world. The reward is a network
that reads a response's vector, so it has a slope. Straight-through (Bengio et al. 2013) and Gumbel-softmax
(Jang et al. 2016; Maddison et al. 2016) use the slope, the policy gradient does not; REBAR (Tucker et al.
2017) uses it and is right on average all the same. How far the others are off depends on the network, also
when networks agree on every response: so there are several, and a linear one.

At the end the same for a text: a choice for each token, and a reward model that reads rows over the
vocabulary in the place of tokens.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from minialign.chat import Batch
from minialign.gpt import GPT
from minialign.logprobs import on_response, predicting
from minialign.reward_model import RewardModel, last_states
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


# --- single samples, by autograd: what the notebook's estimators are made of ---


def one_hot_straight_through(logits: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    """Rows (…, V) that are one-hot at `drawn` (…), with the slope of softmax(logits), logits (…, V).

    Going forward it is the choice, going backward as if it had been the probabilities. Source: Bengio et al.
    2013, for a softmax as in Jang et al. 2016.
    """
    soft = logits.softmax(-1)
    one_hot = F.one_hot(drawn, logits.shape[-1]).to(soft.dtype)
    return one_hot + soft - soft.detach()


def by_logits(function: Callable, log_probs: torch.Tensor, samples: int) -> torch.Tensor:
    """The gradient of each sample's value by logits of its own, (M, N).

    log_probs (N,); function(logits (M, N)) gives a value for each sample, (M,).
    """
    logits = log_probs.expand(samples, -1).clone().requires_grad_()
    (gradients,) = torch.autograd.grad(function(logits).sum(), logits)
    return gradients


def gumbel_noise(samples: int, choices: int, generator: torch.Generator) -> torch.Tensor:
    """Independent Gumbel noise, (M, N) float64: the argmax of log π + noise is a sample of π."""
    uniform = torch.rand(samples, choices, generator=generator, dtype=torch.float64)
    return -(-uniform.log()).log()


def rebar(
    network: Network, vectors: torch.Tensor, logits: torch.Tensor, tau: float, generator: torch.Generator
) -> torch.Tensor:
    """Values (M,) whose gradient by the logits (M, N) is REBAR's estimate: unbiased, with a relaxed control.

    The choice b is the argmax of z = log π + Gumbel noise, z̃ is such a z again, given that b is its argmax.
    The estimate is (r(b) − r(soft z̃)) ∇ log π(b) + ∇ r(soft z) − ∇ r(soft z̃), with soft z = softmax(z/τ):
    the two relaxed terms have the mean that the control took away. A constant added to the rewards is in r(b)
    and in the control, and drops out. Source: Tucker et al. 2017, with η = 1 and one temperature.
    """
    log_probs = logits.log_softmax(-1)
    z = log_probs + gumbel_noise(*logits.shape, generator)
    drawn = z.argmax(-1, keepdim=True)
    minus_log = -torch.rand(logits.shape, generator=generator, dtype=logits.dtype).log()
    top = minus_log.gather(-1, drawn)  # of the choice itself: the maximum is a Gumbel, whatever was chosen
    again = -(minus_log / log_probs.exp() + top).log()
    again = again.scatter(-1, drawn, -top.log())
    relaxed, control = (network((x / tau).softmax(-1) @ vectors) for x in (z, again))
    rewards = network(vectors)[drawn[:, 0]]
    left = (rewards - control).detach()
    return left * log_probs.gather(-1, drawn)[:, 0] + relaxed - control


def summarised(samples: torch.Tensor, true: torch.Tensor, in_all: int) -> dict[str, float]:
    """What single-sample gradients (M, N) say of the true one, (N,).

    "along" is the share of ∇J in their mean, with its standard error "se"; "elsewhere" is what else is in it,
    in lengths of ∇J. "error / noise" is the mean's distance from ∇J in units of what noise alone would make
    of it. "variance" is that of one sample, where a row of `samples` is the mean of `in_all` / M of them.
    """
    along = samples @ true / true.square().sum()
    mean, count = samples.mean(0), len(samples)
    variance = float((samples - mean).square().sum(-1).mean())
    return {
        "along": float(along.mean()),
        "se": float(along.std()) / count**0.5,
        "variance": variance * in_all / count,
        "elsewhere": compared_with(true, mean)["elsewhere"],
        "error / noise": float((mean - true).norm()) / (variance / count) ** 0.5,
    }


def compared_with(true: torch.Tensor, gradient: torch.Tensor) -> dict[str, float]:
    """How much of the true gradient is in another, 1 for all; and what else is, in lengths of ∇J."""
    share = gradient @ true / true.square().sum()
    return {"share": float(share), "elsewhere": float((gradient - share * true).norm() / true.norm())}


# --- a choice for each token of a text ---


def with_ends(batch: Batch, cut_off: torch.Tensor, end: int, context: int) -> Batch:
    """The batch, padded on the right, with an end token after the responses that were cut off, (B,) True.

    That is how their text is read. Where the context is full there is no room for it.
    """
    wider = int(batch.ids.shape[1] < context)
    ids, mask, response = (F.pad(x, (0, wider)) for x in (batch.ids, batch.mask, batch.response_mask))
    after = batch.mask.sum(-1)
    rows = torch.nonzero(cut_off & (after < context))[:, 0]
    for part, value in ((ids, end), (mask, True), (response, True)):
        part[rows, after[rows]] = value
    return Batch(ids, mask, response)


def reward_of_rows(
    model: RewardModel, batch: Batch, rows: torch.Tensor, finished: torch.Tensor | None = None
) -> torch.Tensor:
    """r_φ, (B,), of a batch whose N response tokens are given as rows (N, V) over the vocabulary.

    The rows stand in a line, as `ids[response_mask]` does, and the reward has a slope in them. One-hot rows
    are worth what the model gives their tokens. A mixture is read as that of the embeddings, and its
    log-probability is the mixture of the tokens'. A response that is not `finished`, (B,), is read with an
    end token, as its text is. Raises ValueError for a model that reads surprise.
    """
    if model.reader is not None:
        raise ValueError("this reward model reads the surprise at each token, which a mixture does not have")
    if finished is not None:
        own = batch
        batch = with_ends(own, ~finished, model.trunk.chat.end, model.trunk.config.context)
        sampled = F.pad(own.response_mask, (0, batch.ids.shape[1] - own.ids.shape[1]))
        sampled = sampled[batch.response_mask][:, None]
        one_hot = F.one_hot(batch.ids[batch.response_mask], rows.shape[-1]).to(rows)
        rows = one_hot.masked_scatter(sampled, rows)
    embeddings, response = model.trunk.token_embedding.weight, batch.response_mask
    moved = rows @ embeddings - embeddings[batch.ids[response]]
    places = response[..., None].expand(*response.shape, moved.shape[-1])
    states = model.trunk.hidden(batch.ids, batch.mask, added=on_response(moved, places))
    rewards = model.head(last_states(states, batch.mask))[:, 0]
    if model.likelihood_weight is not None:
        log_probs = (model.trunk.head(predicting(states, batch)).log_softmax(-1) * rows).sum(-1)
        means = on_response(log_probs, response).sum(-1) / response.sum(-1)
        rewards = rewards + model.likelihood_weight * means
    return model.gain * rewards + model.bias


def ascended(
    log_probs: torch.Tensor, gradient_at: Callable[[torch.Tensor], torch.Tensor], steps: int, rate: float
) -> torch.Tensor:
    """log π (N,) after that many steps along the gradient, by the logits."""
    logits = log_probs.clone()
    for _ in range(steps):
        logits += rate * gradient_at(logits.log_softmax(-1))
    return logits.log_softmax(-1)


def followed(
    network: Network, vectors: torch.Tensor, log_probs: torch.Tensor, steps: int = 3000, rate: float = 2.0
) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """What comes of ascent along the mean straight-through gradient, from log π (N,).

    J before each step, (steps,); the probabilities at the end, (N,); and the gradient at the start, (N,).
    """
    rewards, slopes = network(vectors), slopes_at(network, vectors, torch.eye(len(vectors)).to(vectors))
    j = []

    def gradient_at(at: torch.Tensor) -> torch.Tensor:
        j.append(float(at.exp() @ rewards))
        return straight_through(at, slopes)

    arrived = ascended(log_probs, gradient_at, steps, rate)
    return np.array(j), arrived.exp(), straight_through(log_probs, slopes)


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
