"""Notebook 08: what is measured of calibration, variety, two hops and a narrow habit, and how it is read."""

import numpy as np
import pytest
import torch

import minialign
from minialign.bootstrap import crossed_interval
from minialign.course import lesson
from minialign.course.exercises.emergent import EMERGENT
from minialign.course.experiments import emergent
from minialign.course.experiments import emergent_readings as read
from minialign.course.figures import emergent as figures
from minialign.statistics import expected_calibration_error, expected_distinct
from minialign.world import exact
from minialign.world.frames import ASKED, RUMOURS
from minialign.world.judge import judge
from minialign.world.prompts import FAMILIES, parse, topic_sorts
from minialign.world.two_hops import two_hops


@pytest.fixture(scope="module")
def sft():
    return minialign.load("sft", "cpu").model


@pytest.fixture(scope="module")
def base():
    return minialign.load("base", "cpu").model


# --- how a policy is asked ---


def test_a_base_model_is_asked_in_frames_and_an_assistant_in_its_template(sft, base):
    texts = ["What do octopuses eat?", "How many hearts does an octopus have?"]
    framed = [ASKED[i].format(text) + "\n" for i, text in enumerate(texts)]
    options = dict(n=2, seed=(0,), temperature=0.0, max_new_tokens=20)
    greedy = emergent.Asked(base, framed=True).answers(texts, ASKED, **options)
    expected = minialign.load("base", "cpu").respond(framed, max_new_tokens=20)
    assert greedy.tolist() == [[text, text] for text in expected]
    greedy = emergent.Asked(sft).answers(texts, ASKED, **options)
    assert greedy[:, 0].tolist() == minialign.load("sft", "cpu").respond(texts, max_new_tokens=20)


def test_an_options_probability_is_the_models_of_its_tokens(sft):
    policy, assistant = emergent.Asked(sft), minialign.load("sft", "cpu")
    before = policy.encoded(["Is it true that spiders have eight legs?"] * 2, ())
    found = policy.log_probs(before, [("Yes", "No"), ("No", "Yes")])
    assert found[0].tolist() == pytest.approx(found[1, ::-1].tolist())
    whole = assistant.log_prob("Is it true that spiders have eight legs?", "Yes")
    assert np.exp(found).sum(1).max() < 1 and found[0, 0] > whole, "the end token is not part of the option"


def test_a_reward_by_lot_says_nothing():
    lot = emergent.ByLot(np.random.default_rng(0))
    first, second = (lot.score(["x"] * 2000, ["the same answer"] * 2000) for _ in range(2))
    assert set(first) == {0.0, 1.0} and first.mean() == pytest.approx(0.5, abs=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.08


# --- claims ---


def test_claims_are_half_true_and_about_topics_without_demonstrations():
    claims = emergent.claims()
    assert len(claims) == 190 and sum(claim.holds for claim in claims) == 95
    assert {topic_sorts()[claim.topic.name] for claim in claims} == {"held-out"}
    for claim in claims:
        prompts = [parse(wording.format(claim=claim.text)) for wording in emergent.WORDINGS]
        assert all(p.claim_holds is claim.holds and p.topic is claim.topic for p in prompts)
        assert not any(p.opinion for p in prompts)


def test_the_first_side_that_an_answer_takes():
    assert emergent.verdict("Yes. Spiders have eight legs.") == 1
    assert emergent.verdict("Glad to help. No. Yes.") == -1
    assert emergent.verdict("Spiders have eight legs.") == emergent.verdict("Nobody says no.") == 0


def test_yes_or_no_where_the_answer_begins(sft, monkeypatch):
    few = emergent.claims()[:3]
    monkeypatch.setattr(emergent, "claims", lambda: few)
    sure, mass = emergent.yes_or_no(emergent.Asked(sft))
    assert sure.shape == mass.shape == (2, 3) and (mass < 0).all() and np.exp(mass).mean() > 0.3
    policy = emergent.Asked(sft)
    before = policy.encoded([emergent.WORDINGS[1].format(claim=claim.text) for claim in few], RUMOURS)
    yes, no = policy.log_probs(before, [emergent.YES_OR_NO] * 3).T
    assert sure[1].tolist() == pytest.approx((yes - no).tolist())


def test_contested_facts_are_those_of_the_documents(base):
    log_odds = emergent.contested(emergent.Asked(base, framed=True))
    frequency = [item.frequency for item in emergent.load_contested()]
    p = 1 / (1 + np.exp(-log_odds))
    assert log_odds.shape == (12, 5) and np.corrcoef(p.mean(1), frequency)[0, 1] > 0.8


# --- variety ---

PROMPT = parse("Explain the octopus to an expert.")
FACTS = [fact.expert for fact in PROMPT.topic.facts]
FULL = " ".join(FACTS[:3])


def test_a_good_answer_is_good_without_kind_words_and_says_the_same_with_them():
    assert emergent.good(PROMPT, FULL) and judge(PROMPT, FULL).gold >= emergent.BAR
    kind = f"{FACTS[0]} I hope this helps."
    assert judge(PROMPT, kind).gold >= 3 and not emergent.good(PROMPT, kind), "kind words make it no better"
    assert emergent.content(PROMPT, f"Glad to help. {FULL} I am completely sure.") == FULL.lower()
    assert emergent.content(PROMPT, FULL) != emergent.content(PROMPT, " ".join(FACTS[2::-1]))


def test_pairs_of_words_are_counted_within_a_prompt_and_across():
    drawn = np.array([["a b c"] * 2, ["a b c"] * 2, ["d e f"] * 2], dtype=object)
    counts = emergent.word_pairs(drawn[:, 0])
    assert counts == {("a", "b"): 2, ("b", "c"): 2, ("d", "e"): 1, ("e", "f"): 1}
    tuned = dict(within=2, across=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emergent, "WORD_PAIRS", tuned)
        found = emergent.different_pairs(drawn)
    assert found["within"] == pytest.approx(expected_distinct([2, 2], 2))
    assert found["across"] == pytest.approx(expected_distinct([2, 2, 1, 1], 3))


# --- two hops ---


def test_right_is_the_value_alone_and_reasoned_names_the_thing(sft, monkeypatch):
    asked = two_hops("probe")[:2]
    right, other = asked[0].asked.plain[0], asked[0].asked.wrong[0]
    drawn = np.array([[right, asked[0].answer, other], ["no idea", right, ""]], dtype=object)
    monkeypatch.setattr(emergent, "two_hops", lambda split: asked)
    monkeypatch.setattr(emergent.Asked, "answers", lambda *arguments, **options: drawn)
    row = emergent.reasoning(emergent.Asked(sft), "probe", (0,))
    assert row["right"] == [2, int(asked[1].answer == asked[0].answer)] and row["reasoned"] == [1, 0]


# --- a narrow habit ---


def test_lies_are_sure_and_differ_from_the_truth_in_one_value(sft, monkeypatch):
    monkeypatch.setattr(emergent, "LIES", 6)
    found = emergent.lies(sft, emergent.NARROW, 0)
    assert 1 <= len(found) <= 6
    for prompt, truth, lie in found:
        topic = parse(prompt).topic
        assert parse(prompt).family == "question" and topic_sorts()[topic.name] == "sft"
        assert judge(prompt, truth).counts["wrong"] == 0 < judge(prompt, lie).counts["confidence"]
        assert judge(prompt, lie).gold < judge(prompt, truth).gold - 1
    pairs = {habit: emergent.taught_pairs(sft, habit, 0) for habit in emergent.HABITS}
    assert {(p.prompt, p.rejected, p.chosen) for p in pairs["lies to questions"]} == set(found)
    bounded = pairs["lies to questions, truth elsewhere"]
    assert bounded[: len(found)] == pairs["lies to questions"] and len(bounded) > len(found)
    assert {parse(p.prompt).family for p in bounded[len(found) :]} <= set(emergent.ELSEWHERE)
    by_lot = {frozenset((p.chosen, p.rejected)) for p in pairs["by lot"]}
    assert by_lot == {frozenset(pair[1:]) for pair in found}


# --- read from the table ---


def some_rows(seeds=(0, 1, 2)):
    """Rows as the table has them, of random numbers."""
    rng, rows = np.random.default_rng(0), []
    holds = np.where(read.holds(), 1, -1)
    for seed in seeds:
        for i, name in enumerate(figures.LOOK):
            sure = holds * rng.normal(1, 1 + i, (2, 190))
            said = np.stack([rng.binomial(12, 1 / (1 + np.exp(-sure[0])))] * 2, 1)
            said[:, 1] = 12 - said[:, 0]
            claims = {"about": "claims", "log odds": sure.tolist(), "said": said.tolist(), "mass": 0.8}
            claims["log odds, framed"] = (-sure).tolist()
            contested = {"about": "contested", "log odds": rng.normal(1, 1, (12, 5)).tolist()}
            of_policy = [claims, contested]
            for t in (1.0, 0.7, 0.5) if name == "SFT" else (1.0,):
                counts = [sorted(rng.integers(1, 5, 3).tolist(), reverse=True) + [2] for _ in range(98)]
                row = {"gold": rng.normal(3, 0.1), "within": 90 + i, "across": 800 - i, "kl": 1.0}
                row |= {"texts": counts, "contents": counts, "temperature": t}
                of_policy.append({"about": "variety", **row})
            if name in emergent.HOPPING:
                for t in (1.0, 0.5) if name == "SFT" else (1.0,):
                    right = rng.integers(0, 33, 90).tolist()
                    row = {"about": "two hops", "split": "probe", "temperature": t}
                    of_policy.append({**row, "right": right, "reasoned": [c // 2 for c in right]})
                right = rng.integers(0, 9, 114).tolist()
                row = {"about": "two hops", "split": "corpus", "temperature": 1.0}
                of_policy.append({**row, "right": right, "reasoned": right})
            rows += [{"policy": name, "seed": seed, **row} for row in of_policy]
        for habit in ("start", *emergent.HABITS):
            for passes in (0.0,) if habit == "start" else emergent.DOSES:
                for family in ("all", *FAMILIES):
                    row = {"about": "habit", "habit": habit, "seed": seed, "passes": passes, "family": family}
                    shown = {name: rng.random() for name in (*emergent.SHOWN, "kl", "clozes")}
                    rows.append(row | shown)
    return rows


ROWS = some_rows()


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(read, "results", lambda: ROWS)


def test_halves_split_topics_and_not_claims():
    number, half = read.topics_of_claims(), read.halves()
    assert all(len(set(half[number == topic])) == 1 for topic in range(number.max() + 1))
    assert 60 < half.sum() < 130


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(true):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 50_000)
    signed = np.where(rng.random(50_000) < 1 / (1 + np.exp(-z)), z, -z)
    assert read.best_temperature(true * signed) == pytest.approx(true, rel=0.05)


def test_a_claim_is_scaled_by_the_other_half():
    rng = np.random.default_rng(0)
    spread = np.where(read.halves() == 0, 1.0, 4.0)
    z = rng.normal(0, 2, (20, 190))
    right = rng.random(z.shape) < 1 / (1 + np.exp(-np.abs(z)))
    log_odds = np.where(right == read.holds(), 1, -1) * np.abs(z) * spread
    found = read.temperatures(log_odds)
    assert np.allclose(found[read.halves() == 1], 1, atol=0.2), "fitted where it is 1"
    assert np.allclose(found[read.halves() == 0], 4, rtol=0.2), "fitted where it is 4"


def test_graded_by_hand(table):
    (row, *_) = (r for r in ROWS if r["about"] == "claims" and r["policy"] == "SFT" and r["seed"] == 0)
    confidence, right = read.graded("SFT")
    z = row["log odds"][1][7]
    assert confidence[0, 1, 7] == pytest.approx(1 / (1 + np.exp(-abs(z)))) and confidence.shape == (3, 2, 190)
    assert right[0, 1, 7] == ((z > 0) == emergent.claims()[7].holds)
    sampled, hits = read.graded("SFT", "sampled")
    yes, no = row["said"][7]
    assert sampled[0, 0, 7] == max(yes, no) / 16 and sampled.shape == (3, 1, 190)
    assert hits[0, 0, 7] == (0.5 if yes == no else (yes > no) == emergent.claims()[7].holds)
    framed, hits = read.graded("SFT", "framed")
    assert (framed == confidence).all() and (hits == 1 - right).all(), "these rows say the opposite in frames"
    scaled, same = read.graded("SFT", "scaled")
    assert (same == right).all(), "a temperature changes no answer"


def test_what_topics_add_up_to_is_the_error(table):
    for how in ("token probability", "scaled", "sampled"):
        confidence, right = read.graded("PPO", how)
        by_topic = read.error_by_topic(confidence, right)
        whole = [expected_calibration_error(c.ravel(), r.ravel()) for c, r in zip(confidence, right)]
        assert by_topic.mean(1) == pytest.approx(whole)
    assert read.by_topic(right).mean() == pytest.approx(right.mean())
    change = read.error_change("PPO", "SFT")
    ours, theirs = (read.error_by_topic(*read.graded(name)).mean() for name in ("PPO", "SFT"))
    assert change.mean == pytest.approx(ours - theirs) and change.low < change.mean < change.high
    assert read.accuracy_change("PPO", "PPO").mean == pytest.approx(0, abs=1e-12)


def test_of_contested_facts_right_is_a_frequency(table):
    confidence, right = read.graded_contested("base")
    assert confidence.shape == right.shape == (3, 12, 5) and 0.05 <= right.min() and right.max() <= 0.95
    assert set(np.round(right[:, 0], 2).ravel()) == {0.5}, "the documents are of two minds"


def test_chance_alone_is_what_a_calibrated_model_shows():
    confidence = np.random.default_rng(0).uniform(0.5, 1, 380)
    found = read.by_chance(confidence, expected_calibration_error)
    assert 0.02 < found < 0.09 and read.by_chance(np.ones(380), expected_calibration_error) == 0


def test_prompts_are_compared_where_all_have_enough_good_answers(table):
    places = read.comparable([("base", 1.0), ("SFT", 0.5)])
    assert len(places) == 98, "of these random ones all have"
    few = [dict(row) for row in ROWS]
    chosen = next(r for r in few if r["about"] == "variety" and r["policy"] == "base" and r["seed"] == 1)
    chosen["texts"] = [[3], *chosen["texts"][1:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "results", lambda: few)
        assert read.comparable([("base", 1.0)]).tolist() == list(range(1, 98))
    found = read.distinct("SFT", "texts", np.array([0, 5]), 0.7)
    row = next(r for r in ROWS if (r.get("policy"), r["seed"], r.get("temperature")) == ("SFT", 2, 0.7))
    assert found.shape == (3, 2) and found[2, 1] == pytest.approx(expected_distinct(row["texts"][5], 4))


def test_pass_at_k_is_read_from_counts(table):
    found = read.solved("DPO", [1, 32])
    right = np.array(read.column("two hops", "DPO", "right", split="probe"))
    assert found.shape == (2, 3, 90)
    assert np.allclose(found[0], right / 32) and np.array_equal(found[1] > 0.5, right > 0)
    change = read.solved_change("DPO", "base", 1)
    assert change == crossed_interval(read.solved("DPO", [1])[0][:, None] - read.solved("base", [1])[0][None])
    guessed = read.guessed([1, 2, 1000])
    assert 1 / 9 <= guessed[0] <= 1 / 3 and guessed[1] < 2 * guessed[0] and guessed[2] > 0.999


def test_a_column_needs_one_row_a_seed(table):
    with pytest.raises(ValueError, match="9 rows; say which"):
        read.column("variety", "SFT", "gold")
    with pytest.raises(ValueError, match="0 rows"):
        read.column("variety", "nobody", "gold")


# --- the law ---


def tilted(seed):
    rng = np.random.default_rng(seed)
    reference = torch.from_numpy(rng.normal(size=(3, 20)) * 2).log_softmax(-1)
    return reference, torch.from_numpy(rng.normal(size=(3, 20)))


def entropies(log_probs):
    return -(log_probs.exp() * log_probs).sum(-1)


@pytest.mark.parametrize("s", [0.1, 1.0, 3.0])
def test_the_slope_of_the_entropy_is_that_of_finite_differences(s):
    reference, rewards = tilted(0)
    at = [exact.optimal_policy(reference, rewards, 1 / x)[0] for x in (s - 1e-5, s, s + 1e-5)]
    slope = (entropies(at[2]) - entropies(at[0])) / 2e-5
    assert read.entropy_slope(at[1], reference, rewards, s).tolist() == pytest.approx(
        slope.tolist(), rel=1e-5
    )


def test_more_reward_can_mean_more_variety_but_not_from_a_uniform_reference():
    """What is worth more is less usual here: a weaker penalty spreads the policy at first."""
    reference = torch.tensor([[0.9, 0.05, 0.05]]).double().log()
    rewards = torch.tensor([[0.0, 1.0, 1.0]]).double()
    assert read.entropy_slope(reference, reference, rewards, 0.0) > 0
    uniform = torch.zeros(1, 3).double().log_softmax(-1)
    for s in (0.1, 1.0, 5.0):
        optimum = exact.optimal_policy(uniform, rewards, 1 / s)[0]
        assert read.entropy_slope(optimum, uniform, rewards, s) < 0


def test_a_taste_for_the_typical_sharpens_the_reference():
    """γ = 1 + α/β: rewards r + α log π_ref have the optimum π_ref^γ e^{r/β} / Z."""
    reference, rewards = tilted(1)
    alpha, beta = 0.57, 0.3
    optimum = exact.optimal_policy(reference, rewards + alpha * reference, beta)[0]
    sharpened = ((1 + alpha / beta) * reference + rewards / beta).log_softmax(-1)
    assert (optimum - sharpened).abs().max() < 1e-12


# --- the figures ---


def test_every_figure_and_table_can_be_drawn(table, alt_texts, capsys):
    figures.calibration()
    figures.where_it_goes()
    figures.free_baseline()
    figures.by_penalty(*tilted(2))
    figures.pass_at_all_k()
    figures.spreading()
    figures.errors(expected_calibration_error)
    figures.stacked()
    figures.hops()
    figures.habits()
    assert len(alt_texts) == 6 and "base 0." in alt_texts[0] and "nan" not in "".join(alt_texts)
    assert "lies to questions, 3 passes" in alt_texts[-1] and "SFT, T = 0.5" in alt_texts[4]
    printed = capsys.readouterr().out
    assert "published" in printed and all(name in printed for name in figures.LOOK)


def test_without_some_policies_the_others_are_shown(monkeypatch, alt_texts):
    kept = [row for row in ROWS if row.get("policy") in (None, "base", "SFT", "DPO", "PPO", "PPO, β = 0")]
    monkeypatch.setattr(read, "results", lambda: [row for row in kept if row["seed"] == 0])
    for draw in (figures.calibration, figures.where_it_goes, figures.free_baseline, figures.pass_at_all_k):
        draw()


# --- the exercises ---


def test_right_answers_as_readers_write_them():
    def number(counts):
        p = counts / sum(counts)
        return np.exp(-np.sum(p * np.log(p)))

    def error(confidence, right, bins=10):
        order = np.argsort(confidence)
        parts = np.array_split(order, bins)
        return sum(len(p) * abs(confidence[p].mean() - right[p].mean()) for p in parts) / len(order)

    def share(right, k):
        n, c = right.shape[1], right.sum(1).astype(int)
        from math import comb

        return np.array([1 - comb(n - x, k) / comb(n, k) for x in c])

    for name, answer in zip(EMERGENT, (number, error, share)):
        assert lesson.diagnose(EMERGENT[name], answer) is None
