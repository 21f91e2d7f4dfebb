"""What a row of a table says of a policy: its answers, judged, and how far they are from where it started."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import tuning_prompts
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_kl
from minialign.rollouts import Reward
from minialign.world.prompts import Prompt

OF_ANSWERS = ("golds", "lengths")  # what a row says of single answers


@dataclass(frozen=True)
class Sampled:
    """A policy as it is sampled at a temperature T: its logits over T. Greedy decoding is the limit T → 0."""

    policy: GPT
    temperature: float

    def hidden(self, *args) -> torch.Tensor:
        return self.policy.hidden(*args)

    def head(self, states: torch.Tensor) -> torch.Tensor:
        return self.policy.head(states) / max(self.temperature, 1e-5)


def kl_from(reference: GPT, policy: GPT, answers: Answers) -> float:
    """KL(π_T ‖ π_ref) of responses to the answers' prompts, in nats a response; T is their temperature.

    π_ref is always taken at temperature 1. For the first answer to each prompt the exact KL of the next-token
    distributions is summed over the tokens: less noisy than log-ratios, same mean.
    """
    texts = [(prompt.text, y) for prompt, y in zip(answers.prompts, answers.texts[:, 0])]
    batch = policy.chat.collate(texts, policy.config.context).to(policy.device)
    sampled = Sampled(policy, answers.temperature)
    parts = (token_kl(sampled, reference, batch[place]) for place in batch.parts(16))
    return float(np.mean([tokens.sum() for part in parts for tokens in part]))


def log_ratio(model: GPT, answers: Answers) -> float:
    """The mean of log π_T(y|x) − log π_1(y|x) over answers, nats: how much their temperature favours them."""
    if answers.temperature == 1:
        return 0.0
    asked = [prompt.text for prompt in answers.prompts for _ in range(answers.texts.shape[1])]
    texts = zip(asked, answers.texts.ravel().tolist())
    batch = model.chat.collate(texts, model.config.context).to(model.device)
    with torch.no_grad():
        cool, warm = (
            batch.by_parts(partial(sequence_log_probs, model, temperature=t))
            for t in (answers.temperature, 1.0)
        )
    return float((cool - warm).double().mean())


def measured(
    policy: GPT,
    reference: GPT,
    prompts: Sequence[Prompt],
    seed: int | Sequence[int],
    *,
    temperatures: Sequence[float] = (1.0,),
    n: int = 2,
    reward: Reward | None = None,
) -> list[dict]:
    """What n answers to each of P prompts show, a row for each temperature.

    A row has the means of all values of `Answers` ("gold", "words", "finished", habits, attributes, "reward"
    if a model is asked), "kl", `kl_from` the reference, and of each answer its gold reward and its words,
    "golds" and "lengths", (P, n). The order is that of the prompts: their families are known from them. Runs
    whose single answers are to be compared, as for win rates, need seeds of their own (see `measure`).
    """
    found = measure(policy, prompts, temperatures, n, seed, reward).values()
    return [row_of(answers) | {"kl": kl_from(reference, policy, answers)} for answers in found]


def row_of(answers: Answers) -> dict:
    """The means of some answers' values; of each answer its gold reward and its words."""
    return {
        "temperature": answers.temperature,
        **{name: float(values.mean()) for name, values in answers.values.items()},
        "golds": answers.values["gold"].round(3).tolist(),
        "lengths": answers.values["words"].astype(int).tolist(),
    }


def in_means(row: dict) -> dict:
    """A row without its single answers."""
    return {name: value for name, value in row.items() if name not in OF_ANSWERS}


def tuning_gold(policy: GPT, seed: int | Sequence[int]) -> float:
    """The gold reward on the tuning prompts, at temperature 1: by which anything is chosen."""
    return float(measure(policy, tuning_prompts(), (1.0,), 2, seed)[1.0].values["gold"].mean())


def over_seeds(rows: Sequence[dict], name: str, **where) -> np.ndarray:
    """A column of the rows that `where` describes, (S, …): what it is for each seed, in their order.

    Of "golds" it is (S, P, n), as `minialign.bootstrap` takes it. Raises ValueError unless each seed has one
    such row.
    """
    chosen = [row for row in rows if name in row and where.items() <= row.items()]
    seeds = [row["seed"] for row in chosen]
    if not seeds or len(set(seeds)) < len(seeds):
        said = ", ".join(f"{key} = {value!r}" for key, value in where.items())
        raise ValueError(f"{name} where {said}: {len(seeds)} rows of {len(set(seeds))} seeds; say which")
    return np.array([row[name] for row in sorted(chosen, key=lambda row: row["seed"])])


def by_prompt(prompts: Sequence[str], values: Sequence[float]) -> list[float]:
    """The means of values that belong to prompts, (M,) each: one for each prompt, as they first occur."""
    found: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        found.setdefault(prompt, []).append(float(value))
    return [round(float(np.mean(of_one)), 4) for of_one in found.values()]
