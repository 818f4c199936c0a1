"""NCI and BCG around any loss that has a strength: what makes FedLAS plug-and-play.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654,
ECCV 2026), which does it to label smoothing and to its margin-based form; on other losses it is this library's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_logits, check_number, describe
from fedlas.losses.base import LOSSES, Batch, LossOptions, prepare, without_autocast
from fedlas.losses.bcg import BidirectionalCalibrationGate
from fedlas.losses.composite import Base, OnBase
from fedlas.losses.nci import NormConfidenceIndicator

# The gate reads the logits themselves, so a shift of them may turn it.
ABOUT: dict[str, Any] = {
    "paper": "FedLAS",
    "year": 2026,
    "url": "https://arxiv.org/abs/2606.28654",
    "shift_invariant": False,
}
"""Registry metadata of the losses with a gate."""


def adaptive_strength(scores: Tensor, psi: Tensor, *, alpha: float, beta: float) -> Tensor:
    """``2 alpha sigmoid(beta psi Z)``, the strength of each sample, in ``(0, 2 alpha)``.

    Args:
        scores: Standardised feature norms ``Z (N,)``.
        psi: Direction of each sample ``(N,)``, in {-1, 0, +1}.
        alpha: Strength at ``Z = 0``.
        beta: How fast the strength leaves alpha.
    """
    return torch.sigmoid(psi * (scores * beta)) * (2 * alpha)


@LOSSES.register(
    "modulated",
    **ABOUT,
    note="written from the paper; bases but LS and MbLS are this library's reading",
    tune={"beta": "0.25:16:log", "momentum": "0.001:1:log"},
)
class Modulated(OnBase):
    """A loss whose strength NCI and BCG set: ``alpha_i = 2 alpha sigmoid(beta psi_i Z_i)`` in place of ``alpha``.

    ``alpha`` is the strength the base was built with. Any loss has one that names it in ``strength`` and computes
    itself under another in ``with_strength(batch, (M,))``: ``ls``, ``mbls``, ``acls``, ``entropy-penalty`` (alpha),
    ``focal`` (gamma). :class:`FedLAS` and :class:`FedLASPlus` are this class on label smoothing and on MbLS.

    Args:
        num_classes: Number of classes C.
        base: The loss: one, its registry name, or ``{"name": ..., option: ...}``.
        beta: Sensitivity to the standardised norm, at least 0.
        momentum: NCI's weight of the new batch, in (0, 1].
        norm_p: Order of the feature norm, at least 1.
        nci: Replaces the indicator; called as ``nci(features (N, D), valid=(N,) bool | None) -> (N,)``.
        gate: Replaces the gate; called as ``gate(logits (N, C)) -> (N,)`` in [-1, 1].
        **options: Those of every :class:`~fedlas.losses.Loss`. What is ignored touches neither NCI, gate nor mean.

    Attributes:
        base: The loss.
        alpha: Its strength, which a sample of mean feature norm gets.
        nci: The indicator; holds the running moments.
        gate: The gate; its parameters must be given to the optimizer (``fedlas.param_groups`` does).

    Raises:
        InputError: If an argument is out of range, the base has no strength, or twice its strength is more than it
            takes.

    Note:
        Dense logits with features per image have one strength an image, from the mean logits of its valid positions.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> criterion = Modulated(3, base={"name": "focal", "gamma": 2.0})
        >>> logits, features = torch.randn(4, 3), torch.rand(4, 8)
        >>> loss = criterion(logits, torch.tensor([0, 1, 2, 0]), features=features)
        >>> bool((criterion.smoothing(logits, features) < 4).all())
        True
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    gate_decides: bool = True
    """Whether :meth:`direction_of` returns what the gate said, so that logits alone tell the directions."""

    def __init__(
        self,
        num_classes: int,
        *,
        base: Base = "acls",
        beta: float = 4.0,
        momentum: float = 0.95,
        norm_p: float = 1,
        nci: Callable[..., Tensor] | None = None,
        gate: Callable[[Tensor], Tensor] | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        name = type(self).__name__
        check_count(name, "num_classes", num_classes)
        super().__init__(base, num_classes=num_classes, **options)
        self.beta = check_number(name, "beta", beta, low=0)
        strength = self.base.strength
        if strength is None:
            able = [entry.name for entry in LOSSES.entries() if entry.value.strength is not None]
            raise InputError(name, "base must have a strength", self.base, f"Choose one of: {', '.join(able)}.")
        self.alpha = check_number(
            name, f"{strength} of the base", getattr(self.base, strength), low=0, high=self.base.strength_bound / 2
        )
        for part, replacement in (("nci", nci), ("gate", gate)):
            if replacement is not None and not callable(replacement):
                raise InputError(
                    name,
                    f"{part} must be a module or a function",
                    describe(replacement),
                    f"Leave {part} out, or pass one.",
                )
        self.nci = NormConfidenceIndicator(momentum, norm_p=norm_p) if nci is None else nci
        self.gate = BidirectionalCalibrationGate(num_classes) if gate is None else gate

    @classmethod
    def reference(cls, num_classes: int, **kwargs: Any) -> Self:
        """The published behaviour: the indicator starts from mean 20 and standard deviation 100.

        Args:
            num_classes: Number of classes.
            **kwargs: As for the class.

        Note:
            Under DDP the published code would keep moments of its own on each rank; this does not. The published
            training also puts the gate into the backbone's optimizer group (``param_groups(...,
            decay_criterion=True)``) and clips the backbone alone.
        """
        momentum, norm_p = kwargs.get("momentum", 0.95), kwargs.get("norm_p", 1)
        kwargs.setdefault("nci", NormConfidenceIndicator(momentum, (20.0, 100.0), norm_p=norm_p))
        return cls(num_classes, **kwargs)

    def per_sample(self, batch: Batch) -> Tensor:
        """Loss of each position ``(M,)``; in training this moves NCI once."""
        alpha = self._strength(batch)
        if batch.per_image:
            alpha = alpha.repeat_interleave(batch.logits.shape[0] // alpha.shape[0])
        return self.base.with_strength(batch, alpha)

    @torch.no_grad()
    def smoothing(self, logits: Tensor, features: Tensor) -> Tensor:
        """Strength ``alpha_i`` of each sample, without any change of state: for monitors and plots.

        Args:
            logits: ``(N, C)`` or ``(N, C, d1, ...)``.
            features: ``(N, D)`` or ``(N, D, d1, ...)``.

        Returns:
            ``(N,)``, or ``(N, d1, ...)`` for features per position; in ``(0, 2 alpha)``.

        Raises:
            InputError: For wrong shapes.

        Note:
            No target is known here, so every position counts: features per image of a dense input with ignored
            positions may get another strength in training.
        """
        name = type(self).__name__
        logits = check_logits(name, logits)
        target = torch.zeros((logits.shape[0], *logits.shape[2:]), dtype=torch.int64, device=logits.device)
        batch = prepare(name, logits, target, features)
        with without_autocast(logits.device.type):
            alpha = self._strength(batch)
        return alpha if batch.per_image else alpha.reshape(batch.shape)

    def _strength(self, batch: Batch) -> Tensor:
        """``alpha_i``: ``(M,)``, or ``(N,)`` for a dense batch with one feature vector an image."""
        name, features = type(self).__name__, batch.features
        batch.check_classes(name, self.num_classes)
        if features is None:
            raise TypeError(f"{name}: features must be passed (N, D); got None. Pass the head's input.")
        logits, valid = _gate_input(batch, features.shape[0])
        psi = _one_each(name, "gate", self.gate(logits), len(features))  # first: an error here must not move NCI
        scores = _one_each(name, "nci", self.nci(features, valid=valid), len(features))
        if valid is not None:  # 0 times NaN is NaN: what an ignored sample holds must not reach the gate's gradient
            scores = torch.where(valid, scores, 0.0)
        alpha = self.strength_of(scores, psi, valid).to(batch.logits.dtype)
        return alpha if valid is None else torch.where(valid, alpha, 0.0)

    def strength_of(self, scores: Tensor, psi: Tensor, valid: Tensor | None) -> Tensor:  # noqa: ARG002 (for subclasses)
        """``alpha_i (N,)`` from standardised norms and directions ``(N,)``; ``valid (N,)`` marks samples that count."""
        return adaptive_strength(scores, self.direction_of(scores, psi), alpha=self.alpha, beta=self.beta)

    def direction_of(self, scores: Tensor, psi: Tensor) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Direction that acts ``(N,)``, from standardised norms and what the gate said ``(N,)``: the same here."""
        return psi


def _gate_input(batch: Batch, rows: int) -> tuple[Tensor, Tensor | None]:
    """Logits ``(rows, C)`` for the gate, and which rows count (None: all)."""
    logits, valid = batch.logits.detach(), batch.valid
    if not batch.per_image:
        return (logits, None) if valid is None else (torch.where(valid[:, None], logits, 0.0), valid)
    # One strength an image: the gate sees the image's mean logits, over the positions that count.
    logits = logits.reshape(rows, -1, logits.shape[1])
    if valid is None:
        return logits.mean(dim=1), None
    inside = valid.reshape(rows, -1)
    counted = inside.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(inside[:, :, None], logits, 0.0).sum(dim=1) / counted, inside.any(dim=1)


def _one_each(owner: str, part: str, value: Tensor, rows: int) -> Tensor:
    """``value`` if it has one number a row; anything else would broadcast to a loss that looks right."""
    if isinstance(value, Tensor) and value.shape == (rows,):
        return value
    raise InputError(owner, f"the {part} must return ({rows},)", describe(value), "Drop other axes, e.g. .squeeze(1).")
