"""Ways to backpropagate through a choice, against autograd, sampling, and a reward for which one is exact."""

import pytest
import torch

from minialign.course.experiments import relaxations
from minialign.gpt import GPTConfig
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
