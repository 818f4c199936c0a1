"""``fedlas runs shift``: measures finished runs on corrupted test images."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from fedlas._core.files import check_writable, write_json
from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import print_lines, print_renderable
from fedlas.cli.arguments import (
    AddSubcommand,
    add_data_folder,
    add_flag,
    add_option,
    add_path,
    add_replicates,
)

if TYPE_CHECKING:
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.present.table import Cell, Table

_METRICS = ("accuracy", "ece", "nll")
_CAPTION = (
    "In brackets and as floor the means over the corruptions of the ends of each ECE's 95 % bootstrap interval over "
    "the images, and of its noise floor, the ECE of a calibrated model with the same confidences. The images are the "
    "same in all, so an interval of the mean would be no wider. shift.json has those of every corruption, with the "
    "p-value of the calibration test."
)


def add_shift(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs shift``."""
    parser = add(_run, "RUN [RUN ...]")
    add_path(parser, "runs", "RUN", "folders of finished runs", nargs="+")
    add_option(
        parser,
        "--corruptions",
        "NAME",
        "corruptions, see 'fedlas list corruptions' (default: all)",
        nargs="+",
        default=[],
    )
    add_option(
        parser,
        "--severities",
        "N",
        "severities from 1 to 5 (default: all five)",
        nargs="+",
        type=int,
        default=[],
    )
    add_option(
        parser,
        "--seed",
        "N",
        "seed of random corruptions (default: %(default)s)",
        type=int,
        default=0,
    )
    add_flag(parser, "--save", "also save predictions/test-NAME-N.npz (default: metrics only)")
    add_replicates(
        parser, default=199
    )  # few, since there are seventy-five sets of corrupted images
    add_data_folder(parser, "folder of the runs' data")


def _run(args: argparse.Namespace) -> int:
    from fedlas.lab.data.shift import CORRUPTIONS, SEVERITIES, Corruption
    from fedlas.lab.runs.folder import RunFolder
    from fedlas.lab.runs.load import load_trained_run
    from fedlas.lab.studies.shift import measure_shift
    from fedlas.present.table import terminal_table
    from fedlas.stats.estimates import check_replicates

    check_replicates(args.replicates)
    chosen = [
        Corruption(name, severity, args.seed)
        for name in dict.fromkeys(args.corruptions or CORRUPTIONS)
        for severity in dict.fromkeys(args.severities or SEVERITIES)
    ]
    folders = [RunFolder(path, data_root=args.data) for path in args.runs]
    loaded = [load_trained_run(folder) for folder in folders]
    for folder in folders:
        check_writable(folder.path)
    with ProgressBar("fedlas runs shift", total=len(chosen) * len(folders)) as bar:
        save_to = (
            (lambda place, part: folders[place].require_inside(folders[place].part_path(part)))
            if args.save
            else None
        )
        results = measure_shift(
            loaded, chosen, on_step=bar.advance, save_to=save_to, replicates=args.replicates
        )
    for folder, measured in zip(folders, results, strict=True):
        write_json(folder.shift_path, measured)
        print_renderable(terminal_table(_severity_table(folder, measured), details=True))
        print_lines(*([_CAPTION] if args.replicates else []), *measured["notes"], wrap=True)
        print_lines(f"all figures: {folder.shift_path}")
    return 0


def _severity_table(folder: RunFolder, measured: Mapping[str, Any]) -> Table:
    """Return a table with a row per severity: means over corruptions, in percent except NLL."""
    from fedlas.present.table import make_table

    heads = ("severity", "accuracy, %", "ECE, %", "NLL", "ECE after, %", "NLL after")
    by_severity = {"clean": [measured["clean"]]}
    for row in measured["corrupted"]:
        by_severity.setdefault(str(row["severity"]), []).append(row)
    rows: list[Sequence[str | Cell]] = []
    for severity, entries in by_severity.items():
        before, after = (
            {name: fmean(entry[key][name] for entry in entries) for name in _METRICS}
            for key in ("test", "test_calibrated")
        )
        stages = (("test", before), ("test_calibrated", after))
        ece = [_ece_cell(stage["ece"], entries, key) for key, stage in stages]
        nll = [f"{stage['nll']:.3f}" for stage in (before, after)]
        rows.append((severity, _format_percent(before["accuracy"]), ece[0], nll[0], ece[1], nll[1]))
    corruptions = len({row["corruption"] for row in measured["corrupted"]})
    title = f"{folder.name}: test images under corruption, means over {corruptions} corruptions"
    return make_table(heads, rows, title=title)


def _format_percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _ece_cell(ece: float, entries: Sequence[Mapping[str, Any]], stage: str) -> Cell:
    """Return a cell with a mean ECE, and the mean interval and noise floor below it."""
    from fedlas.present.table import Cell

    noises = [entry["noise"][stage]["ece"] for entry in entries if "noise" in entry]
    if not noises:
        return Cell(_format_percent(ece))
    low, high, floor = (
        _format_percent(fmean(noise[name] for noise in noises)) for name in ("low", "high", "floor")
    )
    return Cell(_format_percent(ece), details=(f"[{low}, {high}]", f"floor {floor}"))
