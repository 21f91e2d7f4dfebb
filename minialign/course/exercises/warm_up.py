"""The exercises of notebook 00."""

import torch

from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.sampling import next_token_probabilities
from minialign.statistics import standard_error
from minialign.world.judge import WEIGHTS, weighted_sum


def _attributes(generator):
    return ({name: round(float(torch.rand(1, generator=generator)), 3) for name in WEIGHTS},)


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
            ),
            Mistake(
                "you divide the probabilities, not the logits: divide before the softmax.",
                lambda x, t: x.softmax(-1) / t,
            ),
            Mistake("the temperature is not used.", lambda x, t: x.softmax(-1)),
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
        ),
    ),
}
