"""Documents of the pre-training corpus: as token ids, in batches, and their loss.

Pre-training is made of them; fine-tuning (replay) and PPO (PPO-ptx) mix some in, so that what they teach is
not forgotten.
"""

from collections.abc import Callable, Iterable, Sequence

import torch

from minialign.chat import Batch, Chat, collate, require_fit
from minialign.faults import one_error
from minialign.gpt import GPT
from minialign.logprobs import token_log_probs
from minialign.masked import masked_mean
from minialign.training import epochs


def encode_corpus(documents: Iterable[str], chat: Chat) -> list[list[int]]:
    """Each document as token ids between two separators: that a text begins or is over is learned, too."""
    return [[*chat.encode_document(text), chat.separator] for text in documents]


def encoded(documents: Iterable[str | list[int]], model: GPT) -> list[list[int]]:
    """Documents, texts or token ids, as token ids that a model can read and learn from.

    Raises TypeError for what is neither, and ValueError, in one line for all of them, for documents that do
    not fit the context, or hold no token to predict from another.
    """
    if isinstance(documents, str):
        raise TypeError(f"the documents are one text, {documents[:40]!r}: give a list of texts")
    documents = [encode_corpus([d], model.chat)[0] if isinstance(d, str) else d for d in documents]
    for i, ids in enumerate(documents):
        if not isinstance(ids, list | tuple) or ids and isinstance(ids[0], str):
            raise TypeError(f"document {i} is {str(ids)[:60]!r}: give a text, or a list of token ids")
    require_fit((((), ids) for ids in documents), model.config.context, "document {}".format)
    short = [i for i, ids in enumerate(documents) if len(ids) < 2]
    if short:
        raise one_error([f"document {i} has fewer than 2 tokens: there is nothing to predict" for i in short])
    return documents


def batch_of(rows: Iterable[Sequence[int]], pad: int) -> Batch:
    """Encoded documents as a Batch: the response is what can be predicted, every token but the first."""
    return collate(((ids[:1], ids[1:]) for ids in rows), pad)


def batches_of(
    model: GPT, documents: Sequence[str | list[int]], batch_size: int, seed: int
) -> Callable[[int], Batch]:
    """`batch_at(step)`: the documents that update `step` learns from, a row each.

    An epoch reads every document once, in an order of its own, and beside others of similar length: no token
    is spent on guessing across the border of two documents. Raises ValueError for an empty corpus, and as
    `encoded` does.
    """
    rows = encoded(documents, model)
    rows_at = epochs([len(ids) for ids in rows], batch_size, seed)
    return lambda step: batch_of((rows[i] for i in rows_at(step)), model.chat.pad)


def document_loss(model: GPT, batch: Batch) -> torch.Tensor:
    """−(1/N) Σ_t log p_θ(x_t | x_<t) in nats, over the N real target tokens of a `batch_of` documents.

    It is the loss of pre-training. Padding is no target; and the head, the dearest layer, is paid for real
    ones only.
    """
    return -masked_mean(token_log_probs(model, batch), batch.response_mask)
