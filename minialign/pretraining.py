"""Pre-training: learn to predict the next token of everything.

L(θ) = −(1/N) Σ_t log p_θ(x_t | x_<t), over all N tokens of the corpus.
(Radford et al. 2018, Eq. 1, as a mean.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from minialign.chat import Batch
from minialign.config import Count, Momentum, Natural, NonNegative, Positive
from minialign.documents import batches_of
from minialign.gpt import GPT, network_of
from minialign.logprobs import full_precision
from minialign.training import History, TrainingConfig, fit


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    steps: Count = 8000
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


def train(
    model: GPT,
    documents: Sequence[str | list[int]],
    config: PretrainingConfig = PretrainingConfig(),
    *,
    shift=shifted,
    **options,
) -> History:
    """Pre-train `model` in place on documents, texts or encoded, one epoch after another in a new order.

    `shift` makes inputs and targets; `options` go to `training.fit`. Raises ValueError for an empty corpus,
    and for documents that do not fit the context.
    """
    model = network_of(model)
    batch_at = batches_of(model, documents, config.batch_size, config.seed)

    def loss_fn(batch: Batch):
        inputs, targets = shift(batch.ids)
        # Padding is no target; and the head, the dearest layer, is paid for real ones only.
        real = batch.mask[:, 1:]
        logits = model.head(model.hidden(inputs)[real])
        return pretraining_loss(logits, targets[real]), {}

    return fit(model, lambda step: [batch_at(step)], loss_fn, config, title="pre-training", **options)
