"""What a notebook shows its reader: the map, figures with alt text, executed equations, exercises that
diagnose, quizzes.
"""

import html
import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from IPython.display import HTML, display
from ipywidgets import SelectionSlider, VBox, interactive_output
from matplotlib import pyplot as plt

from minialign.course import plots
from minialign.course.exercises import EXERCISES, Exercise
from minialign.training import progress_hidden

STAGES = (
    "pre-training",
    "instruction\nfine-tuning",
    "policy\ngradients",
    "reward\nmodel",
    "PPO\n(RLHF)",
    "DPO",
    "the race",
    "open\nlimits",
)
ROUNDING = dict(rtol=1e-5, atol=1e-6, equal_nan=True)  # by which an attempt may differ from the engine


def show(figure, alt: str) -> None:
    """Display a matplotlib figure with a text for those who cannot see it, and close it."""
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def live_curves(*names: str) -> Callable[[dict], None]:
    """An `on_step` that draws a run's metrics, one panel each, and redraws them in place after every step.

    Silent where progress bars are: stored notebooks show the finished curves.
    """
    rows: list[dict] = []
    hidden = progress_hidden()
    handle = None if hidden else display("…", display_id=True)

    def on_step(metrics: dict) -> None:
        rows.append(metrics)
        if not hidden:
            figure = plots.metric_panels(rows, names)
            handle.update(figure)
            plt.close(figure)

    return on_step


def slider(name: str, values: Sequence[float], draw: Callable) -> None:
    """A slider over `values`, and under it the matplotlib figure that draw(value) returns. Silent where
    progress bars are.
    """
    if progress_hidden():
        return
    control = SelectionSlider(options=[(f"{value:g}", value) for value in values], description=name)

    def redraw(value: float) -> None:
        figure = draw(value)
        display(figure)
        plt.close(figure)

    display(VBox([control, interactive_output(redraw, {"value": control})]))


def pipeline(*today: str) -> None:
    """The map of the course with today's box (or boxes) lit. Raises ValueError for a stage that is not on the
    map.
    """
    names = [stage.replace("\n", " ") for stage in STAGES]
    if unknown := set(today) - set(names):
        raise ValueError(f"there is no stage {min(unknown)!r}: choose one of {', '.join(names)}")
    figure, axes = plt.subplots(figsize=(10, 0.95))
    for i, (stage, name) in enumerate(zip(STAGES, names)):
        lit = name in today
        box = dict(
            boxstyle="round,pad=0.45",
            facecolor="#0072B2" if lit else "#F2F2F2",
            edgecolor="#0072B2" if lit else "#999999",
        )
        axes.text(
            i,
            0,
            stage,
            ha="center",
            va="center",
            fontsize=8.5,
            color="white" if lit else "#444444",
            bbox=box,
            linespacing=1.05,
        )
        if i:
            axes.annotate("", (i - 0.36, 0), (i - 0.64, 0), arrowprops=dict(arrowstyle="->", color="#777777"))
    axes.set(xlim=(-0.6, len(STAGES) - 0.4), ylim=(-1, 1))
    axes.axis("off")
    show(figure, f"The course as a chain of boxes, {', '.join(names)}, with {' and '.join(today)} lit.")


def equal(statement: str, left, right, tolerance: float = 1e-10) -> None:
    """Execute an equation: print it with its largest deviation, and raise AssertionError when it does not
    hold.
    """
    left, right = (
        np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
        for x in (left, right)
    )
    deviation = float(np.max(np.abs(left - right)))
    if not deviation <= tolerance:
        raise AssertionError(f"{statement}: the two sides differ by {deviation:.2g}, more than {tolerance:g}")
    print(f"{statement}: holds to {tolerance:g}")


def claim(statement: str, holds) -> None:
    """Print a bounded statement about a measurement and whether it held in this run."""
    print(f"{statement}: {bool(holds)}")


def check(name: str, attempt: Callable) -> Callable:
    """Compare the reader's function with the engine's on random inputs and say what is wrong, if anything.

    Returns the function to go on with: the reader's when it is right, the engine's otherwise.
    """
    exercise = exercise_named(name)
    verdict = diagnose(exercise, attempt)
    if verdict is None:
        print(f"{name}: right. The notebook goes on with your function.")
        return attempt
    print(f"{name}: {verdict} The notebook goes on with the engine's function.")
    return exercise.solution


def exercise_named(name: str) -> Exercise:
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}: choose one of {', '.join(EXERCISES)}")
    return EXERCISES[name]


def diagnose(exercise: Exercise, attempt: Callable) -> str | None:
    """None for a right answer; otherwise one sentence on what is wrong, as precise as the exercise's known
    mistakes allow.
    """
    try:
        results = outcomes(attempt, exercise)
    except NotImplementedError:
        return "not attempted yet."
    except Exception as error:  # whatever the reader's code raises, the lesson goes on
        return f"your function raised {type(error).__name__}: {error}."
    if all(value is None or value is ... for value, _ in results):
        return "not attempted yet."
    expected = outcomes(exercise.solution, exercise)
    if all(same(result, right) for result, right in zip(results, expected)):
        return None
    for mistake in exercise.mistakes:
        if all(map(same, results, outcomes(mistake.function, exercise))):
            return mistake.diagnosis
    (value, _), (right, _) = next((r, e) for r, e in zip(results, expected) if not same(r, e))
    if same(value, right):
        return "the value is right, its gradient is not: check what must be a constant and what must not."
    if isinstance(value, (tuple, list)) and isinstance(right, tuple) and len(value) == len(right):
        part = next(i for i in range(len(right)) if not same(value[i], right[i]))
        return f"not yet: in part {part + 1} of the result, {contrast(value[part], right[part])}."
    return f"not yet: on the first input where they differ, {contrast(value, right)}."


def outcomes(function: Callable, exercise: Exercise) -> list[tuple]:
    """What a function makes of five random inputs, drawn anew for every function, since it may change
    them.
    """
    return [outcome(function, exercise.inputs(torch.Generator().manual_seed(seed))) for seed in range(5)]


def outcome(function: Callable, arguments: tuple) -> tuple:
    """(what a function returns, the gradients of its sum for the arguments, or the models among them, that
    require one).

    Of several results, the first is the one to be differentiated.
    """
    value = function(*arguments)
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    inputs = [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]
    inputs += [p for a in arguments if isinstance(a, torch.nn.Module) for p in a.parameters()]
    if not inputs or not isinstance(first, torch.Tensor):
        return value, ()
    if not first.requires_grad:
        return value, tuple(map(torch.zeros_like, inputs))
    found = torch.autograd.grad(first.sum(), inputs, allow_unused=True)
    plain = value.detach() if isinstance(value, torch.Tensor) else value
    return plain, tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found))


def same(result, expected) -> bool:
    """Equal up to rounding, and of the same shape."""
    if isinstance(expected, tuple):
        return (
            isinstance(result, (tuple, list))
            and len(result) == len(expected)
            and all(map(same, result, expected))
        )
    if isinstance(expected, (str, list)):
        return result == expected
    try:
        # torch takes no reversed array
        arrays = (x.copy() if isinstance(x, np.ndarray) else x for x in (result, expected))
        result, expected = (torch.as_tensor(x, dtype=torch.float64).detach() for x in arrays)
    except (TypeError, ValueError, RuntimeError):
        return False
    return result.shape == expected.shape and torch.allclose(result, expected, **ROUNDING)


def contrast(value, right) -> str:
    """Where two results differ: the first entry that does, if they are arrays of one shape."""
    if (
        all(isinstance(x, (torch.Tensor, np.ndarray)) for x in (value, right))
        and tuple(value.shape) == tuple(right.shape)
        and right.ndim
    ):
        mine, engine = (
            np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
            for x in (value, right)
        )
        place = tuple(int(i) for i in np.argwhere(~np.isclose(mine, engine, **ROUNDING))[0])
        entry = ", ".join(map(str, place))
        return f"the entry [{entry}] you return is {mine[place]:.4f}, the engine's is {engine[place]:.4f}"
    return f"you return {describe(value)}, the engine {describe(right)}"


def describe(value) -> str:
    if isinstance(value, np.ndarray) and value.ndim:
        return (
            f"an array of shape {value.shape}: {np.array2string(value[:4].astype(float), precision=3)[:-1]} …"
        )
    if isinstance(value, tuple):
        return f"{len(value)} results, " + " and ".join(map(describe, value))
    if isinstance(value, torch.Tensor) and not value.numel():
        return "an empty tensor"
    if isinstance(value, torch.Tensor) and value.ndim:
        return f"a tensor of shape {tuple(value.shape)} that starts with {value.flatten()[0]:.4f}"
    return (
        f"{float(value):.4f}"
        if isinstance(value, (float, int, torch.Tensor, np.number))
        else repr(value)[:80]
    )


def solution(name: str) -> None:
    """The engine's own source of an exercise, folded."""
    function = exercise_named(name).solution
    source = html.escape(inspect.getsource(function))
    where = f"{function.__module__.replace('.', '/')}.py"
    display(
        HTML(
            f"<details><summary>Solution: <code>{function.__name__}</code> in "
            f"{where}</summary><pre>{source}</pre></details>"
        )
    )


def quiz(*questions: tuple[str, tuple[str, ...], int, str]) -> None:
    """Multiple-choice questions, (question, options, index of the right one, why), with folded answers."""
    parts = []
    for number, (question, options, right, why) in enumerate(questions, 1):
        listed = "".join(f"<li>{option}</li>" for option in options)
        answer = f"<b>{'abcdef'[right]}.</b> {why}"
        parts.append(
            f"<p><b>{number}.</b> {question}</p><ol "
            f"type='a'>{listed}</ol><details><summary>Answer</summary><p>{answer}</p></details>"
        )
    display(HTML("".join(parts)))
