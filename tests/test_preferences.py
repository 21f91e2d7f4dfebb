"""Preference files: what is written comes back, and what is broken is named by line and field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minialign.preferences import (
    Preference,
    dump_preferences,
    parse_preferences,
    read_preferences,
    write_preferences,
)

GOOD = {"prompt": "Why is the sky blue?", "chosen": "Light scatters.", "rejected": "It just is."}
PAIR = Preference(**GOOD)
LINE = json.dumps(GOOD)


@pytest.fixture
def written(tmp_path):
    """A function that writes lines to a file and gives its path."""

    def write(*lines):
        path = tmp_path / "pairs.jsonl"
        path.write_bytes("\n".join(lines).encode())
        return path

    return write


def test_the_file_is_the_format_that_others_use(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_preferences(path, iter([PAIR, Preference("Ärger?", "Nein.\nGar nicht.", "")]))
    assert path.read_bytes().endswith(b"}\n")
    first, second = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    assert json.loads(first) == GOOD
    assert json.loads(second) == {"prompt": "Ärger?", "chosen": "Nein.\nGar nicht.", "rejected": ""}
    assert "Ärger" in second  # readable, not \u00c4rger


# Everything that some reader of lines takes for the end of one, and what JSON has to escape.
TEXTS = st.lists(
    st.sampled_from([*'aé\n\r\t"\\\0\v\f\x1c\x1d\x1e\x85\u2028\u2029\ufeff🦑 ', "\r\n"]), max_size=8
).map("".join)


@given(
    st.lists(
        st.tuples(TEXTS.map(lambda text: text + "?"), TEXTS, TEXTS).filter(lambda t: t[1] != t[2]),
        min_size=1,
        max_size=4,
    )
)
def test_round_trip(tmp_path_factory, triples):
    path = tmp_path_factory.mktemp("round") / "pairs.jsonl"
    pairs = [Preference(*triple) for triple in triples]
    write_preferences(path, pairs)
    assert read_preferences(path) == pairs


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_at_a_newline_only(written, separator):
    """json.dumps(ensure_ascii=False) leaves these inside the line, and str.splitlines would cut there."""
    text = f"one{separator}two"
    path = written(json.dumps(GOOD | {"chosen": text}, ensure_ascii=False), LINE)
    assert separator.encode() in path.read_bytes()
    assert [pair.chosen for pair in read_preferences(path)] == [text, "Light scatters."]


def test_the_order_is_the_files(written):
    lines = [json.dumps(GOOD | {"prompt": f"{i}?"}) for i in range(5)]
    assert [pair.prompt for pair in read_preferences(written(*lines))] == [f"{i}?" for i in range(5)]


def test_other_fields_are_ignored(written):
    more = {"id": 7, "margin": None, "chosen_rating": [1, 2]}
    assert read_preferences(written(json.dumps(more | GOOD), json.dumps(GOOD | more))) == [PAIR, PAIR]


@pytest.mark.parametrize(
    "content", [LINE + "\r\n" + LINE + "\r\n", f"\n  \n{LINE}\n\n\t\n{LINE}\n", f"\ufeff{LINE}\n{LINE}"]
)
def test_line_ends_empty_lines_and_byte_order_marks_as_editors_leave_them(written, content):
    assert read_preferences(written(content)) == [PAIR, PAIR]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "this is not JSON"),
        (LINE[:-1], r"this is not JSON \(Expecting ',' delimiter at column"),
        (LINE + LINE, "this is not JSON"),
        ("[1, 2]", "this is no JSON object with the fields prompt, chosen, rejected"),
        ('"chosen"', "this is no JSON object"),
        ("null", "this is no JSON object"),
        *[
            (json.dumps({k: v for k, v in GOOD.items() if k != field}), f"the field '{field}' is missing")
            for field in GOOD
        ],
        *[
            (json.dumps(GOOD | {field: value}), f"the field '{field}' is no text but {shown}")
            for field in GOOD
            for value, shown in [(None, "null"), (3, "3"), ([{"role": "user"}], r'\[{"role": "user"}\]')]
        ],
        (json.dumps(GOOD | {"prompt": " \n"}), "the field 'prompt' is empty"),
        (
            json.dumps(GOOD | {"rejected": "Light scatters."}),
            "chosen and rejected are the same text, 'Light scatters.'",
        ),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_a_malformed_line_is_named(written, line, message, before):
    path = written(*[LINE] * before, "", line, LINE)
    with pytest.raises(ValueError, match=rf"pairs\.jsonl, line {before + 2}: .*{message}"):
        read_preferences(path)


def test_a_text_from_elsewhere_is_called_by_its_name():
    assert parse_preferences(f"{LINE}\r\n{LINE}", "a text") == [PAIR, PAIR]
    with pytest.raises(ValueError, match="^a text, line 2: the field 'prompt' is missing"):
        parse_preferences(f"{LINE}\n{{}}", "a text")


@pytest.mark.parametrize("content", ["", "\n\r\n  \n"])
def test_a_file_without_pairs(written, content):
    with pytest.raises(
        ValueError,
        match=r"pairs\.jsonl holds no preference pairs: give one JSON object a "
        r"line, with prompt, chosen, rejected",
    ):
        read_preferences(written(content))


def test_equal_responses_are_no_pair():
    with pytest.raises(ValueError, match="the same text, 'yes': there is nothing to learn"):
        Preference("Really?", "yes", "yes")
    assert Preference("Really?", "yes", "yes ").rejected == "yes "


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_preferences(path, [PAIR])

    def broken():
        yield PAIR
        raise RuntimeError("out of pairs")

    with pytest.raises(RuntimeError):
        write_preferences(path, broken())
    assert read_preferences(path) == [PAIR] and path.read_bytes() == dump_preferences([PAIR])
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.jsonl"]
