import numpy as np
import pytest
import torch

from fedlas import Predictions
from fedlas._core.check import LARGEST
from fedlas.metrics import evaluate, scan
from fedlas.metrics.scan import iter_chunks
from fedlas.metrics.sums import CellSums, RowMean


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_ELEMENTS", 64)


def every(predictions, name):
    return torch.cat([getattr(chunk, name).clone() for chunk in iter_chunks(predictions)])


def random_predictions(samples=101, classes=9, dtype=torch.float32):
    torch.manual_seed(3)
    return Predictions(
        (torch.randn(samples, classes) * 4).to(dtype), torch.randint(classes, (samples,))
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_chunk_quantities_equal_predictions_bit_for_bit(small_chunks, dtype):
    predictions = random_predictions(dtype=dtype)
    assert len(list(iter_chunks(predictions))) > 10
    for name in ("confidence", "predicted", "correct", "probs", "target"):
        assert np.array_equal(every(predictions, name), getattr(predictions, name)), name


@pytest.mark.parametrize("classes", [1, 2, 10, 16, 17, 100, 1000])
def test_confidence_does_not_depend_on_chunk_size(monkeypatch, classes):
    predictions = random_predictions(2000, classes)
    whole = predictions.tensors().confidence
    monkeypatch.setattr(scan, "CHUNK_ROWS", 300)
    assert max(len(chunk.logits) for chunk in iter_chunks(predictions)) == 300
    assert torch.equal(every(predictions, "confidence"), whole)
    monkeypatch.setattr(scan, "CHUNK_ELEMENTS", 7 * classes)
    assert max(len(chunk.logits) for chunk in iter_chunks(predictions)) == 7
    assert torch.equal(every(predictions, "confidence"), whole)
    assert torch.equal(predictions.tensors().probs.amax(1), whole)


def test_row_quantities_against_their_formulas(small_chunks):
    predictions = random_predictions()
    logits, target = predictions.tensors().logits.double(), predictions.tensors().target
    probs, onehot = logits.softmax(1), torch.nn.functional.one_hot(target, 9)
    nll = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    torch.testing.assert_close(every(predictions, "nll"), nll, rtol=1e-14, atol=1e-14)
    squared_error = (probs - onehot).square().sum(1)
    torch.testing.assert_close(
        every(predictions, "squared_error"), squared_error, rtol=1e-6, atol=1e-7
    )
    order = logits.argsort(dim=1, descending=True, stable=True)
    assert torch.equal(
        every(predictions, "rank").long(), (order == target[:, None]).long().argmax(1)
    )


def test_probs_are_unharmed_by_the_squared_error():
    (chunk,) = iter_chunks(random_predictions())
    before = chunk.probs.clone()
    assert (chunk.squared_error >= 0).all()
    assert torch.equal(chunk.probs, before)


def test_of_equal_logits_the_first_stands_first():
    predictions = Predictions(
        [[1.0, 2.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]], [3, 1, 2]
    )
    assert every(predictions, "rank").tolist() == [2, 0, 2]
    assert (
        every(predictions, "correct").tolist()
        == predictions.correct.tolist()
        == [False, True, False]
    )


def test_nll_is_finite_where_the_probability_underflows():
    (chunk,) = iter_chunks(Predictions([[1e4, 0.0], [0.0, 1e4]], [1, 1]))
    assert chunk.nll.tolist() == [1e4, 0.0]


@pytest.mark.parametrize("samples", [1, 2, 7, 8, 9])
def test_no_row_is_lost_at_the_end(small_chunks, samples):
    assert sum(len(chunk.target) for chunk in iter_chunks(random_predictions(samples))) == samples


def test_more_classes_than_fit_a_chunk(small_chunks):
    predictions = random_predictions(3, 200)
    assert torch.equal(every(predictions, "confidence"), predictions.tensors().confidence)


def test_rows_need_not_be_contiguous(small_chunks):
    straight = random_predictions()
    turned = Predictions(straight.tensors().logits.t().contiguous().t(), straight.tensors().target)
    assert not turned.logits.flags.c_contiguous
    for name in ("correct", "rank"):
        assert torch.equal(every(turned, name), every(straight, name))
    torch.testing.assert_close(every(turned, "confidence"), every(straight, "confidence"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [1, 3, 40])
def test_class_sums_do_not_depend_on_the_chunks(monkeypatch, classes, dtype):
    predictions = random_predictions(9000, classes, dtype)
    expected = predictions.tensors().probs.double().sum(dim=0)
    for elements in (scan.CHUNK_ELEMENTS, 7 * classes, classes):
        monkeypatch.setattr(scan, "CHUNK_ELEMENTS", elements)
        sums = [chunk.class_sums for chunk in iter_chunks(predictions)]
        torch.testing.assert_close(torch.stack(sums).sum(dim=0), expected, rtol=1e-12, atol=0)


def test_the_largest_logits_have_a_finite_nll():
    for dtype in (torch.float32, torch.float64):
        largest = torch.tensor(LARGEST, dtype=dtype)
        predictions = Predictions(torch.tensor([[largest, -largest]], dtype=dtype), [1])
        assert torch.isfinite(every(predictions, "nll")).all()


def test_row_means_add_up():
    predictions = random_predictions(101)
    whole, parts = RowMean(lambda chunk: chunk.nll), RowMean(lambda chunk: chunk.nll)
    scan.scan(predictions, [whole])
    for rows in torch.randperm(101).split(10):
        part = RowMean(lambda chunk: chunk.nll)
        scan.scan(
            Predictions(predictions.tensors().logits[rows], predictions.tensors().target[rows]),
            [part],
        )
        for name, tensor in parts.tensors().items():
            tensor += part.tensors()[name]
    assert parts.table() == pytest.approx(whole.table(), rel=1e-12)


def test_non_finite_row_quantity_raises():
    with pytest.raises(ValueError, match="must be finite"):
        scan.scan(random_predictions(5), [RowMean(lambda chunk: chunk.nll / 0)])


def test_evaluate_goes_over_the_logits_once(monkeypatch):
    passes = []
    original = scan.iter_chunks
    monkeypatch.setattr(scan, "iter_chunks", lambda p: passes.append(1) or original(p))
    evaluate(random_predictions())
    assert passes == [1]


@pytest.mark.parametrize("size", [7, 5000])
def test_cells_add_up_in_any_order(size):
    random = np.random.default_rng(0)
    cell = torch.from_numpy(random.integers(0, size, 999))
    terms, weights = torch.from_numpy(random.random((2, 999)))
    whole, parts = CellSums(size, "terms"), CellSums(size, "terms")
    whole.add(cell, weights, weights * terms)
    for rows in torch.from_numpy(random.permutation(999)).split(100):
        parts.add(cell[rows], weights[rows], (weights * terms)[rows])
    expected = [np.bincount(cell, each, size) for each in (weights, weights * terms)]
    for sums in (whole, parts):
        np.testing.assert_allclose(sums.arrays(), expected, rtol=1e-12)
