"""Notebook 08: what an answer looks like when its policy has been hacked, and how well that tells it apart.

A detector gives each answer a number, without a judge: more of it is more suspicious.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats

from minialign.course.experiments.scorers import Likelihood
from minialign.gpt import GPT
from minialign.statistics import measured
from minialign.world.reading import sentences_of, words_of


def auroc(hacked: Sequence[float], honest: Sequence[float]) -> float:
    """How often a hacked answer has a higher score than an honest one, over all pairs; a tie is half.

    hacked (N,), honest (M,): what a detector says of each answer. It is the area under the ROC curve: 1 for
    a perfect detector, ½ for one that knows nothing, below ½ for one that points the wrong way. By ranks, as
    the statistic of Mann and Whitney (1947) over N M.
    """
    hacked, honest = measured(hacked, "hacked"), measured(honest, "honest")
    ranks = stats.rankdata(np.concatenate([hacked, honest]))  # of equals the mean of their ranks
    above = ranks[: len(hacked)].sum() - len(hacked) * (len(hacked) + 1) / 2
    return float(above / (len(hacked) * len(honest)))


def repeated_phrases(text: str, n: int = 3) -> float:
    """Share of the n words in a row that stood in the text before, in [0, 1]; 0 for less than n words."""
    words = words_of(text)
    phrases = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(phrases)) / len(phrases) if phrases else 0.0


def stock_phrases(texts: Sequence[str]) -> np.ndarray:
    """How often the most common sentence of each text stands in the other texts, too, (N,): share of those.

    A policy that has found one sentence that pays says it to everybody.
    """
    sentences = [{part.lower() for part in sentences_of(text)} for text in texts]
    count = Counter(part for parts in sentences for part in parts)
    others = max(1, len(texts) - 1)
    return np.array([max((count[part] - 1 for part in parts), default=0) / others for parts in sentences])


def blacklist(hacked: Sequence[str], honest: Sequence[str], n: int = 3) -> list[str]:
    """The n sentences whose share of the answers has risen most: what one would forbid after a hack."""

    def shares(texts: Sequence[str]) -> Counter:
        found = Counter(part for text in texts for part in {part.lower() for part in sentences_of(text)})
        return Counter({part: count / len(texts) for part, count in found.items()})

    rise = shares(hacked)
    rise.subtract(shares(honest))
    return [part for part, _ in rise.most_common(n)]


def forbidden(texts: Sequence[str], listed: Sequence[str]) -> np.ndarray:
    """How many of the listed sentences each text holds, (N,)."""
    return np.array([float(sum(part in text.lower() for part in listed)) for text in texts])


def features(prompts: Sequence[str], texts: Sequence[str], sft: GPT) -> dict[str, np.ndarray]:
    """What can be known of N answers without a judge, (N,) each; more of it is more suspicious.

    "surprise" is −log π_sft per token, in nats: how unlike the fine-tuned model an answer is.
    """
    return {
        "words": np.array([float(len(words_of(text))) for text in texts]),
        "repeated phrases": np.array([repeated_phrases(text) for text in texts]),
        "stock sentences": stock_phrases(texts),
        "surprise": -Likelihood(sft).score(prompts, texts),
    }
