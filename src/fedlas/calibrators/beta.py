"""Beta calibration, one class against the rest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fedlas.calibrators._fit.doubts import some, unconverged, when
from fedlas.calibrators._fit.one_vs_rest import class_and_rest, separated_classes
from fedlas.calibrators._fit.one_vs_rest_logistic import fit_one_vs_rest
from fedlas.calibrators._fit.source import weights_of
from fedlas.calibrators._one_vs_rest import OneVsRestCalibrator, Sigmoids
from fedlas.calibrators.base import CALIBRATORS
from fedlas.predictions import Predictions

__all__ = ["BetaCalibration"]


@CALIBRATORS.register(
    "beta",
    title="Beta",
    paper="Beta Calibration: A Well-Founded and Easily Implemented Improvement on Logistic Calibration for Binary "
    "Classifiers",
    year=2017,
    url="https://proceedings.mlr.press/v54/kull17a.html",
)
class BetaCalibration(OneVsRestCalibrator):
    """A beta map for each class against the rest, ``sigmoid(a ln p - b ln(1 - p) + c)``; rows then sum to 1.

    ``a_k >= 0``, ``b_k >= 0`` and ``c_k`` minimize the logistic loss of class ``k`` on validation predictions; ``p_k``
    is its softmax probability. ``a = b = 1, c = 0`` changes nothing; ``a = b`` is Platt's sigmoid.

    Note:
        Where the loss is lowest at a negative ``a`` or ``b``, the paper fits again without that term. This does the
        same; if the other one then becomes negative, it finds the minimum under both constraints.

        The paper has no penalty; here a penalty with the weight of one observation keeps the parameters finite where a
        class can be separated from the rest, or has no sample. ``ln p`` and ``ln(1 - p)`` come from the logits and need
        no clipping. Newton's method fits all classes at once.

        Rows are divided by their sum. The predicted class can change, since each class has its own map. Warns
        (:class:`CalibrationWarning`) when ``a_k`` or ``b_k`` ends at its bound 0, when only the penalty keeps the
        parameters finite, when a class has no sample, and when the fit changes nothing.

    Example:
        >>> import torch
        >>> random = torch.Generator().manual_seed(0)
        >>> logits = torch.randn(20_000, 2, generator=random, dtype=torch.float64)
        >>> val = Predictions(2 * logits, torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1))
        >>> beta = BetaCalibration().fit(val)
        >>> bool(((beta.a - 0.5).abs() < 0.1).all() and ((beta.b - 0.5).abs() < 0.1).all())
        True

    Source:
        Kull, Silva Filho and Flach 2017 (the map, and the refit of a negative ``a`` or ``b``); one against the rest and
        division by the sum: as in Kull et al. 2019 (arXiv 1910.12656).
    """

    _names = ("a", "b", "c")

    @property
    def a(self) -> Tensor:
        """Factor of ``ln p`` ``(C,)``, float64, at least 0.

        Raises:
            InputError: Before ``fit``.
        """
        return self._parameter("a")

    @property
    def b(self) -> Tensor:
        """Factor of ``-ln(1 - p)`` ``(C,)``, float64, at least 0.

        Raises:
            InputError: Before ``fit``.
        """
        return self._parameter("b")

    @property
    def c(self) -> Tensor:
        """Offset ``(C,)``, float64.

        Raises:
            InputError: Before ``fit``.
        """
        return self._parameter("c")

    @staticmethod
    def _features(rows: Tensor) -> Tensor:
        own, rest = class_and_rest(rows)
        return torch.stack([own, -rest], dim=2)

    def _fitted_map(self, val: Predictions) -> tuple[Sigmoids, list[str | None]]:
        parameters, converged = fit_one_vs_rest(
            val.logits,
            val.target,
            self._features,
            weights_of(val),
            nonnegative=True,
            hold=torch.ones(3, dtype=torch.float64, device="cpu"),
            anchor=torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64, device="cpu"),
        )
        present = torch.bincount(val.target.cpu(), minlength=val.num_classes) > 0
        bounded = ((parameters[:, :2] == 0).any(dim=1) & present).nonzero().squeeze(1).tolist()
        apart = separated_classes(val)
        return Sigmoids(self._features, parameters), [
            unconverged(converged),
            when(
                apart,
                f"the probability of {some(apart)} separates all of its samples from the rest, so the likelihood has "
                "no maximum and only a weak penalty bounds the parameters. Use a larger validation set.",
            ),
            when(
                bounded,
                f"a or b is at its bound 0 for {some(bounded)}: the map of such a class is not a sigmoid but one half "
                "of it. Few samples, or few of them where the probability is near 0 or 1, do that.",
            ),
        ]

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        if bool((self._fitted("load").numbers[:, :2] < 0).any()):
            raise ValueError("a and b must be at least 0")
