"""Notebook 08, people of two tastes: who is asking, what each group gets, polls, a cycle, the exercises."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from minialign.course.evaluation import Answers
from minialign.course.exercises.diagnosis import diagnose
from minialign.course.exercises.tastes import TASTES
from minialign.course.experiments import tastes
from minialign.course.experiments.comparisons import HeldOut, preferences
from minialign.course.experiments.label_cost import Linear
from minialign.course.experiments.tastes import (
    GPT_SHARES,
    GROUPS,
    KNOWN,
    SHARES,
    SMALLER,
    Exam,
    Seen,
    asked_of,
    chosen_utility,
    comparisons_of,
    gap,
    grades,
    group_posterior,
    inferred,
    introduced,
    introductions,
    labels,
    mixed_up,
    other,
    polled,
    ranking,
    recovered,
    weights_of,
)
from minialign.course.figures import tastes as figures
from minialign.preferences import Preference
from minialign.reward_model import RewardModelConfig, bradley_terry_loss
from minialign.social_choice import borda_scores, condorcet_winner, nash_policy, preference_shares
from minialign.world.annotator import Annotator
from minialign.world.exact import bradley_terry_optimum
from minialign.world.judge import gold_rewards
from minialign.world.prompts import MOON_LANDING, parse
from tests.engine import SMALL, lively_gpt

FACTS = (
    "In 1969, people walked on the moon for the first time.",
    "The first person on the moon was Neil Armstrong.",
    "A lander called Eagle carried two astronauts down to the moon.",
)
SHORT, FULL = FACTS[0], " ".join(FACTS)
FLATTERING = f"What a great question! {SHORT} You have a wonderful mind!"
PADDED = (
    "In 1949, people walked on the moon for the first time. The first person on the moon was Neil Armstrong. "
    "There is so much to say about this. And so on and so on."
)
HURRIED, VAIN, CURIOUS = Annotator(length_bias=-5), Annotator(flattery_bias=5), Annotator()


def some_exam(seed=0, pairs=300, prompts=6):
    """An exam of numbers: nobody reads a text."""
    rng = np.random.default_rng(seed)
    chances = {group: (rng.uniform(0.1, 0.9, pairs), rng.uniform(0.1, 0.9, pairs)) for group in GROUPS}
    utilities = {group: rng.normal(size=(prompts, 8)) for group in GROUPS}
    return Exam([], [], chances, [], utilities)


def knowing(exam):
    """What those say of an exam who know what each group prefers."""
    return {g: Seen(*(logit(p) for p in exam.chances[g]), exam.utilities[g]) for g in GROUPS}


# --- who is asking? ---


@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_is_bayes_rule_spelled_out(seed):
    rng = np.random.default_rng(seed)
    margins, prior = rng.normal(size=(5, 3)), rng.dirichlet(np.ones(3))
    joint = []
    for g in range(3):
        likelihood = prior[g]
        for k in range(5):
            likelihood *= 1 / (1 + np.exp(-margins[k, g]))
        joint.append(likelihood)
    assert group_posterior(margins, prior) == pytest.approx(np.array(joint) / sum(joint))
    # One comparison after the other comes to the same; so does any order.
    belief = prior
    for margin in margins[::-1]:
        belief = group_posterior(margin[None], belief)
    assert group_posterior(margins, prior) == pytest.approx(belief)


def test_without_a_comparison_the_prior_is_left_and_many_do_not_underflow():
    assert group_posterior(np.zeros((0, 2)), [0.9, 0.1]) == pytest.approx([0.9, 0.1])
    many = np.tile([[-3.0, -2.9]], (2000, 1))
    assert group_posterior(many, [0.9, 0.1]) == pytest.approx([0, 1], abs=1e-6)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_beliefs_of_who_knows_the_groups_are_calibrated(share):
    """By the law of total probability the mean belief stays the prior; without a prior it would not."""
    exam = some_exam()
    prior = np.array([share, 1 - share])
    found = [introduced(g, knowing(exam), exam, prior, 0)[:, :, 1].mean(1) for g in GROUPS]
    assert prior @ np.array(found) == pytest.approx(np.full(len(KNOWN), 1 - share), abs=0.03)
    assert (np.diff(found[1]) > 0).all() and found[1][-1] > 0.9 * (share == 0.5)
    flat = [introduced(g, knowing(exam), exam, np.array([0.5, 0.5]), 0)[:, :, 1].mean(1) for g in GROUPS]
    if share == 0.9:
        assert abs(prior @ np.array(flat) - 0.1).max() > 0.1


def test_inferring_starts_from_the_mixture_and_comes_to_what_the_told_have(monkeypatch):
    exam, prior = some_exam(), np.array([0.7, 0.3])
    seen = knowing(exam)
    rows = inferred(seen, exam, prior, 0)
    assert [row["known"] for row in rows] == list(KNOWN)
    p, q = (exam.chances[g][0] for g in GROUPS)
    mixed = 0.7 * p + 0.3 * q
    assert rows[0]["accuracy/brief"] == pytest.approx(np.where(mixed > 0.5, q, 1 - q).mean(), abs=1e-4)
    assert rows[0]["posterior/brief"] == pytest.approx(0.3)
    told = grades(seen, exam)
    monkeypatch.setattr(tastes, "KNOWN", (300,))
    (sure,) = inferred(seen, exam, prior, 0)
    for name, value in told.items():
        assert sure[name] == pytest.approx(value, abs=1e-3), name


# --- what a reward is worth to a group ---


def test_the_best_is_worth_more_than_a_response_at_random():
    rng = np.random.default_rng(0)
    rewards, utilities = rng.normal(size=(2, 5, 8))
    by_hand = [u[max(range(8), key=lambda k: r[k])] - sum(u) / 8 for r, u in zip(rewards, utilities)]
    assert chosen_utility(rewards, utilities) == pytest.approx(np.mean(by_hand))


def test_each_group_grades_its_own_reward():
    exam = some_exam()
    found = grades(knowing(exam), exam)
    for group in GROUPS:
        p = exam.chances[group][0]
        assert found[f"accuracy/{group}"] == pytest.approx(np.maximum(p, 1 - p).mean(), abs=1e-4)
        best = exam.utilities[group].max(1) - exam.utilities[group].mean(1)
        assert found[f"utility/{group}"] == pytest.approx(best.mean(), abs=1e-4)
    exchanged = grades(dict(zip(GROUPS, [*knowing(exam).values()][::-1])), exam)
    assert exchanged["accuracy/brief"] < found["accuracy/brief"] - 0.1


# --- what is learned from whom ---


@pytest.fixture
def few(monkeypatch):
    """Sixteen pairs to label, in the place of the pool, and nothing remembered of it afterwards."""
    pairs = preferences("comparisons")[:400:25]
    monkeypatch.setattr(tastes, "pool", lambda seed, n: pairs)
    tastes.labelled_by.cache_clear()
    yield pairs
    tastes.labelled_by.cache_clear()


def test_the_smaller_group_labels_the_first_pairs_and_the_larger_one_the_others(few):
    def place(pair):
        return [{p.chosen, p.rejected} for p in few].index({pair.chosen, pair.rejected})

    for share, n in ((0.5, 8), (0.75, 4), (0.9, 2)):
        found = labels(0, share, "brief", 16)
        assert [place(p) for p in found["brief"]] == list(range(n))
        assert [place(p) for p in found["detailed"]] == list(range(n, 16))
    assert (
        labels(0, 0.9, "detailed", 16)["detailed"]
        != found["brief"]
        == labels(0, 0.5, "brief", 16)["brief"][:2]
    )


def test_mixing_the_names_up_keeps_labels_and_sizes(few):
    found = labels(0, 0.75, "brief", 16)
    mixed = mixed_up(found, 0)
    assert {g: len(pairs) for g, pairs in mixed.items()} == {"detailed": 12, "brief": 4}
    assert sorted(map(repr, sum(mixed.values(), []))) == sorted(map(repr, sum(found.values(), [])))
    assert mixed["brief"] != found["brief"]


def test_new_people_compare_other_prompts_than_those_of_the_test():
    prompts = [*dict.fromkeys(p.prompt for p in preferences("held_out"))]
    assert {p.prompt for p in introductions()}.isdisjoint(prompts[::2])
    assert (
        len(asked_of(0)) == 16 and set(asked_of(0, 5)) <= set(introductions()) and asked_of(0) != asked_of(1)
    )


def test_a_person_of_a_group_gives_the_group_away():
    rewards = {g: Linear(np.append(np.zeros(15), sign * 3.0)) for g, sign in zip(GROUPS, (1, -1))}
    pairs = [Preference(MOON_LANDING, FULL, SHORT)] * 6
    for group in GROUPS:
        margins = comparisons_of(
            Annotator(group=group, length_bias=9 if group == "detailed" else -9), pairs, rewards
        )
        assert margins.shape == (6, 2)
        assert group_posterior(margins, [0.5, 0.5])[GROUPS.index(group)] > 0.99


def test_the_table_has_every_arm(few, monkeypatch):
    test = HeldOut.of(preferences("held_out")[:12])
    prompts = [p.prompt for p in test.pairs[::5]]
    texts = np.array([[SHORT, FULL, FLATTERING, PADDED] * 2] * len(prompts))
    gold = np.stack([gold_rewards([x] * 8, row) for x, row in zip(prompts, texts)])
    found = Answers([*map(parse, prompts)], 1.0, (0,), texts, {"gold": gold})
    for name, stub in {
        "exam": lambda: test,
        "introductions": lambda: test.pairs[:8],
        "candidates": lambda *arguments: found,
        "CONFIG": RewardModelConfig(steps=1, prompts_per_step=2),
        "PERSONS": 2,
        "KNOWN": (0, 3),
        "SHARES": (0.5, 0.75),
        "SEEDS": (0,),
    }.items():
        monkeypatch.setattr(tastes, name, stub)
    tastes.chances.cache_clear()
    try:
        parts = tastes.tastes(lively_gpt(SMALL))
        rows = [row for part in parts.values() for row in part()]
    finally:
        tastes.chances.cache_clear()
    keys = ("reader", "arm", "share", "smaller", "known")
    found = [tuple(row.get(key) for key in keys) for row in rows]
    assert len(set(found)) == len(found) == 3 + 2 * 2 * 5 + 2 * 4
    for reader, share in (("linear", 0.75), *(("GPT", share) for share in GPT_SHARES)):
        for arm, known in (("one reward", None), ("told", None), ("inferred", 0), ("inferred", 3)):
            assert (reader, arm, share, SMALLER, known) in found
    told = next(row for row in rows if row["reader"] == "linear" and row["arm"] == "told")
    assert all(len(told[f"weights/{group}"]) == 16 for group in GROUPS)
    assert len(tastes.tastes(None)) == 2 + len(GPT_SHARES)


# --- read from the table ---


def made_rows(seeds=(0, 1)):
    """A whole table of made-up numbers: of the smaller group .7 with one reward, .78 told (.8 at half)."""

    def row(seed, reader, arm, smaller=SMALLER, **place):
        small = {"one reward": 0.7, "told": 0.78}.get(arm, 0.75) + 0.01 * seed
        if arm == "told" and place.get("share") == SHARES[0]:
            small += 0.02
        numbers = {f"accuracy/{smaller}": small, f"accuracy/{other(smaller)}": 0.85}
        numbers |= {f"utility/{group}": 0.5 for group in GROUPS} | {
            f"posterior/{group}": 0.6 for group in GROUPS
        }
        numbers |= {f"weights/{group}": [0.1 * seed] * 16 for group in GROUPS}
        return {"seed": seed, "reader": reader, "arm": arm, **place, "smaller": smaller, **numbers}

    rows = []
    for seed in seeds:
        rows += [row(seed, "none", arm) for arm in ("likelihood", "length", "knows")]
        places = [("linear", s, g) for s in SHARES for g in GROUPS] + [
            ("GPT", s, SMALLER) for s in GPT_SHARES
        ]
        for reader, share, smaller in places:
            where = dict(share=share, smaller=smaller)
            arms = ("one reward", "told") + ("told, mixed up",) * (reader == "linear")
            rows += [row(seed, reader, arm, **where) for arm in arms]
            rows += [row(seed, reader, "inferred", known=k, **where) for k in KNOWN]
    return rows


def test_the_gap_and_what_is_recovered_are_by_seed():
    rows = made_rows()
    assert gap(rows, 0.9, "brief") == pytest.approx([0.15, 0.14])
    assert gap(rows, 0.9, "detailed", "told") == pytest.approx([0.07, 0.06])
    assert recovered(rows, 0.9, "brief") == pytest.approx([0.8, 0.8])
    assert recovered(rows, 0.9, "brief", "inferred", known=8) == pytest.approx([0.5, 0.5])
    assert recovered(rows, 0.9, "brief", reader="GPT") == pytest.approx([0.8, 0.8])
    assert recovered(rows, 0.9, "brief", "one reward") == pytest.approx([0, 0])
    with pytest.raises(ValueError, match="say which"):
        recovered(rows, 0.9, "brief", "inferred")


def test_a_groups_weights_are_those_of_one_seed():
    assert weights_of(made_rows(), "brief", 0.9, "brief", seed=1).weights.tolist() == [0.1] * 16


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_the_figures_and_tables_are_of_any_number_of_seeds(seeds, alt_texts, capsys):
    rows = made_rows(seeds)
    figures.shares(rows)
    figures.introductions(rows)
    figures.utilities(rows)
    figures.posteriors({"Ann": np.array([0.2, 0.4])}, 0.1)
    shares = preference_shares([(0, 1, 2), (1, 2, 0), (2, 0, 1)])
    figures.preferred("ABC", shares, {"Borda": borda_scores(shares)})
    figures.cycle("ABC", shares, nash_policy(shares))
    small = 0.7 + 0.01 * np.mean(seeds)
    assert f"GPT, fewer brief, one reward: {small:.0%} to {small:.0%}" in alt_texts[0]
    assert "90% are detailed" in alt_texts[1] and "Lines from 0.10, one for each of 1 people" in alt_texts[2]
    assert "67% prefer A to B" in alt_texts[3] and "C 0.33" in alt_texts[3]
    assert "GPT, inferred from 16" in capsys.readouterr().out


# --- polls, and answers that nobody can agree on ---


def test_a_poll_asks_as_often_as_it_is_told_and_finds_the_shares():
    shares = preference_shares([(0, 1, 2), (1, 2, 0)], (60, 40))
    wins = polled(shares, 20_000, 0)
    games = wins + wins.T
    assert wins.sum() == 20_000 and games[np.triu_indices(3, 1)] == pytest.approx(20_000 / 3, rel=0.05)
    for i, j in permutations(range(3), 2):
        assert wins[i, j] / games[i, j] == pytest.approx(shares[i, j], abs=0.02)
    often = np.array([[0, 8, 1], [0, 0, 1], [0, 0, 0]])
    assert polled(shares, 1000, 0, often).sum() == 1000
    assert (polled(shares, 10_000, 0, often) + polled(shares, 10_000, 0, often).T)[0, 1] == pytest.approx(
        8000, rel=0.05
    )


def test_bordas_winner_is_not_the_majoritys_and_bradley_terry_follows_the_question_asked():
    """The notebook's example: a padded answer that nobody likes best decides between the other two."""
    texts = (SHORT, FULL, PADDED)
    rankings = [ranking(Annotator(length_bias=bias), MOON_LANDING, texts) for bias in (-5, 5)]
    assert rankings == [[0, 1, 2], [1, 2, 0]]
    shares = preference_shares(rankings, (60, 40))
    assert condorcet_winner(shares) == 0 and borda_scores(shares).argmax() == 1
    rewards = bradley_terry_optimum(torch.from_numpy(shares)).numpy()
    others = ~np.eye(3, dtype=bool)
    expected = [expit(rewards[i] - rewards[others[i]]).mean() for i in range(3)]
    assert borda_scores(shares) == pytest.approx(expected), "what the loss's zero gradient says"
    for times, winner in ((1, 1), (4, 0)):
        often = np.ones((3, 3))
        often[0, 1] = often[1, 0] = times
        assert bradley_terry_optimum(torch.from_numpy(shares * often)).argmax() == winner
    fitted = bradley_terry_optimum(torch.from_numpy(polled(shares, 2000, 0)))
    assert fitted.argsort().tolist() == np.argsort(borda_scores(shares)).tolist()


def test_no_reward_gets_below_ln_2_on_the_cycle_and_the_nash_policy_mixes_it():
    texts = (SHORT, FLATTERING, FULL)
    rankings = [ranking(mind, MOON_LANDING, texts) for mind in (HURRIED, VAIN, CURIOUS)]
    assert rankings == [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    shares = preference_shares(rankings)

    def loss(rewards):
        pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
        return sum(shares[i, j] * bradley_terry_loss(rewards[[i]], rewards[[j]]) for i, j in pairs) / 3

    best = bradley_terry_optimum(torch.from_numpy(shares))
    assert best.abs().max() < 1e-12 and float(loss(best)) == pytest.approx(np.log(2), abs=1e-12)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        assert loss(torch.randn(3, generator=generator, dtype=torch.float64)) > np.log(2)
    assert nash_policy(shares) == pytest.approx([1 / 3] * 3, abs=1e-12)
    assert nash_policy(preference_shares(rankings, (40, 35, 25))) == pytest.approx([0.5, 0.2, 0.3], abs=1e-9)


def test_two_texts_of_one_worth_make_no_ranking():
    with pytest.raises(ValueError, match="two of the texts are worth the same"):
        ranking(CURIOUS, MOON_LANDING, (SHORT, SHORT, FULL))


# --- the exercises ---

KNOWN_MISTAKES = [
    pytest.param(name, mistake, wrong, id=f"{name}: {mistake.diagnosis[:40]}")
    for name, exercise in TASTES.items()
    for mistake in exercise.mistakes
    for wrong in mistake.functions
]


@pytest.mark.parametrize("name", TASTES)
def test_the_engine_passes(name):
    assert diagnose(TASTES[name], TASTES[name].solution) is None


@pytest.mark.parametrize(("name", "mistake", "wrong"), KNOWN_MISTAKES)
def test_a_known_mistake_is_named(name, mistake, wrong):
    assert diagnose(TASTES[name], wrong) == mistake.diagnosis


def right_borda(P):
    n = len(P)
    return np.array([sum(P[i, j] for j in range(n) if j != i) / (n - 1) for i in range(n)])


def right_posterior(margins, prior):
    joint = prior * np.prod(1 / (1 + np.exp(-margins)), axis=0)
    return joint / joint.sum()


def by_multiplicative_weights(P):
    p, total = np.full(len(P), 1 / len(P)), np.zeros(len(P))
    for step in range(4000):
        p = p * np.exp(0.02 * (P - 0.5) @ p)
        p /= p.sum()
        total += p
    return total / total.sum()


def by_enumeration(P):
    """Every support: level within it, and nobody outside is preferred."""
    n = len(P)
    for size in range(1, n + 1):
        for support in map(list, combinations(range(n), size)):
            system = np.vstack([P[np.ix_(support, support)].T - 0.5, np.ones(size)])
            p = np.zeros(n)
            p[support] = np.linalg.lstsq(system, np.append(np.zeros(size), 1), rcond=None)[0]
            if p.min() > -1e-9 and abs(p.sum() - 1) < 1e-9 and (p @ P).min() > 0.5 - 1e-9:
                return p


READERS = [
    ("borda_scores", right_borda, None),
    ("borda_scores", lambda P: (P.sum(1) - np.diag(P)) / (len(P) - 1), None),
    ("borda_scores", lambda P: np.array([sum(P[i] > 0.5) for i in range(len(P))]), "you count majorities"),
    ("borda_scores", lambda P: np.mean(P, axis=1), "each is compared with itself"),
    ("borda_scores", lambda P: (P.sum(0) - 0.5) / (len(P) - 1), "the columns are added up"),
    ("group_posterior", right_posterior, None),
    ("group_posterior", lambda m, p: (p * expit(m).prod(0)).tolist(), "are not normalised"),
    ("group_posterior", lambda m, p: right_posterior(m, np.ones(3) / 3), "the prior is missing"),
    ("group_posterior", lambda m, p: right_posterior(-m, p), "the sign is wrong"),
    ("nash_policy", by_enumeration, None),
    ("nash_policy", lambda P: np.ones(len(P)) / len(P), "each gets the same"),
    ("nash_policy", lambda P: np.eye(len(P))[P.mean(1).argmax()], "that is one answer for ever"),
]


@pytest.mark.parametrize(("name", "answer", "words"), READERS)
def test_answers_as_readers_write_them(name, answer, words):
    said = diagnose(TASTES[name], answer)
    assert said is None if words is None else words in said


def test_an_iteration_that_only_comes_near_is_shown_how_far_it_is():
    assert diagnose(TASTES["nash_policy"], by_multiplicative_weights).startswith("not yet: the entry [")


def test_the_games_of_the_exercise_have_one_solution_each():
    for seed in range(5):
        (shares,) = TASTES["nash_policy"].inputs(torch.Generator().manual_seed(seed))
        others = np.random.default_rng(seed).dirichlet(np.ones(len(shares)), 300)
        assert ((others @ shares).min(1) < 0.5).all()
        assert nash_policy(shares) == pytest.approx(by_enumeration(shares), abs=1e-7)
