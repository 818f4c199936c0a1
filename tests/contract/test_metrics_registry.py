"""What every registered metric must do; a new one needs no line here."""

import inspect
import math

import pytest
import torch

from fedlas import Predictions
from fedlas.metrics import METRICS, Estimator


@pytest.fixture(params=METRICS.entries(), ids=lambda entry: entry.name)
def entry(request):
    return request.param


def predictions(samples=64, classes=6, scale=2.0, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * scale
    probs = (logits / 1.5).softmax(1)
    return Predictions(logits.to(dtype), torch.multinomial(probs, 1).squeeze(1), label_probs=probs)


def test_metadata(entry):
    for name, kind in {"title": str, "paper": str, "higher_is_better": bool, "percent": bool}.items():
        assert isinstance(entry.metadata.get(name), kind), name
    assert entry.summary.endswith(".")
    assert entry.metadata.get("needs", frozenset()) <= {"features", "label_probs"}
    assert isinstance(entry.metadata.get("estimator", None), Estimator | None)


def test_titles_are_unique():
    titles = [entry.metadata["title"] for entry in METRICS.entries()]
    assert len(set(titles)) == len(titles)


def test_everything_after_predictions_is_keyword_only_and_optional(entry):
    first, *others = inspect.signature(entry.value).parameters.values()
    assert first.name == "predictions"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in others)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 2), (7, 300), (400, 3)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_a_finite_float_for_any_shape_and_scale(entry, shape, scale):
    value = entry.value(predictions(*shape, scale=scale))
    assert type(value) is float
    assert math.isfinite(value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precisions_agree(entry, dtype):
    # One bin where there are bins: another precision may move a sample across an edge.
    options = {"num_bins": 1} if "num_bins" in inspect.signature(entry.value).parameters else {}
    rounded = predictions(dtype=dtype)
    single = Predictions(rounded.logits.float(), rounded.target, label_probs=rounded.label_probs)
    assert entry.value(rounded, **options) == pytest.approx(entry.value(single, **options), rel=1e-5, abs=1e-6)


def test_pure(entry):
    p = predictions()
    logits, target = p.logits.clone(), p.target.clone()
    assert entry.value(p) == entry.value(p)
    assert torch.equal(p.logits, logits)
    assert torch.equal(p.target, target)
    state = torch.get_rng_state()
    entry.value(p)
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_that_require_grad(entry):
    p = predictions()
    live = Predictions(p.logits.clone().requires_grad_(), p.target, label_probs=p.label_probs)
    assert entry.value(live) == entry.value(p)


def test_better_predictions_score_better_where_direction_is_claimed(entry):
    torch.manual_seed(0)
    target = torch.arange(6).repeat(50)
    onehot = torch.nn.functional.one_hot(target, 6).double()
    good = Predictions(onehot * 30, target, label_probs=onehot)
    bad = Predictions(onehot.roll(1, 1) * 20 - onehot * 9, target, label_probs=onehot)
    better, worse = entry.value(good), entry.value(bad)
    assert better > worse if entry.metadata["higher_is_better"] else better < worse


@pytest.mark.parametrize("wrong", [None, 3, "test.npz", torch.zeros(2, 2)])
def test_anything_but_predictions_is_refused(entry, wrong):
    with pytest.raises(ValueError, match=r"predictions must be Predictions; got .*\. Wrap"):
        entry.value(wrong)
