"""Pre-training: the loss of the next token, and windows that cover the corpus."""

import numpy as np
import pytest
import torch
from engine import lively_gpt, random_ids, same_parameters

from minialign import pretraining
from minialign.chat import special
from minialign.gpt import GPT, GPTConfig
from minialign.pretraining import PretrainingConfig, encode_corpus, pretraining_loss, shifted, train
from minialign.tokenizer import END_OF_TEXT, load_tokenizer

SMALL = GPTConfig(vocab_size=16, context=32, n_layer=1, n_head=2, n_embd=32)


def config(**settings):
    defaults = dict(steps=80, batch_size=8, window=16, learning_rate=0.01, warmup=5)
    return PretrainingConfig(**(defaults | settings))


def test_loss_is_the_mean_surprise_at_the_next_token():
    model, ids = lively_gpt(), random_ids(2, 9)
    logits = model(ids[:, :-1]).detach()
    loss = pretraining_loss(logits, ids[:, 1:]).item()
    by_hand = [-logits[b, t].double().softmax(-1)[ids[b, t + 1]].log().item() for b in range(2) for t in range(8)]
    assert loss == pytest.approx(sum(by_hand) / 16, abs=1e-5)
    assert abs(pretraining_loss(logits, ids[:, :-1]).item() - loss) > 0.1  # no shift
    assert abs(sum(by_hand) / 2 - loss) > 0.1  # a sum over the tokens


def test_the_target_is_the_next_token():
    inputs, targets = shifted(torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]]))
    assert inputs.tolist() == [[3, 1, 4], [5, 9, 2]] and targets.tolist() == [[1, 4, 1], [9, 2, 6]]


def test_corpus_is_a_stream_of_separated_documents():
    stream = encode_corpus(["The moon.", "Bees <|endoftext|> dance."])
    assert (stream == special(END_OF_TEXT)).sum() == 2 and stream[0] == special(END_OF_TEXT)
    text = load_tokenizer().decode(stream.tolist())
    assert text == "<|endoftext|>The moon.<|endoftext|>Bees <|endoftext|> dance."


@pytest.fixture
def windows(monkeypatch):
    """windows(stream, config) -> batch_at, as `train` would hand it to `fit`."""
    monkeypatch.setattr(pretraining, "fit", lambda model, batch_at, *_, **__: lambda step: batch_at(step)[0].ids.numpy())
    return lambda stream, config: train(None, stream, config)


def test_an_epoch_visits_each_part_of_the_stream_once(windows):
    stream = np.arange(1000)
    ids_at = windows(stream, config())  # 62 windows: 7 batches of 8
    seen = {}
    for epoch in range(3):
        batches = [ids_at(step) for step in range(7 * epoch, 7 * epoch + 7)]
        assert all((np.diff(batch, axis=1) == 1).all() and batch.shape == (8, 17) for batch in batches)
        inputs = np.concatenate([batch[:, :-1].ravel() for batch in batches])
        assert len(set(inputs.tolist())) == len(inputs) == 7 * 8 * 16
        seen[epoch] = np.concatenate(batches)[:, 0]
    assert len({int(starts[0] % 16) for starts in seen.values()}) > 1, "other window borders in every epoch"
    assert not (np.diff(seen[0]) == 16).all(), "in a random order"


def test_a_batch_depends_on_seed_and_step_alone(windows):
    stream = np.arange(1000)
    one, same, other = (windows(stream, config(seed=seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(one(step), same(step)) for step in (13, 2, 0))
    assert not np.array_equal(one(2), other(2))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_shortest_stream_is_enough_in_every_epoch(windows, batch_size):
    ids_at = windows(np.arange(16 * batch_size + 1), config(batch_size=batch_size))
    assert all(len(ids_at(step)) == batch_size for step in range(20))


@pytest.mark.parametrize("tokens", [0, 128])
def test_too_short_a_stream(tokens):
    with pytest.raises(ValueError, match=f"the corpus has {tokens} tokens, one batch needs 129"):
        train(GPT(SMALL), np.arange(tokens), config())


def test_it_learns_what_can_be_predicted():
    model = GPT(SMALL)
    history = train(model, np.tile([3, 1, 4, 1, 5, 9, 2, 6], 200), config())
    assert history[0]["loss"] > 2.5 and history[-1]["loss"] < 0.05
    assert model(torch.tensor([[3, 1, 4, 1, 5, 9]])).argmax(-1)[0, 1:].tolist() == [4, 1, 5, 9, 2]


def test_it_does_not_learn_what_cannot():
    """Fair dice: a loss below ln 6 would mean that it sees the answer."""
    history = train(GPT(SMALL), np.random.default_rng(0).integers(0, 6, 20_000), config())
    assert history.column("loss")[-20:].mean() == pytest.approx(np.log(6), abs=0.02)


def test_same_seed_same_model():
    first, second, other = (GPT(SMALL) for _ in range(3))
    stream = random_ids(1000, vocab=16).numpy()
    for model, seed in [(first, 0), (second, 0), (other, 1)]:
        train(model, stream, config(steps=5, seed=seed))
    assert same_parameters(first, second) and not same_parameters(first, other)
