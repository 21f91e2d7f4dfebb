"""Preference pairs: a prompt, the response that was chosen and the one that was rejected; as JSON lines, and
as batches to learn from.

In a file, one object a line with the fields `prompt`, `chosen` and `rejected`, the format that TRL and most
public preference sets use. Your own file of this form goes through reward model and DPO like the course's.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from minialign.chat import Batch
from minialign.files import write_atomically
from minialign.gpt import GPT
from minialign.training import epochs

FIELDS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True)
class Preference:
    """y_w = `chosen` was preferred to y_l = `rejected` as a response to x = `prompt`."""

    prompt: str
    chosen: str
    rejected: str

    def __post_init__(self):
        if self.chosen == self.rejected:
            raise ValueError(
                f"chosen and rejected are the same text, {self.chosen[:60]!r}: there is nothing "
                "to learn from such a pair"
            )


def read_preferences(path: str | Path) -> list[Preference]:
    """The pairs of a JSON-lines file. Raises ValueError as `parse_preferences` does."""
    try:
        content = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from None
    return parse_preferences(content, path)


def parse_preferences(content: str, name: str | Path) -> list[Preference]:
    """The pairs of a JSON-lines text; fields other than the three are ignored, and so are empty lines.

    Raises ValueError, naming the line and the field, for what is not JSON, lacks a field, is no text, or has
    equal responses, and for a text without pairs. `name` is what the error calls it.
    """
    pairs = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            pairs.append(_parsed(line))
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: {error}") from None
    if not pairs:
        raise ValueError(
            f"{name} holds no preference pairs: give one JSON object a line, with {', '.join(FIELDS)}"
        )
    return pairs


def _parsed(line: str) -> Preference:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(record, dict):
        raise ValueError(f"this is no JSON object with the fields {', '.join(FIELDS)}")
    for field in FIELDS:
        if field not in record:
            raise ValueError(f"the field {field!r} is missing")
        if not isinstance(record[field], str):
            raise ValueError(f"the field {field!r} is no text but {json.dumps(record[field])[:60]}")
        if field == "prompt" and not record[field].strip():
            raise ValueError("the field 'prompt' is empty")
    return Preference(*(record[field] for field in FIELDS))


def write_preferences(path: str | Path, pairs: Iterable[Preference]) -> None:
    """Write pairs as JSON lines, atomically."""
    write_atomically(Path(path), dump_preferences(pairs))


def dump_preferences(pairs: Iterable[Preference]) -> bytes:
    return "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs).encode()


def as_preferences(pairs) -> list[Preference]:
    return list(pairs)


# --- batches ---


@dataclass(frozen=True)
class Comparisons:
    """M pairs in R rows: each different response once, as (prompt, response) in `texts` and as tokens in
    `batch`; pairs point to rows, (M,) each.
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
        return Comparisons(
            self.texts, self.batch.to(device), self.chosen.to(device), self.rejected.to(device)
        )


def compare(pairs: Sequence[Preference], model: GPT) -> Comparisons:
    """Encode pairs, in the model's template, for one forward pass over every response that occurs in them."""
    rows: dict[tuple[str, str], int] = {}
    for pair in pairs:
        for response in (pair.chosen, pair.rejected):
            rows.setdefault((pair.prompt, response), len(rows))
    indices = (
        [rows[pair.prompt, getattr(pair, which)] for pair in pairs] for which in ("chosen", "rejected")
    )
    return Comparisons(
        tuple(rows), model.chat.collate(rows, model.config.context), *map(torch.tensor, indices)
    )


def batches_of_comparisons(
    pairs: Sequence[Preference], prompts_per_step: int, seed: int, model: GPT
) -> Callable[[int], Comparisons]:
    """`comparisons_at(step)`: what update `step` learns from, epoch after epoch: all pairs of some prompts.

    Pairs of a prompt share responses, which are read once; and spread over several batches they are learned
    by heart (Ouyang et al. 2022, §3.5). Raises ValueError when there are no pairs.
    """
    groups: dict[str, list[Preference]] = {}
    for pair in pairs:
        groups.setdefault(pair.prompt, []).append(pair)
    prompts = list(groups)
    prompts_at = epochs([1] * len(prompts), prompts_per_step, seed)
    return lambda step: compare([pair for i in prompts_at(step) for pair in groups[prompts[i]]], model)
