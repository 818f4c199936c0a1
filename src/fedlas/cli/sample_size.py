"""``fedlas sample-size``: computes the sample size of a validation study with two classes."""

from __future__ import annotations

import argparse
from typing import Any

from fedlas._core.terminal import print_lines
from fedlas.cli.arguments import AddSubcommand, add_confidence_level, add_option

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


def add_sample_size(add: AddSubcommand) -> None:
    """Add the subcommand ``fedlas sample-size``."""
    parser = add(_run, "")
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


def _run(args: argparse.Namespace) -> int:
    """Print the required sample size."""
    from fedlas.binary import validation_size

    names = [*_SHARE_OPTIONS, "lp_normal", "risk_beta", "confidence_level"]
    names += [f"width_{name}" for name in _WIDTH_OPTIONS]
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    print_lines(*str(validation_size(**options)).split("\n"))
    return 0
