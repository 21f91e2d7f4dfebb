"""Means over the response tokens of a batch, and never over its padding."""

import torch


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of values (B, T) over the places where mask (B, T) is True."""
    return (values * mask).sum() / mask.sum()


def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Values (B, T) scaled to standard deviation 1 over the mask and, with `shift_mean`, moved to mean 0; 0
    outside the mask.
    """
    mean = masked_mean(values, mask)
    deviation = masked_mean((values - mean) ** 2, mask).sqrt().clamp(min=1e-8)
    return (values - mean * shift_mean) / deviation * mask
