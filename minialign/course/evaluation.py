"""What only this world's judge can measure: which facts are known, how models reply, what tokens are for."""

import re
from collections import Counter

import numpy as np
import torch

from minialign.chat import collate, load_chat
from minialign.gpt import GPT
from minialign.tokenizer import load_tokenizer
from minialign.world.judge import judge, kind_of_reply, read_sentence, sentences_of, words_of
from minialign.world.prompts import Prompt
from minialign.world.topics import Topic, whole_words

REPLIES = ("answer", "another prompt", "other")
TOKEN_CLASSES = ("first", "manners", "wording", "fact", "end")


def clozes(topics: list[Topic]) -> list[tuple[list[int], list[int]]]:
    """(ids of a text that stops before the answer, ids of the answer): two for each fact of the topics."""
    chat = load_chat()
    return [
        (chat.encode_document(text), chat.encode(" " + fact.answer))
        for t in topics
        for fact in t.facts
        for text in fact.clozes
    ]


def cloze_hits(model: GPT, topics: list[Topic]) -> np.ndarray:
    """Which clozes the model completes rightly with its most probable tokens; (2 × facts,) of bool."""
    pairs = clozes(topics)
    hits = []
    with torch.no_grad():
        for start in range(0, len(pairs), 64):
            part = pairs[start : start + 64]
            batch = collate(part, model.chat.pad, model.config.context).to(model.device)
            best = model(batch.ids, batch.mask)[:, :-1].argmax(-1)
            agrees = (best == batch.ids[:, 1:]) | ~batch.response_mask[:, 1:]
            hits += agrees.all(-1).tolist()
    return np.array(hits)


def reply_shares(prompts: list[Prompt], replies: list[str]) -> dict[str, float]:
    """Share of replies that answer, continue with another prompt, or do something else.

    Raises ValueError for none at all.
    """
    if not prompts:
        raise ValueError("a share of nothing: give at least one prompt and its reply")
    found = Counter(kind_of_reply(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True))
    return {kind: found[kind] / len(prompts) for kind in REPLIES}


def facts_right(prompts: list[Prompt], replies: list[str]) -> np.ndarray:
    """For one-fact questions: was the fact stated rightly? (N,) of bool."""
    pairs = zip(prompts, replies, strict=True)
    return np.array([judge(*pair).attributes["correctness"] == 1 for pair in pairs], dtype=bool)


def reference_f1(reference: str, response: str) -> float:
    """Harmonic mean of precision and recall of the response's words against one reference, in [0, 1].

    Words count with repetition. The usual way of scoring an answer when there is a single label (SQuAD,
    Rajpurkar et al. 2016).
    """
    wanted, given = Counter(words_of(reference)), Counter(words_of(response))
    shared = (wanted & given).total()
    return 2 * shared / (wanted.total() + given.total()) if shared else 0.0


def few_shot_prompt(examples: list[tuple[str, str]], prompt: str) -> str:
    """Worked examples before the prompt: the oldest trick to make a base model answer (Brown et al. 2020)."""
    return "\n\n".join([*(f"{question}\n{answer}" for question, answer in examples), prompt]) + "\n"


def token_classes(prompt: Prompt, response: str) -> list[str]:
    """What each token of `encode_response(response)` is there for: one of TOKEN_CLASSES.

    "manners" are kind words, habits, and a bare yes or no; "fact" the value of a fact, right or wrong;
    "wording" everything else.
    """
    ids = load_chat().encode_response(response)
    text, starts = load_tokenizer().decode_with_offsets(ids[:-1])
    kinds, place = ["wording"] * len(text), 0
    for part in sentences_of(text):
        place = text.index(part, place)
        if read_sentence(part, prompt.topic).role == "manners":
            kinds[place : place + len(part)] = ["manners"] * len(part)
        place += len(part)
    facts = prompt.topic.facts if prompt.topic else ()
    for value in {value for fact in facts for value in (fact.answer, *fact.wrong)}:
        for match in re.finditer(whole_words(value), text):
            kinds[match.start() : match.end()] = ["fact"] * len(value)
    words = (start + (text[start] == " ") for start in starts)  # a token's leading space belongs to no word
    classes = ["first" if i == 0 else kinds[min(place, len(text) - 1)] for i, place in enumerate(words)]
    return [*classes, "end"]
