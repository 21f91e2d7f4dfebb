"""Generation: the right distribution, rows that do not notice each other, and ends that are ends."""

import pytest
import torch
from engine import TINY, default_dtype, favour, gpt2, lively_gpt, random_ids, same_parameters
from scipy.stats import chisquare

from minialign.chat import load_chat
from minialign.gpt import GPT, GPTConfig
from minialign.logprobs import token_log_probs
from minialign.sampling import draw, generate, next_token_probabilities
from minialign.tokenizer import load_tokenizer

pytestmark = pytest.mark.usefixtures("toy_data")

PROMPTS = [random_ids(length, seed=length).tolist() for length in (5, 12, 1, 9, 3, 7)]
END_ID, PAD_ID = 259, 260  # of the toy tokenizer


@pytest.fixture
def model():
    return lively_gpt()


@pytest.fixture
def stopping():
    """A model that ends its responses after a few tokens, each row at another time."""
    return favour(lively_gpt(), END_ID, 3.0)


def responses(generation):
    """The response tokens of every row, padding left out."""
    return [ids[seen].tolist() for ids, seen in zip(generation.batch.ids, generation.batch.response_mask)]


def test_the_toy_ids():
    assert (load_chat().end, load_chat().pad) == (END_ID, PAD_ID)


# --- which tokens ---


def test_greedy_is_transformers_greedy(stopping):
    theirs = gpt2(stopping)
    ours = generate(stopping, PROMPTS, temperature=0, max_new_tokens=30)
    options = dict(do_sample=False, max_new_tokens=30, eos_token_id=END_ID, pad_token_id=PAD_ID)
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([prompt])
        expected.append(
            theirs.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()
        )
    assert responses(ours) == expected
    assert len({len(y) for y in expected}) > 2, "the test needs rows that stop at different times"


def test_a_batch_is_its_rows(model):
    together = generate(model, PROMPTS, temperature=0, max_new_tokens=10)
    alone = [responses(generate(model, [prompt], temperature=0, max_new_tokens=10))[0] for prompt in PROMPTS]
    assert responses(together) == alone


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_frequencies_are_the_softmax(model, temperature):
    n, prompt = 10_000, PROMPTS[0]
    sampled = generate(model, [prompt], n=n, temperature=temperature, max_new_tokens=1)
    counts = torch.bincount(sampled.batch.ids[:, -1], minlength=TINY.vocab_size)

    def p_value(at_temperature):
        logits = model(torch.tensor([prompt]))[0, -1].detach().double() / at_temperature
        expected = n * logits[:PAD_ID].softmax(-1)  # without <|pad|>
        often = expected >= 5
        bins = [torch.cat([x[often], x[~often].sum()[None]]) for x in (counts[:PAD_ID], expected)]
        return chisquare(*bins).pvalue

    assert p_value(temperature) > 0.01
    assert p_value(temperature * 1.2) < 1e-6 and p_value(temperature / 1.2) < 1e-6


def test_the_second_token_follows_the_first(model):
    """χ² over the second token, given the most frequent first one: the cache and its copies hold the right
    things.
    """
    n, prompt = 5000, PROMPTS[1]
    tokens = generate(model, [PROMPTS[0], prompt], n=n, temperature=0.5, max_new_tokens=2).batch.ids[n:, -2:]
    first = int(tokens[:, 0].mode().values)
    second = tokens[tokens[:, 0] == first][:, 1]
    assert len(second) > 500

    def p_value(context):
        expected = len(second) * (model(torch.tensor([context]))[0, -1] / 0.5)[
            :PAD_ID
        ].detach().double().softmax(-1)
        often = expected >= 5
        counts = torch.bincount(second, minlength=TINY.vocab_size)[:PAD_ID]
        return chisquare(*[torch.cat([x[often], x[~often].sum()[None]]) for x in (counts, expected)]).pvalue

    assert p_value([*prompt, first]) > 0.01
    assert p_value([*PROMPTS[0], first]) < 1e-6 and p_value(prompt) < 1e-6


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_padding_is_never_drawn(model, temperature):
    favour(model, PAD_ID, 20.0)
    probability = model(torch.tensor([PROMPTS[0]]))[0, -1].softmax(-1)[PAD_ID].item()
    assert probability > 0.99
    generated = generate(model, PROMPTS, n=20, temperature=temperature, max_new_tokens=5, ends=())
    assert all(PAD_ID not in row and len(row) == 5 for row in responses(generated))


def test_next_token_probabilities_by_hand():
    """At temperature 1/2 the odds are squared."""
    probabilities = next_token_probabilities(torch.tensor([[4.0, 1.0, 2.0]]).log(), 0.5)
    torch.testing.assert_close(probabilities, torch.tensor([[16.0, 1.0, 4.0]]) / 21)


# --- log-probs ---


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_the_scorers(stopping, temperature):
    """Also where <|pad|> is likely: the sampler must not renormalise what the scorer does not."""
    favour(stopping, PAD_ID, 4.0)
    generated = generate(stopping, PROMPTS, n=3, temperature=temperature, max_new_tokens=12)
    scored = token_log_probs(stopping, generated.batch, temperature)
    torch.testing.assert_close(generated.log_probs, scored.detach(), atol=1e-4, rtol=0)
    assert generated.log_probs.dtype == torch.float32
    assert (
        generated.log_probs - token_log_probs(stopping, generated.batch, temperature * 1.3)
    ).abs().max() > 0.1


def test_samples_of_one_prefill_are_separate_rows(stopping):
    """The n samples of a prompt lie side by side, and are what the prompt would give when written n times."""
    shared = generate(stopping, PROMPTS, n=4, max_new_tokens=8)
    separate = generate(stopping, [prompt for prompt in PROMPTS for _ in range(4)], max_new_tokens=8)
    assert torch.equal(shared.batch.ids, separate.batch.ids)
    torch.testing.assert_close(shared.log_probs, separate.log_probs, atol=1e-5, rtol=0)
    assert len({tuple(row) for row in responses(shared)[:4]}) > 1


# --- the end ---


def test_rows_freeze_after_the_end_token(stopping):
    generated = generate(stopping, PROMPTS, n=10, max_new_tokens=20)
    lengths = set()
    for i, row in enumerate(generated.batch.ids.tolist()):
        row = row[len(PROMPTS[i // 10]) :]
        length = row.index(END_ID) + 1 if END_ID in row else 20
        lengths.add(length)
        assert set(row[length:]) <= {PAD_ID} and PAD_ID not in row[:length]
        assert generated.batch.response_mask[i].sum() == length
        assert bool(generated.finished[i]) == (END_ID in row)
    assert len(lengths) > 5
    assert not generated.log_probs[~generated.batch.response_mask].any()
    assert (generated.log_probs[generated.batch.response_mask] < 0).all()


def test_early_stop_saves_work_and_changes_nothing(stopping, monkeypatch):
    calls = []
    hidden = stopping.hidden
    monkeypatch.setattr(
        stopping, "hidden", lambda ids, *arguments: calls.append(len(ids)) or hidden(ids, *arguments)
    )
    short = generate(stopping, PROMPTS, temperature=0, max_new_tokens=36)
    longest = max(map(len, responses(short)))
    assert short.finished.all() and longest < 30
    assert len(calls) == longest  # the prefill and one call for each token but the last
    still = [sum(len(response) > t for response in responses(short)) for t in range(longest)]
    # ended rows are laid aside
    assert all(left <= rows < 2 * left for left, rows in zip(still, calls)) and calls[0] == 6 > calls[-1]
    assert short.batch.ids.shape[1] == max(
        len(prompt) + len(response) for prompt, response in zip(PROMPTS, responses(short))
    )
    alone = [
        responses(generate(stopping, [prompt], temperature=0, max_new_tokens=36))[0] for prompt in PROMPTS
    ]
    assert responses(short) == alone


def test_the_batch_is_padded_on_the_right_and_no_wider_than_its_longest_row(stopping):
    generated = generate(stopping, PROMPTS, n=5, max_new_tokens=20)
    mask, rows = generated.batch.mask, responses(generated)
    wanted = [[*PROMPTS[i // 5], *row] for i, row in enumerate(rows)]
    assert [ids[real].tolist() for ids, real in zip(generated.batch.ids, mask)] == wanted and len(
        {*map(len, wanted)}
    ) > 5
    assert (
        mask.tolist() == [[True] * len(row) + [False] * (mask.shape[1] - len(row)) for row in wanted]
        and mask[:, -1].any()
    )
    assert (generated.batch.ids[~mask] == PAD_ID).all() and not generated.batch.response_mask[~mask].any()


def test_texts_are_the_responses_without_the_end(stopping):
    favour(stopping, ord("a"), 3.0)
    generated = generate(stopping, PROMPTS, n=5, max_new_tokens=10)
    for text, row in zip(generated.texts, responses(generated)):
        assert text == load_tokenizer().decode(row).removesuffix("<|end|>")
    assert (
        any("a" in text for text in generated.texts)
        and not generated.finished.all()
        and generated.finished.any()
    )


def test_without_an_end_token_it_never_stops(stopping):
    generated = generate(stopping, PROMPTS, max_new_tokens=20, ends=())
    assert all(len(row) == 20 for row in responses(generated)) and any(
        END_ID in row for row in responses(generated)
    )
    assert not generated.finished.any()


def test_the_context_cuts_a_response_off(model):
    generated = generate(model, [random_ids(40).tolist(), [1]], max_new_tokens=100, ends=())
    assert generated.batch.ids.shape == (2, 48) and not generated.finished.any()


# --- seeds and side effects ---


def test_the_seed_belongs_to_the_call(model):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = generate(model, PROMPTS, seed=5, max_new_tokens=6).batch.ids
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(generate(model, PROMPTS, seed=5, max_new_tokens=6).batch.ids, first)
    assert not torch.equal(generate(model, PROMPTS, seed=6, max_new_tokens=6).batch.ids, first)


def test_generation_leaves_the_model_as_it_was(model):
    before = lively_gpt()
    for training in (True, False):
        model.train(training)
        assert not generate(model, PROMPTS, max_new_tokens=2).log_probs.requires_grad
        assert model.training == training
    assert same_parameters(model, before)


def test_no_dropout_while_generating():
    model = GPT(GPTConfig(**(vars(TINY) | {"dropout": 0.5}))).train()
    first, second = (generate(model, PROMPTS, temperature=0, max_new_tokens=5) for _ in range(2))
    assert torch.equal(first.log_probs, second.log_probs)


# --- errors ---


@pytest.mark.parametrize("temperature", [0, -1])
def test_no_probabilities_without_a_temperature(temperature):
    with pytest.raises(
        ValueError, match=f"the temperature is {temperature}: probabilities need one from 1e-06 to 10,000"
    ):
        next_token_probabilities(torch.zeros(3), temperature)


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_nothing_to_continue(model, prompts):
    with pytest.raises(
        ValueError, match="there is nothing to continue: give at least one prompt, and no empty one"
    ):
        generate(model, prompts)


def test_a_prompt_that_fills_the_context(model):
    with pytest.raises(ValueError, match="a prompt has 48 tokens, the context holds 48: shorten the prompt"):
        generate(model, [random_ids(48).tolist()])


@pytest.mark.parametrize("options", [dict(n=0), dict(max_new_tokens=0)])
def test_nothing_wanted(model, options):
    with pytest.raises(ValueError, match="both must be at least 1"):
        generate(model, PROMPTS, **options)


def test_a_negative_temperature(model):
    with pytest.raises(ValueError, match="the temperature is -1: .*; 0 is greedy decoding"):
        generate(model, PROMPTS, temperature=-1)


# --- what a small change would spoil ---


def test_left_out_one_response_of_96_tokens_at_temperature_1():
    config = GPTConfig(**(vars(TINY) | {"context": 128}))
    model = lively_gpt(config)
    plain = generate(model, PROMPTS, ends=())
    assert plain.batch.response_mask.sum(-1).tolist() == [96] * len(PROMPTS)
    spelled = generate(model, PROMPTS, n=1, max_new_tokens=96, temperature=1.0, seed=0, ends=())
    assert torch.equal(plain.batch.ids, spelled.batch.ids)


def test_ended_rows_are_laid_aside_when_they_are_half(stopping, monkeypatch):
    """Not before, for each time the cache is copied; and not never, for they would be computed to the end."""
    calls, hidden = [], stopping.hidden
    monkeypatch.setattr(
        stopping, "hidden", lambda ids, *arguments: calls.append(len(ids)) or hidden(ids, *arguments)
    )
    generated = generate(stopping, PROMPTS, n=8, max_new_tokens=30, ends=[END_ID])
    lengths = list(map(len, responses(generated)))
    expected, rows = [len(PROMPTS)], len(lengths)
    for t in range(1, max(lengths)):
        left = sum(length > t for length in lengths)
        rows = left if 2 * left <= rows else rows
        expected.append(rows)
    assert calls == expected and len(set(expected)) == 3


def test_half_precision_samples_by_a_full_softmax():
    """In bfloat16 the log-probabilities would be wrong by hundredths of a nat."""
    half = lively_gpt().bfloat16()
    generated = generate(half, PROMPTS, max_new_tokens=8)
    scored = token_log_probs(half, generated.batch).detach()
    logits = half(generated.batch.ids, generated.batch.mask)
    coarse = logits.log_softmax(-1)[:, :-1].gather(-1, generated.batch.ids[:, 1:, None])[..., 0]
    seen = generated.batch.response_mask
    assert generated.log_probs.dtype == torch.float32
    assert (generated.log_probs - scored)[seen].abs().mean() < (coarse - scored[:, 1:])[
        seen[:, 1:]
    ].abs().mean() / 3


def test_draws_by_hand():
    """Each number between 0 and 1 falls into the part of one token: the last is drawn too, <|pad|> is not."""
    logits = torch.tensor([[0.1, 0.3, 0.2, 0.4]]).log()
    for uniform, token in ((0.01, 0), (0.14, 0), (0.15, 2), (0.42, 2), (0.44, 3), (1.0, 3)):
        drawn, log_prob = draw(logits, 1.0, torch.tensor([[uniform]]), pad=1)
        assert drawn.tolist() == [token] and log_prob.item() == pytest.approx(logits[0, token].item())
    drawn, log_prob = draw(logits, 0, torch.tensor([[0.01]]), pad=3)
    assert drawn.tolist() == [1] and log_prob.item() == pytest.approx(logits[0, 1].item())


def test_what_is_drawn_does_not_depend_on_the_default_dtype(model):
    expected = generate(model, PROMPTS, n=3, max_new_tokens=6)
    with default_dtype(torch.float64):
        found = generate(model, PROMPTS, n=3, max_new_tokens=6)
    assert torch.equal(found.batch.ids, expected.batch.ids)
    assert found.log_probs.dtype == torch.float32 and torch.equal(found.log_probs, expected.log_probs)


def test_whether_a_response_has_ended_is_a_mask(stopping):
    generated = generate(stopping, PROMPTS, n=4, max_new_tokens=6, ends=[END_ID])
    assert generated.finished.dtype == torch.bool and len(set(generated.finished.tolist())) == 2


def test_what_has_no_probability_is_never_drawn_not_even_at_the_end():
    """The probabilities add up to a little less than 1, and the last tokens have none."""
    logits = torch.randn(64, 4096, generator=torch.Generator().manual_seed(0))
    logits[:, -3:] = -torch.inf
    sums = logits.softmax(-1).cumsum(-1)[:, -1]
    assert (sums < 1).any() and (sums > 1).any()
    drawn, log_prob = draw(logits, 1.0, torch.ones(64, 1), pad=0)
    assert log_prob.isfinite().all() and (drawn < 4093).all()
