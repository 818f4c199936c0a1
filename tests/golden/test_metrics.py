"""Metrics and temperature against the numbers of published implementations (see README.md beside this file)."""

import json
from pathlib import Path

import numpy as np
import pytest

from fedlas import Predictions
from fedlas.calibrators import TemperatureScaling
from fedlas.metrics import (
    accuracy,
    adaptive_ece,
    brier,
    classwise_ece,
    mce,
    nll,
    rmsce,
    smooth_ece,
    top_label_ece,
)

HERE = Path(__file__).parent
# Libraries and processors compute another last bit of a float32 softmax: 3e-8 of a metric.
TIGHT = 1e-6


def root_mean_square_with_a_bin_for_one(p):
    """As torchmetrics has it: a confidence of exactly 1 is in a bin of its own (where all of them are right here)."""
    below = p.tensors().confidence < 1
    assert p.tensors().correct[~below].all()
    part = Predictions(p.tensors().logits[below], p.tensors().target[below])
    return (part.num_samples / p.num_samples) ** 0.5 * rmsce(part)


EXPECTED = json.loads((HERE / "metrics.json").read_text())
OURS = {
    "accuracy": accuracy,
    "nll": nll,
    # Of two classes ours is that of one of them.
    "brier_sum": lambda p: brier(p) * (2 if p.num_classes == 2 else 1),
    "ece_15_equal_width": top_label_ece,
    "ece_15_torchmetrics_l1": top_label_ece,
    "ece_15_netcal": top_label_ece,
    "mce_15_torchmetrics": mce,
    "rmsce_15_torchmetrics_l2": root_mean_square_with_a_bin_for_one,
    "smece_relplot": lambda p: smooth_ece(p, variant="reference"),
    "ece_15_equal_mass_rank": adaptive_ece,
    "ace_15_equal_mass_reference": lambda p: adaptive_ece(p, variant="reference"),
    "classwise_ece_15_reference": lambda p: classwise_ece(p, variant="reference"),
    "temperature_nll": lambda p: TemperatureScaling().fit(p).temperature,
    "nll_after_temperature": lambda p: nll(TemperatureScaling().fit(p).transform(p)),
}
# Of another definition (bins cut by interpolated quantiles): not computed here.
NOT_OURS = {"ece_15_equal_mass_netcal"}
# The paper's smooth ECE itself, by direct summation over samples and images: far from the published package's numbers
# where errors are large and many confidences are 1.
SMOOTH_ECE = {
    "calibrated_c10": 0.0173495,
    "overconfident_c10": 0.2128456,
    "underconfident_c100": 0.2690188,
    "overconfident_c2": 0.1332082,
    "small_c5": 0.0661919,
}


@pytest.fixture(scope="module", params=list(EXPECTED))
def case(request):
    with np.load(HERE / "metrics.npz") as file:
        predictions = Predictions(file[f"{request.param}_logits"], file[f"{request.param}_target"])
    return predictions, EXPECTED[request.param]


@pytest.mark.parametrize("key", list(OURS))
def test_published_number(case, key):
    predictions, expected = case
    if expected[key] is None:
        pytest.skip("the published implementation has no number for two classes")
    tight = "equal_mass_rank" in key or "netcal" in key
    assert OURS[key](predictions) == pytest.approx(
        expected[key], rel=TIGHT if tight else 1e-4, abs=0 if tight else 1e-7
    )


def test_every_published_number_is_compared_or_excused(case):
    assert set(case[1]) == set(OURS) | NOT_OURS


def test_smooth_error_is_the_papers_unless_asked_for_the_published_one(case):
    predictions, expected = case
    name = next(name for name, values in EXPECTED.items() if values is expected)
    assert smooth_ece(predictions) == pytest.approx(SMOOTH_ECE[name], abs=1e-7)
    reference = smooth_ece(predictions, variant="reference")
    assert reference == pytest.approx(expected["smece_relplot"], rel=TIGHT)
    assert reference != pytest.approx(SMOOTH_ECE[name], rel=1e-4)


def test_classwise_error_is_the_same_in_both_conventions_when_the_last_class_occurs(case):
    predictions, expected = case
    if int(predictions.tensors().target.max()) + 1 == predictions.num_classes:
        assert classwise_ece(predictions) == pytest.approx(
            expected["classwise_ece_15_reference"], rel=1e-5
        )
    else:
        assert classwise_ece(predictions) < expected["classwise_ece_15_reference"]


def test_the_temperature_of_the_golden_sets_is_the_known_one(case):
    # Labels were drawn from softmax(logits / t) with t = 1, 2, 0.5, 3, 1.5; the sampling error is what is left.
    known = dict(zip(EXPECTED, (1, 2, 0.5, 3, 1.5), strict=True))
    predictions, expected = case
    name = next(name for name, values in EXPECTED.items() if values is expected)
    tolerance = 0.3 if name == "small_c5" else 0.05
    assert TemperatureScaling().fit(predictions).temperature == pytest.approx(
        known[name], rel=tolerance
    )
