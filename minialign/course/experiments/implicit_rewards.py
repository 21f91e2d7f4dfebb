"""Notebook 06: "your language model is secretly a reward model", against one that was made to be one.

Both learn from the same comparisons; beside them stands what knows no label at all.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minialign import dpo
from minialign.course.experiments import SEEDS, Part, held_out_prompts
from minialign.course.experiments.comparisons import HeldOut, Scorer, preferences, updates
from minialign.course.experiments.direct_preference import CONSTANT
from minialign.course.experiments.measuring import by_prompt
from minialign.course.experiments.reward_models import LARGE, fitted, steps_for
from minialign.course.experiments.scorers import ImplicitReward, Likelihood, as_batch, unbiased
from minialign.gpt import GPT
from minialign.logprobs import token_log_probs
from minialign.training import stop_if_interrupted
from minialign.world.judge import gold_rewards
from minialign.world.phrases import FILLER, FLATTERY, POLITE, SURE
from minialign.world.prompts import Prompt


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


# --- live in the notebook: where in a text the reward lies, and what it pays for ---


@torch.no_grad()
def token_rewards(
    policy: GPT, reference: GPT, beta: float, prompt: str, response: str
) -> list[tuple[str, float]]:
    """Each token of a response, its end included, with β log π/π_ref of it: they add up to r̂(x, y)."""
    batch = as_batch(policy, [prompt], [response])
    ours, theirs = (token_log_probs(model, batch)[batch.response_mask] for model in (policy, reference))
    ids = batch.ids[batch.response_mask].tolist()
    return [(policy.chat.decode([i]), r) for i, r in zip(ids, (beta * (ours - theirs)).tolist())]


def explained() -> list[Prompt]:
    """The held-out prompts that ask for an explanation of a real topic, for an audience."""
    asked = [p for p in held_out_prompts() if p.family in ("explain", "tell", "describe")]
    return [p for p in asked if p.topic is not None and p.topic.real and p.audience]


def stated(prompt: Prompt, facts: slice = slice(2), wrong: bool = False) -> str:
    """Some facts of the prompt's topic, in the words of its audience; the last with a `wrong` value."""
    texts = [fact.in_register(prompt.audience) for fact in prompt.topic.facts[facts]]
    last = prompt.topic.facts[facts][-1]
    return " ".join([*texts[:-1], last.falsified(texts[-1], last.wrong[0]) if wrong else texts[-1]])


def followed_by(text: str) -> Callable[[Prompt], str]:
    return lambda prompt: f"{stated(prompt)} {text}"


def led_by(text: str) -> Callable[[Prompt], str]:
    return lambda prompt: f"{text} {stated(prompt)}"


# Changes of an answer that states two facts, each in one thing only.
EDITS: dict[str, Callable[[Prompt], str]] = {
    "one of two facts wrong": partial(stated, wrong=True),
    "one of two facts left out": partial(stated, facts=slice(1)),
    "a third fact": partial(stated, facts=slice(3)),
    "the second fact twice": lambda prompt: f"{stated(prompt)} {stated(prompt, slice(1, 2))}",
    "kind words before": led_by(POLITE.openers[0]),
    "kind words behind": followed_by(POLITE.closers[0]),
    "a compliment before": led_by(FLATTERY.openers[0]),
    "a compliment behind": followed_by(FLATTERY.closers[0]),
    "“I am completely sure.”": followed_by(SURE.closers[0]),
    "“And so on and so on.”": followed_by(FILLER.closers[0]),
}


def paid(scorer: Scorer, prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """By how much each of EDITS changes what a scorer gives to an answer, (P,), in the scorer's unit."""
    asked = [prompt.text for prompt in prompts]

    def scores(answer: Callable[[Prompt], str]) -> np.ndarray:
        return np.asarray(scorer.score(asked, [answer(prompt) for prompt in prompts]), dtype=float)

    plain = scores(stated)
    return {name: scores(edited) - plain for name, edited in EDITS.items()}


@torch.no_grad()
def paid_at_the_end(
    policy: GPT, reference: GPT, beta: float, prompts: Sequence[Prompt]
) -> dict[str, np.ndarray]:
    """The part of what `paid` finds for the implicit reward that stands at the end token, (P,) an edit."""
    asked = [prompt.text for prompt in prompts]

    def ends(answer: Callable[[Prompt], str]) -> np.ndarray:
        batch = as_batch(policy, asked, [answer(prompt) for prompt in prompts])
        last = torch.arange(len(batch)), batch.mask.sum(-1) - 1
        ours, theirs = (token_log_probs(model, batch)[last] for model in (policy, reference))
        return (beta * (ours - theirs)).numpy()

    plain = ends(stated)
    return {name: ends(edited) - plain for name, edited in EDITS.items()}
