"""A model may live on another device: what is made for it goes there, what is read of it comes back."""

import numpy as np
import pytest
import torch
from elsewhere import DEVICE, Elsewhere
from foreign import (
    ALGORITHMS,
    DEMONSTRATIONS,
    FOREIGN,
    PAIRS,
    PROMPTS,
    count_words,
    everything,
    speaker,
)

from minialign.best_of_n import best_of_n
from minialign.language_model import LanguageModel
from minialign.logprobs import negative_log_likelihood, token_kl
from minialign.preferences import batches_of_comparisons
from minialign.reward_model import RewardModel
from minialign.sampling import generate
from minialign.sft import SFTConfig, train


@pytest.fixture
def elsewhere(monkeypatch):
    class Generator(torch.Generator):
        def __new__(cls, device="cpu"):
            return super().__new__(cls)

    monkeypatch.setattr(torch, "Generator", Generator)
    return Elsewhere()


def test_elsewhere_is_another_device(elsewhere):
    """What a GPU would refuse is refused, what it would do is done."""
    with elsewhere:
        here, there = torch.arange(3.0), torch.ones(3, device=DEVICE)
        assert here.device.type == "cpu" and there.device == (there * 2)[1:].device == DEVICE
        for refused in (
            lambda: here + there,
            lambda: torch.where(there > 0, here, there),
            lambda: torch.cat([there, here]),
            lambda: here[there.long()],
            lambda: there.__setitem__(0, here[:1]),
        ):
            with pytest.raises(RuntimeError, match="tensors on two devices"):
                refused()
        for refused in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises(TypeError, match="elsewhere"):
                refused()
        assert (there[here.long()] + here.sum()).tolist() == [4.0, 4.0, 4.0]
        assert (there.cpu() + here + there.to("cpu")).tolist() == (here.to(DEVICE) + 2).tolist()
        assert there.cpu().device.type == "cpu" and here.to(DEVICE).device == DEVICE


def test_every_algorithm_trains_elsewhere(elsewhere):
    expected = everything(speaker())
    with elsewhere:
        found = everything(speaker().to(DEVICE))
        assert found.keys() == expected.keys() == ALGORITHMS
        for name, (model, history) in found.items():
            assert all(p.device == DEVICE for p in model.parameters()), name
            assert history[0] == pytest.approx(expected[name][1][0], rel=1e-4, abs=1e-5), name
            for p, q in zip(model.parameters(), expected[name][0].parameters()):
                assert torch.equal(p.cpu(), q)


def test_what_is_asked_of_a_model_elsewhere(elsewhere):
    def answers(model):
        asked, judge, batch = LanguageModel(model), RewardModel(model), FOREIGN.collate([("why", "it is")])
        prompts = [FOREIGN.encode_prompt(prompt) for prompt in PROMPTS]
        generated = generate(model, prompts, n=8, seed=3, ends=(FOREIGN.end, 20))
        comparisons = batches_of_comparisons(PAIRS, 2, 0, model)(0).to(model.device)
        return (
            generated.texts,
            generated.batch.ids.tolist(),
            asked.respond(PROMPTS, temperature=0),
            [
                *generated.log_probs.flatten().tolist(),
                asked.log_prob("why", "it is"),
                *judge.score(PROMPTS, ["no", "yes", "it is"]),
                *judge(comparisons.batch).tolist(),
                negative_log_likelihood(model, [([20], [21, 22])]),
                *token_kl(model, speaker(1).to(model.device), batch.to(model.device))[0],
                *best_of_n(model, PROMPTS, count_words, 4, max_new_tokens=6).rewards.ravel(),
            ],
        )

    expected = answers(speaker())
    with elsewhere:
        *texts, numbers = answers(speaker().to(DEVICE))
    assert texts == list(expected[:-1])
    assert numbers == pytest.approx(expected[-1], rel=1e-4, abs=1e-5)


def test_a_run_goes_on_elsewhere(elsewhere, tmp_path):
    def trained(model, path):
        for steps in (2, 4):
            history = train(model, DEMONSTRATIONS, SFTConfig(steps=steps), resume_from=path, save_every=2)
        return history.column("loss")

    expected = trained(speaker(), tmp_path / "here")
    with elsewhere:
        found = trained(speaker().to(DEVICE), tmp_path / "there")
    assert found == pytest.approx(expected, rel=1e-4)
