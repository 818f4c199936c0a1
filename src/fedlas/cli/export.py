"""``fedlas export``: writes a run's model for production, its calibration folded in."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedlas._core.check import InputError, check_choice, check_number
from fedlas._core.files import path_argument
from fedlas._core.terminal import say
from fedlas.cli.arguments import AddSubcommand, add_card_options
from fedlas.cli.card import write_card
from fedlas.deploy.calibration import METHODS, Calibration
from fedlas.deploy.card import check_card_place
from fedlas.deploy.export import OWNER, TOLERANCE
from fedlas.deploy.formats import FORMATS, INPUT, OUTPUTS
from fedlas.deploy.model import EXTRA_LAYER
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.studies.card import run_card
from fedlas.lab.studies.export import export_run
from fedlas.stats.estimates import check_replicates


def add_export(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add("export", _export, "Write a run's model for production, its calibration folded in, checked.", "RUN")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--format", default="onnx", metavar="NAME", help="onnx, torch-export or safetensors (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=path_argument, metavar="FILE", help="where it goes (default: RUN/export/model.SUFFIX)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="X",
        help="most that a probability may differ from the run's (default: %(default)s)",
    )
    add_card_options(parser)


def _export(args: argparse.Namespace) -> int:
    return export(
        args.run_folder,
        form=args.format,
        out=args.out,
        calibrate=args.calibrate,
        data=args.data,
        tolerance=args.tolerance,
        replicates=args.replicates,
    )


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
    # Everything that can be refused is refused before the export, which may take minutes.
    form = check_choice(OWNER, "--format", form, FORMATS)
    check_number(OWNER, "--tolerance", tolerance, low=0.0)
    check_choice(OWNER, "--calibrate", calibrate, METHODS)
    check_replicates(OWNER, replicates)
    require_page_packages()
    suffix = FORMATS[form].suffix
    out = folder / "export" / f"model{suffix}" if out is None else out
    if out.suffix.lower() != suffix:
        raise InputError(OWNER, f"--out must end in {suffix} for {form}", out, "Name such a file.")
    card_place = out.with_name(f"{out.name}.card.json")
    check_card_place(card_place)
    run = RunFolder(folder, data_root=data)
    trained, calibration, found = export_run(run, out, form=form, calibrate=calibrate, tolerance=tolerance)
    for note in calibration.notes:
        say(f"note: {note}")
    say(f"{trained.run.name}: {_calibration_text(calibration, found.folded)}")
    say(
        f"checked with {FORMATS[form].reader}: {found.samples:,} test samples, largest difference of a probability "
        f"{found.difference:.2g} (at most {tolerance:g})"
    )
    shape, size = ["batch", *found.shape], found.size / 2**20
    say(f"model:  {out} ({size:.1f} MiB; {INPUT} uint8 {shape} -> {', '.join(OUTPUTS)})")
    # The card describes the exported file, whose calibration may not be that of the run.
    card = run_card(run, calibration, replicates=replicates, classes=trained.splits.classes, exported=found.plain())
    page = write_card(card, card_place)
    say(f"card:   {card_place}", f"        {page}")
    return 0


def _calibration_text(calibration: Calibration, folded: str) -> str:
    if calibration.method == "none":
        return "no calibration"
    what = f"temperature {calibration.temperature:.4f}" if calibration.temperature else "vector scaling"
    extra = "in an extra layer, as no linear layer of its own makes the logits"
    return f"{what}, fitted on the validation part, {extra if folded == EXTRA_LAYER else f'folded into {folded!r}'}"
