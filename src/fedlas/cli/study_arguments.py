"""The subcommands that measure finished runs again: diagnose, uncertainty, shift, ood."""

from __future__ import annotations

import argparse
from pathlib import Path

from fedlas._core.files import path_argument
from fedlas.cli.evaluate import AddVerb


def add_studies(add: AddVerb) -> None:
    """Add the subcommands."""
    diagnose = add(
        "diagnose",
        _diagnose,
        "Show whether the feature-norm indicator tracks confidence, and what the gate did, in finished runs.",
        "RUN [RUN ...]",
    )
    diagnose.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, or the folder of a bench")
    diagnose.add_argument("--out", type=path_argument, help="folder of diagnose.html, .json, .npz (default: the runs')")
    diagnose.add_argument(
        "--replicates", type=int, default=1000, help="bootstrap replicates behind the intervals (default: %(default)s)"
    )
    diagnose.add_argument(
        "--data", metavar="FOLDER", help="where the images are (default: $FEDLAS_DATA, then the usual places)"
    )

    diagnose.add_argument(
        "--details", action="store_true", help="print the gate and every alarm, too (default: the indicator)"
    )

    uncertainty = add(
        "uncertainty",
        _uncertainty,
        "Make an ensemble, MC dropout, Laplace or another method of finished runs. Rerun to resume.",
        "METHOD RUN [RUN ...]",
    )
    uncertainty.add_argument("method", metavar="METHOD", help="method, see 'fedlas list uncertainty'")
    uncertainty.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    uncertainty.add_argument(
        "--out", type=path_argument, help="folder of the result (default: METHOD-LOSS-sSEED beside the first run)"
    )
    uncertainty.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set an option of the method, e.g. samples=50; may be repeated (default: none)",
    )
    uncertainty.add_argument("--name", help="its name in a report (default: METHOD(LOSS))")
    uncertainty.add_argument(
        "--data", metavar="FOLDER", help="where the runs' data is (default: $FEDLAS_DATA, then the usual places)"
    )

    shift = add("shift", _shift, "Measure finished runs on corrupted test images, in fifteen ways.", "RUN [RUN ...]")
    shift.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    shift.add_argument(
        "--corruptions", nargs="+", default=[], metavar="NAME", help="see 'fedlas list corruptions' (default: all)"
    )
    shift.add_argument(
        "--severities", nargs="+", type=int, default=[], metavar="N", help="of 1 to 5 (default: all five)"
    )
    shift.add_argument("--seed", type=int, default=0, help="of what corruptions draw (default: %(default)s)")
    shift.add_argument("--save", action="store_true", help="keep predictions/test-NAME-N.npz (default: metrics only)")
    replicates_argument(shift, default=199)
    shift.add_argument(
        "--data", metavar="FOLDER", help="where the runs' data is (default: $FEDLAS_DATA, then the usual places)"
    )

    ood = add(
        "ood",
        _ood,
        "Measure how well runs distinguish their test images from other data sets.",
        "RUN [RUN ...]",
    )
    ood.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs, or of a bench")
    ood.add_argument(
        "--data",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME[:ROOT]",
        help="other data sets, or LABEL=NAME:ROOT (default: the classes that the run held out)",
    )
    ood.add_argument("--scores", nargs="+", default=[], metavar="SCORE", help="see 'fedlas list ood' (default: all)")
    ood.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SCORE.KEY=VALUE",
        help="set an option of a score, e.g. knn.k=10; may be repeated (default: none)",
    )
    ood.add_argument(
        "--out", type=path_argument, help="folder of the report (default: the run, or the folder of all runs)"
    )
    ood.add_argument(
        "--run-data",
        metavar="FOLDER",
        help="where the runs' own data is (default: $FEDLAS_DATA, then the usual places)",
    )
    ood.add_argument(
        "--replicates", type=int, default=1000, help="of each bootstrap interval, at least 39 (default: %(default)s)"
    )
    ood.add_argument(
        "--details", action="store_true", help="print every table and how to read it (default: the ranking)"
    )


def replicates_argument(parser: argparse.ArgumentParser, *, default: int = 1000) -> None:
    """Add ``--replicates``."""
    parser.add_argument(
        "--replicates",
        type=int,
        default=default,
        metavar="N",
        help="replicates of intervals and noise floors; 0 computes none (default: %(default)s)",
    )


def _diagnose(args: argparse.Namespace) -> int:
    from fedlas.cli.diagnose import diagnose

    return diagnose(args.runs, out=args.out, replicates=args.replicates, data=args.data, details=args.details)


def _uncertainty(args: argparse.Namespace) -> int:
    from fedlas.cli.uncertainty import uncertainty

    return uncertainty(args.method, args.runs, out=args.out, options=args.set, name=args.name, data=args.data)


def _shift(args: argparse.Namespace) -> int:
    from fedlas.cli.shift import shift

    return shift(
        args.runs,
        corruptions=args.corruptions,
        severities=args.severities,
        seed=args.seed,
        data=args.data,
        save=args.save,
        replicates=args.replicates,
    )


def _ood(args: argparse.Namespace) -> int:
    from fedlas.cli.ood import ood

    return ood(
        args.runs,
        data=args.data,
        scores=args.scores,
        options=args.set,
        out=args.out,
        run_data=args.run_data,
        replicates=args.replicates,
        details=args.details,
    )
