"""Consistency band and risk-coverage curve show the numbers they are given."""

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fedlas.errors import InputError
from fedlas.metrics import METRICS, reliability_bins
from fedlas.plots import (
    DARK,
    consistency_band,
    reliability_diagram,
    risk_coverage,
    risk_coverage_curve,
)
from fedlas.predictions import Predictions


def predictions(samples=400, classes=4, seed=0, sharp=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator)
    return Predictions(
        sharp * logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    )


DRAW = [risk_coverage_curve]


@pytest.mark.parametrize("draw", DRAW)
def test_plots_draw_only_on_given_axes(draw):
    before, figure = dict(matplotlib.rcParams), Figure(facecolor="#123456")
    axes = figure.subplots()
    assert draw(predictions(), ax=axes, theme="dark", title="here") is axes
    assert matplotlib.colors.to_hex(axes.get_facecolor()) == DARK.background
    assert matplotlib.colors.to_hex(figure.get_facecolor()) == "#123456"
    assert axes.get_title(loc="left") == "here"
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("correct", [True, False])
def test_extreme_predictions_draw(draw, correct, tmp_path):
    p = Predictions([[1e4, -1e4, 0.0]] * 3, [0 if correct else 1] * 3)
    one = Predictions([[0.0, 0.0]], [0 if correct else 1])
    for each in (p, one):
        axes = draw(each)
        axes.figure.savefig(tmp_path / "a.svg")
        risk = axes.lines[0].get_ydata()
        assert {float(value) for value in risk} == {0.0 if correct else 100.0}


@pytest.mark.parametrize("draw", [*DRAW, risk_coverage])
def test_they_refuse_logits(draw):
    with pytest.raises(InputError, match="Predictions"):
        draw(torch.zeros(3, 2))


def test_what_is_no_axes_is_refused():
    with pytest.raises(InputError, match="ax must be matplotlib Axes"):
        risk_coverage_curve(predictions(), ax="here")


@pytest.mark.parametrize("draw", DRAW)
def test_they_refuse_an_unknown_theme(draw):
    with pytest.raises(InputError, match="theme"):
        draw(predictions(), theme="drak")


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 4))
def test_mean_risk_equals_aurc_with_ties(seed, samples, levels):
    random = np.random.default_rng(seed)
    logits = np.stack([random.integers(0, levels, samples) / 2.0, np.full(samples, -1.0)], 1)
    p = Predictions(logits, random.integers(0, 2, samples))
    coverage, risk = risk_coverage(p)
    assert risk.mean() == pytest.approx(METRICS["aurc"].value(p), abs=1e-12)
    assert coverage[-1] == 1.0
    assert risk[-1] == pytest.approx(1 - float(p.tensors().correct.double().mean()))


def test_area_above_oracle_is_e_aurc():
    p = predictions(samples=300)
    model, random, oracle = (line.get_ydata() for line in risk_coverage_curve(p).lines)
    assert (model >= oracle - 1e-9).all()
    assert np.mean(model - oracle) / 100 == pytest.approx(METRICS["e_aurc"].value(p), abs=1e-9)
    assert random[0] == pytest.approx(100 * (1 - float(p.tensors().correct.double().mean())))


def test_band_equals_resampling_single_samples():
    """The paper's own procedure, with a loop: draw forecasts, then outcomes from them."""
    p = predictions(samples=300)
    bins = reliability_bins(p, num_bins=5)
    band = consistency_band(p, num_bins=5, replicates=4000)
    random, confidence = np.random.default_rng(1), p.confidence.astype(np.float64)
    found = []
    for _ in range(4000):
        drawn = random.choice(confidence, len(confidence))
        right = random.random(len(drawn)) < drawn
        place = np.clip(np.ceil(drawn * 5).astype(int) - 1, 0, 4)
        count = np.bincount(place, minlength=5)
        found.append(np.where(count, np.bincount(place, right, 5) / np.maximum(count, 1), np.nan))
    filled = bins.count > 10
    low, high = np.nanquantile(np.array(found)[:, filled], (0.025, 0.975), axis=0)
    np.testing.assert_allclose(band.low[filled], low, atol=0.03)
    np.testing.assert_allclose(band.high[filled], high, atol=0.03)


def test_band_covers_calibrated_model_at_its_level():
    inside = []
    for seed in range(60):
        p = predictions(samples=500, seed=seed)
        bins, band = (
            reliability_bins(p, num_bins=8),
            consistency_band(p, num_bins=8, replicates=300),
        )
        filled = bins.count >= 10
        accuracy = bins.accuracy[filled]
        inside += ((band.low[filled] <= accuracy) & (accuracy <= band.high[filled])).tolist()
    assert 0.92 < np.mean(inside) < 0.985


def test_the_band_is_drawn_when_asked_for():
    p = predictions()
    plain, banded = reliability_diagram(p), reliability_diagram(p, band=True)
    (drawn,) = [
        each
        for each in banded.collections
        if len(each.get_paths()[0].vertices) > 2 and each.get_alpha()
    ]
    assert len(banded.collections) == len(plain.collections) + 1
    band = consistency_band(p)
    ends = drawn.get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (np.nanmin(band.low), np.nanmax(band.high))


@pytest.mark.parametrize(
    "bad",
    [
        {"confidence_level": 0.0},
        {"confidence_level": 1.0},
        {"replicates": 1},
        {"num_bins": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_the_band_refuses(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        consistency_band(predictions(), **bad)
