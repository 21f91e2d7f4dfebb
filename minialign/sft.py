"""Instruction fine-tuning, also called supervised fine-tuning (SFT): imitate the demonstrated responses.

L(θ) = −(1/N) Σ_t log π_θ(y_t | x, y_<t), over the N tokens of the responses only. (Ouyang et al. 2022, §3.5.)
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from minialign.chat import Batch, collate, require_fit
from minialign.config import Count, Momentum, Natural, NonNegative, Positive
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


def train(model: GPT | LanguageModel, demonstrations, config: SFTConfig = SFTConfig(), **options) -> History:
    """Fine-tune `model` in place on (prompt, response) texts. `options` go to `training.fit`.

    Raises ValueError for an empty data set and for a pair that does not fit the context.
    """
    if isinstance(model, LanguageModel):
        model.template = True  # from now on it is asked as an assistant
    model = network_of(model)
    texts = as_texts(demonstrations)
    pairs = [(model.chat.encode_prompt(x), model.chat.encode_response(y)) for x, y in texts]
    require_fit(pairs, model.config.context, lambda i: f"demonstration {i} ({texts[i][0][:40]!r})")
    return train_on_tokens(model, pairs, config, **options)


def train_on_tokens(
    model: GPT, pairs, config: SFTConfig = SFTConfig(), *, loss=sft_loss, **options
) -> History:
    """`train` for (prompt ids, response ids): with another template, or another loss of that signature."""
    model, pairs = network_of(model), list(pairs)
    lengths = [len(prompt) + len(response) for prompt, response in pairs]
    rows_at = epochs(lengths, config.batch_size, config.seed)
    # A pair that is empty or too long is found now, not in the middle of the run.
    collate(pairs, model.chat.pad, model.config.context)

    def batch_at(step: int) -> list[Batch]:
        return [collate((pairs[i] for i in rows_at(step)), model.chat.pad)]

    def loss_fn(batch: Batch):
        return loss(model(batch.ids, batch.mask), batch.ids, batch.response_mask), {}

    return fit(model, batch_at, loss_fn, config, title="fine-tuning", **options)
