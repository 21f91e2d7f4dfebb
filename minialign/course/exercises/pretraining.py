"""The exercises of notebook 01."""

import torch
import torch.nn.functional as F

from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.logprobs import perplexity_of
from minialign.pretraining import pretraining_loss, shifted
from minialign.tokenizer import merge

PRETRAINING = {
    "merge": Exercise(
        merge,
        lambda generator: (torch.randint(2, (14,), generator=generator).tolist() + [1, 1, 1], (1, 1), 9),
        (
            Mistake(
                "only the first pair is merged: go on to the end of the sequence.",
                lambda s, p, new: _merge_first(s, p, new),
            ),
            Mistake(
                "two merges share a token: after a merge go on "
                "behind both of its tokens, so that 1 1 1 becomes 9 1.",
                lambda s, p, new: _merge_overlapping(s, p, new),
            ),
            Mistake("nothing is merged: replace the two tokens by the new one.", lambda s, p, new: list(s)),
        ),
    ),
    "shifted": Exercise(
        shifted,
        lambda generator: (random_logits(generator)[1],),
        (
            Mistake(
                "input and target are the same token: "
                "a model that copies would be perfect. Move the targets.",
                lambda x: (x[:, :-1], x[:, :-1]),
            ),
            Mistake(
                "the shift goes the wrong way: this predicts the token before, not the next.",
                lambda x: (x[:, 1:], x[:, :-1]),
            ),
            Mistake("you shift by two: the target is the very next token.", lambda x: (x[:, :-2], x[:, 2:])),
            Mistake(
                "you shift along the batch: the tokens run along the second axis.", lambda x: (x[:-1], x[1:])
            ),
        ),
    ),
    "pretraining_loss": Exercise(
        pretraining_loss,
        random_logits,
        (
            Mistake(
                "you add up the tokens: take their mean.",
                lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="sum"),
            ),
            Mistake(
                "the sign is wrong: the loss is *minus* the log-probability.",
                lambda x, y: -pretraining_loss(x, y),
            ),
            Mistake(
                "you take the probability, not its logarithm.",
                lambda x, y: -x.softmax(-1).gather(-1, y[..., None]).mean(),
            ),
            Mistake(
                "the logits are not normalised: apply log_softmax first.",
                lambda x, y: -x.gather(-1, y[..., None]).mean(),
            ),
            Mistake(
                "this is in bits: use the natural logarithm.",
                lambda x, y: pretraining_loss(x, y) / torch.log(torch.tensor(2.0)),
            ),
        ),
    ),
    "perplexity_of": Exercise(
        perplexity_of,
        lambda generator: (torch.randn(9, generator=generator).abs().neg(),),
        (
            Mistake(
                "the sign is missing: log-probabilities are negative, perplexity is at least 1.",
                lambda lp: lp.mean().exp(),
            ),
            Mistake(
                "you add up the log-probabilities: take their mean, or longer texts look worse.",
                lambda lp: (-lp.sum()).exp(),
            ),
            Mistake(
                "this averages the perplexities of the tokens: average the logarithms first, then exp.",
                lambda lp: (-lp).exp().mean(),
            ),
            Mistake("this is the cross-entropy: perplexity is its exponential.", lambda lp: -lp.mean()),
        ),
    ),
}


def _merge_first(sequence, pair, new):
    for i in range(len(sequence) - 1):
        if tuple(sequence[i : i + 2]) == pair:
            return [*sequence[:i], new, *sequence[i + 2 :]]
    return list(sequence)


def _merge_overlapping(sequence, pair, new):
    merged = [new if tuple(sequence[i : i + 2]) == pair else token for i, token in enumerate(sequence)]
    return merged[:-1] if merged[-2] == new else merged
