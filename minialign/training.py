"""One training loop for every algorithm: optimizer, schedule, accumulation, history, and what can go wrong.

An algorithm brings two functions. `batch_at(step)` gives the micro-batches of one update; because it depends
on the step alone, a run can be repeated exactly and resumed anywhere. `loss_fn(batch)` gives the mean loss
over the batch's response tokens (or pairs), and the metrics worth a curve.
"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from tqdm.auto import tqdm

from minialign.config import Config, Count, Limit, Momentum, Natural, NonNegative, Positive
from minialign.files import read_verified, write_atomically
from minialign.muon import Muon


@dataclass(frozen=True)
class TrainingConfig(Config):
    """What every training run has. Algorithms add their own settings in a subclass."""

    steps: Count = 1000
    learning_rate: Positive = 1e-3  # the peak, reached after `warmup` steps, then down to `final_lr` × it
    warmup: Natural = 20
    final_lr: NonNegative = 0.1
    decay: Literal["cosine", "linear"] = "cosine"
    weight_decay: NonNegative = 0.1  # on matrices only, as in GPT-2's successors
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    eps: Positive = 1e-8
    max_grad_norm: Annotated[float, Limit(lambda x: x > 0, "it must be positive")] = 1.0  # inf: no clipping
    muon: bool = False  # for the matrices of linear layers (Jordan et al. 2024): learns faster from nothing
    seed: Natural = 0


class History(list):
    """The run so far: one flat dict of metrics per step. `interrupted`: the reader stopped it early."""

    interrupted = False

    def column(self, name: str) -> np.ndarray:
        """The values of one metric, in step order, where it was recorded."""
        return np.array([row[name] for row in self if name in row])

    def to_json_lines(self) -> bytes:
        return "".join(json.dumps(row, default=plain) + "\n" for row in self).encode()

    @classmethod
    def from_json_lines(cls, content: bytes) -> "History":
        return cls(json.loads(line) for line in content.splitlines())


def plain(value):
    """A number or an array of numpy or torch as Python's own, for JSON, which knows no others."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be recorded: a history holds numbers, texts, and lists of them")


def load_history(name: str) -> History:
    """The training log or result table data/logs/`name`.jsonl, one dict a row."""
    return History.from_json_lines(read_verified(f"logs/{name}.jsonl"))


def stop_if_interrupted(history: History) -> None:
    """Pass a reader's interrupt on, where half a run is of no use."""
    if history.interrupted:
        raise KeyboardInterrupt


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """The learning rate of update `step` (counted from 0): linear warm-up, then a cosine or a line down."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    left = 1 - progress if config.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.learning_rate * (config.final_lr + (1 - config.final_lr) * left)


class Optimizer:
    """AdamW, or AdamW and Muon, with the schedule and clipping of a TrainingConfig: `update` is a step."""

    def __init__(self, model: torch.nn.Module, config: TrainingConfig):
        self.model, self.config, self.step = model, config, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        layers = [m for m in model.modules() if config.muon and isinstance(m, torch.nn.Linear)]
        linear = [layer.weight for layer in layers if layer.weight.requires_grad]
        others = [p for p in self.parameters if all(p is not matrix for matrix in linear)]
        groups = [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ]
        # The fused kernel is the fastest on a CPU too: a single pass over the parameters.
        self.optimizers = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=True)
        ]
        if linear:  # with steps of the size AdamW would make, so that one learning rate serves both
            self.optimizers.append(Muon(linear, config.learning_rate, config.weight_decay))

    def update(self, batches: list, loss_fn: Callable) -> dict[str, float]:
        """One update from one or more micro-batches, equal to one on all of them together.

        Each micro-batch's mean loss counts by its number of response tokens, so batches of unequal lengths
        add up to the same gradient as the full batch. Raises FloatingPointError, before touching the model,
        when the loss or its gradient is not finite.
        """
        require_gradients()
        for optimizer in self.optimizers:
            optimizer.zero_grad()  # also of what an interrupted update or a reader's backward() left behind
        weights = [float(weight_of(batch)) for batch in batches]
        total = sum(weights)
        metrics: dict[str, float] = {}
        for batch, weight in zip(batches, weights):
            loss, extra = loss_fn(batch)
            self._require_finite("loss", value := float(loss.detach()))
            (loss * (weight / total)).backward()
            for name, x in {"loss": value, **extra}.items():
                metrics[name] = metrics.get(name, 0.0) + float(x) * weight / total
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        self._require_finite("gradient", norm)
        rate = learning_rate_at(self.step, self.config)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.step += 1
        return {"step": self.step, **metrics, "grad_norm": norm, "learning_rate": rate}

    def state_of(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """What the optimizer remembers of a parameter: running moments, and AdamW's step."""

        def holds(optimizer) -> bool:
            return any(parameter is p for group in optimizer.param_groups for p in group["params"])

        return next(filter(holds, self.optimizers)).state[parameter]

    def _require_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            step, rate = self.step + 1, self.config.learning_rate
            raise FloatingPointError(
                f"the {what} became {value} at step {step}: the model is as it was before this step; "
                f"lower the learning rate (now {rate:g}) or look for broken values in the data"
            )


def require_gradients() -> None:
    """Raises RuntimeError where nothing could be learned, because autograd is off."""
    if torch.is_inference_mode_enabled() or not torch.is_grad_enabled():
        raise RuntimeError(
            "gradients are switched off here: leave torch.no_grad() or inference_mode(), or call "
            "torch.set_grad_enabled(True), and train again"
        )


def require_apart(learner: torch.nn.Module, **others) -> None:
    """Raises ValueError where a model that must not change shares parameters with the one that is trained.

    `others` are what they are there for: a `reference`, a reward function. What is no model, or the method
    of none, passes.
    """
    trained = {p.untyped_storage().data_ptr() for p in learner.parameters() if p.requires_grad}
    for role, other in others.items():
        other = getattr(other, "__self__", other)  # of a reward model's method `score`, the model
        if isinstance(other, torch.nn.Module) and not trained.isdisjoint(
            p.untyped_storage().data_ptr() for p in other.parameters()
        ):
            raise ValueError(
                f"the {role} is the model that is trained, or shares its weights, and would change with it: "
                "give a copy, copy.deepcopy(model)"
            )


def weight_of(batch) -> int:
    """How many response tokens a batch has: what its mean loss is a mean over.

    Batches of pairs bring a `weight` of their own.
    """
    return batch.weight if hasattr(batch, "weight") else batch.response_mask.sum()


def fit(
    model: torch.nn.Module,
    batch_at: Callable[[int], list],
    loss_fn: Callable,
    config: TrainingConfig,
    *,
    title: str = "training",
    on_step: Callable[[dict], None] | None = None,
    resume_from: Path | None = None,
    save_every: int = 200,
) -> History:
    """Train `model` in place for config.steps updates and return the history.

    `on_step(metrics)` is called after each update; what it puts into the dict is recorded. With
    `resume_from`, the whole state is saved there every `save_every` steps, and a run that finds the file goes
    on from it as if it had never stopped. A keyboard interrupt ends the run early and keeps model and
    history. Raises FloatingPointError on a loss that is not finite.
    """
    optimizer, history = Optimizer(model, config), History()
    if resume_from is not None and resume_from.exists():
        history.extend(load_state(resume_from, optimizer))

    def update(step: int) -> dict:
        return optimizer.update([batch.to(model.device) for batch in batch_at(step)], loss_fn)

    def after(metrics: dict) -> None:
        if on_step is not None:
            on_step(metrics)
        if resume_from is not None and optimizer.step % save_every == 0:
            save_state(resume_from, optimizer, history)

    model.train()
    try:
        return repeat(update, config.steps, history, title=title, on_step=after)
    finally:
        model.eval()


def repeat(
    update: Callable[[int], dict],
    steps: int,
    history: History,
    *,
    title: str,
    show: str = "loss",
    on_step: Callable | None = None,
) -> History:
    """Call `update(step)`, which returns the step's metrics, until `history` has `steps` rows; returns it.

    Shows a progress bar with the metric `show`. A keyboard interrupt ends it early and keeps the history.
    """
    bar = tqdm(total=steps, initial=len(history), desc=title, disable=progress_hidden(), unit="step")
    try:
        while len(history) < steps:
            metrics = update(len(history))
            history.append(metrics)
            if on_step is not None:
                on_step(metrics)
            bar.update()
            bar.set_postfix({show: f"{metrics[show]:.3f}"}, refresh=False)
    except KeyboardInterrupt:
        history.interrupted = True
        print(f"Stopped by you at step {len(history)} of {steps}: the model and the history so far are kept.")
    finally:
        bar.close()
    return history


def progress_hidden() -> bool:
    """Whether MINIALIGN_PROGRESS is 0: a stored notebook holds no progress bar, nor what only works live."""
    return os.environ.get("MINIALIGN_PROGRESS") == "0"


def save_state(path: Path, optimizer: Optimizer, history: History) -> None:
    """Everything needed to go on, in one safetensors file: parameters, moments, the step, the history."""
    tensors = {f"model.{name}": p for name, p in optimizer.model.state_dict().items()}
    for i, p in enumerate(optimizer.parameters):
        for name, value in optimizer.state_of(p).items():
            tensors[f"optimizer.{i}.{name}"] = value
    metadata = {"step": str(optimizer.step), "history": json.dumps(history, default=plain)}
    write_atomically(path, save({name: value.contiguous() for name, value in tensors.items()}, metadata))


def load_state(path: Path, optimizer: Optimizer) -> History:
    """Put a state written by `save_state` back into the optimizer and its model; returns the history."""
    tensors = load_file(path)

    def below(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    optimizer.model.load_state_dict(below("model."))
    for i, p in enumerate(optimizer.parameters):
        moments = below(f"optimizer.{i}.")
        optimizer.state_of(p).update({name: value.to(p.device) for name, value in moments.items()})
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    optimizer.step = int(metadata["step"])
    return History(json.loads(metadata["history"]))


def epochs(lengths: list[int], batch_size: int, seed: int) -> Callable[[int], list[int]]:
    """`rows_at(step)`: which examples update `step` trains on, each epoch in a new order of buckets.

    Raises ValueError when there is no data.
    """
    if not lengths:
        raise ValueError("the data set is empty: there is nothing to train on")
    per_epoch = math.ceil(len(lengths) / batch_size)

    @lru_cache(maxsize=1)
    def batches_of(epoch: int) -> list[list[int]]:
        return bucketed_batches(lengths, batch_size, [seed, epoch])

    return lambda step: batches_of(step // per_epoch)[step % per_epoch]


def bucketed_batches(lengths: list[int], batch_size: int, seed) -> list[list[int]]:
    """Shuffle the indices of `lengths` into batches of similar length, so that little of a batch is padding.

    Every index occurs once; one batch may be smaller than the others.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    pool = 16 * batch_size  # sorting within pools, not over everything, keeps the batches random
    batches = []
    for start in range(0, len(order), pool):
        chunk = sorted(order[start : start + pool].tolist(), key=lambda i: lengths[i])
        batches += [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]
