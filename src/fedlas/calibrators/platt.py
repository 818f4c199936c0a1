"""Platt scaling, one class against the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from fedlas.calibrators._fit.doubts import some, unconverged, when
from fedlas.calibrators._fit.one_vs_rest import log_odds
from fedlas.calibrators._fit.one_vs_rest_logistic import fit_one_vs_rest
from fedlas.calibrators._fit.source import weights_of
from fedlas.calibrators._one_vs_rest import OneVsRestCalibrator, Sigmoids
from fedlas.calibrators.base import CALIBRATORS
from fedlas.predictions import Predictions

__all__ = ["PlattScaling"]


@CALIBRATORS.register(
    "platt",
    title="Platt",
    paper="Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods",
    year=1999,
    url="https://research.microsoft.com/~jplatt/abstracts/SVprob.html",
)
class PlattScaling(OneVsRestCalibrator):
    """A sigmoid for each class against the rest, ``sigmoid(a_k s_k + c_k)``; rows are then divided by their sum.

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
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 1, 1, 0])
        >>> scaled = PlattScaling().fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]
        [0.62, 0.62, 0.62, 0.52, 0.52]

    Source:
        Platt 1999 (the sigmoid and its labels); one against the rest and division by the sum: Zadrozny and Elkan 2002,
        "Transforming classifier scores into accurate multiclass probability estimates", section 4.
    """

    _names = ("slope", "offset")

    @property
    def slope(self) -> Tensor:
        """``a (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._parameter("slope")

    @property
    def offset(self) -> Tensor:
        """``c (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._parameter("offset")

    @staticmethod
    def _features(rows: Tensor) -> Tensor:
        return log_odds(rows).unsqueeze(2)

    def _fitted_map(self, val: Predictions) -> tuple[Sigmoids, list[str | None]]:
        weights = weights_of(val)
        own = torch.bincount(val.target.cpu(), weights, minlength=val.num_classes)
        labels = ((own + 1) / (own + 2), 1 / (weights.sum() - own + 2))
        parameters, converged = fit_one_vs_rest(val.logits, val.target, self._features, weights, labels=labels)
        falling = ((parameters[:, 0] <= 0) & (own > 0)).nonzero().squeeze(1).tolist()
        return Sigmoids(self._features, parameters), [
            unconverged(converged),
            when(
                falling,
                f"the fitted slope is not above 0 for {some(falling)}: a higher score means a lower probability there, "
                "or means nothing. Check that logits and labels belong together.",
            ),
        ]
