"""Notebook 07: every method of the race gets eight settings, tried on prompts for tuning.

By successive halving (Jamieson and Talwalkar 2016): all settings run for a third of the budget, a third of
them to its end, measured on the way. Of what then ties with the best, the one-standard-error rule takes what
has moved least from the start.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from functools import lru_cache, partial

import numpy as np

from minialign.course.experiments import Part, tuning_prompts
from minialign.course.experiments.measuring import measured
from minialign.course.experiments.race_baselines import in_short, one_of, reward_rate
from minialign.course.experiments.race_methods import METHODS, Given, given, given_more, run
from minialign.gpt import GPT
from minialign.reward_model import RewardModel
from minialign.training import TrainingConfig, load_history
from minialign.world.prompts import Prompt

KEPT = 1 / 3  # of the settings of a round go on to the next
FIRST, LATER = (1 / 3,), (1 / 3, 2 / 3, 1.0)  # shares of the budget after which they are measured, by round
KNOBS = ("n", "imitated", "beta", "learning_rate")
SHORT = {"beta": "β", "learning_rate": "rate", "imitated": "", "temperature": "T"}
# Of memory only, switched off, or without effect at γ = λ = 1.
UNUSED = {"rows_per_pass", "kl_target", "horizon", "max_approx_kl", "whiten_rewards", "ptx_coef", "sft_coef"}


# --- successive halving ---


def survivors(scores: Sequence[float], groups: Sequence[Hashable], keep: int) -> list[int]:
    """Which of N settings go on: the best of each group, and then the best of all others, `keep` in all.

    The groups are learning rates: what learns slowly must not drop out because it has not begun.
    """
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    first = [next(i for i in order if groups[i] == group) for group in dict.fromkeys(groups)]
    first.sort(key=order.index)
    rest = [i for i in order if i not in first]
    return sorted((first + rest)[:keep])


def successive_halving(
    settings: Sequence[dict],
    tried: Callable[[dict, Sequence[float]], list[dict]],
    rounds: Sequence[Sequence[float]] = (FIRST, LATER),
    group: Callable[[dict], Hashable] = lambda setting: setting["learning_rate"],
) -> list[dict]:
    """The rows of all rounds, each with its "round": in every one, KEPT of the settings of that before.

    `tried(setting, shares)` runs a setting up to the last of the shares, and gives a row for each; its place
    is decided by the last one's gold reward.
    """
    rows: list[dict] = []
    for number, shares in enumerate(rounds):
        found = [tried(setting, shares) for setting in settings]
        rows += [{"round": number, **row} for of_one in found for row in of_one]
        scores = [of_one[-1]["gold"] for of_one in found]
        keep = survivors(scores, [*map(group, settings)], math.ceil(KEPT * len(settings)))
        settings = [settings[i] for i in keep]
    return rows


# --- what is tried ---


def of_round(shares: Sequence[float]) -> list[Prompt]:
    """The prompts of a round: the first has half of those for tuning."""
    return tuning_prompts()[:: 2 if shares == FIRST else 1]


def untried(start: GPT) -> list[dict]:
    """The start on the prompts of the first round, from many samples: what its trials are held against."""
    (row,) = measured(start, start, of_round(FIRST), 0, n=8)
    return [{"method": "SFT", "prompts": "first round", "share": 0.0, **in_short(row)}]


def trials(given: Given, method: str) -> list[dict]:
    """Successive halving of a method's settings: the first round on half of the prompts for tuning."""

    def tried(setting: dict, shares: Sequence[float]) -> list[dict]:
        prompts, rows = of_round(shares), []

        def show(policy: GPT, place: dict) -> None:
            drawn = ([*METHODS].index(method), place["step"])
            rows.extend(place | in_short(row) for row in measured(policy, given.start, prompts, drawn))

        run(given, method, setting, 0, shares[-1], shares, show)
        return rows

    return successive_halving(METHODS[method].settings, tried)


def race_tuning(start: GPT, shipped: RewardModel) -> dict[str, Part]:
    """All trials of the methods that train a policy, one part for each.

    A row has the `method`, its setting, the `round`, `step` and `share` of the budget, and what `in_short`
    keeps: "gold" on prompts for tuning with its standard "error", "kl" in nats a response, words, finished.
    """
    few, more = given(start, reward_rate()), given_more(start, shipped)
    return {name: partial(trials, more if method.more else few, name) for name, method in METHODS.items()}


# --- read from the tables ---


@lru_cache
def tuning() -> list[dict]:
    """The rows of all trials, of `race_baselines` as well."""
    return [*load_history("race_baselines"), *load_history("race_tuning")]


def last_round(method: str) -> list[dict]:
    """The trials among which an entry's setting is chosen: those of its last round."""
    rows = [row for row in tuning() if row["method"] == method]
    return [row for row in rows if row["round"] == rows[-1]["round"]]


def chosen(method: str) -> dict:
    """The row of a method's setting, and length of training, that the race takes."""
    return one_of(last_round(method))


def tied(method: str) -> list[dict]:
    """The trials of the last round that one standard error does not tell from the best."""
    rows = last_round(method)
    best = max(rows, key=lambda row: row["gold"])
    return [row for row in rows if row["gold"] >= best["gold"] - best["error"]]


def trials_at(method: str, number: int, share: float) -> list[dict]:
    """A method's trials of one round, after a share of the time."""
    where = {"method": method, "round": number, "share": share}
    return [row for row in tuning() if where.items() <= row.items()]


def setting_of(row: dict) -> dict:
    """What of a row was set: the method's knobs."""
    return {name: row[name] for name in KNOBS if name in row}


def in_words(row: dict) -> str:
    """What a row's setting was, in a few words."""
    knobs = {name: row[name] for name in ("temperature", *KNOBS) if name in row}
    return ", ".join(f"{SHORT.get(name, name)} {value}".strip() for name, value in knobs.items())


def knobs(config: type[TrainingConfig]) -> list[str]:
    """What can be set beyond what every training run has, but for what changes nothing in this race."""
    shared = {of_all.name for of_all in fields(TrainingConfig)} | UNUSED
    return [own.name for own in fields(config) if own.name not in shared]


def sensitivity(method: str, knob: str) -> float:
    """How much gold reward changes on average when one knob moves to its neighbour and the others stay.

    Of all settings after the first round, long before the runs fall apart.
    """

    def others(row: dict) -> tuple:
        return tuple((name, value) for name, value in setting_of(row).items() if name != knob)

    rows = [row for row in tuning() if row["method"] == method and row["round"] == 0]
    gold = {(row[knob], others(row)): row["gold"] for row in rows}
    values, rests = (sorted(set(part)) for part in zip(*gold))
    neighbours = zip(values, values[1:])
    return float(np.mean([abs(gold[b, rest] - gold[a, rest]) for a, b in neighbours for rest in rests]))
