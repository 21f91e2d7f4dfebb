"""Installed from a wheel, as on a hosted notebook: the data come along, and the first three lines work."""

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from minialign.world.topics import load_topics

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--no-cache-dir", "--disable-pip-version-check"]


def run(*command, cwd):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from the source distribution, and that from a copy of the repository: both must be whole."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("minialign", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta; build_meta.build_sdist('.')"
    made = run(sys.executable, "-c", build, cwd=folder)
    assert not made.returncode, made.stderr
    (source,) = folder.glob("*.tar.gz")
    made = run(*PIP, "wheel", "--no-deps", "--no-build-isolation", source, "-w", "wheel", cwd=folder)
    assert not made.returncode, made.stderr
    return next((folder / "wheel").glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The Python of an environment with nothing but the wheel; torch and the like are borrowed from ours."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    made = run(*PIP, "--python", python, "install", "--no-deps", wheel, cwd=folder)
    assert not made.returncode, made.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    (site / "data").mkdir()  # other packages leave such folders there: it is not ours
    return python


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_is_whole(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    modules = {name for name in files_below(ROOT / "minialign") if name.endswith((".py", ".woff2"))}
    expected = {f"minialign/{name}" for name in modules}
    expected |= {f"minialign/data/{name}" for name in files_below(ROOT / "data")}
    assert {name for name in inside if ".dist-info/" not in name} == expected


def test_the_first_cell_of_the_readme_runs(python, tmp_path):
    section = (ROOT / "README.md").read_text("utf-8").split("## On a hosted notebook")[1]
    install, *cell = re.search(r"```python\n(.*?)```", section, re.S)[1].splitlines()
    assert install.startswith("%pip install ") and len(cell) == 2
    where = "print(minialign.__file__)"
    ran = run(python, "-c", "\n".join([*cell, where]), cwd=tmp_path)
    assert not ran.returncode, ran.stderr
    *answer, file = ran.stdout.splitlines()
    assert Path(file).is_relative_to(python.parents[1])
    expected = "import minialign; " + cell[1]
    assert "\n".join(answer) + "\n" == run(sys.executable, "-c", expected, cwd=ROOT).stdout


def test_the_world_and_the_course_are_there_too(python, tmp_path):
    code = (
        "from minialign.course import lesson; from minialign.world.topics import *; print(len(load_topics()))"
    )
    ran = run(python, "-c", code, cwd=tmp_path)
    assert not ran.returncode and int(ran.stdout) == len(load_topics()), ran.stderr


def test_without_notebooks_the_course_says_where_they_are(python, tmp_path):
    ran = run(python, "-m", "minialign.course", cwd=tmp_path)
    assert ran.returncode == 1 and not ran.stdout
    assert ran.stderr == (
        "an installed package has no notebooks: clone the repository and run `make course` there\n"
    )
