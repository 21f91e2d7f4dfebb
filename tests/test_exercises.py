"""Every check passes the engine's function, and meets each known wrong answer with the right diagnosis."""

import inspect

import pytest
import torch

from minialign.course import lesson
from minialign.course.exercises import EXERCISES

MISTAKES = [
    pytest.param(name, mistake, id=f"{name}: {mistake.diagnosis[:40]}")
    for name, e in EXERCISES.items()
    for mistake in e.mistakes
]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_engine_passes(name, capsys):
    solution = EXERCISES[name].solution
    assert lesson.check(name, solution) is solution
    assert capsys.readouterr().out == f"{name}: right. The notebook goes on with your function.\n"


@pytest.mark.parametrize(("name", "mistake"), MISTAKES)
def test_a_known_wrong_answer_is_named(name, mistake, capsys):
    assert lesson.check(name, mistake.function) is EXERCISES[name].solution
    assert mistake.diagnosis in capsys.readouterr().out


@pytest.mark.parametrize("name", EXERCISES)
def test_a_stub_is_not_attempted(name, capsys):
    def raises(*arguments):
        raise NotImplementedError

    for stub in (lambda *arguments: None, lambda *arguments: ..., raises):
        assert lesson.check(name, stub) is EXERCISES[name].solution
        assert "not attempted yet" in capsys.readouterr().out


@pytest.mark.parametrize("name", EXERCISES)
def test_any_other_wrong_answer_is_shown_beside_the_right_one(name, capsys):
    assert lesson.check(name, lambda *arguments: 12345.0) is EXERCISES[name].solution
    assert "you return 12345.0000, the engine" in capsys.readouterr().out


def test_two_results_may_come_as_a_list_and_one_is_told_that_it_takes_two(capsys):
    right = EXERCISES["gae"].solution
    assert lesson.diagnose(EXERCISES["gae"], lambda *arguments: list(right(*arguments))) is None
    assert lesson.diagnose(
        EXERCISES["gae"], lambda *arguments: [x + 1 for x in right(*arguments)]
    ).startswith("not yet: in part 1 of the result")
    assert "the engine 2 results, a tensor of shape" in lesson.diagnose(
        EXERCISES["gae"], lambda *arguments: right(*arguments)[0]
    )


def test_an_error_in_the_readers_code_is_reported_and_the_lesson_goes_on(capsys):
    def broken(logits, targets):
        return logits @ targets

    assert lesson.check("pretraining_loss", broken) is EXERCISES["pretraining_loss"].solution
    assert "your function raised RuntimeError" in capsys.readouterr().out


def test_rounding_is_forgiven_and_a_wrong_shape_is_not():
    right = EXERCISES["perplexity_of"].solution
    assert lesson.diagnose(EXERCISES["perplexity_of"], lambda x: right(x) * (1 + 1e-7)) is None
    assert lesson.diagnose(EXERCISES["perplexity_of"], lambda x: right(x).expand(2)) is not None
    assert lesson.diagnose(EXERCISES["perplexity_of"], lambda x: right(x) * 1.001) is not None


def test_the_checks_inputs_differ_from_seed_to_seed():
    for name, exercise in EXERCISES.items():
        drawn = {repr(exercise.inputs(torch.Generator().manual_seed(seed))) for seed in range(3)}
        assert len(drawn) == 3, name


def test_every_mistake_differs_from_the_solution_and_from_its_siblings():
    for name, exercise in EXERCISES.items():
        diagnoses = [mistake.diagnosis for mistake in exercise.mistakes]
        assert len(set(diagnoses)) == len(diagnoses) >= 3, name


def test_the_solution_is_the_engines_own_source():
    for exercise in EXERCISES.values():
        assert exercise.solution.__module__.startswith(
            "minialign."
        ) and not exercise.solution.__module__.endswith("exercises")
        assert len(inspect.getsource(exercise.solution).splitlines()) <= 25


def test_an_unknown_exercise():
    with pytest.raises(ValueError, match="choose one of weighted_sum"):
        lesson.check("sft_los", None)
