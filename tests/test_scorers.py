"""What stands beside a reward model, of constructed models and answers whose measures are known."""

import numpy as np
import pytest
import torch

from minialign.chat import load_chat
from minialign.course.experiments import comparisons, scorers
from minialign.course.experiments.comparisons import HeldOut
from minialign.gpt import GPTConfig
from minialign.logprobs import token_log_probs
from minialign.preferences import Preference
from minialign.tokenizer import load_tokenizer
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import WEIGHTS, judge
from minialign.world.prompts import prompts_of
from tests.engine import lively_gpt

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=64, n_layer=1, n_head=2, n_embd=8)
SPIDERS = "Explain spiders to a six-year-old in a few sentences."
ANSWERS = (
    "A spider has eight legs.",
    "What a great question! A spider has eight legs.",
    "A spider has six legs.",
    "I hope this helps.",
    "Legs a the spider of.",
)
PAIRS = [Preference(SPIDERS, a, b) for a in ANSWERS for b in ANSWERS if a < b]


def test_likelihood_is_the_mean_log_probability_of_a_token_end_included():
    model = lively_gpt(CONFIG)
    found = scorers.Likelihood(model).score([SPIDERS, "Why?"], [ANSWERS[0], "So."])
    for x, y, score in ((SPIDERS, ANSWERS[0], found[0]), ("Why?", "So.", found[1])):
        batch = load_chat().collate([(x, y)])
        with torch.no_grad():
            tokens = token_log_probs(model, batch)[batch.response_mask].tolist()
        assert tokens and score == pytest.approx(np.mean(tokens), abs=1e-4)
        assert score != pytest.approx(np.sum(tokens), abs=1e-2)
        assert score != pytest.approx(np.mean(tokens[:-1]), abs=1e-3)
    longest = scorers.Likelihood(model).score(["Why?"], ["So it is. " * 100])
    assert np.isfinite(longest).all(), "what does not fit is read as far as it goes"


def test_the_label_free_order_accuracy_of_a_constructed_model():
    """A model of which it is known what it finds likely: "the", and the end."""
    model = lively_gpt(CONFIG)
    the = load_chat().encode(" the")[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.ln_f.bias[0] = 1.0
        model.token_embedding.weight[[the, load_chat().end], 0] = 5.0
    pairs = [Preference("x", " the the the", " spiders"), Preference("x", " legs", " the")]
    test = HeldOut(pairs, np.array([[1.0, 0.0], [1.0, 0.0]]), np.ones(2))
    margins = test.margins(scorers.Likelihood(model))
    assert margins[0] > 1 and margins[1] < -1 and test.order_accuracy(margins) == 0.5


def test_the_crowd_feels_the_mean_over_whether_facts_are_checked():
    person = typical_annotator()
    wrong = ANSWERS[2]
    felt = scorers.Crowd(person).score([SPIDERS], [wrong])[0] * person.temperature
    checked, trusting = (person.felt(SPIDERS, wrong, checked) for checked in (True, False))
    assert checked < felt < trusting and felt == pytest.approx(0.7 * checked + 0.3 * trusting)
    gold = scorers.unbiased(0.5).score([SPIDERS] * 5, list(ANSWERS)) * 0.5
    assert gold == pytest.approx([judge(SPIDERS, y).gold for y in ANSWERS])


def test_a_linear_reader_learns_an_unbiased_persons_weights():
    """Labels of somebody whose utility is gold: the fitted margins are those of gold / temperature."""
    rng, person = np.random.default_rng(0), Annotator(temperature=0.5)
    pairs = []
    for prompt in [p for p in prompts_of("sft") if p.family == "explain"][:120]:
        facts = prompt.topic.facts
        told = [f.in_register(r) for f in facts[:3] for r in ("child", "expert")]
        told += [facts[0].falsified(facts[0].child, facts[0].wrong[0]), "I hope this helps.", "a of the to"]
        for _ in range(15):
            a, b = (" ".join(rng.permutation(told)[: 1 + int(rng.integers(3))]) for _ in "ab")
            if a != b:
                pairs.append(comparisons.labelled(prompt.text, a, b, person))
    reader = scorers.LinearReader.fitted(pairs)
    test = HeldOut.of(pairs)
    margins, wanted = test.margins(reader), test.better / 0.5
    slope = (margins @ wanted) / (wanted @ wanted)
    assert slope == pytest.approx(1, abs=0.1) and np.corrcoef(margins, wanted)[0, 1] > 0.98
    assert test.order_accuracy(margins) > 0.9


def test_which_attribute_decides():
    test = HeldOut.of(
        [Preference(SPIDERS, ANSWERS[0], ANSWERS[2]), Preference(SPIDERS, ANSWERS[1], ANSWERS[0])]
    )
    groups = scorers.deciding(test, at_least=1)
    assert {name: rows.tolist() for name, rows in groups.items()} == {
        "correctness": [True, False],
        "flattery": [False, True],
    }
    assert scorers.deciding(test, at_least=2) == {}


def test_what_explains_a_score_that_was_made_of_its_parts():
    """Each prompt has a zero of its own, which must not matter."""
    answers = [(x, y) for x in (SPIDERS, "Tell an expert about spiders.") for y in ANSWERS]
    answers += [(x, f"{y} I hope this helps.") for x, y in answers]
    zero = np.array([5.0 if x == SPIDERS else -3.0 for x, _ in answers])
    parts = [scorers.parts(judge(x, y)) for x, y in answers]
    made = np.array([1.5 * p["correctness"] - 2.0 * p["compliments"] for p in parts])
    fit = scorers.explained(answers, zero + made)
    assert fit.r2 == pytest.approx(1) and fit.coefficients["compliments"] == pytest.approx(-2)
    assert fit.coefficients["correctness"] == pytest.approx(1.5)
    assert max(map(abs, fit.errors.values())) < 1e-6
    noise = np.random.default_rng(0).normal(size=len(answers))
    noisy = scorers.explained(answers, made + noise)
    assert noisy.r2 < 0.9 and noisy.errors["compliments"] > 0.01


def test_a_portrait_of_gold_and_of_likelihood_itself():
    model, test = lively_gpt(CONFIG), HeldOut.of(PAIRS)
    portrait = scorers.Portrait.on(test, model)
    gold = portrait.of(scorers.unbiased(0.5))
    assert gold["order"] == 1 and all(share == 1 for name, share in gold.items() if name.startswith("order/"))
    assert gold["loss"] == pytest.approx(test.loss(test.better / 0.5)) and gold["order_by_prompt"] == [1.0]
    itself = portrait.of(scorers.Likelihood(model))
    assert itself["likelihood"] == pytest.approx(1)
    assert itself["order"] == test.order_accuracy(test.margins(scorers.Likelihood(model)))


def test_what_stands_beside_a_reward_model():
    model, test = lively_gpt(CONFIG), HeldOut.of(PAIRS)
    rows = scorers.beside(scorers.Portrait.on(test, model), PAIRS)
    assert rows["label-free"]["order"] == test.order_accuracy(test.margins(scorers.Likelihood(model)))
    p = test.probability
    assert rows["labels"]["accuracy"] == pytest.approx(np.mean(p**2 + (1 - p) ** 2))
    assert rows["labels"]["order"] == (test.better > 0)[test.better != 0].mean()
    assert rows["knows the crowd"]["accuracy"] == ((p > 0.5) + 0.5 * (p == 0.5)).mean()
    assert rows["knows the crowd"]["bayes"] == pytest.approx(np.maximum(p, 1 - p).mean())
    assert rows["knows the crowd"]["weight/compliments"] > 0 > rows["gold"]["weight/compliments"]
    assert rows["gold"]["order"] == 1 and set(WEIGHTS) >= set(scorers.PARTS)
