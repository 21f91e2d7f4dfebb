"""Notebook 07's experiments: what each method may use, tuning, the race, rounds of labels, and costs."""

import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minialign import dpo
from minialign.course.evaluation import Answers, measure
from minialign.course.experiments import (
    imitation,
    measuring,
    race,
    race_baselines,
    race_costs,
    race_labels,
    race_methods,
    race_tuning,
    rlhf,
)
from minialign.course.experiments.race_methods import Given, Method
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.ppo import PPOConfig
from minialign.preferences import Preference
from minialign.reward_model import RewardModel, RewardModelConfig
from minialign.sft import SFTConfig
from minialign.world.judge import gold_rewards
from minialign.world.prompts import prompts_of, topic_sorts
from minialign.world.topics import load_topics
from tests.engine import SMALL, lively_gpt, manners, same_parameters

PROMPTS = prompts_of("evaluation")[:4]
PAIRS = manners(8)


@pytest.fixture
def small(monkeypatch):
    """The race on four prompts and a few steps."""
    for module in (race, race_labels, race_costs):
        monkeypatch.setattr(module, "held_out_prompts", lambda: PROMPTS)
    for module in (measuring, race_tuning, race_baselines):
        monkeypatch.setattr(module, "tuning_prompts", lambda: PROMPTS)
    for module in (race_methods, race_baselines, race_costs):
        monkeypatch.setattr(module, "preferences", lambda which: PAIRS)
    monkeypatch.setattr(race_methods, "policy_prompts", lambda: [p.text for p in prompts_of("policy")[:6]])
    configs = {
        "SFT on chosen": SFTConfig(steps=6, batch_size=2),
        "DPO": DPOConfig(steps=6, warmup=0, prompts_per_step=4),
        "online DPO": OnlineDPOConfig(steps=6, prompts_per_step=2, max_new_tokens=4),
        "PPO": PPOConfig(steps=9, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4),
    }
    for name, method in race_methods.METHODS.items():
        kind = next(kind for kind in configs if kind in name or (kind, name) == ("PPO", "GRPO"))
        config = configs["online DPO" if name.startswith("online") else kind]
        few = Method(method.train, config, method.settings[:3], method.needs_reward, method.more)
        monkeypatch.setitem(race_methods.METHODS, name, few)
    monkeypatch.setattr(rlhf, "WARMUP", 1)


def given(**changes) -> Given:
    start = lively_gpt(SMALL)
    return Given(start, PAIRS, shipped=RewardModel(start), **changes)


# --- what a run may use, and how methods train ---


def test_whom_to_imitate():
    pairs = [Preference(x, w, lost) for x, w, lost in ("xab", "xbc", "xac", "yde", "xcb")]
    assert imitation.won_and_lost(pairs)["x", "b"] == (1, 2)
    every = [("x", "a"), ("x", "b"), ("x", "a"), ("y", "d"), ("x", "c")]
    assert imitation.winners(pairs, "every choice") == every
    for which in ("won more than lost", "never lost", "best of each prompt"):
        assert imitation.winners(pairs, which) == [("x", "a"), ("y", "d")]


def test_the_races_labels_are_the_first_of_each_prompt():
    pairs = [Preference(x, f"{i}", "no") for i in range(9) for x in "ab"]
    few = race_methods.few_labels(pairs)
    assert Counter(pair.prompt for pair in few) == {
        "a": race_methods.PER_PROMPT,
        "b": race_methods.PER_PROMPT,
    }
    assert set(few) == {pair for pair in pairs if int(pair.chosen) < race_methods.PER_PROMPT}


def test_reward_models_are_made_once_for_each_seed_unless_one_is_shipped(monkeypatch):
    made = []
    monkeypatch.setattr(race_methods, "reward_model", lambda *args: made.append(args[2:]) or object())
    alone = Given(None, [], rate=0.5)
    assert alone.reward_model(1) is alone.reward_model(1) is not alone.reward_model(2)
    assert made == [(1, 0.5), (2, 0.5)]
    shipped = object()
    assert Given(None, [], shipped=shipped).reward_model(7) is shipped and len(made) == 2


def test_every_method_that_trains_has_eight_settings_and_the_controls_four():
    for name, method in race_methods.METHODS.items():
        wanted = {True: 4, False: 8}[method.more]
        assert len({tuple(s.items()) for s in method.settings}) == len(method.settings) == wanted, name
    assert len(race_baselines.TEMPERATURES) == 8
    assert len(race_baselines.SIZES) * len(race_baselines.REWARD_RATES) == 8


def test_a_setting_reaches_the_config_or_the_function():
    train, config = race_methods.entry("DPO", {"beta": 0.3, "learning_rate": 1e-4}, seed=2)
    assert (config.beta, config.learning_rate, config.seed) == (0.3, 1e-4, 2) and train.keywords == {}
    train, config = race_methods.entry("SFT on chosen", {"imitated": "never lost", "learning_rate": 1e-4})
    assert train.keywords == {"imitated": "never lost"} and config.learning_rate == 1e-4


@pytest.mark.parametrize("method", race_methods.METHODS)
def test_every_method_moves_the_policy_and_nothing_else(method, small):
    of = given()
    setting = race_methods.METHODS[method].settings[0]
    start, places = lively_gpt(SMALL), []
    policy, history = race_methods.run(
        of, method, setting, 1, 2 / 3, (1 / 3, 2 / 3, 1.0), lambda policy, place: places.append(place)
    )
    assert not same_parameters(policy, start) and same_parameters(of.start, start)
    assert [round(place["share"], 2) for place in places] == [0.33, 0.67]
    assert len(history) == places[-1]["step"] == {9: 6, 6: 4}[race_methods.METHODS[method].config.steps]
    assert all(place["method"] == method and place.items() >= setting.items() for place in places)


def test_grpo_has_no_critic_and_ppo_has_the_courses(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        race_methods.ppo,
        "train",
        lambda policy, prompts, reward, config, **options: seen.update(config=config, **options),
    )
    of = given()
    race_methods.METHODS["GRPO"].train(of.start, of, PPOConfig(steps=9))
    assert seen["config"].advantages == "grpo" and seen["critic"] is None and seen["config"].steps == 9
    race_methods.METHODS["PPO"].train(of.start, of, PPOConfig(steps=9))
    assert seen["config"] == rlhf.ARM.applied(PPOConfig(steps=9)) and seen["config"].advantages == "gae"


def test_sampled_labels_are_drawn_with_log_odds_not_with_normalised_scores(monkeypatch):
    of, seen = given(), {}
    of.shipped.gain.fill_(4.0)

    def train_online(policy, prompts, labels, config, **options):
        seen["labels"] = labels

    monkeypatch.setattr(dpo, "train_online", train_online)
    race_methods.prefer_online_sampled(of.start, of, OnlineDPOConfig())
    texts = ["Why?", "So?"], ["Because.", "No."]
    with_gain = of.shipped.score(*texts)
    of.shipped.gain.fill_(1.0)
    assert seen["labels"].reward(*texts) == pytest.approx(of.shipped.score(*texts))
    assert of.shipped.score(*texts) == pytest.approx(with_gain / 4)


# --- tuning ---


def test_the_best_of_every_learning_rate_goes_on_and_then_the_best_of_all():
    scores, rates = [0.9, 0.8, 0.7, 0.1, 0.2, 0.85], ["fast"] * 3 + ["slow"] * 2 + ["fast"]
    assert race_tuning.survivors(scores, rates, 2) == [0, 4], "not the two best, which are both fast"
    assert race_tuning.survivors(scores, rates, 3) == [0, 4, 5]
    assert race_tuning.survivors(scores, rates, 1) == [0]
    assert race_tuning.survivors([1.0, 1.0, 1.0], "aab", 2) == [0, 2], "of equals the first"


def test_successive_halving_finds_what_is_best_in_the_end():
    """Slow settings end higher, but a third of the way the fast ones lead."""
    runs = []
    settings = [{"beta": b, "learning_rate": rate} for b in (0.1, 0.3, 1.0) for rate in ("slow", "fast")]

    def gold(setting, share):
        speed, height = {"slow": (1.0, 2.0), "fast": (9.0, 1.0)}[setting["learning_rate"]]
        return height * (1 - np.exp(-speed * share)) - abs(np.log(setting["beta"] / 0.3))

    def tried(setting, shares):
        runs.append((setting["beta"], setting["learning_rate"], shares[-1]))
        return [{**setting, "share": share, "gold": gold(setting, share)} for share in shares]

    early = [gold(setting, 1 / 3) for setting in settings]
    assert settings[int(np.argmax(early))]["learning_rate"] == "fast"
    rows = race_tuning.successive_halving(settings, tried)
    assert Counter(share for *_, share in runs) == {1 / 3: 6, 1.0: 2}
    assert [row["round"] for row in rows] == [0] * 6 + [1] * 6
    best = max((row for row in rows if row["round"] == 1), key=lambda row: row["gold"])
    assert (best["beta"], best["learning_rate"], best["share"]) == (0.3, "slow", 1.0)


def tuned(monkeypatch, *rows):
    """The tuning found these rows."""
    found = {"round": 0, "gold": 1.0, "error": 0.0, "kl": 0.0, "share": 1.0}
    monkeypatch.setattr(race_tuning, "tuning", lambda: [found | row for row in rows])


def test_of_ties_the_race_takes_what_has_moved_least(monkeypatch):
    row = {"method": "DPO", "round": 1, "error": 0.05, "share": 1.0}
    rows = [
        {"method": "DPO", "round": 0, "gold": 9.0, "error": 0.1, "kl": 0.1, "beta": 1.0, "share": 1 / 3},
        {**row, "gold": 2.50, "kl": 9.0, "beta": 0.1, "learning_rate": 1e-3},
        {**row, "gold": 2.46, "kl": 2.0, "beta": 0.3, "learning_rate": 1e-4, "share": 2 / 3},
        {**row, "gold": 2.40, "kl": 0.5, "beta": 1.0, "learning_rate": 1e-4},
        {**row, "method": "PPO", "gold": 2.49, "kl": 0.1},
    ]
    tuned(monkeypatch, *rows)
    assert race_tuning.chosen("DPO") == rows[2], "not the best, not the nearest, and of the last round only"
    assert race_tuning.setting_of(rows[2]) == {"beta": 0.3, "learning_rate": 1e-4}


def test_sensitivity_by_hand_is_of_the_first_round(monkeypatch):
    golds = {(0.1, 1e-4): 1.0, (0.1, 1e-3): 2.0, (0.3, 1e-4): 1.5, (0.3, 1e-3): 4.0}
    rows = [
        {"method": "PPO", "round": 0, "beta": b, "learning_rate": rate, "gold": gold}
        for (b, rate), gold in golds.items()
    ]
    later = [{**rows[0], "round": 1, "gold": 50.0}, {**rows[0], "method": "DPO", "gold": 9.0}]
    tuned(monkeypatch, *rows, *later)
    assert race_tuning.sensitivity("PPO", "beta") == pytest.approx((0.5 + 2.0) / 2)
    assert race_tuning.sensitivity("PPO", "learning_rate") == pytest.approx((1.0 + 2.5) / 2)


def test_trials_are_measured_at_their_shares_on_half_and_then_all_prompts(small, monkeypatch):
    seen = []

    def measured(policy, reference, prompts, seed):
        seen.append((len(prompts), seed))
        golds = np.arange(len(prompts), dtype=float)[:, None]
        rest = {"kl": 1.0, "words": 2.0, "finished": 1.0, "golds": golds.tolist()}
        return [{"gold": golds.mean(), **rest}]

    monkeypatch.setattr(race_tuning, "measured", measured)
    rows = race_tuning.trials(given(), "DPO")
    assert [(row["round"], row["step"]) for row in rows] == [(0, 2)] * 3 + [(1, 2), (1, 4), (1, 6)]
    assert [n for n, _ in seen] == [2] * 3 + [4] * 3 and "golds" not in rows[0]
    assert rows[-1]["error"] == pytest.approx(np.std([0, 1, 2, 3], ddof=1) / 2)


def test_the_baselines_are_tuned_too_and_the_reward_models_rate_with_them(small, monkeypatch):
    monkeypatch.setattr(race_baselines, "TEMPERATURES", (1.0, 0.0))
    monkeypatch.setattr(race_baselines, "SIZES", (1, 2))
    start = lively_gpt(SMALL)
    cooler = race_baselines.cooler_trials(start)
    assert [row["temperature"] for row in cooler] == [1.0, 0.0]
    assert cooler[0]["kl"] == pytest.approx(0, abs=1e-3)
    # a reward model that knows gold: the best of 2 is worth more than one, by what two samples differ
    monkeypatch.setattr(race_baselines, "reward_model", lambda start, pairs, seed, rate: Oracle())
    exam = {"accuracy": 0.7, "order": 0.6, "order_by_prompt": [0.6]}
    monkeypatch.setattr(race_baselines, "exam_of", lambda reward: exam)
    rows = race_baselines.best_of_n_trials(start, 0.1)
    golds = measure(start, PROMPTS[::2], (1.0,), 2, 0)[1.0].values["gold"]
    assert [row["n"] for row in rows] == [1, 2] and all(row["learning_rate"] == 0.1 for row in rows)
    assert rows[0]["gold"] == pytest.approx(golds.mean()) and rows[0]["kl"] == 0
    assert rows[1]["gold"] == pytest.approx(golds.max(1).mean())
    assert rows[1]["order"] == 0.6 and "order_by_prompt" not in rows[1]
    table = [*rows, {**rows[0], "gold": 99.0, "error": 0.0, "learning_rate": 0.7}, *cooler]
    monkeypatch.setattr(race_baselines, "load_history", lambda name: table)
    assert race_baselines.reward_rate() == 0.7


class Oracle:
    """A reward model that gives what the judge gives."""

    def score(self, prompts, responses):
        return gold_rewards(list(prompts), list(responses))


# --- the race ---


def test_a_run_of_the_race_has_a_course_and_an_end_that_is_judged(small, monkeypatch):
    tuned(monkeypatch, {"method": "DPO", "beta": 0.2, "share": 2 / 3})
    rows = race.raced(given(), "DPO", 1)
    course, end = ([row for row in rows if row.get("judged", False) == judged] for judged in (False, True))
    assert [row["step"] for row in course] == [1, 2] and [row["step"] for row in end] == [4] * 3
    assert not any("golds" in row for row in course) and all(row["beta"] == 0.2 for row in rows)
    assert [(row["temperature"], np.shape(row["golds"])) for row in end] == [
        (1.0, (4, race.ANSWERS)),
        (0.7, (4, race.ANSWERS)),
        (0.0, (4, 1)),
    ]
    assert ["tuning/gold" in row for row in end] == [True, False, False]
    assert rlhf.typical_seed(end, method="DPO") == 1


def test_best_of_n_keeps_the_best_of_each_group(monkeypatch):
    tuned(monkeypatch, {"method": "best-of-n", "n": 2, "learning_rate": 1e-3})
    rewards, gold = np.array([[1.0, 2.0, 5.0, 4.0]]), np.array([[10.0, 20.0, 50.0, 40.0]])
    values = {"reward": rewards, "gold": gold, "words": np.full((1, 4), 7.0)}

    def sampled(policy, prompts, temperatures, n, seed, reward):
        assert n == race.SAMPLES[temperatures[0]]
        texts = np.array([["a", "b", "c", "d"]], dtype=object)
        return {temperatures[0]: Answers(PROMPTS[:1], temperatures[0], (0,), texts, values)}

    monkeypatch.setattr(race, "measure", sampled)
    monkeypatch.setattr(race, "log_ratio", lambda start, answers: 9.0 * (answers.temperature < 1))
    rows = race.raced_best_of_n(given(), 0)
    assert [row["temperature"] for row in rows] == [1.0, 0.7], "at 0 all samples are the same"
    assert rows[0]["golds"] == [[20.0, 50.0]] and rows[0]["gold"] == 35.0
    assert [row["kl"] for row in rows] == pytest.approx([np.log(2) - 0.5, np.log(2) - 0.5 + 9.0])


def test_notebook_05s_ppo_stands_beside_the_race_judged_at_its_end_only(monkeypatch):
    config = rlhf.SHIPPED
    end = {"method": "ppo", "beta": config.beta, "seed": 0, "step": config.steps, "temperature": 0.0}
    third = {**end, "step": config.steps // 3, "temperature": 1.0}
    others = [{**end, "beta": config.beta + 1}, {**end, "method": "sft"}]
    logged_only = {name: value for name, value in end.items() if name != "temperature"}
    tables = {"race": [{"method": "PPO"}], "overoptimisation": [third, *others, logged_only, end]}
    monkeypatch.setattr(race, "load_history", lambda name: list(tables[name]))
    assert race.results.__wrapped__() == [
        {"method": "PPO"},
        {**third, "method": race.AS_SHIPPED, "share": 1 / 3, "judged": False},
        {**end, "method": race.AS_SHIPPED, "share": 1.0, "judged": True},
    ]


def test_the_exam_of_the_reward_model_says_its_unit(monkeypatch):
    monkeypatch.setattr(race, "exam_of", lambda reward: {"order": 0.6})
    of = given()
    of.shipped.gain.fill_(0.8)
    (row,) = race.examined(of, 1)
    assert row == {"method": "reward model", "seed": 1, "gain": pytest.approx(0.8), "order": 0.6}


def test_win_rates_of_constructed_golds(monkeypatch):
    """Ours wins every question and loses every poem; wherever it wins it is longer."""
    families = ["question", "poem"] * 4
    monkeypatch.setattr(race, "held_out_prompts", lambda: [SimpleNamespace(family=f) for f in families])
    ours, theirs = ([], [])
    for seed in range(3):
        place = {"seed": seed, "temperature": 1.0, "judged": True}
        golds = [[3.0, 3.0] if f == "question" else [1.0, 1.0] for f in families]
        words = [[30, 31] if f == "question" else [20, 21] for f in families]
        ours.append({"method": "DPO", **place, "golds": golds, "lengths": words})
        theirs.append({"method": "SFT", **place, "golds": [[2.0, 2.0]] * 8, "lengths": [[20, 21]] * 8})
    course = {"method": "DPO", "seed": 0, "gold": 5.0, "temperature": 1.0}
    monkeypatch.setattr(race, "results", lambda: [*ours, *theirs, course])
    assert race.judged("DPO").shape == (3, 8, 2)
    found = race.win_rates("DPO", "SFT")
    assert (found["all"].mean, found["question"].mean, found["poem"].mean) == (0.5, 1.0, 0.0)
    assert list(found) == ["all", "equal length", "question", "poem"]
    assert found["equal length"].mean < 0.1, "between answers of equal length it would only lose"
    back = race.win_rates("SFT", "DPO")
    assert (back["all"].mean, back["question"].mean) == (0.5, 0.0)


def test_nobody_in_the_race_shares_random_numbers():
    drawn = {race.drawn_with(m, seed, step) for m in race.ENTRIES for seed in (0, 1, 2) for step in (0, 9)}
    assert len(drawn) == len(race.ENTRIES) * 6


# --- rounds of labels ---


def test_people_are_not_asked_about_what_tells_of_a_held_out_topic(monkeypatch):
    held_out = {name for name, sort in topic_sorts().items() if sort == "held-out"}
    topic = next(topic for topic in load_topics() if topic.name in held_out)
    fact, asked = topic.facts[0].child, []
    rater = SimpleNamespace(prefer=lambda *texts: asked.append(texts) or 1)
    monkeypatch.setattr(race_labels, "crowd", lambda seed: [rater])
    labels = race_labels.people(0)
    rollout = SimpleNamespace(
        prompts=["Why?"] * 4,
        responses=["No.", fact, "No.", "Yes."],
        n=4,
        rewards=torch.full((4,), torch.nan),
    )
    assert labels.pairs(rollout) == [Preference("Why?", "Yes.", "No.")]
    assert asked == [("Why?", "No.", "Yes.")] and labels.given == 1


def test_the_rounds_prompts_are_apart():
    blocks = race_labels.blocks(1)
    assert [len(block) for block in blocks] == [race_labels.PROMPTS] * race_labels.ROUNDS
    assert len(set(sum(blocks, []))) == race_labels.PROMPTS * race_labels.ROUNDS
    assert blocks == race_labels.blocks(1) != race_labels.blocks(2)
    held_out = {p.text for p in prompts_of("evaluation")}
    assert not held_out & set(sum(blocks, []))


def test_arms_buy_as_many_labels_of_whom_they_should(small, monkeypatch):
    """Who writes what is labelled, what is learned from, and from which policy each round begins."""
    bought, begun = [], []
    policies = iter(f"policy {i}" for i in range(99))

    def buy(writer, prompts, labels, seed):
        bought.append(writer)
        labels.given += 4
        return [Preference("Why?", f"{writer} {seed}", "no")]

    def learned(policy, start, pairs, setting, seed):
        begun.append((policy, len(pairs)))
        return next(policies)

    monkeypatch.setattr(race_labels, "bought", buy)
    monkeypatch.setattr(race_labels, "learned", learned)
    monkeypatch.setattr(
        race_labels, "measured", lambda *_, temperatures: [{"temperature": t} for t in temperatures]
    )

    def of(arm):
        nonlocal policies
        policies = iter(f"policy {i}" for i in range(99))
        bought.clear(), begun.clear()
        rows = race_labels.in_arm("SFT", arm, 0, {"beta": 0.1})
        assert [row["round"] for row in rows] == [1, 2, 3, 3, 3] and rows[0]["beta"] == 0.1
        assert [row["temperature"] for row in rows] == [1.0, 1.0, 1.0, 0.7, 0.0]
        assert [row["labels"] for row in rows] == [4, 8, 12, 12, 12]
        return list(bought), list(begun)

    assert of("at once") == (["SFT"] * 3, [("SFT", 1), ("SFT", 2), ("SFT", 3)])
    assert of("in rounds") == (["SFT"] * 3, [("SFT", 1), ("policy 0", 1), ("policy 1", 1)])
    own = ["SFT", "policy 0", "policy 1"], [("SFT", 1), ("policy 0", 1), ("policy 1", 1)]
    assert of("in rounds, own samples") == own


def test_the_same_labels_are_bought_at_once_and_in_rounds_and_online_as_many(small, monkeypatch):
    start, learned = lively_gpt(SMALL), []
    monkeypatch.setattr(race_labels, "PROMPTS", 4)
    monkeypatch.setattr(race_labels, "SAMPLES", 2)
    monkeypatch.setattr(
        race_labels, "learned", lambda policy, start, pairs, *_: learned.append(list(pairs)) or policy
    )
    options = dict(steps=1, prompts_per_step=4, max_new_tokens=3)
    monkeypatch.setattr(
        race_labels, "OnlineDPOConfig", lambda **changes: OnlineDPOConfig(**options, **changes)
    )
    parts = race_labels.in_arm(start, "at once", 1, {})
    at_once = list(learned)
    learned.clear()
    race_labels.in_arm(start, "in rounds", 1, {})
    assert at_once[2] == sum(learned, []) and at_once[1] == learned[0] + learned[1]
    online = race_labels.in_arm(start, "online", 1, {})
    assert [row["round"] for row in online] == [1, 3, 3, 3] and online[0]["labels"] == parts[0]["labels"]
    # as many, but for pairs that nobody is asked about
    assert abs(parts[-1]["labels"] - online[-1]["labels"]) <= 4 < online[-1]["labels"]


def test_a_round_is_one_pass_from_the_policy_before_and_leaves_both_models_alone():
    policy, start = lively_gpt(SMALL), lively_gpt(SMALL, seed=1)
    after = race_labels.learned(policy, start, PAIRS, {"beta": 0.3, "learning_rate": 1e-3}, 0)
    assert not same_parameters(after, policy)
    assert same_parameters(policy, lively_gpt(SMALL)) and same_parameters(start, lively_gpt(SMALL, seed=1))


# --- what it costs ---


def test_the_reward_model_that_is_weighed_is_like_a_trained_one(small, monkeypatch):
    monkeypatch.setattr(race_methods, "REWARD", RewardModelConfig(steps=1))
    start = lively_gpt(SMALL)
    trained = race_methods.reward_model(start, PAIRS, 0, 1e-3)
    assert race_costs.costly(start).shipped.state_dict().keys() == trained.state_dict().keys()


def test_costs_are_split_into_what_is_paid_once_and_for_each_step(monkeypatch):
    clock = iter([0.0, 12.0, 14.0, 16.0, 19.0])  # begin, three steps, end

    def work(config, on_step):
        for _ in range(config.steps):
            on_step({})

    monkeypatch.setattr(race_costs, "work_of", lambda piece, given: (work, DPOConfig()))
    # 10 before, 3 after
    assert race_costs.per_step(lambda: next(clock), "DPO", None, 3) == {"step": 2.0, "once": 13.0}


@pytest.mark.parametrize("piece", race_costs.PIECES)
def test_every_piece_can_be_weighed(piece, small, monkeypatch):
    monkeypatch.setattr(race_costs, "REWARD", RewardModelConfig(steps=3))
    settings = race_methods.METHODS[piece].settings[0] if piece in race_methods.METHODS else {}
    tuned(monkeypatch, {"method": piece, **settings})
    found = race_costs.per_step(time.perf_counter, piece, given(), 3)
    assert found["step"] > 0 and found["once"] >= 0
    assert race_costs.work_of(piece, given())[1].steps == {"reward model": 3, "PPO": 9, "GRPO": 9}.get(
        piece, 6
    )


def test_what_a_method_spent_counts_its_reward_model(monkeypatch):
    row = {"steps": 10, "seconds/step": 2.0, "seconds/once": 5.0, "memory": 300.0, "idle": 100.0}
    table = {"reward model": {**row, "memory": 700.0}, "PPO": row, "DPO": row}
    monkeypatch.setattr(race_costs, "costs", lambda: table)
    assert sum(race_costs.spent("seconds", "PPO", 0.5).values()) == (20 + 5) + (10 + 5)
    assert sum(race_costs.spent("seconds", "DPO", 0.5).values()) == 10 + 5
    assert sum(race_costs.spent("seconds", "best-of-n").values()) == 25
    assert race_costs.spent("seconds", "SFT, cooler") == {}
    assert [race_costs.memory(piece) for piece in table] == [600, 200, 200], "each piece by itself"


def test_what_is_timed_inside_another_counts_there_only():
    now = [0.0]
    watch = race_costs.Stopwatch(lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    score = watch.timing("reward model", wait)

    def sample(before, scoring, after):
        wait(before)
        score(scoring)
        wait(after)
        return "rollout"

    roll_out = watch.timing("sampling", sample)
    assert roll_out(1.0, 5.0, 2.0) == "rollout" and watch.spent == {"sampling": 3.0, "reward model": 5.0}
    score(4.0)
    assert watch.spent == {"sampling": 3.0, "reward model": 9.0}
    with pytest.raises(ZeroDivisionError):
        watch.timing("updates", lambda: 1 / 0)()
    assert watch.inside == []


def test_the_profile_of_ppo_has_all_its_phases_and_the_answers_are_timed(small, monkeypatch):
    tuned(monkeypatch, {"method": "PPO", "beta": 0.1}, {"method": "best-of-n", "n": 2})
    for name, value in {"WARMUP": 1, "ROWS": 4}.items():
        monkeypatch.setattr(race_costs, name, value)
    start = lively_gpt(SMALL)
    rows = race_costs.ppo_profile(start, rollouts=2)
    assert [row["phase"] for row in rows] == ["sampling", "reward model", "reading", "updates"]
    assert all(row["seconds"] > 0 for row in rows)
    assert [row["piece"] for row in race_costs.answering(start)] == [
        "answering with the best of 1",
        "answering with the best of 2",
    ]
