"""The loop under every algorithm: its update, its batches, its schedule, and what survives when it stops
early.
"""

import math

import numpy as np
import pytest
import torch
from engine import TINY, batch_of, lively_gpt, random_ids, same_parameters
from hypothesis import given
from hypothesis import strategies as st

from minialign import training
from minialign.files import DATA
from minialign.gpt import GPT
from minialign.sft import sft_loss
from minialign.training import (
    History,
    Optimizer,
    TrainingConfig,
    bucketed_batches,
    epochs,
    fit,
    learning_rate_at,
    load_history,
    repeat,
    require_apart,
    stop_if_interrupted,
    weight_of,
)

CONFIG = TrainingConfig(steps=10, learning_rate=1e-2, warmup=2)


def batch_at(step):
    """One ragged batch, another at each step."""
    ids = random_ids(3, 12, seed=step).tolist()
    return [batch_of([(ids[0][:3], ids[0][3:]), (ids[1][:6], ids[1][6:8]), (ids[2][:2], ids[2][2:6])])]


def loss_of(model):
    return lambda batch: (sft_loss(model(batch.ids, batch.mask), batch.ids, batch.response_mask), {})


def train(steps=10, stop_at=None, model=None, muon=False, **options):
    """A run of `steps` steps on a fresh model; with `stop_at`, an error or interrupt instead of that step's
    batch.
    """
    model = model or GPT(TINY)

    def batches(step):
        if stop_at and step == stop_at[0]:
            raise stop_at[1]
        return batch_at(step)

    return model, fit(
        model,
        batches,
        loss_of(model),
        TrainingConfig(**(vars(CONFIG) | {"steps": steps, "muon": muon})),
        **options,
    )


# --- one update ---


def gradients_of(model, batches):
    """The gradients that one update from `batches` hands to AdamW, and its metrics."""
    optimizer = Optimizer(model, TrainingConfig(max_grad_norm=math.inf))
    seen = []
    optimizer.optimizers[0].step = lambda: seen.extend(p.grad.clone() for p in optimizer.parameters)
    metrics = optimizer.update(batches, loss_of(model))
    return torch.cat([gradient.flatten() for gradient in seen]), metrics


UNEQUAL = [([1, 2], [3, 4, 5, 6, 7, 8, 9]), ([5], [6]), ([7, 8, 9], [1, 2])]


@pytest.mark.parametrize("cuts", [[1, 1, 1], [1, 2], [2, 1]])
def test_accumulated_micro_batches_are_the_full_batch(cuts):
    model = lively_gpt()
    full, metrics = gradients_of(model, [batch_of(UNEQUAL)])
    rows = iter(UNEQUAL)
    micro = [batch_of([next(rows) for _ in range(cut)]) for cut in cuts]
    accumulated, summed = gradients_of(model, micro)
    torch.testing.assert_close(accumulated, full, atol=1e-5, rtol=1e-4)
    assert summed["loss"] == pytest.approx(metrics["loss"], rel=1e-5)
    assert summed["grad_norm"] == pytest.approx(float(full.norm()), rel=1e-4)
    mean_of_means = sum(gradients_of(model, [batch])[0] for batch in micro) / len(micro)
    assert (mean_of_means - full).norm() > 0.05 * full.norm()


def test_pairs_bring_their_own_weight():
    class Pairs:
        weight = 7

    assert weight_of(Pairs()) == 7 and weight_of(batch_of(UNEQUAL)) == 10


def test_metrics_are_averaged_by_tokens():
    model = lively_gpt()
    optimizer = Optimizer(model, CONFIG)
    values = iter([1.0, 4.0])
    micro = [batch_of(UNEQUAL[:1]), batch_of(UNEQUAL[1:])]  # 7 and 3 response tokens
    metrics = optimizer.update(micro, lambda batch: (loss_of(model)(batch)[0], {"accuracy": next(values)}))
    assert metrics["accuracy"] == pytest.approx(0.7 * 1 + 0.3 * 4)


def test_updates_are_those_of_a_plain_loop():
    """AdamW, clipping, schedule and the matrices-only weight decay, spelled out in float64."""
    config = TrainingConfig(steps=6, warmup=2, learning_rate=0.01, weight_decay=0.5, max_grad_norm=0.5)
    ours, plain = lively_gpt().double(), lively_gpt().double()
    optimizer = Optimizer(ours, config)
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in plain.parameters()}
    norms = []
    for step in range(6):
        (batch,) = batch_at(step)
        norms.append(optimizer.update([batch], loss_of(ours))["grad_norm"])
        loss = loss_of(plain)(batch)[0]
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        assert norms[-1] == pytest.approx(norm, rel=1e-5)
        rate = learning_rate_at(step, config)
        for p, g in zip(plain.parameters(), gradients):
            g = g * min(1, 0.5 / norm)
            m, v = moments[p]
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.95).add_(0.05 * g**2)
            decay = 0.5 if p.dim() == 2 else 0.0
            direction = m / (1 - 0.9 ** (step + 1)) / ((v / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
            p.data -= rate * (decay * p.data + direction)
    assert min(norms) > 0.5 and max(norms) > 1.2 * min(norms), (
        "the test needs clipping that differs between steps"
    )
    for (name, p), q in zip(ours.named_parameters(), plain.parameters()):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=0, msg=name)


def test_muon_turns_the_linear_layers_by_the_same_amount_in_every_direction():
    """After one step without decay the singular values of a matrix' change are near 0.2·√(larger side) ·
    rate, but for those of a gradient without full rank. What is no linear layer is AdamW's.
    """
    muon, adamw = lively_gpt(), lively_gpt()
    before = {name: p.detach().clone() for name, p in muon.named_parameters()}
    for model, used in ((muon, True), (adamw, False)):
        config = TrainingConfig(learning_rate=0.01, warmup=0, weight_decay=0.0, muon=used)
        Optimizer(model, config).update(batch_at(0), loss_of(model))
    linear = {
        f"{name}.weight" for name, module in muon.named_modules() if isinstance(module, torch.nn.Linear)
    }
    for (name, p), q in zip(muon.named_parameters(), adamw.parameters()):
        if name in linear:
            sizes = torch.linalg.svdvals((p - before[name]).detach()) / (0.01 * 0.2 * max(p.shape) ** 0.5)
            assert 0.6 < sizes.median() and sizes.max() < 1.5 * sizes.median(), name
            by_adamw = torch.linalg.svdvals((q - before[name]).detach())
            assert by_adamw.max() > 2 * by_adamw.median(), "a step of AdamW would not pass"
        else:
            assert torch.equal(p, q), name
    assert len(linear) == 4 * TINY.n_layer


def test_gradients_left_by_someone_else_do_not_count():
    """A reader's own backward(), or a run interrupted half-way through an update."""
    clean, dirty = lively_gpt(), lively_gpt()
    loss_of(dirty)(batch_of(UNEQUAL))[0].backward()
    for model in (clean, dirty):
        Optimizer(model, CONFIG).update(batch_at(0), loss_of(model))
    assert same_parameters(clean, dirty)


# --- the schedule ---


def test_learning_rate_by_hand():
    config = TrainingConfig(steps=110, warmup=10, learning_rate=2.0, final_lr=0.1)
    expected = {
        0: 0.2,
        4: 1.0,
        9: 2.0,
        10: 2.0,
        35: 2 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2),
        60: 1.1,
        110: 0.2,
    }
    for step, rate in expected.items():
        assert learning_rate_at(step, config) == pytest.approx(rate), step


def test_linear_decay_by_hand():
    config = TrainingConfig(steps=110, warmup=10, learning_rate=2.0, final_lr=0.1, decay="linear")
    expected = {0: 0.2, 9: 2.0, 10: 2.0, 35: 2 - 1.8 / 4, 60: 1.1, 85: 2 - 1.8 * 3 / 4, 110: 0.2}
    for step, rate in expected.items():
        assert learning_rate_at(step, config) == pytest.approx(rate), step


@given(st.integers(1, 300), st.integers(0, 50), st.floats(0, 1), st.sampled_from(["cosine", "linear"]))
def test_learning_rate_rises_then_falls(steps, warmup, final, decay):
    config = TrainingConfig(steps=steps, warmup=warmup, final_lr=final, decay=decay)
    rates = [learning_rate_at(step, config) for step in range(steps)]
    assert 0 <= min(rates) and max(rates) <= config.learning_rate * 1.000001
    assert all(a <= b for a, b in zip(rates[:warmup], rates[1:warmup]))
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1 :]))


def test_the_rate_is_used_and_recorded():
    _, history = train()
    assert history.column("learning_rate").tolist() == [learning_rate_at(step, CONFIG) for step in range(10)]


# --- the run ---


def test_same_seed_same_trajectory():
    (first, one), (second, two) = train(), train()
    assert same_parameters(first, second) and one == two
    assert not same_parameters(first, train(model=GPT(TINY, seed=1))[0])


def test_training_lowers_the_loss():
    model = GPT(TINY)
    history = fit(
        model, lambda step: batch_at(0), loss_of(model), TrainingConfig(steps=60, learning_rate=0.02)
    )
    assert history[0]["loss"] > 5 and history[-1]["loss"] < 0.5


@pytest.mark.parametrize("muon", [False, True])
@pytest.mark.parametrize("killed_at", [3, 5, 7])
def test_a_resumed_run_is_the_uninterrupted_run(tmp_path, killed_at, muon):
    straight, whole = train(muon=muon)
    options = dict(resume_from=tmp_path / "run.state", save_every=3, muon=muon)
    with pytest.raises(RuntimeError, match="killed"):
        train(stop_at=(killed_at, RuntimeError("killed")), **options)
    steps_made = []
    resumed, history = train(on_step=lambda metrics: steps_made.append(metrics["step"]), **options)
    assert steps_made == list(range(killed_at // 3 * 3 + 1, 11))
    assert same_parameters(resumed, straight) and history == whole


def test_an_interrupt_keeps_model_and_history(capsys):
    kept, history = train(stop_at=(4, KeyboardInterrupt()))
    assert history.interrupted and len(history) == 4 and not kept.training
    assert (
        "Stopped by you at step 4 of 10: the model and the history so far are kept."
        in capsys.readouterr().out
    )
    model, finished = GPT(TINY), History()

    def stop(metrics):
        finished.append(metrics)
        if len(finished) == 4:
            raise KeyboardInterrupt

    _, same = train(model=model, on_step=stop)
    assert same_parameters(model, kept)
    assert same == history, "a step that was made is in the history"


def test_a_run_that_was_not_interrupted_says_so():
    assert train()[1].interrupted is False


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_a_loss_that_is_not_finite_stops_and_leaves_the_model(bad, which):
    model, optimizer = lively_gpt(), None
    optimizer = Optimizer(model, CONFIG)
    optimizer.update(batch_at(0), loss_of(model))
    before = {name: p.clone() for name, p in model.state_dict().items()}
    calls = []

    def loss_fn(batch):
        calls.append(batch)
        loss, extra = loss_of(model)(batch)
        return (loss * bad if len(calls) - 1 == which else loss), extra

    with pytest.raises(
        FloatingPointError,
        match=rf"the loss became {bad} at step 2: .*lower the learning "
        r"rate",
    ):
        optimizer.update([*batch_at(1), *batch_at(2)], loss_fn)
    assert all(torch.equal(before[name], p) for name, p in model.state_dict().items())


def test_a_gradient_that_is_not_finite_stops_and_leaves_the_model():
    """The loss can be finite where its gradient is not: √x at 0."""
    model = lively_gpt()

    def loss_fn(batch):
        return (loss_of(model)(batch)[0] * 0).sqrt(), {}

    with pytest.raises(FloatingPointError, match="the gradient became nan at step 1"):
        Optimizer(model, CONFIG).update(batch_at(0), loss_fn)
    assert same_parameters(model, lively_gpt())


def test_the_model_trains_while_training_only():
    model = GPT(TINY).eval()
    modes = []
    train(model=model, on_step=lambda metrics: modes.append(model.training))
    assert modes == [True] * 10 and not model.training


def test_on_step_adds_to_the_history():
    _, history = train(on_step=lambda metrics: metrics.update(double=2 * metrics["loss"]))
    assert history.column("double").tolist() == (2 * history.column("loss")).tolist()


@pytest.mark.parametrize(("value", "shown"), [("0", False), ("1", True)])
def test_progress_bar(monkeypatch, capsys, value, shown):
    monkeypatch.setenv("MINIALIGN_PROGRESS", value)
    train(steps=2, title="a title")
    assert ("a title" in capsys.readouterr().err) == shown


def test_repeat_goes_on_where_the_history_ends(monkeypatch, capsys):
    monkeypatch.setenv("MINIALIGN_PROGRESS", "1")
    asked, seen = [], []

    def update(step):
        asked.append(step)
        return {"score": float(step)}

    history = History([{"score": -1.0}, {"score": -2.0}])
    result = repeat(
        update, 5, history, title="a title", show="score", on_step=lambda metrics: seen.append(dict(metrics))
    )
    assert result is history and asked == [2, 3, 4] and history.column("score").tolist() == [-1, -2, 2, 3, 4]
    assert seen == history[2:] and not history.interrupted
    shown = capsys.readouterr().err
    assert "a title" in shown and "score=4.000" in shown and "5/5" in shown


def test_repeat_stopped_in_an_update_keeps_the_steps_before(capsys):
    def update(step):
        if step == 3:
            raise KeyboardInterrupt
        return {"loss": 0.0}

    history = repeat(update, 5, History(), title="")
    assert history.interrupted and len(history) == 3
    assert "Stopped by you at step 3 of 5" in capsys.readouterr().out


def test_history_as_a_file():
    _, history = train(steps=3, on_step=lambda m: m.update(score=1.5) if m["step"] > 1 else None)
    again = History.from_json_lines(history.to_json_lines())
    assert again == history and isinstance(again, History)
    assert again.column("step").tolist() == [1, 2, 3] and again.column("score").tolist() == [1.5, 1.5]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(steps=0), "steps is 0: it must be at least 1"),
        (dict(learning_rate=0.0), "learning_rate is 0: it must be positive"),
        (dict(learning_rate=math.nan), "learning_rate is nan: it must be a finite number"),
        (dict(decay="exponential"), "decay is 'exponential': choose 'cosine' or 'linear'"),
    ],
)
def test_impossible_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**wrong)


# --- which examples, when ---


@given(st.lists(st.integers(1, 99), max_size=200), st.integers(1, 9), st.integers(0, 5))
def test_batches_hold_every_example_once(lengths, batch_size, seed):
    batches = bucketed_batches(lengths, batch_size, seed)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    assert batches == bucketed_batches(lengths, batch_size, seed)


def test_buckets_save_padding_and_stay_random():
    lengths = np.random.default_rng(0).integers(5, 100, 1000).tolist()

    def padding(batches):
        return sum(max(lengths[i] for i in batch) - lengths[j] for batch in batches for j in batch)

    order = np.random.default_rng(1).permutation(1000).tolist()
    shuffled = [order[i : i + 16] for i in range(0, 1000, 16)]
    batches = bucketed_batches(lengths, 16, 0)
    assert padding(batches) < 0.2 * padding(shuffled)
    longest = [max(lengths[i] for i in batch) for batch in bucketed_batches(lengths[:256], 16, 0)]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3, "no order of lengths over the epoch"
    neighbours = [{frozenset(batch) for batch in bucketed_batches(lengths, 16, seed)} for seed in (0, 1)]
    assert not neighbours[0] & neighbours[1]


def test_epochs_see_everything_once_each_and_can_be_entered_anywhere():
    lengths = [5, 9, 2, 7, 7, 1, 8]
    rows_at = epochs(lengths, 3, seed=0)
    steps = [rows_at(step) for step in range(9)]
    for epoch in range(3):
        assert sorted(i for rows in steps[3 * epoch : 3 * epoch + 3] for i in rows) == list(range(7))
    assert len({str(steps[i : i + 3]) for i in (0, 3, 6)}) > 1
    elsewhere = epochs(lengths, 3, seed=0)
    assert [elsewhere(step) for step in (8, 0, 4, 7)] == [steps[step] for step in (8, 0, 4, 7)]
    assert [epochs(lengths, 3, seed=1)(step) for step in range(9)] != steps


def test_no_data():
    with pytest.raises(ValueError, match="the data set is empty: there is nothing to train on"):
        epochs([], 4, 0)


# --- what a small change would spoil ---


def test_a_history_is_written_as_bytes_one_line_a_step():
    content = History([{"step": 1, "note": "ä"}, {"step": 2}]).to_json_lines()
    assert type(content) is bytes and content.count(b"\n") == 2 and content.endswith(b"}\n")


def test_an_interrupt_is_passed_on_where_half_a_run_is_of_no_use():
    history = History()
    assert stop_if_interrupted(history) is None
    history.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        stop_if_interrupted(history)


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan])
def test_a_norm_that_clips_everything_is_refused(wrong):
    with pytest.raises(ValueError, match="max_grad_norm is "):
        TrainingConfig(max_grad_norm=wrong)


def test_weights_that_are_a_part_of_others_are_not_apart():
    """Another parameter, at another address, in the same memory."""
    learner, part, other = (torch.nn.Linear(3, 4) for _ in range(3))
    part.weight = torch.nn.Parameter(learner.weight.detach()[1:])
    assert part.weight.data_ptr() != learner.weight.data_ptr()
    with pytest.raises(ValueError, match="the reference is the model that is trained, or shares its weights"):
        require_apart(learner, reward=other, reference=part)
    with pytest.raises(ValueError, match="the reference is the model that is trained"):
        require_apart(part, reference=learner)
    require_apart(learner, reference=other, reward=lambda x, y: 0.0)


class Line(torch.nn.Module):
    """One matrix."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3))


def test_a_state_is_saved_every_200_steps_unless_told(tmp_path):
    model, path, saved = Line(), tmp_path / "run.state", []

    def loss_fn(batch):
        return model.weight.square().sum(), {}

    def batches(step):
        saved.append(path.exists())
        return [batch_of([([1], [2])])]

    config = TrainingConfig(steps=202, warmup=0)
    history = fit(model, batches, loss_fn, config, resume_from=path)
    assert saved.index(True) == 200
    again = Line()
    resumed = fit(again, batches, lambda batch: (again.weight.square().sum(), {}), config, resume_from=path)
    assert len(saved) == 202 + 2 and resumed == history and same_parameters(again, model)


def test_a_state_with_weights_that_lie_across_memory(tmp_path):
    model, path = Line(), tmp_path / "run.state"
    model.weight = torch.nn.Parameter(torch.arange(6.0).view(3, 2).T)
    assert not model.weight.is_contiguous()
    config = TrainingConfig(steps=2, warmup=0)

    def loss_fn(batch):
        return model.weight.square().sum(), {}

    fit(model, lambda step: [batch_of([([1], [2])])], loss_fn, config, resume_from=path, save_every=2)
    trained = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    training.load_state(path, Optimizer(model, config))
    assert torch.equal(model.weight, trained)


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), ValueError("broken")])
def test_the_bar_is_told_every_step_and_closed_at_the_end(monkeypatch, end):
    """It decides itself when to draw: drawn at every step, it would be the slowest part of a small model."""
    told = []

    class Bar:
        def __init__(self, **options):
            told.append([options[name] for name in ("total", "initial", "desc", "unit")])

        def update(self):
            told.append("update")

        def set_postfix(self, shown, refresh=True):
            told.append((shown, refresh))

        def close(self):
            told.append("close")

    def update(step):
        if step == 2 and end is not None:
            raise end
        return {"loss": float(step)}

    monkeypatch.setattr(training, "tqdm", Bar)
    try:
        repeat(update, 3, History([{"loss": 7.0}]), title="a title")
    except ValueError as error:
        assert error is end
    steps = [["update", ({"loss": f"{step}.000"}, False)] for step in (1, 2)][: 2 if end is None else 1]
    assert told == [[3, 1, "a title", "step"], *sum(steps, []), "close"]


def test_a_log_is_its_rows():
    rows = load_history("base")
    assert type(rows) is History and rows.to_json_lines() == (DATA / "logs/base.jsonl").read_bytes()


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_a_run_that_is_all_warm_up_ends_at_its_peak(decay):
    config = TrainingConfig(steps=5, learning_rate=0.3, warmup=5, decay=decay)
    assert [learning_rate_at(step, config) for step in (4, 5)] == pytest.approx([0.3, 0.3])


def test_weight_decay_is_on_matrices_only_muons_too():
    def decays(muon):
        optimizers = Optimizer(lively_gpt(), TrainingConfig(weight_decay=0.3, muon=muon)).optimizers
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        return {(p.dim() >= 2, group["weight_decay"]) for group in groups for p in group["params"]}

    assert decays(False) == decays(True) == {(True, 0.3), (False, 0.0)}
