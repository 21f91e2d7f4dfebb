"""Notebook 05's experiments: arms and rules by constructed rows, measures on tiny models, bugs that do what
they say.
"""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minialign import ppo, reward_model
from minialign.chat import load_chat
from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import SEEDS, critics, goodhart, measuring, ppo_bugs, ppo_exact, rlhf
from minialign.course.experiments.comparisons import crowd
from minialign.course.experiments.rlhf import WARMUP, Arm
from minialign.critic import Critic
from minialign.gpt import GPTConfig
from minialign.logprobs import token_log_probs
from minialign.ppo import PPOConfig
from minialign.reward_model import RewardModel
from minialign.tokenizer import load_tokenizer
from minialign.world import exact
from minialign.world.annotator import TYPICAL, typical_annotator
from minialign.world.judge import gold_rewards
from minialign.world.prompts import parse, prompts_of
from tests.engine import lively_gpt, same_parameters

CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=64, n_layer=1, n_head=2, n_embd=8)
BATCH = load_chat().collate([("Why?", "Because it is so."), ("Who was it, then?", "Me.")])
# Responses of three tokens and one, and padding.
MASK = torch.tensor([[False, True, True, True], [False, False, True, False]])


# --- arms ---


def test_an_arm_is_a_setting_of_ppo_and_all_take_as_many_samples():
    start = PPOConfig(steps=20, beta=0.1)
    of = {name: arm.applied(start) for name, arm in critics.ARMS.items()}
    assert len(of) == 8 and {config.steps + config.critic_warmup for config in of.values()} == {20}
    assert of["λ = 0.95, warm critic"] == replace(start, steps=20 - WARMUP, critic_warmup=WARMUP, lam=0.95)
    assert of["λ = 1, cold critic"] == of["λ = 1, reward model critic"] == replace(start, lam=1.0)
    assert of["RLOO"] == replace(start, advantages="rloo", lam=1.0)
    assert of["GRPO"].advantages == "grpo" and of["GRPO"].critic_warmup == 0


def test_only_one_arm_brings_a_critic_along():
    reward = RewardModel(lively_gpt(CONFIG))
    brought = {name: arm.critic(reward) for name, arm in critics.ARMS.items()}
    assert {name for name, critic in brought.items() if critic is not None} == {
        "λ = 0.95, reward model critic",
        "λ = 1, reward model critic",
    }
    found = brought["λ = 1, reward model critic"]
    assert isinstance(found, Critic) and same_parameters(found.trunk, reward.trunk)


@pytest.fixture
def small(monkeypatch):
    """PPO on three prompts, with what would be measured replaced by whether the policy has moved."""
    monkeypatch.setattr(rlhf, "prompts_of", lambda split: prompts_of(split)[:3])
    moved = lambda policy, sft, *_: {"moved": not same_parameters(policy, sft)}  # noqa: E731
    monkeypatch.setattr(rlhf, "shown", moved)
    size = dict(prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4)
    return lively_gpt(CONFIG), RewardModel(lively_gpt(CONFIG)), PPOConfig(**size, steps=WARMUP + 1)


@pytest.mark.parametrize("name", critics.ARMS)
def test_every_arm_trains_and_a_critic_warms_up_while_the_policy_stays(small, name):
    sft, reward, config = small
    before, at = copy.deepcopy(sft), (1, WARMUP, WARMUP + 1)
    policy, rows = rlhf.optimised(sft, reward, config, at, arm=critics.ARMS[name])
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    warms = critics.ARMS[name].baseline == "warm"
    assert [row["moved"] for row in rows if "moved" in row] == [not warms, not warms, True]
    assert same_parameters(sft, before) and not same_parameters(policy, sft)
    assert ("val/bias" in rows[-1]) is (name not in ("RLOO", "GRPO"))


def test_the_arms_are_run_and_looked_into(small, monkeypatch):
    sft, reward, config = small
    monkeypatch.setattr(critics, "COMPARED", config)
    monkeypatch.setattr(critics, "MEASURED", (3, 6))
    cooler = lambda policy, sft, reward, step, seed, temperatures: [{"step": step, "t": temperatures}]  # noqa: E731
    monkeypatch.setattr(critics, "cooler", cooler)
    parts = critics.ppo_advantages(sft, reward)
    assert len(parts) == len(SEEDS) * (1 + len(critics.ARMS))
    rows = parts["λ = 0.95, cold critic, seed 1"]()
    assert {(row["arm"], row["seed"]) for row in rows} == {("λ = 0.95, cold critic", 1)}
    assert [row["step"] for row in rows if "moved" in row] == [3, 6] and rows[-1] == {
        **{"arm": "λ = 0.95, cold critic", "seed": 1},
        **{"step": 6, "t": (0.7,)},
    }
    assert all("advantage/0" in row and "squared/0" in row for row in rows[:-1])
    assert ppo.evaluate is critics.ppo_evaluate


# --- advantages by tokens to go ---


def test_advantages_by_tokens_to_go_by_hand():
    advantages = torch.tensor([[9.0, 3.0, -1.0, 2.0], [9.0, 9.0, 4.0, 9.0]])  # the 9s are no responses
    rms = ((9 + 1 + 4 + 16) / 4) ** 0.5
    found = critics.by_tokens_to_go(advantages, MASK)
    assert found == pytest.approx(
        {
            "advantage/0": (2 + 4) / 2 / rms,
            "squared/0": 20 / 30,
            "advantage/1": (3 - 1) / 2 / rms,  # 1 and 2 tokens to go
            "squared/1": 10 / 30,
        }
    )


def test_a_critic_that_expects_too_little_makes_late_tokens_look_good():
    """With λ < 1, whatever the response is worth; with λ = 1 it does not depend on the place."""
    mask = torch.ones(2, 12, dtype=torch.bool)
    rewards = torch.zeros(2, 12)
    rewards[:, -1] = torch.tensor([0.5, 1.5])
    found = {}
    for lam in (0.95, 1.0):
        advantages, _ = ppo.gae(rewards, torch.zeros_like(rewards), mask, lam=lam)
        found[lam] = critics.by_tokens_to_go(advantages - advantages.mean(), mask)
    places = ("advantage/0", "advantage/1", "advantage/3", "advantage/6")
    assert (np.diff([found[0.95][place] for place in places]) < -0.05).all()
    assert [found[1.0][place] for place in places] == pytest.approx([0] * 4, abs=1e-6)


# --- which arm, which seed ---


def arm_rows(**golds) -> list[dict]:
    """Rows of the table; the gold on held-out prompts would choose otherwise.

    An arm is at its best after 10 rollouts or after 20; at the other number it is worse.
    """
    names = {"rloo": "RLOO", "grpo": "GRPO", "cold": "λ = 1, cold critic", "old": "λ = 0.95, cold critic"}
    names |= {"warm": "λ = 1, warm critic", "reward": "λ = 1, reward model critic"}
    rows = [{"arm": "start", "seed": 0, "step": 0, "gold": 9.0, "tuning/gold": 9.0}]
    for name, of_seeds in golds.items():
        for seed, gold in enumerate(of_seeds):
            best, other = (10, 20) if name in ("rloo", "warm") else (20, 10)
            row = {"arm": names[name], "seed": seed, "step": 20}
            rows += [{**row, "step": best, "gold": -gold, "tuning/gold": gold}]
            rows += [{**row, "step": other, "gold": 9.0, "tuning/gold": gold - 1}]
            rows.append({**row, "gold": 8.0, "temperature": 0.7})
    return rows


@pytest.mark.parametrize(
    "golds, chosen",
    [
        # the best is clearly the best, with however many parts
        (dict(rloo=(2.0, 2.1, 1.9), cold=(2.2, 2.3, 2.1), reward=(3.0, 3.1, 2.9)), Arm("reward model")),
        # within a standard error of the best, which is 0.1/√3: the fewest parts
        (dict(cold=(2.9, 3.0, 2.95), warm=(3.0, 3.1, 2.9), reward=(2.9, 2.95, 3.0)), Arm("cold")),
        (dict(warm=(3.0, 3.1, 2.9), reward=(3.0, 3.1, 2.9)), Arm("warm")),
        # just beyond it
        (dict(cold=(2.9, 2.95, 2.9), warm=(3.0, 3.1, 2.9)), Arm("warm")),
        # equally many parts: the one with more gold
        (dict(rloo=(3.0, 3.0, 2.95), grpo=(3.0, 3.1, 2.9), warm=(3.0, 3.0, 3.1)), Arm("grpo")),
        (dict(old=(3.0, 3.1, 2.9), cold=(3.0, 3.1, 2.8)), Arm("cold", 0.95)),
        # a tie to the last digit: the arm that stands first in ARMS
        (dict(rloo=(1.0, 2.0, 3.0), grpo=(1.0, 2.0, 3.0), cold=(1.0, 2.0, 3.0)), Arm("rloo")),
    ],
)
def test_the_chosen_arm_is_the_simplest_within_a_standard_error_of_the_best(golds, chosen):
    assert critics.chosen_arm(arm_rows(**golds)) == chosen
    assert critics.chosen_arm(arm_rows(**golds)[::-1]) == chosen, "whatever the order of the rows"


def test_what_is_called_ppo_is_chosen_among_the_arms_with_a_critic():
    rows = arm_rows(rloo=(3.0, 3.1, 2.9), cold=(2.0, 2.1, 1.9), warm=(2.5, 2.6, 2.4))
    assert critics.chosen_arm(rows) == Arm("rloo")
    assert critics.chosen_arm(rows, critics.WITH_CRITIC) == Arm("warm") and len(critics.WITH_CRITIC) == 6


def seed_rows(*golds, beta=0.0) -> list[dict]:
    rows = [{"method": "ppo", "beta": beta, "step": 8, "seed": i, "gold": -g} for i, g in enumerate(golds)]
    early = [row | {"tuning/gold": row["gold"]} for row in rows]
    return [*early, *rows, *(row | {"step": 24, "tuning/gold": -row["gold"]} for row in rows)]


@pytest.mark.parametrize(
    "golds, seed",
    [
        ((1.0, 3.0, 2.0), 2),
        ((3.0, 2.0, 1.0), 1),
        ((2.0, 2.0, 5.0), 0),  # a tie: the lower number
        ((5.0, 2.0, 2.0), 1),
        ((1.0, 1.0, 1.0), 0),
        ((4.0, 1.0, 3.0, 2.0), 3),  # of four, the lower of the middle two
        ((7.0,), 0),
    ],
)
def test_the_typical_seed_is_the_median_on_tuning_prompts(golds, seed):
    assert rlhf.typical_seed(seed_rows(*golds), step=24) == seed
    rows = [*seed_rows(9.0, 8.0, 7.0, beta=0.2), *seed_rows(*golds)][::-1]
    assert rlhf.typical_seed(rows, method="ppo", beta=0.0, step=24) == seed


def test_a_typical_seed_of_nothing():
    with pytest.raises(ValueError, match="no row with a gold on tuning prompts has {'beta': 0.5}"):
        rlhf.typical_seed(seed_rows(1.0), beta=0.5)


# --- what is measured ---


def test_measures_of_a_policy_and_of_the_start(monkeypatch):
    policy, prompts = lively_gpt(replace(CONFIG, context=160)), prompts_of("evaluation")[:3]
    asked = []

    def reward(prompts, responses):
        asked.append(len(responses))
        return [1.0] * len(responses)

    monkeypatch.setattr(rlhf, "held_out_prompts", lambda: prompts)
    monkeypatch.setattr(measuring, "tuning_prompts", lambda: prompts[1:])
    warm, greedy = rlhf.on_held_out(policy, policy, reward, (0, 3), (1.0, 0.0))
    assert asked == [6, 3] and (warm["temperature"], greedy["temperature"]) == (1.0, 0.0)
    assert abs(warm["kl"]) < 1e-4 and greedy["kl"] > 1 and warm["proxy"] == 1.0
    assert np.shape(warm["golds"]) == (3, 2) and "reward" not in warm and 0 <= warm["flattery"] <= 1
    rows = rlhf.started(policy, reward, 0)
    assert [(row["step"], row["temperature"]) for row in rows] == [(0, 1.0), (0, 0.7), (0, 0.0)]
    assert [list(row).count("tuning/gold") for row in rows] == [1, 0, 0]
    replies = measure(policy, prompts[1:], (1.0,), 2, (0, 0))[1.0].texts
    golds = [gold for p, of_one in zip(prompts[1:], replies) for gold in gold_rewards([p] * 2, of_one)]
    assert len(golds) == 4 and rows[0]["tuning/gold"] == pytest.approx(np.mean(golds))


# --- Goodhart ---


def test_the_tilted_optimum_and_best_of_n_from_samples(monkeypatch):
    """Against the definitions, for a policy that says one of three things."""
    texts, proxies = ["a", "b", "c"], {"a": 0.0, "b": 1.0, "c": 2.0}
    drawn = [texts[i] for i in np.random.default_rng(0).integers(3, size=490 * 64)]
    gold = -np.array([proxies[y] for y in drawn]).reshape(490, 64)
    texts = np.array(drawn, dtype=object).reshape(490, 64)
    found = Answers([parse("x")] * 490, 1.0, (0,), texts, {"gold": gold})
    monkeypatch.setattr(goodhart, "candidates", lambda sft, seed: found)
    rows = goodhart.selected(None, lambda prompts, responses: [proxies[y] for y in responses], 0)
    two = next(row for row in rows if row.get("n") == 2)
    assert two["proxy"] == pytest.approx((0 * 1 + 1 * 3 + 2 * 5) / 9, abs=0.02)
    assert two["gold"] == pytest.approx(-two["proxy"])
    for row in rows:
        if row["method"] == "tilted":
            weights = np.exp(np.arange(3) / row["beta"])
            weights /= weights.sum()
            assert row["proxy"] == pytest.approx(weights @ np.arange(3), abs=0.03)
            assert row["kl"] == pytest.approx(weights @ np.log(3 * weights), abs=0.04)


def test_what_was_gained_between_two_points_by_hand():
    golds = {0: (1.0, 2.0, 3.0), 8: (1.5, 3.0, 3.5), 24: (0.0, 1.0, 4.0)}
    rows = []
    for step, of_seeds in golds.items():
        for seed, gold in enumerate(of_seeds):
            of = {"method": "ppo", "beta": 0.0} if step else {"method": "sft"}
            row = {**of, "seed": seed, "step": step}
            rows += [{**row, "temperature": 1.0, "gold": gold}, {**row, "temperature": 0.7, "gold": 9.0}]
            if step:
                rows.append({**row, "beta": 0.2, "temperature": 1.0, "gold": 9.0})
    assert goodhart.gained(rows, "gold", 0, 8, beta=0.0).tolist() == [0.5, 1.0, 0.5]
    assert goodhart.gained(rows, "gold", 8, 24, beta=0.0).tolist() == [-1.5, -2.0, 0.5]


def test_the_controls_change_one_thing_at_a_time(monkeypatch):
    biases = {name for name in TYPICAL if name.endswith("_bias")}
    assert set(goodhart.WITHOUT_BIASES) == biases
    made = {}

    def trained(sft, pairs, config, model):
        return SimpleNamespace(people=pairs, config=config, weight=model.likelihood_weight), None

    monkeypatch.setattr(goodhart, "preferences", lambda which: which)
    monkeypatch.setattr(goodhart, "relabelled", lambda pairs, people, seed: people)
    monkeypatch.setattr(goodhart, "trained", trained)
    monkeypatch.setattr(goodhart, "normalised", lambda model, sft: model)
    sft, usual = lively_gpt(CONFIG), typical_annotator()
    for control in goodhart.CONTROLS:
        made[control] = goodhart.reward_of(sft, control, 1)
    begins = made.pop("no labels")
    assert same_parameters(begins.trunk, sft) and not begins.head.weight.any()
    assert begins.likelihood_weight == reward_model.LIKELIHOOD_WEIGHT
    assert [name for name in made if made[name].weight is None] == ["head only"]
    assert {of.config.seed for of in made.values()} == {1}
    shipped = {person.seed for seed in (0, 1) for person in crowd(seed)}
    assert not shipped & {person.seed for of in made.values() for person in of.people}
    for name, changed in (
        ("as they are", set()),
        ("head only", set()),
        ("without biases", biases),
    ):
        person = made[name].people[0]
        found = {knob for knob in TYPICAL if getattr(person, knob) != getattr(usual, knob)}
        assert found == changed, name


def test_the_shipped_run_stops_where_the_tuning_prompts_say():
    golds = {(0.0, 10): 9.0, (0.05, 10): 3.0, (0.05, 30): 2.0, (0.2, 10): 2.8, (0.2, 30): 2.9}
    rows = [
        {
            "method": "ppo",
            "beta": beta,
            "step": step,
            "seed": seed,
            "tuning/gold": gold + noise,
            "gold": -gold,
        }
        for (beta, step), gold in golds.items()
        for seed, noise in enumerate((0.3, -0.2, -0.1))
    ]
    rows += [{"method": "ppo", "beta": 0.2, "step": 1, "seed": 0}]  # a rollout that is not measured
    rows += [{"method": "ppo-ptx", "beta": 0.05, "step": 30, "seed": 0, "tuning/gold": 9.0}]
    rows += [{"method": "sft", "step": 0, "seed": 0, "tuning/gold": 9.0}]
    assert goodhart.best_stop(rows) == (0.05, 10)
    assert goodhart.best_stop([row | {"tuning/gold": -row.get("tuning/gold", 0)} for row in rows[:15]]) == (
        0.05,
        30,
    )


# --- what goes wrong ---


def test_the_bugs_of_ppo_do_what_they_say_and_are_gone_afterwards():
    mask = torch.tensor([[False, True, True, False], [False, True, True, True]])
    lp, ref = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(0)) * mask
    scores, right = torch.tensor([1.0, 2.0]), ppo.kl_penalized_rewards
    clipped, expected = ppo.clipped_policy_loss, right(scores, lp, ref, mask, 0.3)
    with ppo_bugs.bug("KL sign flipped"):
        flipped = ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3)
    assert torch.equal(flipped, right(scores, lp, ref, mask, -0.3))
    with ppo_bugs.bug("reward on padding"):
        late = ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3)
    # no response token gets the score
    assert torch.allclose(late * mask, right(0 * scores, lp, ref, mask, 0.3)) and late[0, 3] == 1.0
    with ppo_bugs.bug("end token dropped"):
        last = torch.tensor([[False, False, True, False], [False, False, False, True]])
        assert ppo.clipped_policy_loss(lp, ref, lp, mask, 0.2) == clipped(lp, ref, lp, mask & ~last, 0.2)
    advantages = torch.tensor([[0.0, 1.0, -2.0, 0.0], [0.0, 3.0, 0.0, 2.0]])
    with ppo_bugs.bug("ratio to itself"):
        moving = lp.clone().requires_grad_()
        loss = ppo.clipped_policy_loss(moving, ref, advantages, mask, 0.2)
        loss.backward()
    assert float(loss.detach()) == pytest.approx(-4 / 5) and not moving.grad.any()
    clipped(moving, lp, advantages, mask, 0.2).backward()
    assert moving.grad.any()
    assert ppo.kl_penalized_rewards is right and ppo.clipped_policy_loss is clipped
    assert torch.equal(ppo.kl_penalized_rewards(scores, lp, ref, mask, 0.3), expected)


def test_dropout_that_stays_on():
    model = lively_gpt(CONFIG)
    dropping = ppo_bugs.dropping(model).eval()
    with torch.no_grad():
        assert not torch.equal(dropping.hidden(BATCH.ids), dropping.hidden(BATCH.ids))
        assert torch.equal(model.hidden(BATCH.ids), model.hidden(BATCH.ids))


def test_which_curves_show_a_bug_by_hand():
    values = {
        "correct": {
            "objective/kl": (1.0, 1.5, 2.0),
            "val/ratio": (1.0, 1.0, 1.0),
            "grad_norm": (3.0, 4.0, 5.0),
        },
        "KL sign flipped": {"objective/kl": (3.5, 4.0, 9.0)},  # all beyond 2 + 1
        "end token dropped": {"objective/kl": (3.5, 2.9, 9.0), "grad_norm": (0.5, 0.9, 0.0)},
        "reward on padding": {"val/ratio": (np.nan,) * 3},
        "dropout on": {"val/ratio": (1.1, 1.01, 1.2), "objective/scores": (0.0, 0.0, 0.0)},
    }
    rows = [
        {"bug": bug, "seed": seed, "step": step, metric: of_seeds[seed] if step == 6 else -99.0}
        for bug, metrics in values.items()
        for metric, of_seeds in metrics.items()
        for seed in SEEDS
        for step in (6, 12)
    ]
    shown = {bug: ppo_bugs.shown_by(rows, bug, 6) for bug in values}
    assert shown == {
        "correct": [],
        "KL sign flipped": ["objective/kl"],
        "end token dropped": ["grad_norm"],
        "reward on padding": ["val/ratio"],
        "dropout on": ["val/ratio"],
    }


def test_every_bug_is_run_with_its_start_and_its_patch(monkeypatch):
    ran = []

    def optimised(start, reward, config, at):
        drops = any(isinstance(m, ppo_bugs.AlwaysDrops) for m in start.modules())
        patched = ppo.kl_penalized_rewards is not ppo_bugs.ppo_kl_penalized_rewards
        ran.append((config.seed, drops, patched))
        return None, [{"step": 1}]

    monkeypatch.setattr(ppo_bugs, "optimised", optimised)
    parts = ppo_bugs.ppo_bugs(lively_gpt(CONFIG), None)
    assert len(parts) == len(ppo_bugs.BUGS) * len(SEEDS)
    of = ("correct", "dropout on", "KL sign flipped")
    rows = [parts[f"{name}, seed 2"]() for name in of]
    assert rows[2] == [{"bug": "KL sign flipped", "seed": 2, "step": 1}]
    assert ran == [(2, False, False), (2, True, False), (2, False, True)]


# --- the enumerable world ---


def small_world() -> exact.MicroWorld:
    """Responses of one length: of several, the shortest has all the probability in a random model."""
    words, encode = (
        ("red", "blue", "green", "old", "new", "small", "good", "big"),
        load_chat().encode_response,
    )
    texts = [f"It is {first} and {second}." for first in words for second in words if first != second]
    usual = max(set(map(len, map(encode, texts))), key=list(map(len, map(encode, texts))).count)
    chosen = tuple([text for text in texts if len(encode(text)) == usual][:8])
    rewards = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return exact.MicroWorld(("Why?", "How?"), (chosen, chosen), rewards, torch.full((2, 8), usual))


@pytest.fixture(scope="module")
def enumerated():
    model = lively_gpt(CONFIG).double()
    model.ln_f.weight.data *= 0.3
    return exact.EnumeratedPolicy(model, small_world()), small_world().rewards


def flat(module, value):
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, [*module.parameters()])])


def test_with_lambda_1_the_expected_gradient_is_that_of_the_expected_reward(enumerated):
    policy, rewards = enumerated
    true = flat(policy.model, exact.expected_reward(policy(), rewards))
    found = ppo_exact.expected_gradient(policy, rewards, 1.0)
    assert float((found - true).norm()) < 1e-6 * float(true.norm())
    biased = ppo_exact.expected_gradient(policy, rewards, 0.95)
    assert float((biased - true).norm()) > 0.05 * float(true.norm())


def test_below_1_early_tokens_get_less_credit(enumerated):
    """Against the sum written out: λ to the power of the tokens that follow."""
    policy, rewards = enumerated
    batch, probabilities = policy.batch, policy().detach().exp()
    log_probs, total = token_log_probs(policy.model, batch), 0.0
    for x, y in np.ndindex(*rewards.shape):
        row = x * rewards.shape[1] + y
        advantage = rewards[x, y] - (probabilities[x] * rewards[x]).sum()
        places = batch.response_mask[row].nonzero()[:, 0].tolist()
        for to_go, t in enumerate(reversed(places)):
            total = total + probabilities[x, y] * 0.8**to_go * advantage * log_probs[row, t] / len(rewards)
    by_hand = flat(policy.model, total)
    found = ppo_exact.expected_gradient(policy, rewards, 0.8)
    assert float((found - by_hand).norm()) < 1e-6 * float(by_hand.norm())


def test_the_lower_lambda_the_less_of_the_gradient_is_left(enumerated, monkeypatch):
    policy, _ = enumerated
    monkeypatch.setattr(ppo_exact.exact, "micro_world", small_world)
    rows = ppo_exact.lambda_on_micro_world(policy.model)
    assert [row["lam"] for row in rows] == list(ppo_exact.LAMBDAS)
    assert rows[0]["cosine"] == pytest.approx(1) and rows[0]["length"] == pytest.approx(1)
    assert (np.diff([row["cosine"] for row in rows]) < 0).all() and rows[3]["length"] < 0.95
    assert rows[0]["tokens"] == pytest.approx(int(policy.batch.response_mask[0].sum()))


def test_ppo_takes_a_table_to_the_tilted_reference():
    generator = torch.Generator().manual_seed(0)
    rewards, logits = torch.randn(2, 2, 12, generator=generator, dtype=torch.float64)
    reference = logits.log_softmax(-1)
    for beta, wrong in ((1.0, 0.25), (0.25, 1.0)):
        table = exact.TabularPolicy(reference)
        distances = ppo_exact.enumerated_ppo(
            table, reference, rewards, beta, rounds=120, lr=0.03, samples=2048, epochs=4
        )
        assert distances[-1] < 0.03
        elsewhere = exact.optimal_policy(reference, rewards, wrong)[0]
        assert ppo_exact.total_variation(table().detach(), elsewhere) > 0.1
