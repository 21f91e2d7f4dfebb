"""Every check passes the engine's function, and meets each known wrong answer with the right diagnosis."""

import inspect
import random
import re
import sys
import warnings
from collections import deque
from decimal import Decimal

import numpy as np
import pytest
import torch
from engine import default_dtype
from hypothesis import assume, given
from hypothesis import strategies as st
from wrong_answers import WRONG, right_but_a_number, stacked

from minialign.course import lesson
from minialign.course.exercises import EXERCISES
from minialign.course.exercises.diagnosis import IMPORTS, contrast, same

MISTAKES = [
    pytest.param(name, mistake, wrong, id=f"{name}: {mistake.diagnosis[:40]}")
    for name, e in EXERCISES.items()
    for mistake in e.mistakes + e.errors
    for wrong in mistake.functions
]


@pytest.mark.parametrize("name", EXERCISES)
def test_the_engine_passes(name, capsys):
    solution = EXERCISES[name].solution
    assert lesson.check(name, solution) is solution
    assert capsys.readouterr().out == f"{name}: right. The notebook goes on with your function.\n"


@pytest.mark.parametrize(("name", "mistake", "wrong"), MISTAKES)
def test_a_known_wrong_answer_is_named(name, mistake, wrong, capsys):
    assert lesson.check(name, wrong) is EXERCISES[name].solution
    assert mistake.diagnosis in capsys.readouterr().out


@pytest.mark.parametrize(("name", "answer", "words"), WRONG, ids=[f"{row[0]}: {row[2]}" for row in WRONG])
def test_a_wrong_answer_as_readers_write_it_is_named(name, answer, words):
    exercise = EXERCISES[name]
    assert words in lesson.diagnose(exercise, answer)
    assert sum(words in mistake.diagnosis for mistake in exercise.mistakes + exercise.errors) == 1


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
    assert "you return 12345, the engine" in capsys.readouterr().out


def test_two_results_may_come_as_a_list():
    right = EXERCISES["gae"].solution
    assert lesson.diagnose(EXERCISES["gae"], lambda *arguments: list(right(*arguments))) is None
    assert lesson.diagnose(
        EXERCISES["gae"], lambda *arguments: [x + 1 for x in right(*arguments)]
    ).startswith("not yet: in part 1 of the result")


FEWER = [  # (exercise, what is made of its results, words)
    ("dpo_loss", lambda losses, w, lose: losses, "3 results are wanted, separated by commas; what you"),
    ("dpo_loss", lambda losses, w, lose: lose, "what you return is right, but only the third of them."),
    ("dpo_loss", lambda losses, w, lose: (losses, w), "you return 2 results, a tensor of shape (6,) that"),
    ("dpo_loss", lambda losses, w, lose: losses.mean(), "the engine 3 results, a tensor of shape (6,)"),
    ("dpo_loss", lambda *three: torch.stack(three), "your numbers are right, but stacked in a tensor."),
    ("optimal_policy", lambda log_pi, z: log_pi, "2 results are wanted, separated by commas; what you"),
    ("optimal_policy", lambda log_pi, z: z, "what you return is right, but only the second of them."),
    ("gae", lambda advantages, returns: advantages, "is right, but only the first of them."),
    ("gae", lambda *two: torch.stack(two, -1), "your numbers are right, but stacked in a tensor."),
    ("shifted", lambda inputs, targets: targets, "is right, but only the second of them."),
    ("reliability", lambda *two: np.column_stack(two), "right, but stacked in a numpy array."),
    ("reliability", lambda sure, right: {"sure": sure}, "wanted, separated by commas; you return something"),
]


@pytest.mark.parametrize(("name", "change", "words"), FEWER)
def test_who_returns_fewer_results_is_told_how_many_are_wanted(name, change, words):
    exercise = EXERCISES[name]
    said = lesson.diagnose(exercise, lambda *arguments: change(*exercise.solution(*arguments)))
    assert words in said


def test_two_arrays_stacked_into_one_are_told_so():
    assert "your numbers are right, but stacked in a numpy array" in lesson.diagnose(
        EXERCISES["reliability"], stacked
    )


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("reinforce_loss", right_but_a_number),
        ("bradley_terry_loss", lambda *rewards: EXERCISES["bradley_terry_loss"].solution(*rewards).item()),
        ("last_states", lambda *arguments: EXERCISES["last_states"].solution(*arguments).detach()),
    ],
)
def test_a_value_without_any_gradient_is_told_what_cuts_it_off(name, attempt):
    assert ".item(), float(), .detach(), numpy and torch.no_grad() do that" in lesson.diagnose(
        EXERCISES[name], attempt
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
        diagnoses = [mistake.diagnosis for mistake in exercise.mistakes + exercise.errors]
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


# --- odd attempts ---


def refuse(*arguments, **options):
    raise ZeroDivisionError("I answer no question")


QUESTIONS = "eq ne repr str bool float int index len iter getitem contains array format".split()
Hostile = type("Hostile", (), {f"__{question}__": refuse for question in QUESTIONS} | {"__hash__": None})
HostileList = type("HostileList", (list,), {f"__{question}__": refuse for question in QUESTIONS})
HostileError = type("HostileError", (Exception,), {"__str__": refuse, "__repr__": refuse})
Unprintable = type("Unprintable", (), {"__class__": property(refuse)})


def changed(change):
    """The engine's function with its result, or each of its results, changed."""

    def attempt_for(right):
        def attempt(*arguments):
            value = right(*arguments)
            return tuple(map(change, value)) if type(value) is tuple else change(value)

        return attempt

    return attempt_for


def after(act):
    """The engine's function, and what the reader's does besides."""
    return lambda right: lambda *arguments: (right(*arguments), act(arguments))[0]


def returning(make):
    return lambda right: lambda *arguments: make()


def raising(make):
    def attempt(*arguments):
        raise make()

    return lambda right: attempt


def plain(value):
    return (
        value.detach() if isinstance(value, torch.Tensor) else torch.as_tensor(np.array(value, dtype=float))
    )


def or_as_it_is(change):
    """`change`, where it makes sense: not for words."""
    return changed(lambda value: value if isinstance(value, str) else change(value))


ODD = {
    "numpy array": or_as_it_is(lambda value: plain(value).numpy()),
    "tensor": or_as_it_is(plain),
    "list": or_as_it_is(lambda value: plain(value).tolist()),
    "list of tensors": or_as_it_is(lambda value: list(torch.atleast_1d(plain(value)))),
    "tuple": or_as_it_is(lambda value: tuple(torch.atleast_1d(plain(value)))),
    "one in a tuple": lambda right: lambda *arguments: (right(*arguments),),
    "column": or_as_it_is(lambda value: plain(value)[..., None]),
    "complex": or_as_it_is(lambda value: torch.as_tensor(value).to(torch.complex64)),
    "complex array": or_as_it_is(lambda value: plain(value).numpy() + 0j),
    "sparse": or_as_it_is(lambda value: torch.atleast_1d(plain(value)).to_sparse()),
    "quantised": or_as_it_is(lambda v: torch.quantize_per_tensor(plain(v).float(), 0.1, 0, torch.qint8)),
    "bfloat16": or_as_it_is(lambda value: plain(value).bfloat16()),
    "on no device": or_as_it_is(lambda value: plain(value).to("meta")),
    "words": or_as_it_is(lambda value: np.array(plain(value).numpy().astype(str))),
    "objects": or_as_it_is(lambda value: plain(value).numpy().astype(object)),
    "masked": or_as_it_is(lambda value: np.ma.masked_all_like(plain(value).numpy())),
    "record": returning(lambda: np.zeros(3, dtype=[("a", float), ("b", int)])),
    "dates": returning(lambda: np.zeros(3, dtype="datetime64[s]")),
    "backwards": or_as_it_is(lambda value: np.atleast_1d(plain(value).numpy())[::-1]),
    "bytes": returning(lambda: b"abc"),
    "half a character": returning(lambda: "\ud83d"),
    "generator": lambda right: lambda *arguments: (x for x in (1, 2)),
    "deque": or_as_it_is(lambda value: deque(np.atleast_1d(plain(value).numpy()))),
    "Decimal": or_as_it_is(lambda value: Decimal(float(plain(value).sum()))),
    "huge": returning(lambda: 10**400),
    "ragged": returning(lambda: [[1.0], [1.0, 2.0]]),
    "dict": returning(lambda: {"loss": 1.0}),
    "module": returning(lambda: torch.nn.Linear(2, 2)),
    "a function": returning(lambda: refuse),
    "hostile": returning(Hostile),
    "hostile list": returning(lambda: HostileList([1.0])),
    "hostile entry": returning(lambda: [Hostile(), Hostile()]),
    "hostile pair": returning(lambda: (Hostile(), Hostile())),
    "no class": returning(Unprintable),
    "empty": returning(lambda: torch.zeros(0)),
    "nothing in a tuple": returning(tuple),
    "NaN": or_as_it_is(lambda value: plain(value) * float("nan")),
    "exit": raising(lambda: SystemExit(3)),
    "panic": raising(lambda: BaseException("panic")),
    "hostile error": raising(HostileError),
    "unprintable error": raising(lambda: ValueError("\ud83d")),
    "long error": raising(lambda: ValueError("line\n" * 500)),
    "recursion": lambda right: endless,
    "prints": after(lambda arguments: print("here")),
    "warns": after(lambda arguments: warnings.warn("here", stacklevel=1)),
    "spoils": after(lambda arguments: [x.detach().zero_() for x in arguments if isinstance(x, torch.Tensor)]),
    "float64": after(lambda arguments: torch.set_default_dtype(torch.float64)),
    "no gradients": after(lambda arguments: torch.set_grad_enabled(False)),
    "seeds": after(lambda arguments: (torch.manual_seed(1), np.random.seed(1), random.seed(1))),
    "one parameter": lambda right: lambda x: x,
    "no parameter": lambda right: lambda: None,
    "a class": lambda right: Hostile,
    "no function": lambda right: 3,
    "no function at all": lambda right: None,
    "no function but hostile": lambda right: Hostile(),
}


def endless(*arguments):
    return endless(*arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("odd", ODD)
def test_whatever_the_attempt_the_lesson_goes_on(odd, capsys):
    """One line with a verdict, a function to go on with, and the world as it was."""
    for name, exercise in EXERCISES.items():
        attempt = ODD[odd](exercise.solution)
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
        function = lesson.check(name, attempt)
        assert function is attempt or function is exercise.solution, name
        whose = "your" if function is attempt else "the engine's"
        verdict = capsys.readouterr().out.replace("here\n", "")
        assert re.fullmatch(rf"{name}: .+ The notebook goes on with {whose} function\.\n", verdict), verdict
        assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
        assert torch.equal(torch.get_rng_state(), before[0])
        assert random.getstate() == before[1] and np.random.get_state()[1].tolist() == before[2]


HARMLESS = [  # with these, what follows in the notebook works
    ("perplexity_of", float),
    ("standard_error_of_difference", np.float32),
    ("standard_error_of_difference", torch.tensor),
    ("weighted_sum", np.array),
    ("reward_to_go", torch.Tensor.double),
    ("few_shot_prompt", np.str_),
    ("merge", lambda value: list(np.array(value))),
    ("frontier", np.ma.array),
    ("one_standard_error_rule", np.int64),
    ("one_standard_error_rule", torch.tensor),
]


@pytest.mark.parametrize(("name", "change"), HARMLESS)
def test_right_values_in_a_harmless_container_are_right(name, change):
    assert lesson.diagnose(EXERCISES[name], changed(change)(EXERCISES[name].solution)) is None


@pytest.mark.parametrize("name", ["pretraining_loss", "sft_loss"])
@pytest.mark.parametrize("change", [float, torch.Tensor.detach])
def test_a_loss_that_nothing_can_be_trained_with_is_not_right(name, change):
    assert "no gradient flows back" in lesson.diagnose(
        EXERCISES[name], changed(change)(EXERCISES[name].solution)
    )


UNUSABLE = [
    ("merge", tuple, "they are a tuple of whole numbers: return a list of whole numbers."),
    ("merge", np.array, "they are a numpy array of whole numbers: return a list of whole numbers."),
    ("merge", torch.tensor, "they are a tensor of whole numbers: return a list"),
    ("merge", lambda value: [float(x) for x in value], "they are a list of numbers: return a list of whole"),
    ("merge", deque, "they are something of type deque: return a list of whole numbers."),
    ("merge", iter, "you return something of type list_iterator, the engine a list of shape"),
    ("reward_to_go", torch.Tensor.numpy, "they are a numpy array of numbers: return a tensor of numbers."),
    ("reward_to_go", torch.Tensor.tolist, "they are a list of numbers: return a tensor of numbers."),
    ("reward_to_go", tuple, "they are a tuple of numbers: return a tensor of numbers."),
    ("shifted", torch.Tensor.float, "they are a tensor of numbers: return a tensor of whole numbers."),
    ("implicit_reward", lambda value: value.detach().numpy(), "return a tensor of numbers."),
    ("reliability", torch.tensor, "they are a tensor of numbers: return a numpy array of numbers."),
    (
        "reliability",
        lambda value: value.astype(object),
        "a numpy array of objects: return a numpy array of n",
    ),
    ("frontier", np.ndarray.tolist, "they are a list of booleans: return a numpy array of booleans."),
    (
        "frontier",
        lambda value: value * 1,
        "a numpy array of whole numbers: return a numpy array of booleans.",
    ),
    (
        "one_standard_error_rule",
        float,
        "the value is right, but it is something of type float: return a whole",
    ),
    ("one_standard_error_rule", np.float64, "it is something of type float64: return a whole number."),
    (
        "one_standard_error_rule",
        lambda k: torch.tensor(float(k)),
        "it is a tensor of numbers: return a whole",
    ),
    ("kl_divergence", lambda value: value[..., None], "of shape (4, 1): return them of shape (4,)."),
    ("perplexity_of", lambda value: value.view(1), "of shape (1,): return them of shape ()."),
    (
        "reward_to_go",
        lambda v: v.to(torch.complex64),
        "a tensor of torch.complex64, torch.strided, the engine",
    ),
    ("reward_to_go", torch.Tensor.to_sparse, "you return a tensor of torch.float32, torch.sparse_coo, the"),
    (
        "pretraining_loss",
        lambda v: v.to(torch.complex64),
        "a tensor of torch.complex64, torch.strided, the eng",
    ),
    (
        "implicit_reward",
        lambda v: v.to(torch.complex64),
        "a tensor of torch.complex64, torch.strided, the eng",
    ),
    ("reliability", lambda value: value.astype(str), "you return a numpy array of dtype <U32, the engine"),
    (
        "standard_error_of_difference",
        lambda value: Decimal(value),
        "something of type Decimal: return something of type f",
    ),
    ("few_shot_prompt", str.encode, "you return something of type bytes, the engine 'What is"),
]


@pytest.mark.parametrize(("name", "change", "said"), UNUSABLE)
def test_right_values_of_another_kind_are_told_so(name, change, said):
    assert said in lesson.diagnose(EXERCISES[name], changed(change)(EXERCISES[name].solution))


def test_an_estimate_must_be_one():
    right = EXERCISES["win_rate"].solution
    said = lesson.diagnose(EXERCISES["win_rate"], lambda *arguments: tuple(right(*arguments)))
    assert said.endswith("they are a tuple of numbers: return something of type Estimate.")


def test_a_result_that_lacks_entries_is_not_taken_for_several_results():
    short = lesson.diagnose(EXERCISES["merge"], lambda *arguments: (0, 9, 9))
    assert "you return a tuple of shape (3,) that starts with 0, the engine a list of shape" in short


@given(st.floats(allow_nan=False), st.floats(1e-5, 1), st.booleans())
def test_numbers_that_differ_are_printed_differently(right, by, in_array):
    """With as many digits as it takes."""
    value = right * (1 + 3 * by) + 3 * by
    assume(not same(value, right))
    said = contrast(np.array([value]), np.array([right])) if in_array else contrast(value, right)
    mine, engine = re.search(r"you return (?:is )?(\S+), the engine(?:'s is)? (\S+)$", said).groups()
    assert float(mine) != float(engine)


TRUTHS = [
    (np.array([True, True]), "the entry [1] you return is True, the engine's is False"),
    ([False, False], "the entry [0] you return is False, the engine's is True"),
    (np.array([2, 0]), "the entry [0] you return is 2, the engine's is True"),
    (False, "you return False, the engine a numpy array of shape (2,) that starts with True"),
    (torch.zeros(3) > 0, "you return a tensor of shape (3,) that starts with False, the engine a numpy"),
]


@pytest.mark.parametrize(("value", "said"), TRUTHS)
def test_true_and_false_are_not_printed_as_numbers(value, said):
    assert contrast(value, np.array([True, False])).startswith(said)


def test_texts_are_shown_from_where_they_differ():
    said = contrast("a" * 200 + "b" + "c" * 200, "a" * 200 + "d")
    assert said == f"from character 201 on you return {'b' + 'c' * 59!r}, the engine 'd'"


def test_the_readers_own_interrupt_passes():
    with pytest.raises(KeyboardInterrupt):
        lesson.check("merge", raising(KeyboardInterrupt)(None))


def test_the_readers_errors_in_words(capsys):
    cases = {
        "your function raised SystemExit: 3.": lambda *arguments: sys.exit(3),
        "your function raised ZeroDivisionError: I answer no question.": refuse,
        "your function raised NotImplementedError: no such operator.": raising(
            lambda: NotImplementedError("no such operator")
        )(None),
        "your function raised HostileError.": raising(HostileError)(None),
        "your function raised TypeError: ": lambda: None,
        "give your function itself, without calling it, not [9, 1].": [9, 1],
    }
    for words, attempt in cases.items():
        lesson.check("merge", attempt)
        assert words in capsys.readouterr().out


NAMES = [
    (
        "F.relu(1)",
        "name 'F' is not defined. F is not imported here: run `import torch.nn.functional as F` first",
    ),
    ("Counter('a')", "Counter is not imported here: run `from collections import Counter` first."),
    ("my_merge", "The usual cause: a cell above has not been run, or the name is misspelt."),
]


@pytest.mark.parametrize(("code", "words"), NAMES)
def test_a_name_that_is_missing_is_explained(code, words):
    assert words in lesson.diagnose(EXERCISES["merge"], lambda *arguments: eval(code, {}))


def test_the_imports_that_are_recommended_bring_the_name():
    for name, line in IMPORTS.items():
        scope = {}
        exec(line, scope)
        assert name in scope


def test_an_error_without_a_usual_cause_is_reported_as_it_is():
    said = lesson.diagnose(EXERCISES["rloo_advantages"], lambda rewards: rewards[7])
    assert said == "your function raised IndexError: index 7 is out of bounds for dimension 0 with size 3."


@pytest.mark.parametrize("setting", [torch.inference_mode, torch.no_grad, lambda: torch.device("meta")])
def test_a_check_does_not_depend_on_what_the_reader_has_set(setting):
    (detached,) = (m for m in EXERCISES["implicit_reward"].mistakes if "no gradient flows" in m.diagnosis)
    with default_dtype(torch.float64):
        with setting():
            for name, exercise in EXERCISES.items():
                assert lesson.diagnose(exercise, exercise.solution) is None, name
            for function in detached.functions:
                assert lesson.diagnose(EXERCISES["implicit_reward"], function) == detached.diagnosis
        assert torch.get_default_dtype() == torch.float64


def test_a_model_that_an_attempt_changes_is_its_own():
    first, second = (EXERCISES["sequence_log_probs"].inputs(torch.Generator().manual_seed(0)) for _ in "12")
    with torch.no_grad():
        first[0].ln_f.weight.zero_()
    assert second[0].ln_f.weight.all()
