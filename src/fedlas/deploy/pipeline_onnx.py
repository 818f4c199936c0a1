"""Export to ONNX of a scikit-learn pipeline that ends in a calibrated classifier, with one input per column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe
from fedlas._core.extras import require
from fedlas.deploy.exported import (
    BATCH_SIZE,
    Exported,
    build_metadata,
    check_and_write,
    describe_input,
)
from fedlas.deploy.formats import serialize_onnx
from fedlas.deploy.sklearn_onnx import convert_classifier, convert_to_onnx, export_sklearn

Columns = dict[str, NDArray[Any]]
"""ONNX inputs by name: numbers or text ``(N, 1)`` per column, or one matrix ``(N, D)``."""
ToFrame = Callable[[Mapping[str, Any]], Any]
"""Function from columns by name to the frame or array that the pipeline takes."""
_ATTEMPTS = ((np.float32, False), (np.float32, True), (np.float64, False), (np.float64, True))
"""Attempts: float dtype, and whether integers stay integers, as category codes must and scaled numbers must not."""
_FIX = "Export only the last step, with transformed inputs: export(pipe[-1], path, pipe[:-1].transform(X))."


def is_calibrated_pipeline(model: object) -> bool:
    """Return whether ``model`` is a pipeline whose last step is a fitted ``CalibratedClassifier``."""
    steps: Any = getattr(model, "steps", None) or [("", None)]
    last = steps[-1][1]
    return hasattr(last, "calibrator_") and hasattr(last, "estimator_")


def export_pipeline(
    pipe: Any,
    out: Path,
    X: Any,  # noqa: N803 (scikit-learn's name)
    about: dict[str, Any],
    tolerance: float,
) -> Exported:
    """Export a pipeline that ends in a calibrated classifier to an ONNX file.

    Raises:
        InputError: If a step cannot be converted, or the converted model gives other probabilities.
    """
    if len(pipe.steps) == 1:
        return export_sklearn(pipe[-1], out, X, about, tolerance)
    if not len(getattr(X, "shape", ())) == 2 or not len(X):
        raise InputError(
            "inputs must be a frame or an array (N, D) with at least one row",
            describe(X),
            "Pass example rows for the pipeline.",
        )
    errors: list[InputError] = []
    for kind, whole in _ATTEMPTS:
        try:
            columns, to_frame = _to_onnx_columns(X, kind, keep_integers=whole)
            probs = pipe.predict_proba(X)
            return _write_pipeline(pipe, out, columns, to_frame, probs, about, tolerance)
        except InputError as error:
            errors.append(error)
    # The probability difference of a converted attempt is more informative than conversion errors.
    closest = next((each for each in errors if each.parts[0].startswith("probab")), None)
    if closest is not None:
        expected, got, _ = closest.parts
        fix = f"Remove scaling before trees, which are sensitive to rounding. {_FIX}"
        raise InputError(expected, got, fix) from closest
    expected, got, fix = errors[0].parts
    if fix != _FIX:
        expected, got = (
            "skl2onnx must be able to convert the steps before the last",
            f"{got} ({expected})",
        )
    raise InputError(expected, got, _FIX) from errors[0]


def _to_onnx_columns(X: Any, dtype: type, *, keep_integers: bool) -> tuple[Columns, ToFrame]:  # noqa: N803
    """Return the columns of ``X`` in ONNX dtypes, and a function that converts them back to pipeline inputs."""
    if not hasattr(X, "columns"):
        try:
            matrix: NDArray[Any] = np.asarray(X.toarray() if hasattr(X, "toarray") else X).astype(
                dtype
            )
        except (TypeError, ValueError) as error:
            raise InputError(
                "inputs must be numeric, or a frame with named columns", describe(X), _FIX
            ) from error
        return {"X": matrix}, lambda columns: columns["X"]
    frames = require("pandas", extra="tables")
    columns = {}
    for name in X.columns:
        values = np.asarray(X[name])
        if values.dtype == bool or (np.issubdtype(values.dtype, np.integer) and not keep_integers):
            values = values.astype(dtype)
        elif np.issubdtype(values.dtype, np.integer):
            values = values.astype(np.int64)
        elif np.issubdtype(values.dtype, np.floating):
            values = values.astype(dtype)
        else:
            values = _to_text_column(name, values)
        columns[str(name)] = values[:, None]

    def to_frame(parts: Mapping[str, Any]) -> Any:
        names = dict(zip(map(str, X.columns), X.columns, strict=True))
        return frames.DataFrame({names[name]: part[:, 0] for name, part in parts.items()})

    return columns, to_frame


def _to_text_column(name: object, values: NDArray[Any]) -> NDArray[Any]:
    """Return a text column as objects; raise InputError if a value is missing, which ONNX does not support."""
    lacking = sum(not isinstance(value, str) for value in values.tolist())
    if lacking:
        raise InputError(
            f"column {str(name)!r} must be numeric, or have text in each row",
            f"{lacking:,} rows without text",
            _FIX,
        )
    return values.astype(object)


def _skl2onnx_types(columns: Columns) -> list[tuple[str, Any]]:
    """Return the graph inputs as pairs of name and skl2onnx tensor type."""
    types = require("skl2onnx.common.data_types", extra="onnx")
    by_dtype = {
        np.dtype(np.float32): types.FloatTensorType,
        np.dtype(np.float64): types.DoubleTensorType,
        np.dtype(np.int64): types.Int64TensorType,
        np.dtype(object): types.StringTensorType,
    }
    return [
        (name, by_dtype[column.dtype]([None, column.shape[1]])) for name, column in columns.items()
    ]


def _convert_steps(pipe: Any, columns: Columns) -> tuple[Any, dict[str, str]]:
    """Return the ONNX graph of the steps before the last, and the graph input name of each used column."""
    graph = convert_to_onnx(pipe[:-1], None, _skl2onnx_types(columns), {})
    # Converters change names that are not identifiers, and keep unused inputs.
    names = dict(zip(columns, [each.name for each in graph.graph.input], strict=True))
    read = {name for node in graph.graph.node for name in node.input}
    for each in [each for each in graph.graph.input if each.name not in read]:
        graph.graph.input.remove(each)
    return graph, {column: name for column, name in names.items() if name in read}


def _write_pipeline(
    pipe: Any,
    out: Path,
    columns: Columns,
    to_frame: ToFrame,
    probs: NDArray[np.floating[Any]],
    about: dict[str, Any],
    tolerance: float,
) -> Exported:
    compose = require("onnx.compose", extra="onnx")
    last = pipe[-1]
    # Merge the graph of the preprocessing steps with the graph of the calibrated classifier.
    steps, names = _convert_steps(pipe, columns)
    double = any(column.dtype == np.float64 for column in columns.values())
    numbers = pipe[:-1].transform(
        to_frame({name: part[:BATCH_SIZE] for name, part in columns.items()})
    )
    numbers = numbers.toarray() if hasattr(numbers, "toarray") else np.asarray(numbers)
    head = convert_classifier(last, numbers.astype(np.float64 if double else np.float32))
    kind = steps.graph.output[0].type.tensor_type.elem_type
    head.graph.input[0].type.tensor_type.elem_type = kind
    steps.ir_version = head.ir_version = max(steps.ir_version, head.ir_version)
    steps = compose.add_prefix(steps, "steps/", rename_inputs=False)
    head = compose.add_prefix(head, "last/", rename_outputs=False)
    link = (steps.graph.output[0].name, head.graph.input[0].name)
    whole = compose.merge_models(steps, head, io_map=[link])
    # Verify on all samples, in batches.
    samples = {graph_name: columns[name] for name, graph_name in names.items()}
    inputs = [describe_input(name, column, {}, {}) for name, column in samples.items()]
    about = {**about, "columns": list(names), "calibration": last.fitted_.to_dict()}
    content = serialize_onnx(whole, build_metadata(about, inputs))
    parts = (
        (
            {name: column[at : at + BATCH_SIZE] for name, column in samples.items()},
            probs[at : at + BATCH_SIZE],
        )
        for at in range(0, len(probs), BATCH_SIZE)
    )
    return check_and_write(out, "onnx", content, inputs, samples, None, parts, tolerance)
