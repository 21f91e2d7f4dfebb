"""Notebook 07: the same number of labels, bought at once or in rounds, on whose samples?

People label two by two; nobody is asked about a response that tells of a held-out topic, or what it says
there would be learned from the label. All arms answer the same prompts, take the same updates, and keep the
fine-tuned model as their reference:

- "at once": all labels on samples of the fine-tuned model, learned in one go.
- "in rounds": the same labels, learned one round after the other. Only the order differs.
- "in rounds, own samples": in each round people compare what the policy of that round writes.
- "online": so many rounds that every update has one of its own, after a first one like the others'.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np

from minialign import dpo
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import crowd, updates
from minialign.course.experiments.direct_preference import CONSTANT
from minialign.course.experiments.measuring import measured, over_seeds
from minialign.course.experiments.race_tuning import chosen, setting_of
from minialign.dpo import OnlineDPOConfig
from minialign.gpt import GPT
from minialign.labels import Labels, asked_labels
from minialign.preferences import Preference
from minialign.rollouts import roll_out, unscored
from minialign.training import load_history, stop_if_interrupted
from minialign.world.prompts import prompts_of, topic_sorts
from minialign.world.reading import told_of

ROUNDS = 3
PROMPTS = 120  # of each round
SAMPLES = 8  # of each prompt, which are compared two by two: 4 labels
ARMS = ("at once", "in rounds", "in rounds, own samples", "online")


def people(seed: int) -> Labels:
    """A crowd of their own for each run: each comparison goes to one of them."""
    raters, rng = crowd(seed), np.random.default_rng([seed, 7])
    held_out = {name for name, sort in topic_sorts().items() if sort == "held-out"}

    def ask(prompt: str, first: str, second: str) -> int | None:
        if (told_of(first) | told_of(second)) & held_out:
            return None
        return raters[int(rng.integers(len(raters)))].prefer(prompt, first, second)

    return asked_labels(ask)


def blocks(seed: int) -> list[list[str]]:
    """The prompts of each round: of policy and reward training, in an order of the seed's."""
    prompts = [p.text for split in ("policy", "reward") for p in prompts_of(split)]
    order = np.random.default_rng([seed, 8]).permutation(len(prompts))
    return [[prompts[i] for i in part] for part in np.split(order[: ROUNDS * PROMPTS], ROUNDS)]


def bought(policy: GPT, prompts: list[str], labels: Labels, seed: tuple[int, ...]) -> list[Preference]:
    """Comparisons of fresh samples of the policy: a round's labels."""
    found = []
    for start in range(0, len(prompts), 49):
        asked = prompts[start : start + 49]
        found += labels.pairs(roll_out(policy, asked, unscored, n=SAMPLES, seed=(*seed, start)))
    return found


def learned(policy: GPT, start: GPT, pairs: list[Preference], setting: dict, seed: int) -> GPT:
    """A copy of the policy after one pass of DPO over the pairs."""
    policy = copy.deepcopy(policy)
    steps = updates(pairs, 1.0, CONSTANT.prompts_per_step)
    config = replace(CONSTANT, steps=steps, seed=seed, **setting)
    stop_if_interrupted(dpo.train(policy, pairs, config, reference=start))
    return policy


def online(policy: GPT, start: GPT, prompts: list[str], labels: Labels, setting: dict, seed: int) -> GPT:
    """A copy of the policy after online DPO with people, until it has met each prompt as often as the others.

    An update asks for one label on each of its prompts, so it takes SAMPLES / 2 passes over them.
    """
    policy, config = copy.deepcopy(policy), OnlineDPOConfig(final_lr=1.0, seed=seed, **setting)
    steps = round(len(prompts) * SAMPLES / 2 / config.prompts_per_step)
    stop_if_interrupted(
        dpo.train_online(policy, prompts, labels, replace(config, steps=steps), reference=start)
    )
    return policy


def in_arm(start: GPT, arm: str, seed: int, setting: dict) -> list[dict]:
    """What each state of the policy of an arm is worth, and how many labels were bought.

    A row for each state, at temperature 1; and of the last state at cooler ones, too.
    """
    labels, prompts, rows = people(seed), blocks(seed), []

    def show(policy: GPT, passed: int) -> GPT:
        drawn = (ARMS.index(arm), seed, passed)
        temperatures = (1.0, 0.7, 0.0) if passed == ROUNDS else (1.0,)
        found = measured(policy, start, held_out_prompts(), drawn, temperatures=temperatures)
        place = {"arm": arm, "seed": seed, "round": passed, "labels": labels.given, **setting}
        rows.extend(place | row for row in found)
        return policy

    def learn(policy: GPT, pairs: list[Preference]) -> GPT:
        return learned(policy, start, pairs, setting, seed)

    def buy(writer: GPT, number: int) -> list[Preference]:
        return bought(writer, prompts[number], labels, (seed, number))

    if arm == "at once":
        pairs = []
        for number in range(ROUNDS):
            pairs += buy(start, number)
            show(learn(start, pairs), number + 1)
        return rows
    policy = show(learn(start, buy(start, 0)), 1)
    if arm == "online":
        show(online(policy, start, sum(prompts[1:], []), labels, setting, seed), ROUNDS)
        return rows
    for number in range(1, ROUNDS):
        writer = policy if arm == "in rounds, own samples" else start
        policy = show(learn(policy, buy(writer, number)), number + 1)
    return rows


def race_labels(start: GPT) -> dict[str, Part]:
    """Every arm, with the setting that the race found for DPO.

    A row says what a policy shows on held-out prompts (`measured`) after a `round`, with so many `labels`.
    """
    setting = setting_of(chosen("DPO"))
    return {
        f"{arm}, seed {seed}": partial(in_arm, start, arm, seed, setting) for seed in SEEDS for arm in ARMS
    }


# --- read from the table ---


def at_the_end(arm: str, temperature: float = 1.0) -> np.ndarray:
    """Gold of each held-out prompt when all labels are spent, (S, P)."""
    rows = load_history("race_labels")
    return over_seeds(rows, "golds", arm=arm, round=ROUNDS, temperature=temperature).mean(-1)


def on_the_way(arm: str, name: str) -> np.ndarray:
    """A column at T = 1 after each round that was measured, (R, S)."""
    rows = [row for row in load_history("race_labels") if row["arm"] == arm and row["temperature"] == 1.0]
    rounds = sorted({row["round"] for row in rows})
    return np.array([over_seeds(rows, name, round=number) for number in rounds])
