"""What must hold for any logits, targets, strengths and masks."""

import copy

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedlas.losses import (
    LOSSES,
    FedLAS,
    NormConfidenceIndicator,
    adaptive_strength,
    smoothed_cross_entropy,
)

IGNORE = -100


@st.composite
def batches(draw, *, ignore=True, least_valid=1):
    """``(logits, target, features)`` in float64, of any size, scale and pattern of ignored positions."""
    samples, classes, width = (
        draw(st.integers(2, 9)),
        draw(st.integers(1, 7)),
        draw(st.integers(1, 5)),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]))
    logits = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    if draw(st.booleans()):
        logits = logits.round()  # ties
    target = torch.randint(classes, (samples,), generator=generator)
    if ignore:
        dropped = draw(st.integers(0, samples - least_valid))
        target[torch.randperm(samples, generator=generator)[:dropped]] = IGNORE
    features = torch.randn(samples, width, generator=generator, dtype=torch.float64) * draw(
        st.sampled_from([0.0, 1, 1e3])
    )
    return logits, target, features


strengths = st.floats(0, 1)


@given(batches(), strengths, st.sampled_from(["mean", "sum", "none"]))
def test_smoothed_cross_entropy_is_torchs(batch, alpha, reduction):
    logits, target, _ = batch
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    value = smoothed_cross_entropy(ours, target, alpha=alpha, reduction=reduction)
    expected = F.cross_entropy(theirs, target, label_smoothing=alpha, reduction=reduction)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)


@given(batches(ignore=False), st.lists(strengths, min_size=9, max_size=9))
def test_linear_in_the_strength(batch, alphas):
    logits, target, _ = batch
    alpha = torch.tensor(alphas[: len(target)], dtype=torch.float64)
    each = smoothed_cross_entropy(logits, target, alpha=alpha, reduction="none")
    none, all_ = (
        smoothed_cross_entropy(logits, target, alpha=a, reduction="none") for a in (0.0, 1.0)
    )
    torch.testing.assert_close(each, (1 - alpha) * none + alpha * all_, rtol=1e-9, atol=1e-9)


@given(batches(ignore=False), strengths)
def test_gradient_of_each_row_sums_to_zero(batch, alpha):
    """A shift of the logits changes nothing, so the gradient has no component along it."""
    logits = batch[0].requires_grad_()
    smoothed_cross_entropy(logits, batch[1], alpha=alpha, reduction="sum").backward()
    torch.testing.assert_close(
        logits.grad.sum(1), torch.zeros(len(logits), dtype=torch.float64), rtol=0, atol=1e-9
    )


@given(batches(), strengths)
def test_never_below_the_entropy_of_its_own_target(batch, alpha):
    logits, target, _ = batch
    classes = logits.shape[1]
    each = smoothed_cross_entropy(logits, target, alpha=alpha, reduction="none")
    hit = 1 - alpha + alpha / classes
    other = alpha / classes
    entropy = -sum(
        q * torch.tensor(q, dtype=torch.float64).log().item()
        for q in [hit] + [other] * (classes - 1)
        if q
    )
    assert (each[target != IGNORE] >= entropy - 1e-9).all()
    assert (each[target == IGNORE] == 0).all()


@given(batches(least_valid=2), st.sampled_from(list(LOSSES)))
def test_ignoring_is_leaving_out(batch, name):
    logits, target, features = batch
    torch.manual_seed(0)
    masked = LOSSES.build(
        name, {}, num_classes=logits.shape[1], num_samples=len(target), num_epochs=100
    ).double()
    without = copy.deepcopy(masked)
    kept = target != IGNORE
    extra = {
        "features": features,
        "index": torch.arange(len(target)),
        "mixed": torch.stack((logits / 2, logits.flip(1)), dim=1),
        "mixed_share": torch.rand(len(target), 2, dtype=logits.dtype) / 2 + 0.5,
    }
    whole = {"head_weight": torch.randn(logits.shape[1], features.shape[1], dtype=logits.dtype)}
    whole = {k: v for k, v in whole.items() if k in masked.needs}
    first, second = logits.clone().requires_grad_(), logits[kept].clone().requires_grad_()
    value = masked(first, target, **{k: v for k, v in extra.items() if k in masked.needs}, **whole)
    expected = without(
        second, target[kept], **{k: v[kept] for k, v in extra.items() if k in masked.needs}, **whole
    )
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    value.backward()
    expected.backward()
    torch.testing.assert_close(first.grad[kept], second.grad, rtol=1e-4, atol=1e-7)
    assert (first.grad[~kept] == 0).all()
    for ours, theirs in zip(
        masked.state_dict().values(), without.state_dict().values(), strict=True
    ):
        # float32 norms of up to 1e3 times the width
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-3)


@given(batches(), st.floats(0, 0.5), st.floats(0, 100))
def test_strengths_of_fedlas_are_between_0_and_twice_alpha(batch, alpha, beta):
    logits, target, features = batch
    torch.manual_seed(0)
    criterion = FedLAS(num_classes=logits.shape[1], alpha=alpha, beta=beta)
    criterion(logits, target, features=features)
    strength = criterion.smoothing(logits, features)
    # the strengths are float32
    assert ((strength >= 0) & (strength <= 2 * alpha * (1 + 1e-6))).all()


@given(
    st.floats(-1e6, 1e6), st.sampled_from([-1.0, 0.0, 1.0]), st.floats(1e-3, 0.5), st.floats(0, 50)
)
def test_strength_is_odd_in_direction_and_score(score, psi, alpha, beta):
    """METHOD: for psi = +-1, alpha_i = alpha (1 + psi tanh(beta Z / 2))."""
    z, p = torch.tensor(score, dtype=torch.float64), torch.tensor(psi, dtype=torch.float64)
    strength = adaptive_strength(z, p, alpha=alpha, beta=beta)
    torch.testing.assert_close(
        strength, alpha * (1 + p * torch.tanh(beta * z / 2)), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(strength, adaptive_strength(-z, -p, alpha=alpha, beta=beta))


@given(st.lists(batches(), min_size=1, max_size=4), st.floats(0.01, 1))
def test_running_moments_stay_within_those_of_the_batches(drawn, momentum):
    nci = NormConfidenceIndicator(momentum)
    means, spreads = [], []
    for _, _, features in drawn:
        norms = features.float().abs().sum(1)
        scores = nci(features)
        assert torch.isfinite(scores).all()
        means.append(norms.mean().item())
        spreads.append(norms.std().item())
    slack = 1e-4 * (1 + max(means))
    assert min(means) - slack <= nci.mean.item() <= max(means) + slack
    assert min(spreads) - slack <= nci.std.item() <= max(spreads) + slack
