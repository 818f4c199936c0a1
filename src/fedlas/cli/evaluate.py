"""``fedlas evaluate``: measures predictions of a run or of a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.defaults import CONFIDENCE_LEVEL, METHOD
from fedlas._core.progress import show_status
from fedlas._core.terminal import print_lines
from fedlas._core.text import quote_path, wrap_command
from fedlas.cli.arguments import (
    NUM_BINS,
    AddSubcommand,
    add_confidence_level,
    add_data_folder,
    add_decision_rules,
    add_files,
    add_flag,
    add_num_bins,
    add_option,
    add_page,
    add_replicates,
    add_sample_columns,
    add_score_columns,
    check_page_options,
    data_unused_error,
    format_column_options,
    format_typed_columns,
    heading,
    import_from_lab,
    parse_columns,
    parse_decision_rules,
)
from fedlas.cli.gate import add_require_options, check_gate_options, print_gate
from fedlas.predictions.tables.files import FORMATS, has_parquet_files
from fedlas.predictions.tables.outputs import Output, check_outputs
from fedlas.predictions.tables.roles import OF_FIT, Columns

if TYPE_CHECKING:
    from fedlas.predictions import PredictionTable
    from fedlas.present.evaluation import Evaluation
    from fedlas.present.labels import LabelEvaluation


def add_evaluate(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas evaluate``."""
    parser = add(_run, "FILE")
    text = f"predictions ({', '.join(FORMATS)}), a run folder, or lm-eval's samples_*.jsonl"
    add_files(parser, "file", "FILE", text, nargs="+")
    add_score_columns(parser)
    add_sample_columns(parser)
    add_num_bins(parser)
    add_replicates(parser)
    add_confidence_level(parser)
    statistics, output = heading(parser, "statistics"), heading(parser, "output")
    add_flag(
        statistics,
        "--top-label",
        "two classes: evaluate the predicted class (default: the probability of the event)",
    )
    text = "two classes: compare O/E, slope and AUROC of the --clusters, such as hospitals (default: no)"
    add_flag(statistics, "--heterogeneity", text)
    text = "held-out predictions to fit on (default: a run's val)"
    add_files(parser, "--on", "FILE", text)
    add_option(
        parser,
        "--method",
        "NAME",
        f"calibrator to apply, or 'all' (default: {METHOD} with --on but without --reject, else none)",
        nargs="?",
        const=METHOD,
    )
    add_option(
        heading(parser, "decisions"),
        "--reject",
        "RISK",
        "find the confidence threshold for this error rate of accepted predictions, chosen on --on, e.g. 0.05 "
        "(default: none)",
        type=float,
        nargs="+",
        default=(),
    )
    add_decision_rules(parser)
    add_page(parser, "--report", "page to write, with reliability diagrams")
    add_require_options(parser)
    add_flag(parser, "--details", "every metric with its interval (default: main ones)")
    add_flag(
        output, "--json", "print JSON, fractions in full precision (default: a table in percent)"
    )
    add_data_folder(output, "folder of a run's data, if a calibrator needs its model")


def _run(args: argparse.Namespace) -> int:
    from fedlas.predictions import read_predictions
    from fedlas.predictions.tables.read import merge_notes
    from fedlas.present.report import report
    from fedlas.present.stages import RAW, HeldOut

    args.file, *more = args.file
    columns = parse_columns(args)
    _check_options(args, more, columns)
    if args.on is None and columns is not None:  # of a file of --columns
        nothing: dict[str, Any] = dict.fromkeys((*OF_FIT, "covariates"))
        columns = replace(columns, **nothing)
    place = Path(args.file)
    run = place.is_dir() and not has_parquet_files(place)
    with show_status() as show:
        tables: list[tuple[str, PredictionTable]] = []
        held_out = val = None
        if args.on is not None:
            # The held-out file may lack the column of groups.
            score_columns = None if columns is None else replace(columns, groups=None)
            tables.append((Path(args.on).name, read_predictions(args.on, score_columns)))
            val = tables[0][1].predictions
            held_out = HeldOut(val, show=show)
        if run:
            predictions: Any = import_from_lab("studies.run_parts", "load_test_predictions")(place)
            if held_out is not None or args.method is not None or args.reject:
                held_out = import_from_lab("studies.run_parts", "load_held_out")(
                    place, val=val, data=args.data, show=show
                )
        else:
            like = tables[0][1] if tables else None
            predictions = read_predictions([args.file, *more], columns, like=like)
            label = f"{1 + len(more)} files" if more else place.name
            tables.append((label, predictions))
        evaluation = report(
            predictions,
            on=held_out,
            method=args.method,
            reject=args.reject,
            **parse_decision_rules(args),
            top_label=args.top_label,
            heterogeneity=args.heterogeneity,
            num_bins=args.num_bins,
            confidence_level=args.confidence_level,
            replicates=args.replicates,
            name=place.name,
            notes=merge_notes(tables) + _calibrated_score_notes(args, columns),
            grouped_by=(columns and columns.groups) or ("task" if more else "group"),
            repair="",
            title=args.title,
            period=args.period,
        )
    # A rule that cannot be used is refused before a page is written.
    gate = evaluation.require(*args.require, strict=args.strict) if args.require else None
    _print_evaluation(evaluation, args)
    lines: list[str] = []
    is_fit = not run and _can_fit_table(args.on, columns)
    if is_fit and len(evaluation.stages) == 2 and not evaluation.verdicts[RAW].is_reversed:
        lines = [_calibrate_command(args.on, columns, args.method or METHOD)]
    if evaluation.needs_calibration:
        lines.append(_calibrated_command([args.file, *more], args, columns, run=run))
    for line in () if args.json else lines:
        print_lines(*wrap_command(line, prefix="next: "))
    return 0 if gate is None else print_gate(gate, args, suite=place.name)


def _calibrated_score_notes(args: argparse.Namespace, columns: Columns | None) -> list[str]:
    """Return notes on already calibrated scores, if a calibrator is fitted."""
    is_fit = args.on is not None or args.method is not None
    return columns.already_calibrated_notes() if is_fit and columns is not None else []


def _can_fit_table(held_out: str | None, columns: Columns | None) -> bool:
    """Return whether ``fedlas calibrate`` can fit the same calibration: from a table with one label per row."""
    from fedlas.predictions.tables.read import is_lm_eval_log

    columns = columns or Columns()
    if held_out is None or is_lm_eval_log(Path(held_out), columns):
        return False
    return columns.label_probs is None


def _calibrated_command(
    files: Sequence[str], args: argparse.Namespace, columns: Columns | None, *, run: bool
) -> str:
    """Return the command that repeats the evaluation with a calibrator."""
    calibration = f"--method {METHOD}" if run else "--on VAL"
    if args.on is not None:
        calibration = f"--on {quote_path(args.on)} --method {METHOD}"
    options = format_typed_columns(args, columns) + " --top-label" * args.top_label
    options += " --heterogeneity" * args.heterogeneity
    options += f" --reject {' '.join(f'{risk:g}' for risk in args.reject)}" if args.reject else ""
    rules = parse_decision_rules(args)
    options += " --threshold" * bool(rules)
    options += "".join(f" {name.replace('_', '-')}={value:g}" for name, value in rules.items())
    for name, default in (("num_bins", NUM_BINS), ("confidence_level", CONFIDENCE_LEVEL)):
        if getattr(args, name) != default:
            options += f" --{name.replace('_', '-')} {getattr(args, name):g}"
    return f"fedlas evaluate {' '.join(map(quote_path, files))} {calibration}{options}"


def _calibrate_command(val: str, columns: Columns | None, method: str) -> str:
    """Return the ``fedlas calibrate`` command that writes the evaluated calibration."""
    # The groups were measured, and a fit would take them as covariates.
    columns = None if columns is None else replace(columns, groups=None)
    options = format_column_options(columns) + ("" if method == METHOD else f" --method {method}")
    return f"fedlas calibrate {quote_path(val)}{options} --out cal.json"


def _print_evaluation(evaluation: Evaluation | LabelEvaluation, args: argparse.Namespace) -> None:
    from fedlas.present.page import write_page
    from fedlas.present.table import print_blocks

    print_lines(*(f"note: {note}" for note in evaluation.notes), stderr=True)
    if args.json:
        print_lines(*evaluation.json().split("\n"))
    else:
        print_blocks(evaluation.blocks(details=args.details), details=args.details)
    if args.report is not None:
        write_page(args.report, evaluation.html())
        if not args.json:
            print_lines(f"report: {args.report}")


def _check_options(args: argparse.Namespace, more: Sequence[str], columns: Columns | None) -> None:
    """Raise InputError if options contradict each other, before anything is read."""
    from fedlas.present.gate import JUNIT, check_rule_syntax
    from fedlas.present.page import EVALUATION_PAGE
    from fedlas.present.report import covariates_unused_error
    from fedlas.present.stages import ALL_CALIBRATORS
    from fedlas.stats.estimates import check_replicates

    check_replicates(args.replicates, args.confidence_level)
    check_gate_options(args, "--require", args.require)
    check_rule_syntax(args.require)
    for name in OF_FIT if args.on is None else ():
        if getattr(args, name) is not None:
            raise InputError(
                "requires --on", "no --on", "Add --on, or omit the option.", argument=name
            )
    if args.method == ALL_CALIBRATORS and args.require:
        raise InputError(
            "--require must not be combined with --method all",
            "--method all",
            "Name one calibrator.",
        )
    is_run = Path(args.file).is_dir() and not has_parquet_files(Path(args.file))
    if is_run and columns is not None:
        raise InputError(
            "options that name columns require a prediction file",
            f"the folder {args.file}",
            "Omit these options, or pass a prediction file.",
        )
    if args.data is not None and not is_run:
        raise data_unused_error(args.file)
    if args.covariates and args.on is None and not is_run:
        raise covariates_unused_error()
    check_page_options(args, "--report")
    written = (
        Output("--report", args.report, EVALUATION_PAGE),
        Output("--junit", args.junit, JUNIT),
    )
    check_outputs(written, (args.file, *more, args.on))
