"""Muon (Jordan et al. 2024): a step of the same size in every direction of a matrix.

The momentum UΣVᵀ of a layer's weights is replaced by UVᵀ, nearly: what a gradient says of its weak directions
counts as much as what it says of its strong ones. torch.optim.Muon does this in bfloat16, which takes a
processor without instructions for it thirty times as long as float32.
"""

import torch

QUINTIC = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: the steepest at 0 that keeps σ near 1


def orthogonalised(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """UVᵀ of a matrix UΣVᵀ, (A, B), up to singular values from about 0.7 to 1.2, by Newton and Schulz.

    σ ← aσ + bσ³ + cσ⁵ is done to all singular values at once, by products of matrices.
    """
    a, b, c = QUINTIC
    high = matrix.size(0) > matrix.size(1)
    x = matrix.T if high else matrix
    x = x / x.norm().clamp(min=1e-7)  # no singular value above 1
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if high else x


class Muon(torch.optim.Optimizer):
    """For matrices: θ ← (1 − ηλ) θ − η · 0.2 √max(A, B) · UVᵀ, of Nesterov's momentum.

    The factor gives the step the size that AdamW's has, so that one learning rate serves both (Liu et al.
    2025, "Muon is scalable for LLM training").
    """

    def __init__(self, matrices, lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, dict(lr=lr, weight_decay=weight_decay, momentum=momentum))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                mean = state["momentum_buffer"]
                mean.lerp_(p.grad, 1 - momentum)
                turned = orthogonalised(p.grad.lerp(mean, momentum))
                p.mul_(1 - rate * group["weight_decay"])
                p.add_(turned, alpha=-rate * 0.2 * max(p.shape) ** 0.5)
