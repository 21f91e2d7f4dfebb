"""Settings: frozen dataclasses whose fields say what they may be, check it, and print one a line."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints


class Limit(NamedTuple):
    """Which numbers a setting may be, and what to say of the others."""

    allows: Callable[[float], bool]
    words: str


def at_least(low: float, words: str = "") -> Limit:
    return Limit(lambda x: low <= x < math.inf, words or f"it must be at least {low}")


def between(low: float, high: float, words: str = "") -> Limit:
    return Limit(lambda x: low <= x <= high, words or f"it must lie between {low} and {high}")


Count = Annotated[int, at_least(1)]
Natural = Annotated[int, at_least(0)]
Positive = Annotated[float, Limit(lambda x: 0 < x < math.inf, "it must be positive")]
NonNegative = Annotated[float, at_least(0)]
Share = Annotated[float, between(0, 1)]
Momentum = Dropout = Annotated[float, Limit(lambda x: 0 <= x < 1, "it must be at least 0 and below 1")]
COOLEST, HOTTEST = 1e-6, 1e4  # beyond, logits over temperature leave float32's range, or all become alike
Temperature = Annotated[
    float,
    between(
        COOLEST, HOTTEST, "a policy that never varies, or varies at random, cannot learn from its samples"
    ),
]


def require_temperature(temperature: float) -> None:
    """Raises ValueError for a temperature that makes no probabilities of logits."""
    if not COOLEST <= temperature <= HOTTEST:
        raise ValueError(
            f"the temperature is {temperature}: probabilities need one from {COOLEST} to {HOTTEST:,.0f}; "
            "0 is greedy decoding, for sampling only"
        )


@dataclass(frozen=True)
class Config:
    """What every config has. A field's type says what it may be: `steps: Count`, `decay: Literal["linear"]`.

    Numbers of numpy and torch become Python's own. Raises ValueError, in one line, for any other value.
    """

    def __post_init__(self):
        for name, hint in hints_of(type(self)).items():
            object.__setattr__(self, name, checked(name, getattr(self, name), hint))

    def __str__(self) -> str:
        width = max(len(field.name) for field in fields(self))
        lines = [f"    {field.name:{width}} = {getattr(self, field.name)!r}" for field in fields(self)]
        return "\n".join([type(self).__name__, *lines])


@lru_cache
def hints_of(kind: type) -> dict:
    """The types of a config's fields, inherited ones too."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def checked(name: str, value, hint):
    """`value` as the type `hint` of a setting wants it."""
    if get_origin(hint) in (Union, UnionType):  # of a type and None
        if value is None:
            return None
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        if isinstance(value, str) and value in choices:
            return value
        raise ValueError(f"{name} is {value!r}: choose {' or '.join(map(repr, choices))}")
    if get_origin(hint) is tuple:
        if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != len(get_args(hint)):
            raise ValueError(f"{name} is {value!r}: give {len(get_args(hint))} numbers")
        return tuple(checked(name, x, inner) for x, inner in zip(value, get_args(hint)))
    kind, *limits = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    number = as_number(name, value, kind)
    for limit in limits:
        if not limit.allows(number):
            words = limit.words if math.isfinite(number) else "it must be a finite number"
            raise ValueError(f"{name} is {number:g}: {words}")
    return number


def as_number(name: str, value, kind: type) -> bool | int | float:
    """A bool, a whole number or a float: given as Python's, numpy's or torch's, or as an array of one."""
    plain = value.item() if hasattr(value, "item") and math.prod(value.shape) == 1 else value
    if kind is bool:
        if isinstance(plain, bool):
            return plain
        raise ValueError(f"{name} is {value!r}: give True or False")
    if isinstance(plain, bool) or not isinstance(plain, int | float):
        raise ValueError(f"{name} is {value!r}: give a number")
    if kind is int and plain != plain // 1:  # true of NaN and infinity, too
        raise ValueError(f"{name} is {value!r}: it must be a whole number")
    return kind(plain)
