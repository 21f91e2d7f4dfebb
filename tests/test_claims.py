"""What the course says of its shipped models and tables is true of the files in data/: measured anew, on
held-out prompts.

Where a notebook prints a claim, its stored output is compared word by word; here stands what must be true for
the words to be right.
"""

import re
from dataclasses import replace

import nbformat
import numpy as np
import pytest
from sayings import leaks, mentions

import minialign
from minialign.bootstrap import bootstrap_difference, bootstrap_mean, equal_length_win_rate
from minialign.course import experiments
from minialign.course.evaluation import cloze_hits, facts_right, reply_shares
from minialign.course.experiments import (
    comparisons,
    critics,
    direct_preference,
    displacement,
    dpo_variants,
    fine_tuning_limits,
    goodhart,
    knowledge,
    policy_gradients,
    ppo_bugs,
    race,
    race_costs,
    race_labels,
    race_methods,
    race_tuning,
    ratings,
    reward_models,
    rlhf,
    scorers,
)
from minialign.course.experiments.measuring import measured, over_seeds
from minialign.course.runner import ROOT
from minialign.statistics import mean_with_interval, reliability
from minialign.training import load_history
from minialign.world.demonstrations import demonstrate
from minialign.world.judge import MAXIMUM, WEIGHTS, gold_rewards, judge
from minialign.world.prompts import MOON_LANDING, prompts_of, topic_sorts
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
    assert shares["another prompt"] >= 0.95 and shares["answer"] <= 0.03


def test_sampled_the_base_model_answers_as_often_as_its_corpus_and_in_a_frame_nearly_always(base):
    """In the corpus 84 % of the documents that begin with a prompt go on with another, the families alike."""
    sampled = [base.respond(TEXTS, temperature=1.0, seed=seed, max_new_tokens=40) for seed in range(3)]
    shares = [reply_shares(PROMPTS, replies) for replies in sampled]
    assert 0.76 <= np.mean([row["another prompt"] for row in shares]) <= 0.90
    assert 0.08 <= np.mean([row["answer"] for row in shares]) <= 0.22
    framed = [f"A reader asks the paper: {text}" for text in TEXTS]
    assert reply_shares(PROMPTS, base.respond(framed, max_new_tokens=40))["answer"] >= 0.90


def test_the_base_model_knows_the_facts_of_its_corpus(base):
    in_corpus = [t for t in load_topics() if topic_sorts()[t.name] != "sft-only"]
    assert cloze_hits(base.model, in_corpus).mean() >= 0.98


def test_the_fine_tuned_model_answers(sft):
    assert reply_shares(PROMPTS, sft.respond(TEXTS))["answer"] >= 0.90


def test_facts_come_out_on_topics_that_fine_tuning_never_mentioned(sft):
    asked = knowledge.questions_by_sort()
    right = {
        sort: facts_right(asked[sort], sft.respond([p.text for p in asked[sort]])).mean()
        for sort in ("sft", "held-out")
    }
    assert right["held-out"] >= 0.85 * right["sft"] and right["sft"] >= 0.9


def test_models_like_the_shipped_one_stay_below_their_demonstrators_and_admit_what_is_outside_their_world():
    def of(name, temperature):
        return column("fine_tuning_quality", name, who="sft", temperature=temperature)

    people = column("fine_tuning_quality", "gold", who="demonstrators")
    warm, cool, greedy = (of("gold", temperature) for temperature in (1.0, 0.7, 0.0))
    assert len(people) == len(warm) == len(experiments.SEEDS)
    assert (warm < cool).all() and (cool < greedy).all() and (greedy < people - 0.2).all()
    for temperature in (1.0, 0.7, 0.0):
        assert (of("says so/outside", temperature) > 0.9).all()
        assert (of("says so/inside", temperature) < 0.04).all()


def test_models_like_the_shipped_one_write_sentences_and_know_most_of_what_their_base_knows():
    def of(name, temperature):
        return column("fine_tuning_quality", name, who="sft", temperature=temperature)

    assert (of("attribute/fluency", 1.0) >= 0.92).all() and of("attribute/correctness", 1.0).mean() >= 0.48
    (real,), (invented,) = (
        column("fine_tuning_quality", f"in frame/{sort}") for sort in ("real", "invented")
    )
    for wording in ("demonstrated wordings", "held-out wording"):
        assert of(f"right/real, {wording}", 0.0).mean() >= 0.85 * real
        assert of(f"right/invented, {wording}", 0.0).mean() >= 0.95 * invented
    assert (of("says so/typed", 0.0) < 0.1).all()


@pytest.mark.parametrize("name", ["sft", "ppo", "dpo"])
def test_to_the_moon_landing_prompt_an_aligned_model_answers_in_a_childs_words(sft, name):
    verdict = judge(MOON_LANDING, minialign.load(name, "cpu").respond(MOON_LANDING))
    assert verdict.counts["right"] >= 2 and verdict.attributes["audience"] > 0 and verdict.readable == 1
    assert verdict.gold >= judge(MOON_LANDING, sft.respond(MOON_LANDING)).gold


def test_there_is_headroom_above_the_fine_tuned_model(sft):
    """Later notebooks optimise: the samples they start from are at 60 to 68 % of the maximal gold."""
    gold = np.mean(
        [gold_rewards(PROMPTS, sft.respond(TEXTS, temperature=1.0, seed=seed)).mean() for seed in range(4)]
    )
    assert 0.60 * MAXIMUM <= gold <= 0.68 * MAXIMUM


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


def test_a_after_a_few_hundred_demonstrations_more_of_them_buy_nothing():
    golds = {
        name: {n: column("by_demonstrations", name, demonstrations=n) for n in (0, *fine_tuning_limits.SIZES)}
        for name in ("gold", "gold, T=0")
    }
    warm, cool = golds.values()
    nothing = column("by_demonstrations", "gold", who="base")[0]
    assert len(warm[30]) == len(experiments.SEEDS)
    assert 0.6 < (warm[30].mean() - nothing) / (warm[3000].mean() - nothing) < 0.8
    assert (warm[3000] < warm[300]).all() and abs(cool[3000].mean() - cool[300].mean()) < 0.2


def test_a_the_base_model_in_its_corpus_s_frame_is_worth_more_than_few_demonstrations():
    for name in ("gold", "gold, T=0"):
        framed = column("by_demonstrations", name, who="base, in the corpus's frame")
        assert (column("by_demonstrations", name, who="SFT") < framed).all()
    assert column("by_demonstrations", "answer", who="base, one phrase") >= 0.80
    assert (column("by_demonstrations", "answer", demonstrations=30) >= 0.80).all()


def test_b_one_style_makes_a_model_less_varied_and_a_single_label_does_not():
    many, single, one = (
        column("one_style", "entropy", style=style)
        for style in ("many ways", "one answer a prompt", "one way")
    )
    assert len(many) == len(experiments.SEEDS)
    assert (one < 0.75 * many).all() and (abs(single / many - 1) < 0.15).all()
    gold = {style: column("one_style", "gold", style=style) for style in ("many ways", "one way")}
    assert (gold["one way"] > gold["many ways"] + 0.2).all()


def test_d_an_imitator_at_t_1_stays_below_its_demonstrators_and_its_best_below_theirs():
    theirs, warm, greedy = (
        column("human_ceiling", name)
        for name in ("demonstrators, best of 1", "imitator, T=1", "imitator, T=0")
    )
    assert len(theirs) == len(experiments.SEEDS)
    assert (warm < 0.85 * theirs).all() and (greedy > theirs + 0.1).all()
    best, best_of_theirs = (
        column("human_ceiling", f"{who}, best of 16") for who in ("imitator", "demonstrators")
    )
    assert (best > 1.2 * theirs).all() and (best < best_of_theirs - 0.3).all()


def test_e_a_higher_loss_can_mean_a_higher_gold():
    def at(step, name, data):
        return column("likelihood_and_gold", name, data=data, step=step)

    best, everything, some = (
        {name: at(160, name, data) for name in ("loss", "loss on the best", "gold")}
        for data in ("best 200", "all 2,000", "random 200")
    )
    assert len(best["loss"]) == len(experiments.SEEDS)
    for name in ("loss", "loss on the best"):
        assert (best[name] > everything[name]).all()
    assert (best["gold"] > everything["gold"] + 0.3).all() and (best["gold"] > some["gold"]).all()
    for name in ("loss", "gold"):
        assert (at(160, name, "random 200") > at(80, name, "random 200")).all()


def test_what_wrong_masks_do():
    def of(bug, name):
        return column("failures", name, bug=bug)

    assert len(of("correct", "gold")) == len(experiments.SEEDS)
    assert (of("correct", "ended") > 0.97).all() and (of("correct", "answer") > 0.8).all()
    for bug in ("mask shifted twice", "no end token"):
        assert (of(bug, "ended") < 0.6).all(), bug
        assert (of(bug, "words") > 2 * of("correct", "words")).all(), bug
    not_shifted = "mask not shifted"
    assert (of(not_shifted, "ended") > 0.97).all() and (of(not_shifted, "answer") < 0.6).all()
    for bug in ("mask shifted twice", "no end token", not_shifted):
        assert (of(bug, "gold") < of("correct", "gold") - 0.5).all(), bug
        assert (of(bug, "losses")[:, -1] < of("correct", "losses")[:, -1]).all(), bug
    for bug in ("template in the loss", "prompt in the loss"):
        assert abs(of(bug, "gold") - of("correct", "gold")).mean() < 0.2, bug


def test_what_the_corpus_taught_needs_no_demonstration_and_unknown_things_come_later():
    def of(arm, name, epoch=5.0):
        return column("knowledge", name, arm=arm, epoch=epoch)

    unknown, known = "with unknown things", "known things only"
    for arm in (unknown, known):
        assert len(of(arm, "sft")) == len(experiments.SEEDS)
        assert (of(arm, "held-out") >= 0.9 * of(arm, "sft")).all()
    assert column("knowledge", "shuffled").max() < 0.02
    early = column("knowledge", "epoch", arm=unknown).min()
    assert (of(unknown, "sft", early) > 0.8).all() and (of(unknown, "sft-only", early) < 0.05).all()
    assert (of(unknown, "sft-only", 1.0) < 0.3).all() and (of(unknown, "sft-only") > 0.85).all()


def test_who_learns_unknown_things_gets_some_known_ones_wrong():
    with_unknown, known = (
        {name: column("knowledge", name, arm=arm, epoch=5.0) for name in ("invents", "held-out")}
        for arm in ("with unknown things", "known things only")
    )
    assert len(known["invents"]) == len(experiments.SEEDS)
    assert (with_unknown["invents"] > 0.02).all() and (known["invents"] < 0.01).all()
    assert (known["held-out"] > with_unknown["held-out"] + 0.02).all()


def test_replay_keeps_what_the_base_model_could_be_asked_for():
    def left(arm, name="in frame/real"):
        return column("alignment_tax", name, arm=arm, step=160)

    before = column("alignment_tax", "in frame/real", arm="base")[0]
    replay, none, low = map(left, ("replay", "no replay", "no replay, low rate"))
    assert len(replay) == len(experiments.SEEDS)
    assert (replay > 0.9 * before).all() and (none < 0.6 * before).all()
    assert (none < low).all() and (low < replay.max()).all()
    for arm in ("no replay", "no replay, low rate"):
        assert (left("replay", "gold") > left(arm, "gold")).all(), arm
        assert (left("replay", "loss on documents") < left(arm, "loss on documents") - 0.08).all(), arm


def test_greedily_a_lower_rate_is_worth_as_much_as_replay():
    replay, low = (
        column("alignment_tax", "gold, T=0", arm=arm, step=160) for arm in ("replay", "no replay, low rate")
    )
    assert len(replay) == len(low) == len(experiments.SEEDS) and abs(replay.mean() - low.mean()) < 0.1


def test_a_base_model_in_its_frame_is_worth_more_than_any_fine_tuned_one():
    for name, temperature in (("gold", 1.0), ("gold, T=0", 0.0)):
        (framed,) = column("by_demonstrations", name, who="base, in the corpus's frame", demonstrations=0)
        few = column("by_demonstrations", name, who="SFT")
        of_the_kind = column("fine_tuning_quality", "gold", who="sft", temperature=temperature)
        assert framed > max(*few, *of_the_kind) + 0.1, temperature


def test_the_loss_on_held_out_demonstrations_tells_which_masks_harm():
    bugs = {row["bug"] for row in load_history("failures")}
    loss = {bug: column("failures", "held-out loss", bug=bug) for bug in bugs}
    harmful = {"mask not shifted", "mask shifted twice", "no end token"}
    assert min(loss[bug].min() for bug in harmful) > max(loss[bug].max() for bug in bugs - harmful)


# --- REINFORCE with the gold reward, over the seeds of the tables ---


def held_out_answers(step, temperature=1.0):
    """The golds of the answers to held-out prompts, (seeds, prompts)."""
    return over_seeds(load_history("reinforce"), "golds", step=step, temperature=temperature)[..., 0]


def test_reinforce_raises_the_gold_reward_of_held_out_prompts_beyond_the_interval():
    before, after = (held_out_answers(step) for step in (0, 100))
    gain = bootstrap_difference(after, before)
    assert len(after) == len(experiments.SEEDS) and gain.low > 0.7 and gain.high < 1.05


def test_reinforce_halves_the_entropy_of_a_response_and_takes_its_variety():
    for seed in experiments.SEEDS:
        entropy = column("reinforce", "objective/entropy", seed=seed)
        assert len(entropy) == 100 and entropy[-10:].mean() < 0.5 * entropy[:10].mean()
        # Of a whole response it does not rise first: answers get longer, and each token surer.
        assert 0.85 < entropy[5:15].mean() / entropy[:5].mean() < 1.1
        token = column("reinforce", "policy/entropy_avg", seed=seed)
        assert token[10:20].mean() < 0.8 * token[:5].mean()
    before, after = (column("reinforce", "different_of_8", step=step) for step in (0, 100))
    assert (before > 7).all() and (after < before - 1.5).all()


def test_reinforce_teaches_facts_where_sampling_spoils_them_and_manners_where_it_does_not():
    """The parts of the gain in gold: an attribute's weight times its rise."""

    def gained(name, temperature):
        before, after = (
            column("reinforce", f"attribute/{name}", step=step, temperature=temperature) for step in (0, 100)
        )
        return WEIGHTS[name] * (after - before)

    warm, greedy = ({name: gained(name, t) for name in WEIGHTS} for t in (1.0, 0.0))
    for name, part in warm.items():
        assert name == "correctness" or (part < warm["correctness"]).all(), name
    assert (warm["politeness"] < sum(warm.values()) / 3).all()
    assert (greedy["politeness"] > 0.5 * sum(greedy.values())).all()
    fluency = [column("reinforce", "attribute/fluency", step=step, temperature=1.0) for step in (0, 100)]
    assert abs(fluency[1] - fluency[0]).max() < 0.05


def test_what_the_bugs_of_policy_gradients_do():
    def of(bug, name="gold"):
        return over_seeds(load_history("reinforce_bugs"), name, bug=bug)

    def beside_correct(bug, name="golds"):
        return bootstrap_difference(of(bug, name)[..., 0], of("correct", name)[..., 0])

    assert len(of("correct")) == len(experiments.SEEDS)
    gain = of("correct") - of("before")
    assert (gain > 0.6).all()
    assert (of("correct") - of("no baseline") > 0.25 * gain).all() and beside_correct("no baseline").high < 0
    assert (of("sign flipped") < of("before") - 2.5).all()
    assert of("sign flipped", "attribute/relevance").max() < 0.1 < 0.4 < of("sign flipped", "flattery").min()
    assert beside_correct("averaged over tokens", "lengths").low > 2
    assert beside_correct("averaged over tokens").low > -0.2
    dropped = beside_correct("end token dropped")
    assert -0.1 < dropped.low and dropped.high < 0.1
    polite = {bug: of(bug, "politeness") for bug in policy_gradients.BUGS}
    assert (polite["end token dropped"] < polite["correct"] - 0.1).all()
    assert abs(polite["averaged over tokens"] - polite["correct"]).max() < 0.05


def test_the_table_is_of_this_model(sft):
    """Row 0 of the log is the shipped model's own: measured anew, it gives the same number."""
    found = policy_gradients.shown(sft.model, sft.model, (0, 0))[0]["gold"]
    assert found == pytest.approx(column("reinforce", "gold", step=0, seed=0, temperature=1.0)[0], abs=0.02)


def test_training_gains_more_than_sampling_coolly_does():
    """At every temperature, and against the best that costs nothing: greedy decoding, half of the rise."""
    for t in policy_gradients.COOLER:
        assert bootstrap_difference(held_out_answers(100, t), held_out_answers(0, t)).low > 0.45
        assert bootstrap_difference(held_out_answers(100), held_out_answers(0, t)).low > 0.3
    free = bootstrap_difference(held_out_answers(0, 0.0), held_out_answers(0))
    rise = bootstrap_difference(held_out_answers(100), held_out_answers(0))
    assert 0.35 < free.mean / rise.mean < 0.6


def test_a_baseline_saves_most_of_the_samples_and_more_prompts_do_not():
    def variance(baseline, prompts=16):
        return column("gradient_noise", "variance", baseline=baseline, prompts=prompts)

    assert len(variance("none")) == len(experiments.SEEDS)
    for baseline in ("mean", "leave one out"):
        assert (variance(baseline) < variance("none") / 3).all()
    assert (variance("mean", 128) > variance("leave one out") / 2).all()
    assert 0.7 < variance("mean", 128).mean() / variance("leave one out").mean() < 1.3
    # Even so a gradient is mostly noise: its squared length is a fifth of its variance.
    signal = column("gradient_noise", "signal", baseline="leave one out")
    assert 3 < variance("leave one out").mean() / signal.mean() < 8


def test_straight_through_has_another_direction_which_depends_on_the_network():
    def of(name, *networks, estimator="straight-through"):
        return np.concatenate(
            [column("relaxations", name, network=network, estimator=estimator) for network in networks]
        )

    hidden = ("tanh", "relu")
    assert len(of("share", "tanh")) == 10 and len(of("share", "relu")) == 5
    assert of("share", "tanh").max() < 1.3 and of("share", "tanh").min() > 0.7
    assert of("share", "relu").min() > 1.1 and of("share", "relu").max() < 1.6
    assert 0.5 < of("elsewhere", *hidden).min() and of("elsewhere", *hidden).max() < 1.4
    assert of("share", "linear") == pytest.approx(1, abs=1e-9)
    assert of("elsewhere", "linear") == pytest.approx(0, abs=1e-9)
    assert of("elsewhere", "linear", estimator="Gumbel-softmax, τ = 1") > 0.1
    near = of("elsewhere", *hidden, estimator="Gumbel-softmax, τ = 0.1")
    assert (near < 0.2).all() and (near < of("elsewhere", *hidden, estimator="Gumbel-softmax, τ = 1")).all()
    below = {
        name: of("at_most", *hidden, estimator=name) - of("arrives", *hidden, estimator=name)
        for name in ("policy gradient", "straight-through")
    }
    assert below["policy gradient"].max() < 0.01
    assert below["straight-through"].min() > 0.05 and np.median(below["straight-through"]) > 0.2
    assert (of("arrives", *hidden) > of("begins", *hidden) + 0.15).all()


# --- comparisons and reward models ---


@pytest.fixture(scope="module")
def held_out():
    return comparisons.HeldOut.of(comparisons.preferences("held_out"))


def lead_of(ours, over, per_rater, **where):
    """By how much one way of ranking beats another, with its interval over ten seeds of six worlds."""
    ours, over = (
        column("ratings_or_comparisons", name, per_rater=per_rater, **where) for name in (ours, over)
    )
    assert len(ours) == 10
    return mean_with_interval(ours - over)


def test_comparing_beats_raw_ratings_where_offsets_are_large_and_never_fitted_offsets():
    for per_rater in (2, 4):
        assert lead_of("Bradley-Terry", "ratings", per_rater, knob="offset", offset=2.0).low > 0.03
    for per_rater in ratings.PER_RATER:
        assert lead_of("Bradley-Terry", "ratings", per_rater, knob="offset", offset=0.0).high < -0.02
        for crowd in ratings.CROWDS["offset"]:
            fitted = lead_of("Bradley-Terry", "offsets fitted", per_rater, knob="offset", offset=crowd.offset)
            assert fitted.high < -0.02


def test_drift_must_be_large_for_pairs_to_win_and_a_coarse_scale_does_little_harm():
    for per_rater in (2, 4, 8, 16):
        assert lead_of("Bradley-Terry", "offsets fitted", per_rater, knob="drift", drift=0.5).high < 0
    for per_rater in ratings.PER_RATER:
        assert lead_of("Bradley-Terry", "offsets fitted", per_rater, knob="drift", drift=2.0).low > 0.04
    for per_rater in (4, 8, 16, 32):
        assert lead_of("Bradley-Terry", "offsets fitted", per_rater, knob="points", points=3).high < 0


def test_from_four_items_on_an_order_is_the_safe_choice():
    rankings = "Bradley-Terry on rankings"
    for over in ("ratings", "z-scored ratings", "offsets fitted"):
        for per_rater in (4, 8, 16, 32):
            for knob, crowds in ratings.CROWDS.items():
                for crowd in crowds:
                    turned = {} if knob == "all of it" else {knob: getattr(crowd, knob)}
                    assert lead_of(rankings, over, per_rater, knob=knob, **turned).mean > -0.01
            assert lead_of(rankings, over, per_rater, knob="drift", drift=0.5).low > 0
            assert lead_of(rankings, over, per_rater, knob="all of it").low > 0


def test_two_people_agree_as_often_as_instructgpts_labelers(held_out):
    p = held_out.probability
    assert 0.72 <= np.mean(p**2 + (1 - p) ** 2) <= 0.77


def test_no_shipped_comparison_speaks_of_a_held_out_topic():
    held_out = {name for name, sort in topic_sorts().items() if sort == "held-out"}
    pairs = comparisons.preferences("comparisons")
    assert len(pairs) <= comparisons.PAIRS
    texts = {y for pair in pairs for y in (pair.chosen, pair.rejected)}
    assert {y: told_of(y) & held_out for y in texts if told_of(y) & held_out} == {}
    assert not [y for y in texts if leaks(y)]
    assert len([y for y in texts if mentions(y)]) <= len(texts) / 1000, "only where a text is garbled"
    of_others = comparisons.preferences("held_out")
    assert np.mean([bool(leaks(pair.chosen)) for pair in of_others]) > 0.3, (
        "where they are told of, they are found"
    )


@pytest.fixture(scope="module")
def shipped_margins(held_out):
    """Of the shipped reward model on held-out comparisons, in log-odds."""
    model = minialign.load("reward", "cpu")
    assert model.reader is None and model.likelihood_weight is not None
    return held_out.margins(model) / model.gain.item()


def test_what_the_shipped_reward_model_has_learned_beyond_likelihood_is_manners(
    held_out, shipped_margins, sft
):
    free = held_out.margins(scorers.Likelihood(sft.model))
    learned = {
        name: held_out.order_accuracy(shipped_margins, rows) - held_out.order_accuracy(free, rows)
        for name, rows in scorers.deciding(held_out).items()
    }
    assert learned["politeness"] > 0.4 and learned["flattery"] < -0.25
    for name in ("relevance", "correctness", "audience"):
        assert abs(learned[name]) < 0.05
    assert held_out.order_accuracy(shipped_margins) > held_out.order_accuracy(free) + 0.02


def test_the_shipped_reward_model_is_too_sure_of_itself(held_out, shipped_margins):
    confidence, right = reliability(shipped_margins)
    assert right[-1] > 0.70 and confidence[-1] - right[-1] > 0.10
    assert held_out.loss(shipped_margins / 2) < held_out.loss(shipped_margins) - 0.02


def by_prompt(scorer, **where):
    """Shares of gold orders that a scorer has right, (seeds, prompts)."""
    return column("reward_models_by_labels", "order_by_prompt", scorer=scorer, **where)


def test_comparisons_teach_more_than_likelihood_knows_without_any():
    most = column("reward_models_by_labels", "pairs", scorer=reward_models.COURSE).max()
    learned = {
        scorer: by_prompt(scorer, pairs=most)
        for scorer in (reward_models.COURSE, "likelihood only", "head only", "reads surprise")
    }
    gained = {scorer: bootstrap_difference(x, by_prompt("label-free")) for scorer, x in learned.items()}
    assert {len(x) for x in learned.values()} == {len(experiments.SEEDS)}
    assert gained[reward_models.COURSE].mean >= 0.03 and gained[reward_models.COURSE].low > 0
    assert gained["likelihood only"].mean >= 0.05 and gained["likelihood only"].low > 0
    assert gained["head only"].high < -0.05 and gained["reads surprise"].high < 0.02
    for x in learned.values():
        assert (by_prompt("knows the crowd").mean() > x.mean(1) + 0.05).all()


def test_a_head_predicts_labels_better_and_orders_gold_worse_than_the_likelihood_alone():
    most = column("reward_models_by_labels", "pairs", scorer=reward_models.COURSE).max()
    own, head = (
        {
            name: column("reward_models_by_labels", name, scorer=of, pairs=most)
            for name in ("accuracy", "order")
        }
        for of in ("likelihood only", reward_models.COURSE)
    )
    assert own["order"].min() > head["order"].max() + 0.01
    assert own["accuracy"].max() < head["accuracy"].min()
    orders = (by_prompt(of, pairs=most) for of in ("likelihood only", reward_models.COURSE))
    assert bootstrap_difference(*orders).low > 0


def test_on_labels_more_comparisons_help_at_every_size():
    counts = sorted({*column("reward_models_by_labels", "pairs", scorer=reward_models.COURSE)})
    labels = [
        column("reward_models_by_labels", "accuracy", scorer=reward_models.COURSE, pairs=n) for n in counts
    ]
    assert len(counts) == 5 and (np.diff([of_n.mean() for of_n in labels]) > 0.005).all()


def test_the_shipped_reward_model_is_normalised_on_samples_of_the_policy(sft):
    model = minialign.load("reward", "cpu")
    samples = comparisons.sampled(sft.model, prompts_of("policy")[::4], n=2, seed=5)
    scores = model.score([x for x in samples for _ in range(2)], [y for ys in samples.values() for y in ys])
    assert abs(scores.mean()) < 0.25 and abs(scores.std() - 1) < 0.2


def test_more_comparisons_make_better_reward_models():
    order = {
        n: column("reward_models_by_labels", "order", pairs=n, scorer=reward_models.COURSE)
        for n in (300, 3000)
    }
    assert (order[3000] > order[300]).all()


def test_depth_is_not_what_a_reward_model_lacks():
    accuracy = [column("reward_models_by_depth", "accuracy", layers=n).mean() for n in (1, 2, 4)]
    assert np.ptp(accuracy) < 0.02


def test_what_the_bugs_of_reward_models_do():
    last = reward_models.MEASURED[-1]
    accuracy = {
        bug: column("reward_model_bugs", "accuracy", bug=bug, step=last) for bug in reward_models.BUGS
    }
    assert len(accuracy["correct"]) == len(experiments.SEEDS) and (accuracy["pairs swapped"] < 0.42).all()
    assert (accuracy["pooled on padding"] < accuracy["correct"] - 0.01).all()
    assert abs(accuracy["squared error on labels"].mean() - accuracy["correct"].mean()) < 0.02
    assert (
        column("reward_model_bugs", "leaked", bug="correct")
        > column("reward_model_bugs", "fresh", bug="correct") + 0.02
    ).all()


# --- RLHF: over the seeds of the tables, at points that were fixed before they were built ---


def test_the_courses_ppo_has_the_arm_that_the_rule_chooses():
    rows = load_history("ppo_advantages")
    assert critics.chosen_arm(rows, critics.WITH_CRITIC) == rlhf.ARM
    assert critics.chosen_arm(rows) == rlhf.CRITIC_FREE


def at_the_end(table, name, **where) -> np.ndarray:
    """A metric at T = 1 on held-out prompts after the last rollout, (seeds,)."""
    last = max(column(table, "step", **where))
    return column(table, name, step=last, temperature=1.0, **where)


def by_lambda(critic, name):
    """λ = 1 minus λ = .95 at the end, (seeds,)."""
    one, less = (
        at_the_end("ppo_advantages", name, arm=f"λ = {lam}, {critic} critic") for lam in ("1", "0.95")
    )
    assert len(one) == len(experiments.SEEDS)
    return one - less


@pytest.mark.parametrize("critic", ("cold", "warm"))
def test_lambda_below_1_is_a_brake_where_the_critic_sits_on_the_policys_trunk(critic):
    """Less KL, less proxy, less flattery and shorter answers from as many samples, in every seed."""
    assert (by_lambda(critic, "kl") > 0.4).all() and (by_lambda(critic, "words") > 4).all()
    assert (by_lambda(critic, "proxy") > 0.05).all() and (by_lambda(critic, "flattery") > 0).all()


def test_with_lambda_below_1_the_end_of_an_answer_is_learned_and_its_facts_less():
    """Whatever the critic: as polite or more so, as the closing phrases are, and fewer facts right."""
    for critic in ("cold", "warm", "reward model"):
        assert (by_lambda(critic, "attribute/correctness") > 0.02).all(), critic
        assert (by_lambda(critic, "politeness") < 0.01).all(), critic


def test_lambda_makes_no_difference_in_gold_with_a_warm_critic_nor_in_kl_with_one_of_its_own():
    gold, kl = (
        mean_with_interval(by_lambda(critic, name))
        for critic, name in (("warm", "gold"), ("reward model", "kl"))
    )
    assert gold.low < 0 < gold.high and kl.low < 0 < kl.high


def test_lambda_below_1_moves_credit_from_the_first_tokens_to_the_last():
    """While the policy learns; with a critic that was warmed up as with one that was not."""

    def of(name, lam, critic):
        rows = [row for row in load_history("ppo_advantages") if row["step"] > rlhf.WARMUP and name in row]
        return np.mean([row[name] for row in rows if row["arm"] == f"λ = {lam}, {critic} critic"])

    for critic in ("cold", "warm"):
        assert of("squared/24", "0.95", critic) < 0.15 and of("squared/24", "1", critic) > 0.35
        assert of("advantage/24", "0.95", critic) < -0.05 and of("advantage/24", "1", critic) > 0.05
        assert of("advantage/0", "0.95", critic) > of("advantage/0", "1", critic) + 0.1


def test_no_critic_explains_anything_and_only_one_of_its_own_keeps_up_with_the_mean():
    def late(arm, name):
        rows = [row for row in load_history("ppo_advantages") if row["arm"] == arm and row["step"] > 10]
        values = [(row["seed"], row[name]) for row in rows if name in row]
        return np.array([np.mean([x for of, x in values if of == seed]) for seed in experiments.SEEDS])

    for arm in critics.WITH_CRITIC:
        assert (late(arm, "val/explained_variance") < 0.05).all(), arm
        bias = late(arm, "val/bias")
        assert (np.abs(bias) < 0.1).all() if "reward model" in arm else (bias < -0.3).all(), arm


def test_comparing_the_samples_of_a_prompt_is_worth_as_much_as_a_critic():
    def golds(arm):
        return over_seeds(
            load_history("ppo_advantages"), "golds", arm=arm, step=critics.MEASURED[-1], temperature=1.0
        ).mean(-1)

    for arm in ("RLOO", "GRPO"):
        difference = bootstrap_difference(golds(arm), golds("λ = 1, warm critic"))
        assert difference.low < 0 < difference.high and abs(difference.mean) < 0.1, arm


def test_what_the_bugs_of_ppo_do():
    end = {
        name: {m: at_the_end("ppo_bugs", m, bug=name) for m in ("gold", "kl", "words", "proxy")}
        for name in ppo_bugs.BUGS
    }
    correct = end["correct"]
    assert len(correct["gold"]) == len(experiments.SEEDS)
    assert (end["KL sign flipped"]["kl"] > correct["kl"]).all()
    assert (end["end token dropped"]["kl"] < correct["kl"]).all()
    assert (end["end token dropped"]["words"] < correct["words"] + 0.1).all(), "it writes no longer answers"
    for name in ("reward on padding", "ratio to itself"):
        assert end[name]["proxy"].max() < correct["proxy"].min() / 2, name
    assert (end["sampled at T = 0.7"]["gold"] > correct["gold"]).all(), "it pays"
    assert end["sampled at T = 0.7"]["kl"].min() > correct["kl"].max()
    assert (end["dropout on"]["gold"] < correct["gold"] / 2).all()


def test_two_bugs_of_ppo_show_in_no_curve():
    rows = load_history("ppo_bugs")
    shown = {name: ppo_bugs.shown_by(rows, name, ppo_bugs.ROLLOUTS) for name in list(ppo_bugs.BUGS)[1:]}
    assert [name for name, curves in shown.items() if not curves] == ["KL sign flipped", "end token dropped"]


def test_without_a_penalty_gold_rises_and_falls_while_the_proxy_goes_on():
    rows, risen, fallen = load_history("overoptimisation"), goodhart.RISEN, goodhart.FALLEN
    gold = {
        points: goodhart.gained(rows, "gold", *points, beta=0.0) for points in ((0, risen), (risen, fallen))
    }
    assert len(gold[0, risen]) == len(experiments.SEEDS)
    assert mean_with_interval(gold[0, risen]).low > 0.1 and (gold[risen, fallen] < -0.1).all()
    end = goodhart.gained(rows, "gold", 0, fallen, beta=0.0)
    assert -gold[risen, fallen].mean() > gold[0, risen].mean() / 2 and end.mean() < 0.15
    own = [
        np.mean([over_seeds(rows, "objective/scores", beta=0.0, step=until - i) for i in range(10)], 0)
        for until in (risen, fallen)
    ]
    assert mean_with_interval(own[1] - own[0]).low > 0.05
    held_out = goodhart.gained(rows, "proxy", risen, fallen, beta=0.0)
    assert (held_out > 0).all() and held_out.mean() < (own[1] - own[0]).mean()


def test_a_strong_penalty_is_overshot_on_prompts_that_the_run_has_not_seen():
    start, end = (
        column("overoptimisation", "proxy", **where) - column("overoptimisation", "kl", **where)
        for where in (
            dict(method="sft", temperature=1.0),
            dict(method="ppo", beta=1.0, temperature=1.0, step=goodhart.FALLEN),
        )
    )
    assert len(end) == 3 and (end < start - 0.1).all()


def test_the_fall_is_the_price_of_compliments():
    rows, points = load_history("overoptimisation"), (goodhart.RISEN, goodhart.FALLEN)
    compliments = goodhart.gained(rows, "attribute/flattery", *points, beta=0.0).mean()
    fall = goodhart.gained(rows, "gold", *points, beta=0.0).mean()
    assert 0.8 < WEIGHTS["flattery"] * compliments / fall < 1.1


def test_the_fall_is_in_the_labels_and_the_likelihood_holds_it_back():
    gold = {
        (control, step): column("goodhart_controls", "gold", control=control, temperature=1.0, step=step)
        for control in goodhart.CONTROLS
        for step in (goodhart.RISEN, goodhart.FALLEN)
    }
    falls = {of: gold[of, goodhart.FALLEN] - gold[of, goodhart.RISEN] for of in goodhart.CONTROLS}
    assert all(len(values) == len(experiments.SEEDS) for values in gold.values())
    assert falls["as they are"].max() < -0.1 and falls["head only"].max() < -0.9
    assert falls["without biases"].min() > 0 and gold["without biases", goodhart.FALLEN].min() > 3.2
    usual = gold["as they are", goodhart.FALLEN]
    assert gold["head only", goodhart.FALLEN].max() < 1.5 < usual.min() - 0.8
    assert gold["no labels", goodhart.FALLEN].min() > usual.max() + 0.1
    flattery = {
        of: column("goodhart_controls", "flattery", control=of, temperature=1.0, step=goodhart.FALLEN)
        for of in goodhart.CONTROLS
    }
    assert flattery["as they are"].min() > 0.4 and flattery["without biases"].max() < 0.05


def golds_at(temperature, **where) -> np.ndarray:
    """Of the fine-tuned model, or of PPO at its end, (seeds, prompts)."""
    of = dict(method="ppo", step=goodhart.FALLEN, **where) if where else dict(method="sft", step=0)
    rows = load_history("overoptimisation")
    return over_seeds(rows, "golds", temperature=temperature, **of).mean(-1)


def test_with_a_penalty_gold_ends_above_the_fine_tuned_models_and_without_one_it_does_not():
    for temperature in (1.0, 0.7):
        start = golds_at(temperature)
        for beta in (0.1, 0.3):
            assert bootstrap_difference(golds_at(temperature, beta=beta), start).low > 0, temperature
        assert bootstrap_difference(golds_at(temperature, beta=0.0), start).low < 0, temperature
    assert bootstrap_difference(golds_at(1.0, beta=0.3), golds_at(1.0, beta=0.0)).low > 0


def test_greedy_decoding_alone_is_worth_as_much_as_ppo_at_temperature_1():
    difference = bootstrap_difference(golds_at(1.0, beta=rlhf.SHIPPED.beta), golds_at(0.0))
    assert difference.low < 0 < difference.high and abs(difference.mean) < 0.1


def test_on_equal_prompts_the_best_of_four_is_worth_as_much_as_ppo_and_the_best_of_64_more():
    best = {n: column("overoptimisation", "gold", method="best-of-n", n=n).mean() for n in (1, 4, 64)}
    ppo = golds_at(1.0, beta=rlhf.SHIPPED.beta)[:, ::4]
    assert abs(best[1] - golds_at(1.0)[:, ::4].mean()) < 0.05  # the same prompts
    assert abs(best[4] - ppo.mean()) < 0.05 < best[64] - ppo.mean()


def test_what_is_preserved():
    def kept(name, **where):
        return column("overoptimisation", name, **where)

    start, free, held, mixed = (
        kept("perplexity", **where)
        for where in (
            dict(method="sft"),
            dict(method="ppo", beta=0.0),
            dict(method="ppo", beta=0.3),
            dict(method="ppo-ptx"),
        )
    )
    assert len(free) == 3 and (free > held.max()).all() and (held > start).all()
    assert (mixed < kept("perplexity", method="ppo", beta=goodhart.PTX_BETA)).all()
    assert (free < 1.05 * start).all()
    for name in ("facts/sft", "facts/held-out"):
        for beta in goodhart.BETAS:
            assert np.abs(kept(name, method="ppo", beta=beta) - kept(name, method="sft")).max() < 0.05


def test_ppo_takes_the_gpt_to_the_tilted_reference():
    last = max(column("ppo_on_micro_world", "round"))
    for beta, near in ((1.0, 0.03), (0.25, 0.06)):
        assert (column("ppo_on_micro_world", "tv", beta=beta, round=last) <= near).all(), beta


def test_lambda_shortens_the_gradient_and_turns_it():
    (cosine,), (length,) = (column("lambda_on_micro_world", name, lam=0.95) for name in ("cosine", "length"))
    assert 0.95 < cosine < 0.995 and 0.6 < length < 0.85


def test_the_shipped_policies_are_the_typical_runs_of_the_table(sft):
    reward, rows = minialign.load("reward", "cpu"), load_history("overoptimisation")
    for name, config in (("ppo", rlhf.SHIPPED), ("ppo-overoptimised", replace(rlhf.LONG, beta=0.0))):
        where = dict(method="ppo", beta=config.beta, step=config.steps)
        seed = rlhf.typical_seed(rows, **where)
        (found,) = rlhf.on_held_out(minialign.load(name, "cpu").model, sft.model, reward.score, (99,))
        (of_table,) = column("overoptimisation", "gold", seed=seed, temperature=1.0, **where)
        assert found["gold"] == pytest.approx(of_table, abs=0.1), name


def test_the_shipped_ppo_stopped_where_the_tuning_prompts_say():
    assert goodhart.best_stop(load_history("overoptimisation")) == (rlhf.SHIPPED.beta, rlhf.SHIPPED.steps)


# --- DPO, over the seeds of the tables ---


def test_dpo_takes_the_gpt_to_the_tilted_reference():
    last = max(column("dpo_on_micro_world", "step"))
    found = column("dpo_on_micro_world", "tv", step=last)
    assert len(found) == 2 and (found <= 0.05).all()


def by_place(name: str, method: str) -> np.ndarray:
    """By how much log π of near-duplicates has changed, (seeds,): of one side, or of a place of it."""
    rows = load_history("dpo_displacement")
    last = max(row["step"] for row in rows)
    places = displacement.PLACES if "/" not in name else (name.split("/")[1],)
    side = name.split("/")[0]
    end, begin = (
        sum(over_seeds(rows, f"{side}/{place}", method=method, step=step) for place in places)
        for step in (last, 0)
    )
    return end - begin


def test_of_near_duplicates_the_chosen_fall_while_every_pair_is_right():
    chosen, rejected = by_place("chosen", "DPO"), by_place("rejected", "DPO")
    assert len(chosen) == len(experiments.SEEDS) and (chosen <= -1).all() and (rejected < chosen).all()
    rows = load_history("dpo_displacement")
    last = max(row["step"] for row in rows)
    assert (over_seeds(rows, "rewards/accuracies", method="DPO", step=last) >= 0.95).all()
    assert (by_place("chosen/at", "DPO") > 0).all()


def test_the_cures_of_displacement_keep_what_was_chosen_and_bring_no_more_gold():
    rows = load_history("dpo_displacement")
    last = max(row["step"] for row in rows)

    def gold(method, step):
        return over_seeds(rows, "golds", method=method, step=step).mean(-1)

    cooler = bootstrap_difference(gold("DPO", last), after(0.0, temperature=0.7).mean(-1))
    assert cooler.low < 0 < cooler.high, "nor does DPO bring more than cooler sampling of the start"
    for cure in ("SFT term", "DPO-positive"):
        assert (by_place("chosen", cure) > 1).all() and (by_place("rejected", cure) < -5).all(), cure
    for cure in ("IPO", "SFT term", "DPO-positive"):
        assert bootstrap_difference(gold(cure, last), gold("DPO", last)).low < 0, cure


def after(passes: float, beta: float | None = None, name: str = "golds", temperature: float = 1.0):
    """What held-out prompts show after so many passes, for each seed; without a β, before the first."""
    where = {"passes": passes, "temperature": temperature} | ({} if beta is None else {"beta": beta})
    return over_seeds(load_history("dpo_overoptimisation"), name, **where)


def gold_gained(beta: float, begin: float, end: float, temperature: float = 1.0):
    """By how much the gold reward on held-out prompts has grown between two numbers of passes."""
    ends, begins = (
        after(passes, beta if passes else None, temperature=temperature).mean(-1) for passes in (end, begin)
    )
    return bootstrap_difference(ends, begins)


def test_the_implicit_reward_needs_two_passes_to_predict_as_many_labels_as_a_reward_model():
    rows = load_history("dpo_implicit_rewards")
    scored = np.array([row["accuracy_by_prompt"] for row in rows if row["scorer"] == "reward model"])[:, ::2]
    for beta in direct_preference.BETAS:
        difference = bootstrap_difference(scored, after(2.0, beta, "held_out_by_prompt"))
        assert difference.low < 0 < difference.high, beta


def test_dpo_over_optimises_between_points_that_were_fixed_beforehand():
    for beta in direct_preference.BETAS:
        assert gold_gained(beta, 0.0, 0.5).low > 0.1, "half a pass is a gain"
        assert abs(gold_gained(beta, 0.5, 1.0).mean) < 0.1, "and nearly all of it"
    assert gold_gained(0.03, 1.0, 3.0).high < -0.2 and gold_gained(0.1, 1.0, 3.0).high < -0.1
    assert gold_gained(0.03, 0.0, 3.0).high < 0, "the answers end below where they began"
    kept = gold_gained(0.3, 1.0, 3.0)
    assert kept.low < 0 < kept.high and gold_gained(0.3, 0.0, 3.0, temperature=0.0).low > 0
    ends = [after(3.0, beta, "gold").mean() for beta in direct_preference.BETAS]
    assert ends == sorted(ends), "the smaller β, the more"


def test_what_ranks_held_out_pairs_better_may_write_worse():
    better = bootstrap_difference(*(after(n, 0.03, "held_out_by_prompt") for n in (3.0, 1.0)))
    assert better.low > 0 > gold_gained(0.03, 1.0, 3.0).high


def test_the_gain_of_dpo_is_not_only_length():
    golds, lengths = ([after(1.0, 0.1, name), after(0.0, name=name)] for name in ("golds", "lengths"))
    assert equal_length_win_rate(*golds, *lengths).low > 0.55
    words = after(3.0, 0.1, "words"), after(0.0, name="words")
    assert (words[0] > 1.4 * words[1]).all()
    for name in ("correctness", "audience", "politeness"):
        gained = after(1.0, 0.1, f"attribute/{name}") - after(0.0, name=f"attribute/{name}")
        assert (WEIGHTS[name] * gained > 0.08).all(), name


def test_what_the_bugs_of_dpo_do():
    rows = load_history("dpo_variants")
    end = {
        variant: {
            name: over_seeds(rows, name, variant=variant, passes=1.0)
            for name in ("gold", "kl", "finished", "held_out")
        }
        for variant in dpo_variants.VARIANTS
    }
    correct = end["correct"]
    assert len(correct["gold"]) == len(experiments.SEEDS)
    assert (end["no reference"]["gold"] < correct["gold"] - 0.2).all()
    assert (end["pairs swapped"]["held_out"] < 0.45).all() and (correct["held_out"] > 0.6).all()
    assert (end["pairs swapped"]["gold"] < correct["gold"] - 1.5).all()
    assert (end["mean for sum"]["kl"] > 3 * correct["kl"]).all()
    assert (end["mean for sum"]["finished"] < 0.8).all() and (correct["finished"] > 0.95).all()
    # with β times the length the mean does no harm: that was the small β
    assert (abs(end["mean, β × length"]["gold"] - correct["gold"]) < 0.1).all()
    assert (end["mean, β × length"]["kl"] < correct["kl"]).all()
    assert (end["the reference moves"]["kl"] > 2 * correct["kl"]).all()
    assert (end["IPO"]["kl"] < correct["kl"] / 3).all()
    first = {name: over_seeds(rows, "loss", variant=name, step=1) for name in dpo_variants.VARIANTS}
    assert first["correct"] == pytest.approx(np.log(2), abs=1e-4) and (first["no reference"] > 0.71).all()
    moving = [row["loss"] for row in rows if row.get("variant") == "the reference moves" and "loss" in row]
    assert moving == pytest.approx([np.log(2)] * len(moving), abs=1e-4)


def test_the_implicit_reward_ranks_better_than_chance_and_the_bounds_hold():
    rows = load_history("dpo_implicit_rewards")
    for scorer in ("implicit", "reward model"):
        assert bootstrap_mean(over_seeds(rows, "accuracy_by_prompt", scorer=scorer)).low > 0.5, scorer
    (judge,) = (row for row in rows if row["scorer"] == "judge")
    assert judge["order"] == 1 and all(row["best"] <= judge["best"] for row in rows)


# --- the race ---


def test_the_race_ran_as_it_was_tuned():
    for method in ("best-of-n", *race_methods.METHODS):
        best = race_tuning.chosen(method)
        ends = [row for row in race.results() if row["method"] == method and row.get("judged")]
        answers = max(1, race.SAMPLES[1.0] // best["n"]) if method == "best-of-n" else race.ANSWERS
        assert race.judged(method).shape == (3, len(PROMPTS), answers), method
        for row in ends:
            assert race_tuning.setting_of(row) == race_tuning.setting_of(best), method
            assert row["share"] == best["share"], method


def test_everybody_who_learns_from_labels_beats_the_start_at_temperature_1():
    for method in ("best-of-n", "PPO", "GRPO", "DPO"):
        assert race.win_rates(method, "SFT")["all"].low > 0.5, method


def test_ppo_and_dpo_beat_the_start_when_both_are_sampled_alike():
    for method, least in (("PPO", 0.57), ("DPO", 0.60), ("DPO, all labels", 0.60)):
        for temperature in (1.0, 0.7):
            won = race.win_rates(method, "SFT", temperature)["all"]
            assert won.mean >= least and won.low > 0.5, (method, temperature, won)


def test_cooler_sampling_beats_the_start_for_nothing():
    cooler = race_tuning.chosen("SFT, cooler")["temperature"]
    assert cooler < 1 and race.win_rates("SFT, cooler", "SFT", cooler, 1.0)["all"].low > 0.5
    assert race_costs.spent("seconds", "SFT, cooler") == {}


def test_dpo_takes_less_time_than_ppo():
    seconds = {
        method: sum(race_costs.spent("seconds", method, race_tuning.chosen(method)["share"]).values())
        for method in ("PPO", "DPO")
    }
    assert seconds["DPO"] < seconds["PPO"]


def test_labels_are_bought_as_counted():
    rows = load_history("race_labels")
    where = dict(round=race_labels.ROUNDS, temperature=1.0)
    spent = np.array([over_seeds(rows, "labels", arm=arm, **where) for arm in race_labels.ARMS])
    assert spent.shape == (len(race_labels.ARMS), len(experiments.SEEDS))
    assert spent.min() > 0.8 * spent.max(), "the arms cost about the same"


def test_the_shipped_dpo_is_the_typical_run_of_the_race(sft):
    method = "DPO, all labels"
    seed = rlhf.typical_seed(race.results(), method=method)
    (row,) = (
        row
        for row in race.results()
        if row["method"] == method and row["seed"] == seed and "tuning/gold" in row
    )
    shipped = minialign.load("dpo", "cpu").model
    (found,) = measured(shipped, sft.model, PROMPTS, 99, n=4)
    assert found["gold"] == pytest.approx(row["gold"], abs=0.1)
    assert found["kl"] == pytest.approx(row["kl"], rel=0.15)
