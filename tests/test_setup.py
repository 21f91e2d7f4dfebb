"""`make setup`: a whole .venv whatever the reader's machine holds, or one line that says what to do."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
set_up = SimpleNamespace(**runpy.run_path(str(ROOT / "set_up.py")))

# --- a clone of the test's own, and Pythons that only say what they are asked ---

# Stands in for a Python, and for the one in the .venv that it makes.
STUB = """#!/bin/sh
case "$*" in
  set_up.py) echo "CPython {version} Linux x86_64 glibc 2.36"; exit {unfit} ;;
  "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-c import pip") exit {without_pip} ;;
  "set_up.py install"*) echo "$*"; exit {pip_fails} ;;
  *) echo "ran $*" ;;
esac
"""


def write_stub(path, version="3.12.1", **fails):
    path.parent.mkdir(parents=True, exist_ok=True)
    statuses = {name: int(fails.get(name, False)) for name in ("unfit", "without_pip", "pip_fails")}
    path.write_text(STUB.format(version=version, **statuses), "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def clone(tmp_path):
    """The files that set-up reads. Beside them, python3.12 is a stub."""
    folder = tmp_path / "clone"
    (folder / "tests").mkdir(parents=True)
    for name in ("Makefile", "set_up.py"):
        shutil.copy(ROOT / name, folder)
    for name in ("pyproject.toml", "requirements.txt", "tests/requirements.txt"):
        (folder / name).touch()
    write_stub(tmp_path / "bin/python3.12")
    return folder


def make(folder, *arguments, user=None, **environment):
    """The status of `make` and what it prints, in an environment without the settings of this test's own."""
    theirs = re.compile("PYTHON|PIP_|MAKE|MFLAGS|XDG_|VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not theirs.match(name)}
    command = ["make", "--no-print-directory", *arguments]
    run = subprocess.run(
        command,
        cwd=folder,
        env=clean | environment,
        user=user,
        text=True,
        stdout=-1,
        stderr=subprocess.STDOUT,
    )
    return run.returncode, re.sub(r"^make: \*\*\*.*\n", "", run.stdout, flags=re.M)


@pytest.fixture
def setup(clone):
    """setup(...) is `make setup` with the stub."""

    def setup(*arguments, folder=clone, **options):
        return make(
            folder, *(arguments or ("setup",)), f"PYTHON={clone.parent / 'bin/python3.12'}", **options
        )

    return setup


# --- which Python ---

GOOD = ("CPython", "3.13.1", "Linux", "x86_64", "glibc 2.28")


@pytest.mark.parametrize(
    "there",
    [
        GOOD,
        ("CPython", "3.11.0", "Linux", "aarch64", "glibc 2.41"),
        ("CPython", "3.14.0rc1", "macOS", "arm64", "14.0"),
        ("CPython", "3.12.4", "macOS", "arm64", "26.1"),
    ],
)
def test_there_are_wheels(there):
    assert set_up.has_wheels(*there)


@pytest.mark.parametrize(
    "other",
    [
        {1: "3.10.13"},
        {1: "3.15.0a2"},
        {1: "2.7.18"},
        {0: "PyPy"},
        {0: "free-threaded CPython"},
        {0: "32-bit CPython"},
        {3: "riscv64"},
        {3: "armv7l"},
        {4: "glibc 2.27"},  # Ubuntu 18.04
        {4: "musl 1.2.5"},
        {4: ""},  # musl, to an older Python
        {2: "macOS", 4: "15.1"},  # an Intel Mac, or an Intel Python on another
        {2: "macOS", 3: "arm64", 4: "13.7"},
        {2: "Windows", 3: "AMD64", 4: ""},
        {2: "MSYS_NT-10.0", 4: ""},
    ],
)
def test_there_are_no_wheels(other):
    assert not set_up.has_wheels(*(other.get(i, fact) for i, fact in enumerate(GOOD)))


def test_this_python_has_wheels_and_says_so():
    run = subprocess.run([sys.executable, "set_up.py"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0 and set_up.has_wheels(*set_up.this_python())
    assert run.stdout.split()[1] == ".".join(map(str, sys.version_info[:3]))


def test_a_python_that_will_not_do_is_described(setup, clone):
    write_stub(clone.parent / "bin/python3.12", version="3.15.0", unfit=True)
    status, printed = setup()
    assert status and not (clone / ".venv").exists()
    (line,) = printed.splitlines()
    assert "Python 3.11 to 3.14" in line and "Apple silicon" in line and "glibc 2.28" in line
    assert "python3.12: CPython 3.15.0 Linux x86_64 glibc 2.36;" in line and "make setup PYTHON=" in line


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (">&2 echo 'pyenv: no such command'; echo 'See help'; exit 127", "pyenv: no such command"),
        ("echo 'xcode-select: no developer tools'; exit 1", "xcode-select: no developer tools"),
        ("exit 1", ""),
    ],
)
def test_a_python_that_does_not_run_speaks_for_itself(setup, clone, script, words):
    (clone.parent / "bin/python3.12").write_text(f"#!/bin/sh\n{script}\n")
    status, printed = setup()
    assert status and len(printed.splitlines()) == 1
    assert f"python3.12: {words};" in printed and "See help" not in printed


def test_without_a_python_of_our_names(clone, tmp_path):
    """Only what is there is named, and the first that will do is taken."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "sh", "cat", "ls", "find", "mkdir", "rm", "cp", "tee", "awk", "env"):
        (tools / tool).symlink_to(shutil.which(tool))
    write_stub(tools / "python3.11", version="3.11.9", unfit=True)
    (tools / "make").symlink_to(shutil.which("make"))
    status, printed = make(clone, "setup", PATH=str(tools))
    assert status and "found: python3.11: CPython 3.11.9 " in printed and "python3.13" not in printed
    write_stub(tools / "python3", version="3.14.2")
    status, printed = make(clone, "setup", PATH=str(tools))
    assert not status and "Making .venv with python3 (CPython 3.14.2 " in printed


# --- whose .venv ---


def test_set_up_once(setup, clone):
    status, printed = setup()
    assert not status and printed.endswith(".venv is ready\n")
    log = (clone / ".venv/setup.log").read_text()
    assert "-r requirements.txt" in log and "-e ." in log
    assert setup() == (0, ".venv is ready\n")
    (clone / "requirements.txt").write_text("")  # newer: the packages are due, the .venv stays
    os.utime(clone / ".venv/.setup", (1, 1))
    (clone / ".venv/bin/kept").touch()
    status, printed = setup()
    assert not status and "Making" not in printed and "Setting up .venv" in printed
    assert (clone / ".venv/bin/kept").exists()


@pytest.mark.parametrize("relocate", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_clone_makes_its_venv_anew(setup, clone, relocate):
    setup()
    script = clone / ".venv/bin/jupyter"
    script.write_text(f"#!{clone}/.venv/bin/python")
    new = clone.with_name("L'été 1 (copie)")
    relocate(clone, new)
    status, printed = setup(folder=new)
    assert not status and "Making .venv" in printed, printed
    assert not (new / ".venv/bin/jupyter").exists()
    assert setup(folder=new) == (0, ".venv is ready\n")
    assert script.exists() == (relocate is shutil.copytree)  # the old one is left alone


@pytest.mark.parametrize("left_behind", [{"without_pip": True}, {"unfit": True}, None])
def test_an_interrupted_venv_of_ours_is_made_anew(setup, clone, left_behind):
    """Ended by Ctrl-C in the middle of `venv`, or its Python was taken away since."""
    setup()
    (clone / ".venv/.setup").unlink()
    (clone / ".venv/bin/python").unlink()
    if left_behind:
        write_stub(clone / ".venv/bin/python", **left_behind)
    status, printed = setup()
    assert not status and "Making .venv" in printed, printed


def test_a_venv_that_is_a_link_stays_one(setup, clone):
    """To a disk with more room."""
    (clone.parent / "scratch").mkdir()
    (clone / ".venv").symlink_to(clone.parent / "scratch")
    assert setup()[0] == 0 and (clone / ".venv").is_symlink()
    (clone / ".venv/.made-in").write_text("/another/place")
    (clone / ".venv/.setup").unlink()
    status, printed = setup()
    assert not status and "Making" in printed and (clone / ".venv").is_symlink()


@pytest.mark.parametrize("python", [{"without_pip": True}, {"unfit": True, "version": "3.9.6"}, None])
def test_a_venv_of_the_readers_own_is_never_cleared(setup, clone, python):
    """Made by uv (without pip), by an old Python, by conda for another language."""
    if python:
        write_stub(clone / ".venv/bin/python", **python)
    own = clone / ".venv/own.txt"
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    status, printed = setup()
    assert status and own.read_text() == "mine" and not (clone / ".venv/setup.log").exists()
    (line,) = printed.splitlines()
    assert ".venv here is not of make's making" in line and "mv .venv .venv-old" in line


def test_a_venv_of_the_readers_own_that_will_do_is_used(setup, clone):
    write_stub(clone / ".venv/bin/python")
    (clone / ".venv/own.txt").write_text("mine")
    status, printed = setup()
    assert not status and "Making" not in printed and (clone / ".venv/own.txt").exists()
    moved = clone.rename(clone.with_name("moved"))
    status, printed = setup(folder=moved)
    assert not status and "Making" not in printed and (moved / ".venv/own.txt").exists()


def test_a_file_called_venv(setup, clone):
    (clone / ".venv").write_text("3.12")  # pyenv-virtualenv and others keep a name in such a file
    status, printed = setup()
    assert status and "move it away" in printed and (clone / ".venv").read_text() == "3.12"


def test_pip_that_fails_is_taken_up_again(setup, clone):
    write_stub(clone.parent / "bin/python3.12", pip_fails=True)
    status, printed = setup()
    assert status and "Set-up stopped while installing requirements.txt" in printed
    assert not (clone / ".venv/.setup").exists()
    write_stub(clone / ".venv/bin/python")
    status, printed = setup()
    assert not status and "Making" not in printed


# --- the reader's settings ---


def test_only_the_road_to_packages_is_the_readers():
    listing = """\
:env:.find-links='/opt/wheels'
:env:.no-deps='1'
:env:.index-url=''
download.proxy='http://download'
global.constraint='/etc/caps.txt'
global.extra-index-url='https://one\\nhttps://two?a=b'
global.find-links='/global'
global.index-url='https://me:p%40ss@mirror/simple'
global.target='/elsewhere'
global.timeout='1'
install.timeout='2'
install.user='true'
no such line
"""
    assert set_up.road(listing) == {
        "PIP_FIND_LINKS": "/opt/wheels",
        "PIP_CONSTRAINT": "/etc/caps.txt",
        "PIP_EXTRA_INDEX_URL": "https://one\nhttps://two?a=b",
        "PIP_INDEX_URL": "https://me:p%40ss@mirror/simple",
        "PIP_TIMEOUT": "2",
    }


def write_wheel(folder, name, requires=()):
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += "".join(f"Requires-Dist: {other}\n" for other in requires)
    files = {
        f"{name}.py": "",
        f"{name}-1.0.dist-info/METADATA": metadata,
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{name}-1.0.dist-info/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for file, content in (files | {f"{name}-1.0.dist-info/RECORD": record}).items():
            wheel.writestr(file, content)


def test_settings_for_other_projects_do_not_leave_the_venv_without_packages(clone, tmp_path):
    """A real Python and a real pip: packages from a folder that pip.conf names, without a network."""
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "tiny", requires=["tinier"])
    write_wheel(wheels, "tinier")
    (clone / "requirements.txt").write_text("tiny==1.0\n")
    (clone / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    write_wheel(clone, "course")
    (clone / "backend.py").write_text(
        "import pathlib, shutil\n"
        "def build_editable(folder, *_):\n"
        "    return pathlib.Path(shutil.copy('course-1.0-py3-none-any.whl', folder)).name\n"
    )
    modules = tmp_path / "modules"  # what a cluster's `module load` puts on PYTHONPATH
    for name in ("tiny", "tinier"):
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl") as wheel:
            wheel.extractall(modules)
    pip_conf = tmp_path / "home/.config/pip/pip.conf"
    pip_conf.parent.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    pip_conf.write_text(
        f"[global]\nfind-links = {wheels}\nno-index = true\nquiet = 3\n"
        f"[install]\nuser = true\nno-deps = true\nprefix = {elsewhere}\n"
    )
    status, printed = make(
        clone,
        "setup",
        f"PYTHON={sys.executable}",
        HOME=str(tmp_path / "home"),
        PYTHONPATH=str(modules),
        PYTHONHOME=str(elsewhere),
        PYTHONINSPECT="1",
        PYTHONWARNINGS="error",
        PIP_TARGET=str(elsewhere),
        PIP_ROOT=str(elsewhere),
        PIP_PYTHON=str(elsewhere),
        PIP_NO_BINARY=":all:",
        PIP_REQUIRE_HASHES="1",
        PIP_DRY_RUN="1",
    )
    assert not status, printed
    code = "import tiny, tinier, course; print(tiny.__file__, tinier.__file__)"
    run = subprocess.run([clone / ".venv/bin/python", "-I", "-c", code], capture_output=True, text=True)
    assert not run.returncode, run.stderr
    assert all(Path(file).is_relative_to(clone / ".venv") for file in run.stdout.split())
    assert not elsewhere.exists()


def test_a_pip_conf_that_cannot_be_read_is_named(clone, tmp_path):
    broken = tmp_path / "pip.conf"
    broken.write_text("[global\n")
    run = subprocess.run(
        [sys.executable, "set_up.py", "install", "tiny"],
        cwd=clone,
        env=os.environ | {"PIP_CONFIG_FILE": str(broken)},
        capture_output=True,
        text=True,
    )
    assert run.returncode and str(broken) in run.stderr and "Traceback" not in run.stderr


# --- the commands on a machine that is not the reader's alone ---


@pytest.mark.parametrize(("user", "allowed"), [("0", True), ("1000", False)])
def test_lab_opens_for_root_too(setup, clone, user, allowed):
    (clone.parent / "bin/id").write_text(f"#!/bin/sh\necho {user}\n")
    (clone.parent / "bin/id").chmod(0o755)
    setup()
    found = f"{clone.parent / 'bin'}:{os.environ['PATH']}"
    status, printed = setup("lab", PATH=found, HOME=str(clone.parent))
    assert not status and printed.startswith("ran -c import sys, minialign; from jupyterlab")
    assert " --notebook-dir=notebooks" in printed
    assert ("--allow-root" in printed) == allowed


@pytest.mark.parametrize("home", ["", "/proc/nope"])
def test_lab_without_a_home_says_what_to_do(setup, home):
    setup()
    status, printed = setup("lab", HOME=home)
    assert status and printed.count("\n") == 1 and printed.endswith("HOME=/tmp make lab\n")


@pytest.fixture
def shared(setup, clone):
    """A clone that is set up and may be read by all, and written by nobody; and who reads it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        there = Path(folder) / "shared"
        shutil.copytree(clone, there)
        shutil.copy(clone.parent / "bin/python3.12", folder)
        assert make(there, "setup", f"PYTHON={folder}/python3.12")[0] == 0
        (there / ".venv/.setup-tests").touch()
        reader = 65534 if os.getuid() == 0 else None  # root may write anywhere
        home = Path(folder) / "home"
        home.mkdir()
        home.chmod(0o777)
        writable = [there, there / ".venv"]

        def run(target):
            for path in writable:
                path.chmod(0o555)
            result = make(there, target, user=reader, HOME=str(home))
            for path in writable:
                path.chmod(0o755)
            return result

        run.folder = there
        yield run


@pytest.mark.parametrize("target", ["course", "lab"])
def test_a_shared_clone_that_is_set_up_runs(shared, target):
    status, printed = shared(target)
    assert not status and printed.startswith("ran -")


@pytest.mark.parametrize("target", ["setup", "course", "lab", "test"])
@pytest.mark.parametrize("missing", [".venv", ".venv/.setup", "nothing but the folder's name"])
def test_a_shared_clone_that_is_not_set_up_says_to_copy_it(shared, target, missing):
    if missing == ".venv":
        shutil.rmtree(shared.folder / missing)
        (shared.folder / ".venv").mkdir()
    elif missing == ".venv/.setup":
        (shared.folder / missing).unlink()
    else:
        (shared.folder / ".venv/.setup").write_text("/mounted/elsewhere")
    status, printed = shared(target)
    assert status
    (line,) = printed.splitlines()
    assert f'cp -R "{shared.folder}" ~/minialign' in line
