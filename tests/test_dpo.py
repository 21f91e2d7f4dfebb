"""The losses against Bradley and Terry's model and finite differences, the training against a naive one, TRL,
and the known optimum.
"""

import copy
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from minialign import dpo
from minialign.chat import load_chat
from minialign.dpo import (
    DPOConfig,
    OnlineDPOConfig,
    conservative_dpo_loss,
    dpo_loss,
    dpop_loss,
    gradient_weight,
    implicit_reward,
    ipo_loss,
    rpo_loss,
)
from minialign.gpt import GPTConfig
from minialign.preferences import Preference, read_preferences
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import favour, gpt2, lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=2, n_head=2, n_embd=16)
QUICK = DPOConfig(steps=3, learning_rate=1e-2, warmup=0, prompts_per_step=2, beta=0.3)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why is the sky blue?"]
ANSWERS = ("Yes!", "Maybe so.", "No, never, not at all.")
BETTER = [Preference(x, ANSWERS[i], ANSWERS[j]) for i, j in ((0, 1), (1, 2), (0, 2)) for x in PROMPTS]


@pytest.fixture()
def policy():
    return lively_gpt(CONFIG)


# --- the losses ---

LOGPS = tuple(-5 + torch.randn(4, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2)
BETA = 0.3


def win_probability(w, lose, ref_w, ref_lose, beta=BETA) -> float:
    """Bradley and Terry's, with strengths (π/π_ref)^β, in probabilities: what the logarithms must agree
    with.
    """
    strength_w, strength_l = (
        (math.exp(p) / math.exp(ref)) ** beta for p, ref in ((w, ref_w), (lose, ref_lose))
    )
    return strength_w / (strength_w + strength_l)


P = np.array([win_probability(*four) for four in torch.stack(LOGPS, 1).tolist()])


def test_the_loss_is_minus_the_log_likelihood_of_the_choices():
    losses, chosen, rejected = dpo_loss(*LOGPS, BETA)
    np.testing.assert_allclose(losses, -np.log(P), atol=1e-12)
    np.testing.assert_allclose(chosen, BETA * (LOGPS[0] - LOGPS[2]), atol=1e-12)
    np.testing.assert_allclose(rejected, BETA * (LOGPS[1] - LOGPS[3]), atol=1e-12)
    w, lose, ref_w, ref_lose = LOGPS
    wrong = {
        "chosen and rejected swapped": dpo_loss(lose, w, ref_lose, ref_w, BETA),
        "no β": dpo_loss(*LOGPS, 1.0),
        "β squared": dpo_loss(*LOGPS, BETA**2),
        "β inverted": dpo_loss(*LOGPS, 1 / BETA),
        "no reference": dpo_loss(w, lose, 0 * ref_w, 0 * ref_lose, BETA),
        "the references swapped": dpo_loss(w, lose, ref_lose, ref_w, BETA),
        "policy and reference swapped": dpo_loss(ref_w, ref_lose, w, lose, BETA),
    }
    for name, (values, _, _) in wrong.items():
        assert (losses - values).abs().max() > 0.1, name


def test_a_policy_that_is_the_reference_costs_ln_2():
    losses, chosen, rejected = dpo_loss(LOGPS[0], LOGPS[1], LOGPS[0], LOGPS[1], BETA)
    assert losses.tolist() == pytest.approx([math.log(2)] * 7) and not chosen.any() and not rejected.any()


def test_a_constant_for_each_prompt_changes_nothing():
    """Whatever multiplies the policy's probabilities of both responses cancels, as Z(x) does."""
    shift = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(
        dpo_loss(LOGPS[0] + shift, LOGPS[1] + shift, *LOGPS[2:], BETA)[0],
        dpo_loss(*LOGPS, BETA)[0],
        rtol=0,
        atol=1e-12,
    )
    assert (dpo_loss(LOGPS[0] + shift, *LOGPS[1:], BETA)[0] - dpo_loss(*LOGPS, BETA)[0]).abs().max() > 0.5


def test_a_hopeless_pair_has_a_finite_loss_and_a_gradient():
    chosen = torch.tensor([-4000.0], requires_grad=True)
    loss, _, _ = dpo_loss(chosen, torch.zeros(1), torch.zeros(1), torch.zeros(1), 0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(400) and chosen.grad.item() == pytest.approx(-0.1)


LENGTHS = torch.tensor([3, 1, 7, 4, 2, 9, 5])
ALL = {
    "dpo": dpo_loss,
    "cdpo": conservative_dpo_loss,
    "ipo": ipo_loss,
    "rpo": partial(rpo_loss, chosen_lengths=LENGTHS),
    "dpop": partial(dpop_loss, dpop_lambda=5.0),
}


@pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
def test_gradients_by_finite_differences(loss):
    arguments = [x.clone().requires_grad_() for x in LOGPS[:2]] + [*LOGPS[2:]]
    loss(*arguments, BETA)[0].sum().backward()
    for which in (0, 1):
        for i in range(7):
            nudge = torch.zeros(7, dtype=torch.float64)
            nudge[i] = 1e-6
            up, down = (
                loss(*(x + sign * nudge if k == which else x for k, x in enumerate(LOGPS)), BETA)[0].sum()
                for sign in (1, -1)
            )
            assert float(arguments[which].grad[i]) == pytest.approx(float(up - down) / 2e-6, abs=1e-7)


def test_the_gradient_is_the_weight_times_the_difference_of_the_scores(policy):
    """∇L = −β σ(r̂_l − r̂_w) (∇ log π(y_w) − ∇ log π(y_l)), on a model; a sign, β, or the other σ would
    show.
    """
    policy = policy.double()
    batch = load_chat().collate([("Hello.", "Yes!"), ("Hello.", "No.")])

    def gradients(scalar):
        return torch.cat(
            [g.flatten() for g in torch.autograd.grad(scalar, list(policy.parameters()), retain_graph=True)]
        )

    logps = dpo.sequence_log_probs(policy, batch)
    reference = logps.detach() + torch.tensor([0.7, -1.1])
    losses, w, lose = dpo_loss(logps[:1], logps[1:], reference[:1], reference[1:], BETA)
    direction = gradients(logps[0]) - gradients(logps[1])
    torch.testing.assert_close(
        gradients(losses.sum()), -gradient_weight(w, lose, BETA) * direction, atol=1e-10, rtol=0
    )
    for name, weight in {
        "sign": -gradient_weight(w, lose, BETA),
        "β": gradient_weight(w, lose, 1.0),
        "σ": gradient_weight(lose, w, BETA),
    }.items():
        assert (gradients(losses.sum()) + weight * direction).abs().max() > 1e-2, name


def test_smoothed_labels_are_the_mean_over_labels_that_may_be_wrong():
    smoothed, chosen, _ = conservative_dpo_loss(*LOGPS, BETA, label_smoothing=0.2)
    np.testing.assert_allclose(smoothed, -0.8 * np.log(P) - 0.2 * np.log(1 - P), atol=1e-12)
    torch.testing.assert_close(chosen, dpo_loss(*LOGPS, BETA)[1])
    torch.testing.assert_close(
        conservative_dpo_loss(*LOGPS, BETA, label_smoothing=0.0)[0], dpo_loss(*LOGPS, BETA)[0]
    )
    for wrong in (-0.1, 0.5, 1.0):
        with pytest.raises(ValueError, match="the share of wrong labels lies between 0 and 0.5"):
            conservative_dpo_loss(*LOGPS, BETA, label_smoothing=wrong)


def test_ipo_is_a_square_around_its_goal():
    losses, chosen, rejected = ipo_loss(*LOGPS, BETA)
    ratios = [(w - ref_w) - (lose - ref_l) for w, lose, ref_w, ref_l in torch.stack(LOGPS, 1).tolist()]
    assert losses.tolist() == pytest.approx([(h - 0.5 / BETA) ** 2 for h in ratios])
    torch.testing.assert_close((chosen, rejected), dpo_loss(*LOGPS, BETA)[1:])


def test_rpo_adds_the_negative_log_likelihood_per_token():
    losses, chosen, rejected = rpo_loss(*LOGPS, BETA, LENGTHS, sft_coef=0.7)
    w, lose = LOGPS[:2]
    by_hand = [
        -math.log(p) + 0.7 * -logp / length for p, logp, length in zip(P, w.tolist(), LENGTHS.tolist())
    ]
    np.testing.assert_allclose(losses, by_hand, atol=1e-12)
    torch.testing.assert_close((chosen, rejected), dpo_loss(*LOGPS, BETA)[1:])
    wrong = {
        "a sum over tokens": dpo_loss(*LOGPS, BETA)[0] - 0.7 * w,
        "the other sign": rpo_loss(*LOGPS, BETA, LENGTHS, sft_coef=-0.7)[0],
        "of y_l": dpo_loss(*LOGPS, BETA)[0] - 0.7 * lose / LENGTHS,
        "in units of β": rpo_loss(*LOGPS, BETA, LENGTHS, sft_coef=0.7 * BETA)[0],
        "none": dpo_loss(*LOGPS, BETA)[0],
    }
    for name, values in wrong.items():
        assert (losses - values).abs().max() > 0.1, name
    on_ipo = rpo_loss(*LOGPS, BETA, LENGTHS, sft_coef=0.7, loss=ipo_loss)[0]
    torch.testing.assert_close(on_ipo - losses, ipo_loss(*LOGPS, BETA)[0] - dpo_loss(*LOGPS, BETA)[0])


def test_rpo_is_trls_sum_of_sigmoid_and_sft():
    """TRL takes the mean over the tokens of a batch, which is the mean of means where lengths are equal."""
    tokens = -torch.rand(7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logps = (tokens.sum(-1), *LOGPS[1:])
    delta = (logps[0] - logps[2]) - (logps[1] - logps[3])
    theirs = torch.log1p(torch.exp(-BETA * delta)).mean() + 0.7 * -tokens.mean()
    ours = rpo_loss(*logps, BETA, torch.full((7,), 4), sft_coef=0.7)[0].mean()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-12)


def test_dpop_makes_a_chosen_response_that_lost_probability_cost_more():
    """One pair after the other, in plain numbers; in some of them y_w lost probability, in others not."""
    losses, chosen, rejected = dpop_loss(*LOGPS, BETA, dpop_lambda=2.0)
    rows = torch.stack(LOGPS, 1).tolist()

    def plain(inside):
        return torch.tensor([math.log1p(math.exp(-inside(*row))) for row in rows], dtype=torch.float64)

    def h(w, lose, ref_w, ref_l):
        return (w - ref_w) - (lose - ref_l)

    right = plain(lambda *row: BETA * (h(*row) - 2.0 * max(0.0, row[2] - row[0])))
    torch.testing.assert_close(losses, right, rtol=0, atol=1e-12)
    torch.testing.assert_close((chosen, rejected), dpo_loss(*LOGPS, BETA)[1:])
    lost = LOGPS[0] < LOGPS[2]
    assert 0 < lost.sum() < 7
    torch.testing.assert_close(losses[~lost], dpo_loss(*LOGPS, BETA)[0][~lost])
    wrong = {
        "a penalty outside of β": plain(lambda *row: BETA * h(*row) - 2.0 * max(0.0, row[2] - row[0])),
        "the other sign": plain(lambda *row: BETA * (h(*row) + 2.0 * max(0.0, row[2] - row[0]))),
        "of y_w that gained": plain(lambda *row: BETA * (h(*row) - 2.0 * max(0.0, row[0] - row[2]))),
        "of y_l": plain(lambda *row: BETA * (h(*row) - 2.0 * max(0.0, row[3] - row[1]))),
        "no max": plain(lambda *row: BETA * (h(*row) - 2.0 * (row[2] - row[0]))),
        "λ = 0, DPO": dpo_loss(*LOGPS, BETA)[0],
    }
    for name, values in wrong.items():
        assert (losses - values).abs().max() > 0.1, name


def test_dpop_starts_as_dpo():
    """Where nothing is lost yet, at the reference, there is no penalty and no gradient of one."""
    chosen = LOGPS[0].clone().requires_grad_()
    for loss in (dpo_loss, dpop_loss):
        chosen.grad = None
        losses, _, _ = loss(chosen, LOGPS[1], LOGPS[0], LOGPS[1], BETA)
        losses.sum().backward()
        assert losses.tolist() == pytest.approx([math.log(2)] * 7)
        assert chosen.grad.tolist() == pytest.approx([-BETA / 2] * 7)


def test_two_cures_of_displacement():
    """y_w and y_l share a feature, and what tells them apart favours a third response still more: DPO makes
    y_w less likely on the way. Both cures find the other way, up the feature that y_w has.
    """
    features = torch.tensor([[0.0, 0.5], [-1.0, 0.5], [2.0, 0.0]], dtype=torch.float64)

    def trained(loss):
        weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        reference = (features @ weights).detach().log_softmax(-1)
        optimizer = torch.optim.Adam([weights], lr=0.02)
        for _ in range(300):
            optimizer.zero_grad()
            logps = (features @ weights).log_softmax(-1)
            loss(logps[:1], logps[1:2], reference[:1], reference[1:2], BETA)[0].sum().backward()
            optimizer.step()
        return (features @ weights).detach().softmax(-1)

    assert trained(dpo_loss)[0] < 0.05
    for cure in (partial(rpo_loss, chosen_lengths=torch.ones(1)), partial(dpop_loss, dpop_lambda=5.0)):
        y_w, y_l, _ = trained(cure)
        assert y_w > 1 / 3 - 0.01 and y_w > 1.5 * y_l


@pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
def test_implicit_rewards_are_constants(loss):
    losses, chosen, rejected = loss(*(x.clone().requires_grad_() for x in LOGPS[:2]), *LOGPS[2:], BETA)
    assert losses.requires_grad and not chosen.requires_grad and not rejected.requires_grad


def best_of_two(loss, beta: float, steps: int = 4000) -> float:
    """π(y_w) of a table of two responses, the first always preferred, after training; it starts from a
    uniform reference.
    """
    policy = exact.TabularPolicy(torch.zeros(1, 2))
    reference = policy().detach()[0]
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        logps = policy()[0]
        loss(logps[:1], logps[1:], reference[:1], reference[1:], beta)[0].sum().backward()
        optimizer.step()
    return float(policy().detach()[0, 0].exp())


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_deterministic_preferences(beta):
    """DPO goes to certainty whatever β; IPO stops at σ(1/(2β)), cDPO at (1 − ε)-to-ε odds to the power
    1/β.
    """
    assert best_of_two(dpo_loss, beta) > 0.999
    assert best_of_two(ipo_loss, beta) == pytest.approx(1 / (1 + math.exp(-0.5 / beta)), abs=1e-3)
    assert best_of_two(conservative_dpo_loss, beta) == pytest.approx(
        1 / (1 + (0.1 / 0.9) ** (1 / beta)), abs=1e-3
    )


# --- the optimum: all pairs, each with its true probability ---


def fitted(
    world: exact.MicroWorld, reference: torch.Tensor, beta: float, reference_in_loss=None, beta_in_loss=None
) -> torch.Tensor:
    """log π (P, N) of a table after DPO on all pairs of responses, weighted by how often the rewards'
    Bradley-Terry model prefers them.
    """
    policy = exact.TabularPolicy(reference)
    probability = torch.sigmoid(world.rewards[:, :, None] - world.rewards[:, None, :])
    ref = reference if reference_in_loss is None else reference_in_loss
    optimizer = torch.optim.LBFGS(
        policy.parameters(),
        max_iter=500,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        w, lose = policy()[:, :, None], policy()[:, None, :]
        losses, _, _ = dpo_loss(
            w, lose, ref[:, :, None], ref[:, None, :], beta if beta_in_loss is None else beta_in_loss
        )
        loss = (probability * losses).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return policy().detach()


def test_the_minimum_is_the_optimum_of_rlhf():
    world, beta = exact.micro_world(n=48), 0.5
    reference = torch.randn(
        world.rewards.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).log_softmax(-1)
    optimum, _ = exact.optimal_policy(reference, world.rewards, beta)

    def distance(log_probs):
        return float((log_probs.exp() - optimum.exp()).abs().sum(-1).max() / 2)

    assert distance(found := fitted(world, reference, beta)) < 1e-4 < 0.2 < distance(reference)
    rewards = implicit_reward(found, reference, beta)
    difference = (rewards - world.rewards) - (rewards - world.rewards)[:, :1]
    assert difference.abs().max() < 2e-3
    assert distance(fitted(world, reference, beta, reference_in_loss=torch.zeros_like(reference))) > 0.05
    assert distance(fitted(world, reference, beta, beta_in_loss=beta**2)) > 0.05


# --- training ---


def by_hand(model, prompt: str, response: str) -> float:
    """log π(y|x), one row, token by token."""
    asked, answered = load_chat().encode_prompt(prompt), load_chat().encode_response(response)
    assert answered[-1] == load_chat().end
    with torch.no_grad():
        log_probs = model(torch.tensor([asked + answered]))[0].log_softmax(-1)
    return sum(float(log_probs[len(asked) + i - 1, token]) for i, token in enumerate(answered))


def naive(model, reference, pairs, beta) -> dict[str, float]:
    """The metrics of a step, each response read alone, as often as it occurs."""
    (w, lose), (ref_w, ref_l) = (
        np.array(
            [[by_hand(m, p.prompt, getattr(p, which)) for p in pairs] for which in ("chosen", "rejected")]
        )
        for m in (model, reference)
    )
    z = beta * ((w - ref_w) - (lose - ref_l))
    return {
        "loss": np.log1p(np.exp(-z)).mean(),
        "rewards/chosen": beta * (w - ref_w).mean(),
        "rewards/rejected": beta * (lose - ref_l).mean(),
        "rewards/margins": z.mean(),
        "rewards/accuracies": (z > 0).mean(),
        "logps/chosen": w.mean(),
        "logps/rejected": lose.mean(),
    }


def test_a_step_is_the_naive_loss_over_pairs(policy):
    """Some pairs twice, and unequally many for each prompt: pairs count, not prompts and not responses; each
    different response is read once.
    """
    pairs = [*BETTER, BETTER[0], BETTER[0], Preference(PROMPTS[0], "No, never, not at all.", "Yes!")]
    reference = lively_gpt(CONFIG, seed=1)
    expected = naive(policy, reference, pairs, QUICK.beta)
    rows, hidden = [], policy.hidden
    policy.hidden = lambda ids, *args, **options: (rows.append(len(ids)), hidden(ids, *args, **options))[1]
    (metrics,) = dpo.train(policy, pairs, replace(QUICK, steps=1, prompts_per_step=3), reference=reference)
    assert rows == [9]
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert (
        0 < metrics["rewards/accuracies"] < 1
        and metrics["grad_norm"] > 0
        and abs(metrics["rewards/margins"]) > 0.02
    )


def test_the_sft_term_is_a_mean_over_pairs_of_means_over_tokens(policy):
    """Added to the loss that is given; of y_w only, as often as it is chosen, its end included."""
    reference = lively_gpt(CONFIG, seed=1)
    lengths = [len(load_chat().encode_response(p.chosen)) for p in BETTER]
    logps = np.array([by_hand(policy, p.prompt, p.chosen) for p in BETTER])
    per_token = float(np.mean(-logps / lengths))
    config = replace(QUICK, steps=1, prompts_per_step=3)
    for loss in (dpo_loss, ipo_loss):
        (plain,) = dpo.train(copy.deepcopy(policy), BETTER, config, loss=loss, reference=reference)
        with_sft = replace(config, sft_coef=0.7)
        (row,) = dpo.train(copy.deepcopy(policy), BETTER, with_sft, loss=loss, reference=reference)
        assert row["nll_loss"] == pytest.approx(per_token, abs=1e-4)
        assert row["loss"] - plain["loss"] == pytest.approx(0.7 * per_token, abs=1e-4)
        assert row["rewards/margins"] == plain["rewards/margins"] and "nll_loss" not in plain
    assert abs(per_token - float(-logps.sum() / sum(lengths))) > 1e-2, "a mean over all tokens would not show"


def test_cached_reference_log_probs_are_the_live_ones(policy):
    cached = dpo.reference_log_probs(policy, BETTER)
    assert len(cached) == 9
    for (prompt, response), value in cached.items():
        assert value == pytest.approx(by_hand(policy, prompt, response), abs=1e-4)


def test_training_with_the_cache_is_training_with_a_frozen_copy(policy):
    """After some updates the policy has moved; the metrics are still those of a live reference."""
    start, before = copy.deepcopy(policy), []
    config = replace(QUICK, prompts_per_step=3)
    history = dpo.train(policy, BETTER, config, on_step=lambda metrics: before.append(copy.deepcopy(policy)))
    for moved, metrics in zip(before, history[1:]):
        expected = naive(moved, start, BETTER, QUICK.beta)
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name
    assert abs(history[-1]["rewards/margins"] - history[0]["rewards/margins"]) > 0.1


def test_training_starts_at_ln_2_and_without_dropout():
    policy = lively_gpt(replace(CONFIG, dropout=0.3)).train()
    history = dpo.train(policy, BETTER, replace(QUICK, prompts_per_step=3))
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert history[0]["rewards/chosen"] == pytest.approx(0, abs=1e-5) and history[0][
        "rewards/margins"
    ] == pytest.approx(0, abs=1e-5)
    assert history[-1]["loss"] < history[0]["loss"] and not policy.training


def test_what_is_preferred_is_learned(policy):
    """Responses with an exclamation mark are liked better; the words and prompts of the test were never seen
    together.
    """
    words = ["Yes", "No", "It is", "Perhaps", "The moon", "Nobody knows", "Of course", "Well"]
    asked = [
        f"{a} {b}?" for a in ("Why", "How", "When", "Who") for b in ("is it", "was that", "are we", "does it")
    ]
    pairs = [
        Preference(x, f"{words[(i + k) % 8]}!", f"{words[(i + k + 3) % 8]}.")
        for i, x in enumerate(asked)
        for k in range(3)
    ]
    train, test = pairs[:36], pairs[36:]
    start = copy.deepcopy(policy)

    def accuracy():
        rewards = [
            [by_hand(policy, p.prompt, y) - by_hand(start, p.prompt, y) for y in (p.chosen, p.rejected)]
            for p in test
        ]
        return np.mean([w > lose for w, lose in rewards])

    assert accuracy() == 0
    history = dpo.train(policy, train, DPOConfig(steps=40, learning_rate=1e-2, warmup=0))
    assert history[-1]["loss"] < 0.3 and history[-1]["rewards/accuracies"] > 0.95 and accuracy() > 0.9


def test_the_reference_stays_as_it_was(policy):
    reference = lively_gpt(CONFIG, seed=1)
    dpo.train(policy, BETTER, QUICK, reference=reference)
    assert same_parameters(reference, lively_gpt(CONFIG, seed=1)) and not same_parameters(
        policy, lively_gpt(CONFIG)
    )


def test_the_same_seed_takes_the_same_path():
    models = [lively_gpt(CONFIG) for _ in range(3)]
    histories = [
        dpo.train(m, BETTER, replace(QUICK, prompts_per_step=1, seed=seed))
        for m, seed in zip(models, (0, 0, 3))
    ]
    assert histories[0] == histories[1] != histories[2]
    assert same_parameters(models[0], models[1]) and not same_parameters(models[0], models[2])


def test_the_readers_own_file(policy, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected, "who": "me"}) + "\n"
            for p in BETTER
        )
    )
    assert len(dpo.train(policy, read_preferences(path), QUICK)) == 3


@pytest.mark.parametrize("loss", [conservative_dpo_loss, ipo_loss, partial(dpop_loss, dpop_lambda=5)])
def test_other_losses_train_too(policy, loss):
    history = dpo.train(policy, BETTER, replace(QUICK, steps=20, prompts_per_step=3), loss=loss)
    assert history[-1]["loss"] < history[0]["loss"] and history[-1]["rewards/accuracies"] == 1


def test_the_loss_that_is_given_is_the_one_that_is_trained_with(policy):
    """One that teaches nothing, in both loops."""

    def flat(policy_chosen_logps, *others):
        return policy_chosen_logps * 0.0, policy_chosen_logps.detach(), policy_chosen_logps.detach()

    def length(prompts, responses):
        return [len(text) / 10 for text in responses]

    online = OnlineDPOConfig(**(vars(QUICK) | dict(samples_per_prompt=4, max_new_tokens=3)))
    for train, *arguments in ((dpo.train, BETTER, QUICK), (dpo.train_online, PROMPTS, length, online)):
        learner, other = copy.deepcopy(policy), copy.deepcopy(policy)
        assert train(learner, *arguments, loss=flat).column("loss").tolist() == [0.0] * 3
        train(other, *arguments)
        assert same_parameters(learner, policy) and not same_parameters(other, policy)


def test_errors_say_what_to_do(policy):
    with pytest.raises(ValueError, match="beta is 0: it must be positive"):
        DPOConfig(beta=0)
    with pytest.raises(ValueError, match="sft_coef is -1: it must be at least 0"):
        DPOConfig(sft_coef=-1)
    with pytest.raises(ValueError, match="dpop_lambda is -1: it must be at least 0, which is DPO"):
        dpop_loss(*LOGPS, BETA, dpop_lambda=-1)
    with pytest.raises(ValueError, match="prompts_per_step is 0"):
        DPOConfig(prompts_per_step=0)
    with pytest.raises(ValueError, match="samples_per_prompt is 1: a comparison needs at least 2"):
        OnlineDPOConfig(samples_per_prompt=1)
    with pytest.raises(ValueError, match="the data set is empty"):
        dpo.train(policy, [], QUICK)
    with pytest.raises(ValueError, match="the model's context holds 32: shorten"):
        dpo.train(policy, [Preference("Hello.", "very " * 40, "Hi.")], QUICK)
    with torch.no_grad():
        policy.ln_f.weight[0] = float("nan")
    with pytest.raises(FloatingPointError, match="the loss became nan at step 1"):
        dpo.train(policy, BETTER, QUICK)


# --- online ---


def shout(prompts, responses):
    """A reward that likes exclamation marks, and short responses a little."""
    return [("!" in y) - len(y) / 1000 for y in responses]


def test_online_pairs_are_the_best_and_the_worst_of_each_prompt(policy, monkeypatch):
    seen, inner = [], dpo.preference_loss
    monkeypatch.setattr(
        dpo, "preference_loss", lambda *arguments: (seen.append(arguments), inner(*arguments))[1]
    )
    rollouts, roll_out = [], dpo.roll_out
    monkeypatch.setattr(
        dpo, "roll_out", lambda *a, **k: (rollouts.append(roll_out(*a, **k)), rollouts[-1])[1]
    )
    config = OnlineDPOConfig(
        steps=2, prompts_per_step=2, samples_per_prompt=3, max_new_tokens=6, learning_rate=1e-2, warmup=0
    )
    start = copy.deepcopy(policy)
    history = dpo.train_online(policy, PROMPTS, shout, config)
    assert [row["step"] for row in history] == [1, 2] and history[0]["loss"] == pytest.approx(
        math.log(2), abs=1e-6
    )
    for rollout, (_, reference_logps, chosen, rejected, *_) in zip(rollouts, seen):
        scores = rollout.rewards - config.missing_end_penalty * ~rollout.finished
        for i, (w, lose) in enumerate(zip(chosen.tolist(), rejected.tolist())):
            mine = scores[3 * i : 3 * i + 3]
            assert (
                3 * i <= min(w, lose)
                and max(w, lose) < 3 * i + 3
                and scores[w] == mine.max()
                and scores[lose] == mine.min()
            )
        torch.testing.assert_close(
            reference_logps, dpo.sequence_log_probs(start, rollout.batch).detach(), atol=1e-4, rtol=1e-4
        )
    kl = (rollouts[1].log_probs.sum(-1) - seen[1][1]).mean()
    assert history[0]["objective/kl"] == pytest.approx(0, abs=1e-4) and history[1][
        "objective/kl"
    ] == pytest.approx(float(kl), abs=1e-5)


def test_online_dpo_learns_what_is_rewarded_and_when_to_stop():
    """The empty response is one token, the end."""
    policy = favour(lively_gpt(CONFIG), load_chat().end, 7.0)
    config = OnlineDPOConfig(
        steps=40, prompts_per_step=3, samples_per_prompt=4, max_new_tokens=6, learning_rate=2e-2, warmup=0
    )
    history = dpo.train_online(policy, PROMPTS, lambda x, y: [float(text == "") for text in y], config)
    scores = history.column("objective/scores")
    assert scores[:2].mean() < 0.5 and scores[-3:].mean() > 0.85


# --- TRL ---


def test_loss_rewards_and_log_probs_are_trls(tmp_path, monkeypatch):
    """One step of TRL's DPOTrainer at learning rate 0, the whole set as its batch, the reference another
    model than the policy.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets
    import tokenizers
    import transformers
    from trl import DPOConfig as TheirConfig
    from trl import DPOTrainer

    policy, reference = lively_gpt(CONFIG), lively_gpt(CONFIG, seed=1)
    (ours,) = dpo.train(
        copy.deepcopy(policy), BETTER, replace(QUICK, steps=1, prompts_per_step=3), reference=reference
    )
    words = tokenizers.models.WordLevel({str(i): i for i in range(CONFIG.vocab_size)})
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words),
        pad_token=str(load_chat().pad),
        eos_token=str(load_chat().end),
    )
    rows = [
        {
            "prompt_ids": load_chat().encode_prompt(p.prompt),
            "chosen_ids": load_chat().encode_response(p.chosen),
            "rejected_ids": load_chat().encode_response(p.rejected),
        }
        for p in BETTER
    ]
    args = TheirConfig(
        output_dir=str(tmp_path),
        learning_rate=0.0,
        max_steps=1,
        logging_steps=1,
        per_device_train_batch_size=len(rows),
        beta=QUICK.beta,
        precompute_ref_log_probs=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset, *arguments):  # it is tokenized already
            return dataset

    trainer = OnTokens(
        gpt2(policy),
        gpt2(reference),
        args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    theirs = trainer.state.log_history[0]
    for name in (
        "loss",
        "rewards/chosen",
        "rewards/rejected",
        "rewards/margins",
        "rewards/accuracies",
        "logps/chosen",
        "logps/rejected",
    ):
        assert float(theirs[name]) == pytest.approx(ours[name], abs=1e-5, rel=1e-5), name


# --- ties, and what a response that was cut off costs ---


def test_a_pair_of_equal_rewards_is_no_hit():
    """One right, one wrong, one tied: a model that has said nothing has not been right."""
    logps, reference = torch.tensor([-1.0, -2.0, -2.0, -2.0]), torch.full((4,), -2.0)
    chosen, rejected = torch.tensor([0, 1, 2]), torch.tensor([1, 0, 3])
    _, metrics = dpo.preference_loss(logps, reference, chosen, rejected, BETA)
    assert float(metrics["rewards/accuracies"]) == pytest.approx(1 / 3)
    _, metrics = dpo.preference_loss(reference, reference, chosen, rejected, BETA)
    assert float(metrics["rewards/accuracies"]) == 0.0


@pytest.mark.parametrize("penalty", [0.0, 2.0, 100.0])
def test_a_missing_end_is_taken_from_the_score(penalty, monkeypatch):
    """Which response is best and which worst is decided by reward minus penalty; the reward itself is what
    is recorded.
    """
    found, inner = [], dpo.preference_loss
    monkeypatch.setattr(dpo, "preference_loss", lambda *args: (found.append(args), inner(*args))[1])
    rollouts, roll_out = [], dpo.roll_out
    monkeypatch.setattr(
        dpo, "roll_out", lambda *args, **options: rollouts.append(roll_out(*args, **options)) or rollouts[-1]
    )
    config = OnlineDPOConfig(
        steps=2, prompts_per_step=3, samples_per_prompt=6, max_new_tokens=3, missing_end_penalty=penalty
    )
    policy = favour(lively_gpt(CONFIG), load_chat().end, 6.5)
    history = dpo.train_online(policy, PROMPTS, lambda x, y: [len(text) / 10 for text in y], config)
    decided = 0
    for row, rollout, (_, _, chosen, rejected, *_) in zip(history, rollouts, found):
        lengths = [len(text) / 10 for text in rollout.responses]
        scores = [s - (0 if done else penalty) for s, done in zip(lengths, rollout.finished.tolist())]
        for i in range(3):
            mine = range(6 * i, 6 * i + 6)
            assert int(chosen[i]) == max(mine, key=lambda k: scores[k])
            assert scores[int(rejected[i])] == pytest.approx(min(scores[k] for k in mine))
            decided += max(mine, key=lambda k: scores[k]) != max(mine, key=lambda k: lengths[k])
        assert row["objective/scores"] == pytest.approx(np.mean(lengths))
        assert 0 < row["finished"] < 1, "the test needs responses with and without an end"
    assert (decided > 0) == (penalty > 0), "the test needs a best response that the penalty decides"


def test_online_dpo_unlearns_a_missing_end_without_any_other_reward():
    finished = {}
    for penalty in (1.0, 0.0):
        config = OnlineDPOConfig(
            steps=20, prompts_per_step=3, samples_per_prompt=8, max_new_tokens=3, learning_rate=2e-2, warmup=0
        )
        policy = favour(lively_gpt(CONFIG), load_chat().end, 6.5)
        history = dpo.train_online(
            policy, PROMPTS, lambda x, y: [0.0] * len(y), replace(config, missing_end_penalty=penalty)
        )
        finished[penalty] = history.column("finished")
    assert finished[1.0][:2].mean() < 0.7 and finished[1.0][-3:].mean() > 0.9
    assert finished[0.0][-3:].mean() < 0.7


# --- what a small change would spoil ---


def test_the_reference_is_read_without_a_graph(policy, monkeypatch):
    """It would hold the activations of every response in memory."""
    seen, inner = [], dpo.sequence_log_probs
    monkeypatch.setattr(
        dpo, "sequence_log_probs", lambda *args: seen.append(inner(*args)) or seen[-1].detach()
    )
    cached = dpo.reference_log_probs(policy, BETTER)
    assert {type(log_prob) for log_prob in cached.values()} == {float}
    assert seen and not any(log_probs.requires_grad for log_probs in seen)


def test_a_reference_says_which_response_is_too_long(policy):
    pairs = [BETTER[0], Preference("Hello.", "Yes! " * 20, "No.")]
    with pytest.raises(ValueError, match=r"pair 2 .*context holds 32: shorten the prompt or the response"):
        dpo.reference_log_probs(policy, pairs)
