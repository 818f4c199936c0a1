"""Verification of exported files: inputs, metadata, and the largest difference from the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import write_atomically
from fedlas._core.outputs import check_output_path
from fedlas.deploy.formats import FORMATS, OUTPUTS, Batch, FreeAxes, Probs, exported_file_kind

Samples = Iterable[tuple[Batch, NDArray[np.floating[Any]]]]
"""Batches of inputs by name, with the expected probabilities."""
Reference = Callable[[Any], NDArray[Any]] | None
"""Function from a batch to the probabilities of the model on this machine, which shows whether a difference comes from
the conversion; None if the expected probabilities were computed on this machine.
"""
BATCH_SIZE = 64
"""Samples per batch of the comparison."""


@dataclass(frozen=True)
class Exported:
    """An exported file with its inputs, usage example, and largest difference from the model.

    Attributes:
        path: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        size: Bytes.
        inputs: Inputs: for each ``name``, ``dtype``, ``shape`` (free axes by name, ``"batch"`` first) and ``range``.
        example: Lines of Python, or of a shell for a database, that load and call the file.
        difference: Largest absolute difference of a probability.
        samples: Number of samples compared.
    """

    path: Path
    form: str
    size: int
    inputs: tuple[dict[str, Any], ...]
    example: tuple[str, ...]
    difference: float
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of the file on a calibration card, as JSON values."""
        about = {"difference": self.difference, "samples": self.samples}
        return {"file": self.path.name, "format": self.form, **about}


def run_exported(probs: Probs, inputs: Batch) -> NDArray[np.float64]:
    """Return the probabilities of an exported file for a batch; raise InputError if it rejects the batch size."""
    try:
        return np.asarray(
            probs({name: np.asarray(value) for name, value in inputs.items()}), dtype=np.float64
        )
    except Exception as error:  # of any runtime
        size = len(next(iter(inputs.values())))
        got = f"{type(error).__name__} for a batch of {size}: {str(error).strip().splitlines()[-1][:300]}"
        fix = "Try another format, or read sizes from the inputs in the model's forward."
        raise InputError("the exported file must accept batches of any size", got, fix) from error


def describe_input(
    name: str,
    value: Tensor | NDArray[Any],
    axes: FreeAxes,
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return name, dtype, shape and range of an input as JSON values; text has no range."""
    numbers = np.asarray(value)
    is_text = numbers.dtype == object
    bounds = [] if is_text else [np.nanmin(numbers).item(), np.nanmax(numbers).item()]
    shape = [
        "batch",
        *(
            f"{name}_{i}" if i in axes.get(name, ()) else n
            for i, n in enumerate(value.shape[1:], 1)
        ),
    ]
    return {
        "name": name,
        "dtype": "string" if is_text else str(numbers.dtype),
        "shape": shape,
        "range": list(ranges.get(name, bounds)),
    }


def _load_exported(form: str, content: bytes) -> Probs:
    """Return the prediction function of an exported file, loaded by the runtime of its format."""
    try:
        return FORMATS[form].read(content)
    except MissingExtraError:
        raise
    except Exception as error:  # of any runtime
        got = f"{type(error).__name__}: {str(error)[:300]}"
        fix = "Try another format."
        raise InputError(
            f"{FORMATS[form].reader} must be able to load the exported file", got, fix
        ) from error


def build_metadata(about: Mapping[str, Any], inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata of an exported file: facts about the model, inputs, outputs, format and version."""
    general = {"format": "fedlas.export/1", "torch": str(torch.__version__)}
    return {**about, "inputs": list(inputs), **general, "outputs": list(OUTPUTS)}


def check_and_write(
    out: Path,
    form: str,
    content: bytes,
    inputs: Sequence[dict[str, Any]],
    example: Batch,
    reference: Reference,
    samples: Samples,
    tolerance: float,
) -> Exported:
    """Write an exported file if its probabilities agree with the model on every sample, else raise InputError."""
    check_output_path("path", out, exported_file_kind(form).with_any_suffix)
    difference, compared = check_export(
        _load_exported(form, content), reference, samples, tolerance
    )
    write_atomically(out, lambda file: file.write(content))
    lines = tuple(FORMATS[form].example(out, example))
    return Exported(out, form, len(content), tuple(inputs), lines, difference, compared)


def check_export(
    probs: Probs,
    reference: Reference,
    samples: Samples,
    tolerance: float,
) -> tuple[float, int]:
    """Return the largest difference from the expected probabilities, and the number of samples compared."""
    largest = 0.0
    worst_index = 0
    num_compared = 0
    local_difference = 0.0
    for number, (inputs, expected) in enumerate(samples):
        exported = run_exported(probs, inputs)
        if number == 0:  # another batch size, so that a fixed size is detected
            exported[:1] = run_exported(probs, {name: value[:1] for name, value in inputs.items()})
        if exported.shape != expected.shape:
            raise InputError(
                "the exported model must return probabilities of the expected shape",
                f"shape {exported.shape} instead of {expected.shape}",
                "Pass the model that made the predictions.",
            )
        # NaN must count as a difference, although it compares as none, except where NaN is expected (a missing score).
        differences = np.abs(exported - expected)
        differences[np.isnan(exported) & np.isnan(expected)] = 0.0
        max_differences = differences.reshape(len(exported), -1).max(axis=1)
        worst = (
            int(max_differences.argmax())
            if np.isfinite(max_differences).all()
            else int((~np.isfinite(max_differences)).argmax())
        )
        # Above tolerance: find out whether the conversion is the cause, or the model differs on this machine too.
        if not max_differences[worst] <= max(largest, tolerance) and reference is not None:
            local_difference = max(
                local_difference, float(np.nanmax(np.abs(reference(inputs) - expected)))
            )
        if not max_differences[worst] <= largest:
            largest = float(max_differences[worst])
            worst_index = num_compared + worst
        num_compared += len(exported)
    if not largest <= tolerance:
        why = (
            f"The PyTorch model of the run also differs by {local_difference:.2g} on this machine: its predictions "
            "were made on another device or in another precision. Export it where it was trained, or evaluate it "
            "again here"
            if local_difference > tolerance
            else "The model reproduces its probabilities, so the conversion changes them. Try another format, or avoid "
            "steps that amplify rounding: use a smooth calibrator such as temperature, and trees without scaling"
        )
        expected_text = f"probabilities of the file must equal the model's within {tolerance:g}"
        raise InputError(
            expected_text, f"a difference of {largest:.3g} at sample {worst_index}", f"{why}."
        )
    return largest, num_compared
