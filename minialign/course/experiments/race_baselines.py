"""Notebook 07: what costs no training of a policy: sampling the start cooler, and best-of-n.

They stand beside every method of the race, and get as many settings. Best-of-n is tuned with the learning
rate of its reward model, and the methods that need a reward model take the same one.
"""

from functools import partial

import numpy as np

from minialign.best_of_n import expected_best, kl_bound
from minialign.course.evaluation import measure
from minialign.course.experiments import Part, tuning_prompts
from minialign.course.experiments.comparisons import HeldOut, preferences
from minialign.course.experiments.implicit_rewards import graded
from minialign.course.experiments.measuring import measured
from minialign.course.experiments.race_methods import few_labels, reward_model
from minialign.gpt import GPT
from minialign.reward_model import RewardModel
from minialign.statistics import one_standard_error_rule, standard_error
from minialign.training import load_history

TEMPERATURES = (1.0, 0.8, 0.7, 0.6, 0.5, 0.35, 0.2, 0.0)  # of "SFT, cooler"
SIZES = (4, 8, 16, 32)  # of best-of-n
REWARD_RATES = (5e-4, 1e-3)  # at 3e-3, best-of-n was worth less, and the more samples the less


def in_short(row: dict) -> dict:
    """A measured row without its single answers: means, and the standard error of gold over prompts."""
    golds = np.array(row["golds"]).mean(-1)
    kept = {name: row[name] for name in ("gold", "kl", "words", "finished")}
    return kept | {"error": standard_error(golds)}


def cooler_trials(start: GPT) -> list[dict]:
    """The start at eight temperatures: settings that cost no training."""
    rows = measured(start, start, tuning_prompts(), 0, temperatures=TEMPERATURES)
    place = {"method": "SFT, cooler", "round": 0, "share": 0.0}
    return [place | {"temperature": row["temperature"], **in_short(row)} for row in rows]


def best_of_n_trials(start: GPT, rate: float) -> list[dict]:
    """Best-of-n by a reward model of one learning rate. All rates judge the same samples.

    How well the reward model ranks held-out pairs is said, too; nothing is chosen by it. The KL is a bound.
    """
    prompts, most = tuning_prompts()[::2], max(SIZES)
    reward = reward_model(start, few_labels(preferences("comparisons")), 0, rate)
    answers = measure(start, prompts, (1.0,), most, 0, reward.score)[1.0]
    exam, rows = exam_of(reward), []
    for n in SIZES:
        best = expected_best(answers.values["reward"], answers.values["gold"], n)
        place = {"method": "best-of-n", "n": n, "learning_rate": rate, "round": 0, "share": 1.0}
        found = {"gold": float(best.mean()), "error": standard_error(best), "kl": kl_bound(n)}
        rows.append(place | found | {name: exam[name] for name in ("accuracy", "order")})
    return rows


def exam_of(reward: RewardModel) -> dict:
    """How often a reward model ranks held-out pairs as people did, and as gold does; also by prompt."""
    return graded(HeldOut.of(preferences("held_out")), reward)


def race_baselines(start: GPT) -> dict[str, Part]:
    """A row for each setting: "gold" on prompts for tuning, its standard "error", "kl" in nats a response.

    "SFT, cooler" by `temperature`; "best-of-n" by `n` and its reward model's `learning_rate`, with that one's
    "accuracy" and "order" on held-out pairs.
    """
    return {
        "SFT, cooler": partial(cooler_trials, start),
        **{
            f"best-of-n, learning rate {rate}": partial(best_of_n_trials, start, rate)
            for rate in REWARD_RATES
        },
    }


# --- which setting is taken ---


def one_of(rows: list[dict]) -> dict:
    """Of rows that tie with the best in gold, by the one-standard-error rule, the one with the lowest KL."""
    return rows[one_standard_error_rule(*([row[name] for row in rows] for name in ("gold", "error", "kl")))]


def reward_rate() -> float:
    """The learning rate of the race's reward models: the one that best-of-n takes."""
    rows = [row for row in load_history("race_baselines") if row["method"] == "best-of-n"]
    return one_of(rows)["learning_rate"]
