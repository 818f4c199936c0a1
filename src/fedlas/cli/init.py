"""The subcommand fedlas init: writes a starter recipe for a folder of images, or commands for a table of scores."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.files import check_name, write_text
from fedlas._core.outputs import check_place, new_kind
from fedlas._core.progress import Bar
from fedlas._core.terminal import say
from fedlas.cli.arguments import AddSubcommand, add_path, option

if TYPE_CHECKING:
    from fedlas.lab.data.survey import Survey
    from fedlas.lab.recipes.starter import Starter

_UNEVEN = 5
"""Ratio of the largest to the smallest class above which a note says so."""


def add_init(add: AddSubcommand) -> None:
    """Add the subcommand fedlas init."""
    parser = add(_init, "TABLE | FOLDER")
    text = "scores and labels (.csv, .jsonl, .parquet), whose columns are guessed; or images: CLASS/*, "
    add_path(
        parser, "source", "TABLE | FOLDER", f"{text}or train/CLASS/* and test/CLASS/* (or val)"
    )
    text = "new file to write: commands in a .sh for a table, a recipe in a .yaml for images"
    add_path(parser, "--out", "FILE", f"{text} (default: TABLE's or FOLDER's name)")
    option(parser, "--target", "COLUMN", "column of the labels of a table (default: guessed)")


def _init(args: argparse.Namespace) -> int:
    from fedlas.cli.init_table import init_table
    from fedlas.predictions.tables.files import holds_parquet

    if args.source.is_file():
        return init_table(args.source, out=args.out, target=args.target)
    if holds_parquet(args.source):
        example = min(args.source.rglob("*.parquet"))
        raise InputError(
            "the table must be a single file",
            f"the folder {args.source} of Parquet files",
            f"Pass one of its files, fedlas init {shlex.quote(str(example))}; the commands also take the folder.",
        )
    if args.target is not None:
        raise InputError("--target requires a table", f"the folder {args.source}", "Omit --target.")
    return init(args.source, out=args.out)


def init(folder: Path, *, out: Path | None = None) -> int:
    """Survey a folder of images, write a starter recipe, and print a summary and the next command."""
    from fedlas.lab.data.survey import survey
    from fedlas.lab.recipes.planning import plan
    from fedlas.lab.recipes.recipe import load_recipe
    from fedlas.lab.recipes.starter import choose_settings, starter_recipe

    out = Path(f"{folder.expanduser().resolve().name or 'images'}.yaml") if out is None else out
    check_place("--out", out, new_kind(".yaml", ".yml"))
    check_name("the recipe", out.stem, "Name the file with --out.")
    with Bar("reading images", total=None) as bar:
        contents = survey(folder, on_image=lambda done, total: bar.update(done=done, total=total))
    chosen = choose_settings(contents)
    write_text(out, starter_recipe(contents, chosen))
    plan(load_recipe(str(out)))
    say(*_summary(contents, chosen), wrap=True)
    say(*(f"note: {note}" for note in _notes(contents, chosen)), style="yellow", wrap=True)
    name = shlex.quote(f"./{out}" if str(out).startswith("-") else str(out))
    say(
        f"recipe: {out}",
        f"next:   fedlas runs train {name}",
        f"        fedlas bench {name}",
        wrap=False,
    )
    return 0


def _summary(contents: Survey, chosen: Starter) -> list[str]:
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


def _notes(contents: Survey, chosen: Starter) -> list[str]:
    """Return notes on problems of the images, such as duplicates and rare classes."""
    from fedlas.lab.data.splits import too_small_to_choose

    notes = []
    if contents.others:
        kinds = ", ".join(name for name, _ in contents.others.most_common(3))
        count = contents.others.total()
        notes.append(f"{_counted(count, 'file')} without an image suffix skipped ({kinds}).")
    leaks = contents.between_parts()
    doubtful = contents.between_classes()
    # Other copies are worth a note only if there are none of a worse kind.
    alike = [] if leaks or doubtful else contents.copies
    for pairs, what in (
        (leaks, "in both training and test data, which makes test metrics too good"),
        (doubtful, "in two classes, so that one label is wrong"),
        (alike, "stored twice, so that copies may fall into both training and test data"),
    ):
        if pairs:
            notes.append(
                f"{_counted(len(pairs), 'image')} {what}, such as {pairs[0][0]} and {pairs[0][1]}."
            )
    counts = contents.per_class
    rare = min(counts, key=counts.__getitem__)
    common = max(counts, key=counts.__getitem__)
    if counts[common] >= _UNEVEN * counts[rare]:
        notes.append(
            f"{rare} has {counts[rare]:,} images and {common} {counts[common]:,}: accuracy and ECE hardly reflect rare "
            "classes; see the classwise ECE."
        )
    if warning := too_small_to_choose(chosen.val):
        notes.append(warning)
    if (
        any(part in ("val", "valid", "validation") for part in contents.counts)
        and "test" in contents.counts
    ):
        notes.append(
            "images of the validation folder are added to the training data; the seed draws the validation part."
        )
    return notes


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
