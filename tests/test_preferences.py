"""Preferences: what is written comes back, the field's formats are read where it is certain what they mean,
and what is broken is named: by line and field in a file, by index in a list.
"""

import csv
import gzip
import io
import json
import lzma
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine import lively_gpt
from hypothesis import given
from hypothesis import strategies as st

from minialign import reward_model
from minialign.chat import load_chat
from minialign.gpt import GPT, GPTConfig
from minialign.preferences import (
    Preference,
    as_preferences,
    batches_of_comparisons,
    compare,
    dump_preferences,
    parse_preferences,
    read_preferences,
    write_preferences,
)
from minialign.reward_model import RewardModel, RewardModelConfig

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
        ('{"a": ' + "[" * 100_000, "this is not JSON"),
        ('{"a": ' + "1" * 5_000 + "}", "this is not JSON"),
        ("[1, 2]", r"this is no object with the fields prompt, chosen, rejected, but \[1, 2\]"),
        *[
            (json.dumps({k: v for k, v in GOOD.items() if k != field}), f"the field '{field}' is missing")
            for field in GOOD
        ],
        *[
            (json.dumps(GOOD | {field: value}), f"the field '{field}' is no text but {shown}")
            for field in GOOD
            for value, shown in [(None, "None"), (3, "3"), ({"role": "user"}, "{'role': 'user'}")]
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


@pytest.mark.parametrize("line", ['"chosen"', "null", "3"])
def test_a_line_that_is_json_and_no_object(written, line):
    with pytest.raises(
        ValueError, match=r"line 2: this is no object with the fields prompt, chosen, rejected"
    ):
        read_preferences(written(LINE, line, LINE))


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


# --- many faults ---


def told(content) -> list[str]:
    """What the error about a file's text says, line by line."""
    with pytest.raises(ValueError) as error:
        parse_preferences(content, "votes")
    return str(error.value).split("\n")


def test_all_faults_of_a_file_are_told_together():
    tie = json.dumps(GOOD | {"rejected": GOOD["chosen"]})
    head, *faults = told("\n".join([LINE, tie, "{", LINE, '{"prompt": "Why?"}']))
    assert head == "3 faults:"
    assert [fault[:30] for fault in faults] == [
        "votes, line 2: chosen and reje",
        "votes, line 3: this is not JSO",
        "votes, line 5: the field 'chos",
    ]


@pytest.mark.parametrize(("ties", "head"), [(5, "5 faults:"), (6, "6 faults, the first five:")])
def test_of_many_faults_the_first_five(ties, head):
    tie = json.dumps(GOOD | {"rejected": GOOD["chosen"]})
    assert told("\n".join([LINE, *[tie] * ties]))[0] == head
    lines = told("\n".join([LINE, *[tie] * 1_200]))
    assert lines[0] == "1,200 faults, the first five:"
    assert [line.split(":")[0] for line in lines[1:]] == [f"votes, line {i}" for i in (2, 3, 4, 5, 6)]


def test_the_fields_there_are_instead():
    record = {"question": "Why?", "response_chosen": "A", "response_rejected": "B"}
    assert told(json.dumps(record)) == [
        "votes, line 1: the field 'prompt' is missing; there are question, response_chosen, response_rejected"
    ]
    assert told(json.dumps({"data": [GOOD]}, indent=1)) == [
        "votes, line 1: the field 'prompt' is missing; there are data"
    ]


# --- containers ---

OTHER = Preference("Wie?", "So.\nUnd so.", 'Nicht "so", oder; doch?\tNein.')
PAIRS = [PAIR, OTHER]
RECORDS = [GOOD, dict(zip(GOOD, (OTHER.prompt, OTHER.chosen, OTHER.rejected)))]


def table(delimiter, rows, names=("id", "prompt", "chosen", "rejected"), **options):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, **options).writerows([names, *rows])
    return file.getvalue()


ROWS = [(i, *record.values()) for i, record in enumerate(RECORDS)]
CONTENTS = {
    "array": json.dumps(RECORDS),
    "indented array": json.dumps(RECORDS, indent=4),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
    "indented objects": "\n".join(json.dumps(record, indent=1) for record in RECORDS),
    "CSV": table(",", ROWS),
    "CSV in quotes": table(",", ROWS, quoting=csv.QUOTE_ALL, lineterminator="\n"),
    "CSV with semicolons": table(";", ROWS),
    "TSV": table("\t", ROWS),
    "CSV with empty rows": table(",", [ROWS[0], ("",) * 4, (), ROWS[1], ("",) * 4]),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n  \n"])
def test_containers(tmp_path, name, packed, before):
    path = tmp_path / "votes"
    path.write_bytes(packed((before + CONTENTS[name]).encode()))
    assert read_preferences(path) == PAIRS


def test_gzipped_lines(tmp_path):
    (tmp_path / "votes.jsonl.gz").write_bytes(gzip.compress(dump_preferences(PAIRS)))
    assert read_preferences(tmp_path / "votes.jsonl.gz") == PAIRS


@pytest.mark.parametrize(
    ("content", "line", "fault"),
    [
        (json.dumps([GOOD, {"chosen": "A"}, GOOD], indent=1), 7, "the field 'prompt' is missing"),
        (json.dumps([GOOD, 3]), 1, "this is no object with the fields"),
        (
            json.dumps([GOOD, GOOD], indent=1)[:-2],
            11,
            r"this is not JSON \(Expecting ',' delimiter at column",
        ),
        ("[\n" + LINE + ",\n]", 3, "this is not JSON"),
        ("[" * 100_000, 1, "this is not JSON"),
        (json.dumps(GOOD, indent=1) + "\n{\n3", 7, "this is not JSON"),
        (table(",", [("1", "Why,\nsay?", "A", "B"), ("2", "Why?", "A", "A")]), 4, "the same text, 'A'"),
        (
            table(",", [("1", "Why?", "", "B")]),
            2,
            "the field 'chosen' is missing; there are id, prompt, rejected",
        ),
        (table(",", [("1", "Why?", "A")]), 2, "the row has 3 cells, the header 4"),
        (table("\t", [("1", "Why?", "A", "B", "C")]), 2, "the row has 5 cells, the header 4"),
        (
            'prompt,chosen,rejected\nQ,A,B\nQ,"A,B\nQ,A,B\n',
            3,
            r"the row cannot be read \(.*check its quotation",
        ),
        ("question,chosen,rejected\nQ,A,B", 2, "the field 'prompt' is missing; there are question, chosen"),
        ("prompt,chosen,chosen,rejected\nQ,A,B,C", 1, "this is neither a JSON object nor a table's header"),
        (
            "\nquestion,better,worse\nQ,A,B",
            2,
            "this is neither a JSON object nor a table's header with prompt, chosen, rejected, but 'question",
        ),
        (
            "version https://git-lfs.github.com/spec/v1\noid 1",
            1,
            "this is neither .*, but 'version https://git",
        ),
    ],
)
def test_a_fault_in_a_container_is_named(content, line, fault):
    with pytest.raises(ValueError, match=rf"^votes, line {line}: .*{fault}.*$"):
        parse_preferences(content, "votes")


@pytest.mark.parametrize("content", ["[]", "[\n]", "prompt,chosen,rejected\n"])
def test_a_container_without_pairs(content):
    assert told(content)[0].startswith("votes holds no preference pairs: give one JSON object a line")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"PAR1\x15\x04", "is a Parquet file: unpack it, or export it as JSON lines or CSV"),
        (b"ARROW1\0\0", "is an Arrow file: "),
        (b"\xff\xff\xff\xff\x08", "is an Arrow file: "),
        (b"PK\x03\x04\x14", "is a zip or Excel file: "),
        (lzma.compress(LINE.encode()), "is an xz file: "),
        (b"\x28\xb5\x2f\xfd\x04", "is a zstd file: "),
        (b"BZh91AY", "is a bzip2 file: "),
        (gzip.compress(b"PAR1\x15\x04"), "is a Parquet file: "),
        (gzip.compress(LINE.encode())[:-9], r"is a damaged gzip file \(.*\): get it again"),
        (gzip.compress(LINE.encode())[:-8] + b"12345678", r"is a damaged gzip file \(.*\): get it again"),
        (b"\x1f\x8bLINE", r"is a damaged gzip file \(.*\): get it again"),
        (LINE.encode("utf-16"), r"is not UTF-8 text \(byte 0\): save it as UTF-8"),
        (gzip.compress("Ärger".encode("cp1252")), r"is not UTF-8 text \(byte 0\)"),
    ],
)
def test_files_that_are_no_text(tmp_path, content, fault):
    path = tmp_path / "votes"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path} {fault}"):
        read_preferences(path)


# --- what a record may look like ---


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


MARKED = "\n\nHuman: How do I mend a hole?\n\nAssistant:"
MENDED = Preference("How do I mend a hole?", "Sew it.", "No.")
ASKED, SEWN, NO = user(MENDED.prompt), assistant("Sew it."), assistant("No.")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ASKED], "chosen": [SEWN], "rejected": [NO]},
        {"chosen": [ASKED, SEWN], "rejected": [ASKED, NO]},
        {"prompt": [ASKED], "chosen": [ASKED, SEWN], "rejected": [ASKED, NO]},
        {"prompt": MENDED.prompt, "chosen": [ASKED, SEWN], "rejected": [ASKED, NO]},
        {"prompt": MENDED.prompt, "chosen": [SEWN], "rejected": "No."},
        {"prompt": [ASKED], "chosen": "Sew it.", "rejected": [ASKED, NO]},
        {"chosen": MARKED + " Sew it.", "rejected": MARKED + " No."},
        {"prompt": MARKED, "chosen": MARKED + " Sew it.", "rejected": MARKED + " No."},
        {"prompt": MENDED.prompt, "chosen": MARKED + " Sew it.", "rejected": MARKED + " No.\n"},
        {"prompt": MARKED, "chosen": "Sew it.", "rejected": "\n\nAssistant: No."},
        {"prompt": MARKED.removesuffix("\n\nAssistant:"), "chosen": "Sew it.", "rejected": "No."},
    ],
)
def test_single_turns_in_other_forms(record):
    assert parse_preferences(json.dumps(record), "votes") == [MENDED]
    assert as_preferences([record]) == [MENDED]


ONLY = "only single turns are read, a prompt of the user and a response of the assistant$"


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (
            {"chosen": [ASKED, SEWN, ASKED, SEWN], "rejected": [ASKED, NO]},
            rf"chosen is a conversation \(user, assistant, user, assistant\): {ONLY}",
        ),
        (
            {"prompt": [user("Hi."), assistant("Hello."), ASKED], "chosen": [SEWN], "rejected": [NO]},
            rf"chosen is a conversation \(user, assistant, user, assistant\): {ONLY}",
        ),
        (
            {
                "prompt": [{"role": "system", "content": "Be kind."}, ASKED],
                "chosen": [SEWN],
                "rejected": [NO],
            },
            rf"chosen is a conversation \(system, user, assistant\): {ONLY}",
        ),
        (
            {"prompt": "Why?", "chosen": [{"role": "gpt", "content": "So."}], "rejected": [NO]},
            rf"\(user, gpt\): {ONLY}",
        ),
        ({"prompt": "Why?", "chosen": [], "rejected": [NO]}, rf"chosen is a conversation \(user\): {ONLY}"),
        (
            {"chosen": MARKED + " No.", "rejected": MARKED + " Sew.\n\nHuman: Thanks.\n\nAssistant: Bye."},
            rf"rejected is a conversation \(user, assistant, user, assistant\): {ONLY}",
        ),
        (  # without the empty line before it, the first mark is not certain to be one
            {"chosen": MARKED.strip() + " Sew it.", "rejected": MARKED.strip() + " No."},
            rf"chosen is a conversation \(assistant, assistant\): {ONLY}",
        ),
        (
            {"chosen": [ASKED, SEWN], "rejected": [user("Another?"), NO]},
            "the prompt is not the same in all fields: in 'chosen' it is 'How do I mend a hole",
        ),
        ({"prompt": "Why?", "chosen": [ASKED, SEWN], "rejected": [ASKED, NO]}, "the prompt is not the same"),
        ({"chosen": [SEWN], "rejected": [NO]}, "the field 'prompt' is missing$"),
        ({"prompt": [], "chosen": [SEWN], "rejected": [NO]}, "the field 'prompt' is missing"),
        ({"prompt": [user(" ")], "chosen": [SEWN], "rejected": [NO]}, "the field 'prompt' is empty"),
        ({"prompt": [ASKED], "chosen": [SEWN], "rejected": [SEWN]}, "chosen and rejected are the same text"),
        (
            {"prompt": [{"role": "user"}], "chosen": [SEWN], "rejected": [NO]},
            "the field 'prompt' is no text but a list, and {'role': 'user'} in it is no message with role",
        ),
        (
            {"prompt": "Why?", "chosen": [{"from": "gpt", "value": "So."}], "rejected": [NO]},
            "the field 'chosen' is no text but a list, and {'from': 'gpt', 'value': 'So.'} in it is no",
        ),
        (
            {"prompt": [user([{"type": "text", "text": "Why?"}])], "chosen": [SEWN], "rejected": [NO]},
            r"a message in the field 'prompt' is no text but \[{'type'",
        ),
        (
            GOOD | {"chosen": str([ASKED, SEWN])},
            "the field 'chosen' is a list of messages printed as text: export it as JSON lines",
        ),
        (GOOD | {"prompt": json.dumps([ASKED])}, "the field 'prompt' is a list of messages printed as text"),
    ],
)
def test_what_is_not_certainly_a_single_turn_is_refused(record, fault):
    with pytest.raises(ValueError, match=f"^votes, line 2: .*{fault}"):
        parse_preferences(f"{LINE}\n{json.dumps(record)}", "votes")


def test_plain_texts_stay_as_they_are():
    """Also with blanks around them, and with words and marks that a conversation might have."""
    texts = [" Human: all too human? ", "\nAssistant: no.\n", '[{"a": 1}] is JSON']
    assert parse_preferences(json.dumps(dict(zip(GOOD, texts))), "votes") == [Preference(*texts)]


# --- prompts inside the responses ---

REPEATED = {name: GOOD["prompt"] + " " * (name != "prompt") + GOOD[name] for name in ("chosen", "rejected")}
REPEATED = GOOD | REPEATED


@pytest.mark.parametrize(("others", "repeated"), [(0, 1), (0, 3), (2, 3)])
def test_a_prompt_that_most_pairs_repeat_is_refused(others, repeated):
    lines = [LINE] * others + [json.dumps(REPEATED)] * repeated
    assert told("\n".join(lines)) == [
        f"votes, line {others + 1}: the prompt stands at the head of both chosen and rejected, as in "
        f"{repeated} of {others + repeated} pairs: leave the responses only"
    ]


@pytest.mark.parametrize("field", ["chosen", "rejected"])
def test_a_response_may_begin_with_the_question(field):
    """One of a pair, in every line; or both, in half of the lines."""
    echo = json.dumps(GOOD | {field: REPEATED[field]})
    assert len(parse_preferences("\n".join([echo] * 4), "votes")) == 4
    assert len(parse_preferences("\n".join([json.dumps(REPEATED), LINE] * 2), "votes")) == 4


# --- pairs from elsewhere ---

TRIPLE = tuple(GOOD.values())


@pytest.mark.parametrize(
    "pair",
    [PAIR, GOOD, GOOD | {"id": 7}, TRIPLE, list(TRIPLE), np.array(TRIPLE), tuple(map(np.str_, TRIPLE))],
    ids=lambda pair: type(pair).__name__,
)
def test_pairs_are_taken_as_they_are_kept_elsewhere(pair):
    assert as_preferences([OTHER, pair]) == as_preferences(iter([OTHER, pair])) == [OTHER, PAIR]
    assert parse_preferences(dump_preferences([pair]).decode(), "votes") == [PAIR]
    model = lively_gpt(CONFIG)
    for batch in (compare([pair], model), batches_of_comparisons([pair], 1, 0, model)(0)):
        assert batch.texts == compare([PAIR], model).texts
        assert torch.equal(batch.batch.ids, compare([PAIR], model).batch.ids)


@pytest.mark.parametrize(
    ("pair", "fault"),
    [
        (None, "this is no object with the fields prompt, chosen, rejected, but None"),
        ("abc", "this is no object with the fields prompt, chosen, rejected, but 'abc'"),
        (TRIPLE[:2], r"this is no object with the fields .*, but \('Why is the sky blue"),
        ((*TRIPLE[:2], None), "the field 'rejected' is no text but None"),
        (GOOD | {"chosen": float("nan")}, "the field 'chosen' is no text but nan"),
        ({"prompt": "Why?"}, "the field 'chosen' is missing"),
        (("Why?", "So.", "So."), "chosen and rejected are the same text"),
    ],
)
def test_what_is_no_pair_is_named(pair, fault):
    with pytest.raises(ValueError, match=f"^pair 1: {fault}"):
        as_preferences([PAIR, pair, PAIR])
    with pytest.raises(ValueError, match="^2 faults:\npair 1: .*\npair 2: "):
        batches_of_comparisons([PAIR, pair, pair], 1, 0, lively_gpt(CONFIG))


@pytest.mark.parametrize("pairs", ["votes.jsonl", None, GOOD, PAIR, 3])
def test_what_is_no_list_of_pairs(pairs, tmp_path):
    with pytest.raises(ValueError, match="is no list of preference pairs: give one, or read a file with"):
        compare(pairs, lively_gpt(CONFIG))


@pytest.mark.parametrize("field", GOOD)
def test_half_a_character_is_refused(field):
    """What json.loads makes of it, as a text and in a message: no file could be written with it."""
    half = GOOD | {field: "Why \ud83d?"}
    fault = r"the field '{}' holds half a character \(a lone surrogate, in 'Why \\ud83d\?'\): remove it$"
    with pytest.raises(ValueError, match="^" + fault.format(field)):
        Preference(**half)
    with pytest.raises(ValueError, match="^votes, line 2: " + fault.format(field)):
        parse_preferences(f"{LINE}\n{json.dumps(half)}", "votes")
    message = {"prompt": [user("Why?")], "chosen": [assistant("\ude00")], "rejected": [assistant("B")]}
    with pytest.raises(ValueError, match="line 1: a message in the field 'chosen' holds half a character"):
        parse_preferences(json.dumps(message), "votes")


# --- pairs that do not fit ---

CONFIG = GPTConfig(context=64, n_layer=1, n_head=2, n_embd=16)
LONG = Preference("Explain.", "word " * 100, "short")


def test_a_pair_too_long_is_named_before_training():
    pairs = [Preference(f"What is {i}?", f"It is {i}.", "No idea.") for i in range(40)] + [LONG]
    seen, config = [], RewardModelConfig(steps=20, prompts_per_step=4)
    with pytest.raises(ValueError) as error:
        reward_model.train(RewardModel(lively_gpt(CONFIG)), pairs, config, on_step=seen.append)
    assert seen == []
    tokens = len(lively_gpt(CONFIG).chat.encode_response(LONG.chosen))
    assert str(error.value) == (
        f"pair 40 ('Explain.') with its chosen response has {tokens + 4} tokens (4 of the prompt, {tokens} "
        "of the response), the model's context holds 64: shorten the prompt or the response"
    )


def test_all_pairs_too_long_are_named():
    """Each response once, also when many pairs hold it; and a long prompt with each of its responses."""
    pairs = [PAIR, LONG, replace(LONG, rejected="No."), Preference("Long " * 70, "A", "B")]
    with pytest.raises(ValueError) as error:
        compare(pairs, lively_gpt(CONFIG))
    head, *faults = str(error.value).split("\n")
    assert head == "3 faults:" and [fault.split(" has ")[0] for fault in faults] == [
        "pair 1 ('Explain.') with its chosen response",
        "pair 3 ('Long Long Long Long Long Long Long Long ') with its chosen response",
        "pair 3 ('Long Long Long Long Long Long Long Long ') with its rejected response",
    ]


def test_a_pair_that_the_tokenizer_cannot_take_is_named():
    blanks = Preference("Why?", "So.", "a" + " " * 1_000_000)
    with pytest.raises(
        ValueError, match=r"^pair 1 \('Why\?'\) with its rejected response: the input has 1,000,000"
    ):
        batches_of_comparisons([PAIR, blanks], 1, 0, lively_gpt(CONFIG))


def test_texts_are_encoded_once_for_a_whole_run():
    chat, encoded = load_chat(), []

    class Tokenizer:
        def encode_ordinary(self, text):
            encoded.append(text)
            return chat.tokenizer.encode_ordinary(text)

    model = GPT(CONFIG, chat=replace(chat, tokenizer=Tokenizer()))
    pairs = [Preference(f"{i}?", a, b) for i in range(4) for a, b in ("AB", "BC", "CA", "AB")]
    comparisons_at = batches_of_comparisons(pairs, 2, 0, model)
    for _ in range(2):
        assert sorted(filter(str.isalpha, encoded)) == sorted("ABC" * 4)
        batches = [comparisons_at(step) for step in range(8)]
    assert sum(batch.weight for batch in batches[:2]) == 16


def test_a_prompt_is_repeated_whatever_blanks_stand_at_its_end():
    """Marks of speakers are often followed by a blank in the prompt, and by a new line in the responses."""
    record = {"prompt": "Q: Why? A: ", "chosen": "Q: Why? A:\nSo.", "rejected": "Q: Why? A:\nNo."}
    with pytest.raises(ValueError, match="the prompt stands at the head of both"):
        parse_preferences(json.dumps(record), "votes")
