"""The exercises of notebook 05."""

import torch

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.logprobs import kl_k3
from minialign.ppo import clipped_policy_loss, gae, kl_penalized_rewards, masked_mean


def _responses(generator, rows: int = 3, columns: int = 7) -> torch.Tensor:
    """A response mask (B, T): prompts of different lengths before the responses, padding after them."""
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for row in range(rows):
        start, end = sorted((1 + torch.randperm(columns, generator=generator)[:2]).tolist())
        mask[row, start - 1 : end] = True
    return mask


def _penalty_inputs(generator):
    mask = _responses(generator)
    log_probs, reference = torch.randn(2, *mask.shape, generator=generator) * mask
    beta = float(torch.rand(1, generator=generator)) + 0.1
    return torch.randn(3, generator=generator), log_probs, reference, mask, beta


def _gae_inputs(generator):
    mask = _responses(generator)
    rewards, values = torch.randn(2, *mask.shape, generator=generator) * mask
    gamma, lam = (0.5 + 0.5 * torch.rand(2, generator=generator)).tolist()
    return rewards, values, mask, gamma, lam


def _clip_inputs(generator):
    mask = _responses(generator)
    log_probs, old, advantages = torch.randn(3, *mask.shape, generator=generator) * mask
    return (0.5 * log_probs).requires_grad_(), 0.5 * old, advantages, mask, 0.2


def _log_ratios(generator):
    return (torch.randn(8, generator=generator).requires_grad_(),)


def _last(mask: torch.Tensor) -> torch.Tensor:
    """True on the last response token of each row."""
    return mask & (mask.int().flip(-1).cumsum(-1).flip(-1) == 1)


def _penalized(scores, lp, ref, mask, beta, place=_last, sign=-1.0, penalty=lambda lp, ref: lp - ref):
    return sign * beta * penalty(lp, ref) * mask + scores[:, None] * place(mask)


def _backwards(rewards, values, mask, gamma, lam, *, bootstrap=0.0, decay=None, ahead=None, inside=True):
    """GAE with parts of it changeable."""
    ahead = gamma if ahead is None else ahead
    decay = gamma * lam if decay is None else decay
    advantages, following = torch.zeros_like(values), torch.zeros(len(values))
    after = torch.full((len(values),), bootstrap)
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + ahead * after - values[:, t]
        advantages[:, t] = following = (delta + decay * following) * (mask[:, t] if inside else 1)
        after = torch.where(mask[:, t], values[:, t], after)
    return advantages, advantages + values * mask


def _clipped(lp, old, advantages, mask, clip, *, ratio=None, smaller=torch.minimum, mean=masked_mean):
    ratio = (lp - old).exp() if ratio is None else ratio
    return -mean(smaller(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), mask)


RLHF = {
    "kl_penalized_rewards": Exercise(
        kl_penalized_rewards,
        _penalty_inputs,
        (
            Mistake(
                "the sign of the penalty is wrong: "
                "a token more probable than under the reference must *cost* reward.",
                lambda *a: _penalized(*a, sign=1.0),
            ),
            Mistake("β is missing.", lambda s, lp, ref, mask, beta: _penalized(s, lp, ref, mask, 1.0)),
            Mistake(
                "the score is on every token: it is given once, at the last token of the response.",
                lambda *a: _penalized(*a, place=lambda mask: mask),
            ),
            Mistake(
                "the score is on the last column, which is padding in the shorter rows: "
                "put it on the last *response* token.",
                lambda *a: _penalized(
                    *a, place=lambda mask: torch.arange(mask.shape[1]) == mask.shape[1] - 1
                ),
            ),
            Mistake(
                "the number of response tokens is not the place of the last one: the prompt comes first.",
                lambda *a: _penalized(
                    *a, place=lambda mask: torch.arange(mask.shape[1]) == mask.sum(-1, keepdim=True) - 1
                ),
            ),
            Mistake(
                "the score is divided over the tokens: it is given once, as a whole, at the last one.",
                lambda *a: _penalized(*a, place=lambda mask: mask / mask.sum(-1, keepdim=True)),
            ),
            Mistake(
                "the score is on the first token of the response: "
                "it is known only when the response is complete.",
                lambda *a: _penalized(*a, place=lambda mask: _last(mask.flip(-1)).flip(-1)),
            ),
            Mistake(
                "the score replaces the last token's penalty: add it to it.",
                lambda s, lp, ref, mask, beta: torch.where(
                    _last(mask), s[:, None], _penalized(0 * s, lp, ref, mask, beta)
                ),
            ),
            Mistake("the score is missing.", lambda s, *a: _penalized(0 * s, *a)),
            Mistake(
                "the penalty is missing.", lambda s, lp, ref, mask, beta: _penalized(s, lp, ref, mask, 0.0)
            ),
            Mistake(
                "the penalty is the ratio of the probabilities: it is the difference of their logarithms.",
                lambda *a: _penalized(*a, penalty=lambda lp, ref: (lp - ref).exp()),
            ),
        ),
    ),
    "gae": Exercise(
        gae,
        _gae_inputs,
        (
            Mistake(
                "λ is missing: the advantage is discounted by γλ at every step, not by γ.",
                lambda r, v, m, gamma, lam: gae(r, v, m, gamma, 1.0),
            ),
            Mistake(
                "γ is missing in the sum over later steps: it decays with γλ, not with λ alone.",
                lambda r, v, m, gamma, lam: _backwards(r, v, m, gamma, lam, decay=lam),
            ),
            Mistake(
                "these are the one-step errors δ: add up the later ones, (γλ)^l each.",
                lambda r, v, m, gamma, lam: gae(r, v, m, gamma, 0.0),
            ),
            Mistake(
                "advantages leak out of the responses: multiply by the mask, in each step of the loop.",
                lambda r, v, m, gamma, lam: _backwards(r, v, m, gamma, lam, inside=False),
            ),
            Mistake(
                "γ is missing in δ: it discounts the next value, too.",
                lambda r, v, m, gamma, lam: _backwards(r, v, m, gamma, lam, ahead=1.0),
            ),
            Mistake(
                "the value after the last token is 0: nothing comes after the end.",
                lambda r, v, m, gamma, lam: _backwards(r, v, m, gamma, lam, bootstrap=1.0),
            ),
            Mistake(
                "the returns are advantages *plus* values.",
                lambda r, v, m, gamma, lam: (gae(r, v, m, gamma, lam)[0],) * 2,
            ),
            Mistake("the two results are swapped: advantages first, then returns.", lambda *a: gae(*a)[::-1]),
            Mistake(
                "you go forwards in time: an advantage is made of what comes later, so start at the end.",
                lambda r, v, m, gamma, lam: tuple(
                    x.flip(-1) for x in gae(r.flip(-1), v.flip(-1), m.flip(-1), gamma, lam)
                ),
            ),
        ),
    ),
    "clipped_policy_loss": Exercise(
        clipped_policy_loss,
        _clip_inputs,
        (
            Mistake(
                "the sign is wrong: an optimizer makes the loss small, so it is minus the objective.",
                lambda *a: -clipped_policy_loss(*a),
            ),
            Mistake(
                "you take the larger of the two: PPO takes the pessimistic one, the minimum.",
                lambda *a: _clipped(*a, smaller=torch.maximum),
            ),
            Mistake(
                "only the clipped ratio is used: without the minimum, "
                "a step in the wrong direction would never be taken back.",
                lambda *a: _clipped(*a, smaller=lambda free, clipped: clipped),
            ),
            Mistake("nothing is clipped.", lambda *a: _clipped(*a, smaller=lambda free, clipped: free)),
            Mistake(
                "the ratio is upside down: it is π over π_old.",
                lambda lp, old, *a: _clipped(lp, old, *a, ratio=(old - lp).exp()),
            ),
            Mistake(
                "that is the logarithm of the ratio: exponentiate it.",
                lambda lp, old, *a: _clipped(lp, old, *a, ratio=lp - old),
            ),
            Mistake(
                "the mean runs over prompts and padding too: take it over the response tokens.",
                lambda *a: _clipped(*a, mean=lambda x, mask: (x * mask).mean()),
            ),
            Mistake(
                "you add up the tokens: take their mean.",
                lambda *a: _clipped(*a, mean=lambda x, mask: (x * mask).sum()),
            ),
            Mistake(
                "the minimum is taken of the ratios, before multiplying by A: "
                "for a negative advantage that is the wrong one.",
                lambda lp, old, advantages, mask, clip: (
                    -masked_mean(
                        torch.minimum((lp - old).exp(), (lp - old).exp().clamp(1 - clip, 1 + clip))
                        * advantages,
                        mask,
                    )
                ),
            ),
            Mistake(
                "each response's mean is taken first: here every *token* counts the same.",
                lambda *a: _clipped(*a, mean=lambda x, mask: ((x * mask).sum(-1) / mask.sum(-1)).mean()),
            ),
        ),
    ),
    "kl_k3": Exercise(
        kl_k3,
        _log_ratios,
        (
            Mistake(
                "the log-ratio has the wrong sign inside: e^(−lr) − 1 + lr, for samples from π.",
                lambda lr: lr.exp() - 1 - lr,
            ),
            Mistake(
                "that is k2, lr²/2: biased, though close to it where the two policies are close.",
                lambda lr: lr**2 / 2,
            ),
            Mistake("that is k1, the log-ratio itself.", lambda lr: lr * 1.0),
            Mistake(
                "the + lr is missing: without it the mean is 0 for any two policies.",
                lambda lr: torch.expm1(-lr),
            ),
            Mistake(
                "the −1 is missing: the estimate must be 0 where the two policies agree.",
                lambda lr: (-lr).exp() + lr,
            ),
            Mistake(
                "the mean is taken: one estimate for each sample is asked for.", lambda lr: kl_k3(lr).mean()
            ),
        ),
    ),
}
