"""``fedlas monitor``: reports whether live predictions have changed since the card was written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.terminal import say, show
from fedlas._core.text import number_of
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_files,
    add_page,
    add_path,
    add_refused,
    check_page_options,
    columns_of,
    flag,
    option,
)
from fedlas.predictions.tables.files import local_names
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from fedlas.deploy.monitor.columns import Drift
    from fedlas.deploy.monitor.history import PeriodHistory
    from fedlas.deploy.monitor.look import Monitor
    from fedlas.predictions.tables.files import Name


def add_monitor(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas monitor``."""
    parser = add(_monitor, "CARD PREDS [PREDS ...]")
    add_path(parser, "card", "CARD", "card.json, or the run folder that holds it")
    text = "live predictions in the order of time, with labels or not; logs of lm-evaluation-harness with labels"
    add_files(parser, "files", "PREDS", text, nargs="+")
    add_columns(parser)
    add_refused(parser)
    option(
        parser,
        "--false-alarm",
        "X",
        "largest probability of any alarm while nothing changes (default: %(default)s)",
        type=float,
        default=0.01,
    )
    flag(parser, "--raw", "PREDS are raw: apply the card's calibration (default: as the card says)")
    flag(parser, "--calibrated", "PREDS are calibrated (default: as the card says)")
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
    option(
        parser,
        "--covariates",
        "COLUMNS",
        "columns to watch without labels: means, categories, missing shares, against those on the card or of the first "
        "period of --history; named like --logits (default: none)",
        nargs="+",
    )
    add_page(parser, "--page", "write the history as a page")
    flag(parser, "--json", "print JSON (default: a table and sentences)")
    flag(parser, "--details", "print every watched mean (default: one for each watch)")


def _monitor(args: argparse.Namespace) -> int:
    from fedlas.deploy.monitor.columns import (
        check_columns,
        column_sums,
        columns_of_card,
        drift_between,
    )
    from fedlas.deploy.monitor.look import ALARM, watch_files
    from fedlas.deploy.monitor.state import locked_files
    from fedlas.present.history_page import history_page
    from fedlas.present.monitor_page import monitor_page
    from fedlas.present.page import write_page

    _check(args)
    columns = columns_of(args)
    sums: dict[str, dict[str, Any]] = {}
    latest: list[Drift] = []
    pages: list[tuple[Path, str]] = []
    # Standard input is read before anyone waits for the locks, which are held until all is written.
    with local_names(args.files) as here, locked_files(args.state, args.history):
        files = [Path(str(name)) for name in here]
        history = None if args.history is None else _open_history(args, here)
        if args.covariates is not None:
            sums = column_sums(files, columns)
        watcher = watch_files(
            args.card,
            files,
            false_alarm=args.false_alarm,
            # Of the scores alone.
            columns=None if columns is None else replace(columns, covariates=None),
            raw=True if args.raw else False if args.calibrated else None,
            state=args.state,
        )
        if args.covariates is not None and history is None:
            on_card = columns_of_card(watcher.card)
            check_columns(on_card, sums, columns.words("covariates") if columns else ())
            latest = drift_between(on_card, sums)
        # All is made before anything is written: what cannot be shown leaves the files as they are.
        if history is not None:
            latest = history.add(watcher, args.card, sums)
            pages.append((args.history.with_suffix(".html"), history_page(history.periods)))
        texts = [f"DRIFT of a column: {', '.join(map(str, latest))}."] if latest else []
        if args.page is not None:
            html = monitor_page(watcher, title=args.title, period=args.period, drifts=texts)
            pages.append((args.page, html))
        content = watcher.content
        if sums:
            content["drifts"] = [str(drift) for drift in latest]
        # The alarm is printed before the files are written: a full disk must not hide it.
        if args.json:
            say(*json.dumps(content, indent=2).split("\n"))
        else:
            _show(watcher, texts, details=args.details)
        if history is not None:
            history.write(watcher)
        elif args.state is not None:
            watcher.write_state(args.state)
        for place, page in pages:
            write_page(place, page)
    if not args.json:
        if history is not None:
            count = number_of(len(history.periods), "period")
            say(f"history: {args.history}, {count}", f"         {pages[0][0]}")
        if args.page is not None:
            say(f"page: {args.page}")
    return ALARM if latest else watcher.status


def _open_history(args: argparse.Namespace, here: Sequence[Name]) -> PeriodHistory:
    """Open the history of periods; print a note if an interrupted call was completed."""
    from fedlas.deploy.monitor.history import PeriodHistory

    history = PeriodHistory(args.history, args.files, here, args.period, args.state)
    if history.is_completed:
        text = f"the last call was interrupted; its period in {args.state} has been added to {args.history}"
        say(f"note: {text}.", stderr=True)
    return history


def _check(args: argparse.Namespace) -> None:
    """Raise InputError if options contradict each other, before anything is read."""
    from fedlas.deploy.monitor.history import HISTORY
    from fedlas.deploy.monitor.state import STATE
    from fedlas.present.page import HISTORY_PAGE, MONITOR_PAGE

    check_page_options(args, "--page", period_alone=args.history is not None)
    page = None if args.history is None else args.history.with_suffix(".html")
    written = (
        Output("--state", args.state, STATE),
        Output("--history", args.history, HISTORY),
        Output("the page of --history", page, HISTORY_PAGE),
        Output("--page", args.page, MONITOR_PAGE),
    )
    check_outputs(written, (*args.files, args.card))
    if args.raw and args.calibrated:
        raise InputError("--raw and --calibrated must not be combined", "both", "Omit one.")


def _show(watcher: Monitor, texts: Sequence[str], *, details: bool) -> None:
    """Print the verdict and the tables of the watches."""
    from fedlas.present.groups import MOST
    from fedlas.present.monitor_page import (
        explanations,
        labels_table,
        reasons,
        statistics_table,
        watches_table,
    )
    from fedlas.present.table import show_blocks, terminal

    content = watcher.content
    say(watcher.verdict, *reasons(content), *texts, wrap=True)
    show(terminal(watches_table(content)))
    if (labels := labels_table(content, most=None if details else MOST)) is not None:
        show_blocks([labels], details=details)
    if details:
        show(terminal(statistics_table(content).where((0, 1, 2, 4))))
    say(watcher.summary, *explanations(content), wrap=True, style="dim")
