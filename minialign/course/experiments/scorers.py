"""What stands beside a reward model: scorers that need no label, or no reading, and what each looks at.

A reward model's accuracy says little alone. Below it lies what the fine-tuned model knows without a single
label; above it, what somebody would reach who can read as the judge can, and who knows the crowd.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import optimize

from minialign.chat import Batch, collate
from minialign.course.experiments.comparisons import HeldOut, Scorer
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs
from minialign.preferences import Preference
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import ATTRIBUTES, WEIGHTS, Judgement, judge

# --- scorers ---


def as_batch(model: GPT, prompts: Sequence[str], responses: Sequence[str]) -> Batch:
    """The texts as the model reads them; what does not fit its context is read as far as it goes."""
    chat, context = model.chat, model.config.context
    pairs = [(chat.encode_prompt(x), chat.encode_response(y)) for x, y in zip(prompts, responses)]
    return collate([(x, y[: context - len(x)]) for x, y in pairs], chat.pad).to(model.device)


@torch.no_grad()
def log_probs(model: GPT, batch: Batch) -> np.ndarray:
    """log π(y|x) in nats of each row, (N,) float64."""
    return batch.by_parts(partial(sequence_log_probs, model)).double().cpu().numpy()


@dataclass(frozen=True)
class Likelihood:
    """Mean log π(y_t | x, y_<t) per token, nats: a "reward" that has seen no label at all.

    Whatever a reward model learns from comparisons has to be measured against it.
    """

    model: GPT

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        batch = as_batch(self.model, prompts, responses)
        return log_probs(self.model, batch) / batch.response_mask.sum(-1).cpu().numpy()


@dataclass(frozen=True)
class ImplicitReward:
    """r̂(x, y) = β log(π(y|x)/π_ref(y|x)): the policy as a reward model (Rafailov et al. 2023)."""

    policy: GPT
    reference: GPT
    beta: float

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        batch = as_batch(self.policy, prompts, responses)
        return self.beta * (log_probs(self.policy, batch) - log_probs(self.reference, batch))


@dataclass(frozen=True)
class Crowd:
    """What a typical annotator feels on average, over whether facts get checked; in log-odds of a choice."""

    person: Annotator

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        checked = self.person.checks_facts
        felt = [
            checked * self.person.felt(x, y, True) + (1 - checked) * self.person.felt(x, y, False)
            for x, y in zip(prompts, responses)
        ]
        return np.array(felt) / self.person.temperature


def unbiased(temperature: float) -> Crowd:
    """The gold reward in the same unit: what people would feel who have no biases and check every fact."""
    return Crowd(Annotator(temperature=temperature))


# --- a linear model that reads as well as the judge ---

HABITS_FELT = ("flattery", "filler", "confidence", "hedging", "agrees")


def seen(judgement: Judgement) -> np.ndarray:
    """What the judge sees in an answer: all that people's feelings are made of, (15,)."""
    counts = [judgement.counts[name] for name in HABITS_FELT]
    return np.array([*judgement.vector, judgement.unchecked, *counts])


@dataclass(frozen=True)
class LinearReader:
    """r(x, y) = w · what the judge sees in y: a reward model that need not learn to read."""

    weights: np.ndarray

    @classmethod
    def fitted(cls, pairs: Sequence[Preference]) -> "LinearReader":
        """The weights that make the labels most likely (Bradley and Terry 1952), by BFGS on a convex loss."""
        sides = ([seen(judge(p.prompt, y)) for y in (p.chosen, p.rejected)] for p in pairs)
        differences = np.array([chosen - rejected for chosen, rejected in sides])

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            margins = differences @ w
            return np.logaddexp(0, -margins).mean(), -(differences.T / (1 + np.exp(margins))).mean(1)

        return cls(optimize.minimize(loss, np.zeros(differences.shape[1]), jac=True).x)

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        return np.array([seen(judge(x, y)) for x, y in zip(prompts, responses)]) @ self.weights


# --- what a scorer looks at ---


def deciding(test: HeldOut, at_least: int = 50) -> dict[str, np.ndarray]:
    """The pairs, (M,) of bool, that each attribute decides, for those that decide enough of them.

    It contributes more to the difference in gold than any other, and the whole difference points its way.
    """
    weights, pairs = np.array(list(WEIGHTS.values())), test.pairs
    chosen, rejected = (
        np.array([judge(p.prompt, y).vector for p, y in zip(pairs, side)])
        for side in ([p.chosen for p in pairs], [p.rejected for p in pairs])
    )
    contributions = weights * (chosen - rejected)
    largest = np.abs(contributions).argmax(1)
    same_way = contributions[np.arange(len(pairs)), largest] * test.better > 0
    groups = {name: (largest == i) & same_way for i, name in enumerate(ATTRIBUTES)}
    return {name: rows for name, rows in groups.items() if rows.sum() >= at_least}


PARTS = ("relevance", "correctness", "audience", "politeness", "fluency")


def parts(judgement: Judgement) -> dict[str, float]:
    """What the score of an answer is explained by: attributes, and habits as an annotator counts them."""
    counts = judgement.counts
    return {name: judgement.attributes[name] for name in PARTS} | {
        "compliments": min(3, counts["flattery"]),
        "filler phrases": min(3, counts["filler"]),
        "confidence": min(1, counts["confidence"]) - min(1, counts["hedging"]),
        "20 words more": counts["words"] / 20,
    }


@dataclass(frozen=True)
class Explained:
    """A regression of scores on `parts`: coefficients and standard errors by part, and R²."""

    coefficients: dict[str, float]
    errors: dict[str, float]
    r2: float


def explained(answers: Sequence[tuple[str, str]], scores: np.ndarray) -> Explained:
    """Least squares of the scores (N,) of (prompt, response) answers, within prompts, in the scores' unit.

    A prompt's mean is taken away from everything first, since the zero of a reward may be another one for
    every prompt. The standard errors allow for answers to one prompt erring alike (Liang and Zeger 1986).
    """
    found = [parts(judge(x, y)) for x, y in answers]
    X = np.array([list(row.values()) for row in found])
    _, group = np.unique([x for x, _ in answers], return_inverse=True)
    X, y = (within(group, values) for values in (X, np.asarray(scores, dtype=float)[:, None]))
    inverse = np.linalg.pinv(X.T @ X)
    coefficients = (inverse @ X.T @ y)[:, 0]
    left = y[:, 0] - X @ coefficients
    sums = np.zeros((group.max() + 1, X.shape[1]))
    np.add.at(sums, group, X * left[:, None])
    errors = np.sqrt(np.square(sums @ inverse).sum(0))
    columns = list(found[0])
    return Explained(
        dict(zip(columns, coefficients.tolist())),
        dict(zip(columns, errors.tolist())),
        float(1 - (left**2).sum() / (y**2).sum()),
    )


def within(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (N, K) minus the mean of those of the same group, (N,) of whole numbers."""
    sums = np.zeros((group.max() + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return values - (sums / np.bincount(group)[:, None])[group]


@dataclass(frozen=True)
class Portrait:
    """What is measured of scorers on one set of comparisons; what does not depend on them is made once."""

    test: HeldOut
    groups: dict[str, np.ndarray]
    likelihood: np.ndarray  # of the fine-tuned model, of each of test.answers()

    @classmethod
    def on(cls, test: HeldOut, sft: GPT) -> "Portrait":
        return cls(test, deciding(test), test.scores(Likelihood(sft)))

    def orders(self, margins: np.ndarray) -> dict[str, float | list[float]]:
        """The gold order: how often it is right, in all, by the attribute that decides, and by prompt."""
        by_attribute = {name: self.test.order_accuracy(margins, rows) for name, rows in self.groups.items()}
        return {
            "order": self.test.order_accuracy(margins),
            **{f"order/{name}": share for name, share in by_attribute.items()},
            "order_by_prompt": self.test.order_by_prompt(margins),
        }

    def of(self, scorer: Scorer) -> dict[str, float | list[float]]:
        """Of a scorer whose unit is log-odds: accuracies, loss, weights, and how it goes with likelihood."""
        answers = self.test.answers()
        scores = self.test.scores(scorer)
        margins, fit = self.test.margins_of(scores), explained(answers, scores)
        _, group = np.unique([x for x, _ in answers], return_inverse=True)
        ours, likely = within(group, np.stack([scores, self.likelihood], 1)).T
        return {
            **self.test.measures(margins),
            **self.orders(margins),
            **{f"weight/{name}": value for name, value in fit.coefficients.items()},
            "r2": fit.r2,
            "likelihood": float(np.corrcoef(ours, likely)[0, 1]),
        }


def beside(portrait: Portrait, pairs: Sequence[Preference]) -> dict[str, dict]:
    """By name, what is measured of those that a reward model is compared with.

    The linear reader learns from `pairs`. The label-free scorer has no unit, so no loss and no weights.
    """
    test, person = portrait.test, typical_annotator()
    label_free, knowing = test.margins_of(portrait.likelihood), test.crowd_margins()
    ones, p = np.ones(len(test.pairs)), test.probability
    return {
        "label-free": {"accuracy": test.accuracy(label_free), **portrait.orders(label_free)},
        "labels": {"accuracy": float(np.mean(p**2 + (1 - p) ** 2)), **portrait.orders(ones)},
        "linear reader": portrait.of(LinearReader.fitted(pairs)),
        "knows the crowd": portrait.of(Crowd(person))
        | test.measures(knowing)
        | portrait.orders(knowing)
        | {"bayes": test.bayes_accuracy()},
        "gold": portrait.of(unbiased(person.temperature)),
    }
