"""What a post-hoc calibrator is: fitted on one set of predictions, it transforms others; and the registry of them."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor

from fedlas._core.check import InputError, check_count
from fedlas._core.files import read_json, write_json
from fedlas._core.registry import Registry
from fedlas.metrics.scan import check_predictions
from fedlas.predictions import Predictions

CALIBRATORS: Registry[type[Calibrator]] = Registry("calibrator")
"""Calibrator classes, constructible without arguments.

Metadata: ``title`` (column head in tables), ``paper``, ``year``, ``url``; ``packages``, the optional ones that a fit
needs; ``part``, the file of a run's predictions folder that it is fitted on (without it ``"val"``).
"""

_FORMAT = "fedlas.calibrator/1"


class CalibrationWarning(UserWarning):
    """A calibrator was fitted, and the result should be looked at before it is used."""


class Calibrator(ABC):
    """A map of logits with parameters that are fitted on held-out predictions.

    A subclass writes ``_fit``, ``_transform``, ``_options``, ``_state`` and ``_restore``, registers itself in
    :data:`CALIBRATORS` and says whether it keeps the arg-max. One that looks at more than logits writes
    ``_transform_predictions`` instead of ``_transform``, and names in ``needs`` what else it looks at.

    Attributes:
        keeps_argmax: Class attribute: whether accuracy is the same after ``transform``. (Logits that differ in the last
            bit may become equal in floating point, and of equal logits the first is predicted.)
        needs: Class attribute: what predictions must hold beside logits and target, out of ``{"features"}``.
        num_classes: ``C`` of the predictions it was fitted on; None before.
        num_features: ``D`` of their features if it needs them, else None.

    State:
        Changed by ``fit`` only, and only if the fit succeeds. Not a ``torch.nn.Module``: nothing here is trained on.
    """

    keeps_argmax: ClassVar[bool]
    needs: ClassVar[frozenset[str]] = frozenset()
    num_classes: int | None = None
    num_features: int | None = None

    def fit(self, val: Predictions) -> Self:
        """Fit the parameters on ``val``, which must be neither training nor test data; return ``self``.

        Raises:
            InputError: If ``val`` are no :class:`~fedlas.Predictions`, or lack what the calibrator needs.

        Note:
            Warns (:class:`CalibrationWarning`) if the fit succeeded and yet deserves a look.
        """
        owner = f"{self._owner}.fit"
        num_features = self._check_needs(owner, check_predictions(owner, val))
        doubt = self._fit(val)
        self.num_classes, self.num_features = val.num_classes, num_features
        if doubt is not None:
            warnings.warn(f"{self._owner}: {doubt}", CalibrationWarning, stacklevel=2)
        return self

    def transform(self, test: Predictions) -> Predictions:
        """The same samples with calibrated logits, of the same dtype and on the same device.

        Raises:
            InputError: Before ``fit``, or if the number of classes (or of features, where they are needed) is another
                one than ``fit`` saw.
        """
        owner = f"{self._owner}.transform"
        check_predictions(owner, test)
        fitted = self._check_fitted(owner)
        if test.num_classes != fitted:
            raise InputError(
                owner,
                f"logits must be (N, {fitted}) like those it was fitted on",
                tuple(test.logits.shape),
                "Fit it on predictions of the same model.",
            )
        num_features = self._check_needs(owner, test)
        if num_features != self.num_features:
            raise InputError(
                owner,
                f"features must be (N, {self.num_features}) like those it was fitted on",
                f"(N, {num_features})",
                "Fit it on predictions of the same model.",
            )
        return test.with_logits(self._transform_predictions(test))

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrator to ``path`` as JSON, atomically, and return it.

        Raises:
            InputError: Before ``fit``, or if the folder cannot be written to.
        """
        content = {
            "format": _FORMAT,
            "calibrator": self._registry_name(),
            "num_classes": self._check_fitted(f"{self._owner}.save"),
            **({} if self.num_features is None else {"num_features": self.num_features}),
            "options": self._options(),
            "state": self._state(),
        }
        return write_json(path, content)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibrator written by :meth:`save`; plain JSON, so a file from a stranger cannot run code.

        ``Calibrator.load`` reads any registered calibrator, a subclass only its own kind.

        Raises:
            InputError: If the file is missing or malformed, or holds another calibrator.
        """
        owner = f"{cls.__name__}.load"
        content = _read(owner, Path(path))
        kind = CALIBRATORS[content["calibrator"]].value
        if not issubclass(kind, cls):
            raise InputError(
                owner,
                f"the file must hold a {cls.__name__}",
                f"{kind.__name__} in {path}",
                f"Load it with {kind.__name__}.load or Calibrator.load.",
            )
        try:
            calibrator = kind(**content["options"])
            calibrator.num_classes = content["num_classes"]
            if "features" in kind.needs:
                calibrator.num_features = check_count(owner, "num_features", content["num_features"])
            calibrator._restore(content["state"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                owner, f"the file must hold the state of a {kind.__name__}", f"{path} ({error})", "Save it again."
            ) from error
        return calibrator

    @abstractmethod
    def _fit(self, val: Predictions) -> str | None:
        """Fit the parameters; on failure, leave them as they were. Return what to warn of, or None."""

    def _transform(self, logits: Tensor) -> Tensor:
        """Calibrated logits ``(N, C)``. A subclass writes this, or :meth:`_transform_predictions` in its place."""
        raise NotImplementedError(f"{self._owner} must define _transform or _transform_predictions")

    def _transform_predictions(self, test: Predictions) -> Tensor:
        """Calibrated logits ``(N, C)``, from more than the logits; labels are not for it to see."""
        return self._transform(test.logits)

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Arguments that construct an equal, unfitted calibrator; JSON values."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """The fitted parameters; JSON values (finite numbers, lists of them, strings)."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Take over the parameters that :meth:`_state` gave; ``KeyError``, ``TypeError`` or ``ValueError`` if unfit.

        ``num_classes`` and ``num_features`` are set by then, so that shapes can be checked.
        """

    @property
    def _owner(self) -> str:
        return type(self).__name__

    def _check_needs(self, owner: str, predictions: Predictions) -> int | None:
        """Number of features if they are needed, else None."""
        missing = [name for name in sorted(self.needs) if not _holds(predictions, name)]
        if missing:
            raise InputError(
                owner,
                f"predictions must hold {' and '.join(missing)}",
                "some without",
                "Run with train.save_features=true, or make them with fedlas.predict(..., features=True).",
            )
        features = predictions.features
        return int(features.shape[1]) if "features" in self.needs and features is not None else None

    def _check_fitted(self, owner: str) -> int:
        if self.num_classes is None:
            raise InputError(owner, "the calibrator must be fitted first", "an unfitted one", "Call fit(val) before.")
        return self.num_classes

    def _registry_name(self) -> str:
        for entry in CALIBRATORS.entries():
            if entry.value is type(self):
                return entry.name
        raise InputError(
            f"{self._owner}.save",
            "the class must be registered, so that load can find it",
            f"names {', '.join(CALIBRATORS)}",
            'Decorate it with @CALIBRATORS.register("name").',
        )


def _holds(predictions: Predictions, name: str) -> bool:
    value = getattr(predictions, name)
    return value is not None and value.numel() > 0


def _read(owner: str, path: Path) -> dict[str, Any]:
    """The content of a calibrator file, its outer fields checked."""
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise InputError(owner, "the file must exist", path, "Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            owner, "the file must be JSON written by Calibrator.save", f"{path} ({error})", "Save it again."
        ) from error
    kinds = {"calibrator": str, "num_classes": int, "options": dict, "state": dict}
    if (
        not isinstance(content, dict)
        or content.get("format") != _FORMAT
        or not all(isinstance(content.get(name), kind) for name, kind in kinds.items())
        or content["num_classes"] < 1
    ):
        raise InputError(
            owner,
            f"the file must have format {_FORMAT!r} with {', '.join(kinds)}",
            f"{path} without",
            "Write it with Calibrator.save of this version.",
        )
    return content
