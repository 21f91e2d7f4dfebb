"""nbval compares strings. With this, it compares as a reader would: same words, same integers, nearly the
same floats.

Two floats agree when they differ by at most 2e-3 of the larger one, or by one unit in the last printed place:
numbers drift by about 2e-5 on another CPU, and drift of any size can flip a last digit. How wide a space is
does not count, for a table's columns move with the width of its numbers. The numbers in a claim's line
(`lesson.claim` with bounds) may be any: its verdict is compared. notebooks/conftest.py installs this.
"""

import re
from decimal import Decimal

from nbval.plugin import IPyNbCell

RELATIVE = Decimal("2e-3")
# 0.25, -1.5e-3 or 2e-05; neither an integer, nor a part of a word, a version or a hash
FLOAT = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+(?!\w))")
# What `lesson.claim` prints: a statement, ": ", what was measured, the bounds, the verdict.
NUMBER = r"[-+]?(?:\d[\d.,]*(?:e[-+]?\d+)?|inf|nan)%?"
CLAIM = re.compile(rf"^(.*): \[?{NUMBER}[,\]]*(?: \[?{NUMBER}[,\]]*)* (\(asked: .*\): (?:True|False))$", re.M)


def agree(reference: str, test: str) -> bool:
    """Whether two printed outputs say the same."""
    if CLAIM.findall(reference) != CLAIM.findall(test):
        return False
    reference, test = (CLAIM.sub("", text) for text in (reference, test))
    return _words(reference) == _words(test) and all(map(_close, _floats(reference), _floats(test)))


def _words(text: str) -> list[list[str]]:
    """The words before, between and after the floats."""
    return [[word for word in part.split(" ") if word] for part in FLOAT.split(text)]


def _floats(text: str) -> list[Decimal]:
    return [Decimal(number) for number in FLOAT.findall(text)]


def _close(a: Decimal, b: Decimal) -> bool:
    unit = Decimal(1).scaleb(min(a.as_tuple().exponent, b.as_tuple().exponent))
    return abs(a - b) <= max(unit, RELATIVE * max(abs(a), abs(b)))


class Tolerant(str):
    """A printed output that equals every output that says the same."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and agree(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # equality with a tolerance is not transitive


def install() -> None:
    """Makes nbval's cells compare with the tolerance."""
    sanitize = IPyNbCell.sanitize

    def tolerant(self: IPyNbCell, output: object) -> object:
        output = sanitize(self, output)
        return Tolerant(output) if isinstance(output, str) else output

    IPyNbCell.sanitize = tolerant
