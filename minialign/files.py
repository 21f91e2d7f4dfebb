"""Where the course's data lies, and how files are written and trusted: atomically, and by their SHA-256."""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
# An installed package has its data inside; in a clone, where the package has none, they lie beside it.
DATA = (PACKAGE if (PACKAGE / "data").is_dir() else PACKAGE.parent) / "data"
MANIFEST = DATA / "MANIFEST.json"


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write all of `content` or nothing: a kill half-way leaves the old file as it was.

    An old file keeps its mode and, where that is allowed, its owner; a new one gets what the umask leaves.
    A link stays, and what it points to is written. Raises ValueError when `path` is a folder or a device, and
    PermissionError when it is a read-only file.
    """
    target = Path(os.path.realpath(path))
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
        target.parent.mkdir(parents=True, exist_ok=True)
    if old and not stat.S_ISREG(old.st_mode):
        raise ValueError(f"{path} is a folder or a device: give the name of a file")
    mode = stat.S_IMODE(old.st_mode) if old else 0o666
    if not mode & 0o222:  # replacing it would succeed, against the will of whoever took the right away
        raise PermissionError(f"{path} is read-only: make it writable or choose another name")
    # Only the start of the name: with all of a long one, this would be too long.
    temporary = target.with_name(f"{target.name[:40]}.{secrets.token_hex(4)}.part")
    # Not even while it is written may anybody read it who could not read the old one.
    at_first = 0o600 if old else mode
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, at_first)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if old:
            with contextlib.suppress(OSError):  # only root may give files away
                os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_manifest() -> dict:
    """What data/MANIFEST.json says of each artifact, by its file name relative to data/."""
    return json.loads(MANIFEST.read_text("utf-8")) if MANIFEST.exists() else {}


def read_data(name: str) -> bytes:
    """The bytes of data/`name`. Raises FileNotFoundError when there is no such file."""
    path = DATA / name
    if not path.exists():
        raise FileNotFoundError(
            f"data/{name} is missing: restore it with `git checkout data`, "
            "build it with `make artifacts` or get minialign again"
        )
    return path.read_bytes()


def read_verified(name: str) -> bytes:
    """The bytes of data/`name`, if they are the ones MANIFEST.json vouches for.

    Raises FileNotFoundError when the file is missing and ValueError when its SHA-256 is not the recorded one.
    """
    content = read_data(name)
    expected = read_manifest().get(name, {}).get("sha256")
    if hashlib.sha256(content).hexdigest() != expected:
        raise ValueError(
            f"data/{name} is damaged or is not the file MANIFEST.json describes: restore it with "
            "`git checkout data` or build it again with `make artifacts`"
        )
    return content
