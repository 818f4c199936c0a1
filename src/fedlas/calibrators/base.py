"""The contract of a post-hoc calibrator, and the registry of calibrators."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from torch import Tensor

from fedlas._core.check import CalibrationWarning, InputError, check_count
from fedlas._core.files import read_json, write_json
from fedlas._core.registry import Registry
from fedlas.calibrators._fit.doubts import absent_classes, joined, unchanged
from fedlas.calibrators._fit.parameters import fitted
from fedlas.calibrators._fit.rowwise import map_rows
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions

__all__ = ["CALIBRATORS", "CalibrationWarning", "Calibrator"]

CALIBRATORS: Registry[type[Calibrator]] = Registry("calibrator")
"""Calibrator classes, constructible without arguments.

Metadata: ``title`` (column head in tables), ``paper``, ``year``, ``url``; ``packages``, the optional ones that a fit
needs; ``part``, the file of a run's predictions folder that it is fitted on (``"val"`` by default).
"""

_FORMAT = "fedlas.calibrator/1"


class Calibrator(ABC):
    """A map of logits with parameters that are fitted on held-out predictions.

    A subclass writes ``_fit``, ``_transform``, ``_state`` and ``_restore``, registers itself in :data:`CALIBRATORS` and
    declares whether it keeps the arg-max. Arguments of its constructor are attributes of the same name. A subclass that
    needs more than logits writes ``_transform_predictions`` instead of ``_transform`` and lists the rest in ``needs``.

    Attributes:
        keeps_argmax: Class attribute: whether ``transform`` leaves the accuracy unchanged. (Logits that differ in the
            last bit may become equal in floating point, and of equal logits the first is predicted.)
        needs: Class attribute: what predictions must hold in addition to logits and target, out of ``{"features"}``.
        num_classes: ``C`` of the predictions it was fitted on; None before.
        num_features: ``D`` of their features if it needs them, else None.

    State:
        Changed by ``fit`` only, and only if the fit succeeds. Not a ``torch.nn.Module``: no gradient flows through it.
    """

    keeps_argmax: ClassVar[bool]
    needs: ClassVar[frozenset[str]] = frozenset()
    num_classes: int | None = None
    num_features: int | None = None

    def __repr__(self) -> str:
        return f"{self._owner}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"

    def fit(self, val: Predictions) -> Self:
        """Fit the parameters on ``val``, which must be neither training nor test data; return ``self``.

        Raises:
            InputError: If ``val`` is not :class:`~fedlas.Predictions`, or lacks what the calibrator needs.

        Note:
            Warns (:class:`CalibrationWarning`) if the fit succeeded but deserves a look, or if ``val`` has weights: a
            fit counts every sample once.
        """
        owner = f"{self._owner}.fit"
        num_features = self._check_needs(owner, check_predictions(owner, val))
        doubt = self._fit(val)
        self.num_classes, self.num_features = val.num_classes, num_features
        if val.weights is not None:
            text = f"{owner}: val should have no weights; every sample counted once in the fit, whatever its weight"
            warnings.warn(text, CalibrationWarning, stacklevel=2)
        if doubt is not None:
            warnings.warn(f"{self._owner}: {doubt}", CalibrationWarning, stacklevel=2)
        return self

    def transform(self, test: Predictions) -> Predictions:
        """The same samples with calibrated logits, of the same dtype and on the same device.

        Raises:
            InputError: Before ``fit``, or if the number of classes (or of features, where they are needed) differs from
                that of the fit.
        """
        owner = f"{self._owner}.transform"
        check_predictions(owner, test)
        num_classes = fitted(owner, self.num_classes)
        num_features = self._check_needs(owner, test)
        for name, expected, given, shape in (
            ("logits", num_classes, test.num_classes, tuple(test.logits.shape)),
            ("features", self.num_features, num_features, f"(N, {num_features})"),
        ):
            if given != expected:
                raise InputError(
                    owner,
                    f"{name} must be (N, {expected}) like those it was fitted on",
                    shape,
                    "Fit it on predictions of the same model.",
                )
        return test.with_logits(self._transform_predictions(test))

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrator to ``path`` as JSON, atomically, and return the path.

        Raises:
            InputError: Before ``fit``, or if the folder is not writable.
        """
        content = {
            "format": _FORMAT,
            "calibrator": self._registry_name(),
            "num_classes": fitted(f"{self._owner}.save", self.num_classes),
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
        """Fit the parameters; on failure, leave them as they were. Return the text of a warning, or None."""

    def _transform(self, logits: Tensor) -> Tensor:
        """Calibrated logits ``(N, C)``. A subclass writes this, or :meth:`_transform_predictions` in its place."""
        raise NotImplementedError(f"{self._owner} must define _transform or _transform_predictions")

    def _transform_predictions(self, test: Predictions) -> Tensor:
        """Calibrated logits ``(N, C)`` from logits and features; the labels must not be used."""
        return self._transform(test.logits)

    def _arguments(self) -> dict[str, Any]:
        """The constructor's arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _options(self) -> dict[str, Any]:
        """Arguments that construct an equal, unfitted calibrator; JSON values."""
        return self._arguments()

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """The fitted parameters; JSON values (finite numbers, lists of them, strings)."""

    @abstractmethod
    def _restore(self, state: dict[str, Any]) -> None:
        """Adopt the parameters that :meth:`_state` gave; ``KeyError``, ``TypeError`` or ``ValueError`` if unfit.

        ``num_classes`` and ``num_features`` are set by then, so that shapes can be checked.
        """

    @property
    def _owner(self) -> str:
        return type(self).__name__

    def _check_needs(self, owner: str, predictions: Predictions) -> int | None:
        """Number of features if they are needed, else None."""
        if "features" not in self.needs:
            return None
        if predictions.features is None or predictions.features.numel() == 0:
            raise InputError(
                owner,
                "predictions must hold features",
                "predictions without",
                "Run with train.save_features=true, or make them with fedlas.predict(..., features=True).",
            )
        return int(predictions.features.shape[1])

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


M = TypeVar("M", bound=Callable[[Tensor], Tensor])


class MappedCalibrator(Calibrator, Generic[M]):
    """A calibrator whose fitted state is one function of rows of logits, ``(n, C)`` to ``(n, C)`` in float64.

    A subclass writes ``_fitted_map``, ``_state`` and ``_restore``; the latter sets ``_map``.
    """

    _map: M | None = None
    _per_class: ClassVar[bool] = True
    """Whether it has parameters for each class, so that a class without samples deserves a warning."""

    @abstractmethod
    def _fitted_map(self, val: Predictions) -> tuple[M, list[str | None]]:
        """The function fitted on ``val``, and what to warn about besides absent classes and a fit without effect."""

    def _fitted(self, attribute: str) -> M:
        """The fitted function, for the property of that name."""
        return fitted(f"{self._owner}.{attribute}", self._map)

    def _fit(self, val: Predictions) -> str | None:
        self._map, doubts = self._fitted_map(val)
        return joined(*doubts, absent_classes(val) if self._per_class else None, unchanged(val, self._calibrate))

    def _transform(self, logits: Tensor) -> Tensor:
        return map_rows(logits, self._calibrate)

    def _calibrate(self, rows: Tensor) -> Tensor:
        return self._fitted("transform")(rows)


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
