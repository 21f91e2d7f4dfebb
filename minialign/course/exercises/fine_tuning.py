"""The exercises of notebook 02."""

import math

import torch
import torch.nn.functional as F

from minialign.course.evaluation import few_shot_prompt
from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.course.exercises.puzzle import Puzzle
from minialign.logprobs import kl_divergence
from minialign.pretraining import pretraining_loss
from minialign.sft import sft_loss


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


def turns_mask(ids: torch.Tensor, assistant: int, end: int) -> torch.Tensor:
    """Which tokens of a conversation of several turns the assistant has written, (T,), its ends included.

    ids (T,) is the conversation in the template; `assistant` and `end` are the ids of its tokens.
    """
    mask, speaking = torch.zeros_like(ids, dtype=torch.bool), False
    for t, token in enumerate(ids.tolist()):
        mask[t] = speaking
        speaking = token != end if speaking else token == assistant
    return mask


def _conversation(generator):
    """Two or three turns of random words, of one or more tokens each; 90, 91, 92 are user, assistant, end."""
    ids = []
    for _ in range(int(torch.randint(2, 4, (1,), generator=generator))):
        question, answer = (
            torch.randint(80, (int(torch.randint(1, 5, (1,), generator=generator)),), generator=generator)
            for _ in range(2)
        )
        ids += [90, *question.tolist(), 91, *answer.tolist(), 92]
    return torch.tensor(ids), 91, 92


def _speaking(ids, assistant, end):
    """From each assistant token to the end token after it, both included."""
    return turns_mask(ids, assistant, end) | (ids == assistant)


def _log_distributions(generator):
    return tuple(torch.randn(2, 4, 7, generator=generator).log_softmax(-1))


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
                "the shift goes the wrong way: logits at t predict token t + 1, not the one before.",
                lambda x, y, m: F.cross_entropy(x[:, 1:][m[:, 1:]], y[:, :-1][m[:, 1:]]),
                lambda x, y, m: F.cross_entropy(x[:, 1:][m[:, :-1]], y[:, :-1][m[:, :-1]]),
            ),
            Mistake(
                "the mask is upside down: this is the loss of all that is not the response.",
                lambda x, y, m: sft_loss(x, y, ~m),
            ),
            Mistake(
                "softmax comes before cross_entropy, which takes logits and does it itself.",
                lambda x, y, m: sft_loss(x.softmax(-1), y, m),
            ),
            Mistake(
                "you take the probability, not its logarithm.",
                lambda x, y, m: -x[:, :-1].softmax(-1).gather(-1, y[:, 1:, None])[..., 0][m[:, 1:]].mean(),
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
    "turns_mask": Exercise(
        turns_mask,
        _conversation,
        (
            Mistake(
                "the token <|assistant|> is marked: the template writes it, the assistant never does.",
                _speaking,
            ),
            Mistake(
                "the end tokens are not marked: without them a model never learns to stop.",
                lambda ids, a, e: turns_mask(ids, a, e) & (ids != e),
            ),
            Mistake(
                "<|assistant|> is marked and the end token is not: the mask is one place too early.",
                lambda ids, a, e: _speaking(ids, a, e) & (ids != e),
            ),
            Mistake(
                "only the last answer is marked: the assistant has written one in each turn.",
                lambda ids, a, e: torch.arange(len(ids)) > int((ids == a).nonzero().max()),
            ),
            Mistake(
                "only the first answer is marked: the assistant has written one in each turn.",
                lambda ids, a, e: turns_mask(ids, a, e) & ((ids == e).cumsum(0) - (ids == e).int() == 0),
            ),
            Mistake(
                "the user's later turns are marked, too: an end token ends the assistant's turn.",
                lambda ids, a, e: torch.arange(len(ids)) > int((ids == a).nonzero().min()),
                lambda ids, a, e: torch.arange(len(ids)) >= int((ids == a).nonzero().min()),
            ),
            Mistake(
                "it is the other way round: these are the tokens that the assistant has not written.",
                lambda ids, a, e: ~turns_mask(ids, a, e),
                lambda ids, a, e: ~_speaking(ids, a, e),
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
                "the last axis is still there: sum over it.",
                lambda p, q: p.exp() * (p - q),
            ),
            Mistake(
                "the sum runs over the places: sum over the vocabulary, the last axis.",
                lambda p, q: (p.exp() * (p - q)).sum(0),
                lambda p, q: (p.exp() * (p - q)).sum(-2),
            ),
            Mistake(
                "the inputs are logarithms already: take no other, and weigh by p = exp(log p).",
                lambda p, q: (p * (p.log() - q.log())).sum(-1),
                lambda p, q: (p * (p / q).log()).sum(-1),
            ),
            Mistake(
                "this is in bits: nats are natural logarithms, so do not divide by ln 2.",
                lambda p, q: kl_divergence(p, q) / math.log(2),
            ),
            Mistake(
                "you subtract probabilities: subtract their logarithms, log p − log q.",
                lambda p, q: (p.exp() * (p.exp() - q.exp())).sum(-1),
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
            Mistake(
                "an example's prompt and answer stand on one line: put a line break between them.",
                lambda e, p: few_shot_prompt([(f"{q} {a}", "") for q, a in e], p).replace("\n\n\n", "\n\n"),
            ),
            Mistake(
                "an empty line is too much: the new prompt ends with one line break.",
                lambda e, p: few_shot_prompt(e, p) + "\n",
            ),
        ),
    ),
}


MASKS = Puzzle(
    options=("template in the loss", "prompt in the loss", "mask not shifted", "mask shifted twice"),
    answers={"A": "mask shifted twice", "B": "prompt in the loss", "C": "mask not shifted"},
    look={
        "A": "It begins as it should. What does it never do, and which token would have taught it?",
        "B": "It behaves as the correct one does. Now look at its training loss: what else is in there?",
        "C": "It stops as it should. What does it do at the first token, which nobody taught it?",
    },
    why={
        "A": "It answers, and does not stop: the end token is out of its loss.",
        "B": "Prompts are hard to predict, so the training loss stays high; the answers hardly suffer.",
        "C": "It stops, but half of its replies are no answers: the first token was never trained.",
    },
)
FINE_TUNING_PUZZLES = {"which mask": MASKS}
