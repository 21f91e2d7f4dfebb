"""Notebook 08: people of two tastes, and one reward for both, told the group, or inferred from comparisons.

Some people like an answer brief, others detailed: `Annotator.group` adds up to one point of gold to how an
answer feels, or takes it away, by its words. All else they have in common. That one reward cannot please both
is built in; how much the smaller group loses, and how few comparisons give its members away, is measured.

The groups are of different sizes, and the smaller one gets fewer labels. Rewards are learned by a linear
reader (`label_cost.Linear`: what the judge sees, and the words), at all shares, and by the course's reward
model, at two of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
from scipy.special import expit, softmax

from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.comparisons import (
    Scorer,
    crowd,
    margins_of,
    preferences,
    relabelled,
    subset,
)
from minialign.course.experiments.goodhart import candidates
from minialign.course.experiments.label_cost import (
    EVERY,
    Linear,
    N,
    agreement,
    exam,
    margins_on,
    pool,
)
from minialign.course.experiments.measuring import over_seeds
from minialign.course.experiments.reward_models import LARGE, fitted
from minialign.course.experiments.scorers import Crowd, Likelihood
from minialign.course.experiments.what_it_reads import ByHand
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.training import load_history
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.reading import words_of

GROUPS = ("detailed", "brief")
SHARES = (0.5, 0.65, 0.8, 0.9, 0.95)  # of the larger group
GPT_SHARES = (0.5, 0.9)
SMALLER = "brief"  # which group the GPT has fewer of: published crowds lean towards long answers
LABELS = {"linear": 3000, "GPT": 1500}
# Small batches, so that few labels are many updates: a group of 10 % has 150.
CONFIG = replace(LARGE, steps=40, prompts_per_step=4)
KNOWN = (0, 2, 4, 8, 16)  # comparisons of a new person, before an answer is chosen
PERSONS = 200  # of each group
BEST_OF = 8


def other(group: str) -> str:
    return GROUPS[1 - GROUPS.index(group)]


def person(group: str) -> Annotator:
    return typical_annotator(group=group)


# --- what they are measured on ---


@dataclass(frozen=True)
class Exam:
    """What rewards are measured on, for one seed; `chances` are what people of a group prefer.

    | field      | shape             | meaning                                                          |
    |------------|-------------------|------------------------------------------------------------------|
    | test       | M pairs           | held-out comparisons, to predict                                 |
    | met        | K pairs           | others, of other prompts: what a new person is asked to compare  |
    | chances    | (M,), (K,)        | by group, P(first is preferred), of `test` and of `met`          |
    | candidates | (prompt, response)| P · 8 responses, those of a prompt side by side                  |
    | utilities  | (P, 8)            | by group, what they are worth to its people, in units of gold    |
    """

    test: list[Preference]
    met: list[Preference]
    chances: dict[str, tuple[np.ndarray, np.ndarray]]
    candidates: list[tuple[str, str]]
    utilities: dict[str, np.ndarray]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Each (prompt, response) that is asked for, once."""
        pairs = [*self.test, *self.met]
        return sorted({(p.prompt, y) for p in pairs for y in (p.chosen, p.rejected)} | {*self.candidates})


@dataclass(frozen=True)
class Seen:
    """What a reward says of an exam: margins of `test` (M,) and `met` (K,), rewards of candidates (P, 8)."""

    test: np.ndarray
    met: np.ndarray
    best: np.ndarray


@lru_cache
def introductions() -> list[Preference]:
    """Pairs that a new person may be asked to compare: those of every eighth held-out prompt.

    None is among those of the test, which have every second prompt.
    """
    pairs = preferences("held_out")
    kept = set([*dict.fromkeys(p.prompt for p in pairs)][1::8])
    return [p for p in pairs if p.prompt in kept]


def asked_of(seed: int, n: int = max(KNOWN)) -> list[Preference]:
    """n of the introductions, drawn at random."""
    return subset(introductions(), n, seed)


@lru_cache
def chances(group: str) -> tuple[np.ndarray, np.ndarray]:
    """P(first is preferred) by people of a group, of the pairs of the test and of the introductions."""
    asked = person(group)
    return tuple(
        np.array([asked.probability(p.prompt, p.chosen, p.rejected) for p in pairs])
        for pairs in (exam().pairs, introductions())
    )


@lru_cache
def examined(sft: GPT, seed: int) -> Exam:
    """The exam of a seed: its candidates are the first 8 of `label_cost`'s."""
    found = candidates(sft, seed, N, EVERY)
    asked = [(p.text, y) for p, row in zip(found.prompts, found.texts) for y in row[:BEST_OF].tolist()]
    utilities = {}
    for group in GROUPS:
        feels = person(group)
        worth = Crowd(feels).score(*map(list, zip(*asked))) * feels.temperature
        utilities[group] = worth.reshape(-1, BEST_OF)
    by_group = {group: chances(group) for group in GROUPS}
    return Exam(exam().pairs, introductions(), by_group, asked, utilities)


def seen_by(scorer: Scorer, exam: Exam) -> Seen:
    """What a scorer says of the exam; each different response is scored once."""
    rewards = dict(zip(exam.texts, np.asarray(scorer.score(*map(list, zip(*exam.texts))), dtype=float)))
    best = np.array([rewards[text] for text in exam.candidates]).reshape(-1, BEST_OF)
    return Seen(margins_of(exam.test, rewards), margins_of(exam.met, rewards), best)


def seen_by_group(scorers: Mapping[str, Scorer], exam: Exam) -> dict[str, Seen]:
    """The same of each group's scorer; one that serves both is asked once."""
    found = {key: seen_by(scorer, exam) for key, scorer in {id(s): s for s in scorers.values()}.items()}
    return {group: found[id(scorer)] for group, scorer in scorers.items()}


def chosen_utility(rewards: np.ndarray, utilities: np.ndarray) -> float:
    """What the best by `rewards` is worth, less a response taken at random; both (P, n), mean over P."""
    best = np.take_along_axis(utilities, rewards.argmax(-1)[:, None], 1)[:, 0]
    return float((best - utilities.mean(-1)).mean())


def grades(seen: Mapping[str, Seen], exam: Exam) -> dict[str, float]:
    """By group, what a reward, another one for each group or the same, is worth to its people.

    "accuracy/brief" is how often they agree with it on the test, "utility/brief" what its best of 8 is worth
    to them, in units of gold, above a response taken at random.
    """
    found = {}
    for group in GROUPS:
        agreed = agreement(seen[group].test, exam.chances[group][0])
        found[f"accuracy/{group}"] = round(float(agreed.mean()), 4)
        found[f"utility/{group}"] = round(chosen_utility(seen[group].best, exam.utilities[group]), 4)
    return found


# --- who is asking? ---


def group_posterior(margins: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """P(group | a person's comparisons), (G,), by Bayes' rule.

    margins (k, G): r_g(x, y_w) − r_g(x, y_l) of the k comparisons, where y_w is what the person preferred, by
    each group's reward, in log-odds. prior (G,): the groups' shares. Each comparison has the likelihood
    σ(margin), and they are independent given the group:

    P(g | D) ∝ P(g) Π_k σ(r_g(x_k, y_w) − r_g(x_k, y_l))

    In logarithms, so that many comparisons do not underflow.
    """
    margins, prior = np.asarray(margins, dtype=float), np.asarray(prior, dtype=float)
    return softmax(np.log(prior) - np.logaddexp(0, -margins).sum(0))


def introduced(group: str, seen: Mapping[str, Seen], exam: Exam, prior: np.ndarray, seed: int) -> np.ndarray:
    """P(group | first k comparisons) of PERSONS new people of a group, (len(KNOWN), PERSONS, G).

    Each person compares as many pairs as the longest of KNOWN, other ones each, and answers as the group
    does. `prior` and the last axis are in the order of GROUPS.
    """
    rng, k = np.random.default_rng([seed, GROUPS.index(group), 13]), max(KNOWN)
    margins = np.stack([seen[g].met for g in GROUPS], -1)  # (K, G)
    posteriors = np.zeros((len(KNOWN), PERSONS, len(GROUPS)))
    for i in range(PERSONS):
        asked = rng.permutation(len(margins))[:k]
        agrees = rng.random(k) < exam.chances[group][1][asked]
        said = np.where(agrees[:, None], margins[asked], -margins[asked])
        posteriors[:, i] = [group_posterior(said[:n], prior) for n in KNOWN]
    return posteriors


def inferred(seen: Mapping[str, Seen], exam: Exam, prior: np.ndarray, seed: int) -> list[dict]:
    """The grades when the group is not told but inferred, for each number of comparisons in KNOWN.

    A pair is decided by Σ_g P(g|D) σ(margin_g) > ½, the best of 8 is chosen by Σ_g P(g|D) r_g.
    """
    rows = [{"known": k} for k in KNOWN]
    sure = np.stack([expit(seen[g].test) for g in GROUPS])  # (G, M)
    rewards = np.stack([seen[g].best for g in GROUPS])  # (G, P, 8)
    for group in GROUPS:
        of_people = introduced(group, seen, exam, prior, seed)
        for row, posteriors in zip(rows, of_people):
            agreed = agreement(posteriors @ sure - 0.5, exam.chances[group][0])
            chosen = np.tensordot(posteriors, rewards, 1)
            worth = [chosen_utility(of_one, exam.utilities[group]) for of_one in chosen]
            row[f"accuracy/{group}"] = round(float(agreed.mean()), 4)
            row[f"utility/{group}"] = round(float(np.mean(worth)), 4)
            row[f"posterior/{group}"] = round(float(posteriors[:, GROUPS.index(group)].mean()), 4)
    return rows


# --- what is learned from whom ---


@lru_cache
def labelled_by(group: str, seed: int, n: int) -> list[Preference]:
    """About n pairs as the people of a group see them: each group has a crowd of its own."""
    return relabelled(pool(seed, n), crowd(seed, group=group), seed)


def labels(seed: int, share: float, smaller: str, n: int) -> dict[str, list[Preference]]:
    """By group, about n labelled pairs: the smaller group gets 1 − share of them, the first ones."""
    few = round((1 - share) * len(pool(seed, n)))
    return {
        smaller: labelled_by(smaller, seed, n)[:few],
        other(smaller): labelled_by(other(smaller), seed, n)[few:],
    }


def rewards_by(fit: Callable, by_group: Mapping[str, list[Preference]]) -> dict[str, Mapping[str, Scorer]]:
    """One reward from all labels, for every group the same; and told the group, one from each group's."""
    everybody = [pair for group in GROUPS for pair in by_group[group]]
    one = fit(everybody)
    return {"one reward": dict.fromkeys(GROUPS, one), "told": {g: fit(by_group[g]) for g in GROUPS}}


def mixed_up(by_group: Mapping[str, list[Preference]], seed: int) -> dict[str, list[Preference]]:
    """The same labels with the groups' names drawn anew, each as often as before: what must not help."""
    everybody = [pair for group in GROUPS for pair in by_group[group]]
    everybody = [everybody[i] for i in np.random.default_rng([seed, 17]).permutation(len(everybody))]
    first = len(by_group[GROUPS[0]])
    return {GROUPS[0]: everybody[:first], GROUPS[1]: everybody[first:]}


def in_arms(
    fit: Callable, by_group: Mapping[str, list[Preference]], exam: Exam, share: float, smaller: str, seed: int
) -> list[dict]:
    """The rows of one crowd: "one reward", "told", and "inferred" for each number of comparisons."""
    prior = np.array([1 - share if group == smaller else share for group in GROUPS])
    rows = []
    for arm, scorers in rewards_by(fit, by_group).items():
        seen = seen_by_group(scorers, exam)
        rows.append({"arm": arm, **grades(seen, exam)})
    rows += [{"arm": "inferred", **row} for row in inferred(seen, exam, prior, seed)]
    for group, scorer in scorers.items():
        if isinstance(scorer, Linear):
            rows[1][f"weights/{group}"] = np.round(scorer.weights, 3).tolist()
    return rows


# --- the table ---


def tastes(sft: GPT) -> dict[str, Part]:
    """Rewards for two tastes: `accuracy/…` and `utility/…` by group (see `grades`), a row for each `arm`.

    `reader` is "linear" or "GPT", `share` what part of the labels is of the larger group, `smaller` the other
    one. `arm` is "one reward"; "told" the group; "told, mixed up", which had the groups' names by lot; or
    "inferred" from `known` comparisons of a new person. And what learns nothing has only its `arm`.
    """

    def free(seed: int) -> list[dict]:
        exam = examined(sft, seed)
        length = {
            group: ByHand(lambda x, y, sign=sign: sign * len(words_of(y)))
            for group, sign in zip(GROUPS, (1, -1))
        }
        knows = {group: Crowd(person(group)) for group in GROUPS}
        arms = {"likelihood": dict.fromkeys(GROUPS, Likelihood(sft)), "length": length, "knows": knows}
        return [
            {"seed": seed, "reader": "none", "arm": arm, **grades(seen_by_group(scorers, exam), exam)}
            for arm, scorers in arms.items()
        ]

    def linear(seed: int) -> list[dict]:
        exam, rows = examined(sft, seed), []
        for share in SHARES:
            for smaller in GROUPS:
                by_group = labels(seed, share, smaller, LABELS["linear"])
                found = in_arms(Linear.fitted, by_group, exam, share, smaller, seed)
                lots = {g: Linear.fitted(pairs) for g, pairs in mixed_up(by_group, seed).items()}
                found.append({"arm": "told, mixed up", **grades(seen_by_group(lots, exam), exam)})
                place = {"seed": seed, "reader": "linear", "share": share, "smaller": smaller}
                rows += [place | row for row in found]
        return rows

    def gpt(share: float, seed: int) -> list[dict]:
        fit = lambda pairs: fitted(sft, pairs, replace(CONFIG, seed=seed))[0]  # noqa: E731
        by_group = labels(seed, share, SMALLER, LABELS["GPT"])
        found = in_arms(fit, by_group, examined(sft, seed), share, SMALLER, seed)
        place = {"seed": seed, "reader": "GPT", "share": share, "smaller": SMALLER}
        return [place | row for row in found]

    parts: dict[str, Part] = {}
    for seed in SEEDS:
        parts[f"nothing learned, seed {seed}"] = partial(free, seed)
        parts[f"linear, seed {seed}"] = partial(linear, seed)
        for share in GPT_SHARES:
            parts[f"GPT, {share:.0%} of one taste, seed {seed}"] = partial(gpt, share, seed)
    return parts


# --- read from the table ---


def results() -> list[dict]:
    return load_history("tastes")


def column(rows: Sequence[Mapping], arm: str, name: str, reader: str = "linear", **where) -> np.ndarray:
    """A column of an arm's rows, (S,); `where` says share, smaller, and known."""
    return over_seeds(rows, name, arm=arm, reader=reader, **where)


def gap(
    rows: Sequence[Mapping], share: float, smaller: str, arm: str = "one reward", reader: str = "linear"
) -> np.ndarray:
    """By how much people of the larger group agree with a reward more often than the others, (S,)."""
    where = dict(reader=reader, share=share, smaller=smaller)
    large, small = (column(rows, arm, f"accuracy/{group}", **where) for group in (other(smaller), smaller))
    return large - small


def recovered(
    rows: Sequence[Mapping],
    share: float,
    smaller: str,
    arm: str = "told",
    reader: str = "linear",
    measure: str = "accuracy",
    **known,
) -> np.ndarray:
    """What share of its loss the smaller group gets back in an arm, (S,): 0 with one reward for all.

    1 is what a reward of its own gives it where both groups are of one size, and have as many labels.
    """
    name, same = f"{measure}/{smaller}", dict(reader=reader, smaller=smaller)
    lost = column(rows, "one reward", name, share=share, **same)
    whole = column(rows, "told", name, share=SHARES[0], **same)
    return (column(rows, arm, name, share=share, **same, **known) - lost) / (whole - lost)


def weights_of(rows: Sequence[Mapping], group: str, share: float, smaller: str, seed: int = 0) -> Linear:
    """The linear reward that a group had in "told", of one seed."""
    place = dict(reader="linear", arm="told", share=share, smaller=smaller, seed=seed)
    (row,) = (row for row in rows if place.items() <= row.items())
    return Linear(np.array(row[f"weights/{group}"]))


# --- live in the notebook: three answers that nobody can agree on ---


def ranking(mind: Annotator, prompt: str, texts: Sequence[str]) -> list[int]:
    """The places of the texts as people of one mind like them, the best first.

    Raises ValueError for two that they like equally well.
    """
    felt = [mind.utility(prompt, text) for text in texts]
    if len(set(felt)) < len(felt):
        raise ValueError("two of the texts are worth the same to these people: give others")
    return np.argsort(felt)[::-1].tolist()


def polled(shares: np.ndarray, n: int, seed: int, often: np.ndarray | None = None) -> np.ndarray:
    """wins (N, N): how often i beat j in n comparisons of a pair by a person, both drawn at random.

    shares (N, N) is a preference matrix. All pairs are equally frequent; or as `often` (N, N) says, of which
    only the part above the diagonal is read.
    """
    rng, pairs = np.random.default_rng(seed), np.array(np.triu_indices(len(shares), 1))
    weights = np.ones(len(pairs[0])) if often is None else np.asarray(often, dtype=float)[tuple(pairs)]
    i, j = pairs[:, rng.choice(len(pairs[0]), n, p=weights / weights.sum())]
    first = rng.random(n) < np.asarray(shares)[i, j]
    wins = np.zeros(np.shape(shares))
    np.add.at(wins, (np.where(first, i, j), np.where(first, j, i)), 1)
    return wins


def comparisons_of(
    person: Annotator, pairs: Sequence[Preference], rewards: Mapping[str, Scorer]
) -> np.ndarray:
    """A person compares pairs; what each group's reward says of them: r_g(x, y_w) − r_g(x, y_l), (k, G)."""
    said = relabelled(pairs, [person])
    return np.stack([margins_on(said, rewards[group]) for group in GROUPS], -1)
