"""Notebook 04: comparisons of sampled answers, and what a reward model learns from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch

from minialign import reward_model
from minialign.chat import Batch
from minialign.course.experiments import SEEDS, held_out_prompts
from minialign.files import read_verified
from minialign.gpt import GPT
from minialign.preferences import Preference, parse_preferences
from minialign.reward_model import RewardModel, RewardModelConfig, bradley_terry_loss
from minialign.rollouts import roll_out
from minialign.training import History, stop_if_interrupted
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import gold_rewards
from minialign.world.prompts import prompts_of

RATERS = 8  # people who share the work: each pair goes to one of them
SAMPLES = 8  # of each prompt that is compared
PER_PROMPT = 12  # pairs of each prompt in the shipped file, of the 28 there are
LARGE = RewardModelConfig(steps=350)  # the shipped reward model: one pass over about 68,000 comparisons


def crowd(seed: int = 0, **changes) -> list[Annotator]:
    """The people who label; each run has its own. `changes` turn the knobs of all of them."""
    return [typical_annotator(seed=RATERS * seed + i, **changes) for i in range(RATERS)]


def sampled(policy: GPT, prompts: Sequence[str], n: int = SAMPLES, seed: int = 0) -> dict[str, list[str]]:
    """n responses of the policy to each prompt, at temperature 1."""
    found = {}
    for start in range(0, len(prompts), 64):
        rollout = roll_out(policy, list(prompts[start : start + 64]), not_scored, n=n, seed=(seed, start))
        for prompt, response in zip(rollout.prompts, rollout.responses):
            found.setdefault(prompt, []).append(response)
    return found


def not_scored(prompts: list[str], responses: list[str]) -> list[float]:
    """The reward of a rollout that is only sampled: people will judge it."""
    return [0.0] * len(responses)


def compared(
    responses: dict[str, list[str]], raters: list[Annotator], per_prompt: int = PER_PROMPT, seed: int = 0
) -> list[Preference]:
    """Some pairs of different responses of each prompt; one of the raters says which is better."""
    rng, pairs = np.random.default_rng(seed), []
    for prompt, texts in responses.items():
        possible = [pair for pair in combinations(texts, 2) if pair[0] != pair[1]]
        for i in rng.permutation(len(possible))[:per_prompt]:
            first, second = possible[i]
            winner = raters[int(rng.integers(len(raters)))].prefer(prompt, first, second)
            pairs.append(Preference(prompt, *((first, second) if winner == 0 else (second, first))))
    return pairs


def build_preferences(sft: GPT) -> dict[str, list[Preference]]:
    """The shipped pairs: "comparisons" on the prompts for reward models, "held_out" on the held-out ones."""
    train = compared(sampled(sft, [p.text for p in prompts_of("reward")]), crowd())
    test = compared(sampled(sft, [p.text for p in held_out_prompts()], n=4, seed=1), crowd(1), seed=1)
    return {"comparisons": train, "held_out": test}


def many_comparisons(sft: GPT, seed: int = 0, **changes) -> list[Preference]:
    """24 comparisons on each of the 2,820 prompts that no policy is trained on and nothing is measured on."""
    prompts = [p.text for split in ("reward", "sft", "corpus") for p in prompts_of(split)]
    chosen = np.random.default_rng(seed).permutation(len(prompts))
    responses = sampled(sft, [prompts[i] for i in chosen], seed=seed)
    return compared(responses, crowd(seed, **changes), per_prompt=24, seed=seed)


def trained(
    sft: GPT,
    pairs: Sequence[Preference],
    config: RewardModelConfig,
    *,
    model: RewardModel | None = None,
    **options,
) -> tuple[RewardModel, History]:
    """A reward model fitted to the pairs, normalised on samples for policy prompts; and its history.

    Left out, `model` is one that reads surprise.
    """
    model = RewardModel(sft, seed=config.seed) if model is None else model
    history = reward_model.train(model, pairs, config, **options)
    stop_if_interrupted(history)
    asked = np.random.default_rng(2).permutation([p.text for p in prompts_of("policy")])[:128].tolist()
    responses = sampled(sft, asked, n=2, seed=2)  # shuffled: in their order, the first are about few topics
    prompts = [prompt for prompt in responses for _ in range(2)]
    model.normalise(prompts, [y for ys in responses.values() for y in ys])
    return model, history


def preferences(which: str) -> list[Preference]:
    """The shipped "comparisons", or the "held_out" ones for measuring.

    Their prompts, and those of policy training, are all different.
    """
    name = f"preferences/{which}.jsonl"
    return parse_preferences(read_verified(name).decode(), name)


# --- measures, of margins r(x, y_w) − r(x, y_l) ---


def margins_of(pairs: Sequence[Preference], rewards: dict[tuple[str, str], float]) -> np.ndarray:
    """r(x, y_w) − r(x, y_l) of each pair, (M,), from the rewards by (prompt, response)."""
    return np.array(
        [rewards[pair.prompt, pair.chosen] - rewards[pair.prompt, pair.rejected] for pair in pairs]
    )


@dataclass(frozen=True)
class HeldOut:
    """Comparisons to measure on: the pairs, their gold rewards (M, 2), and the labels' probability (M,)."""

    pairs: list[Preference]
    gold: np.ndarray
    probability: np.ndarray

    @classmethod
    def of(cls, pairs: list[Preference]) -> "HeldOut":
        prompts, typical = [p.prompt for p in pairs], typical_annotator()
        sides = [p.chosen for p in pairs], [p.rejected for p in pairs]
        gold = np.stack([gold_rewards(prompts, side) for side in sides], 1)
        probability = [typical.probability(p.prompt, p.chosen, p.rejected) for p in pairs]
        return cls(pairs, gold, np.array(probability))

    def margins(self, model: RewardModel) -> np.ndarray:
        """r(x, y_w) − r(x, y_l), (M,); each different response is scored once."""
        texts = list({(p.prompt, y) for p in self.pairs for y in (p.chosen, p.rejected)})
        return margins_of(self.pairs, dict(zip(texts, model.score(*map(list, zip(*texts))))))

    def accuracy(self, margins: np.ndarray) -> float:
        """How often the labelled winner scores higher."""
        return float((margins > 0).mean())

    def order_accuracy(self, margins: np.ndarray, among: np.ndarray | bool = True) -> float:
        """How often the response with the higher *gold* reward scores higher, where the two differ."""
        better = self.gold[:, 0] - self.gold[:, 1]
        rows = (better != 0) & among
        return float(((margins > 0) == (better > 0))[rows].mean())

    def loss(self, margins: np.ndarray) -> float:
        """−mean log σ(margin), nats: the Bradley-Terry loss on these labels."""
        return float(np.logaddexp(0, -margins).mean())

    def measured(self, model: RewardModel) -> dict[str, float]:
        margins = self.margins(model)
        return {
            "accuracy": self.accuracy(margins),
            "order": self.order_accuracy(margins),
            "loss": self.loss(margins),
        }


# --- tables ---

SIZES = (50, 100, 300, 1000, 3000)


def steps_for(pairs: Sequence[Preference], most: int = 120) -> int:
    """Three passes over the prompts, at least 20 updates and at most `most`."""
    return int(np.clip(3 * len({p.prompt for p in pairs}) / RewardModelConfig().prompts_per_step, 20, most))


def subset(pairs: Sequence[Preference], n: int, seed: int) -> list[Preference]:
    """n of the pairs, drawn at random."""
    return [pairs[i] for i in np.random.default_rng(seed).permutation(len(pairs))[:n]]


def reward_model_size(sft: GPT) -> list[dict]:
    """Reward models from 50 to 3,000 comparisons, reading surprise or not, on the test comparisons."""
    train, test, rows = preferences("comparisons"), HeldOut.of(preferences("held_out")), []
    for seed in SEEDS:
        for n in SIZES:
            pairs = subset(train, n, seed)
            for surprise in (True, False):
                config = RewardModelConfig(steps=steps_for(pairs), seed=seed)
                model, _ = trained(sft, pairs, config, model=RewardModel(sft, seed, reads_surprise=surprise))
                rows.append({"seed": seed, "pairs": n, "surprise": surprise, **test.measured(model)})
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


def halves(
    pairs: Sequence[Preference], n: int, seed: int
) -> tuple[list[Preference], list[Preference], list[Preference]]:
    """n pairs on one half of the prompts, the other pairs on that half, and all pairs on the other half."""
    prompts = sorted({p.prompt for p in pairs})
    half = {prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))[: len(prompts) // 2]}
    mine = [p for p in pairs if p.prompt in half]
    train = subset(mine, n, seed)
    used = set(train)
    return train, [p for p in mine if p not in used], [p for p in pairs if p.prompt not in half]


def reward_model_bugs(sft: GPT) -> list[dict]:
    """Sixty updates on 2,000 comparisons with each bug, measured on the test comparisons.

    And what a leak does: of the correct model, the accuracy on other pairs of the training prompts, and on
    pairs of prompts of the same sort that it has not seen.
    """
    comparisons, test, rows = preferences("comparisons"), HeldOut.of(preferences("held_out")), []
    for seed in SEEDS:
        pairs, leaked, fresh = halves(comparisons, 2000, seed)
        config = RewardModelConfig(steps=60, seed=seed)
        for bug, (kind, loss) in BUGS.items():
            model, _ = trained(sft, pairs, config, model=kind(sft, seed), loss=loss)
            rows.append({"seed": seed, "bug": bug, **test.measured(model)})
            if bug == "correct":
                for name, others in {"leaked": leaked, "fresh": fresh}.items():
                    other = HeldOut.of(others)
                    rows[-1][name] = other.accuracy(other.margins(model))
    return rows


TABLES = (reward_model_size, reward_model_bugs)
