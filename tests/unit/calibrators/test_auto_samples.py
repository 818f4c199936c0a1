"""What `auto` takes for a sample: ties, copies, weights, and logits in another form."""

import pytest
import torch

from fedlas import Predictions, TopLabel
from fedlas.calibrators import (
    AutoCalibration,
    BetaCalibration,
    CalibrationWarning,
    Calibrator,
    DirichletCalibration,
    IsotonicCalibration,
    MultiLabelCalibration,
    PlattScaling,
    VectorScaling,
    fit_mixture,
)
from fedlas.errors import InputError
from fedlas.metrics import ece, nll

STATED = torch.tensor([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0], dtype=torch.float64)
TRUE = torch.tensor([0.40, 0.42, 0.45, 0.50, 0.55, 0.60, 0.70, 0.90], dtype=torch.float64)


def stated(samples, seed=0):
    random = torch.Generator().manual_seed(seed)
    which = torch.randint(len(STATED), (samples,), generator=random)
    right = torch.rand(samples, generator=random, dtype=torch.float64) < TRUE[which]
    return TopLabel(STATED[which], right)


@pytest.mark.filterwarnings("ignore:.*probability of exactly 0:fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize(("samples", "most"), [(1000, 0.012), (30_000, 0)])
def test_scores_of_a_few_values(samples, most):
    """A tie of scores is no copy of a sample: each fold holds some of every value."""
    grid = TopLabel(STATED, TRUE > 0.5)
    error = [
        float(
            (kind().fit(stated(samples)).transform(grid).tensors().confidence - TRUE).abs().mean()
        )
        for kind in (AutoCalibration, IsotonicCalibration)
    ]
    assert error[0] < max(1.3 * error[1], most)


def test_every_sample_is_held_out_once(generated, monkeypatch):
    """Of one fold alone the weights would depend on which samples are in it."""
    val = generated(6000, classes=2)
    split, _ = fit_mixture._make_cross_fit(val, 5)
    assert split.rows.sort().values.tolist() == list(range(6000))
    monkeypatch.setattr(fit_mixture, "_MAX_HELD_OUT_LOGITS", 2 * 3000)
    split, _ = fit_mixture._make_cross_fit(val, 5)
    assert len(split.held_out) == 3
    assert len(split.rows) == len(split.rows.unique()) == 3000


def test_expensive_members_are_fitted_on_a_row_sample(generated, monkeypatch):
    def bent(logits):
        return torch.where(logits > 0, 0.2 * logits, 3 * logits)

    draws = [generated(3000, classes=2, distort=bent, seed=seed) for seed in range(8)]
    errors = []
    for most in (6000, 5999, 3000):
        monkeypatch.setattr(fit_mixture, "_MAX_FLEXIBLE_LOGITS", most)
        calibrated = [
            AutoCalibration().fit(val).transform(test)
            for val, test in zip(draws[::2], draws[1::2], strict=True)
        ]
        errors.append(sum(map(ece, calibrated)) / len(calibrated))
    assert max(errors) < errors[0] + 0.01, errors


@pytest.mark.parametrize("scale", [30.0, 1.0, 1 / 30])
def test_beta_has_no_unit(scale, generated):
    val, test = (generated(500, classes=2, seed=seed) for seed in (0, 1))
    scaled = [
        Predictions(part.tensors().logits * scale, part.tensors().target) for part in (val, test)
    ]
    beta, platt = (
        nll(k().fit(scaled[0]).transform(scaled[1])) for k in (BetaCalibration, PlattScaling)
    )
    assert beta < platt + 0.02


def test_whole_weights_are_not_so_many_samples(generated):
    val, test = generated(60, classes=3), generated(2000, classes=3, seed=1)
    weights = torch.randint(1000, 3000, (60,), generator=torch.Generator().manual_seed(0))
    losses = []
    for each in (weights, weights + 0.5):
        with pytest.warns(CalibrationWarning, match="are few"):
            mixture = VectorScaling().fit(
                Predictions(val.tensors().logits, val.tensors().target, weights=each)
            )
        mixture = AutoCalibration().fit(
            Predictions(val.tensors().logits, val.tensors().target, weights=each)
        )
        losses.append(nll(mixture.transform(test)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


def test_a_top_label_has_no_class_to_keep():
    with pytest.raises(InputError, match="keep_class"):
        AutoCalibration(keep_class=True).fit(stated(300))
    with pytest.raises(InputError, match="keep_class"):
        MultiLabelCalibration(AutoCalibration(keep_class=True))


@pytest.mark.parametrize("kind", [DirichletCalibration, VectorScaling])
@pytest.mark.parametrize(("samples", "classes"), [(100, 10), (150, 20)])
def test_few_samples_of_many_classes_warn(kind, samples, classes, generated):
    with pytest.warns(CalibrationWarning, match="are few"):
        kind().fit(generated(samples, classes=classes))


@pytest.mark.parametrize(
    "change", [lambda z: z.float(), lambda z: z + 100, lambda z: (z + 100).float()]
)
def test_folds_depend_on_what_the_softmax_sees(change, generated):
    val = generated(300, classes=3, dtype=torch.float32)
    other = Predictions(change(val.tensors().logits.double()), val.tensors().target)
    ours, theirs = (
        AutoCalibration().fit(each).transform(each).tensors().probs.double()
        for each in (val, other)
    )
    assert float((ours - theirs).abs().max()) < 1e-3


def test_the_same_bits_after_save_and_load(generated, tmp_path):
    val = generated(500, classes=3, distort=lambda z: 2 * z + torch.tensor([0.0, 1.0, -1.0]))
    mixture = AutoCalibration().fit(val)
    loaded = Calibrator.load(mixture.save(tmp_path / "auto.json"))
    assert torch.equal(
        loaded.transform(val).tensors().logits, mixture.transform(val).tensors().logits
    )


def test_confidences_that_saturate_are_calibrated():
    """A third of the confidences are 1, and right; the others are far too low."""
    random = torch.Generator().manual_seed(0)
    low = torch.rand(1000, generator=random, dtype=torch.float64) * 0.4
    right = torch.rand(1000, generator=random, dtype=torch.float64) < (2.2 * low).clamp(max=1)
    ones = torch.ones(500)
    val = TopLabel(torch.cat([low, ones.double()]), torch.cat([right, ones.bool()]))
    after = AutoCalibration().fit(val).transform(val)
    assert ece(after) < 0.05


def test_members_that_cost_too_much_are_named(generated, monkeypatch):
    monkeypatch.setattr(fit_mixture, "_MAX_FLEXIBLE_LOGITS", 80)
    mixture = AutoCalibration().fit(generated(400, classes=3))
    assert set(mixture.dropped) == {"isotonic", "spline", "matrix"}
    assert not set(mixture.dropped) & set(mixture.weights)
    many = AutoCalibration().fit(generated(50, classes=40))
    assert {"isotonic", "spline", "matrix"} <= set(many.dropped)
