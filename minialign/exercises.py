"""The exercises of the notebooks: what is asked, on which random inputs it is checked, and how people get it wrong.

The engine is the answer key: each solution is the engine's own function. A known mistake is a function too, so that a check can
recognise it by what it computes, and a test can make sure that it does.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from minialign.evaluation import few_shot_prompt, perplexity_of, reference_f1, standard_error
from minialign.logprobs import kl_divergence
from minialign.pretraining import pretraining_loss, shifted
from minialign.sampling import next_token_probabilities
from minialign.sft import sft_loss
from minialign.tokenizer import merge
from minialign.world.judge import WEIGHTS, weighted_sum, words_of


@dataclass(frozen=True)
class Mistake:
    """A known wrong answer and what to tell the one who gives it."""

    diagnosis: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """`inputs(generator)` draws random arguments for `solution` and for the reader's attempt."""

    solution: Callable
    inputs: Callable[[torch.Generator], tuple]
    mistakes: tuple[Mistake, ...]


def _logits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (2, 6, 5) and token ids (2, 6)."""
    return torch.randn(2, 6, 5, generator=generator), torch.randint(5, (2, 6), generator=generator)


def _masked_logits(generator):
    """The same with a response mask: a prompt of two tokens, a response of two or three, then padding."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    return *_logits(generator), mask


def _attributes(generator):
    return ({name: round(float(torch.rand(1, generator=generator)), 3) for name in WEIGHTS},)


def _log_distributions(generator):
    return tuple(torch.randn(2, 4, 7, generator=generator).log_softmax(-1))


def _sentences(generator):
    words = "the the moon is a big bright rock rock in space".split()

    def sentence(n):
        return " ".join(words[i] for i in torch.randint(len(words), (n,), generator=generator))

    return sentence(8), sentence(5)


def _shots(generator):
    number = int(torch.randint(100, (1,), generator=generator))
    return [(f"What is {number} plus one?", f"It is {number + 1}."), ("What is two plus two?", "It is four.")], "What is one plus one?"


WARM_UP = {
    "weighted_sum": Exercise(
        weighted_sum,
        _attributes,
        (
            Mistake("you add the attributes without their weights: multiply each by WEIGHTS[name].", lambda a: float(sum(a.values()))),
            Mistake("you average instead of adding: gold is a sum, do not divide.", lambda a: weighted_sum(a) / len(a)),
            Mistake(
                "the weights lost their signs: a negative weight makes an attribute a cost, so do not take its size.",
                lambda a: sum(abs(WEIGHTS[name]) * value for name, value in a.items()),
            ),
        ),
    ),
    "next_token_probabilities": Exercise(
        next_token_probabilities,
        lambda generator: (_logits(generator)[0], 0.5),
        (
            Mistake("you multiply by the temperature: divide, so that a low temperature sharpens.", lambda x, t: (x * t).softmax(-1)),
            Mistake("the softmax runs over the wrong axis: the vocabulary is the last one.", lambda x, t: (x / t).softmax(0)),
            Mistake("you divide the probabilities, not the logits: divide before the softmax.", lambda x, t: x.softmax(-1) / t),
            Mistake("the temperature is not used.", lambda x, t: x.softmax(-1)),
        ),
    ),
    "standard_error": Exercise(
        standard_error,
        lambda generator: (torch.randn(12, generator=generator).numpy(),),
        (
            Mistake("this is the standard deviation of one value: divide by √n to get that of the mean.", lambda v: v.std(ddof=1)),
            Mistake("you divide by n inside the standard deviation: use n − 1 (ddof=1).", lambda v: v.std() / len(v) ** 0.5),
            Mistake("you divide by n: the error of a mean falls with √n only.", lambda v: v.std(ddof=1) / len(v)),
            Mistake("this is the variance of the mean: take its square root.", lambda v: v.var(ddof=1) / len(v)),
        ),
    ),
}

PRETRAINING = {
    "merge": Exercise(
        merge,
        lambda generator: (torch.randint(2, (14,), generator=generator).tolist() + [1, 1, 1], (1, 1), 9),
        (
            Mistake("only the first pair is merged: go on to the end of the sequence.", lambda s, p, new: _merge_first(s, p, new)),
            Mistake(
                "two merges share a token: after a merge go on behind both of its tokens, so that 1 1 1 becomes 9 1.",
                lambda s, p, new: _merge_overlapping(s, p, new),
            ),
            Mistake("nothing is merged: replace the two tokens by the new one.", lambda s, p, new: list(s)),
        ),
    ),
    "shifted": Exercise(
        shifted,
        lambda generator: (_logits(generator)[1],),
        (
            Mistake("input and target are the same token: a model that copies would be perfect. Move the targets.", lambda x: (x[:, :-1], x[:, :-1])),
            Mistake("the shift goes the wrong way: this predicts the token before, not the next.", lambda x: (x[:, 1:], x[:, :-1])),
            Mistake("you shift by two: the target is the very next token.", lambda x: (x[:, :-2], x[:, 2:])),
            Mistake("you shift along the batch: the tokens run along the second axis.", lambda x: (x[:-1], x[1:])),
        ),
    ),
    "pretraining_loss": Exercise(
        pretraining_loss,
        _logits,
        (
            Mistake("you add up the tokens: take their mean.", lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="sum")),
            Mistake("the sign is wrong: the loss is *minus* the log-probability.", lambda x, y: -pretraining_loss(x, y)),
            Mistake("you take the probability, not its logarithm.", lambda x, y: -x.softmax(-1).gather(-1, y[..., None]).mean()),
            Mistake("the logits are not normalised: apply log_softmax first.", lambda x, y: -x.gather(-1, y[..., None]).mean()),
            Mistake("this is in bits: use the natural logarithm.", lambda x, y: pretraining_loss(x, y) / torch.log(torch.tensor(2.0))),
        ),
    ),
    "perplexity_of": Exercise(
        perplexity_of,
        lambda generator: (torch.randn(9, generator=generator).abs().neg(),),
        (
            Mistake("the sign is missing: log-probabilities are negative, perplexity is at least 1.", lambda lp: lp.mean().exp()),
            Mistake("you add up the log-probabilities: take their mean, or longer texts look worse.", lambda lp: (-lp.sum()).exp()),
            Mistake("this averages the perplexities of the tokens: average the logarithms first, then exp.", lambda lp: (-lp).exp().mean()),
            Mistake("this is the cross-entropy: perplexity is its exponential.", lambda lp: -lp.mean()),
        ),
    ),
}

FINE_TUNING = {
    "sft_loss": Exercise(
        sft_loss,
        _masked_logits,
        (
            Mistake(
                "the mask is off by one: logits at t predict token t + 1, so shift the mask together with the ids.",
                lambda x, y, m: F.cross_entropy(x[:, :-1][m[:, :-1]], y[:, 1:][m[:, :-1]]),
            ),
            Mistake(
                "logits and ids are not shifted: logits at t predict token t + 1.",
                lambda x, y, m: F.cross_entropy(x[m], y[m]),
            ),
            Mistake(
                "the prompt's tokens (or the padding's) are in the loss: the mask is not used.",
                lambda x, y, m: F.cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
            ),
            Mistake("you add up the tokens: divide by the number of response tokens.", lambda x, y, m: sft_loss(x, y, m) * m.sum()),
            Mistake(
                "you divide by all tokens: divide by the number of response tokens, or padding makes the loss smaller.",
                lambda x, y, m: sft_loss(x, y, m) * m.sum() / m[:, 1:].numel(),
            ),
            Mistake("the sign is wrong: the loss is *minus* the log-probability.", lambda x, y, m: -sft_loss(x, y, m)),
            Mistake(
                "the last response token is missing: that is the end token, and a model that never learns it does not know when to stop.",
                lambda x, y, m: sft_loss(x, y, m & m.roll(-1, 1)),
            ),
        ),
    ),
    "kl_divergence": Exercise(
        kl_divergence,
        _log_distributions,
        (
            Mistake("this is KL(q‖p), the other direction: weigh by p.", lambda p, q: kl_divergence(q, p)),
            Mistake("the sign is wrong: log p − log q; a KL divergence is never negative.", lambda p, q: -kl_divergence(p, q)),
            Mistake("the tokens are not weighed by p: multiply by p before adding up.", lambda p, q: (p - q).sum(-1)),
            Mistake("log p is used as a weight: exponentiate it to get p.", lambda p, q: (p * (p - q)).sum(-1)),
            Mistake("this is the cross-entropy: take the entropy of p away.", lambda p, q: -(p.exp() * q).sum(-1)),
        ),
    ),
    "reference_f1": Exercise(
        reference_f1,
        _sentences,
        (
            Mistake("this is precision only: a one-word answer would be perfect.", lambda r, y: _overlap(r, y) / len(words_of(y))),
            Mistake("this is recall only: an endless answer would be perfect.", lambda r, y: _overlap(r, y) / len(words_of(r))),
            Mistake(
                "repeated words count once only: count with repetition (Counter, not set).",
                lambda r, y: 2 * len(set(words_of(r)) & set(words_of(y))) / (len(set(words_of(r))) + len(set(words_of(y)))),
            ),
            Mistake(
                "this is the arithmetic mean of precision and recall: F1 is the harmonic one.",
                lambda r, y: (_overlap(r, y) / len(words_of(y)) + _overlap(r, y) / len(words_of(r))) / 2,
            ),
        ),
    ),
    "few_shot_prompt": Exercise(
        few_shot_prompt,
        _shots,
        (
            Mistake("the prompt comes first: the examples must stand before it.", lambda e, p: "\n\n".join([p, *(f"{q}\n{a}" for q, a in e)]) + "\n"),
            Mistake("the answers are missing: each example is a prompt *and* its answer.", lambda e, p: "\n\n".join([*(q for q, _ in e), p]) + "\n"),
            Mistake("the last line break is missing: without it the model goes on with the prompt's line.", lambda e, p: few_shot_prompt(e, p)[:-1]),
            Mistake("a single line break between examples: leave an empty line, so that they do not run together.",
                    lambda e, p: few_shot_prompt(e, p).replace("\n\n", "\n")),
        ),
    ),
}  # fmt: skip

EXERCISES: dict[str, Exercise] = WARM_UP | PRETRAINING | FINE_TUNING


def _merge_first(sequence, pair, new):
    for i in range(len(sequence) - 1):
        if tuple(sequence[i : i + 2]) == pair:
            return [*sequence[:i], new, *sequence[i + 2 :]]
    return list(sequence)


def _merge_overlapping(sequence, pair, new):
    merged = [new if tuple(sequence[i : i + 2]) == pair else token for i, token in enumerate(sequence)]
    return merged[:-1] if merged[-2] == new else merged


def _overlap(reference: str, response: str) -> int:
    return (Counter(words_of(reference)) & Counter(words_of(response))).total()
