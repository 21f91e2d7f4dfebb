"""Advantages without a critic: by hand, against TRL's lines, and their mean over all draws against the exact
gradient of the micro-world.
"""

import itertools

import pytest
import torch

from minialign import policy_gradient
from minialign.advantages import group_advantages, grpo, rloo
from minialign.ppo import clipped_policy_loss, kl_penalized_rewards
from minialign.world import exact

GROUPS = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]], dtype=torch.float64)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- by hand, and as TRL has it ---


def test_rloo_by_hand():
    assert rloo(GROUPS).tolist() == [[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]]
    assert rloo(torch.tensor([1.0, 4.0])).tolist() == [-3.0, 3.0], "two are enough to leave one out"
    assert policy_gradient.rloo_advantages is rloo, "there is one implementation"


def test_grpo_by_hand():
    assert grpo(GROUPS).tolist() == [
        pytest.approx([-2 / 7**0.5, -1 / 7**0.5, 3 / 7**0.5]),
        pytest.approx([-(3**-0.5), -(3**-0.5), 2 * 3**-0.5]),
    ]
    assert grpo(torch.tensor([1.0, 4.0])).tolist() == pytest.approx([-(2**-0.5), 2**-0.5])


@pytest.mark.parametrize("n", [2, 4, 7])
def test_they_are_trls(n):
    """Its RLOOTrainer and GRPOTrainer, which add 1e-4 to the deviation."""
    rewards = random(5, n) * 3 + 100
    grouped_sum = rewards.sum(dim=1, keepdim=True)
    torch.testing.assert_close(rloo(rewards), rewards - (grouped_sum - rewards) / (n - 1))
    theirs = (rewards - rewards.mean(dim=1, keepdim=True)) / (rewards.std(dim=1, keepdim=True) + 1e-4)
    torch.testing.assert_close(grpo(rewards), theirs, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("advantages", [rloo, grpo])
def test_prompts_are_compared_apart_and_samples_in_any_order(advantages):
    rewards, order = random(3, 4), [2, 0, 3, 1]
    together = advantages(rewards)
    for row, alone in zip(together, rewards):
        torch.testing.assert_close(advantages(alone[order]), row[order])
    torch.testing.assert_close(together.sum(-1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(advantages(rewards + 7), together)
    factor = 3 if advantages is rloo else 1
    torch.testing.assert_close(advantages(3 * rewards), factor * together)
    with pytest.raises(ValueError, match="needs at least 2 samples of each prompt, here is 1"):
        advantages(torch.zeros(3, 1))


def without_guard(rewards):
    return (rewards - rewards.mean(-1, keepdim=True)) / rewards.std(-1, keepdim=True)


CONSTANTS = (0.1, 0.7, -1.7, 1 / 3, 1e-3, 1e4, -1e-7, 0.0)


@pytest.mark.parametrize("constant", CONSTANTS)
def test_equal_rewards_have_no_advantage(constant):
    """Exactly: Adam makes a full step of the smallest gradient. Others are compared all the same."""
    for n in (2, 3, 7):
        equal = torch.full((n,), constant)
        rewards = torch.stack([equal, torch.arange(n).float()])
        for advantages in (rloo, grpo):
            found = advantages(rewards)
            assert not found[0].any() and found[1].any()
            torch.testing.assert_close(found[1], advantages(rewards[1]))
        assert not torch.equal(without_guard(rewards)[0], torch.zeros(n)), "the wrong variant is not seen"


def test_a_spread_of_rounding_is_none():
    """0.1 + 0.2 is not 0.3, in float32 either: without a guard, a difference in the last bit counts as 1."""
    nearly = torch.tensor([[0.3, 0.3 + 3e-8, 0.3], [0.3, 0.4, 0.3]])
    assert nearly[0, 1] != nearly[0, 0]
    assert not grpo(nearly)[0].any() and grpo(nearly)[1].abs().max() > 1
    assert without_guard(nearly)[0].abs().max() > 1


def test_a_prompt_with_large_rewards_does_not_hide_the_spread_of_another():
    rewards = torch.tensor([[1e6, 1e6 + 1], [0.0, 0.01]])
    assert torch.equal(grpo(rewards)[1], grpo(rewards[1])) and grpo(rewards)[1].any()


# --- on tokens ---

MASK = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0]], dtype=torch.bool)


@pytest.mark.parametrize(("kind", "function"), [("rloo", rloo), ("grpo", grpo)])
def test_every_token_has_the_advantage_of_its_response(kind, function):
    scores, log_probs, reference = random(4), random(4, 4, seed=1), random(4, 4, seed=2)
    rewards = kl_penalized_rewards(scores, log_probs, reference, MASK, 0.3)
    found = group_advantages(rewards, MASK, 2, kind)
    penalised = [  # score − β log(π(y|x) / π_ref(y|x))
        float(scores[i]) - 0.3 * sum(float(log_probs[i, t] - reference[i, t]) for t in range(4) if MASK[i, t])
        for i in range(4)
    ]
    for i in range(4):
        partner = i ^ 1  # the other sample of the same prompt
        pair = torch.tensor([penalised[i], penalised[partner]], dtype=torch.float64)
        for t in range(4):
            assert float(found[i, t]) == pytest.approx(float(function(pair)[0]) if MASK[i, t] else 0.0)
    without_penalty = function(scores.view(-1, 2)).view(-1, 1) * MASK
    assert (found - without_penalty).abs().max() > 0.05 or kind == "grpo"  # of two, GRPO keeps the sign only


# --- all draws of a group, on the micro-world ---

WORLD = exact.micro_world(n=12)
P, N = WORLD.rewards.shape
POLICY, REFERENCE = (random(P, N, seed=seed).log_softmax(-1) for seed in (3, 4))
BETA = 0.3


def own_included(rewards):
    return rewards - rewards.mean(-1, keepdim=True)


def expected_gradient(advantages, k: int, penalised: bool = True) -> torch.Tensor:
    """E of PPO's gradient at ratio 1 over all N^k groups, (P, N): the reward's, of the logits."""
    policy = exact.TabularPolicy(POLICY)
    drawn = torch.tensor(list(itertools.product(range(N), repeat=k)))  # (N^k, k)
    log_probs = policy()[:, drawn]  # (P, N^k, k)
    mask = torch.ones(log_probs.numel(), 1, dtype=torch.bool)  # a response is one token
    rewards = kl_penalized_rewards(
        WORLD.rewards[:, drawn].flatten(),
        log_probs.detach().reshape(-1, 1),
        REFERENCE[:, drawn].reshape(-1, 1),
        mask,
        BETA if penalised else 0.0,
    )
    found = advantages(rewards.view(log_probs.shape))
    probability = log_probs.detach().sum(-1, keepdim=True).exp()
    weighted = (found * probability * mask.sum() / k / P).reshape(-1, 1)
    flat = log_probs.reshape(-1, 1)
    loss = clipped_policy_loss(flat, flat.detach(), weighted, mask)
    return -torch.autograd.grad(loss, policy.logits)[0]


TRUE = exact.logit_gradient(POLICY, WORLD.rewards - BETA * (POLICY - REFERENCE))


def along(gradient: torch.Tensor) -> tuple[float, float]:
    """Cosine with the exact gradient, and length in units of its length."""
    length = float(gradient.norm() / TRUE.norm())
    return float((gradient * TRUE).sum() / TRUE.norm() ** 2) / length, length


@pytest.mark.parametrize("k", [2, 3])
def test_the_expected_rloo_gradient_is_the_exact_one(k):
    torch.testing.assert_close(expected_gradient(rloo, k), TRUE, atol=1e-12, rtol=0)


@pytest.mark.parametrize("k", [2, 3])
def test_the_mean_of_all_shrinks_the_gradient(k):
    """rloo that includes the sample itself: (1 − 1/k) of the gradient."""
    torch.testing.assert_close(expected_gradient(own_included, k), TRUE * (1 - 1 / k), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "options"),
    [
        (own_included, {}),
        (lambda r: -rloo(r), {}),
        (lambda r: rloo(r.roll(1, -1)), {}),
        (rloo, {"penalised": False}),
    ],
    ids=["own sample included", "sign", "another's", "no penalty"],
)
def test_wrong_comparisons_have_another_gradient(wrong, options):
    assert (expected_gradient(wrong, 2, **options) - TRUE).norm() > 0.05 * TRUE.norm()


def test_dividing_by_the_deviation_is_a_bias():
    """Of direction, not of length alone: prompts and draws with little spread count more."""
    cosine, _ = along(expected_gradient(grpo, 3))
    assert cosine == pytest.approx(0.945, abs=0.001) and along(expected_gradient(rloo, 3))[0] > 1 - 1e-12
