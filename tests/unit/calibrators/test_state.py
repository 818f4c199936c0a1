from typing import ClassVar

import pytest
import torch
from torch import nn

from fedlas.calibrators._fit.buffers import BufferModule
from fedlas.calibrators._fit.state import buffers_to_dict, load_map, read_array, require_fitted


class Line(BufferModule):
    shapes: ClassVar = {"slope": "C", "offset": ""}

    def forward(self, rows):
        return rows * self.slope + self.offset


class Pair(nn.Module):
    parts: ClassVar = {"first": Line, "second": Line}

    def __init__(self, first, second=None):
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, rows):
        return self.first(rows) if self.second is None else self.second(self.first(rows))


LINE = Line(slope=torch.tensor([1.0, 2.0]).double(), offset=torch.tensor(0.5).double())


def test_numbers_come_back():
    state = {"w": [[1.5, 2], [3, 4]], "x": 0.25, "empty": [], "whole": [1, 2]}
    assert torch.equal(read_array(state, "w"), torch.tensor([[1.5, 2], [3, 4]]).double())
    assert float(read_array(state, "x")) == 0.25
    assert read_array(state, "empty").shape == (0,)
    assert read_array(state, "whole").dtype == torch.int64


@pytest.mark.parametrize(
    "value",
    ["1", None, {}, [1, "2"], [[1, 2], [3]], [1, float("nan")], [float("inf"), 1], [1e400, 0]],
)
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError, match="w"):
        read_array({"w": value}, "w")


@pytest.mark.parametrize("row_map", [LINE, Pair(LINE), Pair(LINE, LINE)])
def test_one_loader_reads_maps_and_their_parts(row_map):
    loaded = load_map(type(row_map), buffers_to_dict(row_map), 2)
    rows = torch.randn(5, 2).double()
    assert torch.equal(loaded(rows), row_map(rows))


@pytest.mark.parametrize(
    "change",
    [
        {"slope": [1.0, 2.0, 3.0]},
        {"slope": [[1.0], [2.0]]},
        {"offset": [0.5]},
        {"other": 1.0},
        {"first.slope": [1.0, 2.0]},
    ],
)
def test_other_shapes_and_names_are_refused(change):
    with pytest.raises((ValueError, TypeError)):
        load_map(Line, buffers_to_dict(LINE) | change, 2)


@pytest.mark.parametrize("state", [None, [], {}, {"slope": [1.0, 2.0]}, {"first.slope": [1.0]}])
def test_a_state_that_is_none(state):
    with pytest.raises((ValueError, TypeError)):
        load_map(Line, state, 2)
    with pytest.raises((ValueError, TypeError)):
        load_map(Pair, state, 2)
    with pytest.raises(ValueError, match="state must map names"):
        load_map(None, {}, 2)


def test_parameters_before_the_fit():
    assert require_fitted(0.0) == 0.0
    with pytest.raises(ValueError, match="fitted first; got an unfitted"):
        require_fitted(None)
