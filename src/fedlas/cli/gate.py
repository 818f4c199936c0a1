"""The options of a gate, which ``evaluate`` and ``compare`` share, and how its result is shown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fedlas._core.check import InputError
from fedlas._core.files import write_text
from fedlas._core.terminal import say
from fedlas.cli.arguments import add_path, flag
from fedlas.present.gate import Check, junit, status_of, workflow_annotations


def add_gate(parser: argparse.ArgumentParser) -> None:
    """Add ``--junit`` and ``--github``."""
    add_path(parser, "--junit", "XML", "also write the checks as JUnit XML (default: none)")
    flag(
        parser, "--github", "also print the checks as annotations of GitHub Actions (default: not)"
    )


def check_gate(args: argparse.Namespace, option: str, rules: Sequence[str]) -> None:
    """Refuse options of a gate without rules, and rules without intervals.

    Raises:
        InputError: For one of them.
    """
    if not rules and (args.junit is not None or args.github):
        got = "--junit" if args.junit is not None else "--github"
        raise InputError(
            f"{got} shows the result of {option}", f"no {option}", f"Add {option}, or leave it out."
        )
    if rules and args.replicates == 0:
        fix = "Leave --replicates out: without intervals nothing shows what is chance."
        raise InputError(f"{option} needs replicates", 0, fix)


def show_gate(checks: Sequence[Check], args: argparse.Namespace, *, suite: str) -> int:
    """Print the checks, and write them where options ask for it; return the exit status.

    Standard output is for JSON alone where that was asked for.
    """
    say(*(check.text for check in checks), wrap=True, stderr=args.json)
    if args.github:
        say(*workflow_annotations(checks), stderr=args.json)
    if args.junit is not None:
        write_text(args.junit, junit(checks, suite=suite))
    return status_of(checks)
