"""An affine map in float64, the result of every regression on logits."""

from __future__ import annotations

from torch import Tensor, nn


class AffineMap(nn.Module):
    """``x -> W x + b`` in float64.

    Attributes:
        weight: ``W (C, C)``, or its diagonal ``(C,)`` if all else is 0.
        bias: ``b (C,)``.
        converged: Whether the gradient vanished where the fit ended.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, converged: bool = True) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)
        self.converged = converged

    def forward(self, inputs: Tensor) -> Tensor:
        """The map of each row of ``inputs (n, C)``."""
        return apply_weight(self.weight, inputs) + self.bias


def apply_weight(weight: Tensor, rows: Tensor) -> Tensor:
    """``W x`` for each row ``x``; ``W`` is a matrix or the diagonal of one."""
    return rows * weight if weight.ndim == 1 else rows @ weight.T
