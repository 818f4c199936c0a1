"""Properties that hold for all predictions, and an independent, slow and literal implementation of the definitions."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fedlas import Predictions
from fedlas.metrics import METRICS, StreamingMetrics, brier_decomposition, evaluate, scan
from fedlas.metrics.evaluation import compute_metrics

# Coarse logits make ties and edges frequent; the large ones make probabilities 0 and 1.
LOGITS = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0, math.log(2), math.log(3), 30.0, -200.0, 200.0])
OTHERS = [
    e.name for e in METRICS.entries() if not e.default and not e.needs and e.subject != "event"
]
EVERY = [e for e in METRICS.entries() if not e.needs and e.subject != "event"]


def defined(entries, predictions):
    """Those of the metrics that have a value for these labels."""
    labels = predictions.tensors().target
    if predictions.weights is not None:
        labels = labels[predictions.tensors().weights > 0]
    several = len(labels.unique()) > 1
    return [each for each in entries if several or not each.several_labels]


# of samples, and not by their shares alone
BY_NUMBER = {"adaptive_ece", "ace", "aurc", "e_aurc", "debiased_ece2"}
STREAMING = [e.name for e in METRICS.entries() if e in EVERY and (e.quantity or e.statistic)]


@st.composite
def predictions(draw, dtype=None, max_classes=6):
    samples, classes = draw(st.integers(1, 40)), draw(st.integers(1, max_classes))
    dtype = dtype or draw(st.sampled_from([torch.float16, torch.float32, torch.float64]))
    if draw(st.booleans()):
        values = draw(st.lists(LOGITS, min_size=samples * classes, max_size=samples * classes))
        logits = np.array(values).reshape(samples, classes)
    else:
        logits = (
            np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=(samples, classes)) * 3
        )
    target = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return Predictions(torch.tensor(logits).to(dtype), target)


def close(first, second, tolerance=2e-6):
    assert first.keys() == second.keys()
    for name in first:
        assert first[name] == pytest.approx(second[name], rel=tolerance, abs=tolerance), name


def literal(p, num_bins):
    """The definitions in Python, sample by sample, on the same probabilities."""
    probs, target, samples, classes = (
        p.probs,
        p.target.tolist(),
        p.num_samples,
        p.num_classes,
    )
    edges = [probs.dtype.type(b / num_bins) for b in range(num_bins + 1)]

    def place(value):
        return next((b for b in range(num_bins - 1) if value <= edges[b + 1]), num_bins - 1)

    def gaps(values, outcomes):
        sums, counts = [0.0] * num_bins, [0] * num_bins
        for value, outcome in zip(values, outcomes, strict=True):
            sums[place(value)] += float(value) - outcome
            counts[place(value)] += 1
        return [abs(s) for s in sums], counts

    ranking = [
        sorted(range(classes), key=lambda k, row=row: (-row[k], k)) for row in p.logits.tolist()
    ]
    correct = [order[0] == y for order, y in zip(ranking, target, strict=True)]
    top, counts = gaps(probs.max(1), correct)
    columns = [
        sum(gaps(probs[:, k], [y == k for y in target])[0]) / samples for k in range(classes)
    ]
    error = sum(
        (float(probs[i, k]) - (y == k)) ** 2 for i, y in enumerate(target) for k in range(classes)
    )
    samples_in = [[i for i, c in enumerate(probs.max(1)) if place(c) == b] for b in range(num_bins)]
    signed = [sum(float(probs[i].max()) - correct[i] for i in rows) for rows in samples_in]
    right = [sum(correct[i] for i in rows) for rows in samples_in]
    square = sum(
        n * ((g / n) ** 2 - r / n * (1 - r / n) / (n - 1))
        for g, r, n in zip(signed, right, counts, strict=True)
        if n > 1
    )
    return {
        "accuracy": sum(correct) / samples,
        "top5": sum(y in order[:5] for order, y in zip(ranking, target, strict=True)) / samples,
        "nll": float(
            torch.nn.functional.cross_entropy(p.tensors().logits.double(), p.tensors().target)
        ),
        "brier": error / samples,
        "ece": sum(top) / samples,
        "mce": max(gap / n for gap, n in zip(top, counts, strict=True) if n),
        "classwise_ece": sum(columns) / classes,
        "o_ece": sum(g for g in signed if g > 0) / samples,
        "u_ece": -sum(g for g in signed if g < 0) / samples,
        "debiased_ece2": square / samples,
    }


@given(predictions(), st.integers(1, 20))
def test_evaluate_is_the_literal_definition(p, num_bins):
    assume(p.num_classes != 2)  # those are measured by the event
    scores = evaluate(p, num_bins=num_bins)
    for name in ("adaptive_ece", "smooth_ece"):
        scores.pop(name)
    scores["top5"] = METRICS["top5"].value(p)  # evaluate has it from ten classes on
    close(scores, literal(p, num_bins))


@given(predictions(), st.randoms())
def test_order_of_samples_does_not_matter(p, random):
    order = list(range(p.num_samples))
    random.shuffle(order)
    turned = Predictions(p.tensors().logits[order], p.tensors().target[order])
    close(evaluate(p), evaluate(turned), 1e-11)
    for name in (each.name for each in defined(map(METRICS.__getitem__, OTHERS), p)):
        assert METRICS[name].value(p) == pytest.approx(
            METRICS[name].value(turned), rel=1e-12, abs=1e-14
        ), name


@given(predictions(), st.integers(1, 20), st.data())
def test_weights_are_repeated_rows_up_to_a_factor_and_0_is_absence(p, num_bins, data):
    some = st.lists(st.integers(0, 5), min_size=p.num_samples, max_size=p.num_samples).filter(any)
    weights = torch.tensor(data.draw(some), dtype=torch.float64)
    scale = data.draw(st.sampled_from([1e-20, 1 / 3, 7.0, 1e20]))

    def found(index, weights):
        part = Predictions(p.tensors().logits[index], p.tensors().target[index], weights=weights)
        return compute_metrics(part, defined(EVERY, part), num_bins)

    everyone, present = torch.arange(p.num_samples), weights.nonzero().squeeze(1)
    expected = found(everyone, weights)
    close(found(everyone, scale * weights), expected, 1e-9)
    close(found(present, weights[present]), expected, 1e-9)
    close(found(present, torch.full((len(present),), scale)), found(present, None), 1e-9)
    repeated = found(everyone.repeat_interleave(weights.long()), None)
    by_share = expected.keys() - BY_NUMBER
    close(
        {name: repeated[name] for name in by_share},
        {name: expected[name] for name in by_share},
        1e-9,
    )


@given(predictions(), st.integers(1, 20), st.randoms())
def test_merged_shards_are_the_whole(p, num_bins, random):
    """However they are cut and in whatever order they are merged; within the stated error."""
    shards = {}
    for row in range(p.num_samples):
        shards.setdefault(random.randrange(4), []).append(row)
    parts = []
    for rows in shards.values():
        part = StreamingMetrics(p.num_classes, metrics=STREAMING, num_bins=num_bins)
        part.update(p.tensors().logits[rows], p.tensors().target[rows])
        parts.append(part)
    merged = parts[0]
    for part in parts[1:]:
        merged.merge(part)
    whole = StreamingMetrics(p.num_classes, metrics=STREAMING, num_bins=num_bins)
    whole.update(p.tensors().logits, p.tensors().target)
    close(merged.compute(), whole.compute(), 1e-11)
    bounds = whole.error_bounds()
    for name, value in whole.compute().items():
        options = (
            {"num_bins": num_bins}
            if "num_bins" in inspect.signature(METRICS[name].value).parameters
            else {}
        )
        assert abs(value - METRICS[name].value(p, **options)) <= bounds[name] + 1e-11, name


@given(predictions(), st.randoms())
def test_order_of_classes_does_not_matter(p, random):
    order = list(range(p.num_classes))
    random.shuffle(order)
    order = torch.tensor(order)
    # Of equal logits the first class is predicted; without ties nothing may change.
    distinct = all(len(set(row)) == len(row) for row in p.logits.tolist())
    turned, scores = (
        evaluate(Predictions(p.tensors().logits[:, order], order.argsort()[p.tensors().target])),
        evaluate(p),
    )
    names = scores if distinct else ("nll", "brier")
    # Sums over classes in another order can move a probability by one unit, across an edge in the worst case.
    edge_free = not _near_an_edge(p)
    close({n: scores[n] for n in names if edge_free or n in ("nll", "brier")},
          {n: turned[n] for n in names if edge_free or n in ("nll", "brier")})  # fmt: skip


@given(predictions(dtype=torch.float64), st.sampled_from([-1000.0, -3.0, 7.0, 1e4]))
def test_a_constant_added_to_all_logits_changes_nothing(p, shift):
    if not _near_an_edge(p):
        moved = Predictions(p.tensors().logits + shift, p.tensors().target)
        if torch.equal(
            moved.tensors().predicted, p.tensors().predicted
        ):  # rounding of the sum can make a tie
            close(evaluate(p), evaluate(moved), 1e-7)


@st.composite
def shifted(draw):
    """Coarse logits, where ties within a row, between rows and at the edges of bins abound, and an exact shift."""
    samples, classes = draw(st.integers(1, 40)), draw(st.integers(1, 5))
    halves = st.sampled_from([0, 0, 1, 2, 3, -2, 16, -400, 400])
    values = draw(st.lists(halves, min_size=samples * classes, max_size=samples * classes))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    logits = torch.tensor(values, dtype=dtype).view(samples, classes) / 2
    target = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return Predictions(logits, target), draw(st.sampled_from([-4096, -1000, -3, 1, 7, 1000, 4096]))


@given(shifted(), st.integers(1, 20))
def test_an_exact_shift_of_all_logits_changes_no_metric_of_the_registry(given, num_bins):
    """Integers added to halves are exact, so ties stay ties, and no sample is left out for being near an edge."""
    p, shift = given
    moved = p.with_logits(p.tensors().logits + shift)
    assert torch.equal(moved.tensors().logits - shift, p.tensors().logits)
    for entry in defined(EVERY, p):
        if not entry.needs:
            options = (
                {"num_bins": num_bins}
                if "num_bins" in inspect.signature(entry.value).parameters
                else {}
            )
            expected = entry.value(p, **options)
            assert entry.value(moved, **options) == pytest.approx(expected, rel=1e-12, abs=1e-14), (
                entry.name
            )


def _near_an_edge(p, num_bins=15):
    scaled = p.tensors().probs.double() * num_bins
    middle = (p.tensors().probs > 1e-6) & (p.tensors().probs < 1 - 1e-6)
    ordered = p.tensors().confidence.double().sort().values
    close_pair = ((ordered.diff() > 0) & (ordered.diff() < 1e-5)).any()
    return bool(
        (((scaled - scaled.round()).abs() < 1e-4) & middle).any()
        or close_pair
        or (ordered.diff() == 0).any()
    )


@given(predictions(), st.integers(1, 60))
def test_ranges(p, num_bins):
    scores = evaluate(p, num_bins=num_bins)
    top_ece = METRICS["top_label_ece"].value(p, num_bins=num_bins)
    assert scores["nll"] >= 0
    assert -1e-12 <= scores["brier"] <= 2 + 1e-6
    for name in scores.keys() - {"nll", "brier", "debiased_ece2"}:
        assert 0 <= scores[name] <= 1, name
    assert -1 / 4 <= scores["debiased_ece2"] <= 1
    assert top_ece <= scores["mce"] + 1e-12
    assert abs(float(p.tensors().confidence.double().mean()) - scores["accuracy"]) <= top_ece + 1e-7
    gap = float(p.tensors().confidence.double().mean()) - scores["accuracy"]
    assert (
        abs(gap) <= min(scores["adaptive_ece"], scores["smooth_ece"], METRICS["ks"].value(p)) + 1e-7
    )
    assert scores["o_ece"] + scores["u_ece"] == pytest.approx(top_ece, rel=1e-9, abs=1e-12)
    assert scores["o_ece"] - scores["u_ece"] == pytest.approx(
        METRICS["confidence_gap"].value(p), rel=1e-9, abs=1e-9
    )
    assert top_ece - 1e-12 <= METRICS["rmsce"].value(p, num_bins=num_bins) <= scores["mce"] + 1e-12
    assert METRICS["e_aurc"].value(p) <= METRICS["aurc"].value(p) <= 1 + 1e-12
    parts = brier_decomposition(p, num_bins=num_bins)
    assert parts.calibration + parts.refinement + parts.within_bins == pytest.approx(
        scores["brier"], abs=1e-12
    )


@given(predictions(), st.integers(1, 50))
def test_size_of_the_chunk_does_not_matter(p, elements):
    whole = evaluate(p)
    kept = scan.CHUNK_ELEMENTS
    scan.CHUNK_ELEMENTS = elements
    try:
        close(evaluate(p), whole, 1e-11)
    finally:
        scan.CHUNK_ELEMENTS = kept


@given(predictions(), st.integers(1, 60))
def test_single_functions_equal_evaluate(p, num_bins):
    for name, value in evaluate(p, num_bins=num_bins).items():
        binned = "num_bins" in inspect.signature(METRICS[name].value).parameters
        assert METRICS[name].value(p, **({"num_bins": num_bins} if binned else {})) == value


@given(predictions(), st.integers(2, 4))
def test_repeating_every_sample_changes_nothing(p, times):
    repeated = evaluate(
        Predictions(p.tensors().logits.repeat(times, 1), p.tensors().target.repeat(times))
    )
    scores = evaluate(p)
    # Bins of equal mass are cut elsewhere when there are more samples, and what chance adds is less.
    for values in (repeated, scores):
        values.pop("adaptive_ece")
        values.pop("debiased_ece2")
    close(scores, repeated, 1e-6)
