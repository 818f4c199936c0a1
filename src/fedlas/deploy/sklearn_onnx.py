"""Export of a calibrated scikit-learn classifier to ONNX: converted estimator, merged with the calibrator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError, describe, one_line_error
from fedlas._core.extras import require
from fedlas.deploy.exported import (
    BATCH_SIZE,
    Exported,
    build_metadata,
    check_and_write,
    describe_input,
)
from fedlas.deploy.formats import OPSET, OUTPUTS, export_onnx_proto, quiet, serialize_onnx
from fedlas.predictions.tensors import safe_log


class _CalibratedHead(nn.Module):
    """Module from estimator scores, and optional side information columns, to calibrated logits and probabilities."""

    def __init__(
        self, layer: nn.Module, *, decides: bool, binary: bool, side: nn.Module | None
    ) -> None:
        super().__init__()
        self.layer = layer
        self.decides = decides  # scores are decision values, else probabilities
        self.binary = binary  # decision_function has one column for two classes
        self.side = side

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``(N, C)`` for scores ``(N, C)``, optional columns ``(N, D)``."""
        scores, *columns = inputs
        if self.decides and self.binary:
            half = scores[:, -1:] / 2
            logits = torch.cat([-half, half], dim=1)
        else:
            logits = scores if self.decides else safe_log(scores)
        calibrated = self.layer(
            logits, *(self.side(part) for part in columns if self.side is not None)
        )
        return calibrated, calibrated.softmax(dim=1)


def convert_classifier(model: Any, rows: NDArray[Any]) -> Any:
    """Convert a calibrated classifier to ONNX: ``X (N, D)``, in the dtype of ``rows``, to logits and probabilities."""
    compose = require("onnx.compose", extra="onnx")
    estimator = model.estimator_
    if type(estimator).__name__ == "FrozenEstimator":
        estimator = estimator.estimator
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    has_decision_function = hasattr(estimator, "decision_function")
    classes = len(model.classes_)
    base = _convert_estimator(estimator, last, rows, raw_scores=has_decision_function)
    scores = base.graph.output[-1].name
    # Inputs of the calibrator: scores, and columns of side information.
    dtype = torch.from_numpy(rows).dtype
    width = 2 if has_decision_function and classes == 2 else classes
    # Tree ensembles sum in single precision.
    kind = torch.float32 if booster_package(last) is not None else dtype
    example = {"scores": torch.zeros(3, width, dtype=kind)}
    side = _side_information_layer(model)
    base = compose.add_prefix(base, "estimator/", rename_inputs=False)
    links = [(f"estimator/{scores}", "scores")]
    if side is not None:
        columns = _add_side_columns(model, estimator, base, rows)
        example["columns"] = torch.zeros(3, len(model.side_columns_.columns), dtype=dtype)
        links.append((columns, "columns"))
    head = _CalibratedHead(
        model.fitted_.module(), decides=has_decision_function, binary=classes == 2, side=side
    ).eval()
    layer = export_onnx_proto(head, example, {})
    layer.ir_version = base.ir_version = max(layer.ir_version, base.ir_version)
    return compose.merge_models(base, layer, io_map=links, outputs=list(OUTPUTS))


def _convert_estimator(
    estimator: object, last: object, rows: NDArray[Any], *, raw_scores: bool
) -> Any:
    """Convert an estimator to ONNX; the last output holds decision values or probabilities."""
    if booster_package(last) is not None:
        with quiet:
            trees = convert_booster(last, raw_scores=raw_scores)
        return _append_trees_to_steps(estimator, trees, rows)
    scores = {"raw_scores": True} if raw_scores else {}
    try:
        return _convert_for_rows(estimator, last, rows, {"zipmap": False, **scores})
    except NameError:  # only some estimators have this option
        return _convert_for_rows(estimator, last, rows, scores)


def _convert_for_rows(
    estimator: object, last: object, rows: NDArray[Any], options: dict[str, bool]
) -> Any:
    helper = require("skl2onnx.algebra.type_helper", extra="onnx")
    return convert_to_onnx(estimator, last, helper.guess_initial_types(rows[:1], None), options)


def convert_to_onnx(
    estimator: object, last: object, types: object, options: dict[str, bool]
) -> Any:
    """Convert a fitted estimator or pipeline to ONNX with skl2onnx.

    Args:
        estimator: Fitted estimator or pipeline.
        last: The step that the options apply to.
        types: Pairs of input name and skl2onnx type.
        options: Options of skl2onnx.

    Raises:
        InputError: If skl2onnx cannot convert it.
    """
    skl2onnx = require("skl2onnx", extra="onnx")
    histograms = require("sklearn.ensemble", extra="sklearn").HistGradientBoostingClassifier
    if getattr(last, "is_categorical_", None) is not None:
        raise InputError(
            "the estimator must not have categorical features, which skl2onnx would treat as numeric",
            f"{type(last).__name__} with categorical_features",
            "Encode categories in a pipeline before the estimator, or use LightGBM or CatBoost.",
        )
    try:
        with quiet:
            proto = skl2onnx.convert_sklearn(
                estimator,
                initial_types=types,
                options={id(last): options} if options else None,
                target_opset=_OPSET_VERSIONS,
                custom_conversion_functions={histograms: _convert_histogram_trees},
            )
    except NameError:
        raise
    except Exception as error:  # whatever a converter meets in an estimator
        raise _conversion_error(
            "skl2onnx must be able to convert the estimator",
            last,
            error,
            "Save the model with skops or pickle instead, or use another estimator, such as "
            "GradientBoostingClassifier or LightGBM.",
        ) from error
    # skl2onnx sets minimum operator versions; merging graphs requires equal versions.
    versions = {each.domain: each.version for each in proto.opset_import} | _OPSET_VERSIONS
    helper = require("onnx.helper", extra="onnx")
    del proto.opset_import[:]
    proto.opset_import.extend(
        helper.make_opsetid(domain, version) for domain, version in versions.items()
    )
    return proto


def _convert_histogram_trees(scope: Any, operator: Any, container: Any) -> None:
    """Convert the trees of a ``HistGradientBoostingClassifier``, as a skl2onnx converter function."""
    # skl2onnx 1.20 writes the branch of missing values as booleans, which protobuf no longer accepts as integers.
    trees = require("skl2onnx.operator_converters.random_forest", extra="onnx")
    add_node = container.add_node

    def add_tree_node(*place: Any, **attributes: Any) -> None:
        where = "nodes_missing_value_tracks_true"
        if where in attributes:
            attributes[where] = [int(each) for each in attributes[where]]
        add_node(*place, **attributes)

    container.add_node = add_tree_node
    trees.convert_sklearn_random_forest_classifier(scope, operator, container)
    container.add_node = add_node


def _append_trees_to_steps(estimator: Any, trees: Any, rows: NDArray[Any]) -> Any:
    """Return a graph of the preprocessing steps followed by the trees, with inputs in the dtype of ``rows``."""
    helper = require("onnx.helper", extra="onnx")
    compose = require("onnx.compose", extra="onnx")
    kind = helper.np_dtype_to_tensor_dtype(rows.dtype)
    if not hasattr(estimator, "steps") or len(estimator.steps) < 2:
        trees.graph.input[0].type.tensor_type.elem_type = kind
        return trees
    front = _convert_for_rows(estimator[:-1], None, rows, {})
    front.ir_version = trees.ir_version = max(front.ir_version, trees.ir_version)
    trees.graph.input[0].type.tensor_type.elem_type = front.graph.output[
        0
    ].type.tensor_type.elem_type
    front = compose.add_prefix(front, "steps/", rename_inputs=False)
    trees = compose.add_prefix(trees, "trees/")
    link = (front.graph.output[0].name, trees.graph.input[0].name)
    return compose.merge_models(front, trees, io_map=[link])


def _conversion_error(expected: str, model: object, error: Exception, fix: str) -> InputError:
    return InputError(
        expected, f"{type(model).__name__} ({type(error).__name__}: {one_line_error(error)})", fix
    )


def _side_information_layer(model: Any) -> nn.Module | None:
    """Return the layer that maps columns to side information, or None if the calibrator uses none."""
    if not model.fitted_.uses_features:
        return None
    side = model.side_columns_
    if callable(model.features) or not side.is_numeric:
        raise InputError(
            "side information must come from numeric columns of X",
            "a custom function" if callable(model.features) else "columns with categories",
            "Fit it with features=False, or encode the categories in a pipeline.",
        )
    layer: nn.Module = side.layer()
    return layer


def _add_side_columns(model: Any, estimator: Any, base: Any, rows: NDArray[Any]) -> str:
    """Add the side information columns as an output of the estimator graph, and return the output name."""
    helper = require("onnx.helper", extra="onnx")
    graph = base.graph
    source = graph.input[0]
    name = "side/columns"
    if model.side_columns_.source is None:
        graph.node.append(helper.make_node("Identity", [source.name], [name], name="side/identity"))
        width = rows.shape[1]
    else:
        side = _convert_for_rows(estimator[:-1], None, rows, {})
        side = require("onnx.compose", extra="onnx").add_prefix(side, "side/")
        first = side.graph.input[0].name
        for node in side.graph.node:
            for place, entry in enumerate(node.input):
                node.input[place] = source.name if entry == first else entry
        graph.node.extend(side.graph.node)
        graph.initializer.extend(side.graph.initializer)
        name = side.graph.output[0].name
        width = len(model.side_columns_.columns)
    kind = source.type.tensor_type.elem_type
    graph.output.append(helper.make_tensor_value_info(name, kind, [None, width]))
    return name


def export_sklearn(
    model: object,
    out: Path,
    X: object,  # noqa: N803 (scikit-learn's name)
    about: dict[str, Any],
    tolerance: float,
) -> Exported:
    """Export a calibrated classifier to ONNX in float32, or in float64 if float32 is not accurate enough."""
    try:
        rows = np.asarray(X.toarray() if hasattr(X, "toarray") else X, dtype=np.float64)
    except (TypeError, ValueError):
        rows = np.empty(0)
    if rows.ndim != 2 or not len(rows):
        raise InputError(
            "inputs must be a numeric array (N, D)",
            describe(X),
            "Pass the features of example samples.",
        )
    try:
        return _write_sklearn(
            model, out, torch.from_numpy(rows.astype(np.float32)), about, tolerance
        )
    except (
        InputError
    ) as error:  # trees compare in float32, which is too coarse where probabilities underflow
        try:
            return _write_sklearn(model, out, torch.from_numpy(rows), about, tolerance)
        except InputError:
            raise error from None


def _write_sklearn(
    model: Any, out: Path, rows: Tensor, about: dict[str, Any], tolerance: float
) -> Exported:
    inputs = [describe_input("X", rows, {}, {})]
    about = {**about, "calibration": model.fitted_.to_dict()}

    def reference(batch: Mapping[str, Tensor]) -> NDArray[np.floating[Any]]:
        probs: NDArray[np.floating[Any]] = model.predict_proba(batch["X"].numpy())
        return probs

    content = serialize_onnx(convert_classifier(model, rows.numpy()), build_metadata(about, inputs))
    samples = ((part, reference(part)) for part in ({"X": each} for each in rows.split(BATCH_SIZE)))
    return check_and_write(out, "onnx", content, inputs, {"X": rows}, reference, samples, tolerance)


_WRAPPER_NODES = {"Identity", "Cast", "Mul", "ZipMap"}
"""Node types that converters add around the trees, and that only reshape the results."""
_OPSET_VERSIONS = {"": OPSET, "ai.onnx.ml": 3}
"""Operator set versions of ONNX, and of its domain for trees and other classical models."""


def booster_package(estimator: object) -> str | None:
    """Return ``"lightgbm"``, ``"xgboost"`` or ``"catboost"`` for their classifiers, or None for other estimators."""
    package = type(estimator).__module__.partition(".")[0]
    return package if package in ("lightgbm", "xgboost", "catboost") else None


def convert_booster(estimator: Any, *, raw_scores: bool) -> Any:
    """Convert a boosting classifier to ONNX: ``X (N, D)`` to ``scores (N, C)``, raw scores or probabilities."""
    helper = require("onnx.helper", extra="onnx")
    proto = _convert_trees(estimator)
    trees = [node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier"]
    others = (
        {node.op_type for node in proto.graph.node} - _WRAPPER_NODES - {"TreeEnsembleClassifier"}
    )
    if len(trees) != 1 or others:
        raise InputError(
            "the boosting classifier must convert to a single tree ensemble",
            f"{type(estimator).__name__}, converted to {', '.join(node.op_type for node in proto.graph.node)}",
            "Train it with tree boosters and a classification objective.",
        )
    (node,) = trees
    for attribute in node.attribute:
        if attribute.name == "post_transform" and raw_scores:
            attribute.s = b"NONE"
    node.input[0] = "numbers"
    node.output[1] = "scores"
    single = 1
    double = 11  # TensorProto.FLOAT and DOUBLE; the calibrator layer uses the dtype of X
    cast = helper.make_node("Cast", ["X"], ["numbers"], to=single)
    kind = helper.make_tensor_value_info("X", double, [None, int(estimator.n_features_in_)])
    scores = helper.make_tensor_value_info("scores", single, [None, None])
    graph = helper.make_graph([cast, node], "booster", [kind], [scores])
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSET_VERSIONS.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _convert_trees(estimator: Any) -> Any:
    """Convert a boosting classifier to ONNX with the converter of CatBoost or of onnxmltools."""
    package = booster_package(estimator)
    try:
        if package == "catboost":
            return require("catboost.utils", extra="onnx").convert_to_onnx_object(estimator)
        tools = require("onnxmltools", extra="onnx")
        types = require("onnxmltools.convert.common.data_types", extra="onnx")
        initial = [("X", types.FloatTensorType([None, int(estimator.n_features_in_)]))]
        convert = tools.convert_lightgbm if package == "lightgbm" else tools.convert_xgboost
        if package == "xgboost":
            # The converter accepts only feature names such as f0, not column names of a frame.
            estimator = copy.deepcopy(estimator)
            estimator.get_booster().feature_names = None
        return convert(estimator, initial_types=initial)
    except ImportError:
        raise
    except Exception as error:  # whatever a converter meets in an estimator
        raise _conversion_error(
            f"the ONNX converter for {package} must support the classifier",
            estimator,
            error,
            f"Save the model with {package} or pickle instead.",
        ) from error
