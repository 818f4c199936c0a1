"""``fedlas sample-size`` prints what :func:`fedlas.binary.validation_size` and ``development_size`` say."""

import pytest

from fedlas.binary import development_size, validation_size
from fedlas.cli import main


def test_the_table_is_that_of_the_function(capsys):
    words = ["sample-size", "--prevalence", "0.018", "--auroc", "0.8", "--lp-normal", "-5", "2.5"]
    assert main([*words, "--width-observed-to-expected", "1", "--threshold", "0.08"]) == 0
    size = validation_size(
        0.018, 0.8, lp_normal=(-5, 2.5), width_observed_to_expected=1, threshold=0.08
    )
    shown = capsys.readouterr().out
    assert " ".join(shown.split()) == " ".join(str(size).split())
    assert main(["sample-size", "--prevalence", "0.018"]) == 2
    assert "--auroc is required: the value that you expect" in capsys.readouterr().err


def test_development_prints_its_own_table(capsys):
    words = ["sample-size", "--development", "--prevalence", "0.174", "--r2", "0.288"]
    assert main([*words, "--parameters", "24"]) == 0
    shown = capsys.readouterr().out
    expected = str(development_size(0.174, parameters=24, r2=0.288))
    assert " ".join(shown.split()) == " ".join(expected.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--development", "--auroc", "0.8"], "--parameters is required"),
        (["--development", "--parameters", "3", "--threshold", "0.1"], "--threshold is for the validation"),
        (["--auroc", "0.8", "--parameters", "3"], "--parameters is for the development"),
        (["--auroc", "0.8", "--shrinkage", "0.8"], "--shrinkage is for the development"),
    ],
)  # fmt: skip
def test_options_of_the_other_plan_are_refused(words, message, capsys):
    assert main(["sample-size", "--prevalence", "0.2", *words]) == 2
    assert message in capsys.readouterr().err
