"""Conversion of user models (wrapped modules, lists of models, ONNX files) to one module."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, describe, one_line_error, suggestion
from fedlas._core.extras import require
from fedlas.objective.call import class_logits, unwrap_model
from fedlas.objective.objective import Objective
from fedlas.predictions.tensors import safe_log

__all__ = ["Ensemble", "OnnxModel"]


def to_network(model: object) -> nn.Module:
    """Return the classifier as a module, without ``Objective`` and wrappers.

    Args:
        model: A module; a list or tuple of such, an ensemble; the path of an ONNX file, or a session of onnxruntime.

    Raises:
        InputError: If the model is something else.
    """
    if isinstance(model, nn.Module):
        inner = unwrap_model(model)
        return unwrap_model(inner.model) if isinstance(inner, Objective) else inner
    if isinstance(model, list | tuple) and model:
        return Ensemble([to_network(member) for member in model])
    if hasattr(model, "get_outputs") or (
        isinstance(model, str | Path) and Path(model).suffix.lower() == ".onnx"
    ):
        return OnnxModel(model)
    fix = "Build it first, or pass the path of an .onnx file or a list of models."
    if hasattr(model, "predict_proba") or hasattr(model, "decision_function"):
        fix = "For scikit-learn classifiers use fedlas.integrations.sklearn.CalibratedClassifier(model).fit(X, y)."
    elif hasattr(model, "predict") or hasattr(model, "apply"):
        fix = "For Keras or JAX models use fedlas.Predictions.from_probs(model.predict(inputs), target)."
    if isinstance(model, type):
        fix = f"Pass an instance, {model.__name__}(...), not the class."
    raise InputError("the model must be an nn.Module", describe(model), fix)


class Ensemble(nn.Module):
    """Ensemble of classifiers as one module; the logits are the log of the mean probabilities of the members.

    ``fedlas.predict`` and ``fedlas.calibrate`` make one of a list of models.

    Args:
        members: Classifiers with logits ``(N, C)`` or ``(N, C, d1, ...)`` that take the same inputs. All are run on the
            device of the inputs.

    Raises:
        InputError: If there is none, one is no module, or one occurs twice; when called, if their logits differ in
            shape.

    Example:
        >>> ensemble = Ensemble([nn.Identity(), nn.Flatten()])
        >>> ensemble(torch.tensor([[0.0, 1.0]])).softmax(1)
        tensor([[0.2689, 0.7311]])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        wrong = [member for member in members if not isinstance(member, nn.Module)]
        if wrong or not members:
            raise InputError(
                "members must be nn.Modules",
                describe(wrong[0] if wrong else []),
                "Pass trained models, [m1, m2, m3].",
            )
        if len({id(member) for member in members}) < len(members):
            raise InputError(
                "members must be different models",
                "the same model twice",
                "Pass each model once; all members have equal weight.",
            )
        self.members = nn.ModuleList(members)

    @property
    def called_as(self) -> nn.Module:
        """The member that defines the arguments of the ensemble."""
        return self.members[0]

    def forward(self, *inputs: Any, **options: Any) -> Tensor:
        """Return ``log mean_k softmax(z_k)``, in the shape and dtype of the members' logits."""
        parts = [class_logits(member(*inputs, **options)) for member in self.members]
        try:
            log_probs = torch.stack([part.log_softmax(dim=1) for part in parts])
        except RuntimeError as error:  # an exporter knows no sizes to compare
            raise InputError(
                "members must return logits of one shape",
                ", ".join(str(tuple(part.shape)) for part in parts),
                "Pass models with the same classes.",
            ) from error
        return log_probs.logsumexp(dim=0) - math.log(len(parts))


_PROBABILITY_OUTPUTS = ("probs", "probabilities", "output_probability")
"""Names of outputs with probabilities, in files of ``fedlas export``, skl2onnx and zipmaps."""
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxModel(nn.Module):
    """ONNX model as a module that returns logits; ``fedlas.predict("model.onnx", loader)`` creates one.

    Args:
        model: The file, or an ``onnxruntime.InferenceSession``.
        output: Name of the output with the logits. None: ``logits``; or the logarithm of ``probs`` or
            ``probabilities``; or else the only output of two or more axes.

    Raises:
        InputError: If onnxruntime does not load it, or no such output is there.
        MissingExtraError: If onnxruntime is not installed.

    Note:
        It runs where the session does, for a file on the processor, and no gradient flows through it. Inputs are given
        the dtype of the file's.
    """

    def __init__(self, model: Any, output: str | None = None) -> None:
        super().__init__()
        self._session = model if hasattr(model, "get_outputs") else _load_session(model)
        self._inputs = {each.name: each.type for each in self._session.get_inputs()}
        self._output = _select_output(self._session, output)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Return logits ``(N, C, ...)`` for inputs in the order of the file, or by name.

        Raises:
            InputError: For other inputs.
        """
        names = list(self._inputs)
        values = dict(zip(names, inputs, strict=False)) | named
        if len(inputs) + len(named) != len(names) or set(values) != set(names):
            raise InputError(
                f"inputs must match the inputs of the ONNX file, {', '.join(names)}",
                ", ".join(named) or f"{len(inputs)} inputs",
                "Pass several inputs as one tuple, ((a, b), target), or by these names.",
            )
        arrays = {name: _to_array(values[name], kind) for name, kind in self._inputs.items()}
        try:
            result = self._session.run([self._output], arrays)[0]
        except Exception as error:  # whatever an operator refuses
            raise InputError(
                "onnxruntime must be able to run the batch",
                one_line_error(error, 300),
                "Pass inputs of the shapes and types that the model was exported with.",
            ) from error
        if not isinstance(result, np.ndarray):
            raise InputError(
                f"output {self._output!r} must be an array",
                describe(result),
                "Convert it without a zipmap: options={'zipmap': False}.",
            )
        tensor = torch.from_numpy(result)
        return safe_log(tensor) if self._output in _PROBABILITY_OUTPUTS else tensor


def _load_session(path: Any) -> Any:
    """Return an onnxruntime session on the CPU for a file."""
    if not isinstance(path, str | Path) or not Path(path).is_file():
        raise InputError(
            "the ONNX file must exist",
            describe(path),
            "Pass the path of an .onnx file, or an onnxruntime.InferenceSession.",
        )
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        # No fallback, since onnxruntime prints about it to standard output.
        session = runtime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        for each in (*session.get_inputs(), *session.get_outputs()):
            each.name  # noqa: B018 (one that is no text raises)
    except Exception as error:  # of any kind of damage
        raise InputError(
            "onnxruntime must be able to load the file",
            f"{path} ({one_line_error(error)})",
            "Pass a file that torch.onnx.export or fedlas.deploy.export wrote.",
        ) from error
    return session


def _select_output(session: Any, name: str | None) -> str:
    """Return the name of the output that holds logits or probabilities."""
    outputs = session.get_outputs()
    names = [each.name for each in outputs]
    if name is not None:
        if name not in names:
            raise InputError(
                "output must be an output of the ONNX file", repr(name), suggestion(name, names)
            )
        return name
    for common in ("logits", *_PROBABILITY_OUTPUTS):
        if common in names:
            return common
    scores = [each.name for each in outputs if each.shape is not None and len(each.shape) > 1]
    if len(scores) == 1:
        return str(scores[0])
    raise InputError(
        "the file must have an output named logits or probs, or one output of two or more axes",
        ", ".join(names),
        "Pass the name of the output with the logits: fedlas.objective.network.OnnxModel(path, output=...).",
    )


def _to_array(value: object, kind: str) -> Any:
    """Return an input as an array of the dtype that the file requires."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    return array.astype(_DTYPES[kind], copy=False) if kind in _DTYPES else array
