"""The shipped files: how each is built.

`python -m minialign.course.artifacts` builds all of them anew, in order, and prints what changed against
data/MANIFEST.json. It takes up where it was killed: finished artifacts are remembered, and the long training
run inside one resumes from its last state.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minialign import pretraining
from minialign.chat import load_chat
from minialign.checkpoints import dump_checkpoint, load_checkpoint, pick_device
from minialign.course import experiments
from minialign.course.experiments import (
    comparisons,
    critics,
    direct_preference,
    displacement,
    dpo_exact,
    dpo_variants,
    fine_tuning,
    fine_tuning_limits,
    goodhart,
    implicit_rewards,
    knowledge,
    mask_bugs,
    policy_gradients,
    ppo_bugs,
    ppo_exact,
    race,
    race_baselines,
    race_costs,
    race_labels,
    race_methods,
    race_tuning,
    ratings,
    relaxations,
    reward_models,
    rlhf,
    shipped,
)
from minialign.documents import encode_corpus
from minialign.files import DATA, MANIFEST, read_manifest, write_atomically
from minialign.gpt import GPT, GPTConfig
from minialign.preferences import dump_preferences
from minialign.tokenizer import RANKS, SPECIAL_TOKENS, build_encoding, dump_ranks, load_tokenizer, train_bpe
from minialign.training import History, load_history, stop_if_interrupted

WORK = DATA.parent / "build" / "artifacts"  # what a killed build left behind


@dataclass(frozen=True)
class Artifact:
    """One step of the build: `build(device)` returns the contents of files under data/, `file` the first."""

    file: str
    build: Callable[[torch.device], dict[str, bytes]]
    recipe: str  # what it is made with; a changed recipe is a reason to build again


def build_tokenizer(device) -> dict[str, bytes]:
    from minialign.world.corpus import build_corpus

    ranks = train_bpe((text for _, text in build_corpus()), GPTConfig().vocab_size - len(SPECIAL_TOKENS))
    build_encoding(ranks)  # raises if it is unusable
    return {RANKS: dump_ranks(ranks)}


def build_base(device) -> dict[str, bytes]:
    from minialign.world.corpus import build_corpus

    documents = encode_corpus((text for _, text in build_corpus()), load_chat())
    model, config = GPT(GPTConfig()).to(device), pretraining.PretrainingConfig()
    run = hashlib.sha256(f"{model.config!r} {config!r} {documents}".encode()).hexdigest()[:12]
    state = WORK / f"base-{run}.state"  # never another run's
    history = pretraining.train(model, documents, config, resume_from=state)
    stop_if_interrupted(history)
    return {
        "checkpoints/base.safetensors": dump_checkpoint(model, "document"),
        "logs/base.jsonl": history.to_json_lines(),
    }


def build_sft(device) -> dict[str, bytes]:
    base = load_checkpoint("checkpoints/base.safetensors")[0].to(device)
    model, history = shipped.fine_tuned(base, fine_tuning.documents())
    return {
        "checkpoints/sft.safetensors": dump_checkpoint(model, "chat"),
        "logs/sft.jsonl": history.to_json_lines(),
    }


def build_preferences(device) -> dict[str, bytes]:
    sft, _ = load_checkpoint("checkpoints/sft.safetensors")
    found = comparisons.build_preferences(sft.to(device))
    return {f"preferences/{name}.jsonl": dump_preferences(pairs) for name, pairs in found.items()}


def build_reward(device) -> dict[str, bytes]:
    sft = load_checkpoint("checkpoints/sft.safetensors")[0].to(device)
    pairs = comparisons.preferences("comparisons")
    model, history = reward_models.trained(sft, pairs, reward_models.LARGE)
    return {
        "checkpoints/reward.safetensors": dump_checkpoint(model, "reward"),
        "logs/reward.jsonl": history.to_json_lines(),
    }


def aligned(name: str, beta: float) -> Artifact:
    """A policy trained by PPO against the shipped reward model: the typical run of `overoptimisation`."""
    file = f"checkpoints/{name}.safetensors"

    def build_aligned(device) -> dict[str, bytes]:
        sft, reward = (
            load_checkpoint(f"checkpoints/{start}.safetensors")[0].to(device) for start in ("sft", "reward")
        )
        seed = rlhf.typical_seed(load_history("overoptimisation"), method="ppo", beta=beta)
        policy, rows = rlhf.optimised(sft, reward, replace(rlhf.LONG, beta=beta, seed=seed))
        return {
            file: dump_checkpoint(policy, "chat"),
            f"logs/{name}.jsonl": History(rows).to_json_lines(),
        }

    return Artifact(file, build_aligned, f"the typical seed, beta={beta} {RLHF}")


def build_dpo(device) -> dict[str, bytes]:
    """The typical run of the race's "DPO, all labels", and its log."""
    sft, reward = (
        load_checkpoint(f"checkpoints/{start}.safetensors")[0].to(device) for start in ("sft", "reward")
    )
    method = "DPO, all labels"
    best, seed = race_tuning.chosen(method), rlhf.typical_seed(load_history("race"), method=method)
    given = race_methods.given_more(sft, reward)
    policy, history = race_methods.run(given, method, race_tuning.setting_of(best), seed, best["share"])
    return {
        "checkpoints/dpo.safetensors": dump_checkpoint(policy, "chat"),
        "logs/dpo.jsonl": history.to_json_lines(),
    }


def table(experiment: Callable, recipe: str, *start: str) -> Artifact:
    """A result table: the rows of one of the experiments, which begins with the shipped models `start`."""

    def build_table(device) -> dict[str, bytes]:
        models = [load_checkpoint(f"checkpoints/{name}.safetensors")[0].to(device) for name in start]
        return {f"logs/{experiment.__name__}.jsonl": History(experiment(*models)).to_json_lines()}

    return Artifact(f"logs/{experiment.__name__}.jsonl", build_table, f"seeds {experiments.SEEDS} {recipe}")


def table_of_parts(experiment: Callable, recipe: str, *start: str) -> Artifact:
    """A result table that takes hours: `experiment` gives its parts by name.

    The rows of finished parts are kept when the build is killed.
    """
    name = experiment.__name__

    def build_table(device) -> dict[str, bytes]:
        models = [load_checkpoint(f"checkpoints/{model}.safetensors")[0].to(device) for model in start]
        digests = [digest_of(f"checkpoints/{model}.safetensors") for model in start]
        run = hashlib.sha256(json.dumps([recipe, *digests]).encode()).hexdigest()
        kept = WORK / f"{name}-{run[:12]}.state"
        finished = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        parts = experiment(*models)
        for i, (part, rows_of) in enumerate(parts.items(), 1):
            if part not in finished:
                print(f"{name}, part {i} of {len(parts)}: {part}", flush=True)
                finished[part] = rows_of()
                write_atomically(kept, json.dumps(finished).encode())
        rows = [row for part in parts for row in finished[part]]
        kept.unlink(missing_ok=True)
        return {f"logs/{name}.jsonl": History(rows).to_json_lines()}

    return Artifact(f"logs/{name}.jsonl", build_table, recipe)


DPO = f"seeds {experiments.SEEDS} {direct_preference.CONSTANT!r}"
RACE = f"seeds {experiments.SEEDS} {race_methods.RECIPE}"
RLHF = f"seeds {experiments.SEEDS} {rlhf.ARM!r} {rlhf.LONG!r}"

ARTIFACTS = (
    Artifact(RANKS, build_tokenizer, f"vocab_size={GPTConfig().vocab_size}"),
    Artifact(
        "checkpoints/base.safetensors", build_base, f"{GPTConfig()!r} {pretraining.PretrainingConfig()!r}"
    ),
    Artifact("checkpoints/sft.safetensors", build_sft, shipped.RECIPE),
    *(
        table(experiment, f"{fine_tuning.SHORT!r} {shipped.RECIPE}", "base")
        for experiment in (*fine_tuning_limits.TABLES, *knowledge.TABLES, *mask_bugs.TABLES)
    ),
    *(table(experiment, shipped.RECIPE, "base", "sft") for experiment in shipped.TABLES),
    *(
        table(experiment, f"{policy_gradients.LONG!r} {policy_gradients.SHORT!r}", "sft")
        for experiment in (*policy_gradients.TABLES, *relaxations.TABLES)
    ),
    *(table(experiment, f"{ratings.CROWDS!r}") for experiment in ratings.TABLES),
    Artifact(
        "preferences/comparisons.jsonl",
        build_preferences,
        f"at most {comparisons.PAIRS} pairs of {comparisons.SAMPLES} samples a prompt",
    ),
    Artifact("checkpoints/reward.safetensors", build_reward, f"{reward_models.LARGE!r}"),
    *(
        table(experiment, f"{reward_models.LARGE!r} {reward_models.BUG_CONFIG!r}", "sft")
        for experiment in reward_models.TABLES
    ),
    table_of_parts(critics.ppo_advantages, critics.RECIPE, "sft", "reward"),
    table_of_parts(goodhart.overoptimisation, RLHF, "sft", "reward"),
    table_of_parts(goodhart.goodhart_controls, f"{RLHF} {reward_models.LARGE!r}", "sft"),
    table_of_parts(ppo_bugs.ppo_bugs, RLHF, "sft", "reward"),
    table_of_parts(ppo_exact.ppo_on_micro_world, RLHF, "sft"),
    table(ppo_exact.lambda_on_micro_world, "exact", "sft"),
    table_of_parts(direct_preference.dpo_overoptimisation, f"{DPO} passes {direct_preference.PASSES}", "sft"),
    table_of_parts(dpo_variants.dpo_variants, f"{DPO} {[*dpo_variants.VARIANTS]}", "sft"),
    table_of_parts(displacement.dpo_displacement, f"{displacement.DISPLACING!r}", "sft"),
    table_of_parts(implicit_rewards.dpo_implicit_rewards, DPO, "sft"),
    table_of_parts(dpo_exact.dpo_on_micro_world, "exact", "sft"),
    table_of_parts(race_baselines.race_baselines, RACE, "sft"),
    table_of_parts(race_tuning.race_tuning, RACE, "sft", "reward"),
    table_of_parts(race.race, RACE, "sft", "reward"),
    table_of_parts(race_labels.race_labels, RACE, "sft"),
    table_of_parts(race_costs.race_costs, RACE, "sft"),
    Artifact("checkpoints/dpo.safetensors", build_dpo, f"the typical seed of {RACE}"),
    aligned("ppo", rlhf.SHIPPED_BETA),
    aligned("ppo-overoptimised", 0.0),
)


def build(names: list[str], device: torch.device) -> None:
    """Build the named artifacts (all, if none is named) and record them in MANIFEST.json."""
    known = {Path(a.file).stem: a for a in ARTIFACTS}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"there is no artifact {unknown[0]!r}: choose from {', '.join(known)}")
    finished = WORK / "finished.json"
    everything = not names  # only a build of everything is remembered when it is stopped
    done = json.loads(finished.read_text("utf-8")) if everything and finished.exists() else {}
    for name in names or known:
        artifact = known[name]
        if done.get(name) == [artifact.recipe, digest_of(artifact.file)]:
            print(f"{name}: finished before the last stop, kept", flush=True)
            continue
        start = time.perf_counter()
        files = artifact.build(device)
        seconds = time.perf_counter() - start
        for file, content in files.items():
            publish(file, content, artifact.recipe, seconds)
        done[name] = [artifact.recipe, digest_of(artifact.file)]
        if everything:
            write_atomically(finished, json.dumps(done).encode())
    if everything:  # it has come to its end: the next one begins from nothing
        finished.unlink(missing_ok=True)
        for state in WORK.glob("*.state"):
            state.unlink()


def digest_of(file: str) -> str | None:
    """SHA-256 of data/`file`, None if there is none."""
    return hashlib.sha256((DATA / file).read_bytes()).hexdigest() if (DATA / file).exists() else None


def publish(file: str, content: bytes, recipe: str, seconds: float) -> None:
    """Write one file under data/ and its line in MANIFEST.json, and say what changed."""
    manifest = read_manifest()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "recipe": recipe}
    old = manifest.get(file)
    verdict = "new" if old is None else "unchanged" if old["sha256"] == entry["sha256"] else "CHANGED"
    print(f"{file}: {verdict}, {len(content):,} bytes, {seconds:.0f} s", flush=True)
    write_atomically(DATA / file, content)
    manifest[file] = entry
    write_atomically(MANIFEST, (json.dumps(dict(sorted(manifest.items())), indent=1) + "\n").encode())
    load_tokenizer.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minialign.course.artifacts", description="Build the shipped files from nothing."
    )
    parser.add_argument("names", nargs="*", help="only these (default: all, in order)")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    arguments = parser.parse_args()
    build(arguments.names, pick_device(arguments.device))


if __name__ == "__main__":
    main()
