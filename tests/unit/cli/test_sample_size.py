"""``fedlas sample-size`` prints what :func:`fedlas.binary.validation_size` says."""

from fedlas.binary import validation_size
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
