"""`make course` and `make notebooks`: what runs, what is reported, and what is left untouched."""

import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from minialign.course.runner import WIDGET, find_notebooks, main, normalise, to_bytes

PASSES = [
    "import os, sys\nprint(os.environ.get('MPLBACKEND'), os.environ['PYTHONHASHSEED'])",
    "import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.2)",
    ("1 / 0", "raises-exception"),
    ("{}['a']", "nbval-raises-exception"),
    "ballast = bytearray(300_000_000)\ntime.sleep(0.5)\nprint(sys.executable)",
]


@pytest.fixture
def write(tmp_path):
    """write(name, cells) stores an unexecuted notebook and returns its path; a cell is a source, or (source,
    tag).
    """

    def write(name, cells):
        notebook = new_notebook(cells=[new_markdown_cell("# Toy", id="title")])
        for number, cell in enumerate(cells):
            source, *tags = (cell,) if isinstance(cell, str) else cell
            notebook.cells.append(
                new_code_cell(source, id=f"cell{number}", metadata={"tags": tags} if tags else {})
            )
        path = tmp_path / f"{name}.ipynb"
        nbformat.write(notebook, path)
        return path

    return write


def test_one_failure_does_not_stop_the_others(write, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    bad = write("01_bad", ["x = 1", "# first line\nraise ValueError('one\\ntwo')", "print('never')"])
    dead = write("02_dead", ["import os\nos._exit(1)"])
    good = write("03_good", PASSES)
    before = [path.read_bytes() for path in (bad, dead, good)]
    output = tmp_path / "out"

    assert main([str(bad), str(dead), str(good), "--output", str(output)]) == 1

    assert [path.read_bytes() for path in (bad, dead, good)] == before
    printed = capsys.readouterr().out
    assert "03_good: cell 5/5" in printed and "01_bad: cell 3/3" not in printed
    rows = {
        line.split()[0]: line.split()[1:] for line in printed.splitlines() if line.endswith(("pass", "FAIL"))
    }
    assert [rows[path.stem][2] for path in (bad, dead, good)] == ["FAIL", "FAIL", "pass"]
    assert 300 < float(rows["03_good"][1]) < 1000  # MB
    assert "01_bad failed in code cell 2 of 3: # first line\n    ValueError: two" in printed
    assert "02_dead failed in code cell 1 of 1: import os\n    the kernel died" in printed

    for path in (bad, dead, good):
        assert "Toy" in (output / f"{path.stem}.html").read_text("utf-8")
    cells = nbformat.read(output / good.name, as_version=4).cells
    assert cells[1].outputs[0].text.split() == ["module://matplotlib_inline.backend_inline", "0"]
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4, 5]


def test_in_place_is_byte_stable_and_leaves_failed_notebooks_alone(write, tmp_path):
    good, bad = write("01_good", PASSES[1:3]), write("02_bad", ["print(1)", "1 / 0"])
    good.write_text(good.read_text("utf-8").replace("import time", "import time  # naïve"), "utf-8")
    failed, source = bad.read_bytes(), good.read_bytes()
    arguments = [str(good), str(bad), "--in-place", "--output", str(tmp_path / "out")]
    assert main(arguments) == 1
    first = good.read_bytes()
    assert main(arguments) == 1
    assert good.read_bytes() == first != source and bad.read_bytes() == failed
    notebook = nbformat.read(good, as_version=4)
    assert to_bytes(normalise(notebook)) == first and "naïve" in first.decode("utf-8")
    assert [cell.id for cell in notebook.cells] == ["title", "cell0", "cell1"]
    assert [output.text for output in notebook.cells[1].outputs] == ["0\n1\n2\n"]


def test_normalise_drops_what_changes_and_keeps_what_was_said():
    widget = {WIDGET: {"model_id": "c0ffee"}, "text/plain": "FloatSlider(value=0.1)"}
    figure = new_output("display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": "a line"}})
    parts = [
        new_output("stream", name=name, text=text) for name, text in [("stdout", "a"), ("stdout", "b\n")]
    ]
    outputs = [*parts, figure, new_output("display_data", widget), new_output("display_data", {WIDGET: {}})]
    cell = new_code_cell("a", id="a", execution_count=1, outputs=outputs)
    cell.metadata.update(execution={"iopub.status.busy": "today"}, tags=["nbval-ignore-output"])
    notebook = new_notebook(
        cells=[cell], metadata={"widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}}
    )
    before = copy.deepcopy(notebook)

    normal = normalise(notebook)

    assert notebook == before and normalise(normal) == normal
    assert set(normal.metadata) == {"kernelspec", "language_info"} and normal.metadata.language_info == {
        "name": "python"
    }
    (cell,) = normal.cells
    assert (cell.id, cell.execution_count, cell.metadata) == ("a", 1, {"tags": ["nbval-ignore-output"]})
    text, picture, slider = cell.outputs
    assert (
        text.text == "ab\n" and picture == figure and slider.data == {"text/plain": "FloatSlider(value=0.1)"}
    )


def test_find_notebooks(tmp_path):
    for name in ("01_b", "00_a", "02_c"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in find_notebooks([], tmp_path)] == ["00_a", "01_b", "02_c"]
    assert [path.stem for path in find_notebooks(["02", "01", "02_c"], tmp_path)] == ["02_c", "01_b"]
    assert find_notebooks([str(tmp_path / "00_a.ipynb")], tmp_path) == [tmp_path / "00_a.ipynb"]
    with pytest.raises(FileNotFoundError, match="no notebook 07 in .*there are: 00_a, 01_b, 02_c"):
        find_notebooks(["07"], tmp_path)
    with pytest.raises(FileNotFoundError, match="no notebook at all"):
        find_notebooks([], tmp_path / "empty")
