"""The longer experiments of the notebooks, one module for each part of the course.

Their functions return the rows of tables in data/logs. Everything is done with several seeds, and measured on
`held_out_prompts` where the experiment does not say otherwise. A notebook plots the table and runs one small
piece of it live; `make artifacts` rebuilds them all.
"""

from collections.abc import Callable, Sequence

import numpy as np

from minialign.gpt import GPT
from minialign.rollouts import roll_out, unscored
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
    model: GPT, prompts: Sequence[Prompt], temperature: float = 1.0, seed: int = 0, n: int = 1
) -> list[str]:
    """n responses to each prompt, those of one prompt side by side."""
    texts = []
    for start in range(0, len(prompts), 64):
        asked, sampling = [p.text for p in prompts[start : start + 64]], dict(n=n, temperature=temperature)
        texts += roll_out(model, asked, unscored, seed=(seed, start), **sampling).responses
    return texts


def different(texts: Sequence[str], n: int) -> float:
    """How many different ones there are among each n texts in a row, on average, from 1 to n."""
    return float(np.mean([len(set(texts[i : i + n])) for i in range(0, len(texts), n)]))
