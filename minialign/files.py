"""Where the course's data lies, and how files are written and trusted: atomically, and by their SHA-256."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# An installed package has its data inside; in a clone, where the package has none, they lie beside it.
DATA = (PACKAGE if (PACKAGE / "data").is_dir() else PACKAGE.parent) / "data"
MANIFEST = DATA / "MANIFEST.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` or nothing: a kill half-way leaves the old file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_manifest() -> dict:
    """What data/MANIFEST.json says of each artifact, by its file name relative to data/."""
    return json.loads(MANIFEST.read_text("utf-8")) if MANIFEST.exists() else {}


def read_verified(name: str) -> bytes:
    """The bytes of data/`name`, if they are the ones MANIFEST.json vouches for.

    Raises FileNotFoundError when the file is missing and ValueError when its SHA-256 is not the recorded one.
    """
    path = DATA / name
    if not path.exists():
        raise FileNotFoundError(
            f"data/{name} is missing: restore it with `git checkout data`, build it with `make artifacts` "
            "or get minialign again"
        )
    content = path.read_bytes()
    expected = read_manifest().get(name, {}).get("sha256")
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"data/{name} is damaged or is not the file MANIFEST.json describes: restore it with `git "
            "checkout data` "
            "or build it again with `make artifacts`"
        )
    return content
