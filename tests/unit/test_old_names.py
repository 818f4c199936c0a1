"""Arguments with new names: the old name gives the same and a warning, for one release."""

import pytest
import torch

import fedlas
from fedlas.calibrators import MultiLabelCalibration


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(200, 3, generator=generator)
    return fedlas.Predictions(
        logits, torch.multinomial((logits / 2).softmax(1), 1, generator=generator)[:, 0]
    )


VAL, TEST = drawn(0), drawn(1)


@pytest.mark.parametrize(
    ("call", "old"),
    [
        (lambda **name: fedlas.report(TEST, on=VAL, replicates=0, **name).measured, "calibrate"),
        (lambda **name: fedlas.card(VAL, TEST, replicates=0, **name).verdict, "calibrator"),
        (lambda **name: type(MultiLabelCalibration(**name).calibrator), "calibrator"),
    ],
    ids=["report", "card", "labels"],
)
def test_the_old_argument_gives_the_same_with_a_warning(call, old):
    expected = call(method="temperature")
    with pytest.warns(DeprecationWarning, match=f"{old}= was renamed to method="):
        assert call(**{old: "temperature"}) == expected


@pytest.mark.parametrize("name", ["measures", "auroc", "group_measures", "positive_bins"])
def test_the_event_by_its_old_argument(name):
    call = getattr(fedlas.binary, name)
    more = (["a", "b"] * 100,) if name == "group_measures" else ()
    with pytest.warns(DeprecationWarning, match=r"positive= was renamed to event="):
        old = call(TEST, *more, positive=2)
    assert repr(old) == repr(call(TEST, *more, event=2))
