"""What a classifier said about a test set: the seam between models and everything that measures them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.arrays import open_arrays
from fedlas._core.check import CalibrationWarning, InputError, check_dense, check_finite, check_logits, describe
from fedlas._core.files import write_atomically
from fedlas.predictions.probabilities import are_probabilities, logits_from
from fedlas.predictions.top_label import TopLabel, needs_all_classes


@dataclass(frozen=True, eq=False)
class Predictions:
    """Logits and labels of one data set, checked once, with the usual derived quantities.

    Args:
        logits: Raw scores ``(N, C)``, finite, between -1.3e30 and 1.3e30; a dense tensor on a real device, or anything
            ``torch.as_tensor`` takes. Half precision becomes float32 so that every metric has at least that.
            :mod:`fedlas.checks` says which numbers are accepted.
        target: Class of each sample ``(N,)``, integers in ``[0, C)``; stored as int64.
        features: Optional input of the classifier head, ``(N, D)`` with ``D > 0``; numbers as in ``logits``.
        label_probs: Optional true class probabilities ``(N, C)``, rows summing to 1 within 0.001; known for synthetic
            data only. With them the calibration error can be computed free of label noise.

    Raises:
        InputError: For wrong shapes, dtypes or layouts, NaN, infinite or too large values, labels out of range,
            label_probs that are no probabilities, or no samples at all.

    Note:
        Logits that are all in [0, 1] with rows that sum to 1 are almost surely probabilities: a
        :class:`~fedlas.errors.CalibrationWarning` says so.

        Immutable. ``probs``, ``confidence``, ``predicted`` and ``correct`` are computed at first use and kept;
        ``probs`` is as large as ``logits``, so code for large arrays should work on chunks of ``logits`` instead.

    Example:
        >>> p = Predictions([[2.0, 0.0], [0.0, 1.0]], [0, 0])
        >>> p.num_samples, p.num_classes, p.correct.tolist()
        (2, 2, [True, False])
    """

    logits: Tensor
    target: Tensor
    features: Tensor | None = None
    label_probs: Tensor | None = None

    def __post_init__(self) -> None:
        logits = check_logits("Predictions", _detached("logits", self.logits))
        if logits.ndim != 2 or logits.shape[0] == 0:
            raise InputError(
                "Predictions",
                "logits must be (N, C) with at least one sample",
                describe(logits),
                "Flatten dense predictions to one row per position.",
            )
        if logits.dtype not in (torch.float32, torch.float64):
            logits = logits.float()
        target = _detached("target", self.target)
        samples, classes = logits.shape
        if (
            target.shape != (samples,)
            or target.is_floating_point()
            or target.is_complex()
            or target.dtype == torch.bool
        ):
            raise InputError(
                "Predictions",
                f"target must be integers of shape ({samples},) like logits {tuple(logits.shape)}",
                describe(target),
                "Pass class indices, not one-hot rows.",
            )
        target = target.to(device=logits.device, dtype=torch.int64)
        low, high = int(target.min()), int(target.max())
        if low < 0 or high >= classes:
            raise InputError(
                "Predictions",
                f"target must be in [0, {classes}) like the {classes} columns of logits",
                f"values from {low} to {high}",
                "Remove ignored positions first, or check the number of classes.",
            )
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
                object.__setattr__(self, name, self._checked_rows(name, _detached(name, value)))

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
        return replace(self, logits=logits)

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (``.npz``) atomically and return it: a reader never sees half a file.

        Raises:
            InputError: If the folder cannot be written to.
        """
        arrays = {name: value.cpu().numpy() for name in _FIELDS if (value := getattr(self, name)) is not None}
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
            >>> Predictions.from_probs([[0.9, 0.1], [0.2, 0.8]], [0, 0]).confidence.tolist()
            [0.9, 0.8]
        """
        logits = logits_from("Predictions.from_probs", _detached("probs", probs), normalize=normalize)
        return cls(logits, target, **others)

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read a file written by :meth:`save`, or any ``.npz`` with arrays ``logits`` and ``target``.

        Pickled objects are refused, so a file from a stranger cannot run code.

        Raises:
            InputError: If the file is missing, is not an ``.npz``, is truncated, or lacks an array.
        """
        path = Path(path)
        arrays: dict[str, Any] = {}
        try:
            with open_arrays(path) as archive:
                missing = [name for name in ("logits", "target") if name not in archive]
                if missing:
                    raise InputError(
                        "Predictions.load",
                        "the file must hold arrays 'logits' and 'target'",
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


_FIELDS = ("logits", "target", "features", "label_probs")


def _detached(name: str, value: Any) -> Tensor:
    if isinstance(value, Tensor):
        check_dense("Predictions", name, value)
        return value.detach()
    try:
        array = np.asarray(value)
        # PyTorch takes neither foreign byte order nor negative strides, and warns of read-only memory: copy only then.
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:  # text, objects, rows of different lengths, more bits than torch has
        raise InputError(
            "Predictions",
            f"{name} must be numbers that a tensor can hold",
            describe(value),
            "Pass a tensor, or a NumPy array of a common dtype.",
        ) from error


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
    """Return ``predictions`` if the top label of each sample can be measured: Predictions, or a TopLabel.

    Raises:
        InputError: Otherwise.
    """
    return predictions if isinstance(predictions, TopLabel) else check_predictions(owner, predictions)
