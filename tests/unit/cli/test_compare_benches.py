"""``fedlas compare`` of folders of benches with given numbers."""

import pytest

from fakes_benches import write_numbers
from fedlas.cli import main


def test_the_table(tmp_path, capsys):
    write_numbers(tmp_path)
    assert (
        main(["compare", str(tmp_path), "fedlas:ls", "fedlas:mbls", "--metrics", "ECE", "nll"]) == 0
    )
    out = capsys.readouterr().out
    assert "ECE %, as trained, digits" in out
    assert "NLL, as trained, digits" in out
    assert "-1.98 [-2.28, -1.68]  < 0.001  < 0.001" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert (
        main(
            [
                "compare",
                str(tmp_path),
                "fedlas:ls",
                "--markdown",
                "--stage",
                "temperature",
                "--metrics",
                "ece",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "ECE %, after temperature, digits\n\n| A - B" in out
    assert "| fedlas - ls |     5 | 1.03 | 2.02 | -0.99 [-1.14, -0.84] |" in out
    assert "paired t-test over seeds" in out
    assert main(["compare", str(tmp_path), "fedlas:ls", "--stage", "auto"]) == 2
    assert "calibrators need the validation and test predictions" in capsys.readouterr().err


def test_a_picture_of_no_known_kind_writes_nothing(tmp_path, capsys):
    assert (
        main(
            [
                "compare",
                str(write_numbers(tmp_path)),
                "fedlas:ls",
                "--plot",
                str(tmp_path / "a.pgn"),
            ]
        )
        == 2
    )
    assert "the file name must end in an image format; got a.pgn" in capsys.readouterr().err
    assert not (tmp_path / "a.pgn").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([":fedlas"], "a pair must be two different methods, A:B"),
        (["fedlas:fedlas"], "a pair must be two different methods, A:B"),
        (["fedlas:"], "a pair must be two different methods, A:B"),
        (["fedls:ls"], "Did you mean 'fedlas'"),
        (["fedlas:ls", "--metrics", "eec"], "Did you mean 'ece'"),
        (["fedlas:ls", "--metrics", "ks"], "They measured"),
        (["fedlas@auto:ls@auto"], "calibrators need the validation and test predictions"),
        (["--method", "atuo"], "Did you mean 'auto'"),
        (["fedlas@auto:ls", "--stage", "auto"], "--stage must not be combined with --method"),
        (["none"], "the bench folder must exist"),
    ],
)
def test_what_cannot_be_compared(tmp_path, arguments, message, capsys):
    assert main(["compare", str(write_numbers(tmp_path)), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_folder_is_said(capsys):
    assert main(["compare", "fedlas:ls"]) == 2
    assert "requires a bench folder" in capsys.readouterr().err


def test_the_picture_is_the_same_each_time(tmp_path):
    write_numbers(tmp_path)
    files = [tmp_path / f"{name}.svg" for name in "ab"]
    for file in files:
        words = ["fedlas:ls", "fedlas:mbls", "--metrics", "ece", "nll", "--plot", str(file)]
        assert main(["compare", str(tmp_path), *words]) == 0
    first, second = (file.read_bytes() for file in files)
    assert first == second
    assert first.startswith(b"<?xml")
