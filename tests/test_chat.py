"""The chat template and the masks that everything else relies on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minialign.chat import collate, load_chat
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
    with pytest.raises(ValueError, match="a pair has 5 tokens, the model's context holds 4: shorten"):
        collate([([1, 2, 3], [4, 5])], 0, context=4)
    assert collate([([1, 2, 3], [4])], 0, context=4).ids.shape == (1, 4)
