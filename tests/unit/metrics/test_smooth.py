import itertools
import math

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import smooth_ece
from fedlas.metrics.grids import FineGrid
from fedlas.metrics.smooth import (
    STEPS,
    Spectra,
    cosine_transform,
    find_fixed_points,
    interpolate_gaps,
)


def sampled(samples, classes=5, over=1.0, scale=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    return Predictions(logits * over, target)


def definition(predictions, scale, points=8001):
    """The paper's integral, with the reflected Gaussian as a sum of images, by the midpoint rule."""
    confidence = predictions.confidence.astype(np.float64)
    gap = predictions.correct.astype(np.float64) - confidence
    t = (np.arange(points) + 0.5) / points
    smoothed = np.zeros(points)
    images = int(np.ceil(9 * scale)) + 1
    for k in range(-images, images + 1):
        for sign in (1, -1):
            distance = (t[:, None] - (2 * k + sign * confidence)[None]) / scale
            smoothed += np.exp(-(distance**2) / 2) @ gap
    return float(np.abs(smoothed).mean() / (scale * np.sqrt(2 * np.pi) * len(gap)))


def bound(predictions, scale):
    gap = (
        (predictions.tensors().correct.double() - predictions.tensors().confidence.double())
        .abs()
        .mean()
    )
    return float(gap) / (STEPS * scale) ** 2


def smoothed_gap(predictions):
    """``scale -> integral``, as the metric has it."""
    nodes = interpolate_gaps(FineGrid.from_predictions(predictions).table())
    gaps = Spectra(cosine_transform(nodes)[None]).integrals
    return lambda scale: float(gaps(np.array([scale]), np.array([0]))[0])


@pytest.mark.parametrize("scale", [0.002, 0.3])
@pytest.mark.parametrize("over", [0.6, 2.0])
def test_integral_matches_definition_within_stated_error(scale, over):
    p = sampled(600, over=over)
    smoothed = smoothed_gap(p)
    assert smoothed(scale) == pytest.approx(definition(p, scale), abs=bound(p, scale) + 2e-7)


@pytest.mark.parametrize("scale", [0.002, 0.05, 0.5])
def test_the_ends_of_the_axis_reflect(scale):
    """With confidences of exactly 1, wrong and right, beside others that pull the other way."""
    others = sampled(100, over=0.6)
    sure = torch.tensor([[500.0, 0.0, 0.0, 0.0, 0.0]] * 12)
    p = Predictions(
        torch.cat((others.tensors().logits, sure)),
        torch.cat((others.tensors().target, torch.tensor([1] * 8 + [0] * 4))),
    )
    smoothed = smoothed_gap(p)
    assert smoothed(scale) == pytest.approx(definition(p, scale), abs=bound(p, scale) + 2e-7)


@pytest.mark.parametrize(("samples", "over"), [(1, 1.0), (3, 1.0), (40, 1.0), (500, 1.1)])
def test_smooth_ece_is_fixed_point_of_scale(samples, over):
    p = sampled(samples, over=over)
    scale = smooth_ece(p)
    assert definition(p, scale) == pytest.approx(scale, abs=2 * bound(p, scale) + 2e-7)


def test_integral_decreases_with_scale_and_keeps_total():
    p = sampled(300, over=1.3)
    smoothed = smoothed_gap(p)
    values = [smoothed(scale) for scale in (0, 1e-5, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1, 3)]
    assert all(second <= first + 1e-15 for first, second in itertools.pairwise(values))
    total = abs(float(p.tensors().confidence.double().mean() - p.tensors().correct.double().mean()))
    assert values[-1] == pytest.approx(total, rel=1e-12)
    assert values[0] > 2 * total


def test_gaps_of_one_sign_give_the_mean_gap():
    for confidence, outcome in ((0.9, 1), (0.6, 0)):
        logits = torch.tensor([[confidence, 1 - confidence]] * 4, dtype=torch.float64).log()
        p = Predictions(logits, [1 - outcome] * 4)
        expected = abs(confidence - outcome)
        assert smooth_ece(p) == pytest.approx(expected, abs=2e-10)


@pytest.mark.parametrize(
    "p",
    [Predictions([[500.0, 0.0]] * 3, [0, 0, 0]), Predictions([[0.0, 0.0]] * 4, [0, 1, 0, 1])],
    ids=["right and sure", "even and undecided"],
)
def test_calibrated_to_the_last_bit_is_zero(p):
    assert smooth_ece(p) == 0.0


@pytest.mark.parametrize("logits", [[500.0, 0.0], [0.0, 0.0]])
def test_what_lies_on_a_node_keeps_its_gap(logits):
    """At the end of the axis and within it, alone and beside others."""
    p = Predictions(torch.tensor([logits] * 4), [1, 1, 1, 1])
    assert smooth_ece(p) == pytest.approx(float(p.tensors().confidence[0]), abs=2e-12)
    both = Predictions(torch.tensor([logits] * 4 + [[1.0, 0.0]] * 4), [1] * 8)
    assert smooth_ece(both) == pytest.approx(
        float(both.tensors().confidence.double().mean()), abs=2e-12
    )


def test_the_scale_is_found_in_few_steps():
    """Also of steep curves, of which one end of the bracket would stay where it is for long."""
    for steepness in (5, 100, 3000):
        calls = []

        def curve(scales, rows, steepness=steepness, calls=calls):
            calls.extend(scales)
            return 0.4 * np.exp(-steepness * scales)

        (scale,) = find_fixed_points(curve, np.zeros(1))
        assert 0.4 * math.exp(-steepness * scale) == pytest.approx(scale, abs=1e-12)
        assert len(calls) < 25


def test_smooth_ece_is_continuous_across_grid_edges():
    # Bins of width 1/2 have an edge at 0.5: ECE jumps there, this does not.
    def at(confidence):
        logits = torch.tensor(
            [[confidence, 1 - confidence], [0.55, 0.45]], dtype=torch.float64
        ).log()
        return smooth_ece(Predictions(logits, [1, 0]))

    assert at(0.5001) == pytest.approx(at(0.5003), abs=2e-4)


def test_against_the_true_error_where_it_is_known():
    """Confidence 0.8 that is right 70 % of the time, and 0.6 that is right 70 %: errors 0.1 far apart."""
    logits = torch.cat(
        (torch.tensor([[0.8, 0.2]]).repeat(100, 1), torch.tensor([[0.6, 0.4]]).repeat(100, 1))
    ).log()
    p = Predictions(logits, ([0] * 7 + [1] * 3) * 20)
    assert 0.05 < smooth_ece(p) < 0.1
    assert smooth_ece(p) == pytest.approx(definition(p, smooth_ece(p)), abs=1e-6)


def test_conventions_differ_as_documented():
    logits = torch.tensor([[500.0, 0.0], [3.9, 0.0]])
    p = Predictions(logits, [1, 0])
    # One confidence of 1 that is wrong, one of 0.98 that is right: as published, the first counts half.
    assert smooth_ece(p) == pytest.approx(0.49, abs=1e-3)
    assert smooth_ece(p, variant="reference") == pytest.approx(0.48 / 1.5, abs=1e-3)


def test_a_misspelt_convention():
    with pytest.raises(ValueError, match=r"smooth_ece: variant .*exact, reference"):
        smooth_ece(sampled(3), variant="relplot")
