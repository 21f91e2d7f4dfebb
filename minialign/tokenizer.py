"""Byte-level byte-pair encoding: the trainer, and the course's own tokenizer.

Training (Sennrich et al. 2016, on bytes as in GPT-2): start from the 256 bytes, then merge the most frequent
pair of neighbouring tokens, again and again. The learned ranks are kept in data/tokenizer and handed to
tiktoken, which does the encoding. Nothing is ever downloaded.
"""

import base64
import heapq
from collections import Counter, defaultdict
from functools import lru_cache

import regex
import tiktoken

from minialign.faults import require_text
from minialign.files import read_verified

RANKS = "tokenizer/ranks.tiktoken"

# GPT-2's: a token never crosses the border between words, numbers, punctuation and white space.
PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

END_OF_TEXT = "<|endoftext|>"  # separates documents in pre-training
USER, ASSISTANT, END, PAD = "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, USER, ASSISTANT, END, PAD)


def train_bpe(texts, vocab_size: int, pattern: str = PATTERN) -> dict[bytes, int]:
    """Learn `vocab_size` byte-level tokens from an iterable of strings; returns {token bytes: rank}.

    Deterministic: among equally frequent pairs the smallest pair of ranks is merged first. Stops early when
    no pair is left. Raises ValueError when there is no text, when one holds half a character, or when
    vocab_size leaves no room for the 256 bytes.
    """
    if vocab_size < 256:
        raise ValueError(f"vocab_size is {vocab_size}, but the 256 bytes alone need 256")
    words = Counter()
    for i, text in enumerate(texts):
        require_text(text, f"text {i}")
        words.update(regex.findall(pattern, text))
    if not words:
        raise ValueError("there is no text to train the tokenizer on")
    sequences = [list(word.encode("utf-8")) for word in words]
    counts = list(words.values())
    tokens = [bytes([i]) for i in range(256)]

    pairs, where = Counter(), defaultdict(set)  # how often each pair occurs, and in which words
    for i, sequence in enumerate(sequences):
        for pair in zip(sequence, sequence[1:]):
            pairs[pair] += counts[i]
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)

    while len(tokens) < vocab_size and heap:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:  # an outdated entry: put it back with today's count
            if pairs[pair] > 0:
                heapq.heappush(heap, (-pairs[pair], pair))
            continue
        new = len(tokens)
        tokens.append(tokens[pair[0]] + tokens[pair[1]])
        changed = set()
        for i in where.pop(pair):
            old = sequences[i]
            merged = merge(old, pair, new)
            for p in zip(old, old[1:]):
                pairs[p] -= counts[i]
            for p in zip(merged, merged[1:]):
                pairs[p] += counts[i]
                where[p].add(i)
                changed.add(p)
            sequences[i] = merged
        for p in changed:
            heapq.heappush(heap, (-pairs[p], p))
    return {token: rank for rank, token in enumerate(tokens)}


def merge(sequence: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The sequence with every occurrence of `pair`, from left to right, replaced by the token `new`."""
    merged, i = [], 0
    while i < len(sequence):
        if tuple(sequence[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(sequence[i])
            i += 1
    return merged


def build_encoding(ranks: dict[bytes, int], name: str = "minialign") -> tiktoken.Encoding:
    """Wrap ranks and the five special tokens in a tiktoken.Encoding.

    Raises ValueError when one of the 256 bytes is missing: tiktoken would accept that and crash on the first
    odd character.
    """
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise ValueError(f"the tokenizer has no token for byte {missing[0]}: train it again with train_bpe")
    special = {token: len(ranks) + i for i, token in enumerate(SPECIAL_TOKENS)}
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


def dump_ranks(ranks: dict[bytes, int]) -> bytes:
    """The ranks in tiktoken's file format: a line a token, its bytes in base64, then its rank."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items())


@lru_cache
def load_tokenizer() -> tiktoken.Encoding:
    """The course's tokenizer, from data/tokenizer. Raises ValueError when the file is damaged."""
    lines = (line.split() for line in read_verified(RANKS).splitlines())
    return build_encoding({base64.b64decode(token): int(rank) for token, rank in lines})
