"""The exercises of notebook 01."""

import torch
import torch.nn.functional as F

from minialign.course.exercises.exercise import Exercise, Mistake, random_logits
from minialign.course.exercises.puzzle import Puzzle
from minialign.logprobs import perplexity_of
from minialign.pretraining import pretraining_loss, shifted
from minialign.tokenizer import merge


def _sequence_and_pair(generator):
    """A sequence that ends in three ones, and a pair to merge: by turns two equal tokens and two others."""
    pair = (1, 1 + generator.initial_seed() % 2)
    return torch.randint(1, 3, (14,), generator=generator).tolist() + [1, 1, 1], pair, 9


def _merge_first(sequence, pair, new):
    for i in range(len(sequence) - 1):
        if tuple(sequence[i : i + 2]) == pair:
            return [*sequence[:i], new, *sequence[i + 2 :]]
    return list(sequence)


def _matches(sequence, pair) -> list[bool]:
    """For each place whether a pair begins there."""
    return [tuple(sequence[i : i + 2]) == pair for i in range(len(sequence))]


def _merge_keeping_the_second(sequence, pair, new):
    return [new if match else token for token, match in zip(sequence, _matches(sequence, pair))]


def _merge_overlapping(sequence, pair, new):
    matches = _matches(sequence, pair)
    merged = zip(_merge_keeping_the_second(sequence, pair, new), matches, [False, *matches])
    return [token for token, begins, ends in merged if begins or not ends]


def _merge_dropping_the_last(sequence, pair, new):
    merged = merge(sequence, pair, new)
    return merged if merged[-1] == new else merged[:-1]


def _merge_from_the_right(sequence, pair, new):
    return merge(sequence[::-1], pair[::-1], new)[::-1]


def _merge_by_the_first_token(sequence, pair, new):
    rest = iter(sequence)
    return [new if token == pair[0] and next(rest, new) else token for token in rest]


def _in_twos(sequence) -> list[list[int]]:
    """Cut after every second token; the last part is a single one."""
    return [sequence[i : i + 2] for i in range(0, len(sequence), 2)]


def attention_weights(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """softmax_s(q_t · k_s / √d) over the places s ≤ t, (T, T): from each place to those that it may see.

    queries and keys (T, d) are one head's. (Vaswani et al. 2017, Eq. 1, and the mask of section 3.2.3.)
    """
    scores = queries @ keys.T / queries.shape[-1] ** 0.5
    later = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(later, -torch.inf).softmax(-1)


def _queries_and_keys(generator):
    """Of five places, with four numbers each, large enough that a missing root shows."""
    return tuple(2 * torch.randn(5, 4, generator=generator) for _ in range(2))


def _masked(scores, value=-torch.inf, allowed=torch.tril):
    """Scores (T, T) where a place may look, and `value` elsewhere."""
    return scores.masked_fill(~allowed(torch.ones_like(scores)).bool(), value)


def _scores(q, k):
    return q @ k.T / q.shape[-1] ** 0.5


PRETRAINING = {
    "merge": Exercise(
        merge,
        _sequence_and_pair,
        (
            Mistake(
                "only the first pair is merged: go on to the end of the sequence.",
                _merge_first,
            ),
            Mistake(
                "two merges share a token: after a merge go on "
                "behind both of its tokens, so that 1 1 1 becomes 9 1.",
                _merge_overlapping,
            ),
            Mistake(
                "you merge from right to left: from left to right, 1 1 1 becomes 9 1, not 1 9.",
                _merge_from_the_right,
            ),
            Mistake("nothing is merged: replace the two tokens by the new one.", lambda s, p, new: list(s)),
            Mistake(
                "the pair's second token is not looked at: both must fit, one after the other.",
                lambda s, p, new: merge(s, (p[0], p[0]), new),
                _merge_by_the_first_token,
            ),
            Mistake(
                "the last token is lost where it is in no pair: go on to the very end of the sequence.",
                _merge_dropping_the_last,
            ),
            Mistake(
                "the pair's second token is still there: the new token stands for both, so go on by two.",
                _merge_keeping_the_second,
            ),
            Mistake(
                "the pair's second token is still there, and the last token is lost: "
                "go on by two after a merge, and to the very end.",
                lambda s, p, new: _merge_keeping_the_second(s, p, new)[:-1],
            ),
            Mistake(
                "you go on by two everywhere: a pair may begin at any place, "
                "so go on by two after a merge and by one otherwise.",
                lambda s, p, new: [token for part in _in_twos(s) for token in merge(part, p, new)],
                lambda s, p, new: [token for part in _in_twos(s)[:-1] for token in merge(part, p, new)],
                lambda s, p, new: [merge(part, p, new)[0] for part in _in_twos(s)],
                lambda s, p, new: [merge(part, p, new)[0] for part in _in_twos(s)[:-1]],
            ),
        ),
        errors=(
            Mistake(
                "nothing comes after the last token: look at the slice sequence[i : i + 2], "
                "which may be shorter, instead of sequence[i + 1].",
                lambda s, p, new: s[len(s)],
            ),
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
            Mistake(
                "nothing is shifted, and nothing cut: inputs end one token earlier, targets begin one later.",
                lambda x: (x, x),
            ),
            Mistake("you shift by two: the target is the very next token.", lambda x: (x[:, :-2], x[:, 2:])),
            Mistake(
                "you shift along the batch: the tokens run along the second axis.", lambda x: (x[:-1], x[1:])
            ),
            Mistake(
                "roll brings the first token round to the end, as if it came after the last one: "
                "cut, do not roll.",
                lambda x: (x, x.roll(-1, 1)),
                lambda x: (x, x.roll(-1)),
            ),
            Mistake(
                "the inputs are not cut: nothing comes after the last token, so it is no input.",
                lambda x: (x, shifted(x)[1]),
            ),
            Mistake(
                "the targets are not cut: nothing comes before the first token, so it is no target.",
                lambda x: (shifted(x)[0], x),
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
                "you add up along a text, and take the mean of the rows: take the mean of all tokens.",
                lambda x, y: F.cross_entropy(x.flatten(0, 1), y.flatten(), reduction="sum") / len(x),
            ),
            Mistake(
                "this is the mean over the whole vocabulary: pick the log-probability of the target, "
                "one number for each place.",
                lambda x, y: -x.log_softmax(-1).mean(),
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
            Mistake(
                "you shift once more: the targets are moved up already, "
                "so logits at t belong to the target at t.",
                lambda x, y: pretraining_loss(x[:, :-1], y[:, 1:]),
            ),
            Mistake(
                "log_softmax runs over the wrong axis: the vocabulary is the last one.",
                lambda x, y: -x.log_softmax(1).gather(-1, y[..., None]).mean(),
                lambda x, y: -x.log_softmax(0).gather(-1, y[..., None]).mean(),
            ),
            Mistake(
                "softmax is taken twice: cross_entropy takes logits, and normalises them itself.",
                lambda x, y: pretraining_loss(x.softmax(-1), y),
            ),
            Mistake(
                "you return a loss for each token: take the mean of all.",
                lambda x, y: F.cross_entropy(x.mT, y, reduction="none"),
                lambda x, y: F.cross_entropy(x.mT, y, reduction="none")[..., None],
                lambda x, y: F.cross_entropy(x.mT, y, reduction="none").flatten(),
            ),
        ),
        errors=(
            Mistake(
                "gather wants an index with as many axes as the log-probabilities: "
                "targets[..., None], and take the extra axis away afterwards, [..., 0].",
                lambda x, y: x.gather(-1, y),
            ),
            Mistake(
                "cross_entropy wants one row of logits for each target: "
                "flatten them to (B·T, V), with logits.flatten(0, 1), and the targets to (B·T,).",
                lambda x, y: F.cross_entropy(x, y),
                lambda x, y: F.cross_entropy(x, y.flatten()),
                lambda x, y: F.cross_entropy(x.flatten(), y.flatten()),
                lambda x, y: F.cross_entropy(x.flatten(0, 1), y),
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
            Mistake(
                "this averages the probabilities: average their logarithms.",
                lambda lp: 1 / lp.exp().mean(),
            ),
            Mistake("this is the cross-entropy: perplexity is its exponential.", lambda lp: -lp.mean()),
            Mistake(
                "this is a power of 2: the log-probabilities are natural logarithms, so use exp.",
                lambda lp: 2 ** -lp.mean(),
            ),
        ),
    ),
    "attention_weights": Exercise(
        attention_weights,
        _queries_and_keys,
        (
            Mistake(
                "every place sees the whole text: put -inf where s > t, before the softmax.",
                lambda q, k: _scores(q, k).softmax(-1),
            ),
            Mistake(
                "the mask shows what comes later and hides what came before: it is the other way round.",
                lambda q, k: _masked(_scores(q, k), allowed=torch.triu).softmax(-1),
                lambda q, k: _masked(_scores(q, k), allowed=lambda x: x.triu(1)).softmax(-1),
            ),
            Mistake(
                "the mask hides a place from itself, too: s = t is allowed "
                "(and the first place would have nothing to look at).",
                lambda q, k: _masked(_scores(q, k), allowed=lambda x: x.tril(-1)).softmax(-1),
                lambda q, k: _masked(_scores(q, k), -1e9, lambda x: x.tril(-1)).softmax(-1),
            ),
            Mistake(
                "the mask comes after the softmax, so rows do not add up to 1: mask the scores, with -inf.",
                lambda q, k: _scores(q, k).softmax(-1).tril(),
            ),
            Mistake(
                "a score of 0 is not hidden: e⁰ = 1 counts. Put -inf there.",
                lambda q, k: _scores(q, k).tril().softmax(-1),
            ),
            Mistake(
                "the root is missing: divide the scores by √d, or the softmax becomes too sharp.",
                lambda q, k: _masked(q @ k.T).softmax(-1),
            ),
            Mistake(
                "you divide by d: divide by its square root.",
                lambda q, k: _masked(q @ k.T / q.shape[-1]).softmax(-1),
            ),
            Mistake(
                "you divide by √T, the number of places: d is the length of a query, queries.shape[-1].",
                lambda q, k: _masked(q @ k.T / len(q) ** 0.5).softmax(-1),
            ),
            Mistake(
                "the softmax runs over the wrong axis: each row, the weights *from* one place, adds up to 1.",
                lambda q, k: _masked(_scores(q, k)).softmax(0),
            ),
            Mistake(
                "queries and keys have changed places: row t belongs to the query of t, so q @ k.T.",
                lambda q, k: _masked(_scores(k, q)).softmax(-1),
            ),
            Mistake("these are the scores: apply a softmax.", lambda q, k: _masked(_scores(q, k))),
            Mistake(
                "these are the logarithms of the weights: softmax instead of log_softmax.",
                lambda q, k: _masked(_scores(q, k)).log_softmax(-1),
            ),
        ),
        errors=(
            Mistake(
                "both are (T, d): to multiply each query with each key, transpose the keys: keys.T.",
                lambda q, k: q @ k,
            ),
            Mistake(
                "masked_fill wants a mask of True and False: add .bool() to one of numbers.",
                lambda q, k: _scores(q, k).masked_fill(torch.ones(len(q), len(q)).triu(1), -torch.inf),
            ),
        ),
    ),
}


RUNS = Puzzle(
    options=(
        "nothing is wrong",
        "targets not shifted",
        "shifted the wrong way",
        "targets of another document",
    ),
    answers={
        "A": "shifted the wrong way",
        "B": "targets of another document",
        "C": "nothing is wrong",
        "D": "targets not shifted",
    },
    look={
        "A": "Its watched loss is a little better than any honest one. What does its real loss do?",
        "B": "Both losses stop near 6. What can be learned where the text itself does not help?",
        "C": "In which runs does the real loss follow the watched one? And which of these goes on falling?",
        "D": "Its watched loss goes to nearly nothing. What can be predicted that well, that soon?",
    },
    why={
        "A": "It looks better than C, and its real loss rises: it predicts what it has just read.",
        "B": "It learns which tokens are frequent and no more: the text tells nothing of its targets.",
        "C": "The watched and the real loss fall together.",
        "D": "It copies its input, which is easy, and gets worse at the real next token.",
    },
)
PRETRAINING_PUZZLES = {"which run": RUNS}
