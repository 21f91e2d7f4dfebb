"""Labels of fresh samples: who says which of a policy's own responses is better.

A reward can: always the better one (`argmax_labels`), or as people do, who choose the better one more often
(`sampled_labels`). People can, who are asked one comparison at a time (`asked_labels`).
"""

from collections.abc import Callable
from numbers import Integral

import numpy as np
import torch

from minialign.preferences import Preference
from minialign.rollouts import Reward, Rollout, unscored

Rows = tuple[torch.Tensor, torch.Tensor]  # of a rollout: chosen (M,) and rejected (M,)


class Labels:
    """Who labels the samples of a rollout, and how many labels have been `given` so far.

    Called with a rollout and its scores (B,), it gives the rows of M pairs, chosen and rejected. A pair
    without a label, as a tie, has the same row twice: there is nothing to learn from it.
    """

    def __init__(self, choose: Callable[[Rollout, torch.Tensor], Rows], reward: Reward = unscored):
        """`reward` gives the scores, if they are needed."""
        self.choose, self.reward, self.given = choose, reward, 0

    def __call__(self, rollout: Rollout, scores: torch.Tensor) -> Rows:
        chosen, rejected = self.choose(rollout, scores)
        self.given += int((chosen != rejected).sum())
        return chosen, rejected

    def pairs(self, rollout: Rollout) -> list[Preference]:
        """The labelled pairs of a rollout: a round of fresh comparisons, to train on as on any others."""
        chosen, rejected = self(rollout, rollout.rewards)
        prompts, responses = rollout.prompts, rollout.responses
        texts = [(prompts[w], responses[w], responses[lost]) for w, lost in zip(chosen, rejected)]
        return [Preference(x, y_w, y_l) for x, y_w, y_l in texts if y_w != y_l]


def as_labels(labels: Labels | Reward) -> Labels:
    """A reward, a function or a reward model, stands for its `argmax_labels`."""
    return labels if isinstance(labels, Labels) else argmax_labels(labels)


def argmax_labels(reward: Reward) -> Labels:
    """Of each prompt's samples, the one with the highest score is preferred to the one with the lowest.

    Labels without noise: how much better does not count. Source: Guo et al. 2024, Algorithm 1.
    """

    def choose(rollout: Rollout, scores: torch.Tensor) -> Rows:
        _require_scores(scores)
        return best_and_worst(scores, rollout.n)

    return Labels(choose, reward)


def best_and_worst(scores: torch.Tensor, n: int) -> Rows:
    """Of n samples of each of P prompts, side by side, the rows of the best and of the worst, (P,) each.

    scores (P · n,), higher is better. Where all scores of a prompt are equal, both are its first row.
    """
    of_prompt = scores.view(-1, n)
    first = torch.arange(len(of_prompt), device=scores.device) * n
    return first + of_prompt.argmax(-1), first + of_prompt.argmin(-1)


def sampled_labels(reward: Reward, seed: int = 0) -> Labels:
    """The first of two samples is preferred with probability σ(r_1 − r_2), r their scores.

    These are the labels that DPO's loss is the likelihood of (Bradley and Terry 1952). The samples of a
    prompt are compared two by two, each once, so their number must be even.
    """
    rng = np.random.default_rng(seed)

    def verdict_on(rollout: Rollout, scores: torch.Tensor) -> Callable[[int, int], int]:
        _require_scores(scores)
        second_wins = torch.sigmoid(scores[1::2] - scores[::2]).tolist()
        return lambda first, second: int(rng.random() < second_wins[first // 2])

    return Labels(_two_by_two(verdict_on), reward)


def asked_labels(ask: Callable[[str, str, str], int | None]) -> Labels:
    """`ask(prompt, first, second)` says 0 for the first response, 1 for the second, None for neither.

    It is asked once for each pair of different responses, two samples of a prompt at a time, so their number
    must be even. Who asks people pays for each call. People judge the text alone: no score, and no penalty
    for a missing end. Raises ValueError for any other answer.
    """

    def verdict_on(rollout: Rollout, scores: torch.Tensor) -> Callable[[int, int], int | None]:
        def verdict(first: int, second: int) -> int | None:
            answer = ask(rollout.prompts[first], rollout.responses[first], rollout.responses[second])
            # True could mean "the first is better" as well as 1: it is no answer
            known = isinstance(answer, Integral) and not isinstance(answer, bool) and answer in (0, 1)
            if answer is not None and not known:
                raise ValueError(
                    f"asked which response is better, {answer!r:.60} was the answer: "
                    "give 0 for the first, 1 for the second, or None for neither"
                )
            return answer

        return verdict

    return Labels(_two_by_two(verdict_on))


def _require_scores(scores: torch.Tensor) -> None:
    if scores.isnan().any():
        raise ValueError("these samples were not scored: give roll_out the reward that labels them")


def _two_by_two(verdict_on: Callable) -> Callable[[Rollout, torch.Tensor], Rows]:
    """Compare samples 0 and 1 of a prompt, then 2 and 3, …: `verdict_on(rollout, scores)(first, second)`."""

    def choose(rollout: Rollout, scores: torch.Tensor) -> Rows:
        if rollout.n % 2:
            raise ValueError(
                f"samples_per_prompt is {rollout.n}: samples are compared two by two, give an even number"
            )
        verdict, chosen, rejected = verdict_on(rollout, scores), [], []
        for first in range(0, len(rollout.responses), 2):
            second = first + 1
            equal = rollout.responses[first] == rollout.responses[second]
            winner = None if equal else verdict(first, second)
            chosen.append(second if winner == 1 else first)
            rejected.append(second if winner == 0 else first)
        return tuple(torch.tensor(rows, device=scores.device) for rows in (chosen, rejected))

    return choose
