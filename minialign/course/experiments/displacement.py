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
from minialign.course.experiments.measuring import measured
from minialign.dpo import DPOConfig
from minialign.gpt import GPT
from minialign.logprobs import token_log_probs
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
