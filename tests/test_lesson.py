from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from minialign.course import lesson, plots
from minialign.course.exercises import EXERCISES, Puzzle
from minialign.statistics import Estimate
from minialign.world.judge import WEIGHTS


def test_an_equation_that_holds_is_printed(capsys):
    lesson.equal("a = b", torch.tensor([1.0]), np.array([1.0 + 1e-12]))
    assert capsys.readouterr().out == "a = b: holds to 1e-10\n"


def test_an_equation_that_does_not_hold_raises():
    with pytest.raises(AssertionError, match="a = b: the two sides differ by 0.001"):
        lesson.equal("a = b", 1.0, 1.001)


def test_not_a_number_never_holds():
    with pytest.raises(AssertionError):
        lesson.equal("a = b", float("nan"), float("nan"))


def test_a_claim_says_whether_it_held(capsys):
    lesson.claim("one is less than two", 1 < 2)
    lesson.claim("two is less than one", torch.tensor(2) < 1)
    assert capsys.readouterr().out == "one is less than two: True\ntwo is less than one: False\n"


@pytest.mark.parametrize(
    ("found", "bounds", "said"),
    [
        (0.384, dict(above=0.2), "0.38 (asked: above 0.2): True"),
        (torch.tensor(0.384), dict(below=0.2), "0.38 (asked: below 0.2): False"),
        ([0.3, 0.1], dict(above=0.2), "0.30 0.10 (asked: above 0.2): False"),
        (np.array([[0.3]]), dict(above=0.2, below=0.5), "0.30 (asked: above 0.2 and below 0.5): True"),
        ([0.3, 0.6], dict(above=0.2, below=0.5), "0.30 0.60 (asked: above 0.2 and below 0.5): False"),
        (Estimate(0.6, 0.4, 0.8), dict(above=0.5), "0.60 [0.40, 0.80] (asked: above 0.5): False"),
        (Estimate(0.6, 0.55, 0.8), dict(above=0.5), "0.60 [0.55, 0.80] (asked: above 0.5): True"),
        (0.0, dict(above=0.0), "0.00 (asked: above 0): False"),
        (0.25, dict(below=0.5, form=".0%"), "25% (asked: below 0.5): True"),
    ],
)
def test_a_claim_names_its_number_and_its_bounds(found, bounds, said, capsys):
    lesson.claim("so much", found, **bounds)
    assert capsys.readouterr().out == f"so much: {said}\n"


@pytest.mark.parametrize("found", [float("nan"), [1.0, float("nan")], [], "1", None, float("inf")])
def test_a_claim_with_bounds_needs_finite_numbers(found):
    with pytest.raises(ValueError, match=r"^so much [^\n]+$"):
        lesson.claim("so much", found, above=0.0)


@pytest.mark.filterwarnings("error")
def test_an_equation_of_what_numpy_and_torch_give():
    on_gradient = torch.tensor([1.0, 1.0], requires_grad=True)
    for left in (on_gradient, list(on_gradient), [1, True], np.float32([1, 1]), on_gradient.bfloat16()):
        lesson.equal("a = 1", left, 1.0)
        lesson.equal("a = 1", np.array([1.0]), left)
        lesson.equal("a = a", left, [1.0, 1.0])
        with pytest.raises(AssertionError, match="differ by 1,"):
            lesson.equal("a = 2", left, torch.tensor(2))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("left", "right", "said"),
    [
        (np.ones(3), np.ones((3, 1)), r"left side has shape \(3,\), the right one \(3, 1\): give two of one"),
        (np.ones((2, 3)), np.ones(3), r"left side has shape \(2, 3\), the right one \(3,\)"),
        (torch.ones(3), torch.ones(2), r"left side has shape \(3,\), the right one \(2,\)"),
        (np.ones(0), np.ones(0), r"left side has shape \(0,\)"),
        (torch.ones(0, 3), 1.0, r"left side has shape \(0, 3\)"),
        ("1", 1.0, "the left side must be real numbers, not '1'"),
        (1.0, None, "the right side must be real numbers, not None"),
        (1j, 1.0, "the left side must be real numbers, not 1j"),
    ],
)
def test_what_is_no_equation(left, right, said):
    with pytest.raises(ValueError, match=rf"^a = b: [^\n]*{said}[^\n]*$"):
        lesson.equal("a = b", left, right)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [np.inf, -np.inf, [1.0, np.nan], np.ma.array([1.0, 2.0], mask=[0, 1])])
def test_what_is_not_finite_never_holds(side):
    with pytest.raises(AssertionError):
        lesson.equal("a = a", side, side)


@pytest.mark.parametrize(
    "true", [True, np.bool_(True), np.array(True), torch.tensor(True), torch.tensor([True])]
)
def test_a_claim_is_one_comparison_whoever_made_it(true, capsys):
    lesson.claim("so it is", true)
    assert capsys.readouterr().out == "so it is: True\n"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "holds",
    [
        np.array([True, False]),
        torch.tensor([True, True]),
        np.array([], dtype=bool),
        float("nan"),
        np.float64("nan"),
        torch.tensor(float("nan")),
        0.7,
        1,
        None,
        [],
        "yes",
    ],
)
def test_a_claim_of_anything_else_is_none(holds, capsys):
    with pytest.raises(ValueError, match=r"^a: give one comparison, True or False \(of several .all[^\n]+$"):
        lesson.claim("a", holds)
    assert capsys.readouterr().out == ""


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(lesson, "display", lambda thing, metadata=None: calls.append((thing, metadata)))
    return calls


def test_a_figure_is_shown_with_its_alt_text_and_closed(shown):
    figure, _ = plt.subplots()
    lesson.show(figure, "what it shows")
    assert shown == [(figure, {"image/png": {"alt": "what it shows"}})] and not plt.get_fignums()


@pytest.mark.parametrize("thing", [plt.subplots, lambda: None, lambda: plt.subplots()[1]])
def test_only_figures_are_shown(shown, thing):
    with pytest.raises(TypeError, match=r"^show takes a matplotlib figure and a text, not [^\n]+$"):
        lesson.show(thing(), "what it shows")
    plt.close("all")
    assert not shown


@pytest.mark.parametrize("stages", [[["DPO"]], [None, "DPO"], [3, "x"], ["dpo"], [np.array(["DPO", "PPO"])]])
def test_a_stage_that_is_not_on_the_map(shown, stages):
    with pytest.raises(ValueError, match=r"^there is no stage [^\n]+: choose one of pre-training, [^\n]+$"):
        lesson.pipeline(*stages)


def test_the_pipeline_lights_one_box(shown):
    lesson.pipeline("instruction fine-tuning")
    ((figure, metadata),) = shown
    lit = [text.get_text() for text in figure.axes[0].texts if text.get_color() == "white"]
    assert (
        lit == ["instruction\nfine-tuning"] and "instruction fine-tuning lit" in metadata["image/png"]["alt"]
    )
    with pytest.raises(ValueError, match="choose one of pre-training"):
        lesson.pipeline("breakfast")


def test_the_pipeline_lights_what_is_built(shown):
    lesson.pipeline("pre-training", "DPO")
    ((figure, metadata),) = shown
    assert [text.get_text() for text in figure.axes[0].texts if text.get_color() == "white"] == [
        "pre-training",
        "DPO",
    ]
    assert metadata["image/png"]["alt"].endswith("with pre-training and DPO lit.")


def test_a_right_value_with_a_wrong_gradient_is_told_apart():
    def half_detached(log_probs, rewards, baseline):
        loss = EXERCISES["reinforce_loss"].solution(log_probs, rewards, baseline)
        return loss / 2 + loss.detach() / 2

    assert "the value is right, its gradient is not" in lesson.diagnose(
        EXERCISES["reinforce_loss"], half_detached
    )


def test_an_attempt_that_changes_its_input_gets_its_own():
    def in_place(rewards):
        for t in range(rewards.shape[-1] - 2, -1, -1):
            rewards[..., t] += rewards[..., t + 1]
        return rewards

    assert lesson.diagnose(EXERCISES["reward_to_go"], in_place) is None
    assert lesson.diagnose(EXERCISES["reward_to_go"], lambda rewards: rewards.zero_()) is not None
    assert "an empty tensor" in lesson.diagnose(EXERCISES["reward_to_go"], lambda rewards: rewards[:0])


def test_a_solution_is_folded_source(shown):
    lesson.solution("kl_divergence")
    assert shown[0][0].data.startswith("<details>") and "def kl_divergence" in shown[0][0].data


@pytest.fixture
def puzzle(monkeypatch):
    of = Puzzle(
        options=("swapped", "no end", "correct"),
        answers={"A": "no end", "B": "swapped"},
        look={"A": "Look at the lengths.", "B": "Look at the accuracy."},
        why={"A": "It never stops.", "B": "It is < one half."},
    )
    monkeypatch.setitem(lesson.PUZZLES, "which bug", of)


def test_a_puzzle_says_what_is_right_and_where_to_look_again(puzzle, capsys):
    lesson.answer("which bug", {"A": "no end", "B": "correct"})
    assert capsys.readouterr().out == "A: right. It never stops.\nB: no. Look at the accuracy.\n"
    lesson.answer("which bug", {"A": ..., "B": None})
    lesson.answer("which bug", {})
    assert capsys.readouterr().out == "A: not attempted yet.\nB: not attempted yet.\n" * 2


@pytest.mark.parametrize(
    "guesses", [{"C": "swapped"}, {"A": "swaped"}, {"A": ["swapped"]}, ["swapped"], None]
)
def test_a_puzzle_takes_its_own_options_only(puzzle, guesses):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        lesson.answer("which bug", guesses)


def test_a_puzzles_answers_are_folded(puzzle, shown):
    lesson.solution("which bug")
    page = shown[0][0].data
    assert page.startswith("<details>") and "<b>B: swapped.</b> It is &lt; one half." in page


def test_there_is_no_such_puzzle():
    with pytest.raises(ValueError, match="^there is no puzzle 'breakfast': choose one of "):
        lesson.answer("breakfast", {})


def test_a_quiz_folds_its_answers(shown):
    lesson.quiz(("Why?", ("no", "yes"), 1, "Because."))
    page = shown[0][0].data
    assert "<li>no</li><li>yes</li>" in page and "<b>b.</b> Because." in page.split("<details>")[1]


@pytest.mark.parametrize("right", [np.int64(1), torch.tensor(1), 1.0])
def test_a_quiz_takes_any_whole_number(shown, right):
    lesson.quiz(("Why?", ("no", "yes"), right, "Because."))
    assert "<b>b.</b>" in shown[0][0].data


@pytest.mark.parametrize("right", [2, -1, 0.5, None, "b"])
def test_a_quiz_needs_a_right_option(shown, right):
    with pytest.raises(ValueError, match="^the right option of question 1 (is|must be) "):
        lesson.quiz(("Why?", ("no", "yes"), right, "Because."))


# --- curves that grow ---


def test_live_curves_redraw_one_display_and_are_silent_in_stored_notebooks(monkeypatch):
    updates = []
    monkeypatch.setattr(lesson, "display", lambda *_, display_id: SimpleNamespace(update=updates.append))
    on_step = lesson.live_curves("loss", "kl")
    for step in (1, 2):
        on_step({"step": step, "loss": 1.0, "kl": 0.5})
    assert [len(figure.axes[0].lines[0].get_xdata()) for figure in updates] == [1, 2]
    assert [ax.get_title(loc="left") for ax in updates[-1].axes[:2]] == ["loss", "kl"]
    monkeypatch.setenv("MINIALIGN_PROGRESS", "0")
    lesson.live_curves("loss")({"step": 1, "loss": 1.0})
    assert len(updates) == 2


def test_a_slider_draws_anew_for_each_value_and_is_silent_in_stored_notebooks(monkeypatch):
    shown, drawn = [], []
    monkeypatch.setattr(lesson, "display", shown.append)

    def draw(value):
        drawn.append(value)
        return plt.figure()

    lesson.slider("β", (1.0, 0.5), draw)
    control = shown[-1].children[0]  # the figure came first: here nothing captures it
    control.value = 0.5
    assert (
        drawn == [1.0, 0.5]
        and [label for label, _ in control.options] == ["1", "0.5"]
        and not plt.get_fignums()
    )
    monkeypatch.setenv("MINIALIGN_PROGRESS", "0")
    lesson.slider("β", (1.0,), draw)
    assert len(drawn) == 2


@pytest.mark.parametrize(
    "values", [np.array([1, 2]), torch.tensor([1.0, 2.0]), [np.float32(1), 2], range(1, 3)]
)
def test_a_slider_takes_arrays(monkeypatch, values):
    shown = []
    monkeypatch.setattr(lesson, "display", shown.append)
    lesson.slider("β", values, lambda value: plt.figure())
    assert [label for label, _ in shown[-1].children[0].options] == ["1", "2"]


@pytest.mark.parametrize("values", [[], [float("nan")], ["a"], np.ones((2, 2)), None, (x for x in (1, 2))])
def test_a_slider_needs_values(values):
    with pytest.raises(ValueError, match=r"^values must [^\n]+$"):
        lesson.slider("β", values, lambda value: plt.figure())


# --- figures ---


@pytest.fixture
def axes():
    yield plt.figure().add_subplot()
    plt.close("all")


def on_gradient(value):
    return torch.tensor(value, requires_grad=True)


def test_a_smoothed_curve_by_hand():
    for values in ([1, 3, 5, 0], on_gradient([1.0, 3.0, 5.0, 0.0]), np.array([[1], [3], [5], [0]])):
        assert plots.smoothed(values, window=np.int64(2)).tolist() == [1, 2, 4, 2.5]
    assert plots.smoothed([2, 4], 20).tolist() == [2, 3] and plots.smoothed([]).tolist() == []
    hole = plots.smoothed([1, np.nan, 3, 5], 2)
    assert np.isnan(hole).tolist() == [False, True, True, False], "the curve goes on behind a hole"
    for values, window in (("abc", 2), ([1, 2], 0), ([1, 2], 1.5), (np.ones((2, 2)), 2)):
        with pytest.raises(ValueError, match=r"^(values|window) (must be|is) [^\n]+$"):
            plots.smoothed(values, window)


def test_a_curve_over_seeds_takes_scalars_of_torch(axes):
    rows = [
        {"step": on_gradient(float(step)), "kl": on_gradient(step + seed)}
        for step in (2, 1)
        for seed in (0.0, 1.0)
    ]
    plots.curve_over_seeds(axes, rows, "step", "kl", "β", index=9)
    assert axes.lines[0].get_xydata().tolist() == [[1, 1.5], [2, 2.5]]
    assert axes.lines[0].get_marker() == plots.MARKERS[1]


def test_panels_show_a_metric_where_it_was_recorded(axes):
    rows = [
        {"step": 1, "loss": on_gradient(3.0)},
        {"step": np.int64(2), "loss": np.ones(1), "gold": np.float32(5)},
    ]
    figure = plots.metric_panels(rows, ("loss", "gold"))
    assert [ax.lines[0].get_xydata().tolist() for ax in figure.axes[:2]] == [[[1, 3], [2, 1]], [[2, 5]]]
    assert plots.metric_panels([], ("loss",)).axes[0].get_title(loc="left") == "loss"
    with pytest.raises(ValueError, match="^there is no metric 'los': choose from step, loss, gold$"):
        plots.metric_panels(rows, ("los",))
    with pytest.raises(ValueError, match="^loss must be one real number, not 'low'$"):
        plots.metric_panels([{"step": 1, "loss": "low"}], ("loss",))


def test_bars_take_scalars_of_torch_and_need_something_to_show(axes):
    figure = plots.stacked_shares({"base": {"answer": on_gradient(0.25), "other": np.float32(0.75)}})
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 0.75]
    figure = plots.stacked_shares({"corpus": {f"kind {i}": 1 / 9 for i in range(9)}})
    looks = [(bar.get_facecolor(), bar.get_hatch()) for bar in figure.axes[0].patches]
    assert len(set(looks)) == 9  # more parts than colours
    for rows in ({}, {"base": {}}, {"base": {"answer": float("nan")}}, {"base": {"answer": "all"}}):
        with pytest.raises(ValueError, match=r"^shares must [^\n]+$"):
            plots.stacked_shares(rows)
    with pytest.raises(ValueError, match="^gold must hold at least one number"):
        plots.attribute_bars({}, WEIGHTS)
