"""Fine-tuning: the loss sees the response and nothing else, and the model learns to answer and to stop."""

import pytest
import torch
import torch.nn.functional as F
from engine import TINY, batch_of, gpt2, lively_gpt, random_ids, same_parameters

import minialign
from minialign import pretraining, sft
from minialign.chat import load_chat
from minialign.documents import batches_of, document_loss
from minialign.gpt import GPT, GPTConfig
from minialign.pretraining import PretrainingConfig
from minialign.sampling import generate
from minialign.sft import SFTConfig, introduce_template, sft_loss, train, train_on_tokens
from minialign.tokenizer import load_tokenizer

PAIRS = [([5, 6, 7], [8, 9, 259]), ([1], [2, 3, 4, 5, 259]), ([11, 12, 13, 14], [259])]
TOY = [("a?", "yes"), ("b?", "no, never"), ("and c?", "who knows")]


def by_hand(logits, ids, mask):
    """The mean of −log p over the tokens where `mask` is True, one at a time."""
    terms = [-logits[b, t - 1].log_softmax(-1)[ids[b, t]] for b, t in mask.nonzero().tolist()]
    return torch.stack(terms).mean().item(), len(terms)


@pytest.fixture(scope="module")
def example():
    batch = batch_of(PAIRS)
    return batch, lively_gpt()(batch.ids, batch.mask).detach()


# --- the loss ---


def test_loss_by_hand(example):
    batch, logits = example
    expected, count = by_hand(logits, batch.ids, batch.response_mask)
    assert count == 9
    assert sft_loss(logits, batch.ids, batch.response_mask).item() == pytest.approx(expected, abs=1e-5)


def test_known_mistakes_have_another_loss(example):
    batch, logits = example
    mask, later = batch.response_mask, torch.zeros_like(batch.response_mask)
    later[:, 1:] = mask[:, :-1]
    after_first = torch.ones_like(mask)
    after_first[:, 0] = False
    wrong = {
        "prompt counted": by_hand(logits, batch.ids, batch.mask & after_first)[0],
        "padding counted": by_hand(logits, batch.ids, (mask | ~batch.mask) & after_first)[0],
        "end token dropped": by_hand(logits, batch.ids, mask & (batch.ids != 259))[0],
        "mask off by one": by_hand(logits, batch.ids, later)[0],
        "no shift": F.cross_entropy(logits[mask], batch.ids[mask]).item(),
        "sum": by_hand(logits, batch.ids, mask)[0] * 9,
        "mean of the rows' means": sum(
            by_hand(logits[i : i + 1], batch.ids[i : i + 1], mask[i : i + 1])[0] for i in range(3)
        )
        / 3,
    }
    loss = sft_loss(logits, batch.ids, mask).item()
    for name, value in wrong.items():
        assert abs(loss - value) > 0.02, name


def test_loss_is_transformers_loss():
    model, batch = lively_gpt(), batch_of(PAIRS)
    labels = batch.ids.masked_fill(~batch.response_mask, -100)
    theirs = gpt2(model)(batch.ids, attention_mask=batch.mask.long(), labels=labels).loss
    ours = sft_loss(model(batch.ids, batch.mask), batch.ids, batch.response_mask)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)


def test_gradient_is_zero_on_the_prompt_and_not_on_the_end(example):
    """∂L/∂logits is (p − onehot)/N at the positions that predict a response token, and exactly 0
    elsewhere.
    """
    batch, logits = example
    logits = logits.clone().requires_grad_()
    sft_loss(logits, batch.ids, batch.response_mask).backward()
    predicts = F.pad(batch.response_mask[:, 1:], (0, 1))
    assert not logits.grad[~predicts].any()
    targets = F.one_hot(batch.ids.roll(-1, 1)[predicts], TINY.vocab_size)
    expected = (logits.detach()[predicts].softmax(-1) - targets) / 9
    torch.testing.assert_close(logits.grad[predicts], expected, atol=1e-6, rtol=0)
    for row, (prompt, response) in enumerate(PAIRS):
        ends_after = len(prompt) + len(response) - 2
        assert batch.ids[row, ends_after + 1] == 259 and logits.grad[row, ends_after, 259] < -0.01
        # the prompt's last token predicts the first answer
        assert logits.grad[row, len(prompt) - 1].abs().max() > 0.01


def test_padding_changes_nothing():
    model = lively_gpt()
    losses = []
    for batch in (
        batch_of(PAIRS),
        batch_of(PAIRS, left=5),
        batch_of(PAIRS, width=20),
        batch_of(PAIRS, width=20, pad=3),
    ):
        losses.append(sft_loss(model(batch.ids, batch.mask), batch.ids, batch.response_mask).item())
    assert losses == pytest.approx([losses[0]] * 4, abs=1e-5)


def test_no_response_token(example):
    batch, logits = example
    with pytest.raises(ValueError, match="the batch has no response token: check the response mask"):
        sft_loss(logits, batch.ids, torch.zeros_like(batch.response_mask))


# --- training ---


def config(**settings):
    return SFTConfig(**(dict(steps=80, learning_rate=0.02, batch_size=2, warmup=5) | settings))


def test_it_learns_to_answer_and_to_stop(toy_data):
    model = GPT(TINY)
    history = train(model, TOY, config())
    assert history[0]["loss"] > 5 and history.column("loss")[-5:].max() < 0.2
    answers = generate(
        model, [load_chat().encode_prompt(prompt) for prompt, _ in TOY], temperature=0, max_new_tokens=20
    )
    assert answers.texts == [response for _, response in TOY] and answers.finished.all()


def test_without_the_end_token_it_does_not_stop(toy_data):
    model = GPT(TINY)
    pairs = [
        (load_chat().encode_prompt(prompt), load_chat().encode_response(response, end=False))
        for prompt, response in TOY
    ]
    train_on_tokens(model, pairs, config(steps=150))
    answers = generate(model, [prompt for prompt, _ in pairs], temperature=0, max_new_tokens=20)
    assert not answers.finished.any()
    assert all(text.startswith(response) for text, (_, response) in zip(answers.texts, TOY))


def test_same_seed_same_trajectory(toy_data):
    first, second, other = (GPT(TINY) for _ in range(3))
    one, two, three = (
        train(m, TOY, config(steps=6, seed=s)) for m, s in [(first, 0), (second, 0), (other, 1)]
    )
    assert one == two and same_parameters(first, second)
    assert one != three and not same_parameters(first, other)


def test_another_loss_of_the_same_signature(toy_data):
    model, shapes = GPT(TINY), []

    def loss(logits, ids, response_mask):
        shapes.append((logits.shape[:2] == ids.shape == response_mask.shape, logits.shape[-1]))
        return sft_loss(logits, ids, response_mask)

    train_on_tokens(model, [([1, 2], [3])], config(steps=2), loss=loss)
    assert shapes == [(True, 261)] * 2


def test_an_empty_data_set():
    with pytest.raises(ValueError, match="the data set is empty: there is nothing to train on"):
        train(GPT(TINY), [])


def test_a_pair_too_long_for_the_context():
    """Wherever it is in the data, it is reported before a single step has been made."""
    pairs = [([1], [2])] * 20 + [(random_ids(40).tolist(), random_ids(9).tolist())] + [([1], [2])] * 20
    model = GPT(TINY)
    with pytest.raises(
        ValueError, match=r"pair 20 has 49 tokens \(40 .* 9 .*\), the model's context holds 48: shorten"
    ):
        train_on_tokens(model, pairs, config())
    assert same_parameters(model, GPT(TINY))


def test_a_pair_without_a_response():
    pairs = [([1], [2])] * 20 + [([1], [])] + [([1], [2])] * 20
    model = GPT(TINY)
    with pytest.raises(ValueError, match="has no response token"):
        train_on_tokens(model, pairs, config())
    assert same_parameters(model, GPT(TINY))


def test_the_template_starts_near_what_the_base_knows_and_nothing_else_changes():
    model = GPT(GPTConfig())
    before = model.token_embedding.weight.detach().clone()
    introduce_template(model)
    after = model.token_embedding.weight
    (line_break,) = load_tokenizer().encode_ordinary("\n")
    separator, pad = before[load_chat().separator], before[load_chat().pad]
    near = {
        load_chat().user[0]: (separator + pad) / 2,
        load_chat().assistant[0]: (3 * before[line_break] + pad) / 4,
        load_chat().end: separator,
    }
    for token in range(len(before)):
        torch.testing.assert_close(after[token], near.get(token, before[token]), atol=1e-7, rtol=0)


def test_a_fine_tuned_model_does_not_write_the_template():
    """A full copy of a token that ends documents would be written where a document may end."""
    base = minialign.load("base", "cpu").model
    document = [
        load_chat().separator,
        *load_tokenizer().encode_ordinary("People first walked on the moon in 1969."),
    ]
    introduce_template(base)
    p = base(torch.tensor([document]))[0, -1].softmax(-1)
    assert (
        p[load_chat().user[0]] < 0.01 * p[load_chat().end]
        and p[load_chat().assistant[0]] < 0.01 * p[load_chat().end]
    )


# --- replay ---

DOCUMENTS = [random_ids(n, vocab=256, seed=n).tolist() for n in (4, 9, 13, 6, 11)]
REPLAY = dict(batch_size=2, replay_coef=0.7, replay_batch_size=3)


@pytest.fixture
def loss_at_the_start(toy_data, monkeypatch):
    """loss_at_the_start(model, config, documents) -> the first update's loss and metrics, as `fit` has it."""

    def first(model, batch_at, loss_fn, *_, **__):
        (mix,) = batch_at(0)
        return loss_fn(mix)

    monkeypatch.setattr(sft, "fit", first)
    return lambda model, settings, documents: train_on_tokens(model, PAIRS, settings, documents=documents)


def surprises(model, rows, begins):
    """−log p of the tokens of some rows from place `begins` on, each row read alone."""
    found = []
    for row, begin in zip(rows, begins):
        log_p = model(torch.tensor([row]))[0].log_softmax(-1)
        found += [-log_p[t - 1, row[t]] for t in range(begin, len(row))]
    return torch.stack(found)


def expected_losses(model, batch_size=2, replay_batch_size=3):
    """The two losses of the first update by hand, and that of the replay with its padding counted."""
    chosen = sft.epochs([len(x) + len(y) for x, y in PAIRS], batch_size, 0)(0)
    pairs = [PAIRS[i] for i in chosen]
    demonstrated = surprises(model, [x + y for x, y in pairs], [len(x) for x, _ in pairs]).mean()
    batch = batches_of(model, DOCUMENTS, replay_batch_size, 0)(0)
    rows = [row[mask].tolist() for row, mask in zip(batch.ids, batch.mask)]
    assert len({len(row) for row in rows}) > 1, "the test needs padding"
    replayed = surprises(model, rows, [1] * len(rows)).mean()
    padded = surprises(model, batch.ids.tolist(), [1] * len(rows)).mean()
    return demonstrated, replayed, padded


def test_the_loss_is_the_sum_of_both(loss_at_the_start):
    model = lively_gpt().double()
    loss, metrics = loss_at_the_start(model, config(**REPLAY), DOCUMENTS)
    demonstrated, replayed, padded = (x.item() for x in expected_losses(model))
    assert metrics["loss/sft"].item() == pytest.approx(demonstrated, abs=1e-12)
    assert metrics["loss/replay"].item() == pytest.approx(replayed, abs=1e-12)
    assert loss.item() == pytest.approx(demonstrated + 0.7 * replayed, abs=1e-12)
    wrong = {
        "the weight ignored": demonstrated + replayed,
        "the weight on the wrong loss": 0.7 * demonstrated + replayed,
        "an average": 0.3 * demonstrated + 0.7 * replayed,
        "padding replayed": demonstrated + 0.7 * padded,
        "no replay": demonstrated,
    }
    assert all(abs(loss.item() - value) > 0.02 for value in wrong.values()), (loss, wrong)


def test_the_gradient_is_the_sum_of_both(loss_at_the_start):
    """Against finite differences of the loss by hand."""
    model, h = lively_gpt().double(), 1e-6
    loss_at_the_start(model, config(**REPLAY), DOCUMENTS)[0].backward()
    for parameter in (model.ln_f.weight, model.blocks[0].up.bias):
        slope, values = parameter.grad[3].item(), []
        for shift in (h, -2 * h, h):
            with torch.no_grad():
                parameter[3] += shift
                demonstrated, replayed, _ = expected_losses(model)
            values.append((demonstrated.item(), replayed.item()))
        by_sft, by_replay = ((values[0][i] - values[1][i]) / (2 * h) for i in (0, 1))
        assert slope == pytest.approx(by_sft + 0.7 * by_replay, rel=1e-6)
        assert abs(slope - by_sft - by_replay) > 1e-3 * abs(slope)


def test_without_replay_nothing_has_changed(loss_at_the_start):
    model = lively_gpt().double()
    loss, metrics = loss_at_the_start(model, config(batch_size=2), ())
    assert metrics == {} and loss.item() == pytest.approx(expected_losses(model)[0].item(), abs=1e-12)


def test_replay_keeps_what_a_document_says(toy_data):
    """A base that knows a text: fine-tuned at a high rate it forgets it, with replay it does not."""

    def surprise_after(settings, documents):
        model = GPT(TINY)
        text = "The moon is grey."
        pretraining.train(model, [text], PretrainingConfig(steps=60, batch_size=1, warmup=5))
        train(model, TOY, config(**settings), documents=documents)
        with torch.no_grad():
            return document_loss(model, batches_of(model, [text], 1, 0)(0)).item()

    forgotten, kept = surprise_after({}, ()), surprise_after({"replay_coef": 1.0}, ["The moon is grey."])
    assert kept < 0.3 < 1.0 < forgotten


def test_a_run_with_replay_can_be_repeated_and_resumed(toy_data, tmp_path):
    settings = config(steps=8, replay_coef=0.5, replay_batch_size=2, batch_size=1)
    documents = ["It rains.", "Bees dance.", "Who was that?", "Nothing at all."]
    models = [GPT(TINY) for _ in range(3)]
    whole, again = (train(model, TOY, settings, documents=documents) for model in models[:2])
    assert whole == again and same_parameters(*models[:2])

    class Killed(Exception):
        pass

    def kill(metrics):
        if metrics["step"] == 5:
            raise Killed

    options = dict(documents=documents, resume_from=tmp_path / "state", save_every=2)
    with pytest.raises(Killed):
        train(GPT(TINY), TOY, settings, on_step=kill, **options)
    assert train(models[2], TOY, settings, **options) == whole and same_parameters(models[0], models[2])
    assert {"loss", "loss/sft", "loss/replay"} <= whole[-1].keys()


@pytest.mark.parametrize(
    ("settings", "documents", "said"),
    [
        ({"replay_coef": 0.5}, (), "^replay_coef is 0.5: give the pre-training documents to replay$"),
        (
            {},
            DOCUMENTS,
            r"^documents are given, but replay_coef is 0: set what they count, .* leave them out$",
        ),
        ({"replay_coef": 0.5}, [[1] * 49], "^document 0 has 49 tokens, the model.s context holds 48: short"),
        ({"replay_coef": -1.0}, DOCUMENTS, "^replay_coef is -1: it must be at least 0$"),
    ],
)
def test_a_replay_that_cannot_be(settings, documents, said):
    model = GPT(TINY)
    with pytest.raises(ValueError, match=said):
        train_on_tokens(model, PAIRS, config(**settings), documents=documents)
    assert same_parameters(model, GPT(TINY))


# --- what a small change would spoil ---


def test_a_batch_is_of_pairs_of_similar_length(monkeypatch):
    """Prompt and response together: what the padding has to fill."""
    seen, epochs = [], sft.epochs
    monkeypatch.setattr(
        sft, "epochs", lambda lengths, *rest: (seen.append(list(lengths)), epochs(lengths, *rest))[1]
    )
    train_on_tokens(GPT(TINY), PAIRS, config(steps=1))
    assert seen == [[6, 6, 5]]


def test_a_demonstration_that_does_not_fit_is_named(toy_data):
    texts = [("a?", "yes"), ("Is it long?", "very " * 20)]
    model = GPT(TINY)
    with pytest.raises(ValueError, match=r"demonstration 1 \('Is it long\?'\) has \d+ tokens"):
        train(model, texts, config())
    assert same_parameters(model, GPT(TINY))
