"""Public functions in eight threads: every result is that of one thread, and the process stays as it was."""

import logging
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import pytest
import torch
from torch import nn

import fedlas
from fedlas._core.errors import collect_warnings
from fedlas.calibrators import Calibrator, TemperatureScaling
from fedlas.deploy.formats import quiet
from fedlas.integrations.mapie import prediction_sets

THREADS = 8


def predictions(seed, size=200):
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, 3, generator=draw)
    return fedlas.Predictions(
        logits, torch.multinomial((logits / 2).softmax(1), 1, generator=draw)[:, 0]
    )


VAL, TEST = predictions(0), predictions(1)
MODEL = nn.Linear(3, 3).eval()
LOADER = [(VAL.tensors().logits, VAL.tensors().target)]
REPORT = fedlas.report(VAL, replicates=39)


def calibrator(folder):
    path = TemperatureScaling().fit(VAL).save(folder / "map.json")
    return Calibrator.load(path).transform(TEST).logits.tolist()


def predictions_file(folder):
    return fedlas.read_predictions(VAL.save(folder / "a.npz")).predictions.logits.tolist()


def on_held_out(_):
    return str(fedlas.report(VAL, on=TEST, method="isotonic", replicates=39))


FUNCTIONS = {
    "calibrate": lambda _: str(fedlas.calibrate(MODEL, LOADER, method="temperature")),
    "calibrator": calibrator,
    "card": lambda _: str(fedlas.card(VAL, TEST, "temperature", replicates=39)),
    "compare": lambda _: fedlas.compare(
        VAL, VAL.with_logits(VAL.tensors().logits.flip(0)), replicates=39
    ),
    "estimates": lambda _: fedlas.estimates(VAL, replicates=39),
    "evaluate": lambda _: fedlas.evaluate(VAL),
    "predict": lambda _: fedlas.predict(MODEL, LOADER).logits.tolist(),
    "prediction_sets": lambda _: prediction_sets(VAL, TEST).sets.tolist(),
    "read_predictions": predictions_file,
    "report as text": lambda _: str(REPORT),
    "report on held-out": on_held_out,
    "report as html": lambda _: REPORT.html(),
}


def process_state():
    loggers = [logging.getLogger(name).level for name in ("torch.onnx", "skl2onnx")]
    shows = warnings.showwarning, warnings._showwarnmsg_impl
    return sys.stdout, sys.stderr, list(warnings.filters), shows, loggers, dict(matplotlib.rcParams)


@pytest.mark.filterwarnings("ignore::fedlas.errors.CalibrationWarning")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_eight_threads(name, tmp_path):
    call, together = FUNCTIONS[name], threading.Barrier(THREADS, timeout=300)
    (tmp_path / "alone").mkdir()
    alone, before = call(tmp_path / "alone"), process_state()

    def one(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        together.wait()
        return [call(folder) for _ in range(2)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            results = list(pool.map(one, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)
    assert process_state() == before
    assert all(result == alone for pair in results for result in pair)


def test_exports_that_overlap_leave_warnings_and_loggers_alone():
    before = process_state()
    with ThreadPoolExecutor(1) as other:
        quiet.__enter__()
        other.submit(quiet.__enter__).result()
        assert process_state() != before
        quiet.__exit__()
        other.submit(quiet.__exit__).result()
    assert process_state() == before


def test_warnings_are_collected_in_one_thread_alone():
    few = predictions(2, size=20)
    with ThreadPoolExecutor(1) as other, collect_warnings() as texts:
        with pytest.warns(fedlas.errors.CalibrationWarning, match="samples are few"):
            other.submit(TemperatureScaling().fit, few).result()
        assert texts == []
