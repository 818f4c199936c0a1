"""How often the label is the predicted class, or among the first k."""

from __future__ import annotations

from fedlas._core.check import check_count
from fedlas.metrics.row_mean import RowMean, row_mean
from fedlas.metrics.scan import METRICS, OnePass
from fedlas.predictions import Predictions, TopLabel


def _hits(owner: str, k: int) -> OnePass[RowMean]:
    return row_mean(owner, lambda chunk: chunk.rank < k)


_TOP1 = row_mean("accuracy", lambda chunk: chunk.correct, top_label=True)


@METRICS.register("accuracy", title="Accuracy", higher_is_better=True, paper="folklore", one_pass=_TOP1)
def accuracy(predictions: Predictions | TopLabel) -> float:
    """Share of samples whose predicted class is the label.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``, or a ``TopLabel``. Of equal logits the first is predicted.

    Returns:
        A fraction in ``[0, 1]``.

    Example:
        >>> accuracy(Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0]))
        0.5
    """
    return _TOP1(predictions)


@METRICS.register(
    "top5",
    title="Top-5 accuracy",
    higher_is_better=True,
    paper="Russakovsky et al. 2015, ImageNet large scale visual recognition challenge",
    one_pass=_hits("top_k_accuracy", 5),
)
def top_k_accuracy(predictions: Predictions, *, k: int = 5) -> float:
    """Share of samples whose label has one of the ``k`` highest logits.

    Args:
        predictions: Logits ``(N, C)`` and target ``(N,)``. Of equal logits the first counts as higher.
        k: How many classes may be named. With fewer than ``k`` classes all of them are named, ``k = min(k, C)``, and
            the result is 1.

    Returns:
        A fraction in ``[0, 1]``.

    Raises:
        InputError: If ``k`` is not a whole number of at least 1.

    Example:
        >>> top_k_accuracy(Predictions([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2]), k=2)
        0.5
    """
    return _hits("top_k_accuracy", check_count("top_k_accuracy", "k", k))(predictions)
