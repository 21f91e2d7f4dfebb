"""The stored notebooks are fit to be read and validated; whether their outputs are right is what nbval
checks.
"""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minialign.course.runner import MAY_RAISE, ROOT, normalise, to_bytes

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 1_500_000
MACHINE_PATH = re.compile(
    rf"{re.escape(str(ROOT))}|{re.escape(str(Path.home()))}/|(?<![\w.])/(?:home|root|Users|tmp|private)/|[A-Z]:\\Users"
)


def problems(content: bytes) -> list[str]:
    """What is wrong with a stored notebook, in words."""
    notebook = nbformat.v4.reads(content.decode("utf-8"))  # unlike nbformat.reads, this repairs nothing
    found = []
    if len(content) > MAX_BYTES:
        found.append(f"{len(content)} bytes are more than {MAX_BYTES}")
    if to_bytes(normalise(notebook)) != content:
        found.append("not normalised: run `make notebooks`")
    if not (
        notebook.cells
        and notebook.cells[0].cell_type == "markdown"
        and notebook.cells[0].source.startswith("# ")
    ):
        found.append("the first cell is no title")
    ids = [cell.get("id") for cell in notebook.cells]
    if len(set(ids)) < len(ids):
        found.append("two cells have the same id")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("code cells were not all run once, in order")
    for number, cell in enumerate(code, 1):
        may_raise = MAY_RAISE & set(cell.metadata.get("tags", []))
        for output in cell.outputs:
            found += [f"code cell {number}: {problem}" for problem in _output_problems(output, may_raise)]
    return found


def _output_problems(output, may_raise):
    if output.output_type == "error" and not may_raise:
        yield "an error"
    if output.get("name") == "stderr":
        yield "text on stderr"
    data = output.get("data", {})
    for kind in data:
        if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt"):
            yield "a figure without alt text"
    texts = [output.get("text", ""), *output.get("traceback", [])]
    texts += [value for kind, value in data.items() if kind.startswith("text/")]
    if any(MACHINE_PATH.search(text) for text in texts):
        yield "a path of this machine"


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_hygiene(path):
    assert problems(path.read_bytes()) == []


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


def _set(index, **fields):
    return lambda notebook: notebook.cells[index].update(fields)


ERROR = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])

BAD = {
    "bytes are more than": _set(0, source="# Title\n" + "x" * MAX_BYTES),
    "not normalised": lambda notebook: notebook.metadata.update(authors=[]),
    "the first cell is no title": _set(0, source="Title"),
    "two cells have the same id": _set(2, id="one"),
    "code cells were not all run once, in order": _set(1, execution_count=None),
    "code cell 1: an error": _append(ERROR),
    "code cell 1: text on stderr": _append(_stream("careful", "stderr")),
    "code cell 2: a figure without alt text": lambda notebook: notebook.cells[2].outputs[0].metadata.clear(),
    "code cell 1: a path of this machine": _append(
        new_output("execute_result", {"text/plain": f"'{ROOT}/data'"}, execution_count=1)
    ),
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
