"""Notebook 06: "your language model is secretly a reward model", against one that was made to be one.

Both learn from the same comparisons; beside them stands what knows no label at all.
"""

import copy
from dataclasses import replace
from functools import partial

import numpy as np

from minialign import dpo
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.comparisons import HeldOut, Scorer, preferences, updates
from minialign.course.experiments.direct_preference import CONSTANT
from minialign.course.experiments.measuring import by_prompt
from minialign.course.experiments.reward_models import LARGE, fitted, steps_for
from minialign.course.experiments.scorers import ImplicitReward, Likelihood, unbiased
from minialign.gpt import GPT
from minialign.training import stop_if_interrupted
from minialign.world.judge import gold_rewards


def graded(test: HeldOut, scorer: Scorer) -> dict:
    """What a scorer is worth on held-out pairs, in all and by prompt.

    "accuracy": how often it ranks a pair as people did. "order": as the gold reward does, where that differs.
    "best": the gold reward of the response that it puts first among all of a prompt that occur in the pairs.
    Of two scorers each list has the same prompts in the same order, so that intervals can be over prompts.
    """
    scores, (prompts, responses) = test.scores(scorer), zip(*test.answers())
    margins = test.margins_of(scores)
    first: dict[str, tuple[float, float]] = {}
    for prompt, score, gold in zip(prompts, scores, gold_rewards(prompts, responses)):
        first[prompt] = max(first.get(prompt, (-np.inf, 0.0)), (score, gold))
    best = [gold for _, gold in first.values()]
    return {
        "accuracy": test.accuracy(margins),
        "order": test.order_accuracy(margins),
        "best": float(np.mean(best)),
        "accuracy_by_prompt": test.accuracy_by_prompt(margins),
        "order_by_prompt": test.order_by_prompt(margins),
        "best_by_prompt": np.round(best, 3).tolist(),
    }


def dpo_implicit_rewards(sft: GPT) -> dict[str, Part]:
    """β log π/π_ref against a reward model, from the same comparisons, on held-out pairs.

    Each learns for as long as notebooks 04 and 06 let it: the reward model PASSES, DPO one pass. "label-free"
    is the mean log π_SFT of a token, which needs no label. The gold reward itself is the upper bound
    ("judge"), and of "best" the mean over a prompt's responses the lower one ("any"). Rows: see `graded`.
    """
    test = HeldOut.of(preferences("held_out"))

    def implicit(seed: int) -> Scorer:
        pairs, policy = preferences("comparisons"), copy.deepcopy(sft)
        config = replace(CONSTANT, steps=updates(pairs, 1.0, CONSTANT.prompts_per_step), seed=seed)
        stop_if_interrupted(dpo.train(policy, pairs, config, reference=sft))
        return ImplicitReward(policy, sft, config.beta)

    def explicit(seed: int) -> Scorer:
        pairs = preferences("comparisons")
        return fitted(sft, pairs, replace(LARGE, steps=steps_for(pairs), seed=seed))[0]

    def learned(name: str, seed: int) -> list[dict]:
        return [{"scorer": name, "seed": seed, **graded(test, learners[name](seed))}]

    def known() -> list[dict]:
        scorers = {"label-free": Likelihood(sft), "judge": unbiased(1.0)}
        gold = gold_rewards(*map(list, zip(*test.answers())))
        mean = by_prompt([x for x, _ in test.answers()], gold)
        lower = {"scorer": "any", "best": float(np.mean(mean)), "best_by_prompt": mean}
        return [*({"scorer": name, **graded(test, scorer)} for name, scorer in scorers.items()), lower]

    learners = {"implicit": implicit, "reward model": explicit}
    parts: dict[str, Part] = {"without labels": known}
    return parts | {
        f"{name}, seed {seed}": partial(learned, name, seed) for name in learners for seed in SEEDS
    }
