import pytest
import torch

from fedlas.calibrators._fit.parameters import fitted, read_numbers


def test_numbers_come_back():
    state = {"w": [[1.5, 2], [3, 4]], "x": 0.25, "empty": []}
    assert torch.equal(read_numbers(state, "w", 2, 2), torch.tensor([[1.5, 2], [3, 4]]).double())
    assert read_numbers(state, "w", None, 2).shape == (2, 2)
    assert float(read_numbers(state, "x")) == 0.25
    assert read_numbers(state, "empty", None).shape == (0,)


@pytest.mark.parametrize(
    "value",
    [
        "1",
        None,
        {},
        [1, "2"],
        [[1, 2], [3]],
        [1, 2, 3],
        1.0,
        [1, float("nan")],
        [float("inf"), 1],
        [[1, 2]],
        [1e400, 0],
    ],
)
def test_anything_else_is_refused(value):
    with pytest.raises(ValueError):
        read_numbers({"w": value}, "w", 2)


def test_a_missing_one():
    with pytest.raises(KeyError):
        read_numbers({}, "w", 2)


def test_parameters_before_the_fit():
    assert fitted(0.0) == 0.0
    with pytest.raises(ValueError, match=r"X\.y: .*fitted first; got an unfitted"):
        fitted(None)
