"""A policy is measured as the judge and the statistics say, beside what is free; facts, replies, tokens."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from minialign import statistics
from minialign.chat import load_chat
from minialign.course import evaluation
from minialign.course.evaluation import (
    TOKEN_CLASSES,
    Answers,
    cloze_hits,
    clozes,
    comparison,
    facts_right,
    few_shot_prompt,
    measure,
    reply_shares,
    token_classes,
)
from minialign.gpt import GPTConfig
from minialign.tokenizer import END, load_tokenizer
from minialign.world.demonstrations import Demonstrator
from minialign.world.judge import ATTRIBUTES, judge
from minialign.world.prompts import parse, prompts_of, sample_prompts
from minialign.world.topics import load_topics
from tests.engine import favour, lively_gpt

SMALL = GPTConfig(n_layer=1, n_head=2, n_embd=16)  # the course's vocabulary on a tiny trunk
PROMPTS = sample_prompts("evaluation", 14, seed=3)


def length(prompts, responses):
    return [float(len(response)) for response in responses]


def toy_policy(seed: int = 0):
    return favour(lively_gpt(SMALL, seed), load_chat().end, 5.0)


# --- measure ---


def test_a_toy_policy_is_measured_at_every_temperature():
    found = measure(toy_policy(), PROMPTS, n=3, seed=(4, 1), reward=length, max_new_tokens=12)
    assert list(found) == [1.0, 0.7, 0.0]
    for temperature, answers in found.items():
        n = 3 if temperature else 1  # greedy decoding has one answer
        assert (
            answers.texts.shape == (14, n) and answers.seed == (4, 1) and answers.temperature == temperature
        )
        for i, prompt in enumerate(PROMPTS):
            for k, text in enumerate(answers.texts[i]):
                verdict = judge(prompt, text)
                value = {name: table[i, k] for name, table in answers.values.items()}
                assert value["gold"] == verdict.gold and value["words"] == verdict.counts["words"]
                assert value["reward"] == len(text) and value["finished"] in (0, 1)
                assert {name: value[f"attribute/{name}"] for name in ATTRIBUTES} == verdict.attributes
    assert len(set(found[1.0].texts[0])) > 1 and found[1.0].texts[0, 0] != found[0.7].texts[0, 0]
    assert 0 < found[1.0].values["finished"].mean() < 1


def test_a_seed_is_a_run():
    one, same, other = (measure(toy_policy(), PROMPTS[:3], (1.0,), seed=seed)[1.0] for seed in (0, 0, 1))
    assert (one.texts == same.texts).all() and (one.texts != other.texts).any()
    assert "reward" not in one.values


def test_many_prompts_are_answered_in_their_order(monkeypatch):
    """In groups that fit the memory; each answer names its prompt."""

    def roll_out(policy, prompts, reward, *, n, seed, **options):
        texts = [f"{prompt} {k}" for prompt in prompts for k in range(n)]
        sizes.append(len(texts))
        return SimpleNamespace(responses=texts, finished=torch.ones(len(texts), dtype=torch.bool))

    sizes = []
    monkeypatch.setattr(evaluation, "roll_out", roll_out)
    prompts = sample_prompts("evaluation", 60, seed=3)
    answers = measure(None, prompts, (1.0,), n=8)[1.0]
    assert answers.texts.tolist() == [[f"{p.text} {k}" for k in range(8)] for p in prompts]
    assert len(sizes) == 3 and max(sizes) <= 196


def written(golds_of, seed: int = 0, temperature: float = 1.0, words=None, rewards=None, prompts=PROMPTS):
    """Answers whose gold rewards are given, (P, n)."""
    gold = np.array(golds_of, dtype=float)
    texts = np.array([[f"{i} {k}" for k in range(gold.shape[1])] for i in range(len(gold))], dtype=object)
    values = {"gold": gold, "words": np.full_like(gold, 9.0) if words is None else words}
    values |= {} if rewards is None else {"reward": rewards}
    return Answers(list(prompts), temperature, (seed,), texts, values)


def test_the_families_have_the_means_of_their_prompts():
    gold = np.random.default_rng(0).normal(size=(14, 2))
    by_family = written(gold).by_family()
    assert by_family["all"]["gold"] == pytest.approx(gold.mean()) and by_family["all"]["prompts"] == 14
    assert sum(row["prompts"] for family, row in by_family.items() if family != "all") == 14
    stories = [i for i, prompt in enumerate(PROMPTS) if prompt.family == "story"]
    assert by_family["story"]["gold"] == pytest.approx(gold[stories].mean()) and "other" not in by_family
    assert written(gold[:1], prompts=[parse("Hello?")]).by_family()["other"]["prompts"] == 1


def test_every_answer_is_a_record():
    answers = measure(toy_policy(), PROMPTS, (0.7,), n=2, reward=length, max_new_tokens=8)[0.7]
    records = json.loads(json.dumps(answers.records()))
    assert len(records) == 28 and [record["sample"] for record in records[:3]] == [0, 1, 0]
    for record in records:
        prompt = parse(record["prompt"])
        assert record["gold"] == judge(prompt, record["text"]).gold and record["family"] == prompt.family
        assert record["reward"] == len(record["text"]) and record["temperature"] == 0.7
    assert "reward" not in written(np.ones((14, 1))).records()[0]


# --- best of n, as answers ---


def test_the_best_of_each_group():
    rng = np.random.default_rng(0)
    gold, rewards = rng.normal(size=(14, 7)), rng.integers(0, 3, (14, 7)).astype(float)
    best = written(gold, rewards=rewards).best_of(3)  # of 7 the last is left over
    for i in range(14):
        chosen = [max(range(start, start + 3), key=lambda k: rewards[i, k]) for start in (0, 3)]
        assert best.texts[i].tolist() == [f"{i} {k}" for k in chosen], "of equals the first"
        assert best.values["gold"][i].tolist() == gold[i, chosen].tolist()
    whole = written(gold, rewards=rewards)
    assert (whole.best_of(1).values["gold"] == gold).all()
    assert whole.best_of(7).values["reward"][:, 0].tolist() == rewards.max(1).tolist()


def test_no_best_without_rewards_or_with_too_few():
    with pytest.raises(
        ValueError, match="^best-of-n needs rewards to choose by: give `measure` a reward model$"
    ):
        written(np.ones((14, 4))).best_of(2)
    with pytest.raises(ValueError, match="the best of 4 responses, is 5: choose a whole number from 1 to 4"):
        written(np.ones((14, 4)), rewards=np.ones((14, 4))).best_of(5)


# --- the comparison ---


def measured_runs(rng, shift: float, number: int, temperatures=(1.0, 0.7, 0.0), longer: float = 0.0):
    """Two runs of a policy whose gold reward is `shift` above that of SFT, and .5 more below T = 1."""
    runs = []
    for seed in (0, 1):
        run = {}
        for temperature in temperatures:
            shape = 14, 4 if temperature else 1
            gold = rng.normal(shift + (0.5 if temperature < 1 else 0), 1, shape)
            run[temperature] = written(
                gold, 10 * number + seed, temperature, rng.normal(20 + longer, 3, shape)
            )
        runs.append(run)
    return runs


def test_policies_stand_beside_what_is_free():
    rng = np.random.default_rng(0)
    sft, ppo = measured_runs(rng, 0.0, 0), measured_runs(rng, 1.0, 1, longer=4)
    candidates = [
        written(
            gold := rng.normal(size=(14, 16)), seed, 1.0, rng.normal(20, 3, (14, 16)), gold + rng.normal()
        )
        for seed in (70, 71)
    ]
    rows = comparison(sft, {"PPO": ppo}, candidates)
    places = [(row["policy"], row["temperature"]) for row in rows]
    assert places == [
        ("SFT", 1.0),
        ("SFT, cooler", 0.7),
        ("SFT, cooler", 0.0),
        ("best of 4", 1.0),
        ("best of 16", 1.0),
        ("PPO", 1.0),
        ("PPO", 0.7),
        ("PPO", 0.0),
    ]
    of = dict(zip(places, rows))
    against = [f"{what}, {where}" for where in ("same temperature", "T=1") for what in ("gain", "win rate")]
    assert not any(name in of["SFT", 1.0] for name in against), "nobody is compared with itself"
    assert against[0] not in of["SFT, cooler", 0.7] and against[2] in of["SFT, cooler", 0.7]
    assert all(set(against) <= of[place].keys() for place in places[3:])
    for temperature, where, at in ((0.7, "T=1", 1.0), (0.7, "same temperature", 0.7)):
        row = of["PPO", temperature]
        ours, theirs = (
            np.stack([run[t].values["gold"] for run in runs]) for runs, t in ((ppo, 0.7), (sft, at))
        )
        wins = [statistics.win_rate(a, b).mean for a in ours for b in theirs]
        assert row[f"win rate, {where}"].mean == pytest.approx(np.mean(wins))
        assert row[f"gain, {where}"].mean == pytest.approx(ours.mean() - theirs.mean())
        assert row[f"win rate, {where}"].low < row[f"win rate, {where}"].mean < row[f"win rate, {where}"].high
        assert row[f"equal-length win rate, {where}"].mean != row[f"win rate, {where}"].mean
    one, four, sixteen = (of[name, 1.0]["gold"].mean for name in ("SFT", "best of 4", "best of 16"))
    assert one < four < sixteen == pytest.approx(np.mean([c.values["gold"].max(1) for c in candidates]))
    assert of["PPO", 1.0]["words"].mean > of["SFT", 1.0]["words"].mean + 2
    assert json.loads(json.dumps(rows))[0]["gold"][0] == rows[0]["gold"].mean


def test_a_policy_may_be_called_like_the_baseline():
    rng = np.random.default_rng(0)
    rows = comparison(measured_runs(rng, 0.0, 0), {"SFT on chosen": measured_runs(rng, 0.3, 1)})
    assert "win rate, same temperature" in rows[-1] and rows[-1]["policy"] == "SFT on chosen"


def test_what_cannot_be_compared():
    rng = np.random.default_rng(0)
    sft, ppo = measured_runs(rng, 0.0, 0), measured_runs(rng, 1.0, 1)
    with pytest.raises(ValueError, match=r"^SFT was measured at \[1.0\]: measure it at 0.7, too$"):
        comparison([{1.0: run[1.0]} for run in sft], {"PPO": [{0.7: run[0.7]} for run in ppo]})
    with pytest.raises(ValueError, match=r"drawn with the seed \(0,\), from .* seeds of its own$"):
        comparison(sft, {"PPO": measured_runs(rng, 1.0, 0)})
    others = [{1.0: written(np.ones((13, 2)), 5, prompts=PROMPTS[:13])}]
    with pytest.raises(ValueError, match="answers to different prompts: measure all policies on the same"):
        comparison(sft, {"PPO": others})
    with pytest.raises(ValueError, match="nothing to measure a policy on: give at least one prompt"):
        measure(toy_policy(), [])


def test_perfect_answers_win_against_bad_ones():
    """The whole way, from texts to win rates."""
    perfect = [Demonstrator().write(prompt, np.random.default_rng(0)) for prompt in PROMPTS]
    bad = ["I do not care."] * len(PROMPTS)

    def as_measured(texts, seed):
        rows = [evaluation.judged(prompt, text) for prompt, text in zip(PROMPTS, texts)]
        values = {name: np.array([[row[name]] for row in rows]) for name in rows[0]}
        return [{1.0: Answers(PROMPTS, 1.0, (seed,), np.array(texts, dtype=object)[:, None], values)}]

    row = comparison(as_measured(bad, 0), {"perfect": as_measured(perfect, 1)})[-1]
    assert row["win rate, T=1"].mean > 0.99 and row["gain, T=1"].low > 1


# --- what a model knows, and how it replies ---


def test_clozes_are_the_sentence_up_to_its_answer():
    topic = load_topics()[0]
    decode = load_tokenizer().decode
    for (text, answer), (fact, sentence) in zip(
        clozes([topic]), [(f, s) for f in topic.facts for s in f.plain[:2]]
    ):
        assert decode(text[1:]) + decode(answer) + "." == sentence and decode(answer) == " " + fact.answer


def test_a_cloze_is_hit_only_when_every_token_is_the_most_probable():
    class Oracle(torch.nn.Module):
        """Predicts the text it is given, except the ids in `forgets`."""

        def __init__(self, forgets=()):
            super().__init__()
            self.config, self.device, self.forgets = SMALL, torch.device("cpu"), forgets
            self.chat = load_chat()

        def forward(self, ids, mask):
            following = ids.roll(-1, 1)
            for token in self.forgets:
                following = following.masked_fill(following == token, 0)
            return torch.nn.functional.one_hot(following, SMALL.vocab_size).float()

    topic = load_topics()[0]
    assert cloze_hits(Oracle(), [topic]).all() and len(cloze_hits(Oracle(), [topic])) == 2 * len(topic.facts)
    last = clozes([topic])[0][1][-1]
    misses = cloze_hits(Oracle(forgets=[last]), [topic])
    assert not misses[0] and not misses.all()


def test_replies_are_sorted_and_facts_checked():
    prompt = next(p for p in prompts_of("evaluation", ("question",)) if p.topic.real)
    fact = prompt.topic.facts[prompt.fact]
    wrong = fact.falsified(fact.child, fact.wrong[0])
    replies = [fact.child, "Explain whales to an expert.", "Lorem ipsum."]
    assert reply_shares([prompt] * 3, replies) == pytest.approx(
        {"answer": 1 / 3, "another prompt": 1 / 3, "other": 1 / 3}
    )
    assert facts_right([prompt] * 3, [fact.child, wrong, ""]).tolist() == [True, False, False]


def test_no_replies_have_no_shares():
    with pytest.raises(ValueError, match="a share of nothing: give at least one prompt"):
        reply_shares([], [])
    assert facts_right([], []).dtype == bool


def test_few_shot_prompt():
    assert few_shot_prompt([("Q1", "A1"), ("Q2", "A2")], "Q3") == "Q1\nA1\n\nQ2\nA2\n\nQ3\n"


def test_every_token_of_an_answer_has_a_class():
    prompt = parse("Quick question: In which year did people first walk on the moon?")
    response = "Glad to help. People first walked on the moon in 1969."
    pieces = [load_tokenizer().decode([i]) for i in load_chat().encode_response(response)]
    classes = token_classes(prompt, response)
    assert len(classes) == len(pieces) and classes[0] == "first" and classes[-1] == "end"
    by_class = {name: "".join(p for p, c in zip(pieces, classes) if c == name) for name in TOKEN_CLASSES}
    assert by_class["first"] + by_class["manners"] == "Glad to help." and pieces[0] == by_class["first"]
    assert (
        by_class["wording"] == " People first walked on the moon in."
        and by_class["fact"] == " 1969"
        and by_class["end"] == END
    )
    assert token_classes(prompt, "It was 1949.").count("fact") == len(
        load_tokenizer().encode_ordinary(" 1949")
    ), "a wrong value is one too"
    assert token_classes(prompt, "") == ["end"]
