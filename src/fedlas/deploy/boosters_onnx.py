"""Boosted trees of LightGBM, XGBoost and CatBoost as a graph of ONNX: one node of trees."""

from __future__ import annotations

from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import require

_AROUND = {"Identity", "Cast", "Mul", "ZipMap"}
"""Nodes that converters put around the trees, and that change the form of their results alone."""
ML_OPSET = 3
"""Version of the operators for trees and other classical models."""


def booster_of(estimator: Any) -> str | None:
    """Return the package of a gradient-boosting classifier; None of any other estimator."""
    package = type(estimator).__module__.partition(".")[0]
    return package if package in ("lightgbm", "xgboost", "catboost") else None


def booster_graph(estimator: Any, *, raw_scores: bool, opset: int) -> Any:
    """Return an ONNX model from ``X (N, D)`` of any float dtype to ``scores (N, C)``.

    Args:
        estimator: A fitted classifier of one of the packages.
        raw_scores: Whether scores are the sums of the trees, else probabilities.
        opset: Version of the operators.

    Raises:
        InputError: If the package's converter does not take it, or makes more than trees of it.
        MissingExtraError: If onnxmltools is not installed.
    """
    helper = require("onnx.helper", extra="export")
    proto = _converted(estimator)
    trees = [node for node in proto.graph.node if node.op_type == "TreeEnsembleClassifier"]
    others = {node.op_type for node in proto.graph.node} - _AROUND - {"TreeEnsembleClassifier"}
    if len(trees) != 1 or others:
        got = f"{type(estimator).__name__}, which becomes {', '.join(node.op_type for node in proto.graph.node)}"
        fix = "Train it with trees alone, and a classification objective."
        raise InputError("a booster must become one node of trees", got, fix)
    (node,) = trees
    for attribute in node.attribute:
        if attribute.name == "post_transform" and raw_scores:
            attribute.s = b"NONE"
    node.input[0] = "numbers"
    node.output[1] = "scores"
    single = 1
    double = 11  # TensorProto.FLOAT and DOUBLE; the layer behind takes what X has
    cast = helper.make_node("Cast", ["X"], ["numbers"], to=single)
    kind = helper.make_tensor_value_info("X", double, [None, int(estimator.n_features_in_)])
    scores = helper.make_tensor_value_info("scores", single, [None, None])
    graph = helper.make_graph([cast, node], "booster", [kind], [scores])
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _converted(estimator: Any) -> Any:
    """Return what the package's own converter, or that of onnxmltools, makes of the classifier."""
    package = booster_of(estimator)
    try:
        if package == "catboost":
            return require("catboost.utils", extra="boosters").convert_to_onnx_object(estimator)
        tools = require("onnxmltools", extra="boosters")
        types = require("onnxmltools.convert.common.data_types", extra="boosters")
        initial = [("X", types.FloatTensorType([None, int(estimator.n_features_in_)]))]
        convert = tools.convert_lightgbm if package == "lightgbm" else tools.convert_xgboost
        return convert(estimator, initial_types=initial)
    except ImportError:
        raise
    except Exception as error:  # whatever a converter meets in an estimator
        reason = " ".join(str(error).split())[:160]
        got = f"{type(estimator).__name__} ({type(error).__name__}: {reason})"
        fix = f"Save the model by {package} itself or by pickle."
        raise InputError(f"the converter for {package} must take it", got, fix) from error
