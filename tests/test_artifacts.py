"""Files that can be trusted: whole or not at all, vouched for by MANIFEST.json, and rebuilt from where a kill
left off.
"""

import functools
import json

import numpy as np
import pytest
import torch
from engine import TINY, lively_gpt, same_parameters

import minialign
from minialign import pretraining
from minialign.checkpoints import dump_checkpoint, load
from minialign.course import artifacts
from minialign.course.artifacts import Artifact, build, publish
from minialign.files import read_manifest, read_verified
from minialign.gpt import GPTConfig
from minialign.reward_model import RewardModel
from minialign.training import load_history

BASE = "checkpoints/base.safetensors"


def put(content, name=BASE):
    publish(name, content, "a test", 0.0)


# --- what is shipped ---


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


# --- the build ---


@pytest.fixture
def steps(toy_data, monkeypatch):
    """A build of three files; steps["made"] is what was built, steps["killed"] what to be killed in,
    steps["recipe"] b's recipe.
    """
    steps = {"made": [], "killed": None, "recipe": "b"}

    def make(name):
        def build(device):
            if steps["killed"] == name:
                raise KeyboardInterrupt
            steps["made"].append(name)
            return {f"{name}.bin": name.encode() * 3, f"logs/{name}.jsonl": b"{}\n"}

        return build

    def plan():
        recipes = {"a": "a", "b": steps["recipe"], "c": "c"}
        monkeypatch.setattr(
            artifacts, "ARTIFACTS", tuple(Artifact(f"{n}.bin", make(n), r) for n, r in recipes.items())
        )

    steps["plan"] = plan
    plan()
    return steps


CPU = torch.device("cpu")


def test_a_build_records_and_reports(steps, capsys):
    build([], CPU)
    assert (
        steps["made"] == ["a", "b", "c"]
        and read_verified("b.bin") == b"bbb"
        and read_verified("logs/c.jsonl") == b"{}\n"
    )
    put(b"old", "a.bin")
    capsys.readouterr()
    build(["a", "b"], CPU)
    printed = capsys.readouterr().out
    assert "a.bin: CHANGED, 3 bytes" in printed and "b.bin: unchanged" in printed and "c.bin" not in printed
    assert steps["made"] == ["a", "b", "c", "a", "b"], "a finished build is not taken for an unfinished one"


def test_a_killed_build_goes_on(steps, capsys):
    steps["killed"] = "c"
    with pytest.raises(KeyboardInterrupt):
        build([], CPU)
    steps["killed"] = None
    build([], CPU)
    assert (
        steps["made"] == ["a", "b", "c"]
        and "a: finished before the last stop, kept" in capsys.readouterr().out
    )


def test_a_changed_recipe_is_built_again(steps):
    steps["killed"] = "c"
    with pytest.raises(KeyboardInterrupt):
        build([], CPU)
    steps.update(killed=None, recipe="b, other")
    steps["plan"]()
    build([], CPU)
    assert steps["made"] == ["a", "b", "b", "c"] and read_manifest()["b.bin"]["recipe"] == "b, other"


def test_a_file_that_changed_since_is_built_again(steps):
    steps["killed"] = "c"
    with pytest.raises(KeyboardInterrupt):
        build([], CPU)
    steps["killed"] = None
    put(b"tampered", "a.bin")
    build([], CPU)
    assert steps["made"] == ["a", "b", "a", "c"] and read_verified("a.bin") == b"aaa"


def test_an_unknown_step(steps):
    with pytest.raises(SystemExit, match="there is no artifact 'd': choose from a, b, c"):
        build(["d"], CPU)


@pytest.fixture
def small_base(toy_data, monkeypatch):
    """build_base on a small corpus, with 6 steps and a state saved at every second one; small_base["kill"]
    kills it.
    """
    world = {"corpus": [("kind", "The moon is round. " * 2)] * 9, "kill": None}
    monkeypatch.setattr("minialign.world.corpus.build_corpus", lambda: world["corpus"])
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
    whole = artifacts.build_base(CPU)
    for state in artifacts.WORK.glob("*.state"):
        state.unlink()
    small_base["kill"] = 5
    with pytest.raises(RuntimeError, match="killed"):
        artifacts.build_base(CPU)
    assert len(list(artifacts.WORK.glob("*.state"))) == 1
    small_base["kill"] = 4  # not reached again: the run goes on after step 4
    assert artifacts.build_base(CPU) == whole


def test_a_state_of_another_corpus_is_not_taken_up(small_base):
    artifacts.build_base(CPU)
    small_base["corpus"] = [("kind", "Bees dance in the sun. " * 2)] * 9
    after = artifacts.build_base(CPU)
    for state in artifacts.WORK.glob("*.state"):
        state.unlink()
    assert artifacts.build_base(CPU) == after


def test_an_interrupted_training_run_is_no_artifact(small_base, monkeypatch):
    def interrupt(metrics):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretraining, "train", functools.partial(pretraining.train, on_step=interrupt))
    with pytest.raises(KeyboardInterrupt):
        build(["base"], CPU)
    assert BASE not in read_manifest()


# --- a table in parts ---


def test_a_killed_table_keeps_its_finished_parts_and_another_start_begins_anew(toy_data):
    start = "checkpoints/start.safetensors"
    publish(start, dump_checkpoint(lively_gpt(), "chat"), "a test", 0)
    made, killed = [], {"b": True}

    def rows_of(part, model):
        if killed.get(part):
            raise KeyboardInterrupt
        made.append(part)
        return [{"part": part, "first": float(next(model.parameters()).detach().flatten()[0])}]

    def experiment(model):
        return {part: functools.partial(rows_of, part, model) for part in "abc"}

    artifact = artifacts.table_of_parts(experiment, "recipe", "start")
    with pytest.raises(KeyboardInterrupt):
        artifact.build(CPU)
    killed.clear()
    rows = [json.loads(line) for line in artifact.build(CPU)["logs/experiment.jsonl"].splitlines()]
    assert made == ["a", "b", "c"] and [row["part"] for row in rows] == ["a", "b", "c"]
    killed["b"] = True
    with pytest.raises(KeyboardInterrupt):
        artifact.build(CPU)
    publish(start, dump_checkpoint(lively_gpt(seed=1), "chat"), "a test", 0)
    killed.clear()
    again = [json.loads(line) for line in artifact.build(CPU)["logs/experiment.jsonl"].splitlines()]
    assert (
        made == [*"abc", "a", *"abc"]
        and len({row["first"] for row in again}) == 1
        and again[0]["first"] != rows[0]["first"]
    )


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


def test_a_reward_model_that_sees_tokens_only_needs_no_other_file(toy_data):
    """The shipped fine-tuned model, whose copy a reader is, is not even looked for."""
    model = RewardModel(lively_gpt(), seed=3)
    publish("checkpoints/reward.safetensors", dump_checkpoint(model, "reward"), "a test", 0)
    again = load("reward", device="cpu")
    assert again.reader is None and same_parameters(again, model)
