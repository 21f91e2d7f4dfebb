"""What notebook 04 reads from its tables, scores from comparisons, and the figures' texts."""

import numpy as np
import pytest
import torch

from minialign import load
from minialign.course.experiments import ratings, scorers, what_it_reads
from minialign.course.experiments.comparisons import HeldOut
from minialign.course.experiments.rankings import coverage, random_wins, standard_errors
from minialign.course.experiments.rating_lab import PAIRS, RANKINGS, lead, lowest, tried
from minialign.course.figures import reward_models as figures
from minialign.preferences import Preference
from minialign.training import load_history
from minialign.world.frames import REQUESTED

ROWS = [
    {"seed": seed, "knob": knob, "per_rater": m, "drift": drift, PAIRS: 0.9, RANKINGS: 0.95, **numbers}
    for seed in (0, 1)
    for knob, drift, numbers in (
        ("drift", 0.0, {"ratings": 0.92 + 0.02 * seed, "z-scored ratings": 0.9, "offsets fitted": 0.9}),
        ("drift", 1.0, {"ratings": 0.5, "z-scored ratings": 0.6, "offsets fitted": 0.7}),
        ("all of it", 1.0, {"ratings": 0.1, "z-scored ratings": 0.96, "offsets fitted": 0.1}),
    )
    for m in (2, 4)
]


def test_a_lead_is_of_one_knob_and_one_share():
    found = lead(ROWS, "ratings", 2, drift=0.0)
    assert found.mean == pytest.approx(-0.03) and found.low < -0.04 < -0.02 < found.high
    assert lead(ROWS, "ratings", 2, RANKINGS, drift=1.0).mean == pytest.approx(0.45)
    assert lead(ROWS, "ratings", 4).mean == pytest.approx(0.8), "no knob: all of it"
    with pytest.raises(ValueError, match="the table has no drift like that for raters of 2 items"):
        lead(ROWS, "ratings", 2, drift=3.0)


def test_the_lowest_lead_is_over_all_knobs_and_all_numbers():
    assert lowest(ROWS, RANKINGS, (2, 4)) == pytest.approx(-0.01)
    assert lowest(ROWS, PAIRS, (2,)) == pytest.approx(-0.06)


def test_a_crowd_is_tried_in_worlds_of_its_own():
    found = tried(ratings.Crowd(per_rater=4), worlds=3)
    assert [*found] == [*ratings.METHODS]
    assert found["ratings"][1] == ratings.recovered(ratings.Crowd(per_rater=4), (1, 4))["ratings"]


# --- scores from comparisons ---


def test_random_wins_count_every_comparison_once():
    truth = torch.tensor([-3.0, 0.0, 3.0], dtype=torch.float64)
    wins = random_wins(truth, 3000, seed=1)
    assert wins.sum() == 3000 and wins.diagonal().eq(0).all()
    assert wins[2, 0] > 0.98 * (wins[2, 0] + wins[0, 2])
    assert torch.equal(wins, random_wins(truth, 3000, seed=1))


def test_the_standard_error_of_two_scores_by_hand():
    """Of n comparisons of two the difference has the variance 1/(n p(1 − p)), a score a quarter of it."""
    wins, p = torch.tensor([[0.0, 60.0], [40.0, 0.0]], dtype=torch.float64), 0.6
    gap = float(np.log(p / (1 - p)))
    scores = torch.tensor([gap / 2, -gap / 2], dtype=torch.float64)
    expected = 1 / (2 * np.sqrt(100 * p * (1 - p)))
    assert standard_errors(scores, wins).tolist() == pytest.approx([expected] * 2)


def test_intervals_hold_the_truth_as_often_as_they_say():
    truth = torch.linspace(-1, 1, 4, dtype=torch.float64)
    assert 0.9 < coverage(truth, 500, sets=60).mean() < 0.99


# --- which pairs are ordered rightly ---


def pairs_of(*prompts):
    return [Preference(x, f"{i} a", f"{i} b b") for i, x in enumerate(prompts)]


def test_a_shares_interval_takes_prompts_for_what_varies():
    alike = HeldOut(pairs_of("x", "x", "y", "y"), np.zeros((4, 2)), np.ones(4))
    apart = HeldOut(pairs_of("x", "y", "z", "w"), np.zeros((4, 2)), np.ones(4))
    values, rows = np.array([1.0, 1.0, 0.0, 0.0]), np.ones(4, bool)
    clustered, separate = (what_it_reads.share(test, values, rows) for test in (alike, apart))
    assert clustered.mean == separate.mean == 0.5
    assert clustered.high - 0.5 == pytest.approx(1.96 * np.sqrt(2) / 4)  # two sums of ±1, over four pairs
    assert separate.high - 0.5 == pytest.approx(1.96 / 4)


def test_orders_are_told_by_who_and_by_group():
    gold = np.array([[1.0, 0.0], [0.0, 1.0]])
    test = HeldOut(pairs_of("x", "y"), gold, np.ones(2))
    groups = {"both": np.array([True, True]), "first": np.array([True, False])}
    margins = {"labels": np.ones(2), "longer": test.margins(what_it_reads.ByHand(lambda x, y: len(y)))}
    found = what_it_reads.orders(test, groups, margins)
    assert {who: {k: v.mean for k, v in of.items()} for who, of in found.items()} == {
        "labels": {"both": 0.5, "first": 1.0},
        "longer": {"both": 0.5, "first": 0.0},
    }


def test_what_is_gained_is_told_by_group():
    gold = np.array([[1.0, 0.0], [0.0, 1.0]])
    test = HeldOut(pairs_of("x", "y"), gold, np.ones(2))
    groups = {"both": np.array([True, True]), "first": np.array([True, False])}
    found = what_it_reads.gained(test, groups, before=np.array([-1.0, 1.0]), after=np.array([1.0, 0.0]))
    assert {name: of.mean for name, of in found.items()} == {"both": 0.75, "first": 1.0}


def test_likelihood_in_a_frame_is_of_the_answer_only():
    model = load("base", "cpu").model
    frame, chat = REQUESTED[0], model.chat
    x, y = chat.encode(frame.format("Why?") + "\n"), chat.encode("So it is.")
    log_probs = model(torch.tensor([x + y]))[0].log_softmax(-1)
    expected = np.mean([log_probs[len(x) - 1 + i, token].item() for i, token in enumerate(y)])
    assert what_it_reads.InFrame(model).score(["Why?"], ["So it is."]) == pytest.approx([expected], abs=1e-4)


TABLE = load_history("reward_models_by_labels")


def test_columns_of_who_learns_are_by_seed():
    most = max(row.get("pairs", 0) for row in TABLE)
    course = what_it_reads.column(TABLE, what_it_reads.COURSE, "order", pairs=most)
    free = what_it_reads.column(TABLE, "label-free", "order")
    assert course.shape == (3,) and free.shape == (1,)
    assert what_it_reads.taught(TABLE, "order", pairs=most).tolist() == (course - free).tolist()


def test_portraits_of_the_table_have_the_parts_of_live_ones():
    found = what_it_reads.portraits(TABLE)
    live = scorers.explained(
        [("Why?", "So it is."), ("Why?", "No."), ("Why?", "Yes, it is so.")], np.array([0.0, 1.0, 2.0])
    )
    assert [*found] == ["gold", "the people", "linear reader"]
    assert all([*of.coefficients] == [*live.coefficients] for of in found.values())


# --- figures ---


def test_heat_maps_say_the_ends_of_their_rows(alt_texts):
    table = load_history("ratings_or_comparisons")
    figures.offsets(table)
    figures.drift_and_points(table)
    low, high = (lead(table, "ratings", 2, offset=o).mean for o in (0.0, 3.0))
    assert (
        f"minus ratings, 0 to 3 SD of the raters' offsets: 2 items: {low:+.2f} to {high:+.2f}" in alt_texts[0]
    )
    coarse = lead(table, "offsets fitted", 32, points=3).mean
    assert "any to 3 points" in alt_texts[1] and f"to {coarse:+.2f}." in alt_texts[1]


def test_the_curves_name_the_line_that_costs_nothing(alt_texts):
    yours = {"pairs": 5000, "accuracy": 0.6, "order": 0.7}
    figures.by_labels(TABLE, yours, {"accuracy": 0.62, "order": 0.75})
    free = what_it_reads.column(TABLE, "label-free", "order")[0]
    assert f"no comparison: likelihood {free:.2f}" in alt_texts[0] and "by hand 0.75" in alt_texts[0]


def test_bars_of_mistakes_say_their_means(alt_texts):
    rows = load_history("reward_model_bugs")
    figures.bugs(rows)
    swapped = np.mean([r["accuracy"] for r in rows if r["bug"] == "pairs swapped" and r["step"] == 60])
    assert f"pairs swapped {swapped:.2f}" in alt_texts[0]
