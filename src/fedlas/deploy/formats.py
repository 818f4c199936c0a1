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

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas.deploy.model import EXTRA_LAYER, Affine, Deployed

INPUT, OUTPUTS = "images", ("logits", "probs")
"""Names of what goes in and comes out."""
OPSET = 18
"""Of ONNX."""
_PREFIX = "model."
_MOST_BYTES = 2**31 - 1  # a protobuf message cannot be larger

Probs = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
"""From images ``(N, channels, H, W)`` uint8 to probabilities ``(N, C)``."""
Build = Callable[..., nn.Module]
"""Builds a model from its name and options."""


@dataclass(frozen=True)
class Format:
    """A form of a model.

    Attributes:
        suffix: How its files' names end.
        reader: What checks it.
        graph: Whether it holds the computation, normalization included, and not weights alone.
        write: From the model, some images and what is said of it, to the content of a file.
        read: From the content to a function that a user of the file would have.
    """

    suffix: str
    reader: str
    graph: bool
    write: Callable[[Deployed, Tensor, Mapping[str, Any]], bytes]
    read: Callable[[bytes, Build], Probs]


def metadata(about: Mapping[str, Any]) -> dict[str, str]:
    """Facts about a model by name: text unchanged, all else as JSON."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}


def _write_onnx(model: Deployed, example: Tensor, about: Mapping[str, Any]) -> bytes:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, extra="export")
    with _quiet():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing")
        proto: Any = program.model_proto
    # The description travels in the file.
    require("onnx.helper", extra="export").set_model_props(proto, metadata(about))
    proto.producer_name, proto.producer_version = "fedlas", str(about.get("fedlas", ""))
    if proto.ByteSize() > _MOST_BYTES:
        raise InputError(
            "fedlas export", "an ONNX file holds at most 2 GiB", f"{proto.ByteSize():,} bytes", "Use safetensors."
        )
    content: bytes = proto.SerializeToString()
    return content


def _read_onnx(content: bytes, _build: Build) -> Probs:
    runtime = require("onnxruntime", extra="export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUTS[1]], {INPUT: images})[0]


def _write_program(model: Deployed, example: Tensor, about: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with _quiet(), torch.no_grad():
        program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata(about), indent=2)})
    return buffer.getvalue()


def _read_program(content: bytes, _build: Build) -> Probs:
    with _quiet():
        module = torch.export.load(io.BytesIO(content)).module()
    return lambda images: _probs_of(module, images)


def _write_weights(model: Deployed, example: Tensor, about: Mapping[str, Any]) -> bytes:
    del example
    tensors = {
        name.removeprefix(_PREFIX): value.detach().cpu().clone().contiguous()
        for name, value in model.state_dict().items()
        if name not in ("scale", "shift")  # which the metadata hold as mean and std
    }
    save = require("safetensors.torch", extra="export").save
    content: bytes = save(tensors, metadata={"format": "pt", **{f"fedlas.{k}": v for k, v in metadata(about).items()}})
    return content


def _read_weights(content: bytes, build: Build) -> Probs:
    module = _rebuilt(content, build)
    return lambda images: _probs_of(module, images)


def rebuilt(path: str | Path, build: Build) -> Deployed:
    """The model in a ``.safetensors`` file that ``fedlas export`` wrote, built anew from its metadata.

    Args:
        path: The file.
        build: Builds the model from its name and options, as :func:`fedlas.lab.models.build_model`.

    Returns:
        A module from images ``(N, channels, H, W)`` uint8 to calibrated logits and probabilities, in ``eval()``.

    Raises:
        InputError: If the file cannot be read, or is none of these.
        MissingExtraError: If safetensors is not installed.
    """
    try:
        return _rebuilt(Path(path).read_bytes(), build)
    except OSError as error:
        raise InputError("rebuilt", "the file must be readable", f"{path} ({error.strerror})", "Check it.") from error


def _rebuilt(content: bytes, build: Build) -> Deployed:
    load = require("safetensors.torch", extra="export").load
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])["__metadata__"]
        built, given = json.loads(header["fedlas.model"]), json.loads(header["fedlas.input"])
    except (require("safetensors", extra="export").SafetensorError, KeyError, ValueError, TypeError) as error:
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
    # The model's own tensors, then the calibration's layer where there is one.
    own = {name: value for name, value in tensors.items() if not name.startswith(f"{EXTRA_LAYER}.")}
    _add_biases(model, own)
    model.load_state_dict(own)
    extra = None
    if f"{EXTRA_LAYER}.weight" in tensors:
        extra = Affine(tensors[f"{EXTRA_LAYER}.weight"], tensors[f"{EXTRA_LAYER}.bias"])
    mean, std = given["normalization"]["mean"], given["normalization"]["std"]
    return Deployed(model.eval(), extra, mean=mean, std=std).eval()


def _add_biases(model: torch.nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give layers a bias that have one in the file: the offsets of vector scaling, in a head that had none."""
    for name in tensors.keys() - model.state_dict().keys():
        layer, _, last = name.rpartition(".")
        if last == "bias":
            model.get_submodule(layer).bias = torch.nn.Parameter(tensors[name].clone())


def _probs_of(module: Callable[[Tensor], Any], images: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
    with torch.no_grad():
        found: NDArray[np.floating[Any]] = module(torch.from_numpy(images))[1].numpy()
    return found


FORMATS: dict[str, Format] = {
    "onnx": Format(".onnx", "onnxruntime", True, _write_onnx, _read_onnx),
    "torch-export": Format(".pt2", "torch.export.load", True, _write_program, _read_program),
    "safetensors": Format(".safetensors", "the model built anew", False, _write_weights, _read_weights),
}
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
