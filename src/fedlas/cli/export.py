"""``fedlas export``: exports a calibrated model for production."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import fedlas
from fedlas._core.check import InputError, check_choice, truncated_list
from fedlas._core.defaults import METHOD, ExportFormat, SqlDialect
from fedlas._core.files import ensure_name
from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import (
    AddSubcommand,
    add_card_options,
    add_option,
    add_path,
    import_from_lab,
)
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlas.calibrated.calibration import Calibration
    from fedlas.deploy.exported import Exported


def add_export(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas export``."""
    parser = add(_run, "RUN | FILE")
    text = "folder of a finished run, a file of CalibratedModel.save, or one of fedlas calibrate"
    add_path(parser, "place", "RUN | FILE", text)
    add_option(
        parser,
        "--format",
        "NAME",
        f"{', '.join(get_args(ExportFormat))} (default: %(default)s)",
        default="onnx",
    )
    add_option(
        parser,
        "--dialect",
        "NAME",
        f"the database that sql is for: {', '.join(get_args(SqlDialect))} (default: {get_args(SqlDialect)[0]})",
    )
    add_option(
        parser,
        "--keep",
        "COLUMN",
        "further columns that the statement of sql returns, such as an id (default: none)",
        nargs="+",
        default=[],
    )
    add_path(
        parser, "--out", "PATH", "file to write (default: RUN/export/model, or FILE, with .SUFFIX)"
    )
    add_option(
        parser,
        "--model",
        "MODULE:FUNCTION",
        "for FILE: your function that builds the model, found from this folder (default: none)",
    )
    add_path(
        parser,
        "--inputs",
        "NPZ",
        "for FILE: real inputs, an array (N, ...) or several named as arguments (default: none)",
    )
    add_option(
        parser,
        "--free-axes",
        "AXIS",
        "for FILE: axes of any size besides the first, as 2 3, or NAME:AXIS of an input (default: none)",
        nargs="+",
        default=[],
    )
    add_card_options(parser)


def _run(args: argparse.Namespace) -> int:
    """Export a model and print how to call it; a run also gets its card."""
    from fedlas.deploy.card import CARD
    from fedlas.deploy.formats import FORMATS, exported_file_kind
    from fedlas.present.page import CARD_PAGE

    form = check_choice("--format", args.format, FORMATS)
    if args.dialect is not None:
        check_choice("--dialect", args.dialect, get_args(SqlDialect))
    if form != "sql" and (args.dialect is not None or args.keep):
        name = "--keep" if args.dialect is None else "--dialect"
        raise InputError(f"{name} requires --format sql", f"--format {form}", f"Omit {name}.")
    is_run = args.place.is_dir() or not args.place.exists()
    suffix = FORMATS[form].suffix
    default = args.place / "export" / "model" if is_run else args.place.with_suffix("")
    out = default.with_name(f"{default.name}{suffix}") if args.out is None else args.out
    written = [Output("--out", out, exported_file_kind(form))]
    if is_run:
        card = ensure_name(out).with_name(f"{out.name}.card.json")
        written += [Output("the card of --out", card, CARD)]
        written += [Output("the page of --out", card.with_suffix(".html"), CARD_PAGE)]
    check_outputs(written, (args.place, args.inputs))
    if is_run:
        return _export_run(args, out, card)
    return (
        _export_table(args, out)
        if args.place.suffix.lower() == ".json"
        else _export_file(args, out)
    )


def _export_table(args: argparse.Namespace, out: Path) -> int:
    """Export the calibration of a table, which needs neither a model nor inputs."""
    from fedlas.calibrated import TableCalibration
    from fedlas.deploy.model_files import export as export_model_file

    unused = {
        "--method": args.method,
        "--data": args.data,
        "--model": args.model,
        "--inputs": args.inputs,
    }
    if names := [
        name
        for name, value in {**unused, "--free-axes": args.free_axes or None}.items()
        if value is not None
    ]:
        raise InputError(
            f"{names[0]} must not be passed with a calibration file, which needs no model",
            f"the calibration {args.place}",
            f"Omit {names[0]}.",
        )
    calibration = TableCalibration.load(args.place)
    exported = export_model_file(
        calibration,
        out,
        form=args.format,
        dialect=args.dialect,
        keep=args.keep,
        about={"fedlas": fedlas.__version__},
    )
    kind = "percentages" if calibration.columns.percent else calibration.columns.kind
    unit = f"{kind} of {truncated_list(calibration.scores)}, in this order"
    if calibration.covariates is not None:
        unit += f"; covariates {truncated_list(calibration.covariates.inputs)}"
    outputs = (
        truncated_list([*args.keep, *calibration.scores, *calibration.added])
        if args.format == "sql"
        else ""
    )
    database = ""
    if args.format == "sql":
        from fedlas.deploy.sql import DIALECTS

        database = f"for {DIALECTS[args.dialect or get_args(SqlDialect)[0]].title}, "
    _print_export(args.place.name, calibration.fitted, exported, unit, outputs, database)
    return 0


def _export_run(args: argparse.Namespace, out: Path, card_place: Path) -> int:
    from fedlas.deploy.calibration import check_method
    from fedlas.present.page import require_page_packages
    from fedlas.stats.estimates import check_replicates

    method = args.method or METHOD
    # Everything that can be refused is refused before the export, which may take minutes.
    if args.free_axes or args.model is not None or args.inputs is not None:
        raise InputError(
            "--free-axes, --model and --inputs require the file of a CalibratedModel",
            f"the run {args.place}",
            "Omit these options: a run contains its model.",
        )
    if args.out is None:
        import_from_lab("runs.folder", "RunFolder")(args.place).require_inside(
            args.place / "export" / "model"
        )
    check_method(method)
    check_replicates(args.replicates)
    require_page_packages()
    options = {
        "form": args.format,
        "calibrate": method,
        "data": args.data,
        "replicates": args.replicates,
    }
    name, calibration, exported, card = import_from_lab("studies.export", "export_run")(
        args.place, out, **options
    )
    print_lines(*(f"note: {note}" for note in calibration.notes))
    _print_export(name, calibration, exported, "raw pixels; the model normalizes them")
    page = card.save(card_place)
    print_lines(f"card:   {card_place}", f"        {page}")
    return 0


def _export_file(args: argparse.Namespace, out: Path) -> int:
    from fedlas.calibrated import CalibratedModel
    from fedlas.deploy.model_files import export as export_model_file

    file = args.place
    if args.method is not None or args.data is not None:
        raise InputError(
            "--method and --data require a run folder",
            f"the file {file}",
            "Omit both: a saved model contains its calibration.",
        )
    if args.model is None or args.inputs is None:
        raise InputError(
            "the file of a CalibratedModel requires --model and --inputs",
            f"no {'--model' if args.model is None else '--inputs'}",
            "Pass --model MODULE:FUNCTION, which builds the architecture, and --inputs NPZ with real inputs.",
        )
    arrays = _read_inputs(args.inputs)
    calibrated = CalibratedModel.load(file, _build_model(args.model))
    exported = export_model_file(
        calibrated,
        out,
        arrays,
        form=args.format,
        by_name=len(arrays) > 1,
        free_axes=_parse_free_axes(args.free_axes, list(arrays)),
        about={"file": file.name, "fedlas": fedlas.__version__},
    )
    prepared = f"as in {args.inputs.name}; prepare inputs as there"
    _print_export(file.name, calibrated.fitted, exported, prepared)
    print_lines(f"card:   fedlas card {file} VAL TEST writes one, from uncalibrated predictions")
    return 0


def _parse_free_axes(texts: list[str], names: list[str]) -> dict[str, list[int]]:
    """Parse free axes, ``AXIS`` or ``NAME:AXIS``, into lists of axes by input."""
    axes: dict[str, list[int]] = {}
    for text in texts:
        name, _, axis = text.rpartition(":")
        if not axis.isdecimal():
            raise InputError(
                "--free-axes must be AXIS or NAME:AXIS", repr(text), "Write e.g. --free-axes 2 3."
            )
        for each in [name] if name else names:
            axes.setdefault(each, []).append(int(axis))
    return axes


def _read_inputs(path: Path) -> dict[str, Tensor]:
    """Read the arrays of an ``.npz`` file as tensors, by name."""
    import torch

    from fedlas._core.arrays import open_arrays

    try:
        with open_arrays(path) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.names}
    except (OSError, TypeError, ValueError) as error:
        raise InputError(
            "--inputs must be an .npz file of numeric arrays",
            f"{path} ({error})",
            "Write it with numpy.savez(path, inputs=batch.numpy()).",
        ) from error


def _build_model(function_spec: str) -> nn.Module:
    """Import the user's function ``MODULE:FUNCTION`` and return the model it builds."""
    from torch import nn

    name, _, function = function_spec.partition(":")
    fix = "Write --model MODULE:FUNCTION, e.g. --model my_models:build, in the folder of my_models.py."
    sys.path.insert(0, str(Path.cwd()))  # as ``python -m`` does
    try:
        build: Any = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            "--model must name an importable function", f"{function_spec} ({error})", fix
        ) from error
    finally:
        sys.path.pop(0)
    model = build() if callable(build) else build
    if not isinstance(model, nn.Module):
        raise InputError(
            "the function of --model must return an nn.Module",
            f"{type(model).__name__} from {function_spec}",
            fix,
        )
    return model


def _print_export(
    name: str,
    calibration: Calibration,
    exported: Exported,
    inputs: str,
    outputs: str = "",
    database: str = "",
) -> None:
    from fedlas.deploy.formats import FORMATS, OUTPUTS
    from fedlas.deploy.model_files import TOLERANCE

    print_lines(
        f"{name}: calibration {calibration}",
        f"{database}checked with {FORMATS[exported.form].reader}: {exported.samples:,} samples, largest difference "
        f"of a probability {exported.difference:.2g} (at most {TOLERANCE:g})",
        f"model:  {exported.path} ({exported.size / 2**20:.1f} MiB)",
    )
    for each in exported.inputs:
        low, high = (f"{bound:.4g}" for bound in each["range"])
        print_lines(
            f"takes:  {each['name']} {each['dtype']} {each['shape']}, from {low} to {high} ({inputs})".replace(
                "'", ""
            )
        )
    print_lines(
        f"gives:  {outputs or ' and '.join(OUTPUTS) + ', calibrated'}",
        "use:",
        *(f"    {line}" for line in exported.example),
    )
