"""``fedlas export``: a run's model with its calibration folded in, checked before it is left anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlas._core.check import InputError, check_choice, check_number
from fedlas._core.files import write_atomically
from fedlas._core.pixels import multiply_add
from fedlas._core.terminal import say
from fedlas.deploy.calibration import METHODS, Calibration, fit_calibration
from fedlas.deploy.formats import FORMATS, INPUT, OUTPUTS, Probs
from fedlas.deploy.model import EXTRA_LAYER, Deployed, fold
from fedlas.lab.models import build_model
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import Trained, load_trained
from fedlas.predictions import Predictions
from fedlas.stats.noise import check_replicates

TOLERANCE = 1e-5
"""Most that a probability may differ from the run's own."""
OWNER = "fedlas export"


@dataclass(frozen=True)
class Checked:
    """How well a file agrees with its run.

    Attributes:
        difference: Largest absolute difference of a probability.
        samples: How many test samples were compared: all.
    """

    difference: float
    samples: int


def export(
    folder: Path,
    *,
    form: str = "onnx",
    out: Path | None = None,
    calibrate: str = "temperature",
    data: str | None = None,
    tolerance: float = TOLERANCE,
    replicates: int = 1000,
) -> int:
    """Write a run's model to a file of another form, and its calibration card beside it.

    Args:
        folder: Folder of a finished run.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        out: The file; None is ``export/model.SUFFIX`` in the run's folder.
        calibrate: Calibrator to fold in, fitted on the run's validation predictions.
        data: Where the run's data is; None searches the usual places.
        tolerance: Most that a probability may differ.
        replicates: Of the intervals on the card; 0 computes none.

    Returns:
        0.

    Raises:
        InputError: If the run, its predictions or its data cannot be used, the model cannot be written in this form, or
            what was written gives other probabilities than the run. No file is left then.
        MissingExtraError: If a package of the form, or of the card's page, is not installed.
    """
    from fedlas.lab.report.card import check_card_place, write_card

    form = check_choice(OWNER, "--format", form, FORMATS)
    check_number(OWNER, "--tolerance", tolerance, low=0.0)
    check_choice(OWNER, "--calibrate", calibrate, METHODS)
    check_replicates(OWNER, replicates)
    require_page_packages()
    about_form = FORMATS[form]
    out = folder / "export" / f"model{about_form.suffix}" if out is None else out
    if out.suffix.lower() != about_form.suffix:
        raise InputError(OWNER, f"--out must end in {about_form.suffix} for {form}", out, "Name such a file.")
    card_place = out.with_name(f"{out.name}.card.json")
    check_card_place(card_place)
    trained = load_trained(folder, data=data)
    if trained.run.recipe.model.bayesian is not None:
        fix = "Export a run without model.bayesian."
        raise InputError(OWNER, "the model must say the same each time", f"{folder}, which draws weights", fix)
    val, test = (Predictions.load(folder / "predictions" / f"{part}.npz") for part in ("val", "test"))
    calibration = fit_calibration(calibrate, val)
    deployed, folded = deployable(trained, calibration)
    about = describe_export(trained, calibration, folded, normalises=about_form.graph)
    example = next(test_images(trained))[:3].repeat(2, 1, 1, 1)[:3]
    content = _written(form, deployed, example, about)
    checked = check_export(
        about_form.read(content, build_model), deployed, trained, calibration.transform(test), tolerance
    )
    write_atomically(out, lambda file: file.write(content))
    for note in calibration.notes:
        say(f"note: {note}")
    say(f"{trained.run.name}: {_calibration_text(calibration, folded)}")
    say(
        f"checked with {about_form.reader}: {checked.samples:,} test samples, largest difference of a probability "
        f"{checked.difference:.2g} (at most {tolerance:g})"
    )
    size = len(content) / 2**20
    say(f"model:  {out} ({size:.1f} MiB; {INPUT} uint8 {about['input']['shape']} -> {', '.join(OUTPUTS)})")
    exported = {"file": out.name, "format": form, "difference": checked.difference, "samples": checked.samples}
    card = write_card(
        folder,
        card_place,
        calibration=calibration,
        replicates=replicates,
        classes=trained.splits.classes,
        exported=exported,
    )
    say(f"card:   {card.json}", f"        {card.html}")
    return 0


def deployable(trained: Trained, calibration: Calibration) -> tuple[Deployed, str]:
    """The run's model with normalisation and calibration, and what the calibration was folded into.

    The model is built anew, so that it carries none of the hooks that a loss may have put into it.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(**_model_options(trained)).eval()
    model.load_state_dict(trained.objective.model.state_dict())
    mean, std = _normalisation(trained)
    scale, shift = multiply_add(mean, std, channels=len(mean), device=torch.device("cpu"))
    example = next(test_images(trained))[:4].float() * scale + shift
    found, extra, folded = fold(model, calibration, example)
    return Deployed(found, extra, mean=mean, std=std).eval(), folded


def describe_export(trained: Trained, calibration: Calibration, folded: str, *, normalises: bool) -> dict[str, Any]:
    """What is said of a model inside its file, whether or not that normalises the input."""
    import fedlas.lab.runs.environment as here

    run, splits = trained.run, trained.splits
    starts = RunFolder(run.folder).starts
    last = starts[-1] if starts else {}
    mean, std = _normalisation(trained)
    done_by = "the model" if normalises else "whoever builds the model, as fedlas.deploy.formats.rebuilt does"
    size = splits.image_size
    options = _model_options(trained)
    name = options.pop("name")
    known = ("num_classes", "in_channels", "image_size")
    return {
        "format": "fedlas.export/1",
        "run": run.name,
        "recipe": run.recipe.name,
        "loss": run.loss,
        "seed": run.seed,
        "commit": last.get("commit"),
        "dirty": last.get("dirty"),
        "fedlas": here.environment()["fedlas"],
        "torch": str(torch.__version__),
        "classes": list(splits.classes),
        "calibration": {**calibration.plain(), "folded into": folded},
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", splits.in_channels, size, size],
            "range": [0, 255],
            "normalisation": {"mean": list(mean), "std": list(std), "of": "pixel / 255", "done by": done_by},
        },
        "outputs": list(OUTPUTS),
        "model": {
            "name": name,
            **{key: options[key] for key in known},
            "options": {key: value for key, value in options.items() if key not in known},
        },
    }


def check_export(
    probs: Probs, deployed: nn.Module, trained: Trained, expected: Predictions, tolerance: float
) -> Checked:
    """Compare what a file gives with the run's own calibrated probabilities, on every test sample.

    Args:
        probs: What the file gives.
        deployed: The model in PyTorch, to tell where a difference comes from.
        trained: The run.
        expected: Its test predictions, calibrated.
        tolerance: Most that a probability may differ.

    Raises:
        InputError: If one differs by more, or the number of samples is another.
    """
    largest, at, done, ours = 0.0, 0, 0, 0.0
    wanted = expected.probs.double().numpy()
    for number, images in enumerate(test_images(trained)):
        pixels = images.numpy()
        found = np.asarray(probs(pixels), dtype=np.float64)
        if number == 0:  # another size of batch, so that the file cannot have fixed it
            found[:1] = probs(pixels[:1])
        apart = np.abs(found - wanted[done : done + len(found)]).max(axis=1)
        worst = int(apart.argmax()) if np.isfinite(apart).all() else int((~np.isfinite(apart)).argmax())
        if not apart[worst] <= max(largest, tolerance):
            with torch.inference_mode():
                here = deployed(images)[1].double().numpy()
            ours = max(ours, float(np.abs(here - wanted[done : done + len(found)]).max()))
        if not apart[worst] <= largest:
            largest, at = float(apart[worst]), done + worst
        done += len(found)
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
    return Checked(largest, done)


def test_images(trained: Trained) -> Iterator[Tensor]:
    """The test images as uint8 ``(n, channels, H, W)``, in the order of the predictions."""
    splits = trained.splits
    scale, shift = multiply_add(splits.mean, splits.std, channels=splits.in_channels, device=torch.device("cpu"))
    for images, *_ in splits.batches(splits.test, batch_size=trained.run.recipe.train.batch_size):
        yield ((images.cpu() - shift) / scale).round().clamp(0, 255).to(torch.uint8)


def _written(form: str, model: Deployed, example: Tensor, about: Mapping[str, Any]) -> bytes:
    from fedlas._core.extras import MissingExtraError

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


def _normalisation(trained: Trained) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the channels, as the run's test images had them."""
    data, splits = trained.run.recipe.data, trained.splits
    if data.test_mean is not None and data.test_std is not None:
        return tuple(data.test_mean), tuple(data.test_std)
    return splits.mean, splits.std


def _model_options(trained: Trained) -> dict[str, Any]:
    splits, model = trained.splits, trained.run.recipe.model
    shape = {
        "num_classes": splits.num_classes,
        "in_channels": splits.in_channels,
        "image_size": splits.image_size,
    }
    return {"name": model.name, **shape, **model.options}


def _calibration_text(calibration: Calibration, folded: str) -> str:
    if calibration.method == "none":
        return "no calibration"
    what = f"temperature {calibration.temperature:.4f}" if calibration.temperature else "vector scaling"
    extra = "in an extra layer, as no linear layer of its own makes the logits"
    return f"{what}, fitted on the validation part, {extra if folded == EXTRA_LAYER else f'folded into {folded!r}'}"
