"""LogitNorm: cross-entropy on L2-normalized logits, so that training cannot lower the loss by scaling logits.

Source: Wei et al. 2022, "Mitigating Neural Network Overconfidence with Logit Normalization", ICML
(arXiv 2205.09310). Written from the paper.
"""

from __future__ import annotations

from typing import Unpack, get_args

import torch
from torch import Tensor

from fedlas._core.check import check_choice, check_number
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    Variant,
    cross_entropy,
    paper_metadata,
)

_SHORTEST = 1e-12  # a shorter row has no direction
_EPS = 1e-7  # published code adds it to the norm


def normalize_logits(logits: Tensor, *, temperature: float, variant: Variant = "paper") -> Tensor:
    """Return logits divided by norm and temperature, ``z / (temperature ||z||_2)`` per row, ``(N, C)``.

    Args:
        logits: ``(N, C)``.
        temperature: Above 0.
        variant: ``"paper"``, or ``"reference"`` as in published code, with 1e-7 added to the norm.

    Note:
        A row of zeros has no direction: it stays zero, and its gradient is 0. With 1e-7 in the norm its gradient is
        that of the result, times ten million over the temperature.

    Example:
        >>> normalize_logits(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), temperature=0.5)
        tensor([[1.2000, 1.6000],
                [0.0000, 0.0000]])
    """
    # The square root of a masked sum: the slope of the norm itself is NaN at 0.
    squared = logits.square().sum(dim=1, keepdim=True)
    exists = squared > _SHORTEST**2
    norm = torch.where(exists, squared, 1.0).sqrt()
    if variant == "reference":
        return logits / (temperature * (norm * exists + _EPS))
    return logits * (exists / (temperature * norm))


@LOSSES.register(
    "logitnorm",
    **paper_metadata("Logit Normalization", 2022, "2205.09310"),
    shift_invariant=False,
    tune={"temperature": "0.01:1:log"},
)
class LogitNorm(Loss):
    """LogitNorm: cross-entropy of ``z / (temperature ||z||_2)``.

    Args:
        temperature: Divisor of the unit vector of logits, above 0; the paper's tau, 0.04 on CIFAR-10.
        variant: ``"paper"``, or ``"reference"`` (published code's 1e-7 in the norm).
        **options: Those of every :class:`~fedlas.losses.Loss`.

    Raises:
        InputError: If the temperature is not above 0 or the variant unknown.

    Note:
        Only the loss normalizes. A prediction is still the softmax of the logits themselves, whose scale is arbitrary:
        fit a temperature before you use it as a confidence. A row of zeros counts as uniform and has no gradient; with
        the 1e-7 of published code its gradient is multiplied by ten million.

    Example:
        >>> LogitNorm(temperature=1.0)(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))
        tensor(0.5981)
    """

    def __init__(
        self,
        *,
        temperature: float = 0.04,
        variant: Variant = "paper",
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.temperature = check_number("temperature", temperature, low=0, low_open=True)
        self.variant: Variant = check_choice("variant", variant, get_args(Variant))

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``."""
        scaled = normalize_logits(batch.logits, temperature=self.temperature, variant=self.variant)
        return cross_entropy(scaled, batch.target, batch.weight)
