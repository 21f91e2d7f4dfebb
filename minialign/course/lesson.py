"""What a notebook shows: the map, figures with alt text, executed equations, diagnosed exercises, quizzes."""

import html
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from IPython.display import HTML, display
from ipywidgets import SelectionSlider, VBox, interactive_output
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from minialign.course import plots
from minialign.course.exercises import EXERCISES, PUZZLES, Exercise, Puzzle
from minialign.course.exercises.diagnosis import diagnose
from minialign.statistics import Estimate, in_short, measured, numbers, whole_number
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


def show(figure, alt: str) -> None:
    """Display a matplotlib figure with a text for those who cannot see it, and close it."""
    if not isinstance(figure, Figure):
        raise TypeError(f"show takes a matplotlib figure and a text, not {in_short(figure)}")
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def progress(steps: int) -> Iterable[int]:
    """The numbers of a loop's steps, from 0, with a progress bar, which stored notebooks do not hold."""
    return tqdm(range(steps), unit="step", disable=progress_hidden())


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
    """A slider over `values`, and under it the matplotlib figure that draw(value) returns.

    Silent where progress bars are.
    """
    labels = [f"{value:g}" for value in measured(values)]
    if progress_hidden():
        return
    control = SelectionSlider(options=list(zip(labels, values)), description=name)

    def redraw(value: float) -> None:
        figure = draw(value)
        display(figure)
        plt.close(figure)

    display(VBox([control, interactive_output(redraw, {"value": control})]))


def pipeline(*today: str) -> None:
    """The map of the course with today's box (or boxes) lit. Raises ValueError for a stage not on the map."""
    names = [stage.replace("\n", " ") for stage in STAGES]
    for name in today:
        if str(name) not in names:
            raise ValueError(f"there is no stage {in_short(name)}: choose one of {', '.join(names)}")
    figure, axes = plt.subplots(figsize=(10, 0.95))
    for i, (stage, name) in enumerate(zip(STAGES, names)):
        lit = name in today
        face, edge, ink = ("#0072B2", "#0072B2", "white") if lit else ("#F2F2F2", "#999999", "#444444")
        box = dict(boxstyle="round,pad=0.45", facecolor=face, edgecolor=edge)
        style = dict(ha="center", va="center", fontsize=8.5, linespacing=1.05)
        axes.text(i, 0, stage, color=ink, bbox=box, **style)
        if i:
            axes.annotate("", (i - 0.36, 0), (i - 0.64, 0), arrowprops=dict(arrowstyle="->", color="#777777"))
    axes.set(xlim=(-0.6, len(STAGES) - 0.4), ylim=(-1, 1))
    axes.axis("off")
    show(figure, f"The course as a chain of boxes, {', '.join(names)}, with {' and '.join(today)} lit.")


def equal(statement: str, left, right, tolerance: float = 1e-10) -> None:
    """Execute an equation: print that it holds, or raise AssertionError with its largest deviation.

    A side may be one number for all of the other's. Raises ValueError for other shapes, and for nothing.
    """
    left, right = numbers(left, f"{statement}: the left side"), numbers(right, f"{statement}: the right side")
    if not left.size or not right.size or (left.shape != right.shape and 1 not in (left.size, right.size)):
        raise ValueError(
            f"{statement}: the left side has shape {left.shape}, the right one {right.shape}: "
            "give two of one shape, or one number"
        )
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is not a number, and so does not hold
        deviation = float(np.max(np.abs(left - right)))
    if not deviation <= tolerance:
        raise AssertionError(f"{statement}: the two sides differ by {deviation:.2g}, more than {tolerance:g}")
    print(f"{statement}: holds to {tolerance:g}")


def claim(
    statement: str, found, *, above: float | None = None, below: float | None = None, form=".2f"
) -> None:
    """Print a bounded statement about a measurement, what was measured, and whether it held in this run.

    With bounds `found` is a number, an array of which every one has to keep them, as the seeds' do, or an
    `Estimate`, whose whole interval has to; `form` is how one number is printed. When stored outputs are
    compared, the numbers may differ, statement, bounds and verdict may not. Without bounds it is one
    comparison, True or False.

    Raises ValueError for what is not that, and for a number that is not finite.
    """
    if above is None and below is None:
        print(f"{statement}: {comparison(statement, found)}")
        return
    values = measured(np.ravel(numbers(found, statement)), statement)
    texts = [format(value, form) for value in values]
    shown = "{} [{}, {}]".format(*texts) if isinstance(found, Estimate) else " ".join(texts)
    asked = [f"{word} {bound:g}" for word, bound in (("above", above), ("below", below)) if bound is not None]
    held = (above is None or bool((values > above).all())) and (below is None or bool((values < below).all()))
    print(f"{statement}: {shown} (asked: {' and '.join(asked)}): {held}")


def comparison(statement: str, holds) -> bool:
    """True or False, whoever compared. A number is neither, for it may be NaN, and an array is many."""
    one = isinstance(holds, (np.generic, np.ndarray, torch.Tensor)) and np.prod(holds.shape) == 1
    held = holds.item() if one else holds
    if not isinstance(held, bool):
        raise ValueError(
            f"{statement}: give one comparison, True or False "
            f"(of several .all() or .any()), not {in_short(holds)}"
        )
    return held


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


def answer(name: str, guesses: Mapping) -> None:
    """Say whether each of the reader's guesses, {thing: option}, is right, and if not, where to look.

    Raises ValueError for a thing that is not asked for and for an option that there is not.
    """
    for thing, verdict in puzzle_named(name).verdicts(guesses).items():
        print(f"{thing}: {verdict}")


def exercise_named(name: str) -> Exercise:
    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}: choose one of {', '.join(EXERCISES)}")
    return EXERCISES[name]


def puzzle_named(name: str) -> Puzzle:
    if name not in PUZZLES:
        raise ValueError(f"there is no puzzle {name!r}: choose one of {', '.join(PUZZLES)}")
    return PUZZLES[name]


def solution(name: str) -> None:
    """The engine's own source of an exercise, or a puzzle's answers with their reasons, folded."""
    if name in PUZZLES:
        puzzle = PUZZLES[name]
        texts = [(f"{thing}: {option}.", puzzle.why[thing]) for thing, option in puzzle.answers.items()]
        rows = "".join(f"<p><b>{html.escape(right)}</b> {html.escape(why)}</p>" for right, why in texts)
        display(HTML(f"<details><summary>Answers</summary>{rows}</details>"))
        return
    function = exercise_named(name).solution
    source = html.escape(inspect.getsource(function))
    where = f"{function.__module__.replace('.', '/')}.py"
    summary = f"<summary>Solution: <code>{function.__name__}</code> in {where}</summary>"
    display(HTML(f"<details>{summary}<pre>{source}</pre></details>"))


def quiz(*questions: tuple[str, tuple[str, ...], int, str]) -> None:
    """Multiple-choice questions, (question, options, index of the right one, why), with folded answers."""
    parts = []
    for number, (question, options, right, why) in enumerate(questions, 1):
        right = whole_number(right, f"the right option of question {number}", 0, len(options) - 1)
        listed = "".join(f"<li>{option}</li>" for option in options)
        answer = f"<b>{chr(ord('a') + right)}.</b> {why}"
        parts.append(
            f"<p><b>{number}.</b> {question}</p><ol type='a'>{listed}</ol>"
            f"<details><summary>Answer</summary><p>{answer}</p></details>"
        )
    display(HTML("".join(parts)))
