"""Log-probabilities against cross-entropy, against every possible sequence, and under padding."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from engine import TINY, batch_of, lively_gpt
from scipy import stats

from minialign import logprobs
from minialign.chat import collate, load_chat
from minialign.gpt import GPT, GPTConfig
from minialign.logprobs import (
    kl_divergence,
    kl_estimates,
    negative_log_likelihood,
    on_response,
    perplexity_of,
    require_same,
    response_logits,
    response_states,
    sequence_log_probs,
    token_kl,
    token_log_probs,
)
from minialign.tokenizer import load_tokenizer

PAIRS = [([5, 6, 7], [8, 9]), ([1], [2, 3, 4, 5, 6]), ([9, 8, 7, 6], [5])]


@pytest.fixture(scope="module")
def model():
    return lively_gpt()


def by_hand(model, prompt, response, temperature=1.0):
    """One token after the other, without padding, masks or shifts: log p of each token given all before it,
    in float64.
    """
    exact = lively_gpt(model.config).double()
    logits = [exact(torch.tensor([prompt + response[:t]]))[0, -1] / temperature for t in range(len(response))]
    return torch.stack([F.log_softmax(row, -1)[y] for row, y in zip(logits, response)])


# --- one sequence ---


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
@pytest.mark.parametrize("left", [0, 4])
def test_token_log_probs_by_hand(model, temperature, left):
    batch = batch_of(PAIRS, left=left)
    result = token_log_probs(model, batch, temperature)
    assert result.shape == batch.ids.shape and not result[~batch.response_mask].any()
    for row, (prompt, response) in enumerate(PAIRS):
        expected = by_hand(model, prompt, response, temperature)
        torch.testing.assert_close(
            result[row][batch.response_mask[row]].double(), expected, atol=1e-4, rtol=0
        )


def test_log_probs_are_minus_cross_entropy(model):
    batch = batch_of(PAIRS)
    logits = model(batch.ids, batch.mask)
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), batch.ids[:, 1:], reduction="none")
    expected = -losses * batch.response_mask[:, 1:]
    result = token_log_probs(model, batch)
    torch.testing.assert_close(result[:, 1:], expected, atol=1e-5, rtol=0)
    unshifted = -F.cross_entropy(logits.transpose(1, 2), batch.ids, reduction="none") * batch.response_mask
    assert (result - unshifted).abs().max() > 0.1
    late_mask = -losses * batch.response_mask[:, :-1]
    assert (result[:, 1:] - late_mask).abs().max() > 0.1


def test_a_sequence_is_the_sum_over_the_response(model):
    batch = batch_of(PAIRS)
    tokens, sequences = token_log_probs(model, batch), sequence_log_probs(model, batch)
    for row, (prompt, response) in enumerate(PAIRS):
        expected = float(by_hand(model, prompt, response).sum().detach())
        assert sequences[row].item() == pytest.approx(expected, abs=1e-4)
        wrong = {
            "mean": expected / len(response),
            "end token dropped": expected - tokens[row][batch.response_mask[row]][-1].item(),
            "prompt counted": float(by_hand(model, prompt[:1], prompt[1:] + response).sum().detach()),
        }
        for name, value in wrong.items():
            trivial = len(response) == 1 and name == "mean" or len(prompt) == 1 and name == "prompt counted"
            assert trivial or abs(sequences[row].item() - value) > 0.1, name


def test_padding_changes_nothing(model):
    plain = sequence_log_probs(model, batch_of(PAIRS))
    for batch in (
        batch_of(PAIRS, left=7),
        batch_of(PAIRS, width=20),
        batch_of(PAIRS, left=3, width=20, pad=77),
    ):
        torch.testing.assert_close(sequence_log_probs(model, batch), plain, atol=1e-4, rtol=0)


def test_the_softmax_is_float32_whatever_the_model_is(model):
    half = lively_gpt().bfloat16()
    batch = batch_of(PAIRS)
    logits = half(batch.ids, batch.mask)[:, :-1]
    pick = (*batch.response_mask[:, 1:].nonzero().T, batch.ids[:, 1:][batch.response_mask[:, 1:]])
    exact, coarse = F.log_softmax(logits.double(), -1)[pick], F.log_softmax(logits, -1)[pick]
    result = token_log_probs(half, batch)
    assert result.dtype == torch.float32
    assert (result[batch.response_mask] - exact).abs().max() < 1e-5 < 1e-3 < (coarse - exact).abs().max()


def test_gradient_is_that_of_the_log_softmax():
    """∂ log p(y) / ∂ logits = onehot(y) − p, seen at the head's bias-like last LayerNorm, in closed form."""
    model, batch = lively_gpt(), batch_of(PAIRS)
    sequence_log_probs(model, batch).sum().backward()
    predicts = batch.response_mask[:, 1:]
    probabilities = model(batch.ids, batch.mask)[:, :-1][predicts].softmax(-1)
    errors = F.one_hot(batch.ids[:, 1:][predicts], TINY.vocab_size) - probabilities
    expected = (errors @ model.token_embedding.weight).sum(0)
    torch.testing.assert_close(model.ln_f.bias.grad, expected.detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("left", [0, 4])
def test_states_are_those_that_predict_the_response(model, left):
    """One row at a time and without padding: the state at the token before, for each of the response's tokens
    in turn.
    """
    states = response_states(model, batch_of(PAIRS, left=left))
    alone = [model.hidden(torch.tensor([x + y]))[0, len(x) - 1 : -1] for x, y in PAIRS]
    torch.testing.assert_close(states, torch.cat(alone), atol=1e-4, rtol=0)
    assert states.shape == (8, TINY.n_embd)


def test_known_states_save_the_forward_pass(model, monkeypatch):
    batch = batch_of(PAIRS, left=2)
    states, log_probs = response_states(model, batch), token_log_probs(model, batch, 0.7)
    monkeypatch.setattr(model, "hidden", lambda *_: pytest.fail("the trunk was run again"))
    assert torch.equal(token_log_probs(model, batch, 0.7, states), log_probs)
    # they are what is used
    assert not torch.equal(token_log_probs(model, batch, 0.7, states.flip(0)), log_probs)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_chunks_of_the_head_change_nothing(model, monkeypatch, temperature):
    batch = batch_of(PAIRS, left=2)
    whole = token_log_probs(model, batch, temperature)
    monkeypatch.setattr(logprobs, "CHUNK", 3)  # of 8 response tokens: the last chunk is smaller
    assert torch.allclose(token_log_probs(model, batch, temperature), whole, atol=1e-6)
    expected = (
        (response_logits(model, batch) / temperature)
        .log_softmax(-1)
        .gather(-1, batch.ids[batch.response_mask][:, None])[:, 0]
    )
    assert torch.allclose(whole[batch.response_mask], expected, atol=1e-6)


def test_values_on_the_response_by_hand():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    placed = on_response(values, mask)
    assert placed.tolist() == [[0, 0, 1, 2], [0, 3, 0, 0]] and placed.dtype == torch.float64
    (placed * torch.arange(8).view(2, 4)).sum().backward()
    assert values.grad.tolist() == [2, 3, 5]


# --- all sequences of a tiny vocabulary ---

FIVE = GPTConfig(vocab_size=5, context=8, n_layer=1, n_head=1, n_embd=8)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_probabilities_of_all_sequences_sum_to_one(temperature):
    model, prompt = lively_gpt(FIVE), [1, 2]
    batch = batch_of([(prompt, list(y)) for y in itertools.product(range(5), repeat=3)], pad=0)
    log_probs = sequence_log_probs(model, batch, temperature)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert log_probs.exp().max() > 3 / 125  # far from uniform


def test_with_the_end_token_all_lengths_together_sum_to_one():
    """Responses end at token 4 or at three tokens: the end token is an action, and only with it the sum
    is 1.
    """
    model, end = lively_gpt(FIVE), 4
    complete = [y + (end,) for n in range(3) for y in itertools.product(range(4), repeat=n)]
    complete += list(itertools.product(range(4), repeat=3))
    batch = batch_of([([1, 2], list(y)) for y in complete], pad=0)
    log_probs = sequence_log_probs(model, batch)
    assert log_probs.exp().sum().item() == pytest.approx(1, abs=1e-5)
    unscored_end = torch.where(batch.ids == end, 0.0, token_log_probs(model, batch)).sum(-1)
    assert unscored_end.exp().sum().item() > 1.5
    mean = log_probs / batch.response_mask.sum(-1)
    assert abs(mean.exp().sum().item() - 1) > 1


# --- KL ---

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
Q = torch.tensor([0.2, 0.3, 0.1, 0.4], dtype=torch.float64)


def test_kl_divergence_by_hand():
    kl = sum(p * math.log(p / q) for p, q in zip(P.tolist(), Q.tolist()))
    both = kl_divergence(torch.stack([P.log(), Q.log()]), torch.stack([Q.log(), Q.log()]))
    assert both.tolist() == pytest.approx([kl, 0.0], abs=1e-12)
    assert abs(kl_divergence(Q.log(), P.log()).item() - kl) > 0.1


def test_kl_estimates_have_the_means_they_should():
    k1, k2, k3 = kl_estimates((P / Q).log())
    kl = float((P * (P / Q).log()).sum())
    assert float((P * k1).sum()) == pytest.approx(kl, abs=1e-12)
    assert float((P * k3).sum()) == pytest.approx(kl, abs=1e-12)
    assert float((P * k2).sum()) == pytest.approx(float((P * (P / Q).log() ** 2).sum() / 2), abs=1e-12)
    assert (k3 >= 0).all() and (k1 < 0).any() and (k2 >= 0).all()
    reversed_k3 = kl_estimates((Q / P).log())[2]
    assert abs(float((P * reversed_k3).sum()) - kl) > 0.02


def test_k2_has_the_true_gradient_and_k1_none():
    """As losses: the samples' own probabilities are not differentiated."""
    theta = P.log().requires_grad_()
    log_p = theta.log_softmax(-1)
    true = torch.autograd.grad((log_p.exp() * (log_p - Q.log())).sum(), theta, retain_graph=True)[0]
    k1, k2, k3 = kl_estimates(log_p - Q.log())
    gradients = [torch.autograd.grad((P * k).sum(), theta, retain_graph=True)[0] for k in (k1, k2, k3)]
    torch.testing.assert_close(gradients[0], torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients[1], true, atol=1e-12, rtol=0)
    assert true.abs().max() > 0.1 and (gradients[2] - true).abs().max() > 0.05


def test_k3_is_exact_for_tiny_ratios():
    small = torch.tensor([1e-4, -1e-4])
    assert kl_estimates(small)[2].tolist() == pytest.approx([5e-9, 5e-9], rel=0.02)


# --- errors ---


def test_no_response_token(model):
    batch = batch_of(PAIRS)
    batch.response_mask[1] = False
    with pytest.raises(ValueError, match="a row of the batch has no response token: check the response mask"):
        token_log_probs(model, batch)


def test_a_response_that_follows_nothing(model):
    with pytest.raises(ValueError, match="nothing comes before it to predict it from"):
        token_log_probs(model, batch_of([([], [1, 2])]))


def test_temperature_zero(model):
    with pytest.raises(ValueError, match="the temperature is 0: probabilities need one from 1e-06 to 10,000"):
        token_log_probs(model, batch_of(PAIRS), temperature=0)


def test_a_very_low_temperature_is_no_overflow(model):
    assert sequence_log_probs(model, batch_of(PAIRS), temperature=1e-6).isfinite().all()


# --- of whole texts ---

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=16)  # the course's vocabulary on a tiny trunk


def test_loss_over_pairs_is_per_token_whatever_the_batches():
    model = GPT(SMALL).eval()
    pairs = [([1, 2], [3, 4, 5]), ([6], [7]), ([8, 9, 10], [11, 12])]
    alone = [negative_log_likelihood(model, [pair]) for pair in pairs]
    expected = (3 * alone[0] + alone[1] + 2 * alone[2]) / 6
    assert negative_log_likelihood(model, pairs) == pytest.approx(expected, rel=1e-5)
    assert negative_log_likelihood(model, pairs, batch_size=2) == pytest.approx(expected, rel=1e-5)
    assert abs(sum(alone) / 3 - expected) > 1e-4, "a mean of means is something else"


def test_perplexity_of_a_die_and_of_an_untrained_model():
    assert float(perplexity_of(torch.full((5,), 1 / 6).log())) == pytest.approx(6)
    ids = load_chat().encode_document("Bees make honey.")
    loss = negative_log_likelihood(GPT(SMALL).eval(), [(ids[:1], ids[1:])])
    assert math.exp(loss) == pytest.approx(load_tokenizer().n_vocab, rel=0.1)


def test_token_kl_is_zero_to_itself_and_matches_the_definition():
    one, other = GPT(SMALL).eval(), GPT(SMALL, seed=1).eval()
    with torch.no_grad():
        other.token_embedding.weight *= 20
    batch = collate([([1], [5, 6]), ([2], [7])], 0)
    assert all(np.allclose(row, 0, atol=1e-6) for row in token_kl(one, one, batch))
    rows = token_kl(one, other, batch)
    assert [len(row) for row in rows] == [2, 1]
    with torch.no_grad():
        p = one(torch.tensor([[1, 5]]))[0, -1].double().softmax(-1)
        q = other(torch.tensor([[1, 5]]))[0, -1].double().softmax(-1)
    assert rows[0][1] == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)


def test_kl_has_a_direction_and_is_never_negative():
    log_p, log_q = torch.randn(
        2, 50, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).log_softmax(-1)
    forward = kl_divergence(log_p, log_q)
    expected = [stats.entropy(p, q) for p, q in zip(log_p.exp().numpy(), log_q.exp().numpy())]
    assert np.allclose(forward, expected) and (forward >= 0).all()
    assert not torch.allclose(forward, kl_divergence(log_q, log_p))


# --- what a small change would spoil ---


def test_a_sequence_is_scored_at_the_temperature_that_is_given(model):
    batch = batch_of(PAIRS)
    for temperature in (0.5, 1.0, 3.0):
        expected = [float(by_hand(model, *pair, temperature).sum().detach()) for pair in PAIRS]
        assert sequence_log_probs(model, batch, temperature).tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("ratios", "worst"),
    [([0.0, 2e-3], "0.002"), ([0.0, -2e-3], "0.002"), ([0.5, -0.25], "0.5"), ([9e-4, -1.1e-3], "0.0011")],
)
def test_log_probs_that_must_agree_and_do_not(ratios, worst):
    with pytest.raises(ValueError, match=f"these must agree .* differ by {worst} nats"):
        require_same(torch.tensor([ratios]), "these")


def test_log_probs_that_agree():
    for ratios in ([0.0, 0.0], [5e-4, -9e-4], [1e-3, -1e-3]):
        assert require_same(torch.tensor([ratios], dtype=torch.float64), "these") is None


def test_loss_over_pairs_keeps_a_batch_narrow(monkeypatch):
    """Pairs of similar length are read together, however they come: less of a batch is padding."""
    widths, read = [], logprobs.sequence_log_probs
    monkeypatch.setattr(
        logprobs,
        "sequence_log_probs",
        lambda model, batch: (widths.append(tuple(batch.ids.shape)), read(model, batch))[1],
    )
    pairs = [([1] * 20, [2]), ([1], [2]), ([1], [2] * 15), ([1] * 2, [2] * 2)]
    negative_log_likelihood(GPT(SMALL).eval(), pairs, batch_size=2)
    assert widths == [(2, 4), (2, 21)]


def test_a_pair_that_does_not_fit_is_named_before_the_model_reads_it():
    with pytest.raises(ValueError, match="holds 256: shorten"):
        negative_log_likelihood(GPT(SMALL).eval(), [([1] * 200, [2] * 100)])


def test_the_loss_of_a_document_is_of_every_token_after_the_first():
    model = lively_gpt(SMALL)
    ids = model.chat.encode_document("Bees make honey.")
    with torch.no_grad():
        losses = F.cross_entropy(model(torch.tensor([ids]))[0, :-1], torch.tensor(ids[1:]))
    assert negative_log_likelihood(model, [(ids[:1], ids[1:])]) == pytest.approx(float(losses), rel=1e-4)


def test_token_kl_gives_each_row_its_own_tokens():
    one, other = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    pairs = [([1], [5, 6]), ([2, 3], [7]), ([4], [8, 9, 10]), ([1, 1], [5, 5])]
    rows = token_kl(one, other, collate(pairs, 0))
    assert [len(row) for row in rows] == [2, 1, 3, 2] and {type(row) for row in rows} == {np.ndarray}
    for row, pair in zip(rows, pairs):
        (alone,) = token_kl(one, other, collate([pair], 0))
        np.testing.assert_allclose(row, alone, rtol=1e-3)
