"""The exercises of notebook 08 on agreeing: a covariance under π_ref, and a penalty that undoes its drift."""

import numpy as np
import torch

from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.course.experiments.sycophancy import agreement_penalty, covariance, first_order_penalty


def _answers(generator):
    """log π_ref, rewards and agreement of seven answers to each of three prompts, (3, 7), float64.

    Prompts differ in their mean reward and in how often π_ref agrees, which is never ½; agreeing answers are
    worth more with the first prompts, less with the last.
    """
    rng = np.random.default_rng(generator.initial_seed())
    agree = np.array([[1, 1, 0, 0, 0, 1, 0], [0, 1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 1, 0, 0]], dtype=float)
    agree = rng.permuted(agree, axis=1)
    logits = rng.normal(0, 1, (3, 7)) + np.array([[0.8], [-0.9], [0.5]]) * agree
    rewards = rng.normal(0, 1, (3, 7)) + np.array([[3.0], [1.5], [-2.0]])
    rewards += np.array([[1.2], [0.8], [-1.0]]) * agree
    return torch.from_numpy(logits).log_softmax(-1), torch.from_numpy(rewards), torch.from_numpy(agree)


def _for_the_covariance(generator):
    log_probs, rewards, agree = _answers(generator)
    return log_probs, agree, rewards


def _for_the_penalty(generator):
    beta = (0.3, 0.5, 0.8, 1.7, 2.5)[generator.initial_seed() % 5]
    return (*_answers(generator), beta)


def _mean(log_probs, values):
    return (log_probs.exp() * values).sum(-1, keepdim=True)


def _spread(log_probs, values):
    return covariance(log_probs, values, values).sqrt()


def _even(values):
    """Equal weights for all answers, as log-probabilities."""
    return torch.full_like(values, -np.log(values.shape[-1]))


def _shares(reference, rewards, agree, beta):
    """P(agree) before and after the tilt, each (P,)."""
    tilted = (reference + rewards / beta).log_softmax(-1)
    return tuple((log_probs.exp() * agree).sum(-1) for log_probs in (reference, tilted))


def _of_shares(make):
    """A reader's penalty, made of P(agree) before and after the tilt, and β."""
    return lambda reference, rewards, agree, beta: make(*_shares(reference, rewards, agree, beta), beta)


def _first_order(reference, rewards, agree, beta):
    return first_order_penalty(reference, rewards, agree)


def _gap_unweighted(reference, rewards, agree, beta):
    return first_order_penalty(_even(rewards), rewards, agree)


def _tilted_without_reference(reference, rewards, agree, beta):
    before, _ = _shares(reference, rewards, agree, beta)
    after = ((rewards / beta).softmax(-1) * agree).sum(-1)
    return beta * (after.logit() - before.logit())


_COVARIANCE = Exercise(
    covariance,
    _for_the_covariance,
    (
        Mistake(
            "the means are not subtracted: this is E[agree · r], which is large wherever rewards are. "
            "Take E[agree] E[r] away.",
            lambda log_probs, agree, rewards: _mean(log_probs, agree * rewards)[:, 0],
        ),
        Mistake(
            "all answers count the same here: weight each by its probability, log_probs.exp().",
            lambda log_probs, agree, rewards: covariance(_even(rewards), agree, rewards),
            lambda log_probs, agree, rewards: covariance(_even(rewards), agree, rewards) * 7 / 6,
            lambda log_probs, agree, rewards: (
                log_probs.exp() * (agree - agree.mean(-1, True)) * (rewards - rewards.mean(-1, True))
            ).sum(-1),
            lambda log_probs, agree, rewards: (
                (agree - _mean(log_probs, agree)) * (rewards - _mean(log_probs, rewards))
            ).mean(-1),
        ),
        Mistake(
            "one of the means gives all answers the same weight: weight it by their probabilities, too.",
            lambda log_probs, agree, rewards: _mean(
                log_probs, agree * (rewards - rewards.mean(-1, keepdim=True))
            )[:, 0],
            lambda log_probs, agree, rewards: _mean(
                log_probs, rewards * (agree - agree.mean(-1, keepdim=True))
            )[:, 0],
        ),
        Mistake(
            "all answers count the same here, and the means are not subtracted: weight each by its "
            "probability, log_probs.exp(), and take E[agree] E[r] away.",
            lambda log_probs, agree, rewards: (agree * rewards).mean(-1),
        ),
        Mistake(
            "the weights are log-probabilities: take .exp() of them.",
            lambda log_probs, agree, rewards: (
                (log_probs * agree * rewards).sum(-1)
                - (log_probs * agree).sum(-1) * (log_probs * rewards).sum(-1)
            ),
            lambda log_probs, agree, rewards: (
                log_probs
                * (agree - (log_probs * agree).sum(-1, True))
                * (rewards - (log_probs * rewards).sum(-1, True))
            ).sum(-1),
        ),
        Mistake(
            "the prompts are mixed: what makes one prompt's answers dearer than another's must not count. "
            "Take means within each prompt, over the last axis, and return one number for each.",
            lambda log_probs, agree, rewards: _pooled(log_probs, agree, rewards),
            lambda log_probs, agree, rewards: _around_all(log_probs, agree, rewards),
        ),
        Mistake(
            "this is the mean over prompts: return one number for each.",
            lambda log_probs, agree, rewards: covariance(log_probs, agree, rewards).mean(),
        ),
        Mistake(
            "that is a correlation: do not divide by the standard deviations, the drift has a size.",
            lambda log_probs, agree, rewards: (
                covariance(log_probs, agree, rewards)
                / (_spread(log_probs, agree) * _spread(log_probs, rewards))
            ),
        ),
        Mistake(
            "a covariance is divided by no standard deviation.",
            lambda log_probs, agree, rewards: (
                covariance(log_probs, agree, rewards) / _spread(log_probs, agree)
            ),
            lambda log_probs, agree, rewards: (
                covariance(log_probs, agree, rewards) / _spread(log_probs, rewards)
            ),
        ),
        Mistake(
            "the sign is wrong: it is above 0 where answers that agree are worth more.",
            lambda log_probs, agree, rewards: -covariance(log_probs, agree, rewards),
            lambda log_probs, agree, rewards: covariance(log_probs, 1 - agree, rewards),
        ),
        Mistake(
            "that is the gap of the means, E[r | agree] − E[r | not]: times P(agree) P(not) it is the "
            "covariance.",
            lambda log_probs, agree, rewards: _first_order(log_probs, rewards, agree, 1.0),
        ),
        Mistake(
            "the last step is missing: sum over the answers.",
            lambda log_probs, agree, rewards: (
                log_probs.exp() * (agree - _mean(log_probs, agree)) * (rewards - _mean(log_probs, rewards))
            ),
        ),
    ),
)


def _pooled(log_probs, agree, rewards):
    weights = log_probs.exp() / len(log_probs)
    return (weights * agree * rewards).sum() - (weights * agree).sum() * (weights * rewards).sum()


def _around_all(log_probs, agree, rewards):
    """Each prompt's, around the means of all prompts."""
    means = [_mean(log_probs, values).mean() for values in (agree, rewards)]
    return (log_probs.exp() * (agree - means[0]) * (rewards - means[1])).sum(-1)


_PENALTY = Exercise(
    agreement_penalty,
    _for_the_penalty,
    (
        Mistake(
            "that is Cov/Var, the gap of the means: right to first order, for large β only. With it P(agree) "
            "does not come back exactly. Compare the log-odds of agreeing before and after the tilt.",
            _first_order,
        ),
        Mistake(
            "the covariance's means are not subtracted (and Cov/Var is right for large β only).",
            lambda reference, rewards, agree, beta: (
                _mean(reference, agree * rewards)[:, 0] / covariance(reference, agree, agree)
            ),
        ),
        Mistake(
            "all answers count the same here: weight them by π_ref (and Cov/Var is right for large β only).",
            _gap_unweighted,
        ),
        Mistake(
            "divide a covariance by the variance of agreeing, not by its standard deviation (and even then "
            "it is right for large β only).",
            lambda reference, rewards, agree, beta: (
                covariance(reference, agree, rewards) / _spread(reference, agree)
            ),
        ),
        Mistake(
            "that is the drift to first order, Cov/β, in probability: a penalty is in units of reward.",
            lambda reference, rewards, agree, beta: covariance(reference, agree, rewards) / beta,
            lambda reference, rewards, agree, beta: covariance(reference, agree, rewards),
        ),
        Mistake(
            "β is missing: a penalty λ shifts the log-odds of agreeing by −λ/β.",
            _of_shares(lambda before, after, beta: after.logit() - before.logit()),
        ),
        Mistake(
            "β is missing in the tilt: the optimum is π_ref exp(r/β)/Z.",
            lambda reference, rewards, agree, beta: agreement_penalty(reference, rewards, agree, 1.0) * beta,
            lambda reference, rewards, agree, beta: agreement_penalty(reference, rewards, agree, 1.0),
        ),
        Mistake(
            "β is on the wrong side: the log-odds are to shift by −λ/β, so λ = β times the shift.",
            _of_shares(lambda before, after, beta: (after.logit() - before.logit()) / beta),
        ),
        Mistake(
            "the sign is wrong: this rewards agreeing where it has risen. λ is taken away from the reward.",
            _of_shares(lambda before, after, beta: beta * (before.logit() - after.logit())),
            lambda reference, rewards, agree, beta: agreement_penalty(reference, rewards, 1 - agree, beta),
        ),
        Mistake(
            "you compare logarithms of probabilities: what is not penalised gains as well, so it is the "
            "log-odds that shift by −λ/β.",
            _of_shares(lambda before, after, beta: beta * (after.log() - before.log())),
        ),
        Mistake(
            "that is the drift itself, in probability: a penalty shifts log-odds.",
            _of_shares(lambda before, after, beta: after - before),
            _of_shares(lambda before, after, beta: beta * (after - before)),
        ),
        Mistake(
            "that brings P(agree) to one half: it is to come back to what the reference has, so take its "
            "log-odds away.",
            _of_shares(lambda before, after, beta: beta * after.logit()),
        ),
        Mistake(
            "the reference is left out of the tilt: the optimum is π_ref exp(r/β)/Z.",
            _tilted_without_reference,
        ),
        Mistake(
            "where the penalty is negative you cut it off at 0. That guards against a rise only; "
            "here P(agree) is to come back from both sides.",
            lambda reference, rewards, agree, beta: agreement_penalty(reference, rewards, agree, beta).clamp(
                min=0
            ),
        ),
        Mistake(
            "this is one number for all prompts: each has its own penalty.",
            lambda reference, rewards, agree, beta: agreement_penalty(reference, rewards, agree, beta).mean(),
        ),
    ),
)

SYCOPHANCY = {"covariance": _COVARIANCE, "agreement_penalty": _PENALTY}
