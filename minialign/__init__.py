"""minialign: the alignment of a language model, end to end, on your own laptop.

    import minialign
    base = minialign.load("base")
    print(base.respond("Explain the moon landing to a six-year-old in a few sentences."))
"""

__version__ = "0.1.0"


def load(name: str, device=None):
    """Load a shipped model by name ("base", "sft"); see `minialign.artifacts.load`."""
    from minialign.artifacts import load  # not at import time: the world needs no torch

    return load(name, device)
