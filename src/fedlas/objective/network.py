"""The model in whatever a user passes: a module, wrapped or not, a list of them, or an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from fedlas._core.check import InputError, describe
from fedlas.objective.call import unwrapped
from fedlas.objective.ensemble import Ensemble
from fedlas.objective.objective import Objective
from fedlas.objective.onnx_model import OnnxModel


def network_of(model: Any) -> nn.Module:
    """Return the classifier as a module, without an :class:`Objective` and wrappers.

    Args:
        model: A module; a list or tuple of such, an ensemble; the path of an ONNX file, or a session of onnxruntime.

    Raises:
        InputError: If it is something else.
    """
    if isinstance(model, nn.Module):
        inner = unwrapped(model)
        return unwrapped(inner.model) if isinstance(inner, Objective) else inner
    if isinstance(model, list | tuple) and model:
        return Ensemble([network_of(member) for member in model])
    if hasattr(model, "get_outputs") or (
        isinstance(model, str | Path) and Path(model).suffix.lower() == ".onnx"
    ):
        return OnnxModel(model)
    fix = "Build it first, or pass the path of an .onnx file or a list of models."
    if hasattr(model, "predict_proba") or hasattr(model, "decision_function"):
        fix = "It is a scikit-learn classifier: fedlas.integrations.sklearn.CalibratedClassifier(model).fit(X, y)."
    elif hasattr(model, "predict") or hasattr(model, "apply"):
        fix = "Of Keras or JAX pass what it returns: fedlas.Predictions.from_probs(model.predict(inputs), target)."
    raise InputError("the model must be an nn.Module", describe(model), fix)
