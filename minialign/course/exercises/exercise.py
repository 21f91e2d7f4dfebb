"""What an exercise is: the engine's own solution, random inputs to check on, and known mistakes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Mistake:
    """A known wrong answer and what to tell the one who gives it."""

    diagnosis: str
    function: Callable


@dataclass(frozen=True)
class Exercise:
    """`inputs(generator)` draws random arguments for `solution` and for the reader's attempt."""

    solution: Callable
    inputs: Callable[[torch.Generator], tuple]
    mistakes: tuple[Mistake, ...]


def random_logits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (2, 6, 5) and token ids (2, 6)."""
    return torch.randn(2, 6, 5, generator=generator), torch.randint(5, (2, 6), generator=generator)
