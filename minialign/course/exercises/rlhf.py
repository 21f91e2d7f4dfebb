"""The exercises of notebook 05."""

import torch
import torch.nn.functional as F

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.logprobs import kl_k3
from minialign.policy_gradient import reward_to_go
from minialign.ppo import clipped_policy_loss, gae, kl_penalized_rewards, masked_mean


def _responses(generator, rows: int = 3, columns: int = 7) -> torch.Tensor:
    """A response mask (B, T): prompts of different lengths before the responses, padding after them.

    The first row is response from end to end, so that what is wrong there is seen.
    """
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[0] = True
    for row in range(1, rows):
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


def _next(values):
    """V_{t+1}, which is 0 after the last column."""
    return F.pad(values[:, 1:], (0, 1))


def _from_errors(delta, values, mask, gamma, lam):
    """What GAE makes of other one-step errors δ."""
    advantages = gae(delta, 0 * values, mask, gamma, lam)[0]
    return advantages, advantages + values


def _with_errors(error):
    """GAE with δ = error(r, V, γ)."""
    return lambda r, v, m, gamma, lam: _from_errors(error(r, v, gamma), v, m, gamma, lam)


def _with_returns(returns):
    """The right advantages with other returns, of rewards, values, mask, γ and the advantages."""

    def changed(r, v, m, gamma, lam):
        advantages, _ = gae(r, v, m, gamma, lam)
        return advantages, returns(r, v, m, gamma, advantages)

    return changed


def _clipped(lp, old, advantages, mask, clip, *, ratio=None, smaller=torch.minimum, mean=masked_mean):
    ratio = (lp - old).exp() if ratio is None else ratio
    return -mean(smaller(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages), mask)


def _by_response(log_ratio):
    """The loss with one ratio for each row, whose logarithm is made of its tokens' log-ratios."""

    def loss(lp, old, advantages, mask, clip):
        ratio = log_ratio(lp - old, mask)[:, None].exp()
        return _clipped(lp, old, advantages, mask, clip, ratio=ratio)

    return loss


def _of_ratios(lp, old, advantages, mask, clip, *, combine):
    """The loss with the two ratios and the advantages combined in another way."""
    ratio = (lp - old).exp()
    return -masked_mean(combine(ratio, ratio.clamp(1 - clip, 1 + clip), advantages), mask)


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
            Mistake(
                "β multiplies the score, too: it is the price of the KL alone.",
                lambda s, lp, ref, mask, beta: kl_penalized_rewards(beta * s, lp, ref, mask, beta),
            ),
            Mistake("β is missing.", lambda s, lp, ref, mask, beta: _penalized(s, lp, ref, mask, 1.0)),
            Mistake(
                "the score is on every token: it is given once, at the last token of the response.",
                lambda *a: _penalized(*a, place=lambda mask: mask),
                lambda *a: _penalized(*a, place=torch.ones_like),
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
            Mistake(
                "the whole KL is on the last token: each token pays for its own log-ratio, where it stands. "
                "Only the score waits for the end.",
                lambda s, lp, ref, mask, beta: (
                    _last(mask) * kl_penalized_rewards(s, lp, ref, mask, beta).sum(-1, keepdim=True)
                ),
            ),
            Mistake(
                "you return one number for each response: a reward for each token is asked for, (B, T).",
                lambda *a: kl_penalized_rewards(*a).sum(-1),
            ),
            Mistake(
                "the penalty is k3 or k2, an estimate that is never negative: "
                "in the reward it is the log-ratio itself, of either sign.",
                lambda *a: _penalized(*a, penalty=lambda lp, ref: kl_k3(lp - ref)),
                lambda *a: _penalized(*a, penalty=lambda lp, ref: (lp - ref) ** 2 / 2),
            ),
        ),
        errors=(
            Mistake(
                "the scores are (B,) and the tokens (B, T): write scores[:, None], "
                "or add the scores at the places of the last tokens only.",
                lambda scores, lp, *a: scores * lp,
                lambda scores, lp, *a: lp * scores,
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
                lambda r, v, m, gamma, lam: _from_errors(r + gamma * _next(v) - v, v, m, 1.0, lam),
            ),
            Mistake(
                "these are the one-step errors δ: add up the later ones, (γλ)^l each.",
                lambda r, v, m, gamma, lam: gae(r, v, m, gamma, 0.0),
            ),
            Mistake(
                "advantages leak out of the responses: multiply by the mask, in each step of the loop.",
                lambda r, v, m, gamma, lam: gae(r, v, torch.ones_like(m), gamma, lam),
            ),
            Mistake(
                "γ is missing in δ: it discounts the next value, too.",
                _with_errors(lambda r, v, gamma: r + _next(v) - v),
            ),
            Mistake(
                "the value after the last token is 0: nothing comes after the end.",
                lambda r, v, m, gamma, lam: gae(r + gamma * _last(m), v, m, gamma, lam),
            ),
            Mistake(
                "V_{t+1} is missing in δ: a step is good if the reward *and* what is expected "
                "after it are more than was expected before.",
                _with_errors(lambda r, v, gamma: r - v),
            ),
            Mistake(
                "roll brings the first column round to the end, as if it came after the last one: "
                "V is 0 there.",
                _with_errors(lambda r, v, gamma: r + gamma * v.roll(-1, 1) - v),
                _with_errors(lambda r, v, gamma: r + gamma * v.roll(-1) - v),
            ),
            Mistake(
                "a sign in δ is wrong: it is what came, r_t + γ V_{t+1}, *minus* what was expected, V_t.",
                _with_errors(lambda r, v, gamma: r + gamma * _next(v) + v),
                _with_errors(lambda r, v, gamma: r - gamma * _next(v) + v),
                _with_errors(lambda r, v, gamma: r - gamma * _next(v) - v),
            ),
            Mistake(
                "the returns are advantages *plus* values.",
                _with_returns(lambda r, v, m, gamma, advantages: advantages),
                _with_returns(lambda r, v, m, gamma, advantages: advantages - v),
                _with_returns(lambda r, v, m, gamma, advantages: v - advantages),
            ),
            Mistake(
                "γ and λ are both missing: this is the sum of what is still to come, minus V.",
                lambda r, v, m, gamma, lam: gae(r, v, m, 1.0, 1.0),
                lambda r, v, m, gamma, lam: (reward_to_go(r) - v, reward_to_go(r)),
            ),
            Mistake(
                "the second result is the rewards that are still to come: "
                "here returns are A + V, which is the same for λ = 1 only.",
                _with_returns(lambda r, v, m, gamma, advantages: gae(r, 0 * v, m, gamma, 1.0)[0]),
                _with_returns(lambda r, v, m, gamma, advantages: gae(r, 0 * v, m, 1.0, 1.0)[0]),
                _with_returns(lambda r, v, m, gamma, advantages: reward_to_go(r)),
            ),
            Mistake(
                "the second result is r_t + γ V_{t+1}, what λ = 0 would aim at: here returns are A + V.",
                _with_returns(lambda r, v, m, gamma, advantages: (r + gamma * _next(v)) * m),
                _with_returns(lambda r, v, m, gamma, advantages: r + gamma * _next(v)),
            ),
            Mistake("the two results are swapped: advantages first, then returns.", lambda *a: gae(*a)[::-1]),
            Mistake(
                "you go forwards in time: an advantage is made of what comes later, so start at the end.",
                lambda r, v, m, gamma, lam: tuple(
                    x.flip(-1) for x in gae(r.flip(-1), v.flip(-1), m.flip(-1), gamma, lam)
                ),
            ),
        ),
        errors=(
            Mistake(
                "there is no column t + 1 after the last one: V and A are 0 there, so begin with zeros.",
                lambda r, v, *a: v[:, v.shape[1]],
            ),
            Mistake(
                "values[:, 1:] is a column short: the value after the last token is 0, so append a column "
                "of zeros.",
                lambda r, v, *a: r + v[:, 1:],
                lambda r, v, *a: v[:, 1:] - v,
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
            Mistake(
                "the ratio is clipped to ±ε: it stays near 1, between 1 − ε and 1 + ε.",
                lambda lp, old, advantages, mask, clip: _of_ratios(
                    lp,
                    old,
                    advantages,
                    mask,
                    clip,
                    combine=lambda free, _, A: torch.minimum(free * A, free.clamp(-clip, clip) * A),
                ),
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
                lambda *a: _of_ratios(*a, combine=lambda free, clipped, A: torch.minimum(free, clipped) * A),
            ),
            Mistake(
                "each response's mean is taken first: here every *token* counts the same.",
                lambda *a: _clipped(*a, mean=lambda x, mask: ((x * mask).sum(-1) / mask.sum(-1)).mean()),
            ),
            Mistake(
                "you divide one log-probability by the other: the ratio is exp(log π − log π_old).",
                lambda lp, old, *a: _clipped(lp, old, *a, ratio=lp / old),
                lambda lp, old, *a: _clipped(
                    lp, old, *a, ratio=lp / old, mean=lambda x, mask: x[mask].mean()
                ),
            ),
            Mistake(
                "only one of the two is multiplied by A: compare ρ A with clip(ρ) A.",
                lambda *a: _of_ratios(*a, combine=lambda free, clipped, A: torch.minimum(free * A, clipped)),
                lambda *a: _of_ratios(*a, combine=lambda free, clipped, A: torch.minimum(free, clipped * A)),
            ),
            Mistake(
                "the advantage is not used: multiply both ratios by A.",
                lambda *a: _of_ratios(*a, combine=lambda free, clipped, A: torch.minimum(free, clipped)),
            ),
            Mistake(
                "that is one ratio for each response: PPO has one for each token.",
                _by_response(lambda log_ratio, mask: log_ratio.sum(-1)),
                _by_response(lambda log_ratio, mask: (log_ratio * mask).sum(-1)),
                _by_response(lambda log_ratio, mask: log_ratio.sum(-1) / mask.sum(-1)),
                _by_response(lambda log_ratio, mask: (log_ratio * mask).sum(-1) / mask.sum(-1)),
            ),
            Mistake(
                "the sign is wrong, and you take the larger of the two: "
                "the loss is *minus* the mean of the minimum.",
                lambda *a: -_clipped(*a, smaller=torch.maximum),
            ),
            Mistake(
                "you return a loss for each token: take the mean over the response tokens.",
                lambda *a: _clipped(*a, mean=lambda x, mask: x),
                lambda *a: _clipped(*a, mean=lambda x, mask: x[mask]),
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
                "the sign in the exponent is wrong: e^(−lr), or the estimate is negative for some samples.",
                lambda lr: lr.exp() - 1 + lr,
            ),
            Mistake(
                "the sign of the last term is wrong: + lr, or the estimate is negative for some samples.",
                lambda lr: (-lr).exp() - 1 - lr,
            ),
            Mistake(
                "that is k2, lr²/2: biased, though close to it where the two policies are close.",
                lambda lr: lr**2 / 2,
                lambda lr: lr**2,
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
            Mistake(
                "the samples are added up: one estimate for each is asked for.", lambda lr: kl_k3(lr).sum()
            ),
        ),
    ),
}


PENALTIES = Puzzle(
    options=("no penalty at all", "the penalty", "another penalty"),
    answers={"k1": "no penalty at all", "k2": "the penalty", "k3": "another penalty"},
    look={
        "k1": "∇k1 = ∇ log π. What is the mean of ∇ log π over samples from π?",
        "k2": "∇k2 = lr ∇ log π. Compare it with the second term of ∇E[k1], and recall E[∇ log π] = 0.",
        "k3": "∇k3 = (1 − e^(−lr)) ∇ log π. What does π e^(−lr) make of a mean over π?",
    },
    why={
        "k1": "E[∇k1] = E[∇ log π] = 0: on average nothing happens.",
        "k2": "E[∇k2] = E[lr ∇ log π], which is the gradient of KL(π‖π_ref), exactly.",
        "k3": "E[∇k3] = −E_{π_ref}[∇ log π], the gradient of KL(π_ref‖π): the other way round.",
    },
)
BUGS = Puzzle(
    options=(
        "KL sign flipped",
        "end token dropped",
        "reward on padding",
        "ratio to itself",
        "sampled at T = 0.7",
        "dropout on",
    ),
    answers={"A": "ratio to itself", "B": "sampled at T = 0.7", "C": "reward on padding"},
    look={
        "A": "Its score does not move, but its KL does. What moves the policy, if not the policy's loss?",
        "B": "Look to the left of the dotted line, where nothing has been trained yet.",
        "C": "Not even its KL moves. What is every advantage, when no response token gets a reward?",
    },
    why={
        "A": "A ratio that is always 1 has no gradient. The critic's loss still moves the trunk they share.",
        "B": "Before any training its score is higher and its entropy lower: the sampler is another policy.",
        "C": "No score arrives and the KL is 0, so all rewards are 0, and so are all advantages.",
    },
)
RLHF_PUZZLES = {"which is a penalty": PENALTIES, "which PPO bug": BUGS}
