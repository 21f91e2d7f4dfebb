"""Text to tokens and back: tokenizer, chat template, and which tokens of a batch are the response.

How text becomes tokens is a property of a model, so it is carried with it, as `model.chat`: every algorithm
reaches it there. The course's own template is <|user|> prompt <|assistant|> response <|end|>. A base model
knows no template: its text just starts after <|endoftext|>. Text is always encoded as plain text, so a
"<|end|>" typed by a user is seven characters, not a command.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from minialign.faults import one_error, require_text
from minialign.tokenizer import ASSISTANT, END, END_OF_TEXT, PAD, USER, load_tokenizer

# A run of a million makes tiktoken's regular expression panic, with an error that `except Exception` misses.
MOST_WHITE_SPACE = 900_000


class Tokenizer(Protocol):
    """What a model's tokenizer must be able to do; a tiktoken.Encoding is one."""

    def encode_ordinary(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Chat:
    """How a model reads and writes: its tokenizer, and the ids that make texts conversations or documents.

    | field     | meaning                                                                             |
    |-----------|-------------------------------------------------------------------------------------|
    | tokenizer | text to token ids and back                                                          |
    | user      | the ids before a prompt                                                             |
    | assistant | the ids between a prompt and its response                                           |
    | end       | the id that ends a response: a token like any other, it has to be learned           |
    | separator | the id that begins a document, and ends it: all the template that a base model knows |
    | pad       | the id that fills up a batch: it is never drawn and never attended to                |

    Raises ValueError when `pad` also ends responses: a model that is never shown an end never stops.
    """

    tokenizer: Tokenizer
    user: tuple[int, ...]
    assistant: tuple[int, ...]
    end: int
    separator: int
    pad: int

    def __post_init__(self):
        if self.pad == self.end:
            raise ValueError(
                f"the token {self.pad} is both padding and the end of a response: padding is masked out, "
                "so the model would never learn to stop; choose another id for one of them"
            )

    def __deepcopy__(self, memo) -> "Chat":
        return self  # nothing in it ever changes: a copy of a model reads and writes as the model does

    def encode(self, text: str) -> list[int]:
        """Plain text as token ids: no special token comes of it, whatever it says.

        Raises ValueError for what is no text, for half a character, and for nearly a million blanks in a row.
        """
        require_text(text, "the input")
        if len(text) > MOST_WHITE_SPACE:
            longest = max(map(len, re.findall(r"\s+", text)), default=0)
            if longest > MOST_WHITE_SPACE:
                raise ValueError(f"the input has {longest:,} blanks or line breaks in a row: shorten it")
        return self.tokenizer.encode_ordinary(text)

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids)

    def encode_document(self, text: str) -> list[int]:
        """A text as the base model sees it: the separator and the text."""
        return [self.separator, *self.encode(text)]

    def encode_prompt(self, prompt: str) -> list[int]:
        """What an assistant sees before it answers: the prompt in the template."""
        return [*self.user, *self.encode(prompt), *self.assistant]

    def encode_response(self, response: str, end: bool = True) -> list[int]:
        """The response and the token that ends it."""
        return [*self.encode(response), *([self.end] if end else [])]

    def collate(self, pairs: Iterable[tuple[str, str]], context: int | None = None) -> "Batch":
        """Pad (prompt text, response text) pairs, written in the template, into a Batch."""
        encoded = ((self.encode_prompt(prompt), self.encode_response(response)) for prompt, response in pairs)
        return collate(encoded, self.pad, context)


def load_chat() -> Chat:
    """The course's own: its template, on the tokenizer in data/tokenizer."""
    tokenizer = load_tokenizer()
    special = USER, ASSISTANT, END, END_OF_TEXT, PAD
    user, assistant, end, separator, pad = map(tokenizer.encode_single_token, special)
    return Chat(tokenizer, (user,), (assistant,), end, separator, pad)


@dataclass(frozen=True)
class Batch:
    """Token sequences of different lengths in one rectangle.

    | field         | shape  | meaning                                                        |
    |---------------|--------|----------------------------------------------------------------|
    | ids           | (B, T) | token ids; the padding holds the model's pad token             |
    | mask          | (B, T) | True on real tokens                                            |
    | response_mask | (B, T) | True on the tokens of the response, its end token included     |
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
        """Places in a (B, T) tensor that together hold all rows, or `rows`: `size` of similar length each.

        A place is an index, as wide as its longest row. The padding must be on the right.
        """
        lengths = self.mask.sum(-1)
        rows = torch.arange(len(self)) if rows is None else rows
        rows = rows.to(lengths.device)
        by_length = rows[lengths[rows].argsort(stable=True)]
        return [(part, slice(int(lengths[part].max()))) for part in by_length.split(size)]

    def by_parts(self, function: Callable[["Batch"], torch.Tensor], size: int = 16) -> torch.Tensor:
        """`function(batch)`, one number a row, (B,), part by part: half of a ragged batch is padding."""
        parts = [(rows, function(self[rows, columns])) for rows, columns in self.parts(size)]
        rows, values = (torch.cat(pieces) for pieces in zip(*parts))
        return values[rows.argsort()]

    def to(self, device) -> "Batch":
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def collate(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]], pad: int, context: int | None = None
) -> Batch:
    """Pad (prompt ids, response ids) pairs on the right, with the id `pad`, into a Batch.

    Raises ValueError for no pairs, for a pair without any response token, and as `require_fit` does for one
    longer than `context`.
    """
    pairs = list(pairs)
    if not pairs:
        raise ValueError("the batch is empty: give at least one (prompt, response) pair")
    if context is not None:
        require_fit(pairs, context)
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids = torch.full((len(pairs), width), pad)
    mask, response_mask = torch.zeros(2, len(pairs), width, dtype=torch.bool)
    for row, (prompt, response) in enumerate(pairs):
        if not response:
            raise ValueError(
                f"pair {row} of the batch has no response token: there is nothing to learn from it"
            )
        end = len(prompt) + len(response)
        ids[row, :end] = torch.tensor([*prompt, *response])
        mask[row, :end] = True
        response_mask[row, len(prompt) : end] = True
    return Batch(ids, mask, response_mask)


def require_fit(
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    context: int,
    name: Callable[[int], str] = "pair {}".format,
) -> None:
    """Raise ValueError when (prompt ids, response ids) pairs are longer than `context`.

    It is one error for all of them, which calls the i-th `name(i)`. A document is a pair without a prompt.
    """

    def fault(i, x, y) -> str:
        has = f"{name(i)} has {len(x) + len(y)} tokens"
        limit = f"the model's context holds {context}: shorten"
        if not x:
            return f"{has}, {limit} it"
        return f"{has} ({len(x)} of the prompt, {len(y)} of the response), {limit} the prompt or the response"

    faults = [fault(i, x, y) for i, (x, y) in enumerate(pairs) if len(x) + len(y) > context]
    if faults:
        raise one_error(faults)
