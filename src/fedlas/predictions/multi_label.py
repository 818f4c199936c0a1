"""Predictions of several independent labels a sample, each with a sigmoid of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedlas._core.check import InputError, check_finite, check_logits, describe, suggestion
from fedlas.predictions.arguments import detached
from fedlas.predictions.predictions import Predictions
from fedlas.predictions.sample_values import SAMPLE_VALUES, check_sample_values
from fedlas.predictions.saved import load_arrays, write_fields

UNKNOWN = -100
"""Target of a label that is not known."""


@dataclass(frozen=True, eq=False, repr=False)
class MultiLabel:
    """Logits and labels of samples that may have several labels, or none.

    ``fedlas.report`` measures all labels together and each on its own. Every other measure takes
    :class:`~fedlas.Predictions` of two classes, absent and present: those of one label, or of all labels pooled.

    Args:
        logits: Scores before the sigmoid ``(N, L)``.
        target: 1 where a label is present, 0 where it is absent, -100 where that is unknown ``(N, L)``.
        names: Names of the labels; None numbers them from 0.
        features: Optional input of the classifier head ``(N, D)``.
        weights: Optional weight of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.
        clusters: Optional cluster of each sample ``(N,)``, as in :class:`~fedlas.Predictions`. Without, each sample is
            one where labels are pooled, since labels of one sample are not independent.
        time: Optional time of each sample ``(N,)``, as in :class:`~fedlas.Predictions`.

    Raises:
        InputError: For wrong shapes, values or names.

    Example:
        >>> several = MultiLabel([[2.0, -1.0], [0.5, 1.0]], [[1, 0], [1, -100]], names=("cat", "dog"))
        >>> several.label("dog"), several.pooled().num_samples
        (Predictions(1 samples, 2 classes, with target and clusters), 3)
    """

    logits: Any
    target: Any
    names: Sequence[str] | None = None
    features: Any = None
    clusters: Any = None
    weights: Any = None
    time: Any = None

    def __post_init__(self) -> None:
        values = vars(self)
        logits = check_logits(detached("logits", self.logits)).cpu()
        if logits.ndim != 2 or not logits.numel():
            raise InputError(
                "logits must be (N, L) with at least one sample",
                describe(logits),
                "Pass one column a label.",
            )
        check_finite("logits", logits)
        target = detached("target", self.target).cpu()
        valid = (target == 0) | (target == 1) | (target == UNKNOWN)
        if target.shape != logits.shape or not bool(valid.all()):
            raise InputError(
                f"target must be 0, 1 or {UNKNOWN} for each label, {tuple(logits.shape)}",
                describe(target),
                "Pass a column a label.",
            )
        names = tuple(map(str, range(logits.shape[1]) if self.names is None else self.names))
        if len(names) != logits.shape[1] or len(set(names)) < len(names):
            raise InputError(
                f"names must be {logits.shape[1]} different ones",
                describe(self.names),
                "Name every column once.",
            )
        values.update(logits=logits, target=target.long(), names=names)
        check_sample_values(values, len(logits))

    def __repr__(self) -> str:
        return f"MultiLabel({self.num_samples} samples, {self.num_labels} labels)"

    @property
    def num_samples(self) -> int:
        """``N``."""
        return len(self.logits)

    @property
    def num_labels(self) -> int:
        """``L``."""
        return int(self.logits.shape[1])

    def label(self, name: str | int) -> Predictions:
        """Return predictions of one label, by its name or number: of two classes, absent and present.

        Raises:
            InputError: If there is no such label, or none of its targets is known.
        """
        names = list(self.names or ())
        if isinstance(name, int) and 0 <= name < len(names):
            name = names[name]
        if name not in names:
            raise InputError(
                "the label must be one of these", repr(name), suggestion(str(name), names)
            )
        place = names.index(str(name))
        return self._rows(slice(place, place + 1), f"label {name!r}")

    def pooled(self) -> Predictions:
        """Return predictions of all labels that are known, a row each, sample by sample.

        Raises:
            InputError: If none is known.
        """
        return self._rows(slice(None), "the labels")

    def names_of_rows(self) -> list[str]:
        """Return the name of the label of each row of :meth:`pooled`."""
        places = (self.target != UNKNOWN).nonzero()[:, 1].tolist()
        names = list(self.names or ())
        return [names[place] for place in places]

    def with_logits(self, logits: Tensor) -> MultiLabel:
        """Return the same samples with other logits, e.g. after calibration."""
        return replace(self, logits=logits)

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (``.npz``) atomically, with an array for each attribute, and return it.

        Raises:
            InputError: If another file than one of a ``MultiLabel`` is there, or the folder cannot be written to.
        """
        names = [field.name for field in fields(self)]
        values = {name: value for name, value in vars(self).items() if value is not None}
        return write_fields(path, values, names, "a file of a MultiLabel")

    @classmethod
    def load(cls, path: str | Path) -> MultiLabel:
        """Read a file of :meth:`save`; a file from a stranger cannot run code.

        Raises:
            InputError: If the file is missing or damaged, or has no arrays ``logits`` and ``target``.
        """
        names = [field.name for field in fields(cls)]
        fix = "Save it with MultiLabel.save."
        arrays: dict[str, Any] = load_arrays(path, names, ("logits", "target"), fix)
        if "names" in arrays:
            arrays["names"] = arrays["names"].tolist()
        return cls(**arrays)

    def _rows(self, columns: slice, what: str) -> Predictions:
        logits = self.logits[:, columns]
        target = self.target[:, columns]
        has_label = target != UNKNOWN
        if not bool(has_label.any()):
            raise InputError(
                f"{what} must be known for a sample",
                f"{UNKNOWN} everywhere",
                "Leave the label out.",
            )
        samples = torch.arange(len(logits)).unsqueeze(1).expand_as(target)[has_label]
        score = logits[has_label]
        values_of = {name: getattr(self, name) for name in SAMPLE_VALUES}
        values = {name: value[samples] for name, value in values_of.items() if value is not None}
        return Predictions(
            torch.stack([torch.zeros_like(score), score], dim=1),
            target[has_label],
            **{"clusters": samples} | values,
        )


def check_labels(val: object) -> None:
    """Check that predictions are of several labels.

    Raises:
        InputError: Otherwise.
    """
    if not isinstance(val, MultiLabel):
        fix = "Pass fedlas.MultiLabel(logits, target)."
        raise InputError("val must be a MultiLabel", describe(val), fix)
