"""minialign's speed beside transformers' and TRL's: the same weights, prompts and batches, in one run.

`make benchmark` prints the table that the README shows. Ours and theirs take turns; a row gives the median of
each, and the median of the ratios of neighbouring turns with the smallest and the largest. TRL's trainers run
in processes of their own (trl_worker.py), which wait while we run.
"""

import argparse
import copy
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import minialign  # before torch: it tells torch's threads how to wait

# isort: split
import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from engine import gpt2, random_ids  # noqa: E402

from minialign import dpo, ppo, reward_model  # noqa: E402
from minialign.chat import Batch, load_chat  # noqa: E402
from minialign.gpt import GPT, GPTConfig  # noqa: E402
from minialign.preferences import Preference  # noqa: E402
from minialign.pretraining import pretraining_loss  # noqa: E402
from minialign.sampling import generate  # noqa: E402
from minialign.tokenizer import load_tokenizer  # noqa: E402
from minialign.training import Optimizer, TrainingConfig  # noqa: E402
from minialign.world.prompts import sample_prompts  # noqa: E402

PROMPTS, NEW_TOKENS = 32, 64
BATCH, WINDOW = 32, 128
# of a PPO update: LENGTH is that of responses that never end, LIMIT of the others
RESPONSES, LENGTH, LIMIT = 64, 48, 96
LEARNING_RATE = 1e-5
WORKER = Path(__file__).with_name("trl_worker.py")
PPO_PYTHON = WORKER.parents[2] / "build/benchmark/ppo-venv/bin/python"


def sampling():
    """(ours, theirs): each samples 64 new tokens after each of 32 prompts of 8 to 40 tokens, at temperature
    1, never ending early.
    """
    model = GPT(GPTConfig()).eval()
    theirs, pad = gpt2(model), load_chat().pad
    prompts = [random_ids(8 + i, seed=i).tolist() for i in range(PROMPTS)]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    options = dict(do_sample=True, top_k=0, use_cache=True, pad_token_id=pad)
    options |= dict(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)

    def run_ours():
        assert (
            generate(model, prompts, max_new_tokens=NEW_TOKENS, ends=()).batch.ids.shape[1]
            == width + NEW_TOKENS
        )

    def run_theirs():
        assert (
            theirs.generate(ids, attention_mask=(ids != pad).long(), **options).shape[1] == width + NEW_TOKENS
        )

    return run_ours, run_theirs


def training_step():
    """(ours, theirs): loss, gradient, clipping and AdamW on 32 × 128 tokens, each with its own loss and its
    default optimizer.
    """
    model = GPT(GPTConfig())
    theirs = gpt2(model).train()
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-4)
    ids = random_ids(BATCH, WINDOW + 1, vocab=model.config.vocab_size)
    batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.ones_like(ids, dtype=torch.bool))
    optimizer = Optimizer(model.train(), TrainingConfig(learning_rate=1e-4, warmup=0))

    def loss_fn(batch):
        return pretraining_loss(model(batch.ids[:, :-1]), batch.ids[:, 1:]), {}

    def run_ours():
        optimizer.update([batch], loss_fn)

    def run_theirs():
        loss = theirs(input_ids=ids[:, :-1], labels=ids[:, :-1]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        adamw.step()
        adamw.zero_grad()
        loss.item()

    return run_ours, run_theirs


# --- against TRL's trainers ---


def words() -> list[int]:
    """Tokens that are a space and a word: any of them in a row become text, and the same tokens again."""
    encoding = load_tokenizer()
    return [
        i
        for i in range(load_chat().separator)
        if re.fullmatch(
            rb" "
            rb"[a-z]+",
            encoding.decode_single_token_bytes(i),
        )
    ]


def texts(n: int, shortest: int, longest: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [
        load_tokenizer().decode(rng.choice(words(), rng.integers(shortest, longest + 1)).tolist())
        for _ in range(n)
    ]


def scorer(trunk: GPT, weight: torch.Tensor):
    """A trunk with a linear head to one number, in transformers."""
    language_model = gpt2(trunk)
    config = copy.deepcopy(language_model.config)
    config.num_labels = 1
    theirs = transformers.GPT2ForSequenceClassification(config)
    theirs.transformer = language_model.transformer
    theirs.score.weight.data = weight.clone()
    return theirs


@contextmanager
def trl(trainer: str, python, models: dict, **task):
    """(its version, a function that lets it make one step) of a trainer of TRL's, which lives until the
    context ends.
    """
    config = GPTConfig()
    task |= dict(
        vocab_size=config.vocab_size, pad=load_chat().pad, end=load_chat().end, learning_rate=LEARNING_RATE
    )
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TQDM_DISABLE": "1",
    }
    environment.pop("GOMP_SPINCOUNT", None)  # ours: theirs waits as torch does
    with TemporaryDirectory() as folder:
        for name, model in models.items():
            model.save_pretrained(Path(folder, name))
        Path(folder, "task.json").write_text(json.dumps(task), "utf-8")
        command = [python, WORKER, trainer, folder]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with subprocess.Popen(command, env=environment, **pipes) as process:

            def reply() -> str:
                if not (line := process.stdout.readline()):
                    raise RuntimeError(f"TRL's {trainer} trainer ended before its time")
                return line.strip()

            def step() -> None:
                print(file=process.stdin, flush=True)
                assert reply() == "done"

            yield reply(), step


def all_pairs(prompts: int, responses: int) -> list[Preference]:
    """All responses to each prompt, compared in pairs."""
    answers = iter(texts(prompts * responses, 20, 60, seed=1))
    return [
        Preference(prompt, *two)
        for prompt in texts(prompts, 6, 16, seed=0)
        for two in itertools.combinations(itertools.islice(answers, responses), 2)
    ]


def reward_model_step(prompts: int, responses: int, rounds: int, repeats: int):
    """(TRL's version, pairs compared in a step, the seconds of every turn)."""
    model, pairs, steps = (
        reward_model.RewardModel(GPT(GPTConfig()), reads_surprise=False),
        all_pairs(prompts, responses),
        (rounds + 1) * repeats,
    )
    ids = [
        {
            f"{which}_ids": load_chat().encode_prompt(p.prompt)
            + load_chat().encode_response(getattr(p, which))
            for which in ("chosen", "rejected")
        }
        for p in pairs
    ]
    config = reward_model.RewardModelConfig(
        steps=steps, learning_rate=LEARNING_RATE, prompts_per_step=prompts
    )
    theirs = {"reward": scorer(model.trunk, model.head.weight)}
    with trl("reward", sys.executable, theirs, pairs=ids, steps=steps) as (version, step):
        return (
            version,
            len(pairs),
            between(partial(reward_model.train, model, pairs, config), step, rounds, repeats),
        )


def dpo_step(prompts: int, responses: int, rounds: int, repeats: int):
    """The same for DPO. Both compute the reference's log-probabilities once, before the first turn, which
    does not count.
    """
    policy, pairs, steps = GPT(GPTConfig()), all_pairs(prompts, responses), (rounds + 1) * repeats
    ids = [
        {"prompt_ids": load_chat().encode_prompt(p.prompt)}
        | {f"{which}_ids": load_chat().encode_response(getattr(p, which)) for which in ("chosen", "rejected")}
        for p in pairs
    ]
    config = dpo.DPOConfig(steps=steps, learning_rate=LEARNING_RATE, prompts_per_step=prompts)
    with trl("dpo", sys.executable, {"policy": gpt2(policy)}, pairs=ids, steps=steps, beta=config.beta) as (
        version,
        step,
    ):
        return version, len(pairs), between(partial(dpo.train, policy, pairs, config), step, rounds, repeats)


def endless_writer() -> GPT:
    """A policy whose responses have one length and stay the same tokens as text: nothing but words is ever
    drawn, and no end.
    """
    policy = GPT(GPTConfig())
    with torch.no_grad():
        policy.ln_f.weight[0], policy.ln_f.bias[0] = 0.0, 20.0
        policy.token_embedding.weight[:, 0] = -1.0
        policy.token_embedding.weight[words(), 0] = 0.0
    return policy


def ppo_updates(policy: GPT, prompts: list[str], length: int, rounds: int):
    """(TRL's version, tokens a response, the seconds of every turn with a critic of its own, the same with
    one on the policy's trunk).

    Responses end by themselves, or after `length` tokens.
    """
    judge, lengths = reward_model.RewardModel(policy, reads_surprise=False), []
    sizes = dict(
        prompts_per_step=len(prompts), samples_per_prompt=1, max_new_tokens=length, epochs=2, minibatches=2
    )
    config = ppo.PPOConfig(steps=rounds + 1, learning_rate=LEARNING_RATE, **sizes)
    same = dict(
        response_length=length, num_ppo_epochs=2, num_mini_batches=2, temperature=1.0, missing_eos_penalty=1.0
    )
    same |= dict(stop_token_id=load_chat().end)
    nothing = torch.zeros_like(judge.head.weight)
    theirs = {
        "policy": gpt2(policy),
        "reward": scorer(policy, judge.head.weight),
        "value": scorer(policy, nothing),
    }
    task = dict(
        prompts=[load_chat().encode_prompt(prompt) for prompt in prompts], config=same, steps=2 * (rounds + 1)
    )

    def ours(shared: bool, on_step: Callable) -> None:
        learner = copy.deepcopy(policy)
        critic = ppo.Critic(learner if shared else copy.deepcopy(policy))
        history = ppo.train(learner, prompts, judge.score, config, critic=critic, on_step=on_step)
        lengths.extend(history.column("response_length"))

    with trl("ppo", PPO_PYTHON, theirs, **task) as (version, step):
        both = [between(partial(ours, shared), step, rounds) for shared in (False, True)]
    return version, statistics.mean(lengths), *both


# --- the clock ---


def between(train: Callable, step: Callable, rounds: int, repeats: int = 1):
    """As `compare`, for a training loop of ours: after every `repeats` steps of it, as many of theirs."""
    pairs, start = [], time.perf_counter()

    def on_step(metrics: dict) -> None:
        nonlocal start
        if metrics["step"] % repeats == 0:
            ours = (time.perf_counter() - start) / repeats
            pairs.append((ours, seconds(step, repeats)))
            start = time.perf_counter()

    train(on_step=on_step)
    assert len(pairs) == rounds + 1
    return pairs[1:]


def seconds(run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def compare(ours, theirs, rounds: int, repeats: int):
    """The seconds of every turn: [(ours, theirs), ...], after one turn of each that does not count."""
    seconds(ours, repeats), seconds(theirs, repeats)
    return [(seconds(ours, repeats), seconds(theirs, repeats)) for _ in range(rounds)]


def row(name: str, peer: str, unit: str, amount: float, pairs) -> str:
    ours, theirs = (amount / statistics.median(times) for times in zip(*pairs))
    ratios = [b / a for a, b in pairs]
    ratio = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
    return f"| {name} | {peer} | {ours:,.0f} {unit} | {theirs:,.0f} {unit} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    rounds = parser.parse_args().rounds
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    os.environ["MINIALIGN_PROGRESS"] = "0"
    torch.manual_seed(0)
    library = f"transformers {transformers.__version__}"
    print(
        f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {rounds} "
        "rounds\n"
    )
    print("| what | peer | minialign | peer's | ratio: median (min–max) |")
    print("|---|---|---|---|---|", flush=True)

    drawn = compare(*sampling(), rounds, 1)
    print(
        row(
            f"sampling, {PROMPTS} prompts × {NEW_TOKENS} new tokens (ours with one thread)",
            library,
            "tokens/s",
            PROMPTS * NEW_TOKENS,
            drawn,
        ),
        flush=True,
    )
    trained = compare(*training_step(), rounds, 4)
    print(
        row(f"training step, {BATCH} × {WINDOW} tokens", library, "tokens/s", BATCH * WINDOW, trained),
        flush=True,
    )

    for name, trainer, step in (
        ("reward-model", "RewardTrainer", reward_model_step),
        ("DPO", "DPOTrainer", dpo_step),
    ):
        version, n, times = step(32, 2, rounds, 4)
        what = f"{name} step, {n} pairs of different prompts"
        print(row(what, f"TRL {version} `{trainer}`", "pairs/s", n, times), flush=True)
        version, n, times = step(8, 8, rounds, 1)
        what = f"{name} step, all {n} pairs of 8 prompts × 8 responses (ours reads each response once)"
        print(row(what, f"TRL {version} `{trainer}`", "pairs/s", n, times), flush=True)

    of_the_course = minialign.load("sft", "cpu").model, [p.text for p in sample_prompts("policy", RESPONSES)]
    for who, policy, prompts, limit in (
        ("the course's model", *of_the_course, LIMIT),
        ("a model that never ends", endless_writer(), texts(RESPONSES, 6, 16, seed=0), LENGTH),
    ):
        version, length, *both = ppo_updates(policy, prompts, limit, rounds)
        what = f"{RESPONSES} responses of {who} ({length:.0f} tokens, {limit} at most), a critic of its own"
        for name, times in zip((what, "the same, our critic on the policy's trunk"), both):
            name = f"PPO update, {name}"
            print(row(name, f"TRL {version} `PPOTrainer`", "responses/s", RESPONSES, times), flush=True)


if __name__ == "__main__":
    main()
