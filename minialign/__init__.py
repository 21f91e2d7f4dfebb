"""minialign: the alignment of a language model, end to end, on your own laptop.

>>> import minialign
>>> base = minialign.load("base")
>>> print(base.respond("Explain the moon landing to a six-year-old in a few sentences."))
"""

import os

__version__ = "0.1.0"

# Torch's OpenMP threads spin while they wait for each other. Where another process has one of the cores, that
# makes everything many times slower, so ours go to sleep after about as long as it takes to wake them. OpenMP
# reads this when torch is imported; a reader's own choice is left alone.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "500"


def load(name: str, device=None):
    """A shipped model by name, on the device asked for; left out, a GPU if there is one.

    | name                | what it is                                                      |
    |---------------------|-----------------------------------------------------------------|
    | "base"              | the pre-trained language model: it goes on with any text        |
    | "sft"               | "base", fine-tuned on demonstrations: an assistant              |
    | "reward"            | a reward model, trained on comparisons of answers of "sft"      |
    | "ppo"               | "sft", trained against "reward" by PPO with a KL penalty        |
    | "ppo-overoptimised" | the same without the penalty: what Goodhart's law makes of it   |
    | "dpo"               | "sft", trained on comparisons by DPO                            |

    The language models have `respond(prompt)`, `log_prob(prompt, response)` and `model`, the network, which
    the algorithms train; a reward model has `score(prompt, response)`. Raises ValueError for another name,
    with those there are.
    """
    from minialign.checkpoints import load  # not at import time: the world needs no torch

    return load(name, device)
