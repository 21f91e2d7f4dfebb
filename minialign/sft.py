"""Instruction fine-tuning, also called supervised fine-tuning (SFT): imitate the demonstrated responses.

L(θ) = −(1/N) Σ_t log π_θ(y_t | x, y_<t), over the N tokens of the responses only. (Ouyang et al. 2022, §3.5.)

With replay, the loss of pre-training on documents of its corpus is added, so that what they taught is not
forgotten (Ibrahim et al. 2024).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from minialign.chat import Batch, collate, require_fit
from minialign.config import Count, Momentum, Natural, NonNegative, Positive
from minialign.documents import batches_of, document_loss
from minialign.gpt import GPT, network_of
from minialign.language_model import LanguageModel
from minialign.logprobs import full_precision
from minialign.training import History, TrainingConfig, epochs, fit


@dataclass(frozen=True)
class SFTConfig(TrainingConfig):
    steps: Count = 650
    learning_rate: Positive = 1.5e-4  # low: a higher one learns the demonstrations by heart
    warmup: Natural = 20
    weight_decay: NonNegative = 0.01
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)
    batch_size: Count = 16
    replay_coef: NonNegative = 0.0  # weight of the pre-training loss, nats a token
    replay_batch_size: Count = 16  # documents in a batch


def sft_loss(logits: torch.Tensor, ids: torch.Tensor, response_mask: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats over the response tokens.

    logits (B, T, V), ids (B, T), response_mask (B, T): logits[:, t] predicts ids[:, t + 1], so the mask is
    shifted with the ids. Raises ValueError when no token is marked as response.
    """
    labels, mask = ids[:, 1:], response_mask[:, 1:]
    if not bool(mask.any()):
        raise ValueError("the batch has no response token: check the response mask")
    return F.cross_entropy(full_precision(logits[:, :-1][mask]), labels[mask])


def introduce_template(model: GPT) -> None:
    """Let the template's tokens of a base model start, in place, near tokens that it knows.

    No document holds them, so all that the model has learned of them is never to write them. A conversation
    starts like a document, the response stands on a new line, and its end is the end of a document. <|user|>
    and <|assistant|> keep a share of <|pad|>, a token that is never written either: the embeddings are the
    output layer too, and a full copy would be written as readily as the original.
    """
    chat, weight = model.chat, model.token_embedding.weight
    (line_break,) = chat.encode("\n")
    with torch.no_grad():
        for tokens, known, share in (
            (chat.user, chat.separator, 0.5),
            (chat.assistant, line_break, 0.75),
            ((chat.end,), chat.separator, 1.0),
        ):
            weight[list(tokens)] = share * weight[known] + (1 - share) * weight[chat.pad]


def as_texts(demonstrations) -> list[tuple[str, str]]:
    """(prompt, response) texts, from pairs of texts or from dicts with a prompt and a response or completion.

    Raises TypeError, naming the demonstration, for anything else.
    """
    texts = []
    for i, given in enumerate(demonstrations):
        if isinstance(given, dict):
            text = given.get("prompt"), given.get("response", given.get("completion"))
        else:
            text = tuple(given) if isinstance(given, tuple | list) else ()
        if len(text) != 2 or not all(isinstance(part, str) for part in text):
            raise TypeError(
                f"demonstration {i} is {str(given)[:60]!r}: give (prompt, response) texts, or a dict of both"
            )
        texts.append(text)
    return texts


@dataclass(frozen=True)
class Mix:
    """What an update learns from: demonstrations, and with replay also documents."""

    batch: Batch
    documents: Batch | None = None

    @property
    def weight(self) -> int:
        """Response tokens: what `sft_loss` is a mean over."""
        return int(self.batch.response_mask.sum())

    def to(self, device) -> "Mix":
        return Mix(self.batch.to(device), self.documents and self.documents.to(device))


def train(
    model: GPT | LanguageModel,
    demonstrations,
    config: SFTConfig = SFTConfig(),
    *,
    documents: Sequence[str | list[int]] = (),
    **options,
) -> History:
    """Fine-tune `model` in place on (prompt, response) texts. `options` go to `training.fit`.

    With replay, `documents` of the pre-training corpus, texts or encoded, are learned beside them: the loss
    is sft_loss + config.replay_coef · document_loss, of a batch of each. Raises ValueError for an empty data
    set, for a pair or a document that does not fit the context, for a replay_coef without documents, and for
    documents without one.
    """
    if isinstance(model, LanguageModel):
        model.template = True  # from now on it is asked as an assistant
    model = network_of(model)
    texts = as_texts(demonstrations)
    pairs = [(model.chat.encode_prompt(x), model.chat.encode_response(y)) for x, y in texts]
    require_fit(pairs, model.config.context, lambda i: f"demonstration {i} ({texts[i][0][:40]!r})")
    return train_on_tokens(model, pairs, config, documents=documents, **options)


def train_on_tokens(
    model: GPT,
    pairs,
    config: SFTConfig = SFTConfig(),
    *,
    loss=sft_loss,
    documents: Sequence[str | list[int]] = (),
    **options,
) -> History:
    """`train` for (prompt ids, response ids): with another template, or another loss of that signature."""
    model, pairs = network_of(model), list(pairs)
    if config.replay_coef and not len(documents):
        raise ValueError(f"replay_coef is {config.replay_coef}: give the pre-training documents to replay")
    if len(documents) and not config.replay_coef:
        raise ValueError(
            "documents are given, but replay_coef is 0: set what they count, SFTConfig(replay_coef=1.0), "
            "or leave them out"
        )
    lengths = [len(prompt) + len(response) for prompt, response in pairs]
    rows_at = epochs(lengths, config.batch_size, config.seed)
    # A pair that is empty or too long is found now, not in the middle of the run.
    collate(pairs, model.chat.pad, model.config.context)
    replay = (documents, config.replay_batch_size, config.seed)
    replay_at = batches_of(model, *replay) if config.replay_coef else lambda step: None

    def batch_at(step: int) -> list[Mix]:
        return [Mix(collate((pairs[i] for i in rows_at(step)), model.chat.pad), replay_at(step))]

    def loss_fn(mix: Mix):
        batch = mix.batch
        sft = loss(model(batch.ids, batch.mask), batch.ids, batch.response_mask)
        if mix.documents is None:
            return sft, {}
        replay = document_loss(model, mix.documents)
        metrics = {"loss/sft": sft.detach(), "loss/replay": replay.detach()}
        return sft + config.replay_coef * replay, metrics

    return fit(model, batch_at, loss_fn, config, title="fine-tuning", **options)
