"""Accuracy, NLL and Brier score: means of a per-sample quantity."""

from __future__ import annotations

import math
from operator import attrgetter
from typing import TYPE_CHECKING

from fedlas._core.check import check_count
from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import mean_of_quantity
from fedlas.predictions.two_arrays import accept_arrays

if TYPE_CHECKING:
    from fedlas.predictions import Predictions, TopLabel

_CORRECT = attrgetter("correct")
_NLL = attrgetter("nll")
_SQUARED_ERROR = attrgetter("squared_error")


@METRICS.register(
    "accuracy",
    order=10,
    title="Accuracy",
    higher_is_better=True,
    paper="folklore",
    quantity=_CORRECT,
    between=(0, 1),
    top_label=True,
)
def accuracy(predictions: Predictions | TopLabel) -> float:
    """Share of samples whose predicted class is the label.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``; of equal logits the first is
            predicted.

    Returns:
        A fraction in ``[0, 1]``.

    Example:
        >>> from fedlas import Predictions
        >>> accuracy(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        0.5
    """
    return mean_of_quantity(_CORRECT, predictions, between=(0, 1), top_label=True)


@METRICS.register(
    "top5",
    order=20,
    title="Top-5 accuracy",
    fewest_classes=10,
    higher_is_better=True,
    paper="Russakovsky et al. 2015, ImageNet large scale visual recognition challenge",
    quantity=lambda chunk: chunk.rank < 5,
    between=(0, 1),
)
def top5(predictions: Predictions) -> float:
    """Share of samples whose label has one of the five highest logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. Among equal logits the first counts as higher.

    Returns:
        A fraction in ``[0, 1]``; 1 with five classes or fewer. :func:`top_k_accuracy` takes another number.

    Example:
        >>> from fedlas import Predictions
        >>> top5(Predictions([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0]] * 2, [4, 5]))
        0.5
    """
    return top_k_accuracy(predictions)


@accept_arrays
def top_k_accuracy(predictions: Predictions, *, k: int = 5) -> float:
    """Share of samples whose label has one of the ``k`` highest logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. Among equal logits the first counts as higher.
        k: How many classes may be named. With fewer than ``k`` classes all of them are named, ``k = min(k, C)``, and
            the result is 1.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``k`` is not a whole number of at least 1.

    Example:
        >>> from fedlas import Predictions
        >>> top_k_accuracy(Predictions([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2]), k=2)
        0.5
    """
    check_count("k", k)
    return mean_of_quantity(lambda chunk: chunk.rank < k, predictions, between=(0, 1))


# NLL and Brier score are proper scores: best in expectation at the true probabilities, so they reward accuracy and
# calibration together.
@METRICS.register(
    "nll",
    order=30,
    title="NLL",
    percent=False,
    paper="Good 1952, Rational decisions",
    quantity=_NLL,
    between=(0, math.inf),
)
def nll(predictions: Predictions) -> float:
    """Mean negative log-likelihood of the labels, ``mean_i -log p_i[y_i]``.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        Nats per sample, in ``[0, inf)``; ``log C`` for uniform predictions.

    Example:
        >>> from fedlas import Predictions
        >>> round(nll(Predictions([[0.0, 0.0]], [1])), 4)
        0.6931
    """
    return mean_of_quantity(_NLL, predictions)


@METRICS.register(
    "brier",
    order=40,
    title="Brier",
    percent=False,
    paper="Brier 1950, Verification of forecasts expressed in terms of probability",
    quantity=_SQUARED_ERROR,
    between=(0, 2),
)
def brier(predictions: Predictions) -> float:
    """Brier score, ``mean_i sum_k (p_ik - 1[k = y_i])**2``; with two classes ``mean_i (p_i - y_i)**2`` of the event.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``.

    Returns:
        A number in ``[0, 2]``; of two classes in ``[0, 1]``.

    Note:
        Brier's own form sums over the classes. Both of two classes have the same square, so that the sum is twice the
        number that is meant where one of them is an event; scikit-learn counts as is done here.

    Example:
        >>> from fedlas import Predictions
        >>> brier(Predictions([[0.0, 0.0]], [1])), brier(Predictions([[0.0, 0.0, -99.0]], [1]))
        (0.25, 0.5)
    """
    return mean_of_quantity(_SQUARED_ERROR, predictions)
