"""Means and whitening over a mask; and that rounding is never taken for a spread."""

import math

import pytest
import torch
from engine import lively_gpt

from minialign.critic import explained_variance
from minialign.masked import has_spread, masked_mean, whiten
from minialign.reward_model import RewardModel

CONSTANTS = (0.3, 0.1, 0.7, -1.7, 1 / 3, 1e-6, 1e6, -1e-20, 0.0)
MASK = torch.rand(6, 11, generator=torch.Generator().manual_seed(0)) > 0.3


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_values_are_whitened_to_exactly_nothing(constant, dtype):
    """Divided by what rounding leaves of their deviation, they would all become ±1, or anything."""
    for mask in (MASK, torch.ones(64, 1, dtype=torch.bool), torch.ones(1, 1, dtype=torch.bool)):
        values = torch.full(mask.shape, constant, dtype=dtype)
        assert (whiten(values, mask) * mask == 0).all()
        assert torch.equal(whiten(values, mask, shift_mean=False), values * mask), "scaled by what? they stay"


@pytest.mark.parametrize("constant", [c for c in CONSTANTS if c])
def test_values_that_differ_by_rounding_alone_are_equal_ones(constant):
    noise = 1 + torch.randn(MASK.shape, generator=torch.Generator().manual_seed(1)) * 1e-7
    assert (whiten(constant * noise, MASK) * MASK == 0).all()


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e9])
def test_a_small_scale_is_a_scale(scale):
    """What differs is brought to standard deviation 1, however small or large it is."""
    values = scale * torch.randn(MASK.shape, generator=torch.Generator().manual_seed(2))
    white = whiten(values, MASK)
    assert float(white[MASK].mean()) == pytest.approx(0, abs=1e-5)
    assert float(white[MASK].std(unbiased=False)) == pytest.approx(1, abs=1e-5)
    assert (white[~MASK] == 0).all() and masked_mean(white, MASK).abs() < 1e-5


def test_what_lies_outside_the_mask_plays_no_part():
    values = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(3))
    outside = torch.where(MASK, values, torch.tensor(1e6))
    assert torch.equal(whiten(outside, MASK), whiten(values, MASK))


def test_the_border_between_rounding_and_a_spread():
    values = torch.tensor([1.0, -2.0])
    assert has_spread(values, torch.tensor(1e-3)) and not has_spread(values, torch.tensor(1e-6))
    assert not has_spread(torch.zeros(2), torch.tensor(0.0)), "zeros have none"
    assert has_spread(torch.ones(2, 3), torch.tensor(1.0)).shape == (), "all together"


def test_along_a_dimension_each_row_has_a_border_of_its_own():
    rows = torch.tensor([[1e6, 1e6 + 1], [0.0, 0.01]])
    deviation = rows.std(-1, keepdim=True)
    assert has_spread(rows, deviation, dim=-1).tolist() == [[False], [True]]


@pytest.mark.parametrize("constant", CONSTANTS)
def test_no_variance_cannot_be_explained(constant):
    returns = torch.full((50,), constant)
    assert math.isnan(explained_variance(torch.randn(50), returns))
    assert math.isnan(explained_variance(torch.zeros(1), torch.ones(1)))


def test_explained_variance_by_hand():
    returns = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert explained_variance(returns + 5.0, returns) == pytest.approx(1.0), "a constant error explains all"
    assert explained_variance(torch.zeros(4), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)
    assert explained_variance(returns / 2, returns) == pytest.approx(0.75)


def test_a_reward_model_whose_scores_differ_by_rounding_has_no_scale(toy_data):
    model = RewardModel(lively_gpt(), reads_surprise=False)
    with torch.no_grad():
        model.head.weight.mul_(1e-9)
        model.head.bias.fill_(3.0)
    with pytest.raises(ValueError, match="the same score: there is no scale to normalise to"):
        model.normalise(["Why?", "Who?", "How?"], ["So.", "Me.", "Thus."])
    assert (float(model.gain), float(model.bias)) == (1.0, 0.0)


def test_what_is_only_scaled_keeps_its_mean():
    """shift_mean=False: the same numbers over their standard deviation, by numpy."""
    values = 5 + 3 * torch.randn(MASK.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    inside = values[MASK].numpy()
    scaled = whiten(values, MASK, shift_mean=False)
    assert scaled[MASK].numpy() == pytest.approx(inside / inside.std())
    assert not scaled[~MASK].any()
