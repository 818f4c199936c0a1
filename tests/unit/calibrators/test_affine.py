"""What affine calibrators share: where they start, their options, and the held-out loss that chooses penalties."""

import math

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    CalibrationWarning,
    DirichletCalibration,
    MatrixScaling,
    TemperatureScaling,
    VectorScaling,
)
from fedlas.calibrators._fit.softmax_regression import AffineMap, Penalties, SoftmaxRegression
from fedlas.calibrators._fit.temperature_search import nll_temperature
from fedlas.calibrators.affine import HeldOutLoss, row_nll, temperature_start
from fedlas.metrics import nll as negative_log_likelihood
from fedlas.resample.folds import Folds

each = pytest.mark.parametrize("kind", [VectorScaling, MatrixScaling, DirichletCalibration])


def imbalanced(counts, seed, factors=(1.0, 1.0)):
    """Classes of these sizes, with logits that are those of Bayes' rule but for a factor a class."""
    random = torch.Generator().manual_seed(seed)
    counts = torch.tensor(counts)
    target = torch.repeat_interleave(torch.arange(len(counts)), counts)
    scores = torch.randn(len(target), len(counts), generator=random, dtype=torch.float64)
    scores[torch.arange(len(target)), target] += 1.3
    logits = 1.3 * scores + torch.log(counts / counts.sum())
    return Predictions(1.5 * logits * torch.tensor(factors).double(), target)


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_start_is_temperature_scaling_at_any_logit_scale(generated, factor):
    val = generated()
    start = temperature_start(Predictions(val.tensors().logits * factor, val.tensors().target))
    assert (
        start.scale
        == start.width
        == pytest.approx(1 / nll_temperature(val).value / factor, rel=1e-8)
    )
    assert start.warning is None


def test_width_is_the_spread_if_nearly_uniform():
    target = torch.arange(4).repeat(5)
    logits = -100.0 * torch.nn.functional.one_hot(target, 4)
    spread = float((logits - logits.mean(1, keepdim=True)).square().mean().sqrt())
    start = temperature_start(Predictions(logits, target))
    assert start.width == pytest.approx(1 / spread)
    assert start.scale == pytest.approx(0.01 / spread)


def test_start_is_held_without_mistakes():
    target = torch.arange(4).repeat(5)
    start = temperature_start(Predictions(100.0 * torch.nn.functional.one_hot(target, 4), target))
    assert start.scale == start.width == 1.0
    assert "0 of 20 validation samples are mistakes" in start.warning


def test_equal_logits():
    assert temperature_start(Predictions(torch.full((3, 2), 7.0), [0, 1, 1])).scale == 1.0


@each
@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
@pytest.mark.parametrize(
    ("counts", "factors"), [((49, 1), (1, 1)), ((97, 3), (1, 1)), ((97, 3), (0.5, 2.0))]
)
def test_a_rare_class_does_not_spoil_it(kind, counts, factors):
    """Without cross-validation against temperature scaling, the worst of Dirichlet calibration is off by 0.7 nats."""
    for seed in range(3):
        val, test = (
            imbalanced(counts, seed, factors),
            imbalanced([40 * count for count in counts], 100 + seed, factors),
        )
        fitted, plain = (
            negative_log_likelihood(c.fit(val).transform(test))
            for c in (kind(), TemperatureScaling())
        )
        assert fitted < plain + 0.03, seed


@each
def test_no_held_out_gain_gives_temperature_scaling(kind, generated):
    val = generated(200)
    with pytest.warns(CalibrationWarning, match=rf"{kind.__name__}: .*show no gain"):
        fitted = kind().fit(val)
    torch.testing.assert_close(
        fitted.transform(val).tensors().probs,
        TemperatureScaling().fit(val).transform(val).tensors().probs,
    )
    assert fitted.weight.shape == ((4,) if kind is VectorScaling else (4, 4))


@each
def test_samples_that_are_all_equal(kind):
    val = Predictions([[1.0, 0.0]] * 50, [0] * 40 + [1] * 10)
    with pytest.warns(CalibrationWarning):
        fitted = kind().fit(val).transform(val)
    assert bool(fitted.tensors().logits.isfinite().all())


@pytest.mark.parametrize(
    "kind", [VectorScaling, lambda: MatrixScaling(1.0, 1.0), lambda: DirichletCalibration(1.0, 1.0)]
)
def test_a_negative_factor_is_reported(kind, generated):
    """The logit of the last class says the opposite."""
    val = generated(distort=lambda z: z * torch.tensor([1.0, 1, 1, -1]))
    with pytest.warns(CalibrationWarning, match=r"own logit .* for class 3; with a factor below 0"):
        kind().fit(val)


@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
@pytest.mark.parametrize("factor", [1e-20, 1e28])
@pytest.mark.parametrize("kind", [VectorScaling, DirichletCalibration])
def test_logits_of_any_size(kind, factor, generated):
    leak = torch.eye(4).double() + 0.6 * torch.eye(4).double().roll(1, 0)
    val = generated(300, distort=lambda z: 2 * z @ leak + torch.tensor([2.0, -2, 0, 0]))
    extreme = Predictions(val.tensors().logits * factor, val.tensors().target)
    one, other = (negative_log_likelihood(kind().fit(p).transform(p)) for p in (val, extreme))
    if kind is DirichletCalibration and factor < 1:
        # the logarithms of such probabilities are all equal
        assert other == pytest.approx(math.log(4), abs=0.1)
    else:  # folds, and so penalties, depend on the logits themselves
        assert other == pytest.approx(one, abs=0.02)


@pytest.mark.parametrize("kind", [MatrixScaling, DirichletCalibration])
@pytest.mark.parametrize("size", [1e20, 1e30])
def test_huge_logits_of_two_classes(kind, size, tmp_path):
    val = Predictions(
        torch.tensor([[size, 0.0], [0.0, size]] * 20, dtype=torch.float64), [0, 1] * 18 + [1, 0] * 2
    )
    with pytest.warns(CalibrationWarning):
        fitted = kind().fit(val)
    confidence = kind.load(fitted.save(tmp_path / "c.json")).transform(val).tensors().confidence
    torch.testing.assert_close(confidence, torch.full((40,), 0.9).double(), rtol=0, atol=1e-6)


ONE = Penalties(freedom=1.0)


def diagonal_problem(inputs, target, weights, penalties):
    return SoftmaxRegression(inputs, target, weights, penalties, diagonal=True, scale=0.5)


def loss_of(val, num_folds=4):
    folds, ones = torch.arange(len(val.target)) % num_folds, torch.ones(len(val.target)).double()
    return HeldOutLoss(
        val.tensors().logits,
        val.tensors().target,
        folds=Folds(folds),
        weights=ones,
        make_regression=diagonal_problem,
    )


def test_a_warm_start_changes_no_score(generated):
    val = generated(200)
    used, fresh = loss_of(val), loss_of(val)
    used.losses(Penalties(freedom=0.01))
    # Fits of the search end at a gradient of 1e-5; what counts as a gain is 200 times that.
    sums = [float(loss.losses(ONE).sum()) for loss in (used, fresh)]
    assert sums[0] == pytest.approx(sums[1], abs=1e-4)


def test_each_sample_is_predicted_without_its_fold(generated):
    val = generated(40)
    losses = loss_of(val).losses(ONE)
    held = torch.arange(40) % 4 == 1
    fit = diagonal_problem(
        val.tensors().logits[~held], val.tensors().target[~held], None, ONE
    ).solve()
    torch.testing.assert_close(
        losses[held],
        row_nll(val.tensors().logits[held], val.tensors().target[held], fit),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_search_ends_where_the_loss_rises(generated, monkeypatch):
    score = loss_of(generated(40))
    tried = []
    sums = {0.1: 5.0, 0.2: 4.0, 0.3: 4.0 - 1e-6, 0.4: 1.0}
    share = torch.full((40,), 1 / 40).double()
    monkeypatch.setattr(
        HeldOutLoss,
        "losses",
        lambda self, value: tried.append(value.freedom) or sums[value.freedom] * share,
    )
    assert score.select_penalties([Penalties(freedom=value) for value in sums]).freedom == 0.2
    assert tried == [0.1, 0.2, 0.3]


def test_a_gain_counts_beyond_its_standard_error(generated, monkeypatch):
    val = generated(100)
    score = loss_of(val)
    scaled = AffineMap(torch.full((4,), 0.5).double(), torch.zeros(4).double())
    plain = row_nll(val.tensors().logits, val.tensors().target, scaled)
    noise = torch.tensor([1.0, -1.0]).repeat(50)  # a standard error of 0.1
    for gain, beats in ((0.12, True), (0.08, False), (-0.5, False)):
        monkeypatch.setattr(
            HeldOutLoss, "losses", lambda self, value, gain=gain: plain - gain - noise
        )
        assert score.beats_temperature_scaling(scaled, ONE) is beats
