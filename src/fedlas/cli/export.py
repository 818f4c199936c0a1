"""``fedlas export``: writes a model for production, its calibration inside."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import fedlas
from fedlas._core.arrays import open_arrays
from fedlas._core.check import InputError, check_choice
from fedlas._core.files import path_argument
from fedlas._core.terminal import say
from fedlas.calibrated import CalibratedModel
from fedlas.cli.arguments import AddSubcommand, add_card_options, laboratory
from fedlas.deploy.calibration import Calibration, check_method
from fedlas.deploy.card import check_card_place
from fedlas.deploy.export import OWNER, TOLERANCE, Exported
from fedlas.deploy.export import export as export_model_file
from fedlas.deploy.formats import FORMATS, OUTPUTS
from fedlas.deploy.model import EXTRA_LAYER
from fedlas.present.page import require_page_packages
from fedlas.stats.estimates import check_replicates


def add_export(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_export, "RUN | FILE")
    parser.add_argument(
        "place", type=Path, metavar="RUN | FILE", help="folder of a finished run, or a file of CalibratedModel.save"
    )
    parser.add_argument("--format", default="onnx", metavar="NAME", help=f"{', '.join(FORMATS)} (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="PATH",
        help="where it goes (default: RUN/export/model, or FILE, with .SUFFIX)",
    )
    parser.add_argument(
        "--model",
        metavar="MODULE:FUNCTION",
        help="of FILE: your function that builds its architecture, found from this folder; it is called without "
        "arguments (default: none)",
    )
    parser.add_argument(
        "--inputs",
        type=path_argument,
        metavar="NPZ",
        help="of FILE: real inputs of the model, an array (N, ...), or several named as its arguments (default: none)",
    )
    add_card_options(parser, default="temperature")


def _export(args: argparse.Namespace) -> int:
    if args.place.is_dir() or not args.place.exists():
        return export(
            args.place,
            form=args.format,
            out=args.out,
            calibrate=args.calibrate or "temperature",
            data=args.data,
            replicates=args.replicates,
        )
    if args.model is None or args.inputs is None:
        raise InputError(
            OWNER,
            "the file of a CalibratedModel must come with --model and --inputs",
            f"no {'--model' if args.model is None else '--inputs'}",
            "It holds weights and no code: name the function that builds the architecture, and some real inputs.",
        )
    return export_file(args.place, args.model, args.inputs, form=args.format, out=args.out)


def export(
    folder: Path,
    *,
    form: str = "onnx",
    out: Path | None = None,
    calibrate: str = "temperature",
    data: str | None = None,
    replicates: int = 1000,
) -> int:
    """Write a run's model to a file of another form, and its calibration card beside it.

    Args:
        folder: Folder of a finished run.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`.
        out: The file; None is ``export/model.SUFFIX`` in the run's folder.
        calibrate: Calibrator to fold in or to put behind the model, fitted on the run's validation predictions.
        data: Where the run's data is; None searches the usual places.
        replicates: Of the intervals on the card; 0 computes none.

    Returns:
        0.

    Raises:
        InputError: If the run, its predictions or its data cannot be used, the model cannot be written in this form, or
            what was written gives other probabilities than the run. No file is left then.
        MissingExtraError: If a package of the form, or of the card's page, is not installed.
    """
    # Everything that can be refused is refused before the export, which may take minutes.
    if out is None:
        laboratory("runs.folder", "RunFolder")(folder).writable(folder / "export" / "model")
    out = _checked(folder / "export" / "model", out, form)
    check_method(OWNER, calibrate)
    check_replicates(OWNER, replicates)
    require_page_packages()
    card_place = out.with_name(f"{out.name}.card.json")
    check_card_place(card_place)
    export_run = laboratory("studies.export", "export_run")
    options = {"form": form, "calibrate": calibrate, "data": data, "replicates": replicates}
    name, calibration, exported, card = export_run(folder, out, **options)
    for note in calibration.notes:
        say(f"note: {note}")
    _say_export(name, calibration, exported, "raw pixels; the model normalizes them")
    page = card.save(card_place)
    say(f"card:   {card_place}", f"        {page}")
    return 0


def export_file(
    file: Path,
    model: str,
    inputs: Path,
    *,
    form: str = "onnx",
    out: Path | None = None,
) -> int:
    """Write a saved calibrated model to a file that holds its computation.

    Args:
        file: What :meth:`fedlas.CalibratedModel.save` wrote.
        model: ``MODULE:FUNCTION`` of the user's code; the function builds the architecture.
        inputs: ``.npz`` of real inputs, which say what the model takes and are compared.
        form: One of :data:`~fedlas.deploy.formats.FORMATS`, but not safetensors.
        out: The file; None is ``file`` with the suffix of the form.

    Returns:
        0.

    Raises:
        InputError: If a file or the function cannot be used, the model cannot be written in this form, or what was
            written gives other probabilities. No file is left then.
        MissingExtraError: If a package of the form is not installed.
    """
    out = _checked(file.with_suffix(""), out, form)
    arrays = _inputs(inputs)
    calibrated = CalibratedModel.load(file, _built(model))
    about = {"file": file.name, "fedlas": fedlas.__version__}
    found = export_model_file(calibrated, out, arrays, form=form, by_name=len(arrays) > 1, about=about)
    said = f"as in {inputs.name}; prepare inputs as there"
    _say_export(file.name, Calibration(calibrated.calibrator), found, said)
    say(f"card:   fedlas card {file} VAL TEST writes one, from uncalibrated predictions")
    return 0


def _checked(default: Path, out: Path | None, form: str) -> Path:
    """Where the file goes."""
    form = check_choice(OWNER, "--format", form, FORMATS)
    suffix = FORMATS[form].suffix
    out = default.with_name(f"{default.name}{suffix}") if out is None else out
    if out.suffix.lower() != suffix:
        raise InputError(OWNER, f"--out must end in {suffix} for {form}", out, "Name such a file.")
    return out


def _inputs(path: Path) -> dict[str, Tensor]:
    """The arrays of a file, at least one sample of each."""
    try:
        with open_arrays(path) as archive:
            arrays = {name: torch.from_numpy(archive[name]) for name in archive.names}
    except (OSError, TypeError, ValueError) as error:
        fix = "Write it with numpy.savez(path, inputs=batch.numpy())."
        raise InputError(OWNER, "--inputs must be an .npz of numbers", f"{path} ({error})", fix) from error
    sizes = {len(value) if value.ndim else 0 for value in arrays.values()}
    if len(sizes) != 1 or 0 in sizes:
        got = ", ".join(f"{name} {tuple(value.shape)}" for name, value in arrays.items()) or "none"
        raise InputError(OWNER, "--inputs must hold arrays of the same number of samples", got, "Write it again.")
    return arrays


def _built(spec: str) -> nn.Module:
    """What the user's function returns."""
    name, _, function = spec.partition(":")
    fix = "Write --model MODULE:FUNCTION, e.g. --model my_models:build, in the folder of my_models.py."
    sys.path.insert(0, str(Path.cwd()))  # as ``python -m`` does
    try:
        build: Any = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            OWNER, "--model must name a function that can be imported", f"{spec} ({error})", fix
        ) from error
    finally:
        sys.path.pop(0)
    model = build() if callable(build) else build
    if not isinstance(model, nn.Module):
        got = f"{spec} with {type(model).__name__}"
        raise InputError(OWNER, "the function of --model must return an nn.Module", got, fix)
    return model


def _say_export(name: str, calibration: Calibration, found: Exported, inputs: str) -> None:
    say(f"{name}: {_calibration_text(calibration, found.folded)}")
    say(
        f"checked with {FORMATS[found.form].reader}: {found.samples:,} samples, largest difference of a probability "
        f"{found.difference:.2g} (at most {TOLERANCE:g})"
    )
    say(f"model:  {found.path} ({found.size / 2**20:.1f} MiB)")
    for each in found.inputs:
        low, high = (f"{bound:.4g}" for bound in each["range"])
        say(f"takes:  {each['name']} {each['dtype']} {each['shape']}, from {low} to {high} ({inputs})".replace("'", ""))
    say(f"gives:  {' and '.join(OUTPUTS)}, calibrated", "use:")
    say(*(f"    {line}" for line in found.example))


def _calibration_text(calibration: Calibration, folded: str) -> str:
    if calibration.calibrator is None:
        return "no calibration"
    fitted = f"temperature {calibration.temperature:.4f}" if calibration.temperature else calibration.method
    return f"{fitted}, {'in a layer that follows the model' if folded == EXTRA_LAYER else f'folded into {folded!r}'}"
