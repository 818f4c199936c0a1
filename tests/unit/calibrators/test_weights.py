"""A weight of 2 is a repeated sample, in every calibrator."""

from dataclasses import replace

import pytest
import torch

from fedlas import MultiLabel, Predictions
from fedlas.calibrators import (
    CALIBRATORS,
    Calibrator,
    LabelShift,
    MultiLabelCalibration,
    TemperatureScaling,
)

NAMES = [
    entry.name
    for entry in CALIBRATORS.entries()
    if not entry.value.needs and not entry.metadata.get("part")
]
OTHER_OPTIONS = [
    ("temperature", {"objective": "ece"}),
    ("vector", {"num_folds": None}),
    ("auto", {"keep_class": True}),
    *(("structured", {"form": form}) for form in ("matrix", "vector")),
    ("matrix", {"off_diagonal": 0.01, "intercept": 0.01}),
    ("dirichlet", {"off_diagonal": 0.01, "intercept": 0.01}),
    ("histogram-binning", {"scheme": "equal-width"}),
    ("label-shift", {"base": "temperature"}),
    ("label-shift", {"base": "none", "prior": [0.2, 0.3, 0.5]}),
    ("multicalibration", {"start": "none", "num_folds": None}),
]


@pytest.fixture
def weighted(generated):
    val = generated(300, classes=3)
    weights = torch.arange(300) % 4
    weights[:3] = 1
    return Predictions(val.tensors().logits, val.tensors().target, weights=weights)


def repeated(val):
    rows = torch.arange(val.num_samples).repeat_interleave(val.tensors().weights.long())
    return Predictions(val.tensors().logits[rows], val.tensors().target[rows])


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), *OTHER_OPTIONS])
def test_weights_are_repeated_samples(name, options, weighted):
    kind = CALIBRATORS[name].value
    # Errors weigh more, so that a fit without weights is another one.
    val = replace(
        weighted, weights=weighted.tensors().weights * torch.where(weighted.tensors().correct, 1, 3)
    )
    ours, theirs = (
        kind(**options).fit(part).transform(val).tensors().probs for part in (val, repeated(val))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "kind", [CALIBRATORS[name].value for name in ("auto", "temperature", "isotonic", "spline")]
)
def test_only_ratios_of_other_weights_matter(kind, weighted):
    halves = [
        Predictions(
            weighted.tensors().logits,
            weighted.tensors().target,
            weights=(weighted.tensors().weights + 0.5) * k,
        )
        for k in (0.3, 0.03)
    ]
    ours, theirs = (kind().fit(val).transform(weighted).tensors().probs for val in halves)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize("name", ["partial-pooling", "pooled-spline", "structured", "vector"])
def test_fractional_weights_count_as_effective_samples(name, weighted):
    """Rows of equal weights beside nearly weightless ones are the former alone, and no more of them."""
    kind = CALIBRATORS[name].value
    few = torch.arange(300) % 3 == 0
    val = Predictions(
        weighted.tensors().logits,
        weighted.tensors().target,
        weights=torch.where(few, 1.5, 1e-9).double(),
    )
    ours, theirs = (
        kind().fit(part).transform(weighted).tensors().probs
        for part in (val, weighted.rows(few)._replace_fields(weights=None))
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
def test_labels_with_fractional_weights_are_effective_samples():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 5, generator=random, dtype=torch.float64) - 2
    target = torch.bernoulli((0.3 * logits).sigmoid(), generator=random)
    few = torch.arange(300) % 3 == 0
    weights = torch.where(few, 1.5, 1e-9).double()
    all_rows = MultiLabelCalibration().fit(MultiLabel(logits, target, weights=weights))
    heavy = MultiLabelCalibration().fit(MultiLabel(logits[few], target[few]))
    ours, theirs = (
        each.transform(MultiLabel(logits)).tensors().probs for each in (all_rows, heavy)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_weights_that_cannot_be_repetitions(weighted):
    kind = CALIBRATORS["multicalibration"].value
    assert not kind.takes_weights
    with pytest.raises(ValueError, match="weights must be whole numbers"):
        kind().fit(
            Predictions(
                weighted.tensors().logits,
                weighted.tensors().target,
                weights=weighted.tensors().weights + 0.5,
            )
        )


def test_weights_stay_with_the_samples(weighted):
    assert torch.equal(
        TemperatureScaling().fit(weighted).transform(weighted).tensors().weights,
        weighted.tensors().weights,
    )
    assert issubclass(LabelShift, Calibrator)
