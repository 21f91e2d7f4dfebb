"""The longer experiments of the notebooks, one module for each part of the course.

Their functions return the rows of tables in data/logs. Everything is done with several seeds, and measured on
`held_out_prompts` where the experiment does not say otherwise. A notebook plots the table and runs one small
piece of it live; `make artifacts` rebuilds them all.
"""

from collections.abc import Callable

import numpy as np

from minialign.gpt import GPT
from minialign.sampling import generate
from minialign.world.judge import Judgement
from minialign.world.phrases import HABITS
from minialign.world.prompts import Prompt, sample_prompts

SEEDS = (0, 1, 2)
# A part of a table that takes hours gives some of its rows, whatever the other parts did.
Part = Callable[[], list[dict]]


def held_out_prompts() -> list[Prompt]:
    """The 196 prompts on which models are compared, all families alike.

    They are about topics, or in words, that no demonstration holds.
    """
    return sample_prompts("evaluation", 196, seed=1)


def tuning_prompts() -> list[Prompt]:
    """196 other prompts of the same sort, to choose settings on.

    What is chosen there is then measured on `held_out_prompts`.
    """
    return sample_prompts("evaluation", 392, seed=1)[196:]


def answers(
    model: GPT, prompts: list[Prompt], temperature: float = 1.0, seed: int = 0, n: int = 1
) -> list[str]:
    """n responses to each prompt, those of one prompt side by side."""
    texts = []
    for start in range(0, len(prompts), 64):
        encoded = [model.chat.encode_prompt(p.text) for p in prompts[start : start + 64]]
        texts += generate(model, encoded, n=n, temperature=temperature, seed=seed + start).texts
    return texts


def habit_shares(judgements: list[Judgement]) -> dict[str, float]:
    """In which share of the judged answers each habit occurs."""
    return {name: float(np.mean([j.counts[name] > 0 for j in judgements])) for name in HABITS}
