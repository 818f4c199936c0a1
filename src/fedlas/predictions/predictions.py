"""What a classifier said about a test set: the seam between models and everything that measures them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.arrays import open_arrays
from fedlas._core.check import CalibrationWarning, InputError, check_finite, check_logits, describe
from fedlas._core.files import write_atomically
from fedlas.predictions.given import detached
from fedlas.predictions.labels import Target, checked_target, no_labels
from fedlas.predictions.probabilities import are_probabilities, logits_from
from fedlas.predictions.top_label import TopLabel, needs_all_classes
from fedlas.predictions.weights import check_weights


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of one data set, checked once, with the usual derived quantities.

    Args:
        logits: Raw scores ``(N, C)``, finite, between -1.3e30 and 1.3e30; a dense tensor on a real device, or anything
            ``torch.as_tensor`` takes. Half precision becomes float32 so that every metric has at least that.
            :mod:`fedlas.checks` says which numbers are accepted.
        target: Class of each sample ``(N,)``, integers in ``[0, C)``; stored as int64. None if the labels are unknown,
            as where a model is used: such predictions can be calibrated, scored and saved. Whatever needs the labels
            reads ``target``, which then raises an InputError; ``has_target`` says whether they are there.
        features: Optional input of the classifier head, ``(N, D)`` with ``D > 0``; numbers as in ``logits``.
        label_probs: Optional distribution of each sample's label ``(N, C)``, rows summing to 1 within 0.001: the true
            one of synthetic data, or how annotators voted. Metrics that need it are free of the noise of one label.
        weights: Optional weight of each sample ``(N,)``, finite and at least 0, not all 0; kept in float64 on the CPU.
            Metrics, intervals and noise floors count a sample by its weight; only ratios of weights matter, and a
            sample of weight 0 is as if it were not there.

    Raises:
        InputError: For wrong shapes, dtypes or layouts, NaN, infinite or too large values, labels out of range,
            label_probs that are no probabilities, weights that are none, or no samples at all.

    Note:
        Logits that are all in [0, 1] with rows that sum to 1 are almost surely probabilities: a
        :class:`~fedlas.errors.CalibrationWarning` says so.

        Immutable. ``probs``, ``confidence``, ``predicted`` and ``correct`` are computed at first use and kept;
        ``probs`` is as large as ``logits``, so code for large arrays should work on chunks of ``logits`` instead.

    Example:
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0])
        >>> p.num_samples, p.num_classes, p.correct.tolist()
        (2, 2, [True, False])
        >>> Predictions([[2.0, 0.0], [0.0, 1.0]])
        Predictions(2 samples, 2 classes, without target)
    """

    logits: Tensor
    target: Target = Target()  # noqa: RUF009 (a descriptor holds nothing itself)
    features: Tensor | None = None
    label_probs: Tensor | None = None
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        logits = check_logits("Predictions", detached("logits", self.logits))
        if logits.ndim != 2 or logits.shape[0] == 0:
            raise InputError(
                "Predictions",
                "logits must be (N, C) with at least one sample",
                describe(logits),
                "Flatten dense predictions to one row per position.",
            )
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        given = vars(self)["target"]
        target = None if given is None else checked_target(detached("target", given), logits)
        check_finite("Predictions", "logits", logits)
        if are_probabilities(logits):
            warnings.warn(
                "Predictions: logits should be scores before the softmax; every row is in [0, 1] and sums to 1, so "
                "these are almost surely probabilities, whose softmax is nearly flat. Pass "
                "Predictions.from_probs(probs, target); on the command line name them with --probs, not --logits.",
                CalibrationWarning,
                stacklevel=3,
            )
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "target", target)
        for name in ("features", "label_probs"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, self._checked_rows(name, detached(name, value)))
        if self.weights is not None:
            object.__setattr__(self, "weights", check_weights(detached("weights", self.weights), self.num_samples))

    def __repr__(self) -> str:
        held = ", ".join(name for name in ("features", "label_probs", "weights") if getattr(self, name) is not None)
        with_held, labels = f" and {held}" if held else "", "with" if self.has_target else "without"
        return f"Predictions({self.num_samples} samples, {self.num_classes} classes, {labels} target{with_held})"

    def _checked_rows(self, name: str, value: Tensor) -> Tensor:
        columns = self.num_classes if name == "label_probs" else "D"
        rows = value.ndim == 2 and value.shape[0] == self.num_samples and value.shape[1] > 0
        rows = rows and columns in ("D", value.shape[1])
        if not rows or value.is_complex():
            raise InputError(
                "Predictions",
                f"{name} must be ({self.num_samples}, {columns})",
                describe(value),
                f"Pass one row of {name} for each row of logits.",
            )
        value = value.to(self.logits.device)
        if name != "label_probs":
            check_finite("Predictions", name, value)
            return value
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        sums = value.sum(dim=1)
        if not bool((value >= 0).all()) or not bool(((sums - 1).abs() <= 1e-3).all()):  # so worded that NaN fails
            raise InputError(
                "Predictions",
                "label_probs must be probabilities in [0, 1], every row summing to 1",
                f"entries from {float(value.min()):.6g} to {float(value.max()):.6g}, rows summing to "
                f"{float(sums.min()):.6g} to {float(sums.max()):.6g}",
                "Pass P(label | x), e.g. label_logits.softmax(1).",
            )
        return value

    @property
    def has_target(self) -> bool:
        """Whether the labels are known."""
        return vars(self)["target"] is not None

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self.logits.shape[0])

    @property
    def num_classes(self) -> int:
        """``C``, the number of columns of the logits."""
        return int(self.logits.shape[1])

    @cached_property
    def probs(self) -> Tensor:
        """Softmax of the logits ``(N, C)``."""
        return self.logits.softmax(dim=1)

    @cached_property
    def predicted(self) -> Tensor:
        """Arg-max class ``(N,)``; the first one among equals."""
        return self.logits.argmax(dim=1)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class ``(N,)``, in ``[1/C, 1]``; the highest of each row of ``probs``.

        The softmax runs on chunks that fit the cache, so ``(N, C)`` probabilities are never held.
        """
        rows = max(1, 2**18 // self.num_classes)
        return torch.cat([chunk.softmax(dim=1).amax(dim=1) for chunk in self.logits.split(rows)])

    @cached_property
    def correct(self) -> Tensor:
        """Whether the predicted class is the label ``(N,)`` bool."""
        return self.predicted == self.target

    def with_logits(self, logits: Tensor) -> Predictions:
        """The same samples with other logits, e.g. after calibration."""
        return type(self)(**{**self._held(), "logits": logits})

    def without_target(self) -> Predictions:
        """The same samples without what is known of their labels, ``target`` and ``label_probs``."""
        return type(self)(**{**self._held(), "target": None, "label_probs": None})

    def _held(self) -> dict[str, Any]:
        """The tensors that are there, by name."""
        return {name: value for name in _FIELDS if (value := vars(self)[name]) is not None}

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (``.npz``) atomically and return it: a reader never sees half a file.

        Raises:
            InputError: If the folder cannot be written to.
        """
        arrays = {name: value.cpu().numpy() for name, value in self._held().items()}
        return write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def from_probs(
        cls, probs: Tensor, target: Tensor, *, normalize: bool = False, **others: Tensor | None
    ) -> Predictions:
        """Predictions of a model that gives probabilities, whose logarithms are logits.

        Args:
            probs: Probabilities of all classes ``(N, C)``, or of the second of two ``(N,)``; a tensor, or an array. A
                row may miss 1 by 0.001, or by what rounding to as many decimals as it has explains; it is then divided
                by its sum. Exact zeros become 1.2e-38.
            target: As in :class:`Predictions`.
            normalize: Divide every row by its sum, whatever that is: for counts, percentages or scores.
            **others: Further arguments of :class:`Predictions`, such as ``features``.

        Raises:
            InputError: If they are no probabilities (the message says whether they look like percentages or logits),
                or as :class:`Predictions`.

        Example:
            >>> Predictions.from_probs([[0.75, 0.25], [0.2, 0.8]], [0, 0]).correct.tolist()
            [True, False]
        """
        logits = logits_from("Predictions.from_probs", detached("probs", probs), normalize=normalize)
        return cls(logits, target, **others)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read a file written by :meth:`save`, or any ``.npz`` with an array ``logits`` and perhaps ``target``.

        Pickled objects are refused, so a file from a stranger cannot run code.

        Raises:
            InputError: If the file is missing, is not an ``.npz``, is truncated, or has no array ``logits``.
        """
        path = Path(path)
        arrays: dict[str, Any] = {}
        try:
            with open_arrays(path) as archive:
                if "logits" not in archive:
                    raise InputError(
                        "Predictions.load",
                        "the file must hold an array 'logits', and 'target' if the labels are known",
                        f"{path} with {sorted(archive.names)}",
                        "Save it with numpy.savez(path, logits=..., target=...).",
                    )
                arrays = {name: archive[name] for name in _FIELDS if name in archive}
        except FileNotFoundError as error:
            raise InputError("Predictions.load", "the file must exist", path, "Check the path.") from error
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(
                "Predictions.load",
                "the file must be an .npz of plain arrays",
                f"{path} ({error})",
                "Write it again with Predictions.save or numpy.savez; pickled objects are refused on purpose.",
            ) from error
        return cls(**arrays)


# What the descriptor takes; help() and the reference show it.
vars(Predictions)["__init__"].__annotations__["target"] = "Tensor | None"
_FIELDS = ("logits", "target", "features", "label_probs", "weights")


def check_labeled(owner: str, predictions: object) -> Predictions:
    """Return ``predictions`` if they are :class:`~fedlas.Predictions` with labels.

    Raises:
        InputError: Otherwise.
    """
    given = check_predictions(owner, predictions)
    if not given.has_target:
        raise no_labels(owner, given.num_samples)
    return given


def check_predictions(owner: str, predictions: object) -> Predictions:
    """Return ``predictions`` if they are :class:`~fedlas.Predictions`.

    Raises:
        InputError: Otherwise.
    """
    if isinstance(predictions, Predictions):
        return predictions
    if isinstance(predictions, TopLabel):
        raise needs_all_classes(owner)
    raise InputError(
        owner, "predictions must be Predictions", describe(predictions), "Wrap arrays: Predictions(logits, target)."
    )


AnyPredictions = Predictions | TopLabel
"""What measures of the top label take."""


def check_measurable(owner: str, predictions: object) -> AnyPredictions:
    """Return ``predictions`` if each sample's top label can be measured: labeled Predictions, or a TopLabel.

    Raises:
        InputError: Otherwise.
    """
    return predictions if isinstance(predictions, TopLabel) else check_labeled(owner, predictions)
