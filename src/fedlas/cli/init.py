"""The subcommand fedlas init: writes a starter recipe for a folder of images, or commands for a table of scores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.files import check_path_component, write_text
from fedlas._core.outputs import check_output_path, new_file_kind
from fedlas._core.progress import ProgressBar
from fedlas._core.terminal import print_lines
from fedlas._core.text import quote_path
from fedlas.cli.arguments import (
    AddSubcommand,
    add_path,
    add_sample_columns,
    add_score_columns,
    format_column_options,
    parse_columns,
)

if TYPE_CHECKING:
    from fedlas.lab.data.survey import Survey
    from fedlas.lab.recipes.starter import StarterSettings

_IMBALANCE_RATIO = 5
"""Ratio of the largest to the smallest class above which a note says so."""


def add_init(add: AddSubcommand) -> None:
    """Add the subcommand fedlas init."""
    parser = add(_run, "TABLE | FOLDER")
    text = "scores and labels (.csv, .jsonl, .parquet), whose columns are guessed; or images: CLASS/*, "
    add_path(
        parser, "source", "TABLE | FOLDER", f"{text}or train/CLASS/* and test/CLASS/* (or val)"
    )
    text = "new file to write: commands in a .sh for a table, a recipe in a .yaml for images"
    add_path(parser, "--out", "FILE", f"{text} (default: TABLE's or FOLDER's name)")
    # what is not said is guessed
    add_score_columns(parser)
    add_sample_columns(parser)


def _run(args: argparse.Namespace) -> int:
    from fedlas.cli.init_table import init_table
    from fedlas.predictions.tables.files import has_parquet_files

    given = parse_columns(args)
    if args.source.is_file():
        return init_table(args.source, out=args.out, given=given)
    if has_parquet_files(args.source):
        example = min(args.source.rglob("*.parquet"))
        raise InputError(
            "the table must be a single file",
            f"the folder {args.source} of Parquet files",
            f"Pass one of its files, fedlas init {quote_path(example)}; the commands also take the folder.",
        )
    if given is not None:
        options = format_column_options(given).strip()
        raise InputError(
            f"{options} requires a table", f"the folder {args.source}", "Leave it out for images."
        )
    return init_images(args.source, out=args.out)


def init_images(folder: Path, *, out: Path | None = None) -> int:
    """Survey a folder of images, write a starter recipe, and print a summary and the next command."""
    from fedlas.lab.data.survey import survey_images
    from fedlas.lab.recipes.planning import plan_runs
    from fedlas.lab.recipes.recipe import load_recipe
    from fedlas.lab.recipes.starter import choose_starter_settings, render_starter_recipe

    out = Path(f"{folder.expanduser().resolve().name or 'images'}.yaml") if out is None else out
    check_output_path("--out", out, new_file_kind(".yaml", ".yml"))
    check_path_component("the recipe", out.stem, "Name the file with --out.")
    with ProgressBar("reading images", total=None) as bar:
        contents = survey_images(
            folder, on_image=lambda done, total: bar.update(done=done, total=total)
        )
    chosen = choose_starter_settings(contents)
    write_text(out, render_starter_recipe(contents, chosen))
    plan_runs(load_recipe(str(out)))
    print_lines(*_summary_lines(contents, chosen), wrap=True)
    print_lines(
        *(f"note: {note}" for note in _survey_notes(contents, chosen)), style="yellow", wrap=True
    )
    name = quote_path(out)
    print_lines(
        f"recipe: {out}",
        f"next:   fedlas runs train {name}",
        f"        fedlas bench {name}",
        wrap=False,
    )
    return 0


def _summary_lines(contents: Survey, chosen: StarterSettings) -> list[str]:
    counts = contents.per_class.values()
    each = (
        f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    )
    sizes = [f"{height} x {width}" for (height, width), _ in contents.sizes.most_common(3)]
    shown = ", ".join(sizes) + (
        f" and {len(contents.sizes) - 3:,} other sizes" if len(contents.sizes) > 3 else ""
    )
    colors = (
        "gray"
        if contents.channels == 1
        else "color"
        if not contents.gray
        else f"color, {contents.gray:,} of them gray"
    )
    parts = ", ".join(part or "not divided" for part in contents.counts)
    return [
        f"{contents.root.name}: {contents.images:,} images in {len(contents.classes):,} classes ({each} each); {parts}",
        f"pixels: {shown}; {colors}",
        f"train {chosen.train:,}, validation {chosen.val:,}, test {chosen.test:,}; resnet8 (width {chosen.width}) on "
        f"{chosen.size} x {chosen.size}, {chosen.epochs} epochs in batches of {chosen.batch}",
    ]


def _survey_notes(contents: Survey, chosen: StarterSettings) -> list[str]:
    """Return notes on problems of the images, such as duplicates and rare classes."""
    from fedlas.lab.data.splits import small_validation_warning

    notes = []
    if contents.others:
        kinds = ", ".join(name for name, _ in contents.others.most_common(3))
        count = contents.others.total()
        notes.append(f"{_format_count(count, 'file')} without an image suffix skipped ({kinds}).")
    part_duplicates = contents.copies_between_parts()
    class_duplicates = contents.copies_between_classes()
    # Other copies are worth a note only if there are none of a worse kind.
    other_duplicates = [] if part_duplicates or class_duplicates else contents.copies
    for pairs, what in (
        (part_duplicates, "in both training and test data, which makes test metrics too good"),
        (class_duplicates, "in two classes, so that one label is wrong"),
        (
            other_duplicates,
            "stored twice, so that copies may fall into both training and test data",
        ),
    ):
        if pairs:
            notes.append(
                f"{_format_count(len(pairs), 'image')} {what}, such as {pairs[0][0]} and {pairs[0][1]}."
            )
    counts = contents.per_class
    rare = min(counts, key=counts.__getitem__)
    common = max(counts, key=counts.__getitem__)
    if counts[common] >= _IMBALANCE_RATIO * counts[rare]:
        notes.append(
            f"{rare} has {counts[rare]:,} images and {common} {counts[common]:,}: accuracy and ECE hardly reflect rare "
            "classes; see the classwise ECE."
        )
    if warning := small_validation_warning(chosen.val):
        notes.append(warning)
    if (
        any(part in ("val", "valid", "validation") for part in contents.counts)
        and "test" in contents.counts
    ):
        notes.append(
            "images of the validation folder are added to the training data; the seed draws the validation part."
        )
    return notes


def _format_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"
