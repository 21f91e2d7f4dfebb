"""The project's own rules: pins in one place, imports that go down only, no pickle, commands as
documented.
"""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from minialign.course.runner import find_notebooks

ROOT = Path(__file__).resolve().parents[1]

# --- pins ---


def _pins(text):
    """{name: version} of a requirements file; every line must be an exact pin, or include another file."""
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", "-r "))]
    requirements = [Requirement(line) for line in lines]
    assert all(len(r.specifier) == 1 and next(iter(r.specifier)).operator == "==" for r in requirements), (
        lines
    )
    return {canonicalize_name(r.name): next(iter(r.specifier)).version for r in requirements}


PINS = _pins((ROOT / "requirements.txt").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def test_conda_installs_the_same_pins():
    """environment.yml has no pins of its own: it installs requirements.txt, and the package."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    python, pip, section = environment["dependencies"]
    assert section == {"pip": ["-r requirements.txt", "-e ."]} and pip == "pip"
    name, version = python.split("=")
    assert (
        name == "python"
        and version in Requirement(f"python{PROJECT['project']['requires-python']}").specifier
    )


COURSE = PROJECT["project"]["optional-dependencies"]["course"]


def test_pins_lie_in_the_ranges():
    dependencies = PROJECT["project"]["dependencies"] + COURSE
    ranges = {canonicalize_name(r.name): r.specifier for r in map(Requirement, dependencies)}
    assert len(ranges) == len(dependencies)
    for name, specifier in ranges.items():
        assert PINS[name] in specifier, f"{name}=={PINS[name]} is not {name}{specifier}"
    (setuptools,) = map(Requirement, PROJECT["build-system"]["requires"])
    assert PINS["setuptools"] in setuptools.specifier
    assert PINS["torch"] == "2.13.0"


def test_which_pythons_will_do_is_asked_anew_for_each_torch():
    """set_up.py and README.md say for which machines the pinned torch has wheels."""
    assert f"torch {PINS['torch']} " in (ROOT / "set_up.py").read_text("utf-8")
    needed = r"Python 3\.11 to 3\.14.*x86_64 or aarch64, glibc 2\.28 or newer.*macOS 14 or newer"
    for name in ("Makefile", "README.md"):
        assert re.search(needed, (ROOT / name).read_text("utf-8"), re.S), name


def test_tests_pin_what_is_not_pinned_yet():
    tests = _pins((ROOT / "tests/requirements.txt").read_text("utf-8"))
    assert tests and not tests.keys() & PINS.keys()


def test_the_ppo_that_we_race_runs_on_the_same_libraries():
    """An environment of its own, for an older TRL: nothing else may differ."""
    pinned = PINS | _pins((ROOT / "tests/requirements.txt").read_text("utf-8"))
    pins = _pins((ROOT / "tests/benchmarks/requirements-ppo.txt").read_text("utf-8"))
    assert pins.pop("trl") == "1.12.0"
    assert pins == {name: pinned[name] for name in ("torch", "transformers")}


# --- floors: see CONTRIBUTING.md ---

FLOORS = {
    "config": "ground",
    "files": "ground",
    "faults": "ground",
    "gpt": "model",
    "tokenizer": "model",
    "chat": "model",
    "muon": "shared",
    "training": "shared",
    "sampling": "shared",
    "logprobs": "shared",
    "masked": "shared",
    "documents": "shared",
    "advantages": "shared",
    "critic": "shared",
    "rollouts": "shared",
    "records": "shared",
    "preference_formats": "shared",
    "preferences": "shared",
    "labels": "shared",
    "statistics": "shared",
    "bootstrap": "shared",
    "ensembles": "shared",
    "social_choice": "shared",
    "language_model": "shared",
    "pretraining": "algorithms",
    "sft": "algorithms",
    "reward_model": "algorithms",
    "policy_gradient": "algorithms",
    "best_of_n": "algorithms",
    "ppo": "algorithms",
    "dpo": "algorithms",
    "checkpoints": "door",
    "": "door",  # minialign itself
    "world": "world",
    "world.exact": "exact",
    "course": "course",
}
ENGINE = {"ground", "model", "shared", "algorithms", "door"}
BELOW = {
    "ground": set(),
    "model": {"ground"},
    "shared": {"ground", "model"},
    "algorithms": {"ground", "model", "shared"},
    "door": {"ground", "model", "shared", "algorithms"},
    "world": {"ground"},
    "exact": {"ground", "model", "shared", "world"},
    "course": ENGINE | {"world", "exact"},
}
# Neighbours on these floors may use each other, as long as nobody goes in a circle; an algorithm is read on
# its own.
NEIGHBOURLY = {"model", "shared", "door", "world", "course"}
PACKAGES = {"world": {"numpy"}, "model": {"numpy", "regex", "tiktoken", "torch"}}


def _room(module):
    """minialign.dpo -> dpo, minialign.world.judge -> world, minialign.world.exact -> world.exact, minialign
    -> ''.
    """
    inner = module.removeprefix("minialign").removeprefix(".")
    return inner if inner in FLOORS else inner.split(".")[0]


def _imports(module, source, modules):
    """All modules that a module's source imports, anywhere in it, with full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: write imports in full, without leading dots"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module


def layering_problems(sources):
    """Which imports break the floors; sources: {module: its text}."""
    problems, graph = [], {}
    for module, source in sources.items():
        room = _room(module)
        if room not in FLOORS:
            problems.append(f"{module} is on no floor: add it to FLOORS")
            continue
        floor = FLOORS[room]
        allowed = BELOW[floor] | ({floor} if floor in NEIGHBOURLY else set())
        imports = set(_imports(module, source, sources))
        graph[module] = {name for name in imports if name.split(".")[0] == "minialign"} - {module}
        for name in sorted(imports):
            package = name.split(".")[0]
            if package == "minialign" and FLOORS.get(_room(name)) not in allowed:
                problems.append(f"{module} imports {name}")
            elif package not in sys.stdlib_module_names | PACKAGES.get(floor, {package}) | {"minialign"}:
                problems.append(f"{module} imports {package}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        problems.append(f"in a circle: {' -> '.join(error.args[1])}")
    return problems


def _sources(folder):
    """{dotted module name: source} of every Python file under a folder of the project."""
    names = {
        path: path.relative_to(ROOT).with_suffix("").parts for path in sorted((ROOT / folder).rglob("*.py"))
    }
    return {
        ".".join(parts).removesuffix(".__init__"): path.read_text("utf-8") for path, parts in names.items()
    }


def test_imports_go_down_only():
    sources = _sources("minialign")
    assert {"minialign", "minialign.gpt"} <= sources.keys()
    assert layering_problems(sources) == []


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("minialign.dpo", "from minialign.world import judge", "minialign.dpo imports minialign.world.judge"),
        (
            "minialign.dpo",
            "def f():\n    import minialign.world.judge",
            "minialign.dpo imports minialign.world.judge",
        ),
        ("minialign.dpo", "from minialign import sft", "minialign.dpo imports minialign.sft"),
        ("minialign.dpo", "from minialign import load", "minialign.dpo imports minialign"),
        (
            "minialign.checkpoints",
            "from minialign.course import artifacts",
            "minialign.checkpoints imports minialign.course.artifacts",
        ),
        ("minialign.sft", "from minialign.world import exact", "minialign.sft imports minialign.world.exact"),
        (
            "minialign.world.corpus",
            "from minialign.world import exact",
            "minialign.world.corpus imports minialign.world.exact",
        ),
        ("minialign.gpt", "from minialign.training import fit", "minialign.gpt imports minialign.training"),
        ("minialign.gpt", "import transformers", "minialign.gpt imports transformers"),
        ("minialign.world.judge", "import torch.nn as nn", "minialign.world.judge imports torch"),
        (
            "minialign.world.judge",
            "from minialign.gpt import GPT",
            "minialign.world.judge imports minialign.gpt",
        ),
        ("minialign.attic", "", "minialign.attic is on no floor: add it to FLOORS"),
    ],
)
def test_a_broken_floor_is_seen(module, source, problem):
    others = dict.fromkeys(
        (
            "minialign",
            "minialign.sft",
            "minialign.world",
            "minialign.world.judge",
            "minialign.gpt",
            "minialign.course",
        ),
        "",
    ) | {"minialign.course.artifacts": "", "minialign.world.exact": ""}
    assert layering_problems(others | {module: source}) == [problem]


def test_a_circle_is_seen():
    sources = {"minialign.gpt": "import minialign.chat", "minialign.chat": "from minialign import gpt"}
    (problem,) = layering_problems(sources)
    assert problem.startswith("in a circle")


def test_what_may_be_imported_is_not_a_problem():
    allowed = "import math\nimport torch\nfrom minialign.gpt import GPT\nfrom minialign import training"
    assert layering_problems({"minialign.dpo": allowed, "minialign.gpt": "", "minialign.training": ""}) == []


# --- what an installation brings ---


def _packages(sources):
    """The packages of others that sources import."""
    names = {name.split(".")[0] for module in sources for name in _imports(module, sources[module], sources)}
    return names - sys.stdlib_module_names - {"minialign"}


def test_an_installation_brings_what_is_imported():
    """Nothing less; and nothing more, which on a hosted notebook would replace what is there."""
    sources = _sources("minialign")
    course = {module: source for module, source in sources.items() if FLOORS[_room(module)] == "course"}
    base = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    assert _packages({module: sources[module] for module in sources.keys() - course}) == base
    extra = {Requirement(line).name.replace("-", "_") for line in COURSE}
    extra = extra - {"ipython", "pillow"} | {"IPython", "PIL"}  # what these two are imported as
    assert _packages(course) - base == extra


# --- no pickle: a downloaded file must not be able to run code ---

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def pickle_problems(source):
    """Where a source unpickles: such an import, torch.load, or numpy's allow_pickle."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {getattr(node, "module", None), *(alias.name for alias in node.names)}
            yield from sorted(PICKLES & {name.split(".")[0] for name in names if name})
            if getattr(node, "module", None) == "torch" and "load" in names:
                yield "torch.load"
        elif isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
            yield "torch.load"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            yield "allow_pickle"


def test_no_pickle():
    sources = _sources("minialign") | _sources("tests")
    assert {name: found for name, source in sources.items() if (found := list(pickle_problems(source)))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(f)",
        "from torch import load",
        "load(f, allow_pickle=True)",
    ],
)
def test_a_pickle_is_seen(source):
    assert len(list(pickle_problems(source))) == 1


# --- commands and style ---


def test_make_has_the_commands_and_the_readme_names_the_first_two():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = {"help", "setup", "course", "test", "lab", "artifacts", "notebooks", "benchmark", "mutants"}
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.M).group(1).split()
    rules = re.findall(r"^(\w+):", makefile, re.M)
    assert targets == set(phony) == set(rules)
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "make course" in readme and "make test" in readme


# Not the whole folder: a scratch file or a notebook of the reader's own is not the project's.
OURS = ["minialign", "tests", "set_up.py", "notebooks/conftest.py", *map(str, find_notebooks([]))]


@pytest.mark.parametrize(
    "command", [["check", "--output-format=concise", *OURS], ["format", "--check", "minialign", "tests"]]
)
def test_ruff_finds_nothing(command):
    run = subprocess.run([sys.executable, "-m", "ruff", *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
