#!/usr/bin/env python3
"""Count what a reader of the package takes in: ``tools/gauges.py``. ``tests/unit/test_architecture.py`` sets bounds.

Nodes are those of Python's syntax tree without docstrings and without Load, Store and Del, which count the same however
the code is laid out. A code line is neither blank, nor comment, nor docstring. Uses the standard library alone.
"""

import ast
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "fedlas"
LAB_COMMANDS = {
    "bench", "bench_group", "compare_runs", "data", "diagnose", "init", "listing_lab", "ood", "pack", "report", "shift",
    "train", "tune", "uncertainty",
}  # fmt: skip
IGNORED = ast.Load | ast.Store | ast.Del
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Gauges(NamedTuple):
    """What the files of a package hold.

    Attributes:
        nodes: Nodes of the syntax tree by wing: library, laboratory, zoo.
        files: Number of files.
        characters: Mean number of characters in a code line, without indentation.
        tuples: Assignments of a tuple to a tuple in 1,000 code lines.
    """

    nodes: dict[str, int]
    files: int
    characters: float
    tuples: float


def wing(path: Path) -> str:
    """Return which budget a file of the package counts against."""
    if path.parts[0] == "zoo":
        return "zoo"
    is_lab = path.parts[0] == "lab" or (path.parts[0] == "cli" and path.stem in LAB_COMMANDS)
    return "laboratory" if is_lab else "library"


def is_docstring(node: ast.AST) -> bool:
    """Return whether a node is a string that is a statement of its own."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


def code_lines(text: str, tree: ast.Module) -> list[str]:
    """Return the lines that hold code, without indentation."""
    documented = {
        number
        for node in ast.walk(tree)
        if isinstance(node, DOCUMENTED)
        for item in node.body
        if is_docstring(item)
        for number in range(item.lineno, (item.end_lineno or item.lineno) + 1)
    }
    lines = [
        line.strip() for number, line in enumerate(text.split("\n"), 1) if number not in documented
    ]
    return [line for line in lines if line and line[0] != "#"]


def is_tuple_assignment(node: ast.AST) -> bool:
    """Return whether a node is like ``a, b = c, d``."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple)
    )


def measure(source: Path = SOURCE) -> Gauges:
    """Return the gauges of a package."""
    nodes: Counter[str] = Counter()
    lines: list[str] = []
    tuples = files = 0
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        every = [node for node in ast.walk(tree) if not isinstance(node, IGNORED)]
        nodes[wing(path.relative_to(source))] += sum(not is_docstring(node) for node in every)
        tuples += sum(map(is_tuple_assignment, every))
        lines += code_lines(text, tree)
        files += 1
    characters = sum(map(len, lines)) / len(lines)
    return Gauges(dict(nodes), files, characters, 1000 * tuples / len(lines))


if __name__ == "__main__":
    gauges = measure()
    for name, count in sorted(gauges.nodes.items()):
        print(f"{name:<12}{count:>10,} nodes")
    print(f"{gauges.files} files, {gauges.characters:.1f} characters a code line")
    print(f"{gauges.tuples:.1f} tuple assignments in 1,000 code lines")
