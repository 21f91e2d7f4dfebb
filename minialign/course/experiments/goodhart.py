"""Notebook 05: what becomes of the gold reward when a proxy is optimised, with PPO and with best-of-n.

The people of this world feel half a point better for each compliment, and each costs half a point of gold
(world/annotator.py, world/judge.py). That flattery pays the proxy and not the gold is thus built in; when it
comes, how far it goes, and what else is lost is measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from statistics import mean

import numpy as np

from minialign.best_of_n import expected_best, kl_bound
from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import crowd, preferences, relabelled
from minialign.course.experiments.fine_tuning import documents
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.reward_models import (
    COURSE,
    KINDS,
    LARGE,
    head_and_likelihood,
    normalised,
    trained,
)
from minialign.course.experiments.rlhf import LONG, cooler, optimised, preserved, started
from minialign.gpt import GPT
from minialign.reward_model import RewardModel
from minialign.rollouts import Reward

BETAS = (0.0, 0.1, 0.3, 1.0)
MEASURED = (15, 25, 35, 45)  # rollouts after which held-out prompts are answered
# Fixed before the table was built, for tests: without a penalty gold rises until the one, and falls until the
# other. The peak of a curve is chosen by its own noise.
RISEN, FALLEN = 25, 45
PTX, PTX_BETA = 0.5, 0.1  # weight of the pre-training loss where it is mixed in, and with which penalty
TILTS = (5.0, 2.0, 1.0, 0.7, 0.5, 0.4, 0.3)  # β of the tilted optimum


# --- without training: best of n, and the optimum itself ---


@lru_cache
def candidates(sft: GPT, seed: int, n: int = 64, every: int = 4) -> Answers:
    """n samples for every fourth held-out prompt, drawn once, whichever reward model chooses among them."""
    return measure(sft, held_out_prompts()[::every], (1.0,), n, seed)[1.0]


def selected(sft: GPT, reward: Reward, seed: int) -> list[dict]:
    """Best-of-n and the tilted optimum π_ref exp(r/β)/Z, both estimated from the candidates of a prompt."""
    values = candidates(sft, seed).scored(reward).values
    proxy, gold = values["reward"], values["gold"]
    n, rows = gold.shape[1], []
    for size in 2 ** np.arange(int(np.log2(n)) + 1):
        kept = {
            name: float(expected_best(proxy, values, size).mean())
            for name, values in {"proxy": proxy, "gold": gold}.items()
        }
        rows.append({"method": "best-of-n", "n": int(size), "kl": kl_bound(size), **kept})
    for beta in TILTS:
        log_weights = proxy / beta - np.logaddexp.reduce(proxy / beta, -1, keepdims=True)
        weights = np.exp(log_weights)
        kept = {
            name: float((weights * values).sum(-1).mean())
            for name, values in {"proxy": proxy, "gold": gold}.items()
        }
        kl = float((weights * (log_weights + np.log(n))).sum(-1).mean())  # E_w log(w/(1/n)): at most log n
        rows.append({"method": "tilted", "beta": beta, "kl": kl, **kept})
    return rows


# --- with PPO ---


def overoptimisation(sft: GPT, reward: RewardModel) -> dict[str, Part]:
    """The Goodhart figure: PPO against the shipped reward model, and what is free beside it.

    `method` is "sft" (at `temperature` 1 and cooler), "best-of-n", "tilted", "ppo" with each β of BETAS, or
    "ppo-ptx", which mixes the pre-training loss in. Sft and the ends of PPO have what is `preserved`, too.
    """

    def free(seed: int) -> list[dict]:
        rows = [{"method": "sft", **row} for row in started(sft, reward.score, seed)]
        rows[0] |= preserved(sft)
        return [{"seed": seed, **row} for row in (*rows, *selected(sft, reward.score, seed))]

    def run(method: str, beta: float, ptx: float, seed: int) -> list[dict]:
        config = replace(LONG, beta=beta, seed=seed, ptx_coef=ptx)
        policy, rows = optimised(sft, reward, config, MEASURED, documents=documents() if ptx else ())
        rows[-1] |= preserved(policy)
        rows += cooler(policy, sft, reward.score, rows[-1]["step"], seed)
        return [{"seed": seed, "method": method, "beta": beta, **row} for row in rows]

    runs = [*(("ppo", beta, 0.0) for beta in BETAS), ("ppo-ptx", PTX_BETA, PTX)]
    parts = {f"nothing trained, seed {seed}": partial(free, seed) for seed in SEEDS}
    return parts | {
        f"{method}, β = {beta:g}, seed {seed}": partial(run, method, beta, ptx, seed)
        for method, beta, ptx in runs
        for seed in SEEDS
    }


def best_stop(rows: Sequence[dict]) -> tuple[float, int]:
    """The β and the number of rollouts of the shipped PPO: what has most gold on *tuning* prompts.

    At T = 1, the mean over the seeds, among the runs of `overoptimisation` with a penalty.
    """
    golds: dict[tuple[float, int], list[float]] = {}
    for row in rows:
        if row["method"] == "ppo" and row["beta"] and "tuning/gold" in row:
            golds.setdefault((row["beta"], row["step"]), []).append(row["tuning/gold"])
    return max(golds, key=lambda stop: mean(golds[stop]))


def gained(rows: Sequence[dict], name: str, since: int, until: int, **where) -> np.ndarray:
    """By how much a metric at T = 1 changed from one rollout to another, (seeds,), in PPO's runs `where`.

    Rollout 0 is the fine-tuned model.
    """

    def at(step: int) -> np.ndarray:
        of = {"method": "ppo", **where} if step else {"method": "sft"}
        wanted = {"step": step, "temperature": 1.0, **of}
        found = {row["seed"]: row[name] for row in rows if wanted.items() <= row.items()}
        return np.array([found[seed] for seed in SEEDS])

    return at(until) - at(since)


# --- reading the table ---

FREE = {"best-of-n": "n", "tilted": "beta", "sft": "temperature"}  # what trains nothing, and what varies


def along(rows: Sequence[dict], name: str, **where) -> np.ndarray:
    """A metric at T = 1: the fine-tuned model's, then PPO's after MEASURED rollouts, (seeds, 5)."""
    where = {"method": "ppo", "temperature": 1.0, **where}
    start = over_seeds(rows, name, method="sft", temperature=1.0)
    return np.stack([start, *(over_seeds(rows, name, step=step, **where) for step in MEASURED)], 1)


def untrained(rows: Sequence[dict], method: str, name: str) -> list[float]:
    """The means over the seeds of one of FREE, as the KL grows."""
    key = FREE[method]
    of_method = [row for row in rows if row["method"] == method]
    values = sorted({row[key] for row in of_method}, reverse=key != "n")
    return [float(over_seeds(of_method, name, **{key: value}).mean()) for value in values]


def with_quarter(rows: Sequence[dict]) -> list[dict]:
    """The rows, with the gold on every fourth prompt as "quarter": those of best-of-n and of the optimum."""

    def quarter(row: dict) -> float:
        return float(np.mean(row["golds"][::4])) if "golds" in row else row["gold"]

    return [row | {"quarter": quarter(row)} if "gold" in row else row for row in rows]


def golds(rows: Sequence[dict], temperature: float, beta: float | None = None) -> np.ndarray:
    """The fine-tuned model's golds, or those of PPO with β after FALLEN rollouts, (seeds, prompts)."""
    of = dict(method="sft", step=0) if beta is None else dict(method="ppo", beta=beta, step=FALLEN)
    return over_seeds(rows, "golds", temperature=temperature, **of).mean(-1)


def ahead_at_equal_kl(rows: Sequence[dict], beta: float) -> np.ndarray:
    """The gold with β at the end, minus that of β = 0 where it had that KL, (seeds,).

    Between the measured points gold is taken as straight in √KL.
    """
    ends = along(rows, "kl", beta=beta)[:, -1], along(rows, "gold", beta=beta)[:, -1]
    free = np.maximum.accumulate(along(rows, "kl", beta=0.0), 1), along(rows, "gold", beta=0.0)
    runs = zip(*ends, *free)
    return np.array([gold - np.interp(np.sqrt(kl), np.sqrt(kls), golds) for kl, gold, kls, golds in runs])


def own(rows: Sequence[dict], name: str, beta: float, until: int) -> np.ndarray:
    """A run's own metric on the prompts that it trains on, the mean of ten rollouts, (seeds,)."""
    steps = range(until - 9, until + 1)
    return np.mean([over_seeds(rows, name, method="ppo", beta=beta, step=step) for step in steps], 0)


def gao_fit(d: np.ndarray, gain: np.ndarray, second: Callable) -> tuple[float, float, float]:
    """Least squares for gain = d (α − β_G second(d)): α, β_G and R². Source: Gao et al. 2022, §3.1.

    `second` is d itself for best-of-n, and log d for RL.
    """
    X = np.column_stack([d, -d * second(d)])
    (alpha, beta_g), *_ = np.linalg.lstsq(X, gain, rcond=None)
    residual = gain - X @ [alpha, beta_g]
    return float(alpha), float(beta_g), float(1 - (residual**2).sum() / ((gain - gain.mean()) ** 2).sum())


# --- what the fall is due to: one thing at a time ---

WITHOUT_BIASES = dict(filler_bias=0.0, flattery_bias=0.0, confidence_bias=0.0, agreement_bias=0.0)
# How the people differ from the course's, who like some habits and check seven facts of ten.
CONTROLS = {
    "as they are": {},
    "without biases": WITHOUT_BIASES,
    "head only": {},  # people as they are; the reward model has a head only, and reads less
    "no labels": {},  # the reward model as it begins: the likelihood of the fine-tuned model
}


def controlled(rows: Sequence[dict], control: str, name: str, sft: Sequence[dict]) -> np.ndarray:
    """A metric at T = 1 after 0, RISEN and FALLEN rollouts of a control, (seeds, 3).

    `sft` are rows that have the fine-tuned model's: those of `overoptimisation`.
    """
    where = dict(control=control, method="ppo", temperature=1.0)
    start = over_seeds(sft, name, method="sft", temperature=1.0)
    return np.stack([start, *(over_seeds(rows, name, step=s, **where) for s in (RISEN, FALLEN))], 1)


def reward_of(sft: GPT, control: str, seed: int) -> RewardModel:
    """The reward model of one of CONTROLS: a crowd of the seed's compares the shipped responses again.

    So what differs between controls is not the luck of one set of labels, or of one training.
    """
    if control == "no labels":
        return normalised(head_and_likelihood(sft, seed), sft)
    people = crowd(2 + seed, **CONTROLS[control])  # other people than those of the shipped comparisons
    pairs = relabelled(preferences("comparisons"), people, seed)
    kind, rate = KINDS[control if control in KINDS else COURSE]
    config = replace(LARGE, learning_rate=rate, seed=seed)
    return trained(sft, pairs, config, model=kind(sft, seed))[0]


def goodhart_controls(sft: GPT) -> dict[str, Part]:
    """PPO without a penalty, by reward models of people "as they are" or without their biases.

    And by reward models of the same people that are made in another way, or of nobody.

    Every seed has a reward model of its own. Rows as in `overoptimisation`: "ppo", and beside it "best-of-n"
    and "tilted". Proxies of different reward models have different units; gold can be compared.
    """

    def run(control: str, seed: int) -> list[dict]:
        reward = reward_of(sft, control, seed)
        config = replace(LONG, beta=0.0, seed=seed)
        policy, found = optimised(sft, reward, config, (RISEN, FALLEN))
        found += cooler(policy, sft, reward.score, FALLEN, seed)
        rows = [*selected(sft, reward.score, seed), *({"method": "ppo", "beta": 0.0, **row} for row in found)]
        return [{"control": control, "seed": seed, **row} for row in rows]

    return {f"{name}, seed {seed}": partial(run, name, seed) for name in CONTROLS for seed in SEEDS}
