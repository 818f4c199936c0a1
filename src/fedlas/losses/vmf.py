"""Von Mises-Fisher loss: expected cross-entropy of a random embedding whose concentration grows with the feature norm.

Source: Scott, Gallagher, Mozer 2021, "von Mises-Fisher Loss: An Exploration of Embedding Geometries for Supervised
Learning", ICCV, section 3 (arXiv 2103.15718). Written from the paper; the class names the differences.
The normalizer: NIST Digital Library of Mathematical Functions, 10.41.3 (expansion of I_v for large order v, uniform in
its argument; https://dlmf.nist.gov/10.41; its logarithm is taken term by term) and 10.29.1 (recurrence).
"""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas._core.ranks import sum_across_ranks
from fedlas.losses._base import (
    LOSSES,
    Batch,
    Loss,
    LossOptions,
    PreciseBuffers,
    can_read_values,
    cross_entropy,
    paper_metadata,
)
from fedlas.losses.nci import feature_norms

# smallest order for the expansion; its three terms are then within 2e-7 of the logarithm
_MIN_ORDER = 20.0


def resultant_length_ratio(square: Tensor, *, dim: int) -> Tensor:
    """Return ``R(kappa) / kappa`` for ``square = kappa^2``; R is the mean resultant length ``I_(D/2) / I_(D/2 - 1)``.

    The expansion of DLMF 10.41.3 at a large order, then the recurrence 10.29.1 down to the order of ``dim``.

    Args:
        square: At least 0, of any shape, float32 or float64.
        dim: Dimension D of the space, at least 1.

    Returns:
        Values in the shape of ``square``, in ``(0, 1 / dim]``; within 4e-7 of its own size. Differentiable twice.

    Example:
        >>> 2 * resultant_length_ratio(torch.tensor([4.0]), dim=3)  # coth(2) - 1/2
        tensor([0.5373])
    """
    order, steps = _recurrence_start(dim)
    inverse = (square + order**2).rsqrt()  # 1 / r with r = sqrt(order^2 + kappa^2)
    y = (inverse * order).square()
    third = ((49725 * y - 69615) * y + 23895) * y - 1125
    tail = (15 * y - 3) / 24 + inverse * (((24 - 30 * y) * y - 2) / 16 + inverse * (third / 5760))
    rate = inverse / (1 + order * inverse) + inverse.square() * (inverse * tail - 0.5)
    # Downward the recurrence is a continued fraction of positive terms: no cancellation, and errors shrink.
    for step in range(steps):
        rate = 1 / (2 * (order - step) + square * rate)
    return rate


def log_mgf(square: Tensor, *, dim: int) -> Tensor:
    """Return the log moment-generating function ``log E exp(a . u)``, u uniform on the sphere, ``square = ||a||^2``.

    For z distributed as von Mises-Fisher with mean direction ``a / ||a||`` and concentration ``||a||``, differences of
    it are log moment generating functions: ``log E exp(b . z) = log_mgf(||a + b||^2) - log_mgf(||a||^2)``. It is
    computed by the expansion at a large order, then one logarithm of a rate for each step down.

    Args:
        square: At least 0, of any shape, float32 or float64.
        dim: Dimension D of the space, at least 1.

    Returns:
        Values in the shape of ``square``, at least 0; within 2e-7 of the exact value, or a few units in its last place.
        Differentiable twice; its slope is ``resultant_length_ratio(square) / 2``, finite at 0.

    Example:
        >>> log_mgf(torch.tensor([1.0, 100.0]), dim=3)  # log(sinh(a) / a)
        tensor([0.1614, 7.0043])
    """
    order, steps = _recurrence_start(dim)
    root = (square + order**2).sqrt()
    grown = square / (root + order)  # root - order without cancellation
    value = grown - order * (grown / (2 * order)).log1p() - 0.5 * (grown / order).log1p()
    inverse = 1 / root
    y = (inverse * order).square()
    third = ((9945 - 5525 * y) * y - 4779) * y + 375
    tail = inverse * (
        (3 - 5 * y) / 24 + inverse * ((1 - y) * (1 - 5 * y) / 16 + inverse * (third / 5760))
    )
    # the last is minus the tail at 0
    value = value + tail + (1 / (12 * order) - 1 / (360 * order**3))
    rate = resultant_length_ratio(square, dim=dim + 2 * steps) if steps else square
    for step in range(steps):
        rate = 1 / (2 * (order - step) + square * rate)
        value = value - (2 * (order - step) * rate).log()
    return value


def _recurrence_start(dim: int) -> tuple[float, int]:
    """Return the Bessel order of the expansion, and the number of recurrence steps down to order ``dim / 2 - 1``."""
    order = dim / 2 - 1
    steps = max(0, math.ceil(_MIN_ORDER - order))
    return order + steps, steps


def expected_cross_entropy_bound(
    logits: Tensor,
    target: Tensor,
    *,
    bias: Tensor,
    features: Tensor,
    head_weight: Tensor,
    concentration: Tensor | float,
    weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return two terms ``(N,)`` whose sum is an upper bound of the expected cross-entropy of ``W s z + b``.

    z is von Mises-Fisher on the unit sphere, of mean direction ``h / ||h||`` and concentration ``kappa =
    concentration ||h||``; the radius s is such that the mean of ``s z`` is h. With L the function
    :func:`~fedlas.losses.vmf.log_mgf`, ``log E exp(w_k . s z) = L(A_k) - L(kappa^2)``, where ``A_k`` is the squared
    length of ``kappa h / ||h|| + s w_k``. L is concave, so its tangent at ``A_y`` bounds it for all classes.

    Args:
        logits: ``W h + b``, ``(N, C)``.
        target: Class indices ``(N,)``, or soft targets ``(N, C)``, whose tangent is at the mean of ``A``.
        bias: ``b (C,)``.
        features: ``h (N, D)``.
        head_weight: ``W (C, D)``.
        concentration: Above 0.
        weight: Class weights ``(C,)`` of the first term.

    Returns:
        The cross-entropy of the bounds of the expected scores, and the excess of the target's score,
        ``log E exp(w_y . s z) - w_y . h``, at least 0 and exact.

    Example:
        >>> head, features = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0, 4.0]])
        >>> geometry = {"bias": torch.zeros(2), "features": features, "head_weight": head, "concentration": 10.0}
        >>> expected_cross_entropy_bound(features @ head.T, torch.tensor([1]), **geometry)
        (tensor([0.3341]), tensor([0.0857]))
    """
    # Concentration and radius of z, then A_y, all from squared lengths.
    dim = features.shape[1]
    sizes = torch.linalg.vector_norm(head_weight, dim=1).square()
    square = (torch.linalg.vector_norm(features, dim=1) * concentration).square()  # kappa^2
    # R / kappa, so that s = ||h|| / R = 1 / (concentration rate)
    rate = resultant_length_ratio(square, dim=dim)
    radius = (concentration * rate).square().reciprocal()
    chosen = target @ head_weight if target.ndim == 2 else head_weight[target]
    inner = torch.linalg.vecdot(chosen, features)
    size = target @ sizes if target.ndim == 2 else sizes[target]
    at = F.relu(square + radius * size + 2 / rate * inner)  # A_y; negative only by rounding

    # The tangent makes the bound of every score affine in its logit.
    tangent = resultant_length_ratio(at, dim=dim)
    tilt = tangent / rate
    excess = log_mgf(at, dim=dim) - log_mgf(square, dim=dim) - inner
    bounds = (
        tilt[:, None] * logits
        + (1 - tilt)[:, None] * bias
        + (tangent * radius / 2)[:, None] * sizes
    )
    return cross_entropy(bounds, target, weight), excess


@LOSSES.register(
    "vmf",
    **paper_metadata("von Mises-Fisher Loss", 2021, "2103.15718"),
    note="after the paper, in a form whose prediction is the model's own logits",
    tune={"confidence": "0.3:0.99"},
)
class VMF(PreciseBuffers, Loss):
    """Von Mises-Fisher loss: upper bound of ``E[-log softmax(W s z + b)_y]``, z random around the feature direction.

    The head's input h is taken as the mean of a random ``s z``, where z is von Mises-Fisher with mean direction
    ``h / ||h||`` and concentration ``kappa = concentration ||h||``, and s such that ``E s z = h``. The expected
    cross-entropy is at most ``log sum_k E exp(w_k . s z + b_k) - (w_y . h + b_y)`` (Jensen), whose expectations have a
    closed form; :func:`~fedlas.losses.vmf.expected_cross_entropy_bound` bounds them by their tangent at the target's. A
    sample with a short feature vector is uncertain and pays for a large weight of its class.

    Args:
        confidence: Length of the mean of z for a sample of mean feature norm in the first training batch, in (0, 1);
            sets the concentration. The paper starts from 0.4, and from 0.7 for fine-tuning.
        concentration: Concentration per unit of feature norm, above 0; None derives it from ``confidence``.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions do not affect the concentration.

    Attributes:
        concentration: Buffer, scalar float32; 0 until the first training batch if it was not given.

    State:
        The first training batch, with gradients enabled, sets ``concentration`` to ``r (D - r^2) / (1 - r^2) /
        mean ||h||`` with ``r = confidence``, over all ranks under DDP. It does not change afterward, not even through
        ``.half()``. A batch whose mean norm is 0 or not finite does not set it. Until it is set, 1 is used.

    Raises:
        InputError: If confidence is not in (0, 1) or concentration not above 0.

    Note:
        The paper predicts with the softmax averaged over samples of z and of class vectors, which are von Mises-Fisher
        too, at a learned temperature; its objective is sampled in part. Here predictions are the model's own,
        ``softmax(W h + b)``: the softmax at the mean of ``s z``, which is why there is a radius s. Without uncertainty
        the loss is the cross-entropy of exactly these logits; with it, of logits shrunk toward the bias by
        ``R(a) kappa / (R(kappa) a)``, R the length of the mean and a that of ``kappa h / ||h|| + s w_y``, plus the
        excess ``log E exp(w_y . s z) - w_y . h``. Classes with equal biases and equal ``||w_k||`` keep their order.
        Both terms make a model less confident the lower ``confidence`` is, so the default is the higher of the paper's
        values. Class vectors are the head's rows; no parameter is added, and nothing is sampled.

        The head must be linear. Its bias is not passed but computed from the batch: the mean of the logits less ``W``
        times the mean of the features.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> features, head = torch.rand(4, 8), torch.nn.Linear(8, 3)
        >>> criterion = VMF()
        >>> loss = criterion(head(features), torch.tensor([0, 1, 2, 0]), features=features, head_weight=head.weight)
        >>> criterion.concentration
        tensor(6.7290)
    """

    needs: ClassVar[frozenset[str]] = frozenset({"features", "head_weight"})
    precise: ClassVar[tuple[str, ...]] = ("concentration",)
    concentration: Tensor

    def __init__(
        self,
        *,
        confidence: float = 0.7,
        concentration: float | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.confidence = check_number(
            "confidence", confidence, low=0, high=1, low_open=True, high_open=True
        )
        self.fixed_concentration: float | None = None
        if concentration is not None:
            self.fixed_concentration = check_number(
                "concentration", concentration, low=0, low_open=True
            )
        self.register_buffer(
            "concentration", torch.tensor(self.fixed_concentration or 0.0, dtype=torch.float32)
        )

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; the first training batch sets the concentration."""
        features, head_weight = batch.features_and_head_weight()
        if self.fixed_concentration is None and self.training and torch.is_grad_enabled():
            self._set_concentration(batch)
        logits = batch.logits
        # The bias is a mean over samples: ignored samples must not enter it.
        if batch.valid is not None:
            logits = torch.where(batch.valid[:, None], logits, 0.0)
        bias = _recover_head_bias(logits, features, head_weight, batch.valid)
        nll, excess = expected_cross_entropy_bound(
            logits,
            batch.target,
            bias=bias,
            features=features,
            head_weight=head_weight,
            concentration=torch.where(self.concentration > 0, self.concentration, 1.0).to(
                logits.dtype
            ),
            weight=batch.weight,
        )
        return nll + batch.apply_class_weights(excess)

    @torch.no_grad()
    def _set_concentration(self, batch: Batch) -> None:
        """Set the concentration from the mean feature norm of a batch, unless it is already set."""
        features = batch.require("features")
        is_set = self.concentration > 0
        if can_read_values(is_set) and bool(is_set):  # elsewhere the work is done in vain
            return
        norms = feature_norms(features, 2)
        valid = batch.valid_samples(len(features))
        counted = torch.ones_like(norms) if valid is None else valid.to(norms.dtype)
        total, count = sum_across_ranks(
            torch.stack((torch.where(counted > 0, norms, 0.0).sum(), counted.sum()))
        ).unbind()
        r = self.confidence
        dim = features.shape[1]
        start = r * (dim - r**2) / (1 - r**2) * count / total
        usable = torch.isfinite(start) & (start > 0) & ~is_set
        self.concentration.copy_(torch.where(usable, start, self.concentration))


def _recover_head_bias(
    logits: Tensor, features: Tensor, head_weight: Tensor, valid: Tensor | None
) -> Tensor:
    """Return the head bias ``b (C,)`` from means of ``z = W h + b``; ignored rows of z and h must be 0."""
    count = logits.shape[0] if valid is None else valid.sum().clamp(min=1)
    return (logits.sum(dim=0) - head_weight @ features.sum(dim=0)) / count
