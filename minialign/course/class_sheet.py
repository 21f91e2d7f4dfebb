"""A sheet of comparisons for a class to label, and what its labels say.

The sheet is a table (CSV): a pair of answers a row, and a column for each labeler, who writes A or B in it.
What is filled in becomes a file of preferences for each labeler, which anything here can learn from.
"""

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from minialign.course.experiments.comparisons import HeldOut, Scorer, hits, labelled
from minialign.faults import one_error
from minialign.files import DATA, write_atomically
from minialign.preferences import Preference, dump_preferences
from minialign.records import read_text, records
from minialign.training import progress_hidden
from minialign.world.annotator import typical_annotator
from minialign.world.prompts import parse

Pair = tuple[str, str, str]  # prompt, answer A, answer B

COLUMNS = ("pair", "prompt", "A", "B")
LABELERS = ("labeler 1", "labeler 2", "labeler 3")  # of an empty sheet; rename them, add more
LONGEST = 45  # words of an answer: a class reads 24 of them
CLEAR = 0.4  # by which the two differ in gold, at least


def folder() -> Path:
    """build/ of this clone; without one, where Python was started."""
    clone = DATA.parent
    return clone / "build" if (clone / "pyproject.toml").exists() else Path("build")


# --- an empty sheet ---


def chosen(test: HeldOut, groups: Mapping[str, np.ndarray], each: int = 2, seed: int = 0) -> list[Pair]:
    """Pairs to label, in random order: `each` of a group (M,) of bool, of different prompts.

    They are about real topics, which a class knows, and short enough to read.
    """
    rng, pairs, asked = np.random.default_rng(seed), [], set()
    for rows in groups.values():
        found = []
        for i in rng.permutation(np.flatnonzero(rows)):
            pair = test.pairs[i]
            if len(found) < each and pair.prompt not in asked and fit(pair, test.better[i]):
                asked.add(pair.prompt)
                sides = rng.permutation([pair.chosen, pair.rejected]).tolist()
                found.append((pair.prompt, *sides))
        pairs += found
    return [pairs[i] for i in rng.permutation(len(pairs))]


def fit(pair: Preference, better: float) -> bool:
    """Whether people can be asked: a real topic, short answers that end, a clear difference in gold."""
    topic = parse(pair.prompt).topic
    short = all(len(text.split()) <= LONGEST and "<|" not in text for text in (pair.chosen, pair.rejected))
    return topic is not None and topic.real and short and abs(better) >= CLEAR


def write(path: Path, pairs: Sequence[Pair]) -> Path:
    """Write an empty sheet, unless there is a file already: that may be filled in. Returns the path."""
    if not path.exists():
        text = io.StringIO(newline="")
        table = csv.writer(text)
        table.writerow([*COLUMNS, *LABELERS])
        table.writerows([i, *pair, *("" for _ in LABELERS)] for i, pair in enumerate(pairs, 1))
        # With the mark at the start spreadsheets read it as UTF-8.
        write_atomically(path, text.getvalue().encode("utf-8-sig"))
    return path


# --- a sheet that was filled in ---


def read(path: Path) -> dict[str, list[Preference]]:
    """What each labeler has said, by the name in the sheet's header; those who said nothing are left out.

    Raises ValueError, one for all lines, for a cell that is neither A nor B, for a row without its texts, and
    for labels in a column that has no name or another one's.
    """
    text = read_text(path)
    faults = [f"two columns are named {name}: only one of them can be read" for name in named_twice(text)]
    found: dict[str, list[Preference]] = {}
    for line, record in records(text, COLUMNS, faults):
        for name, cell in record.items():
            letter = str(cell).strip().upper()
            if name in COLUMNS or not letter:
                continue
            if not name.strip():
                faults.append(f"line {line}: a column without a name says {cell!r:.20}: write one above it")
                continue
            if letter not in ("A", "B"):
                faults.append(f"line {line}: {name} says {cell!r:.20}, which is neither A nor B")
                continue
            if empty := [column for column in COLUMNS[1:] if column not in record]:
                faults.append(f"line {line}: {name} has labelled a row without {' and '.join(empty)}")
                continue
            texts = record["A"], record["B"]
            winner, loser = texts if letter == "A" else texts[::-1]
            found.setdefault(name, []).append(Preference(record["prompt"], winner, loser))
    if faults:
        raise one_error([f"{path.name}, {fault}" for fault in faults])
    return found


def named_twice(text: str) -> list[str]:
    """The labelers whose name stands above two columns of a sheet."""
    first = text.lstrip().split("\n", 1)[0]
    lines = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=max(",;\t", key=first.count))
    names = Counter(name for name in next(lines, []) if name.strip())
    return [name for name, n in names.items() if n > 1]


def filled(path: Path) -> dict[str, Path]:
    """A file of preferences for each labeler of a sheet, in a folder beside it.

    A file's name holds what it says, so that other labels never take the place of older ones. None are read
    where notebooks are stored (MINIALIGN_PROGRESS=0): a stored notebook shows nobody's labels.
    """
    files = {}
    for name, pairs in {} if progress_hidden() else read(path).items():
        content = dump_preferences(pairs)
        word = re.sub(r"\W+", "_", name)[:40]
        file = path.with_suffix("") / f"{word}-{hashlib.sha256(content).hexdigest()[:8]}.jsonl"
        if not file.exists():
            write_atomically(file, content)
        files[name] = file
    return files


def stand_ins(pairs: Sequence[Pair], n: int = 3) -> dict[str, list[Preference]]:
    """Labels of n people of our world, who take the place of a class that has not labelled yet."""
    people = {f"simulated {i + 1}": typical_annotator(seed=100 + i) for i in range(n)}
    return {name: [labelled(*pair, person) for pair in pairs] for name, person in people.items()}


# --- what the labels say ---


def agreement(labels: Mapping[str, Sequence[Preference]]) -> tuple[float, int]:
    """How often two labelers chose alike, of the pairs that both have: (share, of how many).

    The share is NaN where no two have a pair in common.
    """
    said = [{(p.prompt, frozenset((p.chosen, p.rejected))): p.chosen for p in of} for of in labels.values()]
    same = [one[pair] == two[pair] for one, two in combinations(said, 2) for pair in one.keys() & two.keys()]
    return (float(np.mean(same)) if same else float("nan")), len(same)


def agrees(pairs: Sequence[Preference], scorer: Scorer) -> float:
    """How often a scorer gives the chosen answer the higher score; equal scores are half an agreement."""
    prompts = [pair.prompt for pair in pairs]
    won, lost = (scorer.score(prompts, [getattr(p, side) for p in pairs]) for side in ("chosen", "rejected"))
    return float(hits(np.subtract(won, lost)).mean())


def report(labels: Mapping[str, Sequence[Preference]], scorers: Mapping[str, Scorer]) -> None:
    """Print how often each labeler agrees with each scorer, and how often two labelers agree."""
    print(f"{'':22s} pairs" + "".join(f"{name:>16s}" for name in scorers))
    for name, pairs in labels.items():
        shares = "".join(f"{agrees(pairs, scorer):16.0%}" for scorer in scorers.values())
        print(f"{name:22.22s} {len(pairs):5d}{shares}")
    share, n = agreement(labels)
    if n:
        print(f"two labelers agree: {share:.0%} of {n} comparisons of two people")
