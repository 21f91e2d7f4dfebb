"""The loss against Bradley and Terry's model, the score against one row at a time, the training against a
ranking that is known.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minialign import preferences, reward_model
from minialign.chat import load_chat
from minialign.gpt import GPTConfig
from minialign.preferences import Preference, compare
from minialign.reward_model import RewardModel, RewardModelConfig, bradley_terry_loss
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from tests.engine import batch_of, default_dtype, lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=2, n_head=2, n_embd=16)
QUICK = RewardModelConfig(steps=3, learning_rate=1e-2, warmup=0, prompts_per_step=2)
PROMPTS = ["Hello.", "Tell me about the moon.", "Why is the sky blue?"]
TEXTS = [
    ("Hello.", "Hi."),
    ("Hello.", ""),
    ("Tell me about the moon.", "It is round and far away."),
    ("Why is the sky blue?", "No."),
]
ASKED, ANSWERED = map(list, zip(*TEXTS))


KINDS = {"tokens": {}, "surprise": {"reads_surprise": True}, "likelihood": {"likelihood": True}}
every_kind = pytest.mark.parametrize("kind", KINDS)


def lively_model(kind: str = "surprise", config: GPTConfig = CONFIG) -> RewardModel:
    """A reward model on which everything that it reads has an effect."""
    model = RewardModel(lively_gpt(config), **KINDS[kind])
    with torch.no_grad():
        if kind == "surprise":
            model.surprise_embedding.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
        if kind == "likelihood":
            model.head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
            model.likelihood_weight.fill_(1.3)
    return model


@pytest.fixture(scope="module")
def model():
    return lively_model()


# --- the loss ---

CHOSEN, REJECTED = torch.randn(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


def test_the_loss_is_minus_the_log_likelihood_of_the_choices():
    likelihoods = [
        math.exp(w) / (math.exp(w) + math.exp(lose)) for w, lose in zip(CHOSEN.tolist(), REJECTED.tolist())
    ]
    loss = float(bradley_terry_loss(CHOSEN, REJECTED))
    assert loss == pytest.approx(-np.mean(np.log(likelihoods)), abs=1e-12)
    wrong = {
        "the sign": -torch.log(torch.sigmoid(REJECTED - CHOSEN)).mean(),
        "a sum": -torch.log(torch.sigmoid(CHOSEN - REJECTED)).sum(),
        "the probability": -torch.sigmoid(CHOSEN - REJECTED).mean(),
        "a hinge": (1 - (CHOSEN - REJECTED)).clamp(min=0).mean(),
        "the ratio": -torch.log(torch.sigmoid(CHOSEN / REJECTED)).mean(),
    }
    for name, value in wrong.items():
        assert abs(loss - float(value)) > 0.05, name


def test_a_shift_changes_nothing_and_knowing_nothing_costs_ln_2():
    assert float(bradley_terry_loss(CHOSEN + 5, REJECTED + 5)) == pytest.approx(
        float(bradley_terry_loss(CHOSEN, REJECTED)), abs=1e-12
    )
    assert (
        abs(float(bradley_terry_loss(CHOSEN + 5, REJECTED)) - float(bradley_terry_loss(CHOSEN, REJECTED)))
        > 0.1
    )
    assert float(bradley_terry_loss(CHOSEN, CHOSEN)) == pytest.approx(math.log(2))


def test_swapping_the_responses_turns_p_into_1_minus_p():
    for w, lose in zip(CHOSEN, REJECTED):
        p, swapped = (
            math.exp(-float(bradley_terry_loss(a[None], b[None]))) for a, b in ((w, lose), (lose, w))
        )
        assert p + swapped == pytest.approx(1, abs=1e-12)


def test_a_hopeless_pair_has_a_finite_loss_and_a_gradient():
    chosen = torch.tensor([-200.0], requires_grad=True)
    loss = bradley_terry_loss(chosen, torch.tensor([200.0]))
    loss.backward()
    assert loss.item() == pytest.approx(400) and chosen.grad.item() == pytest.approx(-1)


SCORES = np.array([-1.2, 0.3, 0.0, 2.0, 0.9])


def games_of(n: int) -> list[tuple[int, int]]:
    """(winner, loser) of n games, drawn from the Bradley-Terry model with SCORES."""
    rng = np.random.default_rng(0)
    games = []
    for _ in range(n):
        i, j = rng.choice(5, size=2, replace=False)
        games.append((i, j) if rng.random() < 1 / (1 + math.exp(SCORES[j] - SCORES[i])) else (j, i))
    return games


def best_scores(games) -> torch.Tensor:
    """By Newton's method on the counts: the oracle."""
    wins = torch.zeros(5, 5, dtype=torch.float64)
    for i, j in games:
        wins[i, j] += 1
    return exact.bradley_terry_optimum(wins)


def test_a_table_of_scores_recovers_the_ranking():
    games = games_of(600)
    winners, losers = torch.tensor(games).T
    table = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table], max_iter=200, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = bradley_terry_loss(table[winners], table[losers])
        loss.backward()
        return loss

    optimizer.step(closure)
    scores = (table - table.mean()).detach()
    torch.testing.assert_close(scores, best_scores(games), atol=1e-6, rtol=0)
    assert np.abs(scores.numpy() - (SCORES - SCORES.mean())).max() < 0.35
    assert scores.argsort().tolist() == SCORES.argsort().tolist()


# --- the score ---


def by_hand(model: RewardModel, prompt: str, response: str) -> float:
    """One row, without padding or masks: the trunk told the surprise of each response token, the head on the
    state of the end token, the mean log-probability of a response token.
    """
    asked, answered = load_chat().encode_prompt(prompt), load_chat().encode_response(response)
    assert answered[-1] == load_chat().end
    ids = torch.tensor([asked + answered])
    with torch.no_grad():
        added = torch.zeros(ids.shape[1], CONFIG.n_embd)
        if model.reader is not None:
            log_probs = model.reader(ids)[0].log_softmax(-1)
            for t in range(len(asked), ids.shape[1]):
                added[t] = min(8.0, -float(log_probs[t - 1, ids[0, t]])) * model.surprise_embedding
        states = model.trunk.hidden(ids, added=added[None])[0]
        reward = states[-1] @ model.head.weight[0] + model.head.bias[0]
        if model.likelihood_weight is not None:
            log_probs = model.trunk.head(states).log_softmax(-1)
            places = range(len(asked), ids.shape[1])
            likelihood = sum(log_probs[t - 1, ids[0, t]] for t in places) / len(answered)
            reward = reward + model.likelihood_weight * likelihood
        return float(model.gain * reward + model.bias)


@every_kind
def test_scores_by_hand(kind):
    model = lively_model(kind)
    with torch.no_grad():
        model.head.bias.fill_(0.7)
        model.gain.fill_(1.5)
        model.bias.fill_(-0.4)
    expected = [by_hand(model, x, y) for x, y in TEXTS]
    assert model(load_chat().collate(TEXTS)).tolist() == pytest.approx(expected, abs=1e-3)
    for batch_size in (1, 2, 64):
        scores = model.score(ASKED, ANSWERED, batch_size=batch_size)
        assert scores.shape == (4,) and scores.dtype == np.float64
        assert scores.tolist() == pytest.approx(expected, abs=1e-3)
    alone = model.score(*TEXTS[2])
    assert type(alone) is float and alone == pytest.approx(expected[2], abs=1e-3)
    assert np.diff(np.sort(expected)).min() > 0.02, "the test needs scores that differ"


def test_surprise_is_told_where_the_response_is_and_at_most_8_nats(model):
    batch = batch_of(
        [(load_chat().encode_prompt(x), load_chat().encode_response(y)) for x, y in TEXTS], left=3
    )
    told = model.told(batch)
    surprise = told @ model.surprise_embedding / model.surprise_embedding.square().sum()
    logits = model.reader(batch.ids, batch.mask)[:, :-1].transpose(1, 2)
    losses = F.pad(F.cross_entropy(logits, batch.ids[:, 1:], reduction="none"), (1, 0)) * batch.response_mask
    torch.testing.assert_close(surprise, losses.clamp(max=8), atol=1e-3, rtol=0)
    assert 0 < losses[batch.response_mask].min() < 7 and losses.max() > 9, (
        "the test needs surprises on both sides of the limit"
    )


@every_kind
def test_padding_and_batch_mates_change_nothing(kind):
    model = lively_model(kind)
    pairs = [(load_chat().encode_prompt(x), load_chat().encode_response(y)) for x, y in TEXTS]
    alone = torch.cat([model(batch_of([pair])) for pair in pairs])
    for options in (dict(), dict(left=5), dict(width=28), dict(left=2, width=28, pad=load_chat().end)):
        torch.testing.assert_close(model(batch_of(pairs, **options)), alone, atol=1e-3, rtol=0)
    torch.testing.assert_close(model(batch_of(pairs[2:])), alone[2:], atol=1e-3, rtol=0)


def test_without_experience_surprise_says_nothing():
    start = lively_gpt(CONFIG)
    blank, plain = RewardModel(start, reads_surprise=True), RewardModel(start)
    assert plain.reader is None and not blank.surprise_embedding.any()
    np.testing.assert_array_equal(blank.score(ASKED, ANSWERED), plain.score(ASKED, ANSWERED))
    assert np.abs(lively_model().score(ASKED, ANSWERED) - plain.score(ASKED, ANSWERED)).min() > 0.01


def test_the_head_begins_as_in_the_literature():
    start = lively_gpt(replace(CONFIG, n_layer=0, n_embd=4096, vocab_size=8))
    heads = [RewardModel(start, seed=seed, reads_surprise=False).head for seed in (0, 0, 1)]
    assert heads[0].weight.std().item() == pytest.approx(4097**-0.5, rel=0.05)
    assert abs(heads[0].weight.mean().item()) < 4 * 4097**-0.5 / 64 and not heads[0].bias.any()
    assert same_parameters(heads[0], heads[1]) and not same_parameters(heads[0], heads[2])
    assert same_parameters(heads[0], RewardModel(start, reads_surprise=False).head)


def test_without_experience_the_likelihood_alone_counts():
    """And it is a mean over the response: neither a sum, nor over the prompt as well."""
    start = lively_gpt(CONFIG)
    model = RewardModel(start, likelihood=True)
    assert not model.head.weight.any() and model.likelihood_weight.requires_grad
    batch = load_chat().collate(TEXTS)
    found = model(batch) / model.likelihood_weight
    losses = F.cross_entropy(start(batch.ids, batch.mask)[:, :-1].mT, batch.ids[:, 1:], reduction="none")
    response, real = batch.response_mask[:, 1:], batch.mask[:, 1:]
    torch.testing.assert_close(found, -(losses * response).sum(-1) / response.sum(-1), atol=1e-3, rtol=0)
    for wrong in (-(losses * response).sum(-1), -(losses * real).sum(-1) / real.sum(-1)):
        assert (found - wrong).abs().max() > 0.1


def test_what_learns_from_comparisons_with_a_likelihood():
    """Trunk, head and weight; the model that it started from stays."""
    start = lively_gpt(CONFIG)
    model = RewardModel(start, likelihood=True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    reward_model.train(model, BETTER, QUICK)
    # A constant cancels in the loss: of the head's bias only weight decay could make something.
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed >= before.keys() - {"head.bias"} and same_parameters(start, lively_gpt(CONFIG))


# --- normalisation ---


def test_normalised_scores_have_mean_0_and_deviation_1():
    model = lively_model()
    before = model.score(ASKED, ANSWERED)
    assert abs(before.mean()) > 0.1 and abs(before.std() - 1) > 0.1
    for _ in range(2):  # the second time changes nothing
        model.normalise(ASKED, ANSWERED)
        after = model.score(ASKED, ANSWERED)
        assert after.mean() == pytest.approx(0, abs=1e-5) and after.std() == pytest.approx(1, abs=1e-5)
    # no other scale, and no sign
    np.testing.assert_allclose(after, (before - before.mean()) / before.std(), atol=1e-4)
    elsewhere = model.score(["Hello."], ["Who are you?"])
    assert abs(elsewhere[0]) > 0.01  # a constant of these texts, not of every batch


def test_of_many_texts_a_random_sample_sets_the_scale():
    """The first ones would be about a few topics: here, they are all short."""
    model = lively_model()
    prompts = ["Hello."] * 40
    responses = ["Yes!", "No."] * 10 + [f"Never {word}, not at all." for word in "abcdefghijklmnopqrst"]
    scores = model.score(prompts, responses)
    model.normalise(prompts, responses, n=20)
    found = model.score(prompts, responses)
    drawn = sorted(np.random.default_rng(0).permutation(40)[:20])
    assert len(set(drawn)) == 20 and 4 < sum(i < 20 for i in drawn) < 16, "the test needs both kinds"
    expected = (scores - scores[drawn].mean()) / scores[drawn].std()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    first = (scores - scores[:20].mean()) / scores[:20].std()
    assert np.abs(found - first).max() > 0.5, "the first ones instead"
    gains = []
    for seed in (0, 0, 1):
        model.normalise(prompts, responses, n=20, seed=seed)
        gains.append(float(model.gain))
    assert gains[0] == pytest.approx(gains[1], rel=1e-5) and abs(gains[2] / gains[0] - 1) > 1e-3
    model.normalise(prompts, responses)  # they are fewer than 512: all of them
    assert model.score(prompts, responses).mean() == pytest.approx(0, abs=1e-5)
    with pytest.raises(ValueError, match="shorter than"):
        model.normalise(prompts, responses[:-1])


def test_the_scale_is_saved_and_not_trained():
    model = lively_model()
    model.normalise(ASKED, ANSWERED)
    scale = (model.gain.clone(), model.bias.clone())
    reward_model.train(model, BETTER, QUICK)
    assert (model.gain, model.bias) == scale
    again = RewardModel(lively_gpt(CONFIG), reads_surprise=True)
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.score(ASKED, ANSWERED), model.score(ASKED, ANSWERED))


def test_equal_scores_have_no_scale():
    model = lively_model()
    with torch.no_grad():
        model.head.weight.zero_()
    with pytest.raises(ValueError, match="the same score: there is no scale to normalise to"):
        model.normalise(ASKED, ANSWERED)


# --- comparisons and training ---

# Three responses to each prompt, the first better than the second and the second better than the third.
ANSWERS = ("Yes!", "Maybe so.", "No, never, not at all.")
BETTER = [Preference(x, ANSWERS[i], ANSWERS[j]) for i, j in ((0, 1), (1, 2), (0, 2)) for x in PROMPTS]


def test_every_response_is_encoded_once():
    pairs = [*BETTER, *BETTER[:2]]
    comparisons = compare(pairs, lively_gpt(CONFIG))
    assert len(comparisons.batch) == 9 and comparisons.weight == 11
    rows = [
        load_tokenizer().decode(ids[mask].tolist()).removesuffix("<|end|>")
        for ids, mask in zip(comparisons.batch.ids, comparisons.batch.response_mask)
    ]
    prompts = [
        load_tokenizer().decode(ids[mask].tolist())
        for ids, mask in zip(comparisons.batch.ids, comparisons.batch.mask & ~comparisons.batch.response_mask)
    ]
    for pair, w, lose in zip(pairs, comparisons.chosen, comparisons.rejected, strict=True):
        assert (rows[w], rows[lose]) == (pair.chosen, pair.rejected)
        # the same words to another prompt are another row
        assert prompts[w] == prompts[lose] == f"<|user|>{pair.prompt}<|assistant|>"


def naive(model, pairs) -> tuple[float, list[float], list[float]]:
    """The mean over pairs, each response read alone, as often as it occurs; the margins; and the rewards of
    the different responses.
    """
    margins = [by_hand(model, p.prompt, p.chosen) - by_hand(model, p.prompt, p.rejected) for p in pairs]
    rewards = {(p.prompt, y): by_hand(model, p.prompt, y) for p in pairs for y in (p.chosen, p.rejected)}
    return float(np.mean([math.log1p(math.exp(-m)) for m in margins])), margins, list(rewards.values())


@every_kind
def test_a_step_is_the_naive_loss_over_pairs(kind):
    """Some pairs twice, and unequally many for each prompt: pairs count, not prompts and not responses."""
    pairs = [*BETTER, BETTER[0], BETTER[0], Preference(PROMPTS[0], "No, never, not at all.", "Yes!")]
    model = lively_model(kind)
    loss, margins, rewards = naive(model, pairs)
    rows = []
    hidden = model.trunk.hidden
    model.trunk.hidden = lambda ids, *args, **options: (rows.append(len(ids)), hidden(ids, *args, **options))[
        1
    ]
    (metrics,) = reward_model.train(model, pairs, replace(QUICK, steps=1, prompts_per_step=3))
    assert rows == [9]
    assert metrics["loss"] == pytest.approx(loss, rel=1e-3)
    assert metrics["accuracy"] == pytest.approx(np.mean(np.array(margins) > 0))
    assert metrics["margin"] == pytest.approx(np.mean(margins), abs=1e-3)
    assert metrics["mean_reward"] == pytest.approx(np.mean(rewards), abs=1e-3)
    assert 0 < metrics["accuracy"] < 1 and metrics["grad_norm"] > 0


def test_all_pairs_of_a_prompt_are_in_one_batch(monkeypatch):
    seen, encode = [], preferences.compare
    monkeypatch.setattr(
        preferences, "compare", lambda pairs, *rest: (seen.append(list(pairs)), encode(pairs, *rest))[1]
    )
    pairs = [pair for i in (2, 0, 1) for pair in BETTER[i::3]] + [Preference(PROMPTS[1], "Yes!", "No.")]
    reward_model.train(lively_model(), pairs[::-1], replace(QUICK, steps=4))
    for first, second in (seen[:2], seen[2:]):  # an epoch: 3 prompts, 2 at a time
        assert sorted(map(str, first + second)) == sorted(map(str, pairs))
        assert not {p.prompt for p in first} & {p.prompt for p in second}
        assert {len({p.prompt for p in batch}) for batch in (first, second)} == {1, 2}


@every_kind
def test_what_is_preferred_is_learned(kind):
    """Responses with an exclamation mark are liked better; the words and prompts of the test were never seen
    together.
    """
    words = ["Yes", "No", "It is", "Perhaps", "The moon", "Nobody knows", "Of course", "Well"]
    asked = [
        f"{a} {b}?" for a in ("Why", "How", "When", "Who") for b in ("is it", "was that", "are we", "does it")
    ]
    pairs = [
        Preference(x, f"{words[(i + k) % 8]}!", f"{words[(i + k + 3) % 8]}.")
        for i, x in enumerate(asked)
        for k in range(3)
    ]
    train, test = pairs[:36], pairs[36:]
    model = RewardModel(lively_gpt(CONFIG), **KINDS[kind])

    def accuracy():
        chosen = model.score([p.prompt for p in test], [p.chosen for p in test])
        return np.mean(chosen > model.score([p.prompt for p in test], [p.rejected for p in test]))

    assert accuracy() < 0.8
    history = reward_model.train(model, train, RewardModelConfig(steps=40, learning_rate=1e-2, warmup=0))
    assert history[0]["loss"] > 0.5 and history[-1]["loss"] < 0.2 and history.column("margin")[-1] > 2
    assert accuracy() > 0.9 and not model.training


def test_contradicting_judgements_give_the_odds():
    """Games between five responses, some lost by the better: a GPT ends at the scores that make the games
    most likely.
    """
    answers = ["Yes.", "No!", "Maybe", "Ask me.", "Who knows?"]
    games = games_of(150)
    pairs = [Preference("Hello.", answers[i], answers[j]) for i, j in games]
    model = RewardModel(lively_gpt(CONFIG))
    reward_model.train(
        model, pairs, RewardModelConfig(steps=150, learning_rate=1e-2, warmup=0, weight_decay=0.0)
    )
    scores = model.score(["Hello."] * 5, answers)
    np.testing.assert_allclose(scores - scores.mean(), best_scores(games), atol=0.02)


def test_reader_and_start_stay_as_they_were():
    start = lively_gpt(CONFIG)
    model = RewardModel(start, reads_surprise=True)
    reward_model.train(model, BETTER, QUICK)
    assert same_parameters(start, lively_gpt(CONFIG)) and same_parameters(model.reader, start)
    assert not same_parameters(model.trunk, start) and model.surprise_embedding.any()
    assert all(p.requires_grad for p in start.parameters()) and not any(
        p.requires_grad for p in model.reader.parameters()
    )


def test_the_same_seed_takes_the_same_path():
    models = [lively_model() for _ in range(3)]
    histories = [
        reward_model.train(m, BETTER, replace(QUICK, prompts_per_step=1, seed=seed))
        for m, seed in zip(models, (0, 0, 3))
    ]
    assert histories[0] == histories[1] != histories[2]
    assert same_parameters(models[0], models[1]) and not same_parameters(models[0], models[2])


# --- errors ---


def test_errors_say_what_to_do():
    model = lively_model()
    with pytest.raises(ValueError, match="the data set is empty"):
        reward_model.train(model, [], QUICK)
    long = "very " * 40
    with pytest.raises(ValueError, match="the model's context holds 32: shorten"):
        reward_model.train(model, [Preference("Hello.", long, "Hi.")], QUICK)
    with pytest.raises(ValueError, match="the model's context holds 32: shorten"):
        model.score(["Hello."], [long])
    with pytest.raises(ValueError, match="shorter"):
        model.score(["Hello.", "Why?"], ["Hi."])


# --- ties ---


def test_a_pair_of_equal_scores_is_no_hit():
    """A model that says the same of everything is never right."""
    model = lively_model()
    with torch.no_grad():
        model.head.weight.zero_()
    (metrics,) = reward_model.train(model, BETTER, replace(QUICK, steps=1, prompts_per_step=3))
    assert metrics["accuracy"] == 0 == metrics["margin"]


# --- what a small change would spoil ---


def test_the_head_begins_at_its_own_scale_in_a_narrow_model_too():
    start = lively_gpt(replace(CONFIG, n_layer=0, n_embd=2))
    drawn = torch.randn(1, 2, generator=torch.Generator().manual_seed(5))
    head = RewardModel(start, seed=5, reads_surprise=False).head
    torch.testing.assert_close(head.weight.detach(), drawn / 3**0.5)


@pytest.mark.parametrize("context", [30, 31, 32, 33])
def test_how_long_a_response_may_be(context):
    """What was cut off may read a quarter longer than the room it had, and no more."""
    model = lively_model("tokens", replace(CONFIG, context=context))
    chat = load_chat()
    room = context - len(chat.encode_prompt("Hello."))
    longest = chat.decode(chat.encode(" moon") * (room + room // 4))
    assert len(chat.encode(longest)) == room + room // 4
    assert model.score("Hello.", longest) == model.score("Hello.", longest[: len(" moon") * room])
    with pytest.raises(ValueError, match="shorten the prompt or the response"):
        model.score("Hello.", longest + " moon")
    half_characters = "\ufffd" * room  # each was a token, and is written as several
    assert len(chat.encode(half_characters)) > 2 * room and np.isfinite(
        model.score("Hello.", half_characters)
    )


def test_a_prompt_that_leaves_no_room_is_refused():
    model = lively_model("tokens")
    chat = load_chat()
    template = len(chat.encode_prompt(""))
    for free, fits in ((1, True), (0, False), (-1, False)):
        prompt = chat.decode(chat.encode(" moon") * (CONFIG.context - template - free)).lstrip()
        prompt = prompt if len(chat.encode_prompt(prompt)) == CONFIG.context - free else " " + prompt
        assert len(chat.encode_prompt(prompt)) == CONFIG.context - free
        if fits:
            assert np.isfinite(model.score(prompt, ""))
        else:
            with pytest.raises(ValueError, match="shorten the prompt"):
                model.score(prompt, "")


def test_who_does_not_read_surprise_has_no_reader_and_learns_no_embedding():
    told, plain = (RewardModel(lively_gpt(CONFIG), reads_surprise=told) for told in (True, False))
    trained = {name for name, parameter in told.named_parameters() if parameter.requires_grad}
    assert trained - dict(plain.named_parameters()).keys() == {"surprise_embedding"}
    assert all(parameter.requires_grad for parameter in plain.parameters())


def test_the_scale_is_in_single_precision_whatever_the_default_is():
    with default_dtype(torch.float64):
        model = RewardModel(lively_gpt(CONFIG).float())
    assert model.gain.dtype == model.bias.dtype == torch.float32


def test_scores_are_made_a_few_rows_at_a_time(monkeypatch):
    model, seen = lively_model("tokens"), []
    hidden = model.trunk.hidden
    monkeypatch.setattr(
        model.trunk, "hidden", lambda ids, *a, **k: seen.append(len(ids)) or hidden(ids, *a, **k)
    )
    model.score(ASKED, ANSWERED, batch_size=3)
    assert seen == [3, 1]
