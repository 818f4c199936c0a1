"""Feature clipping: thresholds, the head that made the logits, and what is refused."""

import math

import pytest
import torch
from torch import nn

from fedlas import Predictions
from fedlas.calibrators import CalibrationWarning, Calibrator, FeatureClipping, TemperatureScaling
from fedlas.calibrators.feature_clipping import (
    clipped_logits,
    clipping_grid,
    minimize_on_grid,
    parse_head,
    recover_head,
)
from fedlas.errors import InputError
from fedlas.metrics import nll as negative_log_likelihood


def draw(samples=3000, limit=1.5, seed=0, dtype=torch.float64, scale=1.0):
    """Labels that follow the features cut at ``limit``, and a head that sees them whole."""
    world = torch.Generator().manual_seed(99)
    head = (
        torch.randn(6, 12, generator=world, dtype=torch.float64),
        torch.randn(6, generator=world, dtype=torch.float64),
    )
    random = torch.Generator().manual_seed(seed)
    features = (
        (torch.randn(samples, 12, generator=random, dtype=torch.float64) * 2).relu().to(dtype)
    )
    right = features.double().clamp(-limit, limit) @ head[0].T + head[1]
    target = torch.multinomial((right / scale).softmax(1), 1, generator=random).squeeze(1)
    logits = features.double() @ head[0].T + head[1]
    return Predictions(
        logits.to(dtype), target, features=features, label_probs=(right / scale).softmax(1)
    ), head


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_threshold_that_made_the_labels_is_found(limit, dtype):
    val, _ = draw(limit=limit, dtype=dtype)
    test, _ = draw(limit=limit, dtype=dtype, seed=1)
    clipping = FeatureClipping().fit(val)
    assert clipping.threshold == pytest.approx(limit, rel=0.1)
    assert clipping.temperature == 1.0
    torch.testing.assert_close(
        clipping.transform(test).tensors().probs,
        test.tensors().label_probs.to(dtype),
        atol=0.1,
        rtol=0,
    )


@pytest.mark.parametrize("known", [0.5, 2.0])
def test_with_a_temperature_both_are_found(known):
    val, _ = draw(samples=8000, scale=known)
    clipping = FeatureClipping(temperature=True).fit(val)
    assert clipping.threshold == pytest.approx(1.5, rel=0.1)
    assert clipping.temperature == pytest.approx(known, rel=0.1)


def test_nll_with_temperature_is_below_either_alone():
    val, _ = draw(samples=500, scale=1.7)
    both = negative_log_likelihood(FeatureClipping(temperature=True).fit(val).transform(val))
    assert both <= negative_log_likelihood(FeatureClipping().fit(val).transform(val))
    assert both <= negative_log_likelihood(TemperatureScaling().fit(val).transform(val))


def test_logits_equal_head_of_clipped_features():
    val, (weight, bias) = draw()
    clipping = FeatureClipping().fit(val)
    expected = (
        val.tensors().features.clamp(-clipping.threshold, clipping.threshold) @ weight.T + bias
    )
    torch.testing.assert_close(
        clipping.transform(val).tensors().logits.softmax(1),
        expected.softmax(1),
        rtol=1e-9,
        atol=1e-12,
    )


def test_negative_features_are_clipped_too():
    val, (weight, bias) = draw()
    features = val.tensors().features - 1.5
    right = features.clamp(-0.7, 0.7) @ weight.T + bias
    target = torch.multinomial(
        right.softmax(1), 1, generator=torch.Generator().manual_seed(3)
    ).squeeze(1)
    val = Predictions(features @ weight.T + bias, target, features=features)
    clipping = FeatureClipping().fit(val)
    expected = features.clamp(-clipping.threshold, clipping.threshold) @ weight.T + bias
    torch.testing.assert_close(
        clipping.transform(val).tensors().logits.softmax(1),
        expected.softmax(1),
        rtol=1e-9,
        atol=1e-12,
    )
    assert (features < -clipping.threshold).any()


def test_no_threshold_on_a_fine_grid_is_better():
    val, (weight, _) = draw(samples=400)
    weight = weight - weight.mean(0)

    def nll(threshold):
        logits = clipped_logits(weight, val.tensors().features, val.tensors().logits, threshold)
        return float(torch.nn.functional.cross_entropy(logits, val.tensors().target))

    found = nll(FeatureClipping().fit(val).threshold)
    assert all(
        found <= nll(value) + 1e-12
        for value in torch.linspace(0, float(val.tensors().features.max()), 2000).tolist()
    )


def test_sample_without_large_features_keeps_exact_logits():
    val, _ = draw(dtype=torch.float32)
    clipping = FeatureClipping().fit(val)
    after = clipping.transform(val)
    small = val.tensors().features.amax(1) <= clipping.threshold
    assert small.any()
    assert not small.all()
    assert torch.equal(after.tensors().logits[small], val.tensors().logits[small])
    assert (after.tensors().logits[~small] != val.tensors().logits[~small]).any(1).all()


def test_given_head_works_with_too_few_samples():
    val, (weight, bias) = draw(samples=3000)
    few = Predictions(
        val.tensors().logits[:10], val.tensors().target[:10], features=val.tensors().features[:10]
    )
    with pytest.warns(CalibrationWarning, match=r"\d of 12 feature directions do not vary"):
        recovered = FeatureClipping().fit(few)
    with pytest.raises(InputError, match=r"FeatureClipping\.transform: .*linear .*FeatureClipping"):
        recovered.transform(val)
    layer = nn.Linear(12, 6, dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    given = FeatureClipping(layer).fit(few)
    expected = val.tensors().features.clamp(-given.threshold, given.threshold) @ weight.T + bias
    torch.testing.assert_close(
        given.transform(val).tensors().logits.softmax(1), expected.softmax(1)
    )
    same = FeatureClipping((weight, bias)).fit(few)
    assert torch.equal(same.transform(val).tensors().logits, given.transform(val).tensors().logits)


def test_given_and_recovered_agree():
    val, head = draw()
    assert FeatureClipping(head).fit(val).threshold == pytest.approx(
        FeatureClipping().fit(val).threshold, rel=1e-5
    )


def test_logits_of_another_head_raise_without_effect():
    val, (weight, bias) = draw()
    other = Predictions(
        val.tensors().logits.square(), val.tensors().target, features=val.tensors().features
    )
    clipping = FeatureClipping().fit(val)
    before = clipping.threshold
    for calibrator in (clipping, FeatureClipping((weight + 1 * torch.eye(6, 12), bias))):
        with pytest.raises(InputError, match=r"FeatureClipping\.fit: .*one linear head"):
            calibrator.fit(other)
    with pytest.raises(InputError, match=r"FeatureClipping\.transform: .*one linear head"):
        clipping.transform(other)
    assert clipping.threshold == before


def test_nothing_to_clip_warns_of_the_bound():
    features = torch.rand(500, 6, generator=torch.Generator().manual_seed(0)) * 4
    val = Predictions(features.clone(), features.argmax(1), features=features)
    with pytest.warns(CalibrationWarning, match=r"bound of the search.*nothing is clipped"):
        clipping = FeatureClipping().fit(val)
    assert torch.equal(clipping.transform(val).tensors().logits, val.tensors().logits)


def test_unrelated_labels_warn_of_threshold_zero():
    val, (weight, _) = draw()
    random = torch.Generator().manual_seed(5)
    target = torch.randint(0, 6, (3000,), generator=random)
    pointless = Predictions(
        val.tensors().features @ (50 * weight).T, target, features=val.tensors().features
    )
    with pytest.warns(CalibrationWarning, match="bound of the search, threshold 0"):
        clipping = FeatureClipping().fit(pointless)
    assert clipping.threshold == pytest.approx(0, abs=1e-6)


def test_accuracy_drop_warns_with_figures():
    """Of a model that is far too sure, wherever its features are, only a small threshold lowers the NLL."""
    val, (weight, bias) = draw(samples=500)
    random = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 6, (500,), generator=random)
    target = torch.where(torch.rand(500, generator=random) < 0.6, val.tensors().predicted, noise)
    sure = Predictions(20 * val.tensors().logits, target, features=val.tensors().features)
    before = float(sure.tensors().correct.double().mean())
    with pytest.warns(CalibrationWarning, match=rf"accuracy .*falls from {before:.3f} to 0\.\d+ "):
        clipping = FeatureClipping((20 * weight, 20 * bias)).fit(sure)
    assert float(clipping.transform(sure).tensors().correct.double().mean()) < before - 0.1


@pytest.mark.parametrize(("size", "logit_size"), [(1e28, 1e28), (1e-28, 1.0), (1e20, 1e28)])
def test_features_and_logits_of_any_size(tmp_path, size, logit_size):
    val, _ = draw(samples=300)
    plain = FeatureClipping(temperature=True).fit(val)
    extreme = Predictions(
        val.tensors().logits * logit_size,
        val.tensors().target,
        features=val.tensors().features * size,
    )
    clipping = FeatureClipping(temperature=True).fit(extreme)
    loaded = Calibrator.load(clipping.save(tmp_path / "c.json")).transform(extreme)
    torch.testing.assert_close(
        loaded.tensors().probs, plain.transform(val).tensors().probs, rtol=1e-4, atol=1e-6
    )


def test_the_search():
    calls = []

    def function(value):
        calls.append(value)
        return (value - 1.2345) ** 2 + 0.3 * math.cos(8 * value)

    points = torch.linspace(0, 3, 3001, dtype=torch.float64).tolist()
    grid = torch.linspace(0, 3, 33, dtype=torch.float64).tolist()
    best = min(points, key=function)
    calls.clear()
    assert minimize_on_grid(function, grid) == pytest.approx(best, abs=1e-3)
    assert len(calls) == len(set(calls)) <= 33 + 45
    assert minimize_on_grid(lambda value: value, grid) == pytest.approx(0, abs=1e-6)
    assert minimize_on_grid(lambda value: -value, grid) == pytest.approx(3, abs=1e-6)
    assert minimize_on_grid(function, [0.0]) == 0.0


def test_the_grid():
    features = torch.tensor([[0.0, -4.0], [1.0, 2.0]])
    grid = clipping_grid(features)
    assert grid == sorted(set(grid))
    assert grid[0] == 0
    assert grid[-1] == 4
    assert {1.0, 2.0} <= set(grid)
    assert clipping_grid(torch.zeros(3, 2)) == [0.0]


def test_a_file_brings_the_head_along(tmp_path):
    val, head = draw(samples=300)
    clipping = FeatureClipping(head, temperature=True).fit(val)
    loaded = Calibrator.load(clipping.save(tmp_path / "c.json"))
    assert loaded.with_temperature
    assert loaded.temperature == clipping.temperature
    assert torch.equal(
        loaded.transform(val).tensors().logits, clipping.transform(val).tensors().logits
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"threshold": ', '"threshold": -'),
        ('"temperature": 1.0', '"temperature": 0'),
        ('"num_features": 12', '"num_features": 7'),
    ],
)
def test_an_impossible_file_is_refused(tmp_path, old, new):
    path = FeatureClipping().fit(draw(samples=300)[0]).save(tmp_path / "c.json")
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InputError, match="state of a FeatureClipping"):
        FeatureClipping.load(path)


def test_wrong_arguments_and_unfitted():
    with pytest.raises(InputError, match=r"temperature must .*got float 1\.5"):
        FeatureClipping(temperature=1.5)
    with pytest.raises(InputError, match=r"FeatureClipping\.fit: head .*\(6, 12\)"):
        FeatureClipping(nn.Linear(3, 2)).fit(draw(samples=30)[0])
    for name in ("threshold", "temperature"):
        with pytest.raises(InputError, match=rf"FeatureClipping.{name}: .*fitted first"):
            getattr(FeatureClipping(), name)
    assert repr(FeatureClipping(temperature=True)) == "FeatureClipping(temperature=True)"


def draw_head(samples=200, dim=8, classes=5, seed=0):
    """Features at least 0, and a head."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=random, dtype=torch.float64).relu()
    weight = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    return features, weight, torch.randn(classes, generator=random, dtype=torch.float64)


def centered(weight, bias):
    return weight - weight.mean(0), bias - bias.mean()


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_head_that_made_the_logits_is_recovered(offset):
    features, weight, bias = draw_head()
    head = recover_head(features, features @ weight.T + bias + offset)
    expected_weight, expected_bias = centered(weight, bias)
    torch.testing.assert_close(head.weight, expected_weight, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(head.bias, expected_bias, rtol=1e-8, atol=1e-8)
    assert head.num_undetermined == 0


def test_constants_per_row_do_not_matter():
    features, weight, bias = draw_head()
    logits = features @ weight.T + bias
    raw, normalized = recover_head(features, logits), recover_head(features, logits.log_softmax(1))
    torch.testing.assert_close(raw.weight, normalized.weight)
    normalized.check(features, logits, "y")
    raw.check(features, logits.log_softmax(1), "y")


def test_float32_and_features_of_very_different_size():
    features, weight, bias = draw_head(samples=2000)
    sizes = torch.logspace(-3, 3, 8, dtype=torch.float64)
    scaled = (features * sizes).float()
    logits = (scaled.double() @ (weight / sizes).T + bias).float()
    head = recover_head(scaled, logits)
    torch.testing.assert_close(head.weight, centered(weight / sizes, bias)[0], rtol=1e-3, atol=1e-3)
    assert head.num_undetermined == 0


def test_constant_features_are_left_to_the_bias():
    features, weight, bias = draw_head()
    features[:, 2], features[:, 5] = 0.0, 3.0
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    assert head.weight[:, [2, 5]].abs().max() == 0
    assert head.num_undetermined == 0
    head.check(features, logits, "y")


def test_features_that_vary_together_leave_the_head_undetermined():
    features, weight, bias = draw_head()
    features[:, 3] = 2 * features[:, 0] - features[:, 1]
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    assert head.num_undetermined == 1
    head.check(features, logits, "y")
    fewer = recover_head(features[:4], logits[:4])
    assert fewer.num_undetermined == 8 - 3 - int((features[:4].std(0) == 0).sum())
    fewer.check(features[:4], logits[:4], "y")
    with pytest.raises(InputError, match=r"one linear head.*differs by"):
        fewer.check(features, logits, "y")


def test_one_strange_row_is_found_among_many():
    features, weight, bias = draw_head(samples=5000)
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    logits[4321, 2] += 0.1 * float((logits - logits.mean(0)).norm(dim=1).square().mean().sqrt())
    with pytest.raises(InputError, match="one linear head"):
        head.check(features, logits, "y")


def test_nonlinear_head_raises():
    features, weight, bias = draw_head()
    logits = (features @ weight.T + bias).tanh() * 5
    with pytest.raises(InputError, match=r"differs by .* Do this\.$"):
        recover_head(features, logits).check(features, logits, "Do this.")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_the_head_is_rounding(dtype):
    features, weight, bias = draw_head(samples=1000)
    seen = features.to(dtype)
    logits = (seen @ weight.T.to(dtype) + bias.to(dtype)).float()
    recover_head(seen.float(), logits).check(seen.float(), logits, "y")


def test_a_layer_or_its_parameters():
    features, weight, bias = draw_head()
    logits = features @ weight.T + bias
    layer = nn.Linear(8, 5, dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    for head in (layer, (weight, bias)):
        passed = parse_head(head, features, logits)
        torch.testing.assert_close(passed.weight, centered(weight, bias)[0])
        passed.check(features, logits, "y")
    without = features @ weight.T
    parse_head((weight, None), features, without).check(features, without, "y")
    with pytest.raises(InputError, match="one linear head"):
        parse_head((weight, None), features, logits).check(features, logits, "y")


@pytest.mark.parametrize(
    "head",
    [
        nn.Linear(8, 4),
        nn.Linear(5, 8),
        nn.ReLU(),
        "fc",
        3,
        (torch.zeros(5, 8), torch.zeros(8)),
        (torch.zeros(5, 8),),
    ],
)
def test_no_head(head):
    features, weight, bias = draw_head()
    with pytest.raises(InputError, match=r"head .*linear .*\(5, 8\)"):
        parse_head(head, features, features @ weight.T + bias)


def test_a_head_that_is_not_finite():
    features, weight, bias = draw_head()
    with pytest.raises(InputError, match="weight must be finite"):
        parse_head((weight / 0, bias), features, features @ weight.T + bias)
