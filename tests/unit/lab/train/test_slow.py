"""Times and the rate of arithmetic are injected: no test depends on a clock."""

import itertools
import logging

import pytest
import torch
from torch import nn

from fedlas.lab.train.slow import StepWatch, matmul_rate

INPUTS = torch.ones(4, 8)
OPERATIONS = 3 * 2 * 4 * 8 * 5  # forward and twice as much backward, of a multiplication and an addition each


class Clock:
    """A clock that a step moves on by as much as it is told to take."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def model():
    return nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 5, bias=False))


def watched(seconds, *, at_full_rate, net=None, inputs=INPUTS, precision="bf16", steps=20):
    """Warnings of steps that take ``seconds`` each; a matrix product takes ``at_full_rate`` for the same operations."""
    clock = Clock()
    watch = StepWatch(net or model(), precision=precision, clock=clock, rate=lambda clock: OPERATIONS / at_full_rate)
    for number in range(steps):
        with watch.step(inputs):
            clock.now += 100.0 if number == 0 else seconds  # the first step prepares kernels


@pytest.fixture
def warned(caplog):
    caplog.set_level(logging.WARNING, "fedlas")
    return lambda: [record.getMessage() for record in caplog.records]


def test_ten_times_slower_is_said_once_with_the_remedy(warned):
    watched(0.5, at_full_rate=0.049)
    (text,) = warned()
    assert "over 10 times slower than their arithmetic: try --precision fp32 in a new --out. " in text
    assert "0.5 s of processor time" in text
    assert "take 0.049 s in a matrix product" in text


def test_remedy_in_fp32(warned):
    watched(0.5, at_full_rate=0.01, precision="fp32")
    (text,) = warned()
    assert "OMP_NUM_THREADS=1" in text


@pytest.mark.parametrize(
    ("seconds", "at_full_rate"),
    [(0.5, 0.051), (0.049, 1e-6)],  # almost ten times; short steps are calls, not arithmetic
)
def test_silent(warned, seconds, at_full_rate):
    watched(seconds, at_full_rate=at_full_rate)
    assert warned() == []


def test_one_slow_step_is_no_alarm(warned):
    clock = Clock()
    watch = StepWatch(model(), precision="bf16", clock=clock, rate=lambda clock: OPERATIONS / 0.1)
    for seconds in (0.1, 0.1, 0.1, 50.0, 0.1, 0.1):
        with watch.step(INPUTS):
            clock.now += seconds
    assert warned() == []
    assert not watch.active


def test_nothing_changes():
    net = model()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    random = torch.get_rng_state()
    watched(0.5, at_full_rate=0.001, net=net)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in net.modules())


@pytest.mark.parametrize("inputs", [torch.ones(4, 7), {"image": INPUTS}])
def test_what_cannot_be_counted_trains_without_a_warning(warned, inputs):
    net = model()
    watched(0.5, at_full_rate=1e-6, net=net, inputs=inputs)
    assert warned() == []
    assert net.training


def test_inactive_watch_reads_no_clock():
    def clock():
        raise AssertionError

    with StepWatch(model(), precision="fp32", active=False, clock=clock).step(INPUTS):
        pass


def test_rate_is_that_of_the_fastest_product():
    ends = itertools.accumulate([0.0, 5.0, 0.0, 2.0, 0.0, 3.0, 0.0, 4.0, 0.0, 5.0])
    assert matmul_rate(lambda: next(ends)) == 2 * 512**3 / 2.0
