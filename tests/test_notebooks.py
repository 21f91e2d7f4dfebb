"""The stored notebooks are fit to be read and validated; whether their outputs are right is what nbval
checks.
"""

import os
import warnings

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

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
