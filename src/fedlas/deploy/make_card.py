"""Makes a calibration card: thresholds for a risk, metrics, and known limits as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

import fedlas
from fedlas._core.check import InputError, check_count, describe
from fedlas._core.kinds import check_kinds
from fedlas.calibrated.calibration import Calibration, P
from fedlas.calibrators import VennAbers
from fedlas.calibrators.fit_notes import fit_with_notes
from fedlas.deploy.card import Card, Metrics, Subject, outcomes
from fedlas.deploy.label_reference import label_reference
from fedlas.metrics import METRICS, evaluate
from fedlas.metrics.metric import find_measure
from fedlas.metrics.sums import check_takes_weights
from fedlas.predictions import MultiLabel, Predictions
from fedlas.predictions.any_predictions import AnyPredictions
from fedlas.predictions.multi_label import check_known, check_same_labels
from fedlas.resample.clusters import check_independent
from fedlas.stats import ALPHA
from fedlas.stats.estimates import CONFIDENCE_LEVEL
from fedlas.stats.gap_sums import GapSums, quantile_edges
from fedlas.stats.noise_floor import p_said
from fedlas.stats.selective_risk import DEFAULT_RISKS, reject_option

CELLS = 5
BINS = 100
"""Cells of confidence in which the gap is followed, and bins of its distribution, for ``fedlas monitor``."""
STAGES = ("as predicted", "calibrated")
METHOD = (
    "Learn then Test (Angelopoulos et al. 2021): fixed-sequence tests with exact binomial p-values over a fixed grid "
    "of thresholds, from ten starts; {promise}"
)
HOLDS = "each row holds with {level:.0%} over the draw of the validation part."
APPROXIMATE = (
    "the calibrator was fitted on the same validation part, so the risk need not hold with {level:.0%}: the test "
    "part is the check."
)

_FEW = 30
"""Samples of a class below which nothing is known about its calibration."""


@check_kinds
def make_card(
    val: AnyPredictions | MultiLabel,
    test: AnyPredictions | MultiLabel,
    calibration: Calibration,
    *,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    num_bins: int = 15,
    risks: Sequence[float] = DEFAULT_RISKS,
    metrics: Metrics | None = None,
    replicates: int = 0,
    exported: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
    labels: Mapping[str, Any] | None = None,
) -> Card:
    """Return a calibration card: thresholds chosen on ``val``, numbers measured on ``test``."""
    # Neither is calibrated yet. ``model`` and ``data`` are facts to record: ``run`` or ``name``, and where known
    # ``classes``, ``settings``, ``samples``, ``period``. With ``event`` the card is about the probability of the second
    # of two classes; several labels have their measures in ``labels`` and no thresholds. No threshold's bound, and none
    # of a monitor, holds with weights.
    _check_arguments(val, test, model, data, replicates)
    if metrics is not None:
        _check_metrics(metrics)
    # The card is about the calibrated model; the raw one stands next to it.
    stages = stages_of(test, calibration)
    val = calibration.transform(val)
    test = stages[STAGES[1]]
    subject: Subject = "top label" if event is None else "event"
    if metrics is None:
        metrics = {stage: _values(each, num_bins) for stage, each in stages.items()}
    if isinstance(val, MultiLabel) or isinstance(test, MultiLabel):
        sections, samples_of = _of_labels(val, test)
    else:
        promise = APPROXIMATE if calibration.is_fitted_on_validation else HOLDS
        sections, samples_of = _of_one_label(val, test, subject, risks, promise)
    sizes = {"val": val.num_samples, "test": test.num_samples}
    card = Card(
        made={"on": datetime.now(UTC).date().isoformat(), "fedlas": fedlas.__version__},
        model={"classes": None, **model, **sections.pop("model")},
        calibration=calibration,
        # What is served: an exported model gives calibrated predictions, all else those that the test file holds.
        live="raw" if exported is None and calibration.calibrator is not None else "calibrated",
        data={**data, "samples": {**data.get("samples", {}), **sizes}},
        metrics={stage: _shown(each, test) for stage, each in metrics.items()},
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
    return replace(card, limits=known_limits(card, samples_of))


def _of_one_label(
    val: AnyPredictions,
    test: AnyPredictions,
    subject: Subject,
    risks: Sequence[float],
    promise: str,
) -> tuple[dict[str, Any], Sequence[int]]:
    """Return the sections of a card that are about one label a sample, and the test samples of each class."""
    num_classes = 0
    class_counts = None
    samples_of: Sequence[int] = ()
    if isinstance(test, Predictions):
        num_classes = test.num_classes
        class_counts, samples_of = (
            torch.bincount(each.cpu(), minlength=num_classes).tolist()
            for each in (test.predicted, test.target)
        )
    thresholds = [
        reject_option(val, test, risk=risk, confidence_level=CONFIDENCE_LEVEL).plain()
        for risk in risks
    ]
    method = METHOD.format(promise=promise.format(level=CONFIDENCE_LEVEL))
    return {
        "model": {"num_classes": num_classes},
        "selective": {"method": method, "level": CONFIDENCE_LEVEL, "thresholds": thresholds},
        "width": _width(val, test, subject),
        "reference": _reference(val, test, class_counts, subject),
    }, samples_of


def _of_labels(val: object, test: object) -> tuple[dict[str, Any], Sequence[int]]:
    """Return the sections of a card of several labels, and the test samples of the rarer outcome of each."""
    val, test = check_same_labels(val, test, "validation predictions")
    target = check_known(test).target
    by_outcome = ((target == outcome).sum(dim=0).tolist() for outcome in (0, 1))
    return {
        "model": {"num_classes": test.num_labels, "classes": list(test.names or ())},
        "selective": {"method": "", "level": CONFIDENCE_LEVEL, "thresholds": []},
        "width": {},
        "reference": label_reference(val, test),
    }, [*map(min, *by_outcome)]


def _values(predictions: AnyPredictions | MultiLabel, num_bins: int) -> dict[str, dict[str, float]]:
    """Return the metrics without intervals."""
    values = evaluate(predictions, num_bins=num_bins)
    return {name: {"value": value} for name, value in values.items()}


def _shown(metrics: Mapping[str, Any], test: AnyPredictions | MultiLabel) -> dict[str, Any]:
    """Return the metrics of a card, without those that say nothing of so few classes."""
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
    """Refuse weights and clusters, facts without a name, and a number of replicates that is none."""
    for part in (val, test):
        check_takes_weights(part, takes_weights=False)
        whose = "a monitor's" if isinstance(part, MultiLabel) else "the thresholds'"
        check_independent(part, f"{whose} bounds")
    check_count("replicates", replicates, low=0)
    for argument, about, key in (("model", model, "run"), ("data", data, "name")):
        if key not in about:
            fix = f"Pass {{{key!r}: 'test {argument}'}}."
            raise InputError(f"must hold {key!r}", describe(about), fix, argument=argument)


def _check_metrics(metrics: Metrics) -> None:
    """Refuse metrics that are not the values of both stages, by the names of metrics."""
    stages: Any = metrics
    are_there = isinstance(stages, Mapping) and stages.keys() == {*STAGES}
    for entries in stages.values() if are_there else [None]:
        if (
            not isinstance(entries, Mapping)
            or not all(find_measure(name, event=False) for name in entries)
            or not all(isinstance(each, Mapping) and "value" in each for each in entries.values())
        ):
            raise InputError(
                f"must hold, for each of {' and '.join(STAGES)}, the value of each metric by its name",
                describe(metrics),
                "Pass {'as predicted': {'ece': {'value': 0.1}}, 'calibrated': {...}}, or leave it out.",
                argument="metrics",
            )


def stages_of(test: P, calibration: Calibration) -> dict[str, P]:
    """Test predictions of each of :data:`STAGES`: as predicted, and calibrated."""
    return dict(zip(STAGES, (test, calibration.transform(test)), strict=True))


def _width(val: AnyPredictions, test: AnyPredictions, subject: Subject) -> dict[str, Any]:
    """Return the widths of Venn-ABERS bounds of test scores: the fewer validation samples, the wider."""
    venn_abers, _ = fit_with_notes(VennAbers(), outcomes(val, subject))
    low, high = venn_abers.interval(outcomes(test, subject)).T
    return {
        "method": "venn-abers",
        "mean": float((high - low).mean()),
        "quantile_95": float((high - low).quantile(0.95)),
    }


def _reference(
    val: AnyPredictions, test: AnyPredictions, class_counts: list[int] | None, subject: Subject
) -> dict[str, Any]:
    """Return sums over the test part for ``fedlas monitor``, in cells that validation predictions choose."""
    held_out, tested = outcomes(val, subject), outcomes(test, subject)
    chosen = held_out.confidence.cpu().double().numpy()
    confidence = tested.confidence.cpu().double().numpy()
    cells, bins = (quantile_edges(chosen, number) for number in (CELLS, BINS))
    counts, _ = np.histogram(confidence, bins)
    return {
        "part": "test",
        "subject": subject,
        "gaps": GapSums.of(cells, confidence, tested.correct.cpu().numpy()).plain(),
        "bin_edges": bins.tolist(),
        "bin_counts": counts.tolist(),
        "class_counts": class_counts,
    }


def known_limits(card: Card, samples_of: Sequence[int]) -> list[str]:
    """Return sentences, the most general first; ``samples_of`` counts the test samples of each class ``(C,)``."""
    notes = card.calibration.notes
    return [*_general(card), *_numbers(card, samples_of), *_training(card), *notes]


def _general(card: Card) -> Iterator[str]:
    samples = card.data["samples"]
    holds = "neither the metrics nor the thresholds hold"
    holds = "the metrics do not hold" if card.subject == "labels" else holds
    yield (
        f"All numbers are for inputs drawn like the {samples['test']:,} test samples of {card.data['name']}. On other "
        f"inputs {holds}; fedlas monitor reports when something has changed."
    )
    trained = "seed" in card.model
    is_fitted = card.calibration.is_fitted_on_validation
    check = "The test part had no part in it: its column is the check."
    if card.subject == "labels":
        chosen = f"{'the calibration and ' * is_fitted}the cells in which fedlas monitor compares"
        yield f"The {samples['val']:,} validation samples chose {chosen}. {check}"
        return
    chosen = (
        "the epoch and the calibration as well as the thresholds, "
        "so that the bound on their risk need not hold"
    )
    if not trained:
        chosen = chosen.replace("the epoch and ", "") if is_fitted else "the thresholds"
    yield f"The {samples['val']:,} validation samples chose {chosen}. {check}"
    if trained:
        yield "It is one training run: another seed gives another model with other numbers."


def _numbers(card: Card, samples_of: Sequence[int]) -> Iterator[str]:
    # Calibration as a whole: of two classes the measures of the event say more.
    ece = card.metrics["calibrated"].get("ece", {}) if card.subject == "top label" else {}
    if "p" in ece:
        value = f"{100 * ece['value']:.2f} %"
        floor = f"{100 * ece['floor']:.2f} %"
        p = p_said(ece["p"], ece.get("least_p"))
        if ece["p"] > ALPHA:
            yield (
                f"An ECE of {value} is not distinguishable from that of a perfectly calibrated model, which has "
                f"{floor} on average on so few samples ({p}): errors smaller than chance makes are neither "
                "shown nor excluded."
            )
        else:
            yield (
                f"The ECE of {value} is more than chance: a perfectly calibrated model would have {floor} on average "
                f"({p}). Confidences are not exactly probabilities."
            )
    # Single classes.
    few = sum(count < _FEW for count in samples_of)
    if few:
        which = f"classes have fewer than {_FEW} test samples"
        if card.subject == "labels":
            which = f"labels have fewer than {_FEW} test samples with them, or without"
        yield f"{few} of {len(samples_of)} {which}: about them alone nothing is known."
    # Thresholds that could not be found, and those that the test part contradicts.
    missed = [row for row in card.selective["thresholds"] if row["threshold"] is None]
    if missed:
        risks = ", ".join(f"{100 * row['risk']:g} %" for row in missed)
        most = max(row["needed"] for row in missed)
        yield (
            f"No threshold can be vouched for a risk of {risks}: the validation part is too small, or the model is "
            f"wrong too often where it is most confident. Even without a mistake the smallest risk needs {most:,} "
            "accepted samples."
        )
    for row in card.selective["thresholds"]:
        risk = row.get("test", {}).get("risk")
        if risk is not None and risk > row["risk"]:
            actual = f"{100 * risk:.2f} %"
            yield f"The threshold for a risk of {100 * row['risk']:g} % has {actual} on the test part."


def _training(card: Card) -> Iterator[str]:
    data = card.data.get("settings") or {}
    for key, text in (
        (
            "label_noise",
            "Some training labels were made wrong on purpose, validation labels may be too.",
        ),
        (
            "long_tail",
            "Training and validation classes were made rare on purpose, test classes were not.",
        ),
        ("corruption", "The test images were corrupted on purpose."),
        (
            "hold_out_classes",
            "Some classes were held out: inputs of unknown classes get a confidence like any other.",
        ),
        ("test_mean", "The test images were not normalized as the training images."),
    ):
        if data.get(key):
            yield text
    if card.model.get("dirty"):
        yield "The run was made from sources that differ from their commit."
