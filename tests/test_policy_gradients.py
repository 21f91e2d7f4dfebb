"""Notebook 03: what it counts in full, its single steps, and its puzzles, whose answers are what they say."""

import numpy as np
import pytest
import torch

from minialign.course.exercises import PUZZLES
from minialign.course.experiments import policy_gradients, relaxations
from minialign.course.experiments.measuring import over_seeds
from minialign.gpt import GPTConfig
from minialign.logprobs import sequence_log_probs
from minialign.policy_gradient import reinforce_loss
from minialign.tokenizer import load_tokenizer
from minialign.training import load_history
from minialign.world import exact
from minialign.world.judge import WEIGHTS
from tests.engine import lively_gpt

WORLD = exact.micro_world()
REWARDS, LENGTHS = WORLD.rewards[0], WORLD.lengths[0]


def test_the_tiny_language_is_all_that_its_model_can_say():
    tiny, speech = policy_gradients.tiny_language()
    log_p = sequence_log_probs(tiny, speech)
    assert len(log_p) == 341 and float(log_p.detach().exp().sum()) == pytest.approx(1, abs=1e-12)
    assert float(log_p.detach().exp().max()) > 0.02, "far from uniform"


def test_the_scores_of_tokens_add_up_to_those_of_responses():
    tiny, speech = policy_gradients.tiny_language()
    few = speech[torch.tensor([0, 7, 150, 340])]
    scores = policy_gradients.token_scores(tiny, few)
    assert not scores[~few.response_mask].any()
    log_p = sequence_log_probs(tiny, few)
    for row in range(len(log_p)):
        expected = policy_gradients.gradient_by_parameters(log_p[row], tiny)
        assert torch.allclose(scores[row].sum(0), expected, atol=1e-12)


def test_a_step_has_its_length_and_goes_down():
    tiny, speech = policy_gradients.tiny_language()

    def loss(model):
        return -sequence_log_probs(model, speech)[3]

    after = policy_gradients.moved(tiny, loss, 1e-3)
    assert policy_gradients.distance(after, tiny) == pytest.approx(1e-3)
    assert loss(after) < loss(tiny)


def loss_on(drawn, baseline):
    rewards = REWARDS[drawn].float()
    return lambda log_probs: reinforce_loss(log_probs, rewards, torch.full_like(rewards, baseline))


def test_one_step_on_a_table_by_hand():
    drawn = torch.tensor([3, 5])
    change = policy_gradients.change_of_table(192, drawn, loss_on(drawn, 0.0))
    logits = torch.zeros(192)
    logits[drawn] += REWARDS[drawn].float() / 2
    logits -= REWARDS[drawn].float().mean() / 192
    assert torch.allclose(change, logits.log_softmax(-1) - torch.zeros(192).log_softmax(-1), atol=1e-6)


def test_a_step_of_a_gpt_makes_a_single_good_draw_more_probable():
    model = lively_gpt(
        GPTConfig(vocab_size=load_tokenizer().n_vocab, context=64, n_layer=1, n_head=2, n_embd=8)
    )
    drawn = REWARDS.argmax()[None]
    change = policy_gradients.change_of_gpt(model, WORLD, drawn, loss_on(drawn, 0.0), size=1e-3)
    assert change.shape == (192,) and change[drawn] > 0


def test_the_parts_of_a_gain_add_up_to_it():
    rows = load_history("reinforce")
    parts = policy_gradients.parts_of_gain(rows, (100, 0.0), (0, 1.0))
    gold = [over_seeds(rows, "gold", step=s, temperature=t) for s, t in ((100, 0.0), (0, 1.0))]
    assert set(parts) == set(WEIGHTS)
    assert sum(parts.values()) == pytest.approx(gold[0] - gold[1], abs=1e-6)


def test_which_advantage_is_biased_is_as_the_puzzle_says():
    """Over both draws, in full: a share below 1 is too short, what points elsewhere another direction."""
    p = (0.3 * REWARDS + 0.2 * torch.randn(192, generator=torch.Generator().manual_seed(0))).softmax(-1)
    r_1, r_2 = REWARDS[:, None], REWARDS[None, :]
    centred = r_1 - (r_1 + r_2) / 2
    of_length = torch.stack([(p * REWARDS)[LENGTHS == n].sum() / p[LENGTHS == n].sum() for n in LENGTHS])
    advantages = {
        "A": centred,
        "B": r_1 - 2.0,
        "C": centred / ((r_1 - r_2).abs() / 2**0.5).clamp(min=1e-9),
        "D": (REWARDS - of_length)[:, None],
        "E": r_1 - torch.maximum(r_1, r_2),
    }
    gradient = p * (REWARDS - p @ REWARDS)
    found = {}
    for name, a in advantages.items():
        mean = (p * (a * p).sum(1)) @ (torch.eye(192).double() - p)
        told = relaxations.compared_with(gradient, mean)
        straight = told["elsewhere"] < 1e-9
        found[name] = "unbiased" if straight and told["share"] > 1 - 1e-9 else "too short"
        found[name] = found[name] if straight else "another direction"
    assert found == PUZZLES["which is biased"].answers


def test_the_changes_of_the_puzzle_can_be_told_apart():
    rows, answers = load_history("reinforce_bugs"), PUZZLES["which change"].answers

    def beside_correct(name, column):
        ours, correct = (over_seeds(rows, column, bug=bug) for bug in (answers[name], "correct"))
        return np.sort(ours - correct)

    assert (beside_correct("A", "politeness") < -0.05).all() and abs(beside_correct("A", "gold")).max() < 0.15
    assert (beside_correct("B", "gold") < -0.1).all()
    assert (beside_correct("C", "words") > 1).all() and (abs(beside_correct("C", "politeness")) < 0.08).all()
