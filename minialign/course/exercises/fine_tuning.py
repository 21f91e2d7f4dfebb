"""The exercises of notebook 02."""

from collections import Counter

import torch
import torch.nn.functional as F

from minialign.course.evaluation import few_shot_prompt, reference_f1
from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.logprobs import kl_divergence
from minialign.pretraining import pretraining_loss
from minialign.sft import sft_loss
from minialign.world.judge import words_of


def _masked_logits(generator):
    """Logits and ids with a response mask: two tokens of prompt, two or three of response, padding."""
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 0, 0]], dtype=torch.bool)
    return *random_logits(generator), mask


def _token_losses(x, y, m):
    """Of each token after the first, 0 outside the responses: (B, T − 1)."""
    return F.cross_entropy(x[:, :-1].mT, y[:, 1:], reduction="none") * m[:, 1:]


def _row_means(x, y, m):
    return _token_losses(x, y, m).sum(-1) / m.sum(-1)


def _up_to_the_end(m):
    """The prompt with the response, without the padding."""
    return m.flip(-1).cumsum(-1).flip(-1) > 0


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
                "the mask is shifted twice: the token before the response is in the loss, "
                "and its last one, the end token, is not.",
                lambda x, y, m: sft_loss(x, y, m.roll(-1, 1)),
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
                "the prompt is in the loss, without the padding: "
                "only the response is to be learned, so use response_mask.",
                lambda x, y, m: sft_loss(x, y, _up_to_the_end(m)),
            ),
            Mistake(
                "you multiply the logits by the mask: logits of 0 are not ignored, "
                "they cost log V. Leave these tokens out of the mean.",
                lambda x, y, m: pretraining_loss(x[:, :-1] * m[:, 1:, None], y[:, 1:]),
                lambda x, y, m: pretraining_loss((x * m[..., None])[:, :-1], y[:, 1:]),
            ),
            Mistake(
                "you add up the tokens: divide by the number of response tokens.",
                lambda x, y, m: sft_loss(x, y, m) * m.sum(),
                lambda x, y, m: _token_losses(x, y, m).sum(-1).mean(),
            ),
            Mistake(
                "each row's mean is taken first, so a token of a short response counts more: "
                "take one mean over the response tokens of all rows.",
                lambda x, y, m: _row_means(x, y, m).mean(),
            ),
            Mistake(
                "you return a loss for each row: one number is wanted, "
                "the mean over the response tokens of all rows together.",
                lambda x, y, m: _token_losses(x, y, m).sum(-1),
                _row_means,
            ),
            Mistake(
                "you return a loss for each token: take the mean over the response tokens.",
                _token_losses,
                lambda x, y, m: _token_losses(x, y, m)[m[:, 1:]],
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
        errors=(
            Mistake(
                "logits and ids are one column shorter once they are shifted: "
                "shift the mask with the ids, response_mask[:, 1:].",
                lambda x, y, m: x[:, :-1][m],
                lambda x, y, m: y[:, 1:][m],
            ),
            Mistake(
                "gather wants an index with as many axes as the log-probabilities: "
                "ids[:, 1:, None], and take the extra axis away afterwards, [..., 0].",
                lambda x, y, m: x.gather(-1, y),
            ),
            Mistake(
                "cross_entropy wants one row of logits for each target: "
                "pick both with the mask, logits[:, :-1][mask] and ids[:, 1:][mask].",
                lambda x, y, m: F.cross_entropy(x[:, :-1], y[:, 1:]),
                lambda x, y, m: F.cross_entropy(x, y),
            ),
        ),
    ),
    "kl_divergence": Exercise(
        kl_divergence,
        _log_distributions,
        (
            Mistake("this is KL(q‖p), the other direction: weigh by p.", lambda p, q: kl_divergence(q, p)),
            Mistake(
                "you take the mean over the vocabulary: p weighs the tokens already, so add up.",
                lambda p, q: kl_divergence(p, q) / p.shape[-1],
            ),
            Mistake(
                "all is in one number: a KL for each place is wanted, so sum over the last axis only "
                "(after F.kl_div, too: reduction='none', then .sum(-1)).",
                lambda p, q: kl_divergence(p, q).sum(),
                lambda p, q: kl_divergence(p, q).mean(),
                lambda p, q: kl_divergence(p, q).sum() / len(p),
                lambda p, q: kl_divergence(p, q).sum() / p.numel(),
            ),
            Mistake(
                "all is in one number, and it is KL(q‖p), the other direction: "
                "F.kl_div takes log q first. Use reduction='none', then .sum(-1).",
                lambda p, q: kl_divergence(q, p).sum(),
                lambda p, q: kl_divergence(q, p).mean(),
                lambda p, q: kl_divergence(q, p).sum() / len(p),
                lambda p, q: kl_divergence(q, p).sum() / p.numel(),
            ),
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
                lambda r, y: 2 * _shared(r, y) / (_different(r) + _different(y)),
            ),
            Mistake(
                "this is the arithmetic mean of precision and recall: F1 is the harmonic one.",
                lambda r, y: (_overlap(r, y) / len(words_of(y)) + _overlap(r, y) / len(words_of(r))) / 2,
            ),
            Mistake(
                "these are characters: a Counter of a text counts its letters, "
                "so split it with words_of first.",
                lambda r, y: reference_f1(_spelled(r), _spelled(y)),
            ),
            Mistake(
                "the 2 is forgotten: two equal texts must get 1, not ½.",
                lambda r, y: reference_f1(r, y) / 2,
            ),
            Mistake(
                "len of a Counter is the number of *different* words: "
                "for how many there are use .total(), or len of the list.",
                lambda r, y: 2 * _shared(r, y) / (len(words_of(r)) + len(words_of(y))),
                lambda r, y: 2 * _overlap(r, y) / (_different(r) + _different(y)),
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


def _different(text: str) -> int:
    return len(set(words_of(text)))


def _shared(reference: str, response: str) -> int:
    """How many different words the two have in common."""
    return len(set(words_of(reference)) & set(words_of(response)))


def _spelled(text: str) -> str:
    """Each character as a word."""
    return " ".join(str(ord(character)) for character in text)
