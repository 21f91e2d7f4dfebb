"""Notebook 02: the limits of fine-tuning, (a) to (e), and what it costs the base model's knowledge.

(c), that all errors weigh the same, needs no table: `beginnings`.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from minialign import sft
from minialign.course.evaluation import measure, reply_shares
from minialign.course.experiments import SEEDS, answers, different, held_out_prompts
from minialign.course.experiments.fine_tuning import (
    SHORT,
    documents,
    encoded_pairs,
    fine_tuned,
    texts_of,
    unread_documents,
    with_template,
)
from minialign.course.experiments.knowledge import recalled
from minialign.course.experiments.shipped import FINE_TUNING, NS, best_of, written_answers
from minialign.gpt import GPT
from minialign.language_model import LanguageModel
from minialign.logprobs import negative_log_likelihood
from minialign.sampling import generate
from minialign.training import stop_if_interrupted
from minialign.world.demonstrations import Demonstration, Demonstrator, demonstrate
from minialign.world.frames import REQUESTED
from minialign.world.judge import fluency, gold_rewards, judge
from minialign.world.phrases import POLITE
from minialign.world.prompts import Prompt, prompts_of, sample_prompts

SIZES = (30, 100, 300, 1000, 3000)  # demonstrations
TEMPERATURES = (0.0, 0.4, 0.7, 1.0, 1.2)
# (what stands before a prompt, what comes after it), for a base model that is not trained at all
COAXED = {
    "base": ("", ""),
    "base, one phrase": ("", "\n" + POLITE.openers[0]),
    "base, in the corpus's frame": (REQUESTED[0].format(""), "\n"),
}
REPLAYED = replace(FINE_TUNING, steps=SHORT.steps)  # as the shipped model learns, but not as long


def by_demonstrations(base: GPT) -> list[dict]:
    """Limit (a): gold, what replies do, and what is left of the base's knowledge, by demonstrations.

    Every model makes the same updates at the shipped rate, with replay (REPLAYED): only the number of
    demonstrations differs. `gold` is of samples at T = 1, `gold, T=0` and the shares of replies are greedy.
    The first rows are free: the base model as it is, with the first words of an answer put into its mouth,
    and asked as the corpus asks (COAXED).
    """
    rows, prompts = [], held_out_prompts()
    for who, words in COAXED.items():
        sampled, greedy = (coaxed(base, prompts, *words, temperature) for temperature in (1.0, 0.0))
        rows.append({"who": who, "demonstrations": 0, **worth(prompts, sampled, greedy)})
    rows[0] |= recalled(base)
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), max(SIZES), seed=seed)
        for n in SIZES:
            model = fine_tuned(base, written[:n], replace(REPLAYED, seed=seed), documents=documents())
            sampled, greedy = (answers(model, prompts, temperature, seed) for temperature in (1.0, 0.0))
            row = {"seed": seed, "who": "SFT", "demonstrations": n, **worth(prompts, sampled, greedy)}
            rows.append({**row, **recalled(model)})
    return rows


def coaxed(base: GPT, prompts: Sequence[Prompt], before: str, after: str, temperature: float) -> list[str]:
    """How the base model goes on after a prompt with words before it, and words of the answer after it.

    Alignment without training: both say that now somebody answers (URIAL, Lin et al. 2023). The words after
    the prompt are a part of the answer.
    """
    texts = [before + p.text + after for p in prompts]
    replies = LanguageModel(base, template=False).respond(texts, temperature=temperature, max_new_tokens=60)
    return [f"{after} {reply}".strip() for reply in replies]


def worth(prompts: Sequence[Prompt], sampled: list[str], greedy: list[str]) -> dict[str, float]:
    """Gold at both temperatures, fluency of the samples, and what the greedy replies do."""
    return {
        "gold": float(gold_rewards(prompts, sampled).mean()),
        "gold, T=0": float(gold_rewards(prompts, greedy).mean()),
        "fluency": float(np.mean([fluency(text) for text in sampled])),
        **reply_shares(prompts, greedy),
    }


def alignment_tax(base: GPT, demonstrations: int = 3000, steps: int = 160) -> list[dict]:
    """What fine-tuning costs the base model's knowledge: with replay, without, and without at a low rate.

    The low rate (that of SHORT) is the free alternative to replay: what is learned less overwrites less. So
    each row has the gold that was got for it. `loss on documents` is in nats a token, on documents made like
    the corpus with another seed.
    """
    prompts, unread = held_out_prompts(), unread_documents()
    arms = {
        "replay": (FINE_TUNING, {"documents": documents()}),
        "no replay": (replace(FINE_TUNING, replay_coef=0.0), {}),
        "no replay, low rate": (SHORT, {}),
    }

    def left_of(model: GPT) -> dict[str, float]:
        return {**recalled(model), "loss on documents": negative_log_likelihood(model, unread)}

    rows = [{"arm": "base", "step": 0, **left_of(base)}]
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), demonstrations, seed=seed)
        for arm, (config, options) in arms.items():
            model = with_template(base)

            def record(metrics: dict) -> None:
                if metrics["step"] in (steps // 8, steps // 2, steps):
                    sampled, greedy = (
                        answers(model, prompts, temperature, seed) for temperature in (1.0, 0.0)
                    )
                    row = {"seed": seed, "arm": arm, "step": metrics["step"]}
                    rows.append({**row, **worth(prompts, sampled, greedy), **left_of(model)})

            config = replace(config, steps=steps, seed=seed)
            stop_if_interrupted(sft.train(model, texts_of(written), config, on_step=record, **options))
    return rows


def one_style(base: GPT, steps: int = 240) -> list[dict]:
    """Limit (b): 2,000 perfect answers, and how varied the model is then. Without replay.

    In "many ways" people answer as they like; in "one way" all answers have the same facts in the same order
    and the same kind words. The control has "one answer a prompt", the same whenever it is asked, but of
    every prompt in another way: a single label for each prompt, too. If labels are what counts, it is as
    uniform as "one way"; if a model learns a distribution over similar prompts, as varied as "many ways".

    `entropy` is that of a whole response, −log π(y|x) averaged over the model's own samples, in nats.
    `different` is the mean share of different texts among 8 samples for a poem or a story. Both are of
    demonstrated prompts, where the data has one answer or many; `gold` is of the same samples.
    """
    rows, prompts = [], sample_prompts("sft", 196)
    open_ended = [p for p in prompts if p.family in ("poem", "story")]
    for seed in SEEDS:
        many = demonstrate(prompts_of("sft"), 2000, [Demonstrator()], seed=seed)
        styles = {
            "many ways": many,
            "one answer a prompt": [replace(d, response=always_alike(d.prompt, seed)) for d in many],
            "one way": [replace(d, response=in_one_style(d.prompt)) for d in many],
        }
        for style, written in styles.items():
            model = fine_tuned(base, written, replace(SHORT, steps=steps, seed=seed))
            sampled = generate(model, [model.chat.encode_prompt(p.text) for p in prompts], seed=seed)
            verses = answers(model, open_ended, seed=seed, n=8)
            rows.append(
                {
                    "seed": seed,
                    "style": style,
                    "entropy": -float(sampled.log_probs.sum(-1).mean()),
                    "different": different(verses, 8) / 8,
                    "gold": float(gold_rewards(prompts, sampled.texts).mean()),
                }
            )
    return rows


def in_one_style(prompt: Prompt) -> str:
    """The perfect answer that one person always gives: same facts, same order, same kind words."""
    return Demonstrator().write(prompt, np.random.default_rng(0))


def always_alike(prompt: Prompt, seed: int) -> str:
    """A perfect answer that is another for every prompt, and for one prompt always the same."""
    return Demonstrator().write(prompt, np.random.default_rng([seed, zlib.crc32(prompt.text.encode())]))


def human_ceiling(base: GPT) -> list[dict]:
    """Limit (d): demonstrators at about 60 % of the maximal gold, and their imitator: one row for each seed.

    The imitator is sampled at several temperatures, and of both the best of n is taken by a perfect judge,
    n = 1 … 16 answers to each held-out prompt: like is compared with like. Few steps (SHORT), without replay.
    """
    rows, prompts, people = [], held_out_prompts(), [Demonstrator.at_skill(0.2)]
    for seed in SEEDS:
        written = demonstrate(prompts_of("sft"), 2000, people, seed=seed)
        model = fine_tuned(base, written, replace(SHORT, seed=seed))
        theirs = written_answers(prompts, people, max(NS), seed).values["gold"]
        others = [t for t in TEMPERATURES if t != 1]
        sampled = measure(model, prompts, others, 4, seed) | measure(model, prompts, (1.0,), max(NS), seed)
        row = {"seed": seed}
        for temperature in TEMPERATURES:
            golds = sampled[temperature].values["gold"]
            row[f"imitator, T={temperature:g}"] = float(golds.mean())
        for who, golds in (("demonstrators", theirs), ("imitator", sampled[1.0].values["gold"])):
            row |= {f"{who}, best of {n}": best_of(golds, n) for n in NS}
        rows.append(row)
    return rows


def likelihood_and_gold(base: GPT, steps: int = 160) -> list[dict]:
    """Limit (e): held-out loss and gold of checkpoints, taught by the crowd, by its best, or by as few of it.

    `loss` is on held-out demonstrations of the whole crowd. A model that learned from the best few answers
    must be worse there: it was taught another distribution. So `loss on the best` is on the best fifth of
    them, where it is at home. Few steps, without replay; `epochs` counts how often an answer was seen.
    """
    rows, prompts = [], held_out_prompts()
    others = demonstrate(prompts, 600, seed=77)
    at_large, at_best = (encoded_pairs(some) for some in (others, best_few(others, len(others) // 5)))
    for seed in SEEDS:
        crowd = demonstrate(prompts_of("sft"), 2000, seed=seed)
        sets = {"all 2,000": crowd, "best 200": best_few(crowd, 200), "random 200": crowd[:200]}
        for data, written in sets.items():
            model = with_template(base)

            def record(metrics: dict) -> None:
                if metrics["step"] % (steps // 4) == 0:
                    epochs = metrics["step"] * SHORT.batch_size / len(written)
                    row = {"seed": seed, "data": data, "step": metrics["step"], "epochs": epochs}
                    row["loss"] = negative_log_likelihood(model, at_large)
                    row["loss on the best"] = negative_log_likelihood(model, at_best)
                    row["gold"] = float(gold_rewards(prompts, answers(model, prompts, seed=seed)).mean())
                    rows.append(row)

            config = replace(SHORT, steps=steps, seed=seed)
            stop_if_interrupted(sft.train(model, texts_of(written), config, on_step=record))
    return rows


def best_few(demonstrations: Sequence[Demonstration], n: int) -> list[Demonstration]:
    """The n demonstrations that the judge finds best, the better ones first."""
    return sorted(demonstrations, key=lambda d: -judge(d.prompt, d.response).gold)[:n]


# --- live in the notebook ---


def one_label_each(prompts: Sequence[Prompt], seed: int = 0, n: int = 8) -> dict[str, list[tuple[str, str]]]:
    """Limit (b): for each prompt "the label", by a perfect person, "its equals", and "careless answers".

    The equals are perfect, too, up to n of them. All as (prompt, response), what `sft.train` takes.
    """
    rng, perfect, careless = np.random.default_rng(seed), Demonstrator(), Demonstrator.at_skill(0.2)
    found: dict[str, list] = {"the label": [], "its equals": [], "careless answers": []}
    for prompt in prompts:
        label, *equals = dict.fromkeys(perfect.write(prompt, rng) for _ in range(3 * n))
        found["the label"].append((prompt.text, label))
        found["its equals"] += [(prompt.text, text) for text in equals[:n]]
        found["careless answers"] += [(prompt.text, careless.write(prompt, rng)) for _ in range(n)]
    return found


def beginnings(model: GPT, prompt: str, k: int) -> tuple[torch.Tensor, list[int], list[str]]:
    """Limit (c): the probabilities (V,) of a reply's first token, the k most probable ones, and the replies
    that go on from them, greedily.
    """
    chat = model.chat
    asked = chat.encode_prompt(prompt)
    with torch.no_grad():
        probabilities = model(torch.tensor([asked], device=model.device))[0, -1].softmax(-1).cpu()
    first = probabilities.topk(k).indices.tolist()
    texts = generate(model, [[*asked, token] for token in first], temperature=0).texts
    return probabilities, first, [chat.decode([token]) + text for token, text in zip(first, texts)]


TABLES = (by_demonstrations, alignment_tax, one_style, human_ceiling, likelihood_and_gold)
