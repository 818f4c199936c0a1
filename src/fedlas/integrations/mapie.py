"""MAPIE: conformal prediction sets and risk control from predictions of this library."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import ignore_warnings
from fedlas.metrics.sums import check_weights_supported
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import require_labels, require_predictions
from fedlas.resample.clusters import require_independent

require("mapie", extra="conformal")

from mapie.classification import SplitConformalClassifier  # noqa: E402 (after require, whose error names the extra)
from mapie.risk_control import BinaryClassificationController  # noqa: E402

__all__ = ["PredictionSets", "controlled_threshold", "prediction_sets"]

Score = Literal["auto", "lac", "top_k", "aps", "raps"]


@dataclass(frozen=True)
class PredictionSets:
    """Conformal prediction sets: a set of classes for each sample.

    Attributes:
        sets: Whether a class is in the set ``(N, C)`` bool.
        predictions: The predictions that the sets are of.
    """

    sets: Tensor
    predictions: Predictions

    @property
    def coverage(self) -> float:
        """Empirical coverage: the share of samples whose prediction set contains their label."""
        return float(
            self.sets.gather(1, self.predictions.tensors().target[:, None]).double().mean()
        )

    @property
    def sizes(self) -> Tensor:
        """Number of classes in each set ``(N,)`` int64."""
        return self.sets.sum(dim=1)

    @property
    def mean_size(self) -> float:
        """Mean number of classes in a set."""
        return float(self.sizes.double().mean())


@check_argument_types
def prediction_sets(
    val: Predictions,
    test: Predictions,
    *,
    coverage: float = 0.9,
    score: Score = "lac",
    randomized: bool = False,
    by_class: bool = False,
    seed: int = 0,
) -> PredictionSets:
    """Return split conformal prediction sets, which contain the label of a new sample with probability ``coverage``.

    The probability is over the draw of ``val`` and of the sample, if both are drawn alike; no calibration is assumed.
    It holds on average over all samples and not for each hard input; with ``by_class`` for each class.

    Args:
        val: Logits ``(M, C)`` and labels that neither the model nor a calibrator has seen.
        test: Logits ``(N, C)`` of the samples whose sets are wanted; labels are not read.
        coverage: Target, in (0, 1).
        score: MAPIE's conformity score: ``"lac"`` (the probability of the class; the smallest sets on average, and some
            may be empty), ``"top_k"`` (its rank), ``"aps"`` (cumulated probability down to it; larger sets where the
            model is unsure) or ``"raps"`` (that with a penalty on large sets, tuned on a fifth of ``val``).
            ``"auto"`` is RAPS where ``val`` suffices for it, else LAC.
        randomized: For ``"aps"`` and ``"raps"``: leave the last class out at random, so that the coverage is exact.
            Without, it is above ``coverage``, often far above.
        by_class: Conformalize each class on its own samples (Mondrian sets), with ``"lac"`` or ``"auto"``: every class
            has the coverage. One with fewer than ``coverage / (1 - coverage)`` samples is in every set.
        seed: Seed of this draw, and of the scores of APS and RAPS.

    Raises:
        InputError: If a number is out of range, samples have weights, the numbers of classes differ, or ``val`` is too
            small: it takes ``coverage / (1 - coverage)`` samples at least, labels of three classes for any score but
            ``"lac"``, and for ``"raps"`` ten samples of each class.
        MissingExtraError: On import, if MAPIE is not installed.

    Note:
        Temperature scaling of an over-confident and accurate model makes the sets of APS and RAPS larger, and hardly
        changes those of LAC: calibrate for the probabilities, and make sets from either (MAPIE's issue 483).

    Example:
        >>> logits = 2 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> target = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> val, test = Predictions(logits[:1000], target[:1000]), Predictions(logits[1000:], target[1000:])
        >>> sets = prediction_sets(val, test, coverage=0.9)
        >>> round(sets.coverage, 2), round(sets.mean_size, 2)
        (0.89, 2.1)

    Source:
        MAPIE, https://mapie.readthedocs.io; LAC: Sadinle et al. 2019; APS: Romano et al. 2020; RAPS: Angelopoulos et
        al. 2021.
    """
    # What MAPIE would refuse in its own words, or not at all.
    val = require_predictions(val)
    test = require_predictions(test)
    for predictions in (val, test):
        check_weights_supported(predictions, takes_weights=False)
        require_independent(predictions, "the coverage")
    check_number("coverage", coverage, low=0, high=1, low_open=True, high_open=True)
    check_choice("score", score, get_args(Score))
    check_count("seed", seed, low=0)
    if val.num_classes != test.num_classes:
        raise InputError(
            "val and test must have the same number of classes",
            f"{val.num_classes} and {test.num_classes}",
            "Pass predictions of one model.",
        )
    # RAPS sets a fifth aside and splits it again, both by class; each half has a quantile of its own.
    counts = torch.bincount(val.tensors().target)
    present = counts[counts > 0]
    fewest = max(10 * len(present), 10 * math.ceil(1 / min(coverage, 1 - coverage)) + 10)
    suffices = int(present.min()) >= 10 and val.num_samples >= fewest
    if by_class:
        if score not in ("lac", "auto"):
            raise InputError(
                "by_class requires score='lac' or 'auto'", repr(score), "Leave one out."
            )
        return PredictionSets(_class_conditional_sets(val, test, coverage), test)
    if score == "auto":
        score = "raps" if len(present) >= 3 and suffices else "lac"
    used = val.num_samples - (math.ceil(val.num_samples / 5) if score == "raps" else 0)
    if math.ceil((used + 1) * coverage) > used or used <= 1 / min(coverage, 1 - coverage):
        raise InputError(
            f"val must have enough samples for a coverage of {coverage:g}",
            f"{used} samples",
            "Use more samples, or a coverage closer to 0.5.",
        )
    if score != "lac" and len(present) < 3:
        raise InputError(
            f"val must have labels of at least three classes for score={score!r}",
            f"{len(present)} classes",
            "Use score='lac'.",
        )
    if score == "raps" and not suffices:
        raise InputError(
            f"val must have at least {fewest} samples, and 10 of each class, for score='raps'",
            f"{val.num_samples} samples, {int(present.min())} of the rarest class",
            "Use more samples, or score='auto', which then chooses 'lac'.",
        )
    # The conformal step is MAPIE's; its "model" turns logits into probabilities.
    conformal = SplitConformalClassifier(
        _softmax_classifier(val.num_classes),
        confidence_level=coverage,
        conformity_score=score,
        random_state=seed,
    )
    last = (
        {"include_last_label": "randomized" if randomized else True}
        if score in ("aps", "raps")
        else {}
    )
    with ignore_warnings:  # that val lacks a class, which is no defect
        conformal.conformalize(_logits_array(val), val.target)
        _, sets = conformal.predict_set(_logits_array(test), conformity_score_params=last)
    return PredictionSets(torch.from_numpy(sets[:, :, 0]).to(test.tensors().logits.device), test)


def _class_conditional_sets(val: Predictions, test: Predictions, coverage: float) -> Tensor:
    """Return class-conditional (Mondrian) prediction sets ``(N, C)``, with a separate LAC threshold for each class."""
    misses = 1 - val.tensors().probs.double()
    probs = test.tensors().probs.double()
    highest = torch.full((val.num_classes,), torch.inf, dtype=torch.float64, device=probs.device)
    for label in range(val.num_classes):
        scores = misses[val.tensors().target == label, label].sort().values
        place = math.ceil((len(scores) + 1) * coverage)
        if place <= len(scores):
            highest[label] = scores[place - 1]
    return 1 - probs <= highest


Risk = Literal["precision", "recall", "accuracy", "fpr", "predicted_positive_fraction"]


def controlled_threshold(
    val: Predictions | TopLabel,
    *,
    risk: Risk = "precision",
    target: float,
    confidence_level: float = 0.9,
) -> float | None:
    """Return a probability threshold that controls a risk at ``target`` with ``confidence_level``, or None.

    The event is the second of two classes, or of more "the top label is right": its precision is then the accuracy of
    the answers that are given, and all below the threshold are refused.

    Args:
        val: Predictions or confidences with labels that neither the model nor a calibrator has seen.
        risk: ``"precision"``, ``"recall"`` and ``"accuracy"`` are at least ``target``; ``"fpr"`` (false positive rate)
            and ``"predicted_positive_fraction"`` at most.
        target: In (0, 1).
        confidence_level: Probability, over the draw of ``val``, that it holds; in (0, 1).

    Returns:
        A threshold out of 0, 0.01, ..., 0.99, or None: none of these holds the target with that confidence.

    Raises:
        InputError: For numbers out of range or another risk, or if ``val`` lacks labels or has weights.

    Example:
        >>> logits = 3 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
        >>> 0.5 < controlled_threshold(Predictions(logits, labels), target=0.9) < 0.9
        True

    Source:
        Angelopoulos, Bates, Candès, Jordan and Lei 2021, "Learn then Test" (arXiv 2110.01052), as MAPIE has it.
    """
    check_choice("risk", risk, get_args(Risk))
    for name, number in (("target", target), ("confidence_level", confidence_level)):
        check_number(name, number, low=0, high=1, low_open=True, high_open=True)
    check_weights_supported(val, takes_weights=False)
    require_independent(val)
    if not isinstance(val, TopLabel):
        val = require_labels(val)
        val = (
            TopLabel(val.tensors().confidence, val.tensors().correct)
            if val.num_classes > 2
            else TopLabel(val.tensors().probs[:, 1], val.tensors().target == 1)
        )
    controller = BinaryClassificationController(
        lambda probs: np.concatenate([1 - probs, probs], axis=1),
        risk=risk,
        target_level=target,
        confidence_level=confidence_level,
    )
    with ignore_warnings:  # that there is none is what None says
        controller.calibrate(
            val.confidence.astype(np.float64)[:, None], val.tensors().correct.long().cpu().numpy()
        )
    best = controller.best_predict_param
    return None if best is None else float(best)


def _logits_array(predictions: Predictions) -> NDArray[np.float64]:
    return predictions.logits.astype(np.float64)


def _softmax_classifier(num_classes: int) -> Any:
    """Return a fitted scikit-learn classifier whose probabilities are the softmax of its input logits ``(N, C)``."""
    sklearn = require("sklearn.base", extra="conformal")

    class SoftmaxClassifier(sklearn.ClassifierMixin, sklearn.BaseEstimator):  # type: ignore[name-defined]
        def __init__(self) -> None:
            # scikit-learn takes what has such an attribute for fitted
            self.classes_ = np.arange(num_classes)

        def fit(self, logits: Any, target: Any) -> Any:  # noqa: ARG002 (what scikit-learn calls a classifier has it)
            return self

        def predict_proba(self, logits: Any) -> Any:
            return torch.from_numpy(logits).softmax(dim=1).numpy()

        def predict(self, logits: Any) -> Any:
            return logits.argmax(axis=1)

    return SoftmaxClassifier()
