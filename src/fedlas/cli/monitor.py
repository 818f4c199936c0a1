"""``fedlas monitor``: reports whether anything has changed since the card was written."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import check_output
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_page,
    add_path,
    check_page_options,
    columns_of,
    flag,
    option,
)
from fedlas.deploy.monitor.look import monitor
from fedlas.present.monitor_page import (
    explanations,
    monitor_page,
    reasons,
    statistics_table,
    watches_table,
)
from fedlas.present.page import write_page
from fedlas.present.table import terminal


def add_monitor(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_monitor, "CARD PREDS [PREDS ...]")
    option(parser, "card", "CARD", "card.json, or the run folder that holds it", type=Path)
    option(
        parser,
        "files",
        "PREDS",
        "live predictions in the order of time, with labels or not",
        type=Path,
        nargs="+",
    )
    add_columns(parser)
    option(
        parser,
        "--false-alarm",
        "X",
        "largest probability of any alarm while nothing changes (default: %(default)s)",
        type=float,
        default=0.01,
    )
    flag(parser, "--raw", "apply the card's calibration first (default: as the card says)")
    flag(parser, "--calibrated", "PREDS are calibrated (default: as the card says)")
    add_path(
        parser,
        "--state",
        "FILE",
        "file of the state: resume from it, and update it (default: start afresh)",
    )
    add_page(parser, "--page", "write the history as a page")
    flag(parser, "--json", "print JSON (default: a table and sentences)")
    flag(parser, "--details", "print every watched mean (default: one for each watch)")


def _monitor(args: argparse.Namespace) -> int:
    check_page_options(args, "--page")
    check_output("--page", args.page, (*args.files, args.card, args.state))
    check_output("--state", args.state, (*args.files, args.card))
    if args.raw and args.calibrated:
        raise InputError("--raw and --calibrated exclude each other", "both", "Leave one out.")
    watcher = monitor(
        args.card,
        args.files,
        false_alarm=args.false_alarm,
        columns=columns_of(args),
        raw=True if args.raw else False if args.calibrated else None,
        state=args.state,
    )
    content = watcher.content
    # The alarm is printed before the page is written: a full disk must not hide it.
    if args.json:
        say(*json.dumps(content, indent=2).split("\n"))
    else:
        say(watcher.verdict, *reasons(content), wrap=True)
        show(terminal(watches_table(content)))
        if args.details:
            show(terminal(statistics_table(content).where((0, 1, 2, 4))))
        say(watcher.summary, *explanations(content), wrap=True, style="dim")
    if args.page is not None:
        write_page(args.page, monitor_page(watcher, title=args.title, period=args.period))
        if not args.json:
            say(f"page: {args.page}")
    return watcher.status
