"""Partial pooling: calibration curves of many labels or classes, drawn from a common estimated distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from fedlas._core.check import warn_user
from fedlas.calibrators._fit.buffers import BufferModule, ones
from fedlas.calibrators._fit.fit_warnings import (
    attach_warnings,
    convergence_warning,
    format_classes,
    join_warnings,
    warning_if,
)
from fedlas.calibrators._fit.one_vs_rest import log_odds
from fedlas.calibrators._fit.partial_pooling import LabelRows, PooledCurves, fit_pooled_curves
from fedlas.calibrators._fit.pooled_splines import stable_softplus
from fedlas.calibrators._fit.rowwise import iter_float64_rows, sample_weights, scale_weights
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.predictions.multi_label import UNKNOWN, MultiLabel, require_multi_label
from fedlas.resample.effective import effective_sample_size

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["LabelCurves", "PartialPooling"]

_MAX_LOG_ODDS = 1e4
"""Bound beyond all log-odds."""
_NOUN = ("label", "labels")
_MIN_SAMPLES = 50
"""Fewest samples for which the method was evaluated (``results/labels``)."""


class LabelCurves(BufferModule):
    """Calibration curves of labels: log-odds ``a log p - b log(1 - p) + c`` for ``p = sigmoid(z)``, never falling.

    Attributes:
        numbers: ``a``, ``b`` and ``c`` of each label ``(L, 3)``, float64.
    """

    shapes: ClassVar = {"numbers": "CP"}

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(N, L)``; their sigmoids are the probabilities."""
        low, high = self.rising_range()
        a, b, c = self.numbers.unbind(dim=1)
        scores = logits.maximum(low).minimum(high)
        return b * stable_softplus(scores) - a * stable_softplus(-scores) + c

    def rising_range(self) -> tuple[Tensor, Tensor]:
        """Return the lowest and highest logit ``(L,)`` between which each curve rises; it is constant outside."""
        a, b, _ = self.numbers.unbind(dim=1)
        # The slope a (1 - p) + b p is 0 where p / (1 - p) = -a / b.
        turn = (-a / torch.where(b == 0, 1.0, b)).clamp(min=1e-300).log()
        low = torch.where((a < 0) & (b > 0), turn, -_MAX_LOG_ODDS)
        return low, torch.where((a > 0) & (b < 0), turn, _MAX_LOG_ODDS)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or curves that fall everywhere."""
        super().check(classes)
        require_valid(self.numbers.shape[1] == 3, "numbers must have the columns a, b and c")
        require_valid((self.numbers[:, :2].amax(dim=1) >= 0).all(), "a or b must be at least 0")


class PooledMap(LabelCurves):
    """Calibration curves of the log-odds of each class against the rest, as ``log sigmoid``."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``; their softmax divides the sigmoids by their sum."""
        return -stable_softplus(-super().forward(log_odds(logits)))


@CALIBRATORS.register(
    "partial-pooling",
    paper="Random-Effects Models for Serial Observations with Binary Response",
    year=1984,
    url="https://doi.org/10.2307/2531147",
)
class PartialPooling(Calibrator):
    """Calibration curves of labels or classes by partial pooling: drawn from a common, estimated distribution.

    The log-odds of a label become ``a log p - b log(1 - p) + c``, where ``p`` is its probability (beta calibration's
    curve). The ``a``, ``b`` and ``c`` of the labels come from one normal distribution, whose mean depends linearly on
    the label's mean logit. Mean and covariance are estimated from all labels (empirical Bayes, also called partial
    pooling, or a hierarchical or multilevel model); each label then gets its posterior mode. A label with many
    samples keeps its own curve, a rare one moves to that of labels like it.

    :class:`MultiLabelCalibration` fits independent labels with it. Of predictions of classes, each class against the
    rest is a label; rows are then divided by their sum.

    Note:
        A label without a positive sample gets the mode of its posterior: the curve of labels with its mean logit,
        moved down as far as samples without a positive say. Its probability is not 0, since labels like it do occur.
        A label of which nothing is known gets the mean curve.

        Expectation and maximization (12 rounds), with the normal approximation of the posterior; all labels take each
        Newton step together. Where labels times rows are above four million, the distribution is estimated on a part
        of the labels. Clusters lower the weight of all samples by the design effect, the variance of the scores of
        clusters over that of independent samples. Where a curve would fall, it is level; one that would fall at more
        than 1 % of the label's samples is fitted with ``a, b >= 0``.

        Warns (:class:`CalibrationWarning`) when labels have no positive or no negative sample, when samples are few,
        and when the fit did not converge.

    Example:
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(300, 20, generator=random) - 3
        >>> target = torch.bernoulli((0.5 * logits).sigmoid(), generator=random)
        >>> fits = PartialPooling().fit_labels(MultiLabel(logits, target))
        >>> all(abs(float(fit.map.numbers[1, 0]) - 0.5) < 0.2 for fit in fits)
        True

    Source:
        Stiratelli, Laird and Ware 1984 (logistic regression with normal random coefficients, by EM on posterior
        modes); the curve: Kull, Silva Filho and Flach 2017. Partial pooling of calibration curves over labels was
        measured in this project (``results/labels``); we know of no earlier publication.
    """

    map_type = PooledMap

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> PooledMap:
        """Fit the curve of each class of ``val`` against the rest."""
        odds = torch.cat(
            [log_odds(rows) for _, rows in iter_float64_rows(val.tensors().logits)]
        ).T.contiguous()
        classes = torch.arange(val.num_classes, device="cpu").unsqueeze(1)
        target = val.tensors().target == classes
        if val.num_classes == 2:
            # With two classes, one curve determines the other.
            odds, target = odds[1:], target[1:]
        rows = LabelRows(odds, target, sample_weights(val).unsqueeze(0))
        curves = fit_pooled_curves(rows)
        numbers = curves.numbers
        if val.num_classes == 2:
            numbers = torch.cat([mirror_curves(numbers), numbers])
        return attach_warnings(PooledMap(numbers=numbers), convergence_warning(curves.converged))

    def fit_labels(self, val: MultiLabel) -> list[Self]:
        """Return one fitted copy per label; each label is a two-class problem, absent or present."""
        require_multi_label(val, "val")
        weights = val.tensors().weights
        weights = scale_weights(ones(val.num_samples) if weights is None else weights)
        used = weights > 0
        target = val.tensors().target[used].T
        used_weights = weights[used].unsqueeze(0)
        rows = LabelRows(
            val.tensors().logits[used].T.contiguous(),
            (target == 1).contiguous(),
            used_weights * (target != UNKNOWN) if bool((target == UNKNOWN).any()) else used_weights,
        )
        clusters = val.tensors().clusters
        curves = fit_pooled_curves(rows, None if clusters is None else clusters[used])
        warning = join_warnings(*self._label_warnings(val, rows, curves))
        if warning is not None:
            warn_user(f"{self._owner}: {warning}")
        fits = []
        for numbers in curves.numbers.split(1):
            fit = type(self)(**self._arguments())
            fit.num_classes = 2
            fit._map = PooledMap(numbers=torch.cat([mirror_curves(numbers), numbers]))
            fits.append(fit)
        return fits

    def _label_warnings(
        self, val: MultiLabel, rows: LabelRows, curves: PooledCurves
    ) -> list[str | None]:
        """Return the warnings after a fit to labels; None entries are no warnings."""
        is_counted = rows.weights > 0
        lacks_sample = {
            "positive": ~(rows.target & is_counted).any(dim=1),
            "negative": ~(~rows.target & is_counted).any(dim=1),
        }
        label_indices = {
            word: lacking.nonzero().flatten().tolist() for word, lacking in lacks_sample.items()
        }
        samples = effective_sample_size(rows.weights.amax(dim=0)) / curves.design_effect
        return [
            *(
                warning_if(
                    labels,
                    f"{format_classes(labels, val.names, _NOUN)} without a {word} sample: the curve is estimated from "
                    "the other labels.",
                )
                for word, labels in label_indices.items()
            ),
            warning_if(
                samples < _MIN_SAMPLES,
                f"{samples:.4g} samples are few: with fewer than about {_MIN_SAMPLES} the NLL of new "
                "samples can get worse.",
            ),
            convergence_warning(curves.converged),
        ]


def mirror_curves(numbers: Tensor) -> Tensor:
    """Return ``a``, ``b`` and ``c`` of the complementary class in a two-class problem, ``(..., 3)``."""
    a, b, c = numbers.unbind(dim=-1)
    return torch.stack([b, a, -c], dim=-1)
