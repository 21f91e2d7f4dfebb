"""Advantages without a critic: a response is compared with the other responses to its prompt.

rewards are r(x, y_i) of whole responses, the n samples of a prompt along the last axis. The advantage of a
response counts for each of its tokens alike.
"""

from typing import Literal

import torch

from minialign.masked import has_spread


def rloo(rewards: torch.Tensor) -> torch.Tensor:
    """r_i − (mean reward of the prompt's other n − 1 samples): rewards (..., n) -> advantages (..., n).

    A sample is no part of its own baseline, so the gradient stays unbiased. Raises ValueError for n < 2.
    Source: Kool et al. 2019; Ahmadian et al. 2024.
    """
    require_samples(rewards, "leave-one-out")
    # A constant drops out of the difference. Taken away first, it leaves exactly nothing of equal rewards,
    # where rounding would leave a little, of which Adam makes a full step.
    rewards = rewards - rewards[..., :1]
    others = (rewards.sum(-1, keepdim=True) - rewards) / (rewards.shape[-1] - 1)
    return rewards - others


def grpo(rewards: torch.Tensor) -> torch.Tensor:
    """(r_i − mean) / std over the prompt's n samples: rewards (..., n) -> advantages (..., n).

    The standard deviation divides by n − 1, as TRL's does; samples that are all worth the same have advantage
    0. A sample is part of its own mean and deviation, which is a bias, and a prompt on which rewards hardly
    differ counts as much as any other. Raises ValueError for n < 2. Source: Shao et al. 2024, §4.1.2.
    """
    require_samples(rewards, "a group")
    centred = rewards - rewards.mean(-1, keepdim=True)
    deviation = centred.std(-1, keepdim=True)
    spread = has_spread(rewards, deviation, dim=-1)
    return centred * spread / torch.where(spread, deviation, 1.0)


def group_advantages(rewards, response_mask, n: int, kind: Literal["rloo", "grpo"]) -> torch.Tensor:
    """Advantages without a critic, (B, T): that of the whole response at each of its tokens, 0 elsewhere.

    rewards (B, T) are summed over the response, so that the KL penalty is in what is compared: each response
    with the n of its prompt, which stand side by side.
    """
    compare = {"rloo": rloo, "grpo": grpo}[kind]
    return compare(rewards.sum(-1).view(-1, n)).view(-1, 1) * response_mask


def require_samples(rewards: torch.Tensor, name: str) -> None:
    """Raises ValueError where a prompt has a single sample, which there is nothing to compare with."""
    n = rewards.shape[-1]
    if n < 2:
        raise ValueError(f"{name} needs at least 2 samples of each prompt, here is {n}")
