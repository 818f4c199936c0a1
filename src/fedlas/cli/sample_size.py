"""``fedlas sample-size``: computes the sample size of a study of two classes, of validation or of development."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from fedlas._core.check import Argument, InputError
from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import AddSubcommand, add_confidence_level, add_flag, add_option

_COMMON = ("prevalence", "auroc", "confidence_level")
_SHARE_OPTIONS = {
    "prevalence": "anticipated share of events, e.g. 0.1 (default: none)",
    "auroc": "anticipated AUROC (C statistic), e.g. 0.75 (default: none)",
    "threshold": "decision threshold: also plan for net benefit (default: no)",
    "sensitivity": "share of events above the threshold (default: by the distribution)",
    "specificity": "share of others below the threshold (default: by the distribution)",
}
_WIDTH_OPTIONS = {
    "observed_to_expected": ("observed over expected", 0.2),
    "slope": ("the calibration slope", 0.2),
    "auroc": ("AUROC", 0.1),
    "net_benefit": ("the net benefit over the prevalence", 0.2),
}
_DEVELOPMENT_OPTIONS = {
    "r2": ("R2 of Cox and Snell that is anticipated, in place of --auroc (default: none)", None),
    "shrinkage": ("least factor by which coefficients must be shrunk (default: %(default)s)", 0.9),
    "optimism": (
        "most by which R2 is better in the data than in others (default: %(default)s)",
        0.05,
    ),
    "margin": ("half the width of the interval of the mean risk (default: %(default)s)", 0.05),
}


def add_sample_size(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas sample-size``."""

    def run(args: argparse.Namespace) -> int:
        return _run(args, parser.get_default)

    parser = add(run, "")
    for name, text in _SHARE_OPTIONS.items():
        add_option(parser, f"--{name}", "SHARE", text, type=float)
    text = "mean and standard deviation of normal log-odds (default: by prevalence and AUROC)"
    add_option(parser, "--lp-normal", ("MEAN", "SD"), text, type=float, nargs=2)
    text = (
        "parameters of a beta distribution of the probabilities (default: by prevalence and AUROC)"
    )
    add_option(parser, "--risk-beta", ("A", "B"), text, type=float, nargs=2)
    for name, (what, width) in _WIDTH_OPTIONS.items():
        text = f"width of the interval of {what} (default: {width})"
        flag = f"--width-{name.replace('_', '-')}"
        add_option(
            parser,
            flag,
            "WIDTH",
            text,
            type=float,
            default=None if name == "net_benefit" else width,
        )
    add_confidence_level(parser)
    text = "plan the development of a model with --parameters (default: the validation of one)"
    add_flag(parser, "--development", text)
    text = "development: number of candidate parameters (default: none)"
    add_option(parser, "--parameters", "N", text, type=int)
    for name, (text, default) in _DEVELOPMENT_OPTIONS.items():
        add_option(
            parser, f"--{name}", "SHARE", f"development: {text}", type=float, default=default
        )


def _run(args: argparse.Namespace, default_of: Callable[[str], Any]) -> int:
    """Print the required sample size."""
    from fedlas.binary import development_size, validation_size

    validation = [*_SHARE_OPTIONS, "lp_normal", "risk_beta", "confidence_level"]
    validation += [f"width_{name}" for name in _WIDTH_OPTIONS]
    development = [*_COMMON, "parameters", *_DEVELOPMENT_OPTIONS]
    used, unused = (development, validation) if args.development else (validation, development)
    for name in unused:
        if name not in used and getattr(args, name) != default_of(name):
            of_development = name in development
            fix = (
                "Add --development, or omit " if of_development else "Omit ",
                Argument(name),
                ".",
            )
            raise InputError(
                f"is for the {'development' if of_development else 'validation'} of a model",
                "--development" if args.development else "no --development",
                fix,
                argument=name,
            )
    options: dict[str, Any] = {name: getattr(args, name) for name in used}
    if args.development and args.parameters is None:
        raise InputError(
            "is required: the number of candidate parameters",
            "none",
            "Pass it.",
            argument="parameters",
        )
    size = development_size(**options) if args.development else validation_size(**options)
    print_lines(*str(size).split("\n"))
    return 0
