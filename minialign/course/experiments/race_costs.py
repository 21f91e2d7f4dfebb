"""Notebook 07: what each method of the race costs, in seconds, floating-point operations and memory.

Run it where nothing else runs.
"""

import copy
import inspect
import math
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache, partial
from types import ModuleType
from unittest import mock

import numpy as np
import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minialign import ppo
from minialign.best_of_n import best_of_n
from minialign.course.experiments import Part, held_out_prompts
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.race import course
from minialign.course.experiments.race_methods import METHODS, REWARD, Given, entry, few_labels
from minialign.course.experiments.race_tuning import chosen, setting_of
from minialign.course.experiments.reward_models import head_and_likelihood, trained
from minialign.course.experiments.rlhf import WARMUP
from minialign.gpt import GPT
from minialign.rollouts import roll_out, unscored
from minialign.training import TrainingConfig, load_history

PIECES = ("reward model", *(name for name, method in METHODS.items() if not method.more))
# Different weights in memory at once: policy, reference, and a reward model, with a trunk of its own.
HELD = {
    **{"SFT, cooler": "1", "SFT on chosen": "1", "best-of-n": "2", "PPO": "3 + value head", "GRPO": "3"},
    **{"DPO": "1", "online DPO": "3", "online DPO, sampled labels": "3"},
}
ROWS = 48  # responses that are sampled side by side, whether of as many prompts or of fewer


def costly(start: GPT) -> Given:
    """What the methods may use, with a reward model that costs what a trained one does."""
    return Given(start, few_labels(preferences("comparisons")), shipped=head_and_likelihood(start, 0))


def work_of(piece: str, given: Given) -> tuple[Callable[..., object], TrainingConfig]:
    """What a piece of the race does, `work(config, on_step=…)`, and its config.

    A piece is a method's training, or the reward model's.
    """
    if piece == "reward model":
        return partial(trained, given.start, given.pairs), REWARD
    train, config = entry(piece, setting_of(chosen(piece)))
    return partial(train, copy.deepcopy(given.start), given), config


# --- seconds, operations, memory ---


def per_step(gauge: Callable[[], float], piece: str, given: Given, steps: int) -> dict[str, float]:
    """What a piece uses of something that `gauge()` reads, such as seconds.

    For each step (the median), and once, whatever the steps.
    """
    work, config = work_of(piece, given)
    first, after = gauge(), []
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
        per_step(time.perf_counter, piece, costly(start), 8)
    else:
        time.sleep(0.1)
    finished.set()
    watcher.join()
    return max(seen) / 2**20


def piece_costs(piece: str, start: GPT) -> list[dict]:
    """Seconds, floating-point operations and peak memory of one piece."""
    given = costly(start)
    seconds = per_step(time.perf_counter, piece, given, 16)
    # MATH is the only kernel whose operations are counted on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        flops = per_step(counter.get_total_flops, piece, given, 8)
    row = {"piece": piece, "steps": work_of(piece, given)[1].steps, "memory": peak_memory(piece, start)}
    row |= {"idle": peak_memory(None, start), "threads": torch.get_num_threads()}
    row |= {f"seconds/{name}": value for name, value in seconds.items()}
    return [row | {f"flops/{name}": value for name, value in flops.items()}]


# --- where the time of PPO goes ---


class Stopwatch:
    """Seconds spent inside functions, by name. What is timed inside another counts there only."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self.clock, self.spent, self.inside = clock, Counter(), []

    def timing(self, name: str, function: Callable) -> Callable:
        """The same function, timed."""

        def timed(*args, **kwargs):
            begin = self.clock()
            self.inside.append(0.0)
            try:
                return function(*args, **kwargs)
            finally:
                whole = self.clock() - begin
                self.spent[name] += whole - self.inside.pop()
                if self.inside:
                    self.inside[-1] += whole

        return timed


PHASES = {"sampling": "roll_out", "reading": "evaluate", "updates": "improve"}


def ppo_profile(start: GPT, rollouts: int = 6) -> list[dict]:
    """Seconds of a rollout of PPO, by what is done: the median over rollouts that the policy learns from.

    Sampling, the reward model, reading (log-probabilities of policy and reference, values), the updates.
    """
    given, watch, found = costly(start), Stopwatch(), []
    given.shipped.score = watch.timing("reward model", given.shipped.score)
    work, config = work_of("PPO", given)

    def on_step(metrics: dict) -> None:
        found.append(dict(watch.spent))
        watch.spent.clear()

    with ExitStack() as stack:
        for phase, name in PHASES.items():
            timed = watch.timing(phase, getattr(ppo, name))
            stack.enter_context(mock.patch.object(ppo, name, timed))
        work(replace(config, steps=WARMUP + rollouts), on_step=on_step)
    last = found[-rollouts:]
    names = ("sampling", "reward model", "reading", "updates")
    return [
        {"phase": name, "seconds": float(np.median([spent.get(name, 0.0) for spent in last]))}
        for name in names
    ]


# --- what an answer costs ---


def answering(start: GPT) -> list[dict]:
    """Seconds to answer a prompt: one sample, as it is, and the best of n by a reward model.

    As many rows side by side in both; nothing is judged. Each is done once before it is timed.
    """
    score, n = costly(start).shipped.score, chosen("best-of-n")["n"]
    prompts = [p.text for p in held_out_prompts()[:ROWS]]

    def plain() -> None:
        roll_out(start, prompts, unscored)

    def best() -> None:
        for first in range(0, ROWS, ROWS // n):
            best_of_n(start, prompts[first : first + ROWS // n], score, n)

    return [
        {"piece": f"answering with the best of {k}", "seconds/prompt": timed(answer) / ROWS}
        for k, answer in {1: plain, n: best}.items()
    ]


def timed(work: Callable[[], None], times: int = 3) -> float:
    """Seconds that work takes, the median, when it is done again."""
    work()
    clock = [time.perf_counter()]
    for _ in range(times):
        work()
        clock.append(time.perf_counter())
    return float(np.median(np.diff(clock)))


def race_costs(start: GPT) -> dict[str, Part]:
    """What each piece takes, "…/step" and "…/once": seconds and flops (floating-point operations).

    And its `steps`, peak "memory" of its process and that of an "idle" one in MB, and threads. Rows with a
    `phase` have the seconds of one rollout of PPO; those about answering, seconds for a prompt.
    """
    parts: dict[str, Part] = {piece: partial(piece_costs, piece, start) for piece in PIECES}
    return parts | {"phases of PPO": partial(ppo_profile, start), "answering": partial(answering, start)}


# --- read from the table ---


@lru_cache
def costs() -> dict[str, dict]:
    """The table's rows by piece."""
    return {row["piece"]: row for row in load_history("race_costs") if "piece" in row}


def pieces_of(method: str) -> tuple[str, ...]:
    """The training runs that a method needs."""
    if method in ("SFT", "SFT, cooler"):
        return ()
    if method == "best-of-n":
        return ("reward model",)
    return ("reward model", method) if METHODS[method].needs_reward else (method,)


def spent(what: str, method: str, share: float = 1.0) -> dict[str, float]:
    """What a method has used after a share of its own training, part by part; what: "seconds" or "flops"."""
    parts = {}
    for piece in pieces_of(method):
        row = costs()[piece]
        steps = round(row["steps"] * (share if piece == method else 1))
        parts |= {
            f"{piece}, {steps} steps": steps * row[f"{what}/step"],
            f"{piece}, once": row[f"{what}/once"],
        }
    return parts


def memory(piece: str) -> float:
    """Peak memory in MB of a piece above that of the start alone. A method needs its largest piece's."""
    return costs()[piece]["memory"] - costs()[piece]["idle"]


def seconds(method: str, share: float | None = None) -> float:
    """All of a method's training, up to a share of its own part; left out, to where its tuning stopped it."""
    share = chosen(method)["share"] if share is None else share
    return sum(spent("seconds", method, share).values())


def raced(method: str) -> tuple[np.ndarray, np.ndarray]:
    """An entry's race in seconds, (K,), and its gold there, by seed, (K, S): `race.course` on the clock.

    It begins with the start at 0 s, and again where its own training begins: that may take a reward model.
    """
    shares, golds = course(method)
    return np.array([0.0, *(seconds(method, share) for share in shares)]), np.array([golds[0], *golds])


def seconds_to(target: float, seconds, golds) -> float:
    """When a run first reaches a gold reward, if between two of its points it goes straight.

    golds (K,) were measured after `seconds` (K,), which rise, the first before the run. It is the first of
    these if the target is met before the run, and ∞ if the run never gets there.
    """
    if golds[0] >= target:
        return float(seconds[0])
    for k in range(1, len(golds)):
        if golds[k] >= target:
            part = (target - golds[k - 1]) / (golds[k] - golds[k - 1])
            return float(seconds[k - 1] + part * (seconds[k] - seconds[k - 1]))
    return math.inf


def peak(method: str) -> float:
    """The most memory that any piece of an entry's training takes, in MB."""
    return max(map(memory, pieces_of(method)), default=0.0)


def lines_of(*modules: ModuleType) -> int:
    """Lines of source, blank ones and docstrings included."""
    return sum(len(inspect.getsource(module).splitlines()) for module in modules)
