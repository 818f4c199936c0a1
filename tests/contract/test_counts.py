"""No count or number at the edge makes a measure fail: it gives a number, none, or says in words what it needs.

Every registered metric, every measure of an event, and the report are called with few rows and events, weights at the
edge and probabilities of exactly 0 and 1; a new measure needs no line here.
"""

import inspect
import math
import warnings
from functools import partial

import numpy as np
import pytest
import torch

import fedlas
from fedlas import Predictions, binary
from fedlas.errors import CalibrationWarning, InputError
from fedlas.metrics import METRICS

ROUNDING = float(np.spacing(1.0))
TWENTY = np.linspace(0.03, 0.97, 20)
HALF = np.arange(20) % 2
CASES = {
    # probabilities of the event, labels, weights
    "one row": (TWENTY[:1], HALF[:1], None),
    "two rows": (TWENTY[:2], HALF[:2], None),
    "no event": (TWENTY, 0 * HALF, None),
    "one event": (TWENTY, 1 * (np.arange(20) == 7), None),
    "two events": (TWENTY, 1 * (np.arange(20) % 10 == 7), None),
    "events alone": (TWENTY, 0 * HALF + 1, None),
    "one value": (0 * TWENTY + 0.3, HALF, None),
    "two values": (0.2 + 0.6 * HALF[::-1], HALF, None),
    "separated": (TWENTY, 1 * (TWENTY > 0.5), None),
    "an impossible event": (np.append(TWENTY, 0.0), np.append(HALF, 1), None),
    "a certain event": (np.append(TWENTY, 1.0), np.append(HALF, 0), None),
    "0 and 1 alone": (1.0 * HALF, HALF[::-1], None),
    "a rounding below 0": (np.append(TWENTY, -ROUNDING / 8), np.append(HALF, 0), None),
    "a rounding above 1": (np.append(TWENTY, 1 + ROUNDING), np.append(HALF, 1), None),
    "weights of 1e-16": (TWENTY, HALF, np.where(np.arange(20) < 2, 1.0, 1e-16)),
    "two scores with weights 1 and 1e-16": (
        0.3 + 0.4 * (np.arange(20) < 10),
        HALF,
        np.where(np.arange(20) < 10, 1.0, 1e-16),
    ),
    "equal weights of 1e-16": (TWENTY, HALF, 0 * TWENTY + 1e-16),
    "weights of 0": (TWENTY, HALF, np.where(np.arange(20) < 2, 1.0, 0.0)),
}


def predictions(case):
    probs, target, weights = CASES[case]
    rows = torch.from_numpy(np.stack([1 - probs, probs], axis=1))
    return Predictions.from_probs(
        rows,
        torch.from_numpy(target.copy()),
        weights=None if weights is None else torch.from_numpy(weights),
    )


def number_or_words(call):
    """Return what a measure gives, or None where it says in words that it needs more."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", CalibrationWarning)
        try:
            return call()
        except InputError:
            return None


@pytest.mark.parametrize("case", CASES)
def test_every_metric_takes_every_count(case):
    measured = number_or_words(lambda: predictions(case))
    if measured is None:
        return
    for entry in METRICS.entries():
        if entry.needs:
            continue
        try:
            value = number_or_words(lambda entry=entry: entry.value(measured))
        except Exception as error:
            raise AssertionError(f"{entry.name}: {error!r}") from error
        number = math.nan if value is None else float(value)
        low, high = entry.between or (-math.inf, math.inf)
        held = math.isnan(number) or low - 1e-12 <= number <= high + 1e-12
        assert held, f"{entry.name}: {number}"


def functions_of_predictions():
    """Names of the public functions of an event that need nothing but predictions."""
    for name in binary.__all__:
        function = getattr(binary, name)
        if inspect.isfunction(function):
            first, *more = inspect.signature(function).parameters.values()
            if first.name == "predictions" and all(each.default is not each.empty for each in more):
                yield name


@pytest.mark.parametrize("name", [*functions_of_predictions()])
def test_every_function_of_an_event_takes_every_count(name):
    failed = []
    for case in CASES:
        measured = number_or_words(lambda case=case: predictions(case))
        function = getattr(binary, name)
        few = {"replicates": 39} if "replicates" in inspect.signature(function).parameters else {}
        try:
            if measured is not None:
                number_or_words(partial(function, measured, **few))
        except Exception as error:  # noqa: BLE001 - each is what this test looks for
            failed.append((case, repr(error)))
    assert failed == []


@pytest.mark.parametrize("case", CASES)
def test_measures_of_an_event_take_every_count(case):
    measured = number_or_words(lambda: predictions(case))
    if measured is not None:
        number_or_words(lambda: binary.measures(measured, replicates=39))


@pytest.mark.system
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("groups", [None, "one", "each"])
def test_report_takes_every_count(case, groups):
    measured = number_or_words(lambda: predictions(case))
    if measured is None:
        return
    rows = len(measured.target)
    labels = {None: None, "one": ["a"] * rows, "each": [f"g{row}" for row in range(rows)]}[groups]
    report = number_or_words(lambda: fedlas.report(measured, groups=labels, replicates=39))
    if report is not None:
        str(report)
        report.html()


LABELS = {
    "no event": [0, 0],
    "one event": [1, 0],
    "events alone": [20, 20],
    "unknown": [None, 3],
    "one label": [2],
}


@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("rows", [1, 2, 20])
def test_several_labels_take_every_count(case, rows):
    counts = LABELS[case]
    target = np.stack(
        [np.full(rows, -100) if each is None else 1 * (np.arange(rows) < each) for each in counts],
        axis=1,
    )
    probs = np.stack([np.linspace(0.0, 1.0, rows)] * len(counts), axis=1)
    several = number_or_words(lambda: fedlas.MultiLabel.from_probs(probs, target))
    assert several is not None
    for function, more in (
        (binary.label_measures, {"replicates": 39}),
        (partial(binary.label_group_measures, groups=["a"] * rows), {"replicates": 39}),
        (partial(binary.label_group_measures, groups=[*range(rows)]), {"replicates": 39}),
        (fedlas.report, {"replicates": 39}),
    ):
        number_or_words(partial(function, several, **more))
