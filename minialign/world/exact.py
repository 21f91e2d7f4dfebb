"""A micro-world to enumerate: a few prompts, some hundred responses, and every expectation in closed form.

What is an estimate on a real model is here a sum over all responses, in float64: the oracle that algorithms
are held against. A policy is any module whose `forward()` gives log π(y|x) of all responses, (P, N): a table
of logits (`TabularPolicy`), or a GPT read on the enumerated token sequences (`EnumeratedPolicy`). Prompts are
equally likely.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components

from minialign.chat import Batch, load_chat
from minialign.gpt import GPT
from minialign.logprobs import kl_divergence, sequence_log_probs
from minialign.world.judge import gold_rewards
from minialign.world.phrases import FILLER, FLATTERY, POLITE, SURE, UNSURE
from minialign.world.prompts import Prompt, parse
from minialign.world.topics import REGISTERS, Topic, capitalised

PROMPTS = (
    "Explain the octopus to a six-year-old in a few sentences.",
    "Tell an expert about spiders.",
    "Describe glass for a six-year-old.",
    "Explain the octopus to a teenager.",
)
MAX_TOKENS = 16  # of a response, its end token included
OPENERS = ("", POLITE.openers[-1], FLATTERY.openers[0])
CLOSERS = ("", POLITE.closers[0], SURE.closers[0], UNSURE.closers[0], FILLER.closers[0], FLATTERY.closers[0])


@dataclass(frozen=True)
class MicroWorld:
    """P prompts with N possible responses each.

    rewards (P, N) float64 is the judge's gold, lengths (P, N) counts tokens.
    """

    prompts: tuple[str, ...]
    responses: tuple[tuple[str, ...], ...]
    rewards: torch.Tensor
    lengths: torch.Tensor

    def batch(self) -> Batch:
        """All P · N (prompt, response) pairs in the chat template, those of one prompt side by side."""
        pairs = ((prompt, y) for prompt, ys in zip(self.prompts, self.responses) for y in ys)
        return load_chat().collate(pairs)


@lru_cache
def micro_world(prompts: tuple[str, ...] = PROMPTS, n: int = 192, seed: int = 0) -> MicroWorld:
    """The micro-world of some prompts about real topics, with n responses to each.

    They are drawn once and for all from those the slots allow. Raises ValueError for a prompt that names no
    real topic, and when the slots allow fewer than n responses.
    """
    rng, chosen = np.random.default_rng(seed), []
    for text in prompts:
        possible = slot_responses(parse(text))
        if len(possible) < n:
            raise ValueError(
                f"there are only {len(possible)} possible responses to {text!r}, {n} were asked for"
            )
        chosen.append(tuple(possible[i] for i in sorted(rng.permutation(len(possible))[:n])))
    rewards = np.stack([gold_rewards([text] * n, ys) for text, ys in zip(prompts, chosen)])
    encode = load_chat().encode_response
    lengths = torch.tensor([[len(encode(y)) for y in ys] for ys in chosen])
    return MicroWorld(prompts, tuple(chosen), torch.from_numpy(rewards), lengths)


def slot_responses(prompt: Prompt) -> list[str]:
    """Every response made of an opener, a statement and a closer, in at most MAX_TOKENS tokens.

    Each of the three may be missing. The statements are right or wrong and worded for any audience; openers
    and closers are polite, flattering, certain, unsure or filler.
    """
    if prompt.topic is None or not prompt.topic.real:
        raise ValueError(f"{prompt.text!r} names no real topic: ask about one of data/world/topics.jsonl")
    slots = product(OPENERS, ("", *_statements(prompt.topic)), CLOSERS)
    texts, encode = (" ".join(filter(None, parts)) for parts in slots), load_chat().encode_response
    return [text for text in texts if text and len(encode(text)) <= MAX_TOKENS]


def _statements(topic: Topic) -> list[str]:
    sentences = []
    for fact in topic.facts:
        for right in (*map(fact.in_register, REGISTERS), capitalised(fact.claim) + "."):
            sentences += [right, *(fact.falsified(right, value) for value in fact.wrong)]
    return list(dict.fromkeys(sentences))


class TabularPolicy(torch.nn.Module):
    """The simplest policy: one logit for every response, π(y|x) = softmax(logits)_y."""

    def __init__(self, log_probs: torch.Tensor):
        """log_probs (P, N): where to start, up to a constant for each prompt."""
        super().__init__()
        self.logits = torch.nn.Parameter(log_probs.detach().double().clone())

    def forward(self) -> torch.Tensor:
        return self.logits.log_softmax(-1)


class EnumeratedPolicy(torch.nn.Module):
    """A GPT on the micro-world: its probabilities of the enumerated responses, renormalised to sum to 1."""

    def __init__(self, model: GPT, world: MicroWorld):
        super().__init__()
        self.model, self.shape, self.batch = model, world.rewards.shape, world.batch().to(model.device)

    def joint(self) -> torch.Tensor:
        """log π(y|x) as the model has it, (P, N) float64, before renormalisation."""
        return sequence_log_probs(self.model, self.batch).double().view(self.shape)

    def forward(self) -> torch.Tensor:
        return self.joint().log_softmax(-1)

    @torch.no_grad()
    def off_set_mass(self) -> torch.Tensor:
        """The probability, (P,), that the model gives to texts outside the micro-world."""
        return -torch.expm1(self.joint().logsumexp(-1))


# --- closed forms: log_probs (P, N) of a policy, rewards (P, N) ---


def expected_reward(log_probs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """J = E_x Σ_y π(y|x) r(x, y), a scalar.

    Differentiable: its gradient is the policy gradient, with nothing sampled.
    """
    return (log_probs.exp() * rewards).sum(-1).mean()


def logit_gradient(log_probs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """∂J/∂logits of a tabular policy, (P, N): π(y|x) (r(x, y) − E_π r) / P."""
    return _prompt_gradients(log_probs, rewards) / len(rewards)


def _prompt_gradients(log_probs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """∇_logits E_{π(·|x)} r of each prompt, (P, N)."""
    return log_probs.exp() * (rewards - (log_probs.exp() * rewards).sum(-1, keepdim=True))


def kl_penalised_reward(
    log_probs: torch.Tensor, reference: torch.Tensor, rewards: torch.Tensor, beta: float
) -> torch.Tensor:
    """E_x [ E_π r − β KL(π‖π_ref) ], a scalar: the objective of RLHF (Ziegler et al. 2019, Eq. 2)."""
    return expected_reward(log_probs, rewards) - beta * kl_divergence(log_probs, reference).mean()


def optimal_policy(
    reference: torch.Tensor, rewards: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maximum of `kl_penalised_reward`: log π*(y|x) = log π_ref(y|x) + r/β − log Z(x), (P, N).

    Returns log π*, and log Z(x), (P,). Source: Rafailov et al. 2023, Eq. 4. Raises ValueError for β ≤ 0.
    """
    if not beta > 0:
        raise ValueError(f"beta is {beta}: the tilted optimum needs a positive one")
    tilted = reference + rewards / beta
    log_z = tilted.logsumexp(-1)
    return tilted - log_z[:, None], log_z


def best_of_n(log_probs: torch.Tensor, rewards: torch.Tensor, n: int) -> torch.Tensor:
    """log-probabilities (P, N) of the best of n samples, by reward; ties go to the sample drawn first.

    P(best has reward r) = P(all n ≤ r) − P(all n < r); within equal rewards the policy's own proportions
    stay. In logarithms, so that responses of probability e^(−60) come out right too. Raises ValueError for
    n < 1.
    """
    if n < 1:
        raise ValueError(f"n is {n}: choose among at least one sample")
    mine, others = rewards[:, :, None], rewards[:, None, :]
    everyone = log_probs[:, None, :].expand(-1, log_probs.shape[1], -1)
    below = everyone.masked_fill(others >= mine, -torch.inf).logsumexp(-1)
    tied = everyone.masked_fill(others != mine, -torch.inf).logsumexp(-1)
    # log((B + T)^n − B^n) = n log(B + T) + log(1 − (1 + T/B)^(−n))
    log_ratio = torch.nn.functional.softplus(tied - below)  # log(1 + T/B)
    best = n * torch.logaddexp(below, tied) + torch.log(-torch.expm1(-n * log_ratio))
    return log_probs - tied + best


def squared_scores(log_probs: torch.Tensor) -> torch.Tensor:
    """‖∇_logits log π(y|x)‖² of a tabular policy with P prompts, (P, N): the score of y is e_y − π(·|x)."""
    probabilities = log_probs.exp()
    return 1 - 2 * probabilities + (probabilities**2).sum(-1, keepdim=True)


def optimal_baseline(
    probabilities: torch.Tensor, rewards: torch.Tensor, squared_score: torch.Tensor
) -> torch.Tensor:
    """b* = E[r ‖∇ log π‖²] / E[‖∇ log π‖²], which makes the variance of the policy gradient smallest.

    All (..., N), expectations over the last axis, under the policy. Source: Greensmith et al. 2004.
    """
    weights = probabilities * squared_score
    return (weights * rewards).sum(-1) / weights.sum(-1)


def gradient_variance(
    log_probs: torch.Tensor, rewards: torch.Tensor, baseline: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Total variance, (P,), of (r − b) ∇_logits log π(y|x) for one y ~ π: E‖·‖² − ‖E·‖².

    baseline: a number or (P,).
    """
    advantages = rewards - torch.as_tensor(baseline, dtype=rewards.dtype).expand(len(rewards))[:, None]
    second_moment = (log_probs.exp() * advantages**2 * squared_scores(log_probs)).sum(-1)
    return second_moment - _prompt_gradients(log_probs, rewards).square().sum(-1)


def rloo_variance(log_probs: torch.Tensor, rewards: torch.Tensor, k: int) -> torch.Tensor:
    """Total variance, (P,), of the leave-one-out estimate of the policy gradient.

    That is (1/k) Σ_i (r_i − mean of the others) ∇_logits log π(y_i|x). Each term has the variance that the
    baseline E r gives, and more because its own baseline is noisy, by Var(r)/(k − 1); two terms share
    ‖∇J‖²/(k − 1)² of covariance, because each is in the other's baseline. Raises ValueError for k < 2.
    """
    if k < 2:
        raise ValueError(f"leave-one-out needs at least 2 samples of each prompt, here is {k}")
    probabilities = log_probs.exp()
    mean = (probabilities * rewards).sum(-1)
    spread = (probabilities * (rewards - mean[:, None]) ** 2).sum(-1)
    noise = spread * (probabilities * squared_scores(log_probs)).sum(-1)
    shared = _prompt_gradients(log_probs, rewards).square().sum(-1)
    return (gradient_variance(log_probs, rewards, mean) + (noise + shared) / (k - 1)) / k


def _require_finite_optimum(wins: torch.Tensor) -> None:
    """Ford's condition (1957): whoever stands in one half of the field has lost to someone in the other."""
    if not bool((wins.isfinite() & (wins >= 0)).all()):
        raise ValueError("a number of wins is negative or not finite: count how often i beat j")
    if connected_components(wins.numpy() > 0, connection="strong")[0] > 1:
        raise ValueError(
            "the comparisons do not pin down finite scores: "
            "some responses never lost to the rest, or never met it"
        )


def bradley_terry_optimum(wins: torch.Tensor, steps: int = 1000) -> torch.Tensor:
    """The scores (N,), of mean 0, that make comparisons most likely when P(i beats j) = σ(s_i − s_j).

    wins (N, N): how often, or with what weight, i beat j. Newton's method on a convex loss (Bradley and Terry
    1952). Raises ValueError when no finite scores exist (some group of responses never lost to, or was never
    compared with, the rest), for weights that are negative or not finite, and when they are so lopsided that
    float64 cannot tell the scores.
    """
    _require_finite_optimum(wins)
    n = len(wins)
    games, scores = wins + wins.T, torch.zeros(n, dtype=torch.float64)
    for _ in range(steps):
        p = torch.sigmoid(scores[:, None] - scores[None, :])
        gradient = (games * p - wins).sum(1)
        weights = games * p * (1 - p)
        hessian = torch.diag(weights.sum(1)) - weights
        # A shift of all scores changes nothing: + 1/n pins their mean.
        step, failed = torch.linalg.solve_ex(hessian + 1.0 / n, gradient)
        if int(failed):
            break
        scores = scores - step.clamp(-1, 1)  # far from the optimum a full step overshoots
        if float(step.abs().max()) < 1e-10:
            return scores - scores.mean()
    raise ValueError("the comparisons are too lopsided: the scores cannot be told from infinite ones")
