"""`make course` and `make notebooks`: what runs, what is reported, and what is left untouched."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from minialign.course import runner
from minialign.course.runner import find_notebooks, main, shielded
from minialign.course.stored import ROOT, normalise, to_bytes

PASSES = [
    "import os, sys\nprint(os.environ.get('MPLBACKEND'), os.environ['PYTHONHASHSEED'])",
    "import time\nfor i in range(3):\n    print(i, flush=True)\n    time.sleep(0.2)",
    ("1 / 0", "raises-exception"),
    ("{}['a']", "nbval-raises-exception"),
    "ballast = bytearray(300_000_000)\ntime.sleep(0.5)",
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
    assert [rows[path.stem][-1] for path in (bad, dead, good)] == ["FAIL", "FAIL", "pass"]
    assert rows["03_good"][2:5] == ["0", "1", "0"]  # seven lines of code, by the reader's rule
    assert 300 < float(rows["03_good"][1]) < 1000  # MB
    assert "01_bad failed in code cell 2 of 3: # first line\n    ValueError: two" in printed
    assert "02_dead failed in code cell 1 of 1: import os\n    the kernel died" in printed

    for path in (bad, dead, good):
        assert "Toy" in (output / f"{path.stem}.html").read_text("utf-8")
    cells = nbformat.read(output / good.name, as_version=4).cells
    assert cells[1].outputs[0].text.split() == ["module://matplotlib_inline.backend_inline", "0"]
    assert [cell.execution_count for cell in cells[1:]] == [1, 2, 3, 4, 5]


def test_a_lecture_has_a_page_of_its_own(tmp_path):
    cells = [new_markdown_cell("# Toy"), new_markdown_cell("ten", metadata={"tags": ["10-minutes"]})]
    cells += [new_code_cell("print(6 * 7)", metadata={"tags": ["20-minutes", "nbval-ignore-output"]})]
    path = tmp_path / "00_toy.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert main([str(path), "--output", str(tmp_path / "out")]) == 0
    pages = {page.name: page.read_text("utf-8") for page in (tmp_path / "out").glob("*.html")}
    assert set(pages) == {"00_toy.html", "00_toy.10-minutes.html", "00_toy.20-minutes.html"}
    found = {
        name: [word for word in (">Toy<", ">ten<", ">42") if word in page] for name, page in pages.items()
    }
    assert found["00_toy.10-minutes.html"] == [">ten<"]
    assert found["00_toy.20-minutes.html"] == [">ten<", ">42"]


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


# --- one bad notebook fails alone ---


def test_what_cannot_be_read_or_written_fails_alone(write, tmp_path, capsys, monkeypatch):
    good, full, odd = (write(name, ["1"]) for name in ("00_good", "01_full", "02_odd"))
    (tmp_path / "03_empty.ipynb").touch()
    (tmp_path / "04_folder.ipynb").mkdir()
    (tmp_path / "05_dangling.ipynb").symlink_to(tmp_path / "gone")
    last = write("06_last", ["1"])
    shelf = sorted(tmp_path.glob("*.ipynb"))
    monkeypatch.setattr(runner, "find_notebooks", lambda names: shelf)

    def full_disk(path, content, write_atomically=runner.write_atomically):
        if path.name == "01_full.html":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_atomically(path, content)

    def broken_page(notebook, title, to_html=runner.to_html):
        return to_html(notebook, title) if title != "02_odd" else {}["two\nlines"]

    monkeypatch.setattr(runner, "write_atomically", full_disk)
    monkeypatch.setattr(runner, "to_html", broken_page)
    before = full.read_bytes()

    assert main(["--in-place", "--output", str(tmp_path / "out")]) == 1

    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.endswith(("pass", "FAIL"))]
    assert {name: verdict for name, *_, verdict in rows} == {
        path.stem: "pass" if path in (good, last) else "FAIL" for path in shelf
    }
    for line in (
        "01_full failed to be written: [Errno 28] No space left on device",
        "02_odd failed in the runner itself: KeyError: 'two\\nlines'",
        "03_empty failed to be read: it is empty",
        "04_folder failed to be read: [Errno 21]",
        "05_dangling failed to be read: [Errno 2]",
    ):
        assert f"\n{line}" in printed
    assert full.read_bytes() == before and odd.exists()
    assert {path.name for path in (tmp_path / "out").glob("*.html")} == {"00_good.html", "06_last.html"}


def test_an_interrupt_keeps_what_is_known(write, tmp_path, capsys, monkeypatch):
    paths = [write("00_done", []), write("01_stopped", [])]

    def run(source, output, in_place):
        if source == paths[1]:
            raise KeyboardInterrupt
        return runner.Result(source.stem, 1.0, 2.0, None)

    monkeypatch.setattr(runner, "run_notebook", run)
    assert main([*map(str, paths), "--output", str(tmp_path)]) == 130
    printed = capsys.readouterr()
    assert "00_done" in printed.out and "01_stopped" not in printed.out and "interrupted" in printed.err


def test_a_place_that_takes_no_files_is_named_in_one_line(write, tmp_path, capsys, monkeypatch):
    path = write("00_good", ["1"])
    for output in (path, path / "below", Path("/proc/nope"), Path("/proc/self")):
        with pytest.raises(SystemExit, match="2"):
            main([str(path), "--output", str(output)])
        *_, message = capsys.readouterr().err.splitlines()
        assert f"cannot write to {output.resolve()}" in message and "--output FOLDER" in message
    monkeypatch.setattr(runner.tempfile, "tempdir", "/proc/nope")
    with pytest.raises(SystemExit, match="2"):
        main([str(path), "--output", str(tmp_path)])
    assert "TMPDIR=FOLDER" in capsys.readouterr().err.splitlines()[-1]


# --- what must not be stored ---

UNFIT = {
    "text on stderr: careful": "import sys\nprint('careful', file=sys.stderr)",
    "a memory address, another one in each run: <object at 0x": "object()",
    f"a path of this machine: {sys.prefix}": "import sys\nprint(sys.prefix)",
    "a warning: UserWarning: careful": "print('UserWarning: careful')",
}


def test_what_holds_on_this_machine_only_is_not_stored(write, tmp_path, capsys):
    paths = [write(f"0{i}_unfit", ["'fine'", source, "3"]) for i, source in enumerate(UNFIT.values())]
    before = [path.read_bytes() for path in paths]
    assert main([*map(str, paths), "--in-place", "--output", str(tmp_path / "out")]) == 1
    assert [path.read_bytes() for path in paths] == before
    printed = capsys.readouterr().out
    for i, (what, source) in enumerate(UNFIT.items()):
        assert f"0{i}_unfit failed in code cell 2 of 3: {source.splitlines()[0]}\n    {what}" in printed
    assert main([str(paths[0]), "--output", str(tmp_path / "out")]) == 0  # a reader's copy may say anything


# --- kernels do not see what is not ours ---

SHIELDED = [
    "a = 1\na\nb = 2\nb",
    "from matplotlib import pyplot as plt\nlines = plt.plot([1, 2])\nlines[0].get_linewidth()",
    "plt.close()\nimport wave, tqdm, minialign\nimport os, sys\nfrom pathlib import Path",
    "import shutil\nshutil.get_terminal_size().columns, 'NO_COLOR' in os.environ",
    "import builtins\n'foreign' in {*globals(), *dir(builtins)}",
    f"Path(minialign.__file__).is_relative_to({str(ROOT)!r})",
    "assert sys.flags.optimize == 0\nos.environ['OMP_NUM_THREADS'], os.environ['CUDA_VISIBLE_DEVICES']",
]


@pytest.fixture
def foreign(tmp_path):
    """An environment full of somebody else's settings, each of which would change what a notebook says."""
    folder = tmp_path / "foreign"
    files = {
        "ipython/profile_default/ipython_config.py": "c.InteractiveShell.ast_node_interactivity = 'all'",
        "ipython/profile_default/startup/start.py": "foreign = 1",
        "matplotlib/matplotlibrc": "lines.linewidth: 9\nnonsense: 1",
        "jupyter/kernels/python3/kernel.json": '{"argv": ["false"], "display_name": "", "language": ""}',
        "modules/wave.py": "raise ImportError('foreign')",
        "../out/tqdm.py": "raise ImportError('foreign')",
        "modules/sitecustomize.py": "import builtins\nbuiltins.foreign = 1",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, "utf-8")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7", "utf-8")
    environment = {
        "HOME": "/proc/nope",
        "IPYTHONDIR": folder / "ipython",
        "MPLCONFIGDIR": folder / "matplotlib",
        "MATPLOTLIBRC": folder / "matplotlib",
        "MPLBACKEND": "agg",
        "XDG_CONFIG_HOME": folder,
        "JUPYTER_PATH": folder / "jupyter",
        "JUPYTER_PREFER_ENV_PATH": "0",
        "JUPYTER_RUNTIME_DIR": "/proc/nope",
        "PYTHONPATH": os.pathsep.join(map(str, [folder / "modules", ROOT / "tests", *sys.path])),
        "PYTHONSTARTUP": folder / "ipython/profile_default/startup/start.py",
        "PYTHONWARNINGS": "always",
        "PYTHONOPTIMIZE": "2",
        "NO_COLOR": "1",
        "COLUMNS": "7",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return os.environ | {name: str(value) for name, value in environment.items()}


def test_kernels_are_shielded_from_foreign_settings(write, tmp_path, foreign, monkeypatch):
    """The runner stores the same bytes, and nbval finds nothing that differs."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    path = write("00_shielded", SHIELDED)
    arguments = [str(path), "--in-place", "--output", str(tmp_path / "out")]
    assert main(arguments) == 0
    stored = path.read_bytes()
    results = [
        cell.outputs[0].data["text/plain"] for cell in nbformat.reads(stored, 4).cells if cell.get("outputs")
    ]
    assert results[0] == "2" and results[-3:] == ["False", "True", "('1', '')"]

    def run(*command):
        command = [sys.executable, "-m", *command]
        return subprocess.run(command, env=foreign, cwd=tmp_path, capture_output=True, text=True)

    again = run("minialign.course", *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert path.read_bytes() == stored

    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    compared = run("pytest", "-q", "--nbval", "--nbval-current-env", "-p", "no:cacheprovider", path.name)
    assert compared.returncode == 0 and f"{len(SHIELDED)} passed" in compared.stdout, compared.stdout


def test_the_shield_is_gone_afterwards(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    before = dict(os.environ)
    with shielded():
        settings = Path(os.environ["MPLCONFIGDIR"])
        assert list(settings.glob("fontlist*.json")) and "MPLBACKEND" not in os.environ
    assert dict(os.environ) == before and not settings.exists()


def test_the_readers_own_notebooks_are_not_the_courses(tmp_path):
    for name in ("00_a", "Untitled", "scratch_01", "1_b"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in find_notebooks([], tmp_path)] == ["00_a"]
    assert [path.stem for path in find_notebooks(["Untitled"], tmp_path)] == ["Untitled"]


def test_find_notebooks(tmp_path):
    for name in ("01_b", "00_a", "02_c"):
        (tmp_path / f"{name}.ipynb").touch()
    assert [path.stem for path in find_notebooks([], tmp_path)] == ["00_a", "01_b", "02_c"]
    assert [path.stem for path in find_notebooks(["02", "01", "02_c"], tmp_path)] == ["02_c", "01_b"]
    assert find_notebooks([str(tmp_path / "00_a.ipynb")], tmp_path) == [tmp_path / "00_a.ipynb"]
    with pytest.raises(FileNotFoundError, match="no notebook 07 in .*there are: 00_a, 01_b, 02_c"):
        find_notebooks(["07"], tmp_path)
    with pytest.raises(FileNotFoundError, match="there are: none"):
        find_notebooks([], tmp_path / "empty")
