"""Export formats: each converts a model to the bytes of a file, and loads them for predictions."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import require, require_all
from fedlas._core.outputs import FileKind, marked_kind
from fedlas._core.pixels import normalization_scale_shift
from fedlas._core.threads import SharedContext, ignore_warnings
from fedlas.deploy.sql import read_sql, sql_usage_lines, write_sql
from fedlas.objective.call import class_logits

OUTPUTS = ("logits", "probs")
"""Names of the outputs of an exported model."""
OPSET = 18
"""ONNX operator set version."""
_MAX_BYTES = 2**31 - 1  # a protobuf message cannot be larger

Examples = Mapping[str, Tensor]
"""Example tensors by input name, in the order of the inputs."""
Batch = Mapping[str, Tensor | NDArray[Any]]
"""Tensors or arrays (possibly of text) by input name."""
FreeAxes = Mapping[str, Sequence[int]]
"""Axes of dynamic size by input, besides the first axis."""
Probs = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.floating[Any]]]
"""Function from arrays by input name to probabilities ``(N, C, ...)``."""


class DeployedModel(nn.Module):
    """Module to export: optional pixel normalization, calibrated model and softmax."""

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        names: Sequence[str] | None = None,  # keywords of the inputs; None: by position
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.pixels = mean is not None
        if mean is not None and std is not None:
            scale, shift = normalization_scale_shift(
                mean, std, channels=len(mean), device=torch.device("cpu")
            )
            self.register_buffer("scale", scale)
            self.register_buffer("shift", shift)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return calibrated logits and probabilities ``(N, C, ...)``; pixels are uint8 ``(N, channels, H, W)``."""
        tensors = (
            [part.float() * self.scale + self.shift for part in inputs]
            if self.pixels
            else list(inputs)
        )
        named = {} if self.names is None else dict(zip(self.names, tensors, strict=True))
        output = self.model(*([] if named else tensors), **named)
        if getattr(self.model, "multi_label", False):
            return output, output.float().sigmoid()
        logits = class_logits(output)
        return logits, logits.float().softmax(dim=1)


@dataclass(frozen=True)
class Exporter:
    """Export format: functions that write, load and show how to call a file."""

    suffix: str
    # Runtime that loads the file for verification.
    reader: str
    # From model, example inputs, free axes and metadata to the bytes of a file.
    write: Callable[[nn.Module, Examples, FreeAxes, Mapping[str, Any]], bytes]
    # From the bytes to the prediction function of the file.
    read: Callable[[bytes], Probs]
    # From the path and example inputs to lines of code that load and call the file.
    example: Callable[[Path, Batch], list[str]]


def to_text_metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """Return metadata with all values as text: strings unchanged, other values as JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()
    }


def export_onnx_proto(model: nn.Module, example: Examples, axes: FreeAxes) -> Any:
    """Convert a module to an ONNX protobuf with the outputs ``logits`` and ``probs``."""
    require_all(*((package, "onnx") for package in ("onnx", "onnxscript", "onnxruntime")))
    with quiet:
        program = torch.onnx.export(
            model,
            tuple(example.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(OUTPUTS),
            dynamic_shapes=_dynamic_shapes(example, axes),
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return program.model_proto


def serialize_onnx(proto: Any, about: Mapping[str, Any]) -> bytes:
    """Return the bytes of an ONNX file with metadata; raise InputError above 2 GiB."""
    require("onnx.helper", extra="onnx").set_model_props(proto, to_text_metadata(about))
    proto.producer_name, proto.producer_version = "fedlas", str(about.get("fedlas", ""))
    if proto.ByteSize() > _MAX_BYTES:
        got = f"{proto.ByteSize():,} bytes"
        raise InputError("an ONNX file must be at most 2 GiB", got, "Use the format torch-export.")
    content: bytes = proto.SerializeToString()
    return content


def read_onnx(content: bytes) -> Probs:
    """Return the prediction function of an ONNX file, run by onnxruntime on the CPU."""
    runtime = require("onnxruntime", extra="onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUTS[1]], dict(inputs))[0]


def _write_onnx(
    model: nn.Module, example: Examples, axes: FreeAxes, about: Mapping[str, Any]
) -> bytes:
    return serialize_onnx(export_onnx_proto(model, example, axes), about)


def onnx_usage_lines(path: Path, example: Batch) -> list[str]:
    """Return lines of Python that load and call an ONNX file."""
    arrays = ", ".join(
        f'"{name}": numpy.zeros({(1, *value.shape[1:])}, "{str(value.dtype).removeprefix("torch.")}")'
        if str(value.dtype) != "object"
        else f'"{name}": numpy.array([["text"]], object)'
        for name, value in example.items()
    )
    return [
        "import numpy, onnxruntime",
        f'session = onnxruntime.InferenceSession("{path.as_posix()}")',
        f"inputs = {{{arrays}}}  # your batch",
        "logits, probs = session.run(None, inputs)",
    ]


def _write_exported_program(
    model: nn.Module, example: Examples, axes: FreeAxes, about: Mapping[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    with quiet, torch.no_grad():
        program = torch.export.export(
            model, tuple(example.values()), dynamic_shapes=_dynamic_shapes(example, axes)
        )
        torch.export.save(
            program,
            buffer,
            extra_files={"metadata.json": json.dumps(to_text_metadata(about), indent=2)},
        )
    return buffer.getvalue()


def _write_torchscript(
    model: nn.Module, example: Examples, _axes: FreeAxes, about: Mapping[str, Any]
) -> bytes:
    buffer = io.BytesIO()
    with quiet, torch.no_grad():
        traced: Any = torch.jit.trace(model, tuple(example.values()), check_trace=False)
        torch.jit.save(
            traced,
            buffer,
            _extra_files={"metadata.json": json.dumps(to_text_metadata(about), indent=2)},
        )
    return buffer.getvalue()


def _torch_reader(load: Callable[[Any], Callable[..., Any]]) -> Callable[[bytes], Probs]:
    def read(content: bytes) -> Probs:
        with quiet:
            module = load(io.BytesIO(content))

        def probs(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.floating[Any]]:
            with torch.no_grad():
                outputs = module(*map(torch.from_numpy, inputs.values()))
            array: NDArray[np.floating[Any]] = outputs[1].numpy()
            return array

        return probs

    return read


def _torch_usage_lines(load: str) -> Callable[[Path, Batch], list[str]]:
    def lines(path: Path, example: Batch) -> list[str]:
        zeros = [
            f"torch.zeros({(1, *value.shape[1:])}, dtype={value.dtype}),"
            for value in example.values()
        ]
        return [
            "import torch",
            f"model = {load.format(path=path.as_posix())}",
            f"inputs = ({' '.join(zeros)})  # your batch",
            "logits, probs = model(*inputs)",
        ]

    return lines


def _dynamic_shapes(example: Examples, axes: FreeAxes) -> tuple[tuple[dict[int, Any], ...]]:
    """Return the dynamic shapes of the inputs: the batch axis, the token axis of integer inputs, and ``axes``."""
    # Integer inputs (N, L) are tokens, of dynamic length unless the model fixes it.
    sizes = []
    dim = torch.export.Dim
    for name, value in example.items():
        tokens = {1: dim.AUTO} if value.ndim == 2 and not value.is_floating_point() else {}
        free = {axis: dim(f"{name}_{axis}".replace(".", "_")) for axis in axes.get(name, ())}
        sizes.append({0: dim("batch"), **tokens, **free})
    return (tuple(sizes),)


FORMATS: dict[str, Exporter] = {
    "onnx": Exporter(".onnx", "onnxruntime", _write_onnx, read_onnx, onnx_usage_lines),
    "torch-export": Exporter(
        ".pt2", "torch.export.load", _write_exported_program,
        _torch_reader(lambda file: torch.export.load(file).module()),
        _torch_usage_lines('torch.export.load("{path}").module()'),
    ),
    "torchscript": Exporter(
        ".pt", "torch.jit.load", _write_torchscript, _torch_reader(torch.jit.load),
        _torch_usage_lines('torch.jit.load("{path}")')
    ),
    "sql": Exporter(".sql", "SQLite", write_sql, read_sql, sql_usage_lines),
}  # fmt: skip
"""Export formats by name."""


def exported_file_kind(form: str) -> FileKind:
    """Return the file kind of an export format, recognized by suffix and the marker in the content."""
    suffix = FORMATS[form].suffix
    return marked_kind(f"a {suffix} of fedlas export", b"fedlas.export/", (suffix,))


@contextmanager
def _log_errors_only() -> Iterator[None]:
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "skl2onnx")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with ignore_warnings:
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


quiet = SharedContext(_log_errors_only)
"""Context manager that silences warnings and log messages of the exporters below errors."""
