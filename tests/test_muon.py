"""Muon against torch's own, and against a singular value decomposition."""

import pytest
import torch

from minialign.muon import Muon, orthogonalised

SHAPES = ((6, 6), (5, 20), (20, 5))


def matrix(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalised_keeps_the_directions_and_levels_the_sizes(shape):
    u, sizes, v = torch.linalg.svd(matrix(shape), full_matrices=False)
    found = u.T @ orthogonalised(matrix(shape)) @ v.T
    assert torch.allclose(found, torch.diag(found.diag()), atol=1e-4)
    assert 0.6 < found.diag().min() and found.diag().max() < 1.3 < sizes.max() / sizes.min()


def test_the_size_of_a_matrix_does_not_matter_and_nothing_stays_nothing():
    small = orthogonalised(1e-3 * matrix((5, 20)))
    torch.testing.assert_close(small, orthogonalised(matrix((5, 20))), atol=1e-4, rtol=0)
    assert not orthogonalised(torch.zeros(3, 4)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_six_steps_are_those_of_torchs_muon_in_float32(shape, monkeypatch):
    """Torch's own, with its cast to bfloat16 taken out."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda tensor: tensor.clone())
    options = dict(lr=0.03, weight_decay=0.4)
    ours, theirs, plain = (torch.nn.Parameter(matrix(shape)) for _ in range(3))
    optimizers = (
        Muon([ours], **options),
        torch.optim.Muon([theirs], **options, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Muon([plain], **options, adjust_lr_fn="match_rms_adamw", nesterov=False),
    )
    for step in range(6):
        for p, optimizer in zip((ours, theirs, plain), optimizers):
            p.grad = matrix(shape, seed=1 + step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - plain).abs().max() > 0.01, "without Nesterov's look ahead it would be another"


def test_what_has_no_gradient_stays():
    p = torch.nn.Parameter(matrix((3, 4)))
    Muon([p], lr=0.1, weight_decay=0.5).step()
    assert torch.equal(p, matrix((3, 4)))
