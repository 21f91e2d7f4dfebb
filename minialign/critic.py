"""The critic V(x, y_<t), a value function: the reward still to be expected before each token; and GAE."""

import copy
import math

import torch
from torch.nn.utils import skip_init

from minialign.chat import Batch
from minialign.gpt import GPT
from minialign.logprobs import full_precision, on_response, response_states
from minialign.masked import has_spread, masked_mean


class Critic(torch.nn.Module):
    """V(x, y_<t): the reward still expected before token t is chosen, a linear head on the states of a trunk.

    The trunk is a GPT of its own, or the policy itself: then one forward pass serves both, and both train it.
    """

    def __init__(self, trunk: GPT):
        super().__init__()
        weight = next(trunk.parameters())
        self.trunk = trunk
        options = dict(device=weight.device, dtype=weight.dtype)
        self.head = skip_init(torch.nn.Linear, trunk.config.n_embd, 1, **options)  # draws no random numbers
        # At first it expects nothing.
        self.head.load_state_dict({name: torch.zeros_like(p) for name, p in self.head.state_dict().items()})

    @classmethod
    def from_reward_model(cls, reward_model: torch.nn.Module) -> "Critic":
        """A critic that says of what was written so far how the reward model would score it.

        Trunk and head are copies, the head in the scale of the normalised scores. A reward model that reads
        surprise, or adds its likelihood, knows more than the critic will, which starts farther from the
        scores. Raises TypeError for what is no reward model. Source: Stiennon et al. 2020.
        """
        if not hasattr(reward_model, "gain"):
            raise TypeError(
                f"{type(reward_model).__name__} is no reward model: give one, or make Critic(model) of a GPT"
            )
        critic = cls(copy.deepcopy(reward_model.trunk).requires_grad_(True))  # which may be frozen
        with torch.no_grad():
            critic.head.weight.copy_(reward_model.gain * reward_model.head.weight)
            critic.head.bias.copy_(reward_model.gain * reward_model.head.bias + reward_model.bias)
        return critic

    def forward(self, batch: Batch, states: torch.Tensor | None = None) -> torch.Tensor:
        """V before each response token, (B, T), 0 elsewhere.

        `states` are the trunk's `response_states`, if known.
        """
        states = response_states(self.trunk, batch) if states is None else states
        return on_response(full_precision(self.head(states)[:, 0]), batch.response_mask)


def gae(
    rewards, values, response_mask, gamma: float = 1.0, lam: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns, (B, T) each, 0 outside the responses, from rewards and values (B, T).

    δ_t = r_t + γ V_{t+1} − V_t, A_t = Σ_l (γλ)^l δ_{t+l}, and the value after the last token is 0. λ = 0
    gives the one-step TD error, λ = 1 the sampled return minus V_t. Returns are A + V. Source: Schulman et
    al. 2016, Eq. 16.
    """
    values = values * response_mask
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = (delta + gamma * lam * next_advantage) * response_mask[:, t]
        next_value, next_advantage = values[:, t], advantages[:, t]
    return advantages, advantages + values


def clipped_value_loss(values, old_values, returns, response_mask, clip: float = 0.2) -> torch.Tensor:
    """½ mean over response tokens of max((V − R)², (V_clipped − R)²); all (B, T).

    V_clipped stays within ±clip of the old value.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), response_mask)


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 − Var(R − V) / Var(R), of tokens (N,): 1 is a perfect critic, 0 one that knows only the mean.

    A constant error does not show in it. NaN where the returns do not vary.
    """
    if not has_spread(returns, returns.std(unbiased=False)):
        return math.nan
    return float(1 - (returns - values).var() / returns.var())


def value_metrics(rewards, values, response_mask, gamma: float) -> dict[str, float]:
    """How well V foresees what really came, the sampled returns (λ = 1); rewards and values (B, T).

    The returns that the critic is fitted to contain its own values: it would seem better than it is.
    """
    _, sampled = gae(rewards, torch.zeros_like(values), response_mask, gamma, lam=1.0)
    values, sampled = values[response_mask], sampled[response_mask]
    return {
        "val/explained_variance": explained_variance(values, sampled),
        "val/bias": float((values - sampled).mean()),
    }
