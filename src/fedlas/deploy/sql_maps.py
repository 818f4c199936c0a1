"""Fitted calibration maps as SQL: each stage is a list of expressions over the columns of earlier stages.

Only ``+ - * /``, ``CASE``, ``EXP`` and ``LN`` are used, which every database has. ``EXP`` never underflows and ``LN``
is never applied to 0, since some databases raise errors there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas.calibrators._fit.softmax_regression import AffineMap, DiagonalMap
from fedlas.calibrators.base import CALIBRATORS
from fedlas.calibrators.isotonic import Curves
from fedlas.calibrators.label_shift import Shifted
from fedlas.calibrators.matrix import PenalizedLogMap, PenalizedMap
from fedlas.calibrators.mixture import CalibratedMixture, Share
from fedlas.calibrators.mixture_weights import MANY_CLASSES
from fedlas.calibrators.one_vs_rest import BetaMap, PlattMap, Sigmoids
from fedlas.calibrators.partial_pooling import LabelCurves, PooledMap
from fedlas.calibrators.pooled_spline import PooledSplines
from fedlas.calibrators.spline import BrokenLines
from fedlas.calibrators.structured import LEAST_LOG, StructuredMap
from fedlas.calibrators.temperature import Divided

Names = list[str]
"""Names of columns, one per class."""
_LEAST_EXPONENT = -700.0
"""Exponent below which the exponential is set to 0, near the float64 minimum."""
_NO_REST = -1e30
"""Lower bound of the log-probability of all other classes, which may underflow."""
_LIFT = 1e-4
"""Logit margin by which the predicted class is kept on top, as in ``mixture``."""
_LARGEST = 1.7e308
"""Largest finite score."""


class Program:
    """SQL program under construction: stages of columns, each computed from columns of earlier stages.

    Args:
        prefix: Prefix of the computed columns, which no column of the table has.

    State:
        ``stages``: lists of ``(name, expression)``, to which :meth:`add` appends.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.stages: list[list[tuple[str, str]]] = []
        self._count = 0

    def add(self, expressions: Sequence[str]) -> Names:
        """Append a stage with one column per expression, and return the column names."""
        names = [f"{self.prefix}{self._count + number}" for number in range(len(expressions))]
        self._count += len(names)
        self.stages.append(list(zip(names, expressions, strict=True)))
        return names

    def one(self, expression: str) -> str:
        """Append a stage with one column, and return the column name."""
        return self.add([expression])[0]


def literal(value: float | Tensor) -> str:
    """Return a number as a SQL literal; the exponent makes the type double instead of decimal."""
    text = repr(float(value))
    text = text if "e" in text else f"{text}e0"
    return f"({text})" if text.startswith("-") else text


def total(terms: Sequence[str]) -> str:
    """Return the SQL sum of terms, in parentheses."""
    return f"({' + '.join(terms)})"


def at_least(name: str, least: float | Tensor) -> str:
    """Return a SQL expression for the larger of a column and a constant."""
    return f"CASE WHEN {name} < {literal(least)} THEN {literal(least)} ELSE {name} END"


def null_unless_finite(program: Program, names: Names) -> Names:
    """Return copies of the columns that are all NULL in rows where any is NULL, NaN or infinite."""
    # NaN is larger than any number in some databases, and compares as false in others.
    finite = [f"{name} BETWEEN {literal(-_LARGEST)} AND {literal(_LARGEST)}" for name in names]
    zero = program.one(f"CASE WHEN {' AND '.join(finite)} THEN 0.0e0 END")
    return program.add([f"{name} + {zero}" for name in names])


def exponential(expression: str) -> str:
    """Return a SQL expression for the exponential, 0 where it underflows."""
    return (
        f"CASE WHEN {expression} < {literal(_LEAST_EXPONENT)} THEN 0.0e0 ELSE EXP({expression}) END"
    )


def log_softmax(program: Program, logits: Names) -> Names:
    """Append the stages of a log-softmax, and return the columns of log-probabilities."""
    largest = maximum(program, logits)
    shifted = program.add([f"{name} - {largest}" for name in logits])
    powers = program.add([exponential(name) for name in shifted])
    norm = program.one(f"LN{total(powers)}")
    return program.add([f"{name} - {norm}" for name in shifted])


def softmax(program: Program, logits: Names) -> Names:
    """Append the stages of a softmax, and return the columns of probabilities."""
    return program.add([exponential(name) for name in log_softmax(program, logits)])


def maximum(program: Program, names: Names) -> str:
    """Append the stages of a pairwise maximum, and return the column of the largest value."""
    while len(names) > 1:
        pairs = [names[at : at + 2] for at in range(0, len(names), 2)]
        names = program.add(
            [
                pair[0]
                if len(pair) == 1
                else f"CASE WHEN {pair[0]} >= {pair[1]} THEN {pair[0]} ELSE {pair[1]} END"
                for pair in pairs
            ]
        )
    return names[0]


def first_largest(program: Program, names: Names) -> str:
    """Append the stages of an argmax, and return the column of the index (the first for ties)."""
    largest = maximum(program, names)
    cases = " ".join(f"WHEN {name} >= {largest} THEN {at}" for at, name in enumerate(names[:-1]))
    return program.one(f"CASE {cases} ELSE {len(names) - 1} END")


def class_and_rest(program: Program, logits: Names) -> tuple[Names, Names]:
    """Return the columns of ``log p_k`` and of ``log(1 - p_k)``, accurate also where ``p_k`` is near 1."""
    log_probs = log_softmax(program, logits)
    if len(logits) == 2:
        rest = program.add([at_least(name, _NO_REST) for name in log_probs[::-1]])
        return log_probs, rest
    top = first_largest(program, log_probs)
    # Sum relative to the largest of the other classes, because their probabilities may all underflow.
    others = program.add(
        [
            f"CASE WHEN {top} = {at} THEN {literal(_NO_REST)} ELSE {name} END"
            for at, name in enumerate(log_probs)
        ]
    )
    second = maximum(program, others)
    gaps = program.add([f"{name} - {second}" for name in others])
    small = program.one(f"{second} + LN{total([f'({exponential(gap)})' for gap in gaps])}")
    probs = program.add([exponential(name) for name in log_probs])
    rest = program.add(
        [
            f"CASE WHEN {top} = {at} THEN {small} ELSE LN(1.0e0 - {name}) END"
            for at, name in enumerate(probs)
        ]
    )
    return log_probs, rest


def log_sigmoid(program: Program, scores: Names) -> Names:
    """Append the stages of ``log sigmoid``, without overflow, and return the columns."""
    sizes = program.add([f"CASE WHEN {name} < 0 THEN {name} ELSE -{name} END" for name in scores])
    powers = program.add([exponential(name) for name in sizes])
    return program.add(
        [
            f"CASE WHEN {name} < 0 THEN {name} ELSE 0.0e0 END - LN(1.0e0 + {power})"
            for name, power in zip(scores, powers, strict=True)
        ]
    )


def _divided(program: Program, row_map: Divided, logits: Names) -> Names:
    return program.add([f"{name} / {literal(row_map.temperature)}" for name in logits])


def _affine(program: Program, row_map: AffineMap, logits: Names) -> Names:
    weight = row_map.weight.diag() if row_map.weight.ndim == 1 else row_map.weight
    rows = []
    for numbers, bias in zip(weight.tolist(), row_map.bias.tolist(), strict=True):
        terms = [
            f"{literal(number)} * {name}"
            for number, name in zip(numbers, logits, strict=True)
            if number
        ]
        rows.append(total([literal(bias), *terms]))
    return program.add(rows)


def _log_affine(program: Program, row_map: AffineMap, logits: Names) -> Names:
    return _affine(program, row_map, log_softmax(program, logits))


def _structured(program: Program, row_map: StructuredMap, logits: Names) -> Names:
    floors = program.add([at_least(name, LEAST_LOG) for name in log_softmax(program, logits)])
    scaled = program.add([f"{name} / {literal(row_map.temperature)}" for name in floors])
    probs = softmax(program, scaled)
    uniform = 1 / (float(row_map.num_samples) + 1)
    mixed = [
        f"LN({literal(1 - uniform)} * {name} + {literal(uniform / len(logits))})" for name in probs
    ]
    return _affine(program, row_map, program.add(mixed))


def _shifted(program: Program, row_map: Shifted, logits: Names) -> Names:
    moves = (row_map.target.log() - row_map.source.log()).tolist()
    scores = _affine(program, row_map, logits)
    return program.add(
        [f"{name} + {literal(move)}" for name, move in zip(scores, moves, strict=True)]
    )


def _sigmoids(program: Program, row_map: Sigmoids, logits: Names) -> Names:
    log_probs, rest = class_and_rest(program, logits)
    scores = []
    for log_p, others, numbers in zip(log_probs, rest, row_map.numbers.tolist(), strict=True):
        if isinstance(row_map, PlattMap):
            slope, offset = numbers
            scores.append(f"{literal(slope)} * ({log_p} - {others}) + {literal(offset)}")
        else:
            a, b, offset = numbers
            scores.append(f"{literal(a)} * {log_p} - {literal(b)} * {others} + {literal(offset)}")
    return log_sigmoid(program, program.add(scores))


def _pooled(program: Program, row_map: PooledMap, logits: Names) -> Names:
    log_probs, rest = class_and_rest(program, logits)
    odds = program.add([f"{a} - {b}" for a, b in zip(log_probs, rest, strict=True)])
    return log_sigmoid(program, label_curves(program, row_map, odds))


def label_curves(program: Program, row_map: LabelCurves, odds: Names) -> Names:
    """Append the stages of per-label calibration curves, and return the columns of calibrated log-odds."""
    inside = []
    for name, low, high in zip(odds, *(each.tolist() for each in row_map.reach()), strict=True):
        above = f"WHEN {name} > {literal(high)} THEN {literal(high)}"
        inside.append(
            f"CASE WHEN {name} < {literal(low)} THEN {literal(low)} {above} ELSE {name} END"
        )
    scores = program.add(inside)
    log_p = log_sigmoid(program, scores)
    rest = program.add([f"{a} - {b}" for a, b in zip(log_p, scores, strict=True)])
    curves = [
        f"{literal(a)} * {log_p} - {literal(b)} * {other} + {literal(offset)}"
        for log_p, other, (a, b, offset) in zip(log_p, rest, row_map.numbers.tolist(), strict=True)
    ]
    return program.add(curves)


def _broken_lines(program: Program, row_map: BrokenLines, logits: Names) -> Names:
    log_probs, rest = class_and_rest(program, logits)
    odds = program.add([f"{a} - {b}" for a, b in zip(log_probs, rest, strict=True)])
    scores = []
    for name, knots, numbers in zip(
        odds, row_map.knots.tolist(), row_map.numbers.tolist(), strict=True
    ):
        slope, *bends, offset = numbers
        terms = [f"{literal(slope)} * {name}", literal(offset)]
        terms += [
            f"CASE WHEN {name} > {literal(knot)} THEN {literal(bend)} * ({name} - {literal(knot)}) ELSE 0.0e0 END"
            for knot, bend in zip(knots, bends, strict=True)
        ]
        scores.append(total(terms))
    return log_sigmoid(program, program.add(scores))


def _curves(program: Program, row_map: Curves, logits: Names) -> Names:
    probs = softmax(program, logits)
    ends = row_map.size.cumsum(0).tolist()
    values = []
    for name, size, end in zip(probs, row_map.size.tolist(), ends, strict=True):
        at = row_map.at[end - size : end].tolist()
        heights = row_map.value[end - size : end].tolist()
        cases = [f"WHEN {name} IS NULL THEN NULL"]
        cases += [f"WHEN {name} <= {literal(at[0])} THEN {literal(heights[0])}"]
        for number in range(1, size):
            width = at[number] - at[number - 1]
            slope = (heights[number] - heights[number - 1]) / width if width else 0.0
            slope = slope if math.isfinite(slope) else 0.0
            start = f"{literal(heights[number - 1])} + {literal(slope)} * ({name} - {literal(at[number - 1])})"
            cases.append(f"WHEN {name} <= {literal(at[number])} THEN {start}")
        values.append(f"CASE {' '.join(cases)} ELSE {literal(heights[-1])} END")
    curves = program.add(values)
    return program.add([f"LN({at_least(name, row_map.floor)})" for name in curves])


def _mixture(program: Program, row_map: CalibratedMixture, logits: Names) -> Names:
    parts = [
        log_softmax(program, columns_of_map(program, member, logits)) for member in row_map.members
    ]
    result = _share(program, row_map.share, parts)
    if not row_map.keep_class:
        return result
    top = first_largest(program, logits)
    after = first_largest(program, result)
    highest = maximum(program, result)
    return program.add(
        [
            f"CASE WHEN {top} = {at} AND {after} <> {at} THEN {highest} + {literal(_LIFT)} ELSE {name} END"
            for at, name in enumerate(result)
        ]
    )


def _share(program: Program, share: Share, parts: list[Names]) -> Names:
    weights = [float(weight) for weight in share.weights]
    mixed = []
    for columns in zip(*parts, strict=True):
        largest = maximum(program, list(columns))
        gaps = program.add([f"{name} - {largest}" for name in columns])
        powers = program.add([exponential(gap) for gap in gaps])
        terms = [
            f"{literal(weight)} * {power}" for weight, power in zip(weights, powers, strict=True)
        ]
        mixed.append(program.one(f"{largest} + LN({total(terms)} + 1.0e-300)"))
    return log_softmax(program, _affine(program, share.last, mixed))


def _pooled_splines(program: Program, row_map: PooledSplines, logits: Names) -> Names:
    log_probs, rest = class_and_rest(program, logits)
    scores = program.add(
        [
            f"{literal(a)} * {p} - {literal(b)} * {q} + {literal(c)}"
            for p, q, (a, b, c, *_) in zip(log_probs, rest, row_map.numbers.tolist(), strict=True)
        ]
    )
    width = row_map.width
    for knot, bends in zip(row_map.knots, row_map.numbers[:, 3:].T, strict=True):
        # softplus(x) = -log sigmoid(-x)
        below = program.add(
            [
                f"({literal(knot)} - {p} + {q}) / {literal(width)}"
                for p, q in zip(log_probs, rest, strict=True)
            ]
        )
        terms = zip(scores, (bends * width).tolist(), log_sigmoid(program, below), strict=True)
        scores = program.add([f"{x} - {literal(factor)} * {y}" for x, factor, y in terms])
    return log_sigmoid(program, scores)


_MAPS: dict[type[nn.Module], Callable[..., Names]] = {
    nn.Identity: lambda _program, _map, logits: logits,
    Divided: _divided,
    AffineMap: _affine,
    DiagonalMap: _affine,
    PenalizedMap: _affine,
    PenalizedLogMap: _log_affine,
    StructuredMap: _structured,
    Shifted: _shifted,
    PlattMap: _sigmoids,
    BetaMap: _sigmoids,
    PooledMap: _pooled,
    BrokenLines: _broken_lines,
    PooledSplines: _pooled_splines,
    Curves: _curves,
    CalibratedMixture: _mixture,
}


def columns_of_map(program: Program, row_map: Any, logits: Names) -> Names:
    """Append the stages of a fitted calibration map, and return the columns of calibrated logits.

    Raises:
        InputError: If the map has no SQL formula.
    """
    write = _MAPS.get(type(row_map))
    got = type(row_map).__name__ if write is None else ""
    if isinstance(row_map, CalibratedMixture):
        got = "auto with many classes" if row_map.share.top is not None else got
        got = "auto with classes that have no samples" if row_map.absent is not None else got
        got = "auto with covariates" if row_map.side is not None else got
    if write is None or got:
        raise InputError(
            "for sql the calibrator must have a SQL formula",
            got,
            f"Fit without covariates by --method {', '.join(with_formula())}, or auto with fewer than {MANY_CLASSES} "
            "classes, or export to onnx.",
        )
    return write(program, row_map, logits)


def with_formula() -> tuple[str, ...]:
    """Return the names of the calibrators with a SQL formula."""
    return tuple(
        each.name
        for each in CALIBRATORS.entries()
        if each.value.map_type in _MAPS and each.metadata.get("part", "val") == "val"
    )
