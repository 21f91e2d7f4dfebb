"""The loss and its advantages against enumeration; the training loop against a world where the best answer is
known.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from minialign import policy_gradient
from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.logprobs import sequence_log_probs
from minialign.policy_gradient import PolicyGradientConfig, reinforce_loss, reward_to_go, rloo_advantages
from minialign.rollouts import roll_out
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import favour, lively_gpt, same_parameters

N = 5
LOGITS = torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
REWARDS = torch.tensor([0.3, -1.0, 2.0, 0.9, 1.4], dtype=torch.float64)


def expected_gradient(loss_of, k: int = 1) -> torch.Tensor:
    """The expectation of a loss's gradient over all draws of k responses, weighted by their probability."""
    logits = LOGITS.clone().requires_grad_()
    total = torch.zeros(N, dtype=torch.float64)
    for drawn in np.ndindex(*(N,) * k):
        log_probs = logits.log_softmax(-1)[list(drawn)]
        (gradient,) = torch.autograd.grad(loss_of(log_probs, REWARDS[list(drawn)]), logits)
        total += float(log_probs.detach().sum().exp()) * gradient
    return total


# of the loss: minus the objective's
TRUE = -exact.logit_gradient(LOGITS.log_softmax(-1)[None], REWARDS[None])[0]


def test_the_expected_gradient_is_the_policy_gradient_whatever_the_baseline():
    for baseline in (0.0, 3.0, torch.tensor([-2.0], dtype=torch.float64)):
        assert torch.allclose(
            expected_gradient(lambda lp, r: reinforce_loss(lp, r, baseline)), TRUE, atol=1e-12
        )
    assert torch.allclose(expected_gradient(reinforce_loss, k=3), TRUE, atol=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4])
def test_leave_one_out_is_unbiased_and_the_batch_mean_shrinks_the_gradient(k):
    def rloo(log_probs, rewards):
        return reinforce_loss(log_probs, rewards, rewards - rloo_advantages(rewards))

    def own_sample_included(log_probs, rewards):
        return reinforce_loss(log_probs, rewards, rewards.mean())

    assert torch.allclose(expected_gradient(rloo, k), TRUE, atol=1e-12)
    assert torch.allclose(expected_gradient(own_sample_included, k), (1 - 1 / k) * TRUE, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda lp, r: (r * lp).mean(),  # the sign
        lambda lp, r: -(r * lp.exp()).mean(),  # the probability, not its logarithm
        lambda lp, r: -(r * lp).mean() * 2,
        lambda lp, r: reinforce_loss(lp, r, lp),  # a baseline that depends on the sample
    ],
)
def test_wrong_losses_have_another_expected_gradient(wrong):
    assert not torch.allclose(expected_gradient(wrong), TRUE, atol=0.02)


def test_no_gradient_flows_into_rewards_and_baseline():
    log_probs, rewards, baseline = (torch.randn(4, requires_grad=True) for _ in range(3))
    reinforce_loss(log_probs, rewards, baseline).backward()
    assert rewards.grad is None and baseline.grad is None
    assert torch.allclose(log_probs.grad, -(rewards - baseline).detach() / 4)


def test_tokens_with_rewards_to_go_are_summed_and_sequences_averaged():
    log_probs, rewards = torch.randn(3, 5), torch.randn(3, 5)
    assert torch.allclose(reinforce_loss(log_probs, rewards), -(log_probs * rewards).sum(1).mean())
    constant = rewards[:, :1].expand(3, 5)
    assert torch.allclose(
        reinforce_loss(log_probs, constant), reinforce_loss(log_probs.sum(1), rewards[:, 0])
    )


def test_shapes_that_would_broadcast_silently_are_refused():
    with pytest.raises(ValueError, match=r"rewards \(4, 1\): they must be the same"):
        reinforce_loss(torch.zeros(4), torch.zeros(4, 1))
    with pytest.raises(ValueError, match=r"baseline \(4, 1\): they must be the same"):
        reinforce_loss(torch.zeros(4), torch.zeros(4), torch.zeros(4, 1))


def test_reward_to_go_by_hand():
    assert reward_to_go(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 5.0]])).tolist() == [
        [3.0, 2.0, 2.0],
        [5.0, 5.0, 5.0],
    ]


# --- the training loop ---

TINY = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=16)
PROMPTS = ["Hello.", "Why?", "Tell me about the moon."]
QUICK = PolicyGradientConfig(
    steps=3, prompts_per_step=2, samples_per_prompt=4, max_new_tokens=6, learning_rate=1e-2, warmup=0
)


def small_policy():
    return favour(lively_gpt(TINY), load_chat().end, 8.0).train()


def length(prompts, responses):
    return [len(response) / 10 for response in responses]


def says_nothing(prompts, responses):
    return [float(response == "") for response in responses]


def test_the_policy_learns_what_is_rewarded():
    policy = small_policy()
    history = policy_gradient.train(
        policy, PROMPTS, says_nothing, replace(QUICK, steps=40, samples_per_prompt=8)
    )
    scores = history.column("objective/scores")
    assert scores[:5].mean() < 0.7 and scores[-5:].mean() > 0.95
    assert (
        history.column("objective/entropy")[-5:].mean() < 0.5 * history.column("objective/entropy")[:5].mean()
    )


def half(policy, batch, temperature):
    return sequence_log_probs(policy, batch, temperature) / 2


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("baseline", "temperature", "log_prob"),
    [
        ("rloo", 1.0, sequence_log_probs),
        ("none", 1.0, sequence_log_probs),
        ("rloo", 2.0, sequence_log_probs),
        ("rloo", 1.0, half),
    ],
)
def test_an_update_is_the_algorithm_box(baseline, temperature, log_prob, step):
    """Sample, score, advantages, −mean of advantage · log π: written out here once more, from other parts,
    for the first two updates.
    """
    policy, seen = small_policy(), []

    def reward(prompts, responses):
        seen.append((prompts, responses))
        return length(prompts, responses)

    config = replace(QUICK, steps=2, learning_rate=1e-12, baseline=baseline, temperature=temperature)
    history = policy_gradient.train(policy, PROMPTS[:2], reward, config, log_prob=log_prob)
    prompts, responses = seen[step]
    assert len(responses) == 8 and prompts[0] == prompts[3] != prompts[4] == prompts[7]
    rollout = roll_out(
        policy,
        [prompts[0], prompts[4]],
        reward,
        n=4,
        max_new_tokens=6,
        temperature=temperature,
        seed=(0, step),
    )
    assert rollout.responses == responses
    rewards = rollout.rewards.view(2, 4)
    others = [
        rewards[:, [j for j in range(4) if j != i]].mean(1) if baseline == "rloo" else 0.0 for i in range(4)
    ]
    advantages = torch.stack([rewards[:, i] - others[i] for i in range(4)], 1)
    log_probs = sequence_log_probs(policy, rollout.batch, temperature) / (2 if log_prob is half else 1)
    loss = -(advantages.flatten() * log_probs).mean()
    policy.zero_grad()
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in policy.parameters()]).norm()
    assert history[step]["loss"] == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
    assert history[step]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)


def test_an_epoch_asks_every_prompt():
    asked = []

    def reward(prompts, responses):
        asked.extend(prompts)
        return length(prompts, responses)

    policy_gradient.train(small_policy(), PROMPTS, reward, replace(QUICK, steps=2))
    assert sorted(set(asked)) == sorted(PROMPTS) and all(
        asked.count(p) == QUICK.samples_per_prompt for p in PROMPTS
    )


def test_the_end_token_is_an_action_and_padding_is_not():
    policy = small_policy()
    rollout = roll_out(policy, PROMPTS, says_nothing, n=8, max_new_tokens=6)
    ends = rollout.batch.ids == load_chat().end
    assert bool(rollout.finished.any()) and bool(
        (rollout.batch.response_mask & ends).any(-1).equal(rollout.finished)
    )
    with torch.no_grad():
        log_probs = sequence_log_probs(policy, rollout.batch)
    # the scorer has the sampler's probabilities
    assert torch.allclose(log_probs, rollout.log_probs.sum(-1), atol=1e-4)


def test_the_same_seed_takes_the_same_path():
    policies = [small_policy() for _ in range(3)]
    histories = [
        policy_gradient.train(p, PROMPTS, length, replace(QUICK, seed=seed))
        for p, seed in zip(policies, (0, 0, 1))
    ]
    assert histories[0] == histories[1] != histories[2]
    assert same_parameters(policies[0], policies[1]) and not same_parameters(policies[0], policies[2])


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="choose 'rloo' or 'none'"):
        PolicyGradientConfig(baseline="critic")
    with pytest.raises(ValueError, match="set samples_per_prompt to 2"):
        PolicyGradientConfig(samples_per_prompt=1)
    PolicyGradientConfig(samples_per_prompt=1, baseline="none")
    for setting in ("prompts_per_step", "samples_per_prompt", "max_new_tokens"):
        with pytest.raises(ValueError, match=f"{setting} is 0: it must be at least 1"):
            PolicyGradientConfig(**{setting: 0})
    with pytest.raises(ValueError, match="temperature is 0"):
        PolicyGradientConfig(temperature=0)
    with pytest.raises(ValueError, match="empty"):
        policy_gradient.train(small_policy(), [], says_nothing, QUICK)


def test_a_broken_reward_stops_the_run_and_leaves_the_model():
    policy, before = small_policy(), small_policy()
    with pytest.raises(ValueError, match="must be a finite number"):
        policy_gradient.train(
            policy, PROMPTS, lambda prompts, responses: [float("nan")] * len(responses), QUICK
        )
    assert same_parameters(policy, before)


# --- what a small change would spoil ---


def test_rewards_to_go_are_along_the_last_axis():
    for shape in ((3,), (2, 3), (2, 2, 3)):
        rewards = torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape)
        expected = torch.stack([rewards[..., t:].sum(-1) for t in range(3)], -1)
        assert torch.equal(reward_to_go(rewards), expected)


def test_two_samples_are_enough_to_leave_one_out():
    assert PolicyGradientConfig(samples_per_prompt=2).baseline == "rloo"


def test_settings_of_every_training_run_are_checked_too():
    with pytest.raises(ValueError, match="steps is 0"):
        PolicyGradientConfig(steps=0)
