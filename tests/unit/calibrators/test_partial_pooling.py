import pytest
import torch

from fedlas import MultiLabel, Predictions, TopLabel
from fedlas.calibrators import CalibrationWarning, MultiLabelCalibration, PartialPooling

pytestmark = pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")


def labels(samples=150, count=30, seed=0, spread=0.3, center=-3.0):
    """Logits and targets of labels whose true slopes and offsets differ, rare ones among them."""
    own = torch.Generator().manual_seed(0)
    slope = (spread * torch.randn(count, generator=own, dtype=torch.float64)).exp() / 2
    offset = spread * torch.randn(count, generator=own, dtype=torch.float64) - 0.7
    center = center + torch.randn(count, generator=own, dtype=torch.float64)
    random = torch.Generator().manual_seed(1 + seed)
    logits = center + 2 * torch.randn(samples, count, generator=random, dtype=torch.float64)
    return logits, torch.bernoulli((slope * logits + offset).sigmoid(), generator=random).long()


def numbers(logits, target, **values):
    fits = PartialPooling().fit_labels(MultiLabel(logits, target, **values))
    return torch.stack([fit.map.numbers[1] for fit in fits])


def nll(calibration, logits, target):
    after = calibration.transform(logits)
    return float(torch.nn.functional.binary_cross_entropy_with_logits(after, target.double()))


def test_pooling_beats_separate_and_shared_calibrators():
    fit, test = labels(100, 60, center=-4.0), labels(4000, 60, seed=1, center=-4.0)
    pooled = nll(MultiLabelCalibration("partial-pooling").fit(*fit), *test)
    for method, shared in (("platt", False), ("platt", True), ("beta", False), ("beta", True)):
        assert pooled < nll(MultiLabelCalibration(method, shared=shared).fit(*fit), *test) - 0.002


def test_many_samples_leave_each_label_its_own_curve():
    logits, target = labels(20_000, 3, spread=1.0)
    own = [MultiLabel(logits, target).label(place) for place in range(3)]
    pooled = PartialPooling().fit_labels(MultiLabel(logits, target))
    for each, alone in zip(pooled, own, strict=True):
        probs = PartialPooling().fit(alone).transform(alone).tensors().probs
        assert float((each.transform(alone).tensors().probs - probs).abs().max()) < 0.02


def test_labels_alike_get_nearly_one_curve():
    logits, target = labels(spread=0.0)
    assert float(numbers(logits, target)[:, 0].std()) < 0.05


def test_label_without_positives_has_positive_probability():
    logits, target = labels()
    target[:, 4] = 0
    with pytest.warns(CalibrationWarning, match="label 4 without a positive sample"):
        after = MultiLabelCalibration("partial-pooling").fit(logits, target).transform(logits)
    mean = after.sigmoid().mean(dim=0)
    assert 1e-4 < float(mean[4]) < float(logits[:, 4].sigmoid().mean())


def test_unknown_label_gets_the_mean_curve():
    logits, target = labels()
    target[:, 4] = -100
    every = numbers(logits, target)
    assert float((every[4] - every.mean(dim=0)).abs().max()) < 0.4
    others = [place for place in range(30) if place != 4]
    less = numbers(logits[:, others], target[:, others])
    torch.testing.assert_close(every[others], less, rtol=0.02, atol=0.02)


def test_unknown_labels_are_left_out():
    logits, target = labels()
    target[100:] = -100
    torch.testing.assert_close(numbers(logits, target), numbers(logits[:100], target[:100]))


def test_weights_count_samples():
    logits, target = labels()
    weights = torch.tensor([2, 1, 0]).repeat(50)
    repeated = torch.arange(150).repeat_interleave(weights)
    expected = numbers(logits[repeated], target[repeated])
    torch.testing.assert_close(numbers(logits, target, weights=weights), expected)
    torch.testing.assert_close(
        numbers(logits, target, weights=weights.double() * 0.37 + 0.01),
        numbers(logits, target, weights=weights.double() * 0.74 + 0.02),
    )


def test_copies_in_clusters_count_once():
    logits, target = labels()
    copies = torch.arange(150).repeat(4)
    alone = numbers(logits, target)
    together = numbers(logits[copies], target[copies], clusters=copies)
    apart = numbers(logits[copies], target[copies])
    assert float((together - alone).abs().max()) < 0.02
    assert float((apart - alone).abs().max()) > 0.2


def test_no_curve_falls():
    logits, target = labels(1000)
    target[:, :3] = 1 - target[:, :3]
    logits[:8, 3:6], target[:8, 3:6] = 8, 0  # the highest scores of some labels are wrong
    calibration = MultiLabelCalibration("partial-pooling").fit(logits, target)
    line = torch.linspace(-12, 12, 400, dtype=torch.float64).unsqueeze(1).expand(-1, 30)
    assert bool((calibration.transform(line).diff(dim=0) >= -1e-6).all())
    assert bool((numbers(logits, target)[:3, :2] >= 0).all())


def test_order_of_labels_and_samples_is_irrelevant():
    logits, target = labels()
    order, turned = torch.randperm(150), torch.randperm(30)
    expected = numbers(logits, target)[turned]
    found = numbers(logits[order][:, turned], target[order][:, turned])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_part_of_many_labels_tells_their_distribution(monkeypatch):
    logits, target = labels(count=300)
    expected = numbers(logits, target)
    monkeypatch.setattr("fedlas.calibrators._fit.partial_pooling._MAX_LABEL_ROWS", 1000)
    monkeypatch.setattr("fedlas.calibrators._fit.partial_pooling._BLOCK_ROWS", 2000)
    away = (numbers(logits, target) - expected).abs().mean()
    assert 0 < float(away) < 0.1


@pytest.mark.parametrize("count", [1, 2])
def test_one_and_two_labels(count):
    fit, test = labels(1500, count), labels(5000, count, seed=1)
    raw = torch.nn.functional.binary_cross_entropy_with_logits(test[0], test[1].double())
    assert nll(MultiLabelCalibration("partial-pooling").fit(*fit), *test) < float(raw)


def test_layer_and_file_of_labels_are_the_fit(tmp_path):
    logits, target = labels()
    calibration = MultiLabelCalibration("partial-pooling").fit(logits, target)
    after = calibration.transform(logits)
    loaded = MultiLabelCalibration.load(calibration.save(tmp_path / "labels.json"))
    torch.testing.assert_close(loaded.transform(logits), after)
    exported = torch.export.export(calibration.module(), (logits[:5],)).module()
    torch.testing.assert_close(exported(logits[:5]), after[:5])
    each = (
        calibration.calibrators[7].transform(MultiLabel(logits, target).label(7)).tensors().logits
    )
    torch.testing.assert_close(each[:, 1] - each[:, 0], after[:, 7], rtol=1e-4, atol=1e-4)


def test_two_classes_are_one_label():
    logits, target = labels(500, 1)
    two = torch.cat([torch.zeros_like(logits), logits], dim=1)
    fit = PartialPooling().fit(Predictions(two, target[:, 0])).map.numbers
    torch.testing.assert_close(fit[1:], numbers(logits, target))
    torch.testing.assert_close(fit[0, :2], fit[1, :2].flip(0))


def test_fits_of_labels_know_nothing_of_an_earlier_fit():
    calibrator = PartialPooling().fit(TopLabel(torch.tensor([0.9, 0.6] * 50), [True, False] * 50))
    logits, target = labels(count=2)
    for fit in calibrator.fit_labels(MultiLabel(logits, target)):
        assert not fit.top_label
        assert (
            fit.to_dict().keys()
            == PartialPooling().fit(MultiLabel(logits, target).label(0)).to_dict().keys()
        )
