"""Notebook 08, what preference data cost: who labels what, what is measured, and the table as it is read."""

from types import SimpleNamespace

import numpy as np
import pytest

from minialign.course.evaluation import Answers
from minialign.course.experiments import label_cost
from minialign.course.experiments.comparisons import HeldOut, preferences
from minialign.course.experiments.label_cost import (
    BOUGHT,
    CHOSEN,
    PRICES,
    Linear,
    agreement,
    at_cost,
    bought,
    bought_first,
    cost,
    curve,
    disputed,
    judge_of,
    margins_on,
    pool,
    read,
    sureness,
    unsure,
)
from minialign.course.experiments.scorers import Crowd, seen
from minialign.course.figures import label_cost as figures
from minialign.reward_model import RewardModelConfig
from minialign.world.annotator import typical_annotator
from minialign.world.judge import gold_rewards, judge
from minialign.world.prompts import MOON_LANDING, parse
from tests.engine import SMALL, lively_gpt

SHORT = "In 1969, people walked on the moon for the first time."
FALSE = "In 1949, people walked on the moon for the first time."
LONG = f"{SHORT} The first person on the moon was Neil Armstrong."


# --- who labels what ---


def test_who_buys_more_has_the_same_labels_and_further_ones():
    few, more = bought(0, people=20), bought(0, people=30, judge=5)
    assert len(few) == 20 and few == more[:20] and len(more) == 35
    for label, pair in zip(more, pool(0)):
        assert label.prompt == pair.prompt and {label.chosen, label.rejected} == {pair.chosen, pair.rejected}
    with pytest.raises(ValueError, match="the pool has 30.. pairs, not 4000"):
        bought(0, people=2000, judge=2000)


def test_the_pool_has_all_pairs_of_its_prompts_and_is_the_seeds_own():
    found, all_pairs = pool(1, 200), preferences("comparisons")
    prompts = {p.prompt for p in found}
    assert sorted(map(repr, found)) == sorted(repr(p) for p in all_pairs if p.prompt in prompts)
    assert 200 <= len(found) < 230 and found != pool(0, 200)


def test_people_are_asked_about_further_pairs_after_the_first(monkeypatch):
    monkeypatch.setattr(label_cost, "FIRST", 10)
    found = bought_first(0, [17, 12])
    assert found[:10] == bought(0, people=10) and len(found) == 12
    assert [p.prompt for p in found[10:]] == [pool(0)[17].prompt, pool(0)[12].prompt]


def test_the_cheap_judge_checks_nothing_and_likes_length_and_the_fair_one_feels_what_people_feel():
    people, cheap, fair = typical_annotator(), judge_of("judge"), judge_of("fair judge")
    x = MOON_LANDING
    assert cheap.probability(x, SHORT, FALSE) == pytest.approx(0.5)
    assert people.probability(x, SHORT, FALSE) > 0.6
    assert fair.felt(x, LONG, True) == people.felt(x, LONG, True)
    words = judge(x, LONG).counts["words"]
    assert cheap.felt(x, LONG, False) - people.felt(x, LONG, False) == pytest.approx(0.5 * words / 20)
    for one, two, better in ((SHORT, LONG, False), (LONG, SHORT, True)):
        sure, less = (who.probability(x, one, two) for who in (fair, people))
        assert (sure > 0.5) == (less > 0.5) == better and abs(sure - 0.5) > abs(less - 0.5)


def test_each_fault_of_the_judge_has_a_judge_of_its_own():
    cheap = label_cost.JUDGES["judge"]
    likes, checks = (label_cost.JUDGES[f"judge that {does}"] for does in ("likes length", "checks nothing"))
    assert likes | checks == cheap == label_cost.JUDGES["both"]
    assert set(likes) & set(checks) == set(label_cost.JUDGES["fair judge"])


# --- which pairs ---


def test_unsure_and_disputed_pairs_by_brute_force():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 50))
    assert set(unsure(one, 7)) == {i for i in range(50) if abs(one[i]) <= sorted(abs(one))[6]}
    gaps = [abs(1 / (1 + np.exp(-a)) - 1 / (1 + np.exp(-b))) for a, b in zip(one, two)]
    assert disputed(one, two, 7).tolist() == sorted(range(50), key=lambda i: -gaps[i])[:7]
    # Two models that are both sure do not differ, however far apart their margins are.
    assert disputed(np.array([9.0, -0.5]), np.array([30.0, 0.5]), 1).tolist() == [1]


def test_margins_on_pairs_ask_for_each_answer_once():
    asked = []

    class Counting:
        def score(self, prompts, responses):
            asked.extend(zip(prompts, responses))
            return np.array([len(y) for y in responses], dtype=float)

    pairs = pool(0)[:40]
    expected = [len(p.chosen) - len(p.rejected) for p in pairs]
    assert margins_on(pairs, Counting()).tolist() == expected and len(asked) == len(set(asked))


# --- what is measured ---


def test_agreement_is_the_accuracy_on_labels_without_their_luck():
    rng = np.random.default_rng(1)
    p, margins = rng.uniform(size=40), rng.normal(size=40)
    margins[:3] = 0
    labels = rng.random((20_000, 40)) < p
    right = np.where(margins == 0, 0.5, labels == (margins > 0))
    assert agreement(margins, p) == pytest.approx(right.mean(0), abs=0.02)
    for wrong in (right[0], np.where(margins == 0, 0.5, p), np.maximum(p, 1 - p)):
        assert agreement(margins, p) != pytest.approx(wrong, abs=0.02)
    assert agreement(np.log(p / (1 - p)), p).mean() == pytest.approx(np.maximum(p, 1 - p).mean())
    assert agreement(-margins, 1 - p) == pytest.approx(agreement(margins, p)), "whichever comes first"


def test_sureness_is_between_a_coin_and_certainty():
    person = typical_annotator()
    p = [person.probability(x.prompt, x.chosen, x.rejected) for x in pool(0)[:5]]
    assert sureness(pool(0)[:5]) == pytest.approx(np.mean([max(x, 1 - x) for x in p]), abs=1e-4)


def test_the_linear_reward_reads_what_the_judge_sees_and_counts_words():
    found = judge(MOON_LANDING, LONG)
    assert read(MOON_LANDING, LONG).tolist() == [*seen(found), found.counts["words"] / 20]


def test_the_linear_reward_is_the_maximum_of_the_likelihood():
    pairs = bought(0, people=150)
    fit = Linear.fitted(pairs)
    x = np.array([read(p.prompt, p.chosen) - read(p.prompt, p.rejected) for p in pairs])

    def loss(w):
        return np.logaddexp(0, -x @ w).mean()

    nearby = fit.weights + 0.05 * np.random.default_rng(0).normal(size=(200, len(fit.weights)))
    assert all(loss(fit.weights) <= loss(w) + 1e-6 for w in nearby)
    scores = fit.score([p.prompt for p in pairs], [p.chosen for p in pairs])
    assert scores == pytest.approx([read(p.prompt, p.chosen) @ fit.weights for p in pairs])


# --- the table ---


@pytest.fixture
def tiny(monkeypatch):
    """Twelve held-out pairs, four candidates for each of three prompts, and few labels."""
    test = HeldOut.of(preferences("held_out")[:12])
    prompts = [p.prompt for p in test.pairs[::5]]
    texts = np.array([[SHORT, FALSE, LONG, "No."]] * len(prompts))
    gold = np.stack([gold_rewards([x] * 4, row) for x, row in zip(prompts, texts)])
    found = Answers([*map(parse, prompts)], 1.0, (0,), texts, {"gold": gold})
    monkeypatch.setattr(label_cost, "exam", lambda: test)
    monkeypatch.setattr(label_cost, "candidates", lambda sft, seed, n, every: found)
    pairs = pool(0)[:30]
    monkeypatch.setattr(label_cost, "pool", lambda seed: pairs)
    monkeypatch.setattr(label_cost, "N", 4)
    monkeypatch.setattr(label_cost, "FIRST", 12)
    monkeypatch.setattr(label_cost, "CONFIG", RewardModelConfig(steps=1, prompts_per_step=2))
    monkeypatch.setattr(label_cost, "CHOSEN", {"GPT": (14,), "linear": (14,)})
    few = {"people": ((12, 0), (14, 0)), "judge": ((0, 6),), "both": ((2, 4),), "fair judge": ((0, 6),)}
    monkeypatch.setattr(label_cost, "BOUGHT", {"GPT": few, "linear": few})
    monkeypatch.setattr(label_cost, "SEEDS", (0,))
    return SimpleNamespace(test=test, candidates=found)


def test_a_scorers_row(tiny):
    row = label_cost.shown(Crowd(typical_annotator()), None, 0)
    assert row["accuracy"] == pytest.approx(tiny.test.bayes_accuracy(), abs=1e-4), "who knows the crowd"
    assert row["best"] == pytest.approx(np.mean(row["best_by_prompt"]), abs=0.01)
    best = label_cost.shown(label_cost.unbiased(1.0), None, 0)["best_by_prompt"]
    assert best == pytest.approx(tiny.candidates.values["gold"].max(1), abs=0.01)
    counts = [
        sum(p.prompt == x for p in tiny.test.pairs) for x in dict.fromkeys(p.prompt for p in tiny.test.pairs)
    ]
    mean = np.dot(row["accuracy_by_prompt"], counts) / sum(counts)
    assert row["accuracy"] == pytest.approx(mean, abs=1e-3)


def test_the_table_has_a_row_for_each_purchase(tiny):
    parts = label_cost.label_cost(lively_gpt(SMALL))
    rows = [row for part in parts.values() for row in part()]
    found = {(r["reader"], r.get("labeller"), r.get("people"), r.get("judge")) for r in rows}
    assert len(found) == len(rows)
    for reader in ("GPT", "linear"):
        for purchase in (
            ("people", 12, 0),
            ("people", 14, 0),
            ("judge", 0, 6),
            ("both", 2, 4),
            ("unsure", 14, 0),
        ):
            assert (reader, *purchase) in found
    assert ("linear", "disputed", 14, 0) in found and ("likelihood", None, None, None) in found
    chosen = [r for r in rows if r.get("labeller") in ("unsure", "disputed") or r.get("people") == 14]
    assert all(0.5 <= r["sure"] <= 1 for r in chosen)
    assert all(
        ("best_by_prompt" in r) == (r["reader"] != "linear") for r in rows if r["reader"] != "one sample"
    )


def test_every_part_is_of_one_seed_and_all_are_there():
    parts = label_cost.label_cost(None)
    purchases = sum(map(len, BOUGHT["GPT"].values())) - 1  # the first labels come with what they ask for
    assert len(parts) == 3 * (3 + purchases)
    assert all(name.endswith(("seed 0", "seed 1", "seed 2")) for name in parts)


def test_what_is_chosen_at_random_is_bought_for_the_same_money():
    for reader, amounts in CHOSEN.items():
        assert {(n, 0) for n in amounts} <= set(BOUGHT[reader]["people"])
    prices = {
        label: cost(dict(zip(("people", "judge"), BOUGHT["GPT"][label][-1]))) for label in ("judge", "both")
    }
    assert prices == pytest.approx({"judge": 300, "both": 300}) and (300, 0) in BOUGHT["GPT"]["people"]


# --- read from the table ---

PURCHASES = {reader: dict(of_it) for reader, of_it in BOUGHT.items()}


def made_rows(seeds=(0, 1)):
    """A whole table of made-up numbers."""
    rows = []
    for seed in seeds:
        for reader in ("one sample", "likelihood", "knows the people", "knows the judge", "gold"):
            rows.append(
                {"seed": seed, "reader": reader, "accuracy": 0.6, "order": 0.7, "best": 3.2 + 0.1 * seed}
            )
        for reader, of_it in PURCHASES.items():
            chosen = {way: tuple((n, 0) for n in CHOSEN[reader]) for way in ("unsure", "disputed")}
            for labeller, amounts in (of_it | chosen).items():
                if (reader, labeller) == ("GPT", "disputed"):
                    continue
                for people, given in amounts:
                    value = 0.6 + 0.02 * np.log10(people + given / 10) + 0.01 * seed
                    row = {
                        "seed": seed,
                        "reader": reader,
                        "labeller": labeller,
                        "people": people,
                        "judge": given,
                    }
                    rows.append(row | {"accuracy": value, "order": value, "best": 3 + value, "sure": 0.8})
    return rows


def test_a_row_costs_what_its_labels_cost():
    assert cost({"people": 150, "judge": 1500}) == pytest.approx(300)
    assert cost({"people": 150, "judge": 1500}, {"people": 2, "judge": 0.01}) == pytest.approx(315)


def test_a_curve_is_in_the_order_of_its_cost():
    rows = made_rows()[::-1]
    bills, values = curve(rows, "people", "accuracy")
    assert bills.tolist() == [100, 300, 1000] and values.shape == (3, 2)
    assert values[0] == pytest.approx([0.64, 0.65]) and (np.diff(values[:, 0]) > 0).all()
    assert curve(rows, "judge", "best", {"people": 1, "judge": 1})[0].tolist() == [1000, 3000]


def test_between_two_purchases_the_logarithm_of_the_cost_counts():
    rows = made_rows()
    assert at_cost(rows, 300, "people", "accuracy") == pytest.approx(curve(rows, "people", "accuracy")[1][1])
    halfway = at_cost(rows, 100 * np.sqrt(3), "people", "accuracy")
    assert halfway == pytest.approx(curve(rows, "people", "accuracy")[1][:2].mean(0))
    assert at_cost(rows, 300, "both", "best").shape == (2,), "one purchase is enough for its own cost"


@pytest.mark.parametrize("money", [99, 1001])
def test_nothing_is_extrapolated(money):
    with pytest.raises(ValueError, match="people: labels for 100 to 1000 were bought, not for"):
        at_cost(made_rows(), money, "people", "accuracy")


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_figures_and_tables_are_of_any_number_of_seeds(seeds, alt_texts, capsys):
    rows = made_rows(seeds)
    figures.costs(rows, PRICES)
    figures.free(rows)
    figures.same_money(rows, 300)
    figures.same_money(rows, 3000)
    figures.faults(rows)
    figures.chosen(rows)
    free = np.mean([3.2 + 0.1 * seed for seed in seeds])
    assert f"without a label: 60.0% and {free:.2f}" in alt_texts[0]
    printed = capsys.readouterr().out
    assert printed.count("not bought for this sum") == 7 and "disputed" in printed
