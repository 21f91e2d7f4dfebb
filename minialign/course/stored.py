"""A notebook as it is stored: read, freed of what changes from run to run, searched for what must not stay.

Storing the outputs of two runs on one machine gives the same bytes, and says nothing about that machine.
"""

import base64
import copy
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image, UnidentifiedImageError

ROOT = Path(__file__).resolve().parents[2]
MAY_RAISE = {"raises-exception", "nbval-raises-exception"}
WIDGET = "application/vnd.jupyter.widget-view+json"

CONFLICT = re.compile(r"^(<{7}|>{7}) ", re.M)
VALID_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


def read(path: Path) -> NotebookNode:
    """The notebook in a file, with ids for cells that had none.

    Raises ValueError, with one line on what to do, for a file that holds no notebook of nbformat 4.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 (byte {error.start}): save it from JupyterLab again") from None
    if not text.strip():
        raise ValueError("it is empty: delete it, or restore it with `git checkout`")
    if mark := CONFLICT.search(text):
        line = text.count("\n", 0, mark.start()) + 1
        raise ValueError(f"line {line} is a mark of a merge conflict ({mark[1]}): resolve the conflict first")
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error}): restore it with `git checkout`") from None
    if not (isinstance(content, dict) and isinstance(content.get("cells", content.get("worksheets")), list)):
        raise ValueError("it is JSON, but no notebook: it has no list of cells")
    if content.get("nbformat") != 4:
        raise ValueError(f"its nbformat is {content.get('nbformat')!r}, not 4: save it from JupyterLab again")
    try:
        notebook = nbformat.v4.reads(text)
        _give_ids(notebook.cells)
        nbformat.validate(notebook | {"nbformat_minor": 5})
    except (nbformat.ValidationError, AttributeError, TypeError) as error:
        raise ValueError(f"it is no valid notebook: {str(error).strip().splitlines()[0]}") from None
    return notebook


def _give_ids(cells: list[NotebookNode]) -> None:
    """Gives each cell an id of its own where it has none, an invalid one, or an earlier cell's.

    The id is its place in the notebook, so that the same file gets the same ids.
    """
    taken = {cell.get("id") for cell in cells}
    seen = set()
    for place, cell in enumerate(cells):
        if not VALID_ID.fullmatch(str(cell.get("id", ""))) or cell.id in seen:
            cell.id = f"cell-{place}"
            while cell.id in taken:
                cell.id += "-"
            taken.add(cell.id)
        seen.add(cell.id)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy without what changes from run to run: timings, versions, widget ids, how streams were chunked.

    Its figures have 256 colours each, which makes the file a third as large.
    Execution counts stay: a fresh kernel counts 1..n, and a notebook run out of order must not look as if it
    was not.
    """
    notebook = copy.deepcopy(notebook)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    _give_ids(notebook.cells)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _normalised_outputs(cell.outputs)
    return notebook


def _normalised_outputs(outputs: list[NotebookNode]) -> list[NotebookNode]:
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
            continue
        if WIDGET in output.get("data", {}):  # its id is random, and without a kernel it shows nothing
            del output.data[WIDGET]
            output.metadata.pop(WIDGET, None)
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = in_256_colours(output.data["image/png"])
        if output.output_type == "stream" or output.get("data", True):
            kept.append(output)
    return kept


def in_256_colours(png: str) -> str:
    """The PNG, in base64, with a palette, on white; what has one already, or is no PNG, stays as it is."""
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(png)))
    except UnidentifiedImageError:
        return png
    if picture.mode == "P":
        return png
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    flat = Image.alpha_composite(white, picture).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    file = io.BytesIO()
    flat.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def to_bytes(notebook: NotebookNode) -> bytes:
    """The notebook as it lies on disk."""
    return (nbformat.v4.writes(notebook).rstrip("\n") + "\n").encode("utf-8")


# --- what must not be stored: it is true on one machine, or in one run, only ---


def _folders_of_this_machine() -> str:
    """A pattern for the folders that betray where this notebook ran, however deep below them a path goes."""
    folders = {ROOT, Path(sys.prefix), Path(tempfile.gettempdir())}
    try:
        folders.add(Path.home())
    except RuntimeError:  # a container's user without an entry in passwd
        pass
    own = "|".join(re.escape(str(folder)) for folder in folders if folder != folder.parent)
    return rf"(?<![\w.])(?:{own}|~[/\\]|/(?:home|root|Users|tmp|private|var/folders)/|[A-Z]:\\Users)"


UNFIT = {
    "a memory address, another one in each run": re.compile(r"\b0x[0-9A-Fa-f]{8,}"),
    "a path of this machine": re.compile(_folders_of_this_machine()),
    "a warning": re.compile(r"\b(?:[A-Z]\w*)?Warning: "),
}


def unfit_outputs(cell: NotebookNode) -> Iterator[str]:
    """What a code cell's outputs say that must not be stored, in words, each with the line it stands in."""
    for output in cell.outputs:
        texts = [output.get("text", ""), *output.get("traceback", [])]
        data = output.get("data", {}).items()
        texts += [str(value) for kind, value in data if not kind.startswith("image/")]
        text = "\n".join(texts).strip()
        if output.get("name") == "stderr":
            yield f"text on stderr: {text.splitlines()[0][:200] if text else 'blanks'}"
            continue
        for line in text.splitlines():
            for what, pattern in UNFIT.items():
                if pattern.search(line):
                    yield f"{what}: {line.strip()[:200]}"
