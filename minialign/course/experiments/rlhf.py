"""Notebook 05: how PPO is run in the course, and what is measured of the policy that it makes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from minialign import ppo
from minialign.course.evaluation import cloze_hits, facts_right
from minialign.course.experiments import answers, habit_shares, held_out_prompts, tuning_prompts
from minialign.course.experiments.knowledge import questions_by_sort
from minialign.gpt import GPT
from minialign.logprobs import perplexity, token_kl
from minialign.ppo import Critic, PPOConfig
from minialign.reward_model import RewardModel
from minialign.rollouts import Reward, roll_out
from minialign.training import stop_if_interrupted
from minialign.world.corpus import build_corpus
from minialign.world.judge import ATTRIBUTES, gold_rewards, judge
from minialign.world.prompts import Prompt, prompts_of
from minialign.world.topics import load_topics

# --- how PPO is run ---

WARMUP = 5  # rollouts from which a "warm" critic learns before the policy does


@dataclass(frozen=True)
class Arm:
    """What PPO compares a response with: a critic's values, with GAE's λ, or the prompt's other samples.

    | baseline       |                                                                               |
    |----------------|-------------------------------------------------------------------------------|
    | "rloo", "grpo" | the other samples; there is no critic, and λ plays no part                    |
    | "cold"         | a critic on the policy's own trunk that at first expects nothing              |
    | "warm"         | the same, fitted to WARMUP rollouts beforehand                                |
    | "reward model" | a critic of its own that starts as a copy of the reward model                 |
    """

    baseline: Literal["rloo", "grpo", "cold", "warm", "reward model"]
    lam: float = 1.0

    def __str__(self) -> str:
        return self.baseline.upper() if self.compares else f"λ = {self.lam:g}, {self.baseline} critic"

    @property
    def compares(self) -> bool:
        return self.baseline in ("rloo", "grpo")

    def applied(self, config: PPOConfig) -> PPOConfig:
        """The config with this arm; its `steps` are all rollouts, and those that warm a critic up count."""
        advantages = self.baseline if self.compares else "gae"
        warmup = WARMUP if self.baseline == "warm" else 0
        steps = config.steps - warmup
        return replace(config, advantages=advantages, lam=self.lam, critic_warmup=warmup, steps=steps)

    def critic(self, reward: RewardModel) -> Critic | None:
        """The critic to begin with; None for the one that PPO makes itself, or for none at all."""
        return Critic.from_reward_model(reward) if self.baseline == "reward model" else None


ARM = Arm("warm")  # of the course's PPO: what `critics.chosen_arm` chooses from the table ppo_advantages
# At a constant rate, so that half a run is a run of half the length.
LONG = PPOConfig(steps=20, learning_rate=2e-4, final_lr=1.0)
SHIPPED_BETA = 0.2  # of the shipped model "ppo"


def optimised(
    sft: GPT, reward: RewardModel, config: PPOConfig, at: Sequence[int] = (), *, arm: Arm = ARM, **options
) -> tuple[GPT, list[dict]]:
    """PPO from `sft` for config.steps rollouts in all, and one row for each.

    A row has the run's own metrics and, after the rollouts in `at`, what held-out prompts show.
    """
    policy = copy.deepcopy(sft)

    def on_step(metrics: dict) -> None:
        if metrics["step"] in at:
            metrics |= measured(policy, sft, reward.score, config.seed)

    prompts = [p.text for p in prompts_of("policy")]
    options |= dict(reference=sft, critic=arm.critic(reward), on_step=on_step)
    history = ppo.train(policy, prompts, reward.score, arm.applied(config), **options)
    stop_if_interrupted(history)
    return policy, list(history)


# --- what is measured ---


@dataclass(frozen=True)
class Sampled:
    """A policy as it is sampled at a temperature T: its logits over T. Greedy decoding is the limit T → 0."""

    policy: GPT
    temperature: float

    def hidden(self, *args) -> torch.Tensor:
        return self.policy.hidden(*args)

    def head(self, states: torch.Tensor) -> torch.Tensor:
        return self.policy.head(states) / max(self.temperature, 1e-5)


def measured(
    policy: GPT,
    reference: GPT,
    reward: Reward,
    seed: int,
    n: int = 2,
    temperature: float = 1.0,
    prompts: Sequence[Prompt] | None = None,
) -> dict[str, float]:
    """What n samples for each prompt show: KL from the reference, proxy and gold reward, attributes, habits.

    The prompts are by default the held-out ones. The KL, in nats a response, is that of the policy at this
    temperature from the reference at 1: the sum over a response's tokens of the exact KL of the next-token
    distributions, which is less noisy than log-ratios and has the same mean. Greedy decoding, at 0, always
    answers the same, once.
    """
    texts, rollouts = [p.text for p in (held_out_prompts() if prompts is None else prompts)], []
    for start in range(0, len(texts), 49):
        sampling = dict(n=n if temperature else 1, temperature=temperature, seed=(seed, start))
        rollouts.append(roll_out(policy, texts[start : start + 49], reward, **sampling))
    judged = [judge(x, y) for r in rollouts for x, y in zip(r.prompts, r.responses)]
    sampled = Sampled(policy, temperature)
    parts = (r.batch[place] for r in rollouts for place in r.batch.parts(16))  # all logits at once are slow
    kl = [tokens.sum() for part in parts for tokens in token_kl(sampled, reference, part)]
    proxy = torch.cat([r.rewards for r in rollouts])
    return {
        "temperature": temperature,
        "kl": float(np.mean(kl)),
        "proxy": float(proxy.mean()),
        "gold": float(np.mean([j.gold for j in judged])),
        "words": float(np.mean([j.counts["words"] for j in judged])),
        "finished": float(torch.cat([r.finished for r in rollouts]).float().mean()),
        **habit_shares(judged),
        **{f"attribute/{name}": float(np.mean([j.attributes[name] for j in judged])) for name in ATTRIBUTES},
    }


def ended(
    policy: GPT,
    sft: GPT,
    reward: Reward,
    rows: list[dict],
    seed: int,
    temperatures: Sequence[float] = (0.7, 0.0),
) -> list[dict]:
    """The rows of a run with what belongs to its end.

    The last one gets "tuning/gold", the gold at T = 1 on the tuning prompts, by which anything is chosen.
    Behind it come rows of cooler samples on the held-out prompts.
    """
    asked, step = tuning_prompts(), rows[-1]["step"]
    replies = answers(policy, asked, seed=seed, n=2)
    tuning = float(gold_rewards([p for p in asked for _ in range(2)], replies).mean())
    cooler = [{"step": step, **measured(policy, sft, reward, seed, temperature=t)} for t in temperatures]
    return [*rows[:-1], rows[-1] | {"tuning/gold": tuning}, *cooler]


def started(sft: GPT, reward: Reward, seed: int, **options) -> list[dict]:
    """The same of the fine-tuned model, before any rollout. To sample it more coolly costs nothing."""
    return ended(sft, sft, reward, [{"step": 0, **measured(sft, sft, reward, seed)}], seed, **options)


def typical_seed(rows: Sequence[dict], **where) -> int:
    """Which run is shipped: the seed whose gold on tuning prompts at the end is the median of the seeds'.

    Of the rows that have all of `where`. Of an even number of seeds, the lower of the two in the middle; of
    equal golds, the seed with the lower number. Raises ValueError where no row fits.
    """
    golds = {
        row["seed"]: row["tuning/gold"]
        for row in rows
        if "tuning/gold" in row and where.items() <= row.items()
    }
    if not golds:
        raise ValueError(f"no row with a gold on tuning prompts has {where}: build the table first")
    median = sorted(golds.values())[(len(golds) - 1) // 2]
    return min(seed for seed, gold in golds.items() if gold == median)


def sampled_scores(
    sft: GPT, reward: Reward, prompts: Sequence[Prompt], n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Proxy and gold reward of n samples for each prompt, (P, n) each."""
    proxy, gold = [], []
    for start in range(0, len(prompts), 7):
        rollout = roll_out(sft, [p.text for p in prompts[start : start + 7]], reward, n=n, seed=(seed, start))
        proxy.append(rollout.rewards.view(-1, n).double().numpy())
        gold.append(gold_rewards(rollout.prompts, rollout.responses).reshape(-1, n))
    return np.concatenate(proxy), np.concatenate(gold)


@lru_cache
def documents(mixed: int = 4000, apart: int = 400) -> tuple[list[str], list[str]]:
    """Documents of the pre-training corpus: some to mix into PPO, and others to measure on.

    No text is among both. The base model was trained on all of them.
    """
    texts = list(dict.fromkeys(text for _, text in build_corpus()))
    shuffled = [texts[i] for i in np.random.default_rng(0).permutation(len(texts))]
    return shuffled[:mixed], shuffled[mixed : mixed + apart]


def preserved(policy: GPT) -> dict[str, float]:
    """What of the base model is left.

    Its training perplexity on documents that PPO never mixes in, clozes completed, and one-fact questions
    answered rightly, in words that no demonstration has, about topics with and without demonstrations.
    """
    in_corpus = [topic for topic in load_topics() if topic.real]
    found = {
        "training_perplexity": perplexity(policy, documents()[1]),
        "clozes": float(cloze_hits(policy, in_corpus).mean()),
    }
    for sort, asked in questions_by_sort().items():
        if sort != "sft-only":  # the base model has never heard of those
            found[f"facts/{sort}"] = float(facts_right(asked, answers(policy, asked, temperature=0)).mean())
    return found
