"""Shipped models: saved as safetensors, verified against data/MANIFEST.json, and loaded by name.

This is what `minialign.load` does.
"""

import json
import re
import sys
from dataclasses import asdict
from functools import cache
from pathlib import PurePosixPath

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from minialign.files import read_manifest, read_verified
from minialign.gpt import GPT, GPTConfig
from minialign.language_model import LanguageModel
from minialign.reward_model import RewardModel
from minialign.tokenizer import load_tokenizer

READER = "reader."  # how the names of a reward model's reader begin


def shipped() -> list[str]:
    """The names that `load` knows: the checkpoints that data/MANIFEST.json lists."""
    paths = map(PurePosixPath, read_manifest())
    return [path.stem for path in paths if path.parent == PurePosixPath("checkpoints")]


def load(name: str, device=None) -> LanguageModel | RewardModel:
    """A shipped model by name, on the device asked for; left out, a GPU if there is one.

    "reward" is a reward model, the others are language models. Raises ValueError for a name that does not
    exist (with those that do), for a file that is damaged or does not fit the course's tokenizer, and for a
    device asked for that cannot hold the model.
    """
    if name not in (names := shipped()):
        raise ValueError(f"there is no artifact {name!r}: choose one of {', '.join(names)}")
    target = pick_device(device)
    model, metadata = load_checkpoint(f"checkpoints/{name}.safetensors")
    try:
        model = model.to(target)
    except RuntimeError as error:  # out of memory
        _do_without(target, device, error)
        return load(name, "cpu")  # from the file: a part may have been moved already
    if isinstance(model, RewardModel):
        return model
    return LanguageModel(model, template=metadata["template"] == "chat")


def pick_device(device=None) -> torch.device:
    """The device asked for; left out, a GPU if there is one that works, and the CPU otherwise.

    The GPU is one of CUDA: "mps" must be asked for. Raises ValueError when the device asked for does not
    exist or cannot compute.
    """
    wanted = device if device is not None else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(wanted)
        # A GPU may be there and be full, or too old for this torch: only trying tells.
        ones = torch.ones(2, 2, device=target)
        (ones @ ones).sum().item()
    except (RuntimeError, AssertionError, TypeError) as error:
        _do_without(wanted, device, error)
        return torch.device("cpu")
    return target


def _do_without(failed, asked, error: Exception) -> None:
    """A device that fails is a ValueError if it was asked for; otherwise one line on stderr, said once."""
    reason = re.split(r"\n|\. ", str(error).strip())[0].rstrip(".:")  # torch adds up to a hundred lines
    if asked is not None:
        raise ValueError(f"device {asked!r} cannot be used: {reason}; leave it out or say 'cpu'") from None
    _say_once(f"the GPU ({failed}) cannot be used, the CPU is instead: {reason}")


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)


def dump_checkpoint(model: GPT | RewardModel, template: str) -> bytes:
    """A model as a safetensors file: its weights, with its shape and template as metadata.

    The template is "chat", "document" or "reward". Of a reward model everything is saved but its reader,
    which is the shipped fine-tuned model.
    """
    config = (model.trunk if isinstance(model, RewardModel) else model).config
    metadata = {"config": json.dumps(asdict(config)), "template": template}
    tensors = {
        name: p.detach().cpu().contiguous()
        for name, p in model.state_dict().items()
        if not name.startswith(READER)
    }
    content = save_tensors(tensors, metadata)
    # safetensors writes its header in a random order: sort it, so that equal models are equal files.
    tensors_at = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:tensors_at]), sort_keys=True, separators=(",", ":")).encode()
    return content[:8] + header.ljust(tensors_at - 8) + content[tensors_at:]


def load_checkpoint(name: str) -> tuple[GPT | RewardModel, dict]:
    """The model in data/`name` and its metadata.

    Raises ValueError when the file is damaged or of another vocabulary or shape.
    """
    return parse_checkpoint(read_verified(name), name)


def parse_checkpoint(content: bytes, name: str) -> tuple[GPT | RewardModel, dict]:
    try:
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
        config = GPTConfig(**json.loads(metadata["config"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is not a checkpoint of this course ({error}): build it again with `make artifacts`"
        ) from None
    if config.vocab_size != load_tokenizer().n_vocab:
        raise ValueError(
            f"{name} was trained with {config.vocab_size} tokens, the tokenizer has "
            f"{load_tokenizer().n_vocab}: build both again with `make artifacts`"
        )
    model = GPT(config)
    if metadata["template"] == "reward":
        told = "surprise_embedding" in tensors
        model = RewardModel(model, likelihood="likelihood_weight" in tensors, reads_surprise=told)
        if told:
            sft, _ = load_checkpoint("checkpoints/sft.safetensors")
            tensors |= {f"{READER}{key}": tensor for key, tensor in sft.state_dict().items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise ValueError(
            f"the weights in {name} do not fit its config: build it again with `make artifacts`"
        ) from None
    return model.eval(), metadata
