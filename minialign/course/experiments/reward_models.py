"""Notebook 04: what reward models learn from comparisons, by how many and how large; and famous mistakes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from minialign import reward_model
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, Part, answers
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

PASSES = 2  # over the prompts, wherever no number of steps is given
# The shipped reward model: about two passes.
LARGE = RewardModelConfig(steps=120, learning_rate=5e-4)


def fitted(
    sft: GPT,
    pairs: Sequence[Preference],
    config: RewardModelConfig,
    *,
    model: RewardModel | None = None,
    **options,
) -> tuple[RewardModel, History]:
    """A reward model fitted to the pairs, in log-odds, and its history.

    Left out, `model` is the course's: it reads tokens only, and adds its likelihood to what its head says.
    """
    model = RewardModel(sft, config.seed, likelihood=True) if model is None else model
    history = reward_model.train(model, pairs, config, **options)
    stop_if_interrupted(history)
    return model, history


def trained(
    sft: GPT, pairs: Sequence[Preference], config: RewardModelConfig, **options
) -> tuple[RewardModel, History]:
    """The same, ready to be optimised: `normalised`."""
    model, history = fitted(sft, pairs, config, **options)
    return normalised(model, sft), history


def normalised(model: RewardModel, sft: GPT) -> RewardModel:
    """The model, normalised on samples of `sft` for policy prompts."""
    asked = prompts_of("policy")
    # In their order, the first would be about few topics; and PPO meets them all alike.
    asked = [asked[i] for i in np.random.default_rng(2).permutation(len(asked))[:128]]
    responses = answers(sft, asked, seed=2, n=2)
    model.normalise([prompt.text for prompt in asked for _ in range(2)], responses)
    return model


# --- how many comparisons, and how large a network ---

SIZES = (100, 300, 1000, 3000)
HEAD_SIZES = (1000,)  # besides all: where the head alone is trained, too
FEW_LAYERS = (1, 2)  # of the smaller networks


def steps_for(pairs: Sequence[Preference], least: int = 20) -> int:
    """PASSES over the prompts of the pairs, and at least 20 updates."""
    return max(least, updates(pairs, PASSES, RewardModelConfig().prompts_per_step))


def head_only(sft: GPT, seed: int) -> RewardModel:
    """The reward model of the textbooks: a new head, and nothing of the old one."""
    return RewardModel(sft, seed)


def head_and_likelihood(sft: GPT, seed: int) -> RewardModel:
    """The course's."""
    return RewardModel(sft, seed, likelihood=True)


def likelihood_only(sft: GPT, seed: int) -> RewardModel:
    """w · (1/|y|) log π_φ(y|x), and nothing else: as in SimPO (Meng et al. 2024)."""
    model = RewardModel(sft, seed, likelihood=True)
    model.head.requires_grad_(False)  # which begins with 0
    return model


def reads_surprise(sft: GPT, seed: int) -> RewardModel:
    return RewardModel(sft, seed, reads_surprise=True)


COURSE = "head and likelihood"
# With the learning rate of each: a new head needs the larger one.
KINDS: dict[str, tuple[Callable[[GPT, int], RewardModel], float]] = {
    COURSE: (head_and_likelihood, LARGE.learning_rate),
    "head only": (head_only, RewardModelConfig.learning_rate),
    "likelihood only": (likelihood_only, LARGE.learning_rate),
    "reads surprise": (reads_surprise, RewardModelConfig.learning_rate),
}


def shallow(model: GPT, layers: int) -> GPT:
    """The first layers of a GPT, with its embeddings and final norm: a smaller network to start from."""
    smaller = GPT(replace(model.config, n_layer=layers), chat=model.chat).to(model.device)
    smaller.load_state_dict({k: v for k, v in model.state_dict().items() if k in smaller.state_dict()})
    return smaller


def reward_models_by_labels(sft: GPT) -> dict[str, Part]:
    """Reward models of 100 comparisons up to all, beside what needs no label and what needs no reading.

    A row has its `scorer` (one of KINDS, the course's also from pairs of "few prompts"; or one of
    `scorers.beside`, which draw nothing and have no seed), how many `pairs` of how many `prompts` it has
    learned from in how many `updates`, and what `Portrait` measures on comparisons of held-out prompts.
    PASSES over few prompts are fewer updates: so there are few prompts with as many updates, too.
    """
    train, portrait = preferences("comparisons"), Portrait.on(HeldOut.of(preferences("held_out")), sft)
    head, others = "head only", ("likelihood only", "reads surprise")

    def known() -> list[dict]:
        return [{"scorer": name, **row} for name, row in beside(portrait, train).items()]

    def run(scorer: str, kind: str, pairs: Sequence[Preference], steps: int, seed: int) -> list[dict]:
        make, rate = KINDS[kind]
        config = RewardModelConfig(steps=steps, learning_rate=rate, seed=seed)
        model, _ = fitted(sft, pairs, config, model=make(sft, seed))
        of = {"pairs": len(pairs), "prompts": len({p.prompt for p in pairs}), "updates": steps}
        return [{"scorer": scorer, "seed": seed, **of, **portrait.of(model)}]

    parts: dict[str, Part] = {"without reward models": known}
    for seed in SEEDS:
        of_size = {n: subset(train, n, seed) for n in SIZES} | {len(train): train}
        few, as_many = of_few_prompts(train, SIZES[-1], seed), steps_for(of_size[SIZES[-1]])
        tried = [(COURSE, COURSE, pairs, steps_for(pairs)) for pairs in of_size.values()]
        tried += [(f"{COURSE}, few prompts", COURSE, few, steps_for(few))]
        tried += [(f"{COURSE}, few prompts, as many updates", COURSE, few, as_many)]
        tried += [(head, head, of_size[n], steps_for(of_size[n])) for n in (*HEAD_SIZES, len(train))]
        tried += [(kind, kind, train, steps_for(train)) for kind in others]
        for scorer, kind, pairs, steps in tried:
            name = f"{scorer}, {len(pairs)} pairs, seed {seed}"
            parts[name] = partial(run, scorer, kind, pairs, steps, seed)
    return parts


def reward_models_by_depth(sft: GPT) -> list[dict]:
    """Reward models whose networks have one layer, two, and all, on comparisons of held-out prompts.

    Each begins with the first layers of `sft`, and learns from all comparisons. They have the head only: a
    language model without its last layers has no likelihood to speak of.
    """
    train, test, rows = preferences("comparisons"), HeldOut.of(preferences("held_out")), []
    for seed in SEEDS:
        for layers in (*FEW_LAYERS, sft.config.n_layer):
            config = RewardModelConfig(steps=steps_for(train), seed=seed)
            smaller = shallow(sft, layers)
            model, _ = fitted(smaller, train, config, model=head_only(smaller, seed))
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
BUG_CONFIG = RewardModelConfig(steps=60)  # the head only: a likelihood would hide where it is read
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


TABLES = (reward_models_by_depth, reward_model_bugs)
