from dataclasses import replace

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    CalibrationWarning,
    Multicalibration,
    TemperatureScaling,
    multicalibration,
)
from fedlas.errors import InputError
from fedlas.metrics import nll


def draw(samples=6000, classes=4, seed=0, factors=None, dtype=torch.float64):
    """Too sure by a factor that depends on the predicted class; the feature says which quarter a sample is from."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    factor = torch.tensor(factors or [1.0, 1.0, 1.0, 4.0], dtype=torch.float64)[
        logits.argmax(1)
    ].unsqueeze(1)
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    features = torch.rand(samples, 1, generator=random, dtype=torch.float64)
    return Predictions(
        (factor * logits).to(dtype), target, features=features, label_probs=logits.softmax(1)
    )


def gaps(predictions, groups):
    """Known accuracy less mean confidence in each group."""
    right = (
        predictions.tensors()
        .label_probs.gather(1, predictions.tensors().predicted.unsqueeze(1))
        .squeeze(1)
    )
    return [
        float((right - predictions.tensors().confidence)[groups == group].mean())
        for group in range(int(groups.max()) + 1)
    ]


def test_the_confidence_is_right_for_each_predicted_class():
    val, test = draw(), draw(seed=1)
    fair, plain = (
        Multicalibration().fit(val).transform(test),
        TemperatureScaling().fit(val).transform(test),
    )
    assert max(abs(gap) for gap in gaps(plain, test.tensors().predicted)) > 0.1
    assert max(abs(gap) for gap in gaps(fair, test.tensors().predicted)) < 0.03
    assert torch.equal(fair.tensors().predicted, test.tensors().predicted)
    assert nll(fair) < nll(plain) - 0.01


def quarters(predictions):
    """Four groups by the first feature; nothing here may depend on labels."""
    assert predictions.label_probs is None
    assert not predictions.has_target
    quarter = (predictions.tensors().features[:, 0] * 4).long().clamp(max=3)
    return torch.nn.functional.one_hot(quarter, 4).bool()


def shifted_by_quarter(seed):
    p = draw(seed=seed, factors=[1.0] * 4)
    quarter = (p.tensors().features[:, 0] * 4).long().clamp(max=3)
    factor = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)[quarter].unsqueeze(1)
    return Predictions(
        factor * p.tensors().logits,
        p.tensors().target,
        features=p.tensors().features,
        label_probs=p.tensors().label_probs,
    ), quarter


def test_groups_of_ones_own():
    (val, _), (test, quarter) = shifted_by_quarter(0), shifted_by_quarter(1)
    own, named = (
        Multicalibration(groups).fit(val).transform(test) for groups in (quarters, "predicted")
    )
    assert max(abs(gap) for gap in gaps(named, quarter)) > 0.1
    assert max(abs(gap) for gap in gaps(own, quarter)) < 0.03


def test_without_early_stop_no_validation_cell_is_off():
    val = draw(samples=3000)
    calibrator = Multicalibration(num_folds=None, alpha=0.03, min_size=40).fit(val)
    confidence = calibrator.transform(val).tensors().confidence
    for group in (
        torch.ones(3000, dtype=torch.bool),
        *(val.tensors().predicted == k for k in range(4)),
    ):
        for level in range(10):
            inside = group & ((confidence * 10).long().clamp(max=9) == level)
            if int(inside.sum()) >= 40:
                error = float((val.tensors().correct[inside].double() - confidence[inside]).mean())
                assert abs(error) <= 0.03 + 0.5 / 40 + 1e-9


def test_calibrated_model_gets_no_correction():
    val = draw(factors=[2.0] * 4)
    with pytest.warns(CalibrationWarning, match="no cell has an error"):
        calibrator = Multicalibration().fit(val)
    assert calibrator.updates == []
    assert torch.equal(
        calibrator.transform(val).tensors().logits,
        TemperatureScaling().fit(val).transform(val).tensors().logits,
    )


def test_all_is_calibration_and_needs_no_start():
    val, test = draw(factors=[3.0] * 4), draw(seed=1, factors=[3.0] * 4)
    calibrator = Multicalibration("all", start="none").fit(val)
    assert calibrator.temperature == 1.0
    assert {update.group for update in calibrator.updates} == {0}
    assert abs(gaps(test, torch.zeros(6000))[0]) > 0.1
    assert abs(gaps(calibrator.transform(test), torch.zeros(6000))[0]) < 0.02


def test_uncorrected_samples_keep_exact_logits():
    val = draw(dtype=torch.float32)
    calibrator = Multicalibration(start="none").fit(val)
    after = calibrator.transform(val)
    same = (after.tensors().logits == val.tensors().logits).all(1)
    assert 0 < int(same.sum()) < 6000
    reached = {(update.group, update.level) for update in calibrator.updates}
    level = (val.tensors().confidence.double() * 10).long().clamp(max=9)
    for row in (~same).nonzero().squeeze(1)[:200].tolist():
        assert {
            (0, int(level[row])),
            (1 + int(val.tensors().predicted[row]), int(level[row])),
        } & reached


def test_too_few_samples():
    val = draw(samples=30)
    with pytest.warns(CalibrationWarning, match=r"no group has 50 .*30"):
        assert Multicalibration().fit(val).updates == []
    with pytest.warns(CalibrationWarning):
        assert Multicalibration(min_size=1).fit(draw(samples=1)).updates == []


def test_without_a_mistake_the_start_is_held():
    val = draw(samples=400)
    perfect = Predictions(val.tensors().logits, val.tensors().predicted)
    with pytest.warns(CalibrationWarning, match=r"0 of 400 .*mistakes"):
        calibrator = Multicalibration().fit(perfect)
    with pytest.warns(CalibrationWarning):
        assert calibrator.temperature == pytest.approx(
            TemperatureScaling().fit(perfect).temperature
        )


def test_a_start_at_the_upper_bound_is_taken():
    """Of the two, the given predictions and nearly uniform ones, only the latter are right on average."""
    val = draw(samples=400)
    random = torch.Generator().manual_seed(2)
    pointless = Predictions(
        50 * val.tensors().logits, torch.randint(0, 4, (400,), generator=random)
    )
    pointless = replace(
        pointless,
        logits=torch.where(pointless.tensors().correct[:, None], 0.1, 1.0)
        * pointless.tensors().logits,
    )
    with pytest.warns(CalibrationWarning, match="bound of the search, temperature"):
        calibrator = Multicalibration().fit(pointless)
    assert nll(calibrator.transform(pointless)) < 1.4


@pytest.mark.parametrize("factor", [2.0**-100, 2.0**90])
def test_logits_of_any_size(factor):
    val = draw()
    scaled = Predictions(val.tensors().logits * factor, val.tensors().target)
    one, other = Multicalibration().fit(val), Multicalibration().fit(scaled)
    assert other.temperature == pytest.approx(factor * one.temperature)
    # The folds, and so the number of corrections, depend on the logits themselves.
    after = [nll(c.transform(p)) for c, p in ((one, val), (other, scaled))]
    assert after[1] == pytest.approx(after[0], abs=0.01)
    assert max(after) < nll(TemperatureScaling().fit(val).transform(val)) - 0.01


def test_copies_of_samples_are_no_new_evidence():
    """Without shared folds, 25 to 64 corrections stand here, and the test NLL rises by 0.2."""
    val, test = (draw(samples=300, seed=10, factors=[2.0] * 4), draw(seed=1, factors=[2.0] * 4))
    copied = Predictions(val.tensors().logits.repeat(5, 1), val.tensors().target.repeat(5))
    with pytest.warns(CalibrationWarning, match="the result is temperature scaling"):
        calibrator = Multicalibration(min_size=20).fit(copied)
    assert calibrator.updates == []
    assert nll(calibrator.transform(test)) < nll(test)


def test_samples_that_are_all_equal():
    with pytest.warns(CalibrationWarning, match="the result is temperature scaling"):
        assert (
            Multicalibration().fit(Predictions([[1.0, 0.0]] * 100, [0] * 70 + [1] * 30)).updates
            == []
        )


def test_corrections_without_end_are_cut_and_reported(monkeypatch):
    monkeypatch.setattr(multicalibration, "_MAX_UPDATES", 3)
    with pytest.warns(CalibrationWarning, match="above alpha after 3 corrections"):
        assert len(Multicalibration(num_folds=None, start="none").fit(draw()).updates) == 3


@pytest.mark.parametrize("order", range(3))
def test_the_order_of_the_samples_does_not_matter(order):
    val = draw(samples=1500)
    shuffle = torch.randperm(1500, generator=torch.Generator().manual_seed(order))
    other = Predictions(val.tensors().logits[shuffle], val.tensors().target[shuffle])
    assert Multicalibration().fit(val).updates == Multicalibration().fit(other).updates


@pytest.mark.parametrize(
    "groups",
    [
        lambda p: p.tensors().predicted,
        lambda p: p.tensors().probs,
        lambda p: torch.ones(3, 2, dtype=torch.bool),
        lambda p: torch.ones(p.num_samples, 0, dtype=torch.bool),
        lambda p: None,
    ],
)
def test_no_groups(groups):
    calibrator = Multicalibration(groups)
    with pytest.raises(InputError, match=r"Multicalibration\.fit: groups .*bool .*\(500, G\)"):
        calibrator.fit(draw(samples=500))
    assert calibrator.num_classes is None


def test_other_groups_than_in_the_fit():
    calibrator = Multicalibration(
        lambda p: torch.ones(p.num_samples, 1 + (p.num_samples == 100), dtype=torch.bool)
    )
    calibrator.fit(draw(samples=500))
    with pytest.raises(InputError, match=r"groups .*1; got 2"):
        calibrator.transform(draw(samples=100))


def test_a_function_cannot_be_saved(tmp_path):
    calibrator = Multicalibration(quarters).fit(draw())
    with pytest.raises(InputError, match=r"Multicalibration\.save: groups .*name"):
        calibrator.save(tmp_path / "m.json")
    assert list(tmp_path.iterdir()) == []
    assert "groups=<function quarters" in repr(calibrator)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"num_groups": 5', '"num_groups": 1'),
        ('"temperature": ', '"temperature": -'),
        ('"cells": [', '"cells": [[0, 10],'),
        ('"shifts": [', '"shifts": [1.0,'),
    ],
)
def test_an_impossible_file_is_refused(tmp_path, old, new):
    path = Multicalibration().fit(draw()).save(tmp_path / "m.json")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match="state of a Multicalibration"):
        Multicalibration.load(path)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"groups": dict}, "groups must be one of predicted, all; got"),
        (
            {"groups": "predictd"},
            "groups must be one of predicted, all; got 'predictd'. Did you mean 'predicted'",
        ),
        ({"alpha": 0}, r"alpha must be a finite number in \(0, 1\]"),
        ({"num_levels": 0}, "num_levels must be a whole number of at least 1"),
        ({"min_size": 0}, "min_size must be a whole number of at least 1"),
        ({"num_folds": 1}, "num_folds must be a whole number of at least 2"),
        ({"start": "x"}, "start must be one of temperature, none"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(InputError, match=message):
        Multicalibration(**kwargs)


def test_unfitted():
    for name in ("updates", "temperature"):
        with pytest.raises(InputError, match=rf"Multicalibration.{name}: .*fitted first"):
            getattr(Multicalibration(), name)
