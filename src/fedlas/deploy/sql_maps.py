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
from fedlas.calibrators.spline import PiecewiseLinearMap
from fedlas.calibrators.structured import MIN_LOG_PROB, StructuredMap
from fedlas.calibrators.temperature import Divided

Names = list[str]
"""Names of columns, one per class."""
_MIN_EXPONENT = -700.0
"""Exponent below which the exponential is set to 0, near the float64 minimum."""
_MIN_LOG_COMPLEMENT = -1e30
"""Lower bound of the log-probability of all other classes, which may underflow."""
_LIFT = 1e-4
"""Logit margin by which the predicted class is kept on top, as in ``mixture``."""
_MAX_FINITE = 1.7e308
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

    def add_column(self, expression: str) -> str:
        """Append a stage with one column, and return the column name."""
        return self.add([expression])[0]


def number_literal(value: float | Tensor) -> str:
    """Return a number as a SQL literal; the exponent makes the type double instead of decimal."""
    text = repr(float(value))
    text = text if "e" in text else f"{text}e0"
    return f"({text})" if text.startswith("-") else text


def sum_terms(terms: Sequence[str]) -> str:
    """Return the SQL sum of terms, in parentheses."""
    return f"({' + '.join(terms)})"


def clamp_min(name: str, minimum: float | Tensor) -> str:
    """Return a SQL expression for the larger of a column and a constant."""
    return f"CASE WHEN {name} < {number_literal(minimum)} THEN {number_literal(minimum)} ELSE {name} END"


def null_unless_finite(program: Program, names: Names) -> Names:
    """Return copies of the columns that are all NULL in rows where any is NULL, NaN or infinite."""
    # NaN is larger than any number in some databases, and compares as false in others.
    finite = [
        f"{name} BETWEEN {number_literal(-_MAX_FINITE)} AND {number_literal(_MAX_FINITE)}"
        for name in names
    ]
    zero = program.add_column(f"CASE WHEN {' AND '.join(finite)} THEN 0.0e0 END")
    return program.add([f"{name} + {zero}" for name in names])


def exp_or_zero(expression: str) -> str:
    """Return a SQL expression for the exponential, 0 where it underflows."""
    return f"CASE WHEN {expression} < {number_literal(_MIN_EXPONENT)} THEN 0.0e0 ELSE EXP({expression}) END"


def log_softmax(program: Program, logits: Names) -> Names:
    """Append the stages of a log-softmax, and return the columns of log-probabilities."""
    largest = maximum(program, logits)
    shifted = program.add([f"{name} - {largest}" for name in logits])
    powers = program.add([exp_or_zero(name) for name in shifted])
    norm = program.add_column(f"LN{sum_terms(powers)}")
    return program.add([f"{name} - {norm}" for name in shifted])


def softmax(program: Program, logits: Names) -> Names:
    """Append the stages of a softmax, and return the columns of probabilities."""
    return program.add([exp_or_zero(name) for name in log_softmax(program, logits)])


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


def argmax(program: Program, names: Names) -> str:
    """Append the stages of an argmax, and return the column of the index (the first for ties)."""
    largest = maximum(program, names)
    cases = " ".join(f"WHEN {name} >= {largest} THEN {at}" for at, name in enumerate(names[:-1]))
    return program.add_column(f"CASE {cases} ELSE {len(names) - 1} END")


def log_probs_and_complements(program: Program, logits: Names) -> tuple[Names, Names]:
    """Return the columns of ``log p_k`` and of ``log(1 - p_k)``, accurate also where ``p_k`` is near 1."""
    log_probs = log_softmax(program, logits)
    if len(logits) == 2:
        rest = program.add([clamp_min(name, _MIN_LOG_COMPLEMENT) for name in log_probs[::-1]])
        return log_probs, rest
    top = argmax(program, log_probs)
    # Sum relative to the largest of the other classes, because their probabilities may all underflow.
    others = program.add(
        [
            f"CASE WHEN {top} = {at} THEN {number_literal(_MIN_LOG_COMPLEMENT)} ELSE {name} END"
            for at, name in enumerate(log_probs)
        ]
    )
    second = maximum(program, others)
    gaps = program.add([f"{name} - {second}" for name in others])
    small = program.add_column(
        f"{second} + LN{sum_terms([f'({exp_or_zero(gap)})' for gap in gaps])}"
    )
    probs = program.add([exp_or_zero(name) for name in log_probs])
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
    powers = program.add([exp_or_zero(name) for name in sizes])
    return program.add(
        [
            f"CASE WHEN {name} < 0 THEN {name} ELSE 0.0e0 END - LN(1.0e0 + {power})"
            for name, power in zip(scores, powers, strict=True)
        ]
    )


def _apply_temperature(program: Program, row_map: Divided, logits: Names) -> Names:
    return program.add([f"{name} / {number_literal(row_map.temperature)}" for name in logits])


def _apply_affine(program: Program, row_map: AffineMap, logits: Names) -> Names:
    weight = row_map.weight.diag() if row_map.weight.ndim == 1 else row_map.weight
    rows = []
    for numbers, bias in zip(weight.tolist(), row_map.bias.tolist(), strict=True):
        terms = [
            f"{number_literal(number)} * {name}"
            for number, name in zip(numbers, logits, strict=True)
            if number
        ]
        rows.append(sum_terms([number_literal(bias), *terms]))
    return program.add(rows)


def _apply_log_affine(program: Program, row_map: AffineMap, logits: Names) -> Names:
    return _apply_affine(program, row_map, log_softmax(program, logits))


def _apply_structured(program: Program, row_map: StructuredMap, logits: Names) -> Names:
    floors = program.add([clamp_min(name, MIN_LOG_PROB) for name in log_softmax(program, logits)])
    scaled = program.add([f"{name} / {number_literal(row_map.temperature)}" for name in floors])
    probs = softmax(program, scaled)
    uniform = 1 / (float(row_map.num_samples) + 1)
    mixed = [
        f"LN({number_literal(1 - uniform)} * {name} + {number_literal(uniform / len(logits))})"
        for name in probs
    ]
    return _apply_affine(program, row_map, program.add(mixed))


def _apply_shift(program: Program, row_map: Shifted, logits: Names) -> Names:
    moves = (row_map.target.log() - row_map.source.log()).tolist()
    scores = _apply_affine(program, row_map, logits)
    return program.add(
        [f"{name} + {number_literal(move)}" for name, move in zip(scores, moves, strict=True)]
    )


def _apply_sigmoids(program: Program, row_map: Sigmoids, logits: Names) -> Names:
    log_probs, rest = log_probs_and_complements(program, logits)
    scores = []
    for log_p, others, numbers in zip(log_probs, rest, row_map.numbers.tolist(), strict=True):
        if isinstance(row_map, PlattMap):
            slope, offset = numbers
            scores.append(
                f"{number_literal(slope)} * ({log_p} - {others}) + {number_literal(offset)}"
            )
        else:
            a, b, offset = numbers
            scores.append(
                f"{number_literal(a)} * {log_p} - {number_literal(b)} * {others} + {number_literal(offset)}"
            )
    return log_sigmoid(program, program.add(scores))


def _apply_pooled(program: Program, row_map: PooledMap, logits: Names) -> Names:
    log_probs, rest = log_probs_and_complements(program, logits)
    odds = program.add([f"{a} - {b}" for a, b in zip(log_probs, rest, strict=True)])
    return log_sigmoid(program, apply_label_curves(program, row_map, odds))


def apply_label_curves(program: Program, row_map: LabelCurves, odds: Names) -> Names:
    """Append the stages of per-label calibration curves, and return the columns of calibrated log-odds."""
    inside = []
    for name, low, high in zip(
        odds, *(each.tolist() for each in row_map.rising_range()), strict=True
    ):
        above = f"WHEN {name} > {number_literal(high)} THEN {number_literal(high)}"
        inside.append(
            f"CASE WHEN {name} < {number_literal(low)} THEN {number_literal(low)} {above} ELSE {name} END"
        )
    scores = program.add(inside)
    log_p = log_sigmoid(program, scores)
    rest = program.add([f"{a} - {b}" for a, b in zip(log_p, scores, strict=True)])
    curves = [
        f"{number_literal(a)} * {log_p} - {number_literal(b)} * {other} + {number_literal(offset)}"
        for log_p, other, (a, b, offset) in zip(log_p, rest, row_map.numbers.tolist(), strict=True)
    ]
    return program.add(curves)


def _apply_broken_lines(program: Program, row_map: PiecewiseLinearMap, logits: Names) -> Names:
    log_probs, rest = log_probs_and_complements(program, logits)
    odds = program.add([f"{a} - {b}" for a, b in zip(log_probs, rest, strict=True)])
    scores = []
    for name, knots, numbers in zip(
        odds, row_map.knots.tolist(), row_map.numbers.tolist(), strict=True
    ):
        slope, *bends, offset = numbers
        terms = [f"{number_literal(slope)} * {name}", number_literal(offset)]
        terms += [
            f"CASE WHEN {name} > {number_literal(knot)} "
            f"THEN {number_literal(bend)} * ({name} - {number_literal(knot)}) ELSE 0.0e0 END"
            for knot, bend in zip(knots, bends, strict=True)
        ]
        scores.append(sum_terms(terms))
    return log_sigmoid(program, program.add(scores))


def _apply_curves(program: Program, row_map: Curves, logits: Names) -> Names:
    probs = softmax(program, logits)
    ends = row_map.size.cumsum(0).tolist()
    values = []
    for name, size, end in zip(probs, row_map.size.tolist(), ends, strict=True):
        at = row_map.at[end - size : end].tolist()
        heights = row_map.value[end - size : end].tolist()
        cases = [f"WHEN {name} IS NULL THEN NULL"]
        cases += [f"WHEN {name} <= {number_literal(at[0])} THEN {number_literal(heights[0])}"]
        for number in range(1, size):
            width = at[number] - at[number - 1]
            slope = (heights[number] - heights[number - 1]) / width if width else 0.0
            slope = slope if math.isfinite(slope) else 0.0
            distance = f"({name} - {number_literal(at[number - 1])})"
            start = f"{number_literal(heights[number - 1])} + {number_literal(slope)} * {distance}"
            cases.append(f"WHEN {name} <= {number_literal(at[number])} THEN {start}")
        values.append(f"CASE {' '.join(cases)} ELSE {number_literal(heights[-1])} END")
    curves = program.add(values)
    return program.add([f"LN({clamp_min(name, row_map.floor)})" for name in curves])


def _apply_mixture(program: Program, row_map: CalibratedMixture, logits: Names) -> Names:
    parts = [log_softmax(program, apply_map(program, member, logits)) for member in row_map.members]
    result = _mix_members(program, row_map.share, parts)
    if not row_map.keep_class:
        return result
    top = argmax(program, logits)
    after = argmax(program, result)
    highest = maximum(program, result)
    return program.add(
        [
            f"CASE WHEN {top} = {at} AND {after} <> {at} THEN {highest} + {number_literal(_LIFT)} ELSE {name} END"
            for at, name in enumerate(result)
        ]
    )


def _mix_members(program: Program, pooling: Share, member_columns: list[Names]) -> Names:
    weights = [float(weight) for weight in pooling.weights]
    mixed = []
    for columns in zip(*member_columns, strict=True):
        largest = maximum(program, list(columns))
        gaps = program.add([f"{name} - {largest}" for name in columns])
        powers = program.add([exp_or_zero(gap) for gap in gaps])
        terms = [
            f"{number_literal(weight)} * {power}"
            for weight, power in zip(weights, powers, strict=True)
        ]
        mixed.append(program.add_column(f"{largest} + LN({sum_terms(terms)} + 1.0e-300)"))
    return log_softmax(program, _apply_affine(program, pooling.last, mixed))


def _apply_pooled_splines(program: Program, row_map: PooledSplines, logits: Names) -> Names:
    log_probs, rest = log_probs_and_complements(program, logits)
    scores = program.add(
        [
            f"{number_literal(a)} * {p} - {number_literal(b)} * {q} + {number_literal(c)}"
            for p, q, (a, b, c, *_) in zip(log_probs, rest, row_map.numbers.tolist(), strict=True)
        ]
    )
    width = row_map.width
    for knot, bends in zip(row_map.knots, row_map.numbers[:, 3:].T, strict=True):
        # softplus(x) = -log sigmoid(-x)
        below = program.add(
            [
                f"({number_literal(knot)} - {p} + {q}) / {number_literal(width)}"
                for p, q in zip(log_probs, rest, strict=True)
            ]
        )
        terms = zip(scores, (bends * width).tolist(), log_sigmoid(program, below), strict=True)
        scores = program.add([f"{x} - {number_literal(factor)} * {y}" for x, factor, y in terms])
    return log_sigmoid(program, scores)


_MAPS: dict[type[nn.Module], Callable[..., Names]] = {
    nn.Identity: lambda _program, _map, logits: logits,
    Divided: _apply_temperature,
    AffineMap: _apply_affine,
    DiagonalMap: _apply_affine,
    PenalizedMap: _apply_affine,
    PenalizedLogMap: _apply_log_affine,
    StructuredMap: _apply_structured,
    Shifted: _apply_shift,
    PlattMap: _apply_sigmoids,
    BetaMap: _apply_sigmoids,
    PooledMap: _apply_pooled,
    PiecewiseLinearMap: _apply_broken_lines,
    PooledSplines: _apply_pooled_splines,
    Curves: _apply_curves,
    CalibratedMixture: _apply_mixture,
}


def apply_map(program: Program, row_map: Any, logits: Names) -> Names:
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
            f"Fit without covariates by --method {', '.join(sql_calibrator_names())}, or auto with fewer than "
            f"{MANY_CLASSES} classes, or export to onnx.",
        )
    return write(program, row_map, logits)


def sql_calibrator_names() -> tuple[str, ...]:
    """Return the names of the calibrators with a SQL formula."""
    return tuple(
        each.name
        for each in CALIBRATORS.entries()
        if each.value.map_type in _MAPS and each.metadata.get("part", "val") == "val"
    )
