"""Settings: every field of every config is checked, in one line, and all of them are shown."""

import math
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch

from minialign.config import (
    Config,
    Count,
    Momentum,
    Natural,
    NonNegative,
    Positive,
    Share,
    Temperature,
    at_least,
    between,
    checked,
    require_temperature,
)
from minialign.dpo import DPOConfig, OnlineDPOConfig
from minialign.gpt import GPTConfig
from minialign.policy_gradient import PolicyGradientConfig
from minialign.ppo import PPOConfig
from minialign.pretraining import PretrainingConfig
from minialign.reward_model import RewardModelConfig
from minialign.sft import SFTConfig
from minialign.training import TrainingConfig

CONFIGS = (
    GPTConfig,
    TrainingConfig,
    PretrainingConfig,
    SFTConfig,
    RewardModelConfig,
    PolicyGradientConfig,
    PPOConfig,
    DPOConfig,
    OnlineDPOConfig,
)
FIELDS = [(config, field.name) for config in CONFIGS for field in fields(config)]


def test_no_config_is_left_out():
    """What is not in CONFIGS is not tested here."""

    def below(kind):
        return {kind}.union(*map(below, kind.__subclasses__()))

    assert {kind for kind in below(Config) if kind.__module__.startswith("minialign.")} == {Config, *CONFIGS}


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_every_field_is_checked(config, name):
    """What no setting can be is refused in a line that begins with the field's name."""
    for wrong in (-1, math.nan, "many", None, [1, 2, 3], np.array([1.0, 2.0]), object()):
        if wrong is None and getattr(config(), name) is None:
            continue
        with pytest.raises(ValueError, match=rf"^{name} is ") as error:
            config(**{name: wrong})
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("config", "name"), FIELDS)
def test_numbers_of_numpy_and_torch_are_taken(config, name):
    """Numpy's and torch's scalars and arrays of one number are as good as Python's."""
    default = getattr(config(), name)
    if isinstance(default, str | tuple) or default is None:
        return
    makers = [np.asarray, lambda x: np.asarray(x)[()], lambda x: np.array([[x]]), torch.tensor]
    makers += [lambda x: torch.tensor([x])]
    for make in makers:
        given = config(**{name: make(default)})
        value = getattr(given, name)
        assert type(value) is type(default) and value == pytest.approx(default)


def test_whole_numbers_may_come_as_floats_and_the_other_way_round():
    config = PPOConfig(steps=1e2, lam=1)
    assert (config.steps, config.lam) == (100, 1.0)
    assert type(config.steps) is int and type(config.lam) is float


@pytest.mark.parametrize("wrong", [2.5, True, math.inf, 10.000001])
def test_a_number_of_steps_is_whole(wrong):
    with pytest.raises(ValueError, match="^steps is "):
        TrainingConfig(steps=wrong)


@pytest.mark.parametrize("temperature", [0, 1e-38, 1e38, math.inf])
def test_temperatures_at_which_nothing_can_be_learned(temperature):
    for config in (PPOConfig, PolicyGradientConfig):
        with pytest.raises(ValueError, match="^temperature is "):
            config(temperature=temperature)


def test_infinity_switches_clipping_off_and_nothing_else():
    assert TrainingConfig(max_grad_norm=math.inf).max_grad_norm == math.inf
    with pytest.raises(ValueError, match="learning_rate is inf: it must be a finite number"):
        TrainingConfig(learning_rate=math.inf)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_shows_all_its_fields_one_a_line(config):
    lines = str(config()).splitlines()
    assert lines[0] == config.__name__ and len(lines) == 1 + len(fields(config))
    for line, field in zip(lines[1:], fields(config)):
        assert line.split(" = ")[0].strip() == field.name and field.default is not MISSING
        assert line.split(" = ")[1] == repr(field.default)


# --- the edges of what a number may be ---


@pytest.mark.parametrize(
    ("hint", "allowed", "refused", "words"),
    [
        (Count, [1, 2, 10**9], [0, -1], "it must be at least 1"),
        (Natural, [0, 1], [-1], "it must be at least 0"),
        (Positive, [1e-300, 1e300], [0.0, -1e-300], "it must be positive"),
        (NonNegative, [0.0, 1e300], [-1e-300], "it must be at least 0"),
        (Share, [0.0, 0.5, 1.0], [-1e-9, 1 + 1e-9], "it must lie between 0 and 1"),
        (Momentum, [0.0, 0.999], [1.0, -1e-9, 1.5], "it must be at least 0 and below 1"),
        (Temperature, [1e-6, 1.0, 1e4], [0.99e-6, 10_000.5], "a policy that never varies, or varies at"),
    ],
)
def test_the_last_number_that_is_allowed_and_the_first_that_is_not(hint, allowed, refused, words):
    assert [checked("it", value, hint) for value in allowed] == allowed
    for value in refused:
        with pytest.raises(ValueError, match=f"^it is {value:g}: {words}"):
            checked("it", value, hint)
    if hint in (Positive, NonNegative, Share, Momentum, Temperature):
        for value in (math.inf, -math.inf, math.nan):
            with pytest.raises(ValueError, match=f"^it is {value}: it must be a finite number"):
                checked("it", value, hint)


def test_a_limit_may_say_why():
    assert at_least(2, "a pair has two").words == "a pair has two" and between(0, 1, "so").words == "so"
    assert at_least(2).words == "it must be at least 2"


def test_the_temperatures_of_probabilities():
    for temperature in (1e-6, 1.0, 1e4):
        assert require_temperature(temperature) is None
    for temperature in (0.99e-6, 10_000.5, math.inf, -1.0, math.nan):
        with pytest.raises(ValueError, match=f"the temperature is {temperature}: .* from 1e-06 to 10,000"):
            require_temperature(temperature)
