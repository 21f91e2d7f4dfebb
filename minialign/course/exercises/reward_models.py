"""The exercises of notebook 04."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.functional import logsigmoid

from minialign.course.exercises.exercise import Exercise, Mistake, logs_kept_finite
from minialign.course.exercises.puzzle import Puzzle
from minialign.reward_model import bradley_terry_loss, last_states
from minialign.statistics import reliability
from minialign.world.exact import bradley_terry_optimum


def _two_rewards(generator):
    """One of the pairs is a gross error, by 200.

    The logarithm of its probability is finite, its probability is 0 in float32.
    """
    chosen, rejected = 2 * torch.randn(2, 6, generator=generator)
    rejected[0] = chosen[0] + 200
    return chosen.requires_grad_(), rejected.requires_grad_()


def _wins(generator):
    """How often each of five beat each other one: some of them meet more often than others."""
    wins = torch.randint(1, 12, (5, 5), generator=generator) * torch.tensor([1, 2, 1, 3, 1])
    return ((wins * (1 - torch.eye(5))).double(),)


def _centred(scores):
    return scores - scores.mean()


def _shares(wins):
    """What share of its comparisons each has won."""
    return wins.sum(1) / (wins.sum(1) + wins.sum(0))


def _mean_log_odds(wins):
    """Of each row the mean of log(wins/losses) against everybody, oneself (0) included."""
    others = ~torch.eye(len(wins), dtype=torch.bool)
    return torch.where(others, wins / wins.T, 1.0).log().mean(1)


def _rounds(wins, rounds, games=None):
    """Log-strengths after some rounds of Zermelo's iteration, from equal ones."""
    games = wins + wins.T if games is None else games
    strengths = torch.ones(len(wins), dtype=wins.dtype)
    for _ in range(rounds):
        strengths = wins.sum(1) / (games / (strengths[:, None] + strengths)).sum(1)
    return _centred(strengths.log())


def _states_and_mask(generator):
    """States of four rows of different lengths; two are padded on the left, two on the right."""
    states, mask = torch.randn(4, 7, 3, generator=generator), torch.zeros(4, 7, dtype=torch.bool)
    lengths = torch.randint(2, 7, (4,), generator=generator)
    for row, length in enumerate(lengths.tolist()):
        mask[row, slice(0, length) if row % 2 else slice(7 - length, 7)] = True
    return states.requires_grad_(), mask


def _margins(generator):
    return (1.5 * torch.randn(200, generator=generator).double().numpy(),)


def _by_size(margins: np.ndarray) -> np.ndarray:
    return margins[np.argsort(np.abs(margins), kind="stable")]


def _binned(*arrays: np.ndarray, bins: int = 8) -> tuple[np.ndarray, ...]:
    return tuple(np.array([part.mean() for part in np.array_split(values, bins)]) for values in arrays)


def _sure(margins: np.ndarray) -> np.ndarray:
    """σ of margins, or of their size."""
    return 1 / (1 + np.exp(-margins))


def _confidence(margins: np.ndarray) -> np.ndarray:
    return _sure(np.abs(margins))


def _equally_wide(margins: np.ndarray, values: np.ndarray, low: float, high: float):
    """Confidence and share right in eight equal parts of the way from `low` to `high`, by `values`."""
    bins = np.minimum((8 * (values - low) / (high - low)).astype(int), 7)
    held = np.bincount(bins, minlength=8)
    with np.errstate(invalid="ignore"):  # a bin may be empty
        return tuple(np.bincount(bins, x, 8) / held for x in (_confidence(margins), margins > 0))


def _ends(values: np.ndarray) -> tuple[float, float]:
    return values.min(), values.max()


def _with_log(log):
    """The loss with another logarithm of σ."""
    return lambda won, lost: -log(torch.sigmoid(won - lost)).mean()


REWARD_MODELS = {
    "bradley_terry_loss": Exercise(
        bradley_terry_loss,
        _two_rewards,
        (
            Mistake(
                "chosen and rejected are swapped: "
                "it is the chosen response's reward that must be the higher one.",
                lambda won, lost: bradley_terry_loss(lost, won),
            ),
            Mistake(
                "the sign is missing: this is the log-likelihood, "
                "which training would make small; the loss is minus it.",
                lambda won, lost: -bradley_terry_loss(won, lost),
            ),
            Mistake(
                "the logarithm of σ is infinite where σ underflows to 0, "
                "as in one of these pairs: use logsigmoid.",
                _with_log(torch.log),
            ),
            Mistake(
                "the logarithm of σ is kept finite by force (a small number added, or cut off): "
                "then the pair that is most wrong has a wrong loss and teaches nothing. Use logsigmoid.",
                *map(_with_log, logs_kept_finite()),
            ),
            Mistake(
                "σ has to be taken of the difference of the rewards; "
                "a difference of two logsigmoids is something else.",
                lambda won, lost: -(logsigmoid(won) - logsigmoid(lost)).mean(),
            ),
            Mistake(
                "you return one number for each pair: take the mean.",
                lambda won, lost: -logsigmoid(won - lost),
            ),
            Mistake(
                "the logarithm is missing: you return minus the probability. "
                "It stops teaching where the model is badly wrong.",
                lambda won, lost: -torch.sigmoid(won - lost).mean(),
            ),
            Mistake(
                "you add up where a mean is asked for: "
                "the size of the gradient would depend on the number of pairs.",
                lambda won, lost: bradley_terry_loss(won, lost) * len(won),
            ),
            Mistake(
                "σ has to be taken of the difference of the rewards, not of each reward by itself.",
                lambda won, lost: -(torch.sigmoid(won) - torch.sigmoid(lost)).mean(),
            ),
            Mistake(
                "no gradient flows into the rejected rewards: the loss must push them down, too.",
                lambda won, lost: bradley_terry_loss(won, lost.detach()),
            ),
            Mistake(
                "this is the hinge loss, of support vector machines: Bradley-Terry has −log σ.",
                lambda won, lost: F.relu(1 - (won - lost)).mean(),
                lambda won, lost: F.relu(lost - won).mean(),
            ),
            Mistake(
                "this is 1 − σ, the probability of the wrong order, which stops teaching "
                "where the model is badly wrong: take −log σ.",
                lambda won, lost: torch.sigmoid(lost - won).mean(),
            ),
            Mistake(
                "this is the logarithm of the mean: take the logarithm of each pair first, then the mean.",
                lambda won, lost: -torch.sigmoid(won - lost).mean().log(),
            ),
            Mistake(
                "you take the mean of the differences before σ: each pair has a loss of its own.",
                lambda won, lost: bradley_terry_loss(won.mean(), lost.mean()),
            ),
        ),
    ),
    "bradley_terry_scores": Exercise(
        bradley_terry_optimum,
        _wins,
        (
            Mistake(
                "this is the share of comparisons that each has won: it does not ask against whom, "
                "and it is no log-odds.",
                _shares,
                lambda wins: _centred(_shares(wins)),
            ),
            Mistake(
                "this is the log-odds of the share that each has won: it does not ask against whom. "
                "To beat a strong one must count for more.",
                lambda wins: _shares(wins).logit(),
                lambda wins: _centred(_shares(wins).logit()),
            ),
            Mistake(
                "this is the mean log-odds of an item's pairs: each pair counts alike, however often the two "
                "have met, and whoever was strong or weak.",
                _mean_log_odds,
                lambda wins: _centred(_mean_log_odds(wins)),
                lambda wins: _mean_log_odds(wins) * len(wins) / (len(wins) - 1),
            ),
            Mistake(
                "these are wins minus losses: they grow with the games, and do not ask against whom.",
                lambda wins: wins.sum(1) - wins.sum(0),
            ),
            Mistake(
                "the table is read the other way round: wins[i, j] is how often i beat j.",
                lambda wins: bradley_terry_optimum(wins.T),
                lambda wins: -bradley_terry_optimum(wins),
            ),
            Mistake(
                "these are strengths s = e^r: the scores r = log s are asked for.",
                lambda wins: bradley_terry_optimum(wins).exp(),
                lambda wins: bradley_terry_optimum(wins).softmax(0),
                lambda wins: (
                    bradley_terry_optimum(wins).exp() * len(wins) / bradley_terry_optimum(wins).exp().sum()
                ),
            ),
            Mistake(
                "the scores are right but for a shift: take their mean away, since the zero is arbitrary.",
                lambda wins: bradley_terry_optimum(wins) - bradley_terry_optimum(wins)[0],
                lambda wins: bradley_terry_optimum(wins) - bradley_terry_optimum(wins)[-1],
                lambda wins: bradley_terry_optimum(wins).log_softmax(0),
            ),
            Mistake(
                "this is the first round only: with the new scores the wins to be expected are others, "
                "so go on until nothing moves.",
                lambda wins: _rounds(wins, 1),
            ),
            Mistake(
                "it has not converged: go on until the first six digits stay.",
                *(lambda wins, n=n: _rounds(wins, n) for n in (2, 3, 5)),
            ),
            Mistake(
                "you divide by the wins where the games are wanted: a pair that i has lost counts, too.",
                lambda wins: _rounds(wins, 500, games=wins),
            ),
        ),
    ),
    "last_states": Exercise(
        last_states,
        _states_and_mask,
        (
            Mistake(
                "you take the last column: in all but the longest rows that is padding.",
                lambda states, mask: states[:, -1],
            ),
            Mistake(
                "the number of real tokens minus one is the last "
                "one's place only when the padding is on the right.",
                lambda states, mask: states[torch.arange(len(states)), mask.sum(-1) - 1],
            ),
            Mistake(
                "you return the last state of all, of one row: every row has a last one.",
                lambda states, mask: states[mask][-1],
            ),
            Mistake(
                "argmax over the reversed mask counts from the right: the column is T − 1 minus it.",
                lambda states, mask: states[torch.arange(len(states)), mask.flip(1).int().argmax(1)],
            ),
            Mistake(
                "you take the token before the last one.",
                lambda states, mask: states[
                    torch.arange(len(states)), (torch.arange(mask.shape[1]) * mask).argmax(-1) - 1
                ],
            ),
            Mistake(
                "you take the first real token: it has seen nothing of the response.",
                lambda states, mask: states[torch.arange(len(states)), mask.int().argmax(-1)],
            ),
            Mistake(
                "you take the mean over the columns, padding and all: one state is asked for.",
                lambda states, mask: states.mean(1),
            ),
            Mistake(
                "you return the places of the last tokens: the states at these places are asked for.",
                lambda states, mask: (torch.arange(mask.shape[1]) * mask).argmax(-1),
            ),
            Mistake(
                "states[:, places] takes every place from every row: index the rows too, "
                "states[torch.arange(B), places].",
                lambda states, mask: states[:, (torch.arange(mask.shape[1]) * mask).argmax(-1)],
            ),
            Mistake(
                "you take the mean over the real tokens: "
                "a possible way to pool, but the last token's state is asked for.",
                lambda states, mask: (states * mask[..., None]).sum(1) / mask.sum(-1, keepdim=True),
            ),
        ),
    ),
    "reliability": Exercise(
        reliability,
        _margins,
        (
            Mistake(
                "nothing is sorted: a bin holds comparisons of "
                "like confidence, so order them by |margin| first.",
                lambda m: _binned(_confidence(m), m > 0),
            ),
            Mistake(
                "you have the probability of the *labelled* winner: "
                "the model does not know the label. Its confidence is σ(|margin|).",
                lambda m: _binned(_sure(_by_size(m)), _by_size(m) > 0),
            ),
            Mistake(
                "the comparisons are sorted by margin, which knows the label, and so does σ(margin): "
                "sort by |margin|, and take σ(|margin|).",
                lambda m: _binned(_sure(np.sort(m)), np.sort(m) > 0),
            ),
            Mistake(
                "you take σ of the mean |margin| of each bin: take σ of each |margin|, then the mean.",
                lambda m: (_sure(_binned(np.abs(_by_size(m)))[0]), reliability(m)[1]),
            ),
            Mistake(
                "the bins are equally wide: make them hold equally many comparisons (np.array_split), "
                "or some are nearly empty.",
                lambda m: _equally_wide(m, _confidence(m), 0.5, 1),
                lambda m: _equally_wide(m, _confidence(m), 0, 1),
                lambda m: _equally_wide(m, _confidence(m), *_ends(_confidence(m))),
                lambda m: _equally_wide(m, np.abs(m), 0, np.abs(m).max()),
                lambda m: _equally_wide(m, np.abs(m), *_ends(np.abs(m))),
            ),
            Mistake(
                "the comparisons are sorted by margin, which knows the label: sort by |margin|.",
                lambda m: _binned(_confidence(np.sort(m)), np.sort(m) > 0),
            ),
            Mistake(
                "the confidences are sorted, the labels are not: sort both by |margin|.",
                lambda m: _binned(_confidence(_by_size(m)), m > 0),
            ),
            Mistake(
                "the most confident bin comes first: begin with the least confident one.",
                lambda m: tuple(x[::-1] for x in reliability(m)),
            ),
            Mistake(
                "a label agrees where the margin is positive; the confidence is above ½ everywhere.",
                lambda m: (reliability(m)[0], np.ones(8)),
            ),
            Mistake(
                "the second array is the model's confidence again: "
                "how often was it right, that is, how often is the margin positive?",
                lambda m: (reliability(m)[0],) * 2,
            ),
            Mistake(
                "the two arrays are swapped: first what the model said, then what happened.",
                lambda m: reliability(m)[::-1],
            ),
            Mistake(
                "σ is missing: the margin is a difference of rewards, not yet a probability.",
                lambda m: _binned(np.abs(_by_size(m)), _by_size(m) > 0),
            ),
        ),
    ),
}


SYMPTOMS = Puzzle(
    options=(
        "pairs swapped",
        "pooled on padding",
        "squared error on labels",
        "a prompt on both sides of the split",
    ),
    answers={"A": "squared error on labels", "B": "pairs swapped", "C": "pooled on padding"},
    look={
        "A": "What must the loss of a comparison not care about? Section 2 has it.",
        "B": "Worse than a coin: what would have to be done to it to make it better than one?",
        "C": "A score is of one answer to one prompt. Who else has a say in this one?",
    },
    why={
        "A": "A constant added to all rewards moves its loss: it wants 1 for the winner and 0 for the loser.",
        "B": "It is wrong about as often as it should be right, so it has learned the labels upside down.",
        "C": "A longer neighbour lengthens the batch, and the place where it reads becomes padding.",
    },
)
REWARD_MODEL_PUZZLES = {"which reward model": SYMPTOMS}
