"""Notebook 07, the race: all methods as tuned, three seeds, held-out prompts, three temperatures.

Beside those that train a policy stand those that do not: the start as it is, the start sampled cooler, and
best-of-n.
"""

from functools import lru_cache, partial

import numpy as np

from minialign.best_of_n import kl_bound
from minialign.bootstrap import bootstrap_win_rate, equal_length_win_rate
from minialign.course.evaluation import measure
from minialign.course.experiments import SEEDS, Part, held_out_prompts, rlhf
from minialign.course.experiments.measuring import (
    OF_ANSWERS,
    in_means,
    log_ratio,
    measured,
    over_seeds,
    row_of,
    tuning_gold,
)
from minialign.course.experiments.race_baselines import exam_of, reward_rate
from minialign.course.experiments.race_methods import METHODS, Given, given, given_more, run
from minialign.course.experiments.race_tuning import chosen, setting_of, tuning, untried
from minialign.gpt import GPT
from minialign.reward_model import RewardModel
from minialign.rollouts import Reward
from minialign.statistics import Estimate
from minialign.training import load_history

ENTRIES = ("SFT", "SFT, cooler", "best-of-n", *METHODS)
TEMPERATURES = (1.0, 0.7, 0.0)
ANSWERS = 4  # to each prompt; one at temperature 0
SAMPLES = {1.0: 16, 0.7: 8}  # for best-of-n: it answers as often as n goes into that, and at least once
SHARES = (1 / 12, 1 / 6, 1 / 3, 2 / 3, 1.0)  # of the budget, after which the course is measured


def drawn_with(method: str, seed: int, step: int = 0) -> tuple[int, ...]:
    """Everybody samples with random numbers of their own."""
    return ENTRIES.index(method), seed, step


def raced(given: Given, method: str, seed: int) -> list[dict]:
    """One run, up to where the tuning stopped it: its course, and the answers of its end.

    The rows of the end are "judged", one for each temperature: they hold every answer's gold and words.
    """
    best, prompts, rows = chosen(method), held_out_prompts(), []

    def judge_end(policy: GPT, drawn: tuple[int, ...], reward: Reward) -> list[dict]:
        options = dict(temperatures=TEMPERATURES, n=ANSWERS, reward=reward)
        found = measured(policy, given.start, prompts, drawn, **options)
        found[0]["tuning/gold"] = tuning_gold(policy, drawn)  # by which the run that is shipped is chosen
        return [{"judged": True, **row} for row in found]

    def show(policy: GPT, place: dict) -> None:
        drawn, reward = drawn_with(method, seed, place["step"]), given.reward_model(seed).score
        if place["share"] == best["share"]:
            found = judge_end(policy, drawn, reward)
        else:
            found = map(in_means, measured(policy, given.start, prompts, drawn, n=1, reward=reward))
        rows.extend(place | row for row in found)

    run(given, method, setting_of(best), seed, best["share"], sorted({*SHARES, best["share"]}), show)
    return rows


def untrained(given: Given, method: str, seed: int) -> list[dict]:
    """The start, as it is or sampled cooler."""
    temperatures = TEMPERATURES if method == "SFT" else (chosen(method)["temperature"],)
    drawn, reward = drawn_with(method, seed), given.reward_model(seed).score
    options = dict(temperatures=temperatures, n=ANSWERS, reward=reward)
    found = measured(given.start, given.start, held_out_prompts(), drawn, **options)
    return [{"method": method, "seed": seed, "share": 0.0, "judged": True, **row} for row in found]


def raced_best_of_n(given: Given, seed: int) -> list[dict]:
    """Best-of-n at two temperatures: at 0 all samples are the same.

    The KL is a bound: `kl_bound` from the samples' distribution, and what that is from the start at T = 1.
    """
    method, reward, rows = "best-of-n", given.reward_model(seed).score, []
    best, prompts = chosen(method), held_out_prompts()
    for temperature, samples in SAMPLES.items():
        samples, drawn = max(samples, best["n"]), drawn_with(method, seed)
        answers = measure(given.start, prompts, (temperature,), samples, drawn, reward)[temperature]
        found = answers.best_of(best["n"])
        place = {"method": method, "seed": seed, **setting_of(best), "share": 1.0, "judged": True}
        rows.append(place | row_of(found) | {"kl": kl_bound(best["n"]) + log_ratio(given.start, found)})
    return rows


def examined(given: Given, seed: int) -> list[dict]:
    """How well the race's reward model ranks held-out pairs, and its gain: its score for one log-odds.

    PPO's β is a price in scores, DPO's in log-odds: β / gain is PPO's in DPO's unit.
    """
    reward = given.reward_model(seed)
    return [{"method": "reward model", "seed": seed, "gain": float(reward.gain), **exam_of(reward)}]


def race(start: GPT, shipped: RewardModel) -> dict[str, Part]:
    """All entries and seeds: rows of a run's course, and "judged" ones of its end, one for each temperature.

    A row has the `method`, `seed`, its setting, `step` and `share` of the budget, and what `measured` finds
    on held-out prompts: gold, words, "kl" in nats a response, "reward" by the race's reward model. Judged
    rows hold each answer's gold and words; those at T = 1 "tuning/gold". "reward model" rows: see `examined`;
    the row of "prompts": see `untried`.
    """
    few, more = given(start, reward_rate()), given_more(start, shipped)
    parts: dict[str, Part] = {"SFT, first round of tuning": partial(untried, start)}
    for seed in SEEDS:
        parts[f"reward model, seed {seed}"] = partial(examined, few, seed)
        for method in ("SFT", "SFT, cooler"):
            parts[f"{method}, seed {seed}"] = partial(untrained, few, method, seed)
        parts[f"best-of-n, seed {seed}"] = partial(raced_best_of_n, few, seed)
        for method, how in METHODS.items():
            parts[f"{method}, seed {seed}"] = partial(raced, more if how.more else few, method, seed)
    return parts


# --- read from the table ---


AS_SHIPPED = "PPO, as shipped"


@lru_cache
def results() -> list[dict]:
    """The rows of the race, and as AS_SHIPPED those of notebook 05's PPO, whose typical run is shipped."""
    config, rows = rlhf.SHIPPED, load_history("race")
    for row in load_history("overoptimisation"):
        if {"method": "ppo", "beta": config.beta}.items() <= row.items() and "temperature" in row:
            place = {"share": row["step"] / config.steps, "judged": row["step"] == config.steps}
            rows.append(row | {"method": AS_SHIPPED, **place})
    return rows


def judged(method: str, name: str = "golds", temperature: float = 1.0) -> np.ndarray:
    """What was judged at the end, over seeds: (S, P, n) for "golds" and "lengths", (S,) for means."""
    return over_seeds(results(), name, method=method, temperature=temperature, judged=True)


def temperature_of(method: str) -> float:
    """What an entry is sampled at where nothing else is said: 1, but for the start that is cooled."""
    return chosen(method)["temperature"] if method == "SFT, cooler" else 1.0


def ends(method: str, name: str = "gold") -> dict[float, np.ndarray]:
    """A column at the end of an entry's race, (S,) for each temperature that was measured."""
    rows = [row for row in results() if row["method"] == method and row.get("judged")]
    temperatures = dict.fromkeys(row["temperature"] for row in rows)
    return {t: judged(method, name, t) for t in temperatures}


def course(method: str, name: str = "gold") -> tuple[np.ndarray, np.ndarray]:
    """An entry's race at T = 1: shares of the time, (K,), and a column for each seed there, (K, S).

    It begins with the start, at 0. On the way each prompt was answered once, at the end ANSWERS times.
    """
    rows = [row for row in results() if row["method"] == method and row.get("temperature") == 1.0]
    shares = sorted({row["share"] for row in rows})
    on_the_way = [over_seeds(rows, name, share=share) for share in shares]
    return np.array([0.0, *shares]), np.array([ends("SFT", name)[1.0], *on_the_way])


def gained(row: dict) -> float:
    """What a trial gained in gold over the start, on the same prompts: the first round has half of them."""
    first = row["round"] == 0 and row["method"] != "SFT, cooler"
    untried = results()[0] if first else tuning()[0]
    return row["gold"] - untried["gold"]


def win_rates(
    ours: str, theirs: str, temperature: float = 1.0, their_temperature: float | None = None
) -> dict[str, Estimate]:
    """How often an entry's answer is worth more than another's: intervals over seeds and prompts.

    Over all prompts ("all"), as between answers of equal length ("equal length"), and for each family.
    """
    sides = (ours, temperature), (theirs, temperature if their_temperature is None else their_temperature)
    (our_gold, their_gold), (our_words, their_words) = (
        [judged(method, name, at) for method, at in sides] for name in OF_ANSWERS
    )
    found = {
        "all": bootstrap_win_rate(our_gold, their_gold),
        "equal length": equal_length_win_rate(our_gold, their_gold, our_words, their_words),
    }
    families = np.array([prompt.family for prompt in held_out_prompts()])
    for family in dict.fromkeys(families.tolist()):
        of_it = families == family
        found[family] = bootstrap_win_rate(our_gold[:, of_it], their_gold[:, of_it])
    return found


@lru_cache
def over(ours: str, theirs: str) -> dict[str, Estimate]:
    """`win_rates` of an entry over another, each sampled at its own temperature."""
    return win_rates(ours, theirs, temperature_of(ours), temperature_of(theirs))
