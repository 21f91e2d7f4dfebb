"""Scores from comparisons, and how far to trust them: random comparisons, standard errors, coverage."""

from collections.abc import Callable

import numpy as np
import torch

from minialign.world.exact import bradley_terry_optimum


def random_wins(truth: torch.Tensor, n: int, seed: int) -> torch.Tensor:
    """wins (R, R): how often i beat j in n comparisons of random pairs, with P(i beats j) = σ(r_i − r_j).

    truth (R,) float64 are the rewards.
    """
    rng, count = np.random.default_rng(seed), len(truth)
    i, j = rng.permuted(np.tile(np.arange(count), (n, 1)), axis=1)[:, :2].T
    i_wins = rng.random(n) < torch.sigmoid(truth[i] - truth[j]).numpy()
    wins = torch.zeros(count, count, dtype=torch.float64)
    winner, loser = (torch.from_numpy(np.where(i_wins, *sides)) for sides in ((i, j), (j, i)))
    return wins.index_put_((winner, loser), torch.ones(n, dtype=torch.float64), accumulate=True)


def standard_errors(scores: torch.Tensor, wins: torch.Tensor) -> torch.Tensor:
    """Standard errors (R,) of Bradley-Terry scores of mean 0, by the Fisher information.

    The information is Σ p(1 − p)(e_i − e_j)(e_i − e_j)ᵀ over the comparisons of i with j, with unit vectors e
    and p = σ(r_i − r_j). With many comparisons its inverse is the covariance of the scores; a shift of all is
    not determined, and the pseudo-inverse leaves it out.
    """
    p = torch.sigmoid(scores[:, None] - scores[None, :])
    weights = (wins + wins.T) * p * (1 - p)
    return torch.linalg.pinv(torch.diag(weights.sum(1)) - weights).diagonal().sqrt()


def coverage(
    truth: torch.Tensor, n: int, sets: int = 200, optimum: Callable = bradley_terry_optimum
) -> np.ndarray:
    """How often the 95 % intervals of each score hold the truth, (R,), over sets of n random comparisons."""
    held = torch.zeros(len(truth))
    for seed in range(sets):
        wins = random_wins(truth, n, seed)
        scores = optimum(wins)
        held += (scores - truth).abs() < 1.96 * standard_errors(scores, wins)
    return (held / sets).numpy()
