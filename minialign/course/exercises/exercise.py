"""What an exercise is: the engine's own solution, random inputs to check on, and known mistakes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F


class Mistake:
    """A known wrong answer, in the ways in which people write it, and what to tell the one who gives it."""

    def __init__(self, diagnosis: str, *functions: Callable):
        self.diagnosis, self.functions = diagnosis, functions


@dataclass(frozen=True)
class Exercise:
    """`inputs(generator)` draws random arguments for `solution` and for the reader's attempt.

    A mistake is recognised by what it returns; one of the `errors` raises, and is recognised by what it says.
    """

    solution: Callable
    inputs: Callable[[torch.Generator], tuple]
    mistakes: tuple[Mistake, ...]
    errors: tuple[Mistake, ...] = ()


def random_logits(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (2, 6, 7) and token ids (2, 6): no two axes are of one length, even one token shorter.

    The logits require gradients: with a loss that is cut off from them, nothing could be trained.
    """
    logits = torch.randn(2, 6, 7, generator=generator).requires_grad_()
    return logits, torch.randint(7, (2, 6), generator=generator)


# What people add to keep a logarithm or a quotient finite.
EPSILONS = (1e-12, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)


def logs_kept_finite() -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Logarithms that stay finite at 0 by force.

    They are cut off at −100, as in binary_cross_entropy; or a small number is added, or put in the place of
    what is less.
    """
    yield lambda p: -F.binary_cross_entropy(p, torch.ones_like(p), reduction="none")
    for epsilon in EPSILONS:
        yield lambda p, epsilon=epsilon: torch.log(p + epsilon)
        yield lambda p, epsilon=epsilon: torch.log(p.clamp(min=epsilon))
