"""Every registered metric has a bootstrap and a noise floor that agree with it; a new metric needs no line here."""

import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS
from fedlas.metrics.evaluation import compute_metrics
from fedlas.stats import bootstrap_interval, noise_floor, paired_bootstrap
from fedlas.stats.bootstrap import is_nonnegative_error
from fedlas.stats.draws import iter_bootstrap, iter_null
from fedlas.stats.rows import Rows
from fedlas.stats.tables import evaluate_replicates

OF_CLASSES = [e for e in METRICS.entries() if e.subject != "event"]  # the others: test_measures.py


@pytest.fixture(params=OF_CLASSES, ids=lambda entry: entry.name)
def entry(request):
    return request.param


def predictions(samples=60, classes=5, scale=2.0, dtype=torch.float32, seed=0, sharpness=1.5):
    """Coarse logits, so that there are ties between classes and between confidences."""
    generator = torch.Generator().manual_seed(seed)
    logits = (
        torch.randn(samples, classes, generator=generator, dtype=torch.float64) * scale * 2
    ).round() / 2
    probs = (logits / sharpness).softmax(1)
    target = torch.multinomial(probs, 1, generator=generator).squeeze(1)
    return Predictions(
        logits.to(dtype),
        target,
        label_probs=probs,
        features=torch.randn(samples, 3, generator=generator),
    )


CASES = [
    ((2, 1), 15),
    ((3, 2), 1),
    ((60, 5), 15),
    ((60, 5), 400),
    ((40, 300), 15),
    ((300, 4), 1),
    ((300, 4), 7),
]


def one_by_one(entry, block, num_bins):
    return [compute_metrics(one, [entry], num_bins)[entry.name] for one in block.predictions()]


def agree(entry, rows, seed, case):
    """Replicates of a metric are its own values, for resampled rows and for redrawn labels."""
    for draw in (iter_bootstrap, iter_null):
        block = next(draw(rows, replicates=5, seed=seed))
        # The metrics sum in single precision in places.
        np.testing.assert_allclose(
            evaluate_replicates(entry, block), one_by_one(entry, block, rows.num_bins), rtol=1e-5, atol=1e-7,
            err_msg=f"{draw.__name__}, {case}",
        )  # fmt: skip


def test_of_any_shape_and_number_of_bins(entry):
    for shape, num_bins in CASES:
        p = predictions(*shape)
        if p.num_samples > 50 or not entry.several_labels:  # else a replicate may have one label
            agree(entry, Rows(p, num_bins), 1, (shape, num_bins))


def test_of_any_precision_and_scale(entry):
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for scale in (0.0, 1e4):
            agree(entry, Rows(predictions(scale=scale, dtype=dtype), 15), 2, (dtype, scale))


def test_interval(entry):
    p = predictions(200)
    found = bootstrap_interval(p, metric=entry.name, replicates=99)
    assert found.value == entry.value(p)
    assert found.low <= found.high
    assert found == bootstrap_interval(p, metric=entry.name, replicates=99)
    other = bootstrap_interval(p, metric=entry.name, replicates=99, seed=1)
    assert found.standard_error == 0.0 or other != found


def test_floor(entry):
    p = predictions(200)
    found = noise_floor(p, metric=entry.name, replicates=99)
    assert found.value == entry.value(p)
    assert 0.01 <= found.p_value <= 1.0
    assert list(found.quantiles.values()) == sorted(found.quantiles.values())
    assert found == noise_floor(p, metric=entry.name, replicates=99)


def test_a_model_is_not_different_from_itself(entry):
    p = predictions(200)
    found = paired_bootstrap(p, p, metric=entry.name, replicates=99)
    assert (found.low, found.high, found.p_value) == (0.0, 0.0, 1.0)


def test_nothing_is_changed(entry):
    p = predictions()
    logits, target, state = (
        p.tensors().logits.clone(),
        p.tensors().target.clone(),
        torch.get_rng_state(),
    )
    numpy_state = np.random.get_state()[1].copy()
    bootstrap_interval(p, metric=entry.name, replicates=39)
    noise_floor(p, metric=entry.name, replicates=39)
    assert torch.equal(p.tensors().logits, logits)
    assert torch.equal(p.tensors().target, target)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()


def test_what_is_called_zero_for_calibrated_models_goes_there(entry):
    if not is_nonnegative_error(entry):
        pytest.skip("no calibration error, or not known as one")
    few, many = (
        noise_floor(predictions(n, sharpness=1.0), metric=entry.name, replicates=20).mean
        for n in (500, 50_000)
    )
    assert 0.0 <= many <= 0.7 * few
