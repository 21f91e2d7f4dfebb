"""The tolerance in both directions: what may differ between two machines, and what must not; and that nbval
uses it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbval_tolerance import Tolerant

ROOT = Path(__file__).resolve().parents[1]

SAME = [
    ("loss 0.6931", "loss 0.6931"),
    ("loss 0.6931", "loss 0.6932"),  # the last digit
    ("p = 0.9999", "p = 1.0000"),
    ("gap -0.001", "gap 0.000"),
    ("loss 2.30259 at 1.5e-05", "loss 2.30263 at 1.501e-05"),  # far below 2e-3
    ("tensor([0.123456, 4.5])", "tensor([0.123457, 4.5])"),
    ("a   9.999  3 b", "a  10.000  3 b"),  # a column moved
    ("gold: 0.38 (asked: above 0.2): True", "gold: 0.91 (asked: above 0.2): True"),  # a claim's number
    ("a\nin a: 0.3 0.4 (asked: below 1): True\nb", "a\nin a: 0.1 -2e-5 (asked: below 1): True\nb"),
    ("a: 0.6 [0.5, 0.7] (asked: above 0): True", "a: 0.5 [0.1, 0.8] (asked: above 0): True"),
    ("a: 60% 1,234 (asked: above 0): True", "a: 5% 9 (asked: above 0): True"),
]
DIFFERENT = [
    ("gold: 0.38 (asked: above 0.2): True", "gold: 0.11 (asked: above 0.2): False"),
    ("gold: 0.38 (asked: above 0.2): True", "gold: 0.38 (asked: above 0.3): True"),
    ("gold 1: 0.38 (asked: above 0.2): True", "gold 2: 0.38 (asked: above 0.2): True"),
    ("gold: 0.38 (asked: above 0.2): True", "gold: gone (asked: above 0.2): True"),
    ("gold: 0.38 (asked: above 0.2)", "gold: 0.11 (asked: above 0.2)"),
    ("loss 0.6931", "loss 0.7001"),  # 1 %
    ("loss 693.1", "loss 700.1"),
    ("1.000e-05", "1.010e-05"),
    ("rate 1e-05", "rate 1e-04"),
    ("gap -0.1234", "gap 0.1234"),
    ("step 12, loss 0.6931", "step 13, loss 0.6931"),  # an integer
    ("there are 3.", "there are 4."),
    ("accuracy 0.9500: True", "accuracy 0.9500: False"),  # a word
    ("chosen 0.5000", "rejected 0.5000"),
    ("0.1000 0.2000", "0.1000"),  # a missing number
    ("0.1000", "0.1000 0.2000"),
    ("loss 0.6931", "loss nan"),
    ("loss 0.6931", "loss"),
    ("0.1000\n0.2000", "0.1000 0.2000"),  # a missing line
    ("sha 3e10ab", "sha 4e10ab"),
    ("top-p2.0010", "top-p2.0011"),  # a name
    ("1 23", "12 3"),
]


@pytest.mark.parametrize(("reference", "test"), SAME)
def test_agree(reference, test):
    assert Tolerant(reference) == Tolerant(test)


@pytest.mark.parametrize(("reference", "test"), DIFFERENT)
def test_disagree(reference, test):
    assert Tolerant(reference) != Tolerant(test)


def test_nbval_uses_it(tmp_path):
    """One cell, stored once with drift and three times with a real change; MPLBACKEND does not make its
    figures vanish.
    """
    source = "import os\nprint('3 steps, loss 0.6931,', os.environ['MPLBACKEND'].split('.')[-1])"
    stored = {
        "00_drift": "3 steps, loss 0.6932, backend_inline\n",
        "01_number": "3 steps, loss 0.7001, backend_inline\n",
        "02_integer": "4 steps, loss 0.6931, backend_inline\n",
        "03_word": "3 steps, cost 0.6931, backend_inline\n",
    }
    for name, text in stored.items():
        cell = new_code_cell(
            source, execution_count=1, outputs=[new_output("stream", name="stdout", text=text)]
        )
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    (tmp_path / "Untitled.ipynb").write_text("the reader's own, and no notebook", "utf-8")
    shutil.copy(ROOT / "notebooks" / "conftest.py", tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-rA", "--color=no"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    verdicts = dict(
        reversed(pair) for pair in re.findall(r"^(PASSED|FAILED) \d\d_(\w+)\.ipynb::Cell 0", run.stdout, re.M)
    )
    expected = {"drift": "PASSED", "number": "FAILED", "integer": "FAILED", "word": "FAILED"}
    assert verdicts == expected, run.stdout
