"""Reader and writer of the file of a calibrated model: weights, calibrator and the names of its heads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.arrays import from_safetensors, to_safetensors
from fedlas._core.check import InputError, error_reason
from fedlas._core.files import parse_json, require_no_device, write_atomically
from fedlas._core.outputs import FileKind, check_output_path
from fedlas.calibrated.calibration import Calibration

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "fedlas.calibrated/1"


def write_file(
    path: str | Path,
    weights: Mapping[str, Any],
    calibration: Calibration,
    about: Mapping[str, Any],
) -> Path:
    """Write the weights and the calibration of a model atomically as a safetensors file.

    Args:
        path: The file.
        weights: A state dict.
        calibration: The calibration.
        about: Further plain values for JSON.

    Raises:
        InputError: If the calibrator cannot be saved, the weights are no tensors of a common dtype, or another file is
            there.
    """
    path = check_output_path("path", path, CALIBRATED_MODEL)
    metadata = {
        "format": "pt",  # what other readers look for
        "fedlas": FORMAT,
        "fedlas.calibrator": json.dumps(calibration.saved_parameters()),
        "fedlas.about": json.dumps(about),
    }
    try:
        content = to_safetensors(weights, metadata)
    except (AttributeError, ValueError) as error:
        raise InputError(
            "the model's state_dict must hold tensors of a common dtype",
            error,
            "Save model.state_dict() with torch.save, and the calibrator with calibrator.save(path).",
        ) from error
    return write_atomically(path, lambda file: file.write(content))


def read_file(path: Path) -> tuple[dict[str, Tensor], Calibration, dict[str, Any]]:
    """Return the weights, the calibration and the other metadata of a calibrated model's file.

    Raises:
        InputError: If it cannot be read, or is no such file.
    """
    weights, metadata = _parts(path)
    try:
        content, about = (
            parse_json(metadata[f"fedlas.{name}"]) for name in ("calibrator", "about")
        )
        head = about["head"]
        ignored = about["ignore_index"]
        heads = head if isinstance(head, list) else [head]
        names = all(isinstance(name, str | None) for name in heads)
        if (
            not names
            or not isinstance(ignored, int | None)
            or not isinstance(about.get("features"), str | None)
        ):
            raise ValueError(
                "head must be a name or a list of names, features a string, and ignore_index an integer"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise _foreign(path, error_reason(error)) from error
    return weights, Calibration.from_dict(content, source=path), about


def _parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        weights, metadata = from_safetensors(require_no_device(path).read_bytes())
    except OSError as error:
        raise _foreign(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _foreign(path, str(error)) from error
    if metadata.get("fedlas") != FORMAT or "fedlas.calibrator" not in metadata:
        raise _foreign(path, "the file holds no calibration")
    return weights, metadata


CALIBRATED_MODEL = FileKind("a file of CalibratedModel.save", lambda path: bool(_parts(path)))


def _foreign(path: Path, why: str) -> InputError:
    return InputError(
        "the file must be written by CalibratedModel.save",
        f"{path} ({why})",
        "Write one with fedlas.calibrate(model, val_loader).save(path).",
    )
