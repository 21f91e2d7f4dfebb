"""Pre-training: learn to predict the next token of everything.

L(θ) = −(1/N) Σ_t log p_θ(x_t | x_<t), over all N tokens of the corpus.
(Radford et al. 2018, Eq. 1, as a mean.)
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from minialign.chat import Batch, Chat, collate, require_fit
from minialign.config import Count, Momentum, Natural, NonNegative, Positive
from minialign.gpt import GPT, network_of
from minialign.logprobs import full_precision
from minialign.training import History, TrainingConfig, epochs, fit


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    steps: Count = 4200
    learning_rate: Positive = 6e-3
    warmup: Natural = 100
    final_lr: NonNegative = 0.01
    batch_size: Count = 24  # documents in a batch
    muon: bool = True
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)
    weight_decay: NonNegative = 0.01


def pretraining_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of logits (..., V) for targets (...): the input ids moved up by one."""
    return F.cross_entropy(full_precision(logits.flatten(0, -2)), targets.flatten())


def shifted(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T) of ids (B, T + 1): at every place the target is the token that comes next."""
    return ids[:, :-1], ids[:, 1:]


def encode_corpus(documents: Iterable[str], chat: Chat) -> list[list[int]]:
    """Each document as token ids between two separators: that a text begins or is over is learned, too."""
    return [[*chat.encode_document(text), chat.separator] for text in documents]


def train(
    model: GPT,
    documents: Sequence[str | list[int]],
    config: PretrainingConfig = PretrainingConfig(),
    *,
    shift=shifted,
    **options,
) -> History:
    """Pre-train `model` in place on documents, texts or encoded, one epoch after another in a new order.

    Every document is a row of its own, beside others of similar length, so that no token is spent on guessing
    across the border of two documents. `shift` makes inputs and targets; `options` go to `training.fit`.
    Raises ValueError for an empty corpus, and for documents that do not fit the context.
    """
    model = network_of(model)
    documents = [encode_corpus([d], model.chat)[0] if isinstance(d, str) else d for d in documents]
    require_fit((((), ids) for ids in documents), model.config.context, "document {}".format)
    rows_at = epochs([len(ids) for ids in documents], config.batch_size, config.seed)

    def batch_at(step: int) -> list[Batch]:
        rows = (documents[i] for i in rows_at(step))
        return [collate(((ids[:1], ids[1:]) for ids in rows), model.chat.pad)]

    def loss_fn(batch: Batch):
        inputs, targets = shift(batch.ids)
        # Padding is no target; and the head, the dearest layer, is paid for real ones only.
        real = batch.mask[:, 1:]
        logits = model.head(model.hidden(inputs)[real])
        return pretraining_loss(logits, targets[real]), {}

    return fit(model, batch_at, loss_fn, config, title="pre-training", **options)
