"""minialign's speed beside transformers': the same weights, prompts and batches, in one process.

`make benchmark` prints the table that the README shows. Ours and theirs take turns; a row gives the median of each, and the median
of the ratios of neighbouring turns with the smallest and the largest.
"""

import argparse
import platform
import statistics
import sys
import time
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from engine import gpt2, random_ids  # noqa: E402

from minialign.chat import Batch, special  # noqa: E402
from minialign.gpt import GPT, GPTConfig  # noqa: E402
from minialign.pretraining import pretraining_loss  # noqa: E402
from minialign.sampling import generate  # noqa: E402
from minialign.tokenizer import PAD  # noqa: E402
from minialign.training import Optimizer, TrainingConfig  # noqa: E402

PROMPTS, NEW_TOKENS = 32, 64
BATCH, WINDOW = 32, 128


def sampling():
    """(ours, theirs): each samples 64 new tokens after each of 32 prompts of 8 to 40 tokens, at temperature 1, never ending early."""
    model = GPT(GPTConfig()).eval()
    theirs, pad = gpt2(model), special(PAD)
    prompts = [random_ids(8 + i, seed=i).tolist() for i in range(PROMPTS)]
    width = max(map(len, prompts))
    ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
    options = dict(do_sample=True, top_k=0, use_cache=True, pad_token_id=pad)
    options |= dict(max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS)

    def run_ours():
        assert generate(model, prompts, max_new_tokens=NEW_TOKENS, end_token=None).batch.ids.shape[1] == width + NEW_TOKENS

    def run_theirs():
        assert theirs.generate(ids, attention_mask=(ids != pad).long(), **options).shape[1] == width + NEW_TOKENS

    return run_ours, run_theirs


def training_step():
    """(ours, theirs): loss, gradient, clipping and AdamW on 32 × 128 tokens, each with its own loss and its default optimizer."""
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


def seconds(run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def compare(ours, theirs, rounds: int, repeats: int):
    """The seconds of every turn: [(ours, theirs), ...], after one turn of each that does not count."""
    seconds(ours, repeats), seconds(theirs, repeats)
    return [(seconds(ours, repeats), seconds(theirs, repeats)) for _ in range(rounds)]


def row(name: str, unit: str, amount: float, pairs) -> str:
    ours, theirs = (amount / statistics.median(times) for times in zip(*pairs))
    ratios = [b / a for a, b in pairs]
    ratio = f"{statistics.median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"
    return f"| {name} | {ours:,.0f} {unit} | {theirs:,.0f} {unit} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of each (default: 9)")
    rounds = parser.parse_args().rounds
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    drawn = compare(*sampling(), rounds, 1)
    trained = compare(*training_step(), rounds, 4)
    tokens = BATCH * WINDOW
    print(f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}, {rounds} rounds\n")
    print("| what | minialign | transformers | ratio: median (min–max) |")
    print("|---|---|---|---|")
    print(row(f"sampling, {PROMPTS} prompts × {NEW_TOKENS} new tokens", "tokens/s", PROMPTS * NEW_TOKENS, drawn))
    print(row(f"training step, {BATCH} × {WINDOW} tokens", "tokens/s", tokens, trained))


if __name__ == "__main__":
    main()
