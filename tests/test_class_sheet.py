"""The sheet that a class labels: what it asks, what is read from it, and that nobody's labels are lost."""

import csv
import io

import numpy as np
import pytest

from minialign.course import class_sheet
from minialign.course.experiments.comparisons import HeldOut
from minialign.course.experiments.what_it_reads import ByHand
from minialign.preferences import Preference, read_preferences

PAIRS = [("Why?", "So, it is.", "No."), ("How, then?", 'It says "yes".\nTwice.', "Thus.")]
A, B = (Preference(x, a, b) for x, a, b in PAIRS)
BOTH_OTHER_WAY = [Preference(p.prompt, p.rejected, p.chosen) for p in (A, B)]


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    """An empty sheet, where notebooks are live."""
    monkeypatch.setenv("MINIALIGN_PROGRESS", "1")
    return class_sheet.write(tmp_path / "sheet.csv", PAIRS)


def fill(sheet, *columns, names=None):
    """Write each labeler's letters into the sheet, as a spreadsheet would."""
    text = sheet.read_text("utf-8-sig")
    for name, letters in zip(names or class_sheet.LABELERS, columns):
        text = text.replace(class_sheet.LABELERS[columns.index(letters)], name)
    rows = ["".join(f",{letters[i]}" for letters in columns) for i in range(2)]
    ends = "," * len(class_sheet.LABELERS)
    first, second = (row + "," * (len(class_sheet.LABELERS) - len(columns)) for row in rows)
    head, _, rest = text.partition(ends)
    middle, _, tail = rest.partition(ends)
    sheet.write_text(head + first + middle + second + tail, "utf-8")
    return sheet


def test_an_empty_sheet_says_nothing(sheet):
    assert class_sheet.read(sheet) == {} == class_sheet.filled(sheet)
    assert [*sheet.parent.iterdir()] == [sheet]


def test_letters_become_preferences_that_the_engine_reads(sheet):
    found = class_sheet.filled(fill(sheet, "aB", "BA", names=("Ada", "Bo B.")))
    assert [*found] == ["Ada", "Bo B."]
    ada, bo = map(read_preferences, found.values())
    assert ada == [A, BOTH_OTHER_WAY[1]] and bo == [BOTH_OTHER_WAY[0], B]


def test_a_labeler_may_leave_pairs_out(sheet):
    assert class_sheet.read(fill(sheet, ("", "b"))) == {"labeler 1": [BOTH_OTHER_WAY[1]]}


def test_a_filled_sheet_and_older_labels_are_never_overwritten(sheet):
    fill(sheet, "AA")
    content = sheet.read_bytes()
    assert class_sheet.write(sheet, PAIRS[:1]) == sheet
    assert sheet.read_bytes() == content
    first = class_sheet.filled(sheet)["labeler 1"]
    before = first.read_bytes()
    sheet.write_text(sheet.read_text("utf-8").replace(",A,,", ",B,,"), "utf-8")
    second = class_sheet.filled(sheet)["labeler 1"]
    assert second != first and first.read_bytes() == before
    assert read_preferences(second) == BOTH_OTHER_WAY


def test_what_is_neither_letter_is_said_with_its_line(sheet):
    with pytest.raises(ValueError, match="^sheet.csv, line 2: labeler 1 says 'C', which is neither A nor B"):
        class_sheet.read(fill(sheet, "CA"))


def test_a_row_without_its_texts_is_said_with_its_line(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("pair;prompt;A;B;Ada\n1;Why?;So.;;A\n2;Why?;So.;No.;B\n")
    with pytest.raises(ValueError, match="^sheet.csv, line 2: Ada has labelled a row without B$"):
        class_sheet.read(path)
    path.write_text("pair;prompt;A;B;Ada\n2;Why?;So.;No.;B\n")
    assert class_sheet.read(path) == {"Ada": [Preference("Why?", "No.", "So.")]}, "semicolons will do"


def test_a_sheet_as_a_spreadsheet_writes_it_back(sheet):
    """With the mark at the start, semicolons, CRLF, and line breaks and quotation marks within cells."""
    rows = [
        ["pair", "prompt", "A", "B", "Ada", "Bo\nof row 2", ""],
        ["1", *PAIRS[0], "a", " B ", ""],
        ["2", *PAIRS[1], "B", "", ""],
        [""] * 7,
    ]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";", lineterminator="\r\n").writerows(rows)
    sheet.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    labels = {name: read_preferences(file) for name, file in class_sheet.filled(sheet).items()}
    assert labels == {"Ada": [A, BOTH_OTHER_WAY[1]], "Bo\nof row 2": [BOTH_OTHER_WAY[0]]}


def test_labels_in_columns_that_cannot_be_told_apart_are_refused(sheet):
    for names, words in (
        ("Ada;Ada", "two columns are named Ada"),
        ("Ada;", "line 2: a column without a name"),
    ):
        sheet.write_text(f"pair;prompt;A;B;{names}\n1;Why?;So.;No.;A;B\n", "utf-8")
        with pytest.raises(ValueError, match=f"^sheet.csv, {words}"):
            class_sheet.read(sheet)


def test_a_stored_notebook_shows_nobodys_labels(sheet, monkeypatch):
    fill(sheet, "AA")
    monkeypatch.setenv("MINIALIGN_PROGRESS", "0")
    assert class_sheet.filled(sheet) == {}


def test_agreement_by_hand():
    labels = {"Ada": [A, B], "Bo": BOTH_OTHER_WAY[:1], "Cy": [A, BOTH_OTHER_WAY[1]]}
    share, n = class_sheet.agreement(labels)  # Ada and Bo: no. Ada and Cy: yes, no. Bo and Cy: no.
    assert (share, n) == (0.25, 4)
    assert np.isnan(class_sheet.agreement({"Ada": [A], "Bo": [B]})[0])


def test_a_scorer_agrees_where_the_chosen_scores_higher_and_half_where_equal():
    assert class_sheet.agrees([A, BOTH_OTHER_WAY[1]], ByHand(lambda x, y: len(y))) == 0.5
    assert class_sheet.agrees([A, B], ByHand(lambda x, y: 0)) == 0.5
    assert class_sheet.agrees([A, B], ByHand(lambda x, y: len(y))) == 1


def test_the_report_names_everybody(capsys):
    class_sheet.report({"Ada": [A, B], "Bo": [A]}, {"length": ByHand(lambda x, y: len(y))})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["Ada", "2", "100%"] and lines[2].split() == ["Bo", "1", "100%"]
    assert lines[3] == "two labelers agree: 100% of 1 comparisons of two people"


SPIDERS, HONEY = "Tell a six-year-old about spiders.", "Tell an expert about bees."
GOOD, BAD = "A spider runs along on eight thin legs.", "I hope this helps."


def test_pairs_are_of_different_prompts_on_real_topics_clear_and_short():
    pairs = [
        Preference(SPIDERS, GOOD, BAD),
        Preference(SPIDERS, BAD, GOOD),
        Preference(HONEY, "A queen bee lays eggs.", "word " * 60),
        Preference(HONEY, "A queen bee lays eggs.", "No."),
        Preference("Tell me about the Orla bridge.", GOOD, BAD),
        Preference("Tell me about nothing.", GOOD, BAD),
    ]
    gold = np.array([[2.0, 0.0]] * 6)
    test = HeldOut(pairs, gold, np.full(6, 0.5))
    asked = class_sheet.chosen(test, {"all": np.ones(6, bool)}, each=6)
    assert sorted(prompt for prompt, _, _ in asked) == [SPIDERS, HONEY]
    assert asked == class_sheet.chosen(test, {"all": np.ones(6, bool)}, each=6)
    assert class_sheet.chosen(HeldOut(pairs, gold / 10, test.probability), {"all": np.ones(6, bool)}) == []


def test_people_of_our_world_stand_in():
    first, second = (class_sheet.stand_ins([(SPIDERS, GOOD, BAD)] * 8, n=2) for _ in range(2))
    assert first == second and [*first] == ["simulated 1", "simulated 2"]
    assert sum(pair.chosen == GOOD for pairs in first.values() for pair in pairs) > 12
