"""Labels of samples: against σ and plain loops, who pays for what, and what online DPO makes of them."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minialign import dpo
from minialign.chat import Batch, load_chat
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPTConfig
from minialign.labels import (
    Labels,
    argmax_labels,
    as_labels,
    asked_labels,
    best_and_worst,
    sampled_labels,
)
from minialign.rollouts import Rollout, roll_out, score, unscored
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from minialign.world.annotator import Annotator
from tests.engine import favour, lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=2, n_head=2, n_embd=16)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why is the sky blue?"]
WORTH = {"good": 1.2, "fair": 0.4, "poor": -0.5}


def worth(prompts, responses):
    return [WORTH.get(y, 0.0) for y in responses]


def drawn(responses, n: int, reward=worth, prompts=None) -> Rollout:
    """A rollout with these responses; labels read no tokens."""
    prompts = ["x"] * len(responses) if prompts is None else prompts
    ids = torch.zeros(len(responses), 1, dtype=torch.long)
    rewards = torch.full((len(responses),), torch.nan)
    rewards = rewards if reward is unscored else score(reward, prompts, responses)
    there = torch.ones_like(ids, dtype=torch.bool)
    return Rollout(prompts, list(responses), rewards, n, Batch(ids, there, there), 0.0 * ids, there[:, 0])


def labelled(labels: Labels, responses, n: int) -> list[tuple[int, int]]:
    rollout = drawn(responses, n, labels.reward)
    return list(zip(*(rows.tolist() for rows in labels(rollout, rollout.rewards))))


# --- by a reward ---


def wins(labels: Labels, first: str, second: str, times: int = 4000) -> float:
    pairs = labelled(labels, [first, second] * times, 2)
    assert {frozenset(pair) for pair in pairs} == {frozenset((2 * i, 2 * i + 1)) for i in range(times)}
    return float(np.mean([w % 2 == 0 for w, _ in pairs]))


@pytest.mark.parametrize(("first", "second"), [("good", "fair"), ("fair", "good"), ("good", "poor")])
def test_sampled_labels_are_bradley_and_terrys(first, second):
    """Within four standard errors of σ(r_1 − r_2), and far from the wrong ones."""
    difference = WORTH[first] - WORTH[second]
    p = 1 / (1 + math.exp(-difference))
    found, error = wins(sampled_labels(worth, seed=1), first, second), math.sqrt(p * (1 - p) / 4000)
    assert abs(found - p) < 4 * error
    wrong = {
        "swapped": 1 - p,
        "the better one": float(difference > 0),
        "a coin": 0.5,
        "the ratio": math.exp(difference / 2) / (math.exp(difference / 2) + 1),
    }
    for name, q in wrong.items():
        assert abs(found - q) > 8 * error, name


def test_the_score_that_counts_is_the_one_with_the_penalty():
    rollout = drawn(["good", "poor"] * 500, 2)
    scores = rollout.rewards - 50.0 * torch.tensor([True, False] * 500)
    chosen, _ = sampled_labels(worth)(rollout, scores)
    assert (chosen % 2 == 1).all()


def test_argmax_is_the_limit_of_large_differences():
    """Where rewards are multiplied by more and more, the better response always wins."""

    def sharper(prompts, responses):
        return [1e4 * r for r in worth(prompts, responses)]

    responses = np.random.default_rng(0).choice(list(WORTH), 400).tolist()
    limit = labelled(sampled_labels(sharper), responses, 2)
    assert limit == labelled(argmax_labels(worth), responses, 2)
    assert limit != labelled(sampled_labels(worth), responses, 2)
    assert sum(w != lost for w, lost in limit) == sum(a != b for a, b in zip(responses[::2], responses[1::2]))


def test_argmax_takes_the_best_and_the_worst_of_each_prompt():
    assert labelled(argmax_labels(worth), ["fair", "poor", "good", "good", "fair", "fair"], 3) == [
        (2, 1),
        (3, 4),
    ]


def test_best_and_worst_are_rows_of_the_rollout():
    best, worst = best_and_worst(torch.tensor([1.0, 3.0, 2.0, 5.0, 4.0, 4.5]), 3)
    assert (best.tolist(), worst.tolist()) == ([1, 3], [0, 4])
    best, worst = best_and_worst(torch.ones(4), 2)
    assert best.tolist() == worst.tolist() == [0, 2]


def test_the_seed_decides_and_every_label_is_drawn_anew():
    responses = ["good", "fair"] * 40
    first, again, other = (labelled(sampled_labels(worth, seed), responses, 2) for seed in (0, 0, 1))
    assert first == again != other
    labels = sampled_labels(worth)
    assert labelled(labels, responses, 2) == first != labelled(labels, responses, 2)


@pytest.mark.parametrize("reward", [worth, unscored])
def test_samples_that_were_not_scored(reward):
    for labels in (argmax_labels(reward), sampled_labels(reward)):
        rollout = drawn(["good", "fair"], 2, unscored)
        with pytest.raises(ValueError, match="these samples were not scored: give roll_out the reward"):
            labels.pairs(rollout)


# --- by people ---


class Person:
    """Says what it is told to say, and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def prefer(self, prompt, first, second):
        self.asked.append((prompt, first, second))
        return self.answers.pop(0)


def test_people_are_asked_once_for_each_pair_of_different_responses():
    person = Person(1, None, np.int64(0))
    labels = asked_labels(person.prefer)
    responses, prompts = ["a", "b", "c", "c", "d", "e", "f", "g"], ["x"] * 4 + ["z"] * 4
    rollout = drawn(responses, 4, unscored, prompts)
    chosen, rejected = labels(rollout, rollout.rewards)
    assert person.asked == [("x", "a", "b"), ("z", "d", "e"), ("z", "f", "g")]
    assert chosen.tolist() == [1, 2, 4, 6] and rejected.tolist() == [0, 2, 4, 7]
    assert labels.given == 2


@pytest.mark.parametrize("answer", [2, -1, "first", True, 0.5])
def test_an_answer_that_is_none(answer):
    rollout = drawn(["a", "b"], 2, unscored)
    with pytest.raises(ValueError, match="give 0 for the first, 1 for the second, or None for neither"):
        asked_labels(Person(answer).prefer)(rollout, rollout.rewards)


@pytest.mark.parametrize("labels", [sampled_labels(worth), asked_labels(lambda *texts: 0)])
def test_an_odd_number_of_samples_makes_no_pairs(labels):
    with pytest.raises(ValueError, match="samples_per_prompt is 3: .* two by two, give an even number"):
        labelled(labels, ["good", "fair", "poor"], 3)


def test_a_round_of_fresh_comparisons():
    """The policy answers, people compare, the policy learns offline from what they said: every label once."""
    policy = favour(lively_gpt(CONFIG), load_chat().end, 6.5)
    crowd = Annotator(seed=1)
    labels = asked_labels(crowd.prefer)
    rollout = roll_out(policy, PROMPTS, unscored, n=8, max_new_tokens=4)
    pairs = labels.pairs(rollout)
    different = sum(a != b for a, b in zip(rollout.responses[::2], rollout.responses[1::2]))
    assert 0 < len(pairs) == labels.given == crowd.spent == different
    by_prompt = {x: set(rollout.responses[8 * i : 8 * i + 8]) for i, x in enumerate(PROMPTS)}
    assert all({pair.chosen, pair.rejected} <= by_prompt[pair.prompt] for pair in pairs)
    assert "objective/scores" not in rollout.metrics()
    before = copy.deepcopy(policy)
    dpo.train(policy, pairs, DPOConfig(steps=2, learning_rate=1e-2, warmup=0))
    assert not same_parameters(policy, before)


# --- online ---

ONLINE = OnlineDPOConfig(
    steps=4, prompts_per_step=3, samples_per_prompt=4, max_new_tokens=3, learning_rate=1e-2, warmup=0
)


def length(prompts, responses):
    return [len(text) / 10 for text in responses]


def ending_gpt():
    return favour(lively_gpt(CONFIG), load_chat().end, 9.5)


def test_a_reward_stands_for_its_argmax():
    histories = []
    for labels in (length, argmax_labels(length)):
        histories.append(dpo.train_online(policy := ending_gpt(), PROMPTS, labels, ONLINE))
    assert histories[0] == histories[1] and not same_parameters(policy, ending_gpt())
    labels = sampled_labels(length)
    assert as_labels(labels) is labels and as_labels(length).reward is length


def test_a_run_with_sampled_labels_repeats_by_both_seeds():
    def run(seed, config=ONLINE):
        return dpo.train_online(ending_gpt(), PROMPTS, sampled_labels(length, seed), config)

    first, again, labels, samples = run(0), run(0), run(1), run(0, replace(ONLINE, seed=1))
    assert first == again and first != labels and first != samples
    assert first[0]["objective/scores"] == labels[0]["objective/scores"] != samples[0]["objective/scores"]


def test_people_are_asked_in_the_run_and_its_history_counts():
    asked = []

    def prefer(prompt, first, second):
        asked.append((prompt, first, second))
        return int(len(second) < len(first))

    labels = asked_labels(prefer)
    history = dpo.train_online(policy := ending_gpt(), PROMPTS, labels, ONLINE)
    pairs = 6 * len(history)
    assert history[-1]["labels"] == labels.given == len(asked) < pairs
    assert sum(history.column("ties")) * 6 == pytest.approx(pairs - len(asked))
    assert all(first != second and prompt in PROMPTS for prompt, first, second in asked)
    assert "objective/scores" not in history[0] and not same_parameters(policy, ending_gpt())


def test_a_pair_without_a_label_teaches_nothing():
    """Not even with losses that learn from y_w alone."""
    for loss in (dpo.dpo_loss, dpo.ipo_loss, dpo.dpop_loss):
        policy, reference = ending_gpt(), lively_gpt(CONFIG, seed=1)
        config = replace(ONLINE, sft_coef=1.0)
        neither = asked_labels(lambda *texts: None)
        dpo.train_online(policy, PROMPTS, neither, config, loss=loss, reference=reference)
        assert same_parameters(policy, ending_gpt()) and neither.given == 0


# --- the known optimum: one-token responses, which can all be enumerated ---

BETA = 0.5
TOKENS = (300, 400, 500, 600, 700)  # likely first tokens; their texts are all different
TEXTS = [load_chat().decode([token]) for token in TOKENS]
VALUES = dict(zip(TEXTS, (-1.0, -0.5, 0.0, 0.5, 1.0)))


def value(prompts, responses):
    return [VALUES.get(y, 0.0) for y in responses]


def first_tokens(policy) -> torch.Tensor:
    """log π(token | x) of every token of the vocabulary, (prompts, V)."""
    asked = [load_chat().encode_prompt(prompt) for prompt in PROMPTS]
    with torch.no_grad():
        return torch.stack([policy(torch.tensor([ids]))[0, -1].double().log_softmax(-1) for ids in asked])


def distance(log_probs, optimum) -> float:
    return float((log_probs.exp() - optimum.exp()).abs().sum(-1).max() / 2)


def test_online_dpo_with_sampled_labels_goes_to_the_optimum_of_rlhf():
    """π_ref exp(r/β)/Z. Labels without noise overshoot it, so does another β; swapped ones flee from it."""
    assert len(set(TEXTS)) == 5
    start = lively_gpt(CONFIG)
    for token in TOKENS:
        start = favour(start, token, 12.0)
    reference = first_tokens(start)
    rewards = torch.zeros_like(reference)
    rewards[:, list(TOKENS)] = torch.tensor(list(VALUES.values()), dtype=torch.float64)
    optimum, _ = exact.optimal_policy(reference, rewards, BETA)
    config = OnlineDPOConfig(
        steps=60,
        prompts_per_step=3,
        samples_per_prompt=32,
        max_new_tokens=1,
        missing_end_penalty=0.0,
        learning_rate=1e-2,
        warmup=0,
        beta=BETA,
    )

    def after(labels, **changes):
        policy = copy.deepcopy(start)
        dpo.train_online(policy, PROMPTS, labels, replace(config, **changes))
        return distance(first_tokens(policy), optimum)

    found = {
        "sampled": after(sampled_labels(value)),
        "argmax": after(argmax_labels(value)),
        "swapped": after(sampled_labels(lambda x, y: [-r for r in value(x, y)])),
        "another β": after(sampled_labels(value), beta=BETA**2),
        "start": distance(reference, optimum),
    }
    assert found.pop("sampled") < 0.1 < 0.2 < min(found.values())
