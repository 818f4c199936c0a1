"""``fedlas pack``: the finished runs of a bench as one zip, small enough to keep in a repository."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.terminal import say
from fedlas.cli.arguments import AddSubcommand


def add_pack(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(lambda args: pack(args.folder), "FOLDER")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench")


def pack(folder: Path) -> int:
    """Write ``runs.zip`` and print what is in it.

    Args:
        folder: Folder of a bench; ``fedlas report``, ``compare`` and ``bench`` work with it as before.

    Returns:
        0.

    Raises:
        InputError: If no run in it has finished, or it cannot be written to.
    """
    from fedlas.lab.runs import pack as room

    path, summary = room.pack(folder)
    omitted = [*(each.name for each in (*summary.failed, *summary.unreadable)), *summary.unfinished]
    say(f"{path}: {len(summary.runs)} runs, {path.stat().st_size / 1e6:.2f} MB")
    if omitted:
        say(f"not packed, as they are not finished or cannot be read: {', '.join(omitted)}", wrap=True)
    if count := sum(run.path.is_dir() for run in summary.runs):
        text = f"The folder{'s' * (count != 1)} of {count} of them can go, unless you need checkpoints or predictions."
        say(text, wrap=True)
    return 0
