"""How far features themselves separate known samples from unknown ones: by angle, and by length."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from fedlas._core.check import InputError, check_number, describe, is_dense
from fedlas.stats.auroc import auroc
from fedlas.zoo.ood._counts import Counter
from fedlas.zoo.ood.feature_norm import check_features, feature_norm_score

__all__ = ["angular_separability", "norm_separability"]


def angular_separability(
    id_features: Tensor, ood_features: Tensor, *, train_features: Tensor, train_target: Tensor
) -> float:
    """Probability that a known sample is closer in angle to a class of the training data than an unknown one.

    The closeness of a sample is its largest cosine with the mean direction of a class, the mean of the class's training
    features divided by their lengths. Equal values count half; 0.5 is chance, 1 complete separation.

    Args:
        id_features: Of samples of the known classes ``(N, D)``.
        ood_features: Of samples of unknown ones ``(M, D)``.
        train_features: Of training samples ``(T, D)``, of the same model.
        train_target: Their classes ``(T,)``, whole numbers of at least 0.

    Raises:
        InputError: If features are not finite floating tensors of the same width, or the targets do not fit.

    Note:
        SpHOR's paper names this metric and says what it is for. Its formula could not be read, and the published code
        has none. This one is ours, an AUROC, and its values cannot be compared with the paper's. A vector of
        zeros has no direction; its cosines are 0.

    Example:
        >>> axes = torch.eye(2)
        >>> known, unknown = torch.tensor([[2.0, 0.1]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]])
        >>> angular_separability(known, unknown, train_features=axes, train_target=torch.tensor([0, 1]))
        0.5

    Source:
        Bahavan et al. 2026 (arXiv 2503.08049), the metric Angular Separability; see the Note.
    """
    owner = "angular_separability"
    train = check_features(owner, train_features).double()
    known, unknown = (
        check_features(owner, rows, columns=train.shape[1]).double() for rows in (id_features, ood_features)
    )
    whole = is_dense(train_target) and train_target.dtype == torch.int64 and train_target.shape == train.shape[:1]
    if not whole or int(train_target.min()) < 0:
        raise InputError(
            owner,
            f"train_target must be the classes ({len(train)},) of the training features, int64 and at least 0",
            describe(train_target),
            "Pass one class for each row of train_features.",
        )
    # Unit vectors first, so that long features do not decide where a class points.
    present = train_target.unique()
    means = torch.stack([F.normalize(train, dim=1)[train_target == label].mean(dim=0) for label in present])
    directions = F.normalize(means, dim=1)
    return _probability(owner, *(-(F.normalize(rows, dim=1) @ directions.T).amax(dim=1) for rows in (known, unknown)))


def norm_separability(id_features: Tensor, ood_features: Tensor, *, order: float = 2.0) -> float:
    """Probability that the features of a known sample are longer than those of an unknown one.

    Equal lengths count half; 0.5 is chance, 1 complete separation. It is the AUROC of the score ``feature-norm``.

    Args:
        id_features: Of samples of the known classes ``(N, D)``.
        ood_features: Of samples of unknown ones ``(M, D)``.
        order: Order of the norm, at least 0.1, or ``inf``; 2 is the Euclidean length.

    Raises:
        InputError: If features are not finite floating tensors of the same width, or ``order`` is below 0.1.

    Note:
        As :func:`angular_separability`: the paper's name, and a formula of ours.

    Example:
        >>> norm_separability(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0]]))
        0.5

    Source:
        Bahavan et al. 2026 (arXiv 2503.08049), the metric Norm Separability; see the Note.
    """
    owner = "norm_separability"
    if order != math.inf:
        check_number(owner, "order", order, low=0.1)
    known = check_features(owner, id_features)
    unknown = check_features(owner, ood_features, columns=known.shape[1])
    return _probability(owner, *(feature_norm_score(rows, order=order) for rows in (known, unknown)))


def _probability(owner: str, known: Tensor, unknown: Tensor) -> float:
    """Probability that an unknown sample's score is the higher one."""
    counts = Counter(owner, known.cpu().numpy(), unknown.cpu().numpy()).all_samples()
    return float(auroc(counts.known, counts.unknown)[0])
