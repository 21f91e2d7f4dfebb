"""RLHF with PPO: make what the reward model scores high more probable, in small steps, near the reference.

max_θ E[ r_φ(x, y) − β log(π_θ(y|x) / π_ref(y|x)) ] (Ouyang et al. 2022, Eq. 2), by proximal policy
optimization (Schulman et al. 2017) on tokens, as in Ziegler et al. 2019. Four models play a part: the policy
π_θ, the reference π_ref, the reward model r_φ, and the critic V, the value function.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch.nn.utils import skip_init

from minialign.chat import Batch
from minialign.config import Count, Natural, NonNegative, Positive, Share, Temperature, at_least
from minialign.documents import batch_of, document_loss, encoded
from minialign.gpt import GPT, network_of
from minialign.logprobs import full_precision, on_response, require_same, response_states, token_log_probs
from minialign.masked import has_spread, masked_mean, whiten
from minialign.rollouts import Reward, Rollout, as_prompts, roll_out
from minialign.training import History, Optimizer, TrainingConfig, epochs, repeat, require_apart


@dataclass(frozen=True)
class PPOConfig(TrainingConfig):
    steps: Count = 25  # rollouts; each is used for epochs × minibatches updates
    learning_rate: Positive = 3e-4
    warmup: Natural = 0
    decay: Literal["cosine", "linear"] = "linear"
    weight_decay: NonNegative = 0.0
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
    horizon: Count = 10_000  # responses in which an adaptive β changes by a fifth at most
    max_approx_kl: NonNegative | None = None  # nats a token from π_old, beyond which a rollout is put aside
    gamma: Share = 1.0
    lam: Share = 0.95
    clip: Positive = 0.2
    value_clip: Positive = 0.2
    value_coef: NonNegative = 0.1
    missing_end_penalty: NonNegative = 1.0  # taken from the score of a response that was cut off
    whiten_rewards: bool = False
    ptx_coef: NonNegative = 0.0  # weight of the pre-training loss, nats a token (PPO-ptx)


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

    def forward(self, batch: Batch, states: torch.Tensor | None = None) -> torch.Tensor:
        """V before each response token, (B, T), 0 elsewhere.

        `states` are the trunk's `response_states`, if known.
        """
        states = response_states(self.trunk, batch) if states is None else states
        return on_response(full_precision(self.head(states)[:, 0]), batch.response_mask)


def kl_penalized_rewards(scores, log_probs, reference_log_probs, response_mask, beta: float) -> torch.Tensor:
    """r_t = −β (log π(y_t|·) − log π_ref(y_t|·)), plus the score at the last response token.

    scores (B,); the others (B, T). Summed over t this is r(x, y) − β log(π(y|x) / π_ref(y|x)). They are
    constants: no gradient flows. Source: Ziegler et al. 2019, §2.
    """
    rewards = -beta * (log_probs - reference_log_probs) * response_mask
    columns = torch.arange(response_mask.shape[1], device=response_mask.device)
    rewards[torch.arange(len(scores)), (columns * response_mask).argmax(-1)] += scores
    return rewards.detach()


def gae(
    rewards, values, response_mask, gamma: float = 1.0, lam: float = 0.95
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


def clipped_policy_loss(
    log_probs, old_log_probs, advantages, response_mask, clip: float = 0.2
) -> torch.Tensor:
    """−mean over response tokens of min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) with ρ = π/π_old; all (B, T).

    Source: Schulman et al. 2017, Eq. 7.
    """
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -masked_mean(torch.minimum(ratio * advantages, clipped * advantages), response_mask)


def clipped_value_loss(values, old_values, returns, response_mask, clip: float = 0.2) -> torch.Tensor:
    """½ mean over response tokens of max((V − R)², (V_clipped − R)²); all (B, T).

    V_clipped stays within ±clip of the old value.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), response_mask)


def adapted(beta: float, kl: float, n: int, config: PPOConfig) -> float:
    """The next β: raised when the KL of n responses lies above the target, lowered when below.

    Source: Ziegler et al. 2019, §2.2.
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
    values: torch.Tensor  # V_old
    advantages: torch.Tensor
    returns: torch.Tensor

    @property
    def weight(self) -> int:
        """Response tokens: what the mean losses are means over."""
        return int(self.batch.response_mask.sum())

    def __getitem__(self, place) -> "Experience":
        return Experience(*(field[place] for field in vars(self).values()))


def act(policy: GPT, critic: Critic, batch: Batch, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """log π_θ and V of every response token, (B, T) each; one forward pass where they share the trunk."""
    states = response_states(policy, batch)
    log_probs = token_log_probs(policy, batch, temperature, states)
    return log_probs, critic(batch, states if critic.trunk is policy else None)


@torch.no_grad()
def evaluate(
    rollout: Rollout, policy: GPT, reference: GPT, critic: Critic, beta: float, config: PPOConfig
) -> tuple[Experience, dict]:
    """Rewards, values and advantages of a rollout; and its metrics, under TRL's names."""
    batch, mask = rollout.batch, rollout.batch.response_mask
    log_probs, values, reference_log_probs = (torch.zeros_like(rollout.log_probs) for _ in range(3))
    for place in batch.parts(config.rows_per_pass):
        part = batch[place]
        # As the updates find them, not the sampler's own.
        found = act(policy, critic, part, config.temperature)
        log_probs[place], values[place] = (x.float() for x in found)
        reference_log_probs[place] = token_log_probs(reference, part, config.temperature).float()
    require_same(log_probs - rollout.log_probs, "sampler and scorer")
    scores = rollout.rewards - config.missing_end_penalty * ~rollout.finished
    rewards = kl_penalized_rewards(scores, log_probs, reference_log_probs, mask, beta)
    if config.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    advantages, returns = gae(rewards, values, mask, config.gamma, config.lam)
    kl = (log_probs - reference_log_probs).sum(-1).mean()
    metrics = rollout.metrics() | {
        "objective/kl": float(kl),  # nats a response
        "objective/non_score_reward": float(-beta * kl),
        "objective/rlhf_reward": float(scores.mean() - beta * kl),
        "objective/beta": beta,
        "val/explained_variance": explained_variance(values[mask], returns[mask]),
    }
    return Experience(batch, log_probs, values, whiten(advantages, mask), returns), metrics


def explained_variance(values: torch.Tensor, returns: torch.Tensor) -> float:
    """1 − Var(R − V) / Var(R), of tokens (N,): 1 is a perfect critic, 0 one that knows only the mean.

    NaN where the returns do not vary.
    """
    if not has_spread(returns, returns.std(unbiased=False)):
        return math.nan
    return float(1 - (returns - values).var() / returns.var())


def ppo_loss(
    policy: GPT, critic: Critic, seen: Experience, config: PPOConfig
) -> tuple[torch.Tensor, dict, torch.Tensor]:
    """Policy loss + value_coef · value loss, a scalar; its metrics; and log π_θ − log π_old, (B, T)."""
    mask = seen.batch.response_mask
    log_probs, values = act(policy, critic, seen.batch, config.temperature)
    policy_loss = clipped_policy_loss(log_probs, seen.log_probs, seen.advantages, mask, config.clip)
    value_loss = clipped_value_loss(values, seen.values, seen.returns, mask, config.value_clip)
    log_ratio = (log_probs - seen.log_probs).detach()
    metrics = {
        "loss/policy_avg": policy_loss.detach(),
        "loss/value_avg": value_loss.detach(),
        "policy/approxkl_avg": masked_mean(log_ratio**2 / 2, mask),
        "policy/clipfrac_avg": masked_mean((log_ratio.expm1().abs() > config.clip).float(), mask),
        "val/ratio": masked_mean(log_ratio.exp(), mask),
    }
    return policy_loss + config.value_coef * value_loss, metrics, log_ratio


def minibatches(n: int, config: PPOConfig, rng: np.random.Generator) -> list[torch.Tensor]:
    """Which of n responses each update learns from: every one once an epoch, in random order."""
    orders = [rng.permutation(n) for _ in range(config.epochs)]
    parts = [rows for order in orders for rows in np.array_split(order, min(n, config.minibatches))]
    return [torch.from_numpy(rows) for rows in parts]


def improve(
    optimizer: Optimizer,
    policy: GPT,
    critic: Critic,
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
    count of words. Left out, the reference is a frozen copy of the policy, and the critic a head on the
    policy's own trunk. `documents` are what config.ptx_coef mixes in. `options` go to `training.repeat`.
    """
    policy = network_of(policy)
    reference = copy.deepcopy(policy) if reference is None else network_of(reference)
    critic = Critic(policy) if critic is None else critic
    require_roles(policy, reference, critic, reward)
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
    beta = config.beta

    def update(step: int) -> dict:
        nonlocal beta
        seed, rng = (config.seed, step), np.random.default_rng([config.seed, step])
        # 1. The policy answers some prompts, and the answers are scored.
        asked = [prompts[i] for i in prompts_at(step)]
        rollout = roll_out(policy, asked, reward, n=config.samples_per_prompt, seed=seed, **sampling)
        # 2. Every token gets its reward, the penalty included, and its advantage.
        experience, metrics = evaluate(rollout, policy, reference, critic, beta, config)
        beta = adapted(beta, metrics["objective/kl"], rollout.weight, config)
        # 3. Policy and critic take a few small steps.
        rows = improve(optimizer, policy, critic, experience, config, rng, documents)
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        return metrics | means | {"step": step + 1, "updates": len(rows)}

    return repeat(update, config.steps, History(), title="PPO", show="objective/scores", **options)


def require_roles(policy: GPT, reference: GPT, critic: Critic, reward: Reward) -> None:
    """Raises TypeError or ValueError where one of PPO's four models plays the part of another."""
    if not isinstance(critic, Critic):
        raise TypeError(f"the critic is {type(critic).__name__}: give ppo.Critic(model), or leave it out")
    require_apart(torch.nn.ModuleList([policy, critic]), reference=reference, reward=reward)
