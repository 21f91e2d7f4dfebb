"""Loading a checkpoint: whole and vouched for by MANIFEST.json, or one line that says what to do."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch
from engine import TINY, lively_gpt, same_parameters
from safetensors.torch import save

from minialign import files
from minialign.checkpoints import _say_once, dump_checkpoint, load, load_checkpoint, pick_device
from minialign.course.build import publish
from minialign.files import read_manifest, write_atomically
from minialign.gpt import GPT, GPTConfig

BASE = "checkpoints/base.safetensors"


def put(content, name=BASE):
    publish(name, content, "a test", 0.0)


def test_a_checkpoint_comes_back_as_it_was(toy_data):
    model = lively_gpt()
    put(dump_checkpoint(model, "chat"))
    again, metadata = load_checkpoint(BASE)
    assert same_parameters(again, model) and again.config == model.config and metadata["template"] == "chat"
    assert not again.training
    assert load("base", device="cpu").template


def test_equal_models_are_equal_files():
    assert len({dump_checkpoint(lively_gpt(), "chat") for _ in range(8)}) == 1


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b[:-9] + b"\1" + b[-8:], lambda b: b""]
)
def test_a_damaged_file(toy_data, damage):
    put(dump_checkpoint(lively_gpt(), "chat"))
    (toy_data / BASE).write_bytes(damage((toy_data / BASE).read_bytes()))
    with pytest.raises(
        ValueError,
        match=r"^data/checkpoints/base.safetensors is damaged .*`git checkout "
        r"data` or .*`make artifacts`$",
    ):
        load("base")


def test_a_hash_that_is_not_the_recorded_one(toy_data):
    put(dump_checkpoint(lively_gpt(), "chat"))
    manifest = read_manifest()
    manifest[BASE]["sha256"] = hashlib.sha256(b"another").hexdigest()
    files.MANIFEST.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is damaged or is not the file MANIFEST.json describes"):
        load("base")


def test_a_file_nobody_vouches_for(toy_data):
    write_atomically(toy_data / BASE, dump_checkpoint(lively_gpt(), "chat"))
    with pytest.raises(ValueError, match="is not the file MANIFEST.json describes"):
        load_checkpoint(BASE)
    with pytest.raises(ValueError, match="there is no artifact 'base'"):
        load("base")


def test_a_missing_file(toy_data):
    put(dump_checkpoint(lively_gpt(), "chat"))
    (toy_data / BASE).unlink()
    with pytest.raises(
        FileNotFoundError, match="data/checkpoints/base.safetensors is missing: restore it with `git checkout"
    ):
        load("base")


def test_another_vocabulary(toy_data):
    put(dump_checkpoint(GPT(GPTConfig(vocab_size=300, context=8, n_layer=1, n_head=1, n_embd=8)), "chat"))
    with pytest.raises(
        ValueError, match="was trained with 300 tokens, the tokenizer has 261: build both again"
    ):
        load("base")


def test_weights_of_another_shape(toy_data):
    model = lively_gpt()
    model.config = GPTConfig(**(vars(TINY) | {"n_embd": 32}))
    put(dump_checkpoint(model, "chat"))
    with pytest.raises(
        ValueError, match="the weights in .*base.safetensors do not fit its config: build it again"
    ):
        load("base")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not safetensors at all",
        save({"a": torch.zeros(1)}),
        save({}, {"config": "{}"}),
        save({}, {"config": "[1"}),
        save({}, {"config": json.dumps({"vocab_size": 261, "n_embd": 7, "n_head": 2})}),
        save({}, {"config": json.dumps({"colour": "blue"})}),
    ],
)
def test_what_is_no_checkpoint(toy_data, content):
    put(content)
    with pytest.raises(ValueError, match=r"base.safetensors .*`make artifacts`$") as error:
        load("base")
    assert "\n" not in str(error.value)


def test_an_unknown_name_lists_those_that_exist():
    with pytest.raises(
        ValueError,
        match="there is no artifact 'bse': choose one of base, dpo, ppo-overoptimised, ppo, reward, sft$",
    ):
        load("bse")


# --- the front door is a light one ---


def modules_after(code):
    run = f"{code}\nimport sys\nprint(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_loading_a_model_brings_neither_the_course_nor_the_world():
    """Students load models in every notebook: what this does not need is not imported."""
    loaded = modules_after("import minialign\nminialign.load('reward')")
    assert "minialign.reward_model" in loaded
    heavy = ("minialign.course", "minialign.world", "matplotlib", "scipy", "IPython", "nbformat", "pandas")
    assert not [name for name in loaded if name.startswith(heavy)]


def test_the_world_needs_no_torch():
    loaded = modules_after("import minialign.world.judge, minialign.world.annotator, minialign.world.corpus")
    assert "minialign.world.judge" in loaded and "torch" not in loaded


# --- devices: what cannot be used is one line ---


@pytest.fixture
def gpu(monkeypatch):
    """A GPU as torch sees it: gpu(what) makes `what` (a name in torch) fail there as CUDA does."""
    ones, to = torch.ones, torch.nn.Module.to
    fails = {}
    _say_once.cache_clear()

    def on_gpu(name, function, device, *arguments, **options):
        if str(device).startswith("cuda"):
            if name in fails:
                raise fails[name]
            device = "cpu"
        return function(*arguments, device=device, **options)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: on_gpu("ones", ones, device, *shape))
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, device: on_gpu("to", to, device, self))
    return lambda name, error: fails.update({name: error})


TOO_OLD = RuntimeError(
    "CUDA error: no kernel image is available for execution on the device\nCompile with `TORCH_USE_CUDA_DSA`"
)
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total of 6 GiB.")


def test_a_gpu_that_works_is_used(gpu):
    assert pick_device().type == "cuda" and pick_device("cuda:0") == torch.device("cuda:0")


@pytest.mark.parametrize("step", ["ones", "to"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TOO_OLD, "CUDA error: no kernel image is available for execution on the device"),
        (FULL, "CUDA out of memory"),
    ],
)
def test_a_gpu_that_fails_is_a_line_and_the_cpu(gpu, capsys, step, error, reason):
    """On the first try, or when the model moves there. The line is said once, for all models."""
    gpu(step, error)
    for name in ("sft", "dpo"):
        assert next(load(name).model.parameters()).device.type == "cpu"
    printed = capsys.readouterr()
    assert printed.err == f"the GPU (cuda) cannot be used, the CPU is instead: {reason}\n" and not printed.out


@pytest.mark.parametrize("step", ["ones", "to"])
def test_a_gpu_asked_for_that_fails_is_an_error(gpu, step):
    gpu(step, TOO_OLD)
    with pytest.raises(
        ValueError, match=r"^device 'cuda' cannot be used: CUDA error: no kernel .*; .* 'cpu'$"
    ):
        load("sft", device="cuda")


@pytest.mark.parametrize("device", ["gpu", "", "meta", "hip", "cuda:-1", 3.5, torch.device("xpu")])
def test_a_device_that_does_not_exist(device):
    with pytest.raises(
        ValueError, match=r"^device .* cannot be used: .*; leave it out or say 'cpu'$"
    ) as error:
        load("sft", device=device)
    assert "\n" not in str(error.value) and len(str(error.value)) < 320
