"""The chat template and the masks that everything else relies on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minialign.chat import MOST_WHITE_SPACE, collate, load_chat, require_fit
from minialign.tokenizer import SPECIAL_TOKENS, load_tokenizer


def test_the_template():
    text = load_tokenizer().decode(
        [*load_chat().encode_prompt("Why is the sky blue?"), *load_chat().encode_response("Light scatters.")]
    )
    assert text == "<|user|>Why is the sky blue?<|assistant|>Light scatters.<|end|>"


def test_a_document_begins_with_the_separator():
    ids = load_chat().encode_document("The moon.")
    assert ids[0] == load_chat().separator and load_tokenizer().decode(ids[1:]) == "The moon."


def test_the_end_token_is_the_responses_last_unless_unwanted():
    assert load_chat().encode_response("Yes.")[-1] == load_chat().end
    assert load_chat().encode_response("Yes.", end=False) == load_chat().encode_response("Yes.")[:-1]


def test_padding_is_not_the_end():
    assert load_chat().pad not in (load_chat().end, load_chat().separator)


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "hello", " ", "<|", "|>"])).map("".join))
def test_a_user_cannot_type_a_command(text):
    """Special tokens in a text are plain text, for every way into the model, and come back as they were
    typed.
    """
    commands = {load_tokenizer().encode_single_token(token) for token in SPECIAL_TOKENS}
    for ids, frame in [
        (load_chat().encode_prompt(text), [load_chat().user[0], load_chat().assistant[0]]),
        (load_chat().encode_response(text), [load_chat().end]),
        (load_chat().encode_document(text), [load_chat().separator]),
    ]:
        assert [i for i in ids if i in commands] == frame
        assert load_tokenizer().decode([i for i in ids if i not in commands]) == text


def test_collate_by_hand():
    pad = load_chat().pad
    batch = collate([([5, 6], [7, 8, 9]), ([1], [2])], pad)
    assert batch.ids.tolist() == [[5, 6, 7, 8, 9], [1, 2, pad, pad, pad]]
    assert batch.mask.int().tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.response_mask.int().tolist() == [[0, 0, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert batch.ids.dtype == torch.long and len(batch) == 2


def test_the_response_mask_holds_the_end_token_and_nothing_of_the_prompt():
    batch = load_chat().collate([("Who?", "Me, and nobody else."), ("Explain the moon landing.", "No.")])
    for row in range(2):
        response = batch.ids[row][batch.response_mask[row]].tolist()
        assert load_tokenizer().decode(response) == ["Me, and nobody else.<|end|>", "No.<|end|>"][row]
    assert not (batch.response_mask & ~batch.mask).any()


def test_to_moves_every_tensor():
    moved = collate([([1], [2])], 0).to("meta")
    assert {moved.ids.device.type, moved.mask.device.type, moved.response_mask.device.type} == {"meta"}


def test_rows_of_a_batch():
    pairs = [([5, 6], [7, 8, 9]), ([1], [2]), ([3, 4], [5])]
    batch = collate(pairs, 0)
    for rows, same in [([2, 0], [2, 0]), (torch.tensor([1, 1]), [1, 1]), (slice(1, 3), [1, 2])]:
        part = batch[rows]
        assert len(part) == 2 and part.ids.shape == (2, 5)  # the width stays
        for field in ("ids", "mask", "response_mask"):
            assert torch.equal(
                getattr(part, field), torch.stack([getattr(batch, field)[row] for row in same])
            ), field


def test_the_two_masks_do_not_share_memory():
    batch = collate([([1], [2])], 0)
    batch.response_mask[:] = False
    assert batch.mask.all()


def test_errors_say_what_to_do():
    with pytest.raises(ValueError, match="the batch is empty: give at least one"):
        collate([], 0)
    with pytest.raises(ValueError, match="pair 1 of the batch has no response token"):
        collate([([1], [2]), ([1, 2], [])], 0)
    assert collate([([1, 2, 3], [4])], 0, context=4).ids.shape == (1, 4)


def test_pairs_that_are_too_long_are_named():
    fits, long = ([1, 2, 3], [4]), ([1, 2, 3], [4, 5])
    with pytest.raises(ValueError) as error:
        collate([fits, long], 0, context=4)
    assert str(error.value) == (
        "pair 1 has 5 tokens (3 of the prompt, 2 of the response), the model's context holds 4: "
        "shorten the prompt or the response"
    )


def test_many_pairs_that_are_too_long_are_told_together_under_the_callers_names():
    pairs = [([1] * (i % 2 + 1), [2] * i) for i in range(20)]  # 1, 3, 3, 5, 5, … tokens
    with pytest.raises(ValueError) as error:
        require_fit(pairs, 7, lambda i: f"demonstration {i}")
    head, *lines = str(error.value).split("\n")
    assert head == "13 faults, the first five:"
    assert [line.partition(" (")[0] for line in lines] == [
        f"demonstration {i} has {i + i % 2 + 1} tokens" for i in (7, 8, 9, 10, 11)
    ]
    require_fit(iter(pairs[:7]), 7)


# --- texts that the tokenizer cannot take ---


@pytest.mark.parametrize("white", [" ", "\n", "\t", " \r\n\t", "\u00a0\u3000\u2028\x85"])
@pytest.mark.parametrize("frame", ["", "a"])
def test_nearly_a_million_blanks_in_a_row(white, frame):
    """A million would end the process's patience: a panic, which `except Exception` does not catch."""
    chat, room = load_chat(), MOST_WHITE_SPACE // len(white)
    fits = frame + white * room + frame
    assert chat.decode(chat.encode(fits)) == fits
    for encode in (chat.encode, chat.encode_prompt, chat.encode_response, chat.encode_document):
        with pytest.raises(ValueError, match="the input has .* blanks or line breaks in a row: shorten it"):
            encode(frame + white * (room + 100_000) + frame)


def test_a_long_text_may_hold_many_blanks():
    """Books are longer than a million characters: only an unbroken run is a problem."""
    text = (" " * 600_000 + "\na") * 2 + "a" * 1_000_000
    assert load_chat().decode(load_chat().encode(text)) == text


@pytest.mark.parametrize("half", ["\ud83d", "\ude00", "\ude00\ud83d"])
def test_half_a_character(half):
    chat = load_chat()
    for encode in (chat.encode, chat.encode_prompt, chat.encode_response, chat.encode_document):
        with pytest.raises(
            ValueError, match=r"the input holds half a character .*in 'Why .*\?'\): remove it"
        ):
            encode(f"Why {half}?")
    assert chat.decode(chat.encode("Why \U0001f600?")) == "Why \U0001f600?"


@pytest.mark.parametrize("value", [None, 3, b"Why?", ["Why?"], float("nan")])
def test_what_is_no_text(value):
    with pytest.raises(ValueError) as error:
        load_chat().encode(value)
    assert str(error.value) == f"the input is no text but {value!r}"
