"""Notebook 05: how PPO is run in the course, and what is measured of the policy that it makes."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minialign import ppo
from minialign.course.evaluation import cloze_hits
from minialign.course.experiments import held_out_prompts
from minialign.course.experiments.fine_tuning import unread_documents
from minialign.course.experiments.knowledge import questions_by_sort, right_share
from minialign.course.experiments.measuring import measured, tuning_gold
from minialign.gpt import GPT
from minialign.logprobs import negative_log_likelihood
from minialign.ppo import Critic, PPOConfig
from minialign.reward_model import RewardModel
from minialign.rollouts import Reward, Rollout
from minialign.training import stop_if_interrupted
from minialign.world.judge import judge
from minialign.world.prompts import prompts_of
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


# What `critics.chosen_arm` chooses from the table ppo_advantages: for the course's PPO, and among all arms.
ARM, CRITIC_FREE = Arm("warm"), Arm("grpo")
# At a constant rate, so that half a run is a run of half the length.
LONG = PPOConfig(steps=45, learning_rate=2e-4, final_lr=1.0)
SHIPPED = replace(LONG, beta=0.3)  # the model "ppo": what `goodhart.best_stop` finds in its table


def optimised(
    sft: GPT, reward: RewardModel, config: PPOConfig, at: Sequence[int] = (), *, arm: Arm = ARM, **options
) -> tuple[GPT, list[dict]]:
    """PPO from `sft` for config.steps rollouts in all, and one row for each.

    A row has the run's own metrics and, after the rollouts in `at`, what held-out prompts show, and
    "tuning/gold", the gold at T = 1 on the tuning prompts, by which anything is chosen.
    """
    policy = copy.deepcopy(sft)

    def on_step(metrics: dict) -> None:
        if metrics["step"] in at:
            metrics |= shown(policy, sft, reward.score, (config.seed, metrics["step"]))

    prompts = [p.text for p in prompts_of("policy")]
    options |= dict(reference=sft, critic=arm.critic(reward), on_step=on_step)
    history = ppo.train(policy, prompts, reward.score, arm.applied(config), **options)
    stop_if_interrupted(history)
    return policy, list(history)


# --- what is measured ---


def on_held_out(
    policy: GPT, sft: GPT, reward: Reward, drawn: tuple[int, ...], temperatures: Sequence[float] = (1.0,)
) -> list[dict]:
    """Two answers to each held-out prompt, a row for each temperature: `measuring.measured`.

    The reward model's score is called "proxy", as it is what stands in for the gold reward. Runs of one seed
    are asked with the same random numbers: what differs between their means is the policy's.
    """
    options = dict(temperatures=temperatures, reward=reward)
    rows = measured(policy, sft, held_out_prompts(), drawn, **options)
    return [{"proxy" if name == "reward" else name: row[name] for name in row} for row in rows]


def seen_by_the_judge(rollout: Rollout) -> dict[str, float]:
    """What the learner never sees of its rollout: the mean gold, and the share of answers that flatter."""
    found = [judge(prompt, response) for prompt, response in zip(rollout.prompts, rollout.responses)]
    flattering = [judgement.counts["flattery"] > 0 for judgement in found]
    return {"gold": float(np.mean([j.gold for j in found])), "flattery": float(np.mean(flattering))}


def shown(policy: GPT, sft: GPT, reward: Reward, drawn: tuple[int, ...]) -> dict:
    """What held-out prompts show at T = 1, and "tuning/gold"."""
    return on_held_out(policy, sft, reward, drawn)[0] | {"tuning/gold": tuning_gold(policy, drawn)}


def cooler(
    policy: GPT,
    sft: GPT,
    reward: Reward,
    step: int,
    seed: int,
    temperatures: Sequence[float] = (0.7, 0.0),
) -> list[dict]:
    """Rows of cooler samples on the held-out prompts, after `step` rollouts."""
    found = on_held_out(policy, sft, reward, (seed, step), temperatures)
    return [{"step": step, **row} for row in found]


def started(sft: GPT, reward: Reward, seed: int, **options) -> list[dict]:
    """What the fine-tuned model shows, before any rollout. To sample it more coolly costs nothing."""
    return [
        {"step": 0, **shown(sft, sft, reward, (seed, 0))},
        *cooler(sft, sft, reward, 0, seed, **options),
    ]


def typical_seed(rows: Sequence[dict], **where) -> int:
    """Which run is shipped: the seed whose gold on tuning prompts is the median of the seeds'.

    Of the rows that have all of `where`, which says after which step if there are several. Of an even number
    of seeds, the lower of the two in the middle; of equal golds, the seed with the lower number. Raises
    ValueError where no row fits.
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


def preserved(policy: GPT) -> dict[str, float]:
    """What of the base model is left.

    Its perplexity on documents that nobody has trained on, clozes completed, and one-fact questions answered
    rightly, in words that no demonstration has, about topics with and without demonstrations.
    """
    in_corpus = [topic for topic in load_topics() if topic.real]
    found = {
        "perplexity": math.exp(negative_log_likelihood(policy, unread_documents())),
        "clozes": float(cloze_hits(policy, in_corpus).mean()),
    }
    for sort, asked in questions_by_sort().items():
        if sort != "sft-only":  # the base model has never heard of those
            found[f"facts/{sort}"] = right_share(policy, asked)
    return found
