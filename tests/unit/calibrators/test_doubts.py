import torch

from fedlas import Predictions
from fedlas.calibrators._fit.fit_warnings import (
    absent_classes_warning,
    convergence_warning,
    join_warnings,
    no_change_warning,
)


def test_joining():
    assert join_warnings() is None
    assert join_warnings(None, None) is None
    assert join_warnings(None, "one.", None, "two.") == "one. Two."


def test_unchanged_counts_probabilities_and_not_logits():
    val = Predictions(torch.randn(50, 3), torch.zeros(50, dtype=torch.long))
    assert "changes no validation probability" in no_change_warning(val, lambda rows: rows + 5)
    assert no_change_warning(val, lambda rows: rows * 1.00001) is not None
    assert no_change_warning(val, lambda rows: rows * 1.01) is None
    one_row = val.tensors().logits.double()[17]
    assert (
        no_change_warning(
            val, lambda rows: torch.where((rows == one_row).all(1, keepdim=True), -rows, rows)
        )
        is None
    )


def test_absent_classes_are_named():
    val = Predictions(torch.randn(3, 9), [0, 8, 0])
    assert absent_classes_warning(val).startswith(
        "7 classes (1, 2, 3, 4, 5, ...) of 9 without a validation sample"
    )
    two = torch.randn(2, 2)
    assert "class 1 of 2" in absent_classes_warning(Predictions(two, [0, 0]))
    assert "class 1 of 2" in absent_classes_warning(
        Predictions(two, [0, 1], weights=torch.tensor([1.0, 0.0]))
    )
    assert absent_classes_warning(Predictions(two, [1, 0])) is None


def test_convergence():
    assert convergence_warning(True) is None
    assert "did not converge" in convergence_warning(False)
