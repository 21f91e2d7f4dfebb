"""How probable is a response? Token and sequence log-probabilities, and estimates of the KL divergence.

log π(y|x) = Σ_t log π(y_t | x, y_<t): a sum over the response's tokens and its end token, not the prompt's.
"""

import numpy as np
import torch
import torch.nn.functional as F

from minialign.chat import Batch, collate
from minialign.config import require_temperature
from minialign.gpt import GPT

CHUNK = 512  # tokens whose logits are in memory at a time: what fits the cache is more than twice as fast


def response_states(model, batch: Batch) -> torch.Tensor:
    """The hidden states (N, C) from which the N response tokens of all rows, in a line, are predicted."""
    return predicting(model.hidden(batch.ids, batch.mask), batch)


def predicting(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Of states (B, T, C), those that predict response tokens, (N, C): token t is predicted from t − 1."""
    return states[:, :-1][batch.response_mask[:, 1:]]


def full_precision(values: torch.Tensor) -> torch.Tensor:
    """Values in float32, or float64 if they are: a softmax in bfloat16 is wrong by hundredths of a nat."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def logits_of(model, states: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of states (N, C), in full precision."""
    return full_precision(model.head(states))


def response_logits(model, batch: Batch) -> torch.Tensor:
    """The logits (N, V) that predict the response's tokens, rows in a line.

    The vocabulary-sized work is done on these places only.
    """
    return logits_of(model, response_states(model, batch))


def on_response(values: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """One value for each response token, (N,) with rows in a line, put where it belongs: (B, T), else 0."""
    return values.new_zeros(response_mask.shape).masked_scatter(response_mask, values)


def token_log_probs(
    model, batch: Batch, temperature: float = 1.0, states: torch.Tensor | None = None
) -> torch.Tensor:
    """log π(y_t | x, y_<t) in nats, (B, T), aligned with batch.ids and 0 wherever response_mask is False.

    `temperature` divides the logits: score with the one you sample with. `states` are the model's
    `response_states`, if known. Raises ValueError when a row has no response token or begins with one (its
    first token has no predecessor), and for temperature 0: greedy decoding is no distribution.
    """
    require_temperature(temperature)
    if not bool(batch.response_mask.any(-1).all()):
        raise ValueError("a row of the batch has no response token: check the response mask")
    if bool(batch.response_mask[:, 0].any()):
        raise ValueError(
            "the first token of a row is marked as response, but nothing comes before it to predict it from"
        )
    states = response_states(model, batch) if states is None else states
    chosen = []
    for some, targets in zip(states.split(CHUNK), batch.ids[batch.response_mask].split(CHUNK)):
        logits = logits_of(model, some)
        logits = logits if temperature == 1 else logits / temperature
        chosen.append(-F.cross_entropy(logits, targets, reduction="none"))
    return on_response(torch.cat(chosen), batch.response_mask)


def sequence_log_probs(model, batch: Batch, temperature: float = 1.0) -> torch.Tensor:
    """log π(y|x) in nats, (B,): the sum of `token_log_probs` over the response."""
    return token_log_probs(model, batch, temperature).sum(-1)


def kl_divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p‖q) = Σ_v p(v) (log p(v) − log q(v)) in nats, of log-probabilities (..., V) over the last axis."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kl_k3(log_ratio: torch.Tensor) -> torch.Tensor:
    """e^(−lr) − 1 + lr: an estimate of KL(π‖π_ref) in nats for each sample, never negative.

    lr = log π(y) − log π_ref(y) with y ~ π.
    """
    return torch.expm1(-log_ratio) + log_ratio


def kl_estimates(log_ratio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three per-sample estimates of KL(π‖π_ref), in nats, from log_ratio = log π(y) − log π_ref(y), y ~ π.

    k1 = lr is unbiased and noisy, k2 = lr²/2 biased with low variance, k3 = e^(−lr) − 1 + lr unbiased and
    never negative. Any shape. Source: Schulman 2020, "Approximating KL divergence".
    """
    return log_ratio, log_ratio**2 / 2, kl_k3(log_ratio)


def require_same(log_ratio, what: str) -> None:
    """Raise ValueError where log-probabilities of the same tokens differ, before one trains on the error."""
    if (worst := float(log_ratio.abs().max())) > 1e-3:
        raise ValueError(
            f"{what} must agree before the first update, but a token's log-probabilities "
            f"differ by {worst:.2g} nats: is dropout on, or is one of them computed "
            "at another temperature, mask or position?"
        )


# --- of whole texts ---


def negative_log_likelihood(model: GPT, pairs, batch_size: int = 64) -> float:
    """Mean −log π(y_t | x, y_<t) in nats per response token over (prompt ids, response ids) pairs."""
    pairs, total = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1])), 0.0
    with torch.no_grad():
        for start in range(0, len(pairs), batch_size):
            part = pairs[start : start + batch_size]
            batch = collate(part, model.chat.pad, model.config.context).to(model.device)
            total -= float(sequence_log_probs(model, batch).sum())
    return total / sum(len(response) for _, response in pairs)


def perplexity_of(log_probs: torch.Tensor) -> torch.Tensor:
    """exp(−mean log-probability) of tokens (N,): between how many equally likely ones the model wavers."""
    return torch.exp(-log_probs.mean())


def token_kl(model: GPT, reference: GPT, batch: Batch) -> list[np.ndarray]:
    """Exact KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)) in nats at every response token, one array a row."""
    with torch.no_grad():
        log_p, log_q = (response_logits(m, batch).log_softmax(-1) for m in (model, reference))
    kl = kl_divergence(log_p, log_q).cpu().numpy()
    return np.split(kl, batch.response_mask.sum(-1).cpu().numpy().cumsum()[:-1])
