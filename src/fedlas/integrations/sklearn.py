"""scikit-learn: any classifier with a calibrator of this library behind it, and calibration metrics as scorers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, check_count, check_kinds, describe
from fedlas._core.errors import collected_warnings
from fedlas._core.extras import require
from fedlas._core.renamed import renamed
from fedlas.calibrated.before_after import BeforeAfter, measured_both
from fedlas.calibrators import CALIBRATORS, Calibrator, VennAbers
from fedlas.integrations._scores import class_indices, logits_from, predictions_from, score_method
from fedlas.integrations._side_columns import SideColumns, side_source
from fedlas.metrics import METRICS
from fedlas.metrics.evaluate import values_of
from fedlas.predictions import Predictions

require("sklearn", extra="sklearn")

from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone  # noqa: E402 (after require)
from sklearn.frozen import FrozenEstimator  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GroupShuffleSplit,
    StratifiedGroupKFold,
    check_cv,
    cross_val_predict,
    train_test_split,
)
from sklearn.utils import _safe_indexing, check_consistent_length, get_tags, indexable  # noqa: E402
from sklearn.utils.multiclass import check_classification_targets  # noqa: E402
from sklearn.utils.validation import (  # noqa: E402
    _check_sample_weight,
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
    has_fit_parameter,
)

__all__ = ["CalibratedClassifier", "CalibrationScorer", "calibration_scores", "scorers"]


class CalibratedClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A scikit-learn classifier whose scores go through a calibrator of this library.

    scikit-learn's own ``CalibratedClassifierCV`` has sigmoid, isotonic and temperature. This class takes every
    calibrator of :data:`~fedlas.calibrators.CALIBRATORS` that works on logits, shows the warnings of their fits, and
    gives :class:`~fedlas.Predictions` to the metrics, intervals and diagrams of this library.

    Args:
        estimator: A classifier with ``decision_function`` or ``predict_proba``; of both, the former is used, with one
            column a class (``decision_function_shape="ovr"`` of an SVC). A clone is fitted. A trained one in
            ``sklearn.frozen.FrozenEstimator`` is not fitted again, and all samples of ``fit`` go to the calibrator.
        method: A registered name (``fedlas list calibrators``) or an object, of which a copy is fitted.
        cv: Which samples the calibrator is fitted on. A number of folds, a splitter, an iterable of splits or None
            (5 folds): on the scores that models of the other folds give each fold; the estimator is then fitted on all
            samples. A float in (0, 1): on that share, held out by class; the estimator is fitted on the rest.
            ``"prefit"``: the estimator is trained already and not fitted again.
        features: Side information of a calibrator that uses features, such as ``auto``. None: ``X`` itself, numbers as
            they are and categories a column a value; of a pipeline, what its last step takes. False: scores alone. A
            function: what it returns for ``X``, ``(N, D)``.
        n_jobs: Processes for the folds, as elsewhere in scikit-learn.
        random_state: Seed of the held-out share; the folds do not use it.

    Raises:
        InputError: On fitting, for an unknown calibrator or one that needs features, for an estimator without scores,
            for a single class, or for a training fold that lacks a class.
        MissingExtraError: On import, if scikit-learn is not installed.

    State:
        After ``fit``: ``classes_ (C,)``; ``estimator_``, ``calibrator_`` and ``venn_abers_`` (see
        :meth:`predict_proba`), all fitted; ``side_columns_``, which makes the side information, and says in ``note``
        if there is none; and, where the estimator has them, ``n_features_in_`` and ``feature_names_in_``.

    Note:
        Probabilities become logits by their logarithm, zeros counting as 1.2e-38. A binary ``decision_function`` with
        values ``d`` becomes the logits ``(-d / 2, d / 2)``, whose softmax is the sigmoid of ``d``. The scores of a fold
        come from a model trained on fewer samples than the final one: the larger the folds' number, the smaller that
        difference.

        Side information of a pipeline comes from its steps as they are fitted on all samples. A step that reads the
        labels, such as a target encoder, has seen those of its own samples: pass a function as ``features`` then.
        Columns of text with more than 100 values, and sparse ones of more than a gibibyte, are left out.

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
    calibrator_: Calibrator
    venn_abers_: VennAbers
    side_columns_: SideColumns

    @renamed(calibrator="method")
    def __init__(
        self,
        estimator: Any,
        method: str | Calibrator = "auto",
        *,
        features: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.features = features
        self.cv = cv
        self.n_jobs = n_jobs
        self.random_state = random_state

    def fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any = None,
        groups: Any = None,
    ) -> CalibratedClassifier:
        """Fit estimator and calibrator.

        Args:
            X: What the estimator takes: an array, a sparse matrix or a data frame ``(N, ...)``.
            y: Labels ``(N,)``, numbers or text.
            sample_weight: Weight of each sample ``(N,)`` in both fits, or None; a weight of 2 counts twice. An
                estimator that takes none is fitted without, and the calibrator with them.
            groups: Group of each sample ``(N,)``, such as its patient, or None; as in ``cross_val_score``. Samples of
                one are not independent: the folds of ``cv`` and those of the calibrator hold whole groups.
        """
        # What cannot be meant is refused before anything is fitted.
        calibrator = self._new_calibrator()
        method = score_method(self.estimator)
        takes_features = self._takes_features(calibrator)
        X, y = indexable(X, column_or_1d(y, warn=True))  # noqa: N806
        assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        groups = None if groups is None else column_or_1d(groups)
        check_consistent_length(y, groups)
        takes_weights = weight is not None and has_fit_parameter(self.estimator, "sample_weight")
        options: dict[str, Any] = {"sample_weight": weight} if takes_weights else {}
        # The estimator, and the scores of samples that it has not seen.
        rows = X
        if isinstance(self.estimator, FrozenEstimator) or self.cv == "prefit":
            estimator = self.estimator
            labels = y
            scores = getattr(estimator, method)(X)
        elif isinstance(self.cv, float):
            train, val_rows = _held_out(y, groups, self.cv, self.random_state)
            part = {name: value[train] for name, value in options.items()}
            estimator = clone(self.estimator).fit(_safe_indexing(X, train), y[train], **part)
            rows = _safe_indexing(X, val_rows)
            scores = getattr(estimator, method)(rows)
            labels = y[val_rows]
            weight = None if weight is None else weight[val_rows]
            groups = None if groups is None else groups[val_rows]
        else:
            labels = y
            scores = cross_val_predict(
                self.estimator,
                X,
                y,
                cv=_splits(self.cv, X, y, groups),
                method=method,
                n_jobs=self.n_jobs,
                params=options,
            )
            estimator = clone(self.estimator).fit(X, y, **options)
        # The calibrator.
        classes = np.asarray(estimator.classes_)
        val = predictions_from(scores, method, labels, classes)
        self.side_columns_ = SideColumns(side_source(estimator, self.features))
        side = self.side_columns_.fit(rows) if takes_features else None
        val = replace(
            val,
            features=side,
            weights=None if weight is None else torch.from_numpy(weight),
            clusters=groups,
        )
        self.calibrator_ = calibrator.fit(val)
        with collected_warnings():  # the calibrator's fit has warned
            self.venn_abers_ = VennAbers().fit_event(val)
        self.estimator_ = estimator
        self.classes_ = classes
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(estimator, name):
                setattr(self, name, getattr(estimator, name))
        return self

    @check_kinds
    def predict_proba(self, X: Any, *, interval: bool = False) -> Any:  # noqa: N803
        """Return calibrated probabilities ``(N, C)``, in the order of ``classes_``.

        Args:
            X: What the estimator takes.
            interval: Also return ``p0`` and ``p1 (N, 2)`` of Venn-ABERS: of the second of two classes, or of more that
                the likeliest class is right. One of the two is calibrated, and far apart they say that the samples of
                the fit were few there. Their probability is that of Venn-ABERS, not of the calibrator.
        """
        probs = self._calibrated(X).softmax(dim=1).numpy()
        if not interval:
            return probs
        return probs, self.venn_abers_.interval(Predictions(self._scores(X))).numpy()

    def decision_function(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return calibrated logits ``(N, C)``; of two classes the log-odds ``(N,)`` of the second."""
        logits = self._calibrated(X)
        return (logits if logits.shape[1] != 2 else logits[:, 1] - logits[:, 0]).numpy()

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the class of the highest probability ``(N,)``."""
        best = self._calibrated(X).argmax(dim=1).numpy()  # first: it says if nothing is fitted
        return self.classes_[best]

    def predictions(self, X: Any, y: Any) -> Predictions:  # noqa: N803
        """Return calibrated logits and labels, for ``fedlas.evaluate`` and whatever else takes predictions.

        Raises:
            InputError: If a label is not one of ``classes_``.
        """
        return Predictions(self._calibrated(X), class_indices(y, self.classes_))

    def before_after(self, X: Any, y: Any) -> BeforeAfter:  # noqa: N803
        """Measure accuracy, NLL and ECE on test data without and with the calibration; print it to see a table.

        Raises:
            InputError: If a label is not one of ``classes_``.
        """
        calibrated = self.predictions(X, y)
        return measured_both(calibrated.with_logits(self._scores(X)), calibrated)

    def __sklearn_tags__(self) -> Any:
        """Return those of a classifier; sparse and pairwise input as the estimator takes them."""
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags.sparse = inner.input_tags.sparse
        tags.input_tags.pairwise = inner.input_tags.pairwise
        return tags

    def _takes_features(self, calibrator: Calibrator) -> bool:
        """Return whether the calibrator gets side information."""
        wants = "features" in getattr(calibrator, "wants", ())
        choice = self.features
        if choice is None or choice is False:
            return wants and choice is None
        if not callable(choice) or not wants:
            where = f"a function for {type(calibrator).__name__}"
            raise InputError(
                "features must be None, False or a function, for a calibrator that uses them",
                where if callable(choice) else describe(choice),
                "Leave features out, or choose method='auto'.",
            )
        return True

    def _calibrated(self, X: Any) -> Tensor:  # noqa: N803
        scores = self._scores(X)
        used = self.calibrator_.num_features is not None
        raw = Predictions(scores, features=self.side_columns_(X) if used else None)
        return self.calibrator_.transform(raw).logits

    def _scores(self, X: Any) -> Tensor:  # noqa: N803
        check_is_fitted(self)
        method = score_method(self.estimator_)
        return logits_from(getattr(self.estimator_, method)(X), method, len(self.classes_))

    def _new_calibrator(self) -> Calibrator:
        choice: Any = self.method
        if isinstance(choice, str):
            calibrator = CALIBRATORS[choice].value()
        elif isinstance(choice, Calibrator):
            calibrator = copy.deepcopy(choice)
        else:
            raise InputError(
                "calibrator must be a name or a Calibrator",
                describe(choice),
                "Pass a name such as 'temperature', or TemperatureScaling().",
            )
        if calibrator.needs:
            raise InputError(
                "the calibrator must need nothing but logits",
                f"one that needs {', '.join(sorted(calibrator.needs))}",
                "Choose one that works on logits alone, e.g. 'vector'.",
            )
        return calibrator


@dataclass(frozen=True)
class CalibrationScorer:
    """A metric of this library as scikit-learn's ``scoring=``; the higher the better.

    scikit-learn maximizes scores, so a metric that is better when lower has its sign changed.

    Args:
        metric: Registry name of a metric that has a direction; ``fedlas list metrics`` prints them.
        num_bins: Number of bins, for metrics that have any, at least 1.

    Raises:
        InputError: For an unknown metric, or one where 0 is best or that needs true probabilities. When called, for an
            estimator without ``predict_proba``.

    Note:
        Unlike a function in ``make_scorer`` it knows the classes of the estimator, so that a test fold may lack some.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> cross_val_score(GaussianNB(), X, y, scoring=CalibrationScorer("ece"), cv=3).round(2)
        array([-0.06, -0.05, -0.05])
    """

    metric: str
    num_bins: int = 15

    def __post_init__(self) -> None:
        check_count("num_bins", self.num_bins)
        if METRICS[self.metric].higher_is_better is None or METRICS[self.metric].needs:
            raise InputError(
                "metric must have a better direction",
                self.metric,
                f"Choose one of {', '.join(_directed())}.",
            )

    @property
    def name(self) -> str:
        """The metric's name, after ``neg_`` if its sign is changed."""
        entry = METRICS[self.metric]
        return entry.name if entry.higher_is_better else f"neg_{entry.name}"

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:  # noqa: N803
        """Return the score of a fitted classifier on ``X (N, ...)`` with labels ``y (N,)``."""
        return _scores([self], _predicted(estimator, X, y))[self.name]


def calibration_scores(estimator: Any, X: Any, y: Any) -> dict[str, float]:  # noqa: N803
    """Return all of :data:`scorers` in one prediction and one pass, by name: ``cross_validate(..., scoring=this)``.

    Args:
        estimator: A fitted classifier with ``predict_proba``.
        X: What it takes ``(N, ...)``.
        y: Labels ``(N,)``.

    Raises:
        InputError: If the estimator has no ``predict_proba``, or a label is none of its classes.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> X, y = load_iris(return_X_y=True)
        >>> scores = calibration_scores(GaussianNB().fit(X, y), X, y)
        >>> round(scores["accuracy"], 2), round(scores["neg_ece"], 3)
        (0.96, -0.033)
    """
    return _scores(list(scorers.values()), _predicted(estimator, X, y))


def _directed() -> list[str]:
    entries = METRICS.entries()
    return [e.name for e in entries if e.higher_is_better is not None and not e.needs]


scorers: dict[str, CalibrationScorer] = {
    each.name: each for each in map(CalibrationScorer, _directed())
}
"""A scorer for every metric with a direction, by name: ``"accuracy"``, ``"neg_ece"``, ``"neg_nll"`` and so on."""


def _scores(which: list[CalibrationScorer], predictions: Predictions) -> dict[str, float]:
    entries = [METRICS[each.metric] for each in which]
    values = values_of(predictions, entries, which[0].num_bins)
    signs = [1 if entry.higher_is_better else -1 for entry in entries]
    return {
        each.name: sign * values[entry.name]
        for each, entry, sign in zip(which, entries, signs, strict=True)
    }


def _predicted(estimator: Any, X: Any, y: Any) -> Predictions:  # noqa: N803
    if not hasattr(estimator, "predict_proba"):
        raise InputError(
            "the estimator must have predict_proba",
            type(estimator).__name__,
            "Put it into a CalibratedClassifier, which has them.",
        )
    return predictions_from(
        estimator.predict_proba(X), "predict_proba", y, np.asarray(estimator.classes_)
    )


def _held_out(y: Any, groups: Any, share: float, seed: Any) -> tuple[Any, Any]:
    """Return rows to train on and a held-out share of the rows by class, or of the groups."""
    rows = np.arange(len(y))
    if groups is None:
        return tuple(train_test_split(rows, test_size=share, stratify=y, random_state=seed))
    return next(GroupShuffleSplit(1, test_size=share, random_state=seed).split(rows, y, groups))


def _splits(cv: Any, X: Any, y: Any, groups: Any) -> list[Any]:  # noqa: N803
    """Return the folds, each with every class in its training part; of whole groups unless ``cv`` has its own."""
    if groups is not None and (cv is None or isinstance(cv, int)):
        cv = StratifiedGroupKFold(5 if cv is None else cv)
    splits = list(check_cv(cv, y, classifier=True).split(X, y, groups))
    if groups is not None:
        _check_whole(splits, groups)
    classes = np.unique(y)
    for number, (train, _) in enumerate(splits):
        missing = np.setdiff1d(classes, np.asarray(y)[train])
        if len(missing):
            names = ", ".join(map(str, missing[:5]))
            raise InputError(
                "each training fold must have samples of every class",
                f"fold {number} without {names}",
                "Use stratified folds, and at least two samples a class.",
            )
    return splits


def _check_whole(splits: Sequence[Any], groups: NDArray[Any]) -> None:
    """Refuse folds that tear groups apart."""
    for number, (train, test) in enumerate(splits):
        torn = np.intersect1d(groups[train], groups[test])
        if len(torn):
            raise InputError(
                "cv must hold whole groups",
                f"group {torn[0]!r} in both parts of fold {number}",
                "Pass a splitter of groups, such as StratifiedGroupKFold(5), or a number of folds.",
            )
