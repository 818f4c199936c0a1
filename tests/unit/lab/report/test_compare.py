import json
import math

import pytest

from fedlas.cli import main
from fedlas.errors import InputError
from fedlas.lab.report import differences_figure
from fedlas.lab.results import method_differences
from fedlas.lab.runs import collect
from fedlas.stats import holm, paired_t_test

ECE = {
    "ls": [0.040, 0.041, 0.039, 0.040, 0.042],
    "fedlas": [0.019, 0.025, 0.018, 0.021, 0.020],
    "mbls": [0.030, 0.031, 0.033],
}


def write(folder, ece=ECE):
    for loss, values in ece.items():
        for seed, value in enumerate(values):
            run = folder / f"{loss}-s{seed}"
            run.mkdir(parents=True)
            stages = {
                "val": {},
                "test": {"ece": value, "nll": 10 * value},
                "test_calibrated": {"ece": value / 2},
            }
            about = {
                "format": 1,
                "recipe": "digits",
                "loss": loss,
                "seed": seed,
                "temperature": 1.0,
            }
            about |= {"best_epoch": 1, "seconds": 1.0, "notes": []}
            (run / "metrics.json").write_text(json.dumps(about | stages))
    return folder


def test_numbers_are_those_of_the_tests(tmp_path):
    summary = collect(write(tmp_path))
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
    (found,) = method_differences(collect(write(tmp_path, shifted)), ["ls:ce"], metric="ece")
    assert found.p_value == pytest.approx(0.05)
    assert found.interval[0] == pytest.approx(0.0, abs=1e-11)


def test_one_seed_and_no_spread_have_no_test(tmp_path):
    summary = collect(write(tmp_path, {"ls": [0.04, 0.05], "ce": [0.03, 0.04], "mbls": [0.02]}))
    level, single = method_differences(summary, ["ls:ce", "mbls:ce"], metric="ece")
    assert (level.p_value, level.p, level.interval, level.needed) == (None, None, None, None)
    assert (single.p_value, single.p, single.interval, single.needed) == (None, None, None, None)
    assert single.difference == pytest.approx(-0.01)


def test_after_temperature_is_another_number(tmp_path):
    summary = collect(write(tmp_path))
    (before,) = method_differences(summary, ["fedlas:ls"], metric="ece")
    (after,) = method_differences(summary, ["fedlas:ls"], metric="ece", stage="test_calibrated")
    assert after.difference == pytest.approx(before.difference / 2)


def test_the_table(tmp_path, capsys):
    write(tmp_path)
    assert (
        main(["compare", str(tmp_path), "fedlas:ls", "fedlas:mbls", "--metrics", "ECE", "nll"]) == 0
    )
    out = capsys.readouterr().out
    assert "ECE %, as trained, digits" in out
    assert "NLL, as trained, digits" in out
    assert "-1.98 [-2.28, -1.68]  < 0.001  < 0.001" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert (
        main(["compare", str(tmp_path), "fedlas:ls", "--markdown", "--stage", "temperature"]) == 0
    )
    out = capsys.readouterr().out
    assert "ECE %, after temperature, digits\n\n| A - B" in out
    assert "| fedlas - ls |     5 | 1.03 | 2.02 | -0.99 [-1.14, -0.84] |" in out
    assert "paired t-test over seeds" in out
    assert main(["compare", str(tmp_path), "fedlas:ls", "--stage", "auto"]) == 2
    assert "calibrators need predictions" in capsys.readouterr().err


def test_the_picture_shows_the_differences_of_each_metric(tmp_path):
    pairs, names = ["fedlas:ls", "fedlas:mbls"], ["ece", "nll"]
    summary = collect(write(tmp_path))
    asked = {name: method_differences(summary, pairs, metric=name) for name in names}
    ece, nll = differences_figure(asked).axes
    assert [tick.get_text() for tick in ece.get_yticklabels()] == ["fedlas - ls", "fedlas - mbls"]
    assert ece.get_xlabel() == "ECE (points), A - B"
    assert nll.get_xlabel() == "NLL, A - B"
    assert ece.collections[0].get_offsets()[0, 0] == pytest.approx(100 * (0.019 - 0.040))
    assert nll.collections[0].get_offsets()[0, 0] == pytest.approx(10 * (0.019 - 0.040))
    files = [tmp_path / f"{name}.svg" for name in "ab"]
    for file in files:
        assert (
            main(["compare", str(tmp_path), *pairs, "--metrics", *names, "--plot", str(file)]) == 0
        )
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith(b"<?xml")


def test_a_picture_of_no_known_kind_writes_nothing(tmp_path, capsys):
    assert (
        main(["compare", str(write(tmp_path)), "fedlas:ls", "--plot", str(tmp_path / "a.pgn")]) == 2
    )
    assert "the name must end in a kind of picture; got a.pgn" in capsys.readouterr().err
    assert not (tmp_path / "a.pgn").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([":fedlas"], "a pair must be A:B"),
        (["fedlas:fedlas"], "a pair must be A:B"),
        (["fedlas:"], "a pair must be A:B"),
        (["fedls:ls"], "Did you mean 'fedlas'"),
        (["fedlas:ls", "--metrics", "eec"], "Did you mean 'ece'"),
        (["fedlas:ls", "--metrics", "ks"], "They measured"),
        (["fedlas@auto:ls@auto"], "calibrators need predictions"),
        (["--method", "atuo"], "Did you mean 'auto'"),
        (["fedlas@auto:ls", "--stage", "auto"], "--stage is for methods without a calibrator"),
        (["none"], "the folder must exist"),
    ],
)
def test_what_cannot_be_compared(tmp_path, arguments, message, capsys):
    assert main(["compare", str(write(tmp_path)), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_folder_is_said(capsys):
    assert main(["compare", "fedlas:ls"]) == 2
    assert "a folder of a bench must be named" in capsys.readouterr().err


def test_no_seed_in_common(tmp_path):
    write(tmp_path, {"ls": [0.04, 0.05], "ce": [0.03]})
    (tmp_path / "ls-s0" / "metrics.json").unlink()
    with pytest.raises(InputError, match="seed in common; got ls:ce"):
        method_differences(collect(tmp_path), ["ls:ce"], metric="ece")
