"""``fedlas compare``: pre-specified differences between methods of a bench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fedlas._core.files import path_argument
from fedlas._core.terminal import say, show
from fedlas.cli.arguments import AddSubcommand, add_details
from fedlas.lab.report.compare import (
    A_AND_B,
    CAPTION,
    NARROW,
    SHORT_CAPTION,
    STAGES,
    differences,
    differences_figure,
    differences_table,
    sentence,
)
from fedlas.lab.report.page import write_picture
from fedlas.lab.report.table import markdown as markdown_table
from fedlas.lab.report.table import terminal
from fedlas.lab.runs.collect import collect
from fedlas.lab.runs.intervals import with_estimates


def add_compare(add: AddSubcommand) -> None:
    """Add the subcommand."""
    parser = add(
        "compare",
        lambda args: compare(
            args.folder,
            args.pairs,
            metrics=args.metrics,
            stage=args.stage,
            markdown=args.markdown,
            plot=args.plot,
            theme=args.theme,
            details=args.details,
        ),
        "Test pre-specified differences, each method against the one it is measured by.",
        "FOLDER A:B [A:B ...]",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench")
    parser.add_argument("pairs", nargs="+", metavar="A:B", help="two methods: A minus B, e.g. fedlas:ls")
    parser.add_argument(
        "--metrics", nargs="+", default=["ece"], metavar="NAME", help="metrics of the runs (default: ece)"
    )
    parser.add_argument(
        "--stage", choices=list(STAGES), default="before", help="before or after temperature scaling (default: before)"
    )
    parser.add_argument("--markdown", action="store_true", help="a Markdown table (default: one for the terminal)")
    parser.add_argument(
        "--plot",
        type=path_argument,
        metavar="FILE",
        help="also draw the differences, seed by seed: .svg, .png or .pdf (default: none)",
    )
    parser.add_argument("--theme", choices=["light", "dark"], default="light", help="of the picture (default: light)")
    add_details(parser, "show the other tests, A and B, too (default: the verdict)")


def compare(
    folder: Path,
    pairs: Sequence[str],
    *,
    metrics: Sequence[str] = ("ece",),
    stage: str = "before",
    markdown: bool = False,
    plot: Path | None = None,
    theme: Literal["light", "dark"] = "light",
    details: bool = False,
) -> int:
    """Print the differences between methods of a bench, with tests over seeds.

    Args:
        folder: Folder of the bench.
        pairs: ``A:B`` each: A minus B.
        metrics: Registered metrics that the runs measured.
        stage: ``before`` or ``after`` temperature scaling.
        markdown: A Markdown table rather than one for the terminal.
        plot: Picture to write of the differences, seed by seed, a panel for each metric; the end of its name (.svg,
            .png, .pdf) says of which kind.
        theme: Palette of the picture.
        details: Show the other tests, and A and B with their intervals and noise floors, too.

    Returns:
        0.

    Raises:
        InputError: If the folder holds no finished run, a pair is none, a method or metric is not there, a pair has
            no seed in common, or the picture cannot be written.
    """
    summary = with_estimates(collect(folder), replicates=0)  # that which is kept: nothing new is computed here
    asked = {metric: differences(summary, pairs, metric=metric, stage=STAGES[stage]) for metric in metrics}
    if plot is not None:
        write_picture(differences_figure(asked, theme=theme), plot)
    for metric, found in asked.items():
        whole = differences_table(found, metric, f"{stage} temperature scaling, {summary.recipe}")
        if markdown:
            say(whole.title, "", *markdown_table(whole).split("\n"), "")
            continue
        say(*(sentence(difference, metric) for difference in found), wrap=True)
        show(terminal(whole if details else whole.where(NARROW)))
    say(CAPTION if details or markdown else SHORT_CAPTION, wrap=not markdown)
    if (markdown or details) and any(any(difference.noise) for found in asked.values() for difference in found):
        say("", A_AND_B, wrap=not markdown)
    return 0
