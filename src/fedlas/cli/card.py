"""``fedlas card``: writes a run's calibration card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import path_argument, write_json, write_text
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_card_options, add_details
from fedlas.deploy.calibration import fit_calibration
from fedlas.deploy.card import check_card_place
from fedlas.lab.report.card_page import card_answers, card_metrics, card_page, thresholds_table
from fedlas.lab.report.page import require_page_packages
from fedlas.lab.report.table import terminal
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.runs.load import splits_at_hand
from fedlas.lab.studies.card import RunCard, run_card
from fedlas.stats.estimates import REPLICATES, check_replicates
from fedlas.stats.selective_risk import DEFAULT_RISKS


def add_card(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add("card", _card, "Write a run's calibration card: what it may be trusted with.", "RUN")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--out", type=path_argument, metavar="JSON", help="where it goes, .html beside it (default: RUN/card.json)"
    )
    parser.add_argument(
        "--risks",
        type=float,
        nargs="+",
        default=DEFAULT_RISKS,
        metavar="X",
        help="wanted shares of wrong among accepted predictions (default: 0.005 0.01 0.02 0.05 0.1)",
    )
    add_details(parser, "print all metrics and known limits (default: what may be accepted)")
    add_card_options(parser)


def _card(args: argparse.Namespace) -> int:
    return card(
        args.run_folder,
        out=args.out,
        calibrate=args.calibrate,
        risks=args.risks,
        replicates=args.replicates,
        data=args.data,
        details=args.details,
    )


def card(
    folder: Path,
    *,
    out: Path | None = None,
    calibrate: str = "temperature",
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    data: str | None = None,
    details: bool = False,
) -> int:
    """Write the calibration card of a run and print what is on it.

    Args:
        folder: Folder of a finished run with validation and test predictions.
        out: The JSON file, ``.html`` beside it; None is ``card.json`` in the run's folder.
        calibrate: Calibrator, fitted on validation: temperature, vector or none.
        risks: Wanted risks, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        data: Where the run's data is, for the names of its classes; None searches the usual places.
        details: Print all metrics and the known limits, too.

    Returns:
        0.

    Raises:
        InputError: If the run or its predictions cannot be used, or a number is out of range.
    """
    check_replicates("fedlas card", replicates)
    require_page_packages()
    if out is not None and out.suffix.lower() != ".json":
        raise InputError("fedlas card", "--out must end in .json", out, "The page goes beside it, in .html.")
    run = RunFolder(folder)
    # The place is checked before the work, so that minutes of bootstrap are not lost to a typing error.
    path = run.card_path if out is None else out
    check_card_place(path)
    calibration = fit_calibration(calibrate, run.predictions("val"))
    # Class names need the data set, which may be on another machine; the card can do without them.
    splits, _ = splits_at_hand(folder, data=data)
    classes = None if splits is None else splits.classes
    made = run_card(run, calibration, risks=risks, replicates=replicates, classes=classes)
    page, content = write_card(made, path), made.content
    parts = ", ".join(f"{size:,} {part}" for part, size in content["data"]["samples"].items())
    say(f"{content['model']['run']}: calibration {calibration.method}; {parts} samples; calibrated, on test:")
    say(*(f"{answer.question}: {answer.text}" for answer in card_answers(content)))
    thresholds = thresholds_table(content)
    show(terminal(thresholds if details else thresholds.where((0, 1, 4, 5, 6))))
    if details:
        show(terminal(card_metrics(content), details=True))
        say(*content["limits"], wrap=True)
    say(f"card: {path}", f"      {page}")
    return 0


def write_card(card: RunCard, path: Path) -> Path:
    """Write a card as JSON to ``path``, which ends in ``.json``, and as a page beside it; returns the place of that."""
    page = card_page(card.content, card.stages, num_bins=card.num_bins)
    write_json(path, card.content)
    return write_text(path.with_suffix(".html"), page)
