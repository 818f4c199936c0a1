"""BCG, the bidirectional calibration gate of FedLAS.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import check_count


class BidirectionalCalibrationGate(nn.Module):
    """Gate of FedLAS: an MLP on logits that predicts, per sample, +1 or -1, the sign of the norm's effect on smoothing.

    ``o = W2 leaky_relu_0.01(W1 z + b1) + b2``, ``u = softmax(o)_1 - softmax(o)_0``, ``psi = sign(u)`` with the gradient
    passed straight through: ``d psi / d u := 1``.

    Args:
        num_classes: Number of classes C.

    Attributes:
        hidden: ``nn.Linear(C, max(C // 2, 1))``.
        out: ``nn.Linear(max(C // 2, 1), 2)``.

    State:
        Parameters only, trained by the loss itself. ``requires_grad_(False)`` freezes the gate.

    Raises:
        InputError: If num_classes is not a whole number of at least 1.

    Note:
        Logits are detached: the gate never sends a gradient to the model.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> BidirectionalCalibrationGate(3)(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]])).abs()
        tensor([1., 1.], grad_fn=<AbsBackward0>)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        check_count("num_classes", num_classes)
        width = max(num_classes // 2, 1)
        self.hidden = nn.Linear(num_classes, width)
        self.out = nn.Linear(width, 2)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the direction per sample, -1 or +1.

        Args:
            logits: ``(N, C)``; converted to the parameters' dtype.

        Returns:
            ``psi (N,)`` in {-1, 0, +1}, with a straight-through gradient to the parameters.
        """
        logits = logits.detach().to(self.out.weight.dtype)
        two = self.out(F.leaky_relu(self.hidden(logits), 0.01))
        # With two outputs the difference of their softmax is a hyperbolic tangent.
        down, up = two.unbind(1)
        return straight_through_sign(torch.tanh((up - down) * 0.5))


class TopLogitsGate(BidirectionalCalibrationGate):
    """Gate for many classes, whose inputs are the ``top`` largest logits per sample, minus the mean logit.

    Its parameters grow with ``top`` and not with the square of the number of classes. It is invariant to a shift and to
    the order of the classes. This gate is this library's; the paper has none for many classes.

    Args:
        num_classes: Number of classes C.
        top: Number of logits that it reads; at most C are.

    Attributes:
        hidden: ``nn.Linear(top, 8)``.
        out: ``nn.Linear(8, 2)``.

    State:
        As :class:`BidirectionalCalibrationGate`.

    Raises:
        InputError: If an argument is not a whole number of at least 1.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> gate = TopLogitsGate(32_000, top=8)
        >>> sum(p.numel() for p in gate.parameters()), gate(torch.randn(2, 32_000)).shape
        (90, torch.Size([2]))
    """

    def __init__(self, num_classes: int, *, top: int = 8) -> None:
        nn.Module.__init__(self)
        self.top = min(check_count("top", top), check_count("num_classes", num_classes))
        self.hidden = nn.Linear(self.top, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, logits: Tensor) -> Tensor:
        """Return the direction per sample, -1 or +1, from ``logits (N, C)``."""
        logits = logits.detach()
        return super().forward(
            logits.topk(self.top, dim=1).values - logits.mean(dim=1, keepdim=True)
        )


def straight_through_sign(u: Tensor) -> Tensor:
    """Return ``sign(u)`` with a straight-through gradient of 1 (Bengio et al. 2013, arXiv 1308.3432)."""
    fixed = u.detach()
    # The bracket is exactly zero, so the value is exactly -1, 0 or +1; only its gradient remains.
    return torch.sign(fixed) + (u - fixed)
