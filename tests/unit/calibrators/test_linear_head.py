import pytest
import torch
from torch import nn

from fedlas.calibrators.feature_clipping import given_head, recover_head
from fedlas.errors import InputError


def draw(samples=200, dim=8, classes=5, seed=0):
    """Features at least 0, and a head."""
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(samples, dim, generator=random, dtype=torch.float64).relu()
    weight = torch.randn(classes, dim, generator=random, dtype=torch.float64)
    return features, weight, torch.randn(classes, generator=random, dtype=torch.float64)


def centered(weight, bias):
    return weight - weight.mean(0), bias - bias.mean()


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_the_head_that_made_the_logits_is_recovered(offset):
    features, weight, bias = draw()
    head = recover_head(features, features @ weight.T + bias + offset)
    expected_weight, expected_bias = centered(weight, bias)
    torch.testing.assert_close(head.weight, expected_weight, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(head.bias, expected_bias, rtol=1e-8, atol=1e-8)
    assert head.undetermined == 0


def test_what_the_softmax_does_not_see_does_not_matter():
    features, weight, bias = draw()
    logits = features @ weight.T + bias
    raw, normalized = recover_head(features, logits), recover_head(features, logits.log_softmax(1))
    torch.testing.assert_close(raw.weight, normalized.weight)
    normalized.check(features, logits, "y")
    raw.check(features, logits.log_softmax(1), "y")


def test_float32_and_features_of_very_different_size():
    features, weight, bias = draw(samples=2000)
    sizes = torch.logspace(-3, 3, 8, dtype=torch.float64)
    scaled = (features * sizes).float()
    logits = (scaled.double() @ (weight / sizes).T + bias).float()
    head = recover_head(scaled, logits)
    torch.testing.assert_close(head.weight, centered(weight / sizes, bias)[0], rtol=1e-3, atol=1e-3)
    assert head.undetermined == 0


def test_constant_features_are_left_to_the_bias():
    features, weight, bias = draw()
    features[:, 2], features[:, 5] = 0.0, 3.0
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    assert head.weight[:, [2, 5]].abs().max() == 0
    assert head.undetermined == 0
    head.check(features, logits, "y")


def test_features_that_vary_together_leave_the_head_undetermined():
    features, weight, bias = draw()
    features[:, 3] = 2 * features[:, 0] - features[:, 1]
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    assert head.undetermined == 1
    head.check(features, logits, "y")
    fewer = recover_head(features[:4], logits[:4])
    assert fewer.undetermined == 8 - 3 - int((features[:4].std(0) == 0).sum())
    fewer.check(features[:4], logits[:4], "y")
    with pytest.raises(InputError, match=r"linear function.*off by"):
        fewer.check(features, logits, "y")


def test_one_strange_row_is_found_among_many():
    features, weight, bias = draw(samples=5000)
    logits = features @ weight.T + bias
    head = recover_head(features, logits)
    logits[4321, 2] += 0.1 * float((logits - logits.mean(0)).norm(dim=1).square().mean().sqrt())
    with pytest.raises(InputError, match="linear function"):
        head.check(features, logits, "y")


def test_a_head_that_is_not_linear_does_not_fit():
    features, weight, bias = draw()
    logits = (features @ weight.T + bias).tanh() * 5
    with pytest.raises(InputError, match=r"off by .* Do this\.$"):
        recover_head(features, logits).check(features, logits, "Do this.")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_the_head_is_rounding(dtype):
    features, weight, bias = draw(samples=1000)
    seen = features.to(dtype)
    logits = (seen @ weight.T.to(dtype) + bias.to(dtype)).float()
    recover_head(seen.float(), logits).check(seen.float(), logits, "y")


def test_a_layer_or_its_parameters():
    features, weight, bias = draw()
    logits = features @ weight.T + bias
    layer = nn.Linear(8, 5, dtype=torch.float64)
    layer.load_state_dict({"weight": weight, "bias": bias})
    for head in (layer, (weight, bias)):
        passed = given_head(head, features, logits)
        torch.testing.assert_close(passed.weight, centered(weight, bias)[0])
        passed.check(features, logits, "y")
    without = features @ weight.T
    given_head((weight, None), features, without).check(features, without, "y")
    with pytest.raises(InputError, match="linear function"):
        given_head((weight, None), features, logits).check(features, logits, "y")


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
    features, weight, bias = draw()
    with pytest.raises(InputError, match=r"head .*linear .*\(5, 8\)"):
        given_head(head, features, features @ weight.T + bias)


def test_a_head_that_is_not_finite():
    features, weight, bias = draw()
    with pytest.raises(InputError, match="weight must be finite"):
        given_head((weight / 0, bias), features, features @ weight.T + bias)
