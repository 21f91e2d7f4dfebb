"""Notebook 00: its puzzle has the answers that it says, and its numbers are those of the tables."""

import numpy as np
import pytest
from engine import lively_gpt

from minialign.course.exercises import PUZZLES
from minialign.course.exercises.warm_up import FOUR_ANSWERS, KIND, THREE_FACTS
from minialign.course.experiments import warm_up
from minialign.course.figures import warm_up as figures
from minialign.gpt import GPTConfig
from minialign.language_model import LanguageModel
from minialign.statistics import Estimate
from minialign.world.judge import MAXIMUM, judge
from minialign.world.prompts import MOON_LANDING

PERFECT = judge(MOON_LANDING, " ".join([*THREE_FACTS, KIND]))


def test_three_facts_and_a_kind_word_are_perfect():
    assert PERFECT.gold == pytest.approx(MAXIMUM)


@pytest.mark.parametrize("name", FOUR_ANSWERS)
def test_each_answer_of_the_puzzle_loses_gold_at_the_one_attribute_that_it_says(name):
    found = judge(MOON_LANDING, FOUR_ANSWERS[name])
    lost = [at for at, value in found.attributes.items() if value != pytest.approx(PERFECT.attributes[at])]
    assert lost == [PUZZLES["what did it cost"].answers[name]] and found.gold < MAXIMUM - 0.2


def test_golds_are_those_of_three_runs_on_196_prompts():
    for name in warm_up.TABLED:
        assert warm_up.golds(name, 1.0).shape[:2] == (3, 196) == warm_up.by_run(name, 0.0).shape
    assert (warm_up.golds("sft", 0.0)[0] == warm_up.golds("sft", 0.0)[1]).all()  # one model, greedy
    with pytest.raises(ValueError, match="choose one of sft, ppo, dpo"):
        warm_up.golds("base", 1.0)


def test_a_set_has_eight_prompts_and_one_answer_to_each():
    golds = warm_up.golds("dpo", 1.0)
    assert warm_up.in_eights("dpo", 1)[2, 3] == pytest.approx(golds[2, 24:32, 1].mean())


def test_a_lead_is_over_sft_at_the_same_temperature_or_another():
    def mean(name, t):
        return warm_up.golds(name, t).mean()

    assert warm_up.lead("ppo", 0.7).mean == pytest.approx(mean("ppo", 0.7) - mean("sft", 0.7))
    assert warm_up.lead("sft", 0.0, at=1.0).mean == pytest.approx(mean("sft", 0.0) - mean("sft", 1.0))
    # "The interval of its lead includes 0", and at T = 1 it does not.
    assert warm_up.lead("ppo", 0.0).low < 0 < warm_up.lead("ppo", 1.0).low


def test_greedily_nearly_all_of_the_lead_of_dpo_is_for_kind_phrases():
    manners = warm_up.by_manners("dpo", 0.0)
    assert manners.shape == (3,) and 0.8 < manners.mean() / warm_up.lead("dpo", 0.0).mean < 1
    assert 0.2 < warm_up.by_manners("dpo", 1.0).mean() / warm_up.lead("dpo", 1.0).mean < 0.35
    assert (warm_up.by_manners("sft", 1.0) == 0).all()


def test_in_one_set_of_ten_the_better_model_comes_out_behind():
    behind = [warm_up.in_eights("dpo", k) < warm_up.in_eights("sft", k) for k in range(4)]
    assert np.mean(behind) == pytest.approx(0.1, abs=0.02)


def test_asked_as_its_corpus_asks_the_base_model_is_worth_as_much_as_ppo():
    framed = warm_up.without_training()["base, in its corpus's frame"]
    for t in (1.0, 0.0):
        assert framed[t] == pytest.approx(warm_up.golds("ppo", t).mean(), abs=0.1)


def test_the_likeliest_first_tokens_grow_likelier_as_it_cools():
    model = LanguageModel(lively_gpt(GPTConfig(n_layer=1, n_head=2, n_embd=8)))
    warm, cool = (warm_up.first_token(model, "Hello.", t, k=3) for t in (1.0, 0.1))
    assert [*warm] == [*cool] and len(warm) == 3
    assert sorted(warm.values(), reverse=True) == [*warm.values()]
    assert next(iter(cool.values())) > next(iter(warm.values())) > 0


def test_what_the_figures_say_comes_from_what_they_draw(alt_texts):
    figures.policies({"sft": {1.0: Estimate(2, 1.9, 2.1)}}, {"base": {1.0: -3.0}, "framed": {1.0: 2.5}}, 3.25)
    assert "sft 2.00 [1.90, 2.10]; base -3.00 at T = 1; framed 2.50 at T = 1; the dem" in alt_texts[0]
    figures.twice(np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.1, 2.0]))
    assert "by 0.50 in the middle case, by 1.00 at most" in alt_texts[1]
    figures.costs({"perfect": PERFECT})
    assert "perfect 4.00" in alt_texts[2]
