"""What all tests share."""

import pytest
from hypothesis import settings

# The same examples in every run, and no deadline: on a busy machine a red test is a wrong result, never a
# slow one.
settings.register_profile("minialign", derandomize=True, deadline=None)
settings.load_profile("minialign")


def pytest_make_parametrize_id(val, argname):
    """Bytes are numbered, not spelled out: gzip writes the time into its own, and the processes that share
    the tests must find the same names in any second.
    """
    return argname if isinstance(val, bytes) else None


# --- the engine's fixtures (its helpers are in engine.py) ---


@pytest.fixture
def toy_data(tmp_path, monkeypatch):
    """A data folder of the test's own, with a tokenizer that knows bytes only: 261 tokens. The real one is
    not touched.
    """
    from minialign import files, tokenizer
    from minialign.course import build

    data = tmp_path / "data"
    for module in (files, build):
        monkeypatch.setattr(module, "DATA", data)
        monkeypatch.setattr(module, "MANIFEST", data / "MANIFEST.json")
    monkeypatch.setattr(build, "WORK", tmp_path / "build")
    tokenizer.load_tokenizer.cache_clear()
    ranks = {bytes([i]): i for i in range(256)}
    build.publish(tokenizer.RANKS, tokenizer.dump_ranks(ranks), "bytes", 0.0)
    yield data
    tokenizer.load_tokenizer.cache_clear()


# --- the course's fixtures ---


@pytest.fixture
def alt_texts(monkeypatch):
    """The alternative texts of the figures that are shown, instead of the figures."""
    from minialign.course import lesson

    found = []
    monkeypatch.setattr(lesson, "display", lambda thing, metadata: found.append(metadata["image/png"]["alt"]))
    return found
