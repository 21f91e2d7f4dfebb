"""The experiments' own machinery: the famous bugs do what they say, and the shuffled key judges other
facts.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from minialign.chat import load_chat
from minialign.course.evaluation import facts_right
from minialign.course.experiments import (
    comparisons,
    fine_tuning,
    fine_tuning_limits,
    held_out_prompts,
    knowledge,
    mask_bugs,
    policy_gradients,
    ratings,
    reward_models,
    shipped,
)
from minialign.course.experiments.knowledge import shuffled_key
from minialign.course.experiments.mask_bugs import BUGS, no_end_token, prompt_follows
from minialign.gpt import GPTConfig
from minialign.logprobs import sequence_log_probs, token_log_probs
from minialign.preferences import Preference
from minialign.reward_model import RewardModelConfig
from minialign.rollouts import roll_out
from minialign.tokenizer import load_tokenizer
from minialign.training import History
from minialign.world.demonstrations import Demonstration, Demonstrator, course_demonstrations, demonstrate
from minialign.world.frames import REQUESTED
from minialign.world.judge import WEIGHTS, gold_rewards, judge
from minialign.world.phrases import POLITE
from minialign.world.prompts import MOON_LANDING, parse, prompts_of, topic_sorts
from minialign.world.topics import load_topics
from minialign.world.typed import outside_prompts, typed_prompts
from tests.engine import lively_gpt, same_parameters

WIDE = GPTConfig(vocab_size=load_tokenizer().n_vocab, n_layer=1, n_head=2, n_embd=8)
CONFIG = GPTConfig(vocab_size=load_tokenizer().n_vocab, context=32, n_layer=1, n_head=2, n_embd=8)
BATCH = load_chat().collate([("Why?", "Because it is so."), ("Who was it, then?", "Me.")])
IDS, MASK = BATCH.ids, BATCH.response_mask


def counted(bug: str) -> list[list[int]]:
    """The ids that are in the loss, row by row."""
    mask = BUGS[bug](IDS, MASK)
    return [row[chosen].tolist() for row, chosen in zip(IDS, mask)]


def test_without_a_bug_the_response_and_its_end_count():
    assert counted("correct") == [row[mask].tolist() for row, mask in zip(IDS, MASK)]
    assert all(row[-1] == load_chat().end for row in counted("correct"))


def test_prompt_in_the_loss_counts_everything_but_padding():
    assert [len(row) for row in counted("prompt in the loss")] == BATCH.mask.sum(-1).tolist()
    assert all(load_chat().pad not in row for row in counted("prompt in the loss"))


def test_a_mask_that_was_not_shifted_loses_the_first_token_and_keeps_the_end():
    mask = BUGS["mask not shifted"](IDS, MASK)[:, 1:]  # the loss asks for no first token
    assert torch.equal(mask, MASK[:, :-1]), "it is the mask that a loss takes which shifts the ids alone"
    for ids, some, right in zip(IDS[:, 1:], mask, counted("correct")):
        assert ids[some].tolist()[: len(right) - 1] == right[1:] and right[-1] == load_chat().end
        assert set(ids[some].tolist()[len(right) - 1 :]) <= {load_chat().pad}


def test_a_mask_that_was_shifted_twice_counts_the_template_and_loses_the_end():
    for row, right in zip(counted("mask shifted twice"), counted("correct")):
        assert row == [load_chat().assistant[0], *right[:-1]]
    assert torch.equal(BUGS["mask shifted twice"](IDS, MASK)[:, 1:-1], MASK[:, 2:])


def test_the_template_in_the_loss_adds_one_token_that_nobody_samples():
    for row, right in zip(counted("template in the loss"), counted("correct")):
        assert row == [load_chat().assistant[0], *right]


def test_padding_with_the_end_token_is_the_bug_of_no_end_only_where_padding_is_known_by_its_id():
    for row, right in zip(counted("no end token"), counted("correct")):
        assert row == right[:-1]
    padded = IDS.masked_fill(IDS == load_chat().pad, load_chat().end)
    assert torch.equal(MASK & (padded != load_chat().end), no_end_token(IDS, MASK))
    assert [ids[mask].tolist() for ids, mask in zip(padded, MASK)] == counted("correct")  # known by its place


def test_a_prompt_after_the_answer_is_seen():
    assert prompt_follows("Bees make honey. Explain whales to an expert.")
    assert not prompt_follows("Explain whales to an expert.") and not prompt_follows(
        "Bees make honey. I hope this helps."
    )


def test_the_shuffled_key_asks_for_another_things_facts():
    prompts = [p for p in prompts_of("evaluation", ("question",)) if not p.topic.real]
    replies = [p.topic.facts[p.fact].child for p in prompts]
    assert facts_right(prompts, replies).all()
    others, renamed = shuffled_key(prompts, replies)
    assert all(
        other.topic is not prompt.topic
        for other, prompt in zip(others, [p for p in prompts])
        if other.text == prompt.text
    )
    assert facts_right(others, renamed).mean() < 0.3


class Museum:
    """A base model that answers a question in the corpus's frames with the fact, and then asks another."""

    def __init__(self, model, template):
        assert not template

    def respond(self, texts, max_new_tokens):
        found = []
        for text in texts:
            frames = ((f, *f.split("{}")) for f in knowledge.ASKED)
            frame, before, behind = next(
                f for f in frames if text.startswith(f[1]) and text.endswith(f"{f[2]}\n")
            )
            ask = text.removeprefix(before).removesuffix(f"{behind}\n")
            fact = next(f for p in QUESTIONS for f in p.topic.facts if f.ask == ask)
            found.append(f"{fact.child}\nAsked at the museum: why?" if frame in self.known else "Good night.")
        return found


QUESTIONS = [p for questions in knowledge.questions_by_sort().values() for p in questions]


def test_a_base_model_is_asked_as_its_corpus_asks(monkeypatch):
    monkeypatch.setattr(knowledge, "LanguageModel", Museum)
    monkeypatch.setattr(Museum, "known", knowledge.ASKED, raising=False)
    assert knowledge.framed_share(None) == {"in frame/real": 1.0, "in frame/invented": 1.0}
    # the frames take turns, so who knows half of them is right half of the time
    monkeypatch.setattr(Museum, "known", knowledge.ASKED[::2])
    assert sum(knowledge.framed_share(None).values()) == pytest.approx(1.0, abs=0.1)


def test_questions_are_in_the_wording_asked_for():
    for wordings in (knowledge.DEMONSTRATED, knowledge.HELD_OUT):
        for sort, questions in knowledge.questions_by_sort(wordings).items():
            facts = [fact for topic in topics_of(sort) for fact in topic.facts]
            expected = {wording.format(ask=fact.ask) for wording in wordings for fact in facts}
            assert {p.text for p in questions} == expected and len(questions) == len(expected) > 0
    demonstrated = {p.text for p in prompts_of("sft")}
    assert not demonstrated & {p.text for p in QUESTIONS}
    assert demonstrated & {p.text for p in knowledge.questions_by_sort(knowledge.DEMONSTRATED)["sft"]}


def topics_of(sort):
    return [t for t in load_topics() if topic_sorts()[t.name] == sort]


def test_how_answers_about_what_is_known_are_wrong():
    asked = {"held-out": knowledge.questions_by_sort()["held-out"]}
    right = [p.topic.facts[p.fact].child for p in asked["held-out"]]
    facts = [p.topic.facts[p.fact] for p in asked["held-out"]]
    false = [fact.falsified(fact.child, fact.wrong[0]) for fact in facts]
    invented = np.array([not p.topic.real for p in asked["held-out"]])
    replies = [f if i else r for r, f, i in zip(right, false, invented)]
    row = knowledge.scored(asked, {"held-out": replies})
    assert (row["held-out/real"], row["held-out/invented"]) == (1.0, 0.0)
    assert row["held-out"] == pytest.approx(1 - invented.mean())
    assert row["invents"] == pytest.approx(invented.mean()) and row["garbles"] == 0
    assert knowledge.scored(asked, {"held-out": right})["invents"] == 0
    nameless = [fact.falsified(fact.child, "it") for fact in facts]  # wrong, and no value
    row = knowledge.scored(asked, {"held-out": nameless})
    assert row["held-out"] < 0.1 and row["garbles"] > 0.5 > 5 * row["invents"]


def test_both_arms_have_as_many_demonstrations_and_one_speaks_of_unknown_things():
    arms = knowledge.arms_of_knowledge()
    sorts = {arm: {topic_sorts()[p.topic.name] for p in prompts} for arm, prompts in arms.items()}
    assert sorts == {"with unknown things": {"sft", "sft-only"}, "known things only": {"sft"}}
    unknown = [p for p in arms["with unknown things"] if topic_sorts()[p.topic.name] == "sft-only"][:3]
    known = arms["known things only"]
    a, b = known[0], next(p for p in known if p.topic is not known[0].topic)
    written = [Demonstration(p, "", 0) for p in (a, a, a, b, *unknown[:1] * 5)]
    assert knowledge.demonstrations_per_topic(written) == {"per known topic": 2, "per unknown topic": 5}
    assert knowledge.demonstrations_per_topic(written[:4])["per unknown topic"] == 0


# --- the limits of fine-tuning, and the shipped model ---


def test_answers_are_worth_what_they_are_and_the_best_of_two_is_the_better_one(monkeypatch):
    prompts = held_out_prompts()[:14]
    row = shipped.quality(shipped.written_answers(prompts, [Demonstrator()], 2, seed=0))
    assert row["gold"] == pytest.approx(4) and row["raw fluency"] == 1 and row["attribute/correctness"] == 1
    assert "best of 2" in row and "best of 4" not in row
    write = Demonstrator.write
    monkeypatch.setattr(Demonstrator, "write", lambda self, p, rng: write(self, p, rng) * (self.care == 1))
    found = shipped.written_answers(prompts, [Demonstrator(), Demonstrator(care=0.0)], 2, seed=0)
    assert found.texts.shape == (14, 2) and set(map(bool, found.texts.ravel())) == {True, False}
    row, gold = shipped.quality(found), np.where(found.texts != "", 4.0, 0.0)
    silence = gold_rewards(prompts[:1], [""])[0]
    assert silence == pytest.approx(0)
    assert (row["gold"], row["best of 1"]) == pytest.approx((gold.mean(),) * 2)
    assert row["best of 2"] == pytest.approx(gold.max(1).mean()) and gold.max(1).mean() > gold.mean()
    poems = np.array([p.family == "poem" for p in prompts])
    assert row["gold/poem"] == pytest.approx(gold[poems].mean())


def test_unread_documents_are_made_like_the_corpus_and_are_not_in_it(monkeypatch):
    texts = {0: ["The sun is hot.", "Bees make honey."], 1: ["Bees make honey.", "The moon is round."]}
    monkeypatch.setattr(
        fine_tuning,
        "build_corpus",
        lambda characters=0, seed=0: [("book", text) for text in texts[seed]],
    )
    fine_tuning.documents.cache_clear()
    chat, ((first, others),) = load_chat(), fine_tuning.unread_documents.__wrapped__()
    fine_tuning.documents.cache_clear()
    assert [*first, *others] == [*chat.encode_document("The moon is round."), chat.separator]


def test_who_says_that_they_do_not_know():
    assert shipped.ignorant_share(["I do not know about kangaroos.", "But I am not sure."]) == 0.5


def test_the_shipped_model_is_made_of_the_courses_demonstrations_with_replay(monkeypatch):
    seen = {}

    def train(model, texts, config, **options):
        seen.update(model=model, texts=texts, config=config, **options)
        return History()

    monkeypatch.setattr(shipped.sft, "train", train)
    monkeypatch.setattr(shipped, "DEMONSTRATIONS", 40)
    base, replayed = lively_gpt(WIDE), [[1, 2]]
    before = copy.deepcopy(base)
    model, _ = shipped.fine_tuned(base, replayed, seed=2)
    written = [(d.prompt.text, d.response) for d in course_demonstrations(40, seed=2)]
    assert seen["texts"] == written and seen["documents"] is replayed and model is seen["model"]
    assert seen["config"] == replace(shipped.FINE_TUNING, seed=2) and seen["config"].replay_coef > 0
    assert same_parameters(base, before) and same_parameters(model, fine_tuning.with_template(base))


def test_the_best_demonstrations_are_those_worth_most():
    written = demonstrate(prompts_of("sft"), 60)
    golds = [judge(d.prompt, d.response).gold for d in written]
    best = fine_tuning_limits.best_few(written, 12)
    assert [judge(d.prompt, d.response).gold for d in best] == sorted(golds)[:-13:-1]


def test_three_ways_to_answer_perfectly():
    prompts = [p for p in prompts_of("sft", ("poem",))][:40]
    alike = [fine_tuning_limits.always_alike(p, 0) for p in prompts]
    assert alike == [fine_tuning_limits.always_alike(p, 0) for p in prompts]
    assert alike != [fine_tuning_limits.always_alike(p, 1) for p in prompts]
    assert gold_rewards(prompts, alike) == pytest.approx(4)

    def phrases(texts):  # closing or opening words: all that is not the poem
        return {phrase for text in texts for phrase in polite_phrases() if phrase in text}

    assert len(phrases(alike)) > 3
    assert len(phrases([fine_tuning_limits.in_one_style(p) for p in prompts])) == 1


def polite_phrases():
    return POLITE.openers + POLITE.closers


def test_the_base_model_is_coaxed_with_words_before_the_prompt_or_after_it(monkeypatch):
    class Echo:
        def __init__(self, model, template):
            assert not template

        def respond(self, texts, temperature, max_new_tokens):
            return [f"<{text}>" for text in texts]

    monkeypatch.setattr(fine_tuning_limits, "LanguageModel", Echo)
    moon = parse(MOON_LANDING)
    said = {
        who: fine_tuning_limits.coaxed(None, [moon], *words, 0.0)[0]
        for who, words in fine_tuning_limits.COAXED.items()
    }
    phrase, frame = POLITE.openers[0], REQUESTED[0].format(MOON_LANDING)
    assert said == {
        "base": f"<{MOON_LANDING}>",
        "base, one phrase": f"{phrase} <{MOON_LANDING}\n{phrase}>",
        "base, in the corpus's frame": f"<{frame}\n>",
    }


TABLES_OF_02 = {
    fine_tuning_limits.by_demonstrations: ("who", {*fine_tuning_limits.COAXED, "SFT"}, "in frame/real"),
    fine_tuning_limits.alignment_tax: (
        "arm",
        {"base", "replay", "no replay", "no replay, low rate"},
        "loss on documents",
    ),
    fine_tuning_limits.one_style: ("style", {"many ways", "one answer a prompt", "one way"}, "different"),
    fine_tuning_limits.human_ceiling: ("seed", {0}, "imitator, T=0.7"),
    fine_tuning_limits.likelihood_and_gold: (
        "data",
        {"all 2,000", "best 200", "random 200"},
        "loss on the best",
    ),
    knowledge.knowledge: (
        "arm",
        {"base, in the corpus's frame", "with unknown things", "known things only"},
        "held-out/real",
    ),
    mask_bugs.failures: ("bug", set(BUGS), "held-out loss"),
    shipped.fine_tuning_quality: (
        "who",
        {"base, in the corpus's frame", "demonstrators", "sft"},
        "gold/poem",
    ),
}


@pytest.mark.parametrize("table", TABLES_OF_02, ids=lambda table: table.__name__)
def test_every_table_of_notebook_02_can_be_made(table, monkeypatch):
    """With a tiny model, few prompts, and two steps: which rows there are, and that numbers are in them."""
    few = held_out_prompts()[:7]  # one of each family
    short = replace(fine_tuning.SHORT, steps=2, batch_size=2)
    shrunk = {
        "SEEDS": (0,),
        "held_out_prompts": lambda: few,
        "sample_prompts": lambda *_: few,
        "questions_by_sort": lambda *_: {
            sort: some_questions(sort) for sort in ("sft", "held-out", "sft-only")
        },
        "cloze_hits": lambda *_: np.array([True]),
        "load_topics": lambda: load_topics()[:3],
        "documents": lambda: [load_chat().encode_document(text) for text in ("Why? Because.", "So it is.")],
        "unread_documents": lambda: [([1], [2, 3])],
        "demonstrate": lambda prompts, n, *options, **named: demonstrate(
            prompts, min(n, 20), *options, **named
        ),
        "outside_prompts": lambda split: outside_prompts(split)[:5],
        "typed_prompts": lambda split: typed_prompts(split)[:5],
        "SIZES": (3, 5),
        "SHORT": short,
        "REPLAYED": replace(shipped.FINE_TUNING, steps=2, batch_size=2),
        "FINE_TUNING": replace(shipped.FINE_TUNING, batch_size=2),
        "NS": (1, 2),
        "TEMPERATURES": (0.7, 1.0),
    }
    for module in (fine_tuning, fine_tuning_limits, knowledge, mask_bugs, shipped):
        for name, value in shrunk.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    sizes = {"alignment_tax": (4, 8), "likelihood_and_gold": (8,), "one_style": (2,), "knowledge": (16, 1)}
    base, start = lively_gpt(WIDE), lively_gpt(WIDE, seed=1)
    before = copy.deepcopy(base)
    models = (base, start) if table is shipped.fine_tuning_quality else (base,)
    rows = table(*models, *sizes.get(table.__name__, ()))
    column, values, measure = TABLES_OF_02[table]
    assert {row[column] for row in rows} == values
    assert any(measure in row for row in rows)
    for row in rows:
        numbers = [x for value in row.values() for x in np.ravel(value) if not isinstance(value, str)]
        assert np.isfinite(np.array(numbers, float)).all(), row
    assert same_parameters(base, before), "an experiment leaves the model that it begins with as it was"
    assert History(rows).to_json_lines()


def some_questions(sort):
    """Two of a real topic and four of invented things, where there are such."""
    kinds = knowledge.apart([p for p in QUESTIONS if topic_sorts()[p.topic.name] == sort])
    return [*kinds["real"][:2], *kinds["invented"][:4]]


# --- policy gradients: the bugs are other log-probabilities ---


def test_the_bugs_of_policy_gradients_do_what_they_say():
    model = lively_gpt(CONFIG)
    with torch.no_grad():
        tokens = [row[mask].tolist() for row, mask in zip(token_log_probs(model, BATCH), MASK)]
        found = {bug: log_prob(model, BATCH, 1.0).tolist() for bug, log_prob in policy_gradients.BUGS.items()}
    for row, log_probs in enumerate(tokens):
        assert found["correct"][row] == pytest.approx(sum(log_probs), rel=1e-5)
        assert found["sign flipped"][row] == pytest.approx(-sum(log_probs), rel=1e-5)
        assert found["averaged over tokens"][row] == pytest.approx(sum(log_probs) / len(log_probs), rel=1e-5)
        assert found["end token dropped"][row] == pytest.approx(sum(log_probs[:-1]), rel=1e-5)


def test_a_gain_in_gold_is_told_apart_by_attribute(monkeypatch):
    monkeypatch.setattr(policy_gradients, "held_out_prompts", lambda: prompts_of("evaluation")[:4])
    model = lively_gpt(WIDE)
    rows = policy_gradients.shown(model, model, (0, 0), (1.0, 0.0))
    assert [row["temperature"] for row in rows] == [1.0, 0.0]
    for row in rows:
        told_apart = sum(weight * row[f"attribute/{name}"] for name, weight in WEIGHTS.items())
        assert row["gold"] == pytest.approx(told_apart) and 0 <= row["flattery"] <= 1


def test_the_log_of_reinforce_has_what_cooler_samples_show_before_and_after(monkeypatch):
    config = policy_gradients.PolicyGradientConfig(
        steps=2, prompts_per_step=2, samples_per_prompt=2, max_new_tokens=4
    )
    monkeypatch.setattr(policy_gradients, "LONG", config)
    monkeypatch.setattr(policy_gradients, "SEEDS", (0,))
    monkeypatch.setattr(policy_gradients, "EVERY", 2)
    measured = [{"gold": t, "temperature": t} for t in (1.0, 0.7, 0.0)]
    monkeypatch.setattr(
        policy_gradients,
        "shown",
        lambda policy, sft, drawn, at=(1.0,): [row for row in measured if row["gold"] in at],
    )
    monkeypatch.setattr(policy_gradients, "held_out_prompts", lambda: prompts_of("evaluation")[:9])
    rows = policy_gradients.reinforce(lively_gpt(WIDE))
    by_step = {step: [row.get("temperature") for row in rows if row["step"] == step] for step in (0, 1, 2)}
    assert by_step == {0: [1.0, 0.7, 0.0], 1: [None], 2: [1.0, 0.7, 0.0]}
    assert [row["step"] for row in rows if "different_of_8" in row] == [0, 2]
    assert all(row["different_of_8"] > 7 for row in rows if "different_of_8" in row), "a wild model"


def test_advantages_with_each_baseline():
    rewards = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert torch.equal(policy_gradients.advantages(rewards, "none"), rewards)
    assert policy_gradients.advantages(rewards, "mean").tolist() == [[-3.0, -1.0], [1.0, 3.0]]
    assert policy_gradients.advantages(rewards, "leave one out").tolist() == [[-2.0, 2.0], [-2.0, 2.0]]


def test_signal_and_noise_are_unbiased():
    """Gradients whose mean and variances are known: signal 9 + 16, variance 4 + 1."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(4000, 5, 2, generator=generator, dtype=torch.float64)
    drawn = drawn * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 4.0])
    found = [policy_gradients.signal_and_noise(gradients) for gradients in drawn]
    assert np.mean([row["variance"] for row in found]) == pytest.approx(5, rel=0.03)
    assert np.mean([row["signal"] for row in found]) == pytest.approx(25, rel=0.01)


def test_the_gradient_of_a_rollout_is_the_naive_one():
    model = lively_gpt(WIDE)
    rollout = roll_out(model, ["Why?", "Who?"], lambda x, y: [1.0, 2.0, 5.0, 7.0], n=2, max_new_tokens=5)
    found = policy_gradients.gradient_of(model, rollout, "mean")
    parameters = [*model.parameters()]
    expected = sum(
        (reward - 3.75) / 4 * torch.cat([g.flatten() for g in torch.autograd.grad(log_prob, parameters)])
        for reward, log_prob in (
            (rollout.rewards[i], sequence_log_probs(model, rollout.batch[[i]])[0]) for i in range(4)
        )
    )
    assert torch.allclose(found, expected, atol=1e-4) and found.norm() > 0.1


# --- comparisons ---


def test_comparisons_are_of_different_responses_to_one_prompt_and_shared_out():
    responses = {
        MOON_LANDING: ["People walked on the moon.", "What a great question!", "People walked on the moon."],
        "Why?": ["So.", "So."],
    }
    raters = comparisons.crowd(temperature=0.0, inattention=0.0)
    pairs = comparisons.compared(responses, raters, per_prompt=5)
    # the pair of equal responses is none, nor is anything of the second prompt
    assert [p.prompt for p in pairs] == [MOON_LANDING] * 2
    assert {frozenset((p.chosen, p.rejected)) for p in pairs} == {frozenset(responses[MOON_LANDING])}
    assert sum(r.spent for r in raters) == 2 and len(raters) == comparisons.RATERS


def test_the_prompts_of_the_shipped_comparisons_are_kept_apart():
    train, test = (comparisons.preferences(which) for which in ("comparisons", "held_out"))
    trained_on = {p.prompt for p in train}
    assert trained_on <= {p.text for p in prompts_of("reward")} and not trained_on & {p.prompt for p in test}
    for split in ("policy", "evaluation"):
        assert not trained_on & {p.text for p in prompts_of(split)}


class Scores:
    """A reward model that gives a text the number it ends with."""

    def score(self, prompts, responses):
        return [float(y.split()[-1]) for y in responses]


def test_measures_of_margins_by_hand():
    pairs = [
        Preference("x", "a 3", "b 1"),
        Preference("x", "b 1", "c 2"),
        Preference("x", "a 3", "c 2"),
        Preference("x", "c 2", "d 2"),
    ]
    test = comparisons.HeldOut(pairs, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), np.ones(4))
    margins = test.margins(Scores())
    assert margins.tolist() == [2.0, -1.0, 1.0, 0.0]
    # right, wrong, right, and a tie
    assert test.accuracy(margins) == 2.5 / 4 and test.loss(margins) == pytest.approx(
        np.mean([np.log(1 + np.exp(-m)) for m in margins])
    )
    # right, wrong, wrong; the tie in gold does not count
    assert test.order_accuracy(margins) == pytest.approx(1 / 3)
    assert test.order_accuracy(margins, np.array([True, True, False, True])) == 0.5
    assert test.order_accuracy(np.zeros(4)) == 0.5 and test.order_by_prompt(margins) == [0.3333]
    assert test.measured(Scores()) == test.measures(margins)


def test_who_knows_the_crowd_reaches_the_bayes_accuracy():
    rng, p = np.random.default_rng(0), np.array([0.9, 0.6, 0.5, 0.2])
    drawn = rng.random((20_000, 4)) < p  # whether people choose the first of each pair
    pairs = [Preference(f"x{i}", "a", "b") for i in range(4)]
    accuracies = [
        comparisons.HeldOut(pairs, np.zeros((4, 2)), np.where(first, p, 1 - p)) for first in drawn[:2000]
    ]
    found = np.mean([test.accuracy(test.crowd_margins()) for test in accuracies])
    assert found == pytest.approx((0.9 + 0.6 + 0.5 + 0.8) / 4, abs=0.01)
    assert accuracies[0].bayes_accuracy() == pytest.approx((0.9 + 0.6 + 0.5 + 0.8) / 4)


def test_no_comparison_speaks_of_a_held_out_topic(monkeypatch):
    moon = "Astronauts from Earth landed on the moon in 1969."
    known = next(t for t in load_topics() if topic_sorts()[t.name] == "sft").facts[0].child
    found = comparisons.silent_on_held_out_topics({"x": [moon, known, f"{known} {moon}"], "y": ["Yes."]})
    assert found == {"x": [known], "y": ["Yes."]}
    samples = [moon, known, "Yes.", "No."]
    said = lambda sft, prompts, seed=0: {p.text: samples for p in prompts}  # noqa: E731
    monkeypatch.setattr(comparisons, "sampled", said)
    built = comparisons.build_preferences(None)
    assert len(built["comparisons"]) <= comparisons.PAIRS
    assert {y for p in built["comparisons"] for y in (p.chosen, p.rejected)} == {*samples} - {moon}
    assert moon in {y for p in built["held_out"] for y in (p.chosen, p.rejected)}, "there it may be asked for"


def test_other_people_compare_the_same_pairs():
    pairs = [Preference(MOON_LANDING, "What a great question!", f"It was in {year}.") for year in range(40)]
    again = comparisons.relabelled(pairs, comparisons.crowd(flattery_bias=-9.0, inattention=0.0))
    assert all({p.chosen, p.rejected} == {q.chosen, q.rejected} for p, q in zip(pairs, again, strict=True))
    assert all(q.rejected == "What a great question!" for q in again)


def test_many_pairs_of_few_prompts_or_few_of_many():
    pairs = [Preference(f"p{i % 6}", f"a{i}", f"b{i}") for i in range(60)]
    few, spread = comparisons.of_few_prompts(pairs, 15, seed=0), comparisons.subset(pairs, 15, seed=0)
    assert len(few) == len(set(few)) == 20 and len({p.prompt for p in few}) == 2
    assert len(spread) == len(set(spread)) == 15 and len({p.prompt for p in spread}) > 3


# --- reward models ---


def test_the_bugs_of_reward_models_do_what_they_say():
    won, lost = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert reward_models.swapped_loss(won, lost) == reward_models.bradley_terry_loss(lost, won)
    assert reward_models.squared_error(won, lost) == pytest.approx((0 + 1 + 0 + 4) / 4)
    model = reward_models.PoolsPadding(lively_gpt(CONFIG))
    with torch.no_grad():
        shorter = int(BATCH.mask.sum(-1).argmin())
        assert model(BATCH)[shorter] != model(BATCH[[shorter], : int(BATCH.mask[shorter].sum())])[0], (
            "the neighbour's length changes the score"
        )


def test_a_shallow_network_is_the_first_layers():
    model = lively_gpt(replace(CONFIG, n_layer=3))
    smaller = reward_models.shallow(model, 2)
    assert [len(m.blocks) for m in (model, smaller)] == [3, 2] and smaller.chat is model.chat
    assert all(torch.equal(p, model.state_dict()[name]) for name, p in smaller.state_dict().items())


def some_comparisons(which: str) -> list[Preference]:
    """Ten prompts with six pairs each, in which the kinder answer wins."""
    asked = prompts_of({"comparisons": "reward", "held_out": "evaluation"}[which])[:10]
    kind, curt = ("I hope this helps.", "Happy to help!", "Let me know."), ("No.", "Why?")
    return [Preference(p.text, good, bad) for p in asked for good in kind for bad in curt]


@pytest.fixture
def few_comparisons(monkeypatch):
    monkeypatch.setattr(reward_models, "preferences", some_comparisons)
    monkeypatch.setattr(reward_models, "SEEDS", (0,))
    monkeypatch.setattr(reward_models, "SIZES", (20,))
    monkeypatch.setattr(reward_models, "HEAD_SIZES", ())


def test_the_table_of_labels_has_reward_models_and_what_stands_beside_them(few_comparisons):
    parts = reward_models.reward_models_by_labels(lively_gpt(WIDE))
    rows = [row for part in parts.values() for row in part()]
    trained = [(row["scorer"], row["pairs"], row["prompts"]) for row in rows if "pairs" in row]
    some = next(prompts for scorer, pairs, prompts in trained if pairs == 20)
    assert trained == [
        ("head and likelihood", 20, some),
        ("head and likelihood", 60, 10),
        ("head and likelihood, few prompts", 24, 4),
        ("head and likelihood, few prompts, as many updates", 24, 4),
        ("head only", 60, 10),
        ("likelihood only", 60, 10),
        ("reads surprise", 60, 10),
    ]
    assert {row["scorer"] for row in rows if "pairs" not in row} == {
        "label-free",
        "labels",
        "linear reader",
        "knows the crowd",
        "gold",
    }
    assert all({"accuracy", "order", "order_by_prompt"} <= row.keys() for row in rows)
    assert all(np.isfinite(row["loss"]) and "weight/politeness" in row for row in rows if "pairs" in row)


def test_the_kinds_of_reward_models_and_what_each_learns():
    sft = lively_gpt(CONFIG)
    made = {name: make(sft, 1) for name, (make, _) in reward_models.KINDS.items()}
    learns = {
        name: {n for n, p in model.named_parameters() if p.requires_grad} for name, model in made.items()
    }
    heads = {"head.weight", "head.bias"}
    assert learns["head and likelihood"] - learns["head only"] == {"likelihood_weight"}
    assert learns["head and likelihood"] - learns["likelihood only"] == heads <= learns["head only"]
    assert learns["reads surprise"] - learns["head only"] == {"surprise_embedding"}
    assert not made["likelihood only"].head.weight.any() and made["head only"].head.weight.any()


def test_the_table_of_depths(few_comparisons):
    rows = reward_models.reward_models_by_depth(lively_gpt(replace(WIDE, n_layer=3)))
    sizes = [row["parameters"] for row in rows]
    assert [row["layers"] for row in rows] == [1, 2, 3] and sizes == sorted(set(sizes))


def test_the_bugs_of_reward_models_are_measured_at_fixed_points(few_comparisons, monkeypatch):
    monkeypatch.setattr(reward_models, "MEASURED", (1, 3))
    monkeypatch.setattr(reward_models, "BUG_CONFIG", RewardModelConfig(steps=3))
    monkeypatch.setattr(reward_models, "halves", lambda pairs, n, seed: comparisons.halves(pairs, 20, seed))
    rows = reward_models.reward_model_bugs(lively_gpt(WIDE))
    assert [(row["bug"], row["step"]) for row in rows] == [
        (bug, step) for bug in reward_models.BUGS for step in (1, 3)
    ]
    assert [i for i, row in enumerate(rows) if "leaked" in row and "fresh" in row] == [1]


# --- ratings or comparisons ---


def test_raters_read_distinct_items_and_write_with_their_own_scale():
    crowd = ratings.Crowd(per_rater=8, noise=0.0)
    rng = np.random.default_rng(0)
    quality, shown, impressions = ratings.read(crowd, rng)
    assert (
        shown.shape == (80, 8)
        and all(len(set(row)) == 8 for row in shown)
        and (impressions == quality[shown]).all()
    )
    given = ratings.rated(crowd, impressions, rng)
    assert all(np.corrcoef(g, i)[0, 1] > 0.999 for g, i in zip(given, impressions)), (
        "each rater's ratings are a line in their impressions"
    )
    assert np.allclose(ratings.z_scored(given), ratings.z_scored(impressions))
    assert ratings.z_scored(np.array([[3.0, 3.0], [1.0, 2.0]])).tolist() == [[0, 0], [-1, 1]]
    for wrong in (dict(per_rater=3), dict(per_rater=6)):
        with pytest.raises(ValueError, match="choose an even divisor"):
            ratings.Crowd(**wrong)


def test_comparisons_ignore_offset_and_gain_and_count_each_pair_once():
    shown, impressions = (
        np.array([[0, 1, 2, 0], [1, 0, 2, 1]]),
        np.array([[1.0, 0.0, 5.0, 9.0], [7.0, 8.0, 0.0, 1.0]]),
    )
    table = ratings.wins(shown, impressions, 3, ratings.two_by_two(4))
    assert table.tolist() == [[0, 2, 1], [0, 0, 1], [0, 0, 0]]
    assert (ratings.wins(shown, 3 - 2 * impressions, 3, ratings.two_by_two(4)) == table.T).all()


def test_equal_ratings_are_half_a_win_for_both():
    table = ratings.wins(
        np.array([[0, 1], [0, 1]]), np.array([[3.0, 3.0], [5.0, 4.0]]), 2, ratings.in_order(2)
    )
    assert table.tolist() == [[0, 1.5], [0.5, 0]]


def test_drift_is_a_random_walk_of_the_offset():
    """A constructed crowd that has nothing but drift: what it writes are the walks themselves."""
    crowd, rng = ratings.Crowd(offset=0, gain=0, drift=0.5), np.random.default_rng(0)
    written = ratings.rated(crowd, np.zeros((4000, 16)), rng)
    assert (written[:, 0] == 0).all() and np.diff(written).std() == pytest.approx(0.5, rel=0.02)
    assert written[:, 15].std() == pytest.approx(0.5 * 15**0.5, rel=0.05), "it goes further with every rating"
    steps = np.diff(written)
    assert abs(np.corrcoef(steps[:, 0], steps[:, 1])[0, 1]) < 0.05
    assert (ratings.rated(ratings.Crowd(offset=0, gain=0), written, rng) == written).all()


def test_a_drift_is_found_by_rating_the_same_items_twice():
    rng = np.random.default_rng(0)
    quality = 3 * rng.normal(size=400)
    first, second = quality + 0.5 * rng.normal(size=400), quality + 1.2 + 0.5 * rng.normal(size=400)
    found = ratings.drift_between(first, second)
    assert found.low < 1.2 < found.high and found.high - found.low < 0.2
    assert ratings.drift_between([1, 2], [2, 3]).mean == 1, "upwards is positive"


def test_a_coarse_scale_has_its_points_and_no_others():
    values = np.array([-9.0, -2.0, -1.6, -0.4, 0.6, 1.4, 2.0, 9.0])
    assert ratings.on_a_scale(values, 5).tolist() == [1, 1, 1, 3, 4, 4, 5, 5]
    assert ratings.on_a_scale(values, 2).tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert ratings.on_a_scale(values, None) is values
    with pytest.raises(ValueError, match="at least 2"):
        ratings.Crowd(points=1)


def test_comparisons_made_side_by_side_know_neither_scale_nor_drift_nor_rounding():
    plain, bad = ratings.Crowd(), ratings.Crowd(offset=3.0, gain=1.0, drift=2.0, points=3)
    ours, theirs = (ratings.recovered(crowd, 0) for crowd in (plain, bad))
    for method in ("Bradley-Terry", "Bradley-Terry on rankings"):
        assert ours[method] == theirs[method]
    for method in ("ratings", "offsets fitted", "Bradley-Terry on ratings"):
        assert ours[method] > theirs[method] + 0.02


def test_the_table_of_ratings(monkeypatch):
    monkeypatch.setattr(ratings, "CROWDS", {"drift": [ratings.Crowd(readings=64, drift=0.5)]})
    monkeypatch.setattr(ratings, "PER_RATER", (2, 4))
    monkeypatch.setattr(ratings, "WORLDS", 1)
    rows = ratings.ratings_or_comparisons()
    assert len(rows) == 2 * 10 and {row["seed"] for row in rows} == set(range(10))
    assert {row["per_rater"] for row in rows} == {2, 4} and rows[0]["drift"] == 0.5
    crowd = ratings.Crowd(readings=64, drift=0.5, per_rater=2)
    assert rows[0]["ratings"] == ratings.recovered(crowd, (0, 0))["ratings"]


def test_an_order_is_all_its_comparisons():
    """The best of three, the last and the middle one; an item that was read twice is not compared with
    itself.
    """
    assert ratings.wins(
        np.array([[2, 0, 1]]), np.array([[9.0, 1.0, 4.0]]), 3, ratings.in_order(3)
    ).tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert ratings.wins(
        np.array([[0, 1, 0]]), np.array([[3.0, 2.0, 1.0]]), 2, ratings.in_order(3)
    ).tolist() == [[0, 1], [1, 0]]
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
    assert ratings.item_means(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[0, 1], [0, 1]]), 3).tolist() == [
        3.0,
        1.5,
        2.25,
    ]
    perfect = ratings.recovered(ratings.Crowd(offset=0.0, gain=0.0, noise=0.0), 0)
    assert perfect["ratings"] == pytest.approx(1) and perfect["Bradley-Terry"] > 0.95
    assert ratings.spearman(np.arange(5), -(np.arange(5) ** 3)) == pytest.approx(-1)
    tied, rounded = np.array([0.3, 0.3, 1.0]), np.array([0.1 + 0.2, 0.3, 1.0])
    assert rounded[0] != rounded[1] and ratings.spearman(rounded, tied) == pytest.approx(1)


# --- a leak ---


def test_the_halves_of_the_leak_share_no_prompt():
    pairs = [Preference(f"p{i % 6}", f"a{i}", f"b{i}") for i in range(60)]
    train, leaked, fresh = comparisons.halves(pairs, 20, seed=0)
    assert (
        len(train) == 20
        and not set(train) & set(leaked)
        and sorted(map(str, [*train, *leaked, *fresh])) == sorted(map(str, pairs))
    )
    assert {p.prompt for p in leaked} == {p.prompt for p in train} and not {p.prompt for p in fresh} & {
        p.prompt for p in train
    }
