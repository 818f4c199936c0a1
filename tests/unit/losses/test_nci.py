"""The indicator: running moments by hand, when they move, and when they must not."""

import copy

import numpy as np
import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import NormConfidenceIndicator

BATCHES = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) * n for n in (5, 3, 8)]


def state(nci):
    return tuple(buffer.item() for buffer in (nci.mean, nci.std, nci.num_batches_tracked))


def norm(batch, p):
    return np.linalg.norm(batch.double().numpy(), ord=p, axis=1)


@pytest.mark.parametrize("init", [None, (20.0, 100.0), [1, 0]])
@pytest.mark.parametrize("momentum", [0.001, 0.5, 0.95, 1])
@pytest.mark.parametrize("p", [1, 2, 2.5, float("inf")])
def test_running_moments_by_hand(init, momentum, p):
    nci = NormConfidenceIndicator(momentum, init, norm_p=p)
    mean, std = init or (None, None)
    for batch in BATCHES:
        norms = norm(batch, p)
        new = norms.mean(), norms.std(ddof=1)
        mean, std = (
            new
            if mean is None
            else (
                momentum * new[0] + (1 - momentum) * mean,
                momentum * new[1] + (1 - momentum) * std,
            )
        )
        scores = nci(batch)  # the moments move first, then they are used
        assert state(nci)[:2] == pytest.approx((mean, std), rel=1e-5)
        np.testing.assert_allclose(
            scores.numpy(), (norms - mean) / (std + 1e-3), rtol=1e-4, atol=1e-5
        )
    assert state(nci)[2] == len(BATCHES)


def test_default_norm_is_l1_and_mask_keyword_only():
    nci = NormConfidenceIndicator()
    nci(BATCHES[0])
    assert nci.mean.item() == pytest.approx(norm(BATCHES[0], 1).mean(), rel=1e-5)
    with pytest.raises(TypeError, match="positional argument"):
        nci(BATCHES[0], torch.ones(5, dtype=torch.bool))


def test_before_the_first_batch_every_score_is_zero():
    nci = NormConfidenceIndicator().eval()
    assert nci(BATCHES[0]).tolist() == [0.0] * 5
    assert state(nci) == (0.0, 1.0, 0)
    assert NormConfidenceIndicator(init=(0.0, 1.0)).eval()(BATCHES[0]).abs().min() > 0


def test_eval_uses_the_stored_moments():
    nci = NormConfidenceIndicator()
    nci(BATCHES[0])
    before = state(nci)
    scores = nci.eval()(BATCHES[1])
    assert state(nci) == before
    np.testing.assert_allclose(
        scores, (norm(BATCHES[1], 1) - before[0]) / (before[1] + 1e-3), rtol=1e-5
    )


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_update_without_gradients(context):
    nci = NormConfidenceIndicator()
    nci(BATCHES[0])
    before = state(nci)
    with context():
        nci(BATCHES[1])
    assert state(nci) == before


def test_no_gradient_to_the_features():
    features = BATCHES[0].clone().requires_grad_()
    assert not NormConfidenceIndicator()(features).requires_grad


def test_buffers_are_the_same_tensors_afterward():
    """A compiled or captured step, or a name held elsewhere, must see the new values."""
    nci = NormConfidenceIndicator()
    held = dict(nci.named_buffers())
    nci(BATCHES[0])
    assert all(buffer is held[key] for key, buffer in nci.named_buffers())
    assert held["num_batches_tracked"] == 1


@pytest.mark.parametrize("masked", ["half", "two", "all but two far ones"])
def test_masked_samples_do_not_touch_the_moments(masked):
    features = BATCHES[2].clone()
    valid = torch.arange(8) % 2 == 0 if masked == "half" else torch.arange(8) < 2
    features[~valid] *= 1e6
    masked_nci, plain = NormConfidenceIndicator(), NormConfidenceIndicator()
    for _ in range(2):
        scores = masked_nci(features, valid=valid)
        torch.testing.assert_close(scores[valid], plain(features[valid]))
    assert state(masked_nci) == pytest.approx(state(plain))


def test_all_valid_equals_no_mask():
    with_mask, without = NormConfidenceIndicator(), NormConfidenceIndicator()
    torch.testing.assert_close(
        with_mask(BATCHES[0], valid=torch.ones(5, dtype=torch.bool)), without(BATCHES[0])
    )
    assert state(with_mask) == pytest.approx(state(without))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("init", [None, (20.0, 100.0)])
@pytest.mark.parametrize("ready", [False, True])
def test_fewer_than_two_valid_samples_keep_moments(count, init, ready):
    nci = NormConfidenceIndicator(init=init)
    if ready:
        nci(BATCHES[0])
    before = state(nci)
    scores = nci(BATCHES[0], valid=torch.arange(5) < count)
    assert state(nci) == before
    assert torch.isfinite(scores).all()


def test_a_single_sample_cannot_be_the_first_batch():
    nci = NormConfidenceIndicator()
    with pytest.raises(InputError, match=r"two samples.*drop_last"):
        nci(BATCHES[0][:1])
    assert state(nci) == (0.0, 1.0, 0)
    nci(BATCHES[0])
    before = state(nci)
    nci(BATCHES[1][:1])
    assert state(nci) == before
    started = NormConfidenceIndicator(init=(20, 100))
    started(BATCHES[0][:1])
    assert state(started) == (20.0, 100.0, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_non_finite_batch_keeps_moments(bad, ready, mask):
    nci = NormConfidenceIndicator()
    if ready:
        nci(BATCHES[0])
    before = state(nci)
    features = BATCHES[1].clone()
    features[1] = bad
    nci(features, valid=torch.ones(3, dtype=torch.bool) if mask else None)
    assert state(nci) == before


def test_masked_samples_may_be_nan():
    nci, plain = NormConfidenceIndicator(), NormConfidenceIndicator()
    features = BATCHES[0].clone()
    features[0] = float("nan")
    nci(features, valid=torch.arange(5) > 0)
    plain(BATCHES[0][1:])
    assert state(nci) == pytest.approx(state(plain))


def test_equal_norms_have_a_finite_score():
    nci = NormConfidenceIndicator()
    assert nci(torch.ones(4, 3)).tolist() == [0.0] * 4
    assert torch.isfinite(nci.eval()(torch.full((1, 3), 2.0))).all()


@pytest.mark.parametrize("mask", [False, True])
def test_large_norms_with_little_spread_keep_their_spread(mask):
    """Sums of squares would cancel in float32."""
    norms = 1e4 + torch.tensor([0.0, 1.0, 2.0, 3.0])
    nci = NormConfidenceIndicator()
    nci(norms[:, None], valid=torch.ones(4, dtype=torch.bool) if mask else None)
    assert nci.std.item() == pytest.approx(norms.double().std().item(), rel=1e-4)


def test_half_features_beyond_the_range_of_half():
    nci = NormConfidenceIndicator()
    nci(torch.full((2, 100), 6e4, dtype=torch.float16))
    assert nci.mean.item() == pytest.approx(100 * 59_968, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_are_float32(dtype):
    assert NormConfidenceIndicator()(BATCHES[0].to(dtype)).dtype == torch.float32


@pytest.mark.parametrize(
    "convert",
    [
        lambda m: m.half(),
        lambda m: m.bfloat16(),
        lambda m: m.double(),
        lambda m: m.to(torch.float16),
        lambda m: torch.nn.Sequential(m).half()[0],
        lambda m: m.half().double(),
        lambda m: copy.deepcopy(m.half()),
    ],
    ids=["half", "bfloat16", "double", "to", "inside", "twice", "copied"],
)
def test_buffers_stay_float32_and_exact(convert):
    nci = NormConfidenceIndicator(init=(20.123456, 100.654321))
    before = state(nci)
    nci = convert(nci)
    assert nci.mean.dtype == nci.std.dtype == torch.float32
    assert nci.num_batches_tracked.dtype == torch.int64
    assert state(nci) == before
    assert list(dict(nci.named_buffers())) == ["mean", "std", "num_batches_tracked"]
    nci(BATCHES[0])
    assert state(nci) != before


def test_to_meta_and_back():
    nci = NormConfidenceIndicator().to("meta")
    assert nci.mean.is_meta
    assert nci.to_empty(device="cpu").mean.device.type == "cpu"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"momentum": 0}, "momentum"),
        ({"momentum": 1.01}, "momentum"),
        ({"momentum": float("nan")}, "momentum"),
        ({"momentum": "0.9"}, "momentum"),
        ({"norm_p": 0.5}, "norm_p"),
        ({"norm_p": -float("inf")}, "norm_p"),
        ({"norm_p": "inf"}, "norm_p"),
        ({"init": 20}, "init"),
        ({"init": (20,)}, "init"),
        ({"init": (20, -1)}, "init std"),
        ({"init": (float("nan"), 1)}, "init mean"),
        ({"init": "ab"}, "init"),
    ],
)
def test_invalid_indicator_arguments_raise(options, match):
    with pytest.raises(InputError, match=f"NormConfidenceIndicator: {match}"):
        NormConfidenceIndicator(**options)
