"""What every registered metric must do; a new one needs no line here."""

import inspect
import math

import pytest
import torch

from fedlas import Predictions
from fedlas.errors import InputError
from fedlas.metrics import METRICS, StreamingMetrics

REFUSED = r"(predictions must be Predictions|scores must come with labels); got .*\. (Pass|Write)"


OF_CLASSES = [e for e in METRICS.entries() if e.subject != "event"]  # the others: test_measures.py


@pytest.fixture(params=OF_CLASSES, ids=lambda entry: entry.name)
def entry(request):
    return request.param


def predictions(samples=64, classes=6, scale=2.0, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    logits = torch.randn(samples, classes, dtype=torch.float64) * scale
    probs = (logits / 1.5).softmax(1)
    return Predictions(logits.to(dtype), torch.multinomial(probs, 1).squeeze(1), label_probs=probs)


def test_metadata(entry):
    for name, kind in {
        "title": str,
        "paper": str,
        "higher_is_better": bool | None,
        "percent": bool,
    }.items():
        assert isinstance(getattr(entry, name), kind), name
    assert entry.summary.endswith(".")
    assert entry.needs <= {"features", "label_probs"}
    assert (entry.formula is None) is (entry.statistic is None)
    assert entry.statistic is None or entry.quantity is None


def test_titles_are_unique():
    titles = [(entry.subject, entry.title) for entry in METRICS.entries()]
    assert len(set(titles)) == len(titles)


def test_everything_after_predictions_is_keyword_only_and_optional(entry):
    first, *others = inspect.signature(entry.value).parameters.values()
    assert first.name == "predictions"
    assert all(p.kind is p.KEYWORD_ONLY for p in others if p.name != "target")
    assert all(p.default is not p.empty for p in others)


def test_a_finite_float_for_any_shape_and_scale(entry):
    for shape in ((1, 1), (1, 2), (2, 1), (3, 2), (7, 300), (400, 3)):
        for scale in (0.0, 1.0, 1e4):
            p = predictions(*shape, scale=scale)
            if entry.several_labels and len(p.tensors().target.unique()) == 1:
                with pytest.raises(InputError, match="at least two classes"):
                    entry.value(p)
                continue
            value = entry.value(p)
            assert type(value) is float, (shape, scale)
            assert math.isfinite(value), (shape, scale)


def test_precisions_agree(entry):
    # One bin where there are bins: another precision may move a sample across an edge.
    options = {"num_bins": 1} if "num_bins" in inspect.signature(entry.value).parameters else {}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        rounded = predictions(dtype=dtype)
        single = Predictions(
            rounded.tensors().logits.float(),
            rounded.tensors().target,
            label_probs=rounded.tensors().label_probs,
        )
        expected = pytest.approx(entry.value(single, **options), rel=1e-5, abs=1e-6)
        assert entry.value(rounded, **options) == expected, dtype


def test_pure(entry):
    p = predictions()
    logits, target = p.tensors().logits.clone(), p.tensors().target.clone()
    assert entry.value(p) == entry.value(p)
    assert torch.equal(p.tensors().logits, logits)
    assert torch.equal(p.tensors().target, target)
    state = torch.get_rng_state()
    entry.value(p)
    assert torch.equal(torch.get_rng_state(), state)


def test_logits_that_require_grad(entry):
    p = predictions()
    live = Predictions(
        p.tensors().logits.clone().requires_grad_(),
        p.tensors().target,
        label_probs=p.tensors().label_probs,
    )
    assert entry.value(live) == entry.value(p)


def test_better_predictions_score_better_where_direction_is_claimed(entry):
    """Nothing beats predictions that are right and sure; each metric tells them from one kind of bad ones at least."""
    target = torch.arange(6).repeat(50)
    onehot = torch.nn.functional.one_hot(target, 6).double()
    wrong = onehot.roll(1, 1)
    unsure_or_wrong = torch.where((torch.arange(300) % 4 == 0)[:, None], wrong * 20, onehot * 2)
    bad = [wrong * 20 - onehot * 9, onehot * 0.5, unsure_or_wrong]
    good = entry.value(Predictions(onehot * 30, target, label_probs=onehot))
    others = [entry.value(Predictions(logits, target, label_probs=onehot)) for logits in bad]
    if entry.higher_is_better is None:  # it has a sign, and 0 is best
        good, others = abs(good), [abs(value) for value in others]
    ahead = [good - value if entry.higher_is_better else value - good for value in others]
    assert min(ahead) > -1e-9
    assert max(ahead) > 1e-3


def streaming(names, classes, num_bins=15):
    return StreamingMetrics(classes, metrics=names, num_bins=num_bins)


def can_stream(entry):
    try:
        streaming([entry.name], 3)
    except ValueError:
        return False
    return True


def test_streaming_in_shards_of_any_order_gives_the_same_number(entry):
    """Within 1e-12; and the metric's own, or what is nearer to it than the error that is stated."""
    if not can_stream(entry):
        assert not entry.default
        pytest.skip("needs more than sums")
    p = predictions(700)
    shards = torch.randperm(700).split([1, 250, 99, 350])
    parts = []
    for rows in shards:
        part = streaming([entry.name], 6)
        part.update(
            p.tensors().logits[rows],
            p.tensors().target[rows],
            label_probs=p.tensors().label_probs[rows],
        )
        parts.append(part)
    whole = streaming([entry.name], 6)
    whole.update(p.tensors().logits, p.tensors().target, label_probs=p.tensors().label_probs)
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        merged = streaming([entry.name], 6)
        for number in order:
            merged.merge(parts[number])
        assert merged.compute() == pytest.approx(whole.compute(), rel=1e-12, abs=1e-15)
    (value,), (error,) = whole.compute().values(), whole.error_bounds().values()
    assert abs(value - entry.value(p)) <= error + 1e-12
    assert error < 2e-2
    assert entry.error is not None or error == 0


@pytest.mark.parametrize("wrong", [None, 3, "test.npz", torch.zeros(2, 2)])
def test_anything_but_predictions_is_refused(wrong):
    with pytest.raises(ValueError, match=REFUSED):
        METRICS["accuracy"].value(wrong)


def test_it_refuses_anything_but_predictions(entry):
    with pytest.raises(ValueError, match=REFUSED):
        entry.value(torch.zeros(2, 2))
