"""Notebook 05: what PPO compares a response with: critics that start cold or warm, with λ, or no critic."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import mean
from unittest import mock

import torch

from minialign import ppo
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.rlhf import LONG, WARMUP, Arm, cooler, optimised, started
from minialign.gpt import GPT
from minialign.masked import masked_mean
from minialign.reward_model import RewardModel
from minialign.statistics import one_standard_error_rule, standard_error

ARMS = {
    str(arm): arm
    for arm in (
        *(Arm(critic, lam) for critic in ("cold", "warm", "reward model") for lam in (0.95, 1.0)),
        Arm("rloo"),
        Arm("grpo"),
    )
}
# From few parts to many: no critic, one that simply starts, one with a warm-up, one with its own trunk.
SIMPLEST = ("rloo", "grpo"), ("cold",), ("warm",), ("reward model",)
MEASURED = (10, 20)  # rollouts
COMPARED = replace(LONG, steps=MEASURED[-1], beta=0.05)  # of every arm alike, its warm-up included
RECIPE = f"seeds {SEEDS} {[*ARMS]} {WARMUP} to warm up, {COMPARED!r}"
TO_GO = (0, 1, 3, 6, 12, 24)  # tokens to go: where each group of tokens begins


def by_tokens_to_go(advantages: torch.Tensor, response_mask: torch.Tensor) -> dict[str, float]:
    """The mean advantage of tokens by how many still follow in their response, in units of its RMS; (B, T).

    With λ = 1 and whatever baseline it is about 0 for all. "squared/…" is the group's share of all squares.
    A group begins at one of TO_GO and ends before the next; one without tokens is left out.
    """
    to_go = response_mask.flip(-1).cumsum(-1).flip(-1) - 1
    squares, found = (advantages * response_mask).square(), {}
    scale = masked_mean(squares, response_mask).sqrt()
    for low, high in zip(TO_GO, (*TO_GO[1:], advantages.shape[1])):
        group = response_mask & (low <= to_go) & (to_go < high)
        if group.any():
            found[f"advantage/{low}"] = float(masked_mean(advantages, group) / scale)
            found[f"squared/{low}"] = float(squares[group].sum() / squares.sum())
    return found


def evaluate_and_look(*args) -> tuple[ppo.Experience, dict]:
    """`ppo.evaluate`, with `by_tokens_to_go` among the metrics."""
    experience, metrics = ppo_evaluate(*args)
    return experience, metrics | by_tokens_to_go(experience.advantages, experience.batch.response_mask)


ppo_evaluate = ppo.evaluate


def ppo_advantages(sft: GPT, reward: RewardModel) -> dict[str, Part]:
    """PPO with each of ARMS, from as many samples; and the fine-tuned model as arm "start".

    Each rollout's row has the run's metrics and `by_tokens_to_go`; those in MEASURED what held-out prompts
    show, and "tuning/gold". A row with a lower `temperature` follows.
    """

    def start(seed: int) -> list[dict]:
        rows = started(sft, reward.score, seed, temperatures=(0.7,))
        return [{"arm": "start", "seed": seed, **row} for row in rows]

    def run(name: str, seed: int) -> list[dict]:
        with mock.patch.object(ppo, "evaluate", evaluate_and_look):
            config = replace(COMPARED, seed=seed)
            policy, rows = optimised(sft, reward, config, MEASURED, arm=ARMS[name])
        rows += cooler(policy, sft, reward.score, rows[-1]["step"], seed, temperatures=(0.7,))
        return [{"arm": name, "seed": seed, **row} for row in rows]

    parts = {f"start, seed {seed}": partial(start, seed) for seed in SEEDS}
    return parts | {f"{name}, seed {seed}": partial(run, name, seed) for name in ARMS for seed in SEEDS}


WITH_CRITIC = [name for name, arm in ARMS.items() if not arm.compares]


def chosen_arm(rows: Sequence[dict], among: Sequence[str] = (*ARMS,)) -> Arm:
    """The arm to take, from the rows of `ppo_advantages`. The rule, fixed before they were:

    Compared is the gold reward at T = 1 on the *tuning* prompts, its mean over the seeds, after that number
    of rollouts in MEASURED that suits the arm best: a reward model can be over-optimised, and an arm that
    gets nowhere would look good at the end. Of all arms within one standard error (over the seeds) of the
    best, the one with the fewest parts is chosen: no critic before a cold one, that before a warm one, that
    before one from the reward model. Of equally many parts, the one with more gold.

    What is called PPO in the course has a critic, and is chosen `among` the arms WITH_CRITIC. The one that
    is chosen among all stands beside it in the race.
    """
    names = [name for name in among if any(row["arm"] == name for row in rows)]
    golds = [at_best([row for row in rows if row["arm"] == name]) for name in names]
    order = [next(i for i, kinds in enumerate(SIMPLEST) if ARMS[name].baseline in kinds) for name in names]
    means, errors = [mean(gold) for gold in golds], [standard_error(gold) for gold in golds]
    return ARMS[names[one_standard_error_rule(means, errors, order)]]


def at_best(rows: Sequence[dict]) -> list[float]:
    """The seeds' "tuning/gold" after as many rollouts as make its mean largest."""
    golds: dict[int, list[float]] = {}
    for row in rows:
        if "tuning/gold" in row:
            golds.setdefault(row["step"], []).append(row["tuning/gold"])
    return max(golds.values(), key=mean)
