"""What a stranger may write where fedlas reads, for all tests: names, cells, probabilities and weights."""

import csv

NAMES = {
    "line": "age\ntouch PWNED #",
    "carriage return": "age\rtouch PWNED #",
    "quotes": 'it\'s "quoted"\\',
    "shell": "$(touch PWNED)`touch PWNED`;touch PWNED&&touch PWNED",
    "terminal": "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "html": "<pwned onpwned=1>&amp;\" onpwned=1 '",
    "markdown": "|cell|[link](javascript:pwned)`*_#",
    "latex": "\\pwned{}%$&#_^~",
    "formula": "=cmd|' /C calc'!A1",
    "sql": "'); DROP TABLE precious; --",
    "runner": "::error file=pwned::pwned",
    "direction": "a\u202eb\u2066c",
    "case": "Edema",
    "case again": "edema",
    "option": "--out=PWNED",
    "separators": "a,b;c\td",
    "missing": "nan",
    "template": "{{ 7 * 7 }}{% pwned %}%(pwned)s{pwned}",
    "spaces": "  a  ",
    "long": "n" * 5000,
    "a megabyte": "n" * 2**20,
}
"""Names of columns, classes, groups and files, by what they would do to a reader that obeys them."""
TERMINAL = "[red]$x^{ \x1b]0;title\x07\x9b2J\r\nb\u202e|<b>[/red]"
"""A text of what a terminal, rich, TeX, Markdown and HTML would each obey."""
TERMINAL_SHOWN = r"[red]$x^{ \x1b]0;title\x07\x9b2J\r\nb\u202e|<b>[/red]"
"""The same as a terminal shows it."""
LINES = ("\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029")
"""What something or other takes for the end of a line."""
CELLS = {
    "edge": ["0", "1", "-0", "1e-320", "1.0000000000000002", "0.99999999999999994"],
    "beyond": ["-2.8e-17", "1.5", "-1", "1e308", "1e400", "-inf", "inf"],
    "blank": ["", " ", "\t", "\u00a0", "\ufeff"],
    "long": ["." * 20_000, " " * 20_000, "1" * 20_000, "0." + "1" * 20_000, "e" * 20_000],
    "text": ["nan", "None", "0x10", "1_000", "\u0661", "1,5", "50 %", "true", "=1+1", "\x00"],
}
"""Cells of a score, by what is wrong, or at the edge, in them."""


def write_csv(path, header, rows):
    """Write a table with names as they are, quoted where CSV asks for it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path
