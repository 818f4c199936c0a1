import torch

from fedlas import Predictions
from fedlas.stats import class_estimates


def test_results_by_name_print_as_a_table():
    """Of three classes: 600 characters of a dict before."""
    logits = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    table = class_estimates(Predictions(logits, logits.argmax(1)), replicates=39)
    lines = str(table).splitlines()
    assert len(lines) == 4
    assert lines[0].split()[:4] == ["value", "low", "high", "floor"]
    assert lines[1].split()[:2] == ["0", f"{table[0].value:.4g}"]
    assert str(type(table)()) == ""
