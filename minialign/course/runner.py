"""Runs the course: executes each notebook in a copy, and reports what it took and what failed.

python -m minialign.course                  every notebook, into build/course/ (the reader's files stay
untouched) python -m minialign.course 01 02            only these; a path to a notebook works too python -m
minialign.course --in-place       also store the new outputs in the notebooks that passed

Stored outputs are normalised: running twice on one machine gives the same bytes.
"""

import argparse
import copy
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jinja2 import DictLoader
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from minialign.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
MAY_RAISE = {"raises-exception", "nbval-raises-exception"}
WIDGET = "application/vnd.jupyter.widget-view+json"

# JupyterLab's page, plus the figures' alt texts, which nbconvert leaves out.
TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{%- block data_png scoped -%}
{%- set alt = (output | get_metadata('alt', 'image/png') or '') | escape_html -%}
{{ super() | replace('<img', '<img alt="' ~ alt ~ '"', 1) }}
{%- endblock -%}"""


def kernel_environment() -> dict[str, str]:
    """The environment of a notebook's kernel: figures shown inline, hash order fixed, no progress bars or
    debugger warnings.
    """
    kept = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return kept | {"PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "MINIALIGN_PROGRESS": "0"}


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy without what changes from run to run: timings, versions, random widget ids, how streams were
    chunked.

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
        if output.output_type == "stream" or output.get("data", True):
            kept.append(output)
    return kept


def to_bytes(notebook: NotebookNode) -> bytes:
    """The notebook as it lies on disk."""
    return (nbformat.v4.writes(notebook).rstrip("\n") + "\n").encode("utf-8")


def to_html(notebook: NotebookNode, title: str) -> bytes:
    """The notebook as one HTML page."""
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"course.html.j2": TEMPLATE})], template_file="course.html.j2"
    )
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    return page.encode("utf-8")


@dataclass(frozen=True)
class Result:
    """What one notebook took, and why it failed, if it did."""

    name: str
    seconds: float
    peak_mb: float
    failure: str | None


class _ThisInterpreter(KernelSpecManager):
    """Kernels run the Python that runs this file, whatever `python3` means to the Jupyter of this machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict(extra_arguments=["--log-level=CRITICAL"]))


class _Watch:
    """Looks in five times a second: notes the peak memory (MB) of our child processes, and calls `tick`."""

    def __init__(self, tick: Callable[[], None]):
        self.peak_mb, self._tick, self._done = 0.0, tick, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while not self._done.wait(0.2):
            resident = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    resident += process.memory_info().rss
                except psutil.Error:  # it ended meanwhile
                    continue
            self.peak_mb = max(self.peak_mb, resident / 2**20)
            self._tick()

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        self._thread.join()


def _error(cell: NotebookNode) -> str | None:
    """What the cell raised, with the last line of its message; None if it raised nothing, or was
    allowed to.
    """
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors or MAY_RAISE & set(cell.metadata.get("tags", [])):
        return None
    lines = errors[0].evalue.strip().splitlines()
    return f"{errors[0].ename}: {lines[-1]}" if lines else errors[0].ename


def run_notebook(source: Path, output: Path, in_place: bool = False) -> Result:
    """Executes a copy of `source` in `output`, up to its first failing cell, and writes it there as .ipynb
    and .html.

    With `in_place`, a notebook that passed is also stored, normalised, over `source`.
    """
    notebook = nbformat.reads(source.read_text("utf-8"), as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None

    start, progress = time.perf_counter(), "starting"
    updating = sys.stdout.isatty()

    def tick() -> None:
        if updating:
            print(
                f"\r\x1b[K{source.stem}: {progress}, {time.perf_counter() - start:.0f} s", end="", flush=True
            )

    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisInterpreter())
    client = NotebookClient(
        notebook,
        km=kernel,
        resources={"metadata": {"path": str(output)}},
        allow_errors=True,
        record_timing=False,
    )
    failure = None
    with _Watch(tick) as watch, client.setup_kernel(env=kernel_environment(), cleanup_kc=True):
        for number, cell in enumerate(cells, 1):
            progress, cell_start = f"cell {number}/{len(cells)}", time.perf_counter()
            tick()
            try:
                client.execute_cell(cell, notebook.cells.index(cell))
                reason = _error(cell)
            except DeadKernelError:
                reason = "the kernel died; often because the machine ran out of memory"
            if not updating:
                print(f"{source.stem}: {progress}, {time.perf_counter() - cell_start:.1f} s", flush=True)
            if reason:
                failure = (
                    f"code cell {number} of {len(cells)}: {cell.source.strip().splitlines()[0]}\n    {reason}"
                )
                break
    if updating:
        print("\r\x1b[K", end="", flush=True)

    notebook = normalise(notebook)
    write_atomically(output / source.name, to_bytes(notebook))
    write_atomically(output / f"{source.stem}.html", to_html(notebook, source.stem))
    if in_place and not failure:
        write_atomically(source, to_bytes(notebook))
    return Result(source.stem, time.perf_counter() - start, watch.peak_mb, failure)


def find_notebooks(names: list[str], folder: Path = ROOT / "notebooks") -> list[Path]:
    """In reading order, the notebooks of `folder` whose names start with one of `names`; without names, all.
    Or paths.

    Raises FileNotFoundError, with the notebooks there are, when a name fits none.
    """
    shelf = sorted(folder.glob("*.ipynb"))
    found: list[Path] = []
    for name in names or [""]:
        matches = (
            [Path(name)] if Path(name).is_file() else [path for path in shelf if path.name.startswith(name)]
        )
        if not matches:
            there = ", ".join(path.stem for path in shelf) or "none"
            raise FileNotFoundError(f"no notebook {name or 'at all'} in {folder.name}/; there are: {there}")
        found += [path for path in matches if path not in found]
    return found


def table(results: list[Result]) -> str:
    """Notebook, seconds, peak memory, pass or fail, one line each; then where the failed ones stopped."""
    width = max(len("notebook"), *(len(result.name) for result in results))
    lines = [f"{'notebook':{width}}  seconds  peak MB  result"]
    lines += [
        f"{result.name:{width}}  {result.seconds:7.0f}  {result.peak_mb:7.0f}  "
        f"{'FAIL' if result.failure else 'pass'}"
        for result in results
    ]
    lines += [f"\n{result.name} failed in {result.failure}" for result in results if result.failure]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if every notebook passed, 1 if one failed, 2 if one could not be found."""
    parser = argparse.ArgumentParser(
        prog="python -m minialign.course", description="Run the notebooks in a copy."
    )
    parser.add_argument(
        "names", nargs="*", help="how notebook names start, or paths; all notebooks if none is given"
    )
    parser.add_argument(
        "--in-place", action="store_true", help="store the new outputs in the notebooks that passed"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "course", help="where copies and HTML go"
    )
    options = parser.parse_args(arguments)
    try:
        sources = find_notebooks(options.names)
    except FileNotFoundError as error:
        parser.error(str(error))
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        results = [run_notebook(source, output, options.in_place) for source in sources]
    except KeyboardInterrupt:
        print("\ninterrupted: the notebook that was running is left as it was", file=sys.stderr)
        return 130
    print(f"\n{table(results)}\n\nExecuted notebooks and HTML pages are in {os.path.relpath(output)}")
    return 1 if any(result.failure for result in results) else 0
