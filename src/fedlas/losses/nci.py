"""NCI, the norm confidence indicator of FedLAS: feature norms standardized by running moments.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_number
from fedlas._core.ranks import sum_across_ranks, world_size
from fedlas.losses._base import PreciseBuffers, can_read_values

# the published constant that keeps a collapsed standard deviation from dividing by zero
_EPS = 1e-3


class NormConfidenceIndicator(PreciseBuffers):
    """Standardized feature norm per sample: deviation from the running mean, in running standard deviations.

    ``n_i = ||h_i||_p``; in training the moments move first, ``mean <- m mean(n) + (1 - m) mean`` and the same for the
    unbiased standard deviation; then ``Z_i = (n_i - mean) / (std + 1e-3)``.

    Args:
        momentum: Weight ``m`` of the new batch in (0, 1], as in ``nn.BatchNorm1d``.
        init: ``(mean, std)`` to start from. None starts from the moments of the first batch; before it, ``Z_i = 0``.
            The published code starts from ``(20, 100)``.
        norm_p: Order ``p`` of the norm, at least 1; ``float("inf")`` is the largest absolute feature.

    Attributes:
        mean: Buffer, running mean of the norms, scalar float32.
        std: Buffer, running standard deviation, scalar float32.
        num_batches_tracked: Buffer, number of batches that have moved the moments, scalar int64.

    State:
        The buffers change in ``forward`` in training mode with gradients enabled, in place; never in ``eval()`` or
        under ``torch.no_grad()``. Under DDP the moments are those of all ranks' samples together. A batch with fewer
        than two valid samples, or with norms that are not finite (a mixed-precision step that overflows), does not
        change them.

    Raises:
        InputError: If momentum or norm_p is out of range or init is not two numbers with std >= 0; in training, if
            the very first batch is a single sample, which has no standard deviation.

    Note:
        Buffers stay float32 through ``.half()`` and ``.double()``: an average in half precision would stop moving.
        Features are detached: the indicator never sends a gradient to the backbone.

    Example:
        >>> nci = NormConfidenceIndicator()
        >>> nci(torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True))
        tensor([-0.7069,  0.7069])
        >>> nci.mean
        tensor(5.)
    """

    precise: ClassVar[tuple[str, ...]] = ("mean", "std")
    mean: Tensor
    std: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, momentum: float = 0.95, init: tuple[float, float] | None = None, *, norm_p: float = 1
    ) -> None:
        super().__init__()
        self.momentum = check_number("momentum", momentum, low=0, high=1, low_open=True)
        infinite = isinstance(norm_p, float) and norm_p == math.inf
        self.norm_p = math.inf if infinite else check_number("norm_p", norm_p, low=1)
        if init is not None:
            if not isinstance(init, tuple | list) or len(init) != 2:
                raise InputError(
                    "init must be None or a pair (mean, std)",
                    repr(init),
                    "Pass two numbers, e.g. (20, 100).",
                )
            init = (check_number("init mean", init[0]), check_number("init std", init[1], low=0))
        self.init = init
        mean, std = init or (0.0, 1.0)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.int64))

    def forward(self, features: Tensor, *, valid: Tensor | None = None) -> Tensor:
        """Return the standardized feature norm per sample.

        Args:
            features: ``(N, D)``, any floating dtype; norms are computed in float32.
            valid: ``(N,)`` bool; samples marked False do not change the moments. None counts all.

        Returns:
            ``Z (N,)`` float32, without a gradient.
        """
        norms = feature_norms(features.detach(), self.norm_p)
        if self.training and torch.is_grad_enabled():
            self._update_moments(norms, valid)
        # The moments are updated before they are used, as in the published code.
        scores = (norms - self.mean) / (self.std + _EPS)
        if self.init is not None or (can_read_values(norms) and int(self.num_batches_tracked)):
            return scores
        return torch.where(self.num_batches_tracked > 0, scores, 0.0)

    def _update_moments(self, norms: Tensor, valid: Tensor | None) -> None:
        """Update the running mean and standard deviation from a batch, without synchronizing an accelerator."""
        mean, std, count = _norm_moments(norms, valid)
        compiling = torch.compiler.is_compiling()
        if isinstance(count, int) and count < 2:
            if not compiling and self.init is None and int(self.num_batches_tracked) == 0:
                raise InputError(
                    "the first training batch must have at least two samples, because it sets the running moments",
                    f"{count}",
                    "Use a larger batch, drop_last=True, or init=(mean, std).",
                )
            return
        # Without start values the first batch replaces the moments.
        if can_read_values(norms):  # the usual case on a CPU, with a third of the operations
            if math.isfinite(float(mean) + float(std)):  # neither is for fewer than two samples
                share = self.momentum if self.init or int(self.num_batches_tracked) else 1.0
                self.mean.lerp_(mean, share)
                self.std.lerp_(std, share)
                self.num_batches_tracked.add_(1)
            return
        first = (self.num_batches_tracked == 0) & (self.init is None)
        rate = torch.where(first, 1.0, self.momentum)
        usable = torch.isfinite(mean + std)
        self.mean.copy_(torch.where(usable, torch.lerp(self.mean, mean, rate), self.mean))
        self.std.copy_(torch.where(usable, torch.lerp(self.std, std, rate), self.std))
        self.num_batches_tracked.add_(usable)

    def extra_repr(self) -> str:
        """Return the settings, for ``repr``."""
        return f"momentum={self.momentum}, init={self.init}, norm_p={self.norm_p:g}"


def feature_norms(features: Tensor, norm_p: float = 1) -> Tensor:
    """Return the feature norm ``||h_i||_p`` per row, ``(N,)`` float32."""
    features = features.float()
    if norm_p == 1:  # several times faster than vector_norm on CPU
        return features.abs().sum(dim=1)
    return torch.linalg.vector_norm(features, norm_p, dim=1)


def _norm_moments(norms: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, int | Tensor]:
    """Return mean, unbiased standard deviation and count of the valid norms over all ranks."""
    if valid is None and world_size() == 1:
        if len(norms) < 2:
            return norms.new_zeros(()), norms.new_zeros(()), len(norms)
        std, mean = torch.std_mean(norms)
        return mean, std, len(norms)
    if valid is None:
        valid = torch.ones_like(norms, dtype=torch.bool)
    counted = torch.where(valid, norms, 0.0)
    count, total = sum_across_ranks(
        torch.stack((valid.sum().to(norms.dtype), counted.sum()))
    ).unbind()
    mean = total / count
    # Deviations from the common mean, not sums of squares: float32 would cancel for large norms with little spread.
    squares = sum_across_ranks(torch.where(valid, norms - mean, 0.0).square().sum())
    return mean, (squares / (count - 1)).sqrt(), count
