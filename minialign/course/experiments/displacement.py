"""Notebook 06: displacement. Pairs differ in one value: where does the probability go, and what cures it?"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile

import numpy as np
import torch

from minialign import dpo
from minialign.course.experiments import SEEDS, Part, answers, held_out_prompts
from minialign.course.experiments.direct_preference import LOGGED
from minialign.course.experiments.measuring import measured, over_seeds
from minialign.dpo import DPOConfig
from minialign.gpt import GPT
from minialign.logprobs import response_logits, token_log_probs
from minialign.preferences import Preference
from minialign.training import stop_if_interrupted
from minialign.world.prompts import prompts_of

DISPLACING = DPOConfig(steps=48, prompts_per_step=16)
# Where a token stands: before the first difference of the pair, within it, after it.
PLACES = ("before", "at", "after")
# What is trained, and what of the config differs: DPO, a loss with a goal it can reach, and the two cures.
LOSSES: dict[str, tuple[Callable, dict]] = {
    "DPO": (dpo.dpo_loss, {}),
    "IPO": (dpo.ipo_loss, {}),
    "SFT term": (dpo.dpo_loss, {"sft_coef": 1.0}),  # rpo_loss
    "DPO-positive": (dpo.dpop_loss, {}),
}


def near_duplicates(sft: GPT, seed: int = 0) -> list[Preference]:
    """Answers of `sft` that state a fact rightly, each against the same text with a wrong value in it."""
    asked = prompts_of("policy", ("explain", "tell", "describe", "question"))
    prompts = [p for p in asked if p.topic is not None and p.topic.real]
    pairs = []
    for prompt, text in zip(prompts, answers(sft, prompts, seed=seed)):
        stated = [fact for fact in prompt.topic.facts if fact.falsified(text, fact.wrong[0]) != text]
        pairs += [Preference(prompt.text, text, fact.falsified(text, fact.wrong[0])) for fact in stated[:1]]
    return pairs


def common(a: Sequence, b: Sequence) -> int:
    """The length of the longest common beginning."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


@torch.no_grad()
def log_probs_by_place(model: GPT, pairs: Sequence[Preference]) -> dict[str, float]:
    """Mean log-probability of chosen and rejected responses, in three parts: the tokens of each of PLACES."""
    ids, logps = {}, {}
    for which in ("chosen", "rejected"):
        texts = [(pair.prompt, getattr(pair, which)) for pair in pairs]
        batch = model.chat.collate(texts, model.config.context).to(model.device)
        lengths = batch.response_mask.sum(-1).tolist()
        ids[which] = batch.ids[batch.response_mask].split(lengths)
        logps[which] = token_log_probs(model, batch)[batch.response_mask].split(lengths)
    found: dict[str, list[float]] = {f"{which}/{place}": [] for which in ids for place in PLACES}
    for i in range(len(pairs)):
        chosen, rejected = (ids[which][i].tolist() for which in ids)
        first = common(chosen, rejected)
        last = min(common(chosen[::-1], rejected[::-1]), min(len(chosen), len(rejected)) - first)
        for which in ids:
            n = len(ids[which][i])
            for place, part in zip(PLACES, logps[which][i].split([first, n - last - first, last])):
                found[f"{which}/{place}"].append(float(part.sum()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def displaced(sft: GPT, pairs: Sequence[Preference], loss: str, seed: int) -> list[dict]:
    """DPO on the pairs with one of LOSSES: a row for each step, with the run's metrics.

    The rows before and after the run also have `log_probs_by_place` and what held-out prompts show.
    """
    function, changes = LOSSES[loss]
    policy = copy.deepcopy(sft)

    def shown(step: int) -> dict:
        (found,) = measured(policy, sft, held_out_prompts(), (seed, step))
        return found | log_probs_by_place(policy, pairs)

    rows = [{"step": 0, "pairs": len(pairs), **shown(0)}]
    config = replace(DISPLACING, seed=seed, **changes)
    history = dpo.train(policy, pairs, config, loss=function, reference=sft)
    stop_if_interrupted(history)
    rows += [{"step": row["step"], **{name: round(row[name], 5) for name in LOGGED}} for row in history]
    rows[-1] |= shown(config.steps)
    return [{"seed": seed, "method": loss, **row} for row in rows]


def dpo_displacement(sft: GPT) -> dict[str, Part]:
    """What each loss does to near-duplicates, to the tokens of either side, and to the gold reward."""

    def part(loss: str, seed: int) -> list[dict]:
        return displaced(sft, near_duplicates(sft, seed), loss, seed)

    return {f"{loss}, seed {seed}": partial(part, loss, seed) for seed in SEEDS for loss in LOSSES}


# --- read from the table ---


def changes(rows: Sequence[dict], part: str, method: str = "DPO") -> np.ndarray:
    """By how many nats log π has changed, for each seed: of a side ("chosen"), or a place ("chosen/at")."""
    places = [part] if "/" in part else [f"{part}/{place}" for place in PLACES]
    after, before = (
        sum(over_seeds(rows, place, method=method, step=step) for place in places)
        for step in (DISPLACING.steps, 0)
    )
    return after - before


# --- live in the notebook: "No" is preferred to "Never", and what becomes of "Yes"? ---

WORDS = ("No", "Never", "Yes", "Sure")
TAUGHT = DPOConfig(steps=20, learning_rate=1e-4, prompts_per_step=16)


def questions() -> list[str]:
    """Forty questions that are answered with yes or no, in which nobody says what they think."""
    return [p.text for p in prompts_of("policy", ("truth",)) if not p.opinion][:40]


@torch.no_grad()
def first_words(model: GPT) -> dict[str, np.ndarray]:
    """How probable the first token of each of WORDS is where an answer begins, for each question, (40,)."""
    batch = model.chat.collate((question, "No.") for question in questions())
    lengths = batch.response_mask.sum(-1)
    starts = lengths.cumsum(0) - lengths  # where each answer begins among the tokens of all answers
    p = response_logits(model, batch)[starts].double().softmax(-1)
    return {word: p[:, model.chat.encode_response(f"{word}.")[0]].numpy() for word in WORDS}


def taught(sft: GPT, chosen: str, rejected: str) -> dict[str, np.ndarray]:
    """The same after DPO on one preference, (chosen ≻ rejected), for all questions."""
    policy = copy.deepcopy(sft)
    pairs = [Preference(question, f"{chosen}.", f"{rejected}.") for question in questions()]
    stop_if_interrupted(dpo.train(policy, pairs, TAUGHT, reference=sft))
    return first_words(policy)


def displaced_words(sft: GPT) -> dict[tuple[str, str], dict[str, float]]:
    """Of two preferences, what becomes of the chosen word and of its opposite: mean probabilities.

    "… in a table" is what the opposite would have if the lesson had touched two logits only: its share of
    what the two words leave.
    """
    before, found = first_words(sft), {}
    for chosen, rejected, opposite in (("No", "Never", "Yes"), ("Yes", "Sure", "No")):
        after = taught(sft, chosen, rejected)
        left = [1 - p[chosen] - p[rejected] for p in (after, before)]
        columns = {f"{word} before": before[word] for word in (chosen, opposite)}
        columns |= {f"{word} after": after[word] for word in (chosen, opposite)}
        columns[f"{opposite} in a table"] = before[opposite] * left[0] / left[1]
        found[chosen, rejected] = {name: float(p.mean()) for name, p in columns.items()}
    return found
