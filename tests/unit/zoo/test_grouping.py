import pytest
import torch
from torch.autograd.functional import jacobian

from fedlas._core.streams import seeded_generator
from fedlas.calibrators._fit import rowwise
from fedlas.resample.folds import factorize_rows
from fedlas.zoo.semantic_grouping import GroupedNLL, learn_grouping, random_halves


def draw(samples=60, dim=4, classes=5, seed=0):
    random = torch.Generator().manual_seed(seed)
    features, logits = (
        torch.randn(samples, n, generator=random, dtype=torch.float64) for n in (dim, classes)
    )
    return features, 3 * logits, torch.randint(classes, (samples,), generator=random)


def by_autograd(features, logits, target, weight, log_scale, penalty):
    groups = (features @ weight.T).softmax(1)
    probs = (log_scale.exp()[:, None, None] * logits).softmax(2)
    mixture = (groups.T[:, :, None] * probs).sum(0)
    return -mixture.gather(1, target[:, None]).log().mean() + penalty * weight.square().mean()


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("chunk", [2**18, 35])
def test_value_and_gradient(monkeypatch, penalty, groups, chunk):
    monkeypatch.setattr(rowwise, "_CHUNK_ELEMENTS", chunk)
    data = draw()
    random = torch.Generator().manual_seed(1)
    weight = torch.randn(groups, 4, generator=random, dtype=torch.float64)
    log_scale = torch.randn(groups, generator=random, dtype=torch.float64)
    value, slope, slope_s = GroupedNLL(*data, penalty=penalty).evaluate(weight, log_scale)
    expected = jacobian(lambda w, s: by_autograd(*data, w, s, penalty), (weight, log_scale))
    assert value == pytest.approx(float(by_autograd(*data, weight, log_scale, penalty)), rel=1e-12)
    torch.testing.assert_close(slope, expected[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope_s, expected[1], rtol=1e-10, atol=1e-12)


def test_extreme_logits_stay_finite():
    features, logits, target = draw()
    problem = GroupedNLL(1e3 * features, 1e4 * logits, target, penalty=0.1)
    value, *slopes = problem.evaluate(
        torch.ones(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    )
    assert value < float("inf")
    assert all(torch.isfinite(slope).all() for slope in slopes)


def test_learning_lowers_value_from_given_start():
    data = draw(samples=400)
    problem = GroupedNLL(*data, penalty=0.1)
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    before = start.clone()
    weight = learn_grouping(problem, start, 0.3)
    assert torch.equal(start, before)
    assert not weight.requires_grad
    log_scale = torch.full((2,), 0.3, dtype=torch.float64).log()
    assert problem.evaluate(weight, log_scale)[0] < problem.evaluate(start, log_scale)[0]
    assert torch.equal(learn_grouping(problem, start, 0.3), weight)


def test_a_strong_penalty_takes_the_weights_to_zero():
    data = draw(samples=400)
    start = torch.randn(2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weak, strong = (
        learn_grouping(GroupedNLL(*data, penalty=p), start, 0.3).norm() for p in (1e-3, 1e3)
    )
    assert strong < 1e-3 < weak


def test_duplicate_samples_share_a_half():
    """Temperatures of a partition would be fitted to samples that it was learned on."""
    rows = factorize_rows(torch.arange(50.0).repeat(4).unsqueeze(1))
    first, second = random_halves(rows, seeded_generator(0, 1))
    assert not set(rows[first].tolist()) & set(rows[second].tolist())
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(200))
    assert len(first) == 100
    alone = random_halves(torch.arange(51), seeded_generator(0, 1))
    drawn = torch.from_numpy(seeded_generator(0, 1).permutation(51))
    assert all(
        torch.equal(part, half) for part, half in zip(alone, drawn.tensor_split(2), strict=True)
    )
