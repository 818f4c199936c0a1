"""``Modulated``: NCI and BCG set the strength of any loss per sample; FedLAS is the case of label smoothing.

Source: "FedLAS: Feature-Modulated Bidirectional Label Smoothing for Neural Network Calibration" (arXiv 2606.28654,
ECCV 2026), which applies it to label smoothing and to its margin-based form; other bases are this library's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Unpack, get_args

import torch
from torch import Tensor

from fedlas._core.autocast import without_autocast
from fedlas._core.check import (
    InputError,
    check_choice,
    check_count,
    check_logits,
    check_number,
    describe,
)
from fedlas.losses._base import (
    LOSSES,
    Base,
    BaseOptions,
    Batch,
    LossOptions,
    LossWrapper,
    Variant,
    make_batch,
)
from fedlas.losses.bcg import BidirectionalCalibrationGate, TopLogitsGate
from fedlas.losses.nci import NormConfidenceIndicator

# The gate reads raw logits, so the loss is not shift invariant.
PAPER_METADATA: dict[str, Any] = {
    "paper": "FedLAS",
    "year": 2026,
    "url": "https://arxiv.org/abs/2606.28654",
    "shift_invariant": False,
}
"""Registry metadata of the losses with a gate."""
_PUBLISHED_START = (20.0, 100.0)


def adaptive_strength(scores: Tensor, psi: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return the strength per sample, ``2 alpha sigmoid(beta psi Z)``, in ``(0, 2 alpha)``.

    Args:
        scores: Standardized feature norms ``Z (N,)``.
        psi: Direction of each sample ``(N,)``, in {-1, 0, +1}.
        alpha: Strength at ``Z = 0``.
        beta: Sensitivity to the norms, at least 0.

    Example:
        >>> scores = torch.tensor([-2.0, 0.0, 2.0])
        >>> adaptive_strength(scores, torch.ones(3), alpha=0.05, beta=1.0)
        tensor([0.0119, 0.0500, 0.0881])
    """
    return torch.sigmoid(psi * (scores * beta)) * (2 * alpha)


class IndicatorOptions(LossOptions, total=False):
    """Keyword options of the norm indicator and the gate, see :class:`Modulated`."""

    momentum: float
    norm_p: float
    variant: Variant
    gate_top: int | None


class ModulatedOptions(IndicatorOptions, total=False):
    """Keyword options of :class:`Modulated`: the indicator options, and replacements of ``nci`` and ``gate``."""

    nci: Callable[..., Tensor] | None
    gate: Callable[[Tensor], Tensor] | None


@LOSSES.register(
    "modulated",
    **PAPER_METADATA,
    note="written from the paper; bases but LS and MbLS are this library's reading",
    tune={"beta": "0.25:16:log", "momentum": "0.001:1:log"},
)
class Modulated(LossWrapper):
    """Wrapper that replaces the strength of a loss by ``alpha_i = 2 alpha sigmoid(beta psi_i Z_i)`` per sample.

    ``alpha`` is the strength with which the base was built. A base names its strength in ``strength`` and computes
    itself with another one in ``with_strength(batch, (M,))``: ``ls``, ``mbls``, ``acls``, ``entropy-penalty`` (alpha),
    ``focal`` (gamma). :class:`FedLAS` and :class:`FedLASPlus` are this class on label smoothing and on MbLS.

    Args:
        num_classes: Number of classes C.
        base: The loss: an object, its registry name, or ``{"name": ..., option: ...}``.
        beta: Sensitivity to the standardized norm, at least 0.
        momentum: NCI's weight of the new batch, in (0, 1].
        norm_p: Order of the feature norm, at least 1.
        variant: ``"paper"``, or ``"reference"`` as in published code: the indicator starts from mean 20 and standard
            deviation 100, not from the first batch.
        gate_top: Number of largest logits that the gate reads, for many classes; None: all (:class:`TopLogitsGate`).
        nci: Replaces the indicator; called as ``nci(features (N, D), valid=(N,) bool | None) -> (N,)``.
        gate: Replaces the gate; called as ``gate(logits (N, C)) -> (N,)`` in [-1, 1].
        **options: Those of every :class:`~fedlas.losses.Loss`; ``num_samples`` and ``num_epochs`` for a base that needs
            them. Ignored positions affect neither NCI, gate nor mean.

    Attributes:
        base: The loss.
        alpha: Its strength, which a sample of mean feature norm has.
        nci: The indicator; holds the running moments.
        gate: The gate; its parameters must be given to the optimizer (``fedlas.param_groups`` does).

    Raises:
        InputError: If an argument is out of range, the base has no strength, or twice its strength is out of range.

    Note:
        Dense logits with features per image have one strength an image, from the mean logits of its valid positions.
        The published training also puts the gate into the backbone's optimizer group (``param_groups(...,
        decay_criterion=True)``), clips the gradients of the backbone alone, and under DDP keeps separate moments on
        each rank; this class does not.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> criterion = Modulated(num_classes=3, base={"name": "focal", "gamma": 2.0})
        >>> logits, features = torch.randn(4, 3), torch.rand(4, 8)
        >>> loss = criterion(logits, torch.tensor([0, 1, 2, 0]), features=features)
        >>> bool((criterion.smoothing(logits, features) < 4).all())
        True
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    gate_decides: bool = True
    """Whether the gate, and so the logits alone, determine the direction of each sample."""

    def __init__(
        self,
        *,
        num_classes: int,
        base: Base = "acls",
        beta: float = 4.0,
        momentum: float = 0.95,
        norm_p: float = 1,
        variant: Variant = "paper",
        gate_top: int | None = None,
        nci: Callable[..., Tensor] | None = None,
        gate: Callable[[Tensor], Tensor] | None = None,
        **options: Unpack[BaseOptions],
    ) -> None:
        check_count("num_classes", num_classes)
        super().__init__(base, num_classes=num_classes, **options)
        self.beta = check_number("beta", beta, low=0)

        # Twice the strength must be valid: alpha_i comes close to it.
        strength = self.base_strength_name()
        self.alpha = check_number(
            f"{strength} of the base",
            getattr(self.base, strength),
            low=0,
            high=self.base.strength_bound / 2,
        )

        for part, replacement in (("nci", nci), ("gate", gate)):
            if replacement is not None and not callable(replacement):
                raise InputError(
                    f"{part} must be a module, a function or None",
                    describe(replacement),
                    f"Leave out {part} for the default.",
                )
        start = (
            _PUBLISHED_START
            if check_choice("variant", variant, get_args(Variant)) == "reference"
            else None
        )
        self.nci = NormConfidenceIndicator(momentum, start, norm_p=norm_p) if nci is None else nci
        if gate is None:
            gate = (
                BidirectionalCalibrationGate(num_classes)
                if gate_top is None
                else TopLogitsGate(num_classes, top=gate_top)
            )
        self.gate = gate

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; in training also update the running moments of NCI."""
        return self.base.with_strength(
            batch, batch.repeat_per_position(self._batch_strengths(batch))
        )

    @torch.no_grad()
    def smoothing(self, logits: Tensor, features: Tensor) -> Tensor:
        """Return the strength ``alpha_i`` per sample, for monitoring and plots; the state does not change.

        Args:
            logits: ``(N, C)`` or ``(N, C, d1, ...)``.
            features: ``(N, D)`` or ``(N, D, d1, ...)``.

        Returns:
            ``(N,)``, or ``(N, d1, ...)`` for features per position; in ``(0, 2 alpha)``.

        Raises:
            InputError: For wrong shapes.

        Note:
            Without a target every position counts. With features per image and ignored positions, a dense input may
            therefore have another strength in training.
        """
        logits = check_logits(logits)
        target = torch.zeros(
            (logits.shape[0], *logits.shape[2:]), dtype=torch.int64, device=logits.device
        )
        batch = make_batch(logits, target, {"features": features}, num_classes=self.num_classes)
        with without_autocast(logits.device.type):
            alpha = self._batch_strengths(batch)
        return alpha if batch.per_image else alpha.reshape(batch.shape)

    def _batch_strengths(self, batch: Batch) -> Tensor:
        """Return the strength ``alpha_i`` per position ``(M,)``, or ``(N,)`` if features are per image."""
        features = batch.require("features")
        rows = len(features)

        # The gate comes first: an error in it must not move NCI. It reads the mean logits of an image.
        logits = batch.mean_per_sample(batch.logits.detach(), rows)
        valid = batch.valid_samples(rows)
        if valid is not None:
            logits = torch.where(valid[:, None], logits, 0.0)
        psi = _check_one_per_row("gate", self.gate(logits), rows)
        scores = _check_one_per_row("nci", self.nci(features, valid=valid), rows)

        # 0 * NaN is NaN: scores of ignored samples must not reach the gradient of the gate.
        if valid is not None:
            scores = torch.where(valid, scores, 0.0)
        alpha = self.sample_strengths(scores, psi, valid).to(batch.logits.dtype)
        return alpha if valid is None else torch.where(valid, alpha, 0.0)

    def sample_strengths(self, scores: Tensor, psi: Tensor, valid: Tensor | None) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Return the strength per sample, ``(N,)``, from standardized norms and gate outputs ``(N,)``."""
        return adaptive_strength(
            scores, self.sample_directions(scores, psi), alpha=self.alpha, beta=self.beta
        )

    def sample_directions(self, scores: Tensor, psi: Tensor) -> Tensor:  # noqa: ARG002 (for subclasses)
        """Return the direction per sample, ``(N,)``: the output of the gate; subclasses may use the norms."""
        return psi


def _check_one_per_row(part: str, value: Tensor, num_rows: int) -> Tensor:
    """Return ``value`` if its shape is ``(rows,)``; another shape would broadcast to a plausible but wrong loss."""
    if isinstance(value, Tensor) and value.shape == (num_rows,):
        return value
    raise InputError(
        f"{part} must return a tensor ({num_rows},)",
        describe(value),
        "Remove other axes, e.g. .squeeze(1).",
    )
