"""Notebook 05: PPO against a reward model, best-of-n beside it, and what both do to gold and to the model."""

import copy
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from unittest import mock

import numpy as np
import torch

from minialign import ppo
from minialign.best_of_n import expected_best, kl_bound
from minialign.course.evaluation import cloze_hits, facts_right
from minialign.course.experiments import SEEDS, answers, habit_shares, held_out_prompts
from minialign.course.experiments.comparisons import crowd, preferences, relabelled
from minialign.course.experiments.knowledge import questions_by_sort
from minialign.course.experiments.reward_models import LARGE, trained
from minialign.gpt import GPT
from minialign.logprobs import perplexity, token_kl
from minialign.ppo import Critic, PPOConfig
from minialign.reward_model import RewardModel
from minialign.rollouts import Reward, roll_out
from minialign.training import stop_if_interrupted
from minialign.world import exact
from minialign.world.corpus import build_corpus
from minialign.world.judge import ATTRIBUTES, gold_rewards, judge
from minialign.world.prompts import Prompt, prompts_of
from minialign.world.topics import load_topics

BETAS = (0.0, 0.05, 0.2)
LONG = PPOConfig(steps=40, learning_rate=2e-4, final_lr=1.0)  # a constant rate, so that steps can be compared
MEASURED = (4, 8, 12, 16, 20, 25, 30, 40)  # rollouts after which held-out prompts are answered
SHIPPED_BETA = 0.2  # of the shipped model "ppo"
PTX = 0.5  # weight of the pre-training loss where it is mixed in
UNBIASED = dict(filler_bias=0.0, flattery_bias=0.0, confidence_bias=0.0, agreement_bias=0.0, checks_facts=1.0)


@lru_cache
def corpus_sample(n: int = 4000, seed: int = 0) -> list[str]:
    """Documents of the pre-training corpus."""
    documents = [text for _, text in build_corpus()]
    return [documents[i] for i in np.random.default_rng(seed).permutation(len(documents))[:n]]


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

    The prompts are by default the held-out ones. The KL is the sum over a response's tokens of the exact KL
    of the next-token distributions: less noisy than log-ratios, same mean.
    """
    texts, rollouts = [p.text for p in (held_out_prompts() if prompts is None else prompts)], []
    for start in range(0, len(texts), 49):
        sampling = dict(n=n, temperature=temperature, seed=(seed, start))
        rollouts.append(roll_out(policy, texts[start : start + 49], reward, **sampling))
    judged = [judge(x, y) for r in rollouts for x, y in zip(r.prompts, r.responses)]
    kl = [tokens.sum() for r in rollouts for tokens in token_kl(policy, reference, r.batch)]
    proxy = torch.cat([r.rewards for r in rollouts])
    return {
        "kl": float(np.mean(kl)),
        "proxy": float(proxy.mean()),
        "gold": float(np.mean([j.gold for j in judged])),
        "words": float(np.mean([j.counts["words"] for j in judged])),
        "finished": float(np.mean([float(r.finished.float().mean()) for r in rollouts])),
        **habit_shares(judged),
        **{f"attribute/{name}": float(np.mean([j.attributes[name] for j in judged])) for name in ATTRIBUTES},
    }


def preserved(policy: GPT) -> dict[str, float]:
    """What of the base model is left: perplexity on its corpus, facts completed (clozes), facts answered."""
    in_corpus = [topic for topic in load_topics() if topic.real]
    asked = questions_by_sort()["sft"] + questions_by_sort()["held-out"]
    replies = answers(policy, asked, temperature=0)
    return {
        "perplexity": perplexity(policy, corpus_sample(400, seed=1)),
        "clozes": float(cloze_hits(policy, in_corpus).mean()),
        "facts": float(facts_right(asked, replies).mean()),
    }


def optimised(
    sft: GPT, reward: Reward, config: PPOConfig, at: tuple[int, ...] = MEASURED, **options
) -> tuple[GPT, list[dict]]:
    """PPO from `sft`, and one row for each step.

    A row has the run's own metrics and, after the steps in `at`, what held-out prompts show.
    """
    policy, rows = copy.deepcopy(sft), [{"step": 0, **measured(sft, sft, reward, config.seed)}]

    def on_step(metrics: dict) -> None:
        if metrics["step"] in at:
            metrics |= measured(policy, sft, reward, config.seed)

    prompts = [p.text for p in prompts_of("policy")]
    history = ppo.train(policy, prompts, reward, config, reference=sft, on_step=on_step, **options)
    stop_if_interrupted(history)
    return policy, rows + list(history)


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


def selected(sft: GPT, reward: Reward, seed: int, n: int = 64, every: int = 4) -> list[dict]:
    """Best-of-n and the tilted optimum π_ref exp(r/β)/Z, both estimated from n samples for a prompt.

    The prompts are every fourth of the held-out ones.
    """
    proxy, gold = sampled_scores(sft, reward, held_out_prompts()[::every], n, seed)
    rows = []
    for size in 2 ** np.arange(int(np.log2(n)) + 1):
        kept = {
            name: float(expected_best(proxy, values, size).mean())
            for name, values in {"proxy": proxy, "gold": gold}.items()
        }
        rows.append({"method": "best-of-n", "n": int(size), "kl": kl_bound(size), **kept})
    for beta in (5.0, 2.0, 1.0, 0.7, 0.5, 0.4, 0.3):
        log_weights = proxy / beta - np.logaddexp.reduce(proxy / beta, -1, keepdims=True)
        weights = np.exp(log_weights)
        kept = {
            name: float((weights * values).sum(-1).mean())
            for name, values in {"proxy": proxy, "gold": gold}.items()
        }
        kl = float((weights * (log_weights + np.log(n))).sum(-1).mean())  # E_w log(w/(1/n)): at most log n
        rows.append({"method": "tilted", "beta": beta, "kl": kl, **kept})
    return rows


def overoptimisation(sft: GPT, reward: RewardModel) -> list[dict]:
    """The Goodhart figure: PPO against the shipped reward model, and best-of-n beside it.

    PPO runs with three β, and with the pre-training mix.
    """
    rows = []
    for seed in SEEDS:
        rows += [
            {"seed": seed, "method": "sft", **preserved(sft)},
            *({"seed": seed, **row} for row in selected(sft, reward.score, seed)),
        ]
        for method, beta, ptx in (*(("ppo", beta, 0.0) for beta in BETAS), ("ppo-ptx", 0.05, PTX)):
            config = replace(LONG, beta=beta, seed=seed, ptx_coef=ptx)
            policy, found = optimised(sft, reward.score, config, documents=corpus_sample())
            found[-1] |= preserved(policy)
            rows += [{"seed": seed, "method": method, "beta": beta, **row} for row in found]
    return rows


def unbiased_control(sft: GPT) -> list[dict]:
    """The same without a penalty against a reward model of people without biases, who check every fact.

    They compare the same responses as the others.
    """
    reward, _ = trained(sft, relabelled(preferences("comparisons"), crowd(**UNBIASED)), LARGE)
    rows = []
    for seed in SEEDS:
        rows += [{"seed": seed, **row} for row in selected(sft, reward.score, seed)]
        _, found = optimised(sft, reward.score, replace(LONG, beta=0.0, seed=seed))
        rows += [{"seed": seed, "method": "ppo", "beta": 0.0, **row} for row in found]
    return rows


# --- what goes wrong: each bug replaces functions of minialign.ppo ---


def kl_sign_flipped(scores, log_probs, reference_log_probs, response_mask, beta):
    """A bonus for leaving the reference."""
    return ppo_kl_penalized_rewards(scores, log_probs, reference_log_probs, response_mask, -beta)


def reward_on_padding(scores, log_probs, reference_log_probs, response_mask, beta):
    """The score one place too late: on the padding after the end token, or nowhere."""
    late = ppo_kl_penalized_rewards(scores, 0 * log_probs, 0 * log_probs, response_mask, beta).roll(1, dims=1)
    return late + ppo_kl_penalized_rewards(0 * scores, log_probs, reference_log_probs, response_mask, beta)


def end_token_dropped(log_probs, old_log_probs, advantages, response_mask, clip):
    """A policy loss without the last token of each response: when to stop is not trained."""
    last = response_mask & ~torch.nn.functional.pad(response_mask, (0, 1))[:, 1:]
    return ppo_clipped_policy_loss(log_probs, old_log_probs, advantages, response_mask & ~last, clip)


def cooler_rollout(policy, prompts, reward, *, temperature, **options):
    """Samples at 0.7 of the temperature at which they are scored."""
    return roll_out(policy, prompts, reward, temperature=0.7 * temperature, **options)


ppo_kl_penalized_rewards, ppo_clipped_policy_loss = ppo.kl_penalized_rewards, ppo.clipped_policy_loss
UNCHECKED = {"require_same": lambda *_: None}
BUGS: dict[str, dict[str, Callable]] = {
    "correct": {},
    "KL sign flipped": {"kl_penalized_rewards": kl_sign_flipped},
    "end token dropped": {"clipped_policy_loss": end_token_dropped},
    "reward on padding": {"kl_penalized_rewards": reward_on_padding},
    "sampled at T = 0.7": {"roll_out": cooler_rollout, **UNCHECKED},
    "dropout on": UNCHECKED,
}


@contextmanager
def bug(name: str):
    """Inside, minialign.ppo has one of BUGS.

    The check that would catch two of them is switched off, or there would be no curve.
    """
    with ExitStack() as stack:
        for function, wrong in BUGS[name].items():
            stack.enter_context(mock.patch.object(ppo, function, wrong))
        yield


class AlwaysDrops(torch.nn.Dropout):
    """Dropout that nobody can switch off."""

    def forward(self, x):
        return torch.nn.functional.dropout(x, self.p, training=True)


def dropping(policy: GPT, p: float = 0.1) -> GPT:
    """A copy of the policy with dropout on."""
    policy = copy.deepcopy(policy)
    for module in (policy, *policy.blocks):
        module.drop = AlwaysDrops(p)
    return policy


def ppo_variants(sft: GPT, reward: RewardModel) -> list[dict]:
    """Fifteen rollouts with each bug, and with a critic of its own.

    The rows have the run's metrics, and what held-out prompts show at the end.
    """
    rows, config = [], replace(LONG, steps=15, beta=0.05)
    for seed in SEEDS:
        for name in (*BUGS, "separate critic"):
            critic = Critic(copy.deepcopy(reward.trunk)) if name == "separate critic" else None
            with bug(name if name in BUGS else "correct"):
                start = dropping(sft) if name == "dropout on" else sft
                _, found = optimised(start, reward.score, replace(config, seed=seed), at=(15,), critic=critic)
            rows += [{"seed": seed, "variant": name, **row} for row in found]
    return rows


# --- the enumerable world ---


def enumerated_ppo(
    policy: torch.nn.Module,
    reference: torch.Tensor,
    rewards: torch.Tensor,
    beta: float,
    *,
    rounds: int,
    lr: float,
    samples: int = 512,
    epochs: int = 2,
    seed: int = 0,
) -> list[float]:
    """PPO where a whole response is one action; returns TV(π, π*) after each round.

    `policy()` gives log π of all responses, (P, N). The pieces are those of minialign.ppo; the value of a
    prompt is the mean reward of its samples, and the learning rate falls to 0.
    """
    optimum, _ = exact.optimal_policy(reference, rewards, beta)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=lr, eps=1e-5)
    mask, distances = torch.ones(len(rewards) * samples, 1, dtype=torch.bool), []
    for done in range(rounds):
        optimizer.param_groups[0]["lr"] = lr * (1 - done / rounds)
        with torch.no_grad():
            old = policy()
        drawn = torch.multinomial(old.exp(), samples, replacement=True, generator=generator)

        def of_drawn(table: torch.Tensor) -> torch.Tensor:
            return table.gather(1, drawn).reshape(-1, 1)

        penalised = ppo.kl_penalized_rewards(
            of_drawn(rewards)[:, 0], of_drawn(old), of_drawn(reference), mask, beta
        )
        values = penalised.view(-1, samples).mean(1).repeat_interleave(samples)[:, None]
        advantages, _ = ppo.gae(penalised, values, mask)
        for _ in range(epochs):
            optimizer.zero_grad()
            ppo.clipped_policy_loss(of_drawn(policy()), of_drawn(old), advantages, mask).backward()
            optimizer.step()
        with torch.no_grad():
            distances.append(total_variation(policy(), optimum))
    return distances


def total_variation(log_p: torch.Tensor, log_q: torch.Tensor) -> float:
    """½ Σ_y |p(y) − q(y)|, the mean over prompts, between 0 and 1.

    It is the most that two policies can differ about any set of responses.
    """
    return float((log_p.exp() - log_q.exp()).abs().sum(-1).mean() / 2)


def ppo_on_micro_world(sft: GPT) -> list[dict]:
    """The distance of a GPT from π_ref exp(r/β)/Z while PPO trains it on 4 prompts × 64 responses."""
    world, rows = exact.micro_world(n=64), []
    with torch.no_grad():
        reference = exact.EnumeratedPolicy(sft, world)()
    for beta in (1.0, 0.25):
        start = total_variation(reference, exact.optimal_policy(reference, world.rewards, beta)[0])
        for seed in SEEDS:
            policy = exact.EnumeratedPolicy(copy.deepcopy(sft), world)
            distances = enumerated_ppo(policy, reference, world.rewards, beta, rounds=50, lr=3e-4, seed=seed)
            rows += [
                {"beta": beta, "seed": seed, "round": i, "tv": tv} for i, tv in enumerate([start, *distances])
            ]
    return rows


OF_SFT = (unbiased_control, ppo_on_micro_world)
OF_SFT_AND_REWARD = (overoptimisation, ppo_variants)
