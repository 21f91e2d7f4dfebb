"""The rule for a reader's minutes, by hand."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from minialign.course.effort import effort, exercises, on_path

EXERCISE = "**Exercise 2: the loss** (medium, 10 minutes, the heart of it). Take the mean."


def test_prose_code_and_exercises_by_hand():
    words = new_markdown_cell("word " * 590 + EXERCISE)  # and ten or so more
    formulas = new_markdown_cell(
        r"$$\begin{aligned}a &= b\\ &= c\\ &= d\end{aligned}$$ and $$e$$"
    )  # 1 minute
    code = new_code_cell("import torch\nfrom a import b\n\n# why\n" + "x = 1\n" * 15)
    assert effort([words, formulas, code]) == (4, 2, 10)
    assert str(effort([words])) == "prose 3 minutes, code 0, exercises 10"


def test_references_and_quizzes_take_no_time():
    assert effort([new_code_cell("lesson.quiz(\n" + "    x,\n" * 99 + ")")]).code == 0
    assert effort([new_markdown_cell("## References\n" + "word " * 1000)]).prose == 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (EXERCISE, [(2, "medium", 10)]),
        (f"{EXERCISE}\n\n**Exercise 3: all** (hard, 20 minutes).", [(2, "medium", 10), (3, "hard", 20)]),
        ("**Exercise 1: of no level** (5 minutes).", []),
        ("Exercise 1 asks for it (easy, 5 minutes).", []),
    ],
)
def test_exercises_say_their_level_and_minutes(text, found):
    assert exercises(text) == found


def test_ten_minutes_are_part_of_twenty():
    tags = [["10-minutes"], ["20-minutes"], [], ["nbval-ignore-output", "10-minutes"]]
    cells = [new_markdown_cell(str(i), metadata={"tags": some}) for i, some in enumerate(tags)]
    assert [cell.source for cell in on_path(cells, 10)] == ["0", "3"]
    assert [cell.source for cell in on_path(cells, 20)] == ["0", "1", "3"]
