from decimal import Decimal, getcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas import Predictions
from fedlas._core.check import LARGEST
from fedlas.calibrators import TemperatureScaling
from fedlas.calibrators._fit import temperature_search
from fedlas.calibrators._fit.temperature_search import nll_temperature, subset_temperatures
from fedlas.metrics import nll as negative_log_likelihood


def generated(true_temperature, samples=500, classes=10, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * 3 * true_temperature
    target = torch.multinomial((logits / true_temperature).softmax(1), 1).squeeze(1)
    return Predictions(logits.to(dtype), target)


def accurate(samples, seed, factor=1.0):
    """A model of ten classes with 97 % accuracy, calibrated before its logits are multiplied by ``factor``."""
    random = torch.Generator().manual_seed(seed)
    target = torch.randint(10, (samples,), generator=random)
    scores = torch.randn(samples, 10, generator=random, dtype=torch.float64)
    scores[torch.arange(samples), target] += 3.58
    return Predictions(3.58 * scores * factor, target)


def expected_mistakes(p, temperature):
    return float((1 - (p.tensors().logits / temperature).softmax(1).amax(1)).sum())


def spread(p):
    return float(
        (p.tensors().logits - p.tensors().logits.mean(1, keepdim=True)).square().mean().sqrt()
    )


@given(
    st.integers(0, 10_000),
    st.integers(2, 60),
    st.integers(2, 6),
    st.sampled_from([1e-40, 0.05, 4.0, 1e28]),
)
def test_search_finds_the_minimum_or_warns(seed, samples, classes, scale):
    rng = np.random.default_rng(seed)
    p = Predictions(rng.normal(size=(samples, classes)) * scale, rng.integers(0, classes, samples))

    def nll(value):
        return float(
            torch.nn.functional.cross_entropy(p.tensors().logits / value, p.tensors().target)
        )

    best = nll_temperature(p)
    highest = 100 * max(spread(p), 1) * (1 + 1e-12)
    assert 0 < best.value <= highest
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        if best.warning is None or (factor > 1 and "bound" not in best.warning):
            assert nll(best.value) <= nll(min(best.value * factor, highest)) + 1e-12
    if best.warning is not None and "held" in best.warning:
        assert best.value <= 1
        assert nll(best.value) <= nll(1.0) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_within_1e_10_of_the_exact_minimum(seed):
    """The slope in 50 digits changes its sign there."""
    getcontext().prec = 50
    p = generated(1.6, samples=60, classes=3, seed=seed)
    rows = [[Decimal(value) for value in row] for row in p.logits.tolist()]

    def slope(temperature):
        scale, total = 1 / Decimal(temperature), Decimal(0)
        for row, label in zip(rows, p.target.tolist(), strict=True):
            weights = [(scale * value).exp() for value in row]
            total += (
                sum(w * z for w, z in zip(weights, row, strict=True)) / sum(weights) - row[label]
            )
        return total

    best = nll_temperature(p).value
    assert slope(best * (1 - 1e-10)) > 0 > slope(best * (1 + 1e-10))


@given(st.floats(-100, 28))
def test_calibrated_logits_have_a_scaled_temperature(exponent):
    p = generated(1.5, samples=100, classes=4)
    scaled = Predictions(p.tensors().logits * 10**exponent, p.tensors().target)
    assert nll_temperature(scaled).value == pytest.approx(
        10**exponent * nll_temperature(p).value, rel=1e-8
    )


def test_few_passes_over_the_data(monkeypatch):
    calls = []
    sum_over_rows = temperature_search._ScaledNLL._sum_over_rows
    monkeypatch.setattr(
        temperature_search._ScaledNLL,
        "_sum_over_rows",
        lambda *a: calls.append(a) or sum_over_rows(*a),
    )
    for known in (0.1, 0.5, 1.0, 3.0, 30.0):
        calls.clear()
        nll_temperature(generated(known))
        assert len(calls) <= 15


def test_large_logit_offset_does_not_matter():
    p = generated(2.0)
    moved = Predictions(p.tensors().logits + 1e6, p.tensors().target)
    assert nll_temperature(moved).value == pytest.approx(nll_temperature(p).value, rel=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_numbers(dtype):
    largest = LARGEST
    p = Predictions(
        torch.tensor([[largest, -largest], [0.0, largest], [largest, 0.0]], dtype=dtype), [0, 1, 1]
    )
    best = nll_temperature(p).value
    assert largest / 1e3 < best <= 100 * largest
    assert bool((p.tensors().logits / best).isfinite().all())


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("samples", [20, 100])
def test_nearly_perfect_validation_set_is_harmless(factor, samples):
    """Without the hold, the worst of these has a test NLL of 5 to 15 nats."""
    test = accurate(5000, 1000, factor)
    raw = negative_log_likelihood(test)
    for seed in range(30):
        best = nll_temperature(accurate(samples, seed, factor)).value
        after = float(
            torch.nn.functional.cross_entropy(test.tensors().logits / best, test.tensors().target)
        )
        assert after < max(1.5 * raw, 0.35), seed


def test_where_mistakes_are_not_few_nothing_is_held():
    for seed in range(5):
        p = accurate(500, seed, 0.5)
        best = nll_temperature(p)
        assert best.warning is None
        assert expected_mistakes(p, best.value) > 5


@pytest.mark.parametrize("wrong", [0, 1])
def test_held_it_expects_two_mistakes(wrong):
    p = accurate(200, 0, 0.2)
    target = p.tensors().predicted.clone()
    target[:wrong] = p.tensors().logits[:wrong].topk(2).indices[:, 1]
    p = Predictions(p.tensors().logits, target)
    best = nll_temperature(p)
    assert ("0 of 200 validation samples are mistakes", "1 of 200 validation samples is a mistake")[
        wrong
    ] in best.warning
    assert best.value < 1
    assert expected_mistakes(p, best.value) == pytest.approx(2, rel=1e-6)


def test_near_tie_does_not_collapse_the_temperature():
    p = accurate(50, 3)
    logits = p.tensors().logits.clone()
    logits[0] = torch.tensor([1.0, 1.0 + 1e-9] + [0.0] * 8)
    target = torch.cat(
        [torch.tensor([0]), Predictions(logits, p.tensors().target).tensors().predicted[1:]]
    )
    p = Predictions(logits, target)
    best = nll_temperature(p).value
    assert expected_mistakes(Predictions(logits[1:], target[1:]), best) == pytest.approx(
        2, rel=1e-6
    )


def test_tied_rows_are_no_expected_mistakes():
    """They expect half a mistake at any temperature, and would let it go to 0."""
    logits = torch.cat(
        [torch.eye(4).repeat(5, 1) * 0.1, torch.full((10, 4), 1e-9) * torch.arange(4)]
    ).double()
    p = Predictions(logits, logits.argmax(1))
    best = nll_temperature(p).value
    assert 0.01 < best < 1
    assert expected_mistakes(
        Predictions(logits[:20], p.tensors().target[:20]), best
    ) == pytest.approx(2, rel=1e-6)


def test_subset_temperatures_are_cached(monkeypatch):
    val = generated(2.0)
    start = TemperatureScaling().fit_map(val)
    parts = torch.rand(3, 500, generator=torch.Generator().manual_seed(0)).double()
    searches = []
    search = temperature_search._refine_temperatures
    monkeypatch.setattr(
        temperature_search, "_refine_temperatures", lambda *of: searches.append(1) or search(*of)
    )
    first = subset_temperatures(val, parts, start)
    assert subset_temperatures(val, parts, start) is first
    other = subset_temperatures(val, parts.flip(0), start)
    torch.testing.assert_close(other, first.flip(0))
    higher = subset_temperatures(val, parts, TemperatureScaling().fit_map(generated(3.0)))
    assert bool((higher != first).all())
    assert len(searches) == 3
