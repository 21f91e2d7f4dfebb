"""Runs the course: executes each notebook in a copy, and reports what it took and what failed.

python -m minialign.course               every notebook, into build/course/; the reader's files stay untouched
python -m minialign.course 01 02         only these; a path to a notebook works too
python -m minialign.course --in-place    also store the new outputs in the notebooks that passed

Stored outputs are normalised: running twice on one machine gives the same bytes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode

from minialign.course.effort import PATHS, Effort, effort, on_path
from minialign.course.page import to_html
from minialign.course.stored import MAY_RAISE, ROOT, normalise, read, to_bytes, unfit_outputs
from minialign.files import write_atomically

COURSE = "[0-9][0-9]_*.ipynb"  # the course's own notebooks; others in the folder are the reader's

# Variables that begin so say how Python, Jupyter, matplotlib or the terminal are set up on this machine.
FOREIGN = tuple("PYTHON IPYTHON JUPYTER JPY_ MPL MATPLOTLIB PYDEVD NO_COLOR COLUMNS LINES".split())


def kernel_environment(settings: Path) -> dict[str, str]:
    """The environment of a notebook's kernel, with this clone's minialign.

    Settings come from the folder `settings` only, figures are shown inline, the hash order is fixed, and
    there are no progress bars or debugger warnings. Where the work is done (OMP_NUM_THREADS,
    CUDA_VISIBLE_DEVICES and the like) stays the reader's choice.
    """
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(FOREIGN)}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",  # a random.py beside the notebook is not Python's
        "PYTHONNOUSERSITE": "1",
        "PYTHONHASHSEED": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "IPYTHONDIR": str(settings / "ipython"),
        "MPLCONFIGDIR": str(settings / "matplotlib"),
        "JUPYTER_CONFIG_DIR": str(settings / "jupyter"),
        "JUPYTER_DATA_DIR": str(settings / "jupyter"),
        "JUPYTER_RUNTIME_DIR": str(settings / "runtime"),
        "JUPYTER_NO_CONFIG": "1",
        "MINIALIGN_PROGRESS": "0",
    }


@contextmanager
def shielded() -> Iterator[Path]:
    """Inside, this process and its kernels have `kernel_environment`, with a settings folder that is new."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="minialign-", ignore_cleanup_errors=True) as settings:
        inside = kernel_environment(Path(settings))
        try:
            os.environ.clear()
            os.environ.update(inside)
            # matplotlib lists the fonts when it is first used, and says so on stderr if that takes long.
            list_fonts = [sys.executable, "-c", "import matplotlib.font_manager"]
            subprocess.run(list_fonts, stderr=subprocess.DEVNULL)
            yield Path(settings)
        finally:
            os.environ.clear()
            os.environ.update(before)


@dataclass(frozen=True)
class Result:
    """What one notebook took, and why it failed, if it did."""

    name: str
    seconds: float
    peak_mb: float
    failure: str | None
    effort: Effort | None = None  # of its reader; None if it could not be read


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
    """What the cell raised, with the last line of its message; None for nothing, or if it was allowed."""
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if not errors or MAY_RAISE & set(cell.metadata.get("tags", [])):
        return None
    lines = errors[0].evalue.strip().splitlines()
    return f"{errors[0].ename}: {lines[-1]}" if lines else errors[0].ename


def _unfit(cell: NotebookNode) -> str | None:
    """Why the cell's outputs must not be stored; None if they may."""
    return "; ".join(unfit_outputs(cell)) or None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def run_notebook(source: Path, output: Path, in_place: bool = False) -> Result:
    """Executes a copy of `source` in `output`, up to its first failing cell; writes it as .ipynb and .html.

    A page of its own, to be projected, holds what a lecture of ten minutes shows, and one that of twenty.
    With `in_place`, a notebook that passed is also stored, normalised, over `source`; then a cell whose
    output is fit for one machine or one run only fails too.
    """
    start, progress = time.perf_counter(), "starting"
    try:
        notebook = read(source)
    except (OSError, ValueError) as error:
        return Result(source.stem, 0.0, 0.0, f"to be read: {_one_line(error)}")
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for cell in cells:
        cell.outputs, cell.execution_count = [], None

    updating = sys.stdout.isatty()

    def tick() -> None:
        if updating:
            seconds = time.perf_counter() - start
            print(f"\r\x1b[K{source.stem}: {progress}, {seconds:.0f} s", end="", flush=True)

    kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisInterpreter())
    client = NotebookClient(
        notebook,
        km=kernel,
        resources={"metadata": {"path": str(output)}},
        allow_errors=True,
        record_timing=False,
    )
    failure = None
    with _Watch(tick) as watch, client.setup_kernel(cleanup_kc=True):
        for number, cell in enumerate(cells, 1):
            progress, cell_start = f"cell {number}/{len(cells)}", time.perf_counter()
            tick()
            try:
                client.execute_cell(cell, notebook.cells.index(cell))
                reason = _error(cell) or (_unfit(cell) if in_place else None)
            except DeadKernelError:
                reason = "the kernel died; often because the machine ran out of memory"
            if not updating:
                print(f"{source.stem}: {progress}, {time.perf_counter() - cell_start:.1f} s", flush=True)
            if reason:
                first_line = cell.source.strip().splitlines()[0]
                failure = f"in code cell {number} of {len(cells)}: {first_line}\n    {reason}"
                break
    if updating:
        print("\r\x1b[K", end="", flush=True)

    notebook = normalise(notebook)
    try:
        write_atomically(output / source.name, to_bytes(notebook))
        write_atomically(output / f"{source.stem}.html", to_html(notebook, source.stem))
        for minutes in PATHS:
            if shown := on_path(notebook.cells, minutes):
                lecture, name = NotebookNode(notebook | {"cells": shown}), f"{source.stem}.{minutes}-minutes"
                write_atomically(output / f"{name}.html", to_html(lecture, name))
        if in_place and not failure:
            write_atomically(source, to_bytes(notebook))
    except OSError as error:
        failure = failure or f"to be written: {_one_line(error)}"
    seconds = time.perf_counter() - start
    return Result(source.stem, seconds, watch.peak_mb, failure, effort(notebook.cells))


def _attempt(source: Path, output: Path, in_place: bool) -> Result:
    """`run_notebook`, which fails for one notebook only, whatever goes wrong."""
    start = time.perf_counter()
    try:
        return run_notebook(source, output, in_place)
    except Exception as error:
        failure = f"in the runner itself: {type(error).__name__}: {_one_line(error)}"
        return Result(source.stem, time.perf_counter() - start, 0.0, failure)


def find_notebooks(names: list[str], folder: Path = ROOT / "notebooks") -> list[Path]:
    """In reading order, the notebooks of `folder` whose names start with one of `names`.

    A name may be a path, too; without names, they are the course's own. Raises FileNotFoundError, with the
    notebooks there are, when a name fits none.
    """
    shelf = sorted(folder.glob("*.ipynb"))
    found: list[Path] = []
    for name in names or [COURSE]:
        matches = [Path(name)] if os.path.isfile(name) else []
        matches = matches or [path for path in shelf if path.name.startswith(name) or path.match(name)]
        if not matches:
            there = ", ".join(path.stem for path in shelf) or "none"
            raise FileNotFoundError(f"no notebook {name} in {folder.name}/; there are: {there}")
        found += [path for path in matches if path not in found]
    return found


def table(results: list[Result]) -> str:
    """A line for each notebook: what its run took, what its reader needs; then why runs failed."""
    width = max(len(name) for name in ("notebook", *(result.name for result in results)))
    lines = [f"{'':{width}}  the run:          the reader's minutes:"]
    lines.append(f"{'notebook':{width}}  seconds  peak MB  prose  code  exercises  result")
    for result in results:
        minutes = [str(part) for part in result.effort or "---"]
        lines.append(
            f"{result.name:{width}}  {result.seconds:7.0f}  {result.peak_mb:7.0f}  "
            f"{minutes[0]:>5}  {minutes[1]:>4}  {minutes[2]:>9}  {'FAIL' if result.failure else 'pass'}"
        )
    lines += [f"\n{result.name} failed {result.failure}" for result in results if result.failure]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 if every notebook passed, 1 if one failed, 2 if there is none, or no place to write."""
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
    try:
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    except OSError as error:
        parser.error(f"cannot write to {output} ({error.strerror}): name another folder with --output FOLDER")
    results: list[Result] = []
    status = 0
    try:
        with shielded():
            for source in sources:
                results.append(_attempt(source, output, options.in_place))
                status = 1 if results[-1].failure else status
    except KeyboardInterrupt:
        print("\ninterrupted: the notebook that was running is left as it was", file=sys.stderr)
        status = 130
    except OSError as error:
        parser.error(f"no place for temporary files ({error}): name one with TMPDIR=FOLDER")
    print(f"\n{table(results)}\n\nExecuted notebooks and HTML pages are in {os.path.relpath(output)}")
    return status
