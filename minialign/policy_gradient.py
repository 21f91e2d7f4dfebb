"""Policy gradients: sample, score, and make what scored well more probable.

∇J(θ) = E_{y ~ π_θ}[ (r(x, y) − b) ∇ log π_θ(y | x) ]. (REINFORCE: Williams 1992; leave-one-out baseline:
Kool et al. 2019, Ahmadian et al. 2024, "Back to basics".)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from minialign.advantages import rloo as rloo_advantages
from minialign.config import Count, Natural, NonNegative, Positive, Temperature
from minialign.gpt import GPT, network_of
from minialign.logprobs import sequence_log_probs
from minialign.rollouts import Reward, Rollout, as_prompts, roll_out
from minialign.training import History, TrainingConfig, epochs, fit, require_apart


@dataclass(frozen=True)
class PolicyGradientConfig(TrainingConfig):
    steps: Count = 25
    learning_rate: Positive = 5e-4
    warmup: Natural = 3
    final_lr: NonNegative = 1.0
    weight_decay: NonNegative = 0.0
    prompts_per_step: Count = 16
    samples_per_prompt: Count = 8
    max_new_tokens: Count = 96
    temperature: Temperature = 1.0  # of the sampler and of log π alike
    baseline: Literal["rloo", "none"] = "rloo"

    def __post_init__(self):
        super().__post_init__()
        if self.baseline == "rloo" and self.samples_per_prompt < 2:
            raise ValueError(
                "leave-one-out needs another sample to compare with: set samples_per_prompt to 2 or more"
            )


def reinforce_loss(
    log_probs: torch.Tensor, rewards: torch.Tensor, baseline: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """−(1/B) Σ (r − b) log π(y|x): a loss whose *gradient* is the policy gradient; its value means nothing.

    log_probs (B,) in nats, of whole responses, end token included; rewards (B,); baseline a number or (B,).
    Or all of them (B, T), for token log-probabilities with a reward-to-go each. Rewards and baseline are
    constants: no gradient flows into them. Raises ValueError when the shapes differ ((B,) and (B, 1) would
    silently become (B, B)).
    """
    for name, x in {"rewards": rewards, "baseline": torch.as_tensor(baseline)}.items():
        if x.shape != log_probs.shape and not (name == "baseline" and x.ndim == 0):
            raise ValueError(
                f"log_probs has shape {tuple(log_probs.shape)} and "
                f"{name} {tuple(x.shape)}: they must be the same"
            )
    advantages = (rewards - baseline).detach()
    return -(advantages * log_probs).sum() / len(log_probs)


def reward_to_go(rewards: torch.Tensor) -> torch.Tensor:
    """Σ_{s ≥ t} r_s: what is still to come when token t is chosen, its own included. (..., T) -> (..., T)."""
    return rewards.flip(-1).cumsum(-1).flip(-1)


def train(
    policy: GPT,
    prompts: list[str],
    reward: Reward,
    config: PolicyGradientConfig = PolicyGradientConfig(),
    *,
    log_prob: Callable = sequence_log_probs,
    **options,
) -> History:
    """REINFORCE: teach `policy`, in place, to write what `reward(prompts, responses)` scores high.

    The reward may be anything that turns two lists of texts into a list of finite numbers; it need not be
    differentiable. `log_prob(policy, batch, temperature)` gives log π(y|x), (B,); another one is another
    algorithm, or a bug. `options` go to `training.fit`.
    """
    policy = network_of(policy)
    require_apart(policy, reward=reward)
    prompts = as_prompts(prompts)
    prompts_at = epochs([1] * len(prompts), config.prompts_per_step, config.seed)
    sampling = dict(
        n=config.samples_per_prompt, max_new_tokens=config.max_new_tokens, temperature=config.temperature
    )

    def rollout_at(step: int) -> list[Rollout]:
        chosen = [prompts[i] for i in prompts_at(step)]
        return [roll_out(policy, chosen, reward, seed=(config.seed, step), **sampling)]

    def loss_fn(rollout: Rollout):
        advantages = rollout.rewards
        if config.baseline == "rloo":
            advantages = rloo_advantages(rollout.rewards.view(-1, rollout.n)).flatten()
        log_probs = log_prob(policy, rollout.batch, config.temperature)
        return reinforce_loss(log_probs, advantages), rollout.metrics()

    return fit(policy, rollout_at, loss_fn, config, title="policy gradient", **options)
