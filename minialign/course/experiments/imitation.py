"""Notebook 07: what "SFT on chosen" imitates: the winners of comparisons, by four readings of the word."""

from collections.abc import Sequence

from minialign.preferences import Preference

IMITATED = ("every choice", "won more than lost", "never lost", "best of each prompt")


def won_and_lost(pairs: Sequence[Preference]) -> dict[tuple[str, str], tuple[int, int]]:
    """How often each (prompt, response) was chosen, and how often rejected."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for pair in pairs:
        for response, won in ((pair.chosen, 1), (pair.rejected, 0)):
            w, lost = found.get((pair.prompt, response), (0, 0))
            found[pair.prompt, response] = (w + won, lost + 1 - won)
    return found


def winners(pairs: Sequence[Preference], which: str) -> list[tuple[str, str]]:
    """The (prompt, response) texts to imitate, one of IMITATED."""
    record = won_and_lost(pairs)
    if which == "every choice":
        return [(pair.prompt, pair.chosen) for pair in pairs]
    if which == "won more than lost":
        return [text for text, (won, lost) in record.items() if won > lost]
    if which == "never lost":
        return [text for text, (won, lost) in record.items() if not lost]
    best: dict[str, tuple[float, str]] = {}
    for (prompt, response), (won, lost) in record.items():
        best[prompt] = max(best.get(prompt, (-1.0, "")), (won / (won + lost), response))
    return [(prompt, response) for prompt, (_, response) in best.items()]
