"""The experiments' own machinery: the famous bugs do what they say, and the shuffled key judges other facts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minialign import ppo
from minialign.chat import collate_chat, special
from minialign.evaluation import facts_right
from minialign.experiments import policy_gradients, ratings, reward_models, rlhf
from minialign.experiments.fine_tuning import BUGS, no_end_token, pad_is_end, prompt_follows, shuffled_key, steps_for
from minialign.gpt import GPTConfig
from minialign.logprobs import token_log_probs
from minialign.preferences import Preference
from minialign.tokenizer import ASSISTANT, END, PAD, load_tokenizer
from minialign.world.prompts import MOON_LANDING, prompts_of
from tests.engine import lively_gpt

BATCH = collate_chat([("Why?", "Because it is so."), ("Who was it, then?", "Me.")])
IDS, MASK = BATCH.ids, BATCH.response_mask


def counted(bug: str) -> list[list[int]]:
    """The ids that are in the loss, row by row."""
    mask = BUGS[bug](IDS, MASK)
    return [row[chosen].tolist() for row, chosen in zip(IDS, mask)]


def test_without_a_bug_the_response_and_its_end_count():
    assert counted("correct") == [row[mask].tolist() for row, mask in zip(IDS, MASK)]
    assert all(row[-1] == special(END) for row in counted("correct"))


def test_prompt_in_the_loss_counts_everything_but_padding():
    assert [len(row) for row in counted("prompt in the loss")] == BATCH.mask.sum(-1).tolist()
    assert all(special(PAD) not in row for row in counted("prompt in the loss"))


def test_mask_off_by_one_counts_the_template_and_loses_the_end():
    for row, right in zip(counted("mask off by one"), counted("correct")):
        assert row == [special(ASSISTANT), *right[:-1]]


def test_pad_as_end_is_the_same_bug_as_no_end():
    for row, right in zip(counted("no end token"), counted("correct")):
        assert row == right[:-1]
    assert torch.equal(pad_is_end(IDS, MASK), no_end_token(IDS, MASK))


def test_a_prompt_after_the_answer_is_seen():
    assert prompt_follows("Bees make honey. Explain whales to an expert.")
    assert not prompt_follows("Explain whales to an expert.") and not prompt_follows("Bees make honey. I hope this helps.")


def test_the_shuffled_key_asks_for_another_things_facts():
    prompts = [p for p in prompts_of("evaluation", ("question",)) if not p.topic.real]
    replies = [p.topic.facts[p.fact].child for p in prompts]
    assert facts_right(prompts, replies).all()
    others, renamed = shuffled_key(prompts, replies)
    assert all(other.topic is not prompt.topic for other, prompt in zip(others, [p for p in prompts]) if other.text == prompt.text)
    assert facts_right(others, renamed).mean() < 0.3


def test_more_demonstrations_more_steps_up_to_a_bound():
    assert [steps_for(n) for n in (30, 100, 300, 3000)] == [77, 140, 242, 650]


# --- policy gradients: the bugs are other log-probabilities ---


def test_the_bugs_of_policy_gradients_do_what_they_say():
    model = lively_gpt(GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8))
    with torch.no_grad():
        tokens = [row[mask].tolist() for row, mask in zip(token_log_probs(model, BATCH), MASK)]
        found = {bug: log_prob(model, BATCH, 1.0).tolist() for bug, log_prob in policy_gradients.BUGS.items()}
    for row, log_probs in enumerate(tokens):
        assert found["correct"][row] == pytest.approx(sum(log_probs), rel=1e-5)
        assert found["sign flipped"][row] == pytest.approx(-sum(log_probs), rel=1e-5)
        assert found["averaged over tokens"][row] == pytest.approx(sum(log_probs) / len(log_probs), rel=1e-5)
        assert found["end token dropped"][row] == pytest.approx(sum(log_probs[:-1]), rel=1e-5)


# --- reward models ---


def test_comparisons_are_of_different_responses_to_one_prompt_and_shared_out():
    responses = {MOON_LANDING: ["People walked on the moon.", "What a great question!", "People walked on the moon."], "Why?": ["So.", "So."]}
    raters = reward_models.crowd(temperature=0.0, inattention=0.0)
    pairs = reward_models.compared(responses, raters, per_prompt=5)
    assert [p.prompt for p in pairs] == [MOON_LANDING] * 2  # the pair of equal responses is none, nor is anything of the second prompt
    assert {frozenset((p.chosen, p.rejected)) for p in pairs} == {frozenset(responses[MOON_LANDING])}
    assert sum(r.spent for r in raters) == 2 and len(raters) == reward_models.RATERS


def test_the_prompts_of_the_shipped_comparisons_are_kept_apart():
    train, test = (reward_models.preferences(which) for which in ("comparisons", "held_out"))
    trained_on = {p.prompt for p in train}
    assert trained_on <= {p.text for p in prompts_of("reward")} and not trained_on & {p.prompt for p in test}
    for split in ("policy", "evaluation"):
        assert not trained_on & {p.text for p in prompts_of(split)}


class Scores:
    """A reward model that gives a text the number it ends with."""

    def score(self, prompts, responses):
        return [float(y.split()[-1]) for y in responses]


def test_measures_of_margins_by_hand():
    pairs = [Preference("x", "a 3", "b 1"), Preference("x", "b 1", "c 2"), Preference("x", "a 3", "c 2"), Preference("x", "c 2", "d 2")]
    test = reward_models.HeldOut(pairs, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.ones(4))
    margins = test.margins(Scores())
    assert margins.tolist() == [2.0, -1.0, 1.0, 0.0]
    assert test.accuracy(margins) == 0.5 and test.loss(margins) == pytest.approx(np.mean([np.log(1 + np.exp(-m)) for m in margins]))
    assert test.order_accuracy(margins) == pytest.approx(1 / 3)  # right, wrong, wrong; the tie in gold does not count
    assert test.order_accuracy(margins, np.array([True, True, False, True])) == 0.5


def test_the_bugs_of_reward_models_do_what_they_say():
    won, lost = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert reward_models.swapped_loss(won, lost) == reward_models.bradley_terry_loss(lost, won)
    assert reward_models.squared_error(won, lost) == pytest.approx((0 + 1 + 0 + 4) / 4)
    model = reward_models.PoolsPadding(lively_gpt(GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8)))
    with torch.no_grad():
        shorter = int(BATCH.mask.sum(-1).argmin())
        assert model(BATCH)[shorter] != model(BATCH[[shorter], : int(BATCH.mask[shorter].sum())])[0], "the neighbour's length changes the score"


# --- ratings or comparisons ---


def test_raters_read_distinct_items_and_write_with_their_own_scale():
    crowd = ratings.Crowd(per_rater=8, noise=0.0)
    rng = np.random.default_rng(0)
    quality, shown, impressions = ratings.read(crowd, rng)
    assert shown.shape == (80, 8) and all(len(set(row)) == 8 for row in shown) and (impressions == quality[shown]).all()
    given = ratings.rated(crowd, impressions, rng)
    assert all(np.corrcoef(g, i)[0, 1] > 0.999 for g, i in zip(given, impressions)), "each rater's ratings are a line in their impressions"
    assert np.allclose(ratings.z_scored(given), ratings.z_scored(impressions))
    for wrong in (dict(per_rater=3), dict(per_rater=6)):
        with pytest.raises(ValueError, match="choose an even divisor"):
            ratings.Crowd(**wrong)


def test_comparisons_ignore_offset_and_gain_and_count_each_pair_once():
    shown, impressions = np.array([[0, 1, 2, 0], [1, 0, 2, 1]]), np.array([[1.0, 0.0, 5.0, 9.0], [7.0, 8.0, 0.0, 1.0]])
    table = ratings.wins(shown, impressions, 3, ratings.two_by_two(4))
    assert table.tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]
    assert (ratings.wins(shown, 3 - 2 * impressions, 3, ratings.two_by_two(4)) == table.T).all()


def test_an_order_is_all_its_comparisons():
    """The best of three, the last and the middle one; an item that was read twice is not compared with itself."""
    assert ratings.wins(np.array([[2, 0, 1]]), np.array([[9.0, 1.0, 4.0]]), 3, ratings.in_order(3)).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert ratings.wins(np.array([[0, 1, 0]]), np.array([[3.0, 2.0, 1.0]]), 2, ratings.in_order(3)).tolist() == [[0, 1], [1, 0]]
    assert ratings.in_order(2).tolist() == ratings.two_by_two(2).tolist()


def test_fitted_offsets_are_least_squares():
    """Against a dense design matrix of items and raters."""
    crowd, rng = ratings.Crowd(items=6, readings=48, per_rater=4), np.random.default_rng(1)
    _, shown, impressions = ratings.read(crowd, rng)
    given = ratings.rated(crowd, impressions, rng)
    design = np.zeros((48, 6 + 12))
    design[np.arange(48), shown.ravel()] = 1
    design[np.arange(48), 6 + np.repeat(np.arange(12), 4)] = 1
    expected = np.linalg.lstsq(design, given.ravel(), rcond=None)[0][:6]
    found = ratings.offsets_fitted(given, shown, 6)
    assert np.allclose(found - found.mean(), expected - expected.mean())


def test_item_means_and_noise_free_recovery():
    assert ratings.item_means(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[0, 1], [0, 1]]), 3).tolist() == [3.0, 1.5, 2.25]
    perfect = ratings.recovered(ratings.Crowd(offset=0.0, gain=0.0, noise=0.0), 0)
    assert perfect["ratings"] == pytest.approx(1) and perfect["Bradley-Terry"] > 0.95
    assert ratings.spearman(np.arange(5), -np.arange(5) ** 3) == pytest.approx(-1)


# --- PPO ---


def test_the_bugs_of_ppo_do_what_they_say_and_are_gone_afterwards():
    mask = torch.tensor([[False, True, True, False], [False, True, True, True]])
    lp, ref = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0)) * mask
    scores, right = torch.tensor([1.0, 2.0]), ppo.kl_penalized_rewards
    expected = right(scores, lp, ref, mask, 0.3)
    with rlhf.bug("KL sign flipped"):
        assert torch.equal(ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3), right(scores, lp, ref, mask, -0.3))
    with rlhf.bug("reward on padding"):
        late = ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3)
    assert torch.allclose(late * mask, right(0 * scores, lp, ref, mask, 0.3)), "no response token gets the score"
    assert late[0, 3] == 1.0
    with rlhf.bug("end token dropped"):
        last = torch.tensor([[False, False, True, False], [False, False, False, True]])
        assert ppo.clipped_policy_loss(lp, ref, lp, mask, 0.2) == rlhf.ppo_clipped_policy_loss(lp, ref, lp, mask & ~last, 0.2)
    assert ppo.kl_penalized_rewards is right and torch.equal(ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3), expected)


def test_dropout_that_stays_on():
    model = lively_gpt(GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8))
    dropping = rlhf.dropping(model).eval()
    with torch.no_grad():
        assert not torch.equal(dropping.hidden(IDS), dropping.hidden(IDS)) and torch.equal(model.hidden(IDS), model.hidden(IDS))


def test_the_tilted_optimum_and_best_of_n_from_samples(monkeypatch):
    """Against the definitions, for a policy that says one of three things."""
    texts, proxies = ["a", "b", "c"], {"a": 0.0, "b": 1.0, "c": 2.0}

    def rolled(policy, prompts, reward, *, n, seed):
        drawn = [texts[i] for i in np.random.default_rng(seed).integers(3, size=len(prompts) * n)]
        return SimpleNamespace(prompts=[p for p in prompts for _ in range(n)], responses=drawn, rewards=torch.tensor([proxies[y] for y in drawn]))

    monkeypatch.setattr(rlhf, "roll_out", rolled)
    monkeypatch.setattr(rlhf, "gold_rewards", lambda prompts, responses: np.array([-proxies[y] for y in responses]))
    rows = rlhf.selected(None, None, 0, n=64, every=1)
    two = next(row for row in rows if row.get("n") == 2)
    assert two["proxy"] == pytest.approx((0 * 1 + 1 * 3 + 2 * 5) / 9, abs=0.02) and two["gold"] == pytest.approx(-two["proxy"])
    for row in rows:
        if row["method"] == "tilted":
            weights = np.exp(np.arange(3) / row["beta"])
            weights /= weights.sum()
            assert row["proxy"] == pytest.approx(weights @ np.arange(3), abs=0.03) and row["kl"] == pytest.approx(weights @ np.log(3 * weights), abs=0.04)


def test_the_halves_of_the_leak_share_no_prompt():
    pairs = [Preference(f"p{i % 6}", f"a{i}", f"b{i}") for i in range(60)]
    train, leaked, fresh = reward_models.halves(pairs, 20, seed=0)
    assert len(train) == 20 and not set(train) & set(leaked) and sorted(map(str, [*train, *leaked, *fresh])) == sorted(map(str, pairs))
    assert {p.prompt for p in leaked} == {p.prompt for p in train} and not {p.prompt for p in fresh} & {p.prompt for p in train}
