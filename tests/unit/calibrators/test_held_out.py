import pytest
import torch

from fedlas.calibrators._fit.softmax_regression import AffineMap, Penalties, SoftmaxRegression
from fedlas.calibrators.affine import HeldOutLoss, nll
from fedlas.resample.folds import Folds

ONE = Penalties(freedom=1.0)


def problem(inputs, target, weights, penalties):
    return SoftmaxRegression(inputs, target, weights, penalties, diagonal=True, scale=0.5)


def loss_of(val, num_folds=4):
    folds, ones = torch.arange(len(val.target)) % num_folds, torch.ones(len(val.target)).double()
    return HeldOutLoss(val.logits, val.target, folds=Folds(folds), weights=ones, problem=problem)


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
    fit = problem(val.logits[~held], val.target[~held], None, ONE).solve()
    torch.testing.assert_close(
        losses[held], nll(val.logits[held], val.target[held], fit), rtol=1e-4, atol=1e-4
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
    assert score.first_best([Penalties(freedom=value) for value in sums]).freedom == 0.2
    assert tried == [0.1, 0.2, 0.3]


def test_a_gain_counts_beyond_its_standard_error(generated, monkeypatch):
    val = generated(100)
    score = loss_of(val)
    scaled = AffineMap(torch.full((4,), 0.5).double(), torch.zeros(4).double())
    plain = nll(val.logits, val.target, scaled)
    noise = torch.tensor([1.0, -1.0]).repeat(50)  # a standard error of 0.1
    for gain, beats in ((0.12, True), (0.08, False), (-0.5, False)):
        monkeypatch.setattr(
            HeldOutLoss, "losses", lambda self, value, gain=gain: plain - gain - noise
        )
        assert score.beats(scaled, ONE) is beats
