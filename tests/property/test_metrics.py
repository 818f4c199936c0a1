"""Properties that hold for all predictions, and an independent, slow and literal implementation of the definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlas import Predictions
from fedlas.metrics import METRICS, evaluate, scan

# Coarse logits make ties and edges frequent; the large ones make probabilities 0 and 1.
LOGITS = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, math.log(2), math.log(3), 30.0, -200.0, 200.0])


@st.composite
def predictions(draw, dtype=None, max_classes=6):
    samples, classes = draw(st.integers(1, 40)), draw(st.integers(1, max_classes))
    dtype = dtype or draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    if draw(st.booleans()):
        values = draw(st.lists(LOGITS, min_size=samples * classes, max_size=samples * classes))
        logits = np.array(values).reshape(samples, classes)
    else:
        logits = np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(samples, classes)) * 3
    target = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return Predictions(torch.tensor(logits).to(dtype), target)


def close(first, second, tolerance=2e-6):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name] == pytest.approx(second[name], rel=tolerance, abs=tolerance), name


def literal(p, num_bins):
    """The definitions in Python, sample by sample, on the same probabilities."""
    probs, target, samples, classes = p.probs.numpy(), p.target.tolist(), p.num_samples, p.num_classes
    edges = [probs.dtype.type(b / num_bins) for b in range(num_bins + 1)]

    def place(value):
        return next((b for b in range(num_bins - 1) if value <= edges[b + 1]), num_bins - 1)

    def gaps(values, outcomes):
        sums, counts = [0.0] * num_bins, [0] * num_bins
        for value, outcome in zip(values, outcomes, strict=True):
            sums[place(value)] += float(value) - outcome
            counts[place(value)] += 1
        return [abs(s) for s in sums], counts

    ranking = [sorted(range(classes), key=lambda k, row=row: (-row[k], k)) for row in p.logits.tolist()]
    correct = [order[0] == y for order, y in zip(ranking, target, strict=True)]
    top, counts = gaps(probs.max(1), correct)
    columns = [sum(gaps(probs[:, k], [y == k for y in target])[0]) / samples for k in range(classes)]
    error = sum((float(probs[i, k]) - (y == k)) ** 2 for i, y in enumerate(target) for k in range(classes))
    return {
        "accuracy": sum(correct) / samples,
        "top5": sum(y in order[:5] for order, y in zip(ranking, target, strict=True)) / samples,
        "nll": float(torch.nn.functional.cross_entropy(p.logits.double(), p.target)),
        "brier": error / samples,
        "ece": sum(top) / samples,
        "mce": max(gap / n for gap, n in zip(top, counts, strict=True) if n),
        "classwise_ece": sum(columns) / classes,
    }


@settings(max_examples=150, deadline=None)
@given(predictions(), st.integers(1, 20))
def test_evaluate_is_the_literal_definition(p, num_bins):
    scores = evaluate(p, num_bins=num_bins)
    scores.pop("adaptive_ece")
    close(scores, literal(p, num_bins))


@settings(max_examples=60, deadline=None)
@given(predictions(), st.randoms())
def test_order_of_samples_does_not_matter(p, random):
    order = list(range(p.num_samples))
    random.shuffle(order)
    close(evaluate(p), evaluate(Predictions(p.logits[order], p.target[order])), 1e-6)


@settings(max_examples=60, deadline=None)
@given(predictions(), st.randoms())
def test_order_of_classes_does_not_matter(p, random):
    order = list(range(p.num_classes))
    random.shuffle(order)
    order = torch.tensor(order)
    # Of equal logits the first class is predicted; without ties nothing may change.
    distinct = all(len(set(row)) == len(row) for row in p.logits.tolist())
    turned, scores = evaluate(Predictions(p.logits[:, order], order.argsort()[p.target])), evaluate(p)
    names = scores if distinct else ("nll", "brier")
    # Sums over classes in another order can move a probability by one unit, across an edge in the worst case.
    edge_free = not _near_an_edge(p)
    close({n: scores[n] for n in names if edge_free or n in ("nll", "brier")},
          {n: turned[n] for n in names if edge_free or n in ("nll", "brier")})  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(predictions(dtype=torch.float64), st.sampled_from([-1000.0, -3.0, 7.0, 1e4]))
def test_a_constant_added_to_all_logits_changes_nothing(p, shift):
    if not _near_an_edge(p):
        moved = Predictions(p.logits + shift, p.target)
        if torch.equal(moved.predicted, p.predicted):  # rounding of the sum can make a tie
            names = [n for n in evaluate(p) if n != "top5"]
            close({n: evaluate(p)[n] for n in names}, {n: evaluate(moved)[n] for n in names}, 1e-7)


def _near_an_edge(p, num_bins=15):
    scaled = p.probs.double() * num_bins
    middle = (p.probs > 1e-6) & (p.probs < 1 - 1e-6)
    ordered = p.confidence.double().sort().values
    close_pair = ((ordered.diff() > 0) & (ordered.diff() < 1e-5)).any()
    return bool((((scaled - scaled.round()).abs() < 1e-4) & middle).any() or close_pair or (ordered.diff() == 0).any())


@settings(max_examples=60, deadline=None)
@given(predictions(), st.integers(1, 60))
def test_ranges(p, num_bins):
    scores = evaluate(p, num_bins=num_bins)
    assert scores["nll"] >= 0
    assert -1e-12 <= scores["brier"] <= 2 + 1e-6
    for name in scores.keys() - {"nll", "brier"}:
        assert 0 <= scores[name] <= 1, name
    assert scores["ece"] <= scores["mce"] + 1e-12
    assert abs(float(p.confidence.double().mean()) - scores["accuracy"]) <= scores["ece"] + 1e-7
    assert abs(float(p.confidence.double().mean()) - scores["accuracy"]) <= scores["adaptive_ece"] + 1e-7


@settings(max_examples=40, deadline=None)
@given(predictions(), st.integers(1, 50))
def test_size_of_the_chunk_does_not_matter(p, elements):
    whole = evaluate(p)
    kept = scan.CHUNK_ELEMENTS
    scan.CHUNK_ELEMENTS = elements
    try:
        close(evaluate(p), whole, 1e-6)
    finally:
        scan.CHUNK_ELEMENTS = kept


@settings(max_examples=40, deadline=None)
@given(predictions(), st.integers(1, 60))
def test_single_functions_equal_evaluate(p, num_bins):
    for name, value in evaluate(p, num_bins=num_bins).items():
        binned = name not in ("accuracy", "top5", "nll", "brier")
        assert METRICS[name].value(p, **({"num_bins": num_bins} if binned else {})) == value


@settings(max_examples=40, deadline=None)
@given(predictions(), st.integers(2, 4))
def test_repeating_every_sample_changes_nothing(p, times):
    repeated = evaluate(Predictions(p.logits.repeat(times, 1), p.target.repeat(times)))
    scores = evaluate(p)
    # Bins of equal mass are cut elsewhere when there are more samples.
    for values in (repeated, scores):
        values.pop("adaptive_ece")
    close(scores, repeated, 1e-6)
