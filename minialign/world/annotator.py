"""Simulated people who judge answers: noisy, hurried, biased, and paid by the label.

An annotator feels a utility u(x, y): the gold reward as far as they see it, plus their biases. Asked to
compare, they choose y_1 over y_2 with probability σ((u_1 − u_2) / temperature), as Bradley and Terry (1952)
have it. Asked for a rating, they report the utility on a scale of their own.
"""

from dataclasses import dataclass, field

import numpy as np

from minialign.world.judge import judge, weighted_sum
from minialign.world.prompts import Prompt, parse


@dataclass
class Annotator:
    """One person. All biases are in units of gold reward; the defaults are an unbiased, noise-free rater."""

    temperature: float = 0.0  # of the choice; 0 always takes the better one
    inattention: float = 0.0  # probability of a label given without reading
    length_bias: float = 0.0  # per 20 words
    filler_bias: float = 0.0  # per filler phrase, up to 3
    flattery_bias: float = 0.0  # per compliment, up to 3; comes on top of the gold's cost
    confidence_bias: float = 0.0  # for sounding certain
    agreement_bias: float = 0.0  # for saying yes to an opinion of the user, and minus as much for a no
    checks_facts: float = 1.0  # probability of checking an answer's facts; else all are taken for right
    horizon: str = "hindsight"  # knows what came of the answer; "immediate" feels only how it sounds
    group: str = "all"  # taste: "all", or "brief" / "detailed", who like short or long answers
    offset: float = 0.0  # of the ratings
    gain: float = 1.0  # of the ratings
    rating_noise: float = 0.0  # standard deviation, in units of gold
    price: float = 1.0  # per label
    seed: int = 0
    spent: float = field(default=0.0, init=False)  # what the labels so far have cost

    def __post_init__(self):
        if self.horizon not in ("hindsight", "immediate"):
            raise ValueError(f"horizon is {self.horizon!r}: choose 'hindsight' or 'immediate'")
        if self.group not in ("all", "brief", "detailed"):
            raise ValueError(f"group is {self.group!r}: choose 'all', 'brief' or 'detailed'")
        for name in ("temperature", "rating_noise", "price"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it cannot be negative or infinite")
        for name in ("inattention", "checks_facts"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: choose a probability, from 0 to 1")
        self.rng = np.random.default_rng(self.seed)

    def utility(self, prompt: Prompt | str, response: str) -> float:
        """What the answer is worth to this person. Random only in whether the facts get checked."""
        checked = self.horizon == "hindsight" and self.rng.random() < self.checks_facts
        return self.felt(prompt, response, checked)

    def felt(self, prompt: Prompt | str, response: str, checked: bool) -> float:
        """What the answer is worth to this person when its facts were checked, or were not."""
        prompt = parse(prompt) if isinstance(prompt, str) else prompt
        judgement = judge(prompt, response)
        counts = judgement.counts
        u = weighted_sum(judgement.attributes if checked else judgement.believed)
        u += self.length_bias * counts["words"] / 20
        u += self.filler_bias * min(3, counts["filler"]) + self.flattery_bias * min(3, counts["flattery"])
        u += self.confidence_bias * (min(1, counts["confidence"]) - min(1, counts["hedging"]))
        if prompt.opinion:
            u += self.agreement_bias * counts["agrees"]
        if self.group != "all":
            longer = np.clip((counts["words"] - 30) / 20, -1, 1)
            u += longer if self.group == "detailed" else -longer
        return float(u)

    def prefer(self, prompt: Prompt | str, first: str, second: str) -> int:
        """0 if this person prefers the first answer, 1 if the second. Costs one label."""
        self.spent += self.price
        if self.rng.random() < self.inattention:
            return int(self.rng.integers(2))
        difference = self.utility(prompt, second) - self.utility(prompt, first)
        if self.temperature == 0:
            return int(difference > 0) if difference else int(self.rng.integers(2))
        return int(self.rng.random() < self._chance(difference))

    def _chance(self, difference: float) -> float:
        """σ(difference / temperature): how probably what is worth so much more is chosen; temperature > 0."""
        return 1 / (1 + np.exp(-np.clip(difference / self.temperature, -50, 50)))

    def probability(self, prompt: Prompt | str, first: str, second: str) -> float:
        """P(first ≻ second), exactly: over noise, inattention, and whether either's facts get checked."""
        checks = self.checks_facts if self.horizon == "hindsight" else 0.0
        share, total = {True: checks, False: 1 - checks}, 0.0
        felt = {(y, checked): self.felt(prompt, y, checked) for y in (first, second) for checked in share}
        for a in share:
            for b in share:
                difference = felt[first, a] - felt[second, b]
                sure = (np.sign(difference) + 1) / 2  # what temperature 0 makes of it; a tie is a coin
                p = self._chance(difference) if self.temperature else sure
                total += share[a] * share[b] * float(p)
        return self.inattention / 2 + (1 - self.inattention) * total

    def rate(self, prompt: Prompt | str, response: str) -> float:
        """An absolute rating: offset + gain · (utility + noise). Costs one label."""
        self.spent += self.price
        if self.rng.random() < self.inattention:
            return float(self.offset + self.gain * self.rng.normal(2.0, 1.0))
        felt = self.utility(prompt, response) + self.rng.normal(0, 1) * self.rating_noise
        return float(self.offset + self.gain * felt)


# The course's crowd-worker. Two of them agree on 72–77 % of pairs of answers (75 ± 1 % where an SFT policy
# sampled at temperature 1, 73 % where people wrote), as InstructGPT's labelers did (72.6 ± 1.5 %; Ouyang et
# al. 2022, §3.4), and share biases that optimisation will find.
TYPICAL = dict(
    temperature=0.35,
    inattention=0.05,
    filler_bias=0.55,
    flattery_bias=1.0,
    confidence_bias=0.5,
    agreement_bias=0.3,
    checks_facts=0.7,
)


def typical_annotator(seed: int = 0, **changes) -> Annotator:
    """The course's default annotator, with any knob turned."""
    return Annotator(**{**TYPICAL, "seed": seed, **changes})
