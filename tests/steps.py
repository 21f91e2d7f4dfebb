"""Small steps for a build, importable by its processes. They write in a folder of the test's what they do."""

import fcntl
import os
import time
from functools import partial
from pathlib import Path

from minialign.course.plan import Artifact


def step(does, folder: Path, name: str, *needs: str, recipe: str = "a recipe", **options) -> Artifact:
    """An artifact of two files that `does(folder, name)` makes; of a table in parts, of one."""
    files = (f"logs/{name}.jsonl",) if options.get("in_parts") else (f"{name}.bin", f"logs/{name}.jsonl")
    return Artifact(files, partial(does, folder, name), recipe, needs, **options)


def said(folder: Path) -> list[str]:
    """What the steps did so far, a line each."""
    return (folder / "said").read_text().splitlines() if (folder / "said").exists() else []


def say(folder: Path, line: str) -> None:
    with open(folder / "said", "a") as file:
        file.write(line + "\n")


def wait_for(path: Path) -> None:
    """Until it is there. The five minutes are for what would otherwise hang."""
    end = time.monotonic() + 300
    while not path.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{path.name} never came")
        time.sleep(0.01)


def makes(folder: Path, name: str, device: str) -> dict[str, bytes]:
    say(folder, f"{name} begins")
    if (folder / f"{name} fails").exists():
        raise ValueError("no luck")
    say(folder, f"{name} ends")
    return {f"{name}.bin": name.encode() * 3, f"logs/{name}.jsonl": b"{}\n"}


def meets(folder: Path, name: str, device: str) -> dict[str, bytes]:
    """Ends only beside another that does the same: "a" and "b" wait for each other."""
    (folder / f"{name} is here").touch()
    wait_for(folder / f"{'b' if name == 'a' else 'a'} is here")
    return makes(folder, name, device)


def fails_beside_parts(folder: Path, name: str, device: str) -> dict[str, bytes]:
    wait_for(folder / "said")
    (folder / "bad is here").touch()
    raise ValueError("no luck")


def dies(folder: Path, name: str, device: str) -> dict[str, bytes]:
    os._exit(3)


def says_its_threads(folder: Path, name: str, device: str) -> dict[str, bytes]:
    import torch

    say(folder, f"{torch.get_num_threads()} {os.environ['MINIALIGN_PROGRESS']} {device}")
    return makes(folder, name, device)


def reads_the_base(folder: Path, name: str, device: str) -> dict[str, bytes]:
    from minialign.checkpoints import load_checkpoint

    load_checkpoint("checkpoints/base.safetensors")
    return makes(folder, name, device)


def never_ends(folder: Path, name: str, device: str) -> dict[str, bytes]:
    """Holds a lock as long as its process lives."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / "is running").touch()
        while True:
            time.sleep(1)


def many_parts(folder: Path, name: str, device: str) -> dict:
    """Many parts; slow ones, unless there is a file "fast". The first ends when "bad" is there."""

    def part(i: int) -> list[dict]:
        say(folder, f"part {i}")
        wait_for(folder / "bad is here")
        if not (folder / "fast").exists():
            time.sleep(0.1)
        return [{"part": i}]

    return {f"part {i}": partial(part, i) for i in range(200)}
