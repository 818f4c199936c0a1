"""Laplace approximation of the last layer: a Gaussian over the head's weights around those trained; by laplace-torch.

Source:
    Daxberger, Kristiadi, Immer, Eschenhagen, Bauer, Hennig: Laplace Redux - Effortless Bayesian Deep Learning,
    NeurIPS 2021, sections 2 and 4.1. https://arxiv.org/abs/2106.14806
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas._core.check import InputError, check_choice, check_count, check_number
from fedlas._core.extras import require
from fedlas.predictions import Predictions

STRUCTURES = ("kron", "full", "diag")
LINKS = ("probit", "mc", "bridge")

_MOST_FULL = 20_000  # parameters; their square is 1.6 GB in float32
_JACOBIAN_NUMBERS = 2**25  # numbers in the Jacobian of a batch, 128 MB in float32


class LastLayerLaplace:
    """Gaussian ``N(w, (G + p I)^-1)`` over the weights of a linear head, and what it predicts.

    ``G`` is the generalised Gauss-Newton matrix of the summed cross-entropy at the trained weights ``w``, ``p`` the
    precision of the prior ``N(0, I / p)``. A logit is then Gaussian too, with variance ``J (G + p I)^-1 J^T``.

    Args:
        head: The linear layer that makes the logits; copied.
        structure: Form of ``G``: ``kron`` (one Kronecker product a layer), ``full`` or ``diag``.
        prior_precision: ``p``; None maximises the marginal likelihood of the training part.
        link: How probabilities come from Gaussian logits: ``probit`` (each logit shrunk by its variance), ``mc`` (mean
            softmax of draws) or ``bridge`` (the Dirichlet that matches them).
        samples: Draws for ``mc``.
        seed: Of these draws.

    State:
        The posterior, after :meth:`fit`. Global generators are left as they were.

    Raises:
        InputError: For another head than a linear layer, options out of range, or ``full`` with more than 20,000
            weights.
        MissingExtraError: Without laplace-torch.

    Note:
        The approximation is of the posterior under cross-entropy. After training with another loss, or with early
        stopping, the weights are no maximum of it, and the Gaussian is centred on them all the same. The matrix ``G``
        of ``kron`` is summed over batches, so it depends a little on their size.

    Example:
        >>> LastLayerLaplace(nn.Linear(3, 2), structure="full").num_weights
        8
    """

    def __init__(
        self,
        head: nn.Module,
        *,
        structure: str = "kron",
        prior_precision: float | None = None,
        link: str = "probit",
        samples: int = 100,
        seed: int = 0,
    ) -> None:
        if not isinstance(head, nn.Linear):
            raise InputError(
                _OWNER, "the head must be a linear layer", type(head).__name__, "Name the layer that makes the logits."
            )
        self.structure = check_choice(_OWNER, "structure", structure, STRUCTURES)
        self.link = check_choice(_OWNER, "link", link, LINKS)
        self.samples = check_count(_OWNER, "samples", samples)
        self.seed = check_count(_OWNER, "seed", seed, low=0)
        if prior_precision is not None:
            check_number(_OWNER, "prior_precision", prior_precision, low=0, low_open=True)
        self.prior_precision = prior_precision
        self.num_weights = sum(parameter.numel() for parameter in head.parameters())
        if structure == "full" and self.num_weights > _MOST_FULL:
            raise InputError(
                _OWNER,
                f"the full matrix takes a head of at most {_MOST_FULL:,} weights",
                f"{self.num_weights:,}",
                "Choose structure=kron.",
            )
        self._head = copy.deepcopy(head).requires_grad_(True)
        self._posterior: Any = None

    def fit(self, train: Predictions, *, batch_size: int = 512) -> LastLayerLaplace:
        """Fit on the head's inputs and labels of the training part; return ``self``.

        Args:
            train: Predictions on the training part without augmentation, with ``features``.
            batch_size: Samples a batch.

        Raises:
            InputError: Without features, with features of another size than the head takes, or if the head does not
                turn them into the logits.
        """
        features = _features(train, self._head)
        _check_logits(train, features, self._head)
        with _quiet():
            laplace = require("laplace", extra="uncertainty")
            posterior = laplace.Laplace(
                nn.Sequential(self._head),
                "classification",
                subset_of_weights="all",  # of the head, which is all that it is given
                hessian_structure=self.structure,
                prior_precision=1.0 if self.prior_precision is None else self.prior_precision,
            )
            posterior.fit(DataLoader(TensorDataset(features, train.target), batch_size=batch_size))
            if self.prior_precision is None:
                posterior.optimize_prior_precision(method="marglik")
                self.prior_precision = float(posterior.prior_precision)
        self._posterior = posterior
        return self

    @property
    def num_kept(self) -> int:
        """Numbers that describe the Gaussian's covariance: of each symmetric matrix, one triangle."""
        sides = {
            "full": [self.num_weights],
            "kron": [self._head.in_features, self._head.out_features],
            "diag": [],
        }[self.structure]
        return sum(side * (side + 1) // 2 for side in sides) if sides else self.num_weights

    @property
    def log_marginal_likelihood(self) -> float:
        """Of the training part, in nats.

        Raises:
            InputError: Before :meth:`fit`.
        """
        return float(self._fitted().log_marginal_likelihood())

    def predict(self, predictions: Predictions) -> Predictions:
        """The same samples with the log of the posterior's mean probabilities as logits.

        Args:
            predictions: Predictions with ``features``.

        Raises:
            InputError: Before :meth:`fit`; or for features that are missing or of another size.
        """
        posterior, features = self._fitted(), _features(predictions, self._head)
        rows = max(1, _JACOBIAN_NUMBERS // (self._head.out_features * self.num_weights))
        devices = [features.device] if features.is_cuda else []
        with _quiet(), torch.no_grad(), torch.random.fork_rng(devices):
            torch.manual_seed(self.seed)
            probs = torch.cat([
                posterior(chunk, pred_type="glm", link_approx=self.link, n_samples=self.samples)
                for chunk in features.split(rows)
            ])  # fmt: skip
        tiny = torch.finfo(probs.dtype).tiny
        return predictions.with_logits(probs.clamp_min(tiny).log().to(predictions.logits))

    def _fitted(self) -> Any:
        if self._posterior is None:
            raise InputError(_OWNER, "it must be fitted first", "an unfitted one", "Call fit(train) before.")
        return self._posterior


_OWNER = "last-layer laplace"


def _features(predictions: Predictions, head: nn.Linear) -> Tensor:
    """The head's inputs ``(N, D)``, where the head is."""
    features = predictions.features
    if features is None or features.shape[1] != head.in_features:
        raise InputError(
            _OWNER,
            f"predictions must have features (N, {head.in_features}) like the head's input",
            "none" if features is None else tuple(features.shape),
            "Predict with features=True.",
        )
    return features.to(head.weight)


def _check_logits(predictions: Predictions, features: Tensor, head: nn.Linear) -> None:
    with torch.no_grad():
        logits = head(features[:512])
    given = predictions.logits[:512].to(logits)
    if logits.shape == given.shape and torch.allclose(logits, given, rtol=0.01, atol=0.01 * float(1 + given.std())):
        return
    raise InputError(
        _OWNER,
        "the head must turn the features into the logits",
        f"logits {tuple(given.shape)} that {head} does not make of them",
        "Pass the layer that makes the logits, and predictions of its model.",
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of laplace-torch: on what it imports, and on a default that is chosen here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
