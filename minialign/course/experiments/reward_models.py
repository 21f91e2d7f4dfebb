"""Notebook 04: what reward models learn from comparisons, by how many and how large; and famous mistakes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from minialign import reward_model
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, answers
from minialign.course.experiments.comparisons import (
    HeldOut,
    halves,
    of_few_prompts,
    preferences,
    subset,
    updates,
)
from minialign.course.experiments.scorers import Portrait, beside
from minialign.gpt import GPT
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig, bradley_terry_loss
from minialign.training import History, stop_if_interrupted
from minialign.world.prompts import prompts_of

PASSES = 3  # over the prompts, wherever no number of steps is given
LARGE = RewardModelConfig(steps=180)  # the shipped reward model, tokens only: about three passes


def fitted(
    sft: GPT,
    pairs: Sequence[Preference],
    config: RewardModelConfig,
    *,
    model: RewardModel | None = None,
    **options,
) -> tuple[RewardModel, History]:
    """A reward model fitted to the pairs, in log-odds, and its history.

    Left out, `model` is one that sees tokens only.
    """
    model = RewardModel(sft, seed=config.seed) if model is None else model
    history = reward_model.train(model, pairs, config, **options)
    stop_if_interrupted(history)
    return model, history


def trained(
    sft: GPT, pairs: Sequence[Preference], config: RewardModelConfig, **options
) -> tuple[RewardModel, History]:
    """The same, ready to be optimised: normalised on samples of `sft` for policy prompts."""
    model, history = fitted(sft, pairs, config, **options)
    asked = prompts_of("policy")
    # In their order, the first would be about few topics; and PPO meets them all alike.
    asked = [asked[i] for i in np.random.default_rng(2).permutation(len(asked))[:128]]
    responses = answers(sft, asked, seed=2, n=2)
    model.normalise([prompt.text for prompt in asked for _ in range(2)], responses)
    return model, history


# --- how many comparisons, and how large a network ---

SIZES = (100, 300, 1000, 3000)
SURPRISE_SIZES = (1000,)  # besides all: where the variant that reads surprise is trained, too
FEW_LAYERS = (1, 2)  # of the smaller networks


def steps_for(pairs: Sequence[Preference], least: int = 20) -> int:
    """PASSES over the prompts of the pairs, and at least 20 updates."""
    return max(least, updates(pairs, PASSES, RewardModelConfig().prompts_per_step))


def shallow(model: GPT, layers: int) -> GPT:
    """The first layers of a GPT, with its embeddings and final norm: a smaller network to start from."""
    smaller = GPT(replace(model.config, n_layer=layers), chat=model.chat).to(model.device)
    smaller.load_state_dict({k: v for k, v in model.state_dict().items() if k in smaller.state_dict()})
    return smaller


def reward_models_by_labels(sft: GPT) -> list[dict]:
    """Reward models of 100 comparisons up to all, beside what needs no label and what needs no reading.

    A row has its `scorer` ("tokens only", the same from pairs of "few prompts", "reads surprise", or one of
    `scorers.beside`, which draw nothing and have no seed), how many `pairs` of how many `prompts` it has
    learned from in how many `updates`, and what `Portrait` measures on comparisons of held-out prompts.
    PASSES over few prompts are fewer updates: so there are few prompts with as many updates, too.
    """
    train, portrait = preferences("comparisons"), Portrait.on(HeldOut.of(preferences("held_out")), sft)
    rows = [{"scorer": name, **row} for name, row in beside(portrait, train).items()]
    for seed in SEEDS:
        parts = {n: subset(train, n, seed) for n in SIZES} | {len(train): train}
        few = of_few_prompts(train, SIZES[-1], seed)
        tried = [("tokens only", pairs) for pairs in parts.values()]
        tried += [("tokens only, few prompts", few), ("tokens only, few prompts, as many updates", few)]
        tried += [("reads surprise", parts[n]) for n in (*SURPRISE_SIZES, len(train))]
        for scorer, pairs in tried:
            model = RewardModel(sft, seed, reads_surprise=scorer == "reads surprise")
            steps = steps_for(parts[SIZES[-1]] if scorer.endswith("as many updates") else pairs)
            fitted(sft, pairs, RewardModelConfig(steps=steps, seed=seed), model=model)
            of = {"pairs": len(pairs), "prompts": len({p.prompt for p in pairs}), "updates": steps}
            rows.append({"scorer": scorer, "seed": seed, **of, **portrait.of(model)})
    return rows


def reward_models_by_depth(sft: GPT) -> list[dict]:
    """Reward models whose networks have one layer, two, and all, on comparisons of held-out prompts.

    Each begins with the first layers of `sft`, and learns from all comparisons.
    """
    train, test, rows = preferences("comparisons"), HeldOut.of(preferences("held_out")), []
    for seed in SEEDS:
        for layers in (*FEW_LAYERS, sft.config.n_layer):
            config = RewardModelConfig(steps=steps_for(train), seed=seed)
            model, _ = fitted(shallow(sft, layers), train, config)
            size = sum(p.numel() for p in model.parameters())
            rows.append({"seed": seed, "layers": layers, "parameters": size, **test.measured(model)})
    return rows


# --- what goes wrong ---


class PoolsPadding(RewardModel):
    """Reads the state of the batch's last column, which is padding in all but the longest rows."""

    def forward(self, batch: Batch) -> torch.Tensor:
        states = self.trunk.hidden(batch.ids, batch.mask, added=self.told(batch))[:, -1]
        return self.gain * self.head(states)[:, 0].float() + self.bias


def swapped_loss(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> torch.Tensor:
    """Chosen and rejected the wrong way round."""
    return bradley_terry_loss(rejected_rewards, chosen_rewards)


def squared_error(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> torch.Tensor:
    """Regression on the labels: 1 for whatever was chosen, 0 for whatever was rejected."""
    return ((chosen_rewards - 1) ** 2 + rejected_rewards**2).mean() / 2


BUGS: dict[str, tuple[type[RewardModel], Callable]] = {
    "correct": (RewardModel, bradley_terry_loss),
    "pairs swapped": (RewardModel, swapped_loss),
    "pooled on padding": (PoolsPadding, bradley_terry_loss),
    "squared error on labels": (RewardModel, squared_error),
}
BUG_CONFIG = RewardModelConfig(steps=60)
MEASURED = (20, 40, 60)  # updates after which it is measured, fixed beforehand


def reward_model_bugs(sft: GPT) -> list[dict]:
    """Sixty updates on 2,000 comparisons with each bug, measured at fixed points on held-out prompts.

    And what a leak does: of the correct model at the end, the accuracy on other pairs of the training prompts
    ("leaked"), and on pairs of prompts of the same sort that it has not seen ("fresh").
    """
    comparisons, test, rows = preferences("comparisons"), HeldOut.of(preferences("held_out")), []
    for seed in SEEDS:
        pairs, leaked, fresh = halves(comparisons, 2000, seed)
        for bug, (kind, loss) in BUGS.items():
            model = kind(sft, seed)

            def measure(metrics: dict) -> None:
                if metrics["step"] in MEASURED:
                    rows.append({"seed": seed, "bug": bug, "step": metrics["step"], **test.measured(model)})

            fitted(sft, pairs, replace(BUG_CONFIG, seed=seed), model=model, loss=loss, on_step=measure)
            if bug == "correct":
                for name, others in {"leaked": leaked, "fresh": fresh}.items():
                    other = HeldOut.of(others)
                    rows[-1][name] = other.accuracy(other.margins(model))
    return rows


TABLES = (reward_models_by_labels, reward_models_by_depth, reward_model_bugs)
