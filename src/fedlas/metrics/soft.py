"""Scores against label distributions, such as annotators' votes, instead of single labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedlas.metrics.metric import METRICS
from fedlas.metrics.sums import mean_of_quantity
from fedlas.metrics.true_error import expected_accuracy, require_label_probs

if TYPE_CHECKING:
    from torch import Tensor

    from fedlas.metrics.scan import Chunk
    from fedlas.predictions import Predictions


def _sample_soft_nll(chunk: Chunk) -> Tensor:
    label_probs = require_label_probs(chunk).cpu().double()
    # From the logits, as NLL is: the logarithm of a probability that underflows would be infinite.
    below = (chunk.logits.amax(dim=1, keepdim=True) - chunk.logits).cpu().double()
    return (label_probs * below).sum(dim=1) + label_probs.sum(dim=1) * chunk.log_partition


def _sample_soft_brier(chunk: Chunk) -> Tensor:
    label_probs = require_label_probs(chunk).cpu().double()
    probs = chunk.probs.cpu().double()
    # Distance and spread are sums of what is not negative; the expanded square would cancel.
    total = ((probs - label_probs).square() + label_probs * (1 - label_probs)).sum(dim=1)
    return total / 2 if probs.shape[1] == 2 else total


_NEEDS = frozenset({"label_probs"})


@METRICS.register(
    "soft_accuracy",
    order=250,
    title="Soft accuracy",
    higher_is_better=True,
    default=False,
    paper="folklore",
    needs=_NEEDS,
    quantity=expected_accuracy,
    between=(0, 1),
)
def soft_accuracy(predictions: Predictions) -> float:
    """Expected accuracy for labels drawn from ``label_probs``: ``mean_i q_i[predicted_i]``.

    Args:
        predictions: Logits ``(N, C)`` with ``label_probs (N, C)``, written ``q``; the target is not used.

    Returns:
        A fraction in ``[0, 1]``; at most ``mean_i max_k q_ik``, where annotators disagree less than 1.

    Raises:
        InputError: If there are no ``label_probs``.

    Note:
        With one label for sure in every row of ``q`` it is :func:`~fedlas.metrics.accuracy`. How well the confidence
        agrees with ``q`` is :func:`~fedlas.metrics.true_ece`.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0], label_probs=[[0.75, 0.25], [0.5, 0.5]])
        >>> soft_accuracy(p)
        0.625
    """
    return mean_of_quantity(expected_accuracy, predictions)


@METRICS.register(
    "soft_nll",
    order=260,
    title="Soft NLL",
    percent=False,
    default=False,
    paper="Peterson et al. 2019, Human uncertainty makes classification more robust",
    needs=_NEEDS,
    quantity=_sample_soft_nll,
    between=(0, math.inf),
)
def soft_nll(predictions: Predictions) -> float:
    """Expected NLL for labels drawn from ``label_probs``, the cross-entropy ``mean_i sum_k -q_ik log p_ik``.

    Args:
        predictions: Logits ``(N, C)`` with ``label_probs (N, C)``, written ``q``; the target is not used.

    Returns:
        Nats per sample, at least the mean entropy of ``q``, which it is for ``p = q``.

    Raises:
        InputError: If there are no ``label_probs``.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0]], [0], label_probs=[[0.75, 0.25]])
        >>> round(soft_nll(p), 4)
        0.6931

    Source:
        Peterson et al. 2019 (ICCV), with the votes of about 50 people on each CIFAR-10 test image;
        https://arxiv.org/abs/1908.07086
    """
    return mean_of_quantity(_sample_soft_nll, predictions)


@METRICS.register(
    "soft_brier",
    order=270,
    title="Soft Brier",
    percent=False,
    default=False,
    paper="Brier 1950, Verification of forecasts expressed in terms of probability",
    needs=_NEEDS,
    quantity=_sample_soft_brier,
    between=(0, 2),
)
def soft_brier(predictions: Predictions) -> float:
    """Expected Brier score for labels drawn from ``label_probs``, ``mean_i sum_k (p_ik - q_ik)**2 + q_ik (1 - q_ik)``.

    Args:
        predictions: Logits ``(N, C)`` with ``label_probs (N, C)``, written ``q``; the target is not used.

    Returns:
        A number in ``[0, 2]``, at least ``mean_i sum_k q_ik (1 - q_ik)``, which it is for ``p = q``: take that off for
        the squared distance of the two distributions. For two classes half of it, as :func:`brier`.

    Raises:
        InputError: If there are no ``label_probs``.

    Example:
        >>> from fedlas import Predictions
        >>> p = Predictions([[0.0, 0.0]], [0], label_probs=[[0.75, 0.25]])
        >>> soft_brier(p)  # 0.25**2 + 0.75 * 0.25
        0.25
    """
    return mean_of_quantity(_sample_soft_brier, predictions)
