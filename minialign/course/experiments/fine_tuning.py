"""Notebook 02: the five limits of fine-tuning, "format, not knowledge", and the bugs of the response mask."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from minialign import sft
from minialign.chat import load_chat
from minialign.course.evaluation import facts_right, reply_shares
from minialign.course.experiments import SEEDS, answers, held_out_prompts
from minialign.gpt import GPT
from minialign.logprobs import negative_log_likelihood
from minialign.sampling import generate
from minialign.sft import SFTConfig, sft_loss
from minialign.training import History, stop_if_interrupted
from minialign.world.demonstrations import Demonstrator, demonstrate
from minialign.world.judge import ASKING, gold_rewards, judge, sentences_of, words_of
from minialign.world.prompts import Prompt, all_prompts, prompts_of, sample_prompts, topic_sorts

SIZES = (30, 100, 300, 1000, 3000)  # demonstrations


def steps_for(n: int) -> int:
    """Updates to fine-tune on n demonstrations: enough for the format, too few to learn 30 by heart."""
    return min(SFTConfig().steps, round(14 * math.sqrt(n)))


def with_template(base: GPT) -> GPT:
    """A copy of `base` that has been introduced to the chat template."""
    model = copy.deepcopy(base)
    sft.introduce_template(model)
    return model


def fine_tuned(base: GPT, demonstrations, config: SFTConfig) -> GPT:
    """A copy of `base`, fine-tuned."""
    model = with_template(base)
    pairs = [(d.prompt.text, d.response) for d in demonstrations]
    stop_if_interrupted(sft.train(model, pairs, config))
    return model


def by_demonstrations(base: GPT) -> list[dict]:
    """Limit (a): gold reward of samples (T = 1), and what greedy replies do, by number of demonstrations."""
    rows, prompts = [], held_out_prompts()
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), max(SIZES), seed=seed)
        for n in SIZES:
            model = fine_tuned(base, written[:n], SFTConfig(steps=steps_for(n), seed=seed))
            gold = float(gold_rewards(prompts, answers(model, prompts, seed=seed)).mean())
            shares = reply_shares(prompts, answers(model, prompts, temperature=0.0))
            rows.append({"seed": seed, "demonstrations": n, "gold": gold, **shares})
    return rows


def one_style(base: GPT) -> list[dict]:
    """Limit (b): 4,000 perfect answers, in many ways or all in one way, and how varied the model is then.

    Entropy is that of a whole response, −log π(y|x) averaged over the model's own samples, in nats, on the
    demonstrated prompts: there the data has one answer or many.
    """
    rows, prompts = [], sample_prompts("sft", 196)
    for seed in SEEDS:
        varied = demonstrate(prompts_of("sft"), 4000, [Demonstrator()], seed=seed)
        alike = [replace(d, response=in_one_style(d.prompt)) for d in varied]
        for style, written in (("many ways", varied), ("one way", alike)):
            model = fine_tuned(base, written, SFTConfig(seed=seed))
            sampled = generate(model, [model.chat.encode_prompt(p.text) for p in prompts], seed=seed)
            entropy = -float(sampled.log_probs.sum(-1).mean())
            gold = float(gold_rewards(prompts, sampled.texts).mean())
            rows.append({"seed": seed, "style": style, "entropy": entropy, "gold": gold})
    return rows


def in_one_style(prompt: Prompt) -> str:
    """The perfect answer that one person always gives: same facts, same order, same closing words."""
    return Demonstrator().write(prompt, np.random.default_rng(0))


def human_ceiling(base: GPT) -> list[dict]:
    """Limit (d): demonstrators at about 60 % of the maximal gold, their imitator, and its best of 16."""
    rows, prompts = [], held_out_prompts()
    people = [Demonstrator.at_skill(0.2)]
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), 2000, people, seed=seed)
        theirs = demonstrate(prompts, 4 * len(prompts), people, seed=seed + 100)  # on the test's prompts
        model = fine_tuned(base, written, SFTConfig(seed=seed))
        asked = [p for p in prompts for _ in range(16)]
        samples = gold_rewards(asked, answers(model, prompts, seed=seed, n=16)).reshape(-1, 16)
        greedy = gold_rewards(prompts, answers(model, prompts, temperature=0.0))
        rows.append(
            {
                "seed": seed,
                "demonstrators": float(np.mean([judge(d.prompt, d.response).gold for d in theirs])),
                "imitator, T=1": float(samples.mean()),
                "imitator, T=0": float(greedy.mean()),
                "best of 16": float(samples.max(1).mean()),
            }
        )
    return rows


def likelihood_and_gold(base: GPT) -> list[dict]:
    """Limit (e): held-out loss and gold reward of many checkpoints.

    They are fine-tuned on the crowd, on its best few, or on as many drawn at random.
    """
    rows, prompts = [], held_out_prompts()
    held_out = [
        (load_chat().encode_prompt(d.prompt.text), load_chat().encode_response(d.response))
        for d in demonstrate(prompts, 600, seed=77)
    ]
    for seed in SEEDS:
        crowd = demonstrate(prompts_of("sft"), 2000, seed=seed)
        best = sorted(crowd, key=lambda d: -judge(d.prompt, d.response).gold)[:200]
        for data, written in (("all 2,000", crowd), ("best 200", best), ("random 200", crowd[:200])):
            model = with_template(base)

            def measure(metrics: dict) -> None:
                if metrics["step"] % 80 == 0:
                    loss = negative_log_likelihood(model, held_out)
                    gold = float(gold_rewards(prompts, answers(model, prompts, seed=seed)).mean())
                    rows.append(
                        {"seed": seed, "data": data, "step": metrics["step"], "loss": loss, "gold": gold}
                    )

            pairs = [(d.prompt.text, d.response) for d in written]
            stop_if_interrupted(sft.train(model, pairs, SFTConfig(steps=400, seed=seed), on_step=measure))
    return rows


def questions_by_sort() -> dict[str, list[Prompt]]:
    """One-fact questions, in the wording that no demonstration has, by the sort of their topic.

    The sorts are those of `prompts.topic_sorts`.
    """
    questions = [p for p in all_prompts() if p.family == "question" and p.text.startswith("Quick question")]
    sorts = "sft", "held-out", "sft-only"
    return {sort: [p for p in questions if topic_sorts()[p.topic.name] == sort] for sort in sorts}


def knowledge(base: GPT, epochs: int = 6) -> list[dict]:
    """Format, not knowledge: facts right on topics in corpus, demonstrations, or both, epoch after epoch.

    In one arm the demonstrations also speak of things that the base model has never heard of (`sft-only`);
    the other has the very same demonstrations without those, and as many epochs. `held-out` are questions
    about topics that no demonstration mentions, and `invents` is the share of replies to them that state
    something false; `shuffled` scores the same replies against the facts of another thing of the same kind:
    what guessing is worth.
    """
    rows, sorts = [], topic_sorts()
    asked = questions_by_sort()
    careful = replace(Demonstrator(), manners=0.5, register=0.5)
    for seed in SEEDS:
        everything = demonstrate(prompts_of("sft"), 1500, [careful], seed=seed)
        known = [d for d in everything if sorts[d.prompt.topic.name] != "sft-only"]
        for arm, written in (("with unknown things", everything), ("known things only", known)):
            model = with_template(base)
            per_epoch = math.ceil(len(written) / SFTConfig().batch_size)

            def measure(metrics: dict) -> None:
                if metrics["step"] % per_epoch == 0 or metrics["step"] == per_epoch // 4:
                    replies = {sort: answers(model, asked[sort], temperature=0.0) for sort in asked}
                    row = {sort: float(facts_right(asked[sort], replies[sort]).mean()) for sort in asked}
                    pairs = list(zip(asked["held-out"], replies["held-out"]))
                    wrong = [judge(prompt, reply).counts["wrong"] > 0 for prompt, reply in pairs]
                    row["invents"] = float(np.mean(wrong))
                    row["shuffled"] = float(facts_right(*shuffled_key(*zip(*pairs))).mean())
                    epoch = round(metrics["step"] / per_epoch, 2)
                    rows.append({"seed": seed, "arm": arm, "epoch": epoch, **row})

            config = SFTConfig(steps=epochs * per_epoch, seed=seed)
            texts = [(d.prompt.text, d.response) for d in written]
            stop_if_interrupted(sft.train(model, texts, config, on_step=measure))
    return rows


def shuffled_key(prompts: Sequence[Prompt], replies: Sequence[str]) -> tuple[list[Prompt], list[str]]:
    """The prompts about invented things, each with the facts of the next of its kind, and their replies.

    The reply's own name is put in place of the other's, so that only the facts are judged.
    """
    invented = [p.topic for p in prompts if not p.topic.real]
    things = list(dict.fromkeys(invented))
    kept, renamed = [], []
    for prompt, reply in zip(prompts, replies):
        of_kind = [t for t in things if t.kind == prompt.topic.kind]
        if prompt.topic in of_kind and len(of_kind) > 1:
            other = of_kind[(of_kind.index(prompt.topic) + 1) % len(of_kind)]
            kept.append(replace(prompt, topic=other))
            name = prompt.topic.name
            renamed.append(reply.replace(name, other.name).replace(name.capitalize(), other.name))
    return kept, renamed


# --- the famous bugs of fine-tuning: each is another response mask ---


def prompt_in_loss(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The prompt's tokens are trained on too."""
    return ids != load_chat().pad


def mask_off_by_one(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The mask sits one place too early: the template's <|assistant|> is trained on, the end token is not."""
    return response_mask.roll(-1, 1)


def no_end_token(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The response is encoded without its end token."""
    return response_mask & (ids != load_chat().end)


def pad_is_end(ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """The end token doubles as padding, which is masked from the loss: the real end token goes with it."""
    padded_with_end = ids.masked_fill(ids == load_chat().pad, load_chat().end)
    return response_mask & (padded_with_end != load_chat().end)


BUGS: dict[str, Callable] = {
    "correct": lambda ids, response_mask: response_mask,
    "prompt in the loss": prompt_in_loss,
    "mask off by one": mask_off_by_one,
    "no end token": no_end_token,
    "pad = end": pad_is_end,
}


def fine_tuned_with_bug(base: GPT, demonstrations, bug: str, config: SFTConfig) -> tuple[GPT, History]:
    """A copy of `base` fine-tuned with one of BUGS, and its history."""
    model = with_template(base)
    chat = load_chat()
    pairs = [(chat.encode_prompt(d.prompt.text), chat.encode_response(d.response)) for d in demonstrations]

    def loss(logits, ids, response_mask):
        return sft_loss(logits, ids, BUGS[bug](ids, response_mask))

    return model, sft.train_on_tokens(model, pairs, config, loss=loss)


def failures(base: GPT) -> list[dict]:
    """What each bug does to a model fine-tuned on 300 demonstrations.

    Does it stop, does it drift into prompts, how good is it?
    """
    rows, prompts = [], held_out_prompts()
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), 300, seed=seed)
        config = SFTConfig(steps=steps_for(300), seed=seed)
        for bug in BUGS:
            model, history = fine_tuned_with_bug(base, written, bug, config)
            stop_if_interrupted(history)
            sampled = generate(model, [model.chat.encode_prompt(p.text) for p in prompts], seed=seed)
            rows.append(
                {
                    "seed": seed,
                    "bug": bug,
                    "ended": float(sampled.finished.float().mean()),
                    "words": float(np.mean([len(words_of(text)) for text in sampled.texts])),
                    "prompt after answer": float(np.mean([prompt_follows(text) for text in sampled.texts])),
                    "gold": float(gold_rewards(prompts, sampled.texts).mean()),
                }
            )
    return rows


def prompt_follows(text: str) -> bool:
    """Does a sentence after the first one ask or instruct, as the base model's lists of prompts do?"""
    return any(ASKING.match(part) or part.endswith("?") for part in sentences_of(text)[1:])


TABLES = (by_demonstrations, one_style, human_ceiling, likelihood_and_gold, knowledge, failures)
