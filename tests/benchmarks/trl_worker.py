"""One of TRL's trainers, which makes a step whenever it is sent a line: speed.py's peer, in a process (and
for PPO an environment) of its own.

    python trl_worker.py reward|dpo|ppo FOLDER

FOLDER holds the models as transformers saves them, and what to train on: task.json.
"""

import json
import os
import sys
from pathlib import Path

import datasets
import transformers
import trl
from tokenizers import Tokenizer, models
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast


class Turns(transformers.TrainerCallback):
    """At the end of a step: say so, and wait until the next one is asked for. No more lines: the end."""

    def __init__(self, replies):
        self.replies = replies

    def on_step_end(self, *args, **kwargs):
        self.say("done")

    def say(self, word: str) -> None:
        print(word, file=self.replies, flush=True)
        if not sys.stdin.readline():
            sys.exit()


def every_step_on_all(task: dict) -> tuple[datasets.Dataset, dict]:
    """The data, and the options with which every step sees all pairs, as ours does."""
    pairs = task["pairs"]
    sizes = dict(
        per_device_train_batch_size=32, gradient_accumulation_steps=len(pairs) // 32, max_steps=task["steps"]
    )
    return datasets.Dataset.from_list(pairs * task["steps"]), sizes | dict(
        train_sampling_strategy="sequential"
    )


def reward_trainer(load, task: dict, options: dict, **others):
    from trl import RewardConfig, RewardTrainer

    data, order = every_step_on_all(task)
    return RewardTrainer(
        load(GPT2ForSequenceClassification, "reward"),
        RewardConfig(**options, **order),
        train_dataset=data,
        **others,
    )


def dpo_trainer(load, task: dict, options: dict, **others):
    from trl import DPOConfig, DPOTrainer

    class OnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset, *arguments):  # it is tokenized already
            return dataset

    data, order = every_step_on_all(task)
    args = DPOConfig(**options, **order, beta=task["beta"], precompute_ref_log_probs=True)
    return OnTokens(
        load(GPT2LMHeadModel, "policy"), load(GPT2LMHeadModel, "policy"), args, train_dataset=data, **others
    )


def ppo_trainer(load, task: dict, options: dict, **others):
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    prompts = task["prompts"]
    sizes = dict(
        per_device_train_batch_size=len(prompts),
        total_episodes=len(prompts) * task["steps"],
        num_sample_generations=0,
    )
    return PPOTrainer(
        PPOConfig(**options, **sizes, **task["config"]),
        model=load(GPT2LMHeadModel, "policy"),
        ref_model=load(GPT2LMHeadModel, "policy"),
        reward_model=load(GPT2ForSequenceClassification, "reward"),
        value_model=load(GPT2ForSequenceClassification, "value"),
        train_dataset=datasets.Dataset.from_list([{"input_ids": ids} for ids in prompts]),
        **others,
    )


def main(trainer: str, folder: Path) -> None:
    turns, sys.stdout = Turns(sys.stdout), open(os.devnull, "w")  # the trainers print to stdout, too
    transformers.logging.set_verbosity_error()
    for library in (datasets, transformers.logging):
        library.disable_progress_bar()
    task = json.loads((folder / "task.json").read_text("utf-8"))
    # a trainer wants a tokenizer, though it gets token ids
    words = {str(i): i for i in range(task["vocab_size"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words)),
        pad_token=str(task["pad"]),
        eos_token=str(task["end"]),
        padding_side="left",
    )
    options = dict(
        output_dir=folder / "output", learning_rate=task["learning_rate"], seed=0, disable_tqdm=True
    )
    options |= dict(
        use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", save_strategy="no"
    )

    def load(kind, name: str):
        return kind.from_pretrained(folder / name)

    make = {"reward": reward_trainer, "dpo": dpo_trainer, "ppo": ppo_trainer}[trainer]
    made = make(load, task, options, processing_class=tokenizer, callbacks=[turns])
    turns.say(trl.__version__)
    made.train()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
