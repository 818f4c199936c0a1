import math
from fractions import Fraction

import pytest
import torch

from fedlas.metrics.exact import FLOAT_DIGITS, ExactSum


def total(values, digits=FLOAT_DIGITS):
    sums = ExactSum(1, digits=digits)
    sums.add(values)
    return sums


@pytest.mark.parametrize("spread", [0, 3, 30])
def test_is_the_sum_of_the_rounded_terms(spread):
    torch.manual_seed(spread)
    values = torch.randn(1000, dtype=torch.float64) * 10.0 ** (spread * torch.rand(1000, dtype=torch.float64))
    exact = sum(Fraction(round(Fraction(v) * 2**52), 2**52) for v in values.tolist())
    assert float(total(values).floats()) == float(exact)
    assert float(total(values).floats()) == pytest.approx(math.fsum(values.tolist()), rel=1e-12, abs=1e-12)


def test_order_and_parts_change_no_bit():
    torch.manual_seed(0)
    values = torch.randn(999, dtype=torch.float64) * 10.0 ** torch.randint(-6, 9, (999,))
    whole = total(values)
    assert torch.equal(total(values.flip(0)).digits, whole.digits)
    parts = ExactSum(1, digits=FLOAT_DIGITS)
    for part in values[torch.randperm(999)].split(37):
        parts.digits += total(part).digits
    # Digits of parts need not be those of the whole; what they add up to is.
    assert torch.equal(parts.floats(), whole.floats())
    assert len({float(values[torch.randperm(999)].sum()) for _ in range(20)}) > 1, "the terms were no challenge"


def test_how_a_term_is_rounded_does_not_depend_on_its_company():
    torch.manual_seed(0)
    values = -torch.rand(1000, dtype=torch.float64) * 0.4  # with bits below 2**-52
    alone = total(values)
    together = total(torch.cat((values, torch.tensor([1e9], dtype=torch.float64))))
    assert together.totals()[0] - alone.totals()[0] == 10**9 * 2**52


def test_into_several_sums():
    torch.manual_seed(0)
    values, index = torch.rand(5000), torch.randint(7, (5000,))
    sums = ExactSum(7)
    for rows in torch.arange(5000).split(777):
        sums.add(values[rows], index[rows])
    for number in range(7):
        # float32 above 2**-29 has no bit below 2**-52, so nothing is rounded.
        assert float(sums.floats()[number]) == math.fsum(values[index == number].double().tolist())


def test_many_sums_go_another_way_to_the_same_end():
    torch.manual_seed(0)
    values, index = torch.rand(500, dtype=torch.float64), torch.randint(1000, (500,))
    few, many = ExactSum(1000), ExactSum(5000)
    few.add(values, index)
    many.add(values, index)
    assert torch.equal(many.digits[:, :1000], few.digits)


def test_counts_are_exact():
    sums = ExactSum(2)
    outcome = torch.tensor([True, False, True, True])
    sums.add(outcome, torch.tensor([0, 0, 1, 1]))
    assert sums.floats().tolist() == [1.0, 2.0]
    assert float(total(torch.tensor([3, -1, 5])).floats()) == 7.0


def test_no_terms_are_zero():
    assert float(total(torch.empty(0)).floats()) == 0.0


@pytest.mark.parametrize("value", [1e300, -1e300, 1.5, -(2.0**-52), 0.0, 1e-30])
def test_any_size(value):
    rounded = round(Fraction(value) * 2**52) / Fraction(2**52)
    assert float(total(torch.tensor([value], dtype=torch.float64)).floats()) == float(rounded)


def test_large_and_small_do_not_drown_each_other():
    values = torch.tensor([1e18, 1.0, -1e18, 2.0**-40], dtype=torch.float64)
    assert float(total(values).floats()) == 1.0 + 2.0**-40
    assert float(values.sum()) != 1.0 + 2.0**-40


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_has_no_sum_is_refused(value):
    with pytest.raises(ValueError, match=r"ExactSum: terms must be finite; got 1 NaN or infinite of 2"):
        total(torch.tensor([0.0, value]))


@pytest.mark.parametrize("bits", [26, 40, 52])
def test_fixed_point_numbers(bits):
    sums = ExactSum(3)
    numbers = torch.tensor([5, -3, 2**40 + 1, -1])
    sums.add_fixed(numbers, torch.tensor([0, 0, 1, 2]), bits=bits)
    expected = [2 * 2.0**-bits, (2**40 + 1) * 2.0**-bits, -(2.0**-bits)]
    assert sums.floats().tolist() == expected
