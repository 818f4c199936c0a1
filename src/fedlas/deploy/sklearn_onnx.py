"""A calibrated classifier of scikit-learn in ONNX: ``skl2onnx`` converts its estimator, the calibrator follows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.deploy.formats import OPSET, OUTPUTS, onnx_bytes, onnx_program, quiet

_ML_OPSET = 3
"""Version of the operators for trees and other classical models."""


class _Behind(nn.Module):
    """Calibrated logits and probabilities of an estimator's scores.

    Args:
        layer: The calibrator's layer.
        decides: Whether the scores are those of ``decision_function``, else probabilities.
        binary: Whether there are two classes, of which ``decision_function`` has one column.
    """

    def __init__(self, layer: nn.Module, *, decides: bool, binary: bool) -> None:
        super().__init__()
        self.layer, self.decides, self.binary = layer, decides, binary

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``(N, C)`` of one input, the scores ``(N, C)``."""
        (scores,) = inputs
        if self.decides and self.binary:
            half = scores[:, -1:] / 2
            logits = torch.cat([-half, half], dim=1)
        else:
            logits = scores if self.decides else scores.clamp(min=torch.finfo(torch.float32).tiny).log()
        calibrated = self.layer(logits)
        return calibrated, calibrated.softmax(dim=1)


def write_sklearn(model: Any, rows: NDArray[Any], about: Mapping[str, Any]) -> bytes:
    """Return the content of an ONNX file from features ``X (N, D)`` to calibrated logits and probabilities.

    Args:
        model: A fitted ``CalibratedClassifier``.
        rows: Some features, of the dtype that the file takes.
        about: Facts to keep inside the file.

    Raises:
        InputError: If ``skl2onnx`` does not convert the estimator.
        MissingExtraError: If a package is not installed.
    """
    skl2onnx, compose = require("skl2onnx", extra="skl2onnx"), require("onnx.compose", extra="export")
    estimator = model.estimator_
    if type(estimator).__name__ == "FrozenEstimator":
        estimator = estimator.estimator
    decides, classes = hasattr(estimator, "decision_function"), len(model.classes_)
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    scores = {"raw_scores": True} if decides else {}
    base: Any = None
    for options in ({"zipmap": False}, {}):  # only some estimators have this option
        try:
            with quiet:
                base = skl2onnx.to_onnx(
                    estimator,
                    rows[:1],
                    options={id(last): options | scores},
                    target_opset={"": OPSET, "ai.onnx.ml": _ML_OPSET},
                )
            break
        except NameError:
            continue
        except Exception as error:  # whatever a converter meets in an estimator
            reason = " ".join(str(error).split())[:160]
            got = f"{type(last).__name__} ({type(error).__name__}: {reason})"
            fix = "Save the model by skops or pickle instead, or choose another estimator."
            raise InputError("fedlas export", "skl2onnx must convert the estimator", got, fix) from error
    width = 2 if decides and classes == 2 else classes
    behind = _Behind(model.calibrator_.module(), decides=decides, binary=classes == 2).eval()
    layer = onnx_program(behind, {"scores": torch.zeros(3, width, dtype=torch.from_numpy(rows).dtype)}, {})
    layer.ir_version = base.ir_version = max(layer.ir_version, base.ir_version)
    base = compose.add_prefix(base, "estimator/", rename_inputs=False)
    whole = compose.merge_models(base, layer, io_map=[(base.graph.output[1].name, "scores")], outputs=list(OUTPUTS))
    return onnx_bytes(whole, about)
