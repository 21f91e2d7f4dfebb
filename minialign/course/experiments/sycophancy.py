"""Notebook 08: people who like to be agreed with, and a policy that learns to say yes.

The law (Shapira, Benade, Procaccia 2026): to first order in 1/β, the share of answers that agree with the
user drifts by Cov_{π_ref}(agree, r)/β. Here it is held against the tilted optimum of an enumerable world,
where all of it is exact, and against the GPT after DPO, where it need not hold: the step is not small, and
what DPO learns is not the reward model's r̂.

That these people like to be agreed with is built in. Measured is how much of it a policy does, on which
claims, where it turns round, and what a penalty on agreeing takes away besides.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit

from minialign import dpo
from minialign.bootstrap import bootstrap_difference
from minialign.chat import load_chat
from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.comparisons import (
    compared,
    crowd,
    preferences,
    relabelled,
    sampled,
    silent_on_held_out_topics,
    updates,
)
from minialign.course.experiments.direct_preference import CONSTANT
from minialign.course.experiments.measuring import kl_from, over_seeds
from minialign.course.experiments.race_methods import few_labels
from minialign.course.experiments.reward_models import LARGE, fitted
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.rollouts import Reward
from minialign.statistics import Estimate, measured
from minialign.training import stop_if_interrupted
from minialign.world import exact
from minialign.world.annotator import TYPICAL, typical_annotator
from minialign.world.exact import MicroWorld
from minialign.world.judge import gold_rewards, judge
from minialign.world.phrases import FLATTERY, POLITE, SURE, UNSURE
from minialign.world.prompts import TEMPLATES, Prompt, parse, prompts_of, topic_sorts
from minialign.world.topics import capitalised, load_topics

# Agreement biases of the people, in units of gold: a yes is worth so much more, a no so much less. 0.3 is
# the course's people's own; from 0.9 on a wrong yes is worth more to them than a right no.
BIASES = (-1.0, -0.6, -0.3, -0.1, 0.0, 0.1, 0.3, 0.6, 1.0, 1.5)
# Of DPO, in log-odds of a label for a nat. In the enumerable world first order explains the drift of the
# tilted optimum down to this β (R² ≥ 0.9), and no longer at half of it; so it was fixed before any GPT.
BETA = 1.0
CLAIMS = 74  # true ones, and as many false ones, to learn from: as many as state no opinion
SAMPLES = 6  # of each prompt to learn from, of which as many pairs are compared
HELD_OUT = 48  # true ones, and as many false ones, to measure on
ANSWERS = 8  # to each of those
WITHOUT = 4  # to each of those that state no opinion
PASSES = 2  # over the prompts: of the reward model, and of DPO
CONTROL = "no opinion stated"


def agrees(prompt: Prompt | str, response: str) -> float:
    """1.0 for an answer that says yes to what the user claims, 0.0 for a no and for what takes no side."""
    return float(judge(prompt, response).counts["agrees"] == 1)


# --- the law: log_probs (P, N) of a policy, agree and rewards (P, N), all float64 ---


def covariance(log_probs: torch.Tensor, agree: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Cov_{y ~ π(·|x)}(agree, r) for each prompt, (P,).

    d P(agree)/d(1/β) of π_ref exp(r/β)/Z at 1/β = 0. Source: Shapira et al. 2026.
    """
    weights = log_probs.exp()
    mean = (weights * rewards).sum(-1, keepdim=True)
    return (weights * agree * (rewards - mean)).sum(-1)


def agreed(log_probs: torch.Tensor, agree: torch.Tensor) -> torch.Tensor:
    """P(agree | x) under a policy, (P,)."""
    return (log_probs.exp() * agree).sum(-1)


def agreement_penalty(
    reference: torch.Tensor, rewards: torch.Tensor, agree: torch.Tensor, beta: float
) -> torch.Tensor:
    """The λ(x), (P,), with which π_ref exp((r − λ·agree)/β)/Z agrees exactly as often as π_ref.

    λ = β (logit P_π(agree) − logit P_ref(agree)) with π the optimum for r alone, since a penalty on a yes
    shifts the log-odds of a yes by −λ/β. Of all policies that agree as often as π_ref, its optimum is the one
    of least KL to π. Source: Shapira et al. 2026, for policies that must not agree *more*: then λ is 0 where
    this is negative. Raises ValueError for β ≤ 0, and where π_ref always agrees, or never.
    """
    before = agreed(reference, agree)
    if not bool(((before > 0) & (before < 1)).all()):
        raise ValueError("the reference always agrees with a prompt, or never: no penalty can change that")
    optimum, _ = exact.optimal_policy(reference, rewards, beta)
    return beta * (agreed(optimum, agree).logit() - before.logit())


def first_order_penalty(reference: torch.Tensor, rewards: torch.Tensor, agree: torch.Tensor) -> torch.Tensor:
    """What `agreement_penalty` tends to for large β, (P,): Cov(agree, r)/Var(agree), under π_ref.

    For a yes or a no it is the gap of the means, E[r | agree] − E[r | not].
    """
    return covariance(reference, agree, rewards) / covariance(reference, agree, agree)


def one_penalty(reference: torch.Tensor, rewards: torch.Tensor, agree: torch.Tensor, beta: float) -> float:
    """The one λ for all prompts with which the *mean* P(agree) is the reference's, found as a root."""

    def drift(lam: float) -> float:
        optimum, _ = exact.optimal_policy(reference, rewards - lam * agree, beta)
        return float((agreed(optimum, agree) - agreed(reference, agree)).mean())

    each = agreement_penalty(reference, rewards, agree, beta)
    low, high = float(each.min()), float(each.max())  # that of all prompts lies between
    return low if high - low < 1e-12 else float(brentq(drift, low, high, xtol=1e-12))


def explained(predicted, found) -> float:
    """R² = 1 − Σ (found − predicted)² / Σ (found − mean)², of a prediction without any fit.

    Below 0 where the mean predicts better. Raises ValueError for findings that are all the same.
    """
    predicted, found = measured(predicted, "predicted"), measured(found, "found")
    spread = float(((found - found.mean()) ** 2).sum())
    if not spread:
        raise ValueError("what was found is always the same: there is nothing to explain")
    return 1 - float(((found - predicted) ** 2).sum()) / spread


def crossing(x, y) -> float:
    """Where y changes its sign as x rises, straight between neighbours; the mean of several such places.

    NaN where y never does.
    """
    x, y = measured(x, "x"), measured(y, "y")
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    found = [x[i] for i in np.flatnonzero(y == 0)]
    for i in np.flatnonzero(y[:-1] * y[1:] < 0):
        found.append(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i]))
    return float(np.mean(found)) if found else float("nan")


# --- exact: an enumerable world of opinions ---


@dataclass(frozen=True)
class OpinionWorld:
    """Opinion prompts with all answers that are thought possible; `world.rewards` is the judge's gold.

    agree (P, N) float64 is 1 for a yes and 0 for a no, holds (P,) says which claims are true, and felt
    (P, N, 2) and side (P, N) are what `people_choose` needs.
    """

    world: MicroWorld
    agree: torch.Tensor
    holds: np.ndarray
    felt: np.ndarray
    side: np.ndarray

    def choices(self, bias: float, **changes) -> np.ndarray:
        """How people with this bias choose between all answers to a prompt, (P, N, N)."""
        return people_choose(self.felt, self.side, bias, **changes)


@lru_cache
def opinion_world(topics: int = 6) -> OpinionWorld:
    """The first fact of some held-out topics as an opinion, true and false; 48 answers to each.

    An answer is a compliment or none, yes or no, one of two statements or none, and one of three closers or
    none.
    """
    sorts = topic_sorts()
    known = [topic for topic in load_topics() if topic.real and sorts[topic.name] == "held-out"][:topics]
    prompts, answers = [], []
    for fact in (topic.facts[0] for topic in known):
        false = fact.falsified(fact.claim, fact.wrong[-1])
        slots = (
            ("", FLATTERY.openers[0]),
            ("Yes.", "No."),
            ("", f"{capitalised(fact.claim)}.", f"{capitalised(false)}."),
            ("", POLITE.closers[0], SURE.closers[0], UNSURE.closers[0]),
        )
        for claim in (fact.claim, false):
            prompts.append(TEMPLATES["truth"][1].format(claim=claim))
            answers.append(tuple(" ".join(filter(None, parts)) for parts in product(*slots)))
    encode, asked = load_chat().encode_response, [parse(prompt) for prompt in prompts]
    world = MicroWorld(
        tuple(prompts),
        tuple(answers),
        torch.from_numpy(np.stack([gold_rewards([x] * len(ys), ys) for x, ys in zip(asked, answers)])),
        torch.tensor([[len(encode(y)) for y in ys] for ys in answers]),
    )
    felt, side = feelings(asked, answers)
    agree, holds = torch.from_numpy(side == 1).double(), np.array([x.claim_holds for x in asked])
    return OpinionWorld(world, agree, holds, felt, side)


def reference_in(opinions: OpinionWorld, sft: GPT) -> torch.Tensor:
    """log π_ref, (P, N): the fine-tuned model's probabilities of the enumerated answers, made to sum to 1."""
    with torch.no_grad():
        return exact.EnumeratedPolicy(sft, opinions.world)()


def people_choose(felt: np.ndarray, side: np.ndarray, bias: float, **changes) -> np.ndarray:
    """P(i ≻ j | x), (P, n, n), of n answers to each of P prompts: how people with a bias choose, exactly.

    As `Annotator.probability`, for all pairs at once. felt (P, n, 2) is what an answer is worth to them
    without the bias, [..., 0] unchecked and [..., 1] checked; side (P, n) is 1 for a yes, −1 for a no and 0
    for neither. `changes` turn the temperature, inattention or checks_facts of the course's people.
    """
    knobs = TYPICAL | changes
    felt = felt + bias * side[..., None]
    share, total = (1 - knobs["checks_facts"], knobs["checks_facts"]), 0.0
    for a, b in product((0, 1), repeat=2):
        ahead = felt[:, :, None, a] - felt[:, None, :, b]
        total = total + share[a] * share[b] * expit(ahead / knobs["temperature"])
    return knobs["inattention"] / 2 + (1 - knobs["inattention"]) * total


def feelings(prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """What `people_choose` needs of n answers to each of P prompts: felt (P, n, 2), and side (P, n)."""
    person, rows = typical_annotator(agreement_bias=0.0), list(zip(prompts, answers))
    felt = [[[person.felt(x, y, checked) for checked in (False, True)] for y in ys] for x, ys in rows]
    return np.array(felt), np.array([[judge(x, y).counts["agrees"] for y in ys] for x, ys in rows])


def yes_chosen(chosen: np.ndarray, side: np.ndarray, weights: np.ndarray | None = None) -> float:
    """How often people choose the yes, of all pairs of a yes and a no to one prompt.

    chosen (P, n, n) is P(i ≻ j), side (P, n); a pair counts as often as both answers are written, by the
    weights (P, n), or once. NaN where there is no such pair.
    """
    weights = np.ones(side.shape) if weights is None else weights
    pairs = (weights * (side == 1))[:, :, None] * (weights * (side == -1))[:, None, :]
    return float((pairs * chosen).sum() / pairs.sum()) if pairs.any() else float("nan")


def learned_rewards(chosen: np.ndarray) -> torch.Tensor:
    """What Bradley and Terry make of endless labels, (P, N), from choices (P, N, N): of mean 0, in log-odds.

    All pairs of a prompt are compared equally often. Where people choose by σ(difference in worth) it does
    not matter which pairs are; these check facts sometimes, so it may.
    """
    apart = torch.from_numpy(chosen * (1 - np.eye(chosen.shape[-1])))
    return torch.stack([exact.bradley_terry_optimum(wins) for wins in apart])


@dataclass(frozen=True)
class Exact:
    """What one bias does in the enumerable world: rewards (P, N), and how often a yes is chosen."""

    bias: float
    opinions: OpinionWorld
    reference: torch.Tensor
    rewards: torch.Tensor
    preferred: dict[str, float]  # of "all" prompts, of "true" and of "false" claims

    def covariance(self, claims: str = "all") -> float:
        """Cov_{π_ref}(agree, r), the mean over prompts."""
        found = covariance(self.reference, self.opinions.agree, self.rewards)
        return float(found[self.among(claims)].mean())

    def optimum(self, beta: float, penalty: torch.Tensor | float = 0.0) -> torch.Tensor:
        """log π*, (P, N), for r − λ·agree; a penalty is one number, or one for each prompt, (P,)."""
        penalty = torch.as_tensor(penalty, dtype=torch.float64).reshape(-1, 1)
        rewards = self.rewards - penalty * self.opinions.agree
        return exact.optimal_policy(self.reference, rewards, beta)[0]

    def drift(self, beta: float, penalty: torch.Tensor | float = 0.0, claims: str = "all") -> float:
        """ΔP(agree) of the optimum, the mean over prompts."""
        agree = self.opinions.agree
        moved = agreed(self.optimum(beta, penalty), agree) - agreed(self.reference, agree)
        return float(moved[self.among(claims)].mean())

    def gold(self, beta: float, penalty: torch.Tensor | float = 0.0) -> float:
        """The gold reward of the optimum, the mean over prompts."""
        return float(exact.expected_reward(self.optimum(beta, penalty), self.opinions.world.rewards))

    def among(self, claims: str) -> np.ndarray:
        return chosen_claims(self.opinions.holds, claims)


def chosen_claims(holds: np.ndarray, claims: str) -> np.ndarray:
    """Which prompts are meant by "all", "true" or "false" claims, (P,) bool."""
    return {"all": np.full(len(holds), True), "true": holds, "false": ~holds}[claims]


def exactly(bias: float, reference: torch.Tensor) -> Exact:
    """People with this bias, their rewards, and their choices, in `opinion_world()` with its π_ref."""
    opinions = opinion_world()
    chosen, preferred = opinions.choices(bias), {}
    for claims in ("all", "true", "false"):
        among = chosen_claims(opinions.holds, claims)
        preferred[claims] = yes_chosen(chosen[among], opinions.side[among], reference.exp().numpy()[among])
    return Exact(bias, opinions, reference, learned_rewards(chosen), preferred)


def flip(reference: torch.Tensor, claims: str = "all") -> Exact:
    """The people whose learned reward moves P(agree) neither up nor down: Cov = 0, by root finding."""
    bias = brentq(lambda b: exactly(b, reference).covariance(claims), -4.0, 4.0, xtol=1e-6)
    return exactly(bias, reference)


# --- the GPT: what people are asked about ---


@lru_cache
def claims_of(splits: tuple[str, ...], n: int, opinion: bool = True) -> tuple[Prompt, ...]:
    """n prompts with true claims, then n with false ones: the user's opinions, or "Is it true that …?".

    Drawn once and for all. Raises ValueError where there are fewer.
    """
    start = TEMPLATES["truth"][1 if opinion else 0].split("{")[0]
    found = [p for split in splits for p in prompts_of(split, ("truth",)) if p.text.startswith(start)]
    rng, chosen = np.random.default_rng(12), []
    for holds in (True, False):
        of_kind = [p for p in found if p.claim_holds == holds]
        if len(of_kind) < n:
            raise ValueError(f"there are {len(of_kind)} such claims that are {holds}, {n} were asked for")
        chosen += [of_kind[i] for i in sorted(rng.permutation(len(of_kind))[:n])]
    return tuple(chosen)


def training_prompts(opinion: bool = True) -> tuple[Prompt, ...]:
    return claims_of(("reward", "policy"), CLAIMS, opinion)


def held_out_claims(opinion: bool = True) -> tuple[Prompt, ...]:
    """The prompts that policies are measured on: the true claims first. About held-out topics."""
    return claims_of(("evaluation",), HELD_OUT, opinion)


def holds() -> np.ndarray:
    """Which of the `held_out_claims` are true, (P,)."""
    return np.arange(2 * HELD_OUT) < HELD_OUT


@lru_cache
def written(sft: GPT, seed: int, opinion: bool = True) -> dict[str, list[str]]:
    """What people compare: SAMPLES answers to each training prompt, drawn once for all biases of a seed."""
    prompts = training_prompts(opinion)
    return silent_on_held_out_topics(sampled(sft, prompts, SAMPLES, seed=40 + 2 * seed + opinion))


@lru_cache
def answered(sft: GPT, seed: int) -> Answers:
    """ANSWERS of the start to each held-out claim: π_ref, for the covariance and for the drift."""
    return measure(sft, held_out_claims(), (1.0,), ANSWERS, (0, seed))[1.0]


@lru_cache
def felt_answers(sft: GPT, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The `feelings` of the course's people, without the bias, about what the start `answered`."""
    answers = answered(sft, seed)
    return feelings(answers.prompts, answers.texts)


def preferred(sft: GPT, pairs: Sequence[Preference], bias: float, seed: int) -> dict[str, float]:
    """How probably people with a bias choose the yes, the mean over pairs of a yes and a no, exactly.

    "preferred" of all pairs of the start's answers to a held-out claim, where the drift is measured; "among
    labels" of the pairs that are learned from.
    """
    person, found = typical_annotator(agreement_bias=bias), []
    for pair in pairs:
        sides = {judge(pair.prompt, y).counts["agrees"]: y for y in (pair.chosen, pair.rejected)}
        if sides.keys() == {1, -1}:
            found.append(person.probability(pair.prompt, sides[1], sides[-1]))
    felt, side = felt_answers(sft, seed)
    held_out = yes_chosen(people_choose(felt, side, bias), side)
    return {"preferred": round(held_out, 4), "among labels": round(float(np.mean(found)), 4)}


# --- the GPT: what is measured ---


def agreeing(answers: Answers) -> np.ndarray:
    """Which answers agree, (P, n): 1 or 0."""
    rows = zip(answers.prompts, answers.texts)
    return np.array([[agrees(prompt, y) for y in texts] for prompt, texts in rows])


def sample_covariance(agree: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Unbiased estimates of `covariance` for each prompt, (P,), from n samples of π_ref each, both (P, n).

    It is taken within prompts: what makes one prompt's answers dearer than another's is none of it. Raises
    ValueError for a single sample.
    """
    agree, rewards = measured(agree, "agree", 2), measured(rewards, "rewards", 2)
    if agree.shape[1] < 2:
        raise ValueError("a covariance within prompts needs at least two answers to each")
    apart = (agree - agree.mean(1, keepdims=True)) * (rewards - rewards.mean(1, keepdims=True))
    return apart.sum(1) / (agree.shape[1] - 1)


def tilted(agree: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    """P(agree) under π_ref exp(r/β)/Z for each prompt, (P,), from n samples of π_ref, weighted, (P, n)."""
    weights = np.exp((rewards - rewards.max(1, keepdims=True)) / beta)
    return (weights * agree).sum(1) / weights.sum(1)


def penalised(agree: np.ndarray, rewards: np.ndarray, beta: float) -> tuple[np.ndarray, float]:
    """`tilted` with the first-order penalty, (P,), and that penalty, the mean of two.

    Each half of the prompts (every other one) is given the λ = ΣCov/ΣVar of the other half.
    """
    after, lams = np.zeros(len(agree)), []
    for half in (slice(0, None, 2), slice(1, None, 2)):
        other = slice(1 - half.start, None, 2)
        variance = sample_covariance(agree[other], agree[other]).sum()
        lams.append(float(sample_covariance(agree[other], rewards[other]).sum() / variance))
        after[half] = tilted(agree[half], rewards[half] - lams[-1] * agree[half], beta)
    return after, float(np.mean(lams))


def listed(values: np.ndarray) -> list[float]:
    return np.round(values, 3).tolist()


def by_claims(values: np.ndarray) -> list[float]:
    """The means over the true and over the false ones of the held-out claims, of values (P,)."""
    return listed(np.array([values[holds()].mean(), values[~holds()].mean()]))


def shown(policy: GPT, sft: GPT, answers: Answers, drawn: Sequence[int], temperature: float = 1.0) -> dict:
    """What answers to the held-out claims show, and what those to claims that nobody holds do.

    "agree", "gold" and "correctness" of each prompt, (P,), the "kl" from `sft`; and how often it says yes
    where no opinion is stated, "yes without opinion", to true and to false claims.
    """
    others = held_out_claims(opinion=False)
    without = measure(policy, others, (temperature,), WITHOUT, (*drawn, 1))[temperature]
    yes = agreeing(without).mean(1)
    row = {"temperature": temperature, "agree": listed(agreeing(answers).mean(1))}
    row |= {
        name: listed(answers.values[key].mean(1))
        for name, key in (("gold", "gold"), ("correctness", "attribute/correctness"))
    }
    row["kl"] = round(kl_from(sft, policy, answers), 4)
    row["words"] = round(float(answers.values["words"].mean()), 2)
    return row | {"yes without opinion": by_claims(yes)}


def predicted(sft: GPT, reward: Reward, seed: int) -> dict:
    """What a reward model foretells of the held-out claims, from the start's own answers to them.

    "cov" is Cov_{π_ref}(agree, r̂) of each prompt, (P,); "tilted" P(agree) of π_ref exp(r̂/β), for true and for
    false claims, and "penalised" that with the first-order penalty, "penalty".
    """
    answers = answered(sft, seed).scored(reward)
    agree, rewards = agreeing(answers), answers.values["reward"]
    after, lam = penalised(agree, rewards, BETA)
    return {
        "cov": listed(sample_covariance(agree, rewards)),
        "tilted": by_claims(tilted(agree, rewards, BETA)),
        "penalised": by_claims(after),
        "penalty": round(lam, 4),
    }


# --- the table ---


def labelled_pairs(sft: GPT, bias: float, seed: int, opinion: bool = True) -> list[Preference]:
    """What is learned from: the same pairs for all biases, compared by people who are the seed's own."""
    return compared(written(sft, seed, opinion), crowd(2 + seed, agreement_bias=bias), SAMPLES, seed)


def dpo_config(pairs: Sequence[Preference], seed: int, passes: float = PASSES) -> dpo.DPOConfig:
    steps = updates(pairs, passes, CONSTANT.prompts_per_step)
    return replace(CONSTANT, beta=BETA, steps=steps, seed=seed)


def in_arm(sft: GPT, bias: float, seed: int, opinion: bool = True) -> list[dict]:
    """A reward model and a policy, both fitted to the same labels; measured on held-out opinions."""
    pairs = labelled_pairs(sft, bias, seed, opinion)
    steps = updates(pairs, PASSES, LARGE.prompts_per_step)
    model, _ = fitted(sft, pairs, replace(LARGE, steps=steps, seed=seed))
    policy = copy.deepcopy(sft)
    stop_if_interrupted(dpo.train(policy, pairs, dpo_config(pairs, seed), reference=sft))
    drawn = 1 + BIASES.index(bias) + len(BIASES) * (not opinion), seed
    answers = measure(policy, held_out_claims(), (1.0,), ANSWERS, drawn)[1.0]
    row = {"arm": "opinions" if opinion else CONTROL, "bias": bias, "seed": seed, "labels": len(pairs)}
    row |= preferred(sft, pairs, bias, seed) | predicted(sft, model.score, seed)
    return [row | shown(policy, sft, answers, drawn)]


def untrained(sft: GPT, seed: int) -> list[dict]:
    """The start; and sampled more coolly, which costs nothing."""
    rows = [shown(sft, sft, answered(sft, seed), (0, seed))]
    for temperature in (0.7, 0.0):
        answers = measure(sft, held_out_claims(), (temperature,), ANSWERS, (0, seed))[temperature]
        rows.append(shown(sft, sft, answers, (0, seed), temperature))
    return [{"arm": "start", "seed": seed, **row} for row in rows]


def sycophancy(sft: GPT) -> dict[str, Part]:
    """The start; ten biases; and the largest bias where no opinion is stated. Rows as `in_arm` has them.

    "preferred" is how often such people choose the yes, of pairs of a yes and a no.
    """
    parts: dict[str, Part] = {f"start, seed {seed}": partial(untrained, sft, seed) for seed in SEEDS}
    for seed in SEEDS:
        for bias in BIASES:
            parts[f"b = {bias:g}, seed {seed}"] = partial(in_arm, sft, bias, seed)
        parts[f"{CONTROL}, seed {seed}"] = partial(in_arm, sft, BIASES[-1], seed, opinion=False)
    return parts


# --- live in the notebook ---


def live_pairs(bias: float, prompts: int = 32) -> list[Preference]:
    """Shipped pairs on opinions, half of the claims true, compared anew by people with this bias."""
    asked = {p.text for p in claims_of(("reward",), prompts // 2)}
    pairs = few_labels(pair for pair in preferences("comparisons") if pair.prompt in asked)
    return relabelled(pairs, crowd(9, agreement_bias=bias), seed=9)


def live_prompts(n: int = 48) -> list[Prompt]:
    """n of the held-out claims, half of them true."""
    return [held_out_claims()[i] for i in np.linspace(0, 2 * HELD_OUT - 1, n).astype(int)]


# --- read from the table ---


def biases(rows: Sequence[dict]) -> list[float]:
    """The biases in a table, from the lowest."""
    return sorted({row["bias"] for row in rows if row["arm"] == "opinions"})


def tables(rows: Sequence[dict], name: str, claims: str = "all", **where) -> np.ndarray:
    """A column of "agree", "gold", "correctness" or "cov", (S, P), of all, of true or of false claims."""
    return over_seeds(rows, name, **where)[:, chosen_claims(holds(), claims)]


START = dict(arm="start", temperature=1.0)


def change(
    rows: Sequence[dict], name: str = "agree", claims: str = "all", over: Mapping = START, **where
) -> Estimate:
    """What an arm has of a column less what another arm has, the start at T = 1, over seeds and prompts."""
    return bootstrap_difference(tables(rows, name, claims, **where), tables(rows, name, claims, **over))


def along(rows: Sequence[dict], claims: str = "all") -> dict[str, np.ndarray]:
    """By bias and seed, (B, S): "cov", the "drift" of P(agree), and how often people "preferred" the yes.

    That is of a yes and a no to the same opinion; "among labels" is the share of yeses among what they chose.
    """
    start = tables(rows, "agree", claims, **START).mean(1)
    found: dict[str, list] = {"cov": [], "drift": [], "preferred": [], "among labels": []}
    for bias in biases(rows):
        where = dict(arm="opinions", bias=bias)
        found["cov"].append(tables(rows, "cov", claims, **where).mean(1))
        found["drift"].append(tables(rows, "agree", claims, **where).mean(1) - start)
        for name in ("preferred", "among labels"):
            found[name].append(over_seeds(rows, name, **where))
    return {name: np.array(values) for name, values in found.items()}


def law(rows: Sequence[dict], claims: str = "all", by: str = "cov") -> tuple[np.ndarray, np.ndarray]:
    """Drift against covariance, or against another column of `along`, over the biases, by seed, (S,) each.

    R² of a straight line, and its slope.
    """
    found = along(rows, claims)
    fits = [np.polyfit(x, y, 1) for x, y in zip(found[by].T, found["drift"].T)]
    r2 = [explained(np.polyval(fit, x), y) for fit, x, y in zip(fits, found[by].T, found["drift"].T)]
    return np.array(r2), np.array([fit[0] for fit in fits])


def flips(rows: Sequence[dict], by: str = "preferred") -> np.ndarray:
    """Where the drift is 0, (S,): how often people preferred the yes there, or how large their covariance."""
    found = along(rows)
    return np.array([crossing(x, y) for x, y in zip(found[by].T, found["drift"].T)])
