"""Notebook 02: how the small models of its experiments are fine-tuned, and the text they are fed with.

The experiments are about *few* demonstrations, so they take few steps (SHORT) and mostly go without replay,
unlike the shipped model (experiments/shipped.py). Each says so.
"""

import copy
from functools import lru_cache

from minialign import sft
from minialign.chat import load_chat
from minialign.documents import encode_corpus
from minialign.gpt import GPT
from minialign.sft import SFTConfig
from minialign.training import stop_if_interrupted
from minialign.world.corpus import build_corpus

SHORT = SFTConfig(steps=120, learning_rate=5e-4)  # enough for the format, without replay


def with_template(base: GPT) -> GPT:
    """A copy of `base` that has been introduced to the chat template."""
    model = copy.deepcopy(base)
    sft.introduce_template(model)
    return model


@lru_cache
def documents() -> list[list[int]]:
    """The pre-training corpus as token ids: what the base model has read, and what replay repeats."""
    return encode_corpus((text for _, text in build_corpus()), load_chat())


@lru_cache
def unread_documents(characters: int = 50_000) -> list[tuple[list[int], list[int]]]:
    """Documents made like the corpus with another seed, as (first id, the others): to take a loss on.

    One in six that are made so stands in the corpus, too, word for word; those are left out.
    """
    read = set(map(tuple, documents()))
    made = encode_corpus((text for _, text in build_corpus(characters, seed=1)), load_chat())
    return [(ids[:1], ids[1:]) for ids in made if tuple(ids) not in read]


def texts_of(demonstrations) -> list[tuple[str, str]]:
    """(prompt, response) of each, what `sft.train` takes."""
    return [(d.prompt.text, d.response) for d in demonstrations]


def encoded_pairs(demonstrations) -> list[tuple[list[int], list[int]]]:
    """(prompt ids, response ids) of each, in the course's template."""
    chat = load_chat()
    return [(chat.encode_prompt(x), chat.encode_response(y)) for x, y in texts_of(demonstrations)]


def fine_tuned(base: GPT, demonstrations, config: SFTConfig, **options) -> GPT:
    """A copy of `base`, fine-tuned. `options` go to `sft.train`: the `documents` to replay, or `on_step`."""
    model = with_template(base)
    stop_if_interrupted(sft.train(model, texts_of(demonstrations), config, **options))
    return model
