"""Options of a gate, and the output of its checks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedlas._core.check import InputError
from fedlas._core.files import write_text
from fedlas._core.terminal import print_lines, print_workflow_commands
from fedlas.cli.arguments import add_flag, add_option, add_path, heading

if TYPE_CHECKING:
    from fedlas.present.gate import GateResult


def add_require_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--require`` and the options of a gate."""
    add_option(
        parser,
        "--require",
        "RULE",
        "bound such as 'ece<=0.03', or calibrated; exit status 3 if the interval lies beyond it (default: none)",
        nargs="+",
        default=(),
    )
    add_gate_options(parser)


def add_gate_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--strict``, ``--junit`` and ``--github``."""
    parser = heading(parser, "output")
    add_flag(
        parser, "--strict", "exit status 4 if an interval does not decide a rule (default: pass)"
    )
    add_path(parser, "--junit", "XML", "also write the checks as JUnit XML (default: none)")
    add_flag(
        parser, "--github", "also print the checks as GitHub Actions annotations (default: no)"
    )


def check_gate_options(args: argparse.Namespace, rule_option: str, rules: Sequence[str]) -> None:
    """Raise InputError for gate options without rules, and for rules without intervals."""
    options = {"--junit": args.junit is not None, "--github": args.github, "--strict": args.strict}
    options_used = [name for name, is_there in options.items() if is_there]
    if options_used and not rules:
        raise InputError(
            f"{options_used[0]} requires {rule_option}",
            f"no {rule_option}",
            f"Add {rule_option}, or omit {options_used[0]}.",
        )
    if rules and args.replicates == 0:
        raise InputError(
            f"{rule_option} requires intervals, so that --replicates must be positive",
            0,
            "Omit --replicates.",
        )


def print_gate(gate: GateResult, args: argparse.Namespace, *, suite: str) -> int:
    """Print the checks and write them where the options ask; return the exit status."""
    from fedlas.present.gate import github_annotations

    # With --json, standard output is for JSON alone.
    print_lines(*(check.text for check in gate.checks), wrap=True, stderr=args.json)
    if args.github:
        print_workflow_commands(*github_annotations(gate.checks), stderr=args.json)
    if args.junit is not None:
        write_text(args.junit, gate.junit(suite=suite))
    return gate.status
