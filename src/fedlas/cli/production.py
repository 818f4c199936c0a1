"""The verbs of the command line that lead out to production: export, card, monitor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fedlas._core.files import path_argument
from fedlas.cli.evaluate import AddVerb, add_column_arguments, columns_of


def add_production_verbs(add: AddVerb) -> None:
    """Add the three verbs."""
    export = add("export", _export, "Write a run's model for production, its calibration folded in, checked.", "RUN")
    export.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    export.add_argument(
        "--format", default="onnx", metavar="NAME", help="onnx, torch-export or safetensors (default: %(default)s)"
    )
    export.add_argument(
        "--out", type=path_argument, metavar="FILE", help="where it goes (default: RUN/export/model.SUFFIX)"
    )
    export.add_argument(
        "--tolerance",
        type=float,
        default=1e-5,
        metavar="X",
        help="most that a probability may differ from the run's (default: %(default)s)",
    )
    _card_arguments(export)

    card = add("card", _card, "Write a run's calibration card: what it may be trusted with.", "RUN")
    card.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    card.add_argument(
        "--out", type=path_argument, metavar="JSON", help="where it goes, .html beside it (default: RUN/card.json)"
    )
    card.add_argument(
        "--risks",
        type=float,
        nargs="+",
        default=None,
        metavar="X",
        help="wanted shares of wrong among accepted predictions (default: 0.005 0.01 0.02 0.05 0.1)",
    )
    card.add_argument(
        "--details", action="store_true", help="print all metrics and known limits (default: what may be accepted)"
    )
    _card_arguments(card)

    monitor = add(
        "monitor",
        _monitor,
        "Say whether calibration has drifted since the card; exit status 3 on an alarm.",
        "CARD PREDS [PREDS ...]",
    )
    monitor.add_argument("card", type=Path, metavar="CARD", help="card.json, or the run folder that holds it")
    monitor.add_argument(
        "files", type=Path, nargs="+", metavar="PREDS", help="live predictions in the order of time, with labels or not"
    )
    add_column_arguments(monitor)
    monitor.add_argument(
        "--false-alarm",
        type=float,
        default=0.01,
        metavar="X",
        help="largest probability of an alarm while nothing drifts, over the whole stream (default: %(default)s)",
    )
    monitor.add_argument(
        "--raw", action="store_true", help="apply the card's calibration first (default: PREDS are calibrated)"
    )
    monitor.add_argument(
        "--state",
        type=path_argument,
        metavar="FILE",
        help="resume from here, and keep it (default: every call starts afresh)",
    )
    monitor.add_argument("--json", action="store_true", help="print JSON (default: sentences)")


def _card_arguments(parser: Any) -> None:
    parser.add_argument(
        "--calibrate",
        default="temperature",
        metavar="NAME",
        help="temperature, vector or none, fitted on the run's validation part (default: %(default)s)",
    )
    parser.add_argument(
        "--replicates",
        type=int,
        default=1000,
        metavar="N",
        help="replicates of the card's intervals and noise floors; 0 computes none (default: %(default)s)",
    )
    parser.add_argument(
        "--data", metavar="FOLDER", help="where the run's data is (default: $FEDLAS_DATA, then the usual places)"
    )


def _export(args: argparse.Namespace) -> int:
    from fedlas.cli.export import export

    return export(
        args.run_folder,
        form=args.format,
        out=args.out,
        calibrate=args.calibrate,
        data=args.data,
        tolerance=args.tolerance,
        replicates=args.replicates,
    )


def _card(args: argparse.Namespace) -> int:
    from fedlas.cli.card import card
    from fedlas.stats.selective_risk import DEFAULT_RISKS

    return card(
        args.run_folder,
        out=args.out,
        calibrate=args.calibrate,
        risks=DEFAULT_RISKS if args.risks is None else args.risks,
        replicates=args.replicates,
        data=args.data,
        details=args.details,
    )


def _monitor(args: argparse.Namespace) -> int:
    from fedlas.deploy.monitor import monitor

    return monitor(
        args.card,
        args.files,
        false_alarm=args.false_alarm,
        columns=columns_of(args),
        raw=args.raw,
        state=args.state,
        as_json=args.json,
    )
