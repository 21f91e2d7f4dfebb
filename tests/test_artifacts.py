"""Files that can be trusted: whole or not at all, vouched for by MANIFEST.json, and rebuilt from where a kill
left off.
"""

import fcntl
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import steps
import torch
from engine import TINY, lively_gpt, same_parameters
from shipped_reads import names_read
from steps import said, step

import minialign
from minialign import pretraining
from minialign.checkpoints import dump_checkpoint, load
from minialign.course import artifacts, build
from minialign.course.artifacts import ARTIFACTS
from minialign.course.build import make, publish
from minialign.course.plan import Artifact, by_urgency, clock, forecast, hours, readable, startable
from minialign.files import MANIFEST, read_manifest, read_verified
from minialign.gpt import GPTConfig
from minialign.reward_model import RewardModel
from minialign.training import load_history

BASE = "checkpoints/base.safetensors"


# --- what is shipped ---

KNOWN = {artifact.name: artifact for artifact in ARTIFACTS}


def test_every_shipped_file_belongs_to_an_artifact():
    files = [file for artifact in ARTIFACTS for file in artifact.files]
    assert len(set(files)) == len(files) and read_manifest().keys() <= set(files)
    there = {path.relative_to(MANIFEST.parent).as_posix() for path in MANIFEST.parent.rglob("*.*")}
    assert {file for file in there if not file.startswith(("world/", "MANIFEST"))} == read_manifest().keys()


def test_every_artifact_is_shipped():
    assert [file for artifact in ARTIFACTS for file in artifact.files if file not in read_manifest()] == []


@pytest.mark.parametrize("name", read_manifest())
def test_shipped_files_are_the_recorded_ones(name):
    assert len(read_verified(name)) == read_manifest()[name]["bytes"]


@pytest.mark.parametrize("name", [file for file in read_manifest() if file.endswith(".safetensors")])
def test_shipped_models_answer(name):
    model = minialign.load(name.removeprefix("checkpoints/").removesuffix(".safetensors"), device="cpu")
    prompts = ["Explain the moon landing to a six-year-old in a few sentences.", "What is bread?"]
    if isinstance(model, RewardModel):
        scores = model.score(prompts, prompts)
        assert np.isfinite(scores).all() and scores == pytest.approx(
            [model.score(prompt, prompt) for prompt in prompts], abs=1e-4
        )
    else:
        answers = model.respond(prompts, max_new_tokens=24)
        assert all(answers) and answers == [model.respond(prompt, max_new_tokens=24) for prompt in prompts]
    assert load_history(name.removeprefix("checkpoints/").removesuffix(".safetensors")).column("loss")[-1] < 3


# --- what artifacts need ---


def test_each_artifact_stands_behind_those_that_it_needs():
    """So they form no circle."""
    assert len(KNOWN) == len(ARTIFACTS)
    for i, artifact in enumerate(ARTIFACTS):
        assert {*artifact.needs} <= {before.name for before in ARTIFACTS[:i]}, artifact.name


@pytest.mark.parametrize("artifact", ARTIFACTS, ids=lambda artifact: artifact.name)
def test_an_artifact_needs_what_its_code_reads(artifact):
    """The tokenizer apart, which comes with the base model."""
    start = {
        name for given in getattr(artifact.build, "args", ()) if isinstance(given, tuple) for name in given
    }
    read = names_read(artifact.build) | start
    assert read - {artifact.name} == {*artifact.needs} - {"ranks"}


def test_what_code_reads_is_found():
    assert names_read(KNOWN["race"].build) == {"comparisons", "race_baselines", "race_tuning"}
    assert names_read(KNOWN["ratings_or_comparisons"].build) == set()
    with pytest.raises(ValueError, match="load opens .*name.*: say which that is"):
        names_read(load)


def test_an_artifact_may_read_what_is_there_before_it():
    before = readable(KNOWN["ppo"], KNOWN)
    assert {"logs/overoptimisation.jsonl", "checkpoints/base.safetensors", artifacts.RANKS} <= before
    assert "logs/race.jsonl" not in before and "preferences/held_out.jsonl" in before


def test_what_is_not_needed_cannot_be_opened(tmp_path, capfd):
    with pytest.raises(
        SystemExit, match=r"^a failed: .*a reads data/checkpoints/base.safetensors: name what"
    ):
        make([step(steps.reads_the_base, tmp_path, "a")], ["a"], "cpu", 1)


# --- the plan ---


def stub(name, *needs, **options):
    return Artifact((f"{name}.bin",), dict, "", needs, **options)


def names_of(found):
    return [artifact.name for artifact in found]


def test_what_waits_for_nothing_starts():
    a, b, c = plan = stub("a"), stub("b", "a"), stub("c")
    assert names_of(startable(plan, [], 2)) == ["a", "c"] and names_of(startable(plan, [], 1)) == ["a"]
    assert names_of(startable([b], [a], 2)) == [] and names_of(startable([b, c], [a], 2)) == ["c"]
    assert names_of(startable([b], [c], 2)) == ["b"], "what is not built at all is taken as it is there"
    assert names_of(startable([b, c], [a, c], 2)) == []


def test_who_measures_seconds_is_alone():
    a, alone = stub("a"), stub("alone", alone=True)
    assert names_of(startable([alone, a], [], 2)) == ["a"] and startable([alone], [a], 2) == []
    assert names_of(startable([alone], [], 2)) == ["alone"] and startable([a], [alone], 2) == []


def test_two_threads_take_two_places():
    a, b, wide = stub("a"), stub("b"), stub("wide", threads=2)
    assert names_of(startable([wide, a], [], 2)) == ["wide"] and startable([b], [wide], 2) == []
    assert names_of(startable([wide, b], [a], 2)) == ["b"] and startable([wide], [a], 2) == []
    assert names_of(startable([wide, a], [], 3)) == ["wide", "a"]
    assert names_of(startable([wide], [], 1)) == ["wide"], "a machine of one core builds it, too"


@pytest.fixture
def timed(toy_data):
    """Six steps: a chain of 60, 10 and 3000 seconds, one of 1800, one of 3600, one that nobody has timed."""
    plan = [stub("a"), stub("b", "a"), stub("c", "b"), stub("d"), stub("e"), stub("new")]
    for name, seconds in {"a": 60, "b": 10, "c": 3000, "d": 1800, "e": 3600}.items():
        publish(f"{name}.bin", b"", "", seconds)
    return plan


def test_the_longest_chain_starts_first(timed):
    assert names_of(by_urgency(timed)) == ["e", "a", "b", "c", "d", "new"]


def test_without_any_times_the_chain_with_most_steps_is_the_longest(toy_data):
    assert names_of(by_urgency([stub("x"), stub("a"), stub("b", "a")])) == ["a", "x", "b"]


def test_the_forecast_is_the_plan_run_through(timed):
    """Two at a time: e beside a, b and c, then d, begun at 3070 s."""
    assert forecast(timed, 2).endswith(f"about {4870 / 3600:.2f} hours, and 1 of which no time is known")
    assert forecast(timed[:5], 1) == f"5 to build, 1 at a time: about {8470 / 3600:.2f} hours"
    wide = replace(timed[4], threads=2)
    assert clock([wide], 2) == 0.5 and clock([wide], 1) == 1, "its seconds are of work, shared by two threads"


def test_the_hours_are_told_by_notebook(toy_data):
    for name, seconds in {"a": 3600, "b": 1800, "c": 900}.items():
        publish(f"{name}.bin", b"", "", seconds)
    told = hours([stub("a", notebook="07"), stub("b"), stub("c", notebook="07")], 5400)
    assert told.splitlines() == [
        "07       1.25 hours",
        "models   0.50 hours",
        "in all   1.75 hours of work; 1.50 by the clock",
    ]


# --- the build ---


@pytest.fixture
def plan(toy_data, tmp_path):
    """Three steps, of which b needs a."""
    return [step(steps.makes, tmp_path, *names) for names in ("a", ("b", "a"), "c")]


def made(folder):
    return [line.split()[0] for line in said(folder) if line.endswith("ends")]


def test_a_build_records_and_reports(plan, tmp_path, capfd):
    make(plan, [], "cpu", 2)
    printed = capfd.readouterr().out
    assert sorted(made(tmp_path)) == ["a", "b", "c"]
    assert read_verified("b.bin") == b"bbb" and read_verified("logs/c.jsonl") == b"{}\n"
    assert printed.startswith("3 to build, 2 at a time") and "b: begins" in printed
    assert "in all" in printed and "seconds" in read_manifest()["a.bin"] and not build.WORK.exists()
    publish("a.bin", b"old", "a test", 0.0)
    capfd.readouterr()
    make(plan, ["b", "a"], "cpu", 1)
    printed = capfd.readouterr().out
    assert "a.bin: CHANGED, 3 bytes" in printed and "b.bin: unchanged" in printed and "c.bin" not in printed
    assert made(tmp_path)[3:] == ["a", "b"], "a finished build is not taken for an unfinished one"


def test_one_at_a_time_is_one_at_a_time_and_in_order(plan, tmp_path):
    make(plan, ["b", "a"], "cpu", 1)
    assert said(tmp_path) == ["a begins", "a ends", "b begins", "b ends"]


def test_two_run_side_by_side(toy_data, tmp_path):
    """Each ends only when the other is there."""
    make([step(steps.meets, tmp_path, name) for name in "ab"], [], "cpu", 2)
    assert sorted(made(tmp_path)) == ["a", "b"]


def test_a_process_has_one_thread_and_no_progress_bar(toy_data, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    make([step(steps.says_its_threads, tmp_path, "a")], [], "cpu", 1)
    assert said(tmp_path)[0] == "1 0 cpu" and os.environ["OMP_NUM_THREADS"] == "2"
    make([replace(step(steps.says_its_threads, tmp_path, "b"), threads=2)], [], "cpu", 1)
    assert f"{min(2, build.cores())} 0 cpu" in said(tmp_path)[1:]


def fail_once(plan, folder, name):
    (folder / f"{name} fails").touch()
    with pytest.raises(SystemExit, match=f"^{name} failed: ValueError: no luck; what is finished is kept"):
        make(plan, [], "cpu", 1)
    (folder / f"{name} fails").unlink()


def test_a_stopped_build_goes_on(plan, tmp_path, capfd):
    fail_once(plan, tmp_path, "c")
    make(plan, [], "cpu", 2)
    assert made(tmp_path) == ["a", "b", "c"]
    assert "a: finished before the last stop, kept" in capfd.readouterr().out


def test_a_changed_recipe_is_built_again_with_what_needs_it(plan, tmp_path):
    fail_once(plan, tmp_path, "c")
    plan[0] = step(steps.makes, tmp_path, "a", recipe="another")
    make(plan, [], "cpu", 1)
    assert made(tmp_path) == ["a", "b", "a", "b", "c"] and read_manifest()["a.bin"]["recipe"] == "another"


def test_what_needs_a_changed_recipe_stays_forgotten(plan, tmp_path):
    """Also when the build stops between the two."""
    fail_once(plan, tmp_path, "c")
    plan[0] = step(steps.makes, tmp_path, "a", recipe="another")
    fail_once(plan, tmp_path, "b")
    make(plan, [], "cpu", 1)
    assert made(tmp_path) == ["a", "b", "a", "b", "c"]


@pytest.mark.parametrize("file", ["a.bin", "logs/a.jsonl"])
def test_a_file_that_changed_since_is_built_again(plan, tmp_path, file):
    fail_once(plan, tmp_path, "c")
    publish(file, b"tampered", "a test", 0.0)
    make(plan, [], "cpu", 1)
    assert made(tmp_path) == ["a", "b", "a", "b", "c"] and read_verified("a.bin") == b"aaa"


def test_an_unknown_step(plan):
    with pytest.raises(SystemExit, match="there is no artifact 'd': choose from a, b, c"):
        make(plan, ["d"], "cpu", 1)


def test_a_need_that_is_not_there(plan, tmp_path):
    with pytest.raises(SystemExit, match="^b needs a, which is not there: build that, too"):
        make(plan, ["b", "c"], "cpu", 1)
    make(plan, ["a"], "cpu", 1)
    make(plan, ["b"], "cpu", 1)
    assert made(tmp_path) == ["a", "b"]


def test_a_failure_starts_nothing_and_the_others_end_their_part(toy_data, tmp_path, capfd):
    table = step(steps.many_parts, tmp_path, "table", in_parts=True)
    plan = [table, step(steps.fails_beside_parts, tmp_path, "bad"), step(steps.makes, tmp_path, "c")]
    with pytest.raises(SystemExit, match="^bad failed: ValueError: no luck; "):
        make(plan, [], "cpu", 2)
    printed = capfd.readouterr().out
    assert "table: stopped, its finished parts are kept" in printed and "c: begins" not in printed
    assert "table, part 1 of 200: part 0: begins" in printed
    assert 0 < len(said(tmp_path)) < 200
    (tmp_path / "fast").touch()
    make([table], [], "cpu", 1)
    assert said(tmp_path) == [f"part {i}" for i in range(200)], "none is left out, and none is done twice"
    rows = [json.loads(line) for line in read_verified("logs/table.jsonl").splitlines()]
    assert rows == [{"part": i} for i in range(200)]


def test_a_process_that_dies_is_a_failure(toy_data, tmp_path):
    with pytest.raises(SystemExit, match=r"^a failed: its process was killed \(exit code 3\)"):
        make([step(steps.dies, tmp_path, "a")], [], "cpu", 1)


def test_an_interrupt_ends_all_processes_and_keeps_what_is_finished(plan, tmp_path):
    def interrupt():
        steps.wait_for(tmp_path / "is running")
        steps.wait_for(build.WORK / "finished.json")
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    endless = step(steps.never_ends, tmp_path, "endless")
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SystemExit, match="^stopped by you: what is finished is kept"):
        make([endless, plan[0]], [], "cpu", 2)
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody holds it any more
    make(plan, [], "cpu", 1)
    assert made(tmp_path) == ["a", "b", "c"]


def test_no_process_outlives_a_killed_build(tmp_path):
    code = (
        "import pathlib, steps; from minialign.course.build import make; folder = pathlib.Path('.')\n"
        "make([steps.step(steps.never_ends, folder.resolve(), 'endless')], ['endless'], 'cpu', 1)"
    )
    paths = os.pathsep.join(map(str, (Path(__file__).parent, Path(build.__file__).parents[2])))
    build_of_it = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths}
    )
    steps.wait_for(tmp_path / "is running")
    build_of_it.kill()
    build_of_it.wait()
    with open(tmp_path / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # comes back when the process has let go of it


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], build.cores()), (["--jobs", "3"], 3), (["--device", "cpu", "ppo"], build.cores())],
)
def test_the_command(monkeypatch, arguments, expected):
    seen = []
    monkeypatch.setattr(sys, "argv", ["artifacts", "--device", "cpu", *arguments])
    monkeypatch.setattr(build, "make", lambda *given: seen.append(given))
    artifacts.main()
    assert seen == [(ARTIFACTS, ["ppo"] if "ppo" in arguments else [], "cpu", expected)]


def test_with_a_gpu_one_works(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["artifacts"])
    monkeypatch.setattr(artifacts, "pick_device", lambda device: torch.device("cuda"))
    monkeypatch.setattr(build, "make", lambda *given: seen.append(given))
    artifacts.main()
    assert seen == [(ARTIFACTS, [], "cuda", 1)]


def test_nobody_at_work(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["artifacts", "--device", "cpu", "--jobs", "0"])
    with pytest.raises(SystemExit):
        artifacts.main()
    assert "--jobs is 0: at least one has to work" in capsys.readouterr().err


# --- pre-training, which resumes ---


@pytest.fixture
def small_base(toy_data, monkeypatch):
    """build_base on a small corpus, with 6 steps and a state saved at every second one; small_base["kill"]
    kills it.
    """
    world = {"corpus": [("kind", "The moon is round. " * 2)] * 9, "kill": None}
    monkeypatch.setattr(artifacts, "build_corpus", lambda: world["corpus"])
    monkeypatch.setattr(artifacts, "GPTConfig", functools.partial(GPTConfig, **vars(TINY)))
    config = functools.partial(pretraining.PretrainingConfig, steps=6, batch_size=4)
    monkeypatch.setattr(pretraining, "PretrainingConfig", config)

    def on_step(metrics):
        if metrics["step"] == world["kill"]:
            raise RuntimeError("killed")

    monkeypatch.setattr(
        pretraining, "train", functools.partial(pretraining.train, on_step=on_step, save_every=2)
    )
    return world


def test_a_killed_training_run_ends_in_the_same_bytes(small_base):
    whole = artifacts.build_base("cpu")
    for state in build.WORK.glob("*.state"):
        state.unlink()
    small_base["kill"] = 5
    with pytest.raises(RuntimeError, match="killed"):
        artifacts.build_base("cpu")
    assert len(list(build.WORK.glob("*.state"))) == 1
    small_base["kill"] = 4  # not reached again: the run goes on after step 4
    assert artifacts.build_base("cpu") == whole


def test_a_state_of_another_corpus_is_not_taken_up(small_base):
    artifacts.build_base("cpu")
    small_base["corpus"] = [("kind", "Bees dance in the sun. " * 2)] * 9
    after = artifacts.build_base("cpu")
    for state in build.WORK.glob("*.state"):
        state.unlink()
    assert artifacts.build_base("cpu") == after


def test_an_interrupted_training_run_is_no_artifact(small_base, monkeypatch):
    def interrupt(metrics):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "train", functools.partial(pretraining.train, on_step=interrupt))
    with pytest.raises(KeyboardInterrupt):
        artifacts.build_base("cpu")


# --- a table in parts ---


def test_a_killed_table_keeps_its_finished_parts_and_another_start_begins_anew(toy_data):
    publish("checkpoints/start.safetensors", dump_checkpoint(lively_gpt(), "chat"), "a test", 0)
    made, killed = [], {"b": True}

    def rows_of(part, model):
        if killed.get(part):
            raise KeyboardInterrupt
        made.append(part)
        return [{"part": part, "first": float(next(model.parameters()).detach().flatten()[0])}]

    def experiment(model):
        return {part: functools.partial(rows_of, part, model) for part in "abc"}

    table = artifacts.table_of_parts("00", experiment, "recipe", "start")
    start = Artifact(("checkpoints/start.safetensors",), dict, "")

    def built():
        return build.built(table, "cpu", build.table_state(table, {"start": start}))

    with pytest.raises(KeyboardInterrupt):
        built()
    killed.clear()
    contents, seconds = built()
    rows = [json.loads(line) for line in contents["logs/experiment.jsonl"].splitlines()]
    assert made == ["a", "b", "c"] and [row["part"] for row in rows] == ["a", "b", "c"] and seconds > 0
    build.table_state(table, {"start": start}).unlink()
    killed["b"] = True
    with pytest.raises(KeyboardInterrupt):
        built()
    publish("checkpoints/start.safetensors", dump_checkpoint(lively_gpt(seed=1), "chat"), "a test", 0)
    killed.clear()
    again = [json.loads(line) for line in built()[0]["logs/experiment.jsonl"].splitlines()]
    assert (
        made == [*"abc", "a", *"abc"]
        and len({row["first"] for row in again}) == 1
        and again[0]["first"] != rows[0]["first"]
    )


def test_the_seconds_are_those_of_work_and_those_of_kept_parts_count(toy_data, tmp_path):
    sleeps = {"x": list, "y": lambda: time.sleep(1) or []}
    table = Artifact(("logs/t.jsonl",), lambda device: sleeps, "", in_parts=True)
    state = tmp_path / "t.state"
    state.write_text(json.dumps({"x": {"rows": [{"x": 1}], "seconds": 100.0}}))
    contents, seconds = build.built(table, "cpu", state)
    assert contents == {"logs/t.jsonl": b'{"x": 1}\n'} and 100 < seconds < 100.9


# --- reward models and preferences ---


def test_a_reward_model_comes_back_with_its_scale_and_the_shipped_reader(toy_data):
    start, sft_file, file = lively_gpt(), "checkpoints/sft.safetensors", "checkpoints/reward.safetensors"
    publish(sft_file, dump_checkpoint(start, "chat"), "a test", 0)
    model = RewardModel(start, seed=3, reads_surprise=True)
    with torch.no_grad():
        model.surprise_embedding.normal_(generator=torch.Generator().manual_seed(0))
        model.gain.fill_(2.0)
        model.bias.fill_(-1.0)
    content = dump_checkpoint(model, "reward")
    assert b"reader." not in content, "the reader is the shipped fine-tuned model: it is stored once"
    publish(file, content, "a test", 0)
    again = load("reward", device="cpu")
    assert (
        isinstance(again, RewardModel)
        and same_parameters(again, model)
        and not again.training
        and not again.reader.training
    )
    assert again.score("a", "b") == model.eval().score(["a"], ["b"])[0]


@pytest.mark.parametrize("likelihood", [False, True])
def test_a_reward_model_that_sees_tokens_only_needs_no_other_file(toy_data, likelihood):
    """The shipped fine-tuned model, whose copy a reader is, is not even looked for."""
    model = RewardModel(lively_gpt(), seed=3, likelihood=likelihood)
    publish("checkpoints/reward.safetensors", dump_checkpoint(model, "reward"), "a test", 0)
    again = load("reward", device="cpu")
    assert again.reader is None and same_parameters(again, model)
