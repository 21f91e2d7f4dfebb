"""What is built and in which order: what does not wait for another can be built beside it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from minialign.files import read_manifest


@dataclass(frozen=True)
class Artifact:
    """One step of the build: files under data/ that are made together.

    `build(device)` returns their contents by file name. With `in_parts` it returns the parts of a table by
    name (`experiments.Part`), of which those that are finished outlive a kill. It goes to another process, so
    it is made of functions that can be imported.
    """

    files: tuple[str, ...]  # the first names it
    build: Callable[[str], dict]
    recipe: str  # what it is made with; a changed recipe is a reason to build again
    needs: tuple[str, ...] = ()  # names of the artifacts whose files it reads
    notebook: str = "models"  # whose hours it takes
    in_parts: bool = False
    alone: bool = False  # it measures seconds: nothing may run beside it
    threads: int = 1  # more where all others wait for it; what comes out depends on their number

    @property
    def name(self) -> str:
        return Path(self.files[0]).stem


def readable(artifact: Artifact, known: dict[str, Artifact]) -> set[str]:
    """The shipped files that the artifact may read: those of all that must be there before it."""
    before = [known[need] for need in artifact.needs]
    return {file for other in before for file in (*other.files, *readable(other, known))}


# --- what starts when ---


def startable(left: Sequence[Artifact], running: Sequence[Artifact], jobs: int) -> list[Artifact]:
    """Which of those that are left can start now; they stand in the order of urgency.

    What must be alone starts when nothing runs, and nothing else could.
    """
    if any(artifact.alone for artifact in running):
        return []
    unfinished = {artifact.name for artifact in (*left, *running)}
    ready = [artifact for artifact in left if unfinished.isdisjoint(artifact.needs)]
    free, now = jobs - sum(artifact.threads for artifact in running), []
    for artifact in ready:
        if not artifact.alone and artifact.threads <= free:
            now.append(artifact)
            free -= artifact.threads
    return now or ([] if running else sorted(ready, key=lambda artifact: artifact.alone)[:1])


def by_urgency(artifacts: Sequence[Artifact]) -> list[Artifact]:
    """First what has most seconds before it: its own, and the longest chain of those that wait for it.

    In `artifacts` each stands behind those that it needs. Where no time is known, the mean of the others'
    stands for it.
    """
    seconds = [last_seconds(artifact) for artifact in artifacts]
    usual = mean([x for x in seconds if x is not None] or [1])
    chain: dict[str, float] = {}
    for artifact, own in zip(reversed(artifacts), reversed(seconds)):
        behind = [chain[other.name] for other in artifacts if artifact.name in other.needs]
        chain[artifact.name] = (usual if own is None else own) + max(behind, default=0)
    return sorted(artifacts, key=lambda artifact: -chain[artifact.name])


# --- how long it takes ---


def last_seconds(artifact: Artifact) -> int | None:
    """How long its last build took, by MANIFEST.json; None if nobody knows."""
    return read_manifest().get(artifact.files[0], {}).get("seconds")


def clock(artifacts: Sequence[Artifact], jobs: int) -> float:
    """The hours until all are built, if each takes as long as the last time: the plan, run through."""
    now, left, ends = 0, by_urgency(artifacts), {}
    while left or ends:
        for artifact in startable(left, [*ends], jobs):
            left.remove(artifact)
            ends[artifact] = now + (last_seconds(artifact) or 0) / min(jobs, artifact.threads)
        now = ends.pop(min(ends, key=ends.get))
    return now / 3600


def forecast(artifacts: Sequence[Artifact], jobs: int) -> str:
    """What is said before a build."""
    new = sum(last_seconds(artifact) is None for artifact in artifacts)
    without = f", and {new} of which no time is known" if new else ""
    return f"{len(artifacts)} to build, {jobs} at a time: about {clock(artifacts, jobs):.2f} hours{without}"


def hours(artifacts: Sequence[Artifact], clock: float) -> str:
    """The hours of work by notebook and in all; `clock` are the seconds since the build was started."""
    spent = Counter()
    for artifact in artifacts:
        spent[artifact.notebook] += last_seconds(artifact) or 0
    lines = [f"{notebook:7}{seconds / 3600:6.2f} hours" for notebook, seconds in sorted(spent.items())]
    lines.append(f"in all {spent.total() / 3600:6.2f} hours of work; {clock / 3600:.2f} by the clock")
    return "\n".join(lines)
