"""The reject option: a threshold on confidence from validation predictions, and what it does on test predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import AnyPredictions, check_measurable
from fedlas.stats.proportion import clopper_pearson
from fedlas.stats.selective_risk import RiskThreshold, risk_threshold


@dataclass(frozen=True)
class RejectOption:
    """A threshold, and what it accepts of test predictions. Also called selective classification, or abstention.

    Attributes:
        chosen: The threshold and what it accepted of the validation predictions.
        samples: Test samples.
        accepted: How many of them are at least so confident; 0 without a threshold.
        wrong: How many of these are wrong.
        upper: One-sided upper bound (Clopper-Pearson, of the same level) of the risk of what is accepted, from the test
            samples alone. 1 if none is accepted.
    """

    chosen: RiskThreshold
    samples: int
    accepted: int
    wrong: int
    upper: float

    @property
    def threshold(self) -> float | None:
        """Accept predictions at least so confident; None if no threshold can be vouched for."""
        return self.chosen.threshold

    @property
    def coverage(self) -> float:
        """Share of the test samples that are accepted."""
        return self.accepted / self.samples

    @property
    def risk(self) -> float | None:
        """Share of wrong predictions among those accepted; None if none is."""
        return self.wrong / self.accepted if self.accepted else None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        chosen = self.chosen
        val = {"accepted": chosen.selected, "wrong": chosen.wrong, "coverage": chosen.coverage}
        row = {"risk": chosen.risk, "threshold": chosen.threshold, "val": val, "needed": chosen.needed}
        if chosen.threshold is None:
            return row
        found = {"accepted": self.accepted, "wrong": self.wrong, "coverage": self.coverage, "risk": self.risk}
        return {**row, "test": {**found, "upper": self.upper}}


def reject_option(
    val: AnyPredictions, test: AnyPredictions, *, risk: float, confidence_level: float = 0.95
) -> RejectOption:
    """Choose a threshold for a wanted risk on ``val`` by :func:`risk_threshold`, and apply it to ``test``.

    Args:
        val: Predictions ``(N, C)``, or top labels ``(N,)``, that neither the model nor, strictly, its calibration has
            seen.
        test: Others of the same model, which have no part in the choice.
        risk: Wanted: the largest share of wrong predictions among those accepted, in (0, 1).
        confidence_level: Confidence that the risk is kept, and of the bound from the test samples; in (0, 1).

    Raises:
        InputError: For other than labeled predictions, a number out of range, or samples with weights, with which no
            bound holds.

    Example:
        >>> import torch
        >>> from fedlas import Predictions
        >>> logits = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double() * 2
        >>> drawn = torch.rand(4000, generator=torch.Generator().manual_seed(1)).double()
        >>> target = (drawn < logits.softmax(1)[:, 1]).long()
        >>> val, test = Predictions(logits[:2000], target[:2000]), Predictions(logits[2000:], target[2000:])
        >>> found = reject_option(val, test, risk=0.1)
        >>> round(found.threshold, 2), round(found.coverage, 2), round(found.risk, 3), round(found.upper, 3)
        (0.78, 0.67, 0.075, 0.088)
    """
    for part in (val, test):
        check_measurable("reject_option", part)
        check_takes_weights("reject_option", part, takes_weights=False)  # a bound of weighted counts is not exact
    confidence, correct = _arrays(val)
    # Without the number of classes the grid ends at 0.001; its last threshold accepts everything in any case.
    classes = val.num_classes if isinstance(val, Predictions) else 1000
    chosen = risk_threshold(confidence, correct, risk=risk, num_classes=classes, confidence_level=confidence_level)
    confidence, correct = _arrays(test)
    accepted = np.zeros(len(confidence), dtype=bool) if chosen.threshold is None else confidence >= chosen.threshold
    number, wrong = int(accepted.sum()), int((accepted & ~correct).sum())
    # Test samples have no part in the choice, so their bound needs no correction for the thresholds that were tried.
    upper = clopper_pearson(wrong, number, confidence_level=confidence_level, sides=1)[1]
    return RejectOption(chosen, len(confidence), number, wrong, upper)


def _arrays(predictions: AnyPredictions) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    return predictions.confidence.cpu().double().numpy(), predictions.correct.cpu().numpy()
