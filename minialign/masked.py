"""Means over the response tokens of a batch, and never over its padding."""

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of values (B, T) over the places where mask (B, T) is True."""
    return (values * mask).sum() / mask.sum()


def has_spread(values: torch.Tensor, deviation: torch.Tensor, dim: tuple | int = ()) -> torch.Tensor:
    """Whether values (...) with this standard deviation differ by more than rounding makes of equal ones.

    All together, or along `dim`: then the deviation has kept it, with size 1.
    """
    return deviation > 100 * torch.finfo(values.dtype).eps * values.abs().amax(dim, keepdim=dim != ())


def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Values (B, T) scaled to standard deviation 1 over the mask and, with `shift_mean`, moved to mean 0.

    They are 0 outside the mask. Values that are all equal have no scale: they are only moved, to 0.
    """
    values = values * mask
    mean = masked_mean(values, mask)
    centred = (values - mean) * mask
    deviation = masked_mean(centred**2, mask).sqrt()
    spread = has_spread(values, deviation)
    scale = torch.where(spread, deviation, 1.0)
    return centred * spread / scale if shift_mean else values / scale
