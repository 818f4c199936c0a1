import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import (
    accuracy,
    calibration_by_class,
    calibration_by_group,
    classwise_ece,
    ece,
    o_ece,
    u_ece,
)


def sampled(samples=600, classes=5):
    torch.manual_seed(0)
    logits = torch.randn(samples, classes) * 2
    return Predictions(
        logits, torch.multinomial((logits / 1.5).softmax(1), 1).squeeze(1) % (classes - 1)
    )


def test_classes():
    p = sampled()
    table = calibration_by_class(p, num_bins=9)
    assert list(table) == [0, 1, 2, 3, 4]
    assert np.mean([row.ece for row in table.values()]) == pytest.approx(
        classwise_ece(p, num_bins=9), rel=1e-12
    )
    for label, row in table.items():
        assert row.label == label
        assert row.num_labels == int((p.tensors().target == label).sum())
        assert row.frequency == row.num_labels / 600
        assert row.mean_probability == pytest.approx(
            float(p.tensors().probs[:, label].double().mean()), rel=1e-9
        )
        assert row.gap == pytest.approx(row.mean_probability - row.frequency)
    assert table[4].num_labels == 0
    assert table[4].ece == pytest.approx(table[4].mean_probability, rel=1e-9)


@pytest.mark.parametrize("kind", ["numbers", "tensor", "text", "predicted"])
def test_groups_are_their_samples_alone(kind):
    p = sampled()
    number = p.tensors().predicted if kind == "predicted" else torch.arange(600) % 7
    groups = {
        "numbers": number.numpy(), "tensor": number, "predicted": number, "text": [f"site {n}" for n in number],
    }[kind]  # fmt: skip
    table = calibration_by_group(p, groups, num_bins=6)
    assert list(table) == sorted(
        {f"site {n}" for n in number.tolist()} if kind == "text" else set(number.tolist())
    )
    assert sum(row.num_samples for row in table.values()) == 600
    for name, row in table.items():
        inside = number == int(str(name).split()[-1])
        part = Predictions(p.tensors().logits[inside], p.tensors().target[inside])
        assert row.num_samples == part.num_samples
        assert row.accuracy == pytest.approx(accuracy(part), rel=1e-12)
        assert row.confidence == pytest.approx(
            float(part.tensors().confidence.double().mean()), rel=1e-12
        )
        assert row.gap == pytest.approx(row.confidence - row.accuracy)
        assert row.ece == ece(part, num_bins=6)
        assert row.o_ece == o_ece(part, num_bins=6)
        assert row.u_ece == u_ece(part, num_bins=6)


@pytest.mark.parametrize("groups", [[0, 1], torch.zeros(600, 1).long(), "all", 3])
def test_one_group_for_each_sample(groups):
    with pytest.raises(ValueError, match=r"calibration_by_group: groups .*\(600,\)"):
        calibration_by_group(sampled(), groups)


@pytest.mark.parametrize(
    "groups",
    [
        torch.rand(600),
        torch.rand(600).bfloat16(),
        torch.rand(600, requires_grad=True),
        np.arange(600.0),
        [0.5] * 600,
    ],
    ids=["float32", "bfloat16", "with a gradient", "array", "list"],
)
def test_measurements_are_no_groups(groups):
    with pytest.raises(InputError, match=r"groups must be labels, .*numpy\.digitize"):
        calibration_by_group(sampled(), groups)


@pytest.mark.parametrize("groups", [[None] * 600, [1, object()] * 300], ids=["None", "objects"])
def test_groups_without_an_order(groups):
    with pytest.raises(InputError, match="groups must be sortable"):
        calibration_by_group(sampled(), groups)


def test_anything_but_predictions_is_refused():
    for table in (calibration_by_class, lambda p: calibration_by_group(p, [0])):
        with pytest.raises(ValueError, match="predictions must be Predictions"):
            table(torch.zeros(2, 2))
