"""What is written about each topic: an oracle, apart from the judge, of which topic a text speaks of."""

import re

from minialign.world.demonstrations import known_topics
from minialign.world.judge import sentences_of
from minialign.world.prompts import topic_sorts
from minialign.world.topics import REGISTERS, load_topics, whole_words


def sayings(topic):
    """Every sentence and line that is written about a topic, with every value that a fact could have."""
    texts = [topic.correction, *topic.stories, *(line for poem in topic.poems for line in poem)]
    for fact in topic.facts:
        for told in (*(fact.in_register(r) for r in REGISTERS), *fact.plain, fact.claim + "."):
            texts += [told, *(fact.falsified(told, value) for value in fact.wrong)]
    return {sentence.lower() for text in texts for sentence in sentences_of(text)}


# No demonstration of the course may speak of these: held out, or kept for an experiment of their own.
UNTOLD = [t for t in load_topics() if topic_sorts()[t.name] != "sft"]
OF_KNOWN = set().union(*map(sayings, known_topics()))
OF_UNTOLD = set().union(*map(sayings, UNTOLD)) - OF_KNOWN
NAMES_UNTOLD = re.compile("|".join(whole_words(t.name.removeprefix("the ").lower()) for t in UNTOLD))


def leaks(text):
    """The sentences of a text that are written about an untold topic."""
    return [s for s in map(str.lower, sentences_of(text)) if s in OF_UNTOLD]


def mentions(text):
    """The sentences that name an untold topic without being written about a known one."""
    return [s for s in map(str.lower, sentences_of(text)) if s not in OF_KNOWN and NAMES_UNTOLD.search(s)]
