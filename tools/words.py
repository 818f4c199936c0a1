"""Draw functions and messages of the package to be graded for clarity, mix two draws, and count the grades.

A grader sees a signature with the first line of its docstring, or a message, and nothing else: is it clear, does it
take a second reading, or is it a riddle?

Example::

    python tools/words.py draw before.csv --seed 63
    python tools/words.py draw after.csv --seed 64
    python tools/words.py mix before.csv after.csv --seed 65 --out sheet.csv
    python tools/words.py count graded.csv before.csv after.csv
"""

from __future__ import annotations

import argparse
import ast
import csv
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ERRORS = {"InputError", "NonFiniteError", "UnreadableError", "ValueError", "TypeError"}
GRADES = {"name": "grade_name", "docstring": "grade_docstring", "message": "grade_message"}
Z = 1.96  # of a 95 % interval


def functions_of(path: Path) -> Iterator[str]:
    """Yield ``Class.name(arguments) -> type`` and the first docstring line of each function, dunders left out."""
    for parent in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for node in ast.iter_child_nodes(parent):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not (
                node.name.startswith("__") and node.name.endswith("__")
            ):
                owner = f"{parent.name}." if isinstance(parent, ast.ClassDef) else ""
                returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
                first = (ast.get_docstring(node) or "(none)").split("\n\n")[0]
                yield f"{owner}{node.name}({ast.unparse(node.args)}){returns}\n{' '.join(first.split())}"


def messages_of(path: Path) -> Iterator[str]:
    """Yield the text of each error, as its parts with ``{...}`` where a value stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ERRORS
        ):
            named = {each.arg: each.value for each in node.keywords}
            subject = f"{_text(named['argument'])} " if "argument" in named else ""
            parts = [_text(each) for each in node.args]
            if parts and any(not part.startswith("{") for part in parts):
                yield subject + " | ".join(parts)


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(each.value) if isinstance(each, ast.Constant) else f"{{{ast.unparse(each.value)}}}"
            for each in node.values
            if isinstance(each, ast.Constant | ast.FormattedValue)
        )
    return f"{{{ast.unparse(node)}}}"


def draw(args: argparse.Namespace) -> None:
    """Write 200 functions and 100 messages, each as likely as any other."""
    rows: list[tuple[str, str, str]] = []
    stream = random.Random(args.seed)
    for kind, texts_of, count in (
        ("function", functions_of, args.functions),
        ("message", messages_of, args.messages),
    ):
        paths = sorted((ROOT / "src" / "fedlas").rglob("*.py"))
        every = [
            (kind, str(path.relative_to(ROOT)), text) for path in paths for text in texts_of(path)
        ]
        rows += stream.sample(every, count)
    _write(args.file, ("kind", "file", "text"), rows)


def mix(args: argparse.Namespace) -> None:
    """Write the rows of all draws in one random order, without their origin."""
    rows = [(row["kind"], row["text"]) for path in args.files for row in _read(path)]
    random.Random(args.seed).shuffle(rows)
    _write(args.out, ("kind", "text", *GRADES.values()), [(*row, "", "", "") for row in rows])


def count(args: argparse.Namespace) -> None:
    """Print the share of grades other than ``clear``, and of riddles, in each draw."""
    graded = {(row["kind"], row["text"]): row for row in _read(args.graded)}
    for path in args.files:
        rows = [graded[row["kind"], row["text"]] for row in _read(path)]
        for what, column in GRADES.items():
            grades = Counter(row[column] for row in rows if row[column])
            total = sum(grades.values())
            for share in ("not clear", "riddle") if total else ():
                found = total - grades["clear"] if share == "not clear" else grades["riddle"]
                low, high = _interval(found, total)
                print(
                    f"{path.name:20} {what:10} {share:10} {found / total:6.1%} [{low:.1%}, {high:.1%}] of {total}"
                )


def _interval(found: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a share."""
    share, z2 = found / total, Z * Z / total
    half = Z * (share * (1 - share) / total + z2 / total / 4) ** 0.5
    return (share + z2 / 2 - half) / (1 + z2), (share + z2 / 2 + half) / (1 + z2)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, fields: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([fields, *rows])


def main() -> None:
    """Run the command that was named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw", help="write functions and messages of the code")
    drawing.add_argument("file", type=Path)
    drawing.add_argument("--functions", type=int, default=200)
    drawing.add_argument("--messages", type=int, default=100)
    mixing = commands.add_parser("mix", help="write one sheet without origin")
    mixing.add_argument("--out", type=Path, required=True)
    for each in (drawing, mixing):
        each.add_argument("--seed", type=int, required=True)
    counting = commands.add_parser("count", help="print the shares of each draw")
    counting.add_argument("graded", type=Path)
    for each in (mixing, counting):
        each.add_argument("files", type=Path, nargs="+")
    for each, function in ((drawing, draw), (mixing, mix), (counting, count)):
        each.set_defaults(function=function)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
