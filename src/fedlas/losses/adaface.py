"""AdaFace: an angular margin on the target class that depends on the feature norm.

Source: Kim, Jain, Liu 2022, "AdaFace: Quality Adaptive Margin for Face Recognition", CVPR, section 3
(arXiv 2204.00964). Written from the paper; the form for an ordinary classifier is this library's.
"""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import check_number
from fedlas.losses._base import LOSSES, Batch, Loss, LossOptions, cross_entropy, paper_metadata
from fedlas.losses.nci import NormConfidenceIndicator

# Minimum distance of cosines from 1 and of angles from 0 and pi, where the slope of acos is infinite.
_EPS = 1e-3


def adaptive_margin(cosine: Tensor, quality: Tensor, *, margin: float) -> Tensor:
    """Return the margin added to the target cosine, ``(N,)``: ``cos(theta + g_angle) - g_add - cos theta``.

    ``g_angle = -margin quality`` and ``g_add = margin quality + margin``. At quality -1 the margin is angular, at 0
    additive on the cosine, and at 1 it is twice the additive margin at an angle smaller by ``margin``.

    Args:
        cosine: ``cos theta (N,)`` between features and the target's weight.
        quality: ``(N,)`` in [-1, 1]; without a gradient.
        margin: At least 0.

    Note:
        The cosine stays 1e-3 away from 1 and -1, and the moved angle 1e-3 from 0 and pi, as in published code.

    Example:
        >>> adaptive_margin(torch.tensor([0.5, 0.5, 0.5]), torch.tensor([-1.0, 0.0, 1.0]), margin=0.4)
        tensor([-0.3767, -0.4000, -0.5022])
    """
    # The slope of acos is infinite at 1 and -1, where a float32 cosine often lies.
    angle = cosine.clamp(-1 + _EPS, 1 - _EPS).acos()
    moved = (angle - margin * quality).clamp(_EPS, math.pi - _EPS)
    return moved.cos() - angle.cos() - (margin * quality + margin)


@LOSSES.register(
    "adaface",
    **paper_metadata("AdaFace: Quality Adaptive Margin for Face Recognition", 2022, "2204.00964"),
    note="after the paper, by default in a form whose prediction is the model's own logits",
    tune={"margin": "0.05:0.8", "spread": "0.05:1:log", "momentum": "0.001:1:log"},
)
class AdaFace(Loss):
    """AdaFace: cross-entropy with ``||w_y|| ||h|| (cos(theta_y + g_angle) - g_add - cos theta_y)`` added to ``z_y``.

    ``theta_y`` is the angle between the head's input h and the target's row of its weight; ``g_angle = -margin q`` and
    ``g_add = margin q + margin``, with the quality ``q = clip(spread Z, -1, 1)`` of the standardized L2 norm ``Z`` of
    h. Among samples with long features (easy to recognize) the margin stresses the hard ones; among those with short
    features it does not.

    Args:
        margin: The paper's m, at least 0.
        spread: The paper's h, the change of q for one standard deviation of the norms, at least 0.
        momentum: Weight of the new batch in the running mean and standard deviation of the norms, in (0, 1].
        scale: None for the form above. A number above 0 selects the published form ``CE(scale cos theta_k)`` with the
            target's cosine moved in the same way, for models whose logits are scaled cosines; the paper uses 64.
        init: ``(mean, std)`` from which the running moments start, ``(20, 100)`` in published code; None starts from
            the moments of the first batch.
        **options: Those of every :class:`~fedlas.losses.Loss`. Ignored positions do not change the moments.

    Attributes:
        indicator: Holds the running moments of the norms.

    State:
        The moments move in training mode with gradients enabled only; under DDP they are those of all ranks' samples
        together. :class:`~fedlas.losses.NormConfidenceIndicator` describes small batches and the first one.

    Raises:
        InputError: If an argument is out of range; in training, if the very first batch is a single sample.

    Note:
        The paper's head returns ``scale cos theta_k``, without norms and bias. Here the default is its margin on an
        ordinary head: the target's weight is turned and the additive part subtracted, every logit keeps its
        norms and bias, and at test time the logits are the model's own. No gradient flows through the quality. With
        ``scale`` the loss does not use the logits but computes all cosines, at the cost of the head's own product.
        Norms are not clipped to [0.001, 100] as in published code. For soft targets the margin is on the class that
        the target favors. Dense inputs with one feature vector an image have one quality an image.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> features, head = torch.rand(4, 8), torch.nn.Linear(8, 3)
        >>> criterion = AdaFace()
        >>> loss = criterion(head(features), torch.tensor([0, 1, 2, 0]), features=features, head_weight=head.weight)
        >>> criterion.indicator.num_batches_tracked
        tensor(1)
    """

    masked_classes = True
    needs: ClassVar[frozenset[str]] = frozenset({"features", "head_weight"})

    def __init__(
        self,
        *,
        margin: float = 0.4,
        spread: float = 0.333,
        momentum: float = 0.01,
        scale: float | None = None,
        init: tuple[float, float] | None = None,
        **options: Unpack[LossOptions],
    ) -> None:
        super().__init__(**options)
        self.margin = check_number("margin", margin, low=0)
        self.spread = check_number("spread", spread, low=0)
        self.scale = None if scale is None else check_number("scale", scale, low=0, low_open=True)
        self.indicator = NormConfidenceIndicator(momentum, init, norm_p=2)

    def per_sample(self, batch: Batch) -> Tensor:
        """Return the loss per position, ``(M,)``; in training also update the running moments of the norms."""
        features, head_weight = batch.features_and_head_weight()
        quality = self._sample_quality(batch)
        favored = batch.favored_class()
        weight = head_weight[favored]
        length = torch.linalg.vector_norm(weight, dim=1)
        norm = torch.linalg.vector_norm(features, dim=1)
        product = length * norm
        cosine = torch.linalg.vecdot(weight, features) / product.clamp(min=1e-12)
        change = adaptive_margin(cosine, quality, margin=self.margin)
        # The target's logit changes by the change of its cosine, in the units of the form.
        if self.scale is None:
            logits = batch.logits
            change = product * change
        else:
            logits = self.scale * F.linear(
                F.normalize(features, dim=1), F.normalize(head_weight, dim=1)
            )
            change = self.scale * change
        moved = logits.scatter_add(1, favored[:, None], change[:, None])
        return cross_entropy(moved, batch.target, batch.weight)

    def _sample_quality(self, batch: Batch) -> Tensor:
        """Return the quality ``clip(spread Z, -1, 1)`` per position, ``(M,)``, detached; 0 at ignored positions."""
        features = batch.require("features")
        valid = batch.valid_samples(len(features))
        scores: Tensor = self.indicator(features, valid=valid)
        if valid is not None:
            scores = torch.where(valid, scores, 0.0)
        return batch.repeat_per_position((self.spread * scores).clamp(-1, 1).to(batch.logits.dtype))
