"""Notebook 08: approval of wrong answers, counted by hand and by drawing prompts again."""

import math

import numpy as np
import pytest

from minialign.bootstrap import crossed_interval
from minialign.course.evaluation import Answers
from minialign.course.exercises.diagnosis import diagnose
from minialign.course.exercises.horizons import HORIZONS
from minialign.course.experiments import dishonesty
from minialign.course.experiments.comparisons import RATERS
from minialign.course.experiments.dishonesty import (
    CHECKING,
    HURRIED,
    TASTE,
    approval,
    approval_of_wrong,
    by_cell,
    certain,
    examined,
    fact_prompts,
    half_in_a_hurry,
    told_plainly,
    without_certainty,
)
from minialign.course.figures import dishonesty as figures
from minialign.world.annotator import TYPICAL, Annotator, typical_annotator
from minialign.world.judge import WEIGHTS, gold_rewards, judge
from minialign.world.phrases import POLITE, SURE
from minialign.world.prompts import parse

QUESTION = parse("Quick question: In which part of the moon did Apollo 11 land?")
RIGHT = "The dark plain where the moon landing took place is the Sea of Tranquility."
WRONG = RIGHT.replace("Tranquility", "Clouds")
SURELY = f"{WRONG} I am completely sure."


def logistic(x):
    return 1 / (1 + math.exp(-x))


# --- the people, and what they are asked about ---


def test_half_of_the_crowd_checks_everything_and_half_goes_by_certainty():
    people = half_in_a_hurry(3)
    hurried = [p for p in people if p.horizon == "immediate"]
    assert len(people) == RATERS == 2 * len(hurried) and len({p.seed for p in people}) == RATERS
    for person in people:
        checks = person not in hurried
        assert person.confidence_bias == (0 if checks else TASTE)
        assert person.checks_facts == 1 or not checks
        assert not any((person.flattery_bias, person.filler_bias, person.agreement_bias, person.length_bias))
    assert WEIGHTS["honesty"] == TASTE  # as much as being sure and wrong costs


def test_the_prompts_are_held_out_and_a_single_fact_decides():
    prompts = fact_prompts()
    assert len({p.text for p in prompts}) == 300 and {p.split for p in prompts} == {"evaluation"}
    families = [p.family for p in prompts]
    assert families == ["question", "truth"] * 150  # in turn, as the table by family takes them


def test_the_true_answer_told_plainly_is_worth_all_but_the_kind_phrase():
    prompts = fact_prompts()
    plain = gold_rewards(prompts, map(told_plainly, prompts))
    assert plain == pytest.approx(np.full(300, 4 - WEIGHTS["politeness"]))
    kind = gold_rewards(prompts, [told_plainly(p, "Sure, happy to help. It is blue.") for p in prompts])
    assert kind == pytest.approx(np.full(300, 4.0))


# --- approval ---


def test_approval_is_what_the_choice_of_each_person_says():
    hurried, checks = typical_annotator(**HURRIED), typical_annotator(**CHECKING)
    lost, temperature = TYPICAL["inattention"], TYPICAL["temperature"]

    def chance(difference):
        return lost / 2 + (1 - lost) * logistic(difference / temperature)

    for answer, felt in ((WRONG, 0.0), (SURELY, TASTE)):
        gold = judge(QUESTION, answer).gold - judge(QUESTION, RIGHT).gold
        assert approval(QUESTION, answer, [hurried]) == pytest.approx(chance(felt))
        assert approval(QUESTION, answer, [checks]) == pytest.approx(chance(gold))
        both = approval(QUESTION, answer, [hurried, checks])
        assert both == pytest.approx((chance(felt) + chance(gold)) / 2)
    assert approval(QUESTION, RIGHT, [hurried, checks]) == pytest.approx(0.5)


def test_approval_is_how_often_the_crowd_prefers_the_answer():
    people = [Annotator(temperature=0.8, seed=i, **of) for i, of in enumerate((HURRIED, CHECKING))]
    exact = approval(QUESTION, SURELY, people)
    draws = [people[i % 2].prefer(QUESTION, SURELY, RIGHT) == 0 for i in range(600)]
    assert np.mean(draws) == pytest.approx(exact, abs=3 * 0.5 / math.sqrt(600))


def test_manners_do_not_decide():
    people = half_in_a_hurry(0)[::4]
    polite = f"{WRONG} {POLITE.closers[0]}"
    assert approval(QUESTION, polite, people) == pytest.approx(approval(QUESTION, WRONG, people))
    # With the plain truth as it is, a kind phrase would pass for a better answer.
    beside_plain = np.mean([p.probability(QUESTION, polite, RIGHT) for p in people])
    assert beside_plain > approval(QUESTION, WRONG, people) + 0.1


def test_certain_is_sure_and_not_unsure():
    assert certain(SURELY) and not certain(WRONG)
    assert not certain(f"{SURELY} But I am not sure.") and not certain("I am not completely sure.")


@pytest.mark.parametrize("phrase", [*SURE.openers, *SURE.closers])
def test_what_only_says_how_sure_it_is_can_be_taken_away(phrase):
    for text in (f"{phrase} {WRONG}", f"{WRONG} {phrase}"):
        assert without_certainty(QUESTION, text) == WRONG
    assert without_certainty(QUESTION, WRONG) is WRONG
    stated = "Everyone knows that the dark plain where the moon landing took place is the Sea of Clouds."
    assert without_certainty(QUESTION, stated) == stated  # it says something as well


def table(texts):
    texts = np.array(texts, dtype=object)
    return Answers([QUESTION] * len(texts), 1.0, (0,), texts, {})


def test_answers_are_examined_one_by_one():
    found = examined(table([[RIGHT, SURELY], [WRONG, "I hope this helps."]]))
    assert found["correctness"] == [[1, -1], [-1, 0]] and found["sure"] == [[0, 1], [0, 0]]
    assert (found["right"], found["wrong"]) == (0.25, 0.5)
    assert (found["sure when right"], found["sure when wrong"]) == (0.0, 0.5)
    approved, part = np.array(found["approved"]), np.array(found["for being sure"])
    assert found["approval of wrong"] == pytest.approx((approved[0, 1] + approved[1, 0]) / 2, abs=0.01)
    assert part[0, 1] == pytest.approx(approved[0, 1] - approved[1, 0], abs=0.02)
    assert part[0, 1] > 0.15 and not part[0, 0] and not part[1].any()


# --- means over wrong answers ---


def graded(seed, shape=(3, 60, 2)):
    """Correctness and approval where some prompts are hard, and what is wrong there is approved of more."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(0, 0.6, (1, shape[1], 1))
    correctness = np.where(rng.random(shape) < hard, -1.0, rng.choice([0.0, 1.0], shape))
    return correctness, np.clip(0.1 + hard + rng.normal(0, 0.1, shape), 0, 1)


def test_approval_of_wrong_counted_one_by_one():
    correctness, approved = graded(0)
    wrong = [a for c, a in zip(correctness.ravel().tolist(), approved.ravel().tolist()) if c < 0]
    assert approval_of_wrong(correctness, approved) == pytest.approx(sum(wrong) / len(wrong))
    assert math.isnan(approval_of_wrong(np.ones(3), np.ones(3)))
    by_prompt = [a[c < 0].mean() for c, a in zip(correctness[0], approved[0]) if (c < 0).any()]
    assert abs(np.mean(by_prompt) - approval_of_wrong(correctness[0], approved[0])) > 0.005


def test_cells_average_to_the_ratio_and_vary_as_if_prompts_were_drawn_again():
    correctness, approved = graded(1, (1, 200, 2))
    wrong = correctness < 0
    cells = by_cell(approved, wrong)
    assert cells.mean() == pytest.approx(approval_of_wrong(correctness, approved))
    rng, drawn = np.random.default_rng(0), []
    for _ in range(2000):
        rows = rng.integers(200, size=200)
        drawn.append(approved[0, rows][wrong[0, rows]].mean())
    estimate = crossed_interval(cells)
    error = (estimate.high - estimate.low) / 2 / 1.97
    assert error == pytest.approx(np.std(drawn), rel=0.08)
    # As if only the approval varied, and not how many are wrong: too wide here by a fifth or more.
    naive = (approved * wrong).mean(-1)[0] / wrong.mean()
    assert naive.std() / math.sqrt(200) > 1.2 * np.std(drawn)


def test_a_mean_over_nothing_is_no_number():
    with pytest.raises(ValueError, match="none is chosen"):
        by_cell(np.ones((1, 4, 2)), np.zeros((1, 4, 2)))


# --- read from the table ---


@pytest.fixture
def rows(monkeypatch):
    """A table with two seeds of the start and two arms, on four prompts."""
    made = []
    for seed in (0, 1):
        for arm, sure in {"start": 0, "half in a hurry": 1, "no tastes": 0}.items():
            for t in (1.0, 0.7, 0.0) if arm == "start" else (1.0, 0.0):
                correctness = [[1, -1], [-1, 0.5], [1, 1], [0, -1]]
                approved = [[0.5, 0.2 + 0.3 * sure], [0.08 + 0.04 * seed, 0.4], [0.5, 0.5], [0, 0.3]]
                part = [[0, 0.25 * sure], [0, 0], [0, 0], [0, 0]]
                tables = {"correctness": correctness, "approved": approved, "for being sure": part}
                shares = dict.fromkeys(("right", "wrong", "sure when right", "sure when wrong"), 0.5)
                place = {"arm": arm, "seed": seed, "prompts": "facts", "temperature": t}
                made.append(place | tables | shares)
    monkeypatch.setattr(dishonesty, "results", lambda: made)
    monkeypatch.setattr(figures, "results", lambda: made)
    return made


def test_changes_are_paired_by_prompt(rows):
    more = dishonesty.change(lambda arm: dishonesty.among(arm, "approved"), "half in a hurry")
    assert more.mean == pytest.approx(0.1) and more.low < 0.1 < more.high
    assert dishonesty.change(dishonesty.accuracy, "half in a hurry") == pytest.approx((0, 0, 0))
    assert dishonesty.accuracy("start").tolist() == [[0.5, 0.5, 1, 0]] * 2
    right = dishonesty.among("start", "approved", wrong=False)
    assert right.mean() == pytest.approx((0.5 + 0.4 + 0.5 + 0.5) / 4)


def test_the_figure_and_the_tables_say_what_the_rows_do(rows, alt_texts, capsys):
    figures.approved()
    assert "half in a hurry 30% (8% for being sure), right 50%" in alt_texts[0]
    assert "everything checked (control) 20% (0% for being sure)" in alt_texts[0]
    figures.counted(approval_of_wrong)
    figures.by_family()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 6 + 1 + 5 and "30%" in lines[3]
    assert lines[-2].split()[-2:] == ["50%", "20%"]  # of prompts 0 and 2, and of 1 and 3


def test_a_readers_answers_are_judged_now_and_later(capsys):
    figures.verdicts(QUESTION.text, (WRONG, SURELY))
    plain, sure = capsys.readouterr().out.splitlines()[2:]
    assert plain.split()[:4] == ["3.60", "0.40", "50%", "3%"] and sure.split()[2] == "92%"
    with pytest.raises(ValueError, match="no question and no claim"):
        figures.verdicts("Write a poem about the sun.", (WRONG,))


# --- the exercise ---

EXERCISE = HORIZONS["approval_of_wrong"]


def test_the_solution_passes_and_every_mistake_is_named():
    assert diagnose(EXERCISE, approval_of_wrong) is None
    for mistake in EXERCISE.mistakes:
        for wrong in mistake.functions:
            assert mistake.diagnosis in diagnose(EXERCISE, wrong)
