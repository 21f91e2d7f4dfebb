"""Every piece of PPO against its formula, one whole rollout against a second implementation, and the optimum
where it is known.
"""

import copy
import inspect
import itertools
import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minialign import ppo
from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.logprobs import kl_divergence, response_states, token_log_probs
from minialign.ppo import (
    Critic,
    PPOConfig,
    adapted,
    clipped_policy_loss,
    clipped_value_loss,
    gae,
    kl_penalized_rewards,
    masked_mean,
    minibatches,
    require_same,
    whiten,
)
from minialign.reward_model import RewardModel
from minialign.rollouts import roll_out
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import batch_of, favour, lively_gpt, same_parameters

# Responses of 3, 1, 4 and 2 tokens with padding on both sides, as rollouts have it.
MASK = torch.tensor(
    [[0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]], dtype=torch.bool
)
B, T = MASK.shape


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOG_PROBS, REFERENCE, OLD, VALUES, RETURNS = (random(B, T, seed=seed) * MASK for seed in range(5))
SCORES = random(B, seed=9)
ADVANTAGES = random(B, T, seed=8) * MASK


# --- rewards ---


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_rewards_add_up_to_the_penalised_score(beta):
    rewards = kl_penalized_rewards(SCORES, LOG_PROBS, REFERENCE, MASK, beta)
    expected = [
        float(SCORES[i])
        - beta * sum(float(LOG_PROBS[i, t] - REFERENCE[i, t]) for t in range(T) if MASK[i, t])
        for i in range(B)
    ]
    assert rewards.sum(-1).tolist() == pytest.approx(expected)
    assert not rewards[~MASK].any()


def require_rewards_by_hand(function):
    rewards = function(SCORES, LOG_PROBS, REFERENCE, MASK, 0.3)
    for row, last in enumerate([4, 2, 5, 5]):
        for t in range(T):
            expected = (-0.3 * (LOG_PROBS[row, t] - REFERENCE[row, t]) if MASK[row, t] else 0) + (
                SCORES[row] if t == last else 0
            )
            assert float(rewards[row, t]) == pytest.approx(float(expected)), (row, t)


def test_the_score_arrives_at_the_end_token_and_the_penalty_at_each():
    require_rewards_by_hand(kl_penalized_rewards)


def at_the_end(values, mask):
    """A number for each row, put at its last response token."""
    last = (torch.arange(mask.shape[1]) * mask).argmax(-1)
    return torch.zeros_like(mask, dtype=values.dtype).scatter(1, last[:, None], values[:, None])


@pytest.mark.parametrize(
    "wrong",
    [
        # the whole penalty on the last token: its sum is right
        lambda s, lp, ref, mask, beta: at_the_end(s - beta * ((lp - ref) * mask).sum(-1), mask),
        lambda s, lp, ref, mask, beta: kl_penalized_rewards(s, ref, lp, mask, beta),
        lambda s, lp, ref, mask, beta: kl_penalized_rewards(0 * s, lp, ref, mask, beta) + s[:, None] * mask,
        lambda s, lp, ref, mask, beta: kl_penalized_rewards(0 * s, lp, ref, mask, beta).index_add(
            1, torch.tensor([T - 1]), s[:, None]
        ),
        lambda s, lp, ref, mask, beta: at_the_end(s, mask) - beta * (torch.expm1(ref - lp) + lp - ref) * mask,
    ],
    ids=["KL on the last token", "sign", "score at every token", "score on the padding", "k3"],
)
def test_wrong_rewards_are_seen(wrong):
    with pytest.raises(AssertionError):
        require_rewards_by_hand(wrong)


def test_no_gradient_flows_through_rewards():
    tensors = [x.clone().requires_grad_() for x in (SCORES, LOG_PROBS, REFERENCE)]
    assert not kl_penalized_rewards(*tensors, MASK, 0.3).requires_grad
    # and nothing is written into them
    assert torch.equal(tensors[1], LOG_PROBS) and torch.equal(tensors[0], SCORES)


# --- advantages ---


def rows_of(*tensors):
    """The response part of each row, as lists."""
    return [[tensor[i][MASK[i]].tolist() for tensor in tensors] for i in range(B)]


def by_definition(rewards: list, values: list, gamma: float, lam: float) -> list:
    """A_t = Σ_l (γλ)^l (r_{t+l} + γ V_{t+l+1} − V_{t+l}), with V = 0 after the end. Quadratic in the
    length.
    """
    after = [*values[1:], 0.0]
    deltas = [r + gamma * v1 - v for r, v, v1 in zip(rewards, values, after)]
    return [
        sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(rewards))
    ]


def put(rows: list) -> torch.Tensor:
    result = torch.zeros(B, T, dtype=torch.float64)
    result[MASK] = torch.tensor([x for row in rows for x in row], dtype=torch.float64)
    return result


def require_gae(function, gamma, lam):
    advantages, returns = function(LOG_PROBS, VALUES, MASK, gamma, lam)
    expected = put([by_definition(r, v, gamma, lam) for r, v in rows_of(LOG_PROBS, VALUES)])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, expected + VALUES)


@pytest.mark.parametrize("gamma", [1.0, 0.9, 0.0])
@pytest.mark.parametrize("lam", [1.0, 0.95, 0.5, 0.0])
def test_gae_is_its_definition(gamma, lam):
    require_gae(gae, gamma, lam)


def returns_to_go(rewards, values, mask, gamma, lam):
    """Right for λ = 1 only."""
    returns = gae(rewards, 0 * values, mask, gamma, 1.0)[0]
    return returns - values * mask, returns


def value_after_the_end(rewards, values, mask, gamma, lam):
    """An end that is worth as much as what came before it."""
    ends = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    return gae(rewards + gamma * values * ends, values, mask, gamma, lam)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda r, v, mask, gamma, lam: gae(r - v * mask, 0 * v, mask, gamma, lam),  # V_{t+1} forgotten
        lambda r, v, mask, gamma, lam: gae(r, 0 * v, mask, gamma, lam),  # no values at all
        lambda r, v, mask, gamma, lam: gae(r, -v, mask, gamma, lam),
        lambda r, v, mask, gamma, lam: gae(r, v, mask, lam, gamma),
        lambda r, v, mask, gamma, lam: (x := gae(r, v, mask, gamma, lam)[0], x),
        lambda r, v, mask, gamma, lam: (
            gae(r, v, mask, gamma, lam)[0],
            returns_to_go(r, v, mask, gamma, 1)[1],
        ),
        returns_to_go,
        value_after_the_end,
    ],
)
def test_a_wrong_gae_is_seen(wrong):
    with pytest.raises(AssertionError):
        require_gae(wrong, 0.95, 0.9)


def test_lambda_1_is_monte_carlo_and_lambda_0_the_td_error():
    for gamma in (1.0, 0.9):
        monte_carlo, td = [], []
        for r, v in rows_of(LOG_PROBS, VALUES):
            monte_carlo.append([sum(gamma**k * x for k, x in enumerate(r[t:])) - v[t] for t in range(len(r))])
            td.append([r[t] + gamma * (v[t + 1] if t + 1 < len(v) else 0.0) - v[t] for t in range(len(r))])
        torch.testing.assert_close(gae(LOG_PROBS, VALUES, MASK, gamma, 1.0)[0], put(monte_carlo))
        torch.testing.assert_close(gae(LOG_PROBS, VALUES, MASK, gamma, 0.0)[0], put(td))
    assert (put(monte_carlo) - put(td)).abs().max() > 0.5


def test_what_stands_in_the_padding_has_no_effect():
    """A critic may say anything there: the value after the last token is 0."""
    noise = random(B, T, seed=20) * ~MASK
    for clean, dirty in zip(gae(LOG_PROBS, VALUES, MASK), gae(LOG_PROBS + noise, VALUES + noise, MASK)):
        torch.testing.assert_close(dirty, clean)
        assert not dirty[~MASK].any()


def test_masked_mean_and_whitening_see_the_mask_only():
    x = ADVANTAGES * 3 + 2  # not 0 in the padding
    seen = x[MASK]
    assert float(masked_mean(x, MASK)) == pytest.approx(float(seen.mean()))
    whitened, scaled = whiten(x, MASK), whiten(x, MASK, shift_mean=False)
    assert float(whitened[MASK].mean()) == pytest.approx(0, abs=1e-12)
    assert (
        float(whitened[MASK].std(correction=0))
        == pytest.approx(1)
        == pytest.approx(float(scaled[MASK].std(correction=0)))
    )
    torch.testing.assert_close(scaled[MASK], seen / seen.std(correction=0))
    torch.testing.assert_close(whitened[MASK], (seen - seen.mean()) / seen.std(correction=0))
    assert not whitened[~MASK].any() and not scaled[~MASK].any()


def test_equal_values_are_whitened_to_0():
    assert not whiten(torch.full((B, T), 3.0), MASK).any()


# --- losses ---


def test_policy_loss_by_cases():
    """Seen from an action: a good one is worth at most (1 + ε) A, a bad one at least (1 − ε) A, and beyond
    the other bound nothing protects.
    """
    log_probs, eps = OLD + random(B, T, seed=30) * 0.4 * MASK, 0.2
    expected, cases = [], set()
    for i, t in MASK.nonzero().tolist():
        ratio, a = math.exp(log_probs[i, t] - OLD[i, t]), float(ADVANTAGES[i, t])
        expected.append(min(ratio, 1 + eps) * a if a > 0 else max(ratio, 1 - eps) * a)
        cases.add((a > 0, 1 + eps < ratio, ratio < 1 - eps))
    assert len(cases) == 6, "the test needs all cases"
    loss = float(clipped_policy_loss(log_probs, OLD, ADVANTAGES, MASK, eps))
    assert loss == pytest.approx(-np.mean(expected))
    ratio = (log_probs - OLD).exp()
    wrong = {
        "max": -masked_mean(torch.maximum(ratio * ADVANTAGES, ratio.clamp(0.8, 1.2) * ADVANTAGES), MASK),
        "always clipped": -masked_mean(ratio.clamp(0.8, 1.2) * ADVANTAGES, MASK),
        "never clipped": -masked_mean(ratio * ADVANTAGES, MASK),
        "upside down": -masked_mean(
            torch.minimum(ADVANTAGES / ratio, (1 / ratio).clamp(0.8, 1.2) * ADVANTAGES), MASK
        ),
        "padding counted": loss * int(MASK.sum()) / (B * T),
        "rows averaged": -float(
            (
                torch.minimum(ratio * ADVANTAGES, ratio.clamp(0.8, 1.2) * ADVANTAGES).sum(-1) / MASK.sum(-1)
            ).mean()
        ),
    }
    for name, value in wrong.items():
        assert abs(loss - float(value)) > 0.005, name


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient"),
    [
        (1.0, 2.0, -2.0),
        (1.0, -2.0, 2.0),
        (1.3, 2.0, 0.0),  # good, and already much more probable: enough
        (0.7, -2.0, 0.0),  # bad, and already much less probable: enough
        (1.3, -2.0, 2.6),  # bad, but more probable: the pessimistic minimum lets the whole gradient through
        (0.7, 2.0, -1.4),  # good, but less probable: the same
        (1.19, 2.0, -2.38),
    ],
)
def test_policy_gradient_by_cases(ratio, advantage, gradient):
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    log_probs = (old + math.log(ratio)).requires_grad_()
    clipped_policy_loss(
        log_probs, old, torch.full_like(old, advantage), torch.ones(1, 1, dtype=torch.bool)
    ).backward()
    assert log_probs.grad.item() == pytest.approx(gradient)


def test_at_ratio_1_the_expected_gradient_is_the_policy_gradient():
    """All draws of one response, weighted by their probability."""
    logits, rewards = random(1, 5), random(1, 5, seed=1)
    policy = exact.TabularPolicy(logits)
    total, off_policy = torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for y in range(5):
        log_prob = policy()[:, y : y + 1]
        for old, sums in ((log_prob.detach(), total), (log_prob.detach() - 0.1, off_policy)):
            loss = clipped_policy_loss(
                log_prob, old, rewards[:, y : y + 1], torch.ones(1, 1, dtype=torch.bool)
            )
            sums += (
                float(log_prob.detach().exp())
                * torch.autograd.grad(loss, policy.logits, retain_graph=True)[0][0]
            )
    true = -exact.logit_gradient(policy().detach(), rewards)[0]
    torch.testing.assert_close(total, true)
    torch.testing.assert_close(off_policy, true * math.exp(0.1))  # ratios that do not begin at 1 are a bias


def test_value_loss_by_cases():
    values = VALUES + random(B, T, seed=31) * 0.4 * MASK
    expected, cases = [], set()
    for i, t in MASK.nonzero().tolist():
        v, old, target = float(values[i, t]), float(VALUES[i, t]), float(RETURNS[i, t])
        near = max(old - 0.2, min(old + 0.2, v))
        expected.append(max((v - target) ** 2, (near - target) ** 2) / 2)
        cases.add((near == v, (v - target) ** 2 > (near - target) ** 2))
    assert len(cases) == 3, "the test needs all cases"
    loss = float(clipped_value_loss(values, VALUES, RETURNS, MASK, 0.2))
    assert loss == pytest.approx(np.mean(expected))
    near = VALUES + (values - VALUES).clamp(-0.2, 0.2)
    errors, near_errors = (values - RETURNS) ** 2, (near - RETURNS) ** 2
    for wrong in (
        torch.minimum(errors, near_errors),
        errors,
        near_errors,
        2 * torch.maximum(errors, near_errors),
    ):
        assert abs(loss - float(masked_mean(wrong, MASK)) / 2) > 0.002


def test_value_gradient_by_cases():
    """Near the old value it is that of ½ (V − R)²; beyond the clip, on the way to the return, there is
    none.
    """
    for value, target, gradient in [(0.1, 1.0, -0.9), (0.5, 1.0, 0.0), (0.5, -1.0, 1.5), (-0.5, 1.0, -1.5)]:
        v = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
        clipped_value_loss(
            v, torch.zeros(1, 1), torch.full((1, 1), target), torch.ones(1, 1, dtype=torch.bool), 0.2
        ).backward()
        assert v.grad.item() == pytest.approx(gradient)


# --- the critic ---

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=16)
PAIRS = [([5, 6, 7], [8, 9]), ([1], [2, 3, 4, 5, 6]), ([9, 8, 7, 6], [5])]


def opinionated(critic: Critic, seed: int = 0) -> Critic:
    """A critic that expects something: a fresh one says 0."""
    with torch.no_grad():
        critic.head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
        critic.head.bias.fill_(0.3)
    return critic


@pytest.mark.parametrize("left", [0, 4])
def test_values_by_hand(left):
    """V stands at the token it was asked before, and has seen only what comes before that token."""
    critic, batch = opinionated(Critic(lively_gpt(CONFIG))), batch_of(PAIRS, left=left)
    values = critic(batch)
    assert values.shape == batch.ids.shape and not values[~batch.response_mask].any()
    for row, (x, y) in enumerate(PAIRS):
        before = [critic.trunk.hidden(torch.tensor([x + y[:t]]))[0, -1] for t in range(len(y))]
        expected = [float((state @ critic.head.weight[0] + 0.3).detach()) for state in before]
        assert values[row][batch.response_mask[row]].tolist() == pytest.approx(expected, abs=1e-3)
    assert torch.equal(critic(batch, response_states(critic.trunk, batch)), values)


def test_a_fresh_critic_expects_nothing():
    critic = Critic(lively_gpt(CONFIG))
    assert not critic(batch_of(PAIRS)).any()
    assert critic.head.weight.grad_fn is None and critic.head.weight.requires_grad


# --- the whole estimator, on all sequences of a tiny vocabulary ---


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_estimators_mean_is_the_gradient_of_the_objective(beta):
    """Responses end at token 4 or at three tokens. Σ_y π(y) (PPO's gradient at ratio 1, λ = 1) is exactly ∇(E
    r − β KL(π‖π_ref)), whatever the critic says: it knows the past only, so it is a baseline. Advantages that
    are too late or a critic that peeks would be seen.
    """
    five = GPTConfig(vocab_size=5, context=8, n_layer=1, n_head=1, n_embd=8)
    policy, reference = lively_gpt(five).double(), lively_gpt(five, seed=1).double()
    critic = opinionated(Critic(lively_gpt(five, seed=2))).double()
    complete = [y + (4,) for n in range(3) for y in itertools.product(range(4), repeat=n)]
    complete += list(itertools.product(range(4), repeat=3))
    batch = batch_of([([1, 2], list(y)) for y in complete], pad=0)
    scores, mask = random(len(complete)), batch.response_mask

    def of_parameters(value):
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(policy.parameters()))])

    log_probs = token_log_probs(policy, batch)
    probabilities = log_probs.sum(-1).exp()
    reference_log_probs = token_log_probs(reference, batch).detach()
    kl = kl_divergence(log_probs.sum(-1), reference_log_probs.sum(-1))
    true = of_parameters(probabilities @ scores - beta * kl)

    def estimated(values, lam=1.0, end_rewarded=True):
        log_probs = token_log_probs(policy, batch)
        rewards = kl_penalized_rewards(scores, log_probs, reference_log_probs, mask, beta)
        advantages, _ = gae(rewards if end_rewarded else rewards.roll(-1, 1), values, mask, lam=lam)
        weighted = advantages * probabilities.detach()[:, None] * mask.sum()  # the loss is a mean over tokens
        return -of_parameters(clipped_policy_loss(log_probs, log_probs.detach(), weighted, mask))

    values = critic(batch).detach().double()
    assert float(probabilities.sum().detach()) == pytest.approx(1)
    torch.testing.assert_close(estimated(values), true, atol=1e-9, rtol=0)
    torch.testing.assert_close(estimated(values * 0), true, atol=1e-9, rtol=0)
    peeking = torch.cat([values[:, 1:], values[:, :1] * 0], 1)
    for wrong in (estimated(peeking), estimated(values, end_rewarded=False), estimated(values, lam=0.0)):
        assert (wrong - true).norm() > 0.02 * true.norm()


# --- the training loop ---

PROMPTS = ["Hello.", "Why?", "Tell me about the moon."]
DOCUMENTS = ["The moon is far away.", "A cat.", "Nothing ever happens here, said the old man."]
QUICK = PPOConfig(
    steps=2,
    prompts_per_step=2,
    samples_per_prompt=4,
    max_new_tokens=6,
    learning_rate=1e-2,
    epochs=2,
    minibatches=2,
)


def small_policy(seed: int = 0, config: GPTConfig = CONFIG):
    return favour(lively_gpt(config, seed), load_chat().end, 6.5)


def length(prompts, responses):
    return [len(response) / 10 for response in responses]


def says_nothing(prompts, responses):
    return [float(response == "") for response in responses]


def separate_critic(seed: int = 3) -> Critic:
    return opinionated(Critic(lively_gpt(CONFIG, seed)))


def second_implementation(config: PPOConfig, shared: bool) -> tuple[dict, torch.nn.Module, torch.nn.Module]:
    """The first rollout of PPO and all its updates, once more: one response after the other, without padding
    or masks, in float64.
    """
    policy = small_policy()
    rollout = roll_out(
        policy, FIRST, length, n=4, max_new_tokens=6, temperature=config.temperature, seed=(config.seed, 0)
    )
    policy, reference = policy.double(), small_policy(seed=2).double()
    trunk = policy if shared else lively_gpt(CONFIG, 3).double()
    head = opinionated(Critic(lively_gpt(CONFIG))).head.double()
    ids = [rollout.batch.ids[i][rollout.batch.mask[i]].tolist() for i in range(8)]
    begins = [len(row) - int(rollout.batch.response_mask[i].sum()) for i, row in enumerate(ids)]

    def log_probs_of(model, i, temperature=config.temperature):
        log_probs = (model(torch.tensor([ids[i]]))[0] / temperature).log_softmax(-1)
        return torch.stack([log_probs[t - 1, ids[i][t]] for t in range(begins[i], len(ids[i]))])

    def values_of(i):
        states = trunk.hidden(torch.tensor([ids[i]]))[0]
        return torch.stack([head(states[t - 1])[0] for t in range(begins[i], len(ids[i]))])

    def over_all(rows, function):  # all tokens of all responses, as one list
        flat = function(np.array([x for row in rows for x in row])).tolist()
        return [[flat.pop(0) for _ in row] for row in rows]

    with torch.no_grad():
        old = [log_probs_of(policy, i).tolist() for i in range(8)]
        ratios = [[a - b for a, b in zip(old[i], log_probs_of(reference, i).tolist())] for i in range(8)]
        old_values = [values_of(i).tolist() for i in range(8)]
    scores = [
        s - config.missing_end_penalty * (ids[i][-1] != load_chat().end)
        for i, s in enumerate(length([], rollout.responses))
    ]
    rewards = [[-config.beta * x for x in row] for row in ratios]
    for row, s in zip(rewards, scores):
        row[-1] += s
    if config.whiten_rewards:
        rewards = over_all(rewards, lambda x: x / x.std())
    critic_free, parameters = config.advantages != "gae", list(policy.parameters())
    if critic_free:
        advantages = []
        for i, row in enumerate(rewards):
            group = [sum(rewards[j]) for j in range(i // 4 * 4, i // 4 * 4 + 4)]  # 4 responses to each prompt
            if config.advantages == "rloo":
                a = (sum(row) - np.mean(group)) * 4 / 3  # others' mean: (4 · mean − own) / 3
            else:
                a = (sum(row) - np.mean(group)) / np.std(group, ddof=1)
            advantages.append([a] * len(row))
        returns = old_values  # nobody reads them
    else:
        advantages = [by_definition(r, v, config.gamma, config.lam) for r, v in zip(rewards, old_values)]
        returns = [[a + v for a, v in zip(*rows)] for rows in zip(advantages, old_values)]
        advantages = over_all(advantages, lambda x: (x - x.mean()) / x.std())
        parameters = list(dict.fromkeys([*parameters, *trunk.parameters(), *head.parameters()]))
    optimizer = torch.optim.AdamW(parameters, betas=config.betas, eps=config.eps, weight_decay=0.0)
    updates = config.epochs * config.minibatches
    measured, ptx_losses = [], []
    rng = np.random.default_rng([config.seed, 0])
    for k, rows in enumerate(minibatches(8, config, rng)):
        policy_loss, value_loss, n, more = 0.0, 0.0, 0, []
        for i in rows.tolist():
            tokens = zip(
                log_probs_of(policy, i),
                old[i],
                advantages[i],
                values_of(i),
                old_values[i],
                returns[i],
                strict=True,
            )
            for lp, lp_old, a, v, v_old, target in tokens:
                ratio = (lp - lp_old).exp()
                policy_loss -= (
                    a * ratio.clamp(max=1 + config.clip) if a > 0 else a * ratio.clamp(min=1 - config.clip)
                )
                near = v.clamp(v_old - config.value_clip, v_old + config.value_clip)
                value_loss += max((v - target) ** 2, (near - target) ** 2) / 2
                rho = float(ratio.detach())
                more.append((math.log(rho) ** 2 / 2, abs(rho - 1) > config.clip, rho))
                n += 1
        loss = policy_loss / n + (0 if critic_free else config.value_coef * value_loss / n)
        if config.ptx_coef:
            chat, places = load_chat(), rng.integers(3, size=len(rows))
            drawn = [[*chat.encode_document(DOCUMENTS[i]), chat.separator] for i in places]
            losses = [
                F.cross_entropy(policy(torch.tensor([row]))[0, :-1], torch.tensor(row[1:]), reduction="none")
                for row in drawn
            ]
            ptx = torch.cat(losses).mean()
            loss = loss + config.ptx_coef * ptx
            ptx_losses.append(ptx.item())
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float((p.grad**2).sum()) for p in parameters if p.grad is not None))
        for p in parameters:
            if p.grad is not None:
                p.grad *= min(1.0, config.max_grad_norm / norm)
        warmup = config.warmup * updates
        left = (updates - k) / updates
        optimizer.param_groups[0]["lr"] = config.learning_rate * (
            (k + 1) / warmup if k < warmup else 0.1 + 0.9 * left
        )
        optimizer.step()
        measured.append([loss.item(), norm, policy_loss.item() / n, value_loss.item() / n, *np.mean(more, 0)])
    names = [
        "loss",
        "grad_norm",
        "loss/policy_avg",
        "loss/value_avg",
        "policy/approxkl_avg",
        "policy/clipfrac_avg",
        "val/ratio",
    ]
    kl = np.mean([sum(row) for row in ratios])
    sampled = [
        sum(config.gamma**k * r for k, r in enumerate(row[t:])) for row in rewards for t in range(len(row))
    ]
    errors = np.array(sampled) - [v for row in old_values for v in row]
    metrics = dict(zip(names, np.mean(measured, 0).tolist())) | {
        "objective/scores": np.mean(length([], rollout.responses)),
        "objective/kl": kl,
        "objective/non_score_reward": -config.beta * kl,
        "objective/rlhf_reward": np.mean(scores) - config.beta * kl,
        "objective/beta": config.beta,
        "val/explained_variance": 1 - errors.var() / np.var(sampled),
        "val/bias": -errors.mean(),
        "step": 1,
        "updates": updates,
    }
    if critic_free:
        for name in ("loss/value_avg", "val/explained_variance", "val/bias"):
            del metrics[name]
    if config.ptx_coef:
        metrics["loss/ptx"] = np.mean(ptx_losses)
    return metrics, policy, head


BASE = replace(QUICK, steps=1, learning_rate=3e-2, beta=0.2, value_coef=0.5, lam=0.95)
TWO = PROMPTS[1:]  # a short and a long one
FIRST = [TWO[i] for i in ppo.epochs([1] * 2, 2, 0)(0)]  # in the order of the first rollout
VARIANTS = {
    "base": {},
    "one update": dict(epochs=1, minibatches=1),
    "uneven minibatches": dict(minibatches=3),
    "no beta": dict(beta=0.0),
    "beta": dict(beta=2.0),
    "gamma": dict(gamma=0.8),
    "lam 0": dict(lam=0.0),
    "lam 1": dict(lam=1.0),
    "value_coef": dict(value_coef=3.0),
    "no critic loss": dict(value_coef=0.0),
    "whiten_rewards": dict(whiten_rewards=True),
    "missing_end_penalty": dict(missing_end_penalty=4.0),
    "no missing_end_penalty": dict(missing_end_penalty=0.0),
    "temperature": dict(temperature=0.7),
    "clip": dict(clip=0.05),
    "value_clip": dict(value_clip=0.02),
    "max_grad_norm": dict(max_grad_norm=1e-3),
    "warmup": dict(warmup=1),
    "ptx_coef": dict(ptx_coef=0.5),
    "rloo": dict(advantages="rloo"),
    "grpo": dict(advantages="grpo"),
    "in parts": dict(rows_per_pass=3),
    "rloo in parts": dict(advantages="rloo", rows_per_pass=3),
}
CRITIC_FREE = {"rloo", "grpo", "rloo in parts"}
NO_CHANGE = {"in parts"}  # by how much memory there is


@lru_cache
def first_rollout(variant: str, shared: bool):
    """What the engine makes of it: its history's row, the policy and the critic."""
    config, policy = replace(BASE, **VARIANTS[variant]), small_policy()
    critic = (
        None
        if variant in CRITIC_FREE
        else opinionated(Critic(policy))
        if shared
        else opinionated(Critic(lively_gpt(CONFIG, 3)))
    )
    (row,) = ppo.train(
        policy, TWO, length, config, reference=small_policy(seed=2), critic=critic, documents=DOCUMENTS
    )
    return row, policy, critic


@pytest.mark.parametrize(
    ("variant", "shared"), [(v, s) for v in VARIANTS for s in (True, False) if s or v not in CRITIC_FREE]
)
def test_a_rollout_is_the_algorithm_box(variant, shared):
    """Loss, gradient norm, every metric and the trained parameters, against a second implementation from
    other parts.
    """
    expected, policy, head = second_implementation(replace(BASE, **VARIANTS[variant]), shared)
    row, trained, critic = first_rollout(variant, shared)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=2e-3, abs=2e-4), name
    if variant in CRITIC_FREE:
        assert {"loss/value_avg", "val/explained_variance", "val/bias"}.isdisjoint(row)
    heads = ([], []) if critic is None else (critic.head.named_parameters(), head.parameters())
    for (name, p), q in zip(
        [*trained.named_parameters(), *heads[0]], [*policy.parameters(), *heads[1]], strict=True
    ):
        torch.testing.assert_close(p.double(), q, atol=2e-3, rtol=0, msg=name)
    if variant != "one update":
        assert row["policy/clipfrac_avg"] > 0 and row["policy/approxkl_avg"] > 1e-3, (
            "the test needs ratios that are clipped"
        )


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name not in {"base", *NO_CHANGE}])
def test_the_algorithm_box_sees_every_setting(variant):
    base, row = first_rollout("base", True)[0], first_rollout(variant, True)[0]
    relevant = ("loss", "grad_norm", "policy/approxkl_avg")
    assert max(abs(row[name] / base[name] - 1) for name in relevant) > 0.02


def test_metrics_carry_no_graph(recwarn):
    """Turned into numbers, a tensor with a graph makes torch warn, on a reader's screen."""
    torch.set_warn_always(True)
    try:
        ppo.train(
            small_policy(),
            PROMPTS,
            length,
            replace(QUICK, ptx_coef=0.5, whiten_rewards=True),
            documents=DOCUMENTS,
        )
    finally:
        torch.set_warn_always(False)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_before_the_first_update_of_a_rollout_nothing_has_changed(shared):
    """Ratio 1, KL 0, nothing clipped: in a run with one update a rollout, always."""
    policy = small_policy()
    critic = None if shared else separate_critic()
    once = replace(QUICK, steps=4, epochs=1, minibatches=1, learning_rate=5e-2)
    history = ppo.train(policy, PROMPTS, length, once, critic=critic)
    assert history.column("val/ratio").tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert (
        history.column("policy/approxkl_avg").max() < 1e-9 and not history.column("policy/clipfrac_avg").any()
    )
    assert history[0]["objective/kl"] == pytest.approx(0, abs=1e-5) and abs(history[-1]["objective/kl"]) > 0.1
    twice = ppo.train(small_policy(), PROMPTS, length, replace(once, epochs=2))
    assert twice.column("policy/approxkl_avg").min() > 1e-4


def test_minibatches_are_every_response_once_an_epoch():
    def drawn(n=10, seed=7):
        return minibatches(n, replace(QUICK, epochs=3, minibatches=4), np.random.default_rng(seed))

    parts = drawn()
    assert [len(part) for part in parts] == [3, 3, 2, 2] * 3
    epochs = [torch.cat(parts[i : i + 4]).tolist() for i in (0, 4, 8)]
    assert (
        all(sorted(epoch) == list(range(10)) for epoch in epochs)
        and len({str(epoch) for epoch in epochs}) == 3
    )
    assert (
        [part.tolist() for part in drawn()]
        == [part.tolist() for part in parts]
        != [part.tolist() for part in drawn(seed=8)]
    )
    assert [len(part) for part in drawn(n=2)] == [1, 1] * 3  # never an empty one


def test_parts_of_a_minibatch_hold_its_tokens_and_hardly_any_padding():
    batch = batch_of(
        [([5] * n, [6] * m) for n, m in [(3, 5), (2, 1), (9, 4), (1, 1), (4, 4), (2, 2)]], width=20
    )
    experience = ppo.Experience(batch, *(random(6, 20, seed=seed) for seed in range(4)))
    rows = [4, 0, 2, 5]
    parts = [experience[place] for place in batch.parts(3, torch.tensor(rows))]
    assert [len(part.batch) for part in parts] == [3, 1] and [part.batch.ids.shape[1] for part in parts] == [
        8,
        13,
    ]
    assert [part.weight for part in parts] == [11, 4]
    for field in vars(experience):
        ours, whole = (getattr(x, field) for x in (parts[0], experience))
        for a, b in zip(vars(ours).values(), vars(whole).values()) if field == "batch" else [(ours, whole)]:
            # in order of length: 4, 8 and 8 tokens
            assert torch.equal(a, b[torch.tensor([5, 4, 0]), :8]), field


def test_fewer_responses_than_minibatches():
    config = replace(QUICK, steps=1, prompts_per_step=2, samples_per_prompt=1, minibatches=2)
    (row,) = ppo.train(small_policy(), PROMPTS[:1], length, config)
    assert row["updates"] == 2 and math.isfinite(row["loss"])


# --- sampler, scorer and learner must agree ---


def restless_policy(dropout_when):
    """A policy whose dropout cannot be turned off, or only where `dropout_when` allows."""
    policy = small_policy(config=replace(CONFIG, dropout=0.2))

    class Restless(type(policy)):
        def hidden(self, *args, **options):
            for module in self.modules():
                module.training = dropout_when()
            return super().hidden(*args, **options)

    policy.__class__ = Restless
    return policy


def test_dropout_between_sampler_and_scorer_is_seen():
    policy = restless_policy(lambda: True)
    with pytest.raises(
        ValueError, match="sampler and scorer must agree before the first update, .* is dropout on"
    ):
        ppo.train(policy, PROMPTS, length, QUICK)


def test_dropout_in_the_updates_is_seen():
    policy = restless_policy(torch.is_grad_enabled)
    before = copy.deepcopy(policy.state_dict())
    with pytest.raises(ValueError, match="π_θ and π_old must agree before the first update"):
        ppo.train(policy, PROMPTS, length, QUICK)
    assert all(torch.equal(before[name], p) for name, p in policy.state_dict().items())


def test_another_temperature_of_the_sampler_is_seen(monkeypatch):
    monkeypatch.setattr(
        ppo, "roll_out", lambda *args, **options: roll_out(*args, **(options | {"temperature": 1.2}))
    )
    with pytest.raises(ValueError, match="sampler and scorer must agree .* at another temperature"):
        ppo.train(small_policy(), PROMPTS, length, QUICK)


def test_require_same_tells_how_large_the_difference_is():
    require_same(torch.tensor([[0.0, 5e-4, -5e-4]]), "these")
    for off in (0.25, -0.25):
        with pytest.raises(ValueError, match="these must agree .* differ by 0.25 nats"):
            require_same(torch.tensor([[0.0, off]]), "these")


def test_dropout_is_off_in_all_models():
    """Policy, reference and critic may come in training mode: PPO compares log-probabilities."""
    histories = []
    for dropout in (0.0, 0.3):
        config = replace(CONFIG, dropout=dropout)
        policy, reference, critic = (small_policy(seed, config).train() for seed in range(3))
        histories.append(
            ppo.train(
                policy,
                PROMPTS,
                length,
                QUICK,
                reference=reference,
                critic=opinionated(Critic(critic)).train(),
            )
        )
    assert histories[0] == histories[1]


# --- early stop and adaptive β ---


def test_early_stop_skips_the_rest_of_a_rollout_and_nothing_else(monkeypatch):
    """The first minibatch has KL 0, the second more than the limit, the other four are skipped: as if there
    had been two.
    """
    config = replace(QUICK, steps=3, epochs=3)
    stopped, short, full = small_policy(), small_policy(), small_policy()
    history = ppo.train(stopped, PROMPTS, length, replace(config, max_approx_kl=1e-7))
    assert history.column("updates").tolist() == [2, 2, 2]
    assert ppo.train(full, PROMPTS, length, config).column("updates").tolist() == [6, 6, 6]
    monkeypatch.setattr(ppo, "minibatches", lambda *args: minibatches(*args)[:2])
    assert ppo.train(short, PROMPTS, length, config) == history
    assert same_parameters(stopped, short) and not same_parameters(stopped, full)


def test_a_generous_limit_stops_nothing():
    limited, free = small_policy(), small_policy()
    ppo.train(limited, PROMPTS, length, replace(QUICK, max_approx_kl=1e3))
    ppo.train(free, PROMPTS, length, QUICK)
    assert same_parameters(limited, free)


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),
        (6.6, 1 + 0.1 * 0.04),
        (5.4, 1 - 0.1 * 0.04),
        (7.2, 1.008),
        (60.0, 1.008),
        (0.0, 0.992),
        (-50.0, 0.992),
    ],
)
def test_adaptive_beta_by_hand(kl, factor):
    config = PPOConfig(kl_target=6.0, horizon=1000)
    assert adapted(0.5, kl, 40, config) == pytest.approx(0.5 * factor)
    assert adapted(0.5, kl, 40, replace(config, kl_target=None)) == 0.5


@pytest.mark.parametrize(("target", "factor"), [(1e-3, 1.1), (1e6, 0.9), (None, 1.0)])
def test_beta_goes_after_the_kl(target, factor):
    """8 responses a rollout and a horizon of 16: a tenth each time, from the second rollout on."""
    config = replace(QUICK, steps=4, beta=0.1, kl_target=target, horizon=16)
    history = ppo.train(small_policy(), PROMPTS[:2], length, config, reference=small_policy(seed=2))
    assert history.column("objective/kl").min() > 1, "the test needs a KL far from both targets"
    assert history.column("objective/beta").tolist() == pytest.approx([0.1 * factor**k for k in range(4)])


def run_of_a_plant(config: PPOConfig, rule=adapted) -> list[float]:
    """The KL of 25 rollouts of 64, where a policy goes a third of the way to the KL that its β allows,
    0.5 / β nats, with noise.
    """
    beta, kl, seen, noise = config.beta, 1.0, [], np.random.default_rng(0)
    for _ in range(25):
        kl += (0.5 / beta - kl) / 3
        seen.append(kl)
        beta = rule(beta, kl * noise.normal(1, 0.15), 64, config)
    return seen


@pytest.mark.parametrize("target", [3.0, 25.0])
def test_the_target_is_reached_within_a_run(target):
    """From a β that allows 10 nats, up and down; the last five rollouts are within a fifth."""

    def misses(rule=adapted, **settings):
        config = PPOConfig(beta=0.05, kl_target=target, **settings)
        return max(abs(kl / target - 1) for kl in run_of_a_plant(config, rule)[-5:])

    def wrong_sign(beta, kl, n, config):
        return beta**2 / adapted(beta, kl, n, config)

    def per_token(beta, kl, n, config):  # of responses of 30 tokens: another unit
        return adapted(beta, kl / 30, n, config)

    assert misses() < 0.2
    assert misses(wrong_sign) > 0.5 and misses(per_token) > 0.2
    assert misses(horizon=10_000) > 0.4, "Ziegler's: β moves by 3 % in such a run"


# --- without a critic ---


@pytest.mark.parametrize("advantages", ["rloo", "grpo"])
def test_without_a_critic_none_is_made_and_the_reward_is_learned(advantages, monkeypatch):
    monkeypatch.setattr(ppo, "Critic", lambda *args: pytest.fail("a critic was made"))
    policy = favour(lively_gpt(CONFIG), load_chat().end, 7.0)
    config = replace(QUICK, steps=16, samples_per_prompt=8, learning_rate=2e-2, advantages=advantages)
    history = ppo.train(policy, PROMPTS, says_nothing, config)
    scores = history.column("objective/scores")
    assert scores[:2].mean() < 0.4 and scores[-3:].mean() > 0.85
    assert {"loss/value_avg", "val/explained_variance", "val/bias"}.isdisjoint(history[0])


@pytest.mark.parametrize("advantages", ["rloo", "grpo"])
@pytest.mark.parametrize("constant", [0.1, -1.7, 1e4])
def test_without_a_critic_equal_rewards_leave_the_policy_as_it_is(advantages, constant):
    policy = small_policy()
    config = replace(QUICK, missing_end_penalty=0.0, advantages=advantages)
    ppo.train(policy, PROMPTS, lambda prompts, responses: [constant] * len(responses), config)
    assert same_parameters(policy, small_policy())


def test_without_a_critic_none_may_be_given_and_one_sample_is_too_few():
    for advantages in ("rloo", "grpo"):
        config = replace(QUICK, advantages=advantages)
        with pytest.raises(
            ValueError, match=f"advantages is '{advantages}', which has no critic: leave the critic out"
        ):
            ppo.train(small_policy(), PROMPTS, length, config, critic=separate_critic())
        with pytest.raises(
            ValueError, match=f"{advantages} compares .*: set samples_per_prompt to 2 or more"
        ):
            replace(config, samples_per_prompt=1)
        with pytest.raises(ValueError, match=f"{advantages} has no critic: set critic_warmup to 0"):
            replace(config, critic_warmup=1)
        assert replace(config, samples_per_prompt=2).advantages == advantages
    with pytest.raises(ValueError, match="choose 'gae' or 'rloo' or 'grpo'"):
        replace(QUICK, advantages="mean")


# --- a critic that warms up ---


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_while_the_critic_warms_up_the_policy_stays_as_it_is(shared):
    """Its weights, and what it says; also where the critic is a head on its trunk. Then it learns as ever."""
    policy, seen, said = small_policy(), [], []
    critic = Critic(policy) if shared else separate_critic()
    trunk = copy.deepcopy(critic.trunk)

    def reward(prompts, responses):
        said.append(responses)
        return length(prompts, responses)

    config = replace(QUICK, steps=2, critic_warmup=3, kl_target=1.0, horizon=1)
    options = {"critic": critic, "reference": small_policy(seed=2)}
    options["on_step"] = lambda row: seen.append((copy.deepcopy(policy), copy.deepcopy(critic)))
    history = ppo.train(policy, PROMPTS[:2], reward, config, **options)
    start = small_policy()
    assert [same_parameters(start, p) for p, _ in seen] == [True, True, True, False, False]
    asked = ppo.epochs([1] * 2, 2, 0)
    for step in range(4):  # the fourth is what the policy's first update learns from
        found = roll_out(
            start, [PROMPTS[i] for i in asked(step)], length, n=4, max_new_tokens=6, seed=(0, step)
        )
        assert said[step] == found.responses
    assert len(said) == 5 and said[4] != said[3]
    heads = [Critic(trunk).head if shared else separate_critic().head, *(c.head for _, c in seen)]
    assert all(not same_parameters(a, b) for a, b in itertools.pairwise(heads))
    assert [same_parameters(trunk, c.trunk) for _, c in seen[:3]] == [shared] * 3
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5]
    for row in history[:3]:
        assert "loss/policy_avg" not in row and row["updates"] == 4 and row["learning_rate"] == 1e-2
    assert "loss/policy_avg" in history[3]
    # β follows the KL only where the policy can
    assert history.column("objective/beta")[:4].tolist() == [0.05] * 4 != history[4]["objective/beta"]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_the_first_step_of_a_warm_up_by_hand(shared):
    """½ mean (V − G)², G the sampled reward to go; its gradient is the head's alone on a shared trunk."""
    config = replace(
        BASE, critic_warmup=1, epochs=1, minibatches=1, rows_per_pass=3, gamma=0.9, value_clip=0.01
    )
    policy = small_policy()
    critic = opinionated(Critic(policy)) if shared else separate_critic()
    before = copy.deepcopy(critic)
    rows = []
    ppo.train(policy, TWO, length, config, critic=critic, reference=small_policy(2), on_step=rows.append)

    start, reference = small_policy(), small_policy(2)
    rollout = roll_out(start, FIRST, length, n=4, max_new_tokens=6, seed=(0, 0))
    mask = rollout.batch.response_mask
    log_ratio = (token_log_probs(start, rollout.batch) - token_log_probs(reference, rollout.batch)).detach()
    scores = rollout.rewards - config.missing_end_penalty * ~rollout.finished
    values, losses, wrong = before(rollout.batch), [], []
    for i in range(8):
        rewards = [-config.beta * float(x) for x in log_ratio[i][mask[i]]]
        rewards[-1] += float(scores[i])
        v = values[i][mask[i]]
        targets = by_definition(rewards, v.tolist(), 0.9, config.lam)
        for t in range(len(rewards)):
            to_go = sum(0.9**k * r for k, r in enumerate(rewards[t:]))
            losses.append((v[t] - to_go) ** 2 / 2)
            wrong.append(targets[t] ** 2 / 2)
    loss = torch.stack(losses).mean()
    assert rows[0]["loss/value_avg"] == rows[0]["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)
    assert abs(np.mean(wrong) / float(loss.detach()) - 1) > 0.02, "λ = 0.95 would be another loss"
    learned = list((before.head if shared else before).parameters())
    gradients = torch.autograd.grad(loss, learned, allow_unused=True)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None))
    assert rows[0]["grad_norm"] == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
def test_a_warm_critic_knows_the_mean_before_the_first_update(shared):
    def bias_at_the_first_update(rollouts: int) -> float:
        policy = small_policy()
        critic = Critic(policy if shared else lively_gpt(CONFIG, 3))
        config = replace(QUICK, steps=1, missing_end_penalty=0.0, beta=0.0, critic_warmup=rollouts)
        history = ppo.train(policy, PROMPTS, lambda x, y: [0.8] * len(y), config, critic=critic)
        return history[-1]["val/bias"]

    assert bias_at_the_first_update(0) == pytest.approx(-0.8)
    assert abs(bias_at_the_first_update(15)) < 0.1


# --- what is learned ---


def test_the_policy_learns_what_is_rewarded_and_when_to_stop():
    """The empty response is one token, the end: rewarding it trains that token, which is an action like any
    other.
    """
    policy = favour(lively_gpt(CONFIG), load_chat().end, 7.0)
    history = ppo.train(
        policy, PROMPTS, says_nothing, replace(QUICK, steps=16, samples_per_prompt=8, learning_rate=2e-2)
    )
    scores = history.column("objective/scores")
    assert scores[:2].mean() < 0.4 and scores[-3:].mean() > 0.85
    assert (
        history.column("objective/entropy")[-3:].mean() < 0.5 * history.column("objective/entropy")[:2].mean()
    )


def test_a_missing_end_is_unlearned_without_any_other_reward():
    config = replace(QUICK, steps=16, samples_per_prompt=8, learning_rate=2e-2, max_new_tokens=3, beta=0.0)
    finished = {}
    for penalty in (1.0, 0.0):
        history = ppo.train(
            small_policy(), PROMPTS, lambda x, y: [0.0] * len(y), replace(config, missing_end_penalty=penalty)
        )
        finished[penalty] = history.column("finished")
    assert (
        finished[1.0][:2].mean() < 0.6
        and finished[1.0][-3:].mean() > 0.85
        and finished[0.0][-3:].mean() < 0.5
    )


def test_a_large_beta_keeps_the_policy_near_the_reference():
    kl, scores = {}, {}
    for beta in (0.0, 5.0):
        history = ppo.train(
            small_policy(),
            PROMPTS,
            says_nothing,
            replace(QUICK, steps=16, samples_per_prompt=8, learning_rate=5e-3, beta=beta),
        )
        kl[beta], scores[beta] = (
            history.column("objective/kl")[-4:].mean(),
            history.column("objective/scores")[-4:].mean(),
        )
    assert kl[0.0] > 2 and kl[5.0] < 1 and scores[0.0] > scores[5.0] + 0.4


def test_the_critic_learns_to_expect_the_reward():
    """A reward that the prompt decides: from a fresh critic, whose explained variance is at most 0, to a good
    one.
    """
    config = replace(
        QUICK,
        steps=25,
        samples_per_prompt=8,
        learning_rate=1e-2,
        value_coef=1.0,
        beta=0.0,
        missing_end_penalty=0.0,
    )

    def reward(prompts, responses):
        return [3.0 if prompt == "Why?" else -1.0 for prompt in prompts]

    history = ppo.train(small_policy(), PROMPTS[:2], reward, config, critic=Critic(lively_gpt(CONFIG, 3)))
    explained = history.column("val/explained_variance")
    assert abs(explained[0]) < 1e-5 and explained[-3:].min() > 0.9


def test_the_reward_is_any_callable():
    judge = RewardModel(lively_gpt(CONFIG))
    for reward in (
        judge.score,
        length,
        lambda x, y: torch.tensor([len(text) for text in y]),
        lambda x, y: np.ones(len(y)),
        lambda x, y: map(len, y),
    ):
        (row,) = ppo.train(small_policy(), PROMPTS, reward, replace(QUICK, steps=1))
        assert math.isfinite(row["objective/scores"])


def test_a_broken_reward_stops_the_run_and_leaves_the_model():
    policy = small_policy()
    with pytest.raises(ValueError, match="must be a finite number"):
        ppo.train(policy, PROMPTS, lambda prompts, responses: [float("nan")] * len(responses), QUICK)
    assert same_parameters(policy, small_policy())


def test_an_epoch_asks_every_prompt():
    asked = []
    ppo.train(small_policy(), PROMPTS, lambda x, y: (asked.extend(x), length(x, y))[1], QUICK)
    assert sorted(asked) == sorted(PROMPTS * QUICK.samples_per_prompt)


# --- who is trained by what ---


def test_left_out_the_reference_is_a_frozen_copy_and_the_critic_a_head_on_the_policy():
    policies = [small_policy() for _ in range(2)]
    histories = [
        ppo.train(policies[0], PROMPTS, length, QUICK),
        ppo.train(policies[1], PROMPTS, length, QUICK, reference=small_policy(), critic=Critic(policies[1])),
    ]
    assert histories[0] == histories[1] and same_parameters(*policies)
    assert not same_parameters(policies[0], small_policy())


def test_the_reference_and_the_reward_model_are_not_trained():
    reference, judge = small_policy(seed=2), RewardModel(lively_gpt(CONFIG))
    before = copy.deepcopy(judge)
    ppo.train(small_policy(), PROMPTS, judge.score, QUICK, reference=reference)
    assert same_parameters(reference, small_policy(seed=2)) and same_parameters(judge, before)
    assert all(p.grad is None for p in (*reference.parameters(), *judge.parameters()))


def test_the_value_loss_trains_the_trunk_it_belongs_to():
    """One update without a common norm: with a trunk of its own, the critic's loss does not reach the policy,
    nor the policy's the critic.
    """
    once = replace(QUICK, steps=1, epochs=1, minibatches=1, max_grad_norm=math.inf)
    policies, critics, shared = {}, {}, {}
    for value_coef in (0.0, 2.0):
        policies[value_coef], critics[value_coef], shared[value_coef] = (
            small_policy(),
            separate_critic(),
            small_policy(),
        )
        config = replace(once, value_coef=value_coef)
        ppo.train(policies[value_coef], PROMPTS, length, config, critic=critics[value_coef])
        ppo.train(shared[value_coef], PROMPTS, length, config, critic=opinionated(Critic(shared[value_coef])))
    assert same_parameters(policies[0.0], policies[2.0]) and not same_parameters(
        policies[0.0], small_policy()
    )
    assert same_parameters(critics[0.0], separate_critic())
    assert not same_parameters(critics[2.0].trunk, separate_critic().trunk) and not same_parameters(
        critics[2.0].head, separate_critic().head
    )
    assert not same_parameters(shared[0.0], shared[2.0])


# --- settings and errors ---


def test_the_same_seed_takes_the_same_path():
    policies = [small_policy() for _ in range(3)]
    histories = [
        ppo.train(p, PROMPTS, length, replace(QUICK, seed=seed)) for p, seed in zip(policies, (0, 0, 1))
    ]
    assert histories[0] == histories[1] != histories[2]
    assert same_parameters(policies[0], policies[1]) and not same_parameters(policies[0], policies[2])


def test_every_rollout_and_every_seed_draw_anew(monkeypatch):
    """Prompts, responses and minibatches, each on its own: with one of them always the same, seeds still lead
    to different runs.
    """

    def drawn(seed):
        asked, answered, orders = [], [], []

        def reward(prompts, responses):
            asked.append(tuple(dict.fromkeys(prompts)))
            answered.append(
                tuple(responses[prompts.index(PROMPTS[0]) :][:4]) if PROMPTS[0] in prompts else None
            )
            return length(prompts, responses)

        def recorded(*args):
            orders.append(str(rows := minibatches(*args)))
            return rows

        monkeypatch.setattr(ppo, "minibatches", recorded)
        ppo.train(
            small_policy(),
            PROMPTS,
            reward,
            replace(QUICK, steps=6, learning_rate=1e-12, prompts_per_step=3, seed=seed),
        )
        return asked, answered, orders

    runs = [drawn(0), drawn(1)]
    for first, second in zip(*runs):
        assert first != second
    for asked, answered, orders in runs:
        assert len(set(asked)) > 1 and len(set(answered)) == len(set(orders)) == 6


def test_an_interrupt_keeps_model_and_history(capsys):
    whole, stopped, calls = small_policy(), small_policy(), []

    def reward(prompts, responses):
        calls.append(prompts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return length(prompts, responses)

    config = replace(QUICK, steps=4)
    history = ppo.train(stopped, PROMPTS, reward, config)
    seen = []
    again = ppo.train(
        whole,
        PROMPTS,
        length,
        config,
        on_step=lambda metrics: seen.append(copy.deepcopy(whole)) or metrics.update(mine=1),
    )
    assert (
        history.interrupted
        and len(history) == 2
        and "Stopped by you at step 2 of 4" in capsys.readouterr().out
    )
    assert same_parameters(stopped, seen[1])
    assert [row | {"mine": 1} for row in history] == again[:2] and again.column("mine").sum() == 4


def test_settings_that_make_no_sense():
    for setting in (
        "prompts_per_step",
        "samples_per_prompt",
        "max_new_tokens",
        "epochs",
        "minibatches",
        "rows_per_pass",
        "horizon",
    ):
        with pytest.raises(ValueError, match=f"{setting} is 0: it must be at least 1"):
            PPOConfig(**{setting: 0})
    with pytest.raises(ValueError, match="temperature is 0"):
        PPOConfig(temperature=0)
    with pytest.raises(
        ValueError, match="beta is -0.1: a negative penalty would reward leaving the reference"
    ):
        PPOConfig(beta=-0.1)
    with pytest.raises(ValueError, match="beta is nan: it must be a finite number"):
        PPOConfig(beta=math.nan)
    for target in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"kl_target is {target:g}: it must be positive"):
            PPOConfig(kl_target=target)
    with pytest.raises(ValueError, match="beta is 0, and no factor changes it: .* begin above 0"):
        PPOConfig(beta=0.0, kl_target=6.0)
    with pytest.raises(ValueError, match="critic_warmup is -1"):
        PPOConfig(critic_warmup=-1)
    with pytest.raises(ValueError, match="steps is 0"):
        PPOConfig(steps=0)
    with pytest.raises(ValueError, match="empty"):
        ppo.train(small_policy(), [], length, QUICK)
    with pytest.raises(ValueError, match="ptx_coef is 0.5: give the pre-training documents to mix in"):
        ppo.train(small_policy(), PROMPTS, length, replace(QUICK, ptx_coef=0.5))


# --- where the optimum is known ---


def trained_on_the_micro_world(
    beta: float, rewards_of=kl_penalized_rewards, loss=clipped_policy_loss, whitened: bool = False
):
    """PPO's pieces on tables, (B, 1): one token is a whole response. Returns the distance from π*, in total
    variation, of the worst prompt.

    At the optimum r − β log(π/π_ref) is β log Z whatever was drawn. A critic that knows β log Z leaves no
    noise, so sampling gets there.
    """
    world = exact.micro_world(n=24)
    n, generator = len(world.prompts), torch.Generator().manual_seed(0)
    reference = torch.randn(n, 24, generator=generator, dtype=torch.float64).log_softmax(-1)
    policy, values = exact.TabularPolicy(reference), torch.nn.Parameter(torch.zeros(n, dtype=torch.float64))
    best, _ = exact.optimal_policy(reference, world.rewards, beta)
    optimizer = torch.optim.Adam([*policy.parameters(), values], lr=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, 600)
    x, mask = torch.arange(n).repeat_interleave(64), torch.ones(n * 64, 1, dtype=torch.bool)
    for _ in range(150):
        with torch.no_grad():
            y = torch.multinomial(policy().exp(), 64, replacement=True, generator=generator).flatten()
            old, old_values = policy()[x, y][:, None], values[x][:, None].clone()
            rewards = rewards_of(world.rewards[x, y], old, reference[x, y][:, None], mask, beta)
            advantages, returns = gae(rewards, old_values, mask)
            advantages = whiten(advantages, mask) if whitened else advantages
        for _ in range(4):
            optimizer.zero_grad()
            policy_loss = loss(policy()[x, y][:, None], old, advantages, mask)
            (policy_loss + 0.5 * clipped_value_loss(values[x][:, None], old_values, returns, mask)).backward()
            optimizer.step()
            schedule.step()
    return float((policy().exp() - best.exp()).detach().abs().sum(-1).max()) / 2


@pytest.mark.parametrize("whitened", [False, True])
def test_ppo_converges_to_the_tilted_optimum(whitened):
    assert trained_on_the_micro_world(1.0, whitened=whitened) < 0.01


@pytest.mark.parametrize(
    "wrong",
    [
        lambda scores, lp, ref, mask, beta: kl_penalized_rewards(scores, lp, ref, mask, 0.0),
        lambda scores, lp, ref, mask, beta: kl_penalized_rewards(scores, lp, ref, mask, 2 * beta),
        # the sign
        lambda scores, lp, ref, mask, beta: kl_penalized_rewards(scores, ref, lp, mask, 0.5 * beta),
        # an entropy bonus
        lambda scores, lp, ref, mask, beta: kl_penalized_rewards(scores, lp, 0 * ref, mask, beta),
    ],
)
def test_wrong_rewards_converge_elsewhere(wrong):
    assert trained_on_the_micro_world(1.0, rewards_of=wrong) > 0.05


# --- what a small change would spoil ---


def test_left_out_the_settings_are_the_configs():
    for function, names in {
        gae: {"gamma": "gamma", "lam": "lam"},
        clipped_policy_loss: {"clip": "clip"},
        clipped_value_loss: {"clip": "value_clip"},
    }.items():
        parameters = inspect.signature(function).parameters
        assert {n: parameters[n].default for n in names} == {n: getattr(PPOConfig(), names[n]) for n in names}


@pytest.mark.parametrize("shared", [True, False])
def test_policy_and_critic_on_one_trunk_read_a_batch_once(shared, monkeypatch):
    policy = small_policy()
    critic, calls = Critic(policy if shared else small_policy(1)), []
    for trunk in {policy, critic.trunk}:
        monkeypatch.setattr(
            trunk, "hidden", lambda *a, inner=trunk.hidden, **k: calls.append(inner) or inner(*a, **k)
        )
    ppo.act(policy, critic, batch_of([([1, 2], [3, 4])]), 1.0)
    assert len(calls) == len(set(calls)) == (1 if shared else 2)


def test_the_critic_is_one_linear_map_on_its_trunk():
    critic = Critic(small_policy())
    assert [tuple(p.shape) for p in critic.head.parameters()] == [(1, CONFIG.n_embd), (1,)]


def test_a_rollout_of_more_than_the_horizon_changes_beta_by_a_fifth_at_most():
    config = PPOConfig(kl_target=6.0, horizon=10)
    assert adapted(0.5, 600.0, 40, config) == pytest.approx(0.6)
    assert adapted(0.5, 0.0, 40, config) == pytest.approx(0.4)


def test_a_document_that_does_not_fit_is_named_before_the_run():
    """In words that speak of documents: of prompts and responses the reader has given none."""
    documents = [*DOCUMENTS, "very " * 40]
    asked = []

    def reward(prompts, responses):
        asked.append(prompts)
        return length(prompts, responses)

    with pytest.raises(ValueError, match=r"^document 3 has \d+ tokens, the model's context .*: shorten it$"):
        ppo.train(small_policy(), PROMPTS, reward, replace(QUICK, ptx_coef=0.1), documents=documents)
    assert not asked
