"""Byte-pair encoding: the trainer against two others, the encoder against a slow one, and text of every
kind.
"""

import base64
from collections import Counter

import pytest
import regex
import rustbpe
from hypothesis import given
from hypothesis import strategies as st

from minialign import tokenizer
from minialign.course.build import publish
from minialign.tokenizer import (
    PATTERN,
    RANKS,
    SPECIAL_TOKENS,
    build_encoding,
    dump_ranks,
    load_tokenizer,
    train_bpe,
)

TEXTS = [
    "The moon landing was in 1969. The astronauts walked on the moon; they're heroes!",
    "Explain the moon landing to a six-year-old in a few sentences.",
    "banana bananas aaaaaaa aaa aa abababab   two  spaces\n\n\nand lines",
    "Die Mondlandung 1969: schön, naïve, façade — 月面着陸 🚀🚀🚀",
] * 3


def merged(sequence, pair, new):
    out = list(sequence)
    i = 0
    while i + 1 < len(out):
        if (out[i], out[i + 1]) == pair:
            out[i : i + 2] = [new]
        i += 1
    return out


def slow_bpe(texts, vocab_size):
    """Count everything anew for every merge."""
    words = Counter(word for text in texts for word in regex.findall(PATTERN, text))
    sequences = {word: list(word.encode()) for word in words}
    tokens = [bytes([i]) for i in range(256)]
    while len(tokens) < vocab_size:
        pairs = Counter()
        for word, sequence in sequences.items():
            for pair in zip(sequence, sequence[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        sequences = {word: merged(sequence, best, len(tokens)) for word, sequence in sequences.items()}
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def slow_encode(ranks, word):
    """Apply the merges in the order in which they were learned."""
    parts = [bytes([b]) for b in word.encode()]
    while True:
        pairs = [a + b for a, b in zip(parts, parts[1:]) if a + b in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        best = min(pairs, key=ranks.get)
        i = next(i for i in range(len(parts)) if b"".join(parts[i : i + 2]) == best)
        parts[i : i + 2] = [best]


@pytest.mark.parametrize("vocab_size", [256, 257, 300, 400, 10_000])
def test_trainer_learns_what_counting_anew_learns(vocab_size):
    assert list(train_bpe(TEXTS, vocab_size)) == slow_bpe(TEXTS, vocab_size)


@given(st.lists(st.text(alphabet="ab ", max_size=12), min_size=1, max_size=6).filter(any))
def test_trainer_on_texts_full_of_overlaps(texts):
    assert list(train_bpe(texts, 280)) == slow_bpe(texts, 280)


def test_trainer_learns_what_rustbpe_learns():
    """Where no two pairs are equally frequent, so that any trainer must agree."""
    text = " ".join(
        ["hugging"] * 1000 + ["hug"] * 500 + ["pug"] * 170 + ["pun"] * 61 + ["bun"] * 29 + ["moon"] * 13
    )
    theirs = rustbpe.Tokenizer()
    theirs.train_from_iterator([text], 266, pattern=PATTERN)
    assert train_bpe([text], 266) == {bytes(token): rank for token, rank in theirs.get_mergeable_ranks()}


def test_training_does_not_depend_on_the_order_of_texts():
    assert train_bpe(TEXTS, 400) == train_bpe(reversed(TEXTS), 400)


def test_frequent_words_become_one_token():
    encoding = build_encoding(train_bpe(TEXTS, 400))
    assert encoding.encode_ordinary(" moon") == [encoding.encode_single_token(" moon")]
    assert len(encoding.encode_ordinary(TEXTS[0])) < 0.6 * len(TEXTS[0])


def test_tokens_never_cross_words():
    learned = list(train_bpe(["in the " * 50 + "a1 b2 " * 50], 400))[256:]
    assert learned and not any(b" " in token[1:] for token in learned)
    assert not any(regex.search(rb"[a-z][0-9]", token) for token in learned)


@given(st.text(alphabet=st.sampled_from("aban mothe.1 ü🚀\n"), max_size=30))
def test_encoding_applies_the_merges_in_order(text):
    ranks = train_bpe(TEXTS, 400)
    expected = [rank for word in regex.findall(PATTERN, text) for rank in slow_encode(ranks, word)]
    assert build_encoding(ranks).encode_ordinary(text) == expected


# --- the course's own ---


@given(st.text())
def test_any_text_comes_back(text):
    encoding = load_tokenizer()
    assert encoding.decode_bytes(encoding.encode_ordinary(text)) == text.encode()


@given(st.binary())
def test_any_bytes_have_tokens(data):
    encoding = load_tokenizer()
    tokens = [encoding.encode_single_token(bytes([b])) for b in data]
    assert encoding.decode_bytes(tokens) == data


@given(st.text(), st.sampled_from(SPECIAL_TOKENS), st.text())
def test_special_tokens_in_a_text_are_text(before, special, after):
    tokens = load_tokenizer().encode_ordinary(before + special + after)
    assert max(tokens) < load_tokenizer().n_vocab - len(SPECIAL_TOKENS)


def test_special_tokens_are_five_different_ids_above_the_ranks():
    encoding = load_tokenizer()
    ids = [encoding.encode_single_token(token) for token in SPECIAL_TOKENS]
    assert ids == list(range(encoding.n_vocab - 5, encoding.n_vocab))
    assert all(encoding.decode([i]) == token for i, token in zip(ids, SPECIAL_TOKENS))


# --- files and errors ---


def test_written_ranks_are_read_again(toy_data):
    ranks = train_bpe(TEXTS, 300)
    publish(RANKS, dump_ranks(ranks), "", 0.0)
    assert load_tokenizer()._mergeable_ranks == ranks
    first = base64.b64decode((toy_data / RANKS).read_bytes().split()[0])
    assert first == b"\x00"


def test_no_text():
    with pytest.raises(ValueError, match="there is no text to train the tokenizer on"):
        train_bpe(["", ""], 300)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Why \ud83d?", "holds half a character"),
        (None, "is no text but None"),
        (b"Why?", "is no text but b'Why"),
    ],
)
def test_a_text_that_cannot_be_read_is_named(text, fault):
    with pytest.raises(ValueError, match=f"text 2 {fault}"):
        train_bpe(iter(["Why?", "", text, "How?"]), 300)


def test_no_room_for_the_bytes():
    with pytest.raises(ValueError, match="vocab_size is 255, but the 256 bytes alone need 256"):
        train_bpe(TEXTS, 255)


def test_a_missing_byte():
    ranks = {bytes([i]): i for i in range(255)}
    with pytest.raises(ValueError, match="no token for byte 255: train it again"):
        build_encoding(ranks)


def test_damaged_ranks(toy_data):
    with open(toy_data / tokenizer.RANKS, "ab") as file:
        file.write(b"\n")
    tokenizer.load_tokenizer.cache_clear()
    with pytest.raises(ValueError, match=r"data/tokenizer/ranks.tiktoken is damaged .*git checkout data"):
        load_tokenizer()
