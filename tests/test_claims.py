"""What the course says of its shipped models and tables is true of the files in data/: measured anew, on
held-out prompts.

Where a notebook prints a claim, its stored output is compared word by word; here stands what must be true for
the words to be right.
"""

import re

import nbformat
import numpy as np
import pytest

import minialign
from minialign.bootstrap import bootstrap_difference
from minialign.course import experiments
from minialign.course.evaluation import cloze_hits, facts_right, reply_shares, unscored
from minialign.course.experiments import (
    comparisons,
    direct_preference,
    fine_tuning_limits,
    knowledge,
    policy_gradients,
    race,
    race_costs,
    ratings,
    reward_models,
    rlhf,
    scorers,
)
from minialign.course.runner import ROOT
from minialign.statistics import mean_with_interval, win_rate
from minialign.training import load_history
from minialign.world.demonstrations import demonstrate
from minialign.world.judge import MAXIMUM, gold_rewards, judge
from minialign.world.prompts import prompts_of, topic_sorts
from minialign.world.reading import told_of
from minialign.world.topics import load_topics

PROMPTS = experiments.held_out_prompts()
TEXTS = [p.text for p in PROMPTS]


@pytest.fixture(scope="module")
def base():
    return minialign.load("base", "cpu")


@pytest.fixture(scope="module")
def sft():
    return minialign.load("sft", "cpu")


def test_the_base_model_goes_on_with_prompts_and_does_not_answer(base):
    shares = reply_shares(PROMPTS, base.respond(TEXTS, max_new_tokens=40))
    assert shares["another prompt"] >= 0.70 and shares["answer"] <= 0.10


def test_the_base_model_knows_the_facts_of_its_corpus(base):
    in_corpus = [t for t in load_topics() if topic_sorts()[t.name] != "sft-only"]
    assert cloze_hits(base.model, in_corpus).mean() >= 0.90


def test_the_fine_tuned_model_answers(sft):
    assert reply_shares(PROMPTS, sft.respond(TEXTS))["answer"] >= 0.95


def test_facts_come_out_on_topics_that_fine_tuning_never_mentioned(sft):
    asked = knowledge.questions_by_sort()
    right = {
        sort: facts_right(asked[sort], sft.respond([p.text for p in asked[sort]])).mean()
        for sort in ("sft", "held-out")
    }
    assert right["held-out"] >= 0.8 * right["sft"] and right["sft"] >= 0.5


def test_there_is_headroom_above_the_fine_tuned_model(sft):
    """Later notebooks optimise: the samples they start from are at 50 to 60 % of the maximal gold."""
    gold = np.mean(
        [gold_rewards(PROMPTS, sft.respond(TEXTS, temperature=1.0, seed=seed)).mean() for seed in range(4)]
    )
    assert 0.5 * MAXIMUM <= gold <= 0.6 * MAXIMUM


def test_exploitable_habits_are_in_some_demonstrations():
    written = [judge(d.prompt, d.response).counts for d in demonstrate(prompts_of("sft"), 2000)]
    for habit in ("flattery", "filler", "confidence"):
        assert 0.05 <= np.mean([counts[habit] > 0 for counts in written]) <= 0.15, habit


def claims_of(path):
    """(statement, "True" or "False") of every claim that a stored notebook prints."""
    outputs = [o for cell in nbformat.read(path, 4).cells if cell.cell_type == "code" for o in cell.outputs]
    return re.findall(
        r"^(.*): "
        r"(True|False)$",
        "\n".join(o.text for o in outputs if o.output_type == "stream"),
        re.MULTILINE,
    )


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_a_notebook_claims_holds(path):
    claims = claims_of(path)
    assert claims and [statement for statement, verdict in claims if verdict == "False"] == []


# --- the five limits of instruction fine-tuning, over the seeds of the tables ---


def column(table: str, name: str, **where) -> np.ndarray:
    return np.array(
        [
            row[name]
            for row in load_history(table)
            if name in row and all(row.get(k) == v for k, v in where.items())
        ]
    )


def test_a_the_last_doublings_of_demonstrations_gain_less_than_a_third_of_the_first(base):
    gold = {n: column("by_demonstrations", "gold", demonstrations=n).mean() for n in fine_tuning_limits.SIZES}
    nothing = gold_rewards(PROMPTS, base.respond(TEXTS, temperature=1.0, max_new_tokens=60)).mean()
    first = (gold[30] - nothing) / np.log2(30)  # from one demonstration to thirty
    assert 0 < (gold[3000] - gold[1000]) / np.log2(3) < first / 3


def test_b_one_style_makes_a_model_less_varied():
    many, one = (column("one_style", "entropy", style=style) for style in ("many ways", "one way"))
    assert len(many) == len(experiments.SEEDS) and (one < 0.9 * many).all()


def test_d_an_imitator_does_not_pass_its_demonstrators_and_choosing_among_its_samples_does():
    theirs, imitator, best = (
        column("human_ceiling", name) for name in ("demonstrators", "imitator, T=1", "best of 16")
    )
    assert (imitator <= 1.05 * theirs).all() and (best >= 1.15 * theirs).all()


def test_e_a_higher_loss_can_mean_a_higher_gold():
    end = {
        data: [column("likelihood_and_gold", name, data=data, step=400) for name in ("loss", "gold")]
        for data in ("all 2,000", "best 200")
    }
    assert len(end["best 200"][0]) == len(experiments.SEEDS)
    assert (end["best 200"][0] > end["all 2,000"][0]).all() and (
        end["best 200"][1] > end["all 2,000"][1] + 0.15
    ).all()


def test_the_bugs_that_hide_the_end_token_keep_a_model_from_stopping():
    for bug in ("mask off by one", "no end token", "pad = end"):
        assert (column("failures", "ended", bug=bug) < 0.7).all(), bug
        assert (
            column("failures", "words", bug=bug) > 2 * column("failures", "words", bug="correct")
        ).all(), bug
    assert (column("failures", "ended", bug="correct") > 0.95).all()


def test_learning_unknown_things_makes_a_model_invent():
    with_unknown, known = (
        column("knowledge", "invents", arm=arm, epoch=6.0)
        for arm in ("with unknown things", "known things only")
    )
    assert len(known) == len(experiments.SEEDS) and (with_unknown > 0.05).all() and (known < 0.03).all()


# --- REINFORCE with the gold reward, over the seeds of the tables ---


def test_reinforce_raises_the_gold_reward_of_held_out_prompts_beyond_the_interval():
    before, after = (column("reinforce", "gold", step=step, temperature=1.0) for step in (0, 100))
    assert len(after) == len(experiments.SEEDS) and mean_with_interval(after - before).low > 0.8


def test_reinforce_halves_the_entropy_of_a_response():
    for seed in experiments.SEEDS:
        entropy = column("reinforce", "objective/entropy", seed=seed)
        assert len(entropy) == 100 and entropy[-10:].mean() < 0.5 * entropy[:10].mean()


def test_what_the_bugs_of_policy_gradients_do():
    gold = {
        bug: column("reinforce_bugs", "gold", bug=bug)
        for bug in ("before", *policy_gradients.BUGS, "no baseline")
    }
    words = {bug: column("reinforce_bugs", "words", bug=bug) for bug in gold}
    assert (gold["correct"] > gold["before"] + 0.5).all() and (
        gold["no baseline"] < gold["correct"] - 0.1
    ).all()
    assert (gold["sign flipped"] < gold["before"] - 1.5).all()
    assert (words["averaged over tokens"] > 1.1 * words["correct"]).all()


def test_the_table_is_of_this_model(sft):
    """Row 0 of the log is the shipped model's own: measured anew, it gives the same number."""
    assert policy_gradients.measured(sft.model, seed=0)[0]["gold"] == pytest.approx(
        column("reinforce", "gold", step=0, seed=0, temperature=1.0)[0], abs=0.02
    )


def test_training_gains_more_than_sampling_coolly_does():
    """At every temperature, and against the best that costs nothing."""
    gold = {
        (step, t): column("reinforce", "gold", step=step, temperature=t)
        for step in (0, 100)
        for t in (1.0, *policy_gradients.COOLER)
    }
    cooler = max(gold[0, t].mean() for t in policy_gradients.COOLER)
    assert gold[0, 1.0].mean() < cooler < gold[100, 1.0].mean()
    assert all(gold[100, t].mean() > gold[0, t].mean() for t in (1.0, *policy_gradients.COOLER))


def test_a_baseline_saves_most_of_the_samples():
    def variance(baseline, prompts=16):
        return column("gradient_noise", "variance", baseline=baseline, prompts=prompts)

    assert len(variance("none")) == len(experiments.SEEDS)
    for baseline in ("mean", "leave one out"):
        assert (variance(baseline) < variance("none") / 1.5).all()


def test_what_straight_through_finds_depends_on_the_network():
    def share(network, estimator="straight-through"):
        return column("relaxations", "share", network=network, estimator=estimator)

    tanh = share("tanh")
    assert len(tanh) == 10 and tanh.min() < 0.4 and tanh.max() - tanh.min() > 0.3
    assert share("linear") == pytest.approx(1, abs=1e-9)
    for network in ("tanh", "relu"):
        ends = {
            name: column("relaxations", "arrives", network=network, estimator=name)
            - column("relaxations", "at_most", network=network, estimator=name)
            for name in ("policy gradient", "straight-through")
        }
        assert ends["policy gradient"].min() > -0.05 > ends["straight-through"].mean()


# --- comparisons and reward models ---


@pytest.fixture(scope="module")
def held_out():
    return comparisons.HeldOut.of(comparisons.preferences("held_out"))


def test_when_comparisons_beat_ratings_and_when_not():
    def gain(offset, per_rater=2, worlds=30):
        rows = [
            ratings.recovered(ratings.Crowd(per_rater=per_rater, offset=offset), (seed, 99))
            for seed in range(worlds)
        ]
        return mean_with_interval([row["Bradley-Terry"] - row["ratings"] for row in rows])

    assert gain(2.0).mean >= 0.03 and gain(2.0).low > 0
    for per_rater in (2, 8, 32):
        assert gain(0.0, per_rater).high < 0


def test_fitted_offsets_fear_drift_and_a_scale_of_three_points():
    """Comparing two by two minus least squares on ratings, over ten seeds of six worlds."""

    def gain(per_rater, **where):
        both = [
            column("ratings_or_comparisons", name, per_rater=per_rater, **where)
            for name in ("Bradley-Terry", "offsets fitted")
        ]
        return mean_with_interval(both[0] - both[1])

    for per_rater in (2, 4, 16):
        assert (
            gain(per_rater, knob="drift", drift=0.0).high < 0 < gain(per_rater, knob="drift", drift=2.0).low
        )
        assert (
            gain(per_rater, knob="points", points=3).mean > gain(per_rater, knob="points", points=None).mean
        )


def test_two_people_agree_as_often_as_instructgpts_labelers(held_out):
    p = held_out.probability
    assert 0.72 <= np.mean(p**2 + (1 - p) ** 2) <= 0.77


def test_no_shipped_comparison_speaks_of_a_held_out_topic():
    held_out = {name for name, sort in topic_sorts().items() if sort == "held-out"}
    pairs = comparisons.preferences("comparisons")
    assert len(pairs) <= comparisons.PAIRS
    texts = {y for pair in pairs for y in (pair.chosen, pair.rejected)}
    assert {y: told_of(y) & held_out for y in texts if told_of(y) & held_out} == {}


def test_the_shipped_reward_model_reads_style_and_not_truth(held_out):
    model = minialign.load("reward", "cpu")
    assert model.reader is None
    margins, groups = held_out.margins(model), scorers.deciding(held_out)
    readable = groups["relevance"] | groups["fluency"] | groups["audience"]
    assert held_out.order_accuracy(margins, readable) >= 0.78
    assert held_out.order_accuracy(margins, groups["correctness"]) < 0.74
    assert held_out.order_accuracy(margins, groups["flattery"]) < 0.5


def by_prompt(scorer, **where):
    """Shares of gold orders that a scorer has right, (seeds, prompts)."""
    return column("reward_models_by_labels", "order_by_prompt", scorer=scorer, **where)


def test_comparisons_teach_more_than_likelihood_knows_without_any():
    most = column("reward_models_by_labels", "pairs", scorer="tokens only").max()
    learned = by_prompt("tokens only", pairs=most)
    assert len(learned) == len(experiments.SEEDS)
    gained = bootstrap_difference(learned, by_prompt("label-free"))
    assert gained.mean >= 0.05 and gained.low > 0
    assert (by_prompt("knows the crowd").mean() > learned.mean(1)).all()


def test_the_shipped_reward_model_is_normalised_on_samples_of_the_policy(sft):
    model = minialign.load("reward", "cpu")
    samples = comparisons.sampled(sft.model, [p.text for p in prompts_of("policy")[:128]], n=2, seed=5)
    scores = model.score([x for x in samples for _ in range(2)], [y for ys in samples.values() for y in ys])
    assert abs(scores.mean()) < 0.25 and abs(scores.std() - 1) < 0.2


def test_more_comparisons_make_better_reward_models():
    order = {
        n: column("reward_models_by_labels", "order", pairs=n, scorer="tokens only") for n in (300, 3000)
    }
    assert (order[3000] > order[300]).all()


def test_what_the_bugs_of_reward_models_do():
    last = reward_models.MEASURED[-1]
    accuracy = {
        bug: column("reward_model_bugs", "accuracy", bug=bug, step=last) for bug in reward_models.BUGS
    }
    assert len(accuracy["correct"]) == len(experiments.SEEDS) and (accuracy["pairs swapped"] < 0.42).all()
    assert (accuracy["pooled on padding"] < accuracy["correct"] - 0.02).all()
    assert (
        column("reward_model_bugs", "leaked", bug="correct")
        > column("reward_model_bugs", "fresh", bug="correct") + 0.02
    ).all()


def test_what_the_bugs_of_ppo_do():
    end = {
        name: {m: column("ppo_variants", m, variant=name, step=15) for m in ("gold", "kl", "words", "proxy")}
        for name in rlhf.BUGS
    }
    correct = end["correct"]
    assert len(correct["gold"]) == len(experiments.SEEDS)
    assert (end["KL sign flipped"]["kl"] > correct["kl"]).all() and (
        end["KL sign flipped"]["gold"] < correct["gold"]
    ).all()
    assert (end["end token dropped"]["words"] > 1.33 * correct["words"]).all()
    assert (end["reward on padding"]["kl"] < 0.05).all()
    assert (end["sampled at T = 0.7"]["proxy"] < correct["proxy"] - 0.2).all() and (
        end["dropout on"]["gold"] < correct["gold"] / 2
    ).all()


def test_a_critic_of_its_own_explains_more():
    def late(variant):
        rows = [row for row in load_history("ppo_variants") if row["variant"] == variant and row["step"] > 10]
        return [
            np.mean([row["val/explained_variance"] for row in rows if row["seed"] == seed])
            for seed in experiments.SEEDS
        ]

    assert (np.array(late("separate critic")) > np.array(late("correct"))).all()


# --- RLHF: the Goodhart figure, over the seeds of the tables ---


def measured(table, beta, name):
    """A metric on held-out prompts, (seeds, points in time)."""
    rows = [
        row
        for row in load_history(table)
        if row["method"] == "ppo" and row.get("beta") == beta and "gold" in row
    ]
    return np.array([[row[name] for row in rows if row["seed"] == seed] for seed in experiments.SEEDS])


def test_without_a_penalty_gold_rises_and_falls_while_the_proxy_goes_on():
    gold, proxy = (measured("overoptimisation", 0.0, name) for name in ("gold", "proxy"))
    assert gold.shape == (3, 1 + len(rlhf.MEASURED))
    peak = gold.mean(0).argmax()
    gained = gold.mean(0)[peak] - gold.mean(0)[0]
    assert mean_with_interval(gold[:, peak] - gold[:, 0]).low > 0
    assert gold.mean(0)[peak] - gold.mean(0)[-1] >= 0.25 * gained and (gold[:, -1] < gold[:, 0]).all()
    assert proxy.mean(0)[-1] - proxy.mean(0)[peak] >= 0.3 * (proxy.mean(0)[peak] - proxy.mean(0)[0])


def test_with_unbiased_people_gold_stays():
    gold = measured("unbiased_control", 0.0, "gold").mean(0)
    assert gold.max() > gold[0] + 0.2 and gold.max() - gold[-1] < 0.2 * (gold.max() - gold[0])


def test_with_a_penalty_gold_ends_above_the_fine_tuned_models():
    gold = measured("overoptimisation", 0.2, "gold")
    assert mean_with_interval(gold[:, -1] - gold[:, 0]).low > 0
    assert (
        measured("overoptimisation", 0.2, "kl").max()
        < 3
        < measured("overoptimisation", 0.0, "kl")[:, -1].min()
    )


def test_best_of_n_is_better_at_the_same_kl_and_does_not_turn_by_64():
    gold = np.array(
        [column("overoptimisation", "gold", method="best-of-n", n=n).mean() for n in (1, 2, 4, 8, 16, 32, 64)]
    )
    assert (
        gold[4] > measured("overoptimisation", 0.0, "gold").mean(0).max() + 0.3
        and gold.max() - gold[-1] < 0.05
    )


def test_what_is_preserved():
    def kept(name, **where):
        return np.array(
            [
                row[name]
                for row in load_history("overoptimisation")
                if name in row and where.items() <= row.items()
            ]
        )

    start, free, held, mixed = (
        kept("perplexity", **where)
        for where in (
            dict(method="sft"),
            dict(method="ppo", beta=0.0),
            dict(method="ppo", beta=0.2),
            dict(method="ppo-ptx"),
        )
    )
    assert len(free) == 3 and (free > held.max()).all() and (held > start).all() and (mixed < start).all()
    facts = {beta: kept("facts", method="ppo", beta=beta) for beta in rlhf.BETAS}
    assert (facts[0.0] < kept("facts", method="sft") - 0.05).all() and facts[0.2].mean() > facts[0.0].mean()


def test_ppo_takes_the_gpt_to_the_tilted_reference():
    last = max(column("ppo_on_micro_world", "round"))
    assert (column("ppo_on_micro_world", "tv", beta=1.0, round=last) <= 0.05).all()


def test_the_shipped_policies_are_runs_of_the_table(sft):
    reward = minialign.load("reward", "cpu")
    for name, beta, seed in (("ppo", rlhf.SHIPPED_BETA, 0), ("ppo-overoptimised", 0.0, 2)):
        found = rlhf.measured(minialign.load(name, "cpu").model, sft.model, reward.score, seed)
        of_table = measured("overoptimisation", beta, "gold")[seed, -1]
        assert found["gold"] == pytest.approx(of_table, abs=0.1), name


# --- DPO, over the seeds of the tables ---


def test_dpo_takes_the_gpt_to_the_tilted_reference():
    last = max(column("dpo_on_micro_world", "step"))
    assert (column("dpo_on_micro_world", "tv", step=last) <= 0.05).all() and len(
        column("dpo_on_micro_world", "tv", step=last)
    ) == 2


def test_of_near_duplicates_the_chosen_fall_while_every_pair_is_right():
    end, begin = (
        {
            which: sum(
                column("dpo_displacement", f"{which}/{place}", step=step)
                for place in direct_preference.PLACES
            )
            for which in ("chosen", "rejected")
        }
        for step in (60, 0)
    )
    assert len(end["chosen"]) == len(experiments.SEEDS) and (end["chosen"] - begin["chosen"] <= -1).all()
    assert (end["rejected"] - begin["rejected"] < end["chosen"] - begin["chosen"]).all()
    assert (column("dpo_displacement", "rewards/accuracies", step=60) >= 0.95).all()
    assert (
        column("dpo_displacement", "chosen/at", step=60) > column("dpo_displacement", "chosen/at", step=0)
    ).all()


def test_dpo_over_optimises():
    def gold(beta):
        return np.array(
            [column("dpo_overoptimisation", "gold", beta=beta, seed=seed) for seed in experiments.SEEDS]
        )

    for beta, lost in ((0.03, 1.0), (0.1, 0.5)):
        mean = gold(beta).mean(0)
        assert gold(beta).shape == (3, 1 + len(direct_preference.MEASURED))
        assert mean.argmax() < list(direct_preference.MEASURED).index(direct_preference.EPOCH) + 1, (
            "the peak is within the first pass"
        )
        assert mean.max() - mean[-1] >= lost * (mean.max() - mean[0]), beta
    assert mean_with_interval(gold(0.1)[:, 4] - gold(0.1)[:, -1]).low > 0
    assert gold(0.3)[:, -1].mean() > gold(0.1)[:, -1].mean() > gold(0.03)[:, -1].mean()


def test_what_the_bugs_of_dpo_do():
    end = {
        v: {
            m: column("dpo_variants", m, variant=v, step=direct_preference.EPOCH)
            for m in ("gold", "kl", "finished")
        }
        for v in direct_preference.VARIANTS
    }
    correct = end["correct"]
    assert len(correct["gold"]) == len(experiments.SEEDS) and (end["mean for sum"]["finished"] < 0.5).all()
    assert (end["no reference"]["gold"] < correct["gold"] - 0.2).all() and (
        end["pairs swapped"]["gold"] < 1.4
    ).all()
    assert end["prompt counted"]["gold"] == pytest.approx(correct["gold"], abs=0.1)
    first = {v: column("dpo_variants", "loss", variant=v, step=1) for v in direct_preference.VARIANTS}
    assert first["correct"] == pytest.approx(np.log(2), abs=1e-4) and (first["no reference"] > 0.8).all()


# --- the race ---


def race_golds(method) -> np.ndarray:
    """(seeds, prompts, answers)."""
    return np.array(
        [row["golds"] for row in load_history("race") if row["method"] == method and "golds" in row]
    )


def test_the_race_ran_with_the_best_settings_of_the_grids():
    for method in ("best-of-n", *race.RUNNERS):
        best = race.best_row(method)
        judged = [row for row in load_history("race") if row["method"] == method and "golds" in row]
        assert len(judged) == len(experiments.SEEDS) and race_golds(method).shape == (
            3,
            len(PROMPTS),
            race.ANSWERS,
        )
        assert all(
            race.setting_of(row) == race.setting_of(best) and row["share"] == best["share"] for row in judged
        ), method


def test_everybody_beats_the_start_and_dpo_beats_ppo():
    pooled = {
        method: np.concatenate(race_golds(method), axis=1) for method in ("SFT", "best-of-n", *race.RUNNERS)
    }
    assert all(
        win_rate(golds, pooled["SFT"]).low > 0.5 for method, golds in pooled.items() if method != "SFT"
    )
    assert win_rate(pooled["DPO"], pooled["PPO"]).low > 0.5
    assert race_golds("DPO").mean((1, 2)).min() > race_golds("PPO").mean((1, 2)).max()


def test_dpo_is_at_ppos_gold_sooner_and_falls_if_it_goes_on():
    def at(method, share):
        return column("race", "gold", method=method, share=share).mean()

    reached = min(share for share in race.FINE if at("DPO", share) >= at("PPO", 1.0))
    assert sum(race_costs.spent("seconds", "DPO", reached).values()) < 0.5 * sum(
        race_costs.spent("seconds", "PPO").values()
    )
    assert at("DPO", 1.0) < max(at("DPO", share) for share in race.FINE) - 0.1


def test_the_shipped_dpo_is_the_entry_of_the_race(sft):
    best = race.best_row("DPO")
    shipped = minialign.load("dpo", "cpu").model
    found = rlhf.measured(shipped, sft.model, unscored, seed=0)
    row = next(
        row
        for row in load_history("race")
        if row["method"] == "DPO" and row["seed"] == 0 and row["share"] == best["share"]
    )
    assert found["gold"] == pytest.approx(row["gold"], abs=0.1) and found["kl"] == pytest.approx(
        row["kl"], rel=0.1
    )
