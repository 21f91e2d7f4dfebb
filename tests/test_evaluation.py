import pytest
import torch

from minialign.chat import load_chat
from minialign.course.evaluation import (
    TOKEN_CLASSES,
    cloze_hits,
    clozes,
    facts_right,
    few_shot_prompt,
    reference_f1,
    reply_shares,
    token_classes,
)
from minialign.gpt import GPTConfig
from minialign.tokenizer import END, load_tokenizer
from minialign.world.prompts import parse, prompts_of
from minialign.world.topics import load_topics

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=16)  # the course's vocabulary on a tiny trunk


def test_clozes_are_the_sentence_up_to_its_answer():
    topic = load_topics()[0]
    decode = load_tokenizer().decode
    for (text, answer), (fact, sentence) in zip(
        clozes([topic]), [(f, s) for f in topic.facts for s in f.plain[:2]]
    ):
        assert decode(text[1:]) + decode(answer) + "." == sentence and decode(answer) == " " + fact.answer


def test_a_cloze_is_hit_only_when_every_token_is_the_most_probable():
    class Oracle(torch.nn.Module):
        """Predicts the text it is given, except the ids in `forgets`."""

        def __init__(self, forgets=()):
            super().__init__()
            self.config, self.device, self.forgets = SMALL, torch.device("cpu"), forgets
            self.chat = load_chat()

        def forward(self, ids, mask):
            following = ids.roll(-1, 1)
            for token in self.forgets:
                following = following.masked_fill(following == token, 0)
            return torch.nn.functional.one_hot(following, SMALL.vocab_size).float()

    topic = load_topics()[0]
    assert cloze_hits(Oracle(), [topic]).all() and len(cloze_hits(Oracle(), [topic])) == 2 * len(topic.facts)
    last = clozes([topic])[0][1][-1]
    misses = cloze_hits(Oracle(forgets=[last]), [topic])
    assert not misses[0] and not misses.all()


def test_replies_are_sorted_and_facts_checked():
    prompt = next(p for p in prompts_of("evaluation", ("question",)) if p.topic.real)
    fact = prompt.topic.facts[prompt.fact]
    wrong = fact.falsified(fact.child, fact.wrong[0])
    replies = [fact.child, "Explain whales to an expert.", "Lorem ipsum."]
    assert reply_shares([prompt] * 3, replies) == pytest.approx(
        {"answer": 1 / 3, "another prompt": 1 / 3, "other": 1 / 3}
    )
    assert facts_right([prompt] * 3, [fact.child, wrong, ""]).tolist() == [True, False, False]


def test_no_replies_have_no_shares():
    with pytest.raises(ValueError, match="a share of nothing: give at least one prompt"):
        reply_shares([], [])
    assert facts_right([], []).dtype == bool


def test_word_f1():
    assert reference_f1("the moon is round", "the moon is round") == 1
    assert reference_f1("the moon is round", "bees") == 0
    assert reference_f1("a b c d", "A b.") == pytest.approx(2 * 2 / 6)
    assert reference_f1("a a b", "a") == pytest.approx(2 * 1 / 4), "repetition counts"


def test_few_shot_prompt():
    assert few_shot_prompt([("Q1", "A1"), ("Q2", "A2")], "Q3") == "Q1\nA1\n\nQ2\nA2\n\nQ3\n"


def test_every_token_of_an_answer_has_a_class():
    prompt = parse("Quick question: In which year did people first walk on the moon?")
    response = "Glad to help. People first walked on the moon in 1969."
    pieces = [load_tokenizer().decode([i]) for i in load_chat().encode_response(response)]
    classes = token_classes(prompt, response)
    assert len(classes) == len(pieces) and classes[0] == "first" and classes[-1] == "end"
    by_class = {name: "".join(p for p, c in zip(pieces, classes) if c == name) for name in TOKEN_CLASSES}
    assert by_class["first"] + by_class["manners"] == "Glad to help." and pieces[0] == by_class["first"]
    assert (
        by_class["wording"] == " People first walked on the moon in."
        and by_class["fact"] == " 1969"
        and by_class["end"] == END
    )
    assert token_classes(prompt, "It was 1949.").count("fact") == len(
        load_tokenizer().encode_ordinary(" 1949")
    ), "a wrong value is one too"
    assert token_classes(prompt, "") == ["end"]
