"""What a model says of images whose labels it does not know: predictions without a target, in a file of their own."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas._core.files import write_atomically
from fedlas.predictions import Predictions

_SCORE = "score_"


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of ``N`` samples.

    There is no target: labels of another data set are no classes of the model, and a file that had any would pass for
    predictions that can be evaluated.

    Args:
        logits: ``(N, C)``, finite.
        features: Input of the classifier head ``(N, D)``, or None.
        scores: Scores ``(N,)`` that took more than these to compute, by name.

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
        target = torch.zeros(len(self.logits) if isinstance(self.logits, Tensor) else 0, dtype=torch.int64)
        checked = Predictions(self.logits, target, features=self.features)
        object.__setattr__(self, "logits", checked.logits)
        object.__setattr__(self, "features", checked.features)
        for name, value in self.scores.items():
            if value.shape != (self.num_samples,) or not bool(torch.isfinite(value).all()):
                raise InputError(
                    "Outputs",
                    f"score {name} must be finite ({self.num_samples},)",
                    describe(value),
                    "Pass one score for each row of logits.",
                )

    @property
    def num_samples(self) -> int:
        """``N``."""
        return int(self.logits.shape[0])

    @classmethod
    def of(cls, predictions: Predictions) -> Outputs:
        """The same without the labels."""
        return cls(predictions.logits, predictions.features)

    def save(self, path: str | Path, *, about: Mapping[str, Any]) -> Path:
        """Write ``path`` (``.npz``) atomically and return it.

        Args:
            path: The file.
            about: What it was made of, JSON values; :meth:`load` gives it back.

        Raises:
            InputError: If the folder cannot be written to.
        """
        arrays: dict[str, Any] = {"logits": self.logits.cpu().numpy(), "about": np.array(json.dumps(about))}
        if self.features is not None:
            arrays["features"] = self.features.cpu().numpy()
        arrays |= {_SCORE + name: value.cpu().numpy() for name, value in self.scores.items()}
        return write_atomically(path, lambda file: np.savez(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> tuple[Outputs, dict[str, Any]]:
        """What :meth:`save` wrote, and ``about``.

        Raises:
            InputError: If the file is missing, truncated, or another one.
        """
        path = Path(path)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files if name != "about"}
                about = json.loads(str(archive["about"]))
            scores = {n.removeprefix(_SCORE): torch.from_numpy(v) for n, v in arrays.items() if n.startswith(_SCORE)}
            features = arrays.get("features")
            return (
                cls(
                    torch.from_numpy(arrays["logits"]), None if features is None else torch.from_numpy(features), scores
                ),
                dict(about),
            )
        except InputError:
            raise
        except (
            OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error
        ) as error:  # fmt: skip
            raise InputError(
                "Outputs.load",
                "the file must be an .npz that Outputs.save wrote",
                f"{path} ({type(error).__name__}: {error})",
                "Remove it, and it is made again.",
            ) from error
