"""``fedlas monitor``: reports whether live predictions have changed since the card was written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.files import ensure_name
from fedlas._core.terminal import print_lines, print_renderable
from fedlas._core.text import pluralize
from fedlas.cli.arguments import (
    AddSubcommand,
    add_files,
    add_flag,
    add_hidden_sample_columns,
    add_option,
    add_page,
    add_path,
    add_score_columns,
    check_page_options,
    parse_columns,
)
from fedlas.predictions.tables.files import local_copies
from fedlas.predictions.tables.outputs import Output, check_outputs
from fedlas.predictions.tables.roles import LABELS

if TYPE_CHECKING:
    from fedlas.deploy.monitor.columns import ColumnDrift
    from fedlas.deploy.monitor.history import PeriodHistory
    from fedlas.deploy.monitor.look import Monitor
    from fedlas.predictions.tables.files import Name
    from fedlas.predictions.tables.roles import Columns


def add_monitor(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas monitor``."""
    parser = add(_run, "CARD PREDS [PREDS ...]")
    add_path(parser, "card", "CARD", "card.json, or the run folder that holds it")
    text = "live predictions in the order of time, with labels or not; logs of lm-evaluation-harness with labels"
    add_files(parser, "files", "PREDS", text, nargs="+")
    add_score_columns(parser)
    add_hidden_sample_columns(parser)
    add_option(
        parser,
        "--false-alarm",
        "X",
        "largest probability of any alarm while nothing changes (default: %(default)s)",
        type=float,
        default=0.01,
    )
    add_flag(
        parser, "--raw", "PREDS are raw: apply the card's calibration (default: as the card says)"
    )
    add_flag(parser, "--calibrated", "PREDS are calibrated (default: as the card says)")
    add_path(
        parser,
        "--state",
        "FILE",
        "state file to resume from and to update (default: start anew)",
    )
    add_path(
        parser,
        "--history",
        "JSON",
        "add PREDS as one period, such as a month, with the columns of --covariates, and write the page of all "
        "periods next to it (default: none)",
    )
    add_option(
        parser,
        "--covariates",
        "COLUMNS",
        "columns to watch without labels: means, categories, missing shares, against those on the card or of the first "
        "period of --history; named like --logits (default: none)",
        nargs="+",
    )
    add_page(parser, "--page", "write the history as a page")
    text = "print JSON, which > FILE keeps (default: a table and sentences)"
    add_flag(parser, "--json", text)
    text = (
        "print nothing but an alarm; the exit status says it too (default: a table and sentences)"
    )
    add_flag(parser, "--quiet", text)
    add_flag(parser, "--details", "print every watched mean (default: one for each watch)")


def _run(args: argparse.Namespace) -> int:
    from fedlas.deploy.monitor.columns import (
        card_column_statistics,
        check_comparable_columns,
        column_statistics,
        find_drift,
    )
    from fedlas.deploy.monitor.look import ALARM_EXIT_STATUS, monitor_files
    from fedlas.deploy.monitor.state import lock_files
    from fedlas.present.monitor_page import alarm_sentences, monitor_page, monitor_verdict
    from fedlas.present.page import write_page

    _check_options(args)
    columns = parse_columns(args)
    sums: dict[str, dict[str, Any]] = {}
    latest: list[ColumnDrift] = []
    pages: list[tuple[Path, str]] = []
    # Standard input is read before anyone waits for the locks, which are held until all is written.
    with local_copies(args.files) as here, lock_files(args.state, args.history):
        files = [Path(str(name)) for name in here]
        columns = _without_missing_labels(args, columns, files)
        history = None if args.history is None else _open_history(args, here)
        if columns is not None and columns.covariates is not None:
            sums = column_statistics(files, columns)
        watcher = monitor_files(
            args.card,
            files,
            false_alarm=args.false_alarm,
            # Of the scores alone.
            columns=None if columns is None else replace(columns, covariates=None),
            raw=True if args.raw else False if args.calibrated else None,
            state=args.state,
        )
        if columns is not None and columns.covariates is not None and history is None:
            on_card = card_column_statistics(watcher.card)
            check_comparable_columns(
                on_card, sums, columns.split_option("covariates") if columns else ()
            )
            latest = find_drift(on_card, sums)
        # All is made before anything is written: what cannot be shown leaves the files as they are.
        if history is not None:
            from fedlas.present.history_page import history_page

            latest = history.add(watcher, args.card, sums)
            pages.append((args.history.with_suffix(".html"), history_page(history.periods)))
        drifts = [str(drift) for drift in latest]
        verdict = monitor_verdict(watcher, drifts)
        if args.page is not None:
            html = monitor_page(watcher, title=args.title, period=args.period, drifts=drifts)
            pages.append((args.page, html))
        content = {"verdict": verdict, **watcher.content}
        if sums:
            content["drifts"] = drifts
        # The alarm is printed before the files are written: a full disk must not hide it.
        if args.json:
            print_lines(*json.dumps(content, indent=2).split("\n"))
        elif not args.quiet:
            _print_report(watcher, verdict, details=args.details)
        elif latest or watcher.status:
            print_lines(verdict, *alarm_sentences(content), wrap=True)
        # Pages come first: until the counts are written, a call that is stopped can be repeated.
        for place, page in pages:
            write_page(place, page)
        if history is not None:
            history.write(watcher)
        elif args.state is not None:
            watcher.write_state(args.state)
    if not args.json and not args.quiet:
        if history is not None:
            count = pluralize(len(history.periods), "period")
            print_lines(f"history: {args.history}, {count}", f"         {pages[0][0]}")
        if args.page is not None:
            print_lines(f"page: {args.page}")
    return ALARM_EXIT_STATUS if latest else watcher.status


def _without_missing_labels(
    args: argparse.Namespace, columns: Columns | None, files: Sequence[Path]
) -> Columns | None:
    """Return the columns without labels of the file of ``--columns`` that no table has: live rows may have none."""
    from fedlas.predictions.tables.read import open_source

    if args.columns is None or columns is None:
        return columns
    names = {name for file in files for name in open_source(file, columns)[0].names}
    missing: dict[str, Any] = {
        role: None
        for role in LABELS
        if not getattr(args, role)
        and not any(
            fnmatchcase(name, each) for each in columns.split_option(role) for name in names
        )
    }
    if any(getattr(columns, role) for role in missing):
        print_lines(
            f"note: no labels: {args.columns} names columns that are not there.", stderr=True
        )
    return replace(columns, **missing)


def _open_history(args: argparse.Namespace, here: Sequence[Name]) -> PeriodHistory:
    """Open the history of periods; print a note if an interrupted call was completed."""
    from fedlas.deploy.monitor.history import PeriodHistory

    history = PeriodHistory(args.history, args.files, here, args.period, args.state)
    if history.has_recovered_periods:
        text = f"the last call was interrupted; its period in {args.state} has been added to {args.history}"
        print_lines(f"note: {text}.", stderr=True)
    return history


def _check_options(args: argparse.Namespace) -> None:
    """Raise InputError if options contradict each other, before anything is read."""
    from fedlas.deploy.monitor.history import HISTORY
    from fedlas.deploy.monitor.state import STATE
    from fedlas.present.page import HISTORY_PAGE, MONITOR_PAGE

    check_page_options(args, "--page", period_alone=args.history is not None)
    page = None if args.history is None else ensure_name(args.history).with_suffix(".html")
    written = (
        Output("--state", args.state, STATE),
        Output("--history", args.history, HISTORY),
        Output("the page of --history", page, HISTORY_PAGE),
        Output("--page", args.page, MONITOR_PAGE),
    )
    check_outputs(written, (*args.files, args.card))
    if args.raw and args.calibrated:
        raise InputError("--raw and --calibrated must not be combined", "both", "Omit one.")


def _print_report(watcher: Monitor, verdict: str, *, details: bool) -> None:
    """Print the verdict and the tables of the watches."""
    from fedlas.present.groups import MAX_ROWS
    from fedlas.present.monitor_page import (
        alarm_sentences,
        explanatory_notes,
        labels_table,
        statistics_table,
        watches_table,
    )
    from fedlas.present.table import print_blocks, terminal_table

    content = watcher.content
    print_lines(verdict, *alarm_sentences(content), wrap=True)
    print_renderable(terminal_table(watches_table(content)))
    if (labels := labels_table(content, max_rows=None if details else MAX_ROWS)) is not None:
        print_blocks([labels], details=details)
    if details:
        print_renderable(terminal_table(statistics_table(content).where((0, 1, 2, 4))))
    print_lines(watcher.summary, *explanatory_notes(content), wrap=True, style="dim")
