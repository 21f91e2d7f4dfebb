"""Reward models: learn from comparisons which response people like better.

P(y_w ≻ y_l | x) = σ(r_φ(x, y_w) − r_φ(x, y_l)) (Bradley and Terry 1952), and the loss is minus the
log-likelihood of the choices: L(φ) = −E log σ(r_φ(x, y_w) − r_φ(x, y_l)). (Christiano et al. 2017; Stiennon
et al. 2020; Ouyang et al. 2022, Eq. 1.)
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import skip_init

from minialign.chat import Batch, collate
from minialign.config import Count, Natural, NonNegative, Positive
from minialign.gpt import GPT, network_of
from minialign.logprobs import full_precision, predicting, token_log_probs
from minialign.masked import has_spread
from minialign.preferences import Comparisons, Preference, batches_of_comparisons
from minialign.sampling import evaluating, require_finite
from minialign.training import History, TrainingConfig, fit, require_apart

LIKELIHOOD_WEIGHT = 3.0  # to begin with, log-odds for a nat a token; a short training hardly moves it


@dataclass(frozen=True)
class RewardModelConfig(TrainingConfig):
    steps: Count = 150
    learning_rate: Positive = 1e-3
    warmup: Natural = 20
    weight_decay: NonNegative = 0.01
    prompts_per_step: Count = 8  # all pairs of a prompt go into one batch


class RewardModel(torch.nn.Module):
    """r_φ(x, y): a GPT whose last real token's state goes through a linear head to one number.

    Rewards are gain · head(state) + bias; the two are set by `normalise`, not learned. A small trunk learns
    little from few thousand comparisons with a new head alone, and what it knew is in the old one: how likely
    a response is gives away broken sentences, other topics and the wrong tone. Two options use that.

    `likelihood`: w · (1/|y|) log π_φ(y|x) is added, by the trunk's own language head, with a learned weight w
    and a new head that begins with 0. Alone, this would be the reward of SimPO (Meng et al. 2024, Eq. 4).

    `reads_surprise`: the trunk is told, beside each token, −log π(y_t | x, y_<t) by the language model it
    started from. So the reward leans towards what the reference of RLHF finds likely, whatever labels say.
    """

    def __init__(self, start: GPT, seed: int = 0, *, likelihood: bool = False, reads_surprise: bool = False):
        """The trunk starts as a copy of `start`, usually the fine-tuned model; the head from N(0, 1/(C + 1)).

        Source: Stiennon et al. 2020.
        """
        super().__init__()
        start = network_of(start)
        width, dtype = start.config.n_embd, next(start.parameters()).dtype
        self.trunk, self.head = copy.deepcopy(start), skip_init(torch.nn.Linear, width, 1, dtype=dtype)
        self.reader = copy.deepcopy(start).requires_grad_(False).eval() if reads_surprise else None
        embedding = torch.nn.Parameter(torch.zeros(width, dtype=dtype))
        self.surprise_embedding = embedding if reads_surprise else None
        weight = torch.nn.Parameter(torch.tensor(LIKELIHOOD_WEIGHT, dtype=torch.float32))
        self.likelihood_weight = weight if likelihood else None
        with torch.no_grad():
            normal = torch.randn(1, width, generator=torch.Generator().manual_seed(seed))
            self.head.weight.copy_(normal / (width + 1) ** 0.5)
            if likelihood:
                self.head.weight.zero_()
            self.head.bias.zero_()
        self.register_buffer("gain", torch.ones((), dtype=torch.float32))
        self.register_buffer("bias", torch.zeros((), dtype=torch.float32))
        self.to(start.device)

    def train(self, mode: bool = True) -> "RewardModel":
        """Switch dropout, if there is any: of the trunk only, the reader never changes."""
        super().train(mode)
        if self.reader is not None:
            self.reader.eval()
        return self

    @property
    def device(self) -> torch.device:
        return self.trunk.device

    def forward(self, batch: Batch) -> torch.Tensor:
        """r_φ(x, y) of each row, (B,)."""
        states = self.trunk.hidden(batch.ids, batch.mask, added=self.told(batch))
        rewards = full_precision(self.head(last_states(states, batch.mask))[:, 0])
        if self.likelihood_weight is not None:
            log_probs = token_log_probs(self.trunk, batch, states=predicting(states, batch))
            rewards = rewards + self.likelihood_weight * log_probs.sum(-1) / batch.response_mask.sum(-1)
        return self.gain * rewards + self.bias

    def told(self, batch: Batch) -> torch.Tensor | float:
        """What joins the token embeddings, (B, T, C): surprise × its embedding, 0 on the prompt."""
        if self.reader is None:
            return 0.0
        with torch.no_grad():
            surprise = -token_log_probs(self.reader, batch)
        return surprise.clamp(max=8.0)[..., None] * self.surprise_embedding

    def score(
        self, prompts: str | Sequence[str], responses: str | Sequence[str], batch_size: int = 16
    ) -> float | np.ndarray:
        """r_φ of one response to one prompt, or of N to N, (N,) float64: a function like `rollouts.Reward`.

        A response that was cut off where the context ends is read as far as it goes. Raises ValueError for
        one that is longer.
        """
        if isinstance(prompts, str):
            return float(self.score([prompts], [responses])[0])
        pairs = [self._encoded(x, y) for x, y in zip(prompts, responses, strict=True)]
        batch = collate(pairs, self.trunk.chat.pad).to(self.device)
        with evaluating(self):
            scores = batch.by_parts(self, batch_size)
        require_finite(scores, "scores")
        return scores.double().cpu().numpy()

    def _encoded(self, prompt: str, response: str) -> tuple[list[int], list[int]]:
        chat, context = self.trunk.chat, self.trunk.config.context
        x, y = chat.encode_prompt(prompt), chat.encode_response(response)
        room = context - len(x)
        # What was cut off has no room for its end token. And as a text it may read a little longer than the
        # tokens it was sampled as: they need not be the encoder's own, and half a character comes back as a
        # whole one.
        if room < 1 or len(chat.encode(response.replace("\ufffd", ""))) > 1.25 * room:
            raise ValueError(
                f"the prompt {prompt[:60]!r} and its response have {len(x) + len(y)} tokens, the model's "
                f"context holds {context}: shorten the prompt or the response"
            )
        return x, y[:room]

    def normalise(
        self, prompts: Sequence[str], responses: Sequence[str], n: int = 512, seed: int = 0
    ) -> None:
        """Choose gain and bias so that the scores of these texts have mean 0 and standard deviation 1.

        The texts are samples of the frozen policy. Of more than n pairs, n are drawn at random: the first n
        may be about a few topics only. Comparisons leave the zero open, and a policy's learning rate and β
        are chosen for a scale. Raises ValueError when all scores are equal.
        """
        pairs = list(zip(prompts, responses, strict=True))
        drawn = sorted(np.random.default_rng(seed).permutation(len(pairs))[:n])
        scores = self.score([pairs[i][0] for i in drawn], [pairs[i][1] for i in drawn])
        scores = (scores - float(self.bias)) / float(self.gain)
        if not has_spread(torch.from_numpy(scores).float(), torch.tensor(scores.std())):
            raise ValueError(
                "the reward model gives all these responses the same score: there is no scale to normalise to"
            )
        self.gain.fill_(1 / scores.std())
        self.bias.fill_(-scores.mean() / scores.std())


def last_states(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The states (B, C) of each row's last real token, from states (B, T, C) and mask (B, T).

    The padding may be anywhere.
    """
    columns = torch.arange(mask.shape[1], device=mask.device)
    return states[torch.arange(len(states), device=mask.device), (columns * mask).argmax(-1)]


def bradley_terry_loss(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> torch.Tensor:
    """−mean log σ(r_w − r_l), a scalar in nats; both (N,).

    A constant added to all rewards changes nothing; ln 2 is knowing nothing.
    """
    return -F.logsigmoid(chosen_rewards - rejected_rewards).mean()


def train(
    model: RewardModel,
    pairs: Sequence[Preference],
    config: RewardModelConfig = RewardModelConfig(),
    *,
    loss: Callable = bradley_terry_loss,
    **options,
) -> History:
    """Fit `model`, in place, to the comparisons.

    `loss` takes the rewards of chosen and rejected; `options` go to `training.fit`.
    """
    if not isinstance(model, RewardModel):
        raise TypeError(
            f"a reward model is trained here, not {type(model).__name__}: give RewardModel(model)"
        )
    require_apart(model.trunk, reader=model.reader)
    comparisons_at = batches_of_comparisons(pairs, config.prompts_per_step, config.seed, model.trunk)

    def loss_fn(comparisons: Comparisons):
        rewards = comparisons.batch.by_parts(model)
        chosen, rejected = rewards[comparisons.chosen], rewards[comparisons.rejected]
        margins = (chosen - rejected).detach()
        metrics = {
            "accuracy": (margins > 0).float().mean(),
            "margin": margins.mean(),
            "mean_reward": rewards.detach().mean(),
        }
        return loss(chosen, rejected), metrics

    return fit(model, lambda step: [comparisons_at(step)], loss_fn, config, title="reward model", **options)
