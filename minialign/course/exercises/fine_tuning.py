"""The exercises of notebook 02."""

from collections import Counter

import torch
import torch.nn.functional as F

from minialign.course.evaluation import few_shot_prompt, reference_f1
from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.logprobs import kl_divergence
from minialign.sft import sft_loss
from minialign.world.judge import words_of


def _masked_logits(generator):
    """Logits and ids with a response mask: two tokens of prompt, two or three of response, padding."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    return *random_logits(generator), mask


def _log_distributions(generator):
    return tuple(torch.randn(2, 4, 7, generator=generator).log_softmax(-1))


def _sentences(generator):
    words = "the the moon is a big bright rock rock in space".split()

    def sentence(n):
        return " ".join(words[i] for i in torch.randint(len(words), (n,), generator=generator))

    return sentence(8), sentence(5)


def _shots(generator):
    number = int(torch.randint(100, (1,), generator=generator))
    return [
        (f"What is {number} plus one?", f"It is {number + 1}."),
        ("What is two plus two?", "It is four."),
    ], "What is one plus one?"


FINE_TUNING = {
    "sft_loss": Exercise(
        sft_loss,
        _masked_logits,
        (
            Mistake(
                "the mask is off by one: logits at t predict token t + 1, "
                "so shift the mask together with the ids.",
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
            Mistake(
                "you add up the tokens: divide by the number of response tokens.",
                lambda x, y, m: sft_loss(x, y, m) * m.sum(),
            ),
            Mistake(
                "you divide by all tokens: divide by the number of "
                "response tokens, or padding makes the loss smaller.",
                lambda x, y, m: sft_loss(x, y, m) * m.sum() / m[:, 1:].numel(),
            ),
            Mistake(
                "the sign is wrong: the loss is *minus* the log-probability.",
                lambda x, y, m: -sft_loss(x, y, m),
            ),
            Mistake(
                "the last response token is missing: that is the end token, "
                "and a model that never learns it does not know when to stop.",
                lambda x, y, m: sft_loss(x, y, m & m.roll(-1, 1)),
            ),
        ),
    ),
    "kl_divergence": Exercise(
        kl_divergence,
        _log_distributions,
        (
            Mistake("this is KL(q‖p), the other direction: weigh by p.", lambda p, q: kl_divergence(q, p)),
            Mistake(
                "the sign is wrong: log p − log q; a KL divergence is never negative.",
                lambda p, q: -kl_divergence(p, q),
            ),
            Mistake(
                "the tokens are not weighed by p: multiply by p before adding up.",
                lambda p, q: (p - q).sum(-1),
            ),
            Mistake(
                "log p is used as a weight: exponentiate it to get p.", lambda p, q: (p * (p - q)).sum(-1)
            ),
            Mistake(
                "this is the cross-entropy: take the entropy of p away.", lambda p, q: -(p.exp() * q).sum(-1)
            ),
        ),
    ),
    "reference_f1": Exercise(
        reference_f1,
        _sentences,
        (
            Mistake(
                "this is precision only: a one-word answer would be perfect.",
                lambda r, y: _overlap(r, y) / len(words_of(y)),
            ),
            Mistake(
                "this is recall only: an endless answer would be perfect.",
                lambda r, y: _overlap(r, y) / len(words_of(r)),
            ),
            Mistake(
                "repeated words count once only: count with repetition (Counter, not set).",
                lambda r, y: (
                    2
                    * len(set(words_of(r)) & set(words_of(y)))
                    / (len(set(words_of(r))) + len(set(words_of(y))))
                ),
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
            Mistake(
                "the prompt comes first: the examples must stand before it.",
                lambda e, p: "\n\n".join([p, *(f"{q}\n{a}" for q, a in e)]) + "\n",
            ),
            Mistake(
                "the answers are missing: each example is a prompt *and* its answer.",
                lambda e, p: "\n\n".join([*(q for q, _ in e), p]) + "\n",
            ),
            Mistake(
                "the last line break is missing: without it the model goes on with the prompt's line.",
                lambda e, p: few_shot_prompt(e, p)[:-1],
            ),
            Mistake(
                "a single line break between examples: "
                "leave an empty line, so that they do not run together.",
                lambda e, p: few_shot_prompt(e, p).replace("\n\n", "\n"),
            ),
        ),
    ),
}


def _overlap(reference: str, response: str) -> int:
    return (Counter(words_of(reference)) & Counter(words_of(response))).total()
