"""Notebook 00: what the shipped models and their kind are worth on the held-out prompts, read from tables."""

import numpy as np
import torch

from minialign.bootstrap import bootstrap_difference
from minialign.course.experiments import race
from minialign.course.experiments.measuring import over_seeds
from minialign.language_model import LanguageModel
from minialign.sampling import next_token_probabilities
from minialign.statistics import Estimate
from minialign.training import load_history
from minialign.world.judge import WEIGHTS

# The models' names in the tables. `sft` is the shipped one, sampled three times; `ppo` and `dpo` are three
# runs from it, of which the shipped one is the median by gold on other prompts.
TABLED = {"sft": "SFT", "ppo": race.AS_SHIPPED, "dpo": "DPO, all labels"}


def golds(name: str, temperature: float) -> np.ndarray:
    """What the answers of "sft", "ppo" or "dpo" are worth, by run, prompt and answer, (3, 196, n)."""
    if name not in TABLED:
        raise ValueError(f"there are no golds of {name!r}: choose one of {', '.join(TABLED)}")
    return race.judged(TABLED[name], temperature=temperature)


def by_run(name: str, temperature: float) -> np.ndarray:
    """The gold of each run's answers to each of the 196 prompts, (3, 196), means over the answers."""
    return golds(name, temperature).mean(-1)


def lead(name: str, temperature: float, at: float | None = None) -> Estimate:
    """The gold of a model beyond `sft`, which is sampled `at` the same temperature or another one.

    The 95 % interval is over runs and prompts.
    """
    start = by_run("sft", temperature if at is None else at)
    return bootstrap_difference(by_run(name, temperature), start)


def by_manners(name: str, temperature: float) -> np.ndarray:
    """How much of a model's gold beyond `sft` at the same temperature is for kind phrases, by run, (3,)."""
    ours, theirs = (race.ends(TABLED[of], "attribute/politeness")[temperature] for of in (name, "sft"))
    return WEIGHTS["politeness"] * (ours - theirs)


def in_eights(name: str, k: int) -> np.ndarray:
    """The mean gold, at T = 1, of the k-th answers to 24 sets of 8 prompts, by run: (3, 24)."""
    return golds(name, 1.0)[:, :192, k].reshape(3, 24, 8).mean(-1)


def without_training() -> dict[str, dict[float, float]]:
    """Mean gold of the base model, {who: {temperature: gold}}: asked plainly, and as its corpus asks."""
    rows = {row["who"]: row for row in load_history("by_demonstrations") if not row["demonstrations"]}
    who = {"base": "base", "base, in its corpus's frame": "base, in the corpus's frame"}
    return {name: {1.0: rows[of]["gold"], 0.0: rows[of]["gold, T=0"]} for name, of in who.items()}


def people() -> float:
    """Mean gold of the demonstrators, who answered the same prompts."""
    return float(over_seeds(load_history("fine_tuning_quality"), "gold", who="demonstrators").mean())


# --- live in the notebook ---


def first_token(model: LanguageModel, prompt: str, temperature: float, k: int = 6) -> dict[str, float]:
    """The k likeliest first tokens of an assistant's reply, and their probabilities at a temperature."""
    chat, device = model.model.chat, model.model.device
    with torch.no_grad():
        logits = model.model(torch.tensor([chat.encode_prompt(prompt)], device=device))[0, -1]
    p = next_token_probabilities(logits, temperature)
    return {chat.decode([token]): float(p[token]) for token in logits.topk(k).indices.tolist()}
