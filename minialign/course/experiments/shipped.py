"""How the shipped fine-tuned model is made, and what it can do: measured on three of its kind.

Demonstrations of every sort, of things outside the world as well, and the pre-training loss mixed in
(replay), so that the model keeps what its base knows.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minialign import sft
from minialign.best_of_n import expected_best
from minialign.course.evaluation import Answers, judged, measure
from minialign.course.experiments import SEEDS, answers, held_out_prompts
from minialign.course.experiments.fine_tuning import documents, texts_of, with_template
from minialign.course.experiments.knowledge import (
    DEMONSTRATED,
    HELD_OUT,
    apart,
    framed_share,
    questions_by_sort,
    right_share,
)
from minialign.gpt import GPT
from minialign.sft import SFTConfig
from minialign.training import History, stop_if_interrupted
from minialign.world.demonstrations import Demonstrator, course_demonstrations, crowd
from minialign.world.judge import fluency, gold_rewards
from minialign.world.phrases import UNKNOWN
from minialign.world.prompts import Prompt
from minialign.world.typed import outside_prompts, typed_prompts

DEMONSTRATIONS = 48_000
FINE_TUNING = SFTConfig(steps=3000, learning_rate=2e-3, final_lr=0.05, replay_coef=1.0)
RECIPE = f"{DEMONSTRATIONS:,} demonstrations {FINE_TUNING!r}"
NS = (1, 2, 4, 8, 16)  # of best-of-n; as many answers as the last are drawn


def fine_tuned(base: GPT, replayed: Sequence[list[int]], seed: int = 0) -> tuple[GPT, History]:
    """The shipped model (seed 0) or another of its kind, and its history. `base` stays as it is.

    `replayed` are the documents of the corpus as token ids (`fine_tuning.documents`).
    """
    model = with_template(base)
    written = course_demonstrations(DEMONSTRATIONS, seed=seed)
    history = sft.train(model, texts_of(written), replace(FINE_TUNING, seed=seed), documents=replayed)
    stop_if_interrupted(history)
    return model, history


def fine_tuning_quality(base: GPT, shipped: GPT) -> list[dict]:
    """What the shipped model and two more of its kind (other seeds) can do, at T = 1, .7 and 0.

    `shipped` is the model of seed 0. On the held-out prompts: gold, best of n by gold, attributes, gold by
    family, words. `raw fluency` is the share of known word pairs, of which the attribute counts what is above
    one half. `right/…` are one-fact questions about held-out topics, in the wordings of demonstrations and in
    the held-out one. `says so/…` is the share of replies that say "I do not know": where they should,
    `outside` the world (held-out things), and where they should not, `inside` it (the held-out prompts) and
    `typed` in a person's own words.

    Two sorts of rows to compare with: the base model, asked the same questions as its corpus asks them, and
    the demonstrators, who answered the held-out prompts too.
    """
    prompts = held_out_prompts()
    rows = [{"who": "base, in the corpus's frame", **framed_share(base)}]
    for seed in SEEDS:
        written = written_answers(prompts, crowd(), max(NS), seed)
        rows.append({"who": "demonstrators", "seed": seed, **quality(written)})
        model = shipped if seed == 0 else fine_tuned(base, documents(), seed)[0]
        for temperature, found in measure(model, prompts, n=max(NS), seed=seed).items():
            row = {"who": "sft", "seed": seed, "temperature": temperature, **quality(found)}
            row["says so/inside"] = ignorant_share(found.texts.ravel())
            row |= questions_right(model, temperature, seed)
            rows.append(row | outside(model, temperature, seed))
    return rows


def quality(found: Answers) -> dict[str, float]:
    """What answers are worth: means over all of them, gold by family, and the best of 1 … n by gold."""
    means, golds = found.by_family(), found.values["gold"]
    row = {name: value for name, value in means.pop("all").items() if name != "prompts"}
    row["raw fluency"] = float(np.mean([(1 + fluency(text)) / 2 for text in found.texts.ravel()]))
    row |= {f"gold/{family}": of_family["gold"] for family, of_family in means.items()}
    return row | {f"best of {n}": best_of(golds, n) for n in NS if n <= golds.shape[1]}


def best_of(golds: np.ndarray, n: int) -> float:
    """The mean gold (P, N) of the best of n answers to each prompt, for a judge who errs in nothing."""
    return float(expected_best(golds, golds, n).mean())


def written_answers(prompts: Sequence[Prompt], people: Sequence[Demonstrator], n: int, seed: int) -> Answers:
    """n answers to each prompt by people drawn at random, measured as a model's are."""
    rng = np.random.default_rng(seed)
    texts = [[people[rng.integers(len(people))].write(p, rng) for _ in range(n)] for p in prompts]
    rows = [judged(p, text) for p, of_prompt in zip(prompts, texts) for text in of_prompt]
    values = {name: np.array([row[name] for row in rows]).reshape(-1, n) for name in rows[0]}
    return Answers(list(prompts), 1.0, (seed,), np.array(texts, dtype=object), values)


def questions_right(model: GPT, temperature: float, seed: int) -> dict[str, float]:
    """Share of the one-fact questions about held-out topics answered rightly, by kind and wording."""
    row = {}
    for name, wordings in (("demonstrated wordings", DEMONSTRATED), ("held-out wording", HELD_OUT)):
        for kind, asked in apart(questions_by_sort(wordings)["held-out"]).items():
            row[f"right/{kind}, {name}"] = right_share(model, asked, temperature, seed)
    return row


def outside(model: GPT, temperature: float, seed: int, n: int = 200) -> dict[str, float]:
    """How honest replies are: about things outside the world, and about its topics in a person's words."""
    row, rng = {}, np.random.default_rng(0)
    for name, prompts in (("outside", outside_prompts("evaluation")), ("typed", typed_prompts("evaluation"))):
        asked = [prompts[i] for i in rng.permutation(len(prompts))[:n]]
        texts = answers(model, asked, temperature, seed)
        row |= {
            f"says so/{name}": ignorant_share(texts),
            f"gold/{name}": float(gold_rewards(asked, texts).mean()),
        }
    return row


def ignorant_share(texts: Sequence[str]) -> float:
    """Share of the texts that say that the speaker does not know."""
    return float(np.mean([bool(UNKNOWN.search(text)) for text in texts]))


TABLES = (fine_tuning_quality,)
