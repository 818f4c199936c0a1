"""OOD scores that are fitted to logits and features of in-distribution samples, mostly by pytorch-ood."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_finite, check_logits
from fedlas._core.extras import require
from fedlas.predictions import Predictions
from fedlas.predictions.any_predictions import require_predictions
from fedlas.zoo.ood.base import OOD_SCORES
from fedlas.zoo.ood.feature_norm import check_features

__all__ = [
    "kl_matching_score",
    "knn_score",
    "mahalanobis_score",
    "relative_mahalanobis_score",
    "vim_score",
]

_PACKAGES = ("pytorch_ood",)

_ROWS = 4096
"""Rows of a block in float64."""
_NO_VARIANCE = 1e-10
"""Share of the largest variance below which a direction has none; rounding to float32 causes shares of 1e-14."""


@OOD_SCORES.register(
    "kl-matching",
    title="KL matching",
    paper="Scaling Out-of-Distribution Detection for Real-World Settings",
    year=2022,
    url="https://arxiv.org/abs/1911.11132",
    packages=_PACKAGES,
)
def kl_matching_score(logits: Tensor, *, val: Predictions) -> Tensor:
    """KL divergence from the nearest class template, which is the mean softmax of a predicted class on validation.

    Args:
        logits: ``(N, C)``.
        val: Predictions on held-out in-distribution samples, ``C`` classes.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If the numbers of classes differ.
        MissingExtraError: Without pytorch-ood.

    Example:
        >>> val = Predictions(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1]))
        >>> near, far = kl_matching_score(torch.tensor([[4.0, 0.0], [0.0, 0.0]]), val=val)
        >>> bool(near < far)
        True

    Source:
        Hendrycks et al. 2022, section 4.
    """
    val = require_predictions(val)
    if check_logits(logits).shape != (len(logits), val.num_classes) or not len(logits):
        raise InputError(
            f"logits must be (N, {val.num_classes}), like val.logits",
            tuple(logits.shape),
            "Pass predictions of one model.",
        )
    check_finite("logits", logits)
    detector = _pytorch_ood_detectors().KLMatching(None)
    return detector.fit_logits(val.tensors().logits.double()).predict_logits(logits.double())


@OOD_SCORES.register(
    "mahalanobis",
    title="Mahalanobis",
    paper="A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
    year=2018,
    url="https://arxiv.org/abs/1807.03888",
)
def mahalanobis_score(features: Tensor, *, train: Predictions) -> Tensor:
    """Mahalanobis distance of the features from the nearest class mean, with one covariance for all classes.

    Args:
        features: ``(N, D)``.
        train: Predictions on training samples, with features ``(N', D)``; each class of its targets gets a mean.

    Returns:
        ``(N,)`` float64, half the squared distance; higher = more OOD.

    Raises:
        InputError: If ``train`` has no features, another number of them, or features that vary in no class.

    Note:
        Uses the last layer's features only, without perturbed inputs and without the paper's regression over layers,
        which needs OOD samples. Directions in which training features do not vary are left out, as in the authors'
        code (a pseudo-inverse).

    Example:
        >>> features = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> features[100:] += 6
        >>> train = Predictions(torch.zeros(200, 2), torch.arange(200) // 100, features=features)
        >>> near, middle = mahalanobis_score(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), train=train)
        >>> bool(near < middle)
        True

    Source:
        Lee et al. 2018, section 2.1.
    """
    return _Gaussians(features, train).nearest_class_distance(features)


@OOD_SCORES.register(
    "relative-mahalanobis",
    title="Relative Mahalanobis",
    paper="A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
    year=2021,
    url="https://arxiv.org/abs/2106.09022",
)
def relative_mahalanobis_score(features: Tensor, *, train: Predictions) -> Tensor:
    """Mahalanobis distance from the nearest class mean, minus the distance from the mean of all training features.

    Args:
        features: ``(N, D)``.
        train: Predictions on training samples, with features ``(N', D)``.

    Returns:
        ``(N,)`` float64, half the difference of the squared distances; higher = more OOD.

    Raises:
        InputError: If ``train`` has no features, another number of them, or features that vary in no class.

    Example:
        >>> features = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> features[100:] += 6
        >>> train = Predictions(torch.zeros(200, 2), torch.arange(200) // 100, features=features)
        >>> near, middle = relative_mahalanobis_score(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), train=train)
        >>> bool(near < middle)
        True

    Source:
        Ren et al. 2021, equation 2.
    """
    gaussians = _Gaussians(features, train)
    return gaussians.nearest_class_distance(features) - gaussians.background_distance(features)


@OOD_SCORES.register(
    "knn",
    title="KNN",
    paper="Out-of-Distribution Detection with Deep Nearest Neighbors",
    year=2022,
    url="https://arxiv.org/abs/2204.06507",
    packages=(*_PACKAGES, "sklearn"),
)
def knn_score(features: Tensor, *, train: Predictions, k: int = 50) -> Tensor:
    """Distance of the normalized features to their ``k``-th nearest neighbor among training samples.

    Args:
        features: ``(N, D)``.
        train: Predictions on training samples, with features ``(N', D)``.
        k: Rank of the neighbor, at most ``N'``; the paper takes 50 for CIFAR-10, 200 for CIFAR-100, 1000 for ImageNet.

    Returns:
        ``(N,)`` in ``[0, 2]``, higher = more OOD.

    Raises:
        InputError: If ``train`` has no features, another number of them, or fewer than ``k`` samples.
        MissingExtraError: Without pytorch-ood or scikit-learn.

    Example:
        >>> features = torch.eye(4)[:2].repeat(10, 1)  # two directions
        >>> train = Predictions(torch.zeros(20, 2), torch.arange(20) % 2, features=features)
        >>> knn_score(torch.eye(4)[[0, 2]], train=train, k=5).round(decimals=2)
        tensor([0.0000, 1.4100], dtype=torch.float64)

    Source:
        Sun et al. 2022, section 3.
    """
    check_count("k", k)
    bank = check_train_features(features, train)
    if k > len(bank):
        raise InputError(
            f"k must be at most {len(bank)}, the number of training samples",
            k,
            "Choose a smaller k (on the command line: --set knn.k=10), or more training samples.",
        )
    require("sklearn.neighbors", extra="ood")
    detector = _pytorch_ood_detectors().KNN(None, k=k)
    # float32 finds the same neighbors at half the cost; distances of unit vectors need no more digits.
    return detector.fit_features(bank.float(), train.tensors().target).predict_features(
        features.float()
    )


@OOD_SCORES.register(
    "vim",
    title="ViM",
    paper="ViM: Out-Of-Distribution with Virtual-logit Matching",
    year=2022,
    url="https://arxiv.org/abs/2203.10807",
    packages=_PACKAGES,
)
def vim_score(
    features: Tensor, *, train: Predictions, head: nn.Linear, dimension: int | None = None
) -> Tensor:
    """Virtual logit (norm of the features outside the principal subspace) minus the energy of the logits.

    Args:
        features: ``(N, D)``.
        train: Predictions on training samples, with features ``(N', D)``.
        head: The linear head that maps the features to logits.
        dimension: Dimension of the principal subspace, below ``D``; None is the paper's: 1000 for at least 2048
            features, 512 for at least 768, and half of fewer.

    Returns:
        ``(N,)``, higher = more OOD.

    Raises:
        InputError: If ``train`` has no features or another number of them, ``dimension`` is not below their number, or
            the head is not linear in them.
        MissingExtraError: Without pytorch-ood.

    Example:
        >>> features = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
        >>> features[:, 2:] *= 0.01
        >>> head = nn.Linear(4, 2)
        >>> head.weight.data = torch.eye(2, 4)
        >>> train = Predictions(torch.zeros(100, 2), torch.arange(100) % 2, features=features)
        >>> near, far = vim_score(torch.tensor([[9.0, 0, 0, 0], [0, 0, 9.0, 0]]), train=train, head=head)
        >>> bool(near < far)
        True

    Source:
        Wang et al. 2022, section 4.
    """
    bank = check_train_features(features, train)
    width = bank.shape[1]
    weight = getattr(head, "weight", None)
    bias = getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or weight.shape != (train.num_classes, width):
        raise InputError(
            f"the head must be a linear layer with weight ({train.num_classes}, {width})",
            head,
            "Pass the layer that takes these features as input.",
        )
    chosen = (
        dimension
        if dimension is not None
        else 1000
        if width >= 2048
        else 512
        if width >= 768
        else width // 2
    )
    if check_count("dimension", chosen, low=0) >= width:
        raise InputError(
            f"dimension must be below {width}, the number of features",
            chosen,
            "Choose a smaller dimension, or omit it.",
        )
    shift = torch.zeros(len(weight)) if bias is None else bias.detach().cpu()
    detector = _pytorch_ood_detectors().ViM(None, d=chosen, w=weight.detach().cpu(), b=shift)
    with _translate_eigenvalue_errors():
        return detector.fit_features(bank.float(), train.tensors().target).predict_features(
            features.float()
        )


@contextmanager
def _translate_eigenvalue_errors() -> Iterator[None]:
    """Raise InputError if a covariance has no eigenvalues in floating point, as for features of 1e25."""
    try:
        yield
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # missing in torch's annotations
        expected = "training features must have a finite covariance"
        fix = "Divide the features by a constant."
        raise InputError(expected, str(error).split(":")[0], fix) from error


def _pytorch_ood_detectors() -> Any:
    return require("pytorch_ood.detector", extra="ood")


def check_train_features(features: Tensor, train: Predictions) -> Tensor:
    """Return the training features ``(N', D)``, after checking them and the ``features (N, D)`` to score."""
    bank = require_predictions(train).tensors().features
    if bank is None:
        raise InputError(
            "train must have features", "none", "Make them with fedlas.predict(..., features=True)."
        )
    check_features(bank)
    check_features(features, width=bank.shape[1])
    return bank


class _Gaussians:
    """Gaussians fitted to training features: one per class with a shared covariance, and one for all samples."""

    # In float64 without a ridge: in float32 with one, as in pytorch-ood, rounding moves AUROC in the fourth digit
    # whenever the order of the samples changes, and where classes are compact the ridge outweighs their variance.

    def __init__(self, features: Tensor, train: Predictions) -> None:
        bank = check_train_features(features, train)
        _, target = train.tensors().target.unique(return_inverse=True)
        self._largest = bank.abs().amax(dim=0).double()
        self._number = len(bank)
        self._mean = bank.mean(dim=0, dtype=torch.float64)
        # Class means, then the scatter around them; both sums are over blocks, without a float64 copy of all features.
        counts = torch.bincount(target).double()[:, None]
        sums = bank.new_zeros(len(counts), bank.shape[1], dtype=torch.float64)
        within = bank.new_zeros(bank.shape[1], bank.shape[1], dtype=torch.float64)
        blocks = list(zip(bank.split(_ROWS), target.split(_ROWS), strict=True))
        for rows, labels in blocks:
            sums.index_add_(0, labels, rows.double() - self._mean)
        self._means = sums / counts
        for rows, labels in blocks:
            centered = rows.double() - self._mean - self._means[labels]
            within.addmm_(centered.T, centered)
        self._within = within
        self._between = self._means.T @ (self._means * counts)

    def nearest_class_distance(self, features: Tensor) -> Tensor:
        """Return half the squared Mahalanobis distance ``(N,)`` of ``features (N, D)`` from the nearest class mean."""
        whitening = self._whitening(self._within)
        centers = self._means @ whitening

        def squared_distance(rows: Tensor) -> Tensor:
            white = rows @ whitening
            # cdist expands the square, which cancels digits where classes are compact: it only finds the nearest.
            return (white - centers[torch.cdist(white, centers).argmin(dim=1)]).square().sum(dim=1)

        return self._half_squared_distances(features, squared_distance)

    def background_distance(self, features: Tensor) -> Tensor:
        """Return half the squared Mahalanobis distance ``(N,)`` from the overall mean, with the total covariance."""
        whitening = self._whitening(self._within + self._between)
        return self._half_squared_distances(
            features, lambda rows: (rows @ whitening).square().sum(dim=1)
        )

    def _half_squared_distances(
        self, features: Tensor, squared_distance: Callable[[Tensor], Tensor]
    ) -> Tensor:
        return torch.cat(
            [squared_distance(rows.double() - self._mean) / 2 for rows in features.split(_ROWS)]
        )

    def _whitening(self, scatter: Tensor) -> Tensor:
        """Return the whitening matrix ``(D, K)``, without directions in which features do not vary."""
        std = (scatter.diagonal() / self._number).sqrt()
        varying = std > self._largest * torch.finfo(torch.float32).eps
        if not bool(varying.any()):
            expected = "training features must vary within classes"
            got = "features that are equal in each class"
            raise InputError(expected, got, "Check that the features come from the trained model.")
        # The eigenvectors of the correlation matrix, so that the units of the features do not matter.
        unit = torch.where(varying, 1 / std, 0.0)
        with _translate_eigenvalue_errors():
            variances, directions = torch.linalg.eigh(scatter / self._number * unit[:, None] * unit)
        present = variances > variances.amax() * _NO_VARIANCE
        return unit[:, None] * directions[:, present] / variances[present].sqrt()
