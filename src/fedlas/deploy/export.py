"""A model with its calibration folded in as a file, checked before it is left anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import write_atomically
from fedlas._core.pixels import multiply_add
from fedlas.deploy.calibration import Calibration
from fedlas.deploy.formats import FORMATS, INPUT, OUTPUTS, Build, Probs
from fedlas.deploy.model import Deployed, fold
from fedlas.predictions import Predictions

TOLERANCE = 1e-5
"""Most that a probability may differ from the run's own."""
OWNER = "fedlas export"


@dataclass(frozen=True)
class Exported:
    """A file, and how well it agrees with the predictions of its model.

    Attributes:
        path: The file.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        size: Bytes.
        shape: Of the input, after the batch: channels, height, width.
        folded: What the calibration was folded into, see :func:`~fedlas.deploy.model.fold`.
        difference: Largest absolute difference of a probability.
        samples: How many samples were compared: all.
    """

    path: Path
    form: str
    size: int
    shape: tuple[int, ...]
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
    folded_model, extra, folded = fold(model, calibration, first[:4].float() * scale + shift)
    deployed = Deployed(folded_model, extra, mean=mean, std=std).eval()
    shape = tuple(first.shape[1:])
    done_by = "the model" if about_form.graph else "the user's code, as in fedlas.deploy.formats.rebuilt"
    about = {
        **about,
        "format": "fedlas.export/1",
        "torch": str(torch.__version__),
        "calibration": {**calibration.plain(), "folded into": folded},
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", *shape],
            "range": [0, 255],
            "normalization": {"mean": list(mean), "std": list(std), "of": "pixel / 255", "done by": done_by},
        },
        "outputs": list(OUTPUTS),
    }
    # The bytes are read again and compared before they get a name.
    content = _written(form, deployed, first[:3].repeat(2, 1, 1, 1)[:3], about)
    probs = about_form.read(content, build)
    difference = check_export(probs, deployed, images(), calibration.transform(expected), tolerance)
    write_atomically(out, lambda file: file.write(content))
    return Exported(out, form, len(content), shape, folded, difference, expected.num_samples)


def check_export(
    probs: Probs, deployed: nn.Module, batches: Iterable[Tensor], expected: Predictions, tolerance: float
) -> float:
    """Compare what a file gives with the run's own calibrated probabilities, on every test sample.

    Returns:
        The largest absolute difference.

    Args:
        probs: What the file gives.
        deployed: The model in PyTorch, which shows whether the conversion causes a difference.
        batches: Test images as uint8 ``(n, channels, H, W)``, in the order of the predictions.
        expected: The run's own predictions on them, calibrated.
        tolerance: Most that a probability may differ.

    Raises:
        InputError: If one differs by more, or the number of samples is another.
    """
    largest, at, done, ours = 0.0, 0, 0, 0.0
    wanted = expected.probs.double().numpy()
    for number, images in enumerate(batches):
        pixels = images.numpy()
        found = np.asarray(probs(pixels), dtype=np.float64)
        if number == 0:  # another size of batch, so that the file cannot have fixed it
            found[:1] = probs(pixels[:1])
        # NaN must count as a difference, and compares as none.
        apart = np.abs(found - wanted[done : done + len(found)]).max(axis=1)
        worst = int(apart.argmax()) if np.isfinite(apart).all() else int((~np.isfinite(apart)).argmax())
        # Too far: is it the conversion, or does PyTorch on this machine differ from the run as well?
        if not apart[worst] <= max(largest, tolerance):
            with torch.inference_mode():
                here = deployed(images)[1].double().numpy()
            ours = max(ours, float(np.abs(here - wanted[done : done + len(found)]).max()))
        if not apart[worst] <= largest:
            largest, at = float(apart[worst]), done + worst
        done += len(found)
    # Every sample of the test part was compared, and none differs too much.
    if done != expected.num_samples:
        expected_text = f"the test part must have the {expected.num_samples} samples that the run predicted"
        raise InputError(OWNER, expected_text, done, "Train it again.")
    if not largest <= tolerance:
        why = (
            f"The run's model in PyTorch differs by {ours:.2g} on this machine already: it predicted on another device "
            "or in another precision. Allow it with --tolerance if that is why"
            if ours > tolerance
            else "PyTorch gives the run's probabilities, so the conversion is at fault. Try another --format"
        )
        expected_text = f"probabilities must equal the run's within {tolerance:g}"
        raise InputError(OWNER, expected_text, f"a difference of {largest:.3g} at test sample {at}", f"{why}.")
    return largest


def _written(form: str, model: Deployed, example: Tensor, about: Mapping[str, Any]) -> bytes:
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
