"""Social choice: one answer for people who want different things, from how many prefer what to what.

A preference matrix P (N, N) holds in P[i, j] the share of people, or the probability, that i is preferred to
j; P[i, j] + P[j, i] = 1, and the diagonal says nothing. Three rules make a choice of it, and they differ:

| rule                           | chooses                                           | always exists        |
|--------------------------------|---------------------------------------------------|----------------------|
| Condorcet 1785                 | what a majority prefers to each other one         | no: majorities cycle |
| Borda 1781                     | what is preferred most often, on average          | yes                  |
| maximal lottery (Fishburn 1984)| the mixture that loses to nothing, on average     | yes                  |

A reward fitted to such comparisons by Bradley and Terry, with all pairs equally often, has Borda's order
(Siththaranjan et al. 2023, Theorem 3.2). The maximal lottery is the Nash policy of the game in which two
policies each try to be preferred to the other (Munos et al. 2023, NLHF).
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from minialign.statistics import measured


def preference_shares(rankings: Sequence[Sequence[int]], people: Sequence[float] | None = None) -> np.ndarray:
    """P (N, N): the share of people who prefer i to j, from B rankings of all N, best first.

    people (B,): how many hold each ranking, in any unit; all equally many if left out. The diagonal is ½.
    Raises ValueError for a ranking that does not hold each of 0 … N − 1 once, and for numbers of people that
    are negative or all 0.
    """
    found = measured(rankings, "rankings", 2)
    count, size = found.shape
    if (np.sort(found) != np.arange(size)).any():
        raise ValueError(f"a ranking must hold each of 0 to {size - 1} once, the best first")
    weights = np.ones(count) if people is None else measured(people, "people")
    if len(weights) != count:
        raise ValueError(f"here are {count} rankings and {len(weights)} numbers of people: give one for each")
    if weights.min() < 0 or not weights.sum():
        raise ValueError("the numbers of people must be at least 0, and one of them more")
    places = np.argsort(found)  # (B, N): where each stands
    wins = (places[:, :, None] < places[:, None, :]) + 0.5 * np.eye(size)
    return np.tensordot(weights / weights.sum(), wins, 1)


def as_preferences(preferences) -> np.ndarray:
    """P (N, N) as float64, with ½ on the diagonal.

    Raises ValueError for what is not square with N ≥ 2, for shares outside [0, 1], and where P[i, j] and
    P[j, i] do not add up to 1.
    """
    found = measured(preferences, "preferences", 2)
    if found.shape[0] != found.shape[1] or len(found) < 2:
        raise ValueError(f"preferences are {found.shape}: compare each of at least two with each, (N, N)")
    np.fill_diagonal(found, 0.5)
    if np.abs(found + found.T - 1).max() > 1e-6:
        raise ValueError("preferences[i, j] and preferences[j, i] must add up to 1: everybody prefers one")
    if found.min() < 0:  # and so another one is above 1
        raise ValueError("a share lies outside 0 to 1: preferences[i, j] is how many prefer i to j")
    return found


def borda_scores(preferences) -> np.ndarray:
    """How often each is preferred to another one, on average over the others, (N,), in [0, 1].

    β_i = Σ_{j ≠ i} P[i, j] / (N − 1): the chance that i is preferred, if the other one and the person are
    drawn at random. Of rankings it is Borda's count of 1781, over (N − 1) points a ballot. Raises ValueError
    as `as_preferences` does.
    """
    shares = as_preferences(preferences)
    return (shares.sum(1) - shares.diagonal()) / (len(shares) - 1)


def condorcet_winner(preferences) -> int | None:
    """Which one more than half of the people prefer to each other one; None where there is none.

    Raises ValueError as `as_preferences` does.
    """
    wins = as_preferences(preferences) > 0.5
    winners = np.flatnonzero(wins.sum(1) == len(wins) - 1)
    return int(winners[0]) if len(winners) else None


def nash_policy(preferences) -> np.ndarray:
    """The maximal lottery: probabilities p (N,) with which to answer, so that nothing is preferred to p.

    p maximises min_j Σ_i p_i P[i, j], which is ½: for every j at least half of the people, on average over p,
    prefer p's answer or do not mind. It is the Nash equilibrium of "be preferred to the other" (Kreweras
    1965; Fishburn 1984; with a KL penalty Munos et al. 2023), found by linear programming. A Condorcet winner
    gets probability 1. Where several mixtures do as well, as with ties, one of them is returned. Raises
    ValueError as `as_preferences` does.
    """
    shares = as_preferences(preferences)
    size = len(shares)
    # Variables: p_1 … p_N and v. Maximise v under v − Σ_i p_i P[i, j] ≤ 0 for all j, Σ p = 1, p ≥ 0.
    objective = np.append(np.zeros(size), -1.0)
    no_less = np.hstack([-shares.T, np.ones((size, 1))])
    adds_up = np.append(np.ones(size), 0.0)[None]
    found = linprog(objective, no_less, np.zeros(size), adds_up, [1.0])  # all variables are at least 0
    policy = np.maximum(found.x[:size], 0.0)
    return policy / policy.sum()
