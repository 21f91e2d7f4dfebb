"""Notebook 08: what the table `emergent` says of calibration, variety, reasoning and a narrow habit."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import minimize_scalar

from minialign.best_of_n import pass_at_k
from minialign.bootstrap import crossed_interval
from minialign.course.experiments.emergent import SAMPLES, TRIES, claims
from minialign.course.experiments.measuring import over_seeds
from minialign.statistics import Estimate, equal_mass_bins, expected_distinct
from minialign.training import load_history
from minialign.world.prompts import topic_sorts
from minialign.world.topics import load_contested, load_topics
from minialign.world.two_hops import two_hops


def results() -> list[dict]:
    return load_history("emergent")


def column(about: str, policy: str, name: str, **where) -> list:
    """What the rows "about" something say of a policy, a value for each seed, in their order.

    Raises ValueError where no row fits, or two of one seed.
    """
    where = {"about": about, "policy": policy, **where}
    found = [row for row in results() if where.items() <= row.items() and name in row]
    if not found or len({row["seed"] for row in found}) < len(found):
        raise ValueError(f"{name} where {where}: {len(found)} rows; say which")
    return [row[name] for row in sorted(found, key=lambda row: row["seed"])]


# --- calibration ---


def holds() -> np.ndarray:
    """Which claims hold, (C,) of bool."""
    return np.array([claim.holds for claim in claims()])


@lru_cache
def topics_of_claims() -> np.ndarray:
    """The number of each claim's topic, (C,), from 0."""
    topics = list(dict.fromkeys(claim.topic.name for claim in claims()))
    return np.array([topics.index(claim.topic.name) for claim in claims()])


def halves() -> np.ndarray:
    """Which half of the topics each claim belongs to, (C,): 0 or 1. The halves are drawn once and for all."""
    number = topics_of_claims()
    return np.random.default_rng(18).permutation(number.max() + 1)[number] % 2


def best_temperature(log_odds: np.ndarray) -> float:
    """The T at which −mean log σ(z/T) is smallest, for the log-odds z of what was right, any shape.

    Above 1 the model was too sure of itself. Source: Guo et al. 2017, §4.2.
    """
    z = np.ravel(log_odds)
    fit = minimize_scalar(lambda t: np.logaddexp(0, -z / np.exp(t)).mean(), bounds=(-2, 4), method="bounded")
    return float(np.exp(fit.x))


def temperatures(log_odds: np.ndarray) -> np.ndarray:
    """The `best_temperature` of the other half of the topics, for each claim, (C,).

    log_odds (W, C) are log P(Yes) − log P(No). So no claim meets a temperature that was fitted to its topic.
    """
    log_odds = np.asarray(log_odds)
    signed = np.where(holds(), log_odds, -log_odds)
    of_half = np.array([best_temperature(signed[:, halves() == which]) for which in (0, 1)])
    return of_half[1 - halves()]


def graded(policy: str, how: str = "token probability") -> tuple[np.ndarray, np.ndarray]:
    """How sure a policy is of its answers to the claims, and whether they are right: two (S, W, C).

    "token probability" is that of the likelier word of Yes and No, where the answer begins; "scaled" the same
    at its `temperatures`; "framed" that of the claims put in the corpus's frames; "sampled" is how many of
    SAMPLES answers take the side that more take, with W = 1, and a draw is half right.
    """
    if how == "sampled":
        said = np.array(column("claims", policy, "said"))[:, None]  # (S, 1, C, 2)
        yes, no = said[..., 0], said[..., 1]
        return said.max(-1) / SAMPLES, np.where(yes == no, 0.5, (yes > no) == holds())
    log_odds = np.array(column("claims", policy, "log odds, framed" if how == "framed" else "log odds"))
    right = ((log_odds > 0) == holds()).astype(float)
    if how == "scaled":
        log_odds = log_odds / np.array([temperatures(of_seed) for of_seed in log_odds])[:, None]
    return 1 / (1 + np.exp(-np.abs(log_odds))), right


def graded_contested(policy: str) -> tuple[np.ndarray, np.ndarray]:
    """The same of the contested facts, (S, 12, 5): right is how often the documents say what was taken."""
    log_odds = np.array(column("contested", policy, "log odds"))
    frequency = np.array([item.frequency for item in load_contested()])[:, None]
    return 1 / (1 + np.exp(-np.abs(log_odds))), np.where(log_odds > 0, frequency, 1 - frequency)


def by_topic(values: np.ndarray) -> np.ndarray:
    """What each topic adds to the mean of values of claims (S, W, C): (S, topics), with the same mean."""
    number = topics_of_claims()
    sums = np.stack([values[..., number == topic].sum((1, 2)) for topic in range(number.max() + 1)], 1)
    return sums * sums.shape[1] / values[0].size


def error_by_topic(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> np.ndarray:
    """What each topic adds to the expected calibration error of each seed, of two (S, W, C): (S, topics).

    The error is the mean of ±(confidence − right), with the sign of the bin. With the signs held fixed its
    interval over seeds and topics is a mean's.
    """
    gaps = confidence - right
    for of_seed, sure in zip(gaps, confidence):
        flat = of_seed.reshape(-1)  # a view: what it gets, `gaps` gets
        for place in equal_mass_bins(sure.ravel(), bins):
            flat[place] *= np.sign(flat[place].sum())
    return by_topic(gaps)


def error_change(policy: str, over: str, how: str = "token probability") -> Estimate:
    """By how much the expected calibration error of a policy lies above another's, over seeds and topics."""
    ours, theirs = (error_by_topic(*graded(name, how)) for name in (policy, over))
    return crossed_interval(ours[:, None] - theirs[None])


def accuracy_change(policy: str, over: str) -> Estimate:
    """By how much the share of right answers to claims lies above another's, over seeds and topics."""
    ours, theirs = (by_topic(graded(name)[1]) for name in (policy, over))
    return crossed_interval(ours[:, None] - theirs[None])


def by_chance(confidence: np.ndarray, error: Callable, draws: int = 100) -> float:
    """The error that a calibrated policy of the same confidence (N,) would show: chance alone, on average."""
    rng = np.random.default_rng(0)
    drawn = (rng.random(len(confidence)) < confidence for _ in range(draws))
    return float(np.mean([error(confidence, right.astype(float)) for right in drawn]))


# --- variety ---

M = 4  # good answers, among which different ones are counted


def comparable(policies: Sequence[tuple[str, float]]) -> np.ndarray:
    """The places of the prompts to which all policies, each at its temperature, give M good answers or more.

    In every run: so that all are counted on the same prompts, and on as many answers.
    """
    enough = [
        [sum(of_prompt) >= M for of_prompt in of_seed]
        for policy, temperature in policies
        for of_seed in column("variety", policy, "texts", temperature=temperature)
    ]
    return np.flatnonzero(np.all(enough, 0))


def distinct(policy: str, name: str, places: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Different ones among M good answers to each of some prompts, (S, P): of "texts", or of "contents"."""
    runs = column("variety", policy, name, temperature=temperature)
    return np.array([[expected_distinct(of_seed[i], M) for i in places] for of_seed in runs])


def entropy_slope(
    log_probs: torch.Tensor, reference: torch.Tensor, rewards: torch.Tensor, s: float
) -> torch.Tensor:
    """dH/ds, (P,), of π_s ∝ π_ref e^{s r}, where s = 1/β: −Cov(log π_ref, r) − s Var(r), under π_s.

    log_probs (P, N) are those of π_s. The second term always narrows. The first one widens where what is
    worth more is less usual, and while s is small it decides.
    """
    p = log_probs.exp()
    centred = rewards - (p * rewards).sum(-1, keepdim=True)
    return -(p * centred * reference).sum(-1) - s * (p * centred**2).sum(-1)


# --- reasoning ---


def solved(policy: str, ks: Sequence[int], name: str = "right", temperature: float = 1.0) -> np.ndarray:
    """pass@k of each question of the probe, (K, S, P); of "reasoned" answers, if these are asked for."""
    counts = np.array(column("two hops", policy, name, split="probe", temperature=temperature))
    hits = np.arange(TRIES["probe"]) < counts[..., None]  # (S, P, n): which sample was right plays no part
    return np.array([[pass_at_k(of_seed, k) for of_seed in hits] for k in ks])


def guessed(ks: Sequence[int]) -> np.ndarray:
    """pass@k of someone who knows which values there are, and names one of them at random, (K,)."""
    values: dict[tuple[str, int], set[str]] = {}
    for topic in load_topics():
        if not topic.real and topic_sorts()[topic.name] != "sft-only":
            for i, fact in enumerate(topic.facts):
                values.setdefault((topic.kind, i), set()).add(fact.answer)
    chance = np.array([1 / len(values[q.topic.kind, q.facts[1]]) for q in two_hops("probe")])
    return np.array([(1 - (1 - chance) ** k).mean() for k in ks])


def solved_change(policy: str, over: str, k: int, temperature: float = 1.0) -> Estimate:
    """By how much pass@k lies above another policy's at temperature 1, over seeds and questions."""
    ours, theirs = solved(policy, [k], temperature=temperature)[0], solved(over, [k])[0]
    return crossed_interval(ours[:, None] - theirs[None])


# --- a narrow habit ---


def shown_by(habit: str, name: str, family: str = "all", passes: float = 1.0) -> np.ndarray:
    """What answers to a family of prompts show after some passes over the pairs of a habit, (S,)."""
    passes = 0.0 if habit == "start" else passes
    return over_seeds(results(), name, about="habit", habit=habit, family=family, passes=passes)
