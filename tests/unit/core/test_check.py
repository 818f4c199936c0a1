"""Checks and the wording of errors."""

import copy
import pickle
import warnings
from fractions import Fraction

import numpy as np
import pytest
import torch

from fedlas import Predictions, evaluate
from fedlas.calibrators import TemperatureScaling
from fedlas.checks import (
    check_choice,
    check_count,
    check_dense,
    check_finite,
    check_logits,
    check_number,
    suggestion,
)
from fedlas.errors import InputError
from fedlas.losses import LabelSmoothing, Loss
from fedlas.metrics import ece
from fedlas.stats import noise_floor


def test_three_parts():
    error = InputError("alpha must be in [0, 1]", -1, "Pass a fraction.")
    assert str(error) == "alpha must be in [0, 1]; got -1. Pass a fraction."
    error.owner = "FedLAS"
    assert str(error) == "FedLAS: alpha must be in [0, 1]; got -1. Pass a fraction."
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    "copied", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy]
)
def test_errors_cross_processes(copied):
    error = InputError("b", {"c": 1}, "d.")
    error.owner = "a"
    other = copied(error)
    assert type(other) is InputError
    assert (other.owner, other.parts) == ("a", ("b", "{'c': 1}", "d."))
    assert str(other) == "a: b; got {'c': 1}. d."


class OwnLoss(Loss):
    def __init__(self, q):
        super().__init__()
        self.q = check_number("q", q)

    def per_sample(self, batch):
        self._look()

    def _look(self):
        raise InputError("b", 1, "c.")


OWNERS = {  # a call that is refused, and what its message begins with
    "no public frame": (lambda: check_number("q", "x"), "q must"),
    "constructor": (lambda: LabelSmoothing(alpha="x"), "LabelSmoothing: alpha must"),
    "method": (lambda: TemperatureScaling().transform(P), "TemperatureScaling.transform: the cal"),
    "inherited method": (lambda: TemperatureScaling.load(1.0), "TemperatureScaling.load: "),
    "metric": (
        lambda: ece(P, num_bins=0),
        "ece: num_bins must",
    ),
    "property": (lambda: TemperatureScaling().temperature, "TemperatureScaling.temperature: the"),
    "function": (lambda: noise_floor(P, replicates=0), "noise_floor: replicates must"),
    "checked kinds": (lambda: noise_floor(1), "noise_floor: predictions must"),
    "forward": (
        lambda: LabelSmoothing()(P.tensors().logits[0], P.tensors().target),
        "LabelSmoothing: logits must",
    ),
    "own class": (lambda: OwnLoss("x"), "OwnLoss: q must"),
    "private method": (
        lambda: OwnLoss(1.0)(P.tensors().logits, P.tensors().target),
        "OwnLoss: b; got 1",
    ),
}
P = Predictions(torch.eye(4), torch.arange(4))


@pytest.mark.parametrize("kind", OWNERS)
def test_an_error_names_the_innermost_public_call(kind):
    call, start = OWNERS[kind]
    with pytest.raises(InputError, match=f"^{start}"):
        call()


@pytest.mark.parametrize(
    "value", [0, 1, 0.5, np.float32(0.5), np.float64(0.5), np.int64(1), Fraction(1, 2)]
)
def test_numbers(value):
    number = check_number("alpha", value, low=0, high=1)
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize(
    "value",
    [
        -0.1, 1.1, float("nan"), float("inf"), "0.5", None, True, np.bool_(True), [0.5], 1j, torch.tensor(0.5), 10**400,
        np.array(0.5), np.array([0.5]),
    ],
    ids=repr,
)  # fmt: skip
def test_not_numbers(value):
    with pytest.raises(InputError, match=r"^alpha .*\[0, 1\]; got .* Choose"):
        check_number("alpha", value, low=0, high=1)


def test_open_and_missing_bounds():
    for value, bounds, text in (
        (0, {"low": 0, "high": 1, "low_open": True}, r"\(0, 1\]"),
        (-1, {"low": 0}, r"\[0, inf\)"),
        (2, {"high": 1}, r"\(-inf, 1\]"),
        (float("inf"), {}, r"\(-inf, inf\)"),
    ):
        with pytest.raises(InputError, match=text):
            check_number("a", value, **bounds)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(3)])
def test_counts(value):
    assert type(check_count("num_classes", value)) is int


@pytest.mark.parametrize("value", [0, -1, 1.0, "1", None, True, torch.tensor(3), np.float64(3.0)])
def test_not_counts(value):
    with pytest.raises(InputError, match=r"num_classes .*whole number .*at least 1"):
        check_count("num_classes", value)


def test_choices():
    assert check_choice("mode", "mean", ("mean", "sum")) == "mean"
    for value, fix in (
        ("men", "Did you mean 'mean'"),
        ("zzz", "Choose one of: mean, sum"),
        (None, "Choose"),
        ([], ""),
    ):
        with pytest.raises(InputError, match=rf"mode .*mean, sum; got .*{fix}"):
            check_choice("mode", value, ("mean", "sum"))


def test_suggestions():
    assert suggestion("fedlass", ["ce", "fedlas"]) == "Did you mean 'fedlas'?"
    assert suggestion("platt", ["beta", "plane"]) == "Choose one of: beta, plane."
    assert suggestion("x", []) == "Choose one of: (none)."
    many = suggestion("zzz", [f"name{i}" for i in range(100)])
    assert many.endswith("name29 and 70 more.")


def described(value):
    """How an error names a value that came."""
    with pytest.raises(InputError) as caught:
        check_count("n", value, low=None)
    return caught.value.parts[1]


def test_descriptions():
    assert described(torch.zeros(2, 3)) == "(2, 3) torch.float32"
    assert described(np.zeros((2, 3))) == "(2, 3) float64"
    assert described("a") == "str 'a'"
    assert described(np.float64(3.5)).startswith("float64")
    assert described(torch.tensor(3.5)) == "() torch.float32"
    for huge in (
        list(range(10**5)),
        "a" * 10**5,
        10.0**300,
        {i: i for i in range(1000)},
        b"a" * 10**4,
    ):
        assert len(described(huge)) < 300


def test_a_class_is_not_a_tensor():
    assert "Tensor" in described(torch.Tensor)
    assert "ndarray" in described(np.ndarray)


def test_finite():
    check_finite("logits", torch.zeros(3))
    check_finite("logits", torch.zeros(0))
    check_finite("target", torch.zeros(3, dtype=torch.int64))
    with pytest.raises(InputError, match=r"1 NaN or infinite of 1.*\(\)"):
        check_finite("logits", torch.tensor(float("nan")))
    with pytest.raises(InputError, match=r"1 NaN or infinite of 2.*\(1,\)"):
        check_finite("logits", torch.tensor([0.0, float("nan")]).to(torch.float8_e4m3fn))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_numbers_up_to_the_largest(dtype):
    largest = min(2.0**100, torch.finfo(dtype).max)
    check_finite("logits", torch.tensor([largest, -largest], dtype=dtype))
    if largest == 2.0**100:
        with pytest.raises(
            InputError, match=r"between -1.26765e\+30 .*got values from -2.53\S+ to 0\. "
        ):
            check_finite("logits", torch.tensor([-2 * largest, 0.0], dtype=dtype))


NOT_DENSE = {
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.zeros(3, 3, device="meta"),
    "nested": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.jagged),
}
with warnings.catch_warnings(
    action="ignore"
):  # torch's own: one layout is a prototype, quantized tensors are old
    NOT_DENSE["ragged"] = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])
    NOT_DENSE["quantized"] = torch.quantize_per_tensor(torch.eye(3), 0.1, 10, torch.quint8)


@pytest.mark.parametrize("kind", NOT_DENSE)
def test_tensors_without_elements_to_read(kind):
    for check in (check_dense, check_finite):
        with pytest.raises(InputError, match=r"^logits .*holds values"):
            check("logits", NOT_DENSE[kind])
    check_dense("logits", torch.eye(3).T[::2])


def test_logits():
    for good in (
        torch.zeros(2, 3),
        torch.zeros(0, 1),
        torch.zeros(2, 3, 4, 5, dtype=torch.bfloat16),
    ):
        assert check_logits(good) is good
    for bad in (
        torch.zeros(2),
        torch.zeros(2, 3).long(),
        torch.zeros(2, 0),
        np.zeros((2, 3)),
        None,
        [[1.0]],
        torch.eye(2).to_sparse(),
    ):
        with pytest.raises(InputError, match=r"^logits .*floating .*before any softmax"):
            check_logits(bad)


def test_counts_that_take_memory_have_a_bound():
    """8 bytes for each of 10**11 bins would be 800 GB."""
    assert check_count("num_bins", 10_000) == 10_000
    with pytest.raises(InputError, match=r"num_bins .*10000; got int 10001"):
        check_count("num_bins", 10_001)
    assert check_count("epochs", 10**11) == 10**11
    predictions = Predictions(torch.eye(3), torch.arange(3))
    with pytest.raises(InputError, match="of at most 10000"):
        evaluate(predictions, num_bins=10**11)
