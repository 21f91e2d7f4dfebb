"""Ways to backpropagate through a choice, against autograd, sampling, and a reward for which one is exact."""

import pytest
import torch

from minialign.chat import collate
from minialign.course.experiments import relaxations
from minialign.gpt import GPTConfig
from minialign.logprobs import response_logits
from minialign.reward_model import RewardModel
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import lively_gpt

N, D = 6, 3
GENERATOR = torch.Generator().manual_seed(0)
VECTORS = torch.randn(N, D, generator=GENERATOR, dtype=torch.float64)
LOG_PROBS = torch.randn(N, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
TARGETS = torch.randn(N, generator=GENERATOR, dtype=torch.float64)


def curved(x):
    return torch.tanh(3 * x).sum(-1)


def true_gradient(network):
    return exact.logit_gradient(LOG_PROBS[None], network(VECTORS)[None])[0]


def mean_straight_through(network):
    return relaxations.straight_through(
        LOG_PROBS, relaxations.slopes_at(network, VECTORS, torch.eye(N, dtype=torch.float64))
    )


def test_straight_through_is_what_autograd_makes_of_one_hot_vectors():
    """The usual code, for each of the N choices, weighed with its probability."""
    expected = torch.zeros(N, dtype=torch.float64)
    for y in range(N):
        logits = LOG_PROBS.clone().requires_grad_()
        soft = logits.softmax(-1)
        one_hot = torch.nn.functional.one_hot(torch.tensor(y), N).double()
        curved((one_hot + soft - soft.detach()) @ VECTORS).backward()
        expected += LOG_PROBS[y].exp() * logits.grad
    assert torch.allclose(mean_straight_through(curved), expected, atol=1e-12)
    assert (expected - true_gradient(curved)).norm() > 0.1 * expected.norm(), "and it is biased"


def test_gumbel_softmax_is_the_derivative_of_the_mixtures_reward():
    def by_autograd(tau, samples, seed):
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(samples, N, generator=generator, dtype=torch.float64)
        logits = LOG_PROBS.clone().requires_grad_()
        soft = ((logits - (-noise.log()).log()) / tau).softmax(-1)
        curved(soft @ VECTORS).mean().backward()
        return logits.grad

    for tau in (1.0, 0.1):
        found = relaxations.gumbel_softmax(curved, VECTORS, LOG_PROBS, tau, 500, seed=3)
        assert torch.allclose(found, by_autograd(tau, 500, 3), atol=1e-10)


def test_the_noise_of_gumbel_softmax_chooses_with_the_policys_probabilities():
    """Nearly without temperature the mixtures are choices: their mean is π."""
    seen = []

    def network(x):
        seen.append(x.detach())
        return x.sum(-1)

    relaxations.gumbel_softmax(network, torch.eye(N, dtype=torch.float64), LOG_PROBS, 1e-3, 20_000, seed=0)
    assert torch.allclose(torch.cat(seen).mean(0), LOG_PROBS.exp(), atol=0.01)


def test_a_linear_reward_makes_straight_through_exact():
    linear = relaxations.reward_network("linear", VECTORS, TARGETS)
    found = relaxations.compared_with(true_gradient(linear), mean_straight_through(linear))
    assert found["share"] == pytest.approx(1, abs=1e-12) and found["elsewhere"] < 1e-12


def test_networks_of_all_kinds_give_their_vectors_the_rewards_as_well_as_they_can():
    for kind in ("tanh", "relu"):
        network, other = (relaxations.reward_network(kind, VECTORS, TARGETS, seed) for seed in (0, 1))
        assert (network(VECTORS) - TARGETS).abs().max() < 0.05
        assert not torch.equal(network(VECTORS + 1), other(VECTORS + 1)), "they differ elsewhere"
    ones = torch.cat([VECTORS, torch.ones(N, 1, dtype=torch.float64)], 1)
    left = relaxations.reward_network("linear", VECTORS, TARGETS)(VECTORS) - TARGETS
    assert (ones.T @ left).abs().max() < 1e-10, "least squares"


def test_shares_and_ascent_by_hand():
    true = torch.tensor([2.0, 0.0])
    found = relaxations.compared_with(true, torch.tensor([1.0, 1.0]))
    assert found == {"share": pytest.approx(0.5), "elsewhere": pytest.approx(0.5)}

    def gradient_at(log_probs):
        return exact.logit_gradient(log_probs[None], TARGETS[None])[0]

    arrived = relaxations.ascended(LOG_PROBS, gradient_at, steps=2000, rate=2.0)
    assert arrived.argmax() == TARGETS.argmax() and arrived.exp() @ TARGETS > TARGETS.max() - 0.01
    away = relaxations.ascended(LOG_PROBS, lambda log_probs: -gradient_at(log_probs), steps=2000, rate=2.0)
    assert away.exp() @ TARGETS < TARGETS.min() + 0.01


def test_the_table(monkeypatch):
    monkeypatch.setattr(relaxations, "NETWORKS", {"tanh": (0, 1), "linear": (0,)})
    model = lively_gpt(
        GPTConfig(vocab_size=load_tokenizer().n_vocab, context=64, n_layer=1, n_head=2, n_embd=8)
    )
    rows = relaxations.relaxations(model, samples=200, steps=5)
    assert len(rows) == 3 * 4 and {row["network"] for row in rows} == {"tanh", "linear"}
    for row in rows:
        assert ("arrives" in row) == (row["estimator"] in ("policy gradient", "straight-through"))
        if row["estimator"] == "policy gradient":
            assert row["share"] == pytest.approx(1) and row["begins"] < row["arrives"] <= row["at_most"]
        if row["network"] == "linear" and row["estimator"] == "straight-through":
            assert row["elsewhere"] < 1e-9


# --- single samples ---


def test_straight_through_rows_are_one_hot_with_the_slope_of_softmax():
    logits = torch.randn(2, 3, N, generator=torch.Generator().manual_seed(1)).requires_grad_()
    drawn = torch.tensor([[0, 5, 2], [1, 1, 4]])
    rows = relaxations.one_hot_straight_through(logits, drawn)
    assert torch.allclose(rows, torch.eye(N)[drawn], atol=1e-7)
    weights = torch.randn(N, generator=torch.Generator().manual_seed(2))
    found, expected = (
        torch.autograd.grad((x @ weights).sum(), logits)[0] for x in (rows, logits.softmax(-1))
    )
    assert torch.allclose(found, expected, atol=1e-7)


def single_samples(samples=60_000, tau=1.0):
    """REBAR's estimates of the true gradient, (M, N)."""
    generator = torch.Generator().manual_seed(0)

    def value(logits):
        return relaxations.rebar(curved, VECTORS, logits, tau, generator)

    return relaxations.by_logits(value, LOG_PROBS, samples)


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_rebar_is_unbiased_and_quieter_than_plain_reinforce(tau):
    true, found = true_gradient(curved), single_samples(tau=tau)
    error = (found.mean(0) - true) / found.std(0) * len(found) ** 0.5
    assert error.abs().max() < 4
    summary = relaxations.summarised(found, true, len(found))
    assert abs(summary["along"] - 1) < 4 * summary["se"] and summary["error / noise"] < 2
    plain = float(exact.gradient_variance(LOG_PROBS[None], curved(VECTORS)[None] + 3))
    assert summary["variance"] < plain / 2, "an offset of 3, which REBAR does not notice"


def test_a_summary_by_hand():
    true = torch.tensor([2.0, 0.0]).double()
    samples = torch.tensor([[1.0, 1.0], [3.0, 1.0]]).double()
    found = relaxations.summarised(samples, true, in_all=4)
    assert found["along"] == 1 and found["elsewhere"] == pytest.approx(0.5)
    assert found["variance"] == 2, "each row is the mean of two, so one sample has twice its variance"
    assert found["error / noise"] == pytest.approx(1 / 0.5**0.5)


def test_what_is_followed_is_the_mean_straight_through_gradient():
    j, end, first = relaxations.followed(curved, VECTORS, LOG_PROBS, steps=50, rate=0.5)
    assert j[0] == pytest.approx(float(LOG_PROBS.exp() @ curved(VECTORS))) and len(j) == 50
    assert torch.allclose(first, mean_straight_through(curved)) and end.sum() == pytest.approx(1)


# --- a choice for each token ---

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=64, n_layer=1, n_head=2, n_embd=8)


def one_hot_rows(batch):
    return torch.nn.functional.one_hot(batch.ids[batch.response_mask], CONFIG.vocab_size).float()


@pytest.mark.parametrize("likelihood", [True, False])
def test_a_reward_model_reads_one_hot_rows_as_the_tokens_they_are(likelihood):
    start = lively_gpt(CONFIG)
    model = RewardModel(start, likelihood=likelihood)
    batch = start.chat.collate([("Why?", "It is so."), ("What is glass?", "Glass is made of sand, mostly.")])
    logits = response_logits(start, batch)
    rows = relaxations.one_hot_straight_through(logits, batch.ids[batch.response_mask])
    with torch.no_grad():
        assert torch.allclose(relaxations.reward_of_rows(model, batch, rows), model(batch), atol=1e-4)
    (slope,) = torch.autograd.grad(relaxations.reward_of_rows(model, batch, rows).sum(), logits)
    assert (slope.abs().sum(-1) > 0).all(), "every token of a response has a slope, its end token too"


def test_what_was_cut_off_is_read_with_an_end_token_as_its_text_is():
    start = lively_gpt(CONFIG)
    model, chat = RewardModel(start, likelihood=True), start.chat
    pairs = [("Why?", "It is so."), ("What is glass?", "Glass is made of sand")]
    whole = chat.collate(pairs)
    cut = collate([(chat.encode_prompt(x), chat.encode_response(y, end=y[-1] == ".")) for x, y in pairs], 0)
    rows = one_hot_rows(cut).requires_grad_()
    rewards = relaxations.reward_of_rows(model, cut, rows, torch.tensor([True, False]))
    assert torch.allclose(rewards, model(whole), atol=1e-4)
    rewards.sum().backward()
    assert (rows.grad.abs().sum(-1) > 0).all()
    full = relaxations.with_ends(cut, torch.tensor([False, True]), chat.end, cut.ids.shape[1])
    assert torch.equal(full.ids, cut.ids), "no room"


def test_the_slope_of_a_row_is_that_of_the_reward():
    """By finite differences: a little of another token in the place of one."""
    start = lively_gpt(CONFIG).double()
    model = RewardModel(start, likelihood=True).double()
    batch = start.chat.collate([("Why?", "It is so."), ("What is glass?", "Sand.")])
    rows = one_hot_rows(batch).double()
    direction = torch.zeros_like(rows)
    direction[1, 7] = 1.0
    (slope,) = torch.autograd.grad(
        relaxations.reward_of_rows(model, batch, rows.requires_grad_()).sum(), rows
    )
    with torch.no_grad():
        up, down = (
            relaxations.reward_of_rows(model, batch, rows + step * direction) for step in (1e-5, -1e-5)
        )
    assert float((up - down)[0]) / 2e-5 == pytest.approx(float(slope[1, 7]), rel=1e-4)
    assert float((up - down)[1]) == 0, "the other answer has rows of its own"


def test_a_model_that_reads_surprise_is_refused():
    start = lively_gpt(CONFIG)
    batch = start.chat.collate([("Why?", "It is so.")])
    with pytest.raises(ValueError, match="which a mixture does not have"):
        relaxations.reward_of_rows(RewardModel(start, reads_surprise=True), batch, one_hot_rows(batch))
