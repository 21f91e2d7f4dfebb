"""The faults that `make mutants` tries: each kind is made, and what is said or hinted is left alone."""

import ast
import re
from pathlib import Path

from tests.mutants.faults import mutants

SOURCE = '''"""A module with 2 words."""
import torch

LIMIT: int = 3


@torch.no_grad()
def scale(values: "list[2]", by=-1, *, shift=True):
    """Not 7 faults."""
    if by < 0 and not shift:
        raise ValueError(f"by is {by + 1}")
    values.eval()
    values.total += by * 0.5
    return values.sum(-1).detach() if by is None else torch.stack(values, dim=0)
'''

ROOT = Path(__file__).resolve().parents[1]
STATEMENTS = {line.strip() for line in ast.unparse(ast.parse(SOURCE)).splitlines()}


def test_each_kind_of_fault_is_made_once():
    found = mutants("scales", SOURCE.encode())
    changes = sorted(name.split(" | ", 2)[2] for name in found)
    assert changes == sorted(
        [
            "3 -> 4",
            "torch.no_grad() -> (lambda function: function)",
            "-1 -> (-2)",
            "-1 -> (-2)",
            "0 -> 1",
            "True -> False",
            "by < 0 and (not shift) -> True",
            "by < 0 and (not shift) -> False",
            "by < 0 and (not shift) -> (by < 0 or not shift)",
            "by < 0 -> (by <= 0)",
            "by < 0 -> (by >= 0)",
            "0 -> 1",
            "not shift -> (shift)",
            "values.eval() -> pass",
            "values.total += by * 0.5 -> pass",
            "by * 0.5 -> (by / 0.5)",
            "0.5 -> 1.5",
            "0.5 -> 0.0",
            "by is None -> True",
            "by is None -> False",
            "by is None -> (by is not None)",
            "values.sum(-1).detach() -> (values.sum(-1))",
            "values.sum(-1) -> (values)",
            "torch.stack(values, dim=0) -> (torch.stack(values))",
        ]
    )


def test_a_fault_changes_one_place_and_is_named_after_it():
    for name, text in mutants("scales", SOURCE.encode()).items():
        place, statement, _ = name.split(" | ", 2)
        assert place in ("scales", "scales.scale") and statement in STATEMENTS
        ast.parse(text)
        changed = [a for a, b in zip(SOURCE.splitlines(), text.splitlines(), strict=True) if a != b]
        assert len(changed) == 1


def test_a_name_does_not_depend_on_how_the_lines_are_broken():
    broken = SOURCE.replace("torch.stack(values, dim=0)", "torch.stack(\n        values, dim=0\n    )")
    broken = broken.replace("by < 0 and", "(by < 0) and")
    assert (
        broken != SOURCE
        and mutants("scales", broken.encode()).keys() == mutants("scales", SOURCE.encode()).keys()
    )


def test_every_mutant_that_is_listed_as_alive_exists():
    """Its statement may have changed since: then it has to be tried again."""
    lines = (ROOT / "tests/mutants/survivors.txt").read_text("utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    modules = {re.match(r"\w+", name)[0] for name in names}
    made = set().union(*(mutants(m, (ROOT / f"minialign/{m}.py").read_bytes()) for m in modules))
    assert len(names) == len(set(names)) and set(names) <= made and names
