"""Documents of the corpus: what is one, in which batches they come, and that padding is no target."""

import pytest
import torch
import torch.nn.functional as F
from engine import TINY, lively_gpt, random_ids

from minialign.chat import load_chat
from minialign.documents import batch_of, batches_of, document_loss, encode_corpus, encoded
from minialign.gpt import GPT, GPTConfig
from minialign.tokenizer import load_tokenizer

PAD = 260
ROWS = [random_ids(n, vocab=256).tolist() for n in (5, 9, 12)]


def test_a_document_stands_between_two_separators():
    documents = encode_corpus(["The moon.", "Bees <|endoftext|> dance."], load_chat())
    assert all(
        ids[0] == ids[-1] == load_chat().separator and load_chat().separator not in ids[1:-1]
        for ids in documents
    )
    texts = [load_tokenizer().decode(ids) for ids in documents]
    assert texts == [
        "<|endoftext|>The moon.<|endoftext|>",
        "<|endoftext|>Bees <|endoftext|> dance.<|endoftext|>",
    ]


def by_hand(model, rows) -> tuple[list[float], list[int]]:
    """The mean surprise of each document, read alone, and its number of targets."""
    with torch.no_grad():
        losses = [F.cross_entropy(model(torch.tensor([r]))[0, :-1], torch.tensor(r[1:])).item() for r in rows]
    return losses, [len(row) - 1 for row in rows]


def test_the_loss_is_a_mean_over_real_targets():
    model = lively_gpt()
    losses, counts = by_hand(model, ROWS)
    expected = sum(x * n for x, n in zip(losses, counts)) / sum(counts)
    batch = batch_of(ROWS, PAD)
    loss = document_loss(model, batch).item()
    assert loss == pytest.approx(expected, abs=1e-5)
    logits = model(batch.ids)[:, :-1].flatten(0, 1)
    wrong = {
        "padding counted": F.cross_entropy(logits, batch.ids[:, 1:].flatten()).item(),
        "no shift": F.cross_entropy(logits, batch.ids[:, :-1].flatten()).item(),
        "mean of the rows' means": sum(losses) / 3,
        "sum": expected * sum(counts),
    }
    assert all(abs(loss - value) > 0.02 for value in wrong.values()), (loss, wrong)


def test_what_is_in_the_padding_changes_nothing():
    model = lively_gpt()
    losses = [document_loss(model, batch_of(ROWS, pad)).item() for pad in (PAD, 7)]
    assert losses[0] == losses[1]


def test_the_gradient_by_finite_differences():
    model, batch, h = lively_gpt().double(), batch_of(ROWS, PAD), 1e-6
    document_loss(model, batch).backward()
    for parameter in (model.ln_f.weight, model.blocks[0].up.bias):
        slope, values = parameter.grad[2].item(), []
        for shift in (h, -2 * h, h):
            with torch.no_grad():
                parameter[2] += shift
            values.append(document_loss(model, batch).item())
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-6, abs=1e-8)


# --- batches ---


def test_an_epoch_reads_every_document_once_and_the_next_one_in_another_order():
    rows = [[i, *[1] * (1 + i % 7)] for i in range(50)]
    batch_at, orders = batches_of(GPT(TINY), rows, 8, 0), []
    for epoch in range(2):  # 7 batches of 8 or fewer
        batches = [batch_at(step) for step in range(7 * epoch, 7 * epoch + 7)]
        read = [row[mask].tolist() for batch in batches for row, mask in zip(batch.ids, batch.mask)]
        assert sorted(read) == rows
        orders.append(read)
        padding = sum(int((~batch.mask).sum()) for batch in batches)
        assert padding < 0.2 * sum(map(len, rows)), "rows of similar length"
    assert orders[0] != orders[1] != rows


def test_a_batch_depends_on_seed_and_step_alone():
    rows = [[i, 1, 2] for i in range(50)]
    one, same, other = (batches_of(GPT(TINY), rows, 8, seed) for seed in (0, 0, 1))
    assert all(torch.equal(one(step).ids, same(step).ids) for step in (13, 2, 0))
    assert not torch.equal(one(2).ids, other(2).ids)


def test_texts_and_token_ids_are_the_same_documents():
    model = GPT(GPTConfig())
    texts = ["The moon.", "Bees dance."]
    ids = encode_corpus(texts, model.chat)
    assert encoded(texts, model) == encoded(ids, model) == encoded([texts[0], ids[1]], model) == ids


# --- what is no document ---


@pytest.mark.parametrize(
    ("documents", "error", "said"),
    [
        (
            [[1, 2], [1] * 49],
            ValueError,
            "^document 1 has 49 tokens, the model.s context holds 48: shorten it$",
        ),
        ([[1, 2], [1]], ValueError, "^document 1 has fewer than 2 tokens: there is nothing to predict$"),
        ([[], [1]], ValueError, "^2 faults:\\ndocument 0 has fewer"),
        ("The moon.", TypeError, "^the documents are one text, 'The moon.': give a list of texts$"),
        ([("wiki", "A text.")], TypeError, "^document 0 is .*'wiki', 'A text.'.*: give a text, or a list of"),
        ([("wiki", 1)], TypeError, "^document 0 is .*'wiki', 1.*: give a text, or a list of token ids$"),
        ([7], TypeError, "^document 0 is '7': give a text"),
        ([None], TypeError, "^document 0 is 'None': give a text"),
    ],
)
def test_what_is_no_document(documents, error, said):
    with pytest.raises(error, match=said):
        encoded(documents, GPT(TINY))


def test_an_empty_corpus():
    with pytest.raises(ValueError, match="the data set is empty: there is nothing to train on"):
        batches_of(GPT(TINY), [], 8, 0)
