"""Which class is set against the rest, and what is refused."""

import re

import pytest
import torch

from fedlas import Predictions, binary

MEASURES = [
    binary.brier_skill,
    binary.integrated_calibration,
    binary.logistic_recalibration,
    binary.measures,
    binary.net_benefit,
    binary.positive_bins,
]


@pytest.fixture(scope="module")
def four_classes():
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Predictions(3 * logits, logits.argmax(1).roll(1))


def test_two_classes_default_to_class_1():
    certain = Predictions(
        torch.tensor([[0.0, 61.0], [0.0, 60.0], [0.0, -60.0], [0.0, -61.0]]).double(), [1, 0, 1, 0]
    )
    assert binary.auroc(certain) == binary.auroc(certain, event=1)
    assert binary.auroc(certain).value == binary.auroc(certain, event=0).value == 0.75


@pytest.mark.parametrize("event", [0, 2, 3])
@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_every_measure_takes_one_class_against_the_rest(measure, event, four_classes):
    probability = four_classes.tensors().logits.softmax(1)[:, event]
    as_two = Predictions(
        torch.stack([torch.zeros(60), probability.logit()], 1),
        four_classes.tensors().target == event,
    )
    one, two = (
        [float(each) for each in re.findall(r"-?\d+\.?\d*(?:e[-+]\d+)?", repr(found))]
        for found in (measure(four_classes, event=event), measure(as_two))
    )
    assert len(one) > 0
    assert one == pytest.approx(two)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_every_measure_refuses_what_has_no_positive_class(measure, four_classes):
    name = measure.__name__
    with pytest.raises(ValueError, match=rf"{name}: .*two classes.*got 4 classes"):
        measure(four_classes)
    with pytest.raises(ValueError, match=rf"{name}: event .*\[0, 4\); got 4"):
        measure(four_classes, event=4)
    with pytest.raises(ValueError, match=rf"{name}: event .*whole number.*got int -1"):
        measure(four_classes, event=-1)
    with pytest.raises(ValueError, match=rf"{name}: .*two classes.*got 1 class"):
        measure(Predictions([[1.0], [2.0]], [0, 0]), event=0)
    with pytest.raises(
        ValueError,
        match=rf"{name}: (predictions must be Predictions|scores must come with labels); got",
    ):
        measure(torch.zeros(2, 2))


@pytest.mark.parametrize("measure", [binary.brier_skill, binary.logistic_recalibration])
@pytest.mark.parametrize("label", [0, 1])
def test_one_outcome_alone_is_refused(measure, label):
    what = ("no", "only")[label]
    with pytest.raises(
        ValueError, match=rf"class 1 .*must both occur as labels; got 3 samples, {what} clas"
    ):
        measure(Predictions([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0]], [label] * 3))


@pytest.mark.parametrize("measure", MEASURES, ids=lambda m: m.__name__)
def test_rows_of_weight_0_are_left_out(measure, four_classes):
    weights = torch.arange(60) % 3.0
    weighted = Predictions(
        four_classes.tensors().logits, four_classes.tensors().target, weights=weights
    )
    some = weights > 0
    fewer = Predictions(
        four_classes.tensors().logits[some],
        four_classes.tensors().target[some],
        weights=weights[some],
    )
    assert repr(measure(weighted, event=2)) == repr(measure(fewer, event=2))
