"""Formatting of text, and escaping of untrusted text for terminals, pages and spreadsheets."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Sequence

_COMMANDS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories: control, format, lone surrogate, line separator, paragraph separator."""
_QUOTED_OR_OPTION = re.compile(r"""'[^']*'|"[^"]*"| --""")
_WIDTH = 80
"""Columns of a terminal, in which a command can be copied without a break inside a word."""
# the only format characters that the spelling of languages and emoji needs
_JOINERS = "\u200c\u200d"


NO_ACTION = "No action is needed."
"""Last sentence of a note that nobody has to act on; pages show such notes without a mark."""


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` on one line, with control characters and invisible format characters escaped.

    Control characters (line breaks and tabs too, if they are not among the ``keep``), invisible format characters
    such as direction overrides, and lone surrogates become escapes as in Python source; all other text is unchanged.

    Example:
        >>> print(printable("grün\x1b[2J\n\u202e"))
        grün\x1b[2J\n\u202e
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode()
        if unicodedata.category(char) in _COMMANDS and char not in _JOINERS + keep
        else char
        for char in text
    )


def comment_line(text: str, mark: str = "#") -> str:
    r"""Return ``text`` as one comment line of a script, recipe or statement, whatever is in the text.

    All writers build comments with it: what follows a line break of a name would be run, or read, as a line of its own.

    Args:
        text: Content of the comment; control characters are escaped as by :func:`printable`.
        mark: What begins a comment: ``"#"`` in a shell and in YAML, ``"--"`` in SQL.

    Example:
        >>> print(comment_line("age\nrm -r ~"))
        # age\nrm -r ~
    """
    return printable(f"{mark} {text}".rstrip())


def quote_path(path: object) -> str:
    """Return a path quoted for a shell, as an argument that no command takes for an option.

    Example:
        >>> quote_path("my table.csv"), quote_path("-x.csv"), quote_path("-")
        ("'my table.csv'", './-x.csv', '-')
    """
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") and text != "-" else text)


def truncate(text: str, max_length: int = 2000) -> str:
    """Return ``text``, truncated with an ellipsis to at most ``max_length`` characters."""
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def join_words(parts: Sequence[str]) -> str:
    """Return words joined as in a sentence: ``"a, b and c"``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def wrap_command(command: str, *, prefix: str = "") -> list[str]:
    r"""Return a shell command wrapped to lines of at most 80 columns, broken with backslashes before its options.

    Args:
        command: The command.
        prefix: Stands in front of it; the other lines are indented by its width.

    Example:
        >>> len(wrap_command("fedlas apply cal.json LIVE.csv")), wrap_command("a --b", prefix="next: ")
        (1, ['next: a --b'])
    """
    # what looks like an option inside quotes is part of a name
    cuts = [match.start() for match in _QUOTED_OR_OPTION.finditer(command) if match[0] == " --"]
    parts = [command[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    head, *options = (part.removeprefix(" --") for part in parts)
    lines = [prefix + head]
    indent = " " * (len(prefix) + 2)
    for option in options:
        if len(lines[-1]) + len(option) + 3 + len(" \\") > _WIDTH:
            lines[-1] += " \\"
            lines.append(f"{indent}--{option}")
        else:
            lines[-1] += f" --{option}"
    return lines


def pluralize(count: int, word: str) -> str:
    """Return a count with its noun in singular or plural: ``"1 seed"``, ``"2 seeds"``."""
    return f"{count} {word}{'s' * (count != 1)}"


def escape_spreadsheet_cell(text: str) -> str:
    """Return ``text`` as a CSV cell that a spreadsheet does not evaluate: formulas are prefixed with an apostrophe.

    Example:
        >>> escape_spreadsheet_cell("=1+1"), escape_spreadsheet_cell("-0.5"), escape_spreadsheet_cell("a-b")
        ("'=1+1", '-0.5', 'a-b')
    """
    text = printable(text)
    if text.lstrip()[:1] not in ("=", "+", "-", "@"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
