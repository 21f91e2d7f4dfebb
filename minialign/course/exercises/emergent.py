"""The exercises of notebook 08 on calibration, variety and reasoning."""

import math

import numpy as np

from minialign.best_of_n import pass_at_k
from minialign.course.exercises.exercise import Exercise, Mistake
from minialign.statistics import effective_number, equal_mass_bins, expected_calibration_error


def _answers(generator):
    """How sure a model was of 57 answers, mostly very, and which were right: fewer, except of the unsure.

    So the gaps of the bins differ in sign. 57 is no multiple of 10: the bins differ in size.
    """
    rng = np.random.default_rng(generator.initial_seed())
    confidence = 0.5 + 0.5 * rng.beta(2.5, 0.8, 57)
    return confidence, (rng.random(57) < 0.75 + 0.3 * (confidence - 0.9)).astype(float)


def _gaps(confidence, right, places):
    """Mean confidence less share right in bins given by their places; empty ones are left out."""
    return np.array([confidence[place].mean() - right[place].mean() for place in places if len(place)])


def _sizes(places):
    return np.array([len(place) for place in places if len(place)])


def _error(confidence, right, places, size=np.abs):
    sizes = _sizes(places)
    return float((sizes * size(_gaps(confidence, right, places))).sum() / sizes.sum())


def _by_mass(confidence, bins=10):
    return equal_mass_bins(confidence, bins)


def _by_width(confidence, bins=10, low=0.0):
    """Places in bins of equal width from `low` to 1."""
    number = np.minimum(bins - 1, ((confidence - low) / (1 - low) * bins).astype(int))
    return [np.flatnonzero(number == b) for b in range(bins)]


def _as_they_come(confidence, bins=10):
    return np.array_split(np.arange(len(confidence)), bins)


def _of_both_sides(confidence, right):
    return np.append(confidence, 1 - confidence), np.append(right, 1 - right)


def _sorted_alone(confidence, right, bins=10):
    """The confidences are sorted, and what was right stays where it was."""
    return _error(np.sort(confidence), right, _as_they_come(confidence, bins))


def _samples(generator):
    """Which of 10 samples of six questions were right, 0, 1, 3, 5, 8 and 10 of them; and k = 4."""
    rng = np.random.default_rng(generator.initial_seed())
    rows = [rng.permutation(np.arange(10) < c) for c in (0, 1, 3, 5, 8, 10)]
    return np.array(rows).astype(float), 4


def _chance(right, of):
    """A number for each question, made of its right samples c, n and k."""
    return np.array([of(int(c), right.shape[1]) for c in right.sum(1)])


def _in_groups(right, k):
    """The share of disjoint groups of k samples in which one is right."""
    whole = right[:, : right.shape[1] // k * k]
    return whole.reshape(len(right), -1, k).max(-1).mean(-1)


def _counts(generator):
    """How often each of six answers came, one of them by far most often."""
    rng = np.random.default_rng(generator.initial_seed())
    return (rng.permutation(np.append(rng.integers(1, 9, 5), 12)),)


def _shares(counts):
    p = np.asarray(counts, dtype=float)
    return p[p > 0] / p.sum()


def _nats(counts):
    p = _shares(counts)
    return float(-(p * np.log(p)).sum())


EMERGENT = {
    "effective_number": Exercise(
        effective_number,
        _counts,
        (
            Mistake(
                "this counts how many different ones there are: one that came once would weigh as much as "
                "one that came twelve times.",
                lambda counts: len(counts),
            ),
            Mistake("this is the entropy: take exp of it, and it is a number of answers.", _nats),
            Mistake(
                "this is the entropy, in bits: take 2 to its power, and it is a number of answers.",
                lambda counts: _nats(counts) / math.log(2),
            ),
            Mistake(
                "the entropy is in bits, but exp undoes the natural logarithm: use np.log, or 2 **.",
                lambda counts: math.exp(_nats(counts) / math.log(2)),
            ),
            Mistake(
                "the entropy is in nats, but 2 ** undoes the logarithm to base 2: use np.exp.",
                lambda counts: 2 ** _nats(counts),
            ),
            Mistake(
                "counts are no probabilities yet: divide them by their sum.",
                lambda counts: math.exp(-float((counts * np.log(counts)).sum())),
            ),
            Mistake(
                "that is 1/Σ p², the inverse of Simpson's index: it is an effective number, too, but it "
                "hardly sees rare answers. Take exp of the entropy.",
                lambda counts: float(1 / (_shares(counts) ** 2).sum()),
            ),
            Mistake(
                "the sign is missing: the entropy is −Σ p log p.", lambda counts: math.exp(-_nats(counts))
            ),
        ),
    ),
    "expected_calibration_error": Exercise(
        expected_calibration_error,
        _answers,
        (
            Mistake(
                "the bins are equally wide: then most answers are in the last one, and others hold hardly "
                "any. Sort by confidence and split into bins of equally many answers.",
                lambda confidence, right: _error(confidence, right, _by_width(confidence)),
                lambda confidence, right: _error(confidence, right, _by_width(confidence, low=0.5)),
                lambda confidence, right: _error(
                    confidence, right, _by_width(confidence, low=confidence.min())
                ),
            ),
            Mistake(
                "gaps of different sign cancel: take the absolute value of each bin's gap, then add them.",
                lambda confidence, right: float((confidence - right).mean()),
                lambda confidence, right: float((right - confidence).mean()),
                lambda confidence, right: float(abs((confidence - right).mean())),
            ),
            Mistake(
                "all bins weigh the same, but some hold one answer more: weigh each gap by the bin's share "
                "of the answers.",
                lambda confidence, right: float(
                    np.abs(_gaps(confidence, right, _by_mass(confidence))).mean()
                ),
            ),
            Mistake(
                "the gaps are added up without weights: weigh each by its bin's share of the answers.",
                lambda confidence, right: float(np.abs(_gaps(confidence, right, _by_mass(confidence))).sum()),
            ),
            Mistake(
                "this is |confidence − right| of single answers: a single one is right or wrong, so even a "
                "calibrated model would have a large error. Take the means of a bin first.",
                lambda confidence, right: float(np.abs(confidence - right).mean()),
            ),
            Mistake(
                "the answer that was not taken is counted, too, with one minus the confidence: take one "
                "answer to each question, the likelier.",
                lambda confidence, right: expected_calibration_error(*_of_both_sides(confidence, right)),
                lambda confidence, right: expected_calibration_error(*_of_both_sides(confidence, right), 20),
            ),
            Mistake(
                "the bins hold answers in the order in which they came: sort by confidence first.",
                lambda confidence, right: _error(confidence, right, _as_they_come(confidence)),
            ),
            Mistake(
                "you sort the confidences, but not what was right with them: use np.argsort, for both.",
                _sorted_alone,
            ),
            Mistake(
                "this is the largest gap, the *maximum* calibration error: add the gaps up, weighed by the "
                "bins' shares of the answers.",
                lambda confidence, right: float(np.abs(_gaps(confidence, right, _by_mass(confidence))).max()),
            ),
            Mistake(
                "the gaps are squared: take their absolute values.",
                lambda confidence, right: _error(confidence, right, _by_mass(confidence), np.square),
                lambda confidence, right: _error(confidence, right, _by_mass(confidence), np.square) ** 0.5,
            ),
            Mistake(
                "these are the gaps of the bins: one number is asked for, their mean, each weighed by the "
                "bin's share of the answers.",
                lambda confidence, right: np.abs(_gaps(confidence, right, _by_mass(confidence))),
            ),
        ),
    ),
    "pass_at_k": Exercise(
        pass_at_k,
        _samples,
        (
            Mistake(
                "1 − (1 − c/n)^k takes the share in the sample for the true one, and draws with replacement: "
                "it is too low on average. Draw k of the n samples at hand, each at most once.",
                lambda right, k: 1 - (1 - right.mean(1)) ** k,
            ),
            Mistake(
                "k·c/n counts a draw with two right samples twice: ask how probably *none* is right.",
                lambda right, k: k * right.mean(1),
                lambda right, k: np.minimum(1, k * right.mean(1)),
            ),
            Mistake(
                "you look at the first k samples only: that is right on average, but throws the others away. "
                "Average over all choices of k.",
                lambda right, k: right[:, :k].max(1),
            ),
            Mistake(
                "you average over groups of k samples: that is right on average, but uses few of the choices "
                "there are. Average over all choices of k.",
                _in_groups,
            ),
            Mistake(
                "that is the probability that *none* of the k samples is right: take it from 1.",
                lambda right, k: _chance(right, lambda c, n: math.comb(n - c, k) / math.comb(n, k)),
            ),
            Mistake(
                "that is the probability that *all* k samples are right: one is enough.",
                lambda right, k: _chance(right, lambda c, n: math.comb(c, k) / math.comb(n, k)),
                lambda right, k: right.mean(1) ** k,
            ),
            Mistake(
                "this is whether one of *all* n samples is right, pass@n.",
                lambda right, k: right.max(1),
            ),
            Mistake("this is pass@1, the share of right samples.", lambda right, k: right.mean(1)),
            Mistake(
                "that is the mean over the questions: return a number for each question.",
                lambda right, k: float(pass_at_k(right, k).mean()),
            ),
        ),
    ),
}
