"""The check that a calibration of a table prints is honest, and takes no further fit of a mixture."""

import numpy as np
import pytest
import torch

import fedlas.calibrators.fit_mixture as fit_mixture
from fedlas import Predictions, TopLabel
from fedlas.calibrated.tables.cross_fit import cross_fit, fit_and_check
from fedlas.calibrated.tables.word_shares import PhraseRows
from fedlas.calibrators import AutoCalibration, TemperatureScaling


def problem(samples, classes, seed, *, features=0, strength=0.0, size=None):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    columns = torch.randn(samples, max(1, features), generator=generator, dtype=torch.float64)
    effect = strength * torch.randn(len(columns[0]), classes, generator=generator).double()
    target = torch.multinomial((logits + columns @ effect).softmax(1), 1, generator=generator)[:, 0]
    clusters = None if size is None else torch.arange(samples) // size
    return Predictions(
        2 * logits, target, features=columns if features else None, clusters=clusters
    )


@pytest.mark.parametrize(
    "val",
    [
        problem(400, 3, 1),
        problem(300, 10, 2),
        problem(300, 3, 6, features=20),
        problem(400, 3, 5, features=4, strength=0.5),
        problem(400, 2, 7, features=5, strength=0.3, size=20),
    ],
    ids=["3 classes", "10 classes", "useless features", "features", "clusters"],
)
def test_out_of_fold_ece_is_not_optimistic(val):
    """Weights that saw the labels would look better than they are; those of the other folds do not."""
    _, _, check = fit_and_check(AutoCalibration(), val)
    full = cross_fit(AutoCalibration(), val)
    assert check.after.nll == pytest.approx(full.after.nll, rel=0.02)
    assert check.after.nll > 0.999 * full.after.nll
    assert check.before.nll == pytest.approx(full.before.nll)
    assert check.clusters == full.clusters


def test_a_mixture_is_fitted_once(monkeypatch):
    fits = []
    real = fit_mixture.fit_calibrated_mixture
    monkeypatch.setattr(
        fit_mixture,
        "fit_calibrated_mixture",
        lambda *args, **more: fits.append(1) or real(*args, **more),
    )
    auto, _, check = fit_and_check(AutoCalibration(), problem(300, 3, 0))
    assert (len(fits), check.samples) == (1, 300)
    same = AutoCalibration().fit(problem(300, 3, 0)).transform(problem(300, 3, 0)).tensors().logits
    np.testing.assert_array_equal(auto.transform(problem(300, 3, 0)).logits, same)


def test_another_calibrator_is_fitted_without_each_fold():
    val = problem(300, 3, 0)
    _, _, check = fit_and_check(TemperatureScaling(), val)
    assert check.to_dict() == cross_fit(TemperatureScaling(), val).to_dict()


def test_rare_word_is_drawn_further_toward_the_common_share():
    """Six of six answers are right: no certainty, with a common share of .6."""
    names = ("high", "low", "rare")
    codes = np.repeat([0, 1, 2], [300, 300, 6])
    right = np.concatenate([np.arange(300) % 5 > 0, np.arange(300) % 5 > 2, np.ones(6, bool)])
    rows = PhraseRows(names, codes)
    high, low, rare = rows.learn(TopLabel(np.full(606, 0.5), right))
    assert 0.79 < high < 0.8
    assert 0.4 < low < 0.41
    assert 0.65 < rare < 0.95
    weighted = TopLabel(np.full(606, 0.5), right, weights=np.where(codes == 2, 1e-6, 1.0))
    assert rows.learn(weighted)[2] == pytest.approx(rare, abs=0.02)
    clustered = TopLabel(np.full(606, 0.5), right, clusters=np.where(codes == 2, 0, np.arange(606)))
    assert 0.6 < rows.learn(clustered)[2] < rare - 0.1


def test_no_learned_share_is_certain():
    rows = PhraseRows(("sure",), np.zeros(40, dtype=np.int64))
    for outcome in (0, 1):
        (share,) = rows.learn(TopLabel(np.full(40, 0.5), np.full(40, outcome)))
        assert 0 < abs(share - outcome) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_calibrator_learns_from_answers_that_have_not_taught_the_word(seed):
    """80 words of five answers each: fitted to shares of the same answers, a temperature undoes the pooling."""
    draw = np.random.default_rng(seed)
    codes = np.arange(400) % 80
    truth = draw.uniform(0.02, 0.98, 80)
    right = draw.random(400) < truth[codes]
    phrases = PhraseRows(tuple(f"w{n}" for n in range(80)), codes)
    val = TopLabel(np.full(400, 0.5), right)
    shares = phrases.learn(val)
    brier = []
    for rows in (phrases.restate(val, shares)[0], phrases.restate_out_of_fold(val)):
        fit = TemperatureScaling().fit(rows)
        stated = fit.transform(TopLabel(shares, np.ones(80, bool))).confidence
        brier.append(np.mean(truth * (1 - stated) ** 2 + (1 - truth) * stated**2))
    assert brier[1] < brier[0] - 0.005
    assert cross_fit(TemperatureScaling(), val, phrases).after.ece < 0.12  # in sample .15 and more


def test_row_whose_word_other_folds_lack_is_not_measured():
    codes = np.append(np.zeros(99, dtype=np.int64), 1)
    right = np.arange(100) % 3 > 0
    val = TopLabel(np.full(100, 0.5), right)
    phrases = PhraseRows(("high", "alone"), codes)
    val, _ = phrases.restate(val, phrases.learn(val))
    assert cross_fit(TemperatureScaling(), val, phrases).samples == 99
