"""minialign alone and beside one busy process, with torch's own settings of its threads and with ours.

`make benchmark` prints the table that the README shows. A figure is the median over some rounds, in each of
which every setting runs once, in a process of its own: OpenMP reads its settings when torch is imported.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

WORK = {
    "32 answers, T = 1": 3,
    "a fine-tuning step": 15,
    "a DPO step": 6,
}  # what is timed, how often in a row
# Torch imported first finds OpenMP's defaults, and a number of threads that was asked for is used everywhere.
SETTINGS = {
    "torch's own": f"import os, torch; os.environ['OMP_NUM_THREADS'] = '{os.cpu_count()}'",
    "ours": "pass",
}


def work() -> None:
    """Prints the seconds of one turn of each kind of work."""
    import minialign
    from minialign import dpo, sft
    from minialign.preferences import read_preferences

    asked = minialign.load("sft", "cpu")
    policy = copy.deepcopy(asked.model)
    pairs = read_preferences("data/preferences/comparisons.jsonl")[:2000]
    demonstrations = [(pair.prompt, pair.chosen) for pair in pairs]
    prompts = ["Explain gravity to a six-year-old in a few sentences."] * 32
    answers, tuning, preferring = WORK.values()
    runs = (
        lambda: [asked.respond(prompts, temperature=1.0) for _ in range(answers)],
        lambda: sft.train(policy, demonstrations, sft.SFTConfig(steps=tuning)),
        lambda: dpo.train(policy, pairs[: 16 * preferring], dpo.DPOConfig(steps=preferring)),
    )
    for run in runs:  # the first time does not count
        run()
    for run, repeats in zip(runs, WORK.values()):
        start = time.perf_counter()
        run()
        print((time.perf_counter() - start) / repeats)


@contextmanager
def busy(wanted: bool):
    """Beside a process that does nothing but compute, or alone."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def seconds(first: str) -> list[float]:
    """What `work` takes in a process that runs the statement `first` before it imports minialign."""
    code = f"{first}\nimport sys; sys.path.insert(0, 'tests/benchmarks')\nfrom contention import work\nwork()"
    quiet = os.environ | {"MINIALIGN_PROGRESS": "0"}
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS"):
        quiet.pop(name, None)
    run = subprocess.run([sys.executable, "-c", code], env=quiet, capture_output=True, text=True, check=True)
    return [float(line) for line in run.stdout.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each setting (default: 5)")
    rounds = parser.parse_args().rounds
    cases = [(load, name) for load in (False, True) for name in SETTINGS]
    found = {case: [] for case in cases}
    for _ in range(rounds):
        for load, name in cases:
            with busy(load):
                found[load, name].append(seconds(SETTINGS[name]))
    print(
        "| seconds | "
        + " | ".join(f"{'beside a busy process' if b else 'alone'}: {n}" for b, n in cases)
        + " |"
    )
    print("|---" * (1 + len(cases)) + "|")
    for i, what in enumerate(WORK):
        print(f"| {what} | " + " | ".join(spread([run[i] for run in found[case]]) for case in cases) + " |")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}–{max(values):.3f})"


if __name__ == "__main__":
    main()
