"""A file that was exported: what it takes, and how well it agrees with its model."""

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
from fedlas._core.outputs import check_place
from fedlas.deploy.formats import FORMATS, OUTPUTS, Batch, FreeAxes, Probs, exported_kind

Samples = Iterable[tuple[Batch, NDArray[np.floating[Any]]]]
"""Batches of inputs by name, and the probabilities that they must give."""
Reference = Callable[[Any], NDArray[Any]] | None
"""From a batch to the probabilities of the model itself here, which show whether the conversion causes a difference;
None if what is expected was computed here.
"""
BATCH = 64
"""Samples that are compared at once."""


@dataclass(frozen=True)
class Exported:
    """A file, and how well it agrees with its model.

    Attributes:
        path: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        size: Bytes.
        inputs: Inputs: for each ``name``, ``dtype``, ``shape`` (free axes by name, ``"batch"`` first) and ``range``.
        example: Lines that load and call it, of Python or, for a database, of a shell.
        difference: Largest absolute difference of a probability.
        samples: How many samples were compared: all.
    """

    path: Path
    form: str
    size: int
    inputs: tuple[dict[str, Any], ...]
    example: tuple[str, ...]
    difference: float
    samples: int

    def plain(self) -> dict[str, Any]:
        """Return the fields that a card holds."""
        about = {"difference": self.difference, "samples": self.samples}
        return {"file": self.path.name, "format": self.form, **about}


def called(probs: Probs, inputs: Batch) -> NDArray[np.float64]:
    """Return what the file gives; one that fails on a batch has fixed a size."""
    try:
        return np.asarray(
            probs({name: np.asarray(value) for name, value in inputs.items()}), dtype=np.float64
        )
    except Exception as error:  # of any runtime
        size = len(next(iter(inputs.values())))
        got = (
            f"{type(error).__name__} on one of {size}: {str(error).strip().splitlines()[-1][:300]}"
        )
        fix = "Try another format, or take the sizes in the model's forward from its inputs."
        raise InputError("what was written must take batches of any size", got, fix) from error


def described_input(
    name: str,
    value: Tensor | NDArray[Any],
    axes: FreeAxes,
    ranges: Mapping[str, tuple[float, float]],
) -> dict[str, Any]:
    """Return the name, dtype, shape and range of one input; texts have no range."""
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


def _read_back(form: str, content: bytes) -> Probs:
    """Return what a file computes, as its own reader loads it."""
    try:
        return FORMATS[form].read(content)
    except MissingExtraError:
        raise
    except Exception as error:  # of any runtime
        got = f"{type(error).__name__}: {str(error)[:300]}"
        fix = "Try another format."
        raise InputError(f"{FORMATS[form].reader} must load what was written", got, fix) from error


def all_facts(about: Mapping[str, Any], inputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a file says about itself: facts about the model, its inputs, and what every file holds."""
    general = {"format": "fedlas.export/1", "torch": str(torch.__version__)}
    return {**about, "inputs": list(inputs), **general, "outputs": list(OUTPUTS)}


def write_checked(
    out: Path,
    form: str,
    content: bytes,
    inputs: Sequence[dict[str, Any]],
    example: Batch,
    reference: Reference,
    samples: Samples,
    tolerance: float,
) -> Exported:
    """Give the content of a file its name if what it computes agrees with the model on every sample."""
    check_place("path", out, exported_kind(form).of_any_name)
    difference, compared = check_export(_read_back(form, content), reference, samples, tolerance)
    write_atomically(out, lambda file: file.write(content))
    lines = tuple(FORMATS[form].example(out, example))
    return Exported(out, form, len(content), tuple(inputs), lines, difference, compared)


def check_export(
    probs: Probs,
    reference: Reference,
    samples: Samples,
    tolerance: float,
) -> tuple[float, int]:
    """Return the largest difference from the model's own probabilities, and the number of samples compared."""
    largest = 0.0
    at = 0
    done = 0
    here = 0.0
    for number, (inputs, expected) in enumerate(samples):
        exported = called(probs, inputs)
        if number == 0:  # another size of batch, so that the file cannot have fixed it
            exported[:1] = called(probs, {name: value[:1] for name, value in inputs.items()})
        if exported.shape != expected.shape:
            raise InputError(
                "the model must give as many probabilities as were expected",
                f"shape {exported.shape} for {expected.shape}",
                "Pass the model that made the predictions.",
            )
        # NaN must count as a difference, and compares as none; where a score is missing it is what is expected.
        differences = np.abs(exported - expected)
        differences[np.isnan(exported) & np.isnan(expected)] = 0.0
        apart = differences.reshape(len(exported), -1).max(axis=1)
        worst = (
            int(apart.argmax()) if np.isfinite(apart).all() else int((~np.isfinite(apart)).argmax())
        )
        # Too far: is it the conversion, or does the model on this machine differ from the run as well?
        if not apart[worst] <= max(largest, tolerance) and reference is not None:
            here = max(here, float(np.nanmax(np.abs(reference(inputs) - expected))))
        if not apart[worst] <= largest:
            largest = float(apart[worst])
            at = done + worst
        done += len(exported)
    if not largest <= tolerance:
        why = (
            f"The run's model in PyTorch differs by {here:.2g} on this machine already: it predicted on another device "
            "or in another precision. Export it where it was trained, or measure it again here"
            if here > tolerance
            else "The model gives these probabilities, so the conversion is at fault. Try another format; or avoid "
            "steps, on which rounding decides: a calibrator such as temperature, trees without scaling in front"
        )
        expected_text = f"probabilities must equal the model's within {tolerance:g}"
        raise InputError(expected_text, f"a difference of {largest:.3g} at sample {at}", f"{why}.")
    return largest, done
