#!/usr/bin/env python3
"""Count what a reader takes in: ``tools/gauges.py``. ``tests/unit/test_architecture.py`` bounds each room.

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
        nodes: Nodes of the syntax tree by room; ``cli`` is split into commands of files and of runs.
        files: Number of files by room.
        characters: Mean number of characters in a code line, without indentation.
        tuples: Assignments of a tuple to a tuple in 1,000 code lines.
    """

    nodes: dict[str, int]
    files: dict[str, int]
    characters: float
    tuples: float


def room(path: Path) -> str:
    """Return which bound a file of the package counts against."""
    if len(path.parts) == 1:
        return "the package itself"
    if path.parts[0] == "cli":
        return "cli of runs" if path.stem in LAB_COMMANDS else "cli of files"
    return path.parts[0]


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
    files: Counter[str] = Counter()
    lines: list[str] = []
    tuples = 0
    for path in source.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        every = [node for node in ast.walk(tree) if not isinstance(node, IGNORED)]
        name = room(path.relative_to(source))
        nodes[name] += sum(not is_docstring(node) for node in every)
        tuples += sum(map(is_tuple_assignment, every))
        lines += code_lines(text, tree)
        files[name] += 1
    characters = sum(map(len, lines)) / len(lines)
    return Gauges(dict(nodes), dict(files), characters, 1000 * tuples / len(lines))


if __name__ == "__main__":
    gauges = measure()
    for name, count in sorted(gauges.nodes.items(), key=lambda item: -item[1]):
        print(f"{name:<20}{count:>10,} nodes{gauges.files[name]:>6} files")
    total = sum(gauges.nodes.values())
    print(f"{'all':<20}{total:>10,} nodes{sum(gauges.files.values()):>6} files")
    print(f"{gauges.characters:.1f} characters a code line")
    print(f"{gauges.tuples:.1f} tuple assignments in 1,000 code lines")
