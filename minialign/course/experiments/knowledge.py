"""Notebook 02: format or knowledge? What a model can be asked, before fine-tuning and after it."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from minialign import sft
from minialign.course.evaluation import cloze_hits, facts_right
from minialign.course.experiments import SEEDS, answers
from minialign.course.experiments.fine_tuning import SHORT, texts_of, with_template
from minialign.gpt import GPT
from minialign.language_model import LanguageModel
from minialign.training import stop_if_interrupted
from minialign.world.demonstrations import Demonstration, Demonstrator, demonstrate
from minialign.world.frames import ASKED
from minialign.world.judge import judge
from minialign.world.prompts import TEMPLATES, Prompt, all_prompts, prompts_of, topic_sorts
from minialign.world.topics import load_topics, whole_words

DEMONSTRATED, HELD_OUT = TEMPLATES["question"][:-1], TEMPLATES["question"][-1:]  # wordings of a question


def questions_by_sort(wordings: Sequence[str] = HELD_OUT) -> dict[str, list[Prompt]]:
    """One-fact questions in some wordings, by the sort of their topic (`prompts.topic_sorts`).

    By default it is the wording that no demonstration has.
    """
    asked = [
        p
        for p in all_prompts()
        if p.family == "question"
        and p.text in {wording.format(ask=p.topic.facts[p.fact].ask) for wording in wordings}
    ]
    sorts = "sft", "held-out", "sft-only"
    return {sort: [p for p in asked if topic_sorts()[p.topic.name] == sort] for sort in sorts}


def apart(questions: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """Questions about real topics and about invented things: how well these are known differs."""
    return {
        "real": [p for p in questions if p.topic.real],
        "invented": [p for p in questions if not p.topic.real],
    }


def in_frame(model: GPT, questions: Sequence[Prompt]) -> list[str]:
    """What a model says when it is asked as the corpus asks, greedily: "Asked at the museum: …".

    No template, no fine-tuning: so the base model can be asked what it knows. The corpus's frames take turns.
    """
    asked = [p.topic.facts[p.fact].ask for p in questions]
    framed = [ASKED[i % len(ASKED)].format(ask) + "\n" for i, ask in enumerate(asked)]
    replies = LanguageModel(model, template=False).respond(framed, max_new_tokens=60)
    return [reply.split("\n")[0] for reply in replies]


def framed_share(model: GPT) -> dict[str, float]:
    """Share of the questions about held-out topics that are answered rightly in the corpus's own frame."""
    found = {}
    for kind, questions in apart(questions_by_sort()["held-out"]).items():
        found[f"in frame/{kind}"] = float(facts_right(questions, in_frame(model, questions)).mean())
    return found


def recalled(model: GPT) -> dict[str, float]:
    """What is left of what the base model knows, asked in three ways.

    `asked` are questions about held-out topics, to the assistant, in a wording that no demonstration has;
    `in frame` are the same ones as the corpus asks them; `clozes` are the corpus's sentences, of all its
    topics, to be completed. Where the last two stay and the first falls, knowledge is there that cannot be
    asked for.
    """
    held_out = apart(questions_by_sort()["held-out"])
    known = [t for t in load_topics() if topic_sorts()[t.name] != "sft-only"]
    asked = {f"asked/{kind}": right_share(model, questions) for kind, questions in held_out.items()}
    return {**asked, **framed_share(model), "clozes": float(cloze_hits(model, known).mean())}


def right_share(model: GPT, questions: Sequence[Prompt], temperature: float = 0.0, seed: int = 0) -> float:
    """Share of one-fact questions that an assistant answers rightly."""
    return float(facts_right(questions, answers(model, questions, temperature, seed)).mean())


def knowledge(base: GPT, demonstrations: int = 1000, epochs: int = 5) -> list[dict]:
    """Format, not knowledge: facts right on topics in corpus, demonstrations, or both, epoch after epoch.

    Few demonstrations, by people who know everything, without replay. In one arm some of them speak of things
    that the base model has never heard of (`sft-only`); in the other as many speak of known things instead,
    so that both make the same number of updates. `per known topic` and `per unknown topic` say how many
    demonstrations one has on average.

    `held-out` are questions about topics that no demonstration mentions. `invents` is the share of replies to
    them that are wrong and name a value, `garbles` of those that are wrong and name none; `shuffled` scores
    the replies about invented things against the facts of another of the same kind: what guessing is worth.
    The first row is the base model, asked as the corpus asks (`in_frame`): what there is to be known.
    """
    asked = questions_by_sort()
    known = {sort: asked[sort] for sort in ("sft", "held-out")}
    of_base = {sort: in_frame(base, questions) for sort, questions in known.items()}
    rows = [{"arm": "base, in the corpus's frame", "epoch": 0.0, **scored(known, of_base)}]
    careful = replace(Demonstrator(), manners=0.5, register=0.5)
    per_epoch = math.ceil(demonstrations / SHORT.batch_size)
    for seed in SEEDS:
        for arm, prompts in arms_of_knowledge().items():
            written = demonstrate(prompts, demonstrations, [careful], seed=seed)
            model = with_template(base)

            def record(metrics: dict) -> None:
                if metrics["step"] % per_epoch == 0 or metrics["step"] == per_epoch // 4:
                    replies = {sort: answers(model, asked[sort], temperature=0.0) for sort in asked}
                    epoch = round(metrics["step"] / per_epoch, 2)
                    row = {"seed": seed, "arm": arm, "epoch": epoch, **demonstrations_per_topic(written)}
                    rows.append({**row, **scored(asked, replies)})

            config = replace(SHORT, steps=epochs * per_epoch, seed=seed)
            stop_if_interrupted(sft.train(model, texts_of(written), config, on_step=record))
    return rows


def arms_of_knowledge() -> dict[str, list[Prompt]]:
    """What the demonstrations of each arm are about."""
    everything = prompts_of("sft")
    known = [p for p in everything if topic_sorts()[p.topic.name] != "sft-only"]
    return {"with unknown things": everything, "known things only": known}


def demonstrations_per_topic(written: Sequence[Demonstration]) -> dict[str, float]:
    """How many demonstrations a known and an unknown topic has on average, 0 where there is none."""
    found = {}
    for name, sorts in (("known", ("sft", "held-out")), ("unknown", ("sft-only",))):
        topics = [d.prompt.topic.name for d in written if topic_sorts()[d.prompt.topic.name] in sorts]
        found[f"per {name} topic"] = len(topics) / max(1, len(set(topics)))
    return found


def scored(asked: dict[str, list[Prompt]], replies: dict[str, list[str]]) -> dict[str, float]:
    """Facts right by sort of topic, the real and the invented ones apart, and how the others are wrong."""
    row = {}
    for sort, questions in asked.items():
        right = dict(zip((p.text for p in questions), facts_right(questions, replies[sort])))
        row[sort] = float(np.mean(list(right.values())))
        for kind, of_kind in apart(questions).items():
            if of_kind:
                row[f"{sort}/{kind}"] = float(np.mean([right[p.text] for p in of_kind]))
    pairs = list(zip(asked["held-out"], replies["held-out"]))
    wrong = np.array([judge(prompt, reply).counts["wrong"] > 0 for prompt, reply in pairs])
    valued = np.array([names_a_value(prompt, reply) for prompt, reply in pairs])
    row |= {"invents": float((wrong & valued).mean()), "garbles": float((wrong & ~valued).mean())}
    row["shuffled"] = float(facts_right(*shuffled_key(*zip(*pairs))).mean())
    return row


@lru_cache
def _values() -> re.Pattern:
    facts = [fact for topic in load_topics() for fact in topic.facts]
    values = {value for fact in facts for value in (fact.answer, *fact.wrong)}
    return re.compile("|".join(map(whole_words, sorted(values, key=len, reverse=True))), re.IGNORECASE)


def names_a_value(question: Prompt, reply: str) -> bool:
    """Does the reply name what could be the answer to some question of the world, and is not in this one?"""
    asked = question.text.lower()
    return any(value.lower() not in asked for value in _values().findall(reply))


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


TABLES = (knowledge,)
