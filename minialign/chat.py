"""From text to token batches: the chat template, and which tokens of a batch are the response.

The template is <|user|> prompt <|assistant|> response <|end|>. A base model knows no template: its text just starts after
<|endoftext|>. Text is always encoded as plain text, so a "<|end|>" typed by a user is seven characters, not a command.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from minialign.tokenizer import ASSISTANT, END, END_OF_TEXT, PAD, USER, load_tokenizer


def special(token: str) -> int:
    """The id of a special token, for instance special(END)."""
    return load_tokenizer().encode_single_token(token)


def encode_document(text: str) -> list[int]:
    """A text as the base model sees it: <|endoftext|> and the text."""
    return [special(END_OF_TEXT), *load_tokenizer().encode_ordinary(text)]


def encode_prompt(prompt: str) -> list[int]:
    """<|user|> prompt <|assistant|>: what an assistant sees before it answers."""
    return [special(USER), *load_tokenizer().encode_ordinary(prompt), special(ASSISTANT)]


def encode_response(response: str, end: bool = True) -> list[int]:
    """The response and its <|end|>. The end token is a token like any other: it has to be learned."""
    return [*load_tokenizer().encode_ordinary(response), *([special(END)] if end else [])]


@dataclass(frozen=True)
class Batch:
    """Token sequences of different lengths in one rectangle.

    | field         | shape  | meaning                                                        |
    |---------------|--------|----------------------------------------------------------------|
    | ids           | (B, T) | token ids; the padding holds <|pad|>                           |
    | mask          | (B, T) | True on real tokens                                            |
    | response_mask | (B, T) | True on the tokens of the response, its <|end|> included       |
    """

    ids: torch.Tensor
    mask: torch.Tensor
    response_mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows) -> "Batch":
        """Some of the rows: a list or tensor of indices, a slice, or one of `parts`."""
        return replace(self, **{name: tensor[rows] for name, tensor in vars(self).items()})

    def parts(self, size: int, rows: torch.Tensor | None = None) -> list[tuple[torch.Tensor, slice]]:
        """Places to index a (B, T) tensor with that together hold all rows, or `rows`: `size` of similar length each, as narrow as the longest.

        The padding must be on the right.
        """
        lengths = self.mask.sum(-1)
        rows = torch.arange(len(self)) if rows is None else rows
        rows = rows.to(lengths.device)
        return [(part, slice(int(lengths[part].max()))) for part in rows[lengths[rows].argsort(stable=True)].split(size)]

    def by_parts(self, function: Callable[["Batch"], torch.Tensor], size: int = 16) -> torch.Tensor:
        """`function(batch)`, which gives one number for each row, (B,), read part by part: of a whole ragged batch, half is padding."""
        parts = [(rows, function(self[rows, columns])) for rows, columns in self.parts(size)]
        rows, values = (torch.cat(pieces) for pieces in zip(*parts))
        return values[rows.argsort()]

    def to(self, device) -> "Batch":
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def collate(pairs, context: int | None = None) -> Batch:
    """Pad (prompt ids, response ids) pairs on the right into a Batch.

    Raises ValueError for no pairs, for a pair without any response token, and for a pair longer than `context`.
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("the batch is empty: give at least one (prompt, response) pair")
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    if context is not None and width > context:
        raise ValueError(f"a pair has {width} tokens, the model's context holds {context}: shorten the prompt or the response")
    ids = torch.full((len(pairs), width), special(PAD))
    mask, response_mask = torch.zeros(2, len(pairs), width, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        if not response:
            raise ValueError(f"pair {row} of the batch has no response token: there is nothing to learn from it")
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        mask[row, :end] = True
        response_mask[row, len(prompt) : end] = True
    return Batch(ids, mask, response_mask)


def collate_chat(pairs, context: int | None = None) -> Batch:
    """Pad (prompt text, response text) pairs, written in the chat template, into a Batch."""
    return collate(((encode_prompt(prompt), encode_response(response)) for prompt, response in pairs), context)
