"""Best-of-n against all subsets, against simulation, and against the exact distribution of the winner."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from minialign.best_of_n import best_of_n, expected_best, kl_bound
from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.logprobs import kl_divergence
from minialign.rollouts import roll_out
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import favour, lively_gpt

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=48, n_layer=1, n_head=2, n_embd=8)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why?"]
SAMPLING = dict(max_new_tokens=4, temperature=1.3)


@pytest.fixture(scope="module")
def model():
    return favour(lively_gpt(CONFIG), load_chat().end, 8.0)


# --- choosing ---


@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_best_of_each_prompts_own_samples(model, n):
    """Numbers handed out in an order that puts the best at another place for every prompt."""
    numbers = np.random.default_rng(n).permutation(3 * n).astype(float)
    best = best_of_n(model, PROMPTS, lambda prompts, responses: numbers, n, seed=5, **SAMPLING)
    plain = roll_out(model, PROMPTS, lambda prompts, responses: numbers, n=n, seed=5, **SAMPLING)
    assert best.rollout.responses == plain.responses and len(set(plain.responses)) > 1
    for i in range(3):
        mine = range(i * n, (i + 1) * n)
        winner = max(mine, key=lambda k: numbers[k])
        assert best.responses[i] == plain.responses[winner] and best.rewards[i] == numbers[winner]
    assert best.rewards.shape == (3,) and best.rewards.dtype == np.float64
    assert best.rollout.prompts == [prompt for prompt in PROMPTS for _ in range(n)]


def test_ties_go_to_the_first_drawn(model):
    rewards = [1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0, -3.0, -4.0, -3.0, -5.0]
    best = best_of_n(model, PROMPTS, lambda prompts, responses: rewards, 4, seed=1, **SAMPLING)
    assert best.responses == [best.rollout.responses[k] for k in (1, 4, 8)]
    assert best.rewards.tolist() == [2.0, 0.0, -3.0]
    assert best.rollout.responses[1] not in best.rollout.responses[2:4], (
        "the test needs ties between different texts"
    )


def test_the_seed_decides(model):
    def chosen(seed):
        return best_of_n(
            model, PROMPTS, lambda prompts, responses: map(len, responses), 4, seed=seed, **SAMPLING
        ).responses

    assert chosen(0) == chosen(0) and chosen((0, 1)) == chosen((0, 1))
    assert len({tuple(chosen(seed)) for seed in (0, 1, (0, 1))}) == 3


# --- what it gives on average ---


def over_all_subsets(rewards, values, n):
    """The definition: the value of the winner, averaged over every choice of n of the N samples. max() takes
    the first of equals.
    """
    return [
        np.mean([v[max(s, key=lambda i: r[i])] for s in combinations(range(len(r)), n)])
        for r, v in zip(rewards, values)
    ]


RNG = np.random.default_rng(0)
REWARDS = RNG.normal(size=(3, 9))
TIED = RNG.integers(0, 3, size=(3, 9))
VALUES = RNG.normal(size=(3, 9))


@pytest.mark.parametrize("rewards", [REWARDS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("n", range(1, 10))
def test_expected_best_is_the_mean_over_all_subsets(rewards, n):
    for values in (VALUES, rewards):
        result = expected_best(rewards, values, n)
        assert result.shape == (3,) and result.dtype == np.float64
        np.testing.assert_allclose(result, over_all_subsets(rewards, values, n), atol=1e-12)


def test_the_ends_are_the_mean_and_the_best():
    np.testing.assert_allclose(expected_best(REWARDS, VALUES, 1), VALUES.mean(-1))
    np.testing.assert_allclose(expected_best(REWARDS, VALUES, 9), VALUES[range(3), REWARDS.argmax(-1)])
    # the reward chooses, not the value
    assert np.abs(VALUES.max(-1) - expected_best(REWARDS, VALUES, 9)).max() > 0.1


def test_expected_best_without_bias_by_simulation():
    """From 20 samples: the mean over many draws of 20 is the exact expectation of the best of 5 fresh
    ones.
    """
    rng = np.random.default_rng(1)
    probabilities, rewards, values = rng.dirichlet(np.ones(7)), rng.normal(size=7), rng.normal(size=7)
    order = np.argsort(rewards)
    below = np.cumsum(probabilities[order])
    chance = below**5 - np.concatenate([[0], below[:-1]]) ** 5  # P(the best of 5 is this one)
    truth = float((chance * values[order]).sum())
    drawn = rng.choice(7, size=(20_000, 20), p=probabilities)
    estimates = expected_best(rewards[drawn], values[drawn], 5)
    error = estimates.std() / len(estimates) ** 0.5
    assert abs(estimates.mean() - truth) < 4 * error < 0.02
    # as if all were equally likely
    with_repetition = values[order] @ ((np.arange(1, 8) / 7) ** 5 - (np.arange(7) / 7) ** 5)
    assert abs(with_repetition - truth) > 0.05


def test_many_samples_do_not_overflow():
    """C(4096, 2048) has 1231 digits. Of 4096 ranks the best of n is at n (N + 1)/(n + 1) on average."""
    ranks = np.arange(1, 4097)[None]
    for n in (1, 2, 64, 2048, 4096):
        assert expected_best(ranks, ranks, n)[0] == pytest.approx(n * 4097 / (n + 1), rel=1e-8)


@pytest.mark.parametrize("n", [0, -1, 10])
def test_n_must_be_among_the_samples(n):
    with pytest.raises(ValueError, match=f"n, the best of 9 samples, is {n}: choose a whole number from 1"):
        expected_best(REWARDS, VALUES, n)


# --- what it costs in KL ---


def exact_kl(log_probs, rewards, n):
    return float(kl_divergence(exact.best_of_n(log_probs, rewards, n), log_probs).max())


@pytest.mark.parametrize("n", [1, 2, 4, 16, 128])
def test_the_bound_holds_and_is_reached_where_no_response_comes_twice(n):
    generator = torch.Generator().manual_seed(n)
    coarse = torch.randn(4, 12, generator=generator, dtype=torch.float64).mul(2).log_softmax(-1)
    rewards = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    assert exact_kl(coarse, rewards, n) <= kl_bound(n) + 1e-12
    assert exact_kl(coarse, rewards.round(), n) <= exact_kl(coarse, rewards, n) + 1e-12  # ties make it less
    many = 3000
    fine = torch.full((1, many), -math.log(many), dtype=torch.float64)
    assert exact_kl(fine, torch.arange(many, dtype=torch.float64)[None], n) == pytest.approx(
        kl_bound(n), abs=0.003
    )


def test_the_bound_by_hand():
    assert kl_bound(1) == 0
    assert kl_bound(2) == pytest.approx(0.6931472 - 0.5, abs=1e-6) and kl_bound(16) == pytest.approx(
        1.8350887, abs=1e-6
    )


# --- what numpy and torch users pass ---


@pytest.mark.parametrize("n", [3, 3.0, np.int64(3), np.array([3]), torch.tensor(3)])
def test_n_may_be_any_whole_number(model, n):
    np.testing.assert_array_equal(expected_best(REWARDS, VALUES, n), expected_best(REWARDS, VALUES, 3))
    assert kl_bound(n) == kl_bound(3)
    rewards = list(range(9))
    best = best_of_n(model, PROMPTS, lambda prompts, responses: rewards, n, **SAMPLING)
    assert best.rewards.tolist() == [2, 5, 8]


@pytest.mark.parametrize("n", [0, -1, 2.5, float("nan"), float("inf"), None, "3", [1, 2], 1j])
def test_n_that_is_no_whole_number(model, n):
    for act in (
        lambda: kl_bound(n),
        lambda: expected_best(REWARDS, VALUES, n),
        lambda: best_of_n(model, PROMPTS, lambda prompts, responses: [], n),
    ):
        with pytest.raises(ValueError, match=r"^n\b.*(choose a whole number|must be)[^\n]*$"):
            act()


def test_expected_best_takes_lists_tensors_and_a_trailing_1():
    right = expected_best(REWARDS, VALUES, 2)
    on_gradient = torch.tensor(REWARDS, requires_grad=True)
    for rewards in (REWARDS.tolist(), on_gradient, list(on_gradient), REWARDS[..., None]):
        np.testing.assert_array_equal(expected_best(rewards, VALUES, 2), right)


@pytest.mark.parametrize(
    ("rewards", "values", "said"),
    [
        (REWARDS, VALUES[:, :8], r"rewards are \(3, 9\), values \(3, 8\): a sample has one of each"),
        (REWARDS, VALUES[:1], r"values \(1, 9\)"),
        (REWARDS[0], VALUES[0], r"rewards must be a table of real numbers, \(n, m\), not of shape \(9,\)"),
        (REWARDS * np.nan, VALUES, "rewards must be finite numbers, here is nan"),
        (REWARDS, VALUES * np.inf, "values must be finite numbers, here is -?inf"),
        (REWARDS[:0], VALUES[:0], "rewards must hold at least one number"),
        ([[1.0, 2.0], [3.0]], VALUES, "rewards must be a table"),
    ],
)
def test_tables_of_which_there_is_no_best(rewards, values, said):
    with pytest.raises(ValueError, match=said):
        expected_best(rewards, values, 2)
