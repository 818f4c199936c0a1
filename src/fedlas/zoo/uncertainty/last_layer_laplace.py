"""Laplace approximation of the last layer with laplace-torch: a Gaussian around the trained weights of the head.

Source:
    Daxberger, Kristiadi, Immer, Eschenhagen, Bauer, Hennig: Laplace Redux - Effortless Bayesian Deep Learning,
    NeurIPS 2021, sections 2 and 4.1. https://arxiv.org/abs/2106.14806
"""

from __future__ import annotations

import copy
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas._core.threads import ignore_warnings
from fedlas.predictions import Predictions

__all__ = ["LastLayerLaplace", "Link", "Structure"]

Structure = Literal["kron", "full", "diag"]
Link = Literal["probit", "mc", "bridge"]


_MAX_FULL_WEIGHTS = 20_000  # parameters; their square is 1.6 GB in float32
# numbers in the Jacobian of a block, 16 MiB in float32; laplace-torch makes some copies
_JACOBIAN_NUMBERS = 2**22


class LastLayerLaplace:
    """Laplace approximation of a linear head: a Gaussian ``N(w, (G + p I)^-1)`` over its weights.

    ``G`` is the generalized Gauss-Newton matrix of the summed cross-entropy at the trained weights ``w``, ``p`` the
    precision of the prior ``N(0, I / p)``. A logit is then Gaussian too, with variance ``J (G + p I)^-1 J^T``.

    Args:
        head: The linear layer that makes the logits; copied.
        structure: Form of ``G``: ``kron`` (one Kronecker product per layer), ``full`` or ``diag``.
        prior_precision: ``p``; None: the one with the highest marginal likelihood of the training part, which each fit
            chooses, and which the attribute holds then.
        link: From Gaussian logits to probabilities: ``probit`` (each logit shrunk by its variance), ``mc`` (mean
            softmax of draws) or ``bridge`` (the matching Dirichlet).
        samples: Number of draws for ``mc``.
        seed: Seed of these draws.

    State:
        The posterior, after :meth:`fit`. Global generators are left as they were.

    Raises:
        InputError: For a head that is not a linear layer, options out of range, or ``full`` with more than 20,000
            weights.
        MissingExtraError: Without laplace-torch.

    Note:
        The posterior is that under cross-entropy. After training with another loss, or with early stopping, the weights
        are not its maximum, and the Gaussian is still centered on them. The matrix ``G`` of ``kron`` is summed over
        batches, so it depends slightly on their size.

    Example:
        >>> LastLayerLaplace(nn.Linear(3, 2), structure="full").num_weights
        8
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        structure: Structure = "kron",
        prior_precision: float | None = None,
        link: Link = "probit",
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        if not isinstance(head, nn.Linear):
            raise InputError(
                "the head must be a linear layer",
                type(head).__name__,
                "Pass the layer that computes the logits.",
            )
        self.structure = check_choice("structure", structure, get_args(Structure))
        self.link = check_choice("link", link, get_args(Link))
        self.samples = check_count("samples", samples)
        self.seed = check_count("seed", seed, low=0)
        if prior_precision is not None:
            check_number("prior_precision", prior_precision, low=0, low_open=True)
        self.prior_precision = self._given_precision = prior_precision
        self.num_weights = sum(parameter.numel() for parameter in head.parameters())
        # The matrix is (weights, weights): its inverse would not fit memory.
        if structure == "full" and self.num_weights > _MAX_FULL_WEIGHTS:
            raise InputError(
                f"structure=full requires a head of at most {_MAX_FULL_WEIGHTS:,} weights",
                f"{self.num_weights:,}",
                "Choose structure=kron.",
            )
        self._head = copy.deepcopy(head).requires_grad_(True)
        self._posterior: Any = None

    @check_argument_types
    def fit(self, train: Predictions, *, batch_size: int = 512) -> LastLayerLaplace:
        """Fit the posterior to the features and labels of the training part; return ``self``.

        Args:
            train: Predictions on the training part without augmentation, with ``features``.
            batch_size: Samples per batch.

        Raises:
            InputError: Without features, with features of another size than the head's input, or if the head does
                not map them to the logits.
        """
        check_count("batch_size", batch_size)
        features = _check_features(train, self._head)
        _check_logits(train, features, self._head)
        with ignore_warnings:  # of its imports, and of a default that is chosen here
            laplace = require("laplace", extra="uncertainty")
            posterior = laplace.Laplace(
                nn.Sequential(self._head),
                "classification",
                subset_of_weights="all",  # of the head, the only module that it receives
                hessian_structure=self.structure,
                prior_precision=1.0 if self._given_precision is None else self._given_precision,
            )
            posterior.fit(
                DataLoader(TensorDataset(features, train.tensors().target), batch_size=batch_size)
            )
            if self._given_precision is None:
                posterior.optimize_prior_precision(method="marglik")
                self.prior_precision = float(posterior.prior_precision)
        # laplace-torch differentiates every logit of a batch with respect to every row: memory grows with its square.
        posterior.backend.jacobians = self._jacobians
        self._posterior = posterior
        return self

    @property
    def covariance_size(self) -> int:
        """Number of free parameters of the covariance."""
        if self.structure == "diag":
            return self.num_weights
        kron = [self._head.in_features, self._head.out_features]
        return sum(
            side * (side + 1) // 2
            for side in ([self.num_weights] if self.structure == "full" else kron)
        )

    @property
    def log_marginal_likelihood(self) -> float:
        """Log marginal likelihood of the training part, in nats.

        Raises:
            InputError: Before :meth:`fit`.
        """
        return float(self._require_fitted().log_marginal_likelihood())

    @check_argument_types
    def predict(self, predictions: Predictions) -> Predictions:
        """Return predictions whose logits are the log of the mean probabilities under the posterior.

        Args:
            predictions: Predictions with ``features``.

        Raises:
            InputError: Before :meth:`fit`; or for features that are missing or of another size.
        """
        posterior = self._require_fitted()
        features = _check_features(predictions, self._head)
        # In blocks, because the Jacobian takes rows * C * weights numbers.
        rows = max(1, _JACOBIAN_NUMBERS // (self._head.out_features * self.num_weights))
        devices = [features.device] if features.is_cuda else []
        with ignore_warnings, torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            probs = torch.cat([
                posterior(block, pred_type="glm", link_approx=self.link, n_samples=self.samples)
                for block in features.split(rows)
            ])  # fmt: skip
        # A class of probability 0 gets a finite logit.
        tiny = torch.finfo(probs.dtype).tiny
        return predictions.with_logits(probs.clamp_min(tiny).log().to(predictions.tensors().logits))

    def _jacobians(self, features: Tensor, **_options: Any) -> tuple[Tensor, Tensor]:
        """Return the derivatives ``(n, C, P)`` of the logits with respect to weights and bias, and the logits."""
        identity = torch.eye(self._head.out_features).to(features)
        derivatives = torch.einsum("ck,nd->nckd", identity, features).flatten(2)
        if self._head.bias is not None:
            derivatives = torch.cat([derivatives, identity.expand(len(features), -1, -1)], dim=2)
        return derivatives, self._head(features)

    def _require_fitted(self) -> Any:
        if self._posterior is None:
            raise InputError(
                "the head must be fitted", "an unfitted head", "Call fit(train) first."
            )
        return self._posterior


def _check_features(predictions: Predictions, head: nn.Linear) -> Tensor:
    """Return the features ``(N, D)`` on the head's device, or raise InputError if their size is wrong."""
    features = predictions.tensors().features
    if features is None or features.shape[1] != head.in_features:
        raise InputError(
            f"predictions must have features (N, {head.in_features}) like the head's input",
            "none" if features is None else tuple(features.shape),
            "Predict with features=True.",
        )
    return features.to(head.weight)


def _check_logits(predictions: Predictions, features: Tensor, head: nn.Linear) -> None:
    with torch.no_grad():
        logits = head(features[:512])
    saved = predictions.tensors().logits[:512].to(logits)
    if logits.shape == saved.shape and torch.allclose(
        logits, saved, rtol=0.01, atol=0.01 * float(1 + saved.std())
    ):
        return
    raise InputError(
        "the head must map the features to the logits",
        f"logits {tuple(saved.shape)} that differ from the output of {head}",
        "Pass the layer that computes the logits, and predictions of its model.",
    )
