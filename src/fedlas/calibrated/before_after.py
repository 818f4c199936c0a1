"""Accuracy, NLL and ECE before and after calibration, on test data or out of fold."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fedlas._core.check import (
    Argument,
    InputError,
    check_number,
    error_reason,
    reject_other_content,
    warn_user,
)
from fedlas._core.kinds import check_argument_types
from fedlas.calibrators._fit.rowwise import sample_weights
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import AnyPredictions, require_top_label
from fedlas.predictions.event import quoted_event

__all__ = ["BeforeAfter", "Measured"]

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from fedlas.features.readers import Reader
    from fedlas.metrics import StreamingMetrics
    from fedlas.stats.noise_floor import NoiseFloor

_METRICS = ("accuracy", "nll", "ece")
_NUM_BINS = 15


@dataclass(frozen=True)
class Measured:
    """Accuracy, NLL, ECE and optional event metrics of one stage: before or after calibration.

    Attributes:
        accuracy: Share of right predictions.
        nll: Mean negative log-likelihood, in nats; NaN for confidences in the predicted class alone.
        ece: Expected calibration error, 15 bins of equal width.
        floor: Mean ECE of a perfectly calibrated model with the same confidences; None for dense outputs, whose
            positions are not independent, and for rows that were left out of a fit before they are calibrated.
        brier: Brier score of two classes, where rows were left out of a fit; None elsewhere.
        observed_to_expected: Events over the sum of their probabilities, as ``brier``.
        slope: Calibration slope, as ``brier``.
        ici: Mean distance from the calibration curve, as ``brier``.
        p: p-value of the test that the ECE is that of a calibrated model, of rows that were left out of a fit.

    Example:
        >>> Measured(accuracy=0.918, nll=0.248, ece=0.009, floor=0.008).ece
        0.009
    """

    accuracy: float
    nll: float
    ece: float
    floor: float | None = None
    brier: float | None = None
    observed_to_expected: float | None = None
    slope: float | None = None
    ici: float | None = None
    p: float | None = None


@dataclass(frozen=True, repr=False)
class BeforeAfter:
    """Metrics before and after calibration; prints as a table, or as a sentence if they are out-of-fold.

    Attributes:
        before: Without.
        after: With; of rows that were left out of the fit, by fits on the other folds.
        samples: Samples (positions of dense outputs) that were measured, each once.
        folds: Folds of the fit that were left out in turn; 0 for samples of a test.
        clusters: Clusters of rows that were left out, each as a whole; None if none were named.
        event: Name of the class that the metrics of such rows are about; empty if the predicted class is.
        in_time: Whether their fits were on earlier rows alone.
        labels: Number of labels of which NLL and ECE are the means; 0 for one label a sample.
    """

    before: Measured
    after: Measured
    samples: int
    folds: int = 0
    clusters: int | None = None
    event: str = ""
    in_time: bool = False
    labels: int = 0

    def __str__(self) -> str:
        """Return a table with one line per metric, or one sentence for out-of-fold metrics."""
        return self._sentence() if self.folds else self._table()

    __repr__ = __str__

    def _table(self) -> str:
        macro = "macro " * bool(self.labels)
        heads = ("", "accuracy", f"{macro}NLL", f"{macro}ECE")
        columns = [("before", *_texts(self.before)), ("after", *_texts(self.after))]
        lines = [
            f"{head:<10}{before:>10}{after:>10}"
            for head, before, after in zip(heads, *columns, strict=True)
            if before
        ]
        if self.after.floor is not None:
            lines[-1] += f"   (of a perfectly calibrated model: {100 * self.after.floor:.2f} %)"
        lines[0] += f"   {self.samples:,} samples"
        return "\n".join(line.rstrip() for line in lines)

    def _sentence(self) -> str:
        changes = [
            f"{title} {before:.2f} -> {getattr(self.after, name):.2f}"
            for name, title in (("observed_to_expected", "O/E"), ("slope", "slope"))
            if (before := getattr(self.before, name)) is not None
        ]
        changes += [f"ICI {self._change('ici')}"] if self.before.ici is not None else []
        floor = 100 * (self.after.floor or 0.0)
        noise = (
            ""
            if self.after.p is None
            else ", within noise"
            if self.after.p > 0.05
            else ", beyond noise"
        )
        macro = "macro " * bool(self.labels)
        parts = [f"{macro}ECE {self._change('ece')} (of a calibrated model {floor:.2f}{noise})"]
        if not math.isnan(self.before.nll):
            parts.insert(0, f"{macro}NLL {self.before.nll:.4f} -> {self.after.nll:.4f}")
            parts += [] if self.event or macro else [f"accuracy {self._change('accuracy')}"]
        about = f"The event {self.event} on" if self.event else "On"
        about = f"{self.labels:,} labels on" if self.labels else about
        worse = self.after.nll > self.before.nll
        advice = " Calibration raises the NLL: fit it on more held-out rows." if worse else ""
        count = "" if self.clusters is None else f"{self.clusters:,}"
        if self.in_time:
            clusters, others = (f" of {count} clusters", " of others") if count else ("", "")
            where = f"{self.samples:,} later rows{clusters}, by fits on earlier ones{others}"
        else:
            whole = f" of {count} whole clusters" if count else ""
            where = f"{self.samples:,} rows{whole} left out of the fit in turn"
        return f"{about} {where}: {', '.join([*changes, *parts])}.{advice}"

    def _change(self, name: str) -> str:
        before, after = (100 * getattr(stage, name) for stage in (self.before, self.after))
        return f"{before:.2f} -> {after:.2f} %"

    def to_dict(self) -> dict[str, Any]:
        """Return the out-of-fold metrics as a dict of plain values for JSON."""
        before, after = (
            {
                name: value
                for name, value in asdict(stage).items()
                if value is not None and value == value
            }
            for stage in (self.before, self.after)
        )
        floor = after.pop("floor", 0.0)
        test = {"p": after.pop("p")} if "p" in after else {}
        others = {"clusters": self.clusters, "event": self.event, "in_time": self.in_time}
        others |= {"labels": self.labels} if self.labels else {}
        counts = {"rows": self.samples, "folds": self.folds}
        return counts | {"before": before, "after": after, "floor": floor} | test | others

    @classmethod
    @reject_other_content
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the metrics from a dict that :meth:`to_dict` returned.

        Raises:
            InputError: If it is something else.
        """
        stages = [
            {str(k): _number(v) for k, v in content[name].items()} for name in ("before", "after")
        ]
        if not {"ece", "accuracy"} <= stages[0].keys() or stages[0].keys() != stages[1].keys():
            raise ValueError(
                "before and after must have the same metrics, among them ece and accuracy"
            )
        before, after = (Measured(**{"nll": math.nan, **values}) for values in stages)
        clusters = content.get("clusters")
        return cls(
            before,
            replace(
                after,
                floor=_number(content["floor"]),
                p=_number(content["p"]) if "p" in content else None,
            ),
            int(content["rows"]),
            int(content["folds"]),
            None if clusters is None else int(clusters),
            str(content.get("event", "")),
            bool(content.get("in_time", False)),
            int(content.get("labels", 0)),
        )


def _texts(measured: Measured) -> list[str]:
    nll = "" if math.isnan(measured.nll) else f"{measured.nll:.4f}"
    return [f"{100 * measured.accuracy:.2f} %", nll, f"{100 * measured.ece:.2f} %"]


def describe_fit(val: Predictions, calibrated: Predictions) -> str:
    """Return a one-line summary of a fit: the number of samples, and their ECE before and after calibration."""
    from fedlas.metrics import ece

    before, after = (ece(part) for part in (val, calibrated))
    return f"{val.num_samples:,} samples, ECE {100 * before:.2f} % before, {100 * after:.2f} % after on them"


@check_argument_types
def measure_before_after(
    before: AnyPredictions | MultiLabel, after: AnyPredictions | MultiLabel
) -> BeforeAfter:
    """Return metrics of the same samples before and after calibration; warn if the NLL rises significantly."""
    if isinstance(before, MultiLabel) and isinstance(after, MultiLabel):
        from fedlas.binary.label_differences import macro_nll_change

        nll, low, high = macro_nll_change(before, after)
        if low > 0:
            _warn_about_rise(nll, (high - nll) / 1.96)
        return labels_before_after(before, after, 1000)
    if isinstance(before, MultiLabel) or isinstance(after, MultiLabel):
        raise InputError(
            "before and after must both be MultiLabel, or neither",
            "one of them",
            "Pass both of one kind.",
        )
    before, after = require_top_label(before), require_top_label(after)
    if isinstance(before, Predictions) and isinstance(after, Predictions):
        _warn_of_rise(before, after)
    stages = [
        Measured(**values, floor=_floor(part).mean if part.num_samples > 1 else None)
        for part, values in zip((before, after), _values(before, after), strict=True)
    ]
    return BeforeAfter(stages[0], stages[1], before.num_samples)


def _warn_of_rise(before: Predictions, after: Predictions) -> None:
    from torch.nn.functional import cross_entropy

    from fedlas.resample.clusters import is_clustered, mean_and_standard_error
    from fedlas.stats.degrees import critical_t, degrees_of_freedom
    from fedlas.stats.estimates import CONFIDENCE_LEVEL

    nll = [
        cross_entropy(part.tensors().logits.double(), part.tensors().target, reduction="none")
        for part in (before, after)
    ]
    weights = sample_weights(before)
    weights = weights * (len(weights) / weights.sum())
    mean, error = mean_and_standard_error(nll[1] - nll[0], weights, before.clusters)
    number = None
    if is_clustered(before.clusters):
        number = np.unique(before.clusters, return_inverse=True)[1]
    degrees = degrees_of_freedom(weights.cpu().numpy(), number)
    if mean > critical_t(CONFIDENCE_LEVEL, degrees) * error:
        _warn_about_rise(mean, error)


def _warn_about_rise(mean: float, error: float) -> None:
    warn_user(
        f"calibration raises the NLL of these samples by {mean:.4f} (standard error {error:.4f}). Calibrate on "
        "more samples like these, or use the model without calibration."
    )


def labels_before_after(
    before: MultiLabel, after: MultiLabel, replicates: int = 0, **others: Any
) -> BeforeAfter:
    """Return multi-label metrics before and after calibration, averaged over labels."""
    from fedlas.binary.labels import LabelData

    stages = []
    for stage in (before, after):
        data = LabelData.from_predictions(stage)
        errors = data.errors(num_bins=_NUM_BINS, replicates=replicates, seed=0)
        right = (data.probability > 0.5) == data.positives
        stages.append(
            Measured(
                accuracy=float((data.counts * right).sum() / data.counts.sum()),
                nll=data.means(areas=False)["macro_nll"][0],
                ece=float(errors.values.mean()),
                floor=float(errors.floors.mean()) if len(errors.floors) else None,
            )
        )
    stages[0] = replace(stages[0], floor=None) if replicates < 1000 else stages[0]
    raw, calibrated = stages
    return BeforeAfter(raw, calibrated, before.num_samples, labels=before.num_labels, **others)


def measured_left_out(
    first: AnyPredictions | MultiLabel,
    last: AnyPredictions | MultiLabel,
    folds: int,
    *,
    in_time: bool,
) -> BeforeAfter:
    """Return metrics of held-out rows before and after out-of-fold calibration."""
    from fedlas.resample.clusters import is_clustered

    clusters = len(np.unique(first.clusters)) if is_clustered(first.clusters) else None
    if isinstance(first, MultiLabel) and isinstance(last, MultiLabel):
        others: dict[str, Any] = {"folds": folds, "clusters": clusters, "in_time": in_time}
        return labels_before_after(first, last, 200, **others)
    first, last = require_top_label(first), require_top_label(last)
    event = ""
    noise = _floor(last, replicates=200) if last.num_samples > 1 else None
    if (
        isinstance(first, Predictions)
        and isinstance(last, Predictions)
        and first.num_classes == 2
        and len(first.tensors().target.unique()) == 2
    ):
        event = quoted_event(first)
        values = _event_metrics(first, last)
    else:
        values = _values(first, last)
    before, after = (Measured(**each) for each in values)
    after = (
        replace(after, floor=0.0)
        if noise is None
        else replace(after, floor=noise.mean, p=noise.p_value)
    )
    return BeforeAfter(before, after, first.num_samples, folds, clusters, event, in_time)


def _values(*stages: AnyPredictions) -> list[dict[str, Any]]:
    """Return accuracy, NLL and ECE of each stage; NLL is NaN for confidences alone."""
    from fedlas.metrics.evaluation import compute_metrics, resolve_metrics

    names = [name for name in _METRICS if name != "nll" or isinstance(stages[0], Predictions)]
    entries = resolve_metrics(names, stages[0])
    return [{"nll": math.nan, **compute_metrics(stage, entries, _NUM_BINS)} for stage in stages]


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
    """Return metrics of a model before and after calibration, computed in one pass over the loader.

    ``others`` has the keys or positions of weights and clusters in a batch.

    Raises:
        InputError: As :func:`fedlas.calibrate`.
    """
    import torch

    from fedlas.objective.runner import Runner

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
                "must be left out for dense outputs",
                f"logits of {len(logits):,} positions, for which no noise floor is computed",
                ("Leave ", Argument("clusters"), " out."),
                argument="clusters",
            )
        weights = rows.get("weights")
        stages = stages or _dense_stages(logits.shape[1], weighted=weights is not None)
        for stage, scores in zip(stages, (logits, after), strict=True):
            stage.update(scores, target, weights=weights)
    if batches:
        columns: dict[str, Any] = {
            name: torch.cat([batch[name] for batch in batches]) for name in batches[0]
        }
        after = columns.pop("after")
        if multi_label:
            labels = MultiLabel(**columns)
            return measure_before_after(labels, labels.with_logits(after))
        before = Predictions(**columns)
        return measure_before_after(before, before.with_logits(after))
    before_, after_ = (Measured(floor=None, **stage.compute()) for stage in stages)
    return BeforeAfter(before_, after_, stages[0].num_samples)


def _dense_stages(num_classes: int, *, weighted: bool) -> list[StreamingMetrics]:
    """Return two empty metric accumulators for dense outputs: before and after calibration."""
    from fedlas.metrics import StreamingMetrics

    return [StreamingMetrics(num_classes, metrics=_METRICS, weighted=weighted) for _ in range(2)]


def _floor(predictions: AnyPredictions, replicates: int = 1000) -> NoiseFloor:
    """Return the noise floor of the ECE; samples of a single cluster count as independent, as in the folds."""
    from fedlas.resample.clusters import is_clustered
    from fedlas.stats.noise_floor import noise_floor

    if not is_clustered(predictions.clusters):
        predictions = replace(predictions, clusters=None)
    return noise_floor(predictions, replicates=replicates)


def _event_metrics(*stages: Predictions) -> list[dict[str, Any]]:
    """Return the event metrics of each stage, restricted to metrics that all stages have."""
    from fedlas.binary import integrated_calibration, observed_to_expected, slope
    from fedlas.metrics.evaluation import compute_metrics, resolve_metrics

    entries = resolve_metrics(["nll", "accuracy", "ece", "brier"], stages[0])
    values = []
    for stage in stages:
        metrics = compute_metrics(stage, entries, _NUM_BINS)
        with suppress(InputError):  # without an event there is no ratio
            metrics["observed_to_expected"] = observed_to_expected(stage).value
        with suppress(InputError):  # outcomes that can be separated have no line
            metrics["slope"] = slope(stage).value
        with suppress(InputError):  # fewer than 10 rows have no curve
            metrics["ici"] = integrated_calibration(stage, replicates=0).ici.value
        values.append(metrics)
    return [
        {name: row[name] for name in row if all(name in other for other in values)}
        for row in values
    ]


def _number(value: object) -> float:
    """Return a metric read from a file as a float, or raise ValueError if it is not a finite number."""
    try:
        return check_number("a metric", value)
    except InputError as error:
        raise ValueError(error_reason(error)) from error
