"""An exercise in which something is found out rather than written: which of these is which?"""

from collections.abc import Mapping
from dataclasses import dataclass

from minialign.statistics import in_short


@dataclass(frozen=True)
class Puzzle:
    """To each of some things, "A" to "C" for instance, belongs one of the options, which can be found out."""

    options: tuple[str, ...]
    answers: dict[str, str]  # the right option of each thing
    look: dict[str, str]  # where to look again, for one who has guessed wrong
    why: dict[str, str]  # how it can be seen

    def verdicts(self, guesses: Mapping) -> dict[str, str]:
        """One for each thing, whichever were guessed. Raises ValueError for a thing that there is not."""
        things = ", ".join(self.answers)
        if not isinstance(guesses, Mapping):
            raise ValueError(f"give a dict with one of the options for each of {things}")
        for thing in guesses:
            if thing not in self.answers:
                raise ValueError(f"{in_short(thing)} is not asked for: give one of the options for {things}")
        return {thing: self.verdict(thing, guesses.get(thing)) for thing in self.answers}

    def verdict(self, thing: str, guess) -> str:
        """What is to be said of a guess; None or ... is none yet. Raises ValueError for what is no option."""
        if guess is None or guess is ...:
            return "not attempted yet."
        if guess not in self.options:
            options = ", ".join(self.options)
            raise ValueError(f"{in_short(guess)} is none of the options: choose from {options}")
        return f"right. {self.why[thing]}" if guess == self.answers[thing] else f"no. {self.look[thing]}"
