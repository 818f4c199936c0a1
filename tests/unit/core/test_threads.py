"""Few numbers are worked on by one thread of torch and of BLAS, and the numbers of threads are as before."""

import importlib

import numpy as np
import pytest
import threadpoolctl
import torch

import fedlas
from fedlas._core.threads import run_single_threaded, single_thread_if_small
from fedlas.calibrators import TemperatureScaling

estimates = importlib.import_module("fedlas.stats.estimates")


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_work_takes_one_thread_large_takes_all(two_threads):
    with single_thread_if_small(1000):
        assert torch.get_num_threads() == 1
    with single_thread_if_small(2**23):
        assert torch.get_num_threads() == 2
    with pytest.raises(KeyError), single_thread_if_small(1000):
        raise KeyError
    assert torch.get_num_threads() == 2


def test_small_work_takes_one_blas_thread(two_threads):
    def blas_threads():
        libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").info()
        return {each["num_threads"] for each in libraries}

    seen = []

    @run_single_threaded
    def threads(*_args):
        seen.append(blas_threads())

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        threads(np.zeros((10, 3)))
        with single_thread_if_small(10), single_thread_if_small(10):
            seen.append(blas_threads())
        threads(np.zeros((2**11, 2**12)))
        assert blas_threads() == before
    assert seen == [{1}, {1}, before]


def test_predictions_say_how_many_there_are(two_threads):
    seen = []

    @run_single_threaded
    def threads(*_args, **_options):
        seen.append(torch.get_num_threads())

    few = fedlas.Predictions(torch.zeros(10, 3), torch.zeros(10))
    threads("owner", few)
    threads(val=fedlas.TopLabel([0.5], [True]))
    threads(torch.zeros(2**11, 2**12))
    assert seen == [1, 1, 2]


def test_fits_and_intervals_run_on_one(two_threads, monkeypatch):
    seen = []

    class Spy(TemperatureScaling):
        def fit_map(self, val, start=None):
            seen.append(torch.get_num_threads())
            return super().fit_map(val, start)

    def rows(*args):
        seen.append(torch.get_num_threads())
        return prepare_rows(*args)

    random = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 3, generator=random)
    predictions = fedlas.Predictions(
        3 * logits, torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0]
    )
    Spy().fit(predictions)
    prepare_rows = estimates.prepare_rows
    monkeypatch.setattr(estimates, "prepare_rows", rows)
    fedlas.estimates(predictions, ["ece"], replicates=39)
    assert seen == [1, 1]
    assert torch.get_num_threads() == 2
