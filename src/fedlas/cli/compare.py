"""``fedlas compare``: compares two models on the same samples, or two methods over seeds."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlas._core.check import Argument, InputError
from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import (
    AddSubcommand,
    add_bench_calibrators,
    add_files,
    add_flag,
    add_num_bins,
    add_option,
    add_path,
    add_replicates,
    add_sample_columns,
    add_score_columns,
    parse_columns,
)
from fedlas.cli.gate import add_gate_options, check_gate_options, print_gate
from fedlas.cli.markup import add_markup_flags, print_in_format
from fedlas.predictions.tables.outputs import Output, check_outputs
from fedlas.predictions.tables.roles import OF_FIT, SCORES, Columns

if TYPE_CHECKING:
    from fedlas.predictions import PredictionTable
    from fedlas.predictions.any_predictions import AnyPredictions
    from fedlas.present.comparison import Comparison
    from fedlas.present.table import Block

_PAIR = re.compile(r"[^/\\:]*:[^/\\:]*")
"""Two methods of a bench, ``fedlas:ls``; an address of a store has a slash."""
_COMMON_OPTIONS = ("names", "metrics", "markup", "title", "run", "subcommand")
_RUN_OPTIONS = ("method", "stage", "rope", "plot")
_REJECTED_OPTIONS: dict[str, tuple[str, ...]] = {
    "folders of benches": (),
    "lists of seeds": (*_RUN_OPTIONS, "replicates", "groups", "clusters", "against"),
    "two files": (*_RUN_OPTIONS, "details", "others", "test_share"),
}
"""By what is compared, the options that say nothing of it; benches take :data:`_BENCH_OPTIONS` alone."""
_BENCH_OPTIONS = (*_COMMON_OPTIONS, *_RUN_OPTIONS, "details", "replicates")


def add_compare(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas compare``."""

    def run(args: argparse.Namespace) -> int:
        return _compare(args, parser.get_default)

    parser = add(
        run,
        "FILE FILE | FILE --against COLUMNS | FILES --with FILES | FOLDERS",
    )
    text = (
        "predictions of two models on the same samples, or of each seed of a method; or folders of benches, and pairs "
        "of methods that you planned to compare: A minus B, e.g. fedlas:ls, or ce@auto:ce@temperature with calibrators"
    )
    add_files(parser, "names", "NAME", text, nargs="+")
    text = (
        "predictions of each seed of another method: files or a pattern, paired with the first by the numbers in which "
        "the names differ; tested over seeds (default: two models are tested over samples)"
    )
    add_files(parser, "--with", "FILE", text, nargs="+", dest="others", default=())
    metrics = (
        "metrics (default: accuracy, nll, brier, ece; of two classes auroc, nll, brier, ece of the event; of benches "
        "nll for pairs, else nll ece)"
    )
    add_option(parser, "--metrics", "NAME", metrics, nargs="+", default=())
    add_markup_flags(parser)
    title = "title of the tables (default: the files, the recipe, or the number of data sets)"
    add_option(parser, "--title", "TEXT", title, default="")
    add_replicates(parser)
    _add_file_options(parser)
    _add_run_options(parser)


def _add_file_options(parser: argparse.ArgumentParser) -> None:
    add_flag(
        parser,
        "--top-label",
        "two classes: compare the predicted class (default: the probability of the event)",
    )
    add_score_columns(parser)
    text = (
        "two models in one file: columns of the second one's scores, named like --logits; the options name those of "
        "the first (default: the same columns in a second file)"
    )
    add_option(parser, "--against", "COLUMNS", text, action="append")
    add_sample_columns(parser, excluded=("label_probs", "covariates", *OF_FIT))
    add_num_bins(parser)
    add_option(
        parser,
        "--fail-if-worse",
        "NAME",
        "metrics in which the first model must not be significantly worse; else exit status 3 (default: none)",
        nargs="+",
        default=(),
    )
    text = (
        "lists of seeds with test samples of their own: the share of the data that each tests, e.g. 0.2 for five "
        "folds; 0 if training data do not overlap (default: one test set for all)"
    )
    add_option(parser, "--test-share", "X", text, type=float)
    add_option(
        parser,
        "--margin",
        "X",
        "how much worse the first model may be, as a fraction, e.g. 0.01 (default: %(default)s)",
        type=float,
        default=0.0,
    )
    add_gate_options(parser)
    add_flag(parser, "--json", "print JSON (default: a table)")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add_bench_calibrators(parser)
    text = "benches: compare the raw predictions, or those after this calibrator (default: raw)"
    add_option(parser, "--stage", "NAME", text, default="raw")
    text = (
        "several benches: also the probability that one method is better, by Bayesian signed ranks; differences "
        "up to X in the metric are equivalent, e.g. 0.005 for half a point of an ECE (default: none)"
    )
    add_option(parser, "--rope", "X", text, type=float)
    text = (
        "benches: also draw them: .svg, .png or .pdf; seed by seed, or ranks over several benches "
        "(default: none)"
    )
    add_path(parser, "--plot", "FILE", text, nargs="+", default=[])
    add_flag(parser, "--details", "benches: also show means or deviations (default: what fits)")


def _compare(args: argparse.Namespace, default_of: Callable[[str], Any]) -> int:
    """Compare benches, seeds or files, and print the differences; return the exit status."""
    of_runs = _compares_runs(args)
    compared = "folders of benches" if of_runs else "lists of seeds" if args.others else "two files"
    for name, value in vars(args).items():
        refused = name not in _BENCH_OPTIONS if of_runs else name in _REJECTED_OPTIONS[compared]
        if refused and value != default_of(name):
            kinds = [
                kind
                for kind, options in _REJECTED_OPTIONS.items()
                if (name in _BENCH_OPTIONS if kind == "folders of benches" else name not in options)
            ]
            raise InputError(
                (Argument(name), f" can only be used with {' or '.join(kinds)}"),
                compared,
                ("Omit ", Argument(name), "."),
            )
    if of_runs:
        # Imported for folders of runs alone: nothing else here needs the laboratory.
        return int(import_module("fedlas.cli.compare_runs").compare_runs(args))
    return _compare_predictions(args)


def _compares_runs(args: argparse.Namespace) -> bool:
    """Return whether the arguments name run folders or pairs of methods, rather than prediction files."""
    if args.columns is not None or any(getattr(args, name) for name in SCORES):
        return False
    folders = any(Path(name).is_dir() for name in args.names)
    return folders or any(_PAIR.fullmatch(name) and not Path(name).exists() for name in args.names)


def _compare_predictions(args: argparse.Namespace) -> int:
    """Compare two prediction files, or two lists of files over seeds; return the exit status."""
    from fedlas.present.comparison import compare, differences_to_dict

    _check_options(args)
    (first, second), names = _read_seeds(args) if args.others else _read_two_models(args)
    options: dict[str, Any] = (
        {"test_share": args.test_share} if args.others else {"replicates": args.replicates}
    )
    # The fewer metrics are compared, the fewer Holm's correction is for.
    metrics = list(dict.fromkeys([*args.metrics, *args.fail_if_worse])) or None
    compared = compare(
        first, second, metrics, num_bins=args.num_bins, top_label=args.top_label, **options
    )
    if args.json:
        print_lines(*json.dumps(differences_to_dict(compared), indent=2).split("\n"))
    else:
        _print_comparison(args, compared, names)
    if not args.fail_if_worse:
        return 0
    options = {"margin": args.margin, "strict": args.strict, "names": names}
    gate = compared.fail_if_worse(*args.fail_if_worse, **options)
    return print_gate(gate, args, suite=" ".join(names))


def _print_comparison(
    args: argparse.Namespace, compared: Comparison, names: tuple[str, str]
) -> None:
    """Print sentences and a table of the differences."""
    from fedlas.cli.compare_seeds import methods_and_data
    from fedlas.present.differences import (
        NARROW_COLUMNS,
        comparison_sentences,
        difference_notes,
        difference_sentence,
        differences_table,
        groups_table,
    )

    event = compared.event
    data = ""
    if args.markup == "latex":
        names, data = methods_and_data(*names)
    differences = [replace(each, names=names) for each in compared.values()]
    seeds = f"; A - B over {differences[0].count} seeds" if compared.unit == "seeds" else ""
    test_share = differences[0].test_share
    size = f"{compared.samples:,} samples" + " or more each" * (test_share is not None)
    named = f"A: {names[0]}, B: {names[1]}{seeds}, {size}{f' of {data}' * bool(data)}"
    table = differences_table(
        differences,
        title=args.title or named,
        event=event,
        notes=difference_notes(compared.unit, event, test_share),
    )
    label = args.title or f"compare {' '.join(names)}"
    if compared.unit == "seeds":
        if args.markup is None and not args.details:
            table = table.where(NARROW_COLUMNS)
        print_in_format(
            args,
            [*(difference_sentence(each, event=event) for each in differences), table],
            label=label,
        )
        return
    groups = [groups_table(compared.groups, compared, event=event)] if compared.groups else []
    blocks: list[Block] = [*comparison_sentences(differences, names, event=event), table, *groups]
    print_in_format(args, blocks, label=label)


def _read_two_models(
    args: argparse.Namespace,
) -> tuple[tuple[PredictionTable, PredictionTable], tuple[str, str]]:
    """Read the predictions of two models; return them with a name for each model."""
    from fedlas.predictions import read_predictions
    from fedlas.predictions.tables.read import merge_notes

    paths = [Path(file) for file in args.names]
    columns = other_columns = parse_columns(args) or Columns()
    if args.against is None:
        _check_different_files(*paths)
        first, second = (
            path.name if paths[0].name != paths[1].name else name
            for path, name in zip(paths, args.names, strict=True)
        )
    else:
        kind = str(columns.kind)
        against = args.against[0] if len(args.against) == 1 else args.against
        other_columns = replace(columns, **{kind: against})
        first, second = (", ".join(each.split_option(kind)) for each in (columns, other_columns))
    first_table = read_predictions(args.names[0], columns)
    second_table = read_predictions(args.names[-1], other_columns, like=first_table)
    _check_labels(first_table, second_table)
    if args.against is None:
        notes = merge_notes([(first, first_table), (second, second_table)])
    else:
        notes = [*dict.fromkeys([*first_table.notes, *second_table.notes])]
    notes += _row_notes(first_table.predictions, second_table.predictions)
    print_lines(*(f"note: {note}" for note in notes), stderr=True)
    return (first_table, second_table), (first, second)


def _read_seeds(
    args: argparse.Namespace,
) -> tuple[list[list[PredictionTable]], tuple[str, str]]:
    """Read the predictions of each seed of two methods; return them with a name for each method."""
    from fedlas.cli.compare_seeds import common_pattern, read_seeds
    from fedlas.predictions.tables.read import merge_notes

    tables, files = read_seeds(args)
    first = tables[0][0]
    for each in (*tables[0][1:], *tables[1]):
        _check_labels(first, each)
    notes = merge_notes([*zip(files, (each for side in tables for each in side), strict=True)])
    notes += _weight_notes(first.predictions)
    print_lines(*(f"note: {note}" for note in dict.fromkeys(notes)), stderr=True)
    half = len(tables[0])
    return tables, (common_pattern(files[:half]), common_pattern(files[half:]))


def _check_options(args: argparse.Namespace) -> None:
    """Raise InputError for invalid options, before anything is read."""
    from fedlas.present.gate import JUNIT, check_metric_direction
    from fedlas.stats.estimates import check_replicates

    if args.against is not None:
        _check_against(args)
    elif len(args.names) != 2 and not args.others:
        raise InputError(
            "the arguments must be two prediction files, files of seeds and --with, or bench folders",
            f"{len(args.names)} name{'s' * (len(args.names) > 1)}",
            "Name one file per model, the second model's columns by --against, or its seeds after --with.",
        )
    check_gate_options(args, "--fail-if-worse", args.fail_if_worse)
    check_metric_direction(args.fail_if_worse, args.margin)
    check_outputs([Output("--junit", args.junit, JUNIT)], [*args.names, *args.others])
    if args.margin and not args.fail_if_worse:
        raise InputError(
            "--margin requires --fail-if-worse",
            "no --fail-if-worse",
            "Add --fail-if-worse, or omit --margin.",
        )
    if args.replicates == 0:
        raise InputError("--replicates must be at least 39", 0, "Omit --replicates, or pass 1000.")
    check_replicates(args.replicates)


def _check_against(args: argparse.Namespace) -> None:
    """Raise InputError unless ``--against`` comes with one file and the columns of the first model's scores."""
    scores = args.columns is not None or any(getattr(args, name) for name in SCORES)
    if len(args.names) != 1 or not scores:
        raise InputError(
            "--against requires one file and the columns of the first model's scores",
            f"{len(args.names)} names" if scores else "no --probs, --logits or --confidence",
            "Write e.g. fedlas compare test.csv --probs old --against new --target y.",
        )


def _check_different_files(a: Path, b: Path) -> None:
    """Raise InputError if both paths are the same file."""
    with suppress(OSError):
        if a.samefile(b):
            raise InputError(
                "the two files must be different",
                f"{a} and {b}, which are the same file",
                "Name the file of the other model.",
            )


def _row_notes(a: AnyPredictions, b: AnyPredictions) -> list[str]:
    """Return notes on rows of weight zero and on files with identical scores."""
    notes = _weight_notes(a)
    one, other = (getattr(each, "logits", None) for each in (a, b))
    if one is None or other is None or one.shape != other.shape or bool((one != other).any()):
        return notes
    same = "both files have the same scores: if one is calibrated, name its calibrated columns."
    return [*notes, same]


def _weight_notes(predictions: AnyPredictions) -> list[str]:
    """Return a note on rows of weight zero, or an empty list if there are none."""
    from fedlas.predictions.any_predictions import drop_zero_weights, zero_weight_note

    _, counted = drop_zero_weights(predictions)
    return [] if counted is None else [zero_weight_note(counted)]


def _check_labels(a: PredictionTable, b: PredictionTable) -> None:
    """Raise InputError if the labels of two top-label files differ; print a note if a file has no labels."""
    from fedlas.predictions import TopLabel

    if a.labels is None or b.labels is None:
        unknown = any(
            isinstance(each.predictions, TopLabel) and each.labels is None for each in (a, b)
        )
        if unknown and a.predictions.num_samples == b.predictions.num_samples:
            print_lines(
                "note: a file has no labels, so that the order of the samples cannot be checked.",
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
