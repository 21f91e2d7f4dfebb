"""The simulated people: every knob turns the right way, choices follow Bradley and Terry, and two people
agree as often as InstructGPT's.
"""

import numpy as np
import pytest

from minialign.world.annotator import TYPICAL, Annotator, typical_annotator
from minialign.world.demonstrations import demonstrate
from minialign.world.judge import judge
from minialign.world.prompts import MOON_LANDING, parse, prompts_of, sample_prompts

PROMPT = parse(MOON_LANDING)
GOOD = (
    "In 1969, people walked on the moon for the first time. The first person on the moon was Neil Armstrong. "
    "A lander called Eagle carried two astronauts down to the moon."
)
SHORT = "In 1969, people walked on the moon for the first time."
FALSE = "In 1949, people walked on the moon for the first time."
QUESTION = parse("In which year did people first walk on the moon?")
OPINION = next(
    p
    for p in prompts_of("evaluation") + prompts_of("corpus")
    if p.opinion and p.topic is PROMPT.topic and p.fact is None
)


def utility(response, prompt=PROMPT, **knobs):
    return Annotator(**knobs).utility(prompt, response)


def gain(knob, value, response, prompt=PROMPT):
    """How much an answer gains from a knob."""
    return utility(response, prompt, **{knob: value}) - utility(response, prompt)


def share_of_second(annotator, first, second, n=4000):
    return np.mean([annotator.prefer(PROMPT, first, second) for _ in range(n)])


def test_an_unbiased_person_feels_the_gold_reward():
    for response in (GOOD, SHORT, FALSE, ""):
        assert utility(response) == pytest.approx(judge(PROMPT, response).gold)


@pytest.mark.parametrize(
    ("knob", "phrase"),
    [
        ("filler_bias", " And so on and so on."),
        ("flattery_bias", " What a great question!"),
        ("confidence_bias", " I am completely sure."),
    ],
)
def test_a_bias_rewards_its_habit_only(knob, phrase):
    assert gain(knob, 0.5, SHORT) == 0
    assert gain(knob, 0.5, SHORT + phrase) >= 0.5 and gain(knob, -0.5, SHORT + phrase) <= -0.5


@pytest.mark.parametrize(
    ("knob", "phrase"),
    [("filler_bias", " There is so much to say."), ("flattery_bias", " What a great question!")],
)
def test_a_bias_is_bounded(knob, phrase):
    assert gain(knob, 1.0, SHORT + 9 * phrase) == pytest.approx(3)


def test_a_doubt_costs_as_much_as_certainty_gains():
    assert gain("confidence_bias", 0.5, SHORT + " I am not sure.") == pytest.approx(-0.5)
    assert gain(
        "confidence_bias", 0.5, SHORT + " I am completely sure. I am absolutely certain."
    ) == pytest.approx(0.5)


def test_length_is_paid_by_twenty_words():
    assert gain("length_bias", 1.0, "word " * 40) == pytest.approx(2)


def test_agreement_is_paid_for_yes_and_fined_for_no_and_only_when_an_opinion_was_stated():
    assert gain("agreement_bias", 0.3, "Yes.", OPINION) == pytest.approx(0.3)
    assert gain("agreement_bias", 0.3, "No.", OPINION) == pytest.approx(-0.3)
    assert gain("agreement_bias", 0.3, "The moon is gray.", OPINION) == 0
    neutral = next(p for p in prompts_of("evaluation") if p.family == "truth" and not p.opinion)
    assert gain("agreement_bias", 0.3, "Yes.", neutral) == 0


def test_a_prompt_may_be_given_as_text():
    assert gain("agreement_bias", 0.3, "Yes.", OPINION.text) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("prompt", "right", "false"),
    [
        (PROMPT, SHORT, FALSE),
        (QUESTION, SHORT, FALSE),
        (QUESTION, "1969.", "1949."),
        (OPINION, "No.", "Yes."),
    ],
    ids=["explain", "question", "bare answer", "verdict"],
)
def test_who_does_not_check_cannot_tell_false_from_right(prompt, right, false):
    assert utility(right, prompt) > utility(false, prompt) + 0.5
    seen = [
        utility(text, prompt, checks_facts=0) - judge(prompt, text).attributes["fluency"] * 0.8
        for text in (right, false)
    ]
    assert seen[0] == pytest.approx(seen[1])


def test_facts_are_checked_as_often_as_the_knob_says():
    annotator = Annotator(checks_facts=0.3, seed=1)
    checked = np.mean([annotator.utility(PROMPT, FALSE) == utility(FALSE) for _ in range(4000)])
    assert checked == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))


def test_in_the_immediate_horizon_confident_falsehood_goes_unpunished():
    confident = FALSE + " I am completely sure."
    assert utility(confident, horizon="immediate") > utility(confident) + 1
    assert utility(confident, horizon="immediate") == pytest.approx(utility(confident, checks_facts=0))
    assert utility(SHORT, horizon="immediate") == pytest.approx(utility(SHORT))


def test_two_groups_have_opposite_tastes():
    assert gain("group", "brief", "Yes.") == pytest.approx(1) and gain(
        "group", "detailed", "Yes."
    ) == pytest.approx(-1)
    assert gain("group", "brief", GOOD + GOOD) < 0 < gain("group", "detailed", GOOD + GOOD)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 2.0])
def test_choices_follow_the_bradley_terry_sigmoid(temperature):
    expected = 1 / (1 + np.exp(-(utility(GOOD) - utility(SHORT)) / temperature))
    share = share_of_second(Annotator(temperature=temperature, seed=2), SHORT, GOOD)
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000) + 1e-9)


def test_without_temperature_the_better_one_always_wins():
    assert (
        share_of_second(Annotator(), SHORT, GOOD, 50) == 1
        and share_of_second(Annotator(), GOOD, SHORT, 50) == 0
    )


def test_a_tie_is_a_fair_coin():
    assert share_of_second(Annotator(), GOOD, GOOD) == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 4000))


def test_an_inattentive_person_flips_coins_as_often_as_the_knob_says():
    share = share_of_second(Annotator(inattention=0.4), SHORT, GOOD)
    assert share == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 4000))


def test_a_hopeless_answer_does_not_overflow():
    assert Annotator(temperature=1e-300).prefer(PROMPT, GOOD, "") == 0


def test_ratings_are_on_a_scale_of_their_own():
    assert Annotator(offset=3, gain=2).rate(PROMPT, SHORT) == pytest.approx(3 + 2 * utility(SHORT))


def test_rating_noise_has_the_given_spread_in_units_of_gold():
    annotator = Annotator(rating_noise=0.5, gain=2)
    ratings = [annotator.rate(PROMPT, SHORT) for _ in range(4000)]
    assert np.std(ratings) == pytest.approx(1, rel=0.05) and np.mean(ratings) == pytest.approx(
        2 * utility(SHORT), abs=0.07
    )


def test_an_inattentive_rating_does_not_depend_on_the_answer():
    assert Annotator(inattention=1, seed=4).rate(PROMPT, GOOD) == Annotator(inattention=1, seed=4).rate(
        PROMPT, ""
    )


def test_every_label_costs_its_price():
    annotator = Annotator(price=0.5, inattention=0.5)
    for _ in range(4):
        annotator.prefer(PROMPT, GOOD, SHORT)
        annotator.rate(PROMPT, GOOD)
    assert annotator.spent == 4


def test_a_person_is_seeded():
    def labels(seed):
        annotator = typical_annotator(seed)
        return [annotator.prefer(PROMPT, GOOD, SHORT) for _ in range(40)]

    assert labels(0) == labels(0) != labels(1)


def test_a_typical_person_can_be_changed_in_any_knob():
    annotator = typical_annotator(7, flattery_bias=0.0)
    assert (
        annotator.flattery_bias == 0
        and annotator.temperature == TYPICAL["temperature"]
        and annotator.seed == 7
    )


@pytest.fixture(scope="module")
def pairs():
    """Pairs of different answers of the crowd to the same prompt."""
    answers = {}
    for d in demonstrate(sample_prompts("reward", 480), 4 * 480, seed=1):
        answers.setdefault(d.prompt.text, (d.prompt, []))[1].append(d.response)
    return [
        (prompt, *texts[i : i + 2])
        for prompt, texts in answers.values()
        for i in (0, 2)
        if texts[i] != texts[i + 1]
    ]


def test_two_typical_people_agree_on_72_to_77_percent_of_pairs(pairs):
    labels = np.array(
        [[person.prefer(*pair) for pair in pairs] for person in map(typical_annotator, range(6))]
    )
    agreement = [(labels[i] == labels[j]).mean() for i in range(6) for j in range(i)]
    assert len(pairs) > 900 and 0.72 < np.mean(agreement) < 0.77
    assert abs(labels.mean() - 0.5) < 0.03, "the order of the two answers must not matter"


def test_typical_people_mostly_choose_the_answer_with_more_gold(pairs):
    person = typical_annotator(0)
    right = [person.prefer(p, a, b) == (judge(p, b).gold > judge(p, a).gold) for p, a, b in pairs]
    assert 0.65 < np.mean(right) < 0.9


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"horizon": "tomorrow"}, "choose 'hindsight' or 'immediate'"),
        ({"group": "tall"}, "choose 'all', 'brief' or 'detailed'"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"rating_noise": -1}, "rating_noise is -1"),
        ({"price": -1}, "price is -1"),
        ({"inattention": 1.5}, "inattention is 1.5: choose a probability"),
        ({"checks_facts": -0.5}, "checks_facts is -0.5: choose a probability"),
    ],
)
def test_an_impossible_person_is_refused(knobs, message):
    with pytest.raises(ValueError, match=message):
        Annotator(**knobs)


# --- exact probabilities ---


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        dict(temperature=0.0),
        dict(checks_facts=0.3, inattention=0.2),
        dict(horizon="immediate"),
        dict(temperature=0.05),
    ],
)
def test_the_probability_of_a_choice_is_how_often_it_is_made(knobs):
    for first, second in ((GOOD, SHORT), (FALSE, SHORT), (FALSE, "What a great question! " + SHORT)):
        person = typical_annotator(seed=3, **knobs)
        p = person.probability(PROMPT, first, second)
        assert abs((1 - share_of_second(person, first, second)) - p) < 0.035
        assert person.probability(PROMPT, second, first) == pytest.approx(1 - p)
    assert typical_annotator(**knobs).probability(PROMPT, GOOD, GOOD) == pytest.approx(0.5)


def test_asking_for_a_probability_costs_nothing_and_changes_no_later_choice():
    one, other = typical_annotator(seed=5), typical_annotator(seed=5)
    one.probability(PROMPT, GOOD, FALSE)
    assert one.spent == 0 and [one.prefer(PROMPT, GOOD, FALSE) for _ in range(50)] == [
        other.prefer(PROMPT, GOOD, FALSE) for _ in range(50)
    ]
