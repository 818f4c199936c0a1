"""Outputs of a model for images of other data sets: predictions without targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.arrays import open_arrays, write_arrays
from fedlas._core.check import InputError, check_logits, describe, is_dense
from fedlas._core.files import parse_json, to_path
from fedlas._core.kinds import check_argument_types
from fedlas.predictions import Predictions

__all__ = ["Outputs"]

_SCORE_PREFIX = "score_"


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of a model for ``N`` samples, without targets.

    There is no target: labels of another data set are not classes of the model, and with a target the file could be
    mistaken for predictions to evaluate.

    Args:
        logits: ``(N, C)``, finite.
        features: Input of the classifier head ``(N, D)``, or None.
        scores: Scores ``(N,)`` by name that cannot be computed from logits and features.

    Raises:
        InputError: For wrong shapes or dtypes, values that are not finite, or no samples.

    Example:
        >>> Outputs(torch.zeros(3, 2)).num_samples
        3
    """

    logits: Tensor
    features: Tensor | None = None
    scores: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = Predictions(check_logits(self.logits), features=self.features)
        object.__setattr__(self, "logits", checked.tensors().logits)
        object.__setattr__(self, "features", checked.tensors().features)
        scores: Any = self.scores
        if not isinstance(scores, Mapping):
            fix = "Pass them by name, such as {'odin': scores}."
            raise InputError("scores must be a mapping", describe(scores), fix)
        for name, value in self.scores.items():
            shaped = is_dense(value) and value.shape == (self.num_samples,)
            if not shaped or not bool(torch.isfinite(value.double()).all()):
                raise InputError(
                    f"score {name} must be finite and of shape ({self.num_samples},)",
                    describe(value),
                    "Pass one score for each row of logits.",
                )

    @property
    def num_samples(self) -> int:
        """Number of samples ``N``."""
        return int(self.logits.shape[0])

    @classmethod
    @check_argument_types
    def from_predictions(cls, predictions: Predictions) -> Outputs:
        """Return the logits and features of ``predictions`` as outputs, without the labels."""
        return cls(predictions.tensors().logits, predictions.tensors().features)

    @check_argument_types
    def save(self, path: str | Path, *, about: Mapping[str, Any]) -> Path:
        """Write the outputs atomically to an ``.npz`` file, and return its path.

        Args:
            path: The file.
            about: Origin of the outputs as JSON values; :meth:`load` returns it.

        Raises:
            InputError: If another file is there, or the folder is not writable.
        """
        arrays: dict[str, Any] = {
            "logits": self.logits.cpu().numpy(),
            "about": np.array(json.dumps(about)),
        }
        if self.features is not None:
            arrays["features"] = self.features.cpu().numpy()
        arrays |= {_SCORE_PREFIX + name: value.cpu().numpy() for name, value in self.scores.items()}
        return write_arrays(path, arrays, "a file of Outputs", {"logits", "about"}.issubset)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Outputs, dict[str, Any]]:
        """Read the outputs and ``about`` from a file written by :meth:`save`.

        Raises:
            InputError: If the file is missing, truncated, or was not written by :meth:`save`.
        """
        path = to_path(path)
        try:
            with open_arrays(path) as archive:
                arrays = {name: archive[name] for name in archive.names if name != "about"}
                about = parse_json(str(archive["about"]))
            scores = {
                n.removeprefix(_SCORE_PREFIX): torch.from_numpy(v)
                for n, v in arrays.items()
                if n.startswith(_SCORE_PREFIX)
            }
            features = arrays.get("features")
            return (
                cls(
                    torch.from_numpy(arrays["logits"]),
                    None if features is None else torch.from_numpy(features),
                    scores,
                ),
                dict(about),
            )
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                "the file must be an .npz written by Outputs.save",
                f"{path} ({type(error).__name__}: {error})",
                "Remove the file, so that it is written again.",
            ) from error
