"""Would the tests notice? One small fault at a time goes into a module of the engine: its tests must fail.

    OMP_NUM_THREADS=1 python -m tests.mutants [module ...]

Each mutant is a fork of this process, which has imported the libraries; the module is compiled from changed
text, and no file changes. Results stay in build/mutants/ as long as engine and tests do, so an interrupted
run goes on. A mutant that lives and is not in survivors.txt, with the reason above it, is an error, as is an
entry there that is caught or gone. (A tool of our own, because mutmut 3 leaves out decorated functions, class
bodies and deleted calls, and cosmic-ray starts a new Python, with all imports, for every mutant.)
"""

import gc
import hashlib
import importlib
import json
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path

from tests.mutants.faults import mutants

ROOT = Path(__file__).resolve().parents[2]
SURVIVORS = Path(__file__).with_name("survivors.txt")
EVERY = ("modes", "algorithms", "settings", "elsewhere")  # what holds of every algorithm
TESTS = {  # the quick ones of each module, cheapest first
    "config": ("config",),
    "masked": ("masked",),
    "advantages": ("advantages", "policy_gradient", "ppo"),
    "critic": ("critic", "masked", "ppo"),
    "logprobs": ("logprobs", "elsewhere"),
    "statistics": ("statistics",),
    "bootstrap": ("bootstrap",),
    "documents": ("documents",),
    "ensembles": ("ensembles",),
    "social_choice": ("social_choice",),
    "preferences": ("preferences", "reward_model", "elsewhere"),
    "sampling": ("sampling", "modes", "algorithms", "threads", "elsewhere"),
    "policy_gradient": ("policy_gradient", *EVERY),
    "sft": ("sft", *EVERY),
    "reward_model": ("reward_model", *EVERY),
    "labels": ("labels", "elsewhere"),
    "dpo": ("dpo", *EVERY),
    "muon": ("muon",),
    "training": ("training", *EVERY),
    "ppo": ("ppo", *EVERY),
}
LIBRARIES = (
    "datasets",
    "hypothesis.strategies",
    "pytest",
    "scipy.stats",
    "transformers",
    "trl.trainer.dpo_trainer",
)


class Mutated(SourceFileLoader):
    """Loads the module from the changed text; it is asked before all other finders."""

    def __init__(self, module: str, text: str):
        super().__init__(f"minialign.{module}", str(ROOT / f"minialign/{module}.py"))
        self.text = text

    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, name):
        return compile(self.text, self.path, "exec")


def passes(module: str, text: str, seconds: int) -> bool:
    """Whether the module's tests pass, in at most so many seconds of computing: a mutant may run for ever."""
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        sys.meta_path.insert(0, Mutated(module, text))
        # what caught a mutant before is tried first; of the settings, the module's own
        options = ["-x", "--failed-first", "-o", f"cache_dir={ROOT}/build/mutants/{module}"]
        options += ["-k", f"not test_settings or defaults or {'sft' if module == 'training' else module}"]
        files = [str(ROOT / f"tests/test_{name}.py") for name in TESTS[module]]
        os._exit(importlib.import_module("pytest").main([*options, *files]))
    return os.waitpid(child, 0)[1] == 0


def survivors(module: str) -> tuple[set[str], int]:
    """The names of the mutants that live, and how many there are in all."""
    original = (ROOT / f"minialign/{module}.py").read_bytes()
    texts = mutants(module, original)
    files = [
        Path(__file__),
        *sorted((ROOT / "minialign").glob("*.py")),
        *sorted((ROOT / "tests").glob("*.py")),
    ]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    log = ROOT / f"build/mutants/{module}-{state}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    lives = dict(map(json.loads, log.read_text("utf-8").splitlines()))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    if not passes(module, original.decode(), 600):
        sys.exit(f"The tests of {module} fail without a mutant: mend them first.")
    seconds = 20 + 5 * int(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)

    def run(name: str) -> None:
        lives[name] = passes(module, texts[name], seconds)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, lives[name]]) + "\n")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, texts.keys() - lives.keys()))
    return {name for name, alive in lives.items() if alive}, len(lives)


def main(modules: list[str]) -> int:
    for library in LIBRARIES:  # once, before all forks
        importlib.import_module(library)
    gc.freeze()  # pytest collects garbage at its end: not that of the libraries, for each mutant
    listed, wrong = set(SURVIVORS.read_text("utf-8").splitlines()), []
    for module in modules:
        alive, total = survivors(module)
        print(f"{module}: {total - len(alive)} of {total} mutants caught", flush=True)
        known = {line for line in listed if line.split(" ")[0].split(".")[0] == module}
        wrong += [f"lives: {name}" for name in sorted(alive - known)]
        wrong += [f"listed, but caught or gone: {name}" for name in sorted(known - alive)]
    print(*wrong, sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TESTS)))
