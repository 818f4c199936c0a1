#!/usr/bin/env python3
"""Count what a reader takes in: ``tools/gauges.py``. ``tests/unit/test_architecture.py`` bounds each room.

Nodes are those of Python's syntax tree without docstrings and without Load, Store and Del, which count the same however
the code is laid out. A code line is neither blank, nor comment, nor docstring. Uses the standard library alone.
"""

import ast
import functools
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).parents[1] / "src" / "fedlas"
TESTS = Path(__file__).parents[1] / "tests"
LAB_COMMANDS = {
    "bench", "bench_group", "compare_runs", "data", "diagnose", "init", "listing_lab", "ood", "pack", "report", "shift",
    "train", "tune", "uncertainty",
}  # fmt: skip
INNER_ROOMS = {"calibrated.tables", "predictions.language", "predictions.tables"}
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
    inner = ".".join(path.parts[:2])
    return inner if inner in INNER_ROOMS else path.parts[0]


def is_docstring(node: ast.AST) -> bool:
    """Return whether a node is a string that is a statement of its own."""
    constant = node.value if isinstance(node, ast.Expr) else None
    return isinstance(constant, ast.Constant) and isinstance(constant.value, str)


@functools.cache
def text_of(path: Path) -> str:
    """Return the text of a file, which is read once."""
    return path.read_text(encoding="utf-8")


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return a parsed file; each is parsed once."""
    was_enabled = gc.isenabled()
    # a tree is all new objects and no garbage: to look for some takes longer than to parse
    gc.disable()
    try:
        return ast.parse(text_of(path))
    finally:
        if was_enabled:
            gc.enable()


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return the nodes of a file in the order of ``ast.walk``, without those that are ignored."""
    return tuple(node for node in ast.walk(tree_of(path)) if not isinstance(node, IGNORED))


def statements_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what holds statements below a node, and the statements: without expressions, which are most of a tree."""
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        inner = getattr(node, name, None)
        for each in inner if isinstance(inner, list) else ():
            yield each
            yield from statements_of(each)


def count_nodes(path: Path) -> int:
    """Return the number of nodes of a file that are neither docstrings nor ignored."""
    return sum(not is_docstring(node) for node in nodes_of(path))


@functools.cache
def code_lines(path: Path) -> tuple[str, ...]:
    """Return the lines that hold code, without indentation."""
    documented = {
        number
        for node in nodes_of(path)
        if isinstance(node, DOCUMENTED)
        for item in node.body
        if is_docstring(item)
        for number in range(item.lineno, (item.end_lineno or item.lineno) + 1)
    }
    lines = [
        line.strip()
        for number, line in enumerate(text_of(path).split("\n"), 1)
        if number not in documented
    ]
    return tuple(line for line in lines if line and line[0] != "#")


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
        name = room(path.relative_to(source))
        nodes[name] += count_nodes(path)
        tuples += sum(map(is_tuple_assignment, nodes_of(path)))
        lines += code_lines(path)
        files[name] += 1
    characters = sum(map(len, lines)) / len(lines)
    return Gauges(dict(nodes), dict(files), characters, 1000 * tuples / len(lines))


def public_names(source: Path) -> dict[str, set[str]]:
    """Return ``__all__`` of each room by its dotted name; facades and modules of the integrations are rooms, too."""
    names = {}
    for path in source.rglob("*.py"):
        inner = path.relative_to(source.parent).with_suffix("")
        if path.stem == "__init__" or inner.parent.name in {"fedlas", "integrations"}:
            room_name = ".".join(inner.parts).removesuffix(".__init__")
            names[room_name] = {
                name
                for node in tree_of(path).body
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
                for name in ast.literal_eval(node.value)
            }
    return names


def private_imports(path: Path, public: dict[str, set[str]]) -> set[str]:
    """Return the names of the package that a file imports and that are neither a room nor public in a room above."""
    imports: set[str] = set()
    for node in statements_of(tree_of(path)):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports |= {f"{node.module}.{alias.name}" for alias in node.names}

    def is_public(name: str) -> bool:
        parts = name.split(".")
        if any(part[0] == "_" and part != "__version__" for part in parts):
            return False
        above = [".".join(parts[:size]) for size in range(1, len(parts))]
        return name in public or any(parts[-1] in public.get(room, ()) for room in above)

    return {name for name in imports if name.split(".")[0] == "fedlas" and not is_public(name)}


def private_names_of_tests(source: Path = SOURCE, tests: Path = TESTS) -> dict[str, set[str]]:
    """Return the private names that each test file imports, which may be none."""
    public = public_names(source)
    files = sorted(tests.rglob("test_*.py"))
    return {str(path.relative_to(tests)): private_imports(path, public) for path in files}


if __name__ == "__main__":
    gauges = measure()
    for name, count in sorted(gauges.nodes.items(), key=lambda item: -item[1]):
        print(f"{name:<20}{count:>10,} nodes{gauges.files[name]:>6} files")
    total = sum(gauges.nodes.values())
    print(f"{'all':<20}{total:>10,} nodes{sum(gauges.files.values()):>6} files")
    print(f"{gauges.characters:.1f} characters a code line")
    print(f"{gauges.tuples:.1f} tuple assignments in 1,000 code lines")
    private = private_names_of_tests()
    print(f"{sum(map(bool, private.values()))} of {len(private)} test files import private names")
