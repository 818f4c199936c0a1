import pytest

from fedlas._core.check import InputError
from fedlas.lab.tune.domain import Choices, Range, parse_domain


@pytest.mark.parametrize(
    "text", ["0.01:0.3:log", "0:20", "-1:6", "1:4:int", "1:100:log:int", "0.5,1,2", "true,false", "sgd,adamw", "4"]
)
def test_text_and_back(text):
    domain = parse_domain(text, text)
    assert parse_domain(domain.text, text) == domain
    assert all(domain.contains(value) for value in domain.probes)


def test_what_it_holds():
    assert parse_domain("1e-3:1:log", "x") == Range(0.001, 1.0, log=True)
    assert parse_domain("1:4:int", "x").size == 4
    assert parse_domain("1,sgd", "x") == Choices((1, "sgd"))
    whole = parse_domain("1:4:int", "x")
    assert whole.contains(2)
    assert not whole.contains(2.5)
    assert not whole.contains(True)
    assert not parse_domain("0,1", "x").contains(True)
    assert not parse_domain("0:1", "x").contains(None)
    assert not parse_domain("0:1", "x").contains("0.5")


def test_tidy_values_can_be_written_down_and_stay_inside():
    assert Range(0.1, 0.9).tidy(0.456789) == 0.4568
    assert Range(0.1, 0.12346).tidy(0.123458) == 0.12346
    assert Range(1, 9, whole=True).tidy(3) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:", "two finite numbers"), (":1", "two finite numbers"), ("a:b", "two finite numbers"),
        ("0:.inf", "two finite numbers"), ("true:2", "two finite numbers"), ("2:1", "below the upper"),
        ("1:1", "below the upper"), ("0:1:log", "above 0"), ("0:1:lin", "may end in :log and :int"),
        ("1:2:log:log", "may end in :log and :int"), ("0.5:2:int", "whole numbers"), ("1,,2", "finite numbers, text"),
        ("1,.nan", "finite numbers, text"), ("1,1.0", "differ from each other"), ("[1]", "finite numbers, text"),
    ],
)  # fmt: skip
def test_what_is_no_domain_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        parse_domain(text, f"alpha={text}")
