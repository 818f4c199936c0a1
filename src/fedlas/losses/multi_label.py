"""Multi-label losses: a two-class loss or FedLAS applied to each label, with sigmoids.

Source: "FedLAS" (arXiv 2606.28654) does not treat this case; ``docs/tasks.md`` describes this library's reading.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, describe, is_dense
from fedlas.losses._base import (
    Base,
    Batch,
    LossOptions,
    LossWrapper,
    can_read_values,
    copy_class_weights,
    make_batch,
    reduce,
)
from fedlas.losses._base.refusals import check_position_losses
from fedlas.losses.binary import to_two_logits
from fedlas.losses.modulated import Modulated, ModulatedOptions


def labels_as_two_classes(
    logits: Tensor, target: Tensor, *, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """Return the known labels as two-class samples, logits ``(M, 2)`` and targets ``(M,)``, for metrics.

    Args:
        logits: ``(N, L)``, one a label, before any sigmoid.
        target: 0 or 1 ``(N, L)``, any dtype; ``ignore_index`` for unknown labels.
        ignore_index: See ``target``.

    Returns:
        Logits ``(M, 2)`` and target ``(M,)`` int64, sample by sample.

    Raises:
        InputError: For other shapes, or targets other than 0 and 1.

    Example:
        >>> labels_as_two_classes(torch.tensor([[2.0, -4.0]]), torch.tensor([[1, -100]]))
        (tensor([[-1.,  1.]]), tensor([1]))
    """
    check_count("ignore_index", ignore_index, low=None)
    _check_shapes(logits, target)
    labeled = target != ignore_index
    labels = target[labeled]
    if not bool(((labels == 0) | (labels == 1)).all()):
        raise InputError(
            f"target must be 0, 1 or ignore_index {ignore_index}",
            f"values from {float(labels.min()):g} to {float(labels.max()):g}",
            "Pass hard labels: metrics do not accept soft ones.",
        )
    return to_two_logits(logits[labeled]), labels.long()


class _PerLabelLoss(LossWrapper):
    """Base class of multi-label losses: a two-class loss per label, averaged over known labels."""

    pos_weight: Tensor | None

    def _register_label_weights(self, pos_weight: Tensor | Sequence[float] | None) -> None:
        """Register ``pos_weight`` as a buffer, and check that both weights have one value per label."""
        self.register_buffer("pos_weight", copy_class_weights(pos_weight))
        for name, value in (("weight", self.weight), ("pos_weight", self.pos_weight)):
            if value is not None and value.shape != (self.num_classes,):
                raise InputError(
                    f"{name} must have shape ({self.num_classes},)",
                    describe(value),
                    "Pass one weight per label.",
                )

    @abstractmethod
    def _label_losses(
        self, label_batch: Batch, logits: Tensor, labeled: Tensor, extras: dict[str, Tensor]
    ) -> Tensor:
        """Return the unweighted loss per sample and label, ``(N L,)``."""

    def _forward(self, logits: Tensor, target: Tensor, extras: dict[str, Tensor]) -> Tensor:
        pairs = self._two_class_batch(
            logits, target
        )  # raises for invalid arguments before any state changes
        labeled = target != self.ignore_index
        values = check_position_losses(
            self._label_losses(pairs, logits, labeled, extras),
            logits.numel(),
            type(self.base).__name__,
        ).reshape(logits.shape)
        if self.weight is not None:
            values = values * self.weight.to(values.dtype)
        if self.pos_weight is not None:
            values = values * (1 + target * (self.pos_weight.to(values.dtype) - 1))
        return reduce(values.reshape(-1), pairs, self.reduction)

    def count_known_labels(self, target: Tensor) -> Tensor:
        """Return the number of known labels in ``target (N, L)``, a scalar: the divisor of the mean."""
        return (target != self.ignore_index).sum()

    def _two_class_batch(self, logits: Tensor, target: Tensor) -> Batch:
        """Return a two-class batch with one row per sample and label; unknown labels are ignored positions."""
        _check_shapes(logits, target, self.num_classes)
        labeled = target != self.ignore_index
        if can_read_values(logits):
            inside = target[labeled]
            # Written so that NaN fails.
            if not inside.numel() or not bool(((inside >= 0) & (inside <= 1)).all()):
                raise InputError(
                    f"target must be in [0, 1] or ignore_index {self.ignore_index}, with at least one known label",
                    f"values from {float(target.min()):g} to {float(target.max()):g}",
                    "Check the labels, and skip batches without any known label.",
                )
        # Floats may be soft targets, so each becomes a row of two probabilities.
        wide = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
        labels = torch.where(labeled, target, 0).reshape(-1)
        soft = target.is_floating_point()
        return Batch(
            logits=to_two_logits(wide.reshape(-1)),
            target=torch.stack((1 - labels, labels), dim=1).to(wide.dtype)
            if soft
            else labels.long(),
            valid=labeled.reshape(-1),
            weight=None,
            shape=tuple(logits.shape),
        )


class MultiLabelLoss(_PerLabelLoss):
    """Multi-label loss: mean of a two-class base loss over all known labels, with sigmoid probabilities.

    With cross-entropy it is ``nn.BCEWithLogitsLoss``; with label smoothing targets are ``t (1 - alpha) + alpha / 2``.

    Args:
        num_labels: Number of labels L.
        base: A loss that needs only logits and target; see :class:`~fedlas.losses.Modulated` for its forms.
        pos_weight: Factor of the loss of present labels ``(L,)``, or None; a soft target has the factor
            ``1 + t (pos_weight - 1)``.
        **options: Those of every :class:`~fedlas.losses.Loss`: ``reduction`` over known labels, ``"none"`` for
            ``(N, L)``; ``ignore_index``, the target of unknown labels; ``weight`` of each label ``(L,)``.

    Attributes:
        base: The loss.

    Raises:
        InputError: If an argument is out of range, or the base needs more; when called, for wrong shapes, targets
            outside [0, 1], or no known label.

    Note:
        The mean divides by the number of known labels, not by their weights, as ``nn.BCEWithLogitsLoss`` does.

    Example:
        >>> criterion = MultiLabelLoss(num_labels=3, base="ce")
        >>> criterion(torch.zeros(2, 3), torch.tensor([[1, 0, 0], [0, 1, -100]]))
        tensor(0.6931)
    """

    def __init__(
        self,
        *,
        num_labels: int,
        base: Base = "ls",
        pos_weight: Tensor | Sequence[float] | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(base, num_classes=2, **options)
        self.num_classes = check_count("num_labels", num_labels)  # outputs of the head
        if self.needs:
            raise InputError(
                "base must need only logits and target",
                f"{type(self.base).__name__}, which needs {', '.join(sorted(self.needs))}",
                "For FedLAS use MultiLabelFedLAS; other losses with extra inputs have no multi-label form.",
            )
        self._register_label_weights(pos_weight)

    def _label_losses(
        self,
        label_batch: Batch,
        logits: Tensor,  # noqa: ARG002
        labeled: Tensor,  # noqa: ARG002
        extras: dict[str, Tensor],  # noqa: ARG002
    ) -> Tensor:
        return self.per_sample(label_batch)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss of the base per row of a two-class batch."""
        return self.base.per_sample(batch)


class MultiLabelFedLAS(_PerLabelLoss, Modulated):
    """Multi-label FedLAS: sigmoid losses of all labels of a sample share one strength, from feature norm and logits.

    ``alpha_i = 2 alpha sigmoid(beta psi_i Z_i)`` as in :class:`~fedlas.losses.FedLAS`. NCI reads the features, the gate
    the logits ``(N, L)``. The base's loss of every label, a problem of two classes, has the strength ``alpha_i``.

    Args:
        num_labels: Number of labels L.
        base: A loss with a strength: ``ls`` (FedLAS), ``mbls`` (FedLAS+), ``focal`` and others.
        beta: Sensitivity to the standardized norm, at least 0.
        pos_weight: Factor of the loss of present labels ``(L,)``, or None.
        **options: Those of :class:`~fedlas.losses.Modulated`; ``weight`` is ``(L,)``.

    Raises:
        InputError: As :class:`~fedlas.losses.Modulated`; when called, as :class:`MultiLabelLoss`.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> criterion = MultiLabelFedLAS(num_labels=3)
        >>> logits, features = torch.randn(4, 3), torch.rand(4, 8)
        >>> criterion(logits, torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]), features=features).ndim
        0
        >>> criterion.smoothing(logits, features).shape
        torch.Size([4])
    """

    def __init__(
        self,
        *,
        num_labels: int,
        base: Base = "ls",
        beta: float = 4.0,
        pos_weight: Tensor | Sequence[float] | None = None,
        **options: Unpack[ModulatedOptions],
    ) -> None:
        check_count("num_labels", num_labels)
        super().__init__(num_classes=num_labels, base=base, beta=beta, **options)
        self._register_label_weights(pos_weight)

    def _label_losses(
        self, label_batch: Batch, logits: Tensor, labeled: Tensor, extras: dict[str, Tensor]
    ) -> Tensor:
        # A sample without a known label is ignored by NCI; the class of the others has no effect on the strength.
        present = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        counted = torch.where(labeled.any(dim=1), present, self.ignore_index)
        rows = make_batch(logits, counted, extras, ignore_index=self.ignore_index)
        return self.base.with_strength(
            label_batch, self._batch_strengths(rows).repeat_interleave(logits.shape[1])
        )


def _check_shapes(logits: Any, target: Any, num_labels: int | None = None) -> None:
    fits = (
        is_dense(logits) and logits.is_floating_point() and logits.ndim == 2 and logits.numel() > 0
    )
    fits = fits and is_dense(target) and target.shape == logits.shape and not target.is_complex()
    if not fits or num_labels not in (None, logits.shape[1]):
        raise InputError(
            f"logits and target must both have shape (N, {num_labels or 'L'}), one column per label",
            f"{describe(logits)} and {describe(target)}",
            "Pass 0 or 1 per sample and label.",
        )
