"""Notebook 06's experiments: what is measured of a policy, passes, bugs, displacement, implicit rewards."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minialign import dpo
from minialign.chat import load_chat
from minialign.course.evaluation import measure
from minialign.course.exercises import PUZZLES
from minialign.course.experiments import (
    comparisons,
    direct_preference,
    displacement,
    dpo_exact,
    dpo_variants,
    implicit_rewards,
    measuring,
    ppo_exact,
    scorers,
)
from minialign.course.experiments.comparisons import HeldOut
from minialign.dpo import DPOConfig
from minialign.logprobs import response_logits, sequence_log_probs
from minialign.preferences import Preference, compare
from minialign.training import History, load_history
from minialign.world import exact
from minialign.world.judge import judge
from minialign.world.prompts import parse, prompts_of
from tests.engine import SMALL, favour, lively_gpt, same_parameters

BATCH = load_chat().collate([("Why?", "Because it is so."), ("Who was it, then?", "Me.")])
PROMPTS = prompts_of("evaluation")[:3]
PAIRS = [
    Preference(p.text, kind, curt)
    for p in prompts_of("reward")[:20]
    for kind, curt in (("I hope this helps.", "No."), ("Happy to help!", "Why? I am not sure about it."))
]


@pytest.fixture(autouse=True)
def few_prompts(monkeypatch):
    for module in (direct_preference, displacement):
        monkeypatch.setattr(module, "held_out_prompts", lambda: PROMPTS)
    for module in (direct_preference, dpo_variants, implicit_rewards):
        monkeypatch.setattr(module, "preferences", lambda which: PAIRS)


# --- what is measured ---


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_kl_is_that_of_the_policy_as_it_is_sampled(temperature):
    """Token by token, in float64, against the distribution that was sampled."""
    policy, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    answers = measure(policy, PROMPTS[:2], (temperature,), n=1, max_new_tokens=6)[temperature]
    expected = []
    for prompt, text in zip(answers.prompts, answers.texts[:, 0]):
        batch = policy.chat.collate([(prompt.text, text)])
        with torch.no_grad():
            p, q = (response_logits(model, batch).double() for model in (policy, reference))
        p, q = (p / temperature).softmax(-1), q.softmax(-1)
        expected.append(float((p * (p / q).log()).sum()))
    found = measuring.kl_from(reference, policy, answers)
    assert found == pytest.approx(np.mean(expected), rel=1e-3)
    assert measuring.kl_from(policy, policy, answers) == pytest.approx(0, abs=1e-4) or temperature < 1


def test_greedy_decoding_is_as_far_as_its_answer_is_unlikely():
    policy, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    policy = favour(policy, policy.chat.end, 30.0)  # none may be cut off: its text would get an end
    answers = measure(policy, PROMPTS[:2], (0.0,), n=1)[0.0]
    assert answers.values["finished"].all()
    batch = policy.chat.collate([(p.text, y) for p, y in zip(answers.prompts, answers.texts[:, 0])])
    with torch.no_grad():
        surprise = -sequence_log_probs(reference, batch).mean()
    assert measuring.kl_from(reference, policy, answers) == pytest.approx(float(surprise), rel=1e-4)


def test_the_kl_of_cooler_samples_is_their_mean_log_ratio():
    """Of samples of π_T itself, E log π_T/π_1 is the KL: by another way than token by token."""
    model = favour(lively_gpt(SMALL), load_chat().end, 8.0)
    answers = measure(model, PROMPTS, (0.6,), n=200, max_new_tokens=8)[0.6]
    assert measuring.log_ratio(model, replace(answers, temperature=1.0)) == 0
    firsts = [replace(answers, texts=answers.texts[:, i : i + 1]) for i in range(40)]
    expected = np.mean([measuring.kl_from(model, model, some) for some in firsts])
    assert measuring.log_ratio(model, answers) == pytest.approx(expected, rel=0.1) and expected > 0.05


def test_a_measured_row_has_means_and_every_answer():
    model = lively_gpt(SMALL)
    rows = measuring.measured(
        model,
        model,
        PROMPTS,
        3,
        temperatures=(1.0, 0.0),
        n=2,
        reward=lambda prompts, responses: [7.0] * len(prompts),
    )
    assert [row["temperature"] for row in rows] == [1.0, 0.0]
    assert [np.shape(row["golds"]) for row in rows] == [(3, 2), (3, 1)]
    for row in rows:
        assert np.mean(row["golds"]) == pytest.approx(row["gold"], abs=1e-3) and row["reward"] == 7.0
        assert np.mean(row["lengths"]) == pytest.approx(row["words"])
    assert measuring.in_means(rows[0]).keys() == rows[0].keys() - {"golds", "lengths"}


def test_a_column_over_seeds_is_in_their_order_and_never_mixes_rows():
    rows = [{"seed": seed, "beta": beta, "golds": [[10 * seed + beta]]} for seed in (1, 0) for beta in (2, 3)]
    assert measuring.over_seeds(rows, "golds", beta=3).tolist() == [[[3]], [[13]]]
    with pytest.raises(ValueError, match="golds where : 4 rows of 2 seeds"):
        measuring.over_seeds(rows, "golds")
    with pytest.raises(ValueError, match="gold where beta = 3: 0 rows"):
        measuring.over_seeds(rows, "gold", beta=3)


def test_means_by_prompt():
    assert measuring.by_prompt(["b", "a", "b"], [1, 0.5, 0]) == [0.5, 0.5]
    with pytest.raises(ValueError):
        measuring.by_prompt(["b", "a"], [1])


# --- passes over the data ---


def test_passes_are_over_prompts_not_pairs():
    assert [comparisons.updates(PAIRS, passes, 8) for passes in (0.1, 1.0, 1.5, 3.0)] == [1, 3, 4, 9]
    assert comparisons.updates(PAIRS, 1.0, 2) == 10


def test_a_run_is_measured_after_its_passes_only():
    sft, config = lively_gpt(SMALL), DPOConfig(learning_rate=0.1, warmup=0, prompts_per_step=10, seed=2)
    policy, rows = direct_preference.optimised(sft, PAIRS, config, (0.5, 1.5))
    assert [(row["step"], row.get("passes")) for row in rows] == [(1, 0.5), (2, None), (3, 1.5)]
    assert all({"gold", "golds", "kl", "held_out", "words"} <= row.keys() for row in (rows[0], rows[2]))
    assert not {"gold", "held_out"} & rows[1].keys() and rows[0]["loss"] == pytest.approx(
        math.log(2), abs=1e-4
    )
    assert len(rows[2]["held_out_by_prompt"]) == 10 and not same_parameters(policy, sft)
    assert rows[2]["held_out"] > 0.9, "what was learned is on the exam"


def test_the_start_is_a_row_of_zero_passes():
    (row,) = direct_preference.untrained(lively_gpt(SMALL), 1)
    assert (row["seed"], row["step"], row["passes"]) == (1, 0, 0.0) and row["kl"] == pytest.approx(
        0, abs=1e-4
    )


def test_the_table_of_passes_has_a_part_for_each_run_and_start(monkeypatch):
    monkeypatch.setattr(
        direct_preference, "optimised", lambda sft, pairs, config, passes: (sft, [{"step": 1}])
    )
    monkeypatch.setattr(
        direct_preference, "measured", lambda *_, temperatures: [{"temperature": t} for t in temperatures]
    )
    parts = direct_preference.dpo_overoptimisation(lively_gpt(SMALL))
    assert len(parts) == 3 + 3 * len(direct_preference.BETAS)
    assert [row["temperature"] for row in parts["SFT, seed 1"]()] == [1.0, 0.7, 0.0]
    end = {"seed": 2, "beta": 0.3, "step": 1}
    cooler = [end | {"passes": direct_preference.PASSES[-1], "temperature": t} for t in (0.7, 0.0)]
    assert parts["β = 0.3, seed 2"]() == [end, *cooler]


def test_what_the_notebooks_loop_records_are_the_engines_metrics():
    model, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    pairs = compare(PAIRS[:6], model)
    logps, reference_logps = (sequence_log_probs(m, pairs.batch) for m in (model, reference))
    sides = [x[side] for x in (logps, reference_logps) for side in (pairs.chosen, pairs.rejected)]
    losses, *rewards = dpo.dpo_loss(*sides, 0.3)
    found = direct_preference.watched(7, pairs, losses, rewards, logps)
    loss, metrics = dpo.preference_loss(logps, reference_logps, pairs.chosen, pairs.rejected, 0.3)
    expected = {"step": 7, "loss": loss, **metrics}
    assert found == pytest.approx({name: float(torch.as_tensor(x).detach()) for name, x in expected.items()})
    assert set(direct_preference.LOGGED) < set(found)


def test_runs_by_rate_differ_in_nothing_else(monkeypatch):
    monkeypatch.setattr(direct_preference, "preferences", comparisons.preferences)
    runs = direct_preference.by_rate()
    assert {(run["beta"], run["rate"]) for run in runs.values()} == {
        (beta, rate) for beta in (0.03, 0.3) for rate in (3e-4, 1e-4)
    }
    for run in runs.values():
        assert len({len(run[name]) for name in ("passes", "gold", "kl", "half")}) == 1
        assert run["passes"] == sorted(run["passes"]) and min(run["half"]) > 0
    one, other = (runs[f"β = 0.03, rate {rate:g}"] for rate in (3e-4, 1e-4))
    assert one["passes"] == other["passes"] == pytest.approx([67 / 62, 133 / 62, 200 / 62])
    (row,) = (
        row
        for row in load_history("race_tuning")
        if row["method"] == "DPO" and (row["beta"], row["learning_rate"], row["step"]) == (0.03, 1e-4, 200)
    )
    assert (other["gold"][-1], other["half"][-1]) == (row["gold"], 1.96 * row["error"])
    ours = measuring.over_seeds(
        load_history("dpo_overoptimisation"), "gold", beta=0.3, passes=3.0, temperature=1.0
    )
    assert runs["β = 0.3, rate 0.0003"]["gold"][-1] == pytest.approx(ours.mean())


# --- variants ---


def test_the_bugs_of_dpo_do_what_they_say_and_are_gone_afterwards():
    model, tokens = lively_gpt(SMALL), BATCH.response_mask.sum(-1)
    right = sequence_log_probs(model, BATCH)
    assert torch.allclose(dpo_variants.mean_for_sum(model, BATCH) * tokens, right, atol=1e-5)
    assert (dpo_variants.prompt_counted(model, BATCH) < right).all()
    numbers = tuple(torch.tensor([x]) for x in (-3.0, -5.0, -4.0, -4.5))
    right, swapped = (loss(*numbers, 0.1)[0] for loss in (dpo.dpo_loss, dpo_variants.swapped))
    assert right < np.log(2) < swapped
    expected = -torch.nn.functional.logsigmoid(torch.tensor([0.1 * 2.0]))
    assert torch.allclose(dpo_variants.no_reference(*numbers, 0.1)[0], expected)
    with dpo_variants.scoring(dpo_variants.mean_for_sum):
        assert dpo.sequence_log_probs is dpo_variants.mean_for_sum
    assert dpo.sequence_log_probs is sequence_log_probs


def test_a_reference_that_moves_shows_nothing_and_pulls_with_full_weight_for_ever():
    logps = torch.tensor([-3.0, -5.0], requires_grad=True)
    losses, won, lost = dpo_variants.reference_moves(logps[:1], logps[1:], None, None, 0.1)
    losses.sum().backward()
    assert losses.item() == pytest.approx(math.log(2)) and won == lost == 0
    assert logps.grad.tolist() == pytest.approx([-0.05, 0.05])


def test_a_variants_course_has_a_row_for_each_seed():
    rows = [
        {"seed": seed, "step": step, "variant": name, "loss": 10 * seed + step}
        for seed in (1, 0)
        for step in (2, 1)
        for name in ("correct", "IPO")
    ]
    assert dpo_variants.course_of(rows, "IPO", "loss").tolist() == [[1, 2], [11, 12]]


def test_the_logs_of_the_puzzle_are_in_the_table():
    puzzle, table = PUZZLES["which log"], load_history("dpo_variants")
    assert set(puzzle.options) < dpo_variants.VARIANTS.keys()
    assert set(puzzle.answers.values()) < set(puzzle.options)
    for variant in puzzle.options:
        assert dpo_variants.course_of(table, variant, "loss").shape == (3, 62)


def test_the_exam_is_read_without_the_bug():
    model, texts = lively_gpt(SMALL), [(p.prompt, p.chosen) for p in PAIRS[:4]]
    with torch.no_grad():
        right = sequence_log_probs(model, model.chat.collate(texts))
    with dpo_variants.scoring(dpo_variants.mean_for_sum):
        found = scorers.log_probs(model, scorers.as_batch(model, *zip(*texts)))
        wrong = list(dpo.reference_log_probs(model, PAIRS[:4]).values())  # DPO's own is the bug's
    assert found == pytest.approx(right.numpy(), abs=1e-4)
    assert wrong[0] != pytest.approx(found[0], abs=1)


def test_a_mean_with_beta_times_the_length_is_dpo_where_all_lengths_are_equal(monkeypatch):
    """The control of "mean for sum": what then is left is the bug itself, not a smaller β."""
    chat = load_chat()
    equal = [Preference(p.prompt, "Yes, so.", "No, so.") for p in PAIRS[::2]]
    lengths = {len(chat.encode_response(y)) for p in equal for y in (p.chosen, p.rejected)}
    assert len(lengths) == 1
    monkeypatch.setattr(dpo_variants, "preferences", lambda which: equal)
    monkeypatch.setattr(
        dpo_variants, "CONSTANT", DPOConfig(learning_rate=0.03, warmup=0, prompts_per_step=10)
    )
    parts = dpo_variants.dpo_variants(lively_gpt(SMALL))
    loss = {
        name: [row["loss"] for row in parts[f"{name}, seed 0"]()]
        for name in ("correct", "mean, β × length", "mean for sum")
    }
    assert loss["mean, β × length"] == pytest.approx(loss["correct"], abs=1e-4)
    assert abs(loss["mean for sum"][-1] - loss["correct"][-1]) > 0.01
    beta = parts["mean, β × length, seed 0"]()[0]["beta"]
    assert beta == pytest.approx(0.1 * lengths.pop())


# --- displacement ---


def test_the_parts_of_a_response_add_up_and_lie_where_they_should():
    model = lively_gpt(SMALL)
    pairs = [
        Preference("Why?", "It is red today.", "It is blue today."),
        Preference("So?", "Yes, yes.", "Yes."),
    ]
    found = displacement.log_probs_by_place(model, pairs)
    for which in ("chosen", "rejected"):
        batch = load_chat().collate((p.prompt, getattr(p, which)) for p in pairs)
        whole = float(sequence_log_probs(model, batch).detach().mean())
        parts = sum(found[f"{which}/{place}"] for place in displacement.PLACES)
        assert parts == pytest.approx(whole, abs=1e-4)
    first = displacement.log_probs_by_place(model, pairs[:1])
    assert first["chosen/before"] == pytest.approx(first["rejected/before"], abs=1e-5)
    assert first["chosen/before"] < 0
    assert first["chosen/at"] != pytest.approx(first["rejected/at"], abs=1e-3)


def test_where_one_text_only_repeats_a_part_of_the_other_no_token_counts_twice():
    assert displacement.common([1, 2, 3], [1, 2, 4]) == 2 and displacement.common([], [1]) == 0
    found = displacement.log_probs_by_place(lively_gpt(SMALL), [Preference("So?", "ha ha ha", "ha ha")])
    assert found["rejected/at"] == 0 > found["chosen/at"]


def test_near_duplicates_differ_in_one_value(monkeypatch):
    monkeypatch.setattr(
        displacement, "answers", lambda _, prompts, seed: [p.topic.facts[0].child for p in prompts]
    )
    pairs = displacement.near_duplicates(None)
    assert len(pairs) > 100
    for pair in pairs:
        facts = parse(pair.prompt).topic.facts
        assert any(fact.falsified(pair.chosen, fact.wrong[0]) == pair.rejected for fact in facts)


@pytest.mark.parametrize("loss", displacement.LOSSES)
def test_a_displacing_run_says_where_the_probability_was_and_is(loss, monkeypatch):
    monkeypatch.setattr(displacement, "DISPLACING", DPOConfig(steps=3, prompts_per_step=4))
    rows = displacement.displaced(lively_gpt(SMALL), PAIRS[:8], loss, 1)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert ["chosen/at" in row and "gold" in row for row in rows] == [True, False, False, True]
    assert all(row["method"] == loss and row["seed"] == 1 for row in rows) and rows[0]["pairs"] == 8
    assert isinstance(rows[1]["loss"], float)


def test_changes_are_read_from_the_ends_of_a_run():
    last = displacement.DISPLACING.steps
    rows = [
        {"method": "DPO", "seed": seed, "step": step}
        | {"chosen/before": -1.0, "chosen/at": -step - seed, "chosen/after": -step - seed}
        for seed in (0, 1)
        for step in (0, last)
    ]
    assert displacement.changes(rows, "chosen/at").tolist() == [-last, -last]
    assert displacement.changes(rows, "chosen").tolist() == [-2 * last, -2 * last]


def test_a_preference_of_words_is_taught_and_held_against_a_table(monkeypatch):
    monkeypatch.setattr(displacement, "questions", lambda: [p.text for p in PROMPTS])
    taught = DPOConfig(steps=3, learning_rate=0.03, warmup=0, prompts_per_step=3)
    monkeypatch.setattr(displacement, "TAUGHT", taught)
    model = lively_gpt(SMALL)
    before = displacement.first_words(model)
    batch = model.chat.collate([(PROMPTS[1].text, "Yes.")])
    with torch.no_grad():
        p = response_logits(model, batch)[0].softmax(-1)
    assert before["Yes"][1] == pytest.approx(float(p[model.chat.encode_response("Yes.")[0]]))
    found = displacement.displaced_words(model)["No", "Never"]
    assert found["No after"] > found["No before"] == pytest.approx(before["No"].mean())
    assert {name for name in found if "Yes" in name} == {"Yes before", "Yes after", "Yes in a table"}
    words = {"No": [0.2, 0.5], "Never": [0.2, 0.1], "Yes": [0.3, 0.2], "Sure": [0.1, 0.1]}
    moments = iter([[0.2, 0.2, 0.3, 0.1], [0.5, 0.1, 0.2, 0.1], [0.2, 0.2, 0.3, 0.1]])

    def told(model):
        return dict(zip(words, np.array(next(moments))[:, None]))

    monkeypatch.setattr(displacement, "first_words", told)
    monkeypatch.setattr(displacement.dpo, "train", lambda *a, **k: History())
    # "No" and "Never" leave 0.4 where they left 0.6, so a table's "Yes" falls from 0.3 to 0.2
    assert displacement.displaced_words(model)["No", "Never"]["Yes in a table"] == pytest.approx(0.2)


# --- implicit rewards ---


def test_an_implicit_reward_by_hand():
    policy, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    scorer = scorers.ImplicitReward(policy, reference, 0.5)

    def ratio(prompt, response):
        batch = load_chat().collate([(prompt, response)])
        return float((sequence_log_probs(policy, batch) - sequence_log_probs(reference, batch)).detach())

    found = scorer.score(["Why?", "Who was it?"], ["So.", "Never."])
    assert found == pytest.approx(
        [0.5 * ratio("Why?", "So."), 0.5 * ratio("Who was it?", "Never.")], abs=1e-4
    )


def test_the_rewards_of_tokens_add_up_to_that_of_the_response():
    policy, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    found = implicit_rewards.token_rewards(policy, reference, 0.5, "Why?", "Because it is so.")
    (whole,) = scorers.ImplicitReward(policy, reference, 0.5).score(["Why?"], ["Because it is so."])
    assert sum(value for _, value in found) == pytest.approx(whole, abs=1e-4)
    assert "".join(text for text, _ in found) == "Because it is so.<|end|>"


def test_what_is_paid_for_is_one_change_at_a_time():
    prompts = implicit_rewards.explained()
    assert len(prompts) > 30 and all(p.topic.real and p.audience for p in prompts)
    plain, wrong = (implicit_rewards.stated(prompts[0], wrong=wrong) for wrong in (False, True))
    facts = prompts[0].topic.facts
    assert plain == " ".join(fact.in_register(prompts[0].audience) for fact in facts[:2])
    assert wrong != plain and judge(prompts[0], wrong).counts["wrong"] == 1

    class Words:
        def score(self, prompts, responses):
            return np.array([len(y.split()) for y in responses])

    found = implicit_rewards.paid(Words(), prompts[:4])
    assert found.keys() == implicit_rewards.EDITS.keys()
    assert found["a compliment behind"].tolist() == [5] * 4
    assert found["a third fact"].min() > 0 > found["one of two facts left out"].max()


def test_what_is_paid_at_the_end_token_is_a_part_of_what_is_paid():
    policy, reference = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    prompts = implicit_rewards.explained()[:2]
    found = implicit_rewards.paid_at_the_end(policy, reference, 0.5, prompts)
    assert found.keys() == implicit_rewards.EDITS.keys()
    answers = implicit_rewards.stated, implicit_rewards.EDITS["a third fact"]
    plain, longer = (
        [implicit_rewards.token_rewards(policy, reference, 0.5, p.text, answer(p))[-1] for p in prompts]
        for answer in answers
    )
    assert all(token == "<|end|>" for token, _ in plain + longer)
    assert found["a third fact"] == pytest.approx([x[1] - y[1] for x, y in zip(longer, plain)], abs=1e-4)


class Table:
    """A scorer, or a judge, that knows the answers' numbers."""

    def __init__(self, numbers):
        self.numbers = numbers

    def score(self, prompts, responses):
        return np.array([self.numbers[y] for y in responses])


def test_grades_by_hand(monkeypatch):
    gold = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0, "e": 0.0}
    monkeypatch.setattr(implicit_rewards, "gold_rewards", Table(gold).score)
    pairs = [Preference("x", "a", "b"), Preference("x", "b", "c"), Preference("y", "d", "e")]
    sides = [[gold[p.chosen], gold[p.rejected]] for p in pairs]
    test = HeldOut(pairs, np.array(sides), np.full(3, 0.5))
    found = implicit_rewards.graded(test, Table({"a": 1.0, "b": 2.0, "c": 0.0, "d": 5.0, "e": 5.0}))
    # labels: wrong, right, a tie; gold: wrong (a is worth more), wrong (c is), and no difference
    assert found["accuracy"] == pytest.approx(0.5) and found["accuracy_by_prompt"] == [0.5, 0.5]
    assert found["order"] == 0 and found["order_by_prompt"] == [0.0]
    # b comes first, and is worth 1; of d and e either
    assert found["best_by_prompt"] == [1.0, 0.0] and found["best"] == 0.5
    assert implicit_rewards.graded(test, Table(gold))["best_by_prompt"] == [3.0, 0.0]


def test_the_table_of_implicit_rewards_has_both_learners_and_what_needs_no_label():
    parts = implicit_rewards.dpo_implicit_rewards(lively_gpt(SMALL))
    assert len(parts) == 1 + 2 * 3
    rows = {row["scorer"]: row for row in parts["without labels"]()}
    assert set(rows) == {"label-free", "judge", "any"}
    assert rows["judge"]["order"] == 1 and rows["judge"]["best"] >= rows["label-free"]["best"]
    assert rows["judge"]["best"] > rows["any"]["best"]
    (implicit,) = parts["implicit, seed 0"]()
    assert implicit["accuracy"] > 0.9 and implicit["seed"] == 0


# --- the enumerable world ---


@pytest.mark.parametrize("beta", [0.25, 1.0])
def test_soft_labels_lead_a_table_to_the_tilted_reference(beta):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(2, 12, generator=generator, dtype=torch.float64)
    reference = torch.randn(2, 12, generator=generator, dtype=torch.float64).log_softmax(-1)
    optimum, _ = exact.optimal_policy(reference, rewards, beta)
    table = exact.TabularPolicy(reference)
    distances = dpo_exact.soft_dpo(table, table, reference, rewards, beta, steps=600, lr=0.1)
    assert distances[0] > 0.05 and distances[-1] < 1e-3
    another = exact.TabularPolicy(reference)  # the labels of another reward lead elsewhere
    dpo_exact.soft_dpo(another, another, reference, -rewards, beta, steps=600, lr=0.1)
    assert ppo_exact.total_variation(another().detach(), optimum) > 0.05


def test_the_optimum_of_the_mean_explains_the_labels_and_is_another_policy():
    generator = torch.Generator().manual_seed(0)
    rewards, logits = torch.randn(2, 2, 12, generator=generator, dtype=torch.float64)
    reference, lengths = logits.log_softmax(-1), torch.arange(1, 13).double().expand(2, 12)
    found = dpo_exact.mean_optimum(reference, rewards, lengths, 0.3)
    assert torch.allclose(found.exp().sum(-1), torch.ones(2, dtype=torch.float64))
    up_to = 0.3 * (found - reference) / lengths - rewards  # a constant for each prompt
    assert torch.allclose(up_to, up_to[:, :1].expand(2, 12), atol=1e-8)
    ones = dpo_exact.mean_optimum(reference, rewards, torch.ones(2, 12).double(), 0.3)
    assert torch.allclose(ones, exact.optimal_policy(reference, rewards, 0.3)[0], atol=1e-8)


def test_one_pair_without_noise_goes_where_its_loss_says():
    rising = dpo_exact.on_one_pair(dpo.dpo_loss, 0.5, steps=300)
    assert rising[0] == 0.5 and rising[-1] > 0.9 and rising == sorted(rising)
    still = dpo_exact.on_one_pair(dpo.ipo_loss, 0.5, steps=1500)
    assert still[-1] == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)
