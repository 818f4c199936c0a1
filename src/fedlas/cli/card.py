"""``fedlas card``: writes a calibration card, of a run or of two files of predictions."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import path_argument
from fedlas._core.terminal import say
from fedlas.calibrated.file import read_file
from fedlas.cli.arguments import AddSubcommand, add_card_options, add_columns, add_details, columns_of, laboratory
from fedlas.deploy.card import check_card_place
from fedlas.predictions import Columns, read_predictions
from fedlas.present.card import CalibrationCard
from fedlas.present.card import card as make_card
from fedlas.present.page import require_page_packages
from fedlas.present.stages import DEFAULT
from fedlas.present.table import show_blocks
from fedlas.stats.estimates import REPLICATES, check_replicates
from fedlas.stats.selective_risk import DEFAULT_RISKS


def add_card(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_card, "RUN | [MODEL] VAL TEST")
    parser.add_argument(
        "places",
        type=Path,
        nargs="+",
        metavar="RUN | [MODEL] VAL TEST",
        help="folder of a finished run; or two files of uncalibrated predictions, before them the file of a "
        "CalibratedModel whose calibration they go through",
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="JSON",
        help="where it goes, .html beside it (default: RUN/card.json, MODEL.card.json or TEST.card.json)",
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
    add_card_options(parser, default=DEFAULT)
    add_columns(parser, top_label=True)


def _card(args: argparse.Namespace) -> int:
    return card(
        *args.places,
        out=args.out,
        calibrate=args.calibrate,
        risks=args.risks,
        replicates=args.replicates,
        data=args.data,
        columns=columns_of(args),
        details=args.details,
    )


def card(
    *places: Path,
    out: Path | None = None,
    calibrate: str | None = None,
    risks: Sequence[float] = DEFAULT_RISKS,
    replicates: int = REPLICATES,
    data: str | None = None,
    columns: Columns | None = None,
    details: bool = False,
) -> int:
    """Write a calibration card and print what is on it.

    Args:
        *places: Folder of a finished run with validation and test predictions. Or two files of predictions, not
            calibrated; a file of a :class:`~fedlas.CalibratedModel` may come before them.
        out: The JSON file, ``.html`` beside it; None is ``card.json`` in the run's folder, ``MODEL.card.json`` or
            ``TEST.card.json``.
        calibrate: Calibrator, fitted on validation, or none; None is auto, or that of the model's file.
        risks: Wanted risks, each in (0, 1).
        replicates: Of intervals and noise floors; 0 computes none.
        data: Where the run's data is, for the names of its classes; None searches the usual places.
        columns: Which columns of the files hold what; None for ``.npz`` with ``logits`` and ``target``.
        details: Print all metrics and the known limits, too.

    Returns:
        0.

    Raises:
        InputError: If the run, a file or its predictions cannot be used, or a number is out of range.
    """
    check_replicates("fedlas card", replicates)
    require_page_packages()
    if out is not None and out.suffix.lower() != ".json":
        raise InputError("fedlas card", "--out must end in .json", out, "The page goes beside it, in .html.")
    # The place is checked before the work, so that minutes of bootstrap are not lost to a typing error.
    if out is not None:
        path = out
    elif len(places) == 1:
        path = places[0] / "card.json"
    else:  # beside the model, if there is one, whose card it is
        path = (places[0] if len(places) == 3 else places[-1]).with_suffix(".card.json")
    _check_places(places)
    check_card_place(path)
    options: dict[str, Any] = {"risks": risks, "replicates": replicates}
    if len(places) == 1:
        if columns is not None:
            raise InputError("fedlas card", "columns are for files", f"the run {places[0]}", "Leave their options out.")
        card_of_run = laboratory("studies.export", "card_of_run")
        made = card_of_run(places[0], calibrate=calibrate or DEFAULT, data=data, **options)
    else:
        made = _of_files(places, calibrate, columns, options)
    page = made.save(path)
    show_blocks(made.blocks(details=details), details=details)
    say(f"card: {path}", f"      {page}")
    return 0


def _check_places(places: Sequence[Path]) -> None:
    files = [place for place in places if not place.is_dir()]
    if len(places) == 1 and not files:
        return
    if len(files) == len(places) and len(places) in (2, 3):
        return
    got = (
        "nothing" if not places else ", ".join(f"{'file' if place in files else 'folder'} {place}" for place in places)
    )
    raise InputError(
        "fedlas card",
        "it takes the folder of a run, or two files of predictions: validation, then test",
        got,
        "Pass fedlas card RUN, or fedlas card val.npz test.npz.",
    )


def _of_files(
    places: Sequence[Path], calibrate: str | None, columns: Columns | None, options: Mapping[str, Any]
) -> CalibrationCard:
    *models, val_file, test_file = places
    if models and calibrate is not None:
        fix = "Leave --calibrate out, or the model."
        raise InputError("fedlas card", "a saved model has its calibration", f"--calibrate {calibrate}", fix)
    val, test = read_predictions(val_file, columns), read_predictions(test_file, columns)
    if val.classes != test.classes:
        differing = f"{', '.join(val.classes[:12])} and {', '.join(test.classes[:12])}"
        raise InputError("fedlas card", "both files must name the same classes", differing, "Name the columns a,b,c.")
    for note in dict.fromkeys((*val.notes, *test.notes)):
        say(f"note: {note}")
    return make_card(
        val.predictions,
        test.predictions,
        read_file(models[0])[1] if models else calibrate or DEFAULT,
        name=models[0].stem if models else test_file.stem,
        data=test_file.name,
        classes=test.classes or None,
        **options,
    )
