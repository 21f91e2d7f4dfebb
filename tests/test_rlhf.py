"""What notebook 05 shows: one answer token by token, readings of the tables, puzzles, and figures' texts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minialign import ppo
from minialign.course.exercises import PUZZLES
from minialign.course.experiments import SEEDS, goodhart, one_answer, ppo_bugs, rlhf
from minialign.course.experiments.measuring import over_seeds
from minialign.course.figures import rlhf as figures
from minialign.gpt import GPTConfig
from minialign.logprobs import kl_divergence, kl_k3, sequence_log_probs
from minialign.rollouts import roll_out
from minialign.tokenizer import load_tokenizer
from minialign.training import load_history
from minialign.world.phrases import FLATTERY
from tests.engine import lively_gpt

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=40, n_layer=1, n_head=2, n_embd=8)
PROMPT, RESPONSE = "Why?", "Because it is so."


class Lengths:
    """A reward model that likes long answers."""

    def score(self, prompts, responses):
        if isinstance(prompts, str):
            return float(len(responses)) / 20
        return np.array([len(y) / 20 for y in responses])


@pytest.fixture
def models():
    return lively_gpt(CONFIG, seed=0), lively_gpt(CONFIG, seed=1), Lengths()


# --- one answer ---


def test_an_answer_is_read_without_its_prompt(models):
    policy, reference, reward = models
    seen = one_answer.read(*models, PROMPT, RESPONSE)
    batch = policy.chat.collate([(PROMPT, RESPONSE)])
    assert seen.tokens[-1] == "<|end|>" and "".join(seen.tokens[:-1]) == RESPONSE
    with torch.no_grad():
        for found, model in ((seen.log_probs, policy), (seen.reference_log_probs, reference)):
            assert found.shape == (1, len(seen.tokens)) == seen.response_mask.shape
            torch.testing.assert_close(found.sum(-1), sequence_log_probs(model, batch))
    assert seen.scores.tolist() == pytest.approx([len(RESPONSE) / 20])


def test_where_nothing_is_open_the_value_is_what_comes(models, monkeypatch):
    """With every token certain V is the rewards still to come, and what a token changes is nothing."""
    monkeypatch.setattr(one_answer, "CERTAIN", 0.0)
    values = one_answer.knowing_values(*models, PROMPT, RESPONSE, beta=0.3, n=2)
    seen = one_answer.read(*models, PROMPT, RESPONSE)
    scores = seen.scores, seen.log_probs, seen.reference_log_probs, seen.response_mask
    rewards = ppo.kl_penalized_rewards(*scores, 0.3)
    changes, _ = ppo.gae(rewards, values, seen.response_mask, 1.0, 0.0)
    assert changes[:, 1:].abs().max() < 1e-6 < changes[:, 0].abs().max()  # the first one has ends of its own


def test_the_first_value_is_what_the_policys_answers_are_worth(models):
    policy, reference, reward = models
    n, beta = 150, 0.3
    values = one_answer.knowing_values(*models, PROMPT, RESPONSE, beta=beta, n=n)
    rollout = roll_out(policy, [PROMPT], reward, n=n, seed=7)
    with torch.no_grad():
        kl = rollout.log_probs.sum(-1) - sequence_log_probs(reference, rollout.batch)
    worth = rollout.rewards - 1.0 * ~rollout.finished - beta * kl
    assert float(values[0, 0]) == pytest.approx(float(worth.mean()), abs=5 * float(worth.std()) / n**0.5)


def test_what_the_judge_sees_of_a_rollout():
    prompt = "Describe the octopus for a teenager."
    responses = ["An octopus has eight arms.", f"{FLATTERY.closers[0]}"]
    found = rlhf.seen_by_the_judge(SimpleNamespace(prompts=[prompt] * 2, responses=responses))
    assert found["flattery"] == 0.5
    alone = rlhf.seen_by_the_judge(SimpleNamespace(prompts=[prompt], responses=responses[:1]))
    assert alone["flattery"] == 0 and alone["gold"] > found["gold"]


# --- readings of the table ---


def _rows():
    """Runs whose gold is 10 √KL − KL for β = 0, and 1 more at the same KL for β = 0.3."""
    rows = []
    for seed in SEEDS:
        start = dict(seed=seed, temperature=1.0, kl=0.0, gold=0.0, golds=[[0.0]] * 8)
        rows.append({"method": "sft", "step": 0, **start})
        for beta, more in ((0.0, 0.0), (0.3, 1.0)):
            for i, step in enumerate(goodhart.MEASURED, 1):
                d = i * (1 + seed) / (1 + beta)
                gold = 10 * d + more
                row = {"method": "ppo", "beta": beta, "step": step, "seed": seed, "temperature": 1.0}
                rows.append({**row, "kl": d * d, "gold": gold, "golds": [[gold + (j % 4)] for j in range(8)]})
    return rows


def test_a_run_along_its_rollouts_and_its_lead_at_equal_kl():
    rows = _rows()
    assert goodhart.along(rows, "gold", beta=0.0)[0].tolist() == [0, 10, 20, 30, 40]
    assert goodhart.ahead_at_equal_kl(rows, 0.3) == pytest.approx(np.ones(len(SEEDS)))
    assert goodhart.golds(rows, 1.0, 0.0)[0, :4].tolist() == [40, 41, 42, 43]
    assert goodhart.golds(rows, 1.0).tolist() == [[0.0] * 8] * len(SEEDS)
    quarter = goodhart.with_quarter(rows)
    assert (
        goodhart.along(quarter, "quarter", beta=0.0).tolist()
        == goodhart.along(rows, "gold", beta=0.0).tolist()
    )


def test_what_trains_nothing_in_the_order_of_its_kl():
    rows = [
        {"method": "sft", "temperature": t, "seed": s, "gold": t + s} for t in (0.0, 1.0, 0.7) for s in (0, 1)
    ]
    assert goodhart.untrained(rows, "sft", "gold") == pytest.approx([1.5, 1.2, 0.5])
    rows = [{"method": "best-of-n", "n": n, "seed": 0, "gold": n} for n in (4, 1, 2)]
    assert goodhart.untrained(rows, "best-of-n", "gold") == [1, 2, 4]


def test_a_runs_own_metric_is_a_mean_of_ten_rollouts():
    rows = [{"method": "ppo", "beta": 0.0, "seed": 0, "step": step, "x": step} for step in range(1, 26)]
    assert goodhart.own(rows, "x", 0.0, 25) == pytest.approx([20.5])


@pytest.mark.parametrize("second", (np.log, lambda d: d), ids=("log d", "d"))
def test_gaos_curves_are_found_again(second):
    d = np.array([0.5, 1.0, 1.5, 2.0])
    found = goodhart.gao_fit(d, d * (0.8 - 0.2 * second(d)), second)
    assert found == pytest.approx((0.8, 0.2, 1.0))
    other = (lambda d: d) if second is np.log else np.log
    assert goodhart.gao_fit(d, d * (0.8 - 0.2 * second(d)), other)[2] < 1 - 1e-4


def test_a_control_begins_with_the_fine_tuned_model():
    rows = [
        {
            "control": "head only",
            "method": "ppo",
            "temperature": 1.0,
            "seed": s,
            "step": step,
            "gold": step + s,
        }
        for s in (0, 1)
        for step in (goodhart.RISEN, goodhart.FALLEN)
    ]
    sft = [{"method": "sft", "temperature": 1.0, "seed": s, "gold": -s} for s in (0, 1)]
    assert goodhart.controlled(rows, "head only", "gold", sft).tolist() == [[0, 25, 45], [-1, 26, 46]]


# --- the puzzles' answers, computed ---


def test_which_estimate_is_a_penalty_as_a_loss():
    generator = torch.Generator().manual_seed(0)
    log_p, log_q = torch.randn(2, 7, generator=generator, dtype=torch.float64).log_softmax(-1)

    def gradient(value):
        logits = log_p.clone().requires_grad_()
        return torch.autograd.grad(value(logits.log_softmax(-1)), logits)[0]

    wanted = {
        "no penalty at all": torch.zeros(7, dtype=torch.float64),
        "the penalty": gradient(lambda x: kl_divergence(x, log_q)),
        "another penalty": gradient(lambda x: kl_divergence(log_q, x)),
    }
    estimates = {"k1": lambda lr: lr, "k2": lambda lr: lr**2 / 2, "k3": kl_k3}
    for name, estimate in estimates.items():
        found = gradient(lambda x, estimate=estimate: (log_p.exp() * estimate(x - log_q)).sum())
        right = [
            what for what, gradient_of in wanted.items() if torch.allclose(found, gradient_of, atol=1e-12)
        ]
        assert right == [PUZZLES["which is a penalty"].answers[name]]


def test_the_three_bugs_show_what_their_reasons_say():
    rows, puzzle = load_history("ppo_bugs"), PUZZLES["which PPO bug"]
    assert set(puzzle.options) == {*ppo_bugs.BUGS} - {"correct"}

    def of(thing, metric, step):
        name = puzzle.answers.get(thing, thing)
        return over_seeds(rows, metric, bug=name, step=step)

    first, last = 1, ppo_bugs.ROLLOUTS
    for thing in "AC":
        assert (of(thing, "objective/scores", last) < of("correct", "objective/scores", last) - 0.3).all()
    assert (of("A", "objective/kl", last) > 0.05).all() and np.abs(of("C", "objective/kl", last)).max() < 1e-3
    assert (of("B", "objective/entropy", first) < of("correct", "objective/entropy", first)).all()
    assert (of("B", "objective/scores", first) > of("correct", "objective/scores", first)).all()


# --- figures ---


def test_figures_say_the_numbers_that_they_draw(alt_texts):
    log_ref = torch.tensor([0.75, 0.25], dtype=torch.float64).log()
    figures.tilts(log_ref, torch.tensor([0.0, 1.0], dtype=torch.float64), (float("inf"), 0.0))
    assert "β = ∞ the mean reward is 0.25 and the KL 0.00" in alt_texts[-1]
    assert f"β = 0 the mean reward is 1.00 and the KL {np.log(4):.2f}" in alt_texts[-1]
    rows = {"reward": torch.tensor([[0.0, -2.0]]), "knowing: V": torch.tensor([[1.0, 0.0]])}
    figures.strip(["yes", "<|end|>"], rows)
    assert "reward: from -2.0 at “<|end|>” to 0.0 at “yes”" in alt_texts[-1] and "2 lines" in alt_texts[-1]
    figures.live([{"step": 1, "gold": 2.5}, {"step": 2, "gold": 1.25}], ("gold",), "β = 0.1")
    assert alt_texts[-1] == "Panels over 2 rollouts: gold from 2.50 to 1.25."


def test_a_tilt_by_any_beta_is_the_optimum():
    generator = torch.Generator().manual_seed(0)
    log_ref, rewards = torch.randn(2, 9, generator=generator, dtype=torch.float64)
    log_ref = log_ref.log_softmax(-1)
    for beta in (0.5, 2.0):
        expected = (log_ref.exp() * (rewards / beta).exp()) / (log_ref.exp() * (rewards / beta).exp()).sum()
        torch.testing.assert_close(figures.tilted_by(log_ref, rewards, beta).exp(), expected)
    torch.testing.assert_close(figures.tilted_by(log_ref, rewards, float("inf")), log_ref)
    best = figures.tilted_by(log_ref, rewards, 0).exp()
    assert best[rewards.argmax()] == 1 and best.sum() == 1
