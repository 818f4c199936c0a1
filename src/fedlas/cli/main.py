"""The command line: parses arguments; each subcommand calls one function.

Only the standard library parses, so that ``--help`` and ``--version`` work without any extra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import MissingExtraError
from fedlas._core.files import path_argument
from fedlas._core.output import LostOutputError, standard_streams
from fedlas._core.terminal import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if a run of a bench failed, 2 for arguments or input that cannot be used or results that
            cannot be printed and are nowhere else, 3 if fedlas monitor found a drift, 130 after Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    leaves = given[:1] != [] and given[0] in _LEAVE_RESULTS
    with standard_streams(keep_going=leaves) as output:
        try:
            status, stop = _status(given), None
        except SystemExit as error:  # of --help, --version, and arguments that cannot be parsed
            status, stop = int(error.code or 0), error
        with suppress(LostOutputError):
            output.flush()
        if output.error is not None and not isinstance(output.error, BrokenPipeError):  # `| head` has seen enough
            kind, fix = ("warning", "The results are there all the same.") if leaves else ("error", "Run it again.")
            got = f"standard output: it must take what is shown; got {output.error.strerror}"
            print(f"fedlas: {kind}: {got}. Free some space, or direct it elsewhere. {fix}", file=sys.stderr)
            if not leaves:
                return 2
        if stop is not None:
            raise stop
        return status


_LEAVE_RESULTS = frozenset(
    "bench train tune report uncertainty ood shift diagnose export card track monitor".split()  # noqa: SIM905
)
"""Subcommands whose results are files, or the exit status: these work on if nothing can be printed."""


def _status(given: list[str]) -> int:
    try:
        parsed = _parse(given)
        return int(parsed.run(parsed))
    except LostOutputError:
        return 0
    except (InputError, MissingExtraError) as error:
        print(f"fedlas: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        resumes = given[:1] in (["bench"], ["train"], ["tune"], ["uncertainty"])
        print(f"\nStopped.{' The same command resumes from the last checkpoint.' if resumes else ''}", file=sys.stderr)
        return 130
    except MemoryError as error:
        got = printable(str(error)) or "less"
        print(f"fedlas: error: memory: there must be enough; got {got}. Choose fewer or smaller.", file=sys.stderr)
        return 2
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
        self.exit(2, f"{self.prog}: error: {printable(message)}{stop} {usage} '{self.prog} --help'.\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser, verbs = _parsers()
    if not arguments:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if not arguments[0].startswith("-") and arguments[0] not in verbs:
        parser.error(f"there is no subcommand {arguments[0]!r}. {suggestion(arguments[0], verbs)}")
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        verb = verbs.get(parsed.verb, parser)
        option = next((word for word in unknown if word.startswith("-")), None)
        if option is None:
            verb.error(f"there is no place for {' '.join(map(repr, unknown))}")
        verb.error(f"there is no option {option!r}. {suggestion(option.split('=')[0], verb.options)}")
    if parsed.verb is None:
        parser.error(f"a subcommand is missing. {suggestion('', verbs)}")
    return parsed


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    import fedlas
    from fedlas.cli.compare import add_compare
    from fedlas.cli.evaluate import add_evaluate
    from fedlas.cli.executor_arguments import add_executor_arguments
    from fedlas.cli.production import add_production_verbs
    from fedlas.cli.recipe_arguments import add_recipe_arguments
    from fedlas.cli.study_arguments import add_studies, replicates_argument
    from fedlas.cli.track_arguments import add_track, add_track_option
    from fedlas.cli.tune_arguments import add_tune

    parser = _Parser(prog="fedlas", description="Train and measure calibrated classifiers.")
    parser.add_argument("--version", action="version", version=f"fedlas {fedlas.__version__}")
    group = parser.add_subparsers(
        dest="verb", title="subcommands", metavar="COMMAND", description="'fedlas COMMAND --help' says more."
    )
    verbs: dict[str, _Parser] = {}

    def add(name: str, run: Any, summary: str, positional: str) -> _Parser:
        usage = f"fedlas {name} {positional} [options]"
        verbs[name] = group.add_parser(name, help=summary, description=summary, usage=usage)
        verbs[name].set_defaults(run=run)
        return verbs[name]

    bench = add("bench", _bench, "Run a recipe with several losses and seeds, and report. Rerun to resume.", "RECIPE")
    add_recipe_arguments(bench)
    add_track_option(bench)
    bench.add_argument(
        "--losses", nargs="+", default=[], metavar="LOSS", help="losses to run, or 'all' (default: the recipe's)"
    )
    bench.add_argument(
        "--seeds", nargs="+", type=int, default=[], metavar="SEED", help="seeds to run (default: the recipe's)"
    )
    bench.add_argument("--out", type=path_argument, help="folder of the runs and the report (default: runs/RECIPE)")
    bench.add_argument(
        "--dry-run", action="store_true", help="print every run, its steps and where it goes; do nothing (default: do)"
    )
    _report_arguments(bench)
    add_executor_arguments(bench)

    train = add("train", _train, "Do one run: a recipe, a loss, a seed. Again with the same --out: resumes.", "RECIPE")
    add_recipe_arguments(train)
    add_track_option(train)
    train.add_argument("--loss", default="fedlas", help="loss to train with (default: %(default)s)")
    train.add_argument("--seed", type=int, default=0, help="seed of split, data order, weights (default: %(default)s)")
    train.add_argument("--out", type=path_argument, help="run folder (default: runs/RECIPE/LOSS-sSEED)")

    add_tune(add)
    add_evaluate(add)
    report = add(
        "report",
        _report,
        "Write report.md, report.html and results.csv over finished runs.",
        "FOLDER",
    )
    report.add_argument("folder", type=Path, metavar="FOLDER", help="folder of a bench, or of one run")
    report.add_argument(
        "--against",
        metavar="WHAT",
        help="'paper': published numbers beside those of a bench, or of a folder of them, in place of the report "
        "(default: the report)",
    )
    _report_arguments(report)
    replicates_argument(report)
    report.add_argument(
        "--data",
        metavar="FOLDER",
        help="where the runs' data is, for the images of the pages (default: $FEDLAS_DATA, then the usual places)",
    )

    add_studies(add)
    data = add("data", _data, "Check that a data set is there and whole; say what to do if not.", "check NAME [PATH]")
    data.add_argument("action", choices=["check"], metavar="check", help="the only thing to do with data so far")
    data.add_argument("name", metavar="NAME", help="data set, see 'fedlas list datasets'")
    data.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, help="where it is (default: $FEDLAS_DATA, then the usual places)"
    )
    data.add_argument("--quick", action="store_true", help="count, but do not read images on disk (default: read all)")
    data.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set an option of the data set, e.g. extra=true; may be repeated (default: none)",
    )

    listing = add("list", _list, "List what can be named on the command line or in a recipe.", "KIND")
    listing.add_argument(
        "kind",
        metavar="KIND",
        help="losses, metrics, calibrators, datasets, models, uncertainty, ood, corruptions, executors, trackers, "
        "recipes or tuning",
    )
    listing.add_argument(
        "--markdown", action="store_true", help="a Markdown table with every column (default: one that fits)"
    )
    add_production_verbs(add)
    add_track(add)
    add_compare(add)
    return parser, verbs


def _report_arguments(parser: _Parser) -> None:
    parser.add_argument(
        "--details", action="store_true", help="print every number and how to read it (default: verdict and table)"
    )
    parser.add_argument("--pages", action="store_true", help="also write a page for each run (default: none)")


def _recipe(args: argparse.Namespace) -> Any:
    from fedlas.cli.recipe_arguments import overrides_of
    from fedlas.lab.recipes.recipe import load_recipe

    return load_recipe(args.recipe, overrides_of(args)).with_data_root(args.data).with_trackers(args.track)


def _bench(args: argparse.Namespace) -> int:
    from fedlas.cli.bench_group import bench_group
    from fedlas.cli.executor_arguments import executor_of
    from fedlas.cli.recipe_arguments import overrides_of
    from fedlas.lab.bench.dry_run import dry_run
    from fedlas.lab.bench.suite import load_group

    group = load_group(args.recipe, overrides_of(args), data=args.data, trackers=args.track)
    chosen = {"losses": args.losses, "seeds": args.seeds, "out": args.out, "executor": executor_of(args)}
    if args.dry_run:
        return dry_run(group, **chosen)
    return bench_group(group, **chosen, details=args.details, pages=args.pages)


def _train(args: argparse.Namespace) -> int:
    from fedlas.cli.commands import train

    return train(_recipe(args), loss=args.loss, seed=args.seed, out=args.out)


def _report(args: argparse.Namespace) -> int:
    if args.against is not None:
        from fedlas.lab.report.paper import against_paper

        return against_paper(args.folder, against=args.against)
    from fedlas.cli.commands import report

    return report(args.folder, replicates=args.replicates, data=args.data, details=args.details, pages=args.pages)


def _data(args: argparse.Namespace) -> int:
    from fedlas.cli.data import data_check

    return data_check(args.name, args.path, quick=args.quick, options=args.set)


def _list(args: argparse.Namespace) -> int:
    from fedlas.cli.commands import print_listing

    return print_listing(args.kind, markdown=args.markdown)


if __name__ == "__main__":
    sys.exit(main())
