"""``fedlas runs pack``: packs the finished runs of a bench into one small zip."""

from __future__ import annotations

import argparse

from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import AddSubcommand, add_path


def add_pack(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas runs pack``."""
    parser = add(_run, "FOLDER")
    add_path(
        parser,
        "folder",
        "FOLDER",
        "folder of a bench; report, compare and bench read its zip as they do its folders",
    )


def _run(args: argparse.Namespace) -> int:
    """Write ``runs.zip`` and print a summary."""
    from fedlas.lab.runs.collection import pack_runs

    path, summary = pack_runs(args.folder)
    omitted = [*(each.name for each in (*summary.failed, *summary.unreadable)), *summary.unfinished]
    print_lines(f"{path}: {len(summary.runs)} runs, {path.stat().st_size / 1e6:.2f} MB")
    if omitted:
        print_lines(
            f"not packed, because unfinished or unreadable: {', '.join(omitted)}",
            wrap=True,
        )
    if count := sum(run.path.is_dir() for run in summary.runs):
        runs = "1 packed run" if count == 1 else f"{count} packed runs"
        text = f"You can delete the folder{'s' * (count != 1)} of {runs}, unless you need checkpoints or predictions."
        print_lines(text, wrap=True)
    return 0
