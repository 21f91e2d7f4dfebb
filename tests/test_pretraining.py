"""Pre-training: the loss of the next token, over batches of whole documents."""

import numpy as np
import pytest
import torch
from engine import lively_gpt, random_ids, same_parameters

from minialign import pretraining
from minialign.documents import document_loss
from minialign.gpt import GPT, GPTConfig
from minialign.pretraining import PretrainingConfig, pretraining_loss, shifted, train

SMALL = GPTConfig(vocab_size=16, context=32, n_layer=1, n_head=2, n_embd=32)


def config(**settings):
    defaults = dict(steps=80, batch_size=8, learning_rate=0.01, warmup=5)
    return PretrainingConfig(**(defaults | settings))


def test_loss_is_the_mean_surprise_at_the_next_token():
    model, ids = lively_gpt(), random_ids(2, 9)
    logits = model(ids[:, :-1]).detach()
    loss = pretraining_loss(logits, ids[:, 1:]).item()
    by_hand = [
        -logits[b, t].double().softmax(-1)[ids[b, t + 1]].log().item() for b in range(2) for t in range(8)
    ]
    assert loss == pytest.approx(sum(by_hand) / 16, abs=1e-5)
    assert abs(pretraining_loss(logits, ids[:, :-1]).item() - loss) > 0.1  # no shift
    assert abs(sum(by_hand) / 2 - loss) > 0.1  # a sum over the tokens


def test_the_target_is_the_next_token():
    inputs, targets = shifted(torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]]))
    assert inputs.tolist() == [[3, 1, 4], [5, 9, 2]] and targets.tolist() == [[1, 4, 1], [9, 2, 6]]


def numbered(n: int) -> list[list[int]]:
    """n documents of 3 to 9 tokens; each begins with its number."""
    return [[i, *[1] * (2 + i % 7)] for i in range(n)]


@pytest.fixture
def batches(monkeypatch):
    """batches(documents, config) -> batch_at, as `train` would hand it to `fit`."""
    monkeypatch.setattr(pretraining, "fit", lambda model, batch_at, *_, **__: lambda step: batch_at(step)[0])
    return lambda documents, config: train(GPT(SMALL), documents, config)


def test_an_epoch_reads_each_document_once(batches):
    documents = numbered(100)
    batch_at = batches(documents, config())  # 13 batches of 8 or fewer
    orders = []
    for epoch in range(2):
        read = [batch_at(step) for step in range(13 * epoch, 13 * epoch + 13)]
        rows = [row[mask].tolist() for batch in read for row, mask in zip(batch.ids, batch.mask)]
        assert sorted(rows) == documents
        orders.append(rows)
    assert orders[0] != orders[1] and orders[0] != documents, "in a random order, another one each epoch"


def test_a_batch_depends_on_seed_and_step_alone(batches):
    one, same, other = (batches(numbered(100), config(seed=seed)) for seed in (0, 0, 1))
    assert all(torch.equal(one(step).ids, same(step).ids) for step in (13, 2, 0))
    assert one(2).ids.tolist() != other(2).ids.tolist()


def test_an_empty_corpus():
    with pytest.raises(ValueError, match="the data set is empty"):
        train(GPT(SMALL), [], config())


def test_a_document_longer_than_the_context():
    with pytest.raises(
        ValueError, match="^document 0 has 33 tokens, the model.s context holds 32: shorten it$"
    ):
        train(GPT(SMALL), [[1] * 33], config())


def test_padding_counts_for_nothing(toy_data, monkeypatch):
    """The loss of a ragged batch is the mean over its real targets, each document read alone; replay and
    PPO-ptx have the same.
    """
    documents = [random_ids(n, vocab=256).tolist() for n in (5, 9, 12)]
    monkeypatch.setattr(
        pretraining,
        "fit",
        lambda _, batch_at, loss_fn, *a, **k: (batch_at(0)[0], loss_fn(batch_at(0)[0])[0].item()),
    )
    model = lively_gpt()
    batch, loss = train(model, documents, config(batch_size=3))
    with torch.no_grad():
        alone = [
            pretraining_loss(model(torch.tensor([ids[:-1]])), torch.tensor([ids[1:]])).item()
            for ids in documents
        ]
    by_hand = sum(loss * (len(ids) - 1) for loss, ids in zip(alone, documents)) / sum(
        len(ids) - 1 for ids in documents
    )
    assert loss == pytest.approx(by_hand, abs=1e-5)
    assert document_loss(model, batch).item() == pytest.approx(by_hand, abs=1e-5)
    assert abs(sum(alone) / 3 - by_hand) > 1e-3  # a mean of means is another number


def test_it_learns_what_can_be_predicted():
    model = GPT(SMALL)
    history = train(model, [[3, 1, 4, 1, 5, 9, 2, 6] * 2] * 200, config())
    assert history[0]["loss"] > 2.5 and history[-1]["loss"] < 0.05
    assert model(torch.tensor([[3, 1, 4, 1, 5, 9]])).argmax(-1)[0, 1:].tolist() == [4, 1, 5, 9, 2]


def test_it_does_not_learn_what_cannot():
    """Fair dice: a loss below ln 6 would mean that it sees the answer."""
    history = train(GPT(SMALL), np.random.default_rng(0).integers(0, 6, (1250, 16)).tolist(), config())
    assert history.column("loss")[-20:].mean() == pytest.approx(np.log(6), abs=0.02)


def test_same_seed_same_model():
    first, second, other = (GPT(SMALL) for _ in range(3))
    documents = random_ids(60, 16, vocab=16).tolist()
    for model, seed in [(first, 0), (second, 0), (other, 1)]:
        train(model, documents, config(steps=5, seed=seed))
    assert same_parameters(first, second) and not same_parameters(first, other)
