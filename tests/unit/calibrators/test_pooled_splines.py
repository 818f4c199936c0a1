"""Curves of many labels, drawn from a common distribution that is estimated too."""

import pytest
import torch

from fedlas import Predictions
from fedlas.calibrators import (
    AutoCalibration,
    PooledSplineCalibration,
    SplineCalibration,
    fit_mixture,
)
from fedlas.calibrators._fit.one_vs_rest import class_rest_log_probs
from fedlas.calibrators._fit.pooled_splines import (
    IDENTITY_CURVE,
    curve_basis,
    curve_knots,
    fit_pooled_splines,
)
from fedlas.metrics import nll

SAME = torch.tensor(IDENTITY_CURVE, dtype=torch.float64)


def drawn(count, rows, seed, *, spread=(0.3, 1.0)):
    """Basis of Platt curves ``(L, 2, N)``, labels ``(L, N)`` and the true curves ``(L, 2)``."""
    random = torch.Generator().manual_seed(seed)
    true = torch.randn(count, 2, generator=random, dtype=torch.float64) * torch.tensor(spread)
    true = true + torch.tensor([0.7, -1.0])
    odds = 2 * torch.randn(count, rows, generator=random, dtype=torch.float64)
    basis = torch.stack([odds, torch.ones_like(odds)], dim=1)
    probs = (true.unsqueeze(1) @ basis).squeeze(1).sigmoid()
    labels = torch.rand(count, rows, generator=random, dtype=torch.float64) < probs
    return basis, labels.double(), true


def platt(basis, labels, weights=None, **options):
    weights = torch.ones(1, labels.shape[1], dtype=torch.float64) if weights is None else weights
    same = torch.tensor([1.0, 0.0], dtype=torch.float64)
    return fit_pooled_splines(basis, labels, weights, same, **options)


def test_distribution_of_the_curves_is_found():
    basis, labels, true = drawn(300, 200, 0)
    fit = platt(basis, labels, most_rounds=300)
    assert fit.converged
    assert float((fit.mean - true.mean(dim=0)).abs().max()) < 0.1
    deviation = fit.covariance.diagonal().sqrt()
    assert float((deviation / true.std(dim=0) - 1).abs().max()) < 0.15


def test_pooled_curves_beat_separate_and_common_curves():
    basis, labels, true = drawn(100, 40, 1)
    pooled = platt(basis, labels, most_rounds=100)
    alone = torch.stack([platt(basis[i : i + 1], labels[i : i + 1]).curves[0] for i in range(100)])
    errors = [
        float((each - true).square().mean())
        for each in (pooled.curves, alone, pooled.mean.expand(100, 2))
    ]
    assert errors[0] < 0.8 * min(errors[1:]), errors


def test_weights_equal_copies_and_zero_removes():
    basis, labels, _ = drawn(20, 60, 2)
    times = torch.randint(0, 3, (60,), generator=torch.Generator().manual_seed(0))
    copies = torch.arange(60).repeat_interleave(times)
    weighted = platt(basis, labels, times.double().unsqueeze(0))
    repeated = platt(basis[:, :, copies], labels[:, copies])
    assert torch.allclose(weighted.curves, repeated.curves, atol=1e-8)


def test_unknown_labels_affect_only_their_curve():
    basis, labels, _ = drawn(5, 50, 3)
    weights = torch.ones_like(labels)
    weights[0] = 0.0
    one = platt(basis, labels, weights)
    other = platt(basis, torch.cat([1 - labels[:1], labels[1:]]), weights)
    assert torch.equal(one.curves, other.curves)
    assert torch.allclose(one.curves[0], one.mean, atol=0.2)


def test_warm_start_reaches_the_same_curves():
    basis, labels, _ = drawn(60, 100, 4)
    inside = (torch.arange(100) % 5 != 0).double().unsqueeze(0)
    whole = platt(basis, labels, most_rounds=300)
    ours = platt(basis, labels, inside, start=whole, most_rounds=300)
    theirs = platt(basis, labels, inside, most_rounds=300)
    assert float((ours.curves - theirs.curves).abs().max()) < 0.01


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_separated_and_extreme_scores_give_finite_curves(scale):
    logits = scale * torch.eye(4, dtype=torch.float64).repeat(10, 1)
    log_p, rest = class_rest_log_probs(logits)
    labels = (torch.arange(40) % 4 == torch.arange(4).unsqueeze(1)).double()
    odds = (log_p - rest).T
    knots, width = curve_knots(odds[labels > 0], torch.ones(40, dtype=torch.float64))
    basis = curve_basis(log_p.T, rest.T, knots, width)
    fit = fit_pooled_splines(basis, labels, torch.ones(1, 40, dtype=torch.float64), SAME)
    assert bool(fit.curves.isfinite().all())
    scores = (fit.curves.unsqueeze(1) @ basis).squeeze(1)
    assert bool(((scores > 0) == (labels > 0)).all())


def many_classes(samples, seed, classes=40):
    """Classes at unequal rates, whose scores are too sure by factors of their own."""
    random = torch.Generator().manual_seed(seed)
    scale = torch.exp(0.3 * torch.randn(classes, generator=torch.Generator().manual_seed(9)))
    logits = 1.5 * torch.randn(samples, classes, generator=random, dtype=torch.float64)
    logits = logits - torch.arange(classes) / 20
    target = torch.multinomial(logits.softmax(1), 1, generator=random).squeeze(1)
    return Predictions(2 * scale * logits, target)


def test_pooled_spline_beats_spline_with_few_samples():
    val, test = many_classes(400, 0), many_classes(4000, 1)
    pooled, alone, raw = (
        nll(each)
        for each in (
            PooledSplineCalibration().fit(val).transform(test),
            SplineCalibration().fit(val).transform(test),
            test,
        )
    )
    assert pooled < alone - 0.05
    assert pooled < raw - 0.1


def test_subset_fits_equal_fits_to_the_rows():
    val = many_classes(400, 2)
    member = PooledSplineCalibration()
    whole = member.fit_map(val)
    inside = (torch.arange(400) % 5 != 0).double()
    part = member.fit_subsets(val, inside.unsqueeze(0), whole)[0]
    alone = member.fit_map(val.rows(inside > 0))
    rows = val.tensors().logits[::5]
    ours, theirs = (each(rows).softmax(1) for each in (part, alone))
    assert float((ours - theirs).abs().mean()) < 2e-3


def test_pooled_spline_joins_auto_from_20_classes():
    few, many = (AutoCalibration().fit(many_classes(600, 3, classes)) for classes in (19, 20))
    assert "pooled spline" not in {*few.map.kinds, *few.dropped}
    assert fit_mixture._default_members(many_classes(600, 3, 20))[0].keys() >= {
        "pooled spline",
        "spline",
    }
    assert bool(many.transform(many_classes(100, 4, 20)).tensors().logits.isfinite().all())
