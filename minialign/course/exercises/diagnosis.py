"""What is wrong with a reader's function, if anything: it is run beside the engine's.

Whatever it does, the lesson goes on.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from minialign.course.exercises.exercise import Exercise
from minialign.statistics import in_short, numbers

ROUNDING = dict(rtol=1e-5, atol=1e-6, equal_nan=True)  # by which an attempt may differ from the engine
CONTAINERS = {torch.Tensor: "a tensor", np.ndarray: "a numpy array", list: "a list", tuple: "a tuple"}
CONTENTS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}  # by dtype.kind


def diagnose(exercise: Exercise, attempt: Callable) -> str | None:
    """None for a right answer; else one sentence on what is wrong, as precise as known mistakes allow."""
    try:
        if not callable(attempt):
            return f"give your function itself, without calling it, not {in_short(attempt)}."
        return judged(list(outcomes(attempt, exercise)), exercise)
    except KeyboardInterrupt:  # the reader's own: a loop without end
        raise
    except BaseException as error:  # whatever the reader's code raises, the lesson goes on
        if isinstance(error, NotImplementedError) and not error.args:
            return "not attempted yet."
        return f"your function raised {in_words(error)}."


def judged(results: list[tuple], exercise: Exercise) -> str | None:
    """What to say of an attempt's outcomes."""
    if all(value is None or value is ... for value, _ in results):
        return "not attempted yet."
    expected = list(outcomes(exercise.solution, exercise))
    pairs = [(value, right) for (value, _), (right, _) in zip(results, expected)]
    values_are_right = all(same(value, right) for value, right in pairs)
    if values_are_right and (reason := unusable(*pairs[0])):
        return f"{reason}."
    if all(map(same, results, expected)):
        return None
    for mistake in exercise.mistakes:
        if all(map(same, results, outcomes(mistake.function, exercise))):
            return mistake.diagnosis
    if values_are_right:
        return "the value is right, its gradient is not: check what must be a constant and what must not."
    return f"not yet: {contrast(*next(pair for pair in pairs if not same(*pair)))}."


def in_words(error: BaseException) -> str:
    """An error's type and message, on one line that can be printed."""
    try:
        message = " ".join(str(error).split())[:300].encode("utf-8", "backslashreplace").decode()
    except Exception:
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


@contextmanager
def undisturbed() -> Iterator[None]:
    """Torch as it comes, whatever the reader has set; and afterwards all as it was.

    That is whatever a function has changed: gradients on or off, default dtype, global random numbers.
    """
    dtype, of_numpy, of_python = torch.get_default_dtype(), np.random.get_state(), random.getstate()
    try:
        torch.set_default_dtype(torch.float32)
        with (
            torch.device("cpu"),
            torch.inference_mode(False),  # turns gradients on, too
            torch.random.fork_rng(devices=[]),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def outcomes(function: Callable, exercise: Exercise) -> Iterator[tuple]:
    """What a function makes of five random inputs, drawn anew for every function: it may change them."""
    for seed in range(5):
        with undisturbed():
            found = outcome(function, exercise.inputs(torch.Generator().manual_seed(seed)))
        yield found


def outcome(function: Callable, arguments: tuple) -> tuple:
    """What a function returns, and the gradients of its sum for the arguments that require one.

    An argument may be a model, too. Of several results, the first is the one to be differentiated.
    """
    value = function(*arguments)
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    inputs += [p for a in arguments if isinstance(a, torch.nn.Module) for p in a.parameters()]
    if not inputs or not isinstance(first, torch.Tensor):
        return value, ()
    if not first.requires_grad or not first.is_floating_point():
        return value, tuple(map(torch.zeros_like, inputs))
    found = torch.autograd.grad(first.sum(), inputs, allow_unused=True)
    return value, tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found))


def same(value, right) -> bool:
    """Equal up to rounding, and of the same shape, in whatever container."""
    if isinstance(right, tuple):
        return isinstance(value, (tuple, list)) and len(value) == len(right) and all(map(same, value, right))
    if isinstance(right, str):
        return isinstance(value, str) and value == right
    try:
        mine, engine = numbers(value), numbers(right)
    except ValueError:
        return False
    return mine.shape == engine.shape and np.allclose(mine, engine, **ROUNDING)


def unusable(value, right) -> str | None:
    """Why the notebook could not go on with the right values: their container, or kind, is another.

    One number is as good as another.
    """
    if type(right) is tuple:
        return next(filter(None, map(unusable, value, right)), None)
    number = isinstance(right, float) or getattr(right, "ndim", 1) == 0
    usual = isinstance(value, (int, float, np.generic, np.ndarray, torch.Tensor))
    if isinstance(right, str) or (number and usual) or kind(value) == kind(right):
        return None
    return f"the values are right, but they are {kind(value)}: return {kind(right)}"


def kind(value) -> str:
    """The container of a result, and what it is a container of."""
    if isinstance(value, torch.Tensor):
        of = "b" if value.dtype == torch.bool else "f" if value.is_floating_point() else "i"
    elif container(value) in CONTAINERS.values():
        of = np.asarray(value).dtype.kind
    else:
        return container(value)
    return f"{container(value)} of {CONTENTS.get(of, 'objects')}"


def container(value) -> str:
    """A word for what holds a result: its type's name, if it is none of the usual ones."""
    named = isinstance(value, tuple) and type(value) is not tuple  # an Estimate
    names = (name for type_, name in CONTAINERS.items() if isinstance(value, type_) and not named)
    return next(names, f"something of type {type(value).__name__}")


def contrast(value, right) -> str:
    """Where two results differ: the first part, the first entry or the first character that does."""
    if isinstance(right, tuple) and isinstance(value, (tuple, list)) and len(value) == len(right):
        part = next(i for i in range(len(right)) if not same(value[i], right[i]))
        return f"in part {part + 1} of the result, {contrast(value[part], right[part])}"
    if isinstance(right, str) and isinstance(value, str):
        place = len(os.path.commonprefix([value, right]))
        here = slice(place, place + 60)
        return f"from character {place + 1} on you return {value[here]!r}, the engine {right[here]!r}"
    try:
        mine, engine = numbers(value), numbers(right)
    except ValueError:
        return f"you return {describe(value)}, the engine {describe(right)}"
    if mine.shape == engine.shape:
        place = tuple(np.argwhere(~np.isclose(mine, engine, **ROUNDING))[0].tolist())
        this, that = told_apart(mine[place], engine[place])
        if place:
            return f"the entry {list(place)} you return is {this}, the engine's is {that}"
        return f"you return {this}, the engine {that}"
    if mine.size == engine.size and np.allclose(mine.ravel(), engine.ravel(), **ROUNDING):
        return f"the numbers are right, but of shape {mine.shape}: return them of shape {engine.shape}"
    return f"you return {describe(value)}, the engine {describe(right)}"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two different numbers, with as many digits as it takes to see that they are."""
    texts = ((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(6, 18))
    return next((a, b) for a, b in texts if float(a) != float(b))


def describe(value) -> str:
    """A result in a few words."""
    if isinstance(value, tuple) and len(value) <= 3 and not all(isinstance(x, (int, float)) for x in value):
        return f"{len(value)} results, " + " and ".join(map(describe, value))
    try:
        array = numbers(value)
    except ValueError:
        if isinstance(value, torch.Tensor):
            return f"a tensor of {value.dtype}, {value.layout}"
        if isinstance(value, np.ndarray):
            return f"a numpy array of dtype {value.dtype}"
        return repr(value)[:80] if value is None or type(value) is str else container(value)
    if not array.ndim:
        return f"{array:.6g}"
    if not array.size:
        return f"an empty {container(value).split()[-1]}"
    return f"{container(value)} of shape {array.shape} that starts with {array.flat[0]:.6g}"
