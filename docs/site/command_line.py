"""The command line's reference, from the parsers themselves."""

from __future__ import annotations

import argparse
import html

from fedlas.cli import parsers


def command_line() -> str:
    """A section for each subcommand: what it does, its usage, arguments and options."""
    _, subcommands = parsers()
    exits = (
        "Exit status: 0; 1 if a run of a bench failed; 2 for arguments or input that cannot be used; "
        "3 if `fedlas monitor` raised an alarm; 130 after Ctrl-C."
    )
    lines = ["| subcommand | what it does |", "|---|---|"]
    lines += [
        f"| [`{name}`](#{name.replace(' ', '-')}) | {_text(subcommand.description or '')} |"
        for name, subcommand in subcommands.items()
    ]
    sections = [_section(name, parser) for name, parser in subcommands.items()]
    return "\n\n".join(["\n".join(lines), exits, *sections])


def _section(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [
        f"## {name}",
        _text(parser.description or ""),
        f"<pre><code>{html.escape(parser.usage or '')}</code></pre>",
    ]
    terms = [
        _term(action) for action in parser._actions if not isinstance(action, argparse._HelpAction)
    ]
    return "\n\n".join([*parts, "<dl class='options'>\n" + "\n".join(terms) + "\n</dl>"])


def _term(action: argparse.Action) -> str:
    value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
    value = " ".join(value) if isinstance(value, tuple) else value
    more = " ..." if action.nargs in ("+", "*") and value else ""
    names = ", ".join(action.option_strings)
    said = f"{names} {value}{more}".strip() if names else f"{value}{more}"
    explained = (action.help or "") % {**vars(action), "prog": "fedlas"}
    return f"<dt><code>{html.escape(said)}</code></dt>\n<dd>{html.escape(explained)}</dd>"


def _text(words: str) -> str:
    return html.escape(words, quote=False).replace("|", "\\|").replace("*", "\\*")
