"""A model with its calibration as a file, checked before it is left anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import write_atomically
from fedlas._core.pixels import multiply_add
from fedlas.calibrated import CalibratedModel
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.formats import FORMATS, INPUT, OUTPUTS, Build, Probs
from fedlas.deploy.model import EXTRA_LAYER, Deployed, fold
from fedlas.predictions import Predictions
from fedlas.predictions.predictions import check_predictions

TOLERANCE = 1e-5
"""Most that a probability may differ from the model's own."""
OWNER = "fedlas export"
_BATCH = 64  # samples that are compared at once

Samples = Iterable[tuple[dict[str, Tensor], NDArray[np.floating[Any]]]]
"""Batches of inputs by name, and the probabilities that they must give."""


@dataclass(frozen=True)
class Exported:
    """A file, and how well it agrees with its model.

    Attributes:
        path: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        size: Bytes.
        inputs: What it takes: for each input ``name``, ``dtype``, ``shape`` (with ``"batch"`` first) and ``range``.
        example: Four lines of Python that load and call it.
        folded: What the calibration was folded into, see :func:`~fedlas.deploy.model.fold`.
        difference: Largest absolute difference of a probability.
        samples: How many samples were compared: all.
    """

    path: Path
    form: str
    size: int
    inputs: tuple[dict[str, Any], ...]
    example: tuple[str, ...]
    folded: str
    difference: float
    samples: int

    def plain(self) -> dict[str, Any]:
        """For the card."""
        about = {"difference": self.difference, "samples": self.samples}
        return {"file": self.path.name, "format": self.form, **about}


def export_model(
    model: nn.Module,
    out: Path,
    *,
    form: str,
    calibration: Calibration,
    mean: Sequence[float],
    std: Sequence[float],
    images: Callable[[], Iterable[Tensor]],
    expected: Predictions,
    build: Build,
    about: Mapping[str, Any],
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a model with normalization and calibration to a file, if that gives the model's own probabilities.

    Args:
        model: From normalized images to logits, without hooks; it does not change.
        out: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        calibration: What is folded in.
        mean: Mean of each channel in [0, 1] units.
        std: Standard deviation of each channel.
        images: Gives batches of uint8 images ``(n, channels, H, W)``, each time from the start.
        expected: The model's own predictions on all of them, not calibrated.
        build: Builds the model from its name and options, for a form that holds weights alone.
        about: What is said of the model inside the file, plain values; ``model`` holds its ``name``, ``num_classes``,
            ``in_channels``, ``image_size`` and ``options``, as ``build`` takes them.
        tolerance: Most that a probability may differ.

    Raises:
        InputError: If the model cannot be written in this form, or what was written gives other probabilities. No file
            is left then.
        MissingExtraError: If a package of the form is not installed.
    """
    # The calibration goes into the last layer, or into one behind it.
    about_form, first = FORMATS[form], next(iter(images()))
    scale, shift = multiply_add(mean, std, channels=len(mean), device=torch.device("cpu"))
    folded_model, folded = fold(model, calibration, first[:4].float() * scale + shift)
    deployed = Deployed(folded_model, mean=mean, std=std).eval()
    done_by = "the model" if about_form.graph else "the user's code, as in fedlas.deploy.formats.rebuilt"
    taken = _described({INPUT: first}) | {"range": [0, 255]}
    normalization = {"mean": list(mean), "std": list(std), "of": "pixel / 255", "done by": done_by}
    about = {
        **about,
        "calibration": {**calibration.plain(), "folded into": folded},
        "input": {**taken, "normalization": normalization},
    }
    wanted = check_predictions("export", calibration.transform(expected)).probs.double().numpy()

    def samples() -> Iterator[tuple[dict[str, Tensor], NDArray[np.floating[Any]]]]:
        done = 0
        for batch in images():
            yield {INPUT: batch}, wanted[done : done + len(batch)]
            done += len(batch)
        if done != len(wanted):
            expected_text = f"the test part must have the {len(wanted)} samples that the run predicted"
            raise InputError(OWNER, expected_text, done, "Train it again.")

    return _export(deployed, out, form, {INPUT: first}, samples(), build, about, (taken,), folded, tolerance)


def export(
    model: CalibratedModel,
    path: str | Path,
    inputs: Tensor | Mapping[str, Tensor],
    *,
    form: str = "onnx",
    by_name: bool | None = None,
    about: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> Exported:
    """Write a calibrated model to a file, and check that the file gives the model's own probabilities.

    Args:
        model: It does not change.
        path: The file.
        inputs: Real samples ``(N, ...)`` to check with, as the model takes them; a mapping for a model of several.
        form: ``"onnx"``, ``"torch-export"`` or ``"torchscript"``.
        by_name: Whether the model takes the inputs as keyword arguments; None: if they are a mapping.
        about: Plain values to keep inside the file.
        tolerance: Most that a probability may differ.

    Raises:
        InputError: If the model cannot be written in this form, or what was written gives other probabilities. No file
            is left then.
        MissingExtraError: If a package of the form is not installed.
    """
    out = Path(path)
    check_choice(OWNER, "form", form, FORMATS)
    by_name = not isinstance(inputs, Tensor) if by_name is None else by_name
    inputs = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    if not FORMATS[form].graph:
        graphs = ", ".join(name for name, each in FORMATS.items() if each.graph)
        raise InputError(
            OWNER, f"the format of a calibrated model must be one of {graphs}", form, "It is weights already."
        )
    deployed = Deployed(model, names=list(inputs) if by_name else None).eval()
    taken = tuple(_described({name: value}) for name, value in inputs.items())
    calibration = {**Calibration(model.calibrator).plain(), "folded into": EXTRA_LAYER}
    about = {**(about or {}), "calibration": calibration, "inputs": list(taken)}
    number = min(map(len, inputs.values()))

    def samples() -> Iterator[tuple[dict[str, Tensor], NDArray[np.floating[Any]]]]:
        for start in range(0, number, _BATCH):
            batch = {name: value[start : start + _BATCH] for name, value in inputs.items()}
            with torch.no_grad():
                yield batch, deployed(*batch.values())[1].double().numpy()

    def build(*_: Any, **__: Any) -> nn.Module:
        raise AssertionError("a graph needs no architecture")

    return _export(deployed, out, form, inputs, samples(), build, about, taken, EXTRA_LAYER, tolerance)


def _export(
    deployed: Deployed,
    out: Path,
    form: str,
    example: Mapping[str, Tensor],
    samples: Samples,
    build: Build,
    about: Mapping[str, Any],
    taken: tuple[dict[str, Any], ...],
    folded: str,
    tolerance: float,
) -> Exported:
    """Write the bytes, read them again, compare, and only then give them a name."""
    about = {**about, "format": "fedlas.export/1", "torch": str(torch.__version__), "outputs": list(OUTPUTS)}
    few = {name: value[torch.arange(3) % len(value)].clone() for name, value in example.items()}
    content = _written(form, deployed, few, about)
    difference, compared = check_export(FORMATS[form].read(content, build), deployed, samples, tolerance)
    write_atomically(out, lambda file: file.write(content))
    lines = tuple(FORMATS[form].example(out, few))
    return Exported(out, form, len(content), taken, lines, folded, difference, compared)


def check_export(probs: Probs, deployed: Deployed, samples: Samples, tolerance: float) -> tuple[float, int]:
    """Compare what a file gives with the model's own calibrated probabilities, on every sample.

    Returns:
        The largest absolute difference, and the number of samples.

    Args:
        probs: What the file gives.
        deployed: The model in PyTorch, which shows whether the conversion causes a difference.
        samples: Batches of inputs, and what they must give.
        tolerance: Most that a probability may differ.

    Raises:
        InputError: If one differs by more.
    """
    largest, at, done, ours = 0.0, 0, 0, 0.0
    for number, (inputs, wanted) in enumerate(samples):
        found = _called(probs, inputs)
        if number == 0:  # another size of batch, so that the file cannot have fixed it
            found[:1] = _called(probs, {name: value[:1] for name, value in inputs.items()})
        # NaN must count as a difference, and compares as none.
        apart = np.abs(found - wanted).reshape(len(found), -1).max(axis=1)
        worst = int(apart.argmax()) if np.isfinite(apart).all() else int((~np.isfinite(apart)).argmax())
        # Too far: is it the conversion, or does PyTorch on this machine differ from the run as well?
        if not apart[worst] <= max(largest, tolerance):
            with torch.inference_mode():
                here = deployed(*inputs.values())[1].double().numpy()
            ours = max(ours, float(np.abs(here - wanted).max()))
        if not apart[worst] <= largest:
            largest, at = float(apart[worst]), done + worst
        done += len(found)
    if not largest <= tolerance:
        why = (
            f"The run's model in PyTorch differs by {ours:.2g} on this machine already: it predicted on another device "
            "or in another precision. Export it where it was trained, or measure it again here"
            if ours > tolerance
            else "PyTorch gives the model's probabilities, so the conversion is at fault. Try another --format"
        )
        expected_text = f"probabilities must equal the model's within {tolerance:g}"
        raise InputError(OWNER, expected_text, f"a difference of {largest:.3g} at sample {at}", f"{why}.")
    return largest, done


def _called(probs: Probs, inputs: Mapping[str, Tensor]) -> NDArray[np.float64]:
    """What the file gives; one that fails on a batch has fixed what it was written with."""
    try:
        return np.asarray(probs({name: value.numpy() for name, value in inputs.items()}), dtype=np.float64)
    except Exception as error:  # of any runtime
        size = len(next(iter(inputs.values())))
        got = f"{type(error).__name__} on one of {size}: {str(error).strip().splitlines()[-1][:300]}"
        fix = "Try another --format, or take the sizes in the model's forward from its inputs."
        raise InputError(OWNER, "what was written must take batches of any size", got, fix) from error


def _described(inputs: Mapping[str, Tensor]) -> dict[str, Any]:
    """Name, dtype, shape and range of one input."""
    ((name, value),) = inputs.items()
    low, high = (bound.item() for bound in value.aminmax())
    dtype = str(value.dtype).removeprefix("torch.")
    return {"name": name, "dtype": dtype, "shape": ["batch", *value.shape[1:]], "range": [low, high]}


def _written(form: str, model: Deployed, example: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    try:
        return FORMATS[form].write(model, example, about)
    except (InputError, MissingExtraError):
        raise
    except Exception as error:  # whatever a tracer finds in a model it cannot follow
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            OWNER, f"the model must be one that {form} can hold", f"{type(error).__name__}: {reason[:300]}",
            "Try another --format; safetensors holds weights only.",
        ) from error  # fmt: skip
