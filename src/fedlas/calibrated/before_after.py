"""What a calibration did: accuracy, NLL and ECE without and with it, on test data or by cross-fitting."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedlas._core.check import Argument, InputError, check_number, reason, warn_user
from fedlas.binary import integrated_calibration, logistic_recalibration
from fedlas.calibrators import Calibrator
from fedlas.calibrators._fit.folds import folds_of, in_order
from fedlas.calibrators._fit.rowwise import as_predictions, weights_of
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.calibrators.mixture import LeftOut
from fedlas.features.read import Reader
from fedlas.metrics import StreamingMetrics, evaluate, expected_calibration_error
from fedlas.metrics.evaluate import entries_of, values_of
from fedlas.objective.runner import Runner
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.event import event_name
from fedlas.resample.clusters import mean_and_error, several
from fedlas.stats import noise_floor
from fedlas.stats.degrees import cluster_degrees, student_score
from fedlas.stats.estimates import CONFIDENCE_LEVEL

__all__ = ["BeforeAfter", "Measured"]

_METRICS = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Measured:
    """Metrics of one stage.

    Attributes:
        accuracy: Share of right predictions.
        nll: Mean negative log-likelihood, in nats.
        ece: Expected calibration error, 15 bins of equal width.
        floor: Mean ECE of a perfectly calibrated model with the same confidences; None for dense outputs, whose
            positions are not independent.

    Example:
        >>> Measured(accuracy=0.918, nll=0.248, ece=0.009, floor=0.008).ece
        0.009
    """

    accuracy: float
    nll: float
    ece: float
    floor: float | None


@dataclass(frozen=True, repr=False)
class BeforeAfter:
    """Metrics of a model without and with its calibration; printed, a table.

    Attributes:
        before: Without.
        after: With.
        samples: Samples (positions of dense outputs) that were measured.
    """

    before: Measured
    after: Measured
    samples: int

    def __str__(self) -> str:
        """Return a table of four lines."""
        columns = [["before", *_texts(self.before)], ["after", *_texts(self.after)]]
        heads = ["", "accuracy", "NLL", "ECE"]
        lines = [
            f"{head:<10}{before:>10}{after:>10}"
            for head, before, after in zip(heads, *columns, strict=True)
        ]
        if self.after.floor is not None:
            lines[-1] += f"   (of a perfectly calibrated model: {100 * self.after.floor:.2f} %)"
        lines[0] += f"   {self.samples:,} samples"
        return "\n".join(line.rstrip() for line in lines)

    __repr__ = __str__


def in_sample(val: Predictions, calibrated: Predictions) -> str:
    """Return one line: how many samples a calibrator was fitted on, and their ECE before and after."""
    before, after = (expected_calibration_error(part) for part in (val, calibrated))
    return f"{val.num_samples:,} samples, ECE {100 * before:.2f} % before, {100 * after:.2f} % after on them"


def measured_both(before: Predictions, after: Predictions) -> BeforeAfter:
    """Return metrics of the same samples without and with calibration; warn if the NLL rises by more than chance."""

    def measured(part: Predictions) -> Measured:
        values = evaluate(part)
        floor = _floor(part) if part.num_samples > 1 else None
        return Measured(values["accuracy"], values["nll"], values["ece"], floor)

    nll = [
        cross_entropy(part.logits.double(), part.target, reduction="none")
        for part in (before, after)
    ]
    weights = weights_of(before)
    weights = weights * (len(weights) / weights.sum())
    mean, error = mean_and_error(nll[1] - nll[0], weights, before.clusters)
    number = None
    if several(before.clusters):
        number = np.unique(before.clusters.cpu().numpy(), return_inverse=True)[1]
    degrees = cluster_degrees(weights.cpu().numpy(), number)
    if mean > student_score(CONFIDENCE_LEVEL, degrees) * error:
        warn_user(
            f"calibration raises the NLL of these samples by {mean:.4f} (standard error {error:.4f}). Calibrate on "
            "more samples like these, or use the model without it."
        )
    return BeforeAfter(measured(before), measured(after), before.num_samples)


def before_and_after(
    model: nn.Module,
    calibration: nn.Module,
    loader: Iterable[Any],
    *,
    device: str | torch.device | None,
    ignore_index: int | None,
    reader: Reader,
    others: dict[str, int | str],
    label: int | str | None = None,
    multi_label: bool = False,
) -> BeforeAfter:
    """Measure both stages in one pass over the loader; ``others`` are its places of weights and clusters.

    Raises:
        InputError: As :func:`fedlas.calibrate`.
    """
    runner = Runner(
        model,
        loader,
        device=device,
        reader=reader,
        ignore_index=ignore_index,
        label=label,
        others=others,
        labeled=True,
        multi_label=multi_label,
    )
    where = next((buffer.device for buffer in calibration.buffers()), None)
    stages: list[StreamingMetrics] = []
    batches: list[dict[str, Tensor]] = []
    for rows in runner:
        logits = rows["logits"]
        target = rows["target"]
        parts = [
            rows[name].to(where or logits.device) for name in ("logits", "features") if name in rows
        ]
        with torch.no_grad():
            after = calibration(*parts).cpu()
        # Positions of dense outputs are many, and not independent: no floor, no standard error, and none is kept.
        if not runner.dense:
            named = {name: rows[name] for name in ("target", *others)}
            batches.append({"logits": logits, "after": after, **named})
            continue
        if "clusters" in others:
            raise InputError(
                "are for one label a sample",
                f"logits of {len(logits):,} positions, which have neither floor nor interval here",
                ("Leave ", Argument("clusters"), " out."),
                argument="clusters",
            )
        weights = rows.get("weights")
        stages = stages or [
            StreamingMetrics(logits.shape[1], metrics=_METRICS, weighted=weights is not None)
            for _ in range(2)
        ]
        for stage, scores in zip(stages, (logits, after), strict=True):
            stage.update(scores, target, weights=weights)
    if batches:
        columns: dict[str, Any] = {
            name: torch.cat([batch[name] for batch in batches]) for name in batches[0]
        }
        after = columns.pop("after")
        if multi_label:
            labels = MultiLabel(**columns)
            return measured_both(labels.pooled(), labels.with_logits(after).pooled())
        before = Predictions(**columns)
        return measured_both(before, before.with_logits(after))
    before_, after_ = (Measured(floor=None, **stage.compute()) for stage in stages)
    return BeforeAfter(before_, after_, stages[0].num_samples)


def _texts(measured: Measured) -> list[str]:
    return [
        f"{100 * measured.accuracy:.2f} %",
        f"{measured.nll:.4f}",
        f"{100 * measured.ece:.2f} %",
    ]


FOLDS = 5
NUM_BINS = 15
ENOUGH = 5000
"""Folds are left out until they have this many rows together."""
_CROSS_METRICS = ("nll", "ece", "accuracy")


@dataclass(frozen=True)
class CrossFit:
    """Metrics of rows that were left out of the fit, before and after calibration.

    Attributes:
        rows: Rows that were left out, each once.
        folds: Folds of the cross-fitting.
        before: Metrics by registry name, as predicted.
        after: The same, calibrated by fits on the other folds.
        floor: Mean ECE of a perfectly calibrated model with the confidences after.
        clusters: Clusters of these rows, each of which was left out as a whole; None if none were named.
        event: Name of the class that the metrics are about, with O/E, slope and ICI; empty if the predicted class is.
        in_time: Whether the fits were on earlier rows alone.
    """

    rows: int
    folds: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    floor: float
    clusters: int | None = None
    event: str = ""
    in_time: bool = False

    def __str__(self) -> str:
        """Return one sentence."""
        changes = [
            f"{title} {self.before[name]:.2f} -> {self.after[name]:.2f}"
            for name, title in (("observed_to_expected", "O/E"), ("slope", "slope"))
            if name in self.before
        ]
        changes += [f"ICI {self._percent('ici')}"] if "ici" in self.before else []
        parts = [f"ECE {self._percent('ece')} (of a calibrated model {100 * self.floor:.2f})"]
        if "nll" in self.before:
            parts.insert(0, f"NLL {self.before['nll']:.4f} -> {self.after['nll']:.4f}")
            parts += [] if self.event else [f"accuracy {self._percent('accuracy')}"]
        parts = [*changes, *parts]
        about = f"The event {self.event} on" if self.event else "On"
        worse = self.after.get("nll", 0) > self.before.get("nll", 0)
        advice = " It does not help them: more held-out rows may." if worse else ""
        count = "" if self.clusters is None else f"{self.clusters:,}"
        if self.in_time:
            clusters, others = (f" of {count} clusters", " of others") if count else ("", "")
            where = f"{self.rows:,} later rows{clusters}, by fits on earlier ones{others}"
        else:
            whole = f" of {count} whole clusters" if count else ""
            where = f"{self.rows:,} rows{whole} left out of the fit in turn"
        return f"{about} {where}: {', '.join(parts)}.{advice}"

    def _percent(self, name: str) -> str:
        return f"{100 * self.before[name]:.2f} -> {100 * self.after[name]:.2f} %"

    def plain(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Self:
        """Read the result of :meth:`plain`.

        Raises:
            ValueError: If it is something else.
        """
        before, after = (
            {str(k): _number(v) for k, v in content[name].items()} for name in ("before", "after")
        )
        if not {"ece", "accuracy"} <= before.keys() or before.keys() != after.keys():
            raise ValueError("metrics before and after must be the same")
        clusters = content.get("clusters")
        return cls(
            int(content["rows"]),
            int(content["folds"]),
            before,
            after,
            _number(content["floor"]),
            None if clusters is None else int(clusters),
            str(content.get("event", "")),
            bool(content.get("in_time", False)),
        )


def fit_and_check(
    calibrator: Calibrator, val: AnyPredictions
) -> tuple[Calibrator, tuple[str, ...], CrossFit | None]:
    """Return the fitted calibrator, its notes, and metrics of rows that were left out in turn.

    A mixture holds folds out to find its weights; what it predicts for each, with weights of the other folds, is
    measured. Any other calibrator is fitted again without each fold.
    """
    left_out: list[LeftOut] = []
    can_keep = isinstance(val, Predictions) and (val.weights is None or bool(val.weights.all()))
    if (
        can_keep
        and hasattr(calibrator, "left_out")
        and not getattr(calibrator, "keep_class", False)
    ):
        calibrator.left_out = left_out
    fitted, notes = fit_with_notes(calibrator, val)
    vars(calibrator).pop("left_out", None)
    if not left_out or not isinstance(val, Predictions):
        return fitted, notes, cross_fit(calibrator, val)
    enough = [0]
    for each in left_out:
        if enough[-1] < ENOUGH:
            enough.append(enough[-1] + len(each.rows))
    first = val.rows(torch.cat([each.rows for each in left_out])[: enough[-1]])
    after = torch.cat([each.log_probs for each in left_out])[: enough[-1]]
    last = first.with_logits(after)
    return fitted, notes, measured_left_out(first, last, len(left_out), in_time=in_order(val))


def cross_fit(calibrator: Calibrator, val: AnyPredictions) -> CrossFit | None:
    """Fit on all folds but one, calibrate that one, and measure; None for fewer than two distinct rows.

    Args:
        calibrator: One with the options of the fit; it is not changed.
        val: Held-out predictions with labels.
    """
    both = as_predictions(val)
    folds = folds_of(both, FOLDS, weights=both.weights)
    if not folds.count:
        return None
    rows: list[Tensor] = []
    after: list[Tensor] = []
    for fold in range(folds.count):
        left_out = folds.test(fold)
        fitted, _ = fit_with_notes(copy.deepcopy(calibrator), val.rows(folds.train(fold)))
        rows.append(left_out.nonzero()[:, 0])
        part = fitted.transform(val.rows(left_out))
        after.append(part.logits if isinstance(part, Predictions) else part.confidence)
        if sum(map(len, rows)) >= ENOUGH:
            break
    first = val.rows(torch.cat(rows))
    last = (
        first.with_logits(torch.cat(after))
        if isinstance(first, Predictions)
        else replace(first, confidence=torch.cat(after))
    )
    return measured_left_out(first, last, folds.count, in_time=folds.in_time)


def measured_left_out(
    first: AnyPredictions, last: AnyPredictions, folds: int, *, in_time: bool
) -> CrossFit:
    """Return metrics of rows that were left out, as predicted and calibrated."""
    clusters = len(first.clusters.unique()) if several(first.clusters) else None
    sizes = first.num_samples, folds
    if (
        isinstance(first, Predictions)
        and isinstance(last, Predictions)
        and first.num_classes == 2
        and len(first.target.unique()) == 2
    ):
        floor = _floor(last, replicates=200)
        event = event_name(first)
        values = _of_event(first, last)
        return CrossFit(*sizes, values[0], values[1], floor, clusters, event, in_time)
    names = [name for name in _CROSS_METRICS if name != "nll" or isinstance(first, Predictions)]
    floor = _floor(last, replicates=200) if last.num_samples > 1 else 0.0
    entries = entries_of(names, first)
    values = [values_of(part, entries, NUM_BINS) for part in (first, last)]
    return CrossFit(*sizes, values[0], values[1], floor, clusters, in_time=in_time)


def _floor(predictions: AnyPredictions, replicates: int = 1000) -> float:
    """Return the mean ECE of a calibrated model; samples of a single cluster count as independent, as in the folds."""
    if not several(predictions.clusters):
        predictions = replace(predictions, clusters=None)
    return noise_floor(predictions, replicates=replicates).mean


def _of_event(*stages: Predictions) -> list[dict[str, float]]:
    """Return the metrics of the event of each stage, those that all have."""
    entries = entries_of(["nll", "accuracy", "ece", "brier"], stages[0])
    values = []
    for stage in stages:
        metrics = values_of(stage, entries, NUM_BINS)
        with suppress(InputError):  # outcomes that can be separated have no line
            line = logistic_recalibration(stage)
            metrics["observed_to_expected"] = line.observed_to_expected.value
            metrics["slope"] = line.slope.value
        with suppress(InputError):  # fewer than 10 rows have no curve
            metrics["ici"] = integrated_calibration(stage, replicates=0).ici.value
        values.append(metrics)
    return [
        {name: row[name] for name in row if all(name in other for other in values)}
        for row in values
    ]


def _number(value: Any) -> float:
    """Return a number of a file, whose reader names the file."""
    try:
        return check_number("a metric", value)
    except InputError as error:
        raise ValueError(reason(error)) from error
