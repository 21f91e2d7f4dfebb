"""What a function reads of the shipped files, found by reading its code: an oracle for artifacts' needs."""

import ast
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator

from minialign.checkpoints import load_checkpoint
from minialign.course.artifacts import models
from minialign.course.experiments.comparisons import preferences
from minialign.training import load_history

# The only ways to shipped files that are built. A call names what it opens: an artifact, or a file of one.
DOORS = (load_history, preferences, models, load_checkpoint)


def names_read(thing) -> set[str]:
    """The artifacts that a function, or what it can reach in minialign, names where it calls one of DOORS.

    Raises ValueError where what is opened is known only when the code runs.
    """
    return {name for function in functions(thing, set()) for name in names_opened(function)}


def names_opened(function: types.FunctionType) -> Iterator[str]:
    """What the function itself opens."""
    doors = {door.__name__ for door in DOORS}
    if doors.isdisjoint(named(function)):
        return
    for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] in doors:
            for argument in call.args:
                if isinstance(argument, ast.Constant):
                    yield "comparisons" if argument.value == "held_out" else argument.value
                elif ast.unparse(argument) not in ("device", "*start"):
                    raise ValueError(
                        f"{function.__qualname__} opens {ast.unparse(argument)}: say which that is"
                    )


def functions(thing, seen: set[int]) -> Iterator[types.FunctionType]:
    """Every function of minialign that can be reached from a thing by the names in code."""
    if id(thing) in seen or any(thing is door for door in DOORS):
        return
    seen.add(id(thing))
    if isinstance(thing, functools.partial):
        inner = [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, dict):
        inner = [*thing.values()]
    elif isinstance(thing, tuple | list):
        inner = [*thing]
    elif not getattr(thing, "__module__", "").startswith("minialign"):
        return
    elif isinstance(thing, type):
        inner = [getattr(member, "__func__", member) for member in vars(thing).values()]
    elif hasattr(thing, "__wrapped__"):
        inner = [thing.__wrapped__]
    elif isinstance(thing, types.FunctionType):
        yield thing
        names = named(thing)
        inner = [thing.__globals__.get(name) for name in names]
        modules = [x for x in inner if isinstance(x, types.ModuleType) and x.__name__.startswith("minialign")]
        inner += [getattr(module, name, None) for module in modules for name in names]
    else:
        inner = [*getattr(thing, "__dict__", {}).values()]
    for part in inner:
        yield from functions(part, seen)


def named(function: types.FunctionType) -> set[str]:
    """All names in the function's code, and in the functions that it makes."""
    names, codes = set(), [function.__code__]
    while codes:
        code = codes.pop()
        names |= {*code.co_names}
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names
