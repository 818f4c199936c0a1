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


DRAW = np.random.default_rng(0)
THREE = DRAW.dirichlet([1.0, 1.0, 1.0], 2000)
THREE_LABELS = (DRAW.uniform(size=(2000, 1)) > THREE.cumsum(1)).sum(1).clip(max=2)
POSITIVE = DRAW.uniform(size=2000)
IS_POSITIVE = (DRAW.uniform(size=2000) < POSITIVE).astype(int)
IS_POSITIVE[:2], THREE_LABELS[:2] = [0, 1], 1
ERROR = 1 - 0.9 - 0.1
"""A rounding error below 0, -2.8e-17."""


def with_errors(scores, low=ERROR, high=1 - ERROR):
    """The same scores, where two rows are 0 and 1, missed by rounding."""
    scores = scores.copy()
    scores[0], scores[1] = low, high
    if scores.ndim == 2:
        scores[:2] = [low, high, 0.0][: scores.shape[1]]
    return scores


@pytest.mark.parametrize(
    ("scores", "labels"), [(POSITIVE, IS_POSITIVE), (THREE, THREE_LABELS)], ids=["two", "three"]
)
@pytest.mark.parametrize(("low", "high"), [(ERROR, 1.0), (-9e-7, 1.0), (0.0, 1 + 2e-16)])
def test_rounding_error_leaves_probabilities_what_they_are(scores, labels, low, high):
    """One value of -2.8e-17 in 2,000 rows made ECE .222 for .030, and slope 5.3 for 1.0."""
    exact, missed = with_errors(scores, 0.0, 1.0), with_errors(scores, low, high)
    expected = fedlas.evaluate(exact, labels)
    assert fedlas.evaluate(missed, labels) == pytest.approx(expected, abs=1e-6)
    assert fedlas.metrics.ece(missed, labels) == pytest.approx(expected["ece"], abs=1e-6)
    assert fedlas.metrics.ece(missed, labels) < 0.05
    # The fit reads arrays of its own.
    calibrated = (
        fedlas.calibrators.CALIBRATORS["temperature"].value().fit(missed, labels).transform(missed)
    )
    assert calibrated.shape == missed.shape
    assert calibrated.min() >= 0
    if scores.ndim == 1:
        slopes = [fedlas.binary.slope(each, labels).value for each in (exact, missed)]
        assert slopes[1] == pytest.approx(slopes[0], rel=1e-6)


def test_rounding_error_leaves_probabilities_of_labels():
    probs = np.column_stack([POSITIVE, POSITIVE[::-1]])
    labels = np.column_stack([IS_POSITIVE, IS_POSITIVE[::-1]])
    missed = with_errors(probs)
    expected = fedlas.MultiLabel.from_probs(missed.clip(0, 1), labels)
    values = fedlas.evaluate(missed, labels)
    assert values == pytest.approx(fedlas.evaluate(expected), abs=1e-6)
    assert (
        fedlas.MultiLabel.from_probs(missed, labels)
        .tensors()
        .logits.equal(expected.tensors().logits)
    )
    with pytest.raises(InputError, match=r"in \[0, 1\].*-0.499"):
        fedlas.MultiLabel.from_probs(probs - 0.5, labels)


def test_rounding_error_leaves_probabilities_of_a_table():
    frame = {
        "p_a": with_errors(POSITIVE),
        "p_b": with_errors(POSITIVE),
        "y_a": IS_POSITIVE,
        "y_b": IS_POSITIVE,
    }
    several = fedlas.read_predictions(frame, probs="p_*", labels="y_*").predictions
    assert several.tensors().probs.max() <= 1
    one = fedlas.read_predictions(frame, probs="p_a", target="y_a").predictions
    assert one.tensors().logits.equal(
        fedlas.Predictions.from_probs(with_errors(POSITIVE), IS_POSITIVE).tensors().logits
    )


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        (with_errors(POSITIVE, -4e-4), IS_POSITIVE), (with_errors(THREE, -4e-4, 1.0004), THREE_LABELS),
        (with_errors(np.column_stack([POSITIVE] * 2), -4e-4), np.column_stack([IS_POSITIVE] * 2)),
    ],
    ids=["two", "three", "labels"],
)  # fmt: skip
def test_scores_between_probabilities_and_logits_are_asked_about(scores, labels):
    for call in (
        fedlas.evaluate,
        fedlas.metrics.ece,
        fedlas.calibrators.CALIBRATORS["temperature"].value().fit,
    ):
        if labels.ndim == 1 or call is fedlas.evaluate:
            with pytest.raises(InputError, match=r"-0.0004"):
                call(scores, labels)
