"""Notebook 07: its rule chooses what was raced, its puzzles hold of the tables, as do its figures."""

import math

import numpy as np
import pytest

from minialign.course import lesson
from minialign.course.exercises import PUZZLES
from minialign.course.experiments import race, race_costs, race_labels, race_tuning
from minialign.course.figures import race as figures
from minialign.dpo import DPOConfig
from minialign.ppo import PPOConfig
from minialign.reward_model import RewardModelConfig
from minialign.statistics import frontier, one_standard_error_rule

# --- read from the tables ---


@pytest.mark.parametrize("entry", figures.ENTRIES)
def test_the_rule_of_the_exercise_chooses_what_was_raced(entry):
    rows = race_tuning.last_round(entry)
    place = one_standard_error_rule(*([row[name] for row in rows] for name in ("gold", "error", "kl")))
    assert rows[place] == race_tuning.chosen(entry) in race_tuning.tied(entry)
    best = max(rows, key=lambda row: row["gold"])
    assert best in race_tuning.tied(entry)
    assert all(row["gold"] >= best["gold"] - best["error"] for row in race_tuning.tied(entry))


def test_an_entrys_course_begins_with_the_start_and_ends_where_it_was_judged():
    shares, golds = race.course("DPO")
    assert (shares[0], shares[-1]) == (0, race_tuning.chosen("DPO")["share"]) and golds.shape[1] == 3
    assert (golds[0] == race.ends("SFT")[1.0]).all() and (golds[-1] == race.ends("DPO")[1.0]).all()
    seconds, again = race_costs.raced("PPO")
    assert seconds[0] == 0 and (again[0] == again[1]).all() and (np.diff(seconds) > 0).all()
    assert seconds[1] == race_costs.seconds("best-of-n") + race_costs.spent("seconds", "PPO", 0)["PPO, once"]
    assert seconds[-1] == race_costs.seconds("PPO")


def test_what_a_trial_gained_is_over_the_start_on_the_same_prompts():
    warm, cool = race_tuning.last_round("SFT, cooler")[:2]
    assert race.gained(warm) == 0 < race.gained(cool) == pytest.approx(cool["gold"] - warm["gold"])
    untried = race.results()[0]
    (first, *_) = race_tuning.trials_at("DPO", 0, 1 / 3)
    assert untried["prompts"] == "first round" and race.gained(first) == first["gold"] - untried["gold"]
    assert len(race_tuning.trials_at("DPO", 0, 1 / 3)) == 8 and len(race_tuning.trials_at("PPO", 1, 1.0)) == 3


def test_an_entry_is_compared_at_its_own_temperature():
    cooler = race.temperature_of("SFT, cooler")
    assert cooler < race.temperature_of("DPO") == 1
    assert race.over("SFT, cooler", "SFT") == race.win_rates("SFT, cooler", "SFT", cooler, 1.0)


def test_knobs_are_what_a_method_adds_and_what_is_on():
    assert race_tuning.knobs(DPOConfig) == ["prompts_per_step", "beta"]
    of_rlhf = race_tuning.knobs(PPOConfig) + race_tuning.knobs(RewardModelConfig)
    assert len(of_rlhf) == 16 and "clip" in of_rlhf and "learning_rate" not in of_rlhf
    row = {"method": "SFT on chosen", "imitated": "never lost", "learning_rate": 0.1, "gold": 2.0}
    assert race_tuning.in_words(row) == "never lost, rate 0.1"
    assert race_tuning.in_words({"temperature": 0.5}) == "T 0.5"


def test_labels_and_golds_are_read_round_by_round():
    labels = race_labels.on_the_way("at once", "labels")
    assert labels.shape == (3, 3) and (np.diff(labels, axis=0) > 0).all()
    assert race_labels.on_the_way("online", "labels").shape == (2, 3)
    ended = race_labels.at_the_end("at once").mean(1)
    assert ended == pytest.approx(race_labels.on_the_way("at once", "gold")[-1], abs=1e-3)


# --- the exercise of the clock ---


def test_seconds_to_the_same_gold_by_hand():
    seconds, golds = [0.0, 10.0, 30.0, 40.0], [1.0, 1.0, 2.0, 0.5]
    assert race_costs.seconds_to(1.5, seconds, golds) == 20
    assert race_costs.seconds_to(2.0, seconds, golds) == 30, "a point itself"
    assert race_costs.seconds_to(1.0, seconds, golds) == 0, "the start is as good"
    assert race_costs.seconds_to(2.1, seconds, golds) == math.inf
    assert race_costs.seconds_to(1.5, seconds, [1.0, 2.0, 1.0, 3.0]) == 5, "the first time"


# --- puzzles ---


def test_each_conclusion_has_the_slip_that_its_answer_says(capsys):
    figures.conclusions()
    said = capsys.readouterr().out
    slips = PUZZLES["which slip"]
    assert all(f"{thing}. “" in said for thing in slips.answers) and len(set(slips.answers.values())) == 5
    # A: what is free beats SFT more often
    imitation, free = (race.over(entry, "SFT")["all"] for entry in ("SFT on chosen", "SFT, cooler"))
    assert 0.5 < imitation.low and imitation.high < free.mean
    # B: over prompts and seeds the interval is wider than over comparisons, which are 196 · 12 · 12
    assert "28,224" in said and np.ptp(race.over("DPO", "SFT")["all"][1:]) > 0.05
    # C: at the end it is the other way round
    third, end = (
        {e: figures.spread(e, *when).mean() for e in ("DPO", "PPO")} for when in ((0, 1 / 3), (1, 1))
    )
    assert third["DPO"] > third["PPO"] and end["DPO"] < end["PPO"]
    # D: DPO never saw the score, and the golds are equal
    score, gold = ({e: race.ends(e, n)[1.0] for e in ("PPO", "DPO")} for n in ("reward", "gold"))
    assert score["PPO"].min() > score["DPO"].max() and gold["PPO"].mean() - gold["DPO"].mean() < 0.1
    # E: opposite signs
    by_family = race.over("best-of-n", "DPO")
    assert by_family["explain"].mean < 0.5 and by_family["poem"].low > 0.5 > by_family["explain"].mean


def test_the_numbers_in_the_reasons_of_the_verdicts():
    why = PUZZLES["five verdicts"].why
    times = race_costs.seconds("PPO") / race_costs.seconds("DPO")
    assert f"About {times:.1f} times faster" in why["efficiency"]
    between = race.over("DPO", "PPO")["all"]
    assert "within 0.1" in why["performance"] and 0.4 < between.low < between.high < 0.6
    assert "Two against sixteen" in why["hyperparameters"]


def test_a_vote_is_answered(capsys):
    lesson.answer("five verdicts", {"performance": "open", "stability": "true"})
    said = capsys.readouterr().out
    assert "performance: right." in said and "stability: no. Look at DPO's lines" in said
    assert "simplicity: not attempted yet." in said


# --- figures ---


def test_what_the_figures_say_comes_from_the_tables(alt_texts):
    figures.results(), figures.temperatures(), figures.families()
    assert f"PPO {race.over('PPO', 'SFT')['all'].mean:.2f}" in alt_texts[0]
    assert f"DPO {race.ends('DPO')[1.0].mean():.2f}" in alt_texts[1]
    rate = race.over("GRPO", "SFT, cooler")["poem"].mean
    assert "poem is lowest" in alt_texts[2] and f"GRPO {rate:.2f}" in alt_texts[2]
    figures.tuning(), figures.more_labels(), figures.fresh_labels()
    assert f"DPO: {figures.spread('DPO', 0, 1 / 3).min():+.2f} to" in alt_texts[3]
    assert f"DPO, all labels {race.ends('DPO, all labels')[1.0].mean():.2f}" in alt_texts[4]
    assert f"at once {race_labels.at_the_end('at once').mean():.2f}" in alt_texts[5]


def test_what_the_figures_say_comes_from_what_they_are_given(alt_texts):
    figures.live([[0.69, 0.1, 0.0], [0.6, 0.3, 0.2]])
    assert "over 2 updates" in alt_texts[0]
    figures.with_a_sentence({t: {"the sentence": 0.1, "… but not in poems": 0.123} for t in (1.0, 0.0)})
    assert "at T = 0: the sentence 0.10, … but not in poems 0.12, PPO" in alt_texts[1]
    trials = figures.all_trials()
    on_it = frontier([row["kl"] for row in trials], [race.gained(row) for row in trials])
    figures.frontiers(on_it)
    assert f"{len(trials)} trials" in alt_texts[2] and f"of the {on_it.sum()} on the frontier" in alt_texts[2]
    figures.clock(2.9)
    assert f"DPO {race.ends('DPO')[1.0].mean():.2f} at {race_costs.seconds('DPO'):.0f} s" in alt_texts[3]


def test_one_colour_and_one_marker_for_one_entry_and_no_yellow():
    assert len(set(figures.LOOK.values())) == len(figures.LOOK)
    assert len({colour for colour, _ in figures.LOOK.values()}) == len(figures.LOOK)
    assert figures.plots.YELLOW not in {colour for colour, _ in figures.LOOK.values()}
