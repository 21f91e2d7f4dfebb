"""Notebook 06: "your language model is secretly a reward model". Against one that was made to be one.

Both learn from the same comparisons, and read tokens only; beside them stands what knows no label at all.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minialign import dpo, reward_model
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.direct_preference import (
    CONSTANT,
    log_probs,
    responses_in,
    updates,
)
from minialign.course.experiments.measuring import by_prompt
from minialign.course.experiments.reward_models import margins_of, preferences, subset
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.training import stop_if_interrupted
from minialign.world.judge import gold_rewards

FEW = 1000  # comparisons, beside all that are shipped
REWARD_PASSES = 2  # over the comparisons, of the reward model; DPO takes one (see `dpo_overoptimisation`)


def graded(test: Sequence[Preference], scores: np.ndarray) -> dict:
    """What scores of `responses_in(test)`, (N,), are worth, in all and by prompt.

    "accuracy": how often a pair is ranked as people did. "order": the same for the gold reward, over the
    pairs where it differs. "best": the gold reward of the response that the scores put first among the
    samples of a prompt. A tie is half right. The prompts are in the order of the pairs.
    """
    texts, prompts = responses_in(test), [pair.prompt for pair in test]
    margins = margins_of(test, dict(zip(texts, scores)))
    gold = dict(zip(texts, gold_rewards(*map(list, zip(*texts)))))
    better = margins_of(test, gold)
    differ = better != 0
    rank = {text: (score, gold[text]) for text, score in zip(texts, scores)}
    firsts = [max(value for text, value in rank.items() if text[0] == x)[1] for x in dict.fromkeys(prompts)]
    asked = np.array(prompts)
    right, in_order = (np.sign(margins) + 1) / 2, (np.sign(margins * better) + 1)[differ] / 2
    return {
        "accuracy": float(right.mean()),
        "order": float(in_order.mean()),
        "best": float(np.mean(firsts)),
        "accuracy_by_prompt": by_prompt(prompts, right),
        "order_by_prompt": by_prompt(asked[differ], in_order),
        "best_by_prompt": np.round(firsts, 3).tolist(),
    }


def fitted(sft: GPT, pairs: Sequence[Preference], seed: int) -> GPT:
    """DPO for one pass over the pairs."""
    policy, config = copy.deepcopy(sft), replace(CONSTANT, steps=updates(pairs, 1.0), seed=seed)
    stop_if_interrupted(dpo.train(policy, pairs, config, reference=sft))
    return policy


def dpo_implicit_rewards(sft: GPT) -> dict[str, Part]:
    """β log π/π_ref against a reward model, from the same comparisons, on held-out pairs.

    "label-free" is the mean log π_SFT of a token, which needs no label. As bounds stand there the gold reward
    itself ("judge"), and for "best" the mean of a prompt's samples ("any").
    """
    test = preferences("held_out")
    texts = responses_in(test)

    def learned(n: int | None, seed: int) -> list[dict]:
        pairs = preferences("comparisons")
        pairs = pairs if n is None else subset(pairs, n, seed)
        policy = fitted(sft, pairs, seed)
        implicit = CONSTANT.beta * (log_probs(policy, texts) - log_probs(sft, texts))
        model = RewardModel(sft, seed, reads_surprise=False)
        config = RewardModelConfig(steps=updates(pairs, REWARD_PASSES), seed=seed)
        stop_if_interrupted(reward_model.train(model, pairs, config))
        scores = {"implicit": implicit, "reward model": model.score(*map(list, zip(*texts)))}
        return [
            {"seed": seed, "pairs": len(pairs), "scorer": name, **graded(test, values)}
            for name, values in scores.items()
        ]

    def known() -> list[dict]:
        tokens = np.array([len(sft.chat.encode_response(y)) for _, y in texts])
        gold = gold_rewards(*map(list, zip(*texts)))
        scores = {"label-free": log_probs(sft, texts) / tokens, "judge": gold}
        rows = [{"scorer": name, **graded(test, values)} for name, values in scores.items()]
        any_one = by_prompt([x for x, _ in texts], gold)
        return [*rows, {"scorer": "any", "best": float(np.mean(any_one)), "best_by_prompt": any_one}]

    parts: dict[str, Part] = {"without labels": known}
    return parts | {
        f"{n or 'all'} comparisons, seed {seed}": partial(learned, n, seed)
        for seed in SEEDS
        for n in (FEW, None)
    }
