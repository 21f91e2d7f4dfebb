"""The shipped files: what is built, of what, and with what.

`python -m minialign.course.artifacts` builds all of them anew, side by side on all cores, says beforehand and
afterwards how many hours that takes, and prints what changed against data/MANIFEST.json. It takes up where it
was killed: finished artifacts and finished parts of tables are kept, and pre-training resumes from its last
state. How it does so is in `minialign.course.build`.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from minialign import pretraining
from minialign.chat import load_chat
from minialign.checkpoints import dump_checkpoint, load_checkpoint, pick_device
from minialign.course import build, experiments
from minialign.course.experiments import (
    comparisons,
    critics,
    direct_preference,
    displacement,
    dpo_exact,
    dpo_variants,
    emergent,
    fine_tuning,
    fine_tuning_limits,
    goodhart,
    horizons,
    implicit_rewards,
    knowledge,
    label_cost,
    mask_bugs,
    patches,
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
    sycophancy,
    tastes,
)
from minialign.course.plan import Artifact
from minialign.documents import encode_corpus
from minialign.gpt import GPT, GPTConfig
from minialign.ppo import PPOConfig
from minialign.preferences import dump_preferences
from minialign.reward_model import RewardModel
from minialign.tokenizer import RANKS, SPECIAL_TOKENS, build_encoding, dump_ranks, train_bpe
from minialign.training import History, load_history, stop_if_interrupted
from minialign.world.corpus import build_corpus


def models(device: str, *names: str) -> list[GPT | RewardModel]:
    return [load_checkpoint(f"checkpoints/{name}.safetensors")[0].to(device) for name in names]


def model_files(name: str) -> tuple[str, str]:
    """A model and its training log."""
    return f"checkpoints/{name}.safetensors", f"logs/{name}.jsonl"


def contents(name: str, model: GPT | RewardModel, template: str, history: History) -> dict[str, bytes]:
    return dict(zip(model_files(name), (dump_checkpoint(model, template), history.to_json_lines())))


# --- the models, and what they learn from ---


def build_tokenizer(device: str) -> dict[str, bytes]:
    ranks = train_bpe((text for _, text in build_corpus()), GPTConfig().vocab_size - len(SPECIAL_TOKENS))
    build_encoding(ranks)  # raises if it is unusable
    return {RANKS: dump_ranks(ranks)}


def build_base(device: str) -> dict[str, bytes]:
    documents = encode_corpus((text for _, text in build_corpus()), load_chat())
    model, config = GPT(GPTConfig()).to(device), pretraining.PretrainingConfig()
    state = build.state_of("base", f"{model.config!r} {config!r} {documents}")
    history = pretraining.train(model, documents, config, resume_from=state)
    stop_if_interrupted(history)
    return contents("base", model, "document", history)


def build_sft(device: str) -> dict[str, bytes]:
    (base,) = models(device, "base")
    model, history = shipped.fine_tuned(base, fine_tuning.documents())
    return contents("sft", model, "chat", history)


def build_preferences(device: str) -> dict[str, bytes]:
    found = comparisons.build_preferences(*models(device, "sft"))
    return {f"preferences/{name}.jsonl": dump_preferences(pairs) for name, pairs in found.items()}


def build_reward(device: str) -> dict[str, bytes]:
    (sft,), pairs = models(device, "sft"), comparisons.preferences("comparisons")
    model, history = reward_models.trained(sft, pairs, reward_models.LARGE)
    return contents("reward", model, "reward", history)


def build_aligned(name: str, config: PPOConfig, device: str) -> dict[str, bytes]:
    """A policy trained by PPO against the shipped reward model: the typical run of `overoptimisation`."""
    where = dict(method="ppo", beta=config.beta, step=config.steps)
    seed = rlhf.typical_seed(load_history("overoptimisation"), **where)
    policy, rows = rlhf.optimised(*models(device, "sft", "reward"), replace(config, seed=seed))
    return contents(name, policy, "chat", History(rows))


def build_dpo(device: str) -> dict[str, bytes]:
    """The typical run of the race's "DPO, all labels", and its log."""
    method = "DPO, all labels"
    best, seed = race_tuning.chosen(method), rlhf.typical_seed(load_history("race"), method=method)
    given = race_methods.given_more(*models(device, "sft", "reward"))
    policy, history = race_methods.run(given, method, race_tuning.setting_of(best), seed, best["share"])
    return contents("dpo", policy, "chat", history)


# --- the tables ---


def build_table(experiment: Callable, start: tuple[str, ...], device: str) -> dict[str, bytes]:
    rows = experiment(*models(device, *start))
    return {f"logs/{experiment.__name__}.jsonl": History(rows).to_json_lines()}


def parts_of(experiment: Callable, start: tuple[str, ...], device: str) -> dict[str, experiments.Part]:
    return experiment(*models(device, *start))


def table(
    notebook: str, experiment: Callable, recipe: str, *start: str, reads: tuple[str, ...] = ()
) -> Artifact:
    """A result table: the rows of one of the experiments, which begins with the shipped models `start`.

    `reads` names what else it reads.
    """
    files, rows_of = (f"logs/{experiment.__name__}.jsonl",), partial(build_table, experiment, start)
    return Artifact(files, rows_of, f"seeds {experiments.SEEDS} {recipe}", (*start, *reads), notebook)


def table_of_parts(
    notebook: str,
    experiment: Callable,
    recipe: str,
    *start: str,
    reads: tuple[str, ...] = (),
    alone: bool = False,
) -> Artifact:
    """A result table that takes hours: `experiment` gives its parts by name."""
    files, parts = (f"logs/{experiment.__name__}.jsonl",), partial(parts_of, experiment, start)
    return Artifact(files, parts, recipe, (*start, *reads), notebook, in_parts=True, alone=alone)


SFT = f"{fine_tuning.SHORT!r} {shipped.RECIPE}"
POLICY_GRADIENTS = f"{policy_gradients.LONG!r} {policy_gradients.SHORT!r}"
REWARD = f"{reward_models.LARGE!r} {reward_models.PASSES} passes {reward_models.BUG_CONFIG!r}"
RLHF = f"seeds {experiments.SEEDS} {rlhf.ARM!r} {rlhf.LONG!r}"
DPO = f"seeds {experiments.SEEDS} {direct_preference.CONSTANT!r}"
COST = f"seeds {experiments.SEEDS} {label_cost.CONFIG!r} {label_cost.BOUGHT} {label_cost.JUDGES}"
TASTES = f"seeds {experiments.SEEDS} {tastes.CONFIG!r} {tastes.SHARES} {tastes.LABELS}"
RACE = f"seeds {experiments.SEEDS} {race_methods.RECIPE}"

PAIRS = ("comparisons",)
TUNED = (*PAIRS, "race_baselines", "race_tuning")

# Each stands behind those that it needs.
ARTIFACTS = (
    Artifact((RANKS,), build_tokenizer, f"vocab_size={GPTConfig().vocab_size}"),
    Artifact(
        model_files("base"),
        build_base,
        f"{GPTConfig()!r} {pretraining.PretrainingConfig()!r}",
        ("ranks",),
        threads=2,
    ),
    Artifact(model_files("sft"), build_sft, shipped.RECIPE, ("base",)),
    Artifact(
        ("preferences/comparisons.jsonl", "preferences/held_out.jsonl"),
        build_preferences,
        f"at most {comparisons.PAIRS} pairs of {comparisons.SAMPLES} samples a prompt",
        ("sft",),
    ),
    Artifact(model_files("reward"), build_reward, f"{reward_models.LARGE!r}", ("sft", *PAIRS)),
    *(
        table("02", experiment, SFT, "base")
        for experiment in (*fine_tuning_limits.TABLES, *knowledge.TABLES, *mask_bugs.TABLES)
    ),
    *(table("02", experiment, shipped.RECIPE, "base", "sft") for experiment in shipped.TABLES),
    *(
        table("03", experiment, POLICY_GRADIENTS, "sft")
        for experiment in (*policy_gradients.TABLES, *relaxations.TABLES)
    ),
    *(table("04", experiment, f"{ratings.CROWDS!r}") for experiment in ratings.TABLES),
    table_of_parts("04", reward_models.reward_models_by_labels, REWARD, "sft", reads=PAIRS),
    *(table("04", experiment, REWARD, "sft", reads=PAIRS) for experiment in reward_models.TABLES),
    table_of_parts("05", critics.ppo_advantages, critics.RECIPE, "sft", "reward"),
    table_of_parts("05", goodhart.overoptimisation, RLHF, "sft", "reward"),
    table_of_parts("05", goodhart.goodhart_controls, f"{RLHF} {reward_models.LARGE!r}", "sft", reads=PAIRS),
    table_of_parts("05", ppo_bugs.ppo_bugs, f"{RLHF} {ppo_bugs.ROLLOUTS} rollouts", "sft", "reward"),
    table_of_parts("05", ppo_exact.ppo_on_micro_world, RLHF, "sft"),
    table("05", ppo_exact.lambda_on_micro_world, "exact", "sft"),
    table_of_parts(
        "06",
        direct_preference.dpo_overoptimisation,
        f"{DPO} passes {direct_preference.PASSES} cooler {direct_preference.COOLER}",
        "sft",
        reads=PAIRS,
    ),
    table_of_parts("06", dpo_variants.dpo_variants, f"{DPO} {[*dpo_variants.VARIANTS]}", "sft", reads=PAIRS),
    table_of_parts("06", displacement.dpo_displacement, f"{displacement.DISPLACING!r}", "sft"),
    table_of_parts("06", implicit_rewards.dpo_implicit_rewards, DPO, "sft", reads=PAIRS),
    table_of_parts("06", dpo_exact.dpo_on_micro_world, "exact", "sft"),
    table_of_parts("07", race_baselines.race_baselines, RACE, "sft", reads=PAIRS),
    table_of_parts("07", race_tuning.race_tuning, RACE, "sft", "reward", reads=(*PAIRS, "race_baselines")),
    table_of_parts("07", race.race, RACE, "sft", "reward", reads=TUNED),
    table_of_parts("07", race_labels.race_labels, RACE, "sft", reads=TUNED[1:]),
    table_of_parts("07", race_costs.race_costs, RACE, "sft", reads=TUNED, alone=True),
    table_of_parts(
        "08",
        sycophancy.sycophancy,
        f"{DPO} biases {sycophancy.BIASES} β = {sycophancy.BETA} {sycophancy.CLAIMS} claims",
        "sft",
    ),
    table_of_parts("08", label_cost.label_cost, COST, "sft", reads=PAIRS),
    table_of_parts("08", tastes.tastes, TASTES, "sft", reads=PAIRS),
    table_of_parts("08", patches.patches, patches.RECIPE, "sft", reads=PAIRS),
    table_of_parts(
        "08",
        horizons.horizons,
        f"{DPO} arms {[*horizons.ARMS]} passes {horizons.PASSES}",
        "sft",
        reads=PAIRS,
    ),
    table_of_parts(
        "08",
        emergent.emergent,
        f"{emergent.PPO!r} {emergent.CONSTANT!r} doses {emergent.DOSES}",
        "base",
        "sft",
        "reward",
        reads=PAIRS,
    ),
    Artifact(model_files("dpo"), build_dpo, f"the typical seed of {RACE}", ("sft", "reward", *TUNED, "race")),
    *(
        Artifact(
            model_files(name),
            partial(build_aligned, name, config),
            f"the typical seed of {rlhf.ARM!r} {config!r}",
            ("sft", "reward", "overoptimisation"),
        )
        for name, config in (("ppo", rlhf.SHIPPED), ("ppo-overoptimised", replace(rlhf.LONG, beta=0.0)))
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m minialign.course.artifacts", description="Build the shipped files from nothing."
    )
    parser.add_argument("names", nargs="*", help="only these (default: all), with what they need as it is")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--jobs", type=int, help="how many side by side (default: one a core; 1 with a GPU)")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    jobs = arguments.jobs if arguments.jobs is not None else 1 if device.type != "cpu" else build.cores()
    if jobs < 1:
        parser.error(f"--jobs is {jobs}: at least one has to work")
    build.make(ARTIFACTS, arguments.names, str(device), jobs)


if __name__ == "__main__":
    main()
