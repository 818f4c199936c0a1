"""Replicates of samples and labels, and the metrics of many at once, against loops written by hand."""

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics
from fedlas.metrics.grids import FineGrid
from fedlas.metrics.smooth import Spectra, cosine_transform, find_fixed_points, interpolate_gaps
from fedlas.stats import draws as module
from fedlas.stats.draws import iter_bootstrap, iter_null, iter_unit_draws, prepare_rows
from fedlas.stats.replicates import BootstrapReplicates, ConsistencyReplicates
from fedlas.stats.rows import ClassCellSums, Rows
from fedlas.stats.tables import evaluate_replicates


def rows(samples=50, classes=4, seed=0, num_bins=15, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(samples, classes, generator=generator) * 4).round() / 2
    target = torch.randint(0, classes, (samples,), generator=generator)
    return Rows(
        Predictions(logits.to(dtype), target, label_probs=logits.softmax(1).flip(1)), num_bins
    )


def all_weights(given, **options):
    return np.concatenate(list(iter_unit_draws(given, **options)))


def all_labels(given, **options):
    return np.concatenate([block.labels for block in iter_null(given, **options)])


def test_every_replicate_draws_n_rows():
    weights = all_weights(rows(50), replicates=200, seed=0)
    assert weights.shape == (200, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights == weights.round()).all()


def test_rows_are_drawn_alike_and_independently():
    weights = all_weights(rows(20), replicates=4000, seed=3)
    # multinomial: mean 1, variance 19/20, covariance -1/20; 80,000 draws over 20 rows
    assert scipy_stats.chisquare(weights.sum(axis=0)).pvalue > 0.001
    covariance = np.cov(weights, rowvar=False)
    assert np.diag(covariance) == pytest.approx(19 / 20, abs=0.15)
    off_diagonal = covariance[~np.eye(20, dtype=bool)]
    assert off_diagonal.mean() == pytest.approx(-1 / 20, abs=0.002)


def test_first_and_last_row_can_be_drawn():
    weights = all_weights(rows(3), replicates=500, seed=0)
    assert (weights.max(axis=0) == 3).all()


@pytest.mark.parametrize("draw", [all_weights, all_labels])
def test_draws_do_not_depend_on_block_size(draw, monkeypatch):
    given = rows(37)
    expected = draw(given, replicates=60, seed=5)
    assert np.array_equal(draw(given, replicates=60, seed=5), expected)
    assert np.array_equal(draw(given, replicates=25, seed=5), expected[:25])
    assert not np.array_equal(draw(given, replicates=60, seed=6), expected)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 200)
    assert len(list(iter_null(given, replicates=60, seed=5))) == 20
    assert np.array_equal(draw(given, replicates=60, seed=5), expected)


def test_frozen_draws():
    """A published seed keeps its meaning: these come from NumPy's frozen RandomState."""
    given = rows(6)
    assert all_weights(given, replicates=2, seed=0).tolist() == [
        [2, 1, 1, 2, 0, 0],
        [0, 1, 0, 4, 1, 0],
    ]
    assert all_labels(given, replicates=2, seed=0).tolist() == [
        [2, 1, 2, 1, 2, 1],
        [2, 0, 2, 1, 1, 0],
    ]


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 16, 17])
def test_labels_follow_the_probabilities(classes):
    given = rows(8, classes, seed=classes)
    labels = all_labels(given, replicates=6000, seed=1)
    frequency = np.stack([(labels == c).mean(axis=0) for c in range(classes)], axis=1)
    probs = given.predictions.tensors().logits.double().softmax(1).numpy()
    assert frequency.sum(axis=1) == pytest.approx(1.0)
    # standard deviation of a frequency is at most 0.5 / sqrt(6000) = 0.0065
    np.testing.assert_allclose(frequency, probs, atol=5 * 0.0065)


def test_labels_that_uniforms_choose_by_hand():
    # probabilities 0.2, 0.5, 0.3: the predicted class 1 first, then 0 in its place, then 2
    given = Rows(Predictions(torch.tensor([[0.2, 0.5, 0.3]]).double().log(), [0]), 15)
    uniforms = np.array([[0.0], [0.49], [0.51], [0.69], [0.71], [0.9999999]])
    assert given.draw_labels(uniforms)[:, 0].tolist() == [1, 1, 0, 0, 2, 2]
    assert ConsistencyReplicates(given, uniforms).right[:, 0].tolist() == [1, 1, 0, 0, 0, 0]


def test_a_class_without_probability_is_never_drawn():
    logits = torch.tensor([[1e4, 1e4, -1e4, -1e4], [0.3, -1e4, 0.7, -1e4]])
    labels = all_labels(Rows(Predictions(logits, [0, 0]), 15), replicates=3000, seed=0)
    assert set(labels[:, 0]) == {0, 1}
    assert set(labels[:, 1]) == {0, 2}


def test_correct_is_drawn_by_confidence_and_matches_labels():
    given = rows(40)
    block = next(iter_null(given, replicates=2000, seed=0))
    correct = block.labels == given.predicted
    assert np.array_equal(block.right, correct[:, given.order])
    confidence = given.predictions.confidence
    np.testing.assert_allclose(correct.mean(axis=0), confidence, atol=5 * 0.5 / 2000**0.5)


def test_the_same_rows_are_drawn_for_every_model():
    one, other = rows(30, 3), rows(30, 900, seed=4)
    expected = all_weights(one, replicates=100, seed=0)
    assert np.array_equal(all_weights(other, replicates=100, seed=0), expected)
    assert np.array_equal(
        np.concatenate(list(iter_unit_draws(one, other, replicates=100, seed=0))), expected
    )


def by_counting(probs, target, weights, num_bins):
    """Sums of probabilities, rows and labels by class and bin, in three loops."""
    sums = np.zeros((3, probs.shape[1], num_bins))
    edges = [np.float32(b / num_bins) for b in range(1, num_bins)]
    for row, label, weight in zip(probs, target, weights, strict=True):
        for c, p in enumerate(row):
            sums[:, c, sum(p > edge for edge in edges)] += weight * np.array(
                [float(p), 1.0, label == c]
            )
    return sums.reshape(3, -1)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_class_cells_by_counting(num_bins):
    given = rows(25, 3, num_bins=num_bins)
    weights = all_weights(given, replicates=4, seed=0)
    labels = all_labels(given, replicates=4, seed=0)
    drawn_rows = BootstrapReplicates(given, weights).class_table
    drawn_labels = next(iter_null(given, replicates=4, seed=0)).class_table
    for r in range(4):
        probs, counts, own = by_counting(given.probs, given.target, weights[r], num_bins)
        np.testing.assert_allclose(drawn_rows.probs[r], probs, atol=1e-7)
        assert np.array_equal(drawn_rows.count()[r], counts)
        assert np.array_equal(drawn_rows.labels[r], own)
        probs, counts, drawn = by_counting(given.probs, labels[r], np.ones(25), num_bins)
        np.testing.assert_allclose(drawn_labels.probs[0], probs, atol=1e-7)
        assert np.array_equal(drawn_labels.count()[0], counts)
        assert np.array_equal(drawn_labels.labels[r], drawn)


def test_class_sums_do_not_depend_on_summation_order():
    given = rows(3000, 7)
    order = np.random.default_rng(0).permutation(3000)
    other = Rows(
        Predictions(
            given.predictions.tensors().logits[order], given.predictions.tensors().target[order]
        ),
        15,
    )
    weights = all_weights(given, replicates=5, seed=0)
    ours, theirs = (
        ClassCellSums(g).probs(w) for g, w in ((given, weights), (other, weights[:, order]))
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-10)


def test_resampled_predictions_keep_what_belongs_to_a_row():
    given = rows(6)
    p = Predictions(
        given.predictions.tensors().logits,
        given.predictions.tensors().target,
        torch.arange(12.0).view(6, 2),
        given.predictions.tensors().label_probs,
    )
    (one,) = BootstrapReplicates(
        Rows(p, 15), np.array([[0.0, 2.0, 0.0, 1.0, 3.0, 0.0]])
    ).predictions()
    index = [1, 1, 3, 4, 4, 4]
    for name in ("logits", "target", "features", "label_probs"):
        assert np.array_equal(getattr(one, name), getattr(p, name)[index])


def test_checks():
    p = rows(3).predictions
    with pytest.raises(InputError, match="at least 2 samples; got 1"):
        prepare_rows(Predictions(p.tensors().logits[:1], p.tensors().target[:1]), 15)
    with pytest.raises(InputError, match="num_bins"):
        prepare_rows(p, 0)
    with pytest.raises(InputError, match="predictions must be Predictions"):
        prepare_rows(p.tensors().logits, 15)


def sampled(sharpness, certain=0.0, samples=400, seed=0):
    """A share of ``certain`` samples has a confidence of exactly 1, and some of these are wrong."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, 3, generator=generator)
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    logits = sharpness * logits
    logits[: int(certain * samples)] *= 1e4
    return Predictions(logits, target)


CASES = [(1.0, 0.0), (1.0, 0.5), (0.3, 0.4), (5.0, 0.0), (0.0, 0.0), (0.0, 0.3), (1.0, 1.0)]


@pytest.mark.parametrize(("sharpness", "certain"), CASES)
def test_values(sharpness, certain):
    entry, rows = METRICS["smooth_ece"], Rows(sampled(sharpness, certain), 15)
    for draw in (iter_bootstrap, iter_null):
        (block,) = draw(rows, replicates=12, seed=0)
        one_by_one = [entry.value(p) for p in block.predictions()]
        np.testing.assert_allclose(
            evaluate_replicates(entry, block), one_by_one, rtol=1e-5, atol=1e-7
        )


def test_the_given_rows_once():
    rows = Rows(sampled(1.3, 0.2), 15)
    value = evaluate_replicates(METRICS["smooth_ece"], BootstrapReplicates(rows, np.ones((1, 400))))
    assert value == pytest.approx(METRICS["smooth_ece"].value(rows.predictions), abs=1e-7)


def test_replicates_do_not_depend_on_their_block():
    """They say which frequencies are computed."""
    rows = Rows(sampled(1.3, 0.2), 15)
    weights = next(iter_bootstrap(rows, replicates=40, seed=0)).weights
    entry = METRICS["smooth_ece"]
    whole = evaluate_replicates(entry, BootstrapReplicates(rows, weights))
    far = np.zeros_like(weights)
    far[:, 0] = weights.sum(axis=1)  # one row drawn again and again: another error by far
    found = evaluate_replicates(entry, BootstrapReplicates(rows, np.concatenate([far, weights])))[
        40:
    ]
    np.testing.assert_allclose(found, whole, rtol=1e-11)


@pytest.mark.parametrize("guess", [1e-3, 1.0])
def test_a_worse_guess_finds_the_same(guess):
    rows = Rows(sampled(1.3, 0.2), 15)
    spectra = Spectra(
        cosine_transform(interpolate_gaps(FineGrid.from_predictions(rows.predictions).table()))[
            None
        ]
    )
    total = np.abs(spectra.lowest_frequencies(1)[:, 0].real) / 2
    (scale,) = find_fixed_points(spectra.integrals, total, guess=guess)
    assert scale == pytest.approx(METRICS["smooth_ece"].value(rows.predictions), abs=1e-11)


def weighted(samples, classes, *, sharpness=1.0, ties=False, zeros=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    logits = logits.round() if ties else logits
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
    weights = torch.rand(samples, generator=generator, dtype=torch.float64) ** 2 + 0.01
    if zeros:
        weights[::3] = 0.0
    return Predictions(sharpness * logits, target, label_probs=logits.softmax(1), weights=weights)


@pytest.mark.parametrize("draw", [iter_bootstrap, iter_null])
@pytest.mark.parametrize(
    "entry", [e for e in METRICS.entries() if e.subject != "event"], ids=lambda entry: entry.name
)
def test_many_replicates_are_each_what_the_metric_says(entry, draw):
    for p in (weighted(40, 3, sharpness=1.5), weighted(60, 4, ties=True, zeros=True)):
        (block,) = draw(prepare_rows(p, 15), replicates=12, seed=1)
        found = evaluate_replicates(entry, block)
        expected = [compute_metrics(one, [entry], 15)[entry.name] for one in block.predictions()]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
