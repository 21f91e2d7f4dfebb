"""The exercises of notebook 00."""

import torch

from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.sampling import next_token_probabilities
from minialign.statistics import standard_error
from minialign.world.judge import WEIGHTS, weighted_sum


def _attributes(generator):
    """Signed values, as in life: brevity, honesty and correctness can be costs."""
    values = 2 * torch.rand(len(WEIGHTS), generator=generator) - 1
    return ({name: round(float(value), 3) for name, value in zip(WEIGHTS, values)},)


WARM_UP = {
    "weighted_sum": Exercise(
        weighted_sum,
        _attributes,
        (
            Mistake(
                "you add the attributes without their weights: multiply each by WEIGHTS[name].",
                lambda a: float(sum(a.values())),
            ),
            Mistake(
                "you average instead of adding: gold is a sum, do not divide.",
                lambda a: weighted_sum(a) / len(a),
            ),
            Mistake(
                "the weights lost their signs: "
                "a negative weight makes an attribute a cost, so do not take its size.",
                lambda a: sum(abs(WEIGHTS[name]) * value for name, value in a.items()),
            ),
            Mistake(
                "the values lost their signs: a cost such as brevity comes with a value below zero, "
                "so do not take its size.",
                lambda a: weighted_sum({name: abs(value) for name, value in a.items()}),
            ),
            Mistake(
                "the terms lost their signs: a cost lowers the sum, so add each term as it is.",
                lambda a: sum(abs(WEIGHTS[name] * value) for name, value in a.items()),
            ),
        ),
    ),
    "next_token_probabilities": Exercise(
        next_token_probabilities,
        lambda generator: (random_logits(generator)[0], 0.5),
        (
            Mistake(
                "you multiply by the temperature: divide, so that a low temperature sharpens.",
                lambda x, t: (x * t).softmax(-1),
            ),
            Mistake(
                "the softmax runs over the wrong axis: the vocabulary is the last one.",
                lambda x, t: (x / t).softmax(0),
                lambda x, t: (x / t).softmax(1),
            ),
            Mistake(
                "all numbers together add up to 1: each row is a distribution of its own, "
                "so normalise over the last axis.",
                lambda x, t: (x / t).flatten().softmax(0).view_as(x),
            ),
            Mistake(
                "these are log-probabilities: softmax gives probabilities, log_softmax their logarithms.",
                lambda x, t: next_token_probabilities(x, t).log(),
            ),
            Mistake(
                "you divide the probabilities, not the logits: divide before the softmax.",
                lambda x, t: x.softmax(-1) / t,
            ),
            Mistake("the temperature is not used.", lambda x, t: x.softmax(-1)),
        ),
        errors=(
            Mistake(
                "the sum over the vocabulary has lost its axis; keepdim=True keeps it.",
                lambda x, t: x / x.sum(-1),
            ),
        ),
    ),
    "standard_error": Exercise(
        standard_error,
        lambda generator: (torch.randn(12, generator=generator).numpy(),),
        (
            Mistake(
                "this is the standard deviation of one value: divide by √n to get that of the mean.",
                lambda v: v.std(ddof=1),
            ),
            Mistake(
                "you divide by n inside the standard deviation: use n − 1 (ddof=1).",
                lambda v: v.std() / len(v) ** 0.5,
            ),
            Mistake(
                "you divide by n: the error of a mean falls with √n only.", lambda v: v.std(ddof=1) / len(v)
            ),
            Mistake(
                "this is the variance of the mean: take its square root.", lambda v: v.var(ddof=1) / len(v)
            ),
            Mistake(
                "np.std alone is the deviation of one value, and divides by n: "
                "use n − 1 (ddof=1), then divide by √n.",
                lambda v: v.std(),
            ),
            Mistake(
                "this is half the width of a 95 % interval: "
                "the standard error is asked for, without the factor of about two.",
                lambda v: 1.96 * standard_error(v),
                lambda v: 2 * standard_error(v),
            ),
        ),
    ),
}
