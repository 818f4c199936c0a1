"""Platt scaling, one class against the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from fedlas.calibrators.base import CALIBRATORS, Calibrator
from fedlas.calibrators.doubts import absent_classes, joined, some, unchanged, unconverged
from fedlas.calibrators.one_vs_rest import log_odds
from fedlas.calibrators.one_vs_rest_logistic import fit_one_vs_rest
from fedlas.calibrators.parameters import fitted, read_numbers
from fedlas.calibrators.rowwise import map_rows
from fedlas.predictions import Predictions


@CALIBRATORS.register(
    "platt",
    title="Platt",
    paper="Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods",
    year=1999,
    url="https://research.microsoft.com/~jplatt/abstracts/SVprob.html",
)
class PlattScaling(Calibrator):
    """A sigmoid for each class against the rest, ``sigmoid(a_k s_k + c_k)``, and then rows that sum to 1.

    ``s_k = log p_k - log(1 - p_k)`` is the class's logit against the rest, ``p`` the softmax of the logits. ``a_k`` and
    ``c_k`` minimise the logistic loss on validation predictions, whose labels are not 1 and 0 but, with ``N+`` samples
    of the class and ``N-`` others, ``(N+ + 1) / (N+ + 2)`` and ``1 / (N- + 2)``.

    Note:
        Platt has one score for two classes; for more, the score here is ``s_k`` rather than the logit ``z_k``: for two
        classes it is the same problem, and ``a = 1, c = 0`` changes nothing.

        All classes are fitted at once by Newton's method, in as many passes over the logits as one class takes.
        scikit-learn's ``LogisticRegression`` takes neither such labels nor more than one class against the rest a call.
        A hold with the weight of one observation keeps ``a_k`` finite where ``s_k`` is the same for all samples.

        Rows sum to 1 after division by their sum. The predicted class can change, since each class has its own map.
        Warns (:class:`CalibrationWarning`) when ``a_k`` is not above 0 (a higher score then means a lower probability),
        when a class has no sample, and when the fit changes nothing.

    Example:
        >>> val = Predictions([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 3.0], [0.0, 3.0]], [0, 0, 1, 1, 0])
        >>> scaled = PlattScaling().fit(val).transform(val)
        >>> [round(float(p), 2) for p in scaled.probs[:, 0]]
        [0.62, 0.62, 0.62, 0.52, 0.52]

    Source:
        Platt 1999 (the sigmoid and its labels); one against the rest and division by the sum: Zadrozny and Elkan 2002,
        "Transforming classifier scores into accurate multiclass probability estimates", section 4.
    """

    keeps_argmax = False

    def __init__(self) -> None:
        self._parameters: Tensor | None = None

    def __repr__(self) -> str:
        return "PlattScaling()"

    @property
    def slope(self) -> Tensor:
        """``a (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted("PlattScaling.slope", self._parameters)[:, 0]

    @property
    def offset(self) -> Tensor:
        """``c (C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return fitted("PlattScaling.offset", self._parameters)[:, 1]

    def _fit(self, val: Predictions) -> str | None:
        own = torch.bincount(val.target.cpu(), minlength=val.num_classes).double()
        others = val.num_samples - own
        parameters, converged = fit_one_vs_rest(
            val.logits, val.target, _features, labels=((own + 1) / (own + 2), 1 / (others + 2))
        )
        self._parameters = parameters
        falling = ((parameters[:, 0] <= 0) & (own > 0)).nonzero().squeeze(1).tolist()
        return joined(
            unconverged(converged),
            f"the fitted slope is not above 0 for {some(falling)}: a higher score means a lower probability there, or "
            "means nothing. Check that logits and labels belong together."
            if falling
            else None,
            absent_classes(val),
            unchanged(val, self._calibrate),
        )

    def _transform(self, logits: Tensor) -> Tensor:
        return map_rows(logits, self._calibrate)

    def _calibrate(self, rows: Tensor) -> Tensor:
        return logsigmoid(log_odds(rows) * self.slope + self.offset)

    def _options(self) -> dict[str, Any]:
        return {}

    def _state(self) -> dict[str, Any]:
        return {"slope": self.slope.tolist(), "offset": self.offset.tolist()}

    def _restore(self, state: dict[str, Any]) -> None:
        slope, offset = (read_numbers(state, name, self.num_classes) for name in ("slope", "offset"))
        self._parameters = torch.stack([slope, offset], dim=1)


def _features(rows: Tensor) -> Tensor:
    return log_odds(rows).unsqueeze(2)
