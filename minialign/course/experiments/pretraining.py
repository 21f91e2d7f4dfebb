"""Notebook 01: what stands around a prompt, in the corpus and in front of a model that nobody trains further.

All of it is live in the notebook; there is no table.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from minialign import pretraining
from minialign.chat import Batch
from minialign.documents import document_loss
from minialign.gpt import GPT
from minialign.pretraining import PretrainingConfig, shifted
from minialign.training import History
from minialign.world.demonstrations import Demonstrator, demonstrate
from minialign.world.frames import ASKED, REQUESTED
from minialign.world.judge import kind_of_reply
from minialign.world.phrases import POLITE
from minialign.world.prompts import FAMILIES, TEMPLATES, all_prompts, prompts_of, topic_sorts
from minialign.world.topics import load_topics

# --- a look inside ---


def inside(model: GPT, ids: torch.Tensor, layer: int) -> tuple[torch.Tensor, ...]:
    """What one layer's attention reads (T, C), and its queries, keys and values, (heads, T, d) each.

    ids (T,) is one text. `layer` counts from 0.
    """
    config = model.config
    with torch.no_grad():
        x = model.token_embedding(ids) + model.position_embedding(torch.arange(len(ids)))
        for block in model.blocks[:layer]:
            x = block(x[None])[0]
        block = model.blocks[layer]
        read = block.ln_1(x)
        q, k, v = block.attention.qkv(read).view(len(ids), 3, config.n_head, -1).permute(1, 2, 0, 3)
    return read, q, k, v


# --- what follows a prompt in the corpus ---

BEHIND = tuple(frame.removeprefix("{}") for frame in (*ASKED, *REQUESTED) if frame.startswith("{}"))
IN_FRONT = tuple(frame.removesuffix("{}") for frame in (*ASKED, *REQUESTED) if frame.endswith("{}"))
PLACES = ("alone", "words behind", "words in front")


def what_follows(texts: Iterable[str]) -> dict[str, dict[str, Counter]]:
    """What comes after the prompt with which a document begins: {place: {family: Counter of kinds}}.

    The prompt stands "alone" on its line, or with "words behind" or "words in front" of it; "words behind"
    count as a part of what follows. Bare questions are left out: no prompt that models are asked is one.
    """
    bare = {fact.ask for topic in load_topics() for fact in topic.facts}
    known = {p.text: p for p in all_prompts() if p.text not in bare}
    found = {place: {family: Counter() for family in FAMILIES} for place in PLACES}
    for text in texts:
        line, _, rest = text.partition("\n")
        remark = next((words for words in BEHIND if line.endswith(words)), "")
        before = next((words for words in IN_FRONT if line.startswith(words)), "")
        place = "words behind" if remark else "words in front" if before else "alone"
        if prompt := known.get(line.removeprefix(before).removesuffix(remark)):
            found[place][prompt.family][kind_of_reply(prompt, f"{remark}\n{rest}")] += 1
    return found


def behind_a_remark(reply: str) -> bool:
    """Does a reply begin with the words that stand behind a prompt, and before its answer, in the corpus?"""
    return any(reply.startswith(words.strip()) for words in BEHIND)


# --- answers without training ---

NOTHING = (
    "It rained all day.",
    "The library is closed today.",
    "See you tomorrow.",
    "Good morning.",
    "No idea, sorry.",
)
ANNOUNCED = {  # what words before a prompt say
    "its corpus's words for it": tuple(frame.format("").strip() for frame in REQUESTED[:3]),
    "the same in new words": (
        "You are a helpful assistant.",
        "My neighbour asked me this, and I replied:",
        "Here is an answer to this request:",
    ),
    "says nothing": NOTHING,
}
UNANSWERED = ("Exam. Answer all questions.", "Homework for Monday.", "Questions for the quiz night.", "jon:")
BEGUN = {  # what may stand where an answer begins
    "its corpus's words for it": POLITE.openers[:3],
    "the same in new words": ("Here is my answer.", "Let me tell you.", "I will gladly explain it."),
    "says nothing": NOTHING,
}
PLACED = {  # where words stand: before the prompt, after it, and which
    "on the line above": ("{}\n", "\n", ANNOUNCED),
    "in front, same line": ("{} ", "\n", ANNOUNCED | {"begins an exam or a forum": UNANSWERED}),
    "on the line below": ("", "\n{}", BEGUN),
}


def arms() -> Iterator[tuple[str, str, str, str]]:
    """(where, what it says, words before a prompt, words after it): the prompt alone, and with words around.

    In each place some words are the corpus's own where an answer follows, some are new and mean the same, and
    some say nothing about it.
    """
    yield "alone", "the prompt", "", "\n"
    for where, (before, after, sorts) in PLACED.items():
        for says, sentences in sorts.items():
            for words in sentences:
                yield where, says, before.format(words), after.format(words)


def shots(sort: str, draws: int = 6, n: int = 2) -> list[list[tuple[str, str]]]:
    """Several draws of n worked examples, (prompt, perfect answer): one-fact questions, in one wording.

    They are about topics of one sort: "sft", which the corpus knows, or "sft-only", which it does not.
    """
    wording = TEMPLATES["question"][1]
    asked = [
        p
        for p in prompts_of("sft", ("question",))
        if p.text == wording.format(ask=p.topic.facts[p.fact].ask) and topic_sorts()[p.topic.name] == sort
    ]
    order = np.random.default_rng(0).permutation(len(asked))[: draws * n]
    written = demonstrate([asked[i] for i in order], len(order), [Demonstrator()])
    pairs = [(d.prompt.text, d.response) for d in written]
    return [pairs[i : i + n] for i in range(0, len(pairs), n)]


# --- what goes wrong ---


def not_shifted(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The target of every place is its own token: copying is enough."""
    return ids[:, :-1], ids[:, :-1]


def wrong_way(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The target is the token before: the model has just read it."""
    return ids[:, 1:], ids[:, :-1]


def of_another(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets are another row's: what a text says does not help to predict them."""
    inputs, targets = shifted(ids)
    return inputs, targets.roll(1, 0)


SHIFTS: dict[str, Callable] = {
    "nothing is wrong": shifted,
    "targets not shifted": not_shifted,
    "shifted the wrong way": wrong_way,
    "targets of another document": of_another,
}


def watched(model: GPT, documents: Sequence, shift: str, later: Batch, config: PretrainingConfig) -> History:
    """Pre-train with one of SHIFTS: `loss` is what its author watches.

    `real` is the loss on the next tokens of documents that come later, at every tenth step.
    """

    def real(metrics: dict) -> None:
        if metrics["step"] % 10 == 0:
            with torch.no_grad():
                metrics["real"] = float(document_loss(model, later))

    return pretraining.train(model, documents, config, shift=SHIFTS[shift], on_step=real)
