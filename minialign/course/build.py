"""How the shipped files are built: what does not wait for another starts, a process for each core.

Every artifact has a process of its own, and in it as many threads as it says, one as a rule, however many run
side by side: small models gain little from a second one, and what comes out does not depend on the number of
`jobs`. A process can open of the shipped files only what its artifact says that it needs. The parent alone
writes under data/.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

from minialign.course.plan import Artifact, by_urgency, forecast, hours, readable, startable
from minialign.files import DATA, MANIFEST, read_manifest, write_atomically

WORK = DATA.parent / "build" / "artifacts"  # what a killed build left behind
SPAWN = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS"


def make(artifacts: Sequence[Artifact], names: Sequence[str], device: str, jobs: int) -> None:
    """Build the named artifacts (all, if none is named) and record them in MANIFEST.json.

    In `artifacts` each stands behind those that it needs. Needs that are not built are taken as they are
    there. A build of everything that was stopped goes on where it was. Raises SystemExit for an unknown name,
    for a need that is not there, when an artifact fails, and when the reader interrupts.
    """
    known = {artifact.name: artifact for artifact in artifacts}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"there is no artifact {unknown[0]!r}: choose from {', '.join(known)}")
    done = {} if names else finished(artifacts)  # only a build of everything is remembered
    for name in done:
        print(f"{name}: finished before the last stop, kept")
    left = [known[name] for name in known if name not in done and (not names or name in names)]
    for artifact in left:
        for need in artifact.needs:
            if known[need] not in left and digest_of(known[need].files[0]) is None:
                raise SystemExit(f"{artifact.name} needs {need}, which is not there: build that, too")
    print(forecast(left, jobs), flush=True)
    begin = time.perf_counter()
    try:
        with contextlib.closing(side_by_side(left, known, device, jobs)) as ended:
            for artifact, contents, seconds in ended:
                for file in artifact.files:
                    publish(file, contents[file], artifact.recipe, seconds)
                done[artifact.name] = mark(artifact)
                if not names:
                    write_atomically(WORK / "finished.json", json.dumps(done).encode())
    except KeyboardInterrupt:
        raise SystemExit("stopped by you: what is finished is kept, and the same command goes on") from None
    if not names:  # it has come to its end: the next one begins from nothing
        shutil.rmtree(WORK, ignore_errors=True)
    print(hours([known[name] for name in done], time.perf_counter() - begin))


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- what is there already ---


def mark(artifact: Artifact) -> list:
    """What tells a finished artifact: its recipe and its files' digests."""
    return [artifact.recipe, *map(digest_of, artifact.files)]


def finished(artifacts: Sequence[Artifact]) -> dict[str, list]:
    """The marks of what was finished before the last stop, and is still as it was, with all that it needs."""
    path, kept = WORK / "finished.json", {}
    found = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for artifact in artifacts:
        if found.get(artifact.name) == mark(artifact) and kept.keys() >= {*artifact.needs}:
            kept[artifact.name] = found[artifact.name]
    return kept


def digest_of(file: str) -> str | None:
    """SHA-256 of data/`file`, None if there is none."""
    return hashlib.sha256((DATA / file).read_bytes()).hexdigest() if (DATA / file).exists() else None


def state_of(name: str, made_of: str) -> Path:
    """Where a step keeps what is half done. `made_of` says all that it depends on: never another's state."""
    return WORK / f"{name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.state"


def table_state(table: Artifact, known: dict[str, Artifact]) -> Path:
    """Where a table keeps its finished parts, as long as its recipe and all that it needs stay the same."""
    digests = [digest_of(file) for need in table.needs for file in known[need].files]
    return state_of(table.name, json.dumps([table.recipe, *digests]))


def publish(file: str, content: bytes, recipe: str, seconds: float) -> None:
    """Write one file under data/ and its line in MANIFEST.json, and say what changed."""
    manifest = read_manifest()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "recipe": recipe}
    old = manifest.get(file)
    verdict = "new" if old is None else "unchanged" if old["sha256"] == entry["sha256"] else "CHANGED"
    print(f"{file}: {verdict}, {len(content):,} bytes, {seconds:.0f} s", flush=True)
    write_atomically(DATA / file, content)
    manifest[file] = entry | {"seconds": round(seconds)}
    write_atomically(MANIFEST, (json.dumps(dict(sorted(manifest.items())), indent=1) + "\n").encode())


# --- the parent: processes side by side ---


def side_by_side(
    left: Sequence[Artifact], known: dict[str, Artifact], device: str, jobs: int
) -> Iterator[tuple[Artifact, dict[str, bytes], float]]:
    """Each of those left with its files' contents and its seconds, as they end; then others start.

    When one fails, nothing starts any more, the others end their part, and SystemExit says what was wrong.
    Closed early, it stops all processes at once.
    """
    left, running, failures = by_urgency(left), {}, []
    try:
        while True:
            for artifact in [] if failures else startable(left, [a for a, _ in running.values()], jobs):
                left.remove(artifact)
                pipe, process = start(artifact, known, device)
                running[pipe] = artifact, process
            if not running:
                break
            for pipe in wait([*running]):
                artifact, process = running[pipe]
                result = received(pipe, process)
                del running[pipe]
                if isinstance(result, str):
                    failures.append(f"{artifact.name} failed: {result}")
                    for other in running:
                        with contextlib.suppress(OSError):  # it has just ended
                            other.send("stop")
                elif result is None:
                    print(f"{artifact.name}: stopped, its finished parts are kept", flush=True)
                else:
                    yield artifact, *result
    finally:
        for _, process in running.values():
            kill(process)
    if failures:
        raise SystemExit("; ".join(failures) + "; what is finished is kept, and the same command goes on")


def start(artifact: Artifact, known: dict[str, Artifact], device: str) -> tuple[Connection, BaseProcess]:
    """A process that builds the artifact, and the pipe that brings what it made."""
    print(f"{artifact.name}: begins", flush=True)
    ours, theirs = SPAWN.Pipe()
    arguments = artifact, device, table_state(artifact, known), readable(artifact, known), theirs
    process = SPAWN.Process(target=work, args=arguments)
    settings = dict.fromkeys(THREADS, str(artifact.threads)) | {"MINIALIGN_PROGRESS": "0"}
    with mock.patch.dict(os.environ, settings):
        process.start()
    theirs.close()  # or the end of the process would not be the end of the pipe
    return ours, process


def received(pipe: Connection, process: BaseProcess) -> tuple[dict[str, bytes], float] | str | None:
    """What an ending process sent: contents and seconds, or what failed; None if it was told to stop."""
    try:
        result = pipe.recv()
    except EOFError:
        process.join()
        return f"its process was killed (exit code {process.exitcode})"
    process.join()
    pipe.close()
    return result


def kill(process: BaseProcess) -> None:
    """End a process and those that it has started."""
    with contextlib.suppress(ProcessLookupError):  # it had no group of its own yet
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


# --- a process ---


def work(artifact: Artifact, device: str, state: Path, may_read: set[str], pipe: Connection) -> None:
    """Build one artifact and send what came of it.

    The process has a group of its own, so that Ctrl-C reaches the parent alone. It ends when the parent does.
    """
    os.setpgid(0, 0)
    threading.Thread(target=end_with_the_parent, daemon=True).start()
    sys.addaudithook(partial(refuse_what_is_not_needed, artifact.name, may_read))
    try:
        pipe.send(built(artifact, device, state, told_to_stop=pipe.poll))
    except Exception as error:
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}")


def end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def refuse_what_is_not_needed(name: str, may_read: set[str], event: str, arguments: tuple) -> None:
    """An audit hook: a shipped file that an artifact reads and does not need might be an old one."""
    if event != "open" or not isinstance(arguments[0], str | Path):
        return
    path = Path(arguments[0])
    if DATA not in path.parents or path == MANIFEST or path.parent == DATA / "world":
        return
    if (file := path.relative_to(DATA).as_posix()) not in may_read:
        raise PermissionError(f"{name} reads data/{file}: name what makes it among its needs")


def built(
    artifact: Artifact, device: str, state: Path, told_to_stop: Callable[[], bool] = lambda: False
) -> tuple[dict[str, bytes], float] | None:
    """The artifact's contents by file, and its seconds, those of parts that were kept included.

    A core worked for it in those: the clock would count what else the machine does.
    Finished parts of a table are kept in `state`. None when it was told to stop, which it does after a part.
    """
    begin = time.process_time()
    found = artifact.build(device)
    if not artifact.in_parts:
        return found, time.process_time() - begin
    from minialign.training import History  # here, for the parent needs no torch

    kept = json.loads(state.read_text("utf-8")) if state.exists() else {}
    for i, (part, rows_of) in enumerate(found.items(), 1):
        if part in kept:
            continue
        if told_to_stop():
            return None
        title = f"{artifact.name}, part {i} of {len(found)}: {part}"
        print(f"{title}: begins", flush=True)
        rows = rows_of()
        kept[part] = {"rows": rows, "seconds": time.process_time() - begin}
        write_atomically(state, json.dumps(kept).encode())
        print(f"{title}: {kept[part]['seconds']:.0f} s", flush=True)
        begin = time.process_time()
    (file,) = artifact.files
    rows = [row for part in found for row in kept[part]["rows"]]
    return {file: History(rows).to_json_lines()}, sum(of_part["seconds"] for of_part in kept.values())
