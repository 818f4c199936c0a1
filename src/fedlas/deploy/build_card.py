"""Construction of a calibration card: metrics, thresholds for target risks, and known limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

import fedlas
from fedlas._core.check import InputError, check_count, describe
from fedlas._core.kinds import check_argument_types
from fedlas.deploy.card import Card, MetricsByStage, Subject, event_or_top_label
from fedlas.deploy.label_reference import build_label_reference
from fedlas.metrics import METRICS, evaluate
from fedlas.metrics.metric import find_measure
from fedlas.metrics.sums import check_weights_supported
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.multi_label import check_same_labels, require_known_labels
from fedlas.resample.clusters import require_independent
from fedlas.stats import ALPHA
from fedlas.stats.estimates import CONFIDENCE_LEVEL
from fedlas.stats.gap_sums import GapSums, quantile_edges
from fedlas.stats.noise_floor import format_p
from fedlas.stats.selective_risk import DEFAULT_RISKS, reject_option

if TYPE_CHECKING:
    from fedlas.calibrated.calibration import Calibration, P
    from fedlas.predictions.any_predictions import AnyPredictions

CELLS = 5
BINS = 100
"""Number of confidence cells for the calibration gap, and of bins for the distribution, for ``fedlas monitor``."""
STAGES = ("as predicted", "calibrated")
METHOD = (
    "Learn then Test (Angelopoulos et al. 2021): fixed-sequence tests with exact binomial p-values over a fixed grid "
    "of thresholds, from ten starts; {promise}"
)
HOLDS = "each row holds with probability {level:.0%} over the draw of the validation part."
APPROXIMATE = (
    "the calibrator was fitted to the same validation part, so the {level:.0%} guarantee is approximate: compare the "
    "risk on the test part."
)

_MIN_CLASS_SAMPLES = 30
"""Test samples of a class below which its calibration cannot be assessed."""


@check_argument_types
def make_card(
    val: AnyPredictions | MultiLabel,
    test: AnyPredictions | MultiLabel,
    calibration: Calibration,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    num_bins: int = 15,
    risks: Sequence[float] = DEFAULT_RISKS,
    metrics: MetricsByStage | None = None,
    replicates: int = 0,
    exported: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Card:
    """Return a calibration card, with thresholds chosen on ``val`` and metrics computed on ``test``."""
    # ``val`` and ``test`` are uncalibrated. ``model`` and ``data`` are facts to record: ``run`` or ``name``, and where
    # known ``classes``, ``settings``, ``samples``, ``period``. With ``event`` the card describes the probability of the
    # second of two classes; a multi-label card has metrics in ``labels`` and no thresholds. Sample weights are refused:
    # the bounds of thresholds and of monitors do not hold with them.
    _check_arguments(val, test, model, data, replicates)
    if metrics is not None:
        _check_metrics(metrics)
    # The card describes the calibrated model; metrics of the raw model are added for comparison.
    stages = predictions_by_stage(test, calibration)
    val = calibration.transform(val)
    test = stages[STAGES[1]]
    subject: Subject = "top label" if event is None else "event"
    if metrics is None:
        metrics = {stage: _metric_values(each, num_bins) for stage, each in stages.items()}
    if isinstance(val, MultiLabel) or isinstance(test, MultiLabel):
        sections, class_sizes = _multi_label_sections(val, test)
    else:
        promise = APPROXIMATE if calibration.is_fitted_on_validation else HOLDS
        sections, class_sizes = _single_label_sections(val, test, subject, risks, promise)
    sizes = {"val": val.num_samples, "test": test.num_samples}
    card = Card(
        made={"on": datetime.now(UTC).date().isoformat(), "fedlas": fedlas.__version__},
        model={"classes": None, **model, **sections.pop("model")},
        calibration=calibration,
        # Live predictions: calibrated from an exported model, else raw like the test file.
        live="raw" if exported is None and calibration.calibrator is not None else "calibrated",
        data={**data, "samples": {**data.get("samples", {}), **sizes}},
        metrics={stage: _applicable_metrics(each, test) for stage, each in metrics.items()},
        metrics_of={
            "part": "test",
            "num_bins": num_bins,
            "interval": CONFIDENCE_LEVEL,
            "replicates": replicates,
        },
        exported=exported,
        event=event,
        labels=labels,
        **sections,
    )
    return replace(card, limits=known_limits(card, class_sizes))


def _single_label_sections(
    val: AnyPredictions,
    test: AnyPredictions,
    subject: Subject,
    risks: Sequence[float],
    promise: str,
) -> tuple[dict[str, Any], Sequence[int]]:
    """Return the card sections for one label per sample, and the number of test samples per class."""
    import torch

    num_classes = 0
    class_counts = None
    class_sizes: Sequence[int] = ()
    if isinstance(test, Predictions):
        num_classes = test.num_classes
        class_counts, class_sizes = (
            torch.bincount(each.cpu(), minlength=num_classes).tolist()
            for each in (test.tensors().predicted, test.tensors().target)
        )
    thresholds = [
        reject_option(val, test, risk=risk, confidence_level=CONFIDENCE_LEVEL).to_dict()
        for risk in risks
    ]
    method = METHOD.format(promise=promise.format(level=CONFIDENCE_LEVEL))
    return {
        "model": {"num_classes": num_classes},
        "selective": {"method": method, "level": CONFIDENCE_LEVEL, "thresholds": thresholds},
        "width": _venn_abers_widths(val, test, subject),
        "reference": _monitor_reference(val, test, class_counts, subject),
    }, class_sizes


def _multi_label_sections(val: object, test: object) -> tuple[dict[str, Any], Sequence[int]]:
    """Return the card sections for several labels, and the number of test samples of each label's rarer outcome."""
    val, test = check_same_labels(val, test, "validation predictions")
    target = require_known_labels(test).tensors().target
    by_outcome = ((target == outcome).sum(dim=0).tolist() for outcome in (0, 1))
    return {
        "model": {"num_classes": test.num_labels, "classes": list(test.names or ())},
        "selective": {"method": "", "level": CONFIDENCE_LEVEL, "thresholds": []},
        "width": {},
        "reference": build_label_reference(val, test),
    }, [*map(min, *by_outcome)]


def _metric_values(
    predictions: AnyPredictions | MultiLabel, num_bins: int
) -> dict[str, dict[str, float]]:
    """Return the metrics by name as ``{"value": ...}``, without intervals."""
    values = evaluate(predictions, num_bins=num_bins)
    return {name: {"value": value} for name, value in values.items()}


def _applicable_metrics(
    metrics: Mapping[str, Any], test: AnyPredictions | MultiLabel
) -> dict[str, Any]:
    """Return the metrics to show, without those that need more classes than ``test`` has."""
    if not isinstance(test, Predictions):
        return dict(metrics)
    classes = test.num_classes
    return {
        name: entry for name, entry in metrics.items() if classes >= METRICS[name].fewest_classes
    }


def _check_arguments(
    val: AnyPredictions | MultiLabel,
    test: AnyPredictions | MultiLabel,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    replicates: int,
) -> None:
    """Raise InputError for weights, clusters, missing names of model or data, or an invalid number of replicates."""
    for part in (val, test):
        check_weights_supported(part, takes_weights=False)
        whose = "a monitor's" if isinstance(part, MultiLabel) else "the thresholds'"
        require_independent(part, f"{whose} bounds")
    check_count("replicates", replicates, low=0)
    for argument, about, key in (("model", model, "run"), ("data", data, "name")):
        if key not in about:
            fix = f"Pass {{{key!r}: 'test {argument}'}}."
            raise InputError(f"must have the key {key!r}", describe(about), fix, argument=argument)


def _check_metrics(metrics: MetricsByStage) -> None:
    """Raise InputError unless ``metrics`` maps both stages and known metric names to entries with a value."""
    stages: Any = metrics
    are_there = isinstance(stages, Mapping) and stages.keys() == {*STAGES}
    for entries in stages.values() if are_there else [None]:
        if (
            not isinstance(entries, Mapping)
            or not all(find_measure(name, event=False) for name in entries)
            or not all(isinstance(each, Mapping) and "value" in each for each in entries.values())
        ):
            raise InputError(
                f"must map {' and '.join(map(repr, STAGES))} to metrics by name, each with a 'value'",
                describe(metrics),
                "Pass {'as predicted': {'ece': {'value': 0.1}}, 'calibrated': {...}}, or leave it out.",
                argument="metrics",
            )


def predictions_by_stage(test: P, calibration: Calibration) -> dict[str, P]:
    """Return the test predictions by stage: as predicted, and calibrated."""
    return dict(zip(STAGES, (test, calibration.transform(test)), strict=True))


def _venn_abers_widths(
    val: AnyPredictions, test: AnyPredictions, subject: Subject
) -> dict[str, Any]:
    """Return mean and 95 % quantile of the widths of Venn-ABERS intervals of the test scores."""
    from fedlas.calibrators import VennAbers
    from fedlas.calibrators.fit_notes import fit_with_notes

    venn_abers, _ = fit_with_notes(VennAbers(), event_or_top_label(val, subject))
    low, high = venn_abers.interval(event_or_top_label(test, subject)).T
    return {
        "method": "venn-abers",
        "mean": float((high - low).mean()),
        "quantile_95": float((high - low).quantile(0.95)),
    }


def _monitor_reference(
    val: AnyPredictions, test: AnyPredictions, class_counts: list[int] | None, subject: Subject
) -> dict[str, Any]:
    """Return reference statistics of the test part for a monitor, in cells and bins of validation quantiles."""
    held_out, tested = event_or_top_label(val, subject), event_or_top_label(test, subject)
    chosen = held_out.confidence.astype(np.float64)
    confidence = tested.confidence.astype(np.float64)
    cells, bins = (quantile_edges(chosen, number) for number in (CELLS, BINS))
    counts, _ = np.histogram(confidence, bins)
    return {
        "part": "test",
        "subject": subject,
        "gaps": GapSums.from_samples(cells, confidence, tested.correct).to_dict(),
        "bin_edges": bins.tolist(),
        "bin_counts": counts.tolist(),
        "class_counts": class_counts,
    }


def known_limits(card: Card, class_sizes: Sequence[int]) -> list[str]:
    """Return the known limits of a card as sentences; ``class_sizes`` is the number of test samples per class."""
    notes = card.calibration.notes
    return [
        *_general_limits(card),
        *_metric_limits(card, class_sizes),
        *_training_limits(card),
        *notes,
    ]


def _general_limits(card: Card) -> Iterator[str]:
    samples = card.data["samples"]
    holds = "neither the metrics nor the thresholds hold"
    holds = "the metrics do not hold" if card.subject == "labels" else holds
    yield (
        f"All numbers are for inputs drawn like the {samples['test']:,} test samples of {card.data['name']}. On other "
        f"inputs {holds}; fedlas monitor reports when something has changed."
    )
    trained = "seed" in card.model
    is_fitted = card.calibration.is_fitted_on_validation
    check = "The test part was not used for these choices, so its numbers check them."
    if card.subject == "labels":
        chosen = f"{'the calibration and ' * is_fitted}the cells in which fedlas monitor compares"
        yield f"The {samples['val']:,} validation samples chose {chosen}. {check}"
        return
    chosen = (
        "the epoch and the calibration as well as the thresholds, "
        "so that the bound on their risk is approximate"
    )
    if not trained:
        chosen = chosen.replace("the epoch and ", "") if is_fitted else "the thresholds"
    yield f"The {samples['val']:,} validation samples chose {chosen}. {check}"
    if trained:
        yield "The model is a single training run: another seed gives other numbers."


def _metric_limits(card: Card, class_sizes: Sequence[int]) -> Iterator[str]:
    # Calibration as a whole: of two classes the measures of the event say more.
    ece = card.metrics["calibrated"].get("ece", {}) if card.subject == "top label" else {}
    if "p" in ece:
        value = f"{100 * ece['value']:.2f} %"
        floor = f"{100 * ece['floor']:.2f} %"
        p = format_p(ece["p"], ece.get("least_p"))
        if ece["p"] > ALPHA:
            yield (
                f"An ECE of {value} is not distinguishable from that of a perfectly calibrated model, which has "
                f"{floor} on average at this sample size ({p}). Smaller calibration errors cannot be detected "
                "or excluded."
            )
        else:
            yield (
                f"The ECE of {value} is more than chance: a perfectly calibrated model would have {floor} on average "
                f"({p}). Confidences deviate from probabilities."
            )
    # Single classes.
    num_small = sum(count < _MIN_CLASS_SAMPLES for count in class_sizes)
    if num_small:
        which = f"classes have fewer than {_MIN_CLASS_SAMPLES} test samples"
        if card.subject == "labels":
            which = f"labels have fewer than {_MIN_CLASS_SAMPLES} positive or negative test samples"
        yield f"{num_small} of {len(class_sizes)} {which}: their calibration alone cannot be assessed."
    # Thresholds that could not be found, and those that the test part contradicts.
    without_threshold = [row for row in card.selective["thresholds"] if row["threshold"] is None]
    if without_threshold:
        risks = ", ".join(f"{100 * row['risk']:g} %" for row in without_threshold)
        most = max(row["needed"] for row in without_threshold)
        yield (
            f"No threshold guarantees a risk of {risks}: the validation part is too small, or the most confident "
            f"predictions have too many errors. The smallest risk requires at least {most:,} accepted samples, even "
            "without errors."
        )
    for row in card.selective["thresholds"]:
        risk = row.get("test", {}).get("risk")
        if risk is not None and risk > row["risk"]:
            actual = f"{100 * risk:.2f} %"
            yield f"The threshold for a risk of {100 * row['risk']:g} % has a risk of {actual} on the test part."


def _training_limits(card: Card) -> Iterator[str]:
    data = card.data.get("settings") or {}
    for key, text in (
        (
            "label_noise",
            "Label noise was added to the training labels, and possibly to the validation labels.",
        ),
        (
            "long_tail",
            "Training and validation classes were made long-tailed, test classes were not.",
        ),
        ("corruption", "The test images were artificially corrupted."),
        (
            "hold_out_classes",
            "Some classes were held out of training: inputs of unknown classes get confidences like any other.",
        ),
        ("test_mean", "The test images were normalized differently from the training images."),
    ):
        if data.get(key):
            yield text
    if card.model.get("dirty"):
        yield "The run was made from source code with uncommitted changes."
