"""Notebook 08: agreeing. The law and the penalty, by enumeration, by scipy, and by a numerical search."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import optimize

import minialign
from minialign.course.evaluation import Answers
from minialign.course.experiments import SEEDS, sycophancy
from minialign.course.experiments.comparisons import preferences
from minialign.course.experiments.sycophancy import (
    BIASES,
    CONTROL,
    HELD_OUT,
    agreed,
    agreement_penalty,
    agrees,
    covariance,
    crossing,
    exactly,
    explained,
    first_order_penalty,
    learned_rewards,
    one_penalty,
    opinion_world,
    penalised,
    people_choose,
    sample_covariance,
    tilted,
    yes_chosen,
)
from minialign.course.figures import sycophancy as figures
from minialign.preferences import Preference
from minialign.world.annotator import TYPICAL, typical_annotator
from minialign.world.exact import optimal_policy
from minialign.world.judge import judge
from minialign.world.prompts import parse


@pytest.fixture
def answers():
    """log π_ref, rewards and agreement of six answers to each of three prompts."""
    rng = np.random.default_rng(3)
    agree = np.array([[1, 0, 1, 0, 0, 1], [0, 0, 1, 0, 0, 0], [1, 1, 1, 0, 1, 0]], dtype=float)
    logits, rewards = rng.normal(0, 1, (3, 6)), rng.normal(0, 1, (3, 6)) + agree + [[3.0], [0.0], [-2.0]]
    return torch.from_numpy(logits).log_softmax(-1), torch.from_numpy(rewards), torch.from_numpy(agree)


# --- the law ---


def test_the_covariance_is_numpys_and_the_slope_of_the_drift(answers):
    reference, rewards, agree = answers
    found = covariance(reference, agree, rewards)
    for x in range(3):
        weights = reference[x].exp().numpy()
        known = np.cov(agree[x], rewards[x], aweights=weights, bias=True)[0, 1]
        assert float(found[x]) == pytest.approx(known)
    tilt = 1e-5
    moved = agreed(optimal_policy(reference, rewards, 1 / tilt)[0], agree) - agreed(reference, agree)
    assert torch.allclose(moved / tilt, found, rtol=1e-3, atol=1e-5)
    # Without the means it is no slope of anything: rewards have a zero of their own.
    assert not torch.allclose((reference.exp() * agree * rewards).sum(-1), found, atol=0.1)
    assert torch.allclose(covariance(reference, agree, rewards + 5), found)


def test_samples_estimate_it_without_bias_within_prompts(answers):
    reference, rewards, agree = answers
    drawn = torch.multinomial(reference.exp(), 4 * 6000, True, generator=torch.Generator().manual_seed(0))
    a, r = (values.gather(1, drawn).numpy().reshape(-1, 4) for values in (agree, rewards))
    found = sample_covariance(a, r).reshape(3, -1).mean(1)
    known = covariance(reference, agree, rewards).numpy()
    assert found == pytest.approx(known, abs=0.003)
    assert np.abs(0.75 * found - known).min() > 0.01  # divided by n it is too small
    assert sample_covariance(a[:1], r[:1])[0] == pytest.approx(np.cov(a[0], r[0])[0, 1])
    with pytest.raises(ValueError, match="at least two"):
        sample_covariance(a[:, :1], r[:, :1])


def test_weighted_samples_estimate_the_tilt(answers):
    reference, rewards, agree = answers
    drawn = torch.multinomial(reference.exp(), 40_000, True, generator=torch.Generator().manual_seed(1))
    a, r = (values.gather(1, drawn).numpy() for values in (agree, rewards))
    known = agreed(optimal_policy(reference, rewards, 0.8)[0], agree).numpy()
    assert tilted(a, r, 0.8) == pytest.approx(known, abs=0.02)
    assert tilted(a, r + 2000, 0.8) == pytest.approx(tilted(a, r, 0.8))


# --- the penalty ---


@pytest.mark.parametrize("beta", [0.4, 1.0, 3.0])
def test_the_penalty_restores_agreement_exactly(answers, beta):
    reference, rewards, agree = answers
    lam = agreement_penalty(reference, rewards, agree, beta)
    for x in range(3):

        def drift(value, x=x):
            tilt = optimal_policy(reference[x : x + 1], rewards[x : x + 1] - value * agree[x : x + 1], beta)[
                0
            ]
            return float(agreed(tilt, agree[x : x + 1]) - agreed(reference[x : x + 1], agree[x : x + 1]))

        assert float(lam[x]) == pytest.approx(optimize.brentq(drift, -20, 20), abs=1e-8)
    restored = agreed(optimal_policy(reference, rewards - lam[:, None] * agree, beta)[0], agree)
    assert torch.allclose(restored, agreed(reference, agree), atol=1e-12)
    wrong = optimal_policy(reference, rewards + lam[:, None] * agree, beta)[0]
    assert (agreed(wrong, agree) - agreed(reference, agree)).abs().max() > 0.05


def test_it_is_the_least_change_that_does(answers):
    """A search over all policies with the reference's P(agree) finds none nearer to the optimum."""
    reference, rewards, agree = (values[:1] for values in answers)
    beta = 0.7
    lam = agreement_penalty(reference, rewards, agree, beta)
    ours = optimal_policy(reference, rewards - lam[:, None] * agree, beta)[0][0].exp().numpy()
    optimum, before = optimal_policy(reference, rewards, beta)[0][0].numpy(), float(agreed(reference, agree))
    yes = agree[0].numpy()
    found = optimize.minimize(
        lambda p: float((p * (np.log(np.maximum(p, 1e-12)) - optimum)).sum()),
        np.full(6, 1 / 6),
        bounds=[(1e-9, 1)] * 6,
        constraints=[
            {"type": "eq", "fun": lambda p: p.sum() - 1},
            {"type": "eq", "fun": lambda p: (p * yes).sum() - before},
        ],
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success and found.x == pytest.approx(ours, abs=1e-4)


def test_first_order_is_its_limit_and_the_gap_of_the_means(answers):
    reference, rewards, agree = answers
    first = first_order_penalty(reference, rewards, agree)
    assert torch.allclose(agreement_penalty(reference, rewards, agree, 1e4), first, atol=1e-3)
    assert (agreement_penalty(reference, rewards, agree, 0.3) - first).abs().max() > 0.1
    weights = reference.exp()
    for x in range(3):
        yes = agree[x] == 1
        gap = (weights[x] * rewards[x])[yes].sum() / weights[x][yes].sum()
        gap = gap - (weights[x] * rewards[x])[~yes].sum() / weights[x][~yes].sum()
        assert float(first[x]) == pytest.approx(float(gap))


def test_one_penalty_for_all_prompts(answers):
    reference, rewards, agree = answers
    lam = one_penalty(reference, rewards, agree, 0.5)
    after = agreed(optimal_policy(reference, rewards - lam * agree, 0.5)[0], agree)
    assert float(after.mean()) == pytest.approx(float(agreed(reference, agree).mean()), abs=1e-10)
    assert (after - agreed(reference, agree)).abs().max() > 0.01  # but not on each of them
    alone = [values[:1] for values in answers]
    assert one_penalty(*alone, 0.5) == pytest.approx(float(agreement_penalty(*alone, 0.5)))


def test_no_penalty_changes_what_is_always_done(answers):
    reference, rewards, agree = answers
    with pytest.raises(ValueError, match="always agrees"):
        agreement_penalty(reference, rewards, torch.ones_like(agree), 1.0)
    with pytest.raises(ValueError, match="beta"):
        agreement_penalty(reference, rewards, agree, 0.0)


def test_halves_give_each_other_their_penalty():
    rng = np.random.default_rng(4)
    agree = (rng.random((400, 8)) < 0.4).astype(float)
    rewards = 0.7 * agree + rng.normal(0, 0.3, (400, 8))
    after, lam = penalised(agree, rewards, 1.0)
    assert lam == pytest.approx(0.7, abs=0.03)
    assert after.mean() == pytest.approx(agree.mean(), abs=0.01)
    assert tilted(agree, rewards, 1.0).mean() > agree.mean() + 0.1
    # What a half is given does not depend on its own rewards.
    rewards[::2] += 3 * agree[::2]
    changed, _ = penalised(agree, rewards, 1.0)
    assert (changed[1::2] < after[1::2] - 0.01).mean() > 0.5


def test_how_much_is_explained_and_where_the_sign_changes():
    assert explained([1, 2, 3], [1, 2, 3]) == 1
    assert explained([2, 2, 2], [1, 2, 3]) == 0
    assert explained([2, 4, 6], [1, 2, 3]) == pytest.approx(1 - 14 / 2)  # a perfect correlation, and wrong
    with pytest.raises(ValueError, match="always the same"):
        explained([1, 2], [3, 3])
    assert crossing([0.6, 0.2, 0.4], [0.3, -0.2, -0.1]) == pytest.approx(0.45)
    assert crossing([0, 1, 2], [-1, 0, 1]) == 1
    assert np.isnan(crossing([0, 1], [1, 2]))


# --- the enumerable world ---


@pytest.fixture(scope="module")
def reference():
    """Some π_ref of the opinions: no network is asked."""
    logits = np.random.default_rng(0).normal(0, 1.5, tuple(opinion_world().agree.shape))
    return torch.from_numpy(logits).log_softmax(-1)


def test_the_world_has_as_many_true_opinions_as_false_ones():
    opinions = opinion_world()
    asked = [parse(prompt) for prompt in opinions.world.prompts]
    assert all(x.opinion for x in asked) and opinions.holds.sum() == len(asked) / 2
    assert opinions.agree.sum(1).tolist() == [24] * 12 and set(opinions.side.ravel()) == {1, -1}
    texts = opinions.world.responses
    assert all(len(set(ys)) == 48 for ys in texts)
    x, y = asked[3], texts[3][30]
    assert opinions.world.rewards[3, 30] == pytest.approx(judge(x, y).gold)
    assert opinions.agree[3, 30] == agrees(x, y) == float("Yes." in y)


@pytest.mark.parametrize("bias", [-0.6, 0.0, 1.0])
def test_choices_are_the_annotators(bias):
    opinions, person = opinion_world(), typical_annotator(agreement_bias=bias)
    found, rng = opinions.choices(bias), np.random.default_rng(1)
    for _ in range(12):
        x, i, j = rng.integers(12), *rng.choice(48, 2, replace=False)
        ys = opinions.world.responses[x]
        known = person.probability(opinions.world.prompts[x], ys[i], ys[j])
        assert found[x, i, j] == pytest.approx(known)
    assert found + found.transpose(0, 2, 1) == pytest.approx(np.ones(found.shape))
    attentive = typical_annotator(agreement_bias=bias, inattention=0.0, checks_facts=1.0)
    known = attentive.probability(opinions.world.prompts[0], *opinions.world.responses[0][:2])
    changed = opinions.choices(bias, inattention=0.0, checks_facts=1.0)
    assert changed[0, 0, 1] == pytest.approx(known)


def test_who_always_reads_is_learned_as_they_feel():
    opinions = opinion_world()
    rewards = learned_rewards(opinions.choices(0.3, inattention=0.0, checks_facts=1.0)[:2])
    felt = torch.from_numpy(opinions.felt[..., 1] + 0.3 * opinions.side)[:2] / TYPICAL["temperature"]
    assert torch.allclose(rewards, felt - felt.mean(-1, keepdim=True), atol=1e-6)


def test_how_often_the_yes_is_chosen_counts_pairs_of_both_sides():
    chosen = np.full((1, 4, 4), 0.5)
    chosen[0, 0, 2], chosen[0, 1, 2], chosen[0, 0, 1] = 0.9, 0.3, 1.0
    side = np.array([[1, 1, -1, 0]])
    assert yes_chosen(chosen, side) == pytest.approx(0.6)
    assert yes_chosen(chosen, side, np.array([[0.6, 0.2, 0.1, 0.1]])) == pytest.approx(0.75)
    assert np.isnan(yes_chosen(chosen, np.array([[1, 1, 1, 0]])))


def from_pairs_of(weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Bradley-Terry of pairs that are drawn by weights (N,), by steps of Newton's for one score at a time."""
    scores, apart = np.zeros(len(weights)), weights[None] * (1 - np.eye(len(weights)))
    for _ in range(200):
        p = 1 / (1 + np.exp(scores[None] - scores[:, None]))
        scores += 0.7 * np.clip((apart * (chosen - p)).sum(1) / (apart * p * (1 - p)).sum(1), -1, 1)
    return scores - scores.mean()


def test_the_sign_changes_near_one_half_whichever_pairs_are_compared(reference):
    opinions, biases = opinion_world(), (-0.4, -0.2, 0.0, 0.2, 0.4)
    runs = [exactly(bias, reference) for bias in biases]
    preferred = [run.preferred["all"] for run in runs]
    assert crossing(preferred, [run.covariance() for run in runs]) == pytest.approx(0.5, abs=0.05)
    drawn = []
    for bias in biases:
        chosen = opinions.choices(bias)
        rewards = [from_pairs_of(w, c) for w, c in zip(reference.exp().numpy(), chosen)]
        drawn.append(float(covariance(reference, opinions.agree, torch.tensor(np.array(rewards))).mean()))
    assert crossing(preferred, drawn) == pytest.approx(0.5, abs=0.05)
    even = from_pairs_of(np.ones(48), opinions.choices(0.2)[0])
    assert even == pytest.approx(exactly(0.2, reference).rewards[0].numpy(), abs=1e-4)


def test_a_run_is_the_mean_over_prompts(reference):
    run = exactly(1.0, reference)
    before = agreed(reference, run.opinions.agree)
    after = agreed(run.optimum(2.0), run.opinions.agree)
    assert run.drift(2.0) == pytest.approx(float((after - before).mean()))
    assert run.drift(2.0, claims="true") == pytest.approx(float((after - before)[::2].mean()))
    lam = agreement_penalty(reference, run.rewards, run.opinions.agree, 2.0)
    assert run.drift(2.0, lam) == pytest.approx(0, abs=1e-12)
    both = [run.covariance(claims) for claims in ("true", "false")]
    assert run.covariance() == pytest.approx(np.mean(both))
    still = sycophancy.flip(reference)
    assert still.covariance() == pytest.approx(0, abs=1e-4) and -1 < still.bias < 1


# --- the GPT ---


def test_what_is_learned_from_and_measured_on():
    for opinion in (True, False):
        train, test = sycophancy.training_prompts(opinion), sycophancy.held_out_claims(opinion)
        assert len(train) == 2 * sycophancy.CLAIMS and len(test) == 2 * HELD_OUT
        assert all(p.opinion == opinion and p.family == "truth" for p in (*train, *test))
        assert [p.claim_holds for p in test] == sycophancy.holds().tolist()
        assert sum(p.claim_holds for p in train) == sycophancy.CLAIMS
        assert not {p.topic.name for p in train} & {p.topic.name for p in test}
    with pytest.raises(ValueError, match="were asked for"):
        sycophancy.claims_of(("evaluation",), 500)


YES, NO = "Yes. I hope this helps.", "No. I hope this helps."


def answers_of(prompts, shares) -> Answers:
    """Eight answers to each prompt, of which so many say yes."""
    texts = np.array([[YES] * round(8 * share) + [NO] * (8 - round(8 * share)) for share in shares], object)
    values = {"gold": np.ones(texts.shape), "words": np.ones(texts.shape)}
    return Answers(list(prompts), 1.0, (0,), texts, values | {"attribute/correctness": np.zeros(texts.shape)})


def test_what_people_prefer_is_the_annotators_probability(monkeypatch):
    true, false = sycophancy.held_out_claims()[0], sycophancy.held_out_claims()[-1]
    found = answers_of((true, false), (0.5, 0.25))
    monkeypatch.setattr(sycophancy, "answered", lambda sft, seed: found)
    pairs = [Preference(true.text, YES, NO), Preference(true.text, "Yes.", YES)]
    sycophancy.felt_answers.cache_clear()
    shares = sycophancy.preferred(None, pairs, 0.6, 0)
    sycophancy.felt_answers.cache_clear()
    person = typical_annotator(agreement_bias=0.6)
    of_true, of_false = (person.probability(x, YES, NO) for x in (true, false))
    assert shares["among labels"] == pytest.approx(of_true, abs=1e-4)
    assert shares["preferred"] == pytest.approx((16 * of_true + 12 * of_false) / 28, abs=1e-4)
    assert sycophancy.agreeing(found).sum(1).tolist() == [4, 2]


def test_a_person_without_an_opinion_to_agree_with_is_not_biased():
    """Why the control has nothing to learn from: true by construction."""
    x = sycophancy.training_prompts(opinion=False)[0]
    fair, biased = (typical_annotator(agreement_bias=b) for b in (0.0, BIASES[-1]))
    assert fair.probability(x, YES, NO) == biased.probability(x, YES, NO)
    felt, side = sycophancy.feelings([sycophancy.training_prompts()[0]], [[YES, NO]])
    assert people_choose(felt, side, 1.5)[0, 0, 1] > people_choose(felt, side, 0.0)[0, 0, 1] + 0.1


def test_an_arm_trains_a_reward_model_and_a_policy_on_the_same_labels(monkeypatch):
    sft = minialign.load("sft", "cpu").model
    few = preferences("comparisons")[:6]
    monkeypatch.setattr(sycophancy, "labelled_pairs", lambda *of: few)
    monkeypatch.setattr(sycophancy, "preferred", lambda *of: {"preferred": 0.5})
    monkeypatch.setattr(sycophancy, "CONSTANT", replace(sycophancy.CONSTANT, prompts_per_step=4))
    seen = {}

    def predicted(model, score, seed):
        seen["reward"] = score([few[0].prompt] * 2, [few[0].chosen, few[0].rejected])
        return {"cov": [0.0]}

    def shown(policy, reference, answers, drawn):
        seen["moved"] = any((a != b).any() for a, b in zip(policy.parameters(), reference.parameters()))
        seen["drawn"] = drawn
        return {"agree": [0.0]}

    monkeypatch.setattr(sycophancy, "predicted", predicted)
    monkeypatch.setattr(sycophancy, "shown", shown)
    monkeypatch.setattr(sycophancy, "measure", lambda *of: {1.0: None})
    before = copy.deepcopy(sft.state_dict())
    (row,) = sycophancy.in_arm(sft, 0.3, 1, opinion=False)
    assert all(torch.equal(before[name], value) for name, value in sft.state_dict().items())
    assert row["arm"] == CONTROL and row["labels"] == 6 and seen["moved"] and len(set(seen["reward"])) == 2
    assert seen["drawn"] == (1 + BIASES.index(0.3) + len(BIASES), 1)


def test_every_bias_has_a_part_for_every_seed():
    parts = sycophancy.sycophancy(None)
    assert len(parts) == len(SEEDS) * (1 + len(BIASES) + 1) and len(BIASES) == 10 and 0.0 in BIASES


def test_live_pairs_are_of_true_and_false_opinions():
    pairs = sycophancy.live_pairs(2.0, prompts=8)
    asked = {p.prompt for p in pairs}
    assert len(asked) == 8 and sum(parse(x).claim_holds for x in asked) == 4
    sides = [(agrees(p.prompt, p.chosen), agrees(p.prompt, p.rejected)) for p in pairs]
    assert sides.count((1, 0)) > 3 * sides.count((0, 1))
    assert sum(p.claim_holds for p in sycophancy.live_prompts(10)) == 5


# --- read from the table ---


@pytest.fixture
def rows():
    """Two seeds: drift and covariance rise with the bias, by twice as much; claims start at .6 and .4."""
    made, start = [], np.where(sycophancy.holds(), 0.6, 0.4)
    for seed in (0, 1):
        for t in (1.0, 0.7, 0.0):
            made.append(
                {"arm": "start", "seed": seed, "temperature": t, "agree": (start + (1 - t) / 10).tolist()}
            )
        for bias in BIASES:
            drift = 0.2 * bias + 0.02 * seed
            made.append({"arm": "opinions", "bias": bias, "seed": seed, "agree": (start + drift).tolist()})
        made.append({"arm": CONTROL, "bias": 1.5, "seed": seed, "agree": (start + 0.01).tolist()})
    for row in made:
        bias = row.get("bias", 0) * (row["arm"] == "opinions")
        row |= {"cov": [0.1 * bias] * len(start), "temperature": 1.0} | row
        row |= {"preferred": 0.5 + 0.25 * bias, "among labels": 0.5 - 0.2 * bias} | row
        row |= {"gold": [2.0] * len(start), "correctness": [0.1] * len(start), "kl": 1.0}
        row["yes without opinion"] = [0.6, 0.4]
    return made


def test_the_law_and_the_flips_of_a_table(rows):
    r2, slope = sycophancy.law(rows)
    assert r2 == pytest.approx([1, 1]) and slope == pytest.approx([2, 2])
    assert sycophancy.flips(rows) == pytest.approx([0.5, 0.5 - 0.25 * 0.1])
    most = dict(arm="opinions", bias=1.5)
    assert sycophancy.change(rows, claims="false", **most).mean == pytest.approx(0.31)
    over = sycophancy.change(rows, over=dict(arm=CONTROL), **most)
    assert over.mean == pytest.approx(0.30) and over.low < over.mean < over.high
    assert sycophancy.change(rows, arm="start", temperature=0.7).mean == pytest.approx(0.03)


def test_the_figures_say_what_the_rows_do(rows, reference, alt_texts, capsys):
    figures.gpt(rows)
    assert (
        "-0.19 to +0.31" in alt_texts[0]
        and "slope 2.0" in alt_texts[0]
        and f"{CONTROL} +0.01" in alt_texts[0]
    )
    figures.table(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 3 + len(BIASES) + 1 and lines[-1].startswith(CONTROL)
    runs = [exactly(bias, reference) for bias in (-1.0, 0.0, 1.0)]
    figures.law(runs, np.array([run.covariance() for run in runs]))
    assert "1/β = 0.2: R² = " in alt_texts[1] and "b = 0 " in alt_texts[1]
    figures.penalised(runs[2], runs[1], 1.0, agreement_penalty)
    assert "a λ(x) for each prompt: all +0.00" in alt_texts[2].replace("-0.00", "+0.00")
    prompts = sycophancy.live_prompts(4)
    figures.live(runs[2], answers_of(prompts, [0.5] * 4), answers_of(prompts, [0.75] * 4), 1.0)
    assert len(alt_texts) == 4
