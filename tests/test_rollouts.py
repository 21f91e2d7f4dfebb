import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.reward_model import RewardModel
from minialign.rollouts import roll_out, score, unscored
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
        match=r"the reward of 'b' to 'y' must be a finite number, here is (nan|inf)",
    ):
        score(lambda prompts, responses: [1.0, value], ["x", "y"], ["a", "b"])


def test_nothing_is_no_reward():
    with pytest.raises(ValueError, match="the reward of 'a' to 'x' must be one real number, not None"):
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


def test_a_rollout_that_nobody_scores(model):
    """The same samples; and no metric is made of scores that are not there."""
    scored, free = (roll_out(model, PROMPTS, reward, n=2, seed=1) for reward in (number_of_words, unscored))
    assert free.rewards.shape == (6,) and free.rewards.isnan().all() and free.responses == scored.responses
    assert scored.metrics() == {**free.metrics(), "objective/scores": float(scored.rewards.mean())}


def test_it_moves_as_a_whole(model):
    moved = roll_out(model, PROMPTS, number_of_words, max_new_tokens=4).to("meta")
    assert {
        moved.rewards.device.type,
        moved.batch.ids.device.type,
        moved.log_probs.device.type,
        moved.finished.device.type,
    } == {"meta"}


# --- what a reward may be, and what it may give ---

GIVEN = {
    "ints": [1, 0],
    "booleans": [True, False],
    "array": np.array([1.0, 0.0]),
    "column": np.array([[1.0], [0.0]]),
    "tensor": torch.tensor([1, 0]),
    "on a gradient": torch.tensor([1.0, 0.0], requires_grad=True),
    "tensor column": torch.tensor([[1.0], [0.0]], requires_grad=True),
    "list of tensors": list(torch.tensor([1.0, 0.0], requires_grad=True)),
    "bfloat16": torch.tensor([1.0, 0.0]).bfloat16(),
    "exact": [Decimal(1), Fraction(0)],
    "map": map(float, "10"),
    "values of a dict": {"a": 1.0, "b": 0.0}.values(),
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_rewards_come_in_many_ways(given):
    with warnings.catch_warnings(action="error"):
        rewards = score(lambda prompts, responses: given, ["x", "y"], ["a", "b"])
    assert rewards.tolist() == [1, 0] and rewards.dtype == torch.float32 and not rewards.requires_grad


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "the reward function gave None: it must give a list of numbers, one for each response"),
        (3.0, "gave 3.0: it must give a list"),
        (torch.tensor(3.0), r"gave tensor\(3.\): it must give a list"),
        (np.array(3.0), r"gave array\(3.\): it must give a list"),
        ("12", "gave '12': it must give a list"),
        (b"12", "gave b'12': it must give a list"),
        ({1: 1.0, 2: 2.0}, "gave {1: 1.0, 2: 2.0}: it must give a list"),
        ({1.0, 2.0}, "gave {1.0, 2.0}: it must give a list"),
        (["1", "2"], "the reward of 'a' to 'x' must be one real number, not '1'"),
        ([1.0, 1j], "the reward of 'b' to 'y' must be one real number, not 1j"),
        (torch.ones(2, 3), r"the reward of 'a' to 'x' must be one real number, not of shape \(3,\)"),
        (torch.ones(1, 2), "gave 1 numbers for 2 responses"),
        (torch.ones(2, device="meta"), "the reward of 'a' to 'x' must be one real number, not tensor"),
        ([1.0, -1e39], "the reward -1e[+]39 is too large for float32: give smaller ones"),
    ],
)
def test_what_is_no_list_of_rewards(given, said):
    with pytest.raises(ValueError, match=rf"^[^\n]*{said}[^\n]*$"):
        score(lambda prompts, responses: given, ["x", "y"], ["a", "b"])


def test_a_reward_model_is_taken_by_its_score(model):
    judge = RewardModel(model)
    rewards = score(judge, ["Hello.", "Why?"], ["Yes.", "No."])
    assert rewards.equal(score(judge.score, ["Hello.", "Why?"], ["Yes.", "No."]))
    assert len(set(rewards.tolist())) == 2


class WithAHead(torch.nn.Module):
    """As classifiers of other libraries have it: `score` is a layer."""

    def __init__(self):
        super().__init__()
        self.score = torch.nn.Linear(2, 1)


@pytest.mark.parametrize("reward", [torch.nn.Linear(2, 1), WithAHead(), None, 1.0, [1.0, 2.0], "length"])
def test_what_is_no_reward(reward):
    with pytest.raises(
        TypeError, match=rf"^{type(reward).__name__} is no reward: give a function of [^\n]+$"
    ):
        score(reward, ["x", "y"], ["a", "b"])


@pytest.mark.parametrize("reward", [lambda responses: [1.0], lambda: [1.0], lambda a, b, c: [1.0], len])
def test_a_reward_function_takes_prompts_and_responses(reward):
    with pytest.raises(
        TypeError, match=r"argument.*: a reward function takes two lists, \(prompts, responses\)$"
    ):
        score(reward, ["x"], ["a"])


def test_a_type_error_inside_a_reward_function_is_its_own():
    with pytest.raises(TypeError, match=r'^can only concatenate list \(not "int"\) to list$'):
        score(lambda prompts, responses: responses + 1, ["x"], ["a"])


def test_what_a_reward_function_does_to_its_lists_is_its_own_affair(model):
    def greedy(prompts, responses):
        numbers = list(map(len, responses))
        prompts.clear(), responses.sort()
        return numbers

    rollout = roll_out(model, PROMPTS, greedy, n=2, max_new_tokens=8)
    plain = roll_out(model, PROMPTS, lambda prompts, responses: map(len, responses), n=2, max_new_tokens=8)
    assert rollout.prompts == plain.prompts and rollout.responses == plain.responses
    assert rollout.rewards.equal(plain.rewards)
