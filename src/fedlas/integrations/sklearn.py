"""scikit-learn: a classifier whose scores are rescaled by a calibrator, and calibration metrics as scorers.

With ``features=True`` :class:`CalibratedClassifier` also learns from X, and changes the ranking.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, describe
from fedlas._core.errors import collect_warnings, warn_user
from fedlas._core.extras import require
from fedlas._core.kinds import check_argument_types
from fedlas.calibrated.before_after import BeforeAfter, measure_before_after
from fedlas.calibrated.calibration import Calibration, unfitted_calibrator
from fedlas.calibrators import Calibrator, VennAbers
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.calibrators.mixture_features import LABEL_IN_FEATURES
from fedlas.integrations._scorers import CalibrationScorer, calibration_scores, scorers
from fedlas.integrations._scores import (
    class_indices,
    logits_from_scores,
    predictions_from_scores,
    score_method,
)
from fedlas.integrations._side_columns import SideEncoder, side_information_function
from fedlas.integrations._sklearn_folds import cross_validation_splits, held_out_split
from fedlas.predictions import Predictions
from fedlas.predictions.arguments import check_event
from fedlas.predictions.event import default_event_index

require("sklearn", extra="sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone  # noqa: E402 (after require)
from sklearn.frozen import FrozenEstimator  # noqa: E402
from sklearn.model_selection import cross_val_predict  # noqa: E402
from sklearn.utils import _safe_indexing, get_tags, indexable  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    _check_sample_weight,
    assert_all_finite,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
)

__all__ = ["CalibratedClassifier", "CalibrationScorer", "calibration_scores", "scorers"]


class CalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """Classifier with calibrated probabilities; ``features=True`` also learns from X and changes the ranking.

    scikit-learn's own ``CalibratedClassifierCV`` has sigmoid, isotonic and temperature. This class takes every
    calibrator of :data:`~fedlas.calibrators.CALIBRATORS` that works on logits, shows the warnings of their fits, and
    gives :class:`~fedlas.Predictions` to the metrics, intervals and diagrams of this library.

    Args:
        estimator: A classifier with ``decision_function`` or ``predict_proba``; of both, the former is used, with one
            column a class (``decision_function_shape="ovr"`` of an SVC). A clone is fitted. A trained one in
            ``sklearn.frozen.FrozenEstimator`` is not fitted again, and all samples of ``fit`` go to the calibrator.
        method: Calibrator: a registered name (``fedlas list calibrators``) or an object, of which a copy is fitted.
        cv: Which samples the calibrator is fitted on. A number of folds, a splitter, an iterable of splits or None
            (5 folds): on the scores that models of the other folds give each fold; the estimator is then fitted on all
            samples. A float in (0, 1): on that share, held out by class; the estimator is fitted on the rest.
            ``"prefit"``: the estimator is trained already and not fitted again.
        features: Side information of a calibrator that uses features, such as ``auto``. False: scores alone. True:
            ``X`` itself, encoded as covariates of a table are; of a pipeline, what its last step takes.
            A function: what it returns for ``X``, ``(N, D)``.
        event: The class, of two, that ``predict_proba(X, interval=True)``, :meth:`before_after` and reports on
            :meth:`predictions` are about; None: the affirmative label, else the last of ``classes_``.
        n_jobs: Processes for the folds, as elsewhere in scikit-learn.
        random_state: Seed of the held-out share; the folds do not use it.

    Raises:
        InputError: On fitting, for an unknown calibrator or one that needs features, for an estimator without scores,
            for a single class, or for a training fold that lacks a class.
        MissingExtraError: On import, if scikit-learn is not installed.

    State:
        After ``fit``: ``classes_ (C,)``; ``estimator_``, ``fitted_`` with ``calibrator_``, and ``venn_abers_`` (see
        :meth:`predict_proba`), all fitted; ``side_columns_``, which makes the side information, and says in ``note``
        if there is none; and, where the estimator has them, ``n_features_in_`` and ``feature_names_in_``.

    Note:
        Scores alone are the default, other than in :func:`fedlas.calibrate`. Users of scikit-learn expect that
        calibration keeps the ranking, as ``CalibratedClassifierCV`` does, and that another AUROC comes from another
        model. The estimator has seen the same X already: if learning from X again lowers the loss much, a better
        estimator would, too. ``features=True`` is therefore a choice, and a warning says so where it gains much.

        Probabilities become logits by their logarithm, zeros counting as 1.2e-38. A binary ``decision_function`` with
        values ``d`` becomes the logits ``(-d / 2, d / 2)``, whose softmax is the sigmoid of ``d``. The scores of a fold
        come from a model trained on fewer samples than the final one: the larger the folds' number, the smaller that
        difference.

        Side information of a pipeline comes from its steps as they are fitted on all samples. A step that reads the
        labels, such as a target encoder, has seen those of its own samples: pass a function as ``features`` then.
        Columns of text with more than 256 values, and sparse ones of more than a gibibyte, are left out.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> model = CalibratedClassifier(GaussianNB(), "temperature").fit(X, y)
        >>> round(model.calibrator_.temperature, 2)
        1.65
        >>> model.predict_proba(X[:1]).round(3)
        array([[0.999, 0.001, 0.001]])

    Source:
        One calibrator on cross-fitted scores: Platt 1999; https://scikit-learn.org/stable/modules/calibration.html
    """

    classes_: NDArray[Any]
    estimator_: Any
    fitted_: Calibration
    venn_abers_: VennAbers
    side_columns_: SideEncoder

    def __init__(
        self,
        estimator: Any,
        method: str | Calibrator = "auto",
        *,
        features: Any = False,
        event: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.features = features
        self.event = event
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def __repr__(self, *options: Any, **more: Any) -> str:
        effect = "learns from X and changes the ranking" if self.features else "rescales the scores"
        return f"{super().__repr__(*options, **more)}  # {effect}"

    def fit(
        self,
        X: Any,  # noqa: N803 (scikit-learn's)
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> CalibratedClassifier:
        """Fit the estimator, and the calibrator on held-out scores.

        Args:
            X: What the estimator takes: an array, a sparse matrix or a data frame ``(N, ...)``.
            y: Labels ``(N,)``, numbers or text.
            sample_weight: Weight of each sample ``(N,)`` in both fits, or None; a weight of 2 counts twice. An
                estimator that takes none is fitted without, and the calibrator with them.
            groups: Group of each sample ``(N,)``, such as its patient, or None; as in ``cross_val_score``. Samples of
                one are not independent: the folds of ``cv`` and those of the calibrator hold whole groups.
        """
        # Check all arguments before anything is fitted.
        calibrator = self._new_calibrator()
        method = score_method(self.estimator)
        takes_features = self._uses_side_information(calibrator)
        X, y = indexable(X, column_or_1d(y, warn=True))  # noqa: N806
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        units = None if groups is None else column_or_1d(groups)
        check_consistent_length(y, units)
        # The estimator, and the scores of samples that it has not seen.
        estimator, scores, held_out = self._held_out_scores(X, y, weight, units, method)
        rows, labels = X, y
        if held_out is not None:
            rows, labels = _safe_indexing(X, held_out), y[held_out]
            weight = None if weight is None else weight[held_out]
            units = None if units is None else units[held_out]
        # The calibrator.
        classes = np.asarray(estimator.classes_)
        val = predictions_from_scores(scores, method, labels, classes)
        self.side_columns_ = SideEncoder(side_information_function(estimator, self.features))
        features = self.side_columns_.fit(rows) if takes_features else None
        side: dict[str, Any] = {"features": features, "covariates": self.side_columns_.covariates}
        weights = None if weight is None else torch.from_numpy(weight)
        val = replace(val, **side, weights=weights, clusters=units)
        warn = partial(_warn_about_fit, of_inputs=self.features is True)
        self.fitted_ = Calibration(*fit_with_notes(calibrator, val, warn=warn))
        with collect_warnings():  # the calibrator's fit has warned
            self.venn_abers_ = VennAbers().fit_event(replace(val, features=None, covariates=None))
        self.estimator_ = estimator
        self.classes_ = classes
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        return self

    def _held_out_scores(
        self,
        X: Any,  # noqa: N803
        y: Any,
        weight: Any,
        units: Any,
        method: str,
    ) -> tuple[Any, Any, NDArray[np.int64] | None]:
        """Return the fitted estimator, held-out scores, and the indices of their rows (None for all rows)."""
        takes_weights = weight is not None and has_fit_parameter(self.estimator, "sample_weight")
        options: dict[str, Any] = {"sample_weight": weight} if takes_weights else {}
        if isinstance(self.estimator, FrozenEstimator) or self.cv == "prefit":
            return self.estimator, getattr(self.estimator, method)(X), None
        if isinstance(self.cv, float):
            train, val_rows = held_out_split(y, units, self.cv, self.random_state)
            part = {name: value[train] for name, value in options.items()}
            estimator = clone(self.estimator).fit(_safe_indexing(X, train), y[train], **part)
            return estimator, getattr(estimator, method)(_safe_indexing(X, val_rows)), val_rows
        scores = cross_val_predict(
            self.estimator,
            X,
            y,
            cv=cross_validation_splits(self.cv, X, y, units),
            method=method,
            n_jobs=self.n_jobs,
            params=options,
        )
        return clone(self.estimator).fit(X, y, **options), scores, None

    @check_argument_types
    def predict_proba(self, X: Any, *, interval: bool = False) -> Any:  # noqa: N803
        """Return calibrated probabilities ``(N, C)``, in the order of ``classes_``.

        Args:
            X: What the estimator takes.
            interval: Return the probabilities of Venn-ABERS in place of the calibrator's, and with them ``p0`` and
                ``p1 (N, 2)``: of the event of two classes, or of more that the likeliest class is right. One of the
                two is calibrated, and far apart they say that the samples of the fit were few there. The probability
                ``p1 / (1 - p0 + p1)`` lies between them; it uses the scores alone.
        """
        if not interval:
            return self._calibrated_logits(X).softmax(dim=1).numpy()
        raw = Predictions(self._estimator_logits(X))
        ends = self.venn_abers_.interval(raw)
        probability = ends[:, 1] / (1 - ends[:, 0] + ends[:, 1])
        if raw.num_classes > 2:
            return _set_top_probability(raw, probability).numpy(), ends.numpy()
        probs = torch.stack([1 - probability, probability], dim=1)
        if self._event_index() == 0:
            ends = 1 - ends.flip(1)
        return probs.numpy(), ends.numpy()

    def decision_function(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return calibrated logits ``(N, C)``, or for two classes the log-odds ``(N,)`` of the second."""
        logits = self._calibrated_logits(X)
        return (logits if logits.shape[1] != 2 else logits[:, 1] - logits[:, 0]).numpy()

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each sample, ``(N,)``."""
        best = (
            self._calibrated_logits(X).argmax(dim=1).numpy()
        )  # first: it says if nothing is fitted
        return self.classes_[best]

    def predictions(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> Predictions:
        """Return calibrated predictions with labels, for ``fedlas.evaluate`` and similar functions.

        Args:
            X: What the estimator takes.
            y: Labels ``(N,)``.
            sample_weight: Weight of each sample ``(N,)``, or None.
            groups: Group of each sample ``(N,)``, such as its patient, or None: they become ``clusters``.

        Raises:
            InputError: If a label is not one of ``classes_``.
        """
        logits = self._calibrated_logits(X)
        event = self._event_index() if len(self.classes_) == 2 else None
        target = class_indices(y, self.classes_)
        return Predictions(
            logits,
            target,
            weights=sample_weight,
            clusters=None if groups is None else column_or_1d(groups),
            classes=[*map(str, self.classes_)],
            event=event,
        )

    @property
    def calibrator_(self) -> Calibrator:
        """The fitted calibrator."""
        calibrator: Any = self.fitted_.calibrator
        return calibrator

    def _event_index(self) -> int:
        names = tuple(map(str, self.classes_))
        number = check_event(
            self.event if self.event is None else str(self.event), len(names), names
        )
        return default_event_index(names) if number is None else number

    def before_after(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> BeforeAfter:
        """Return accuracy, NLL and ECE on test data before and after calibration; prints as a table.

        Args:
            X: What the estimator takes.
            y: Labels ``(N,)``.
            sample_weight: As for :meth:`predictions`.
            groups: As there; the floor, and the warning of a rise, then take whole groups as independent.

        Raises:
            InputError: If a label is not one of ``classes_``.
        """
        calibrated = self.predictions(X, y, sample_weight, groups)
        return measure_before_after(calibrated.with_logits(self._estimator_logits(X)), calibrated)

    def __sklearn_tags__(self) -> Any:
        """Return a classifier's tags, with the estimator's tags for sparse and pairwise input."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.pairwise = inner.input_tags.pairwise
        return tags

    def _uses_side_information(self, calibrator: Calibrator) -> bool:
        """Return whether the calibrator is fitted with side information."""
        wants = "features" in getattr(calibrator, "wants", ())
        choice = self.features
        if isinstance(choice, bool):
            return wants and choice
        if not callable(choice) or not wants:
            where = f"a function for {type(calibrator).__name__}"
            raise InputError(
                "features must be False, True or a function, and the calibrator must use features",
                where if callable(choice) else describe(choice),
                "Leave features out, or choose method='auto'.",
            )
        return True

    def _calibrated_logits(self, X: Any) -> Tensor:  # noqa: N803
        scores = self._estimator_logits(X)
        used = self.fitted_.uses_features
        side = self.side_columns_
        features = side(X) if used else None
        covariates = side.covariates if used else None
        raw = Predictions(scores, features=features, covariates=covariates)
        return self.fitted_.transform(raw).tensors().logits

    def _estimator_logits(self, X: Any) -> Tensor:  # noqa: N803
        check_is_fitted(self)
        method = score_method(self.estimator_)
        return logits_from_scores(getattr(self.estimator_, method)(X), method, len(self.classes_))

    def _new_calibrator(self) -> Calibrator:
        calibrator: Any = unfitted_calibrator(self.method, multi_label=False)
        if calibrator.needs:
            raise InputError(
                "the calibrator must work on logits alone",
                f"one that needs {', '.join(sorted(calibrator.needs))}",
                "Choose a method such as 'vector' or 'temperature'.",
            )
        unfitted: Calibrator = calibrator
        return unfitted


_UNUSED_INPUTS = "Calibration improves with X: the model leaves much of X unused, so a better model would gain too."


def _warn_about_fit(doubt: str, *, of_inputs: bool) -> None:
    """Issue a warning of a fit; for inputs X, another one than that features may contain the label."""
    warn_user(_UNUSED_INPUTS if of_inputs and LABEL_IN_FEATURES in doubt else doubt)


def _set_top_probability(raw: Predictions, probability: Tensor) -> Tensor:
    """Return probabilities ``(N, C)`` with the top class set to ``probability (N,)`` and the others rescaled."""
    probs = raw.tensors().probs.double()
    top = raw.tensors().predicted[:, None]
    others = probs.scatter(1, top, 0.0)
    total = others.sum(dim=1, keepdim=True)
    shared = torch.where(total > 0, others / total, 1.0 / (raw.num_classes - 1))
    return (shared * (1 - probability)[:, None]).scatter(1, top, probability[:, None])
