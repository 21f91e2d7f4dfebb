"""Rollouts: a policy answers prompts, and somebody scores the answers.

This is what every method that learns from its own samples begins with.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import torch

from minialign.chat import Batch
from minialign.gpt import GPT, network_of
from minialign.sampling import generate
from minialign.statistics import in_short, measured

Reward = Callable[[list[str], list[str]], Sequence[float]]  # (prompts, responses) -> one number for each


@dataclass(frozen=True)
class Rollout:
    """B = (number of prompts) · n sampled responses and their rewards, the n of one prompt side by side.

    | field     | shape  | meaning                                                                     |
    |-----------|--------|-----------------------------------------------------------------------------|
    | prompts   | B      | the prompts as text                                                         |
    | responses | B      | the responses as text                                                       |
    | rewards   | (B,)   | r(x, y), float32; NaN where nobody scored                                   |
    | n         |        | samples of each prompt                                                      |
    | batch     | Batch  | the token ids and their masks                                               |
    | log_probs | (B, T) | log π(y_t | x, y_<t) at the time of sampling, 0 outside the responses       |
    | finished  | (B,)   | True where the response ended by itself, False where it was cut off         |
    """

    prompts: list[str]
    responses: list[str]
    rewards: torch.Tensor
    n: int
    batch: Batch
    log_probs: torch.Tensor
    finished: torch.Tensor

    @property
    def weight(self) -> int:
        """Responses: what the mean loss of a rollout is a mean over."""
        return len(self.responses)

    def metrics(self) -> dict[str, float]:
        """What is worth a curve, under TRL's names; token means run over responses, never over padding."""
        lengths = self.batch.response_mask.sum(-1).float()
        surprise = -self.log_probs.sum(-1)  # −log π(y|x), whose mean over samples is the entropy
        scores = self.rewards.mean()
        return ({} if scores.isnan() else {"objective/scores": float(scores)}) | {
            "objective/entropy": float(surprise.mean()),  # nats a response
            "policy/entropy_avg": float(surprise.sum() / lengths.sum()),  # nats a token
            "response_length": float(lengths.mean()),
            "finished": float(self.finished.float().mean()),
        }

    def to(self, device) -> "Rollout":
        names = "rewards", "batch", "log_probs", "finished"
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def as_prompts(prompts: str | Iterable[str]) -> list[str]:
    """Prompts as a list; a single one may come as it is."""
    return [prompts] if isinstance(prompts, str) else list(prompts)


def roll_out(
    policy: GPT,
    prompts: list[str],
    reward: Reward,
    *,
    n: int = 1,
    max_new_tokens: int = 96,
    temperature: float = 1.0,
    seed=0,
) -> Rollout:
    """Sample n responses to each prompt and score them.

    `seed` is a number or a sequence of numbers, such as (seed of the run, step).
    """
    policy, prompts = network_of(policy), as_prompts(prompts)
    drawn = generate(
        policy,
        [policy.chat.encode_prompt(prompt) for prompt in prompts],
        n=n,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=int(np.random.SeedSequence(seed).generate_state(1)[0]),
    )
    asked = [prompt for prompt in prompts for _ in range(n)]
    if reward is unscored:
        rewards = torch.full((len(asked),), torch.nan)
    else:
        rewards = score(reward, asked, drawn.texts)
    rewards = rewards.to(drawn.log_probs.device)
    return Rollout(asked, drawn.texts, rewards, n, drawn.batch, drawn.log_probs, drawn.finished)


def unscored(prompts: list[str], responses: list[str]) -> list[float]:
    """The reward of a rollout that nobody scores, NaN for each response."""
    return [float("nan")] * len(responses)


def score(reward: Reward, prompts: list[str], responses: list[str]) -> torch.Tensor:
    """The rewards of some responses, (B,) float32.

    `reward` is a function or, as a reward model, has one that is called `score`. Raises TypeError for what
    cannot be called with (prompts, responses), and ValueError unless it gives one finite number for each
    response.
    """
    function = getattr(reward, "score", reward)
    if not callable(function) or isinstance(function, torch.nn.Module):
        raise TypeError(
            f"{type(reward).__name__} is no reward: "
            "give a function of (prompts, responses), or a reward model with such a `score`"
        )
    try:
        given = function(list(prompts), list(responses))  # copies: what it does to them is its own affair
    except TypeError as error:
        if error.__traceback__.tb_next is not None:  # it was called, and failed inside
            raise
        raise TypeError(f"{error}: a reward function takes two lists, (prompts, responses)") from None
    single = not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0
    if single or isinstance(given, (str, bytes, Mapping, Set)):
        raise ValueError(
            f"the reward function gave {in_short(given)}: "
            "it must give a list of numbers, one for each response"
        )
    values = list(given)
    if len(values) != len(responses):
        raise ValueError(
            f"the reward function gave {len(values)} numbers for {len(responses)} responses: "
            "it must give one for each"
        )
    numbers = [
        float(measured(value, f"the reward of {response[:60]!r} to {prompt[:60]!r}", ndim=0))
        for prompt, response, value in zip(prompts, responses, values)
    ]
    rewards = torch.tensor(numbers, dtype=torch.float32)
    if not rewards.isfinite().all():
        raise ValueError(f"the reward {max(numbers, key=abs):g} is too large for float32: give smaller ones")
    return rewards
