import pytest

from fedlas._core.check import InputError
from fedlas.lab.tune.domain import parse_domain


def test_members_size_and_text():
    whole = parse_domain("1:4:int", "x")
    assert (whole.size, list(whole), str(whole)) == (4, [1, 2, 3, 4], "1 to 4 (whole numbers)")
    assert [whole.contains(value) for value in (2, 2.5, True)] == [True, False, False]
    assert not parse_domain("0,1", "x").contains(True)
    assert not parse_domain("0:1", "x").contains("0.5")
    assert str(parse_domain("2,sgd,true", "x")) == "2, sgd, true"


@pytest.mark.parametrize("text", ["0.01:0.3:log", "0:20", "1:4:int", "1:100:log:int", "0.5,1,2", "true,false"])
def test_optuna_draws_from_the_domain(text):
    optuna = pytest.importorskip("optuna")
    domain = parse_domain(text, text)
    assert all(domain.contains(value) for value in domain.probes)
    drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask({"x": domain.distribution()})
    assert domain.contains(drawn.params["x"])


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
