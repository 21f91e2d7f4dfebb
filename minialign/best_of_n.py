"""Best-of-n: sample n responses, keep the best one. Alignment without training, paid for at every answer.

The strongest simple baseline: as a policy it is close to optimal in reward for the KL it spends (Gao et al.
2022; Beirami et al. 2024).
"""

import math
from dataclasses import dataclass

import numpy as np

from minialign.gpt import GPT
from minialign.rollouts import Reward, Rollout, as_prompts, roll_out
from minialign.statistics import measured, whole_number


@dataclass(frozen=True)
class Best:
    """The winners of some prompts: responses, their rewards (P,), and the rollout they were chosen from."""

    responses: list[str]
    rewards: np.ndarray
    rollout: Rollout


def best_of_n(policy: GPT, prompts: list[str], reward: Reward, n: int, *, seed=0, **sampling) -> Best:
    """The response with the highest reward among n samples of each prompt; ties go to the one drawn first.

    The n samples share the reading of their prompt. `sampling` goes to `rollouts.roll_out`.
    """
    n, prompts = whole_number(n, "n", 1), as_prompts(prompts)
    rollout = roll_out(policy, prompts, reward, n=n, seed=seed, **sampling)
    rewards = rollout.rewards.view(len(prompts), n).double().cpu().numpy()
    best = rewards.argmax(-1)
    return Best([rollout.responses[i * n + k] for i, k in enumerate(best)], rewards.max(-1), rollout)


def expected_best(rewards: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """What best-of-n gives on average, for each prompt, estimated from more samples than n.

    rewards, values (P, N): N ≥ n samples of each prompt, chosen by `rewards` and worth `values`. Returns the
    mean value of the best of n, (P,), float64, exact over all n-subsets of the N samples: the sample of rank
    i (1 is the lowest) is the best of n with probability C(i − 1, n − 1) / C(N, n). Source: Nakano et al.
    2021 (WebGPT), appendix I. Raises ValueError for n outside 1 … N.
    """
    rewards, values = measured(rewards, "rewards", 2), measured(values, "values", 2)
    if rewards.shape != values.shape:
        raise ValueError(f"rewards are {rewards.shape}, values {values.shape}: a sample has one of each")
    N = rewards.shape[1]
    n = whole_number(n, f"n, the best of {N} samples,", 1, N)
    # C(i − 1, n − 1) / C(N, n), by logarithms of the gamma function: the numbers themselves overflow.
    log_choose = lambda a, b: math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(a - b + 1)  # noqa: E731
    weights = np.array(
        [math.exp(log_choose(i - 1, n - 1) - log_choose(N, n)) if i >= n else 0.0 for i in range(1, N + 1)]
    )
    order = np.argsort(-rewards, axis=1, kind="stable")[:, ::-1]  # of equals the first is the best
    return (np.take_along_axis(values, order, 1) * weights).sum(1)


def pass_at_k(right: np.ndarray, k: int) -> np.ndarray:
    """pass@k: the probability that one of k samples of a question is right, estimated from n ≥ k, (P,).

    right (P, n): 1 or True where one of the n samples of a question is right, else 0. With c right ones it is
    1 − C(n − c, k)/C(n, k), the mean over all choices of k: unbiased, which 1 − (1 − c/n)^k is not. It is
    what the best of k is worth to a judge who errs in nothing, if right is worth 1 and wrong 0. Source: Chen
    et al. 2021 (Codex), Eq. 1. Raises ValueError for other numbers, and for k outside 1 … n.
    """
    right = measured(right, "right", 2)
    if not np.isin(right, (0, 1)).all():
        raise ValueError("right must say of each sample whether it is right, 1 or 0, a row for each question")
    return expected_best(right, right, k)


def kl_bound(n: int) -> float:
    """log n − (n − 1)/n, in nats: what KL(best-of-n ‖ policy) is at most.

    The exact value is lower where responses repeat or rewards tie. Source: Stiennon et al. 2020; as a bound,
    Beirami et al. 2024.
    """
    n = whole_number(n, "n", 1)
    return math.log(n) - (n - 1) / n
