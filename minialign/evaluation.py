"""Measuring: perplexity, knowledge, how a model replies, and means with their uncertainty."""

import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from minialign.chat import Batch, collate, encode_document, encode_response
from minialign.gpt import GPT
from minialign.logprobs import kl_divergence, response_logits, sequence_log_probs
from minialign.tokenizer import load_tokenizer
from minialign.world.judge import judge, kind_of_reply, read_sentence, sentences_of, words_of
from minialign.world.prompts import Prompt
from minialign.world.topics import Topic, whole_words

REPLIES = ("answer", "another prompt", "other")
TOKEN_CLASSES = ("first", "manners", "wording", "fact", "end")


class Estimate(NamedTuple):
    """A mean and the interval that covers the true one 95 % of the time."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


def standard_error(values) -> float:
    """Standard error of the mean of independent values: their standard deviation (with n − 1) over √n."""
    values = np.asarray(values, dtype=np.float64)
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def mean_with_interval(values) -> Estimate:
    """Mean of independent values with Student's 95 % interval. Raises ValueError for fewer than two values."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise ValueError(f"an interval needs at least two values, here are {len(values)}")
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, len(values) - 1)) * standard_error(values)
    return Estimate(mean, mean - half, mean + half)


def share_with_interval(successes: int, n: int) -> Estimate:
    """A share with Wilson's 95 % interval (Wilson 1927), which is sensible near 0 and 1 too. Raises ValueError for n < 1."""
    if n < 1:
        raise ValueError("a share of nothing: n must be at least 1")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(method="wilson")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def win_rate(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """How often a response of ours is worth more than one of theirs to the same prompt, with its 95 % interval; a tie is half a win.

    ours (P, n), theirs (P, m): rewards of n and m responses to each of P ≥ 2 prompts, every one compared with every one. The interval
    is over prompts: comparisons within one prompt share it, and are not independent.
    """
    difference = np.asarray(ours)[:, :, None] - np.asarray(theirs)[:, None, :]
    return mean_with_interval(((difference > 0) + 0.5 * (difference == 0)).mean((1, 2)))


def frontier(costs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which points nobody beats, (N,) of bool: no other point has a value at least as high at a cost at least as low, one of them strictly."""
    costs, values = np.asarray(costs), np.asarray(values)
    no_dearer = costs[None, :] <= costs[:, None]
    no_worse = values[None, :] >= values[:, None]
    strictly = (costs[None, :] < costs[:, None]) | (values[None, :] > values[:, None])
    return ~(no_dearer & no_worse & strictly).any(1)


def reliability(margins: np.ndarray, bins: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """How sure a preference model was, and how often it was right: two arrays (bins,), of bins with equally many comparisons.

    margins (M,) = r(x, y_w) − r(x, y_l). The model takes the side with the higher reward, with confidence σ(|margin|) ≥ ½; the label agrees
    where the margin is positive. A calibrated model has both arrays equal.
    """
    order = np.argsort(np.abs(margins), kind="stable")
    confidence, right = 1 / (1 + np.exp(-np.abs(margins[order]))), margins[order] > 0
    means = [[part.mean() for part in np.array_split(values, bins)] for values in (confidence, right)]
    return np.array(means[0]), np.array(means[1])


def negative_log_likelihood(model: GPT, pairs, batch_size: int = 64) -> float:
    """Mean −log π(y_t | x, y_<t) in nats per response token over (prompt ids, response ids) pairs."""
    pairs, total = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1])), 0.0
    with torch.no_grad():
        for start in range(0, len(pairs), batch_size):
            batch = collate(pairs[start : start + batch_size], model.config.context).to(model.device)
            total -= float(sequence_log_probs(model, batch).sum())
    return total / sum(len(response) for _, response in pairs)


def perplexity_of(log_probs: torch.Tensor) -> torch.Tensor:
    """exp(−mean log-probability) of tokens (N,): between how many equally likely tokens does the model waver?"""
    return torch.exp(-log_probs.mean())


def perplexity(model: GPT, documents) -> float:
    """The perplexity of whole documents, each read from its start: exp of the mean cross-entropy in nats."""
    encoded = [encode_document(text) for text in documents]
    return math.exp(negative_log_likelihood(model, [(ids[:1], ids[1:]) for ids in encoded]))


def clozes(topics: list[Topic]) -> list[tuple[list[int], list[int]]]:
    """(ids of a text that stops before the answer, ids of the answer): two for each fact of the topics."""
    encode = load_tokenizer().encode_ordinary
    return [(encode_document(text), encode(" " + fact.answer)) for t in topics for fact in t.facts for text in fact.clozes]


def cloze_hits(model: GPT, topics: list[Topic]) -> np.ndarray:
    """Which clozes the model completes rightly when it writes its most probable tokens; (2 × facts,) of bool."""
    pairs = clozes(topics)
    hits = []
    with torch.no_grad():
        for start in range(0, len(pairs), 64):
            batch = collate(pairs[start : start + 64], model.config.context).to(model.device)
            best = model(batch.ids, batch.mask)[:, :-1].argmax(-1)
            agrees = (best == batch.ids[:, 1:]) | ~batch.response_mask[:, 1:]
            hits += agrees.all(-1).tolist()
    return np.array(hits)


def reply_shares(prompts: list[Prompt], replies: list[str]) -> dict[str, float]:
    """Share of replies that answer, continue with another prompt, or do something else."""
    found = Counter(kind_of_reply(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True))
    return {kind: found[kind] / len(prompts) for kind in REPLIES}


def facts_right(prompts: list[Prompt], replies: list[str]) -> np.ndarray:
    """For one-fact questions: was the fact stated rightly? (N,) of bool."""
    return np.array([judge(prompt, reply).attributes["correctness"] == 1 for prompt, reply in zip(prompts, replies, strict=True)])


def reference_f1(reference: str, response: str) -> float:
    """Harmonic mean of precision and recall of the response's words, counted with repetition, against one reference.

    The usual way of scoring an answer when there is a single label (SQuAD, Rajpurkar et al. 2016). In [0, 1].
    """
    wanted, given = Counter(words_of(reference)), Counter(words_of(response))
    shared = (wanted & given).total()
    return 2 * shared / (wanted.total() + given.total()) if shared else 0.0


def few_shot_prompt(examples: list[tuple[str, str]], prompt: str) -> str:
    """Worked examples before the prompt: the oldest trick to make a base model answer (Brown et al. 2020)."""
    return "\n\n".join([*(f"{question}\n{answer}" for question, answer in examples), prompt]) + "\n"


def token_kl(model: GPT, reference: GPT, batch: Batch) -> list[np.ndarray]:
    """Exact KL(π(·|x, y_<t) ‖ π_ref(·|x, y_<t)) in nats at every response token, one array a row."""
    with torch.no_grad():
        log_p, log_q = (response_logits(m, batch).log_softmax(-1) for m in (model, reference))
    kl = kl_divergence(log_p, log_q).cpu().numpy()
    return np.split(kl, batch.response_mask.sum(-1).cpu().numpy().cumsum()[:-1])


def token_classes(prompt: Prompt, response: str) -> list[str]:
    """What each token of `encode_response(response)` is there for: one of TOKEN_CLASSES.

    "manners" are kind words, habits, and a bare yes or no; "fact" the value of a fact, right or wrong; "wording" everything else.
    """
    ids = encode_response(response)
    text, starts = load_tokenizer().decode_with_offsets(ids[:-1])
    kinds, place = ["wording"] * len(text), 0
    for part in sentences_of(text):
        place = text.index(part, place)
        if read_sentence(part, prompt.topic).role == "manners":
            kinds[place : place + len(part)] = ["manners"] * len(part)
        place += len(part)
    values = {value for fact in (prompt.topic.facts if prompt.topic else ()) for value in (fact.answer, *fact.wrong)}
    for value in values:
        for match in re.finditer(whole_words(value), text):
            kinds[match.start() : match.end()] = ["fact"] * len(value)
    words = (start + (text[start] == " ") for start in starts)  # a token's leading space belongs to no word
    return ["first" if i == 0 else kinds[min(place, len(text) - 1)] for i, place in enumerate(words)] + ["end"]
