import math

import numpy as np
import pytest
import torch
from scipy import stats

from minialign.chat import collate, encode_response
from minialign.evaluation import (
    TOKEN_CLASSES,
    cloze_hits,
    clozes,
    facts_right,
    few_shot_prompt,
    frontier,
    mean_with_interval,
    negative_log_likelihood,
    perplexity,
    perplexity_of,
    reference_f1,
    reliability,
    reply_shares,
    share_with_interval,
    standard_error,
    token_classes,
    token_kl,
    win_rate,
)
from minialign.gpt import GPT, GPTConfig
from minialign.logprobs import kl_divergence
from minialign.tokenizer import END, load_tokenizer
from minialign.world.prompts import parse, prompts_of
from minialign.world.topics import load_topics

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=16)  # the course's vocabulary on a tiny trunk


def test_the_interval_of_a_mean_is_students():
    values = [1.0, 2.0, 4.0, 7.0]
    estimate = mean_with_interval(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    assert (estimate.low, estimate.high) == pytest.approx((low, high)) and estimate.mean == 3.5
    assert standard_error(values) == pytest.approx(stats.sem(values))


def test_the_interval_of_a_mean_covers_it_95_times_of_100():
    rng = np.random.default_rng(0)
    covered = sum(e.low <= 0 <= e.high for e in (mean_with_interval(rng.normal(size=5)) for _ in range(2000)))
    assert 0.935 < covered / 2000 < 0.965


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="at least two values, here are 1"):
        mean_with_interval([1.0])


def test_the_interval_of_a_share_is_wilsons():
    estimate, z = share_with_interval(7, 10), stats.norm.ppf(0.975)
    centre, half = (0.7 + z**2 / 20) / (1 + z**2 / 10), z * math.sqrt(0.21 / 10 + z**2 / 400) / (1 + z**2 / 10)
    assert (estimate.low, estimate.high) == pytest.approx((centre - half, centre + half))
    assert share_with_interval(0, 10).high > 0.2, "none of ten does not mean never"
    with pytest.raises(ValueError, match="at least 1"):
        share_with_interval(0, 0)


def test_loss_over_pairs_is_per_token_whatever_the_batches():
    model = GPT(SMALL).eval()
    pairs = [([1, 2], [3, 4, 5]), ([6], [7]), ([8, 9, 10], [11, 12])]
    alone = [negative_log_likelihood(model, [pair]) for pair in pairs]
    expected = (3 * alone[0] + alone[1] + 2 * alone[2]) / 6
    assert negative_log_likelihood(model, pairs) == pytest.approx(expected, rel=1e-5)
    assert negative_log_likelihood(model, pairs, batch_size=2) == pytest.approx(expected, rel=1e-5)
    assert abs(sum(alone) / 3 - expected) > 1e-4, "a mean of means is something else"


def test_perplexity_of_a_die_and_of_an_untrained_model():
    assert float(perplexity_of(torch.full((5,), 1 / 6).log())) == pytest.approx(6)
    assert perplexity(GPT(SMALL).eval(), ["Bees make honey."]) == pytest.approx(load_tokenizer().n_vocab, rel=0.1)


def test_clozes_are_the_sentence_up_to_its_answer():
    topic = load_topics()[0]
    decode = load_tokenizer().decode
    for (text, answer), (fact, sentence) in zip(clozes([topic]), [(f, s) for f in topic.facts for s in f.plain[:2]]):
        assert decode(text[1:]) + decode(answer) + "." == sentence and decode(answer) == " " + fact.answer


def test_a_cloze_is_hit_only_when_every_token_is_the_most_probable():
    class Oracle(torch.nn.Module):
        """Predicts the text it is given, except the ids in `forgets`."""

        def __init__(self, forgets=()):
            super().__init__()
            self.config, self.device, self.forgets = SMALL, torch.device("cpu"), forgets

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
    assert reply_shares([prompt] * 3, replies) == pytest.approx({"answer": 1 / 3, "another prompt": 1 / 3, "other": 1 / 3})
    assert facts_right([prompt] * 3, [fact.child, wrong, ""]).tolist() == [True, False, False]


def test_word_f1():
    assert reference_f1("the moon is round", "the moon is round") == 1
    assert reference_f1("the moon is round", "bees") == 0
    assert reference_f1("a b c d", "A b.") == pytest.approx(2 * 2 / 6)
    assert reference_f1("a a b", "a") == pytest.approx(2 * 1 / 4), "repetition counts"


def test_few_shot_prompt():
    assert few_shot_prompt([("Q1", "A1"), ("Q2", "A2")], "Q3") == "Q1\nA1\n\nQ2\nA2\n\nQ3\n"


def test_token_kl_is_zero_to_itself_and_matches_the_definition():
    one, other = GPT(SMALL).eval(), GPT(SMALL, seed=1).eval()
    with torch.no_grad():
        other.token_embedding.weight *= 20
    batch = collate([([1], [5, 6]), ([2], [7])])
    assert all(np.allclose(row, 0, atol=1e-6) for row in token_kl(one, one, batch))
    rows = token_kl(one, other, batch)
    assert [len(row) for row in rows] == [2, 1]
    with torch.no_grad():
        p = one(torch.tensor([[1, 5]]))[0, -1].double().softmax(-1)
        q = other(torch.tensor([[1, 5]]))[0, -1].double().softmax(-1)
    assert rows[0][1] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_every_token_of_an_answer_has_a_class():
    prompt = parse("Quick question: In which year did people first walk on the moon?")
    response = "Glad to help. People first walked on the moon in 1969."
    pieces = [load_tokenizer().decode([i]) for i in encode_response(response)]
    classes = token_classes(prompt, response)
    assert len(classes) == len(pieces) and classes[0] == "first" and classes[-1] == "end"
    by_class = {name: "".join(p for p, c in zip(pieces, classes) if c == name) for name in TOKEN_CLASSES}
    assert by_class["first"] + by_class["manners"] == "Glad to help." and pieces[0] == by_class["first"]
    assert by_class["wording"] == " People first walked on the moon in." and by_class["fact"] == " 1969" and by_class["end"] == END
    assert token_classes(prompt, "It was 1949.").count("fact") == len(load_tokenizer().encode_ordinary(" 1949")), "a wrong value is one too"
    assert token_classes(prompt, "") == ["end"]


def test_kl_has_a_direction_and_is_never_negative():
    log_p, log_q = torch.randn(2, 50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    forward = kl_divergence(log_p, log_q)
    expected = [stats.entropy(p, q) for p, q in zip(log_p.exp().numpy(), log_q.exp().numpy())]
    assert np.allclose(forward, expected) and (forward >= 0).all()
    assert not torch.allclose(forward, kl_divergence(log_q, log_p))


# --- reliability ---


def test_a_reliability_curve_by_hand():
    margins = np.array([3.0, -0.1, 0.2, -4.0])
    confidence, right = reliability(margins, bins=2)
    sure = [1 / (1 + math.exp(-m)) for m in (0.1, 0.2, 3.0, 4.0)]
    assert np.allclose(confidence, [np.mean(sure[:2]), np.mean(sure[2:])]) and right.tolist() == [0.5, 0.5]


def test_a_calibrated_model_has_a_straight_reliability_curve():
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=40_000) * 2
    margins = np.where(rng.random(40_000) < 1 / (1 + np.exp(-rewards)), rewards, -rewards)
    confidence, right = reliability(margins)
    assert np.abs(confidence - right).max() < 0.02 and confidence[0] < 0.6 and confidence[-1] > 0.95
    doubled, right = reliability(2 * margins)
    assert (doubled - right)[2:6].min() > 0.04, "twice the margin is overconfident"


# --- win rates and frontiers ---


def test_a_win_rate_is_the_mean_over_prompts_of_all_comparisons():
    rng = np.random.default_rng(0)
    ours, theirs = np.round(rng.normal(0.3, 1, (8, 3))), np.round(rng.normal(0, 1, (8, 2)))
    by_prompt = [np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y]) for x, y in zip(ours, theirs)]
    assert win_rate(ours, theirs) == pytest.approx(mean_with_interval(by_prompt))
    assert win_rate(ours, theirs).mean + win_rate(theirs, ours).mean == pytest.approx(1)
    assert win_rate(ours, ours + 0).mean == pytest.approx(0.5)


def test_the_interval_of_a_win_rate_covers_the_truth_when_prompts_differ():
    """Prompts on which ours is much better or much worse: comparisons within a prompt agree, and an interval that ignores it misses."""
    rng, covered, naive_covered = np.random.default_rng(0), 0, 0
    for _ in range(400):
        edge = rng.normal(0, 2, (40, 1))
        ours, theirs = edge + rng.normal(size=(40, 4)), rng.normal(size=(40, 4))
        honest = win_rate(ours, theirs)
        naive = mean_with_interval((ours[:, :, None] > theirs[:, None, :]).ravel())
        covered, naive_covered = covered + (honest.low <= 0.5 <= honest.high), naive_covered + (naive.low <= 0.5 <= naive.high)
    assert covered / 400 >= 0.92 and naive_covered / 400 < 0.6


def test_the_frontier_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        costs, values = rng.integers(0, 5, (2, 12))
        beaten = [
            any(costs[j] <= costs[i] and values[j] >= values[i] and (costs[j] < costs[i] or values[j] > values[i]) for j in range(12))
            for i in range(12)
        ]
        assert frontier(costs, values).tolist() == [not b for b in beaten]
    assert frontier(np.array([1.0, 1.0]), np.array([2.0, 2.0])).all(), "equal points do not beat one another"
