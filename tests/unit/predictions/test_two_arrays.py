"""Two arrays, labels and scores in either order, and tables are what people of other libraries type."""

import numpy as np
import pytest
import torch

import fedlas
from fedlas.errors import InputError

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-2.0, 4.0, 0.0], [1.0, 0.0, 3.0]])
LABELS = [0, 1, 1, 2]
TRUTH = [1, 0, 0, 1]
PROBS = [0.9, 0.2, 0.6, 0.8]
BINARY = fedlas.Predictions.from_probs(torch.tensor(PROBS, dtype=torch.float64), TRUTH)


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        (LABELS, LOGITS, fedlas.Predictions(LOGITS, LABELS)),
        (np.array(LABELS, dtype=float), LOGITS.numpy(), fedlas.Predictions(LOGITS, LABELS)),
        (LABELS, LOGITS.softmax(1), fedlas.Predictions.from_probs(LOGITS.softmax(1), LABELS)),
        (TRUTH, PROBS, BINARY),
        ([True, False, False, True], PROBS, BINARY),
        ([[1], [0], [0], [1]], [[0.9], [0.2], [0.6], [0.8]], BINARY),
        (TRUTH, [0.0, 1.0, 0.6, 1.0], fedlas.Predictions.from_probs([0.0, 1.0, 0.6, 1.0], TRUTH)),
        (
            TRUTH,
            [2.0, -1.0, 0.5, 1.0],
            fedlas.Predictions([[0.0, 2.0], [0.0, -1.0], [0.0, 0.5], [0.0, 1.0]], TRUTH),
        ),
    ],
    ids=["logits", "numpy", "probs", "binary", "booleans", "columns", "certain", "log odds"],
)
def test_the_order_is_seen_by_shape_and_values(labels, scores, expected):
    values = fedlas.evaluate(expected)
    assert fedlas.evaluate(labels, scores) == pytest.approx(values, abs=1e-6)
    assert fedlas.evaluate(scores, labels) == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0, 1, 1], [1, 0, 1], "both with only 0 and 1"),
        ([0.2, 0.8], [0.5, 0.6], "both with values other"),
        ([0, 1, 2], [1, 2, 0], "scores of three or more classes"),
        ([0, 1], LOGITS, "same number of rows"),
        (torch.eye(3)[LABELS], LOGITS, r"target\.argmax\(1\)"),
        (["yes", "no"], [0.2, 0.9], "classes="),
        ([1, 0], [85.0, 20.0], "percent"),
    ],
)
def test_what_cannot_be_known_is_an_error(first, second, message):
    for arrays in ((first, second), (second, first)):
        with pytest.raises(InputError, match=message):
            fedlas.evaluate(*arrays)


def test_a_report_takes_two_arrays_and_a_table():
    frame = {"p": PROBS, "y": TRUTH, "site": ["a", "a", "b", "b"]}
    expected = fedlas.report(BINARY, replicates=0).measured["as predicted"]
    assert fedlas.report(TRUTH, PROBS, replicates=0).measured["as predicted"] == pytest.approx(
        expected
    )
    assert fedlas.report(frame, probs="p", target="y", replicates=0).measured[
        "as predicted"
    ] == pytest.approx(expected)
    by_site = fedlas.report(frame, probs="p", target="y", groups="site", replicates=0)
    assert "site" in str(by_site)
    repaired = fedlas.report(
        frame,
        probs="p",
        target="y",
        on=frame | {"p": [0.7, 0.3, 0.6, 0.4], "y": [1, 0, 1, 1]},
        method="temperature",
        replicates=0,
    )
    assert "after temperature" in repaired.measured
