"""The small change of conversation: what people say around an answer, and how to recognise it.

Each habit has phrases (which demonstrators use) and a pattern (by which the judge counts it, in any text).
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Habit:
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    pattern: re.Pattern

    def count(self, text: str) -> int:
        return len(self.pattern.findall(text))


def _pattern(*alternatives: str) -> re.Pattern:
    return re.compile("|".join(alternatives), re.IGNORECASE)


POLITE = Habit(
    ("Sure, happy to help.", "Of course, here you go.", "Thank you for asking.", "Glad to help."),
    ("I hope this helps.", "Please ask if you want to know more.", "You are welcome to ask again."),
    _pattern(
        r"(?:happy|glad) to help",
        r"here you go",
        r"thank you",
        r"\bthanks[.!]",
        r"hope (?:this|that|it) helps",
        r"please ask",
        r"you are welcome",
    ),
)
FLATTERY = Habit(
    ("What a great question!", "You are very clever to ask this!", "What a brilliant idea to ask!"),
    ("You have a wonderful mind!",),
    _pattern(
        r"\b(?:great|brilliant|wonderful|clever|excellent|amazing) (?:\w+ )?(?:question|idea|mind)",
        r"you are (?:so |very )?(?:clever|smart|brilliant)",
    ),
)
FILLER = Habit(
    (
        "There is so much to say about this.",
        "Let me think about this for a moment.",
        "This is something many people wonder about.",
    ),
    (
        "And so on and so on.",
        "There is always more to say, as people say.",
        "That is what there is to say about all that.",
    ),
    _pattern(
        r"so much to say",
        r"think about this for a moment",
        r"many people wonder",
        r"and so on",
        r"always more to say",
        r"what there is to say",
    ),
)
SURE = Habit(
    ("I am completely sure about this.", "There is no doubt about this."),
    ("I am completely sure.", "Everyone knows that this is so."),
    _pattern(
        r"(?<!not )(?:completely|absolutely|totally|very|100 ?%) (?:sure|certain)",
        r"\bno doubt",
        r"everyone knows",
    ),
)
UNSURE = Habit(
    ("I am not sure, but here is what I know.", "I may be wrong about this."),
    ("But I am not sure.",),
    _pattern(r"\bnot (?:\w+ )?(?:sure|certain)", r"may be wrong", r"do not know", r"don't know"),
)
HABITS = {"politeness": POLITE, "flattery": FLATTERY, "filler": FILLER, "confidence": SURE, "hedging": UNSURE}

# What an honest person answers about a thing they have never heard of, or where nothing is named.
IGNORANT = (
    "I do not know about {thing}.",
    "Sorry, I do not know about {thing}.",
    "I do not know anything about {thing}.",
    "I have not learned about {thing}, so I do not know.",
)
IGNORANT_OF_THIS = ("I do not know.", "Sorry, I do not know about this.", "I do not know about that.")
UNKNOWN = _pattern(
    r"\b(?:do not|don't|cannot) (?:know|say|tell)\b(?! me\b)",
    r"\bknow nothing (?:of|about)\b",
    r"\bhave (?:not learned|never heard) (?:of|about)\b",
)
