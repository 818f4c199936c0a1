"""``fedlas card``: writes the calibration card of a run or of two prediction files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.defaults import METHOD, RISKS
from fedlas._core.errors import Argument
from fedlas._core.files import ensure_name
from fedlas._core.outputs import STANDARD_STREAM
from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import (
    AddSubcommand,
    add_card_options,
    add_decision_rules,
    add_files,
    add_flag,
    add_hidden_sample_columns,
    add_option,
    add_path,
    add_score_columns,
    data_unused_error,
    import_from_lab,
    parse_columns,
    parse_decision_rules,
)
from fedlas.cli.gate import add_require_options, check_gate_options, print_gate
from fedlas.predictions.tables.files import (
    has_parquet_files,
    local_copies,
    store_address,
)
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from fedlas.calibrated.calibration import Calibration
    from fedlas.predictions.tables.roles import Columns
    from fedlas.present.card import CalibrationCard


def add_card(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas card``."""
    parser = add(_run, "RUN | [MODEL] VAL TEST")
    add_files(
        parser,
        "places",
        "RUN | [MODEL] VAL TEST",
        "folder of a finished run; or two files of uncalibrated predictions, after the file of a "
        "CalibratedModel to calibrate them with, if there is one",
        nargs="+",
    )
    add_path(
        parser,
        "--out",
        "JSON",
        "file to write, next to an .html page (default: RUN/card.json, or .card.json of MODEL or TEST)",
    )
    add_option(
        parser,
        "--risks",
        "X",
        "target error rates of accepted predictions (default: 0.005 0.01 0.02 0.05 0.1)",
        type=float,
        nargs="+",
        default=RISKS,
    )
    add_option(parser, "--title", "TEXT", "title of the page (default: of the model)", default="")
    add_option(
        parser,
        "--period",
        "TEXT",
        "when the test samples were collected, for the card (default: none)",
        default="",
    )
    add_flag(
        parser, "--top-label", "two classes: card of the predicted class (default: of the event)"
    )
    add_decision_rules(parser, "events found: 0.5, 0.8 and 0.9")
    add_require_options(parser)
    parser.set_defaults(json=False)  # which a gate asks for
    add_flag(parser, "--details", "print all metrics and known limits (default: thresholds)")
    add_card_options(parser)
    add_score_columns(parser)
    text = "columns of the test file for fedlas monitor to compare with; named like --logits (default: none)"
    add_option(parser, "--covariates", "COLUMNS", text, nargs="+")
    add_hidden_sample_columns(parser)


def _run(args: argparse.Namespace) -> int:
    from fedlas.deploy.monitor.columns import category_limits, column_statistics
    from fedlas.present.table import print_blocks

    places = args.places
    paths = [Path(place) for place in places]
    out = _checked_output_path(args, paths)
    columns = parse_columns(args)
    options = {"risks": args.risks, "replicates": args.replicates}
    rules = parse_decision_rules(args)
    for_files = {**rules, "title": args.title, "period": args.period, "top_label": args.top_label}
    file_options = [*rules, *(name for name in ("title", "period", "top_label") if for_files[name])]
    if file_options and len(places) == 1:
        names = [piece for name in file_options for piece in (" and ", Argument(name))][1:]
        raise InputError(
            (*names, " must come with prediction files"),
            f"the run {places[0]}",
            ("Pass two prediction files, or omit ", *names, "."),
        )
    if len(places) > 1:
        if args.data is not None:
            raise data_unused_error(places[0])
        with local_copies(places) as files:
            local = [Path(str(name)) for name in files]
            sums = column_statistics(local[-1:], columns)
            if columns is not None:  # of the scores alone
                columns = replace(columns, covariates=None)
            card = _build_card_from_files(local, args.method, columns, {**options, **for_files})
        if sums:
            content = card.card
            content = replace(
                content, columns=sums, limits=[*content.limits, *category_limits(sums)]
            )
            card = replace(card, card=content)
            print_lines(*(f"note: {limit}" for limit in category_limits(sums)), stderr=True)
    elif columns is not None:
        raise InputError(
            "options that name columns require prediction files",
            f"the run {places[0]}",
            "Omit these options, or pass two prediction files.",
        )
    else:
        card_of_run = import_from_lab("studies.export", "fit_run_card")
        card = card_of_run(paths[0], calibrate=args.method or METHOD, data=args.data, **options)
    # A rule that cannot be used is refused before the card is written.
    bounds, strict = args.require, args.strict
    gate = card.evaluation.require(*bounds, strict=strict) if bounds else None
    page = card.save(out)
    print_blocks(card.blocks(details=args.details), details=args.details)
    print_lines(f"card: {out}", f"      {page}")
    return 0 if gate is None else print_gate(gate, args, suite=card.card.name)


def _checked_output_path(args: argparse.Namespace, paths: Sequence[Path]) -> Path:
    """Return the path of the card to write; raise InputError for contradicting options before reading anything."""
    from fedlas.deploy.card import CARD
    from fedlas.present.gate import JUNIT, check_rule_syntax
    from fedlas.present.page import CARD_PAGE, require_page_packages
    from fedlas.stats.estimates import check_replicates

    places = args.places
    out: Path | None = args.out
    check_replicates(args.replicates)
    check_gate_options(args, "--require", args.require)
    check_rule_syntax(args.require)
    require_page_packages()
    _check_sources(paths)
    # The place is checked before the work, so that minutes of bootstrap are not lost to a typing error.
    if out is None and len(places) == 1:
        out = paths[0] / "card.json"
    elif out is None:  # next to the model, if there is one
        out = _default_card_path(places[0] if len(places) == 3 else places[-1])
    written = (
        Output("--junit", args.junit, JUNIT),
        Output("--out", out, CARD),
        Output("the page of --out", ensure_name(out).with_suffix(".html"), CARD_PAGE),
    )
    check_outputs(written, places)
    return out


def _default_card_path(source: str) -> Path:
    if source == STANDARD_STREAM or store_address(source) is not None:
        raise InputError(
            "--out is required, because the test file is not a local file",
            "no --out",
            "Add --out card.json.",
        )
    return ensure_name(Path(source)).with_suffix(".card.json")


def _check_sources(places: Sequence[Path]) -> None:
    folders = [place for place in places if place.is_dir() and not has_parquet_files(place)]
    if len(folders) == len(places) == 1 or (not folders and len(places) in (2, 3)):
        return
    raise InputError(
        "the arguments must be a run folder, or two prediction files: validation, then test",
        ", ".join(f"{'folder' if place in folders else 'file'} {place}" for place in places),
        "Run fedlas card RUN, or fedlas card val.npz test.npz.",
    )


def _build_card_from_files(
    places: Sequence[Path],
    calibrate: str | None,
    columns: Columns | None,
    options: Mapping[str, Any],
) -> CalibrationCard:
    from fedlas.calibrated.file import read_file
    from fedlas.predictions import read_predictions
    from fedlas.present.card import card as make_card

    *models, val_file, test_file = places
    if models and calibrate is not None:
        raise InputError(
            "--method must not be passed with a saved model, which contains its calibration",
            f"--method {calibrate}",
            "Omit --method, or the model.",
        )
    val = read_predictions(val_file, columns)
    test = read_predictions(test_file, columns)
    if val.classes != test.classes:
        raise InputError(
            "both files must have the same class names",
            f"{', '.join(val.classes[:12])} and {', '.join(test.classes[:12])}",
            "Name the classes alike in both files, or pass --classes a,b,c.",
        )
    print_lines(*(f"note: {note}" for note in dict.fromkeys((*val.notes, *test.notes))))
    method: str | Calibration = read_file(models[0])[1] if models else calibrate or METHOD
    return make_card(
        val,
        test,
        method,
        name=models[0].stem if models else test_file.stem,
        data=test_file.name,
        classes=test.classes or None,
        **options,
    )
