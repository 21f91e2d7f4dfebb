"""RLHF with PPO: make what the reward model scores high more probable, in small steps, near the reference.

max_θ E[ r_φ(x, y) − β log(π_θ(y|x) / π_ref(y|x)) ] (Ouyang et al. 2022, Eq. 2), by proximal policy
optimization (Schulman et al. 2017) on tokens, as in Ziegler et al. 2019. Four models play a part: the policy
π_θ, the reference π_ref, the reward model r_φ, and the critic V, the value function: or three, where the
samples of a prompt are compared with each other instead (RLOO, GRPO: `PPOConfig.advantages`).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch

from minialign.advantages import group_advantages
from minialign.chat import Batch
from minialign.config import Count, Momentum, Natural, NonNegative, Positive, Share, Temperature, at_least
from minialign.critic import Critic, clipped_value_loss, gae, value_metrics
from minialign.documents import batch_of, document_loss, encoded
from minialign.gpt import GPT, network_of
from minialign.logprobs import require_same, response_states, token_log_probs
from minialign.masked import masked_mean, whiten
from minialign.rollouts import Reward, Rollout, as_prompts, roll_out
from minialign.training import History, Optimizer, TrainingConfig, epochs, repeat, require_apart


@dataclass(frozen=True)
class PPOConfig(TrainingConfig):
    steps: Count = 25  # rollouts that the policy learns from, each in epochs × minibatches updates
    learning_rate: Positive = 3e-4
    warmup: Natural = 0
    decay: Literal["cosine", "linear"] = "linear"
    weight_decay: NonNegative = 0.0
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)  # other PPOs keep Adam's (0.9, 0.999)
    eps: Positive = 1e-5
    prompts_per_step: Count = 16
    samples_per_prompt: Count = 4
    max_new_tokens: Count = 96
    temperature: Temperature = 1.0  # of the sampler and of every log-probability alike
    epochs: Count = 2
    minibatches: Count = 2
    rows_per_pass: Count = 16  # a minibatch is read in parts of this size, which changes nothing but memory
    # The reward that one nat of KL costs.
    beta: Annotated[float, at_least(0, "a negative penalty would reward leaving the reference")] = 0.05
    kl_target: Positive | None = None  # nats a response: β then adapts until the KL is there
    horizon: Count = 128  # responses: so many change an adaptive β by a fifth at most
    max_approx_kl: NonNegative | None = None  # nats a token from π_old, beyond which a rollout is put aside
    # From a critic, or from comparing the samples of a prompt, where gamma, lam and value_* play no part.
    advantages: Literal["gae", "rloo", "grpo"] = "gae"
    critic_warmup: Natural = 0  # rollouts before the others, from which the critic alone learns
    gamma: Share = 1.0
    lam: Share = 1.0  # below 1, a critic that expects too little yet is a brake, beside β
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    value_coef: NonNegative = 0.1
    missing_end_penalty: NonNegative = 1.0  # taken from the score of a response that was cut off
    whiten_rewards: bool = False
    ptx_coef: NonNegative = 0.0  # weight of the pre-training loss, nats a token (PPO-ptx)

    def __post_init__(self):
        super().__post_init__()
        if self.advantages != "gae" and self.samples_per_prompt < 2:
            raise ValueError(
                f"{self.advantages} compares the samples of a prompt: set samples_per_prompt to 2 or more"
            )
        if self.advantages != "gae" and self.critic_warmup:
            raise ValueError(f"{self.advantages} has no critic: set critic_warmup to 0")
        if self.kl_target is not None and not self.beta:
            raise ValueError("beta is 0, and no factor changes it: with a kl_target, begin above 0")


def kl_penalized_rewards(scores, log_probs, reference_log_probs, response_mask, beta: float) -> torch.Tensor:
    """r_t = −β (log π(y_t|·) − log π_ref(y_t|·)), plus the score at the last response token.

    scores (B,); the others (B, T). Summed over t this is r(x, y) − β log(π(y|x) / π_ref(y|x)). They are
    constants: no gradient flows. Source: Ziegler et al. 2019, §2.
    """
    rewards = -beta * (log_probs - reference_log_probs) * response_mask
    columns = torch.arange(response_mask.shape[1], device=response_mask.device)
    rewards[torch.arange(len(scores)), (columns * response_mask).argmax(-1)] += scores
    return rewards.detach()


def clipped_policy_loss(
    log_probs, old_log_probs, advantages, response_mask, clip: float = 0.2
) -> torch.Tensor:
    """−mean over response tokens of min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = π/π_old; all (B, T).

    Source: Schulman et al. 2017, Eq. 7.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, clipped * advantages), response_mask)


def adapted(beta: float, kl: float, n: int, config: PPOConfig) -> float:
    """The next β: raised when the KL of n responses, in nats a response, lies above the target, else lowered.

    By 20 % at most for every `horizon` responses. Source: Ziegler et al. 2019, §2.2, whose horizon of 10,000
    was for runs of a million: in one of 1,600 it would not move.
    """
    if config.kl_target is None:
        return beta
    error = np.clip(kl / config.kl_target - 1, -0.2, 0.2)
    return beta * float(1 + error * min(1, n / config.horizon))


@dataclass(frozen=True)
class Experience:
    """A rollout as the updates see it: token ids, and what was true of them when sampled, (B, T) each."""

    batch: Batch
    log_probs: torch.Tensor  # log π_old
    advantages: torch.Tensor
    values: torch.Tensor | None = None  # V_old; without a critic there are none, and no returns
    returns: torch.Tensor | None = None

    @property
    def weight(self) -> int:
        """Response tokens: what the mean losses are means over."""
        return int(self.batch.response_mask.sum())

    def __getitem__(self, place) -> "Experience":
        return Experience(*(field if field is None else field[place] for field in vars(self).values()))


def act(
    policy: GPT, critic: Critic | None, batch: Batch, temperature: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log π_θ and V of every response token, (B, T) each; one forward pass where they share the trunk."""
    states = response_states(policy, batch)
    log_probs = token_log_probs(policy, batch, temperature, states)
    if critic is None:
        return log_probs, None
    return log_probs, critic(batch, states if critic.trunk is policy else None)


@torch.no_grad()
def evaluate(
    rollout: Rollout, policy: GPT, reference: GPT, critic: Critic | None, beta: float, config: PPOConfig
) -> tuple[Experience, dict]:
    """Rewards, values and advantages of a rollout; and its metrics, under TRL's names where it has one."""
    batch, mask = rollout.batch, rollout.batch.response_mask
    log_probs, values, reference_log_probs = (torch.zeros_like(rollout.log_probs) for _ in range(3))
    for place in batch.parts(config.rows_per_pass):
        part = batch[place]
        # As the updates find them, not the sampler's own.
        found, expected = act(policy, critic, part, config.temperature)
        log_probs[place] = found.float()
        if critic is not None:
            values[place] = expected.float()
        reference_log_probs[place] = token_log_probs(reference, part, config.temperature).float()
    require_same(log_probs - rollout.log_probs, "sampler and scorer")
    scores = rollout.rewards - config.missing_end_penalty * ~rollout.finished
    rewards = kl_penalized_rewards(scores, log_probs, reference_log_probs, mask, beta)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    kl = (log_probs - reference_log_probs).sum(-1).mean()
    metrics = rollout.metrics() | {
        "objective/kl": float(kl),  # nats a response
        "objective/non_score_reward": float(-beta * kl),
        "objective/rlhf_reward": float(scores.mean() - beta * kl),
        "objective/beta": beta,
    }
    if critic is None:
        advantages = group_advantages(rewards, mask, rollout.n, config.advantages)
        return Experience(batch, log_probs, advantages), metrics
    advantages, returns = gae(rewards, values, mask, config.gamma, config.lam)
    metrics |= value_metrics(rewards, values, mask, config.gamma)
    return Experience(batch, log_probs, whiten(advantages, mask), values, returns), metrics


def ppo_loss(
    policy: GPT, critic: Critic | None, seen: Experience, config: PPOConfig
) -> tuple[torch.Tensor, dict, torch.Tensor]:
    """Policy loss + value_coef · value loss, a scalar; its metrics; and log π_θ − log π_old, (B, T)."""
    mask = seen.batch.response_mask
    log_probs, values = act(policy, critic, seen.batch, config.temperature)
    loss = clipped_policy_loss(log_probs, seen.log_probs, seen.advantages, mask, config.clip)
    log_ratio = (log_probs - seen.log_probs).detach()
    metrics = {
        "loss/policy_avg": loss.detach(),
        "policy/approxkl_avg": masked_mean(log_ratio**2 / 2, mask),
        "policy/clipfrac_avg": masked_mean((log_ratio.expm1().abs() > config.clip).float(), mask),
        "val/ratio": masked_mean(log_ratio.exp(), mask),
    }
    if critic is not None:
        value_loss = clipped_value_loss(values, seen.values, seen.returns, mask, config.value_clip)
        loss, metrics["loss/value_avg"] = loss + config.value_coef * value_loss, value_loss.detach()
    return loss, metrics, log_ratio


def minibatches(n: int, config: PPOConfig, rng: np.random.Generator) -> list[torch.Tensor]:
    """Which of n responses each update learns from: every one once an epoch, in random order."""
    orders = [rng.permutation(n) for _ in range(config.epochs)]
    parts = [rows for order in orders for rows in np.array_split(order, min(n, config.minibatches))]
    return [torch.from_numpy(rows) for rows in parts]


def improve(
    optimizer: Optimizer,
    policy: GPT,
    critic: Critic | None,
    experience: Experience,
    config: PPOConfig,
    rng: np.random.Generator,
    documents: Sequence[list[int]],
) -> list[dict]:
    """Learn from a rollout: a few epochs of minibatches. Returns the metrics of each update."""
    first, rows = optimizer.step, []

    def loss_fn(seen: Experience):
        loss, metrics, log_ratio = ppo_loss(policy, critic, seen, config)
        if optimizer.step == first:
            require_same(log_ratio, "π_θ and π_old")  # the ratio is 1 and the KL 0
        if config.ptx_coef:  # as many documents as responses
            drawn = [documents[i] for i in rng.integers(len(documents), size=len(seen.batch))]
            ptx = document_loss(policy, batch_of(drawn, policy.chat.pad).to(policy.device))
            loss, metrics["loss/ptx"] = loss + config.ptx_coef * ptx, ptx.detach()
        return loss, metrics

    for chosen in minibatches(len(experience.batch), config, rng):
        parts = [experience[place] for place in experience.batch.parts(config.rows_per_pass, chosen)]
        rows.append(optimizer.update(parts, loss_fn))
        if config.max_approx_kl is not None and rows[-1]["policy/approxkl_avg"] > config.max_approx_kl:
            break  # no gradient is left behind: every update begins by clearing them
    return rows


def warm_up(
    optimizer: Optimizer,
    policy: GPT,
    critic: Critic,
    experience: Experience,
    config: PPOConfig,
    rng: np.random.Generator,
) -> list[dict]:
    """Fit the critic alone to the returns of a rollout, as VC-PPO does beforehand (Yuan et al. 2025).

    Returns the metrics of each update. By unclipped squared error: no old critic is worth staying near.
    """

    def loss_fn(seen: Experience):
        with torch.no_grad():  # a trunk that it shares is the policy's, and stays as it is
            states = response_states(policy, seen.batch) if critic.trunk is policy else None
        loss = clipped_value_loss(
            critic(seen.batch, states), seen.values, seen.returns, seen.batch.response_mask, math.inf
        )
        return loss, {"loss/value_avg": loss.detach()}

    orders = minibatches(len(experience.batch), config, rng)
    places = (experience.batch.parts(config.rows_per_pass, chosen) for chosen in orders)
    return [optimizer.update([experience[place] for place in parts], loss_fn) for parts in places]


def train(
    policy: GPT,
    prompts: Sequence[str],
    reward: Reward,
    config: PPOConfig = PPOConfig(),
    *,
    reference: GPT | None = None,
    critic: Critic | None = None,
    documents: Sequence[str | list[int]] = (),
    **options,
) -> History:
    """RLHF: teach `policy`, in place, to write what `reward` scores high, near the reference.

    Returns the history. `reward(prompts, responses)` is a reward model, or any function: the gold judge, a
    count of words. Left out, the reference is a frozen copy of the policy, and the critic, where
    config.advantages needs one, a head on the policy's own trunk. `documents` are what config.ptx_coef mixes
    in. `options` go to `training.repeat`.
    """
    policy = network_of(policy)
    reference = copy.deepcopy(policy) if reference is None else network_of(reference)
    if critic is None and config.advantages == "gae":
        critic = Critic(policy)
    require_roles(policy, reference, critic, reward, config.advantages)
    if config.ptx_coef and not documents:
        raise ValueError(f"ptx_coef is {config.ptx_coef}: give the pre-training documents to mix in")
    torch.nn.ModuleList([policy, reference, critic]).eval()  # no dropout, from here on

    documents = encoded(documents, policy)
    prompts = as_prompts(prompts)
    prompts_at = epochs([1] * len(prompts), config.prompts_per_step, config.seed)
    sampling = {name: getattr(config, name) for name in ("max_new_tokens", "temperature")}
    learner = torch.nn.ModuleDict({"policy": policy, "critic": critic})
    updates = config.epochs * config.minibatches  # of each rollout
    schedule = replace(config, steps=config.steps * updates, warmup=config.warmup * updates)
    optimizer = Optimizer(learner, schedule)
    if config.critic_warmup:  # at a constant rate; of a trunk that it shares with the policy, only the head
        apart = critic.head if critic.trunk is policy else critic
        critic_optimizer = Optimizer(apart, replace(config, warmup=0, final_lr=1.0))
    beta = config.beta

    def update(step: int) -> dict:
        nonlocal beta
        seed, rng = (config.seed, step), np.random.default_rng([config.seed, step])
        # 1. The policy answers some prompts, and the answers are scored.
        asked = [prompts[i] for i in prompts_at(step)]
        rollout = roll_out(policy, asked, reward, n=config.samples_per_prompt, seed=seed, **sampling)
        # 2. Every token gets its reward, the penalty included, and its advantage.
        warming = step < config.critic_warmup  # the critic then learns what really came, λ = 1
        at_hand = replace(config, lam=1.0) if warming else config
        experience, metrics = evaluate(rollout, policy, reference, critic, beta, at_hand)
        # 3. Policy and critic take a few small steps; at first the critic alone.
        if warming:
            rows = warm_up(critic_optimizer, policy, critic, experience, config, rng)
        else:
            beta = adapted(beta, metrics["objective/kl"], rollout.weight, config)
            rows = improve(optimizer, policy, critic, experience, config, rng, documents)
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return metrics | means | {"step": step + 1, "updates": len(rows)}

    rollouts = config.critic_warmup + config.steps
    return repeat(update, rollouts, History(), title="PPO", show="objective/scores", **options)


def require_roles(
    policy: GPT, reference: GPT, critic: Critic | None, reward: Reward, advantages: str
) -> None:
    """Raises TypeError or ValueError where one of PPO's models plays the part of another, or none."""
    if critic is not None and advantages != "gae":
        raise ValueError(f"advantages is {advantages!r}, which has no critic: leave the critic out")
    if advantages == "gae" and not isinstance(critic, Critic):
        raise TypeError(f"the critic is {type(critic).__name__}: give ppo.Critic(model), or leave it out")
    require_apart(torch.nn.ModuleList([policy, critic]), reference=reference, reward=reward)
