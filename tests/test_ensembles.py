"""Ensembles of reward models: what is made of several opinions, against sums written out by hand."""

import statistics

import numpy as np
import pytest
import torch

from minialign import ppo
from minialign.best_of_n import best_of_n
from minialign.ensembles import (
    LAMBDA,
    RULES,
    Ensemble,
    conservative,
    mean_score,
    variance_weighted,
    worst_case,
)
from minialign.gpt import GPTConfig
from minialign.ppo import PPOConfig
from minialign.reward_model import RewardModel
from minialign.rollouts import roll_out, score
from minialign.tokenizer import load_tokenizer
from tests.engine import lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=48, n_layer=1, n_head=2, n_embd=8)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why?"]
RESPONSES = ["Yes.", "No, it is not so.", "Because I say so."]


def scores(k=4, n=6, seed=0):
    return np.random.default_rng(seed).normal(size=(k, n))


def words(prompts, responses):
    return [len(response.split()) for response in responses]


def letters(prompts, responses):
    return torch.tensor([float(len(response)) / 5 for response in responses])


# --- the rules ---


def test_each_answer_by_pythons_own_sums():
    """Coste et al. 2023, Eqs. 3 to 5, an answer at a time, by the standard library."""
    given = scores()
    worst, weighted = conservative(given, 0.7)
    for i, of_answer in enumerate(given.T.tolist()):
        mean = statistics.fmean(of_answer)
        assert mean_score(given)[i] == pytest.approx(mean)
        assert worst[i] == min(of_answer)
        assert weighted[i] == pytest.approx(mean - 0.7 * statistics.pvariance(of_answer))
        assert weighted[i] != pytest.approx(mean - 0.7 * statistics.variance(of_answer))  # of a sample
        assert weighted[i] != pytest.approx(mean - 0.7 * statistics.pstdev(of_answer))


def test_the_worked_example():
    given = np.array([[1.0, 1.0], [1.2, 1.1], [2.6, 1.2]])
    worst, weighted = conservative(given, 0.5)
    assert worst.tolist() == [1.0, 1.0]  # the mean prefers the first, on one member's word
    assert mean_score(given) == pytest.approx([1.6, 1.1])
    assert weighted == pytest.approx([1.6 - 0.5 * 1.52 / 3, 1.1 - 0.5 * 0.02 / 3])
    assert RULES["variance-weighted"](given).tolist() == weighted.tolist()  # its λ is ½


def test_members_who_agree_are_one():
    given = np.tile(scores(1), (5, 1))
    for rule in RULES.values():
        assert rule(given) == pytest.approx(given[0])


def test_what_is_conservative_is_never_above_the_mean():
    given = scores(5, 200)
    assert (worst_case(given) <= mean_score(given)).all()
    assert (variance_weighted(given) < mean_score(given)).all()
    assert variance_weighted(given, 0.0) == pytest.approx(mean_score(given))
    assert RULES["variance-weighted"](given) == pytest.approx(variance_weighted(given, LAMBDA))


def test_one_members_error_carries_the_mean_only():
    """What the mean does not do: a single member that is far too high raises it without bound."""
    given = scores()
    hacked = given.copy()
    hacked[0] += 100
    assert (mean_score(hacked) - mean_score(given)).min() == pytest.approx(25)
    assert (worst_case(hacked) - worst_case(given)).max() < 5
    assert (variance_weighted(hacked) < variance_weighted(given)).all()


def test_an_error_of_all_members_carries_every_rule():
    """And what none of them can do anything about."""
    given = scores()
    for rule in RULES.values():
        assert rule(given + 1.0) == pytest.approx(rule(given) + 1.0)


# --- as a reward ---


def test_it_asks_its_members_and_combines():
    ensemble = Ensemble([words, letters])
    found = ensemble.scores(PROMPTS, RESPONSES)
    assert found.shape == (2, 3) and found.dtype == np.float64
    assert found == pytest.approx(np.array([[1, 5, 4], [0.8, 3.4, 3.4]]), rel=1e-6)
    assert ensemble.score(PROMPTS, RESPONSES) == pytest.approx([0.8, 3.4, 3.4], rel=1e-6)
    assert ensemble.disagreement(PROMPTS, RESPONSES) == pytest.approx([0.1, 0.8, 0.3], rel=1e-5)
    mean = Ensemble([words, letters], mean_score)
    assert mean.score(PROMPTS, RESPONSES) == pytest.approx([0.9, 4.2, 3.7], rel=1e-6)


def test_reward_models_and_ensembles_can_be_members():
    models = [RewardModel(lively_gpt(CONFIG, seed), seed) for seed in range(3)]
    found = Ensemble(models).score(PROMPTS, RESPONSES)
    alone = np.stack([model.score(PROMPTS, RESPONSES) for model in models])
    assert found == pytest.approx(alone.min(0), rel=1e-5)
    assert len(set(alone.argmin(0))) > 1  # not always the same one's
    nested = Ensemble([Ensemble(models[:2]), models[2]])
    assert nested.score(PROMPTS, RESPONSES) == pytest.approx(found, rel=1e-5)


def test_it_is_a_reward_like_any_other():
    """For a rollout, for best-of-n, and for PPO, where it is the same as the function it stands for."""
    policy, ensemble = lively_gpt(CONFIG), Ensemble([words, letters])

    def lowest(prompts, responses):
        return [min(a, float(b)) for a, b in zip(words(0, responses), letters(0, responses))]

    rollout = roll_out(policy, PROMPTS, ensemble, n=2, max_new_tokens=4)
    assert rollout.rewards.equal(score(lowest, rollout.prompts, rollout.responses))
    best = best_of_n(policy, PROMPTS, ensemble, 3, max_new_tokens=4)
    assert best.responses == best_of_n(policy, PROMPTS, lowest, 3, max_new_tokens=4).responses
    config = PPOConfig(steps=1, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4)
    policies = [lively_gpt(CONFIG) for _ in range(2)]
    for reward, one in zip((ensemble, lowest), policies):
        ppo.train(one, PROMPTS, reward, config)
    assert same_parameters(*policies) and not same_parameters(policies[0], policy)


def test_what_is_no_ensemble():
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(ValueError, match="2 numbers for 3 responses: combine the scores"):
        Ensemble([words, letters], lambda given: given.min(1)).score(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="what the rule gives must be a row of real numbers"):
        Ensemble([words, letters], lambda given: given.min()).score(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="what the rule gives must be finite numbers"):
        Ensemble([words, letters], lambda given: given.min(0) * np.nan).score(PROMPTS, RESPONSES)
    with pytest.raises(ValueError, match="gave 1 numbers for 3 responses"):
        Ensemble([words, lambda prompts, responses: [1.0]]).score(PROMPTS, RESPONSES)
