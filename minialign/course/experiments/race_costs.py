"""Notebook 07: what each method of the race costs, in seconds, floating-point operations and memory.

Run it where nothing else runs.
"""

import copy
import multiprocessing
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from unittest import mock

import numpy as np
import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minialign.course.experiments import held_out_prompts, race
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.race import REWARD, RUNNERS, best_row, setting_of
from minialign.course.experiments.reward_models import trained
from minialign.course.experiments.rlhf import sampled_scores
from minialign.gpt import GPT
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.training import TrainingConfig, load_history

PIECES = ("reward model", *RUNNERS)


def fit_reward(start: GPT, config: RewardModelConfig, **options) -> None:
    trained(start, preferences("comparisons"), config, **options)


def work_of(piece: str, start: GPT) -> tuple[Callable[..., object], TrainingConfig]:
    """What a piece of the race does, `work(config, on_step=…)`, and its config.

    A piece is a method's training, or the reward model's.
    """
    if piece == "reward model":
        return partial(fit_reward, start), REWARD
    train, config = race.entry(piece, setting_of(best_row(piece)))
    return partial(train, copy.deepcopy(start), start), config


def untrained(start: GPT, seed: int, *_) -> RewardModel:
    """A reward model that costs what a trained one does."""
    return RewardModel(start, seed=seed)


def per_step(gauge: Callable[[], float], piece: str, start: GPT, steps: int) -> dict[str, float]:
    """What a piece uses of something that `gauge()` reads, such as seconds.

    For each step (the median), and once, whatever the steps.
    """
    work, config = work_of(piece, start)
    first, after = gauge(), []
    with mock.patch.object(race, "reward_model", untrained):
        work(replace(config, steps=steps), on_step=lambda _: after.append(gauge()))
    step = float(np.median(np.diff(after)))
    return {"step": step, "once": max(0.0, after[0] - first - step + gauge() - after[-1])}


def peak_memory(piece: str | None, start: GPT) -> float:
    """The most memory, in MB, that a process of its own takes to do a few steps of a piece.

    None loads the start and does nothing.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_peak_memory, piece, start).result()


def _peak_memory(piece: str | None, start: GPT) -> float:
    finished, seen = threading.Event(), [0]

    def watch() -> None:
        while not finished.wait(0.005):
            seen.append(psutil.Process().memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    if piece is not None:
        per_step(time.perf_counter, piece, start, 8)
    else:
        time.sleep(0.1)
    finished.set()
    watcher.join()
    return max(seen) / 2**20


def race_costs(start: GPT) -> list[dict]:
    """Seconds, floating-point operations and peak memory of each piece; and seconds to answer a prompt."""
    idle, rows = peak_memory(None, start), []
    for piece in PIECES:
        seconds = per_step(time.perf_counter, piece, start, 16)
        # MATH is the only kernel whose operations are counted on a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            flops = per_step(counter.get_total_flops, piece, start, 8)
        rows.append(
            {
                "piece": piece,
                "steps": work_of(piece, start)[1].steps,
                "memory": peak_memory(piece, start),
                "idle": idle,
            }
        )
        rows[-1] |= {f"seconds/{name}": value for name, value in seconds.items()} | {
            f"flops/{name}": value for name, value in flops.items()
        }
    prompts, score = held_out_prompts()[:49], untrained(start, 0).score
    for n in (1, best_row("best-of-n")["n"]):
        begin = time.perf_counter()
        sampled_scores(start, score, prompts, n, 0)
        seconds = (time.perf_counter() - begin) / len(prompts)
        rows.append({"piece": f"answering with the best of {n}", "seconds/prompt": seconds})
    return [row | {"threads": torch.get_num_threads()} for row in rows]


# --- read from the table ---


@lru_cache
def costs() -> dict[str, dict]:
    """The table's rows by piece."""
    return {row["piece"]: row for row in load_history("race_costs")}


def pieces_of(method: str) -> tuple[str, ...]:
    """The training runs that a method needs."""
    if method == "best-of-n":
        return ("reward model",)
    return ("reward model", method) if RUNNERS[method].needs_reward else (method,)


def spent(what: str, method: str, share: float = 1.0) -> dict[str, float]:
    """What a method has used after a share of its own training, part by part; what: "seconds" or "flops"."""
    parts = {}
    for piece in pieces_of(method):
        row = costs()[piece]
        steps = row["steps"] * (share if piece == method else 1)
        parts |= {
            f"{piece}, {steps:g} steps": steps * row[f"{what}/step"],
            f"{piece}, once": row[f"{what}/once"],
        }
    return parts


def memory(method: str) -> float:
    """Peak memory in MB of the hungriest training run that a method needs, above that of the start alone."""
    return max(costs()[piece]["memory"] - costs()[piece]["idle"] for piece in pieces_of(method))
