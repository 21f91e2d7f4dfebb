from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from minialign.course import lesson


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


@pytest.fixture
def shown(monkeypatch):
    calls = []
    monkeypatch.setattr(lesson, "display", lambda thing, metadata=None: calls.append((thing, metadata)))
    return calls


def test_a_figure_is_shown_with_its_alt_text_and_closed(shown):
    figure, _ = plt.subplots()
    lesson.show(figure, "what it shows")
    assert shown == [(figure, {"image/png": {"alt": "what it shows"}})] and not plt.get_fignums()


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
        loss = lesson.EXERCISES["reinforce_loss"].solution(log_probs, rewards, baseline)
        return loss / 2 + loss.detach() / 2

    assert "the value is right, its gradient is not" in lesson.diagnose(
        lesson.EXERCISES["reinforce_loss"], half_detached
    )


def test_an_attempt_that_changes_its_input_gets_its_own():
    def in_place(rewards):
        for t in range(rewards.shape[-1] - 2, -1, -1):
            rewards[..., t] += rewards[..., t + 1]
        return rewards

    assert lesson.diagnose(lesson.EXERCISES["reward_to_go"], in_place) is None
    assert lesson.diagnose(lesson.EXERCISES["reward_to_go"], lambda rewards: rewards.zero_()) is not None
    assert "an empty tensor" in lesson.diagnose(lesson.EXERCISES["reward_to_go"], lambda rewards: rewards[:0])


def test_a_solution_is_folded_source(shown):
    lesson.solution("kl_divergence")
    assert shown[0][0].data.startswith("<details>") and "def kl_divergence" in shown[0][0].data


def test_a_quiz_folds_its_answers(shown):
    lesson.quiz(("Why?", ("no", "yes"), 1, "Because."))
    page = shown[0][0].data
    assert "<li>no</li><li>yes</li>" in page and "<b>b.</b> Because." in page.split("<details>")[1]


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
