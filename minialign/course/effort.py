"""How many minutes a notebook takes its reader, by one rule for all, and what of it a lecture can show.

Prose is read at 200 words a minute, and a displayed line of mathematics in 15 seconds, a line of code in 8.
Exercises take what their headings say: "**Exercise 2: the loss** (medium, 10 minutes)".
"""

import re
from typing import NamedTuple

from nbformat import NotebookNode

WORDS_A_MINUTE, SECONDS_A_FORMULA, SECONDS_A_LINE = 200, 15, 8
LEVELS = ("easy", "medium", "hard")
PATHS = (10, 20)  # minutes of a lecture: a cell tagged "10-minutes" is shown in both

DISPLAYED = re.compile(r"\$\$(.*?)\$\$", re.S)
EXERCISE = re.compile(rf"\*\*Exercise (\d+): [^*]+\*\* \(({'|'.join(LEVELS)}), (\d+) minutes")


class Effort(NamedTuple):
    """Minutes, to read the prose and the code, and to do the exercises."""

    prose: int
    code: int
    exercises: int

    def __str__(self) -> str:
        return f"prose {self.prose} minutes, code {self.code}, exercises {self.exercises}"


def effort(cells: list[NotebookNode]) -> Effort:
    """What the rule says of some cells of a notebook. References are not read."""
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    texts = [text for text in texts if not text.startswith("## References")]
    formulas = sum(body.count(r"\\") + 1 for text in texts for body in DISPLAYED.findall(text))
    words = sum(len(DISPLAYED.sub("", text).split()) for text in texts)
    lines = sum(len(code_lines(cell.source)) for cell in cells if cell.cell_type == "code")
    minutes = sum(minutes for text in texts for _, _, minutes in exercises(text))
    prose = words / WORDS_A_MINUTE + formulas * SECONDS_A_FORMULA / 60
    return Effort(round(prose), round(lines * SECONDS_A_LINE / 60), minutes)


def code_lines(source: str) -> list[str]:
    """The lines of a code cell that have to be read: no blank ones, comments, imports, and no quiz."""
    if source.startswith("lesson.quiz("):
        return []
    skipped = re.compile(r"\s*(#|import |from .* import |$)")
    return [line for line in source.splitlines() if not skipped.match(line)]


def exercises(text: str) -> list[tuple[int, str, int]]:
    """The exercises that a text announces: number, level, minutes."""
    return [(int(number), level, int(minutes)) for number, level, minutes in EXERCISE.findall(text)]


def on_path(cells: list[NotebookNode], minutes: int) -> list[NotebookNode]:
    """The cells that a lecture of so many minutes shows, by their tags."""
    shown = {f"{path}-minutes" for path in PATHS if path <= minutes}
    return [cell for cell in cells if shown & set(cell.metadata.get("tags", []))]
