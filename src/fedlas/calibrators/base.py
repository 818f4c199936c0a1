"""Base class and registry of the post-hoc calibrators."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args, overload

import numpy as np
from numpy.typing import NDArray

from fedlas._core.abstract import Abstract
from fedlas._core.check import (
    CalibrationWarning,
    InputError,
    check_choice,
    check_count,
    check_number,
    is_tensor,
    warn_user,
)
from fedlas._core.files import write_json
from fedlas._core.outputs import check_output_path, json_kind
from fedlas._core.registry import Registry
from fedlas._core.threads import run_single_threaded
from fedlas.calibrators import HOMES
from fedlas.calibrators._fit.custom_calibrators import (
    FitMap,
    fit_checked_map,
    raise_missing_attribute,
)
from fedlas.calibrators._fit.design_effect import weigh_by_design_effect
from fedlas.calibrators._fit.fit_warnings import (
    absent_classes_warning,
    cluster_warning,
    few_samples_warning,
    join_warnings,
    no_change_warning,
)
from fedlas.calibrators._fit.rowwise import (
    ArrayKind,
    array_kind,
    floor_log_probs,
    map_rows,
    prepare_samples,
    require_features,
    to_predictions,
)
from fedlas.calibrators._fit.state import (
    buffers_to_dict,
    load_map,
    read_saved_json,
    require_fitted,
    require_valid,
)
from fedlas.predictions import Predictions, TopLabel
from fedlas.predictions.any_predictions import require_labels, require_predictions, unwrap_table
from fedlas.predictions.multi_label import MultiLabel, require_multi_label
from fedlas.predictions.tensors import to_tensor

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlas.calibrators._fit.folds import OutOfFold
    from fedlas.calibrators.layer import CalibrationLayer

__all__ = ["CALIBRATORS", "CalibrationWarning", "Calibrator"]

FORMAT = "fedlas.calibrator/1"
CALIBRATOR = json_kind("a file of a calibrator", FORMAT).with_any_suffix
_MAX_CLASSES = 1_000_000
"""Most classes or features of a map that is read from a file: reading applies the map to two rows of this width."""
_OPTIONAL_FIELDS = ("num_features", "top_label", "least_log", "array_of")
"""Fields that a file holds only if they differ from their defaults."""


class CalibratorRegistry(Registry["type[Calibrator]"]):
    """Registry of calibrator classes; the default title of an entry is its capitalized name."""

    def add(self, name: str, value: type[Calibrator], **metadata: Any) -> None:
        """Register a calibrator class under a name; see :meth:`Registry.register`."""
        title = name.replace("-", " ").capitalize()
        super().add(name, value, **{"title": title, "leaves": 0.5, **metadata})


CALIBRATORS = CalibratorRegistry(
    "calibrator",
    lazy_modules=[
        *(f"fedlas.calibrators.{module}" for module in HOMES),
        "fedlas.zoo.semantic_grouping",
    ],
)
"""Calibrator classes, constructible without arguments.

Metadata: ``title`` (column head in tables), ``paper``, ``year``, ``url``; ``packages``, the optional ones that a fit
needs; ``part``, the file of a run's predictions folder to fit on (``"val"`` by default); ``leaves``, the largest share
of a common over-confidence that may remain after calibration (0.5 by default; a contract test checks it).
"""


class Calibrator(Abstract):
    """Base class of post-hoc calibrators: maps of logits that are fitted on held-out predictions.

    A subclass writes :meth:`fit_map`, names the class of the map, ``map_type``, and registers itself in
    :data:`CALIBRATORS`. Arguments of its constructor are attributes of the same name.

    Attributes:
        map_type: Class attribute: the class of the map. A file holds the map's persistent buffers, and its constructor
            takes them by name. Its method ``check(num_classes)``, if it has one, raises a ``ValueError`` for numbers
            that no fit gives.
        keeps_argmax: Class attribute: whether ``transform`` leaves the accuracy unchanged. (Logits that differ in the
            last bit may become equal in floating point, and of equal logits the first is predicted.)
        needs: Class attribute: required fields of predictions besides logits and target, a subset of ``{"features"}``.
            The map then takes rows and features.
        wants: Class attribute: optional fields of predictions that a fit uses if they are there, unless the map's
            ``uses_features`` is False.
        takes_weights: Class attribute: whether a fit supports fractional weights. Otherwise each sample is repeated
            as often as its weight, which must be a whole number.
        per_class: Class attribute: whether each class has parameters, so that one without samples gives a warning.
        enough: Class attribute: a fit warns below this many samples, and below this many samples per class.
        num_classes: ``C`` of the predictions it was fitted on; None before. A :class:`~fedlas.TopLabel` has two: wrong
            and right.
        num_features: ``D`` of the features if the fit used them, else None; :meth:`transform` then needs as many.
        top_label: Whether it was fitted on a :class:`~fedlas.TopLabel`.
        least_log: Floor that log-probabilities are raised to before the map, see :meth:`fit`; None: no floor.
        array_of: Kind of the array that was fitted on, ``"logits"`` or ``"probs"``; None if predictions were.

    State:
        Changed by ``fit`` only, and only if the fit succeeds. Not a ``torch.nn.Module``: no gradient flows through it.
    """

    map_type: ClassVar[type[nn.Module] | None] = None
    keeps_argmax: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    wants: ClassVar[frozenset[str]] = frozenset()
    takes_weights: ClassVar[bool] = True
    per_class: ClassVar[bool] = True
    enough: ClassVar[tuple[int, int]] = (100, 0)
    num_classes: int | None = None
    num_features: int | None = None
    top_label: bool = False
    least_log: float | None = None
    array_of: ArrayKind | None = None
    _map: nn.Module | None = None

    if not TYPE_CHECKING:  # where nothing else has the attribute
        __getattr__ = raise_missing_attribute

    def __repr__(self) -> str:
        return f"{self._owner}({', '.join(f'{name}={value!r}' for name, value in self._arguments().items())})"

    @abstractmethod
    def fit_map(self, val: Predictions, start: nn.Module | None = None) -> nn.Module:
        """Return a map fitted to labeled predictions; the calibrator itself does not change.

        Args:
            val: With labels, and with weights that :meth:`fit` would take.
            start: A map fitted to a superset of ``val``: a warm start, after which a looser tolerance is enough.

        Returns:
            A module that maps float64 logits ``(n, C)`` to calibrated logits. Texts in its attribute ``doubts`` become
            warnings of :meth:`fit`.
        """

    def _map_features(self, row_map: nn.Module, val: Predictions) -> Tensor | None:
        """Return the features ``(N, D)`` that the map needs in addition to logits, or None if it needs none."""
        used = self.needs or (self.wants and val.features is not None)
        return require_features(val) if used and getattr(row_map, "uses_features", True) else None

    def fit_subsets(
        self, val: Predictions, subset_weights: Tensor, start: nn.Module
    ) -> list[nn.Module]:
        """Return one map per weighted subset of the samples; ``auto`` computes out-of-fold predictions with them.

        Args:
            val: All samples, without features.
            subset_weights: Weights of the samples in each subset ``(F, N)``; 0: not in the subset.
            start: The map fitted to all samples.
        """
        maps = []
        for weights in subset_weights:
            inside = weights > 0
            part = val.rows(inside)
            if val.weights is not None:
                part = part._replace_fields(weights=weights[inside])
            maps.append(self.fit_map(part, start))
        return maps

    def fit_labels(self, val: MultiLabel) -> list[Self]:
        """Return one fitted copy per label; each label is a two-class problem, absent or present."""
        require_multi_label(val, "val")
        return [copy.deepcopy(self).fit(val.label(place)) for place in range(val.num_labels)]

    @property
    def map(self) -> Any:
        """The fitted module, from float64 logits ``(n, C)`` to calibrated logits; its buffers are the parameters.

        Raises:
            InputError: Before ``fit``.
        """
        return require_fitted(self._map)

    def fit(self, val: Predictions | TopLabel | Tensor, target: Tensor | None = None) -> Self:
        """Fit to held-out samples, which must be neither training nor test data, and return ``self``.

        Args:
            val: Predictions with labels; a :class:`~fedlas.TopLabel`, whose confidence is calibrated as the probability
                to be right; or an array or tensor: logits or probabilities ``(N, C)``, or probabilities of the second
                of two classes ``(N,)``. Rows in [0, 1] that sum to 1 are probabilities.
            target: The labels ``(N,)`` if ``val`` is an array.

        Raises:
            InputError: If ``val`` is something else, or lacks labels or features that are needed.

        Note:
            A sample of weight 2 counts as two samples. Weights that are not whole numbers are scaled to sum to as many
            samples as they are worth (:func:`~fedlas.stats.effective_sample_size`). With clusters weights are divided
            by the design effect, so that copies in a cluster count once.

            Where predictions are probabilities of which some are exactly 0, all are raised to ``1 / (C (N + 1))^2`` at
            least, here and in :meth:`transform`: one label of probability 0 would decide the fit.

            Warns (:class:`CalibrationWarning`) if the result of the fit is doubtful, if a label has probability 0,
            and if samples are so few that the NLL may become worse. On simulated sets of 20, 50 and 200 samples every
            fit that made it worse by 0.05 nats warned (``benchmarks/calibrators.py simulated``).
        """
        return self._fit_with(self.fit_map, val, target)

    def _fit_out_of_fold(self, val: Predictions | TopLabel) -> list[OutOfFold]:
        """Fit like :meth:`fit` and return the out-of-fold predictions of the fit; empty if it has no folds."""
        self.fit(val)
        return []

    @run_single_threaded
    def _fit_with(self, fit_map: FitMap, val: object, target: Tensor | None = None) -> Self:
        """Fit with the given ``fit_map`` function, store the map, emit the warnings of the fit and return ``self``."""
        val = unwrap_table(val)
        top_label = isinstance(val, TopLabel)
        array_of = None if target is None else array_kind(val)
        val = require_labels(to_predictions(val, target))
        if self.needs:
            require_features(val)
        few_samples = few_samples_warning(val, *self.enough)
        val, least, zero_labels = prepare_samples(
            val, repeat_rows=not self.takes_weights, raise_zeros=not self.needs
        )
        if self.takes_weights:
            val = weigh_by_design_effect(val)
        row_map = fit_checked_map(self, val, fit_map)
        features = self._map_features(row_map, val)
        self.num_features = None if features is None else features.shape[1]
        self.num_classes = val.num_classes
        self.top_label = top_label
        self.least_log = least
        self.array_of = array_of
        self._map = row_map
        warning = join_warnings(
            zero_labels, *self._fit_warnings(val), few_samples, cluster_warning(val, features)
        )
        if warning is not None:
            warn_user(f"{self._owner}: {warning}")
        return self

    @overload
    def transform(self, test: Predictions) -> Predictions: ...

    @overload
    def transform(self, test: TopLabel) -> TopLabel: ...

    @overload
    def transform(self, test: Tensor) -> Tensor: ...

    @overload
    def transform(self, test: NDArray[Any]) -> NDArray[Any]: ...

    @run_single_threaded
    def transform(
        self, test: Predictions | TopLabel | Tensor | NDArray[Any]
    ) -> Predictions | TopLabel | Tensor | NDArray[Any]:
        """Return the samples with calibrated logits, or with calibrated confidences if the input is a ``TopLabel``.

        After a fit on an array, an array or tensor becomes one of its shape: of probabilities, or of logits, as there.

        Raises:
            InputError: Before ``fit``, if one is a :class:`~fedlas.TopLabel` where the other is not, or if the number
                of classes (or of features, where they are needed) differs from that of the fit.
        """
        test = unwrap_table(test)
        if self.array_of is not None and (is_tensor(test) or isinstance(test, np.ndarray)):
            return self._transform_array(test)
        if isinstance(test, TopLabel) and self.top_label:
            logits = self._apply(self._check_inputs(to_predictions(test)))
            return replace(
                test, confidence=logits.softmax(dim=1)[:, 1].to(test.tensors().confidence.dtype)
            )
        test = require_predictions(test)
        if self.top_label:
            fix = "Pass TopLabel(test.confidence, test.correct), or fit the calibrator on Predictions."
            raise InputError("test must be a TopLabel, as in the fit", "Predictions", fix)
        return test.with_logits(self._apply(self._check_inputs(test)))

    def _transform_array(self, test: Tensor | NDArray[Any]) -> Tensor | NDArray[Any]:
        """Return calibrated probabilities or logits for an array, in its shape; as the array of the fit."""
        scores = to_tensor("test", test)
        of_probs = self.array_of == "probs"
        calibrated = self.transform((Predictions.from_probs if of_probs else Predictions)(scores))
        result = calibrated.tensors().probs if of_probs else calibrated.tensors().logits
        result = result[:, 1] if scores.ndim == 1 else result
        return result if is_tensor(test) else result.cpu().numpy()

    def _check_inputs(self, test: Predictions) -> Predictions:
        """Return the predictions; raise InputError if classes or features are not as many as in the fit."""
        num_classes = require_fitted(self.num_classes)
        widths = {"logits": (test.num_classes, num_classes)}
        if self.num_features is not None:
            widths["features"] = (require_features(test).shape[1], self.num_features)
        for name, (width, expected) in widths.items():
            if width != expected:
                raise InputError(
                    f"{name} must have shape (N, {expected}) as in the fit",
                    f"({test.num_samples}, {width})",
                    "Fit the calibrator on predictions of the same model.",
                )
        return test

    def _fit_warnings(self, val: Predictions) -> list[str | None]:
        """Return the warnings after a fit to ``val``; None entries are no warnings."""
        row_map = self.map
        doubts = [
            *getattr(row_map, "doubts", ()),
            absent_classes_warning(val) if self.per_class else None,
        ]
        return [*doubts, no_change_warning(val, row_map, self._side_inputs(val))]

    def _side_inputs(self, predictions: Predictions) -> Tensor | None:
        """Return the second input of the map ``(N, ...)``, such as features, or None if the map takes logits alone."""
        return None if self.num_features is None else predictions.tensors().features

    def _apply(self, test: Predictions) -> Tensor:
        """Return calibrated logits ``(N, C)`` of checked predictions."""
        test = floor_log_probs(test, self.least_log)
        return map_rows(test.tensors().logits, self.map, self._side_inputs(test))

    def module(self) -> CalibrationLayer:
        """Return the fitted map as a layer that maps logits (and features) to calibrated logits.

        It equals :meth:`transform` within 1e-5 in float32, and does not change when the calibrator is fitted again.

        Raises:
            InputError: Before ``fit``, or if the map is no function of logits and features alone.
        """
        from fedlas.calibrators.layer import CalibrationLayer

        layer = CalibrationLayer(
            copy.deepcopy(self.map),
            num_classes=require_fitted(self.num_classes),
            num_features=self.num_features,
            least_log=self.least_log,
        )
        return layer.eval()

    def save(self, path: str | Path) -> Path:
        """Write the fitted calibrator to ``path`` as JSON, atomically, and return the path.

        Raises:
            InputError: Before ``fit``, if another file than one of a calibrator is there, or the folder is not
                writable.
        """
        return write_json(check_output_path("path", path, CALIBRATOR), self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the calibrator as a dict that JSON can hold; :meth:`from_dict` reads it.

        Raises:
            InputError: Before ``fit``, or if it holds what JSON cannot.
        """
        return {
            "format": FORMAT,
            "calibrator": registry_name(self),
            "num_classes": require_fitted(self.num_classes),
            **{name: value for name in _OPTIONAL_FIELDS if (value := getattr(self, name))},
            "options": self._saveable_arguments(),
            "state": self._saveable_state(),
        }

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibrator file written by :meth:`save`. It is JSON: loading an untrusted file runs no code.

        ``Calibrator.load`` reads any registered calibrator, a subclass only its own kind.

        Raises:
            InputError: If the file is missing or malformed, or holds another calibrator.
        """
        return cls.from_dict(read_saved_json(path, "Calibrator"), source=path)

    @classmethod
    def from_dict(cls, content: object, *, source: object = "plain values") -> Self:
        """Return the calibrator stored in a dict of :meth:`to_dict`.

        Args:
            content: What it returned.
            source: Where the content is from, for errors.

        Raises:
            InputError: If it is something else, or holds another calibrator.
        """
        fields = {"calibrator": str, "num_classes": int, "options": dict, "state": dict}
        if (
            not isinstance(content, dict)
            or content.get("format") != FORMAT
            or not all(isinstance(content.get(name), kind) for name, kind in fields.items())
            or not 1 <= content["num_classes"] <= _MAX_CLASSES
        ):
            names = f"{', '.join(fields)} (1 to {_MAX_CLASSES:,})"
            expected = f"a calibrator file must have format {FORMAT!r} and the fields {names}"
            fix = "Save the calibrator again with Calibrator.save."
            raise InputError(expected, f"{source} with other content", fix)
        kind = CALIBRATORS[content["calibrator"]].value
        if not issubclass(kind, cls):
            raise InputError(
                f"the file must hold a {cls.__name__}",
                f"{kind.__name__} in {source}",
                f"Load it with {kind.__name__}.load or Calibrator.load.",
            )
        try:
            calibrator = kind(**content["options"])
            calibrator.num_classes = content["num_classes"]
            if "features" in kind.needs or ("features" in kind.wants and "num_features" in content):
                calibrator.num_features = check_count("num_features", content["num_features"])
                few = calibrator.num_features <= _MAX_CLASSES
                require_valid(few, f"num_features must be at most {_MAX_CLASSES:,}")
            calibrator.top_label = content.get("top_label", False) is True
            if (array_of := content.get("array_of")) is not None:
                calibrator.array_of = check_choice("array_of", array_of, get_args(ArrayKind))
            if (least_log := content.get("least_log")) is not None:
                calibrator.least_log = check_number("least_log", least_log, high=0)
            calibrator._map = calibrator._read_state(content["state"])
        except (KeyError, TypeError, ValueError) as error:
            expected = f"the file must hold the state of a {kind.__name__}"
            raise InputError(expected, f"{source} ({error})", "Save it again.") from error
        return calibrator

    def _arguments(self) -> dict[str, Any]:
        """Return the constructor arguments by name."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def _saveable_arguments(self) -> dict[str, Any]:
        """Return the constructor arguments for a file; raise InputError if one is a function."""
        arguments = self._arguments()
        for name, value in arguments.items():
            if callable(value):
                fix = "Keep the calibrator in memory, or fit it again with the same function."
                raise InputError(
                    f"{name} must be a name, since files hold no functions", "a function", fix
                )
        return arguments

    def _saveable_state(self) -> dict[str, Any]:
        return buffers_to_dict(self.map)

    def _read_state(self, state: object) -> nn.Module:
        """Return the map stored in the state of a file; raise KeyError, TypeError or ValueError if it is malformed."""
        return load_map(self.map_type, state, self.num_classes or 1, self.num_features)

    @property
    def _owner(self) -> str:
        return type(self).__name__


def registry_name(calibrator: Calibrator) -> str:
    """Return the name that the class of the calibrator is registered under.

    Raises:
        InputError: If it is not.
    """
    for entry in CALIBRATORS.entries():
        if entry.value is type(calibrator):
            return entry.name
    raise InputError(
        f"{type(calibrator).__name__} must be registered in CALIBRATORS, so that load can find it",
        f"only {', '.join(CALIBRATORS)}",
        'Decorate it with @CALIBRATORS.register("name").',
    )
