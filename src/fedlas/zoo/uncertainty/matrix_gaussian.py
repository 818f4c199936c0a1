"""Matrix-Gaussian posteriors: Gaussian weight matrices with a covariance of rows and a covariance of columns.

Source:
    Louizos, Welling: Structured and Efficient Variational Deep Learning with Matrix Gaussian Posteriors, ICML 2016,
    sections 2 and 3. https://arxiv.org/abs/1603.04733
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import check_choice, check_count, check_number
from fedlas._core.kinds import check_argument_types
from fedlas.predictions import Predictions
from fedlas.zoo.uncertainty._inputs import FeatureHead, FeatureStandardizer

__all__ = ["Covariance", "MatrixGaussian", "MatrixGaussianLinear"]

Covariance = Literal["diag", "full"]


_START_STD = 0.1  # of rows and of columns, so 0.01 of every weight


class MatrixGaussianLinear(nn.Module):
    """Linear layer with weights ``W ~ MN(M, U, V)``: row covariance ``U``, column covariance ``V``.

    There is a row for each input, and a last one for the bias. The prior is ``MN(0, I, I)``. Inputs are divided by the
    root of their number.

    Args:
        in_features: Number of inputs.
        out_features: Number of outputs.
        covariance: ``diag``: ``U`` and ``V`` are diagonal, as published; ``full``: both have a Cholesky factor.
        generator: For the means at the start; None is torch's global one.

    State:
        Parameters ``mean (in + 1, out)``, and of ``U`` and ``V`` the Cholesky factors, their diagonals as logarithms.
        In ``train()`` each sample has a noise of its own (local reparameterization), from torch's global generator.
        In ``eval()`` the layer computes with the weights that :meth:`draw` set, or with the means.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        covariance: Covariance = "diag",
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_choice("covariance", covariance, get_args(Covariance))
        rows = in_features + 1
        self.mean = nn.Parameter(torch.randn(rows, out_features, generator=generator))
        self.log_row = nn.Parameter(torch.full((rows,), math.log(_START_STD)))
        self.log_column = nn.Parameter(torch.full((out_features,), math.log(_START_STD)))
        full = covariance == "full"
        self.below_row = nn.Parameter(torch.zeros(rows, rows)) if full else None
        self.below_column = nn.Parameter(torch.zeros(out_features, out_features)) if full else None
        self._drawn: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs ``(N, out)`` for ``inputs (N, in)``."""
        # The bias is the row of an input that is 1.
        z = torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1) / math.sqrt(len(self.mean))
        if not self.training:
            return z @ (self.mean if self._drawn is None else self._drawn)
        mean = z @ self.mean
        std = (z @ _cholesky_factor(self.log_row, self.below_row)).norm(dim=1, keepdim=True)
        return mean + std * (
            torch.randn_like(mean) @ _cholesky_factor(self.log_column, self.below_column).T
        )

    def draw(self, generator: torch.Generator | None) -> None:
        """Draw the weights to use in ``eval()``, or use the means if ``generator`` is None."""
        self._drawn = None
        if generator is not None:
            noise = torch.randn(self.mean.shape, generator=generator, dtype=self.mean.dtype)
            self._drawn = (
                self.mean
                + _cholesky_factor(self.log_row, self.below_row)
                @ noise
                @ _cholesky_factor(self.log_column, self.below_column).T
            ).detach()

    def kl(self) -> Tensor:
        """Return ``KL(MN(M, U, V) || MN(0, I, I))`` in nats, a scalar."""
        # 1/2 (tr(U) tr(V) + |M|^2 - r c - c log|U| - r log|V|) for r rows and c columns
        row = _cholesky_factor(self.log_row, self.below_row)
        column = _cholesky_factor(self.log_column, self.below_column)
        rows, columns = self.mean.shape
        log_dets = 2 * (columns * self.log_row.sum() + rows * self.log_column.sum())
        traces = row.square().sum() * column.square().sum()
        return 0.5 * (traces + self.mean.square().sum() - rows * columns - log_dets)

    @property
    def num_parameters(self) -> int:
        """Number of means and of entries of the Cholesky factors."""
        sides = self.mean.shape
        return self.mean.numel() + sum(
            n if self.below_row is None else n * (n + 1) // 2 for n in sides
        )


def _cholesky_factor(log_diagonal: Tensor, below: Tensor | None) -> Tensor:
    """Return the Cholesky factor of a covariance, with diagonal ``exp(log_diagonal)``."""
    diagonal = log_diagonal.exp().diag()
    return diagonal if below is None else diagonal + below.tril(-1)


class MatrixGaussian(FeatureHead):
    """Small network on features with matrix-Gaussian weights, trained by the evidence lower bound.

    Args:
        hidden: Units of the hidden layer, with ReLU; 0 for none.
        covariance: See :class:`MatrixGaussianLinear`.
        epochs: Passes over the training part.
        lr: Learning rate of Adam.
        batch_size: Samples per batch.
        kl_weight: Factor of the KL term; 1 is the evidence lower bound, below 1 a tempered ("cold") posterior.
        samples: Draws of all weights for a prediction.
        seed: Seed of the start, the order of the samples, the noise and the draws.

    State:
        The posterior, after :meth:`fit`. Global generators are left as they were.

    Raises:
        InputError: For options out of range.

    Note:
        Without the pseudo-data of the paper. They make it cheaper to draw the outputs of a wide layer; these layers are
        narrow, and a prediction draws the weights themselves, the same for all samples. The division of the inputs is
        that of the published code. ``covariance="full"`` is not in the paper's experiments.

    Example:
        >>> features = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> train = Predictions(torch.zeros(4, 2), torch.tensor([0, 0, 1, 1]), features=features)
        >>> MatrixGaussian(hidden=0, lr=0.1).fit(train).predict(train).predicted.tolist()
        [0, 0, 1, 1]
    """

    def __init__(
        self,
        *,
        hidden: int = 50,
        covariance: Covariance = "diag",
        epochs: int = 100,
        lr: float = 0.01,
        batch_size: int = 64,
        kl_weight: float = 1.0,
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        self.hidden = check_count("hidden", hidden, low=0)
        self.covariance: Covariance = check_choice("covariance", covariance, get_args(Covariance))
        self.epochs = check_count("epochs", epochs)
        self.lr = check_number("lr", lr, low=0, low_open=True)
        self.batch_size = check_count("batch_size", batch_size)
        self.kl_weight = check_number("kl_weight", kl_weight, low=0)
        self.samples = check_count("samples", samples)
        self.seed = check_count("seed", seed, low=0)
        self._model = nn.Sequential()
        self.kl = math.nan
        """KL divergence of the posterior from the prior in nats, after :meth:`fit`."""

    @check_argument_types
    def fit(
        self, train: Predictions, *, progress: Callable[[Iterable[int]], Iterable[int]] = iter
    ) -> MatrixGaussian:
        """Fit the posterior to the features and labels of the training part; return ``self``.

        Args:
            train: Predictions on the training part without augmentation, with ``features``.
            progress: Gets the epochs and yields them, to show how many are left.

        Raises:
            InputError: Without features, or if they are not finite.
        """
        inputs = FeatureStandardizer(train)
        features = inputs(train).float()
        target = train.tensors().target
        generator = torch.Generator().manual_seed(self.seed)
        model = nn.Sequential()
        for size, out in pairwise(self._layer_sizes(train, features)):
            if len(model):
                model.append(nn.ReLU())
            model.append(MatrixGaussianLinear(size, out, self.covariance, generator=generator))
        optimizer = torch.optim.Adam(model.parameters(), lr=self.lr)
        steps = self.epochs * math.ceil(len(features) / self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            for _ in progress(range(self.epochs)):
                for batch in torch.randperm(len(features)).split(self.batch_size):
                    loss = F.cross_entropy(model(features[batch]), target[batch])
                    loss = loss + self.kl_weight * _total_kl(model) / len(features)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        self._model = model.eval().requires_grad_(False)
        self._inputs = inputs
        self.kl = float(_total_kl(model))
        return self

    @property
    def num_parameters(self) -> int:
        """Number of means and of entries of the covariances' Cholesky factors.

        Raises:
            InputError: Before :meth:`fit`.
        """
        self._require_fitted()
        return sum(layer.num_parameters for layer in _gaussian_layers(self._model))

    def predict(self, predictions: Predictions) -> Predictions:
        """Return predictions whose logits are the log of the mean probabilities over draws of the weights.

        Args:
            predictions: Predictions with ``features``.

        Raises:
            InputError: Before :meth:`fit`; or for features that are missing or of another size.
        """
        features = self._require_fitted()(predictions).float()
        generator = torch.Generator().manual_seed(self.seed)
        total = torch.full(predictions.logits.shape, -math.inf)
        for _ in range(self.samples):
            for layer in _gaussian_layers(self._model):
                layer.draw(generator)
            # Summed in the logarithm, where tiny probabilities keep their digits.
            total = torch.logaddexp(total, self._model(features).log_softmax(dim=1))
        for layer in _gaussian_layers(self._model):
            layer.draw(None)
        return predictions.with_logits(
            (total - math.log(self.samples)).to(predictions.tensors().logits)
        )


def _gaussian_layers(model: nn.Sequential) -> list[MatrixGaussianLinear]:
    return [layer for layer in model if isinstance(layer, MatrixGaussianLinear)]


def _total_kl(model: nn.Sequential) -> Tensor:
    return torch.stack([layer.kl() for layer in _gaussian_layers(model)]).sum()
