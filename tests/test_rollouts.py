import numpy as np
import pytest
import torch

from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.rollouts import roll_out, score
from minialign.sampling import generate
from minialign.tokenizer import load_tokenizer
from tests.engine import favour, lively_gpt

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=48, n_layer=1, n_head=2, n_embd=8)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why?"]


def number_of_words(prompts, responses):
    return [len(response.split()) for response in responses]


@pytest.fixture(scope="module")
def model():
    return favour(lively_gpt(CONFIG), load_chat().end, 8.0)


def test_a_rollout_is_what_generate_draws_and_the_reward_says(model):
    rollout = roll_out(model, PROMPTS, number_of_words, n=4, max_new_tokens=8, seed=(3, 1))
    assert len(rollout.responses) == rollout.weight == 12 and rollout.n == 4
    assert rollout.prompts == [prompt for prompt in PROMPTS for _ in range(4)]
    assert rollout.rewards.tolist() == number_of_words(rollout.prompts, rollout.responses)
    for row, prompt in enumerate(rollout.prompts):
        asked = rollout.batch.ids[row][rollout.batch.mask[row] & ~rollout.batch.response_mask[row]]
        assert asked.tolist() == load_chat().encode_prompt(prompt)
    assert (rollout.log_probs != 0).equal(rollout.batch.response_mask)


def test_the_seed_decides(model):
    def drawn(seed):
        return roll_out(model, PROMPTS, number_of_words, n=2, max_new_tokens=8, seed=seed).responses

    assert drawn((0, 1)) == drawn((0, 1))
    assert len({tuple(drawn(seed)) for seed in (0, 1, (0, 1), (1, 1))}) == 4


def test_the_temperature_is_the_samplers(model):
    cold = roll_out(model, PROMPTS, number_of_words, max_new_tokens=8, temperature=0.01)
    greedy = generate(model, [load_chat().encode_prompt(p) for p in PROMPTS], max_new_tokens=8, temperature=0)
    assert cold.responses == greedy.texts


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_is_an_error_that_shows_the_response(value):
    with pytest.raises(
        ValueError,
        match=r"the reward of 'b' to 'y' is (nan|inf): a reward must be a finite "
        r"number",
    ):
        score(lambda prompts, responses: [1.0, value], ["x", "y"], ["a", "b"])


def test_nothing_is_no_reward():
    with pytest.raises(ValueError, match="is None: a reward must be a finite number"):
        score(lambda prompts, responses: [None], ["x"], ["a"])


def test_one_reward_for_each_response():
    with pytest.raises(ValueError, match="gave 1 numbers for 2 responses"):
        score(lambda prompts, responses: [1.0], ["x", "y"], ["a", "b"])
    assert (
        score(lambda prompts, responses: torch.tensor([1, 2]), ["x", "y"], ["a", "b"]).dtype == torch.float32
    )


def test_metrics_are_means_over_response_tokens_only(model):
    rollout = roll_out(model, PROMPTS, number_of_words, n=8, max_new_tokens=2)
    metrics = rollout.metrics()
    rows = [row[mask] for row, mask in zip(rollout.log_probs, rollout.batch.response_mask)]
    assert len({len(row) for row in rows}) > 1
    assert metrics["policy/entropy_avg"] == pytest.approx(-float(torch.cat(rows).mean()), rel=1e-5)
    assert metrics["objective/entropy"] == pytest.approx(
        -np.mean([float(row.sum()) for row in rows]), rel=1e-5
    )
    assert metrics["response_length"] == pytest.approx(np.mean([len(row) for row in rows]))
    assert 0 < metrics["finished"] < 1 and metrics["finished"] == pytest.approx(
        np.mean(rollout.finished.tolist())
    )
    assert metrics["objective/scores"] == pytest.approx(np.mean([len(y.split()) for y in rollout.responses]))
    assert all(type(value) is float for value in metrics.values())  # JSON has no tensors


def test_it_moves_as_a_whole(model):
    moved = roll_out(model, PROMPTS, number_of_words, max_new_tokens=4).to("meta")
    assert {
        moved.rewards.device.type,
        moved.batch.ids.device.type,
        moved.log_probs.device.type,
        moved.finished.device.type,
    } == {"meta"}
