import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, IsotonicCalibration
from fedlas.metrics import classwise_ece

pytest.importorskip("sklearn")


def two_classes(second, target):
    """Predictions of two classes with the given probabilities of the second."""
    second = torch.tensor(second).double()
    return Predictions(torch.stack([(1 - second).log(), second.log()], dim=1), target)


def pool_adjacent_violators(values):
    """Isotonic regression of a sequence, by merging neighbors that fall."""
    blocks = []
    for value in values:
        blocks.append([value, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return np.concatenate([np.full(count, value) for value, count in blocks])


def test_each_class_against_pooling_by_hand(generated):
    val = generated(300)
    probs = val.probs
    wanted = np.empty_like(probs)
    for label in range(4):
        order = np.argsort(probs[:, label])
        wanted[order, label] = pool_adjacent_violators((val.target[order] == label).astype(float))
    wanted = np.maximum(wanted, 1 / (4 * 301))
    wanted /= wanted.sum(axis=1, keepdims=True)
    calibrated = IsotonicCalibration().fit(val).transform(val)
    np.testing.assert_allclose(calibrated.probs, wanted, atol=1e-12)


def test_new_samples_against_scikit_learn(generated):
    from sklearn.isotonic import IsotonicRegression

    val, test = generated(500, dtype=torch.float32), generated(500, seed=1, dtype=torch.float32)
    old, new = (p.tensors().logits.double().softmax(1).numpy() for p in (val, test))
    wanted = np.stack(
        [
            IsotonicRegression(out_of_bounds="clip")
            .fit(old[:, k], (val.tensors().target == k).double().numpy())
            .predict(new[:, k])
            for k in range(4)
        ],
        axis=1,
    )
    wanted = np.maximum(wanted, 1 / (4 * 501))
    wanted /= wanted.sum(axis=1, keepdims=True)
    calibrated = IsotonicCalibration().fit(val).transform(test)
    np.testing.assert_allclose(calibrated.probs, wanted, rtol=1e-5, atol=1e-7)


def test_linear_between_samples_and_constant_outside():
    isotonic = IsotonicCalibration().fit(two_classes([0.2, 0.6], [0, 1]))
    test = two_classes([0.1, 0.2, 0.3, 0.6, 0.9], [0] * 5)
    floor = 1 / (2 * 3)
    second = np.maximum([0, 0, 0.25, 1, 1], floor)
    first = np.maximum([1, 1, 0.75, 0, 0], floor)
    np.testing.assert_allclose(
        isotonic.transform(test).tensors().probs[:, 1].numpy(), second / (first + second), atol=1e-9
    )


def test_it_calibrates_class_by_class(generated):
    val, test = generated(5000), generated(5000, seed=1)
    calibrated = IsotonicCalibration().fit(val).transform(test)
    assert classwise_ece(calibrated) < 0.5 * classwise_ece(test)


def test_a_constant_map(generated):
    val = generated(distort=lambda z: -z)
    with pytest.warns(CalibrationWarning, match=r"class.* is constant"):
        IsotonicCalibration().fit(val)
    IsotonicCalibration().fit(generated())  # warnings are errors


def test_a_class_without_a_sample(generated):
    val = generated(100)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.randn(100, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without"):
        calibrated = IsotonicCalibration().fit(wider).transform(wider)
    # the floor of 1/505, over the other classes' values
    assert 0 < float(calibrated.tensors().probs[:, 4].max()) < 0.01


def test_unfitted():
    with pytest.raises(ValueError, match=r"IsotonicCalibration\.map: .*fitted first"):
        _ = IsotonicCalibration().map


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(size=state["size"][:3]),
        lambda state: state.update(size=[len(state["at"])]),
        lambda state: state.update(size=[2, 2, 2, 10**12]),
        lambda state: state.update(size=[1.5, 1.5, 1.5, 1.5]),
        lambda state: state.update(size=[len(state["at"]), 0, 0, 0]),
        lambda state: state.update(at=None),
        lambda state: state.update(at=0.5),
        lambda state: state.update(floor=0),
        lambda state: state.update(at=state["at"][::-1]),
        lambda state: state.update(value=state["value"][::-1]),
        lambda state: state.update(value=[2 * each for each in state["value"]]),
        lambda state: state.update(value=state["value"][1:]),
        lambda state: state["value"].__setitem__(1, [3]),
    ],
)
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, change):
    path = IsotonicCalibration().fit(generated(100)).save(tmp_path / "i.json")
    content = json.loads(path.read_text())
    change(content["state"])
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a IsotonicCalibration"):
        IsotonicCalibration.load(path)
