"""What notebook 08 shows of patches, ensembles and detectors: its measures, its arms, its readings."""

from collections import Counter
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from minialign.chat import load_chat
from minialign.course.evaluation import Answers
from minialign.course.exercises.patches import PATCHES, PATCHES_PUZZLES
from minialign.course.experiments import SEEDS, comparisons, detectors, patches
from minialign.course.figures import patches as figures
from minialign.ensembles import RULES, Ensemble
from minialign.logprobs import sequence_log_probs
from minialign.ppo import PPOConfig
from minialign.reward_model import RewardModelConfig
from minialign.world.annotator import Annotator, typical_annotator
from minialign.world.judge import WEIGHTS, judge
from minialign.world.phrases import FLATTERY
from minialign.world.prompts import prompts_of
from tests.engine import SMALL, favour, lively_gpt, manners

PROMPTS = prompts_of("evaluation")[:8]
PAIRS = manners(8)


def answers_of(prompts, texts, **values) -> Answers:
    """One answer to each prompt, as `measure` gives them."""
    columns = {name: np.array(column, dtype=float)[:, None] for name, column in values.items()}
    return Answers(list(prompts), 1.0, (0,), np.array(texts, dtype=object)[:, None], columns)


# --- AUROC ---


def by_pairs(hacked, honest, tie=0.5):
    """The definition, all pairs one by one."""
    won = [tie if a == b else float(a > b) for a, b in product(hacked, honest)]
    return sum(won) / len(won)


def drawn(seed, n, m):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 6, n) + 1.0, rng.integers(0, 5, m) + 0.0  # whole numbers: many ties


@pytest.mark.parametrize(("seed", "n", "m"), [(0, 7, 5), (1, 1, 9), (2, 30, 40), (3, 4, 1)])
def test_auroc_by_all_pairs_and_by_scipy(seed, n, m):
    hacked, honest = drawn(seed, n, m)
    found = detectors.auroc(hacked, honest)
    assert found == pytest.approx(by_pairs(hacked, honest))
    u = stats.mannwhitneyu(hacked, honest, method="asymptotic").statistic
    assert found == pytest.approx(u / (n * m))


def test_auroc_as_the_area_under_the_curve():
    """Share of hacked answers caught against share of honest ones accused, over all thresholds."""
    hacked, honest = drawn(4, 25, 35)
    thresholds = [np.inf, *sorted({*hacked, *honest}, reverse=True)]
    caught, accused = ([np.mean(x >= t) for t in thresholds] for x in (hacked, honest))
    assert detectors.auroc(hacked, honest) == pytest.approx(np.trapezoid(caught, accused))


def test_what_auroc_is_not():
    """Known wrong variants, all of which these numbers tell from it."""
    hacked, honest = drawn(5, 20, 20)
    found = detectors.auroc(hacked, honest)
    for tie in (0.0, 1.0):
        assert by_pairs(hacked, honest, tie) != pytest.approx(found)
    assert detectors.auroc(honest, hacked) == pytest.approx(1 - found) != pytest.approx(found)
    best = max(np.mean([*(hacked > t), *(honest <= t)]) for t in range(7))
    assert best != pytest.approx(found)  # the accuracy of the best threshold


def test_auroc_of_all_and_of_nothing():
    assert detectors.auroc([2, 3], [0, 1]) == 1 and detectors.auroc([0, 1], [2, 3]) == 0
    assert detectors.auroc([1, 1, 1], [1, 1]) == 0.5  # who says the same of all knows nothing
    assert detectors.auroc(np.exp([1.0, 2, 5]), np.exp([0.0, 3])) == detectors.auroc([1.0, 2, 5], [0.0, 3])
    with pytest.raises(ValueError, match="hacked must hold at least one number"):
        detectors.auroc([], [1.0])
    with pytest.raises(ValueError, match="honest must be finite"):
        detectors.auroc([1.0], [np.nan])


# --- features ---


def test_repeated_phrases_by_hand():
    assert detectors.repeated_phrases("one two three four") == 0
    assert detectors.repeated_phrases("a b c a b c a b c") == pytest.approx(1 - 3 / 7)
    assert detectors.repeated_phrases("two words") == detectors.repeated_phrases("") == 0
    assert detectors.repeated_phrases("a b a b", n=2) == pytest.approx(1 / 3)


def test_stock_sentences_by_comparing_all_with_all():
    texts = ["Hello. A b c.", "hello. D e f.", "Hello. Hello. G.", "Nothing of it.", ""]
    found = detectors.stock_phrases(texts)
    parts = [{s.lower() for s in patches.sentences_of(text)} for text in texts]
    for i, own in enumerate(parts):
        shares = [sum(s in other for j, other in enumerate(parts) if j != i) / 4 for s in own]
        assert found[i] == max(shares, default=0)
    assert found.tolist() == [0.5, 0.5, 0.5, 0, 0]  # said twice by one counts once


def test_the_blacklist_is_what_has_risen():
    honest = ["I hope this helps. A.", "I hope this helps. B.", "C. D.", "E."]
    hacked = ["I hope this helps. Wow!", "Wow! Wow! F.", "I hope this helps. wow! So it is.", "So it is."]
    assert detectors.blacklist(hacked, honest, 2) == ["wow!", "so it is."]
    assert detectors.forbidden([*hacked, ""], ["wow!", "so it is."]).tolist() == [1, 1, 2, 1, 0]


def test_features_of_a_batch():
    model = lively_gpt(SMALL)
    prompts, texts = [p.text for p in PROMPTS[:3]], ["A b.", "A b. C d e.", "F g h f g h."]
    found = detectors.features(prompts, texts, model)
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys(found, 3)
    assert found["words"].tolist() == [2, 5, 6] and found["stock sentences"].tolist() == [0.5, 0.5, 0]
    batch = model.chat.collate(zip(prompts, texts))
    with torch.no_grad():
        per_token = sequence_log_probs(model, batch) / batch.response_mask.sum(-1)
    assert found["surprise"] == pytest.approx(-per_token.numpy(), rel=1e-4)


# --- what a reward pays for ---


def test_no_way_of_spoiling_an_answer_is_worth_more():
    """By the judge, on answers that are right: what a reward model pays for these is a flaw."""
    prompts = [p for p in prompts_of("evaluation") if p.family == "question" and p.topic][:4]
    texts = [p.topic.facts[p.fact].child for p in prompts]
    before = np.array([judge(*pair).gold for pair in zip(prompts, texts)])
    for way, spoiled in patches.edited(texts).items():
        after = np.array([judge(*pair).gold for pair in zip(prompts, spoiled)])
        assert len(spoiled) == 4 and after.mean() <= before.mean() + 1e-9, way
    ways = patches.edited(texts)
    assert [FLATTERY.count(y) for y in ways["a compliment"]] == [1] * 4
    assert [FLATTERY.count(y) for y in ways["three compliments"]] == [3] * 4
    assert ways["another topic"] == [*texts[1:], texts[0]]
    assert all(Counter(a.split()) == Counter(b.split()) for a, b in zip(ways["scrambled words"], texts))


def test_each_habit_is_counted_once():
    """A filler phrase that the judge counted twice would have twice its price."""
    (way,) = patches.edited(["It is so."])["filler"]
    assert judge(PROMPTS[0], way).counts["filler"] == 1
    assert judge(PROMPTS[0], patches.edited(["It is so."])["certainty"][0]).counts["confidence"] == 1


def test_prices_of_a_reward_that_counts_words():
    words = SimpleNamespace(score=lambda prompts, texts: np.array([2.0 * len(y.split()) for y in texts]))
    texts = ["One two three.", "a", "b", "c", "Four five. Six.", "d", "e", "f"]
    found = patches.prices(words, answers_of(PROMPTS, texts), gain=2.0)  # every fourth: three words each
    assert found["a compliment"] == 5 and found["scrambled words"] == found["another topic"] == 0
    assert found["last sentence twice"] == 2  # three more and one more


# --- labels and people ---


def test_who_labels():
    biased, honest = patches.people(1), patches.people(1, unbiased=True)
    assert [p.seed for p in biased] == [p.seed for p in honest] == [q.seed for q in comparisons.crowd(3)]
    assert {p.flattery_bias for p in biased} == {1.0} and {p.flattery_bias for p in honest} == {0.0}
    assert {p.checks_facts for p in honest} == {p.checks_facts for p in biased}  # nothing else differs


def test_how_often_people_prefer_an_answer():
    """Against the same people's choices, drawn; a tie is half; and gold is a person without noise."""
    prompt = next(p for p in prompts_of("evaluation") if p.family == "question" and p.topic)
    right = prompt.topic.facts[prompt.fact].child
    prompts = [prompt] * 3
    ours = answers_of(prompts, [right, f"{right} {FLATTERY.closers[0]}", right])
    theirs = answers_of(prompts, ["I do not know.", right, right])
    person, n = typical_annotator(seed=5), 800
    texts = [(x.text, a, b) for x, a, b in zip(prompts, ours.texts[:, 0], theirs.texts[:, 0])]

    def share(x, a, b):
        return 0.5 if a == b else 1 - np.mean([person.prefer(x, a, b) for _ in range(n)])

    by_hand = [share(*pair) for pair in texts]
    found = patches.preferred(ours, theirs, typical_annotator())
    assert found == pytest.approx(np.mean(by_hand), abs=0.04)
    assert patches.preferred(ours, theirs, Annotator()) == pytest.approx((1 + 0 + 0.5) / 3)
    assert by_hand[1] > 0.6  # the compliment: people prefer what gold does not


# --- the arms, on a small model and a few steps ---


@pytest.fixture
def small(monkeypatch):
    for module in (patches, comparisons):
        monkeypatch.setattr(module, "preferences", lambda which: PAIRS)
    monkeypatch.setattr(patches, "held_out_prompts", lambda: PROMPTS)
    fit = RewardModelConfig(prompts_per_step=2, warmup=1)
    hot = PPOConfig(steps=1, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4, beta=0.0)
    settings = dict(FIRST=4, BOUGHT=2, MEMBERS=2, FIT=fit, HOT=hot)
    for name, value in settings.items():
        monkeypatch.setattr(patches, name, value)
    patches.begun.cache_clear()
    yield favour(lively_gpt(SMALL), load_chat().end, 8.0)  # which ends its answers soon
    patches.begun.cache_clear()


def test_a_patch_is_on_new_prompts_and_says_whose_answers(small):
    asked = [pair.prompt for pair in PAIRS[::2]][:2]
    theirs, shipped = patches.answered(asked), {"Happy to help!", "I hope this helps.", "No.", "Why?"}

    def compared_in(pairs):
        return {y for pair in pairs for y in (pair.chosen, pair.rejected)}

    assert {prompt: {*texts} for prompt, texts in theirs.items()} == dict.fromkeys(asked, shipped)
    of_sft = patches.bought(small, asked, patches.Patch(False, hack=False), 0, 1)
    assert compared_in(of_sft) <= shipped
    own = patches.bought(small, asked, patches.Patch(False, hack=True), 0, 1)
    assert compared_in(own) - shipped and {pair.prompt for pair in own} == {*asked}


def test_what_cannot_be_read_is_not_labelled(small):
    long = " ".join(["word"] * 400)
    assert patches.readable(small, {"Why?": ["", " ", "So.", long]}) == {"Why?": ["So."]}


def test_a_watched_reward_gives_what_it_is_asked_and_notes_the_judges_view():
    inner = SimpleNamespace(score=lambda prompts, responses: np.arange(len(responses)))
    watched = patches.Watched(inner)
    given = watched.score([PROMPTS[0].text] * 2, ["It is so.", FLATTERY.closers[0]])
    assert given.tolist() == [0, 1] and len(watched.seen) == 1 and watched.seen[0]["flattery"] == 0.5


def test_the_parts_of_a_seed(small, monkeypatch):
    """All arms of a seed: whose rows there are, on how many labels, and all that is read from them."""
    monkeypatch.setattr(patches, "SEEDS", (0,))
    parts = patches.patches(small)
    names = ("unpatched", *patches.ARMS, "ensembles", "cooled", patches.SALAD)
    assert [*parts] == [f"{name}, seed 0" for name in names]
    rows = [row for part in parts.values() for row in part()]
    first = next(row["labels"] for row in rows if row["arm"] == "unpatched")
    (cooled,) = patches.select(rows, "cooled")
    assert cooled["temperature"] == patches.COOL and len(cooled["golds"]) == len(PROMPTS)
    for name in patches.POLICIES.keys() - {"cooled"}:
        (row,) = patches.select(rows, name)
        assert len(row["golds"]) == len(PROMPTS) and len(row["texts"]) == 2
        assert row["labels"] >= first or name == "SFT"
        for column in ("gold", "kl", "flattery", "preferred/people", "auroc/blacklist", "auroc/disagreement"):
            assert patches.of_policy(rows, name, column).shape == (1,)
    assert patches.of_policy(rows, "SFT", "kl") == pytest.approx(0, abs=1e-6)
    again, once = (patches.select(rows, name)[0] for name in (patches.AGAIN, patches.SAME))
    assert again["labels"] > once["labels"] > first
    assert "lead/first" in once and len(once["way/kl"]) == patches.HOT.steps
    for who in ("unpatched", patches.AGAIN, patches.SALAD, "people", "gold"):
        shapes = {way: values.shape for way, values in patches.prices_of(rows, who).items()}
        assert shapes == dict.fromkeys(figures.WAYS, (1,))
    assert patches.prices_of(rows, "a member")["filler"].shape == (1, 2)
    same = patches.told_apart(rows, "SFT", lambda prompts, texts: [len(y) for y in texts])
    assert same.tolist() == [0.5]  # nothing tells a thing from itself
    with pytest.raises(ValueError, match="gives 1 numbers for 2 answers"):
        patches.told_apart(rows, "SFT", lambda prompts, texts: [1.0])


def test_an_arm_does_not_depend_on_what_ran_before(small):
    """Its rows are the same from a fresh start: parts of a table can be resumed anywhere."""
    arm = "other people"
    patches.unpatched(small, 0)
    after = patches.patched(small, arm, 0)
    patches.begun.cache_clear()
    assert patches.patched(small, arm, 0) == after


def test_ensembles_are_optimised_by_their_rule(small, monkeypatch):
    asked = []
    monkeypatch.setattr(patches, "hacked", lambda sft, reward, *a, **k: asked.append(reward) or (sft, {}))
    patches.ensembles(small, 0)
    alone, *combined = asked
    assert isinstance(alone, torch.nn.Module) and all(isinstance(reward, Ensemble) for reward in combined)
    assert [reward.rule for reward in combined] == [*RULES.values()]
    assert all(reward.members[0] is alone for reward in combined)


# --- figures and exercises ---


def table():
    """Rows as the table has them, with made-up numbers."""
    rng, rows = np.random.default_rng(0), []
    numbers = ["gold", "kl", "flattery", "filler", "confidence", "politeness"]
    numbers += [f"attribute/{name}" for name in judge(PROMPTS[0], "So.").attributes]
    numbers += [f"auroc/{name}" for name in figures.SEEN] + ["preferred/people"]
    for seed in SEEDS:
        for where in patches.POLICIES.values():
            row = {"seed": seed, "patch": 0, **where} | dict(zip(numbers, rng.random(len(numbers))))
            row |= {f"price/{way}": rng.normal() for way in figures.WAYS}
            row |= {name: rng.random(4).tolist() for name in ("way/kl", "way/gold")}
            rows.append(row | {"texts": ["So.", "It is so."]})
        single = dict.fromkeys(("people", "gold", patches.SALAD), (None,))
        for arm, places in {**single, "a member": (0, 1, 2)}.items():
            for place in places:
                row = {"seed": seed, "arm": arm, **{f"price/{way}": rng.normal() for way in figures.WAYS}}
                rows.append(row if place is None else row | {"member": place})
    return rows


def test_where_gold_goes_and_gold_at_equal_kl():
    rows = table()
    start, now = (patches.of_policy(rows, name, "attribute/fluency") for name in ("SFT", "mean"))
    np.testing.assert_allclose(patches.lost_to(rows, "mean", "fluency"), WEIGHTS["fluency"] * (start - now))
    for row in rows:
        if row["arm"] == "penalty":
            row |= {"way/kl": [0.0, 2.0, 5.0, 30.0], "way/gold": [9.0, 1.0, 2.0 + row["seed"], 9.0]}
    np.testing.assert_allclose(patches.at_kl(rows, "penalty", (2, 9)), [1.5, 2.0, 2.5])


def test_every_figure_says_in_words_what_it_shows(alt_texts):
    rows = table()
    for draw in (figures.patches, figures.habits, figures.prices, figures.ensembles, figures.shared):
        draw(rows)
    figures.detectors(rows)
    figures.on_the_way(rows, ("unpatched", patches.SAME))
    curves = {name: {"gold": [1, 2.5], "flattery": [0, 0.5]} for name in ("head alone", "mean")}
    figures.live(curves, (1, 4))
    gold = patches.of_policy(rows, "other people", "gold").mean()
    assert f"other people {gold:.2f}" in alt_texts[0] and "mean: from 1.00 to 2.50" in alt_texts[-1]
    assert len(alt_texts) == 8 and all("nan" not in alt for alt in alt_texts)
    assert {*figures.LOOK} >= {*patches.POLICIES, "people", "gold"}


def test_one_colour_for_one_policy():
    assert len({colour for colour, _ in figures.LOOK.values()}) >= len(patches.POLICIES)


def test_the_puzzle_has_an_answer_a_place_and_a_reason_for_each():
    for puzzle in PATCHES_PUZZLES.values():
        assert puzzle.answers.keys() == puzzle.look.keys() == puzzle.why.keys() <= {*figures.WAYS}
        assert {*puzzle.answers.values()} == {*puzzle.options}


def test_no_mistake_is_right_by_chance():
    exercise = PATCHES["conservative"]
    for seed in range(5):
        given = exercise.inputs(torch.Generator().manual_seed(seed))
        right = np.stack(exercise.solution(*given))
        for mistake in exercise.mistakes:
            for wrong in mistake.functions:
                found = [np.broadcast_to(x, (6,)) if np.size(x) == 1 else x for x in wrong(*given)]
                sizes = {np.size(x) for x in found}
                assert sizes != {6} or not np.allclose(np.stack(found), right), mistake.diagnosis
    assert replace(patches.HOT, steps=1).beta == 0  # without a penalty, or it would be another baseline
