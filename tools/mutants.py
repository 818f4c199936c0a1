"""Draw small faults in the code, and say which of them the tests notice.

``draw`` writes lines of the code with one operator, comparison, constant or condition changed; ``run`` puts each into
a copy of the repository, runs the quick tests of its room, then all others if those pass, and adds the result to the
file. A line is found by its text, so that a list drawn before a change serves after it too.

Example::

    python tools/mutants.py draw --seed 8 --count 60 tests/mutants.csv
    python tools/mutants.py run tests/mutants.csv --out caught.csv
"""

from __future__ import annotations

import argparse
import ast
import csv
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPERATORS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.And: ("and", "or"), ast.Or: ("or", "and"),
}  # fmt: skip
FIELDS = ("file", "line", "before", "after")


def mutants_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, line and changed line of each fault that ``path`` could have."""
    text = path.read_text(encoding="utf-8")
    lines = text.split("\n")

    def between(
        left: ast.expr, right: ast.expr, pair: tuple[str, str]
    ) -> Iterator[tuple[int, int, int, str]]:
        if left.end_lineno == right.lineno and left.end_col_offset is not None:
            start = left.end_col_offset
            at = lines[right.lineno - 1].find(f" {pair[0]} ", start, right.col_offset)
            if at >= 0:
                yield right.lineno, at + 1, at + 1 + len(pair[0]), pair[1]

    def changes(node: ast.AST) -> Iterator[tuple[int, int, int, str]]:
        if isinstance(node, ast.Compare):
            for left, operator, right in zip(
                [node.left, *node.comparators], node.ops, node.comparators, strict=False
            ):
                yield from between(left, right, OPERATORS[type(operator)])
        elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            yield from between(node.left, node.right, OPERATORS[type(node.op)])
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from between(left, right, OPERATORS[type(node.op)])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.lineno, node.col_offset, node.operand.col_offset, ""
        elif isinstance(node, ast.Constant) and node.end_col_offset is not None:
            if isinstance(node.value, bool):
                yield node.lineno, node.col_offset, node.end_col_offset, str(not node.value)
            elif isinstance(node.value, int | float):
                yield node.lineno, node.col_offset, node.end_col_offset, repr(node.value + 1)

    for number, start, end, new in {
        each for node in _computed(ast.parse(text)) for each in changes(node)
    }:
        line = lines[number - 1]
        if line.isascii():  # offsets of the tree count bytes
            yield number, line, f"{line[:start]}{new}{line[end:]}"


def _computed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below ``node`` that run: no annotations, types and imports."""
    for name, field in ast.iter_fields(node):
        if name in {"annotation", "returns"}:
            continue
        for child in field if isinstance(field, list) else [field]:
            if isinstance(child, ast.AST) and not isinstance(
                child, ast.Import | ast.ImportFrom | ast.JoinedStr
            ):
                yield child
                yield from _computed(child)


def draw(args: argparse.Namespace) -> None:
    """Write ``count`` mutants, each as likely as any other."""
    paths = sorted((ROOT / "src" / "fedlas").rglob("*.py"))
    every = [(path, *each) for path in paths for each in sorted(mutants_of(path))]
    with args.file.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for path, number, before, after in sorted(
            random.Random(args.seed).sample(every, args.count)
        ):
            writer.writerow((path.relative_to(ROOT), number, before.strip(), after.strip()))


def run(args: argparse.Namespace) -> None:
    """Write which tests noticed each mutant: ``room``, ``all``, ``survived`` (none), or ``gone`` if its line is."""
    done = set()
    if args.out.exists():
        with args.out.open(newline="", encoding="utf-8") as file:
            done = {tuple(row[:4]) for row in csv.reader(file)}
    with args.file.open(newline="", encoding="utf-8") as file:
        rows = [tuple(row[name] for name in FIELDS) for row in csv.DictReader(file)]
    with (
        tempfile.TemporaryDirectory() as folder,
        args.out.open("a", newline="", encoding="utf-8") as out,
    ):
        copy = Path(folder) / "fedlas"
        skipped = shutil.ignore_patterns(
            ".git", ".venv*", "site", "build", "*.egg-info", "__pycache__"
        )
        shutil.copytree(ROOT, copy, ignore=skipped)
        for row in rows:
            if row in done:
                continue
            result = _result(copy, *row)
            csv.writer(out, lineterminator="\n").writerow((*row, result))
            out.flush()
            print(f"{result:9} {row[0]}: {row[3]}", flush=True)


def _result(copy: Path, name: str, number: str, before: str, after: str) -> str:
    path = copy / name
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text.split("\n")
    places = [at for at, line in enumerate(lines) if line.strip() == before]
    if not places:
        return "gone"
    at = min(places, key=lambda place: abs(place + 1 - int(number)))
    lines[at] = lines[at].replace(before, after)
    path.write_text("\n".join(lines), encoding="utf-8")
    try:
        room = Path(*Path(name).parts[2:-1])
        near = [f"tests/unit/{room}"] if (copy / "tests/unit" / room).exists() else ["tests/unit"]
        if not _passes(copy, [name, *near]):
            return "room"
        return "survived" if _passes(copy, ["tests", "src"]) else "all"
    finally:
        path.write_text(text, encoding="utf-8")


def _passes(copy: Path, tests: list[str]) -> bool:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not system",
        *tests,
    ]
    paths = {
        "PYTHONPATH": f"{copy / 'src'}",
        "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin",
        "HOME": str(copy.parent),
    }
    status = subprocess.run(
        command, cwd=copy, env=paths, capture_output=True, check=False
    ).returncode
    return status in {0, 5}  # 5: no tests there


def main() -> None:
    """Run the command that was named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    drawing = commands.add_parser("draw", help="write a list of mutants")
    drawing.add_argument("file", type=Path)
    drawing.add_argument("--seed", type=int, default=0)
    drawing.add_argument("--count", type=int, default=60)
    drawing.set_defaults(function=draw)
    running = commands.add_parser("run", help="run the tests against each")
    running.add_argument("file", type=Path)
    running.add_argument("--out", type=Path, required=True)
    running.set_defaults(function=run)
    args = parser.parse_args()
    args.function(args)


if __name__ == "__main__":
    main()
