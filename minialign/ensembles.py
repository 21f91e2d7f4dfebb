"""Ensembles of reward models: several opinions of one answer, and one reward made of them.

Reward models fitted to the same labels with other seeds agree where there are labels, and differ elsewhere. A
policy goes elsewhere. So a reward that is high only where the members agree is harder to exploit, as far as
their errors are their own: what all of them learned from the labels, or from the network they started from,
they have in common (Coste et al. 2023; Eisenstein et al. 2023).

Scores are (k, N): of each of k members, for each of N answers. The members need one scale and one zero, as
`RewardModel.normalise` gives them, or the worst case is always the same member's.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minialign.rollouts import Reward, score
from minialign.statistics import measured

LAMBDA = 0.5  # the price of a unit of variance, with which Coste et al. show best-of-n (§5.2)
Rule = Callable[[np.ndarray], np.ndarray]  # scores (k, N) -> rewards (N,)


def mean_score(scores: np.ndarray) -> np.ndarray:
    """R_μ = (1/k) Σ_i R_i, (N,). Not conservative: one member's error is divided by k, and still paid for.

    Source: Coste et al. 2023, Eq. 3.
    """
    return scores.mean(0)


def conservative(scores: np.ndarray, lam: float) -> tuple[np.ndarray, np.ndarray]:
    """Two rewards that distrust disagreement, (N,) each, of scores (k, N).

    | reward            |                                                | in Coste et al. 2023 |
    |-------------------|------------------------------------------------|----------------------|
    | worst case        | min_i R_i                                      | WCO, Eq. 4           |
    | variance-weighted | R_μ − λ (1/k) Σ_i (R_i − R_μ)²                 | UWO, Eq. 5           |

    The variance is that of these k members, with 1/k, in the square of the scores' unit.
    """
    return scores.min(0), scores.mean(0) - lam * scores.var(0)


def worst_case(scores: np.ndarray) -> np.ndarray:
    """What the most sceptical member says of each answer, (N,)."""
    return conservative(scores, 0.0)[0]


def variance_weighted(scores: np.ndarray, lam: float = LAMBDA) -> np.ndarray:
    """The mean, less λ times the members' variance, (N,)."""
    return conservative(scores, lam)[1]


RULES: dict[str, Rule] = {
    "mean": mean_score,
    "worst case": worst_case,
    "variance-weighted": variance_weighted,
}


class Ensemble:
    """A reward like any other: what `rule` makes of what the members say.

    The members are rewards, functions or reward models; `rule` takes their scores (k, N), float64, and gives
    N numbers. Raises ValueError for no members, and for a rule that gives something else.
    """

    def __init__(self, members: Sequence[Reward], rule: Rule = worst_case):
        if not members:
            raise ValueError("an ensemble needs at least one member: give a list of reward models")
        self.members, self.rule = list(members), rule

    def scores(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """What each member says of each of N responses, (k, N)."""
        given = [score(member, list(prompts), list(responses)) for member in self.members]
        return np.stack([of_member.double().cpu().numpy() for of_member in given])

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """The reward of each of N responses, (N,): a function like `rollouts.Reward`."""
        rewards = measured(self.rule(self.scores(prompts, responses)), "what the rule gives")
        if len(rewards) != len(responses):
            raise ValueError(
                f"the rule gave {len(rewards)} numbers for {len(responses)} responses: "
                "combine the scores (k, N) over the members, the first axis"
            )
        return rewards

    def disagreement(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """The standard deviation of the members' scores, (N,), in the scores' unit."""
        return self.scores(prompts, responses).std(0)
