"""Arguments of the command line about trackers; no tool and no torch is imported for ``--help``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_track_option(parser: Any) -> None:
    """Add ``--track`` to a verb that trains."""
    parser.add_argument(
        "--track",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="show the runs to these trackers too, see 'fedlas list trackers'; --set trackers.NAME.KEY=VALUE sets one "
        "up (default: the recipe's)",
    )


def add_track(add: Any) -> None:
    """Add the verb ``track``; ``add`` makes a verb."""
    track = add("track", _track, "Show runs to experiment trackers afterward, from their logs.", "RUN [RUN ...]")
    track.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or folders of a bench")
    track.add_argument(
        "--to",
        nargs="+",
        default=["tensorboard"],
        metavar="NAME",
        help="trackers, see 'fedlas list trackers' (default: tensorboard)",
    )
    track.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="set an option of a tracker, e.g. wandb.project=calibration; may be repeated (default: none)",
    )


def _track(args: argparse.Namespace) -> int:
    from fedlas.cli.track import track

    return track(args.runs, to=args.to, options=args.set)
