import pytest
import torch

from fedlas import calibrators
from fedlas.calibrators._fit import rowwise
from fedlas.calibrators._fit.rowwise import column_moments, iter_float64_rows, map_rows


@pytest.fixture(params=[1, 7, 2**18])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(rowwise, "_CHUNK_ELEMENTS", request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("_chunk")
def test_rows_come_in_order_and_in_float64(dtype):
    logits = torch.randn(11, 3, dtype=dtype)
    parts = list(iter_float64_rows(logits))
    assert all(rows.dtype == torch.float64 for _, rows in parts)
    assert torch.equal(torch.cat([rows for _, rows in parts]), logits.double())
    assert torch.equal(torch.cat([logits[part] for part, _ in parts]), logits)


@pytest.mark.usefixtures("_chunk")
def test_a_map_of_rows():
    logits = torch.randn(11, 3)
    before = logits.clone()
    result = map_rows(logits, lambda rows: rows.log_softmax(dim=1))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, logits.log_softmax(dim=1))
    assert torch.equal(logits, before)


@pytest.mark.usefixtures("_chunk")
def test_moments():
    logits = torch.randn(50, 3) * 5 + 1000
    mean, deviation = column_moments(logits, torch.ones(50).double())
    torch.testing.assert_close(mean, logits.double().mean(dim=0))
    torch.testing.assert_close(deviation, logits.double().std(dim=0, correction=0))
    weights = torch.stack([torch.ones(50), torch.arange(50) % 2]).double()
    squares, _ = column_moments(logits, weights, lambda rows: rows**2)
    torch.testing.assert_close(squares[0], (logits.double() ** 2).mean(dim=0))
    torch.testing.assert_close(squares[1], (logits[1::2].double() ** 2).mean(dim=0))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_a_constant_column_has_deviation_one(value):
    # 997 equal numbers and their mean differ in the last digit.
    rows = torch.full((997, 2), value, dtype=torch.float64)
    _, deviation = column_moments(rows, torch.ones(997).double())
    assert deviation.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "kind",
    [
        calibrators.AutoCalibration,
        calibrators.BetaCalibration,
        calibrators.DirichletCalibration,
        calibrators.EnsembleTemperatureScaling,
        calibrators.HistogramBinning,
        calibrators.IsotonicCalibration,
        calibrators.MatrixScaling,
        calibrators.Multicalibration,
        calibrators.PlattScaling,
        calibrators.StructuredScaling,
        calibrators.VectorScaling,
    ],
)
@pytest.mark.filterwarnings("ignore::fedlas.calibrators.CalibrationWarning")
def test_another_default_device(kind, generated, tmp_path):
    """Who sets one for a model has predictions on it or not; a fit is made on the CPU either way."""
    if kind is calibrators.StructuredScaling:
        pytest.importorskip("probmetrics")
        pytest.importorskip("numba")
    val = generated(300)
    wanted = kind().fit(val).transform(val).tensors().logits
    with torch.device("meta"):
        calibrator = kind().fit(val)
        loaded = kind.load(calibrator.save(tmp_path / "c.json"))
        assert torch.equal(calibrator.transform(val).tensors().logits, wanted)
        assert torch.equal(loaded.transform(val).tensors().logits, wanted)
