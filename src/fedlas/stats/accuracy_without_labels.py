"""How accurate a model is on samples without labels, from its confidence in them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, check_choice, check_finite, check_logits
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions
from fedlas.stats.intervals import Interval, check_bootstrap, interval_from
from fedlas.stats.rows import Floats

_METHODS = ("atc-entropy", "atc-confidence", "difference", "mean-confidence")


def accuracy_without_labels(
    source: Predictions,
    target: Predictions | Tensor,
    *,
    method: str = "atc-entropy",
    confidence_level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> Interval:
    """Estimate the accuracy on unlabeled samples, from labeled ones of the same model.

    Each method has an assumption that the samples cannot show to be true:

    - ``"mean-confidence"``: the mean confidence of the target. Assumes that the model is calibrated *on the target*.
    - ``"difference"`` (DoC): the source accuracy plus the change of mean confidence. Assumes that confidence exceeds
      accuracy by as much on the target as on the source.
    - ``"atc-confidence"`` and ``"atc-entropy"`` (ATC): the share of target samples whose score is at least the
      threshold below which lies a share of source samples equal to the source error. Scores are confidence and
      negative entropy. Assumes that this threshold separates as large a share of right samples on the target.

    Args:
        source: Logits ``(N, C)`` and target ``(N,)`` of labeled samples that the model was not trained on.
        target: Logits ``(M, C)`` of the unlabeled samples, or predictions, whose labels are not used. Calibrate both
            with one calibrator fitted on the source, or on other samples like it.
        method: One of the four.
        confidence_level: Confidence level of the interval, in ``(0, 1)``.
        replicates: Of the bootstrap, which draws from both sets; at least 39 for level 0.95.
        seed: The same seed draws the same samples.

    Returns:
        The estimate in ``[0, 1]`` (that of ``"difference"`` is cut off there) with its percentile interval. It counts
        the chance of both samples and not that the assumption is wrong, which is mostly more: see ``docs/binary.md``
        for measured errors.

    Raises:
        InputError: For an unknown method, logits of other classes or none, options out of range, or sample weights.

    Example:
        >>> logits = 3 * torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> drawn = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
        >>> source, harder = Predictions(logits, drawn), 0.5 * logits
        >>> found = accuracy_without_labels(source, harder, method="mean-confidence")
        >>> round(found.value, 2), found.low < found.value < found.high
        (0.57, True)

    Source:
        Garg, Balakrishnan, Lipton, Neyshabur, Sedghi, "Leveraging Unlabeled Data to Predict Out-of-Distribution
        Performance" (ICLR 2022), https://arxiv.org/abs/2201.04234, for ATC; Guillory, Shankar, Ebrahimi, Darrell,
        Schmidt, "Predicting with Confidence on Unseen Distributions" (ICCV 2021), https://arxiv.org/abs/2107.03315, for
        the difference of confidences, here without their regression over known shifts.
    """
    owner = "accuracy_without_labels"
    check_predictions(owner, source)
    check_choice(owner, "method", method, _METHODS)
    check_bootstrap(owner, confidence_level=confidence_level, replicates=replicates, seed=seed, method="percentile")
    logits = target.logits if isinstance(target, Predictions) else check_logits(owner, target)
    if logits.ndim != 2 or logits.shape[1] != source.num_classes or not len(logits):
        raise InputError(
            owner,
            f"target must be logits (M, {source.num_classes}) like those of the source, with at least one sample",
            tuple(logits.shape),
            "Pass logits of the same model.",
        )
    check_finite(owner, "target", logits)
    for given in (source, target):
        check_takes_weights(owner, given, takes_weights=False)
    score = _entropy if method == "atc-entropy" else _confidence
    known, unknown, right = score(source.logits), score(logits), source.correct.cpu().numpy()

    def estimate(of_source: Floats, correct: Floats, of_target: Floats) -> float:
        if method == "mean-confidence":
            return float(of_target.mean())
        if method == "difference":
            return min(1.0, max(0.0, float(correct.mean() - of_source.mean() + of_target.mean())))
        # As many source samples lie below the threshold as are wrong.
        wrong = len(correct) - int(correct.sum())
        if wrong == len(correct):
            return 0.0
        return float((of_target >= np.partition(of_source, wrong)[wrong]).mean())

    random = np.random.default_rng(seed)
    drawn = np.empty(replicates)
    for number in range(replicates):
        rows, others = (random.integers(len(each), size=len(each)) for each in (known, unknown))
        drawn[number] = estimate(known[rows], right[rows], unknown[others])
    return interval_from(estimate(known, right, unknown), drawn, confidence_level=confidence_level, method="percentile")


def _confidence(logits: Tensor) -> Floats:
    """The highest probability of each row ``(N,)``."""
    return logits.detach().cpu().double().softmax(dim=1).amax(dim=1).numpy()


def _entropy(logits: Tensor) -> Floats:
    """``sum_k p_k log p_k`` of each row ``(N,)``: the negative entropy."""
    return torch.special.entr(logits.detach().cpu().double().softmax(dim=1)).sum(dim=1).neg().numpy()
