import math

import pytest

from fakes_benches import ECE, write_numbers
from fedlas.errors import InputError
from fedlas.lab.report import differences_figure
from fedlas.lab.results import method_differences
from fedlas.lab.runs import collect_runs
from fedlas.stats import holm, paired_t_test


def test_numbers_are_those_of_the_tests(tmp_path):
    summary = collect_runs(write_numbers(tmp_path))
    first, second = method_differences(summary, ["fedlas:ls", "fedlas:mbls"], metric="ece")
    assert first.seeds == (0, 1, 2, 3, 4)
    assert second.seeds == (0, 1, 2)
    assert first.difference == pytest.approx(-0.0198)
    assert first.p_value == paired_t_test(ECE["fedlas"], ECE["ls"]).p_value
    assert second.p_value == paired_t_test(ECE["fedlas"][:3], ECE["mbls"]).p_value
    assert [first.p, second.p] == holm([first.p_value, second.p_value])
    assert first.interval[0] < first.difference < first.interval[1] < 0


def test_interval_and_t_test_agree_at_the_level(tmp_path):
    """0 lies on the edge of the 95 % interval where p = 0.05, whatever the spread."""
    values = {"a": [0.0, 0.0, 0.0], "b": [-0.01, 0.01, 0.0]}
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    shifted = {"ls": [half - b for b in values["b"]], "ce": values["a"]}
    (found,) = method_differences(
        collect_runs(write_numbers(tmp_path, shifted)), ["ls:ce"], metric="ece"
    )
    assert found.p_value == pytest.approx(0.05)
    assert found.interval[0] == pytest.approx(0.0, abs=1e-11)


def test_one_seed_and_no_spread_have_no_test(tmp_path):
    summary = collect_runs(
        write_numbers(tmp_path, {"ls": [0.04, 0.05], "ce": [0.03, 0.04], "mbls": [0.02]})
    )
    level, single = method_differences(summary, ["ls:ce", "mbls:ce"], metric="ece")
    assert (level.p_value, level.p, level.interval, level.needed) == (None, None, None, None)
    assert (single.p_value, single.p, single.interval, single.needed) == (None, None, None, None)
    assert single.difference == pytest.approx(-0.01)


def test_after_temperature_is_another_number(tmp_path):
    summary = collect_runs(write_numbers(tmp_path))
    (before,) = method_differences(summary, ["fedlas:ls"], metric="ece")
    (after,) = method_differences(summary, ["fedlas:ls"], metric="ece", stage="test_calibrated")
    assert after.difference == pytest.approx(before.difference / 2)


def test_the_picture_shows_the_differences_of_each_metric(tmp_path):
    pairs, names = ["fedlas:ls", "fedlas:mbls"], ["ece", "nll"]
    summary = collect_runs(write_numbers(tmp_path))
    asked = {name: method_differences(summary, pairs, metric=name) for name in names}
    ece, nll = differences_figure(asked).axes
    assert [tick.get_text() for tick in ece.get_yticklabels()] == ["fedlas - ls", "fedlas - mbls"]
    assert ece.get_xlabel() == "ECE (points), A - B"
    assert nll.get_xlabel() == "NLL, A - B"
    assert ece.collections[0].get_offsets()[0, 0] == pytest.approx(100 * (0.019 - 0.040))
    assert nll.collections[0].get_offsets()[0, 0] == pytest.approx(10 * (0.019 - 0.040))


def test_no_seed_in_common(tmp_path):
    write_numbers(tmp_path, {"ls": [0.04, 0.05], "ce": [0.03]})
    (tmp_path / "ls-s0" / "metrics.json").unlink()
    with pytest.raises(InputError, match="seed in common; got none for ls:ce"):
        method_differences(collect_runs(tmp_path), ["ls:ce"], metric="ece")
