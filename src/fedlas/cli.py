"""The command line: parses arguments; each verb calls one function."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.extras import MissingExtraError, require


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if a run of a bench failed, 2 for arguments or input that cannot be used.
    """
    try:
        parser = _parser()
        parsed = parser.parse_args(arguments)
        verb = parsed.verb
        return int(_VERBS[verb](parsed[verb]))
    except (InputError, MissingExtraError) as error:
        print(f"fedlas: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return 130


def _parser() -> Any:
    jsonargparse = require("jsonargparse", extra="bench")
    import fedlas

    parser = jsonargparse.ArgumentParser(
        prog="fedlas", description="Train and measure calibrated classifiers.", version=fedlas.__version__
    )
    verbs = parser.add_subcommands(dest="verb", title="verbs", metavar="VERB")

    def add(name: str, summary: str) -> Any:
        sub = jsonargparse.ArgumentParser(description=summary)
        verbs.add_subcommand(name, sub, help=summary)
        return sub

    bench = add(
        "bench", "Run a recipe with several losses and seeds, and report over them. Stopped or not: run it again."
    )
    _recipe_arguments(bench)
    bench.add_argument("--losses", nargs="+", type=str, help="losses to run, or 'all' (default: the recipe's)")
    bench.add_argument("--seeds", nargs="+", type=int, help="seeds to run (default: the recipe's)")
    bench.add_argument("--out", type=str, help="folder of the runs and the report (default: runs/RECIPE)")

    train = add("train", "Do one run: a recipe, a loss, a seed. Again with the same --out: resumes.")
    _recipe_arguments(train)
    train.add_argument("--loss", type=str, default="fedlas", help="loss to train with")
    train.add_argument("--seed", type=int, default=0, help="seed of split, data order and weights")
    train.add_argument("--out", type=str, help="run folder (default: runs/RECIPE/LOSS-sSEED)")

    evaluate = add("evaluate", "Measure a predictions file (.npz with logits and target), or a run folder's test set.")
    evaluate.add_argument("file", type=str, help="predictions, or a run folder")
    evaluate.add_argument("--num-bins", type=int, default=15, help="bins of the calibration errors")
    evaluate.add_argument("--calibrate", type=str, help="calibrator to fit on --on and apply first, e.g. temperature")
    evaluate.add_argument("--on", type=str, help="validation predictions to fit the calibrator on")
    evaluate.add_argument("--report", type=str, help="write an HTML page with reliability diagrams here")
    evaluate.add_argument("--json", action="store_true", help="print JSON, fractions in full precision")

    report = add("report", "Write report.md, report.html and results.csv over the finished runs of a folder.")
    report.add_argument("folder", type=str, help="folder of a bench")

    listing = add("list", "List what can be named on the command line or in a recipe.")
    listing.add_argument("kind", type=str, help="losses, metrics, calibrators, datasets, models or recipes")
    return parser


def _recipe_arguments(parser: Any) -> None:
    parser.add_argument("recipe", type=str, help="recipe of the package (see 'fedlas list recipes') or a .yaml file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe, e.g. optimizer.lr=0.05",
    )
    parser.add_argument(
        "--precision", type=str, help="fp32 or bf16; short for --set train.precision=... (default: the recipe's)"
    )
    parser.add_argument(
        "--data", type=str, help="where the data is; short for --set data.root=... (default: $FEDLAS_DATA)"
    )


def _recipe(args: Any) -> Any:
    from fedlas.bench.recipe import load_recipe

    short = [f"train.precision={args.precision}"] if args.precision else []
    return load_recipe(args.recipe, [*args.set, *short]).with_data_root(args.data)


def _bench(args: Any) -> int:
    from fedlas.bench.commands import bench

    return bench(_recipe(args), losses=args.losses or (), seeds=args.seeds or (), out=_path(args.out))


def _train(args: Any) -> int:
    from fedlas.bench.commands import train

    return train(_recipe(args), loss=args.loss, seed=args.seed, out=_path(args.out))


def _evaluate(args: Any) -> int:
    from fedlas.bench.commands import evaluate_file

    return evaluate_file(
        Path(args.file),
        num_bins=args.num_bins,
        calibrate=args.calibrate,
        on=_path(args.on),
        html=_path(args.report),
        as_json=args.json,
    )


def _report(args: Any) -> int:
    from fedlas.bench.commands import report

    return report(Path(args.folder))


def _list(args: Any) -> int:
    from fedlas.bench.commands import print_listing

    return print_listing(args.kind)


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)


_VERBS = {"bench": _bench, "train": _train, "evaluate": _evaluate, "report": _report, "list": _list}

if __name__ == "__main__":
    sys.exit(main())
