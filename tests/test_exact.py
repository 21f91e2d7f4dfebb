"""The closed forms against brute force on a case small enough to write out, and against finite
differences.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy import optimize

from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.logprobs import kl_divergence, sequence_log_probs
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from minialign.world.exact import EnumeratedPolicy, TabularPolicy, micro_world
from minialign.world.judge import ATTRIBUTES, judge
from tests.engine import lively_gpt

P, N = 2, 4
GENERATOR = torch.Generator().manual_seed(0)
LOG_PROBS = torch.randn(P, N, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
REFERENCE = torch.randn(P, N, generator=GENERATOR, dtype=torch.float64).log_softmax(-1)
REWARDS = torch.tensor([[1.0, 3.0, 0.5, 3.0], [-1.0, 2.0, 2.0, 0.0]], dtype=torch.float64)  # with ties


def finite_differences(function, x: torch.Tensor, step: float = 1e-5) -> torch.Tensor:
    gradient = torch.zeros_like(x)
    for index in np.ndindex(*x.shape):
        moved = torch.zeros_like(x)
        moved[index] = step
        gradient[index] = (function(x + moved) - function(x - moved)) / (2 * step)
    return gradient


def scores_of(log_probs: torch.Tensor) -> torch.Tensor:
    """∇_logits log π(y) for every y, (N, N), by autograd; log_probs (N,)."""
    logits = log_probs.clone().requires_grad_()
    return torch.stack(
        [torch.autograd.grad(logits.log_softmax(-1)[y], logits)[0] for y in range(len(log_probs))]
    )


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


# --- closed forms ---


def test_expected_reward_is_the_sum_written_out():
    by_hand = sum(math.exp(LOG_PROBS[x, y]) * float(REWARDS[x, y]) for x in range(P) for y in range(N)) / P
    assert float(exact.expected_reward(LOG_PROBS, REWARDS)) == pytest.approx(by_hand, abs=1e-12)


def test_logit_gradient_is_autograds_and_that_of_finite_differences_and_the_score_functions():
    closed = exact.logit_gradient(LOG_PROBS, REWARDS)
    policy = TabularPolicy(LOG_PROBS)
    exact.expected_reward(policy(), REWARDS).backward()
    assert torch.allclose(policy.logits.grad, closed, atol=1e-14)

    def j(logits):
        return float(exact.expected_reward(logits.log_softmax(-1), REWARDS))

    assert relative(finite_differences(j, LOG_PROBS), closed) < 1e-6
    by_score = (
        torch.stack([(LOG_PROBS[x].exp() * REWARDS[x]) @ scores_of(LOG_PROBS[x]) for x in range(P)]) / P
    )
    assert torch.allclose(by_score, closed, atol=1e-14)
    # without E r it is another vector
    assert not torch.allclose(LOG_PROBS.exp() * REWARDS / P, closed, atol=1e-3)


@pytest.mark.parametrize("beta", [0.2, 1.0, 5.0])
def test_the_optimal_policy_is_where_an_optimizer_arrives(beta):
    best, log_z = exact.optimal_policy(REFERENCE, REWARDS, beta)
    assert torch.allclose(best.exp().sum(-1), torch.ones(P, dtype=torch.float64))
    by_hand = [sum(math.exp(REFERENCE[x, y] + REWARDS[x, y] / beta) for y in range(N)) for x in range(P)]
    assert torch.allclose(log_z.exp(), torch.tensor(by_hand, dtype=torch.float64))

    def loss(flat):
        logits = torch.tensor(flat).view(P, N).requires_grad_()
        value = -exact.kl_penalised_reward(logits.log_softmax(-1), REFERENCE, REWARDS, beta)
        (gradient,) = torch.autograd.grad(value, logits)
        return float(value.detach()), gradient.numpy().ravel()

    found = optimize.minimize(loss, np.zeros(P * N), jac=True, method="BFGS", options={"gtol": 1e-9})
    arrived = torch.tensor(found.x).view(P, N).softmax(-1)
    assert float((arrived - best.exp()).abs().sum(-1).max()) / 2 < 1e-5  # total variation
    wrong, _ = exact.optimal_policy(REFERENCE, REWARDS, 1 / beta)
    assert beta == 1.0 or float((wrong.exp() - arrived).abs().sum(-1).max()) / 2 > 0.05


def test_the_value_at_the_optimum_is_beta_log_z():
    best, log_z = exact.optimal_policy(REFERENCE, REWARDS, 0.7)
    value = exact.kl_penalised_reward(best, REFERENCE, REWARDS, 0.7)
    assert float(value) == pytest.approx(0.7 * float(log_z.mean()), abs=1e-12)
    unpenalised = float(exact.expected_reward(best, REWARDS))
    assert float(value) == pytest.approx(
        unpenalised - 0.7 * float(kl_divergence(best, REFERENCE).mean()), abs=1e-12
    )


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="beta is 0"):
        exact.optimal_policy(REFERENCE, REWARDS, 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_the_sum_over_all_draws(n):
    by_hand = torch.zeros(P, N, dtype=torch.float64)
    for x in range(P):
        for drawn in product(range(N), repeat=n):
            best = max(drawn, key=lambda y: float(REWARDS[x, y]))  # the first of equals
            by_hand[x, best] += math.prod(math.exp(LOG_PROBS[x, y]) for y in drawn)
    assert torch.allclose(exact.best_of_n(LOG_PROBS, REWARDS, n).exp(), by_hand, atol=1e-14)


def test_best_of_n_is_right_for_very_unlikely_responses_too():
    log_probs = torch.tensor([[-60.0, 0.0, -45.0, -700.0]], dtype=torch.float64).log_softmax(-1)
    rewards = torch.tensor([[3.0, 1.0, 2.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(exact.best_of_n(log_probs, rewards, 1), log_probs, atol=1e-12)
    found = exact.best_of_n(log_probs, rewards, 10)
    # n times as likely, as long as that is rare
    assert torch.allclose(found[0, [0, 2]], log_probs[0, [0, 2]] + math.log(10), atol=1e-9)
    world = micro_world()
    for n in (1, 64, 10_000):
        spread = exact.best_of_n((5 * world.rewards).log_softmax(-1), -world.rewards, n)
        assert bool(spread.isfinite().all()) and torch.allclose(
            spread.exp().sum(-1), torch.ones(4, dtype=torch.float64), atol=1e-10
        )
    with pytest.raises(ValueError, match="n is 0"):
        exact.best_of_n(log_probs, rewards, 0)


def test_gradient_variance_is_the_sum_over_all_draws():
    for baseline in (0.0, 1.3, torch.tensor([0.4, -2.0], dtype=torch.float64)):
        found = exact.gradient_variance(LOG_PROBS, REWARDS, baseline)
        for x in range(P):
            b = float(torch.as_tensor(baseline, dtype=torch.float64).expand(P)[x])
            samples = (REWARDS[x] - b)[:, None] * scores_of(LOG_PROBS[x])
            probabilities = LOG_PROBS[x].exp()
            mean = probabilities @ samples
            assert float(found[x]) == pytest.approx(
                float(probabilities @ ((samples - mean) ** 2).sum(-1)), abs=1e-12
            )
            # no baseline moves the mean
            assert torch.allclose(mean, P * exact.logit_gradient(LOG_PROBS, REWARDS)[x])


def test_the_optimal_baseline_is_where_the_variance_is_smallest():
    found = exact.optimal_baseline(LOG_PROBS.exp(), REWARDS, exact.squared_scores(LOG_PROBS))
    for x in range(P):
        by_search = optimize.minimize_scalar(
            lambda b: float(exact.gradient_variance(LOG_PROBS, REWARDS, b)[x])
        )
        assert float(found[x]) == pytest.approx(by_search.x, abs=1e-5)
    mean_reward = (LOG_PROBS.exp() * REWARDS).sum(-1)
    assert float((found - mean_reward).abs().min()) > 1e-3  # near it, and not the same


@pytest.mark.parametrize("k", [2, 3, 4])
def test_rloo_variance_is_the_sum_over_all_draws(k):
    found = exact.rloo_variance(LOG_PROBS, REWARDS, k)
    for x in range(P):
        scores, mean, second = scores_of(LOG_PROBS[x]), torch.zeros(N, dtype=torch.float64), 0.0
        for drawn in product(range(N), repeat=k):
            weight = math.prod(math.exp(LOG_PROBS[x, y]) for y in drawn)
            r = [float(REWARDS[x, y]) for y in drawn]
            estimate = sum((r[i] - (sum(r) - r[i]) / (k - 1)) * scores[y] for i, y in enumerate(drawn)) / k
            mean, second = mean + weight * estimate, second + weight * float(estimate @ estimate)
        assert torch.allclose(mean, P * exact.logit_gradient(LOG_PROBS, REWARDS)[x], atol=1e-12)
        assert float(found[x]) == pytest.approx(second - float(mean @ mean), abs=1e-12)


def test_one_sample_has_nothing_to_leave_out_and_a_baseline_is_one_number_a_prompt():
    with pytest.raises(ValueError, match="at least 2 samples"):
        exact.rloo_variance(LOG_PROBS, REWARDS, 1)
    with pytest.raises(RuntimeError):
        exact.gradient_variance(LOG_PROBS, REWARDS, torch.zeros(N))


# --- Bradley and Terry ---


def win_shares(scores):
    return torch.sigmoid(scores[:, None] - scores[None, :]).fill_diagonal_(0)


def test_bradley_terry_recovers_the_scores_of_soft_labels():
    scores = torch.tensor([0.0, 5.0, -4.0, 1.5, 9.0], dtype=torch.float64)
    assert torch.allclose(exact.bradley_terry_optimum(win_shares(scores)), scores - scores.mean(), atol=1e-8)


def test_bradley_terry_is_the_maximum_of_the_likelihood():
    wins = torch.tensor([[0, 3, 1], [1, 0, 5], [2, 1, 0]], dtype=torch.float64)
    found = exact.bradley_terry_optimum(wins)

    def log_likelihood(s):
        return float((wins * torch.nn.functional.logsigmoid(s[:, None] - s[None, :])).sum())

    assert finite_differences(log_likelihood, found).abs().max() < 1e-8
    assert float(found.sum()) == pytest.approx(0, abs=1e-12)
    assert log_likelihood(found) > log_likelihood(-found) + 0.1


def test_bradley_terry_cannot_tell_a_cycle_apart():
    cycle = torch.tensor([[0, 9, 1], [1, 0, 9], [9, 1, 0]], dtype=torch.float64)
    assert torch.allclose(exact.bradley_terry_optimum(cycle), torch.zeros(3, dtype=torch.float64), atol=1e-12)


def test_bradley_terry_says_when_there_is_no_finite_answer():
    for wins, why in (
        ([[0, 1], [0, 0]], "do not pin down"),
        ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], "do not pin down"),
        ([[0, 1e18], [1, 0]], "too lopsided"),
        ([[0, -1], [2, 0]], "negative or not finite"),
        ([[0, math.inf], [2, 0]], "negative or not finite"),
    ):
        with pytest.raises(ValueError, match=why):
            exact.bradley_terry_optimum(torch.tensor(wins, dtype=torch.float64))


def test_bradley_terry_follows_a_long_chain():
    scores = 5.0 * torch.arange(50, dtype=torch.float64)
    # only neighbours meet
    wins = win_shares(scores) * (torch.arange(50)[:, None] - torch.arange(50)).abs().eq(1)
    assert torch.allclose(exact.bradley_terry_optimum(wins), scores - scores.mean(), atol=1e-6)


# --- the micro-world ---


def test_the_micro_world_is_small_different_and_judged():
    world = micro_world()
    n = len(world.responses[0])
    assert (
        2 <= len(world.prompts) <= 6
        and 100 <= n <= 400
        and world.rewards.shape == world.lengths.shape == (len(world.prompts), n)
    )
    assert world.rewards.dtype == torch.float64
    for x, (prompt, responses) in enumerate(zip(world.prompts, world.responses)):
        assert len(set(responses)) == n and int(world.lengths[x].max()) <= exact.MAX_TOKENS
        judgements = [judge(prompt, response) for response in responses]
        assert [j.gold for j in judgements] == world.rewards[x].tolist()
        varied = {name for name in ATTRIBUTES if len({j.attributes[name] for j in judgements}) > 1}
        assert varied >= {"correctness", "audience", "politeness", "flattery", "honesty"}
        for habit in ("filler", "confidence", "hedging"):
            assert {bool(j.counts[habit]) for j in judgements} == {True, False}
    assert int(world.lengths[0, 0]) == len(load_chat().encode_response(world.responses[0][0]))


def test_the_same_seed_draws_the_same_responses():
    micro_world.cache_clear()
    first = micro_world()
    micro_world.cache_clear()
    assert micro_world().responses == first.responses and micro_world(seed=1).responses != first.responses


def test_what_the_micro_world_cannot_be_made_of():
    with pytest.raises(ValueError, match="names no real topic"):
        micro_world(("What is the time?",))
    with pytest.raises(ValueError, match="only 246 possible responses"):
        micro_world(n=500)


# --- policies on it ---

SMALL = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=48, n_layer=1, n_head=2, n_embd=8)


@pytest.fixture(scope="module")
def small():
    """A micro-world of two prompts with six responses each, and a GPT in float64 that reads it."""
    return micro_world(exact.PROMPTS[:2], n=6), lively_gpt(SMALL).double()


def test_a_gpt_on_the_micro_world_is_itself_renormalised(small):
    world, model = small
    policy = EnumeratedPolicy(model, world)
    with torch.no_grad():
        log_probs, joint = policy(), policy.joint()
        for x, prompt in enumerate(world.prompts):
            for y, response in enumerate(world.responses[x]):
                alone = float(sequence_log_probs(model, load_chat().collate([(prompt, response)])))
                assert float(joint[x, y]) == pytest.approx(alone, abs=1e-10)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(policy.off_set_mass(), 1 - joint.exp().sum(-1), atol=1e-15)
    # proportions stay
    assert torch.allclose(log_probs[:, 1:] - log_probs[:, :1], joint[:, 1:] - joint[:, :1])


def test_the_gpts_exact_gradient_is_that_of_finite_differences(small):
    world, model = small
    policy = EnumeratedPolicy(model, world)
    exact.expected_reward(policy(), world.rewards).backward()
    for name, parameter in model.named_parameters():
        direction = torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        analytic = float((parameter.grad * direction).sum())
        start, values = parameter.detach().clone(), []
        for step in (1e-6, -1e-6):
            parameter.data = start + step * direction
            with torch.no_grad():
                values.append(float(exact.expected_reward(policy(), world.rewards)))
        parameter.data = start
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(analytic, rel=1e-5, abs=1e-9), name
    model.zero_grad()


def test_one_interface_for_a_table_and_a_gpt(small):
    world, model = small
    for policy in (TabularPolicy(torch.zeros_like(world.rewards)), EnumeratedPolicy(model, world)):
        log_probs = policy()
        assert log_probs.shape == world.rewards.shape and log_probs.dtype == torch.float64
        exact.expected_reward(log_probs, world.rewards).backward()
        assert all(p.grad is not None for p in policy.parameters())
        policy.zero_grad()
