"""The command line: parses arguments; each verb calls one function.

Only the standard library parses, so that ``--help`` and ``--version`` work without any extra.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import MissingExtraError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if a run of a bench failed, 2 for arguments or input that cannot be used, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        parsed = _parse(given)
        status = int(parsed.run(parsed))
        sys.stdout.flush()
        return status
    except (InputError, MissingExtraError) as error:
        print(f"fedlas: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = given[:1] in (["bench"], ["train"], ["uncertainty"])
        print(f"\nStopped.{' The same command goes on from the last checkpoint.' if resumes else ''}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        _leave_processes()


def _leave_processes() -> None:
    """Close the connections to other processes: one that ends first would make another's threads abort it."""
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class _Parser(argparse.ArgumentParser):
    """Argparse that takes no abbreviations, knows its options' names and complains in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.options: list[str] = []
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def add_argument(self, *names: str, **settings: Any) -> Any:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line, instead of the usage that ``--help`` shows better."""
        stop = "" if message.endswith((".", "?")) else "."
        usage = f"Usage: {self.usage}; see" if self.usage else "See"
        self.exit(2, f"{self.prog}: error: {message}{stop} {usage} '{self.prog} --help'.\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, verbs = _parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if not arguments[0].startswith("-") and arguments[0] not in verbs:
        parser.error(f"there is no verb {arguments[0]!r}. {suggestion(arguments[0], verbs)}")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        verb = verbs.get(parsed.verb, parser)
        option = next((word for word in unknown if word.startswith("-")), None)
        if option is None:
            verb.error(f"there is no place for {' '.join(map(repr, unknown))}")
        verb.error(f"there is no option {option!r}. {suggestion(option.split('=')[0], verb.options)}")
    if parsed.verb is None:
        parser.error(f"a verb is missing. {suggestion('', verbs)}")
    return parsed


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    import fedlas

    parser = _Parser(prog="fedlas", description="Train and measure calibrated classifiers.")
    parser.add_argument("--version", action="version", version=f"fedlas {fedlas.__version__}")
    group = parser.add_subparsers(
        dest="verb", title="verbs", metavar="VERB", description="'fedlas VERB --help' says more."
    )
    verbs: dict[str, _Parser] = {}

    def add(name: str, run: Any, summary: str, positional: str) -> _Parser:
        usage = f"fedlas {name} {positional} [options]"
        verbs[name] = group.add_parser(name, help=summary, description=summary, usage=usage)
        verbs[name].set_defaults(run=run)
        return verbs[name]

    bench = add(
        "bench", _bench, "Run a recipe with several losses and seeds, and report. Stopped? Run it again.", "RECIPE"
    )
    _recipe_arguments(bench)
    bench.add_argument(
        "--losses", nargs="+", default=[], metavar="LOSS", help="losses to run, or 'all' (default: the recipe's)"
    )
    bench.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="SEED", help="seeds to run (default: the recipe's)"
    )
    bench.add_argument("--out", type=Path, help="folder of the runs and the report (default: runs/RECIPE)")

    train = add("train", _train, "Do one run: a recipe, a loss, a seed. Again with the same --out: resumes.", "RECIPE")
    _recipe_arguments(train)
    train.add_argument("--loss", default="fedlas", help="loss to train with (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="seed of split, data order, weights (default: %(default)s)")
    train.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE/LOSS-sSEED)")

    evaluate = add(
        "evaluate", _evaluate, "Measure predictions: a .npz with logits and target, or a run's test set.", "FILE"
    )
    evaluate.add_argument("file", type=Path, metavar="FILE", help="predictions (.npz), or a run folder")
    evaluate.add_argument("--num-bins", type=int, default=15, help="bins of calibration errors (default: %(default)s)")
    evaluate.add_argument(
        "--calibrate",
        metavar="NAME",
        help="calibrator to fit on --on and apply, e.g. temperature, or 'all' to compare them (default: none)",
    )
    evaluate.add_argument(
        "--on", type=Path, metavar="FILE", help="predictions to fit the calibrator on (default: a run folder's val)"
    )
    evaluate.add_argument(
        "--report", type=Path, metavar="HTML", help="where to write a page with reliability diagrams (default: nowhere)"
    )
    evaluate.add_argument(
        "--json", action="store_true", help="print JSON, fractions in full precision (default: a table in percent)"
    )
    evaluate.add_argument(
        "--data",
        metavar="FOLDER",
        help="where a run's data is, if a calibrator needs its model (default: $FEDLAS_DATA, then the usual places)",
    )

    report = add("report", _report, "Write report.md, report.html and results.csv over finished runs.", "FOLDER")
    report.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench")

    uncertainty = add(
        "uncertainty",
        _uncertainty,
        "Make an ensemble, MC dropout, Laplace and the like of finished runs. Again: resumes.",
        "METHOD RUN [RUN ...]",
    )
    uncertainty.add_argument("method", metavar="METHOD", help="method, see 'fedlas list uncertainty'")
    uncertainty.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs")
    uncertainty.add_argument(
        "--out", type=Path, help="folder of the result (default: METHOD-LOSS-sSEED beside the first run)"
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

    listing = add("list", _list, "List what can be named on the command line or in a recipe.", "KIND")
    listing.add_argument(
        "kind", metavar="KIND", help="losses, metrics, calibrators, datasets, models, uncertainty or recipes"
    )
    listing.add_argument(
        "--markdown", action="store_true", help="a Markdown table with every column (default: one that fits)"
    )
    return parser, verbs


def _recipe_arguments(parser: _Parser) -> None:
    parser.add_argument(
        "recipe", metavar="RECIPE", help="recipe of the package (see 'fedlas list recipes'), or a .yaml file"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the recipe, e.g. optimizer.lr=0.05; may be repeated (default: none)",
    )
    parser.add_argument("--precision", help="fp32 or bf16; short for --set train.precision=... (default: the recipe's)")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the data is; short for --set data.root=... (default: $FEDLAS_DATA, then the usual places)",
    )


def _recipe(args: argparse.Namespace) -> Any:
    from fedlas.bench.recipe import load_recipe

    short = [f"train.precision={args.precision}"] if args.precision is not None else []
    return load_recipe(args.recipe, [*args.set, *short]).with_data_root(args.data)


def _bench(args: argparse.Namespace) -> int:
    from fedlas.bench.commands import bench

    return bench(_recipe(args), losses=args.losses, seeds=args.seeds, out=args.out)


def _train(args: argparse.Namespace) -> int:
    from fedlas.bench.commands import train

    return train(_recipe(args), loss=args.loss, seed=args.seed, out=args.out)


def _evaluate(args: argparse.Namespace) -> int:
    from fedlas.bench.commands import evaluate_file

    return evaluate_file(
        args.file,
        num_bins=args.num_bins,
        calibrate=args.calibrate,
        on=args.on,
        html=args.report,
        as_json=args.json,
        data=args.data,
    )


def _report(args: argparse.Namespace) -> int:
    from fedlas.bench.commands import report

    return report(args.folder)


def _uncertainty(args: argparse.Namespace) -> int:
    from fedlas.bench.uncertainty.command import uncertainty

    return uncertainty(args.method, args.runs, out=args.out, options=args.set, name=args.name, data=args.data)


def _list(args: argparse.Namespace) -> int:
    from fedlas.bench.commands import print_listing

    return print_listing(args.kind, markdown=args.markdown)


if __name__ == "__main__":
    sys.exit(main())
