"""Torch's threads beside other work: what is set, when, and that a reader's own choice stays."""

import os
import subprocess
import sys

import pytest
import torch
from engine import TINY, lively_gpt

from minialign import sampling
from minialign.gpt import GPT, GPTConfig
from minialign.sampling import generate

OURS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")


def printed(code, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    run = [sys.executable, "-c", code]
    return subprocess.run(
        run, env=kept | environment, capture_output=True, text=True, check=True
    ).stdout.split()


def test_the_threads_are_told_to_sleep_before_torch_is_there():
    """OpenMP reads its settings once, when torch loads it."""
    code = "import minialign, os, sys; print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    there, spins = printed(code)
    assert there == "False" and 0 < int(spins) < 300_000  # libgomp's own number


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_a_readers_own_choice_is_left_alone(name):
    code = "import minialign, os; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    expected = {"GOMP_SPINCOUNT": ["5", "None"], "OMP_WAIT_POLICY": ["None", "active"]}[name]
    assert printed(code, **{name: {"GOMP_SPINCOUNT": "5", "OMP_WAIT_POLICY": "active"}[name]}) == expected


@pytest.fixture
def threads_of(monkeypatch):
    """threads_of(model, …): with how many threads its steps of sampling run, where torch has two."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def threads_of(model, **options):
        seen, hidden = set(), model.hidden
        monkeypatch.setattr(
            model, "hidden", lambda *arguments: seen.add(torch.get_num_threads()) or hidden(*arguments)
        )
        generate(model, [[1, 2], [3]], max_new_tokens=4, **options)
        assert torch.get_num_threads() == 2, "afterwards they are as they were"
        return seen

    yield threads_of
    torch.set_num_threads(before)


def test_a_small_model_is_sampled_by_one_thread(threads_of, toy_data, monkeypatch):
    assert threads_of(lively_gpt()) == {1}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads_of(lively_gpt()) == {2}, "unless the reader says how many"


def test_many_rows_are_shared_by_all_of_them(threads_of):
    model = GPT(GPTConfig(n_layer=1))
    parameters = sum(p.numel() for p in model.parameters())
    many = 300_000_000 // (2 * parameters)  # samples of each of two prompts
    assert threads_of(model, n=many) == {1}
    assert threads_of(model, n=many + 1) == {2}


def test_a_large_model_is_sampled_by_all_of_them(threads_of):
    model = GPT(GPTConfig(n_layer=1, n_head=8, n_embd=1024))
    assert sum(p.numel() for p in model.parameters()) > 10_000_000
    assert threads_of(model) == {2}


def test_an_error_leaves_the_threads_as_they_were(threads_of, toy_data, monkeypatch):
    model = lively_gpt(TINY)
    monkeypatch.setattr(sampling, "packed", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        threads_of(model)
    assert torch.get_num_threads() == 2
