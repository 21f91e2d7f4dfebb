"""The model is GPT-2, for any padding and any cutting into cached chunks."""

import math

import pytest
import torch
from engine import TINY, favour, gpt2, gpt2_names, lively_gpt, random_ids, same_parameters

from minialign.gpt import GPT, GPTConfig, KVCache


@pytest.fixture(scope="module")
def model():
    return lively_gpt()


def difference(a, b):
    return float((a - b).detach().abs().max())


def left_padded(rows, pad=0):
    """Rows of ids as one rectangle with the padding on the left, and its mask."""
    width = max(len(row) for row in rows)
    ids = torch.stack([torch.cat([torch.full((width - len(row),), pad), row]) for row in rows])
    return ids, torch.stack([torch.arange(width) >= width - len(row) for row in rows])


RAGGED = [random_ids(length, seed=length) for length in (5, 12, 1, 9)]

# --- against transformers ---


def test_logits_are_gpt2s(model):
    ids = random_ids(3, 40)
    assert difference(model(ids), gpt2(model)(ids).logits) < 1e-4  # of logits around 3
    exact = lively_gpt().double()
    assert difference(exact(ids), gpt2(exact)(ids).logits) < 1e-12


def test_the_parity_test_sees_another_gelu():
    exact, ids = lively_gpt().double(), random_ids(3, 40)
    assert difference(exact(ids), gpt2(exact, activation_function="gelu")(ids).logits) > 1e-4


def test_gradients_are_gpt2s():
    ours, ids = lively_gpt().double(), random_ids(3, 40)
    theirs = gpt2(ours)
    for logits in (ours(ids), theirs(ids).logits):
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    gradients = gpt2_names({name: p.grad for name, p in ours.named_parameters()}, TINY.n_layer)
    for name, parameter in theirs.named_parameters():
        assert difference(gradients[name], parameter.grad) < 1e-10, name
        assert parameter.grad.abs().max() > 1e-4, name


def test_left_padding_is_gpt2s_with_positions(model):
    ids, mask = left_padded(RAGGED)
    theirs = gpt2(model)
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    expected = theirs(ids, attention_mask=mask.long(), position_ids=positions).logits
    unpositioned = theirs(
        ids, attention_mask=mask.long(), position_ids=torch.arange(ids.shape[1])[None]
    ).logits
    assert difference(model(ids, mask)[mask], expected[mask]) < 1e-4
    assert difference(model(ids, mask)[mask], unpositioned[mask]) > 0.1


# --- the cache ---


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [5, 1, 1, 5], [1, 11]])
def test_cached_chunks_give_the_uncached_logits(model, chunks):
    ids = random_ids(3, 12)
    cache = KVCache(TINY, 3, 12)
    cached = torch.cat([model(chunk, cache=cache) for chunk in ids.split(chunks, 1)], 1)
    assert difference(cached, model(ids)) < 1e-4


@pytest.mark.parametrize("chunks", [[12], [1] * 12, [6, 2, 4]])
def test_cached_chunks_of_padded_rows(model, chunks):
    ids, mask = left_padded(RAGGED)
    cache = KVCache(TINY, len(RAGGED), 15)
    parts = zip(ids.split(chunks, 1), mask.split(chunks, 1))
    cached = torch.cat([model(chunk, seen, cache) for chunk, seen in parts], 1)
    assert difference(cached[mask], model(ids, mask)[mask]) < 1e-4
    assert torch.equal(cache.mask[:, :12], mask) and cache.length == 12


def test_rows_of_a_cache_serve_every_copy(model):
    ids, mask = left_padded(RAGGED)
    cache = KVCache(TINY, len(RAGGED), 14)
    model(ids, mask, cache)
    copies = cache[torch.arange(4).repeat_interleave(3)]
    following = random_ids(12, 1, seed=7)
    logits = model(following, cache=copies)[:, 0]
    for row in range(12):
        assert (
            difference(logits[row], model(torch.cat([RAGGED[row // 3], following[row]])[None])[0, -1]) < 1e-4
        )
    assert cache.length == 12 and copies.length == 13  # the original is still where it was
    some = copies[torch.arange(12) % 5 == 0]  # rows 0, 5 and 10
    more = random_ids(3, 1, seed=8)
    logits = model(more, cache=some)[:, 0]
    for row, was in enumerate((0, 5, 10)):
        assert (
            difference(
                logits[row], model(torch.cat([RAGGED[was // 3], following[was], more[row]])[None])[0, -1]
            )
            < 1e-4
        )


# --- padding and the future ---


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_the_single_rows(model, side):
    ids, mask = left_padded(RAGGED)
    if side == "right":
        ids, mask = ids.flip(-1), mask.flip(-1)
    logits = model(ids, mask)
    for row, seen, own in zip(ids, mask, logits):
        assert difference(own[seen], model(row[seen][None])[0]) < 1e-4


def test_padding_in_the_middle_is_skipped(model):
    """The prompt is padded on the left, the response on the right: a second turn would follow after both."""
    ids, mask = random_ids(1, 12), torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0, 1]], dtype=torch.bool)
    assert difference(model(ids, mask)[mask], model(ids[mask][None])[0]) < 1e-4


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_padding_contains_has_no_effect(model, side):
    ids, mask = left_padded(RAGGED)
    if side == "right":
        mask = mask.flip(-1)
    other = torch.where(mask, ids, random_ids(*ids.shape, seed=1))
    assert difference(other, ids) > 0
    assert torch.equal(model(ids, mask)[mask], model(other, mask)[mask])


def test_a_row_of_nothing_but_padding_is_not_nan(model):
    ids, mask = random_ids(2, 6), torch.tensor([[False] * 6, [False, True] * 3])
    assert model(ids, mask).isfinite().all()


@pytest.mark.parametrize("changed", [0, 5, 11])
def test_the_future_leaves_the_past_alone(model, changed):
    ids = random_ids(2, 12)
    other = ids.clone()
    other[:, changed] = (other[:, changed] + 1) % 256
    before, after = model(ids), model(other)
    assert torch.equal(before[:, :changed], after[:, :changed])
    assert all(difference(before[:, t], after[:, t]) > 1e-3 for t in range(changed, 12))


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_what_is_added_to_an_embedding_can_turn_one_token_into_another(model, padding):
    """E[a] + (E[b] − E[a]) = E[b], at every place alone, on the fast path and with a mask."""
    ids, mask = left_padded(RAGGED)
    if padding == "right":
        ids, mask = ids.flip(-1), mask.flip(-1)
    if padding == "none":
        ids, mask = random_ids(3, 12), None
    other = random_ids(*ids.shape, seed=1)
    added = model.token_embedding(other) - model.token_embedding(ids)
    seen = slice(None) if mask is None else mask
    changed = model.hidden(ids, mask, added=added)
    assert difference(changed[seen], model.hidden(other, mask)[seen]) < 1e-4
    assert difference(changed[seen], model.hidden(ids, mask)[seen]) > 0.1
    one_place = added.clone()
    one_place[:, 7:] = 0
    both = torch.cat([other[:, :7], ids[:, 7:]], 1)
    assert difference(model.hidden(ids, mask, added=one_place)[seen], model.hidden(both, mask)[seen]) < 1e-4


# --- construction ---


def test_default_size_and_first_loss():
    """About 1.9 million parameters, counted by hand; untrained, it knows nothing: ln V nats."""
    model = GPT(GPTConfig())
    C, V = 160, 4096
    block = 2 * 2 * C + (3 * C * C + 3 * C) + (C * C + C) + (4 * C * C + 4 * C) + (4 * C * C + C)
    assert sum(p.numel() for p in model.parameters()) == V * C + 256 * C + 4 * block + 2 * C
    ids = random_ids(4, 64, vocab=V)
    loss = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(V), abs=0.1)


def test_initialisation_is_gpt2s():
    model = GPT(GPTConfig())
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            assert not p.any(), name
        elif "ln_" in name:
            assert (p == 1).all(), name
        else:
            into_the_stream = name.endswith(("attention.proj.weight", "down.weight"))
            expected = 0.02 / math.sqrt(2 * 4) if into_the_stream else 0.02
            assert p.std().item() == pytest.approx(expected, rel=0.05), name


def test_the_seed_is_the_models_own():
    state = torch.get_rng_state()
    first = GPT(TINY, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert same_parameters(first, GPT(TINY, seed=3))
    assert not same_parameters(first, GPT(TINY, seed=4))


def test_dropout_only_while_training():
    model, ids = GPT(GPTConfig(**(vars(TINY) | {"dropout": 0.5}))), random_ids(2, 12)
    model.train()
    assert difference(model(ids), model(ids)) > 1e-3
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_favour_favours():
    """The helper that other tests lean on."""
    probabilities = favour(lively_gpt(), 7, 20.0)(random_ids(4, 12)).softmax(-1)
    assert probabilities[..., 7].min() > 0.9


@pytest.mark.parametrize("cached", [0, 3])
def test_too_long_a_text(model, cached):
    cache = KVCache(TINY, 1, 100) if cached else None
    if cached:
        model(random_ids(1, cached), cache=cache)
    model(random_ids(1, 40), cache=cache)
    if cached:
        with pytest.raises(ValueError, match="49 tokens do not fit the context of 48: shorten the text"):
            model(random_ids(1, 6), cache=cache)
    with pytest.raises(ValueError, match="tokens do not fit the context of 48"):
        model(random_ids(1, 49), cache=cache)


def test_a_full_cache():
    with pytest.raises(ValueError, match="5 tokens do not fit the cache's 4: make it larger"):
        lively_gpt()(random_ids(1, 5), cache=KVCache(TINY, 1, 4))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match=r"n_embd \(16\) must be a multiple of n_head \(3\)"):
        GPTConfig(n_embd=16, n_head=3)
