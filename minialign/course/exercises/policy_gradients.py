"""The exercises of notebook 03."""

import copy
from functools import lru_cache

import torch
import torch.nn.functional as F

from minialign.chat import Batch, load_chat
from minialign.course.exercises.exercise import EPSILONS, Exercise, Mistake
from minialign.course.exercises.puzzle import Puzzle
from minialign.course.experiments.relaxations import one_hot_straight_through
from minialign.gpt import GPT, GPTConfig
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.policy_gradient import reinforce_loss, reward_to_go, rloo_advantages
from minialign.tokenizer import load_tokenizer
from minialign.world.exact import optimal_baseline


@lru_cache(maxsize=8)
def _small_gpt(seed: int) -> GPT:
    config = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8)
    return GPT(config, seed=seed).eval()


def _model_and_batch(generator):
    """A small GPT and a batch of two conversations of different lengths."""
    seed = int(torch.randint(1000, (1,), generator=generator))
    return copy.deepcopy(_small_gpt(seed)), load_chat().collate(
        [("Why?", f"Because {seed} is so."), (f"Who was {seed}, then?", "Me.")]
    )


def _rewards_and_baseline(generator):
    """Log-probabilities of five responses, their rewards, and the baseline of a value network.

    Two of the three carry gradients.
    """
    log_probs, rewards, baseline = torch.randn(3, 5, generator=generator)
    return log_probs.requires_grad_(), rewards, baseline.requires_grad_()


def _distribution(generator):
    logits, rewards, squared_score = torch.randn(3, 6, generator=generator)
    return logits.softmax(-1), rewards, squared_score.exp()


def _rewards(generator):
    """Rewards of 2 to 6 samples (or tokens) in each of three rows."""
    k = int(torch.randint(2, 7, (1,), generator=generator))
    return (torch.randn(3, k, generator=generator),)


def _logits_and_draws(generator):
    """Logits (2, 3, 6) that carry gradients, and a token drawn from each row."""
    logits = torch.randn(2, 3, 6, generator=generator)
    drawn = torch.multinomial(logits.softmax(-1).flatten(0, 1), 1, generator=generator).view(2, 3)
    return logits.requires_grad_(), drawn


def _by_masked_sum(weights):
    """log π(y|x) with each token counted `weights(batch)` times, (B, T)."""
    return lambda model, batch: (token_log_probs(model, batch) * weights(batch)).sum(-1)


def _is_last(batch: Batch) -> torch.Tensor:
    """True on the last token of each response: the end token."""
    return batch.response_mask & ~batch.response_mask.roll(-1, 1)


def _everything_but_padding(model, batch: Batch) -> torch.Tensor:
    after_the_first = batch.mask & (torch.arange(batch.ids.shape[1]) > 0)
    return sequence_log_probs(model, Batch(batch.ids, batch.mask, after_the_first))


def _gathered(model, batch: Batch, shift: int = 1, normalise=lambda logits: logits.log_softmax(-1)):
    """What the model gives at t to the token at t + shift, (B, T − shift)."""
    logits = model(batch.ids, batch.mask)[:, : batch.ids.shape[1] - shift]
    return normalise(logits).gather(-1, batch.ids[:, shift:, None])[..., 0]


def _added_up(normalise):
    """log π(y|x) with the logits normalised in another way."""
    return lambda model, batch: (
        _gathered(model, batch, normalise=normalise) * batch.response_mask[:, 1:]
    ).sum(-1)


def _centred(rewards):
    return rewards - rewards.mean(-1, keepdim=True)


def _grpo(epsilon: float, correction: int):
    """GRPO's advantages (Shao et al. 2024)."""
    return lambda r: _centred(r) / (r.std(-1, correction=correction, keepdim=True) + epsilon)


def _discounted(gamma: float):
    def discounted(rewards):
        weights = gamma ** torch.arange(rewards.shape[-1])
        return reward_to_go(rewards * weights) / weights

    return discounted


def _whitened(values, shift: bool = True, epsilon: float = 0.0, correction: int = 1):
    """Values of standard deviation 1 and, with `shift`, of mean 0."""
    return (values - shift * values.mean()) / (values.std(correction=correction) + epsilon)


def _whitened_loss(**how):
    return lambda lp, r, b: reinforce_loss(lp, _whitened(r - b.detach(), **how))


def _one_hot(logits, drawn):
    return F.one_hot(drawn, logits.shape[-1]).to(logits.dtype)


POLICY_GRADIENTS = {
    "sequence_log_probs": Exercise(
        sequence_log_probs,
        _model_and_batch,
        (
            Mistake(
                "you average over the tokens: add their log-probabilities up; the mean is another "
                "objective (notebook 03, section 8).",
                _by_masked_sum(lambda batch: 1 / batch.response_mask.sum(-1, keepdim=True)),
            ),
            Mistake(
                "the end token is missing: that the response stops "
                "here is a choice of the policy like any other.",
                _by_masked_sum(lambda batch: ~_is_last(batch)),
            ),
            Mistake(
                "the first token of the response is missing: the last token of the prompt predicts it.",
                _by_masked_sum(lambda batch: batch.response_mask.roll(1, 1)),
            ),
            Mistake(
                "the prompt's tokens are counted: it is given, so log π(y|x) has the response's tokens only.",
                _everything_but_padding,
            ),
            Mistake(
                "logits and ids are not shifted: logits at t predict token t + 1.",
                lambda model, batch: (_gathered(model, batch, shift=0) * batch.response_mask).sum(-1),
            ),
            Mistake(
                "the log-probabilities are detached from the model: nothing could learn from them.",
                lambda model, batch: sequence_log_probs(model, batch).detach(),
            ),
            Mistake(
                "the mask is off by one: shift it together with the ids, response_mask[:, 1:].",
                lambda model, batch: (_gathered(model, batch) * batch.response_mask[:, :-1]).sum(-1),
            ),
            Mistake(
                "the logits are not normalised: apply log_softmax before you gather.",
                _added_up(lambda logits: logits),
            ),
            Mistake(
                "log_softmax runs over the wrong axis: the vocabulary is the last one.",
                _added_up(lambda logits: logits.log_softmax(1)),
                _added_up(lambda logits: logits.log_softmax(0)),
            ),
            Mistake(
                "no mask is used: prompt and padding are counted, too. "
                "Multiply by the shifted response mask before you add up.",
                lambda model, batch: _gathered(model, batch).sum(-1),
            ),
            Mistake(
                "you return a number for each token: add them up along each row.",
                token_log_probs,
                lambda model, batch: token_log_probs(model, batch)[:, 1:],
                _gathered,
            ),
            Mistake(
                "you add up the whole batch: one number for each row, so sum over the last axis only.",
                lambda model, batch: sequence_log_probs(model, batch).sum(),
            ),
            Mistake(
                "these are probabilities: log p(y|x) is the sum of logarithms.",
                lambda model, batch: sequence_log_probs(model, batch).exp(),
            ),
            Mistake(
                "the sign is wrong: a log-probability is never positive.",
                lambda model, batch: -sequence_log_probs(model, batch),
            ),
        ),
        errors=(
            Mistake(
                "gather wants an index with as many axes as the log-probabilities: "
                "ids[:, 1:, None], and take the extra axis away afterwards, [..., 0].",
                lambda model, batch: model(batch.ids, batch.mask).gather(-1, batch.ids),
            ),
            Mistake(
                "gather keeps an axis of length 1 at the end: take it away, [..., 0], before you mask.",
                lambda model, batch: _gathered(model, batch)[..., None] * batch.response_mask[:, 1:],
            ),
        ),
    ),
    "reinforce_loss": Exercise(
        reinforce_loss,
        _rewards_and_baseline,
        (
            Mistake(
                "the sign is wrong: an optimizer makes the loss small, "
                "so the loss is *minus* what we want more of.",
                lambda lp, r, b: -reinforce_loss(lp, r, b),
            ),
            Mistake(
                "the baseline is not detached: gradients flow into the network that made it, and it "
                "learns to be low instead of right.",
                lambda lp, r, b: -((r - b) * lp).mean(),
            ),
            Mistake(
                "the sign is wrong, and the baseline is not detached.", lambda lp, r, b: ((r - b) * lp).mean()
            ),
            Mistake(
                "the log-probabilities are detached: nothing is left to learn from.",
                lambda lp, r, b: -((r - b).detach() * lp.detach()).mean(),
            ),
            Mistake("the baseline is not used.", lambda lp, r, b: reinforce_loss(lp, r)),
            Mistake("the baseline is added: subtract it.", lambda lp, r, b: reinforce_loss(lp, r, -b)),
            Mistake(
                "you take the probability, not its logarithm.",
                lambda lp, r, b: -((r - b).detach() * lp.exp()).mean(),
            ),
            Mistake(
                "you add up the responses: take their mean.",
                lambda lp, r, b: reinforce_loss(lp, r, b) * len(lp),
            ),
            Mistake(
                "you return a loss for each response: take the mean of all.",
                lambda lp, r, b: -(r - b).detach() * lp,
                lambda lp, r, b: -(r - b) * lp,
            ),
            Mistake(
                "r − b needs brackets: log π multiplies the whole of it.",
                lambda lp, r, b: -(r - b.detach() * lp).mean(),
                lambda lp, r, b: -(r - b * lp).mean(),
                lambda lp, r, b: -(r * lp - b.detach()).mean(),
                lambda lp, r, b: -(r * lp - b).mean(),
            ),
            Mistake(
                "the advantages are whitened (mean taken away, divided by the standard deviation): "
                "many do that, but here r − b is asked for.",
                *(_whitened_loss(epsilon=e, correction=c) for e in (0, *EPSILONS) for c in (0, 1)),
                _whitened_loss(shift=False),
                lambda lp, r, b: reinforce_loss(lp, _whitened(r)),
            ),
        ),
    ),
    "optimal_baseline": Exercise(
        optimal_baseline,
        _distribution,
        (
            Mistake(
                "this is the mean reward, a good baseline: "
                "the best one weighs the rewards by ‖∇ log π‖² too.",
                lambda p, r, s: (p * r).sum(),
            ),
            Mistake(
                "the probabilities are missing: both are expectations under the policy.",
                lambda p, r, s: (s * r).sum() / s.sum(),
            ),
            Mistake(
                "the probabilities are missing in the denominator: "
                "it is an expectation under the policy, too.",
                lambda p, r, s: (p * s * r).sum() / s.sum(),
            ),
            Mistake(
                "the denominator is missing: divide by E[‖∇ log π‖²].", lambda p, r, s: (p * s * r).sum()
            ),
            Mistake(
                "you take the square root of ‖∇ log π‖²: the variance has the square.",
                lambda p, r, s: optimal_baseline(p, r, s.sqrt()),
            ),
            Mistake(
                "you square ‖∇ log π‖² once more: the argument is the square already.",
                lambda p, r, s: optimal_baseline(p, r, s**2),
            ),
            Mistake(
                "the sign is wrong: set the derivative of E[(r − b)² s] to zero again.",
                lambda p, r, s: -optimal_baseline(p, r, s),
            ),
            Mistake(
                "this is the plain mean of the rewards: weigh them by their probabilities and by ‖∇ log π‖².",
                lambda p, r, s: r.mean(),
            ),
            Mistake(
                "‖∇ log π‖² is missing in the numerator: it weighs the rewards, too.",
                lambda p, r, s: (p * r).sum() / (p * s).sum(),
            ),
        ),
    ),
    "rloo_advantages": Exercise(
        rloo_advantages,
        _rewards,
        (
            Mistake(
                "the baseline includes the sample's own reward: "
                "that shrinks the gradient by (k − 1)/k. Leave it out.",
                _centred,
            ),
            Mistake(
                "the sum you divide by k − 1 still holds the sample's own reward: take it out first.",
                lambda r: r - r.sum(-1, keepdim=True) / (r.shape[-1] - 1),
            ),
            Mistake(
                "the sum of the others is divided by k: there are k − 1 of them.",
                lambda r: r - (r.sum(-1, keepdim=True) - r) / r.shape[-1],
            ),
            Mistake(
                "the mean runs over all prompts: "
                "compare samples of the same prompt only, along the last axis.",
                lambda r: r - (r.sum() - r) / (r.numel() - 1),
            ),
            Mistake(
                "the mean runs over everything, the sample's own reward included: "
                "take the other samples of the same prompt, along the last axis.",
                lambda r: r - r.mean(),
                _whitened,
            ),
            Mistake(
                "the mean runs over the prompts: the samples of a prompt lie along the last axis.",
                lambda r: rloo_advantages(r.T).T,
                lambda r: r - r.mean(0, keepdim=True),
            ),
            Mistake("this is the baseline: subtract it from the reward.", lambda r: r - rloo_advantages(r)),
            Mistake(
                "the sign is wrong: a sample better than the others has a positive advantage.",
                lambda r: -rloo_advantages(r),
            ),
            Mistake(
                "you divide by the standard deviation: leave-one-out does not.",
                lambda r: rloo_advantages(r) / r.std(-1, keepdim=True),
            ),
            Mistake(
                "this is GRPO's advantage: leave-one-out keeps the sample's own reward out of the mean, "
                "and does not divide by the standard deviation.",
                *(_grpo(epsilon, correction) for epsilon in (0, *EPSILONS) for correction in (0, 1)),
            ),
        ),
        errors=(
            Mistake(
                "a sum or mean over the last axis has lost this axis; keepdim=True keeps it.",
                lambda r: r - r.sum(-1),
                lambda r: r.sum(-1) - r,
            ),
        ),
    ),
    "straight_through": Exercise(
        one_hot_straight_through,
        _logits_and_draws,
        (
            Mistake(
                "the rows are one-hot and have no slope: add something that is 0 going forward and has one.",
                _one_hot,
                lambda logits, drawn: _one_hot(logits, drawn) + logits.softmax(-1) - logits.softmax(-1),
            ),
            Mistake(
                "these are the probabilities: going forward the rows must be one-hot.",
                lambda logits, drawn: logits.softmax(-1),
            ),
            Mistake(
                "one-hot rows and probabilities are added up: take the probabilities away again, detached.",
                lambda logits, drawn: _one_hot(logits, drawn) + logits.softmax(-1),
            ),
            Mistake(
                "the sign of the slope is wrong: detach what you take away, not what you add.",
                lambda logits, drawn: (
                    _one_hot(logits, drawn) + logits.softmax(-1).detach() - logits.softmax(-1)
                ),
            ),
            Mistake(
                "the slope is that of the logits themselves: probabilities have that of their softmax.",
                lambda logits, drawn: _one_hot(logits, drawn) + logits - logits.detach(),
            ),
            Mistake(
                "the slope is that of log π: the rows stand in for probabilities, so use softmax.",
                lambda logits, drawn: (
                    _one_hot(logits, drawn) + logits.log_softmax(-1) - logits.log_softmax(-1).detach()
                ),
            ),
            Mistake(
                "only the drawn token has a slope: the others' probabilities change with the logits, too.",
                lambda logits, drawn: (
                    _one_hot(logits, drawn) * (1 + logits.softmax(-1) - logits.softmax(-1).detach())
                ),
                lambda logits, drawn: (
                    _one_hot(logits, drawn) * logits.softmax(-1) / logits.softmax(-1).detach()
                ),
            ),
            Mistake(
                "the choice is multiplied by its probability: going forward the rows must be one-hot.",
                lambda logits, drawn: _one_hot(logits, drawn) * logits.softmax(-1),
            ),
            Mistake(
                "softmax runs over the wrong axis: the vocabulary is the last one.",
                *(
                    lambda logits, drawn, axis=axis: (
                        _one_hot(logits, drawn) + logits.softmax(axis) - logits.softmax(axis).detach()
                    )
                    for axis in (0, 1)
                ),
            ),
            Mistake(
                "you take the most probable token: take the one that was drawn.",
                lambda logits, drawn: one_hot_straight_through(logits, logits.argmax(-1)),
            ),
            Mistake(
                "you draw tokens of your own: take those that were drawn.",
                lambda logits, drawn: F.gumbel_softmax(logits, hard=True),
            ),
        ),
        errors=(
            Mistake(
                "the one-hot rows are whole numbers: turn them into the type of the logits.",
                lambda logits, drawn: F.one_hot(drawn, logits.shape[-1]).requires_grad_(),
            ),
        ),
    ),
    "reward_to_go": Exercise(
        reward_to_go,
        _rewards,
        (
            Mistake(
                "you add up what came before: a token cannot change the past. Sum from t to the end.",
                lambda r: r.cumsum(-1),
            ),
            Mistake("the token's own reward is missing: the sum starts at t.", lambda r: reward_to_go(r) - r),
            Mistake(
                "every token gets the whole reward: leave out what came before it.",
                lambda r: r.sum(-1, keepdim=True).expand_as(r),
            ),
            Mistake(
                "the sum runs over the batch: time is the last axis.", lambda r: r.flip(0).cumsum(0).flip(0)
            ),
            Mistake(
                "the order is reversed: flip back after the cumulative sum.", lambda r: r.flip(-1).cumsum(-1)
            ),
            Mistake(
                "you flip after the cumulative sum only: flip before it, too, so that it starts at the end.",
                lambda r: r.cumsum(-1).flip(-1),
            ),
            Mistake(
                "you flip along time, but add up along the batch: both must run along the last axis.",
                lambda r: r.flip(-1).cumsum(0),
                lambda r: r.cumsum(0),
            ),
            Mistake(
                "later rewards are discounted: here each counts in full.",
                *map(_discounted, (0.5, 0.9, 0.95, 0.99)),
            ),
        ),
    ),
}


BIASED = Puzzle(
    options=("unbiased", "too short", "another direction"),
    answers={
        "A": "too short",
        "B": "unbiased",
        "C": "another direction",
        "D": "another direction",
        "E": "another direction",
    },
    look={
        "A": "Is the sample's own reward in what is taken off? Write r₁ − (r₁ + r₂)/2 without brackets.",
        "B": "Does what is taken off depend on this update's samples at all?",
        "C": "Taking the mean off is as in A. Which pairs does the division make larger, which smaller?",
        "D": "Is the number that is taken off the same for every response that might have been drawn?",
        "E": "When is the other sample's reward taken off, and when the sample's own?",
    },
    why={
        "A": "r₁ − (r₁ + r₂)/2 is half of r₁ − r₂: with k samples it is (k − 1)/k of what it should be.",
        "B": "What was drawn earlier is independent of what is drawn now.",
        "C": "With two samples the sign of r₁ − r₂ is left: by how much one is better is lost.",
        "D": "Short and long responses are compared with different numbers: the baseline depends on y.",
        "E": "Of the two the better one always gets 0 and the worse one less: that depends on y, too.",
    },
)
BUGS = Puzzle(
    options=("averaged over tokens", "end token dropped", "no baseline"),
    answers={"A": "end token dropped", "B": "no baseline", "C": "averaged over tokens"},
    look={
        "A": "Gold is as it should be. Which kind of words do fewer answers have, and where do those stand?",
        "B": "All of it is on the way to what correct training gives. What makes an update worth less?",
        "C": "Only one thing differs from correct training. What punishes a long bad answer less?",
    },
    why={
        "A": "Gold is right, but fewer answers have a polite word: many come last, where one may stop.",
        "B": "It goes the right way, and not as far: the same updates with more noise.",
        "C": "The answers are longer than with correct training: a bad one costs less if it is long.",
    },
)
POLICY_GRADIENT_PUZZLES = {"which is biased": BIASED, "which change": BUGS}
