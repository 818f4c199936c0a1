"""Platt scaling and beta calibration: one logistic regression per class against the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from fedlas.calibrators._fit.buffers import BufferModule, float64_tensor, ones
from fedlas.calibrators._fit.fit_warnings import (
    attach_warnings,
    convergence_warning,
    format_classes,
    warning_if,
)
from fedlas.calibrators._fit.one_vs_rest import (
    class_rest_log_probs,
    find_separated_classes,
    fit_one_vs_rest,
    log_odds,
)
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.calibrators._fit.state import require_valid
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.base import CALIBRATORS, Calibrator

if TYPE_CHECKING:
    from fedlas.predictions import Predictions

__all__ = ["BetaCalibration", "PlattScaling"]


class Sigmoids(BufferModule):
    """One-vs-rest sigmoids, ``log sigmoid(sum_f a_kf x_ikf + c_k)`` for class ``k``; a subclass defines features ``x``.

    Attributes:
        numbers: ``a`` and ``c`` as ``(C, F + 1)``, float64.
        terms: Class attribute: names of the numbers.
    """

    shapes: ClassVar = {"numbers": "CP"}
    terms: ClassVar[tuple[str, ...]]

    @staticmethod
    def features(rows: Tensor) -> Tensor:
        """Return the features of each class ``(n, C, F)`` for float64 logits ``(n, C)``."""
        raise NotImplementedError  # each family has its own

    def forward(self, rows: Tensor) -> Tensor:
        """Return calibrated logits for logits ``(n, C)``; their softmax divides the sigmoids by their sum."""
        factors = self.numbers[:, :-1]
        offset = self.numbers[:, -1]
        return logsigmoid((self.features(rows) * factors).sum(dim=2) + offset)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes."""
        super().check(classes)
        require_valid(
            self.numbers.shape[1] == len(self.terms),
            f"numbers must have the columns {', '.join(self.terms)}",
        )


class PlattMap(Sigmoids):
    """One-vs-rest sigmoids of the log-odds."""

    terms = ("slope", "offset")

    @staticmethod
    def features(rows: Tensor) -> Tensor:
        """Return the log-odds of each class ``(n, C, 1)``."""
        return log_odds(rows).unsqueeze(2)


class BetaMap(Sigmoids):
    """One-vs-rest sigmoids of ``ln p`` and ``-ln(1 - p)``."""

    terms = ("a", "b", "c")

    @staticmethod
    def features(rows: Tensor) -> Tensor:
        """Return ``ln p`` and ``-ln(1 - p)`` of each class ``(n, C, 2)``."""
        log_p, rest = class_rest_log_probs(rows)
        return torch.stack([log_p, -rest], dim=2)

    def check(self, classes: int) -> None:
        """Raise ValueError for wrong shapes, or a or b below 0."""
        super().check(classes)
        require_valid((self.numbers[:, :2] >= 0).all(), "a and b must be at least 0")


class OneVsRestCalibrator(Calibrator):
    """Base of calibrators that fit one logistic regression per class."""

    map_type: ClassVar[type[Sigmoids]]
    enough = (100, 50)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Fitted parameters by name, each ``(C,)`` float64.

        Raises:
            InputError: Before ``fit``.
        """
        return dict(zip(self.map.terms, self.map.numbers.unbind(dim=1), strict=True))


@CALIBRATORS.register(
    "platt",
    paper="Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods",
    year=1999,
    url="https://research.microsoft.com/~jplatt/abstracts/SVprob.html",
)
class PlattScaling(OneVsRestCalibrator):
    """Platt scaling: a sigmoid per class against the rest, ``sigmoid(a_k s_k + c_k)``; rows are then normalized.

    ``s_k = log p_k - log(1 - p_k)`` is the class's logit against the rest, ``p`` the softmax of the logits. ``a_k`` and
    ``c_k`` minimize the logistic loss on validation predictions, whose labels are not 1 and 0 but, with ``N+`` samples
    of the class and ``N-`` others, ``(N+ + 1) / (N+ + 2)`` and ``1 / (N- + 2)``.

    Note:
        Platt has one score for two classes. For more, the score here is ``s_k`` rather than the logit ``z_k``: for two
        classes it is the same problem, and ``a = 1, c = 0`` changes nothing.

        Newton's method fits all classes at once, in as many passes over the logits as one class takes. scikit-learn's
        ``LogisticRegression`` takes neither such labels nor more than one class against the rest a call. A penalty with
        the weight of one observation keeps ``a_k`` finite where ``s_k`` is the same for all samples.

        The predicted class can change, since each class has its own map. Warns (:class:`CalibrationWarning`) when
        ``a_k`` is not above 0 (a higher score then means a lower probability), when a class has no sample, and when the
        fit changes nothing.

    Example:
        >>> from fedlas import Predictions
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 1, 1, 0])
        >>> scaled = PlattScaling().fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]
        [0.62, 0.62, 0.62, 0.52, 0.52]

    Source:
        Platt 1999 (the sigmoid and its labels); one against the rest and division by the sum: Zadrozny and Elkan 2002,
        "Transforming classifier scores into accurate multiclass probability estimates", section 4.
    """

    map_type = PlattMap

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Sigmoids:
        """Fit the sigmoids to ``val``."""
        weights = sample_weights(val)
        class_counts = torch.bincount(val.tensors().target, weights, minlength=val.num_classes)
        labels = ((class_counts + 1) / (class_counts + 2), 1 / (weights.sum() - class_counts + 2))
        parameters, converged = fit_one_vs_rest(
            val.tensors().logits, val.tensors().target, PlattMap.features, weights, labels=labels
        )
        falling = ((parameters[:, 0] <= 0) & (class_counts > 0)).nonzero().squeeze(1).tolist()
        return attach_warnings(
            PlattMap(numbers=parameters),
            convergence_warning(converged),
            warning_if(
                falling,
                f"the fitted slope is not above 0 for {format_classes(falling)}: a higher score does not mean a higher "
                "probability. Check that logits and labels match.",
            ),
        )


@CALIBRATORS.register(
    "beta",
    paper="Beta Calibration: A Well-Founded and Easily Implemented Improvement on Logistic Calibration for Binary "
    "Classifiers",
    year=2017,
    url="https://proceedings.mlr.press/v54/kull17a.html",
)
class BetaCalibration(OneVsRestCalibrator):
    """Beta calibration per class against the rest, ``sigmoid(a ln p - b ln(1 - p) + c)``; rows are then normalized.

    ``a_k >= 0``, ``b_k >= 0`` and ``c_k`` minimize the logistic loss of class ``k`` on validation predictions; ``p_k``
    is its softmax probability. ``a = b = 1, c = 0`` changes nothing; ``a = b`` is Platt's sigmoid.

    Note:
        Where the loss is lowest at a negative ``a`` or ``b``, the paper fits again without that term. This does the
        same; if the other one then becomes negative, it finds the minimum under both constraints.

        The paper has no penalty; here a penalty with the weight of one observation, which pulls ``a`` and ``b`` to
        those of temperature scaling, keeps the parameters finite where a class can be separated from the rest, or has
        no sample. ``ln p`` and ``ln(1 - p)`` come from the logits and need
        no clipping. Newton's method fits all classes at once.

        Rows are divided by their sum. The predicted class can change, since each class has its own map. Warns
        (:class:`CalibrationWarning`) when ``a_k`` or ``b_k`` ends at its bound 0, when only the penalty keeps the
        parameters finite, when a class has no sample, and when the fit changes nothing.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(20_000, 2, generator=random, dtype=torch.float64)
        >>> val = Predictions(2 * logits, torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1))
        >>> beta = BetaCalibration().fit(val)
        >>> bool(all(((beta.parameters[name] - 0.5).abs() < 0.1).all() for name in "ab"))
        True

    Source:
        Kull, Silva Filho and Flach 2017 (the map, and the refit of a negative ``a`` or ``b``); one against the rest and
        division by the sum: as in Kull et al. 2019 (arXiv 1910.12656).
    """

    map_type = BetaMap

    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> Sigmoids:
        """Fit the beta maps to ``val``."""
        scale = 1 / nll_temperature(val).value
        parameters, converged = fit_one_vs_rest(
            val.tensors().logits,
            val.tensors().target,
            BetaMap.features,
            sample_weights(val),
            nonnegative=True,
            ridge=ones(3),
            # Temperature scaling, so that the unit of the logits does not matter.
            anchor=float64_tensor([scale, scale, 0.0]),
        )
        present = torch.bincount(val.tensors().target, minlength=val.num_classes) > 0
        at_bound = ((parameters[:, :2] == 0).any(dim=1) & present).nonzero().squeeze(1).tolist()
        separated = find_separated_classes(val)
        return attach_warnings(
            BetaMap(numbers=parameters),
            convergence_warning(converged),
            warning_if(
                separated,
                f"the probability of {format_classes(separated)} perfectly separates its samples from the rest, so the "
                "likelihood has no maximum and only a weak penalty bounds the parameters. Use a larger validation set.",
            ),
            warning_if(
                at_bound,
                f"a or b is at its bound 0 for {format_classes(at_bound)}: the map is then flat near probability 0 or "
                "1. The usual cause is few samples there. Use a larger validation set.",
            ),
        )
