import json

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, HistogramBinning
from fedlas.metrics import classwise_ece


def two_classes(second, target):
    """Predictions of two classes with the given probabilities of the second."""
    second = torch.tensor(second).double()
    return Predictions(torch.stack([(1 - second).log(), second.log()], dim=1), target)


def test_bins_of_equal_mass_by_hand():
    val = two_classes([0.1, 0.2, 0.3, 0.4, 0.6, 0.8], [0, 1, 0, 0, 1, 1])
    binning = HistogramBinning(num_bins=3).fit(val)
    torch.testing.assert_close(binning.map.edges[1], torch.tensor([0.25, 0.5]).double())
    torch.testing.assert_close(binning.map.edges[0], torch.tensor([0.5, 0.75]).double())
    assert binning.map.share[1].tolist() == [0.5, 0.0, 1.0]
    assert binning.map.share[0].tolist() == [0.0, 1.0, 0.5]
    assert binning.map.floor == pytest.approx(1 / (2 * 7))
    test = two_classes([0.01, 0.26, 0.5, 0.51, 0.99], [0] * 5)
    floor = 1 / 14
    # 0.01: 0.5 against 0.5; 0.26 and 0.5: a floored 0 against 1; above: 1 against a floored 0
    wanted = torch.tensor(
        [0.5, floor / (1 + floor), floor / (1 + floor), 1 / (1 + floor), 1 / (1 + floor)]
    )
    torch.testing.assert_close(binning.transform(test).tensors().probs[:, 1], wanted.double())


def test_bins_of_equal_width_by_hand():
    val = two_classes([0.05, 0.15, 0.22, 0.9, 0.95], [0, 1, 1, 1, 1])
    binning = HistogramBinning(num_bins=5, scheme="equal-width").fit(val)
    torch.testing.assert_close(binning.map.edges[1], torch.tensor([0.2, 0.4, 0.6, 0.8]).double())
    # bins of 2, 1, 0, 0 and 2 samples; an empty one keeps its middle
    torch.testing.assert_close(binning.map.share[1], torch.tensor([0.5, 1, 0.5, 0.7, 1]).double())
    torch.testing.assert_close(binning.map.share[0], torch.tensor([0, 0.3, 0.5, 0, 0.5]).double())


def test_many_samples_against_numpy(generated):
    val, test = generated(3000, dtype=torch.float32), generated(1000, seed=1, dtype=torch.float32)
    probs, target = val.tensors().logits.double().softmax(1).numpy(), val.target
    new = test.tensors().logits.double().softmax(1).numpy()
    result = np.empty_like(new)
    for label in range(4):
        ordered = np.sort(probs[:, label])
        cuts = (ordered[np.arange(200, 3000, 200) - 1] + ordered[np.arange(200, 3000, 200)]) / 2
        index = np.digitize(probs[:, label], cuts, right=True)
        share = np.array([(target[index == b] == label).mean() for b in range(15)])
        assert (np.bincount(index) == 200).all()
        result[:, label] = np.maximum(share, 1 / (4 * 3001))[
            np.digitize(new[:, label], cuts, right=True)
        ]
    result /= result.sum(axis=1, keepdims=True)
    calibrated = HistogramBinning().fit(val).transform(test)
    np.testing.assert_allclose(calibrated.probs, result, rtol=1e-5, atol=1e-7)


def test_equal_probabilities_stay_together():
    val = two_classes([0.3] * 7 + [0.9] * 3, [1, 0, 0, 0, 0, 0, 0, 1, 1, 0])
    binned = HistogramBinning(num_bins=5).fit(val).transform(val)
    shares = torch.tensor([1 / 7] * 7 + [2 / 3] * 3).double()
    torch.testing.assert_close(binned.tensors().probs[:, 1], shares)


def test_bin_of_a_sample_is_independent_of_others(generated):
    """Cuts lie between samples, so the last digit of a softmax decides nothing."""
    val = generated(500, dtype=torch.float32)
    binning = HistogramBinning().fit(val)
    together = binning.transform(val).tensors().logits
    alone = torch.cat(
        [
            binning.transform(Predictions(val.tensors().logits[i : i + 1], [0])).tensors().logits
            for i in range(500)
        ]
    )
    assert torch.equal(alone, together)


@pytest.mark.parametrize("scheme", ["equal-mass", "equal-width"])
def test_it_calibrates_class_by_class(scheme, generated):
    val, test = generated(5000), generated(5000, seed=1)
    binned = HistogramBinning(scheme=scheme).fit(val).transform(test)
    assert classwise_ece(binned) < 0.5 * classwise_ece(test)


def test_one_bin_gives_the_share_of_each_class(generated):
    val = generated(200)
    with pytest.warns(CalibrationWarning, match=r"accuracy .*falls"):
        binned = HistogramBinning(num_bins=1).fit(val).transform(val)
    torch.testing.assert_close(
        binned.tensors().probs[0], torch.bincount(val.tensors().target) / 200, check_dtype=False
    )
    assert binned.tensors().probs.unique(dim=0).shape[0] == 1


def test_no_class_left_is_every_class_alike():
    """Where all shares are 0 all are floored."""
    val = Predictions(
        torch.tensor([[0.0, 0.1, 5.0], [0.1, 0.0, 5.0], [5.0, 0, 0], [0, 5.0, 0]]), [2, 2, 0, 1]
    )
    between = HistogramBinning(num_bins=2).fit(val)
    assert bool(torch.isfinite(between.transform(val).tensors().logits).all())
    assert float(between.map.share.min()) == 0.0


def test_doubts(generated):
    with pytest.warns(CalibrationWarning, match="HistogramBinning: 10 samples cannot fill 15 bins"):
        HistogramBinning().fit(two_classes([0.1 * k + 0.05 for k in range(10)], [0, 1] * 5))
    val = generated(100)
    wider = Predictions(
        torch.cat([val.tensors().logits, torch.randn(100, 1)], dim=1), val.tensors().target
    )
    with pytest.warns(CalibrationWarning, match="class 4 of 5 without a validation sample"):
        binned = HistogramBinning().fit(wider).transform(wider)
    # the floor of 1/505, over the other classes' shares
    assert 0 < float(binned.tensors().probs[:, 4].max()) < 0.01
    HistogramBinning().fit(val)  # warnings are errors


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_bins": 0}, "num_bins must be a whole number of at least 1"),
        (
            {"scheme": "equal-mas"},
            "scheme must be one of equal-mass, equal-width; got 'equal-mas'. Did you mean",
        ),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        HistogramBinning(**kwargs)


def test_unfitted():
    assert repr(HistogramBinning()) == "HistogramBinning(num_bins=15, scheme='equal-mass')"
    with pytest.raises(ValueError, match=r"HistogramBinning\.map: .*fitted first"):
        _ = HistogramBinning().map


def test_options_are_saved(generated, tmp_path):
    binning = HistogramBinning(num_bins=7, scheme="equal-width").fit(generated(100))
    loaded = HistogramBinning.load(binning.save(tmp_path / "h.json"))
    assert repr(loaded) == repr(binning)
    assert torch.equal(loaded.map.share, binning.map.share)


@pytest.mark.parametrize(
    ("name", "value"),
    [("edges", [[0.5]]), ("edges", [[0.7, 0.5]] * 4), ("share", [[0.5] * 4] * 4), ("share", [[0.5, 0.5, 1.5]] * 4),
     ("floor", 0.0), ("floor", 2.0), ("floor", None)],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(generated, tmp_path, name, value):
    path = HistogramBinning(num_bins=3).fit(generated(100)).save(tmp_path / "h.json")
    content = json.loads(path.read_text())
    content["state"][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="state of a HistogramBinning"):
        HistogramBinning.load(path)


def test_a_fall_of_the_accuracy_is_named(generated):
    """Two bins hold half of the samples each, and a class of four has a quarter."""
    with pytest.warns(
        CalibrationWarning, match=r"accuracy .*falls from 0\.\d+ to 0\.\d+ \(the NLL"
    ):
        HistogramBinning(num_bins=2).fit(generated(1000))
