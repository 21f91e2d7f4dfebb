"""What is wrong with a reader's function, if anything: it is run beside the engine's.

Whatever it does, the lesson goes on.
"""

import operator
import os
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from minialign.course.exercises.exercise import Exercise
from minialign.statistics import in_short, numbers

ROUNDING = dict(rtol=1e-5, atol=1e-6, equal_nan=True)  # by which an attempt may differ from the engine
CONTAINERS = {torch.Tensor: "a tensor", np.ndarray: "a numpy array", list: "a list", tuple: "a tuple"}
CONTENTS = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}  # by dtype.kind
ORDER = ("first", "second", "third")  # of several results
IMPORTS = {  # of names that every page on PyTorch takes for granted, and a notebook may not have
    "F": "import torch.nn.functional as F",
    "nn": "from torch import nn",
    "logsigmoid": "from torch.nn.functional import logsigmoid",
    "torch": "import torch",
    "np": "import numpy as np",
    "math": "import math",
    "Counter": "from collections import Counter",
}


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
        return f"your function raised {in_words(error)}.{usual_cause(error, exercise)}"


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
        if any(all(map(alike, results, outcomes(wrong, exercise))) for wrong in mistake.functions):
            return mistake.diagnosis
    if values_are_right and not has_gradient(results):
        return (
            "the value is right, but it is cut off from the arguments, so no gradient flows back to them: "
            ".item(), float(), .detach(), numpy and torch.no_grad() do that."
        )
    if values_are_right:
        return "the value is right, its gradient is not: check what must be a constant and what must not."
    return f"not yet: {contrast(*next(pair for pair in pairs if not same(*pair)))}."


def in_words(error: BaseException) -> str:
    """An error's type and message, on one line that can be printed, without a full stop."""
    try:
        message = " ".join(str(error).split())[:300].encode("utf-8", "backslashreplace").decode()
    except Exception:
        message = ""
    return f"{type(error).__name__}: {message}".rstrip(":. ")


def usual_cause(error: BaseException, exercise: Exercise) -> str:
    """A sentence on what usually leads to an error, if that is known: a name, or a mistake that raises it."""
    if type(error) is NameError:
        if error.name in IMPORTS:
            return f" {error.name} is not imported here: run `{IMPORTS[error.name]}` first."
        return " The usual cause: a cell above has not been run, or the name is misspelt."
    for mistake in exercise.errors:
        if in_words(error) in (words_raised(wrong, exercise) for wrong in mistake.functions):
            return f" The usual cause: {mistake.diagnosis}"
    return ""


def words_raised(function: Callable, exercise: Exercise) -> str | None:
    """What a function says when it raises, on the first input where it does."""
    try:
        deque(outcomes(function, exercise), maxlen=0)
    except Exception as error:
        return in_words(error)


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
    """What a function returns, and for each of its results the gradients of a weighted sum of it.

    They are taken for the arguments that require one; an argument may be a model, too.
    """
    value = function(*arguments)
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    inputs += [p for a in arguments if isinstance(a, torch.nn.Module) for p in a.parameters()]
    if not inputs:
        return value, ()
    results = value if isinstance(value, (tuple, list)) else (value,)
    return value, tuple(gradients(result, inputs) for result in results)


def gradients(result, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Of a weighted sum of a result, for each input: zeros where it does not depend on it.

    The plain sum of probabilities, for instance, is 1 and has no slope. Nothing for a result that is no
    tensor.
    """
    if not isinstance(result, torch.Tensor):
        return ()
    if not result.requires_grad or not result.is_floating_point():
        return tuple(map(torch.zeros_like, inputs))
    weights = torch.linspace(1, 2, result.numel(), dtype=result.dtype).view(result.shape)
    found = torch.autograd.grad((weights * result).sum(), inputs, allow_unused=True, retain_graph=True)
    return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found))


def has_gradient(results: list[tuple]) -> bool:
    """Does anything flow back to any argument, from any result of any input?"""
    return any(gradient.any() for _, found in results for of_one in found for gradient in of_one)


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


def alike(found: tuple, known: tuple) -> bool:
    """The same results, and the same gradients of the first.

    Those of the others are left out: who makes a mistake may forget to detach them, besides.
    """
    return same(found[0], known[0]) and same(found[1][:1], known[1][:1])


def unusable(value, right) -> str | None:
    """Why the notebook could not go on with the right values: their container, or kind, is another.

    One number is as good as another.
    """
    if type(right) is tuple:
        return next(filter(None, map(unusable, value, right)), None)
    if isinstance(right, int):
        return (
            None if counts(value) else f"the value is right, but it is {kind(value)}: return a whole number"
        )
    number = isinstance(right, float) or getattr(right, "ndim", 1) == 0
    usual = isinstance(value, (int, float, np.generic, np.ndarray, torch.Tensor))
    if isinstance(right, str) or (number and usual) or kind(value) == kind(right):
        return None
    return f"the values are right, but they are {kind(value)}: return {kind(right)}"


def counts(value) -> bool:
    """Whether a value can say which entry of a list is meant."""
    try:
        operator.index(value)
    except Exception:
        return False
    return True


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
    if type(right) is tuple:
        return f"{len(right)} results are wanted, separated by commas; {instead(value, right)}"
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
        texts = told_apart(mine[place], engine[place])
        this, that = (as_truth(text) if of_booleans(x) else text for x, text in zip((value, right), texts))
        if place:
            return f"the entry {list(place)} you return is {this}, the engine's is {that}"
        return f"you return {this}, the engine {that}"
    if mine.size == engine.size and np.allclose(mine.ravel(), engine.ravel(), **ROUNDING):
        return f"the numbers are right, but of shape {mine.shape}: return them of shape {engine.shape}"
    return f"you return {describe(value)}, the engine {describe(right)}"


def instead(value, right: tuple) -> str:
    """What is given where several results are wanted: one of them, all of them stacked, or something else."""
    for nth, result in zip(ORDER, right):
        if same(value, result):
            return f"what you return is right, but only the {nth} of them"
    try:
        array = np.atleast_1d(numbers(value))
        stacked = same([*array], right) or same([*np.moveaxis(array, -1, 0)], right)
    except ValueError:
        stacked = False
    if stacked:
        return f"your numbers are right, but stacked in {container(value)}"
    return f"you return {describe(value)}, the engine {describe(right)}"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two different numbers, with as many digits as it takes to see that they are."""
    texts = ((f"{one:.{digits}g}", f"{other:.{digits}g}") for digits in range(6, 18))
    return next((a, b) for a, b in texts if float(a) != float(b))


def of_booleans(value) -> bool:
    """Whether a value of numbers, or all of a list of them, is true or false."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(of_booleans, value))
    return isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.dtype(bool))


def as_truth(number: str) -> str:
    return str(float(number) != 0)


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
    if not array.size:
        return f"an empty {container(value).split()[-1]}"
    first = f"{array.flat[0]:.6g}"
    first = as_truth(first) if of_booleans(value) else first
    return f"{container(value)} of shape {array.shape} that starts with {first}" if array.ndim else first
