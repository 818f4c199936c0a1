import copy
import pickle

import pytest
import torch

from fedlas import Predictions, evaluate
from fedlas.errors import InputError
from fedlas.metrics import METRICS, StreamingClasses, StreamingGroups, StreamingMetrics
from gloo import in_processes

C = 6
APPROXIMATE = [entry.name for entry in METRICS.entries() if entry.error is not None]
NAMES = [
    *evaluate(Predictions([[0.0, 1.0, 0.0]], [0])),
    *(n for n in APPROXIMATE if not METRICS[n].default),
]


def data(samples=900, classes=C, seed=0, scale=2.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    target = torch.multinomial((logits / 1.3).softmax(1), 1, generator=generator).squeeze(1)
    return logits.to(dtype), target


def filled(logits, target, **options):
    streaming = StreamingMetrics(logits.shape[1], **options)
    streaming.update(logits, target)
    return streaming


def close(values):
    """Compare with numbers that were added up in another order."""
    return pytest.approx(values, rel=1e-12, abs=1e-15)


def number_of_bytes(streaming):
    return sum(tensor.numel() * tensor.element_size() for tensor in streaming.state_dict().values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 2, 6, 300])
def test_equals_evaluate(dtype, classes):
    logits, target = data(classes=classes, dtype=dtype)
    streaming = StreamingMetrics(classes, num_bins=11)
    for rows in torch.arange(900).split(130):
        streaming.update(logits[rows], target[rows])
    found, expected = streaming.compute(), evaluate(Predictions(logits, target), num_bins=11)
    assert list(found) == list(expected)
    for name in expected:
        if name not in APPROXIMATE:
            assert found[name] == close(expected[name]), name


def test_every_split_and_order_gives_the_same_numbers():
    logits, target = data()
    expected = filled(logits, target, metrics=NAMES).compute()
    for seed, sizes in enumerate(([900], [1, 899], [300, 300, 300], [7] * 12 + [816])):
        torch.manual_seed(seed)
        parts = [
            filled(logits[r], target[r], metrics=NAMES) for r in torch.randperm(900).split(sizes)
        ]
        merged = parts[0]
        for part in parts[1:]:
            merged.merge(part)
        assert merged.compute() == close(expected)
        assert merged.num_samples == 900


def every_metric():
    """All that stream, ``true_ece`` too, and known label probabilities for it."""
    return StreamingMetrics(C, metrics=[*NAMES, "true_ece"])


@pytest.mark.parametrize(
    "lay", [lambda t: t.t().contiguous().t(), lambda t: t.repeat(2, 2)[::2, :C]]
)
def test_the_layout_in_memory_does_not_matter(lay):
    logits, target = data(60)
    known, mine = (logits / 2).softmax(1), torch.arange(120)[::2] % 60
    plain, strided = every_metric(), every_metric()
    strided.update(lay(logits), target, label_probs=lay(known))
    rows = mine if lay(logits).stride(0) > 1 + C else torch.arange(60)
    plain.update(logits[rows], target, label_probs=known[rows])
    assert strided.compute() == close(plain.compute())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("last", range(len(every_metric()._parts)))
def test_failed_batch_changes_no_sums(monkeypatch, error, last):
    """Whichever statistic fails, in the second chunk: those before it have seen more of the batch than those after."""
    logits, target = data(50)
    known = (logits / 2).softmax(1)
    streaming = every_metric()
    streaming.update(logits, target, label_probs=known)
    before, chunks = streaming.state_dict(), []
    failing = streaming._parts[last]
    whole = failing.update

    def fails(chunk):
        chunks.append(chunk)
        whole(chunk)
        if len(chunks) == 2:
            raise error

    monkeypatch.setattr(failing, "update", fails)
    monkeypatch.setattr("fedlas.metrics.scan.CHUNK_ROWS", 20)
    with pytest.raises(error):
        streaming.update(logits, target, label_probs=known)
    assert len(chunks) == 2
    torch.testing.assert_close(streaming.state_dict(), before, rtol=0, atol=0)
    monkeypatch.undo()
    streaming.update(logits, target, label_probs=known)
    assert streaming.num_samples == 100


@pytest.mark.parametrize("name", APPROXIMATE)
@pytest.mark.parametrize(("scale", "classes"), [(1.0, 3), (4.0, 10), (30.0, 10)])
def test_approximations_keep_what_is_stated(name, scale, classes):
    """For spread, crowded and saturated confidences; the bound is small enough to be of use."""
    logits, target = data(20_000, classes, scale=scale)
    streaming = filled(logits, target, metrics=[name])
    (value,), (bound,) = streaming.compute().values(), streaming.error_bounds().values()
    difference = abs(value - METRICS[name].value(Predictions(logits, target)))
    assert difference <= bound + 1e-12
    assert bound < 3e-3
    assert difference < 2e-4


@pytest.mark.parametrize("name", APPROXIMATE)
@pytest.mark.parametrize("wrong_first", [True, False])
def test_the_stated_error_is_needed(name, wrong_first):
    """Confidences closer than a cell, in an order that the grid cannot see: the error is real, and within bounds."""
    confidence = 0.75 + torch.linspace(0, 2.0**-15, 400, dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    target = ((torch.arange(400) < (150 if wrong_first else 250)) == wrong_first).long()
    streaming = filled(logits, target, metrics=[name], num_bins=2)
    (value,), (bound,) = streaming.compute().values(), streaming.error_bounds().values()
    options = {"num_bins": 2} if name == "adaptive_ece" else {}
    difference = abs(value - METRICS[name].value(Predictions(logits, target), **options))
    assert difference <= bound + 1e-12
    # the sum falls before it rises, and stays within what the cells show
    if (name, wrong_first) != ("ks", False):
        assert difference > bound / 4 > 0.01


def test_small_batches_wait_and_every_result_has_them():
    logits, target = data()
    expected = filled(logits, target).compute()
    waiting = StreamingMetrics(C)
    for rows in torch.arange(900).split(7):
        batch = logits[rows].clone()
        waiting.update(batch, target[rows])
        batch.zero_()  # what waits is a copy
    assert waiting.num_samples == 900
    assert pickle.loads(pickle.dumps(waiting)).compute() == close(expected)
    for take in (StreamingMetrics.compute, lambda s: s.sum_across_ranks().compute()):
        assert take(waiting) == close(expected)
    other = StreamingMetrics(C)
    other.update(logits[:5].double(), target[:5])
    other.update(logits[5:9], target[5:9])  # another precision: those before are taken in first
    waiting.update(logits[:3], target[:3])
    waiting.merge(other)
    assert waiting.num_samples == 912
    for wrong in (
        logits[:2] * torch.nan,
        logits[:2, :3],
        logits[:2] + 1e31,
        logits[:2] - torch.inf,
    ):
        with pytest.raises(InputError, match="logits"):
            waiting.update(wrong, 0 * target[:2])
    with pytest.raises(InputError, match="target"):
        waiting.update(logits[:2], target[:2] + C)
    assert waiting.num_samples == 912
    waiting.update(logits[:3], target[:3])
    waiting.reset()
    assert waiting.num_samples == 0


def test_what_waits_is_forgotten_without_computing_it(monkeypatch):
    logits, target = data()
    streaming = StreamingMetrics(C)
    streaming.update(logits[:3], target[:3])
    monkeypatch.setattr(streaming, StreamingMetrics._accumulate.__name__, None)
    streaming.reset()
    assert streaming.num_samples == 0
    assert not any(bool(each.any()) for each in streaming.state_dict().values())


@pytest.mark.parametrize(
    "dtype", [torch.float8_e5m2, torch.float8_e4m3fn, torch.float16, torch.bfloat16, torch.float64]
)
def test_batches_of_every_precision_wait(dtype):
    logits, target = data()
    streaming = StreamingMetrics(C)
    for _ in range(2):
        streaming.update(logits[:3].to(dtype), target[:3])
    assert streaming.compute() == close(
        filled(logits[:3].to(dtype).repeat(2, 1), target[:3].repeat(2)).compute()
    )


def test_memory_does_not_grow_with_the_samples():
    """Two million samples in shards: the state is what it was after the first, and so is what it weighs."""
    streaming = StreamingMetrics(4)
    streaming.update(*data(1000, 4))
    shapes, size = (
        {k: v.shape for k, v in streaming.state_dict().items()},
        number_of_bytes(streaming),
    )
    logits, target = data(100_000, 4)
    for shift in range(20):
        streaming.update(logits.roll(shift, 1), target)
    assert streaming.num_samples == 2_001_000
    assert {k: v.shape for k, v in streaming.state_dict().items()} == shapes
    assert number_of_bytes(streaming) == size < 2**20 + 500 * 4


def test_state_size_grows_with_classes_and_bins_only():
    assert number_of_bytes(StreamingMetrics(1000)) < 2**20 + 500 * 1000
    assert number_of_bytes(StreamingMetrics(1000, metrics=["ece", "accuracy"], num_bins=15)) < 2000


def test_bounds_are_zero_where_nothing_is_approximated():
    bounds = filled(*data(), metrics=NAMES).error_bounds()
    assert all(bound == 0 for name, bound in bounds.items() if name not in APPROXIMATE)
    assert all(bound >= 0 for bound in bounds.values())
    assert bounds["adaptive_ece"] > 0


def test_label_probs():
    logits, target = data()
    known = (logits / 2).softmax(1)
    streaming = StreamingMetrics(C, metrics=["true_ece", "ece"])
    for rows in torch.arange(900).split(250):
        streaming.update(logits[rows], target[rows], label_probs=known[rows])
    expected = evaluate(Predictions(logits, target, label_probs=known))
    assert streaming.compute() == close({name: expected[name] for name in ("true_ece", "ece")})
    with pytest.raises(ValueError, match="label_probs must be passed for these metrics; got none"):
        streaming.update(logits, target)
    assert streaming.num_samples == 900


def test_state_can_be_saved_loaded_and_reset(tmp_path):
    streaming = filled(*data(), metrics=NAMES)
    expected = streaming.compute()
    torch.save(streaming.state_dict(), tmp_path / "state.pt")
    other = StreamingMetrics(C, metrics=NAMES)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.compute() == expected
    assert copy.deepcopy(streaming).compute() == expected
    other.update(*data(seed=1))
    assert streaming.compute() == expected
    streaming.reset()
    assert streaming.num_samples == 0
    streaming.update(*data())
    assert streaming.compute() == expected


def test_merging_with_itself_counts_every_sample_twice():
    streaming = filled(*data(), metrics=NAMES)
    before = streaming.compute()
    streaming.merge(streaming)
    assert streaming.num_samples == 1800
    for name in ("accuracy", "ece", "classwise_ece", "brier"):
        assert streaming.compute()[name] == pytest.approx(before[name], rel=1e-12)


def test_incompatible_input_raises_and_changes_nothing():
    streaming = filled(*data())
    before = streaming.state_dict()
    for other in (
        StreamingMetrics(C, num_bins=9),
        StreamingMetrics(C, metrics=["ece"]),
        StreamingMetrics(C + 1),
        3,
    ):
        with pytest.raises(
            ValueError, match=r"StreamingMetrics\.merge: .*must have the same class"
        ):
            streaming.merge(other)
    for state in (
        StreamingMetrics(C, num_bins=9).state_dict(),
        {},
        {**before, "ece.sums": before["ece.sums"].float()},
    ):
        with pytest.raises(ValueError, match=r"StreamingMetrics\.load_state_dict: the state"):
            streaming.load_state_dict(state)
    with pytest.raises(ValueError, match=r"logits must be \(N, 6\); got \(900, 7\)"):
        streaming.update(*data(classes=7))
    with pytest.raises(ValueError, match="target must be in"):
        streaming.update(torch.zeros(2, C), torch.tensor([0, C]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in streaming.state_dict().items())


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"num_classes .*whole number"):
        StreamingMetrics(0)
    with pytest.raises(ValueError, match=r"num_bins .*whole number"):
        StreamingMetrics(3, num_bins=2.5)
    with pytest.raises(ValueError, match="Did you mean 'ece'"):
        StreamingMetrics(3, metrics=["ecee"])
    with pytest.raises(ValueError, match="sample must have been added; got none"):
        StreamingMetrics(3).compute()


def test_default_omits_metrics_without_sums(changeable):
    changeable(METRICS)
    METRICS.add(
        "mine",
        lambda predictions: 0.0,
        title="mine",
        higher_is_better=True,
        percent=False,
        paper="none",
    )
    assert "mine" not in StreamingMetrics(3).metrics
    with pytest.raises(ValueError, match=r"computable from sums; got 'mine'"):
        StreamingMetrics(3, metrics=["mine"])


def worker(rank, folder):
    logits, target = data()
    rows = slice(0, 100) if rank == 0 else slice(100, None)
    mine = filled(logits[rows], target[rows], metrics=NAMES)
    summed = mine.sum_across_ranks()
    torch.save((summed.compute(), summed.num_samples, mine.num_samples), f"{folder}/{rank}.pt")


@pytest.mark.system
def test_ranks_add_up_to_one_process(tmp_path):
    in_processes(worker, str(tmp_path))
    expected = filled(*data(), metrics=NAMES).compute()
    for rank, own in enumerate((100, 800)):
        values, *numbers = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values == close(expected)
        assert numbers == [900, own]


def test_one_process_sums_to_a_copy():
    streaming = filled(*data())
    summed = streaming.sum_across_ranks()
    streaming.reset()
    assert summed.compute() == close(filled(*data()).compute())


def test_it_can_be_pickled():
    streaming = filled(*data(50), metrics=["ece", "aurc"], num_bins=7)
    again = pickle.loads(pickle.dumps(streaming))
    assert again.compute() == streaming.compute()
    assert again.num_bins == 7


@pytest.mark.parametrize("state", [{}, None, [], {"num_samples": 3}])
def test_a_state_that_is_none_is_refused(state):
    with pytest.raises(InputError, match="the state must"):
        StreamingMetrics(3).load_state_dict(state)


def with_entry(state, name, value):
    changed = {key: tensor.clone() for key, tensor in state.items()}
    changed[name].view(-1)[changed[name].view(-1).abs().argmax()] = value
    return changed


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    "make", [StreamingMetrics, StreamingClasses, lambda *_, **o: StreamingGroups([0, 1], **o)]
)
def test_inconsistent_state_raises_and_changes_nothing(make, weighted):
    logits, target = data()
    streaming = make(C, weighted=weighted)
    options = {"groups": target % 2} if isinstance(streaming, StreamingGroups) else {}
    if weighted:
        options["weights"] = torch.rand(len(target), generator=torch.Generator().manual_seed(0)) * 3
    streaming.update(logits, target, **options)
    before, expected = streaming.state_dict(), streaming.compute()
    streaming.load_state_dict(before)
    for name in before:
        for value in (-1, float("nan"), float("inf")):
            with pytest.raises(InputError, match="the state must be sums over samples"):
                streaming.load_state_dict(with_entry(before, name, value))
    assert streaming.compute() == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in streaming.state_dict().items())
