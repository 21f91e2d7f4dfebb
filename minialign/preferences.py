"""Preference pairs, a prompt with a chosen and a rejected response: as files, and as batches to learn from.

In a file, one JSON object a line with the fields `prompt`, `chosen` and `rejected`, the format that TRL and
most public preference sets use; `read_preferences` takes some others, too. Your own file goes through reward
model and DPO like the course's.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from minialign.chat import Batch, collate, require_fit
from minialign.faults import one_error, require_text
from minialign.files import write_atomically
from minialign.gpt import GPT
from minialign.preference_formats import FIELDS, three_texts
from minialign.records import read_text, records
from minialign.training import epochs


@dataclass(frozen=True)
class Preference:
    """y_w = `chosen` was preferred to y_l = `rejected` as a response to x = `prompt`."""

    prompt: str
    chosen: str
    rejected: str

    def __post_init__(self):
        for field in FIELDS:
            require_text(getattr(self, field), f"the field {field!r}")
        if self.chosen == self.rejected:
            raise ValueError(
                f"chosen and rejected are the same text, {self.chosen[:60]!r}: "
                "there is nothing to learn from such a pair"
            )


def as_preferences(pairs: Iterable) -> list[Preference]:
    """Pairs as a list of Preference.

    Each is given as one, as a record of a file, or as (prompt, chosen, rejected) texts. Raises ValueError,
    naming the pairs by their index, for what is none of these.
    """
    if isinstance(pairs, str | Mapping) or not isinstance(pairs, Iterable):
        raise ValueError(
            f"{pairs!r:.60} is no list of preference pairs: give one, or read a file with read_preferences"
        )
    found, faults = [], []
    for i, pair in enumerate(pairs):
        try:
            if not isinstance(pair, Preference):
                listed = isinstance(pair, tuple | list | np.ndarray) and len(pair) == len(FIELDS)
                pair = Preference(*(pair if listed else three_texts(pair)))
            found.append(pair)
        except ValueError as error:
            faults.append(f"pair {i}: {error}")
    if faults:
        raise one_error(faults)
    return found


# --- files ---


def read_preferences(path: str | Path) -> list[Preference]:
    """The pairs of a file: JSON lines, a JSON array, or a table (CSV, TSV) with a header; plain or gzipped.

    Raises ValueError as `parse_preferences` does, and for a file that is no UTF-8 text.
    """
    return parse_preferences(read_text(path), path)


def parse_preferences(content: str, name: str | Path) -> list[Preference]:
    """The pairs of a file's text; fields other than the three are ignored, and so are empty lines.

    Raises ValueError, naming line and field, for what is not JSON, lacks a field, is no text, has equal
    responses, or is a conversation of several turns: one error for all; and for a text without pairs. `name`
    is what the error calls it. Which forms a record may have: see `preference_formats`.
    """
    pairs, lines, faults = [], [], []
    for line, record in records(content, FIELDS, faults):
        try:
            pairs.append(Preference(*three_texts(record)))
            lines.append(line)
        except ValueError as error:
            faults.append(f"line {line}: {error}")
    repeats = [i for i, pair in enumerate(pairs) if _repeats_prompt(pair)]
    # One answer may well begin with its question, and so may both of a pair: but not those of most pairs.
    if 2 * len(repeats) > len(pairs):
        faults.append(
            f"line {lines[repeats[0]]}: the prompt stands at the head of both chosen and rejected, as in "
            f"{len(repeats)} of {len(pairs)} pairs: leave the responses only"
        )
    if faults:
        raise one_error([f"{name}, {fault}" for fault in faults])
    if not pairs:
        raise ValueError(
            f"{name} holds no preference pairs: give one JSON object a line, with {', '.join(FIELDS)}"
        )
    return pairs


def _repeats_prompt(pair: Preference) -> bool:
    return all(text.startswith(pair.prompt.rstrip()) for text in (pair.chosen, pair.rejected))


def write_preferences(path: str | Path, pairs: Iterable[Preference]) -> None:
    """Write pairs as JSON lines, atomically."""
    write_atomically(path, dump_preferences(pairs))


def dump_preferences(pairs: Iterable[Preference]) -> bytes:
    lines = (json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in as_preferences(pairs))
    return "".join(lines).encode()


# --- batches ---


@dataclass(frozen=True)
class Comparisons:
    """M pairs in R rows: every different response once, and for each pair the two rows it points to.

    The responses are (prompt, response) in `texts` and tokens in `batch`; `chosen`, `rejected` (M,) are rows.
    """

    texts: tuple[tuple[str, str], ...]
    batch: Batch
    chosen: torch.Tensor
    rejected: torch.Tensor

    @property
    def weight(self) -> int:
        """Pairs: what the mean losses are means over."""
        return len(self.chosen)

    def to(self, device) -> "Comparisons":
        moved = (part.to(device) for part in (self.batch, self.chosen, self.rejected))
        return Comparisons(self.texts, *moved)


def encode_responses(
    pairs: Sequence[Preference], model: GPT
) -> dict[tuple[str, str], tuple[list[int], list[int]]]:
    """(prompt ids, response ids) of every different response in the pairs, by (prompt, response).

    Raises ValueError, naming the pairs, for what does not fit the model's context.
    """
    names: dict[tuple[str, str], str] = {}
    for i, pair in enumerate(pairs):
        for which in ("chosen", "rejected"):
            name = f"pair {i} ({pair.prompt[:40]!r}) with its {which} response"
            names.setdefault((pair.prompt, getattr(pair, which)), name)
    encoded = {}
    for (prompt, response), name in names.items():
        try:
            ids = model.chat.encode_prompt(prompt), model.chat.encode_response(response)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        encoded[prompt, response] = ids
    require_fit(encoded.values(), model.config.context, list(names.values()).__getitem__)
    return encoded


def compare(pairs: Sequence[Preference], model: GPT, encoded: dict | None = None) -> Comparisons:
    """Encode pairs, in the model's template, for one forward pass over every response that occurs in them.

    `encoded`, if known, is what `encode_responses` gave for these pairs and perhaps others. Raises ValueError
    as it does, and as `as_preferences` does.
    """
    pairs = as_preferences(pairs)
    encoded = encode_responses(pairs, model) if encoded is None else encoded
    rows: dict[tuple[str, str], int] = {}
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            rows.setdefault((pair.prompt, response), len(rows))
    indices = ([rows[pair.prompt, getattr(pair, side)] for pair in pairs] for side in ("chosen", "rejected"))
    batch = collate((encoded[text] for text in rows), model.chat.pad)
    return Comparisons(tuple(rows), batch, *map(torch.tensor, indices))


def batches_of_comparisons(
    pairs: Sequence[Preference], prompts_per_step: int, seed: int, model: GPT
) -> Callable[[int], Comparisons]:
    """`comparisons_at(step)`: what update `step` learns from, epoch after epoch: all pairs of some prompts.

    Pairs of a prompt share responses, which are read once; and spread over several batches they are learned
    by heart (Ouyang et al. 2022, §3.5). Raises ValueError when there are no pairs, and as `compare`
    does: now, not in the middle of a run.
    """
    pairs = as_preferences(pairs)
    encoded = encode_responses(pairs, model)
    groups: dict[str, list[Preference]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt, []).append(pair)
    prompts = list(groups)
    prompts_at = epochs([1] * len(prompts), prompts_per_step, seed)

    def comparisons_at(step: int) -> Comparisons:
        return compare([pair for i in prompts_at(step) for pair in groups[prompts[i]]], model, encoded)

    return comparisons_at
