"""Notebook 06: DPO with famous bugs, and IPO beside it, all for one pass over the comparisons."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from unittest import mock

import numpy as np
import torch

from minialign import dpo
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, Part
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.direct_preference import CONSTANT, optimised, responses_in, untrained
from minialign.course.experiments.measuring import over_seeds
from minialign.dpo import dpo_loss
from minialign.gpt import GPT
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.preferences import Preference

# --- bugs: each is another log π(y|x), or another loss ---


def mean_for_sum(model: GPT, batch: Batch) -> torch.Tensor:
    """The mean over the response's tokens in place of their sum, (B,)."""
    return sequence_log_probs(model, batch) / batch.response_mask.sum(-1)


def prompt_counted(model: GPT, batch: Batch) -> torch.Tensor:
    """The prompt's tokens count as if the model had written them, (B,): in a pair they cancel."""
    everything = batch.mask.clone()
    everything[:, 0] = False
    return token_log_probs(model, Batch(batch.ids, batch.mask, everything)).sum(-1)


def swapped(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """Chosen and rejected the wrong way round."""
    return dpo_loss(policy_rejected, policy_chosen, reference_rejected, reference_chosen, beta)


def no_reference(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """The reference left out."""
    return dpo_loss(policy_chosen, policy_rejected, 0 * reference_chosen, 0 * reference_rejected, beta)


def reference_moves(policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta):
    """The reference is the policy itself, of which nobody made a copy: the loss is ln 2 for ever."""
    return dpo_loss(policy_chosen, policy_rejected, policy_chosen.detach(), policy_rejected.detach(), beta)


@dataclass(frozen=True)
class Variant:
    """What is done in place of DPO: how log π(y|x) is read, and which loss.

    With `by_length` β is multiplied by the mean length of a response: the fair β for a mean over tokens.
    """

    log_probs: Callable = sequence_log_probs
    loss: Callable = dpo_loss
    by_length: bool = False


VARIANTS = {
    "correct": Variant(),
    "mean for sum": Variant(mean_for_sum),
    "mean, β × length": Variant(mean_for_sum, by_length=True),
    "no reference": Variant(loss=no_reference),
    "the reference moves": Variant(loss=reference_moves),
    "pairs swapped": Variant(loss=swapped),
    "IPO": Variant(loss=dpo.ipo_loss),
}


@contextmanager
def scoring(log_probs: Callable):
    """DPO reads this as log π(y|x)."""
    with mock.patch.object(dpo, "sequence_log_probs", log_probs):
        yield


def mean_length(model: GPT, pairs: Sequence[Preference]) -> float:
    """Tokens of a response, the end included: the mean over the different responses of the pairs."""
    return float(np.mean([len(model.chat.encode_response(y)) for _, y in responses_in(pairs)]))


def dpo_variants(sft: GPT) -> dict[str, Part]:
    """One pass over the shipped comparisons with each variant; and where they begin.

    Every row of a run says which β it really had.
    """

    def part(name: str, seed: int) -> list[dict]:
        pairs, variant = preferences("comparisons"), VARIANTS[name]
        config = replace(CONSTANT, seed=seed)
        if variant.by_length:
            config = replace(config, beta=config.beta * mean_length(sft, pairs))
        with scoring(variant.log_probs):
            _, rows = optimised(sft, pairs, config, loss=variant.loss)
        return [{"seed": seed, "variant": name, "beta": config.beta, **row} for row in rows]

    parts: dict[str, Part] = {f"SFT, seed {seed}": partial(untrained, sft, seed) for seed in SEEDS}
    return parts | {f"{name}, seed {seed}": partial(part, name, seed) for seed in SEEDS for name in VARIANTS}


# --- read from the table ---


def course_of(rows: Sequence[dict], variant: str, name: str) -> np.ndarray:
    """A metric of a variant's runs after each step, (seeds, steps)."""
    mine = [row for row in rows if row.get("variant") == variant]
    steps = sorted({row["step"] for row in mine})
    return np.stack([over_seeds(mine, name, step=step) for step in steps], 1)
