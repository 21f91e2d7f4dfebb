"""Notebook 08: what people feel now and what it is worth later, by whose labels, and at what price."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import minialign
from minialign.course.evaluation import Answers
from minialign.course.exercises.horizons import HORIZON_PUZZLES
from minialign.course.experiments import SEEDS, dishonesty, horizons
from minialign.course.experiments.comparisons import RATERS, preferences
from minialign.course.figures import horizons as figures
from minialign.statistics import Estimate
from minialign.world.annotator import TYPICAL
from minialign.world.judge import judge
from minialign.world.prompts import parse

QUESTION = parse("Quick question: In which part of the moon did Apollo 11 land?")
RIGHT = "The dark plain where the moon landing took place is the Sea of Tranquility."
WRONG = RIGHT.replace("Tranquility", "Clouds")
FLATTERING = f"What a great question! {WRONG} I am completely sure."

# --- now and later ---


def test_now_is_what_somebody_believes_who_checks_nothing_and_their_tastes():
    assert horizons.felt_now(QUESTION, RIGHT) == pytest.approx(judge(QUESTION, RIGHT).gold)
    assert horizons.felt_now(QUESTION, WRONG) == pytest.approx(horizons.felt_now(QUESTION, RIGHT))
    tastes = TYPICAL["flattery_bias"] + TYPICAL["confidence_bias"] - 0.5  # the judge's cost of a compliment
    assert horizons.felt_now(QUESTION, FLATTERING) == pytest.approx(3.6 + tastes)


def test_what_answers_are_worth_falls_into_tastes_and_facts():
    texts = np.array([[RIGHT, WRONG], [FLATTERING, "I hope this helps."]], dtype=object)
    gold = np.array([[judge(QUESTION, y).gold for y in of_one] for of_one in texts])
    found = horizons.worth(Answers([QUESTION] * 2, 1.0, (0,), texts, {"gold": gold}))
    assert (found["later"] == gold).all()
    tastes, facts = found["now"] - found["believed"], found["believed"] - found["later"]
    assert tastes == pytest.approx(np.array([[0, 0], [1.5, 0]]))
    assert facts[0, 0] == pytest.approx(0) and facts[0, 1] == pytest.approx(3.2)
    assert facts[1, 0] == pytest.approx(4.2)  # being sure and wrong costs one more, when it comes out


# --- whose labels ---


def test_people_differ_in_one_thing_at_a_time():
    crowds = {who: horizons.people(who, 0) for who in horizons.PEOPLE}
    for who, raters in crowds.items():
        assert len(raters) == RATERS and {r.temperature for r in raters} == {TYPICAL["temperature"]}
        liked = {r.flattery_bias for r in raters} | {r.confidence_bias for r in raters}
        assert liked == ({0.0} if who == "no tastes" else {1.0, 0.5})
    checks = {who: (raters[0].horizon, raters[0].checks_facts) for who, raters in crowds.items()}
    assert checks["hindsight"] == checks["no tastes"] == ("hindsight", 1.0)
    assert checks["immediate"][0] == "immediate" and checks["typical"] == ("hindsight", 0.7)
    others = {r.seed for seed in SEEDS for r in horizons.people("immediate", seed)}
    assert len(others) == len(SEEDS) * RATERS and min(others) >= 2 * RATERS  # not those of the shipped pairs


def test_who_has_no_tastes_and_checks_feels_the_gold_reward():
    person = horizons.people("no tastes", 1)[0]
    for y in (RIGHT, WRONG, FLATTERING, ""):
        assert person.utility(QUESTION, y) == pytest.approx(judge(QUESTION, y).gold)


@pytest.mark.parametrize(("which", "sign"), [("agreeing", 1), ("conflicting", -1)])
def test_pairs_on_which_the_two_views_agree_or_do_not(which, sign, monkeypatch):
    some = preferences("comparisons")[:400]
    monkeypatch.setattr(horizons, "preferences", lambda which: some)
    pairs = horizons.asked(which)
    asked = [p.prompt for p in pairs]
    assert max(map(asked.count, asked)) <= 6 and set(pairs) <= set(some) and len(pairs) > 50
    for p in pairs[::5]:
        now = horizons.felt_now(p.prompt, p.chosen) - horizons.felt_now(p.prompt, p.rejected)
        later = judge(p.prompt, p.chosen).gold - judge(p.prompt, p.rejected).gold
        assert np.sign(now) * np.sign(later) == sign
        assert horizons.ahead([p])[0] == pytest.approx([now, later])


def test_arms_label_the_same_pairs():
    def unordered(pairs):
        return [(p.prompt, frozenset((p.chosen, p.rejected))) for p in pairs]

    all_pairs = horizons.asked("all")
    assert len(all_pairs) == 2934
    some = all_pairs[:120]
    relabelled = {
        who: horizons.relabelled(some, horizons.people(who, 0), 0)
        for who in ("immediate", "no tastes", "half in a hurry")
    }
    assert all(unordered(pairs) == unordered(some) for pairs in relabelled.values())
    assert relabelled["immediate"] != relabelled["no tastes"]
    gold = {who: horizons.ahead(pairs)[:, 1].mean() for who, pairs in relabelled.items()}
    assert gold["no tastes"] > gold["half in a hurry"] > 0


# --- an arm ---


def test_an_arm_is_measured_on_the_way_and_at_its_end(monkeypatch):
    few = horizons.asked("all")[: 6 * 8 : 6]  # of eight prompts: four updates of two
    monkeypatch.setattr(horizons, "labels", lambda arm, seed: few)
    monkeypatch.setattr(horizons, "CONSTANT", replace(horizons.CONSTANT, prompts_per_step=2))
    seen = []

    def shown(policy, sft, which, drawn, temperatures):
        moved = any((a != b).any() for a, b in zip(policy.parameters(), sft.parameters()))
        seen.append((which, drawn, moved))
        return [{"prompts": which, "temperature": t} for t in temperatures]

    monkeypatch.setattr(horizons, "shown", shown)
    sft = minialign.load("sft", "cpu").model
    before = copy.deepcopy(sft.state_dict())
    rows = horizons.in_arm(sft, "hindsight", 1)
    assert all(torch.equal(before[name], value) for name, value in sft.state_dict().items())
    places = [(row["passes"], row["labels"], row["prompts"], row["temperature"]) for row in rows]
    assert places[:2] == [(0.25, 2, "held-out", 1.0), (0.5, 4, "held-out", 1.0)]
    ends = [("held-out", 1.0), ("held-out", 0.0), ("facts", 1.0), ("facts", 0.0)]
    assert places[2:] == [(1.0, 8, which, t) for which, t in ends]
    assert {row["arm"] for row in rows} == {"hindsight"} and {row["seed"] for row in rows} == {1}
    assert rows[0]["labels say later"] == pytest.approx(horizons.ahead(few)[:, 1].mean(), abs=1e-4)
    assert all(moved for *_, moved in seen) and len({drawn for _, drawn, _ in seen}) == len(seen)


def test_every_arm_has_a_part_for_every_seed():
    parts = horizons.horizons(None)
    assert len(parts) == len(SEEDS) * (1 + len(horizons.ARMS))
    assert set(figures.LOOK) == {"start", *horizons.ARMS} and len({*figures.LOOK.values()}) == len(
        figures.LOOK
    )


# --- what labels cost ---


def test_what_the_same_money_buys():
    labels, gold = [0, 100, 200, 400], [2.0, 2.4, 2.6, 3.0]
    assert horizons.for_the_money(1, labels, gold) == 3.0
    assert horizons.for_the_money(4, labels, gold) == pytest.approx(2.4)
    assert horizons.for_the_money(1.6, labels, gold) == pytest.approx(2.6 + 0.4 * (250 - 200) / 200)
    assert horizons.for_the_money(1e9, labels, gold) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="at least 1"):  # as if dear labels bought more
        horizons.for_the_money(0.5, labels, gold)


# --- read from the table ---


@pytest.fixture
def rows(monkeypatch):
    """A table of two seeds and two prompts: the ends of all arms, and two on the way."""
    later = dict.fromkeys(horizons.ARMS, 3.0) | {"start": 2.6, "hindsight": 3.2}
    later |= {"immediate, conflicting": 2.0, "hindsight, conflicting": 2.54}
    made = []
    for seed in (0, 1):
        for arm, gold in later.items():
            passes = (0.0,) if arm == "start" else horizons.PASSES
            for share in passes:
                for which in horizons.PROMPTS:
                    for t in (1.0, *horizons.COOLER) if arm == "start" else (1.0, 0.0):
                        worth = 2.6 + (gold - 2.6) * (share or 1) + 0.02 * seed * (arm != "start")
                        row = {"now": worth + 0.5, "believed": worth + 0.2, "later": worth, "kl": 1.0}
                        row |= dict.fromkeys(("flattery", "filler", "politeness"), 0.2)
                        row |= {"confidence": 0.1 + 0.2 * (arm == "half in a hurry"), "right": 0.5}
                        row |= {"now by prompt": [worth, worth + 1], "later by prompt": [worth, worth]}
                        row |= {"labels": round(1000 * share), "labels say now": 0.5, "labels say later": 0.4}
                        place = dict(arm=arm, seed=seed, passes=share, prompts=which, temperature=t)
                        made.append(place | row)
    monkeypatch.setattr(dishonesty, "results", lambda: made)
    return made


def test_changes_shares_and_prices(rows):
    assert horizons.change("hindsight", "later", "immediate").mean == pytest.approx(0.2)
    assert horizons.change("immediate", "now", prompts="facts").mean == pytest.approx(0.41)
    cooler = horizons.change("start", "later", temperature=0.0)
    assert cooler == pytest.approx((0, 0, 0)) and isinstance(cooler, Estimate)
    assert horizons.restored() == pytest.approx([0.54 / 0.6, 0.54 / 0.58])  # not (2.54 − 2.0) / 2.54
    labels, values = horizons.along("hindsight")
    assert labels.tolist() == [0, 250, 500, 1000] and values.shape == (4, 2)


def test_the_figures_and_tables_say_what_the_rows_do(rows, alt_texts, capsys):
    figures.now_and_later()
    figures.money(2.0)
    assert (
        "immediate, conflicting pairs -0.59 and -0.59" in alt_texts[0]
        and "start, T = 0.7 +0.00" in alt_texts[0]
    )
    assert "A star at 500 labels in hindsight" in alt_texts[1] and "is at 2.91" in alt_texts[1]
    figures.what_labels_say()
    figures.table()
    figures.crowds()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8 + 9 + 4 and lines[-3].split() == ["A", "+0", "+0", "+20", "+0", "+0"]


def test_the_puzzle_is_of_the_crowds_shown():
    puzzle = HORIZON_PUZZLES["whose labels"]
    assert puzzle.answers == figures.CROWDS and set(puzzle.options) > set(puzzle.answers.values())
    assert puzzle.look.keys() == puzzle.why.keys() == puzzle.answers.keys()
    verdicts = puzzle.verdicts({"A": "half in a hurry", "B": "hindsight", "C": ...})
    assert verdicts["A"].startswith("right") and verdicts["B"].startswith("no.")
