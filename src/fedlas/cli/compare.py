"""``fedlas compare``: two files of predictions on the same samples; methods of benches are in ``compare_runs``."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import InputError
from fedlas._core.terminal import say
from fedlas.cli.arguments import (
    AddSubcommand,
    add_columns,
    add_files,
    add_num_bins,
    add_replicates,
    add_samples,
    columns_of,
    flag,
    option,
)
from fedlas.cli.gate import add_gate, check_gate, show_gate
from fedlas.predictions.roles import OF_FIT
from fedlas.predictions.tables.outputs import Output, check_outputs

if TYPE_CHECKING:
    from fedlas.predictions import PredictionTable
    from fedlas.predictions.any_predictions import AnyPredictions


def add_compare(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(_compare, "FILE FILE")
    text = "predictions of two models on the same samples"
    add_files(parser, "files", "FILE", text, nargs=2)
    metrics = "metrics (default: accuracy, nll, brier, ece; of two classes auroc, nll, brier, ece of the event)"
    option(parser, "--metrics", "NAME", metrics, nargs="+", default=())
    flag(
        parser,
        "--top-label",
        "compare two classes by the predicted one (default: by the probability of the second)",
    )
    flag(parser, "--markdown", "a Markdown table (default: one for the terminal)")
    add_columns(parser)
    add_samples(parser, without=("label_probs", "covariates", *OF_FIT))
    add_num_bins(parser)
    add_replicates(parser)
    option(
        parser,
        "--fail-if-worse",
        "NAME",
        "metrics in which the first must not be worse beyond chance; else exit status 3 (default: none)",
        nargs="+",
        default=(),
    )
    option(
        parser,
        "--margin",
        "X",
        "how much worse it may be, as a fraction, e.g. 0.01 (default: %(default)s)",
        type=float,
        default=0.0,
    )
    add_gate(parser)
    flag(parser, "--json", "print JSON (default: a table)")


def _compare(args: argparse.Namespace) -> int:
    """Print in which metrics one of two models is better on the same samples; return the exit status."""
    from fedlas.predictions import read_predictions
    from fedlas.predictions.read import notes_of
    from fedlas.present.comparison import compare, plain_differences
    from fedlas.present.gate import JUNIT, check_directed
    from fedlas.present.ranking import better_in, differences_of_groups, differences_of_models
    from fedlas.present.table import show_blocks
    from fedlas.stats.estimates import check_replicates

    check_gate(args, "--fail-if-worse", args.fail_if_worse)
    check_directed(args.fail_if_worse, args.margin)
    check_outputs([Output("--junit", args.junit, JUNIT)], args.files)
    if args.margin and not args.fail_if_worse:
        raise InputError(
            "--margin goes with --fail-if-worse",
            "no --fail-if-worse",
            "Add --fail-if-worse, or leave it out.",
        )
    if args.replicates == 0:
        raise InputError(
            "replicates must be at least 39", 0, "Leave --replicates out, or ask for 1000."
        )
    check_replicates(args.replicates)
    paths = [Path(file) for file in args.files]
    _check_differ(*paths)
    columns = columns_of(args)
    first_table = read_predictions(args.files[0], columns)
    second_table = read_predictions(args.files[1], columns, like=first_table)
    _check_labels(first_table, second_table)
    notes = notes_of([(paths[0].name, first_table), (paths[1].name, second_table)])
    notes += _notes_on_rows(first_table.predictions, second_table.predictions)
    say(*(f"note: {note}" for note in notes), stderr=True)
    # The fewer metrics are compared, the fewer Holm's correction is for.
    metrics = list(dict.fromkeys([*args.metrics, *args.fail_if_worse])) or None
    compared = compare(
        first_table,
        second_table,
        metrics,
        num_bins=args.num_bins,
        replicates=args.replicates,
        top_label=args.top_label,
    )
    if args.json:
        say(*json.dumps(plain_differences(compared), indent=2).split("\n"))
    first, second = (
        path.name if paths[0].name != paths[1].name else name
        for path, name in zip(paths, args.files, strict=True)
    )
    title = f"A: {first}, B: {second}, {compared.samples:,} samples"
    if not args.json:
        sentences = better_in(compared, (first, second))
        table = differences_of_models(compared, title=title)
        groups = [differences_of_groups(compared)] if compared.groups else []
        show_blocks([*sentences, table, *groups], as_markdown=args.markdown)
    if not args.fail_if_worse:
        return 0
    options: dict[str, Any] = {
        "margin": args.margin,
        "strict": args.strict,
        "names": (first, second),
    }
    gate = compared.fail_if_worse(*args.fail_if_worse, **options)
    return show_gate(gate, args, suite=f"{first} {second}")


def _check_differ(a: Path, b: Path) -> None:
    """Refuse a file that would be compared with itself."""
    with suppress(OSError):
        if a.samefile(b):
            raise InputError(
                "the two files must hold predictions of two models",
                f"{a} and {b}, which are one file",
                "Name the file of the other model.",
            )


def _notes_on_rows(a: AnyPredictions, b: AnyPredictions) -> list[str]:
    """Return a note on rows without weight, and one if both hold the same scores of all classes."""
    from fedlas.predictions.any_predictions import note_on_weights, with_some_weight

    _, counted = with_some_weight(a)
    notes = [] if counted is None else [note_on_weights(counted)]
    one, other = (getattr(each, "logits", None) for each in (a, b))
    if one is None or other is None or one.shape != other.shape or bool((one != other).any()):
        return notes
    same = "both files hold the same predictions; calibrated ones stand in columns of their own."
    return [*notes, same]


def _check_labels(a: PredictionTable, b: PredictionTable) -> None:
    """Compare the labels of top labels, which their predictions do not hold."""
    from fedlas.predictions import TopLabel

    if a.labels is None or b.labels is None:
        unknown = any(
            isinstance(each.predictions, TopLabel) and each.labels is None for each in (a, b)
        )
        if unknown and a.predictions.num_samples == b.predictions.num_samples:
            say(
                "note: a file holds no labels: nothing shows that both hold the same samples in one order.",
                stderr=True,
            )
        return
    differ = [
        row
        for row, pair in enumerate(zip(a.labels, b.labels, strict=False), start=1)
        if pair[0] != pair[1]
    ]
    if differ and len(a.labels) == len(b.labels):
        raise InputError(
            "both files must hold the same samples, in the same order",
            f"labels that differ in {len(differ):,} of {len(a.labels):,} rows, first in row {differ[0]:,}",
            "Sort both files by sample, or write them without shuffling.",
        )
