"""Pre-training: learn to predict the next token of everything.

L(θ) = −(1/N) Σ_t log p_θ(x_t | x_<t), over all N tokens of the corpus. (Radford et al. 2018, Eq. 1, as a mean.)
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from minialign.chat import Batch, encode_document
from minialign.gpt import GPT
from minialign.training import History, TrainingConfig, fit


@dataclass(frozen=True)
class PretrainingConfig(TrainingConfig):
    steps: int = 3500
    learning_rate: float = 2.5e-3
    warmup: int = 200
    final_lr: float = 0.02
    batch_size: int = 16  # windows in a batch
    window: int = 128  # tokens in a window


def pretraining_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of logits (B, T, V) for targets (B, T): the input ids moved up by one place."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def shifted(ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T) of ids (B, T + 1): at every place the target is the token that comes next."""
    return ids[:, :-1], ids[:, 1:]


def encode_corpus(documents) -> np.ndarray:
    """All documents as one stream of token ids, (N,), each after an <|endoftext|>."""
    return np.fromiter((token for text in documents for token in encode_document(text)), dtype=np.int64)


def train(model: GPT, stream: np.ndarray, config: PretrainingConfig = PretrainingConfig(), *, shift=shifted, **options) -> History:
    """Pre-train `model` in place on a token stream (N,), one epoch after another in a new order of windows.

    `shift` makes inputs and targets; `options` go to `training.fit`. Raises ValueError when the stream is shorter than one batch.
    """
    per_epoch = (len(stream) - 1) // config.window // config.batch_size
    if per_epoch < 1:
        raise ValueError(f"the corpus has {len(stream)} tokens, one batch needs {config.batch_size * config.window + 1}")
    spare = len(stream) - 1 - per_epoch * config.batch_size * config.window  # tokens that an epoch leaves out

    def batch_at(step: int) -> list[Batch]:
        epoch, index = divmod(step, per_epoch)
        rng = np.random.default_rng([config.seed, epoch])
        offset = rng.integers(min(config.window, spare + 1))  # other window borders in every epoch
        starts = rng.permutation((len(stream) - 1 - offset) // config.window)
        starts = offset + config.window * starts[index * config.batch_size : (index + 1) * config.batch_size]
        ids = torch.from_numpy(np.stack([stream[s : s + config.window + 1] for s in starts]))
        everything = torch.ones_like(ids, dtype=torch.bool)
        return [Batch(ids, everything, everything)]

    def loss_fn(batch: Batch):
        inputs, targets = shift(batch.ids)
        return pretraining_loss(model(inputs), targets), {}

    return fit(model, batch_at, loss_fn, config, title="pre-training", **options)
