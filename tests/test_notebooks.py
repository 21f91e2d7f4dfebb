"""The stored notebooks can be read and validated, and have the form that readers count on. Whether their
outputs are right is what nbval checks.
"""

import ast
import os
import re
import warnings

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minialign.course.effort import LEVELS, PATHS, WORDS_A_MINUTE, code_lines, effort, exercises, on_path
from minialign.course.runner import find_notebooks
from minialign.course.stored import MAY_RAISE, ROOT, normalise, to_bytes, unfit_outputs

NOTEBOOKS = find_notebooks([])
MAX_BYTES = 1_500_000
NOT_NORMALISED = "not normalised: run `make notebooks`"


def problems(content: bytes) -> list[str]:
    """What is wrong with a stored notebook, in words."""
    notebook = nbformat.v4.reads(content.decode("utf-8"))  # unlike nbformat.reads, this repairs nothing
    found = []
    if len(content) > MAX_BYTES:
        found.append(f"{len(content)} bytes are more than {MAX_BYTES}")
    if to_bytes(normalise(notebook)) != content:
        found.append(NOT_NORMALISED)
    if not (
        notebook.cells
        and notebook.cells[0].cell_type == "markdown"
        and notebook.cells[0].source.startswith("# ")
    ):
        found.append("the first cell is no title")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("code cells were not all run once, in order")
    for number, cell in enumerate(code, 1):
        may_raise = MAY_RAISE & set(cell.metadata.get("tags", []))
        found += [f"code cell {number}: {problem}" for problem in unfit_outputs(cell)]
        for output in cell.outputs:
            found += [f"code cell {number}: {problem}" for problem in _output_problems(output, may_raise)]
    return found


def _output_problems(output, may_raise):
    if output.output_type == "error" and not may_raise:
        yield "an error"
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt"):
            yield "a figure without alt text"


# --- the form ---

MAX_LINES, MAX_COLUMNS, MAX_IMPORTS = 15, 110, 6  # of a code cell
STATED = re.compile(
    r"\*To read: prose (\d+) minutes, code (\d+), exercises (\d+)\. To run: (\d+) minutes?\.\*"
)


def departures(notebook):
    """Where a notebook leaves the form, in words."""
    cells, text = notebook.cells, notebook.cells[0].source
    stated, found = STATED.search(text), effort(notebook.cells)
    if not stated or [int(minutes) for minutes in stated.groups()[:3]] != list(found):
        yield f"the first cell must say '*To read: {found}. To run: …'"
    for cell in cells:
        if cell.cell_type == "code":
            yield from (f"cell {cell.id} {problem}" for problem in _code_departures(cell.source))
    asked = [
        exercise for cell in cells if cell.cell_type == "markdown" for exercise in exercises(cell.source)
    ]
    if [number for number, _, _ in asked] != list(range(1, len(asked) + 1)):
        yield "the exercises are not numbered from 1"
    for level in LEVELS:
        if level not in (of for _, of, _ in asked):
            yield f"there is no exercise of the level {level}"
    for minutes in PATHS:
        shown = on_path(cells, minutes)
        words = sum(len(cell.source.split()) for cell in shown if cell.cell_type == "markdown")
        if not 0 < words <= minutes * WORDS_A_MINUTE / 2:  # the other half is for figures and questions
            yield f"the lecture of {minutes} minutes has {words} words"
    right = [answers for cell in cells if cell.cell_type == "code" for answers in _quiz(cell.source)]
    if len(right) < 3 or len(set(right)) == 1:
        yield f"the quiz has its right answers at the places {right}"


def _code_departures(source):
    if len(lines := code_lines(source)) > MAX_LINES:
        yield f"has {len(lines)} lines that matter"
    if (longest := max(map(len, source.splitlines()), default=0)) > MAX_COLUMNS:
        yield f"has a line of {longest} characters"
    if (imports := len(re.findall(r"^(?:import|from) ", source, re.M))) > MAX_IMPORTS:
        yield f"has {imports} imports"
    if re.search(r"\bplt\.|\blesson\.show\(", source):
        yield "draws: figures stand in minialign/course/figures"


def _quiz(source):
    """The places of a quiz's right answers."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "lesson.quiz":
            yield from (question.elts[2].value for question in call.args)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_form(path):
    assert [*departures(nbformat.v4.reads(path.read_text("utf-8")))] == []


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_hygiene(path):
    """JupyterLab's save alone changes a notebook's metadata: at home that is worth a warning, no failure."""
    found = problems(path.read_bytes())
    if found == [NOT_NORMALISED] and not os.environ.get("CI"):
        warnings.warn(f"{path.name} is {NOT_NORMALISED} before you commit it", stacklevel=1)
    else:
        assert found == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_readme_says_the_same_minutes(path):
    """To read, prose and code together; for the exercises; to run."""
    first = nbformat.read(path, as_version=4).cells[0].source
    prose, code, asked, run = map(int, STATED.search(first).groups())
    row = next(line for line in (ROOT / "README.md").read_text("utf-8").splitlines() if path.name in line)
    assert row.endswith(f"| {prose + code} min | {asked} min | {run} min |")


# The rest proves that each rule can fail.


def _good():
    figure = new_output(
        "display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": "a line that rises"}}
    )
    cells = [
        new_markdown_cell("# Title", id="title"),
        new_code_cell(
            "1", id="one", execution_count=1, outputs=[new_output("stream", name="stdout", text="1/2\n")]
        ),
        new_code_cell("2", id="two", execution_count=2, outputs=[figure]),
    ]
    return normalise(new_notebook(cells=cells))


def _append(output):
    return lambda notebook: notebook.cells[1].outputs.append(output)


def _stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def _result(text):
    return new_output("execute_result", {"text/plain": text}, execution_count=1)


def _set(index, **fields):
    return lambda notebook: notebook.cells[index].update(fields)


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])

BAD = {
    "bytes are more than": _set(0, source="# Title\n" + "x" * MAX_BYTES),
    "not normalised": lambda notebook: notebook.metadata.update(authors=[]),
    "the first cell is no title": _set(0, source="Title"),
    "code cells were not all run once, in order": _set(1, execution_count=None),
    "code cell 1: an error": _append(ERROR),
    "code cell 1: text on stderr": _append(_stream("careful", "stderr")),
    "code cell 2: a figure without alt text": lambda notebook: notebook.cells[2].outputs[0].metadata.clear(),
    "code cell 1: a memory address": _append(_result("<object at 0x7f51a0b3c4d0>")),
    "code cell 1: a warning": _append(_result("UserWarning: careful")),
    "code cell 1: a path of this machine": _append(_result(f"'{ROOT}/data'")),
}


def test_a_good_notebook_has_no_problems():
    assert problems(to_bytes(_good())) == []


@pytest.mark.parametrize("problem", BAD)
def test_each_problem_is_seen(problem):
    notebook = _good()
    BAD[problem](notebook)
    found = problems(to_bytes(notebook))
    assert len(found) == 1 and problem in found[0]


def test_a_cell_run_out_of_order_is_seen():
    notebook = _good()
    notebook.cells[1].execution_count, notebook.cells[2].execution_count = 2, 1
    assert problems(to_bytes(notebook)) == ["code cells were not all run once, in order"]


def test_a_tagged_cell_may_raise():
    notebook = _good()
    notebook.cells[1].outputs.append(ERROR)
    notebook.cells[1].metadata.tags = ["raises-exception"]
    assert problems(to_bytes(notebook)) == []


def test_two_cells_with_one_id_are_seen():
    notebook = _good()
    notebook.cells[2].id = "one"
    assert problems(to_bytes(notebook)) == [NOT_NORMALISED]


@pytest.mark.parametrize("ci", [True, False])
def test_what_jupyterlab_saves_fails_in_continuous_integration_only(ci, tmp_path, monkeypatch):
    notebook = _good()
    notebook.metadata.language_info.version = "3.12.1"
    path = tmp_path / "00_saved.ipynb"
    path.write_bytes(to_bytes(notebook))
    monkeypatch.setenv("CI", "true") if ci else monkeypatch.delenv("CI", raising=False)
    with pytest.raises(AssertionError) if ci else pytest.warns(UserWarning, match="make notebooks"):
        test_hygiene(path)
    notebook.cells[0].source = "no title"
    path.write_bytes(to_bytes(notebook))
    with pytest.raises(AssertionError):
        test_hygiene(path)


# --- each rule of the form can fail ---


def _formed():
    title = "# Title\n*To read: prose 0 minutes, code 1, exercises 15. To run: 1 minute.*"
    asked = "".join(f"**Exercise {n}: x** ({level}, 5 minutes). " for n, level in enumerate(LEVELS, 1))
    quiz = "lesson.quiz(('a?', ('b', 'c'), 0, 'd'), ('a?', ('b', 'c'), 1, 'd'), ('a?', ('b', 'c'), 0, 'd'))"
    cells = [
        new_markdown_cell(title, id="title", metadata={"tags": ["10-minutes"]}),
        new_markdown_cell(asked, id="exercises"),
        new_code_cell("x = 1\n" * 8, id="code"),
        new_code_cell(quiz, id="quiz"),
    ]
    return new_notebook(cells=cells)


def _edit(index, old, new):
    return lambda nb: nb.cells[index].update(source=nb.cells[index].source.replace(old, new))


UNFORMED = {
    "the first cell must say": _edit(0, "code 1", "code 9"),
    "cell code has 16 lines that matter": _edit(2, "x = 1\n", "x = 1\nx = 2\n"),
    "cell code has a line of 111 characters": lambda nb: nb.cells[2].update(source="x = 1\n" * 7 + "#" * 111),
    "cell code has 7 imports": lambda nb: nb.cells[2].update(source="import a\n" * 7 + "x = 1\n" * 8),
    "cell code draws": _edit(2, "x = 1\n", "plt.x\n"),
    "the exercises are not numbered from 1": _edit(1, "Exercise 3", "Exercise 4"),
    "there is no exercise of the level hard": _edit(1, "hard", "easy"),
    "the lecture of 10 minutes has 0 words": _set(0, metadata={"tags": ["20-minutes"]}),
    "the quiz has its right answers at the places [0, 0, 0]": _edit(3, "1, 'd'", "0, 'd'"),
}


def test_a_notebook_of_the_right_form_has_no_departures():
    assert [*departures(_formed())] == []


@pytest.mark.parametrize("departure", UNFORMED)
def test_each_departure_is_seen(departure):
    notebook = _formed()
    UNFORMED[departure](notebook)
    assert departure in " | ".join(departures(notebook))
