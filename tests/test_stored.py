"""How notebooks are read, normalised, and searched for what holds on one machine or in one run only."""

import base64
import copy
import io
import json
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from minialign.course.stored import ROOT, WIDGET, in_256_colours, normalise, read, to_bytes, unfit_outputs


def _bytes(**changes):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []} | changes).encode()


CELL = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "é"}
UNREADABLE = {
    "it is empty": b" \n",
    r"line 3 is a mark of a merge conflict \(<<<<<<<\)": b"{\n\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n}",
    "it is not JSON": b"# Untitled",
    "it is not JSON .*recursion": b"[" * 100_000,
    "it is JSON, but no notebook": b"[]",
    "it is JSON, but no notebook: it has no list of cells": _bytes(cells=3),
    r"it is not UTF-8 \(byte": json.dumps({"cells": ["é"]}, ensure_ascii=False).encode("latin-1"),
    "its nbformat is 3, not 4: save it": b'{"nbformat": 3, "metadata": {}, "worksheets": []}',
    "its nbformat is 5, not 4": _bytes(nbformat=5),
    "its nbformat is None, not 4": b'{"cells": []}',
    "it is no valid notebook: ": _bytes(cells=["text"]),
    "it is no valid notebook: .*source.*required": _bytes(cells=[{"cell_type": "raw", "metadata": {}}]),
    "it is no valid notebook: .*": _bytes(cells=[CELL | {"source": {}}]),
    "it is no valid notebook: .*metadata": b'{"nbformat": 4, "nbformat_minor": 5, "cells": []}',
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_what_is_no_notebook_is_named_in_one_line(reason, tmp_path):
    path = tmp_path / "x.ipynb"
    path.write_bytes(UNREADABLE[reason])
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("minor", range(5))
def test_a_notebook_without_ids_becomes_valid_and_stays_the_same(minor, tmp_path):
    """As Colab saves it: an older format, no ids."""
    path = tmp_path / "x.ipynb"
    cells = [{key: value for key, value in CELL.items() if key != "id"}] * 3
    path.write_bytes(_bytes(nbformat_minor=minor, cells=cells))
    first = to_bytes(normalise(read(path)))
    assert first == to_bytes(normalise(read(path)))
    nbformat.validate(json.loads(first))
    path.write_bytes(first)
    assert to_bytes(normalise(read(path))) == first


@pytest.mark.parametrize(
    ("ids", "given"),
    [
        (["a", "a", "b", "a"], ["a", "cell-1", "b", "cell-3"]),
        (["cell-1", None, "cell-2"], ["cell-1", "cell-1-", "cell-2"]),
        (["", "no spaces", "x" * 65, "fine_1-"], ["cell-0", "cell-1", "cell-2", "fine_1-"]),
    ],
)
def test_ids_are_kept_where_they_can_be(ids, given, tmp_path):
    cells = [CELL | {"id": name} if name is not None else CELL | {} for name in ids]
    for cell, name in zip(cells, ids, strict=True):
        if name is None:
            del cell["id"]
    path = tmp_path / "x.ipynb"
    path.write_bytes(_bytes(cells=cells))
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == given


def test_a_figure_has_a_palette_and_looks_the_same():
    picture = Image.new("RGBA", (40, 30), (0, 114, 178, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 20, 30))  # transparent, which the page shows as white
    file = io.BytesIO()
    picture.save(file, "png")
    stored = in_256_colours(base64.b64encode(file.getvalue()).decode())
    seen = Image.open(io.BytesIO(base64.b64decode(stored)))
    assert seen.mode == "P" and in_256_colours(stored) == stored
    assert [seen.convert("RGB").getpixel((x, 15)) for x in (5, 35)] == [(255, 255, 255), (0, 114, 178)]


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
        cells=[cell, new_markdown_cell("b", id="b")],
        metadata={"widgets": {}, "language_info": {"name": "python", "version": "3.11.7"}},
    )
    notebook.cells[1].id = "a"
    before = copy.deepcopy(notebook)

    normal = normalise(notebook)

    assert notebook == before and normalise(normal) == normal
    assert set(normal.metadata) == {"kernelspec", "language_info"} and normal.metadata.language_info == {
        "name": "python"
    }
    cell, other = normal.cells
    assert (cell.id, cell.execution_count, cell.metadata) == ("a", 1, {"tags": ["nbval-ignore-output"]})
    assert other.id == "cell-1"
    text, picture, slider = cell.outputs
    assert (
        text.text == "ab\n" and picture == figure and slider.data == {"text/plain": "FloatSlider(value=0.1)"}
    )


def _stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


UNFIT = [
    ("text on stderr", _stream("\nmkdir -p failed\n", "stderr")),
    ("a memory address", new_output("execute_result", {"text/plain": "[<Line2D at 0x7f51a0b3c4d0>]"})),
    ("a memory address", new_output("display_data", {"text/html": "<b>&lt;f at 0x000001F5A0B3C4D0&gt;</b>"})),
    ("a memory address", new_output("error", ename="E", evalue="", traceback=["<object at 0x10a2b3c4d>"])),
    ("a path of this machine", _stream(f"'{ROOT}/data'")),
    ("a path of this machine", _stream(f"in {sys.prefix}")),
    ("a path of this machine", _stream(f"{tempfile.gettempdir()}/x")),
    ("a path of this machine", _stream(f"{Path.home()}")),
    (
        "a path of this machine",
        new_output("error", ename="E", evalue="", traceback=["File ~/minialign/x.py"]),
    ),
    ("a path of this machine", _stream("/Users/ada/minialign")),
    ("a path of this machine", _stream(r"C:\Users\ada")),
    ("a path of this machine", new_output("display_data", {"application/json": {"at": "/home/ada"}})),
    ("a warning", _stream("x.py:3: UserWarning: careful\n")),
    ("a warning", _stream("FutureWarning: soon\n")),
]


@pytest.mark.parametrize(("what", "output"), UNFIT)
def test_what_must_not_be_stored_is_seen(what, output):
    (found,) = unfit_outputs(new_code_cell("x", outputs=[_stream("fine\n"), output]))
    assert found.startswith(what) and len(found.split(": ", 1)[1]) > 3 and "\n" not in found


def test_what_may_be_stored():
    fine = "1/2, a/home/b, ~ 3, 0xff, minialign/files.py, Warning signs, https://arxiv.org/abs/1706.03762"
    figure = new_output("display_data", {"image/png": "0x7f51a0b3c4d0"})
    assert list(unfit_outputs(new_code_cell("x", outputs=[_stream(fine), figure]))) == []


def test_a_home_that_is_the_root_folder_betrays_nothing():
    """As in many containers. The patterns are made when the module is loaded, so in a process of its own."""
    import os
    import subprocess

    code = (
        "from nbformat.v4 import *; from minialign.course.stored import unfit_outputs as f;"
        "print(list(f(new_code_cell('', outputs=[new_output('stream', text='1/2 // https://a.b /x')]))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"HOME": "/"}, capture_output=True, text=True, cwd=ROOT
    )
    assert run.stdout.strip() == "[]", run.stderr
