"""Notebook 07: SFT, best-of-n, PPO, DPO and online DPO from the same start, with the same labels and time."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from unittest import mock

import numpy as np

from minialign import dpo, ppo, sft
from minialign.best_of_n import expected_best, kl_bound
from minialign.course.evaluation import unscored
from minialign.course.experiments import SEEDS, Part, held_out_prompts, tuning_prompts
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.reward_models import trained
from minialign.course.experiments.rlhf import measured, sampled_scores
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPT
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.sft import SFTConfig
from minialign.training import History, TrainingConfig, load_history, stop_if_interrupted
from minialign.world.prompts import Prompt, prompts_of

# All numbers of steps are for 80 seconds of training on two quiet CPU cores, the reward model's included, as
# speeds were measured once; the table race_costs says what they take.
REWARD = RewardModelConfig(steps=124)  # two passes over the shipped comparisons
CONSTANT = dict(final_lr=1.0)  # so that half a run is a run of half the length
RATES = (1e-4, 3e-4, 1e-3)
BETAS = (0.03, 0.1, 0.3, 1.0)
SIZES = (2, 8, 32, 64)  # of best-of-n
SHARES = (0.125, 0.25, 0.5, 1.0)  # of the training, after which a policy is measured
FINE = (1 / 32, 1 / 16, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)  # the same in the race itself
ANSWERS = 4  # of each policy to each prompt, whose gold rewards decide who wins


@lru_cache
def reward_model(start: GPT, seed: int, learning_rate: float = REWARD.learning_rate) -> RewardModel:
    """The reward model of the race: what RLHF makes of the shipped comparisons."""
    config = replace(REWARD, seed=seed, learning_rate=learning_rate)
    return trained(start, preferences("comparisons"), config)[0]


# --- what is imitated: SFT on chosen responses ---


def won_and_lost(pairs: Sequence[Preference]) -> dict[tuple[str, str], tuple[int, int]]:
    """How often each (prompt, response) was chosen, and how often rejected."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for pair in pairs:
        for response, won in ((pair.chosen, 1), (pair.rejected, 0)):
            w, lost = found.get((pair.prompt, response), (0, 0))
            found[pair.prompt, response] = (w + won, lost + 1 - won)
    return found


def winners(pairs: Sequence[Preference], which: str) -> list[tuple[str, str]]:
    """The (prompt, response) texts to imitate, one of IMITATED."""
    record = won_and_lost(pairs)
    if which == "every choice":
        return [(pair.prompt, pair.chosen) for pair in pairs]
    if which == "won more than lost":
        return [text for text, (won, lost) in record.items() if won > lost]
    if which == "never lost":
        return [text for text, (won, lost) in record.items() if not lost]
    best: dict[str, tuple[float, str]] = {}
    for (prompt, response), (won, lost) in record.items():
        best[prompt] = max(best.get(prompt, (-1.0, "")), (won / (won + lost), response))
    return [(prompt, response) for prompt, (_, response) in best.items()]


IMITATED = ("every choice", "won more than lost", "never lost", "best of each prompt")


# --- the runners: how each method turns the start into a policy, in place ---


def imitate(policy: GPT, start: GPT, config: SFTConfig, imitated: str, **options) -> History:
    return sft.train(policy, winners(preferences("comparisons"), imitated), config, **options)


def optimise(policy: GPT, start: GPT, config: PPOConfig, **options) -> History:
    reward, prompts = reward_model(start, config.seed), [p.text for p in prompts_of("policy")]
    return ppo.train(policy, prompts, reward.score, config, reference=start, **options)


def prefer(policy: GPT, start: GPT, config: DPOConfig, **options) -> History:
    return dpo.train(policy, preferences("comparisons"), config, reference=start, **options)


def prefer_online(policy: GPT, start: GPT, config: OnlineDPOConfig, **options) -> History:
    reward, prompts = reward_model(start, config.seed), [p.text for p in prompts_of("policy")]
    return dpo.train_online(policy, prompts, reward.score, config, reference=start, **options)


@dataclass(frozen=True)
class Runner:
    """A method: how it trains, for how many steps in the budget, and the 12 settings of its grid.

    With `needs_reward`, the training of the reward model is part of its cost.
    """

    train: Callable[..., History]
    config: TrainingConfig
    grid: tuple[dict, ...]
    needs_reward: bool = False


TILTED = tuple({"beta": beta, "learning_rate": rate} for beta, rate in product(BETAS, RATES))
RUNNERS = {
    "SFT on chosen": Runner(
        imitate,
        SFTConfig(steps=800, **CONSTANT),
        tuple({"imitated": which, "learning_rate": rate} for which, rate in product(IMITATED, RATES)),
    ),
    "PPO": Runner(optimise, PPOConfig(steps=40, **CONSTANT), TILTED, needs_reward=True),
    "DPO": Runner(prefer, DPOConfig(steps=368, **CONSTANT), TILTED),
    "online DPO": Runner(prefer_online, OnlineDPOConfig(steps=68, **CONSTANT), TILTED, needs_reward=True),
}
RECIPE = f"{REWARD!r} {[(name, runner.config, runner.grid) for name, runner in RUNNERS.items()]}"


def entry(method: str, setting: dict, seed: int = 0) -> tuple[Callable[..., History], TrainingConfig]:
    """A method with one setting of its knobs: what trains it, and the config.

    A knob that is not in the config goes to the function.
    """
    runner = RUNNERS[method]
    known = {name: value for name, value in setting.items() if hasattr(runner.config, name)}
    others = {name: value for name, value in setting.items() if name not in known}
    return partial(runner.train, **others), replace(runner.config, seed=seed, **known)


def steps_of(config: TrainingConfig, share: float) -> int:
    """How many steps a share of a run is."""
    return max(1, round(share * config.steps))


def run(
    start: GPT,
    method: str,
    setting: dict,
    seed: int,
    prompts: Sequence[Prompt],
    shares: Sequence[float] = SHARES,
    until: float = 1.0,
    judged_at: float | None = None,
) -> tuple[GPT, list[dict]]:
    """One run of a method up to the share `until` of its steps: its policy, and a row for each of `shares`.

    A row holds what `prompts` show after a share of the run; that of the share `judged_at` also `golds`, the
    gold rewards of ANSWERS answers to each prompt.
    """
    train, config = entry(method, setting, seed)
    policy, rows, at = copy.deepcopy(start), [], {steps_of(config, share): share for share in shares}

    def on_step(metrics: dict) -> None:
        if (step := metrics["step"]) in at:
            found = measured(policy, start, reward_model(start, seed).score, seed, prompts=prompts)
            place = {"method": method, "seed": seed, **setting, "step": step, "share": at[step]}
            rows.append(place | found)
            if at[step] == judged_at:
                rows[-1]["golds"] = golds(policy, prompts, seed)

    stop_if_interrupted(train(policy, start, replace(config, steps=steps_of(config, until)), on_step=on_step))
    return policy, rows


def golds(policy: GPT, prompts: Sequence[Prompt], seed: int) -> list[list[float]]:
    """Gold rewards of ANSWERS samples for each prompt."""
    return sampled_scores(policy, unscored, prompts, ANSWERS, seed)[1].round(3).tolist()


def best_of(
    start: GPT, seed: int, rate: float, prompts: Sequence[Prompt], sizes: Sequence[int]
) -> list[dict]:
    """Best-of-n with the race's reward model, each n estimated from the same max(sizes) samples a prompt."""
    proxy, gold = sampled_scores(start, reward_model(start, seed, rate).score, prompts, max(sizes), seed)
    return [
        {"method": "best-of-n", "seed": seed, "n": n, "learning_rate": rate, "share": 1.0, "kl": kl_bound(n)}
        | {
            name: float(expected_best(proxy, values, n).mean())
            for name, values in {"proxy": proxy, "gold": gold}.items()
        }
        for n in sizes
    ]


# --- the grids, measured on the prompts for tuning ---


def name_of(method: str, setting: dict) -> str:
    return ", ".join([method, *(f"{name} {value}" for name, value in setting.items())])


def grid(start: GPT, methods: Sequence[str]) -> dict[str, Part]:
    prompts = tuning_prompts()
    return {
        name_of(method, setting): lambda method=method, setting=setting: run(
            start, method, setting, 0, prompts
        )[1]
        for method in methods
        for setting in RUNNERS[method].grid
    }


def race_grid_offline(start: GPT) -> dict[str, Part]:
    """Twelve settings each of the methods that learn from the labels directly, and of best-of-n."""
    prompts = tuning_prompts()[::2]
    chosen = {
        name_of("best-of-n", {"learning_rate": rate}): partial(best_of, start, 0, rate, prompts, SIZES)
        for rate in RATES
    }
    return chosen | grid(start, ("DPO", "SFT on chosen"))


def race_grid_online(start: GPT) -> dict[str, Part]:
    """Twelve settings each of the methods that sample and ask a reward model."""
    return grid(start, ("PPO", "online DPO"))


# --- the race: the best setting of each grid, three seeds, measured on the held-out prompts ---


@lru_cache
def grids() -> list[dict]:
    """The rows of both grids."""
    return [row for table in GRIDS for row in load_history(table.__name__)]


def setting_of(row: dict) -> dict:
    """What of a grid's row was set: the method's knobs."""
    return {name: row[name] for name in ("n", "imitated", "beta", "learning_rate") if name in row}


def best_row(method: str) -> dict:
    """A method's setting, and length of training, with the highest gold reward on the prompts for tuning."""
    return max((row for row in grids() if row["method"] == method), key=lambda row: row["gold"])


def sensitivity(method: str, knob: str) -> float:
    """How much gold reward changes on average, at the end of the budget, when one knob moves.

    It moves to its neighbour on the grid, and the others stay.
    """

    def others(row: dict) -> tuple:
        return tuple((name, value) for name, value in setting_of(row).items() if name != knob)

    rows = [row for row in grids() if row["method"] == method and row["share"] == 1.0]
    gold = {(row[knob], others(row)): row["gold"] for row in rows}
    values, rests = (sorted(set(part)) for part in zip(*gold))
    neighbours = zip(values, values[1:])
    return float(np.mean([abs(gold[b, rest] - gold[a, rest]) for a, b in neighbours for rest in rests]))


def raced(start: GPT, method: str, seed: int) -> list[dict]:
    """One entry of the race, to the end of its budget, its answers judged where the grid says to stop."""
    best = best_row(method)
    return run(start, method, setting_of(best), seed, held_out_prompts(), FINE, judged_at=best["share"])[1]


def raced_best_of_n(start: GPT, seed: int) -> list[dict]:
    """The same for best-of-n: the gold rewards of the best of ANSWERS groups of n samples."""
    best, prompts = best_row("best-of-n"), held_out_prompts()
    rate, n = best["learning_rate"], best["n"]
    scores = sampled_scores(start, reward_model(start, seed, rate).score, prompts, ANSWERS * n, seed)
    proxy, gold = (values.reshape(len(prompts), ANSWERS, n) for values in scores)
    winners_of = np.take_along_axis(gold, proxy.argmax(-1)[..., None], -1)[..., 0]
    rows = best_of(start, seed, rate, prompts[::2], SIZES)
    return [row | ({"golds": winners_of.round(3).tolist()} if row["n"] == n else {}) for row in rows]


def raced_start(start: GPT, seed: int) -> list[dict]:
    """What all of them start from, with samples of its own."""
    prompts, found = held_out_prompts(), {"method": "SFT", "seed": seed, "share": 0.0}
    found |= measured(start, start, reward_model(start, seed).score, seed, prompts=prompts)
    return [found | {"golds": golds(start, prompts, len(SEEDS) + seed)}]


def untouched(start: GPT, seed: int) -> list[dict]:
    """The start on the prompts for tuning: what the settings of the grids are held against."""
    found = measured(start, start, reward_model(start, seed).score, seed, prompts=tuning_prompts())
    return [{"method": "SFT", "prompts": "for tuning", "seed": seed, **found}]


def race(start: GPT) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for seed in SEEDS:
        parts[f"SFT on the prompts for tuning, seed {seed}"] = partial(untouched, start, seed)
        parts[f"SFT, seed {seed}"] = partial(raced_start, start, seed)
        parts[f"best-of-n, seed {seed}"] = partial(raced_best_of_n, start, seed)
        parts |= {f"{method}, seed {seed}": partial(raced, start, method, seed) for method in RUNNERS}
    return parts


def race_controls(start: GPT, reward: RewardModel) -> dict[str, Part]:
    """What holds PPO back? It gets three times the updates, or the shipped reward model.

    That one has seen twelve times as many labels.
    """
    setting = setting_of(best_row("PPO"))

    def longer(seed: int) -> list[dict]:
        steps = 3 * RUNNERS["PPO"].config.steps
        return run(start, "PPO", setting | {"steps": steps}, seed, held_out_prompts(), judged_at=1.0)[1]

    def better_rewarded(seed: int) -> list[dict]:
        with mock.patch(f"{__name__}.reward_model", lambda *_: reward):
            return run(start, "PPO", setting, seed, held_out_prompts(), judged_at=1.0)[1]

    def part(name: str, rows_of: Callable[[int], list[dict]], seed: int) -> list[dict]:
        return [{"control": name, **row} for row in rows_of(seed)]

    controls = {"three times the updates": longer, "a reward model of 68,000 labels": better_rewarded}
    return {
        f"{name}, seed {seed}": partial(part, name, rows_of, seed)
        for name, rows_of in controls.items()
        for seed in SEEDS
    }


GRIDS = (race_grid_offline, race_grid_online)
