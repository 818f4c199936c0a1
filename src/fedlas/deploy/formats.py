"""The forms a model goes out in: each writes a file's bytes, and reads them back the way a user would."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.arrays import from_safetensors, to_safetensors
from fedlas._core.check import InputError
from fedlas._core.extras import require, require_all
from fedlas._core.files import parse_json
from fedlas.calibrated import CalibratedModel
from fedlas.deploy.calibration import read_calibration
from fedlas.deploy.model import EXTRA_LAYER, Deployed

INPUT, OUTPUTS = "images", ("logits", "probs")
"""Names of what goes into a run's model and what comes out of any."""
OPSET = 18
"""Of ONNX."""
_MOST_BYTES = 2**31 - 1  # a protobuf message cannot be larger

Examples = Mapping[str, Tensor]
"""Some samples of each input, by name, in the order of the inputs."""
Probs = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.floating[Any]]]
"""From inputs by name to probabilities ``(N, C, ...)``."""
Build = Callable[..., nn.Module]
"""Builds a model from its name and options."""


@dataclass(frozen=True)
class Format:
    """A form of a model.

    Attributes:
        suffix: How its files' names end.
        reader: What checks it.
        graph: Whether it holds the computation, normalization included, and not weights alone.
        write: From the model, some samples and what is said of it, to the content of a file.
        read: From the content to a function that a user of the file would have.
        example: From the file and some samples to four lines of Python that load and call it.
    """

    suffix: str
    reader: str
    graph: bool
    write: Callable[[Deployed, Examples, Mapping[str, Any]], bytes]
    read: Callable[[bytes, Build], Probs]
    example: Callable[[Path, Examples], list[str]]


def metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """Facts about a model by name: text unchanged, all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def _write_onnx(model: Deployed, example: Examples, about: Mapping[str, Any]) -> bytes:
    require_all(*((package, "export") for package in ("onnx", "onnxscript", "onnxruntime")))
    with _quiet():
        program = torch.onnx.export(
            model,
            tuple(example.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=list(OUTPUTS),
            dynamic_shapes=_any_number(example),
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        proto: Any = program.model_proto
    # The description travels in the file.
    require("onnx.helper", extra="export").set_model_props(proto, metadata(about))
    proto.producer_name, proto.producer_version = "fedlas", str(about.get("fedlas", ""))
    if proto.ByteSize() > _MOST_BYTES:
        raise InputError(
            "fedlas export", "an ONNX file holds at most 2 GiB", f"{proto.ByteSize():,} bytes", "Use torch-export."
        )
    content: bytes = proto.SerializeToString()
    return content


def _read_onnx(content: bytes, _build: Build) -> Probs:
    runtime = require("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUTS[1]], dict(inputs))[0]


def _onnx_lines(path: Path, example: Examples) -> list[str]:
    arrays = ", ".join(f'"{name}": numpy.zeros({_one(value)}, "{_kind(value)}")' for name, value in example.items())
    return [
        "import numpy, onnxruntime",
        f'session = onnxruntime.InferenceSession("{path.as_posix()}")',
        f"inputs = {{{arrays}}}  # your batch",
        "logits, probs = session.run(None, inputs)",
    ]


def _write_program(model: Deployed, example: Examples, about: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        program = torch.export.export(model, tuple(example.values()), dynamic_shapes=_any_number(example))
        torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata(about), indent=2)})
    return buffer.getvalue()


def _read_program(content: bytes, _build: Build) -> Probs:
    with _quiet():
        return _probs_of(torch.export.load(io.BytesIO(content)).module())


def _write_script(model: Deployed, example: Examples, about: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        traced: Any = torch.jit.trace(model, tuple(example.values()), check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={"metadata.json": json.dumps(metadata(about), indent=2)})
    return buffer.getvalue()


def _read_script(content: bytes, _build: Build) -> Probs:
    with _quiet():
        return _probs_of(torch.jit.load(io.BytesIO(content)))


def _torch_lines(load: str) -> Callable[[Path, Examples], list[str]]:
    def lines(path: Path, example: Examples) -> list[str]:
        parts = "".join(f"torch.zeros({_one(value)}, dtype={value.dtype}), " for value in example.values())
        return [
            "import torch" if load.startswith("torch") else "import torch, fedlas.deploy.formats, fedlas.lab.models",
            f"model = {load.format(path=path.as_posix())}",
            f"inputs = ({parts.strip()})  # your batch",
            "logits, probs = model(*inputs)",
        ]

    return lines


def _write_weights(model: Deployed, _example: Examples, about: Mapping[str, Any]) -> bytes:
    inner = model.model.model if isinstance(model.model, CalibratedModel) else model.model
    named = {f"fedlas.{key}": value for key, value in metadata(about).items()}
    return to_safetensors(inner.state_dict(), {"format": "pt", **named})


def _read_weights(content: bytes, build: Build) -> Probs:
    return _probs_of(_rebuilt(content, build))


def rebuilt(path: str | Path, build: Build) -> Deployed:
    """The model in a ``.safetensors`` file that ``fedlas export`` wrote, built anew from its metadata.

    Args:
        path: The file.
        build: Builds the model from its name and options, as :func:`fedlas.lab.models.build_model`.

    Returns:
        A module from images ``(N, channels, H, W)`` uint8 to calibrated logits and probabilities, in ``eval()``.

    Raises:
        InputError: If the file cannot be read, or is none of these.
    """
    try:
        return _rebuilt(Path(path).read_bytes(), build)
    except OSError as error:
        raise InputError("rebuilt", "the file must be readable", f"{path} ({error.strerror})", "Check it.") from error


def _rebuilt(content: bytes, build: Build) -> Deployed:
    try:
        tensors, header = from_safetensors(content)
        built, given, applied = (parse_json(header[f"fedlas.{name}"]) for name in ("model", "input", "calibration"))
        mean, std = (given["normalization"][name] for name in ("mean", "std"))
        calibration, layer = read_calibration(applied, built["num_classes"]), applied["folded into"]
    except (KeyError, ValueError, TypeError) as error:
        fix = "Write one with fedlas export RUN --format safetensors."
        raise InputError("rebuilt", "it must be a file that fedlas export wrote", repr(error), fix) from error
    # Building draws initial weights, which must not move the user's generator.
    with torch.random.fork_rng(devices=[]):
        model = build(
            built["name"],
            num_classes=built["num_classes"],
            in_channels=built["in_channels"],
            image_size=built["image_size"],
            **built["options"],
        )
    _add_biases(model, tensors)
    model.load_state_dict(tensors)
    if layer == EXTRA_LAYER and calibration.calibrator is not None:
        model = CalibratedModel(model, calibration.calibrator)
    return Deployed(model, mean=mean, std=std).eval()


def _add_biases(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give layers a bias that have one in the file: the offsets of vector scaling, in a head that had none."""
    for name in tensors.keys() - model.state_dict().keys():
        layer, _, last = name.rpartition(".")
        if last == "bias":
            model.get_submodule(layer).bias = torch.nn.Parameter(tensors[name].clone())


def _probs_of(module: Callable[..., Any]) -> Probs:
    def probs(inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.floating[Any]]:
        with torch.no_grad():
            found: NDArray[np.floating[Any]] = module(*map(torch.from_numpy, inputs.values()))[1].numpy()
        return found

    return probs


def _any_number(example: Examples) -> tuple[tuple[dict[int, Any], ...]]:
    """Return the free axes of each input of :class:`Deployed`: the batch, and the sequence of tokens.

    Tokens are whole numbers ``(N, L)``. Their length is free unless the model fixes it.
    """
    batch, automatic = torch.export.Dim("batch"), torch.export.Dim.AUTO
    tokens = (value.ndim == 2 and not value.is_floating_point() for value in example.values())
    return (tuple({0: batch, 1: automatic} if sequence else {0: batch} for sequence in tokens),)


def _one(value: Tensor) -> tuple[int, ...]:
    return (1, *value.shape[1:])


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "onnxruntime", True, _write_onnx, _read_onnx, _onnx_lines),
    "torch-export": Format(
        ".pt2", "torch.export.load", True, _write_program, _read_program,
        _torch_lines('torch.export.load("{path}").module()'),
    ),
    "torchscript": Format(
        ".pt", "torch.jit.load", True, _write_script, _read_script, _torch_lines('torch.jit.load("{path}")')
    ),
    "safetensors": Format(
        ".safetensors", "the model built anew", False, _write_weights, _read_weights,
        _torch_lines('fedlas.deploy.formats.rebuilt("{path}", fedlas.lab.models.build_model)'),
    ),
}  # fmt: skip
"""By the name on the command line."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress and their notices to their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
