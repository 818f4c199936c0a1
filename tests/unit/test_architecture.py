"""Who may import whom, what `import fedlas` costs, and the size of the rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fedlas

SOURCE = Path(fedlas.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
LAYERS = [  # each may import only from later lines, and itself
    {"cli"},
    {"bench"},
    {"train", "integrations", "uncertainty"},
    {"objective", "data", "models", "plots", "ood", "calibrators", "diagnose"},
    {"stats"},
    {"losses", "metrics", "features"},
    {"predictions"},
    {"_core"},
]
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
EVERYWHERE = {"torch", "numpy"} | set(sys.stdlib_module_names)
MOST_LINES = 400

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))


def room(path):
    """First part of a module's name below ``fedlas``; None for its ``__init__.py``, the facade, and ``__main__.py``."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return None if first in ("__init__", "__main__") else first


def imports(path, *, at_import_time):
    """Dotted names of what a module imports; with ``at_import_time`` only what runs when it is imported itself."""

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import in line {node.lineno}"
                yield node.module
                if node.module == "fedlas":
                    yield from (f"fedlas.{alias.name}" for alias in node.names)
            elif at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            elif at_import_time and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit(node.orelse)
            else:
                yield from visit(ast.iter_child_nodes(node))

    yield from visit(ast.parse(path.read_text(encoding="utf-8")).body)


def test_there_is_something_to_check():
    assert len(MODULES) > 30
    assert "torch" in set(imports(SOURCE / "objective.py", at_import_time=True))


@each_module
def test_every_room_has_its_line(path):
    assert room(path) is None or room(path) in LEVEL, f"{room(path)} is in no layer: add it to docs/architecture.md"


@each_module
def test_imports_point_downwards(path):
    """Imports for type checking and inside functions count too: they are dependencies all the same."""
    here = room(path)
    if here is None:
        return
    for name in imports(path, at_import_time=False):
        if name == "fedlas":  # the facade reaches as high as `train`
            assert LEVEL[here] < LEVEL["train"], f"{path}: import the room itself, not the package"
        if name.startswith("fedlas."):
            there = name.split(".")[1]
            assert there in LEVEL, f"{path} imports {name}: which layer is that?"
            assert there == here or LEVEL[there] > LEVEL[here], f"{path} ({here}) imports {name} ({there})"


@each_module
def test_optional_packages_are_imported_where_they_are_used(path):
    found = {name.split(".")[0] for name in imports(path, at_import_time=True)} - EVERYWHERE - {"fedlas"}
    if room(path) == "integrations":  # a module there is named after its package, and imported by who uses both
        found -= {path.stem}
    assert not found, f"{path}: import {found} inside the function, through fedlas._core.extras.require"


@each_module
def test_one_module_alone_writes_to_the_terminal(path):
    """All others go through it, so that no name from a file can hold a command for the terminal."""
    if path in (SOURCE / "_core" / "terminal.py", SOURCE / "cli.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            what = ast.unparse(node.func)
            assert what != "print", f"{path}: say it with fedlas._core.terminal, line {node.lineno}"
            named = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)] if what == "require" else []
            assert not str(named[:1]).startswith("['rich"), f"{path}: fedlas._core.terminal has it, line {node.lineno}"


@each_module
def test_rooms_are_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@each_module
def test_no_rooms_for_leftovers(path):
    assert not {"utils", "util", "common", "helpers", "misc"} & {part.removesuffix(".py") for part in path.parts}


@each_module
def test_everything_public_is_documented(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path}: no module docstring"

    def undocumented(nodes, prefix=""):
        for node in nodes:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_":
                if not ast.get_docstring(node) and "overload" not in map(ast.unparse, node.decorator_list):
                    yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    yield from undocumented(node.body, f"{prefix}{node.name}.")

    assert not list(undocumented(tree.body))


@each_module
def test_no_name_and_no_class_of_a_loss_decides_anything(path):
    """A new loss is one new file: nothing outside ``losses`` may ask which one it has."""
    if room(path) == "losses":
        return
    from fedlas.losses import LOSSES

    names, classes = set(LOSSES), {entry.value.__name__ for entry in LOSSES.entries()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            compared = {getattr(part, "value", None) for part in (node.left, *node.comparators)}
            assert not any(isinstance(value, str) and value in names for value in compared), ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            assert not classes & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}, ast.unparse(node)


def test_import_brings_nothing_but_torch_and_numpy():
    """In a fresh process: whatever PyTorch and NumPy import themselves is theirs, anything more would be ours."""
    program = """
import sys
import numpy, torch
before = {name.partition(".")[0] for name in sys.modules}
import fedlas, fedlas.losses, fedlas.metrics
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - set(sys.stdlib_module_names)))
print(*sorted({"accelerate", "rich", "scipy", "matplotlib", "sklearn", "torchvision", "torchmetrics"} & after))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["fedlas", ""]


def test_public_names_exist_and_are_sorted():
    for package in (fedlas, *(sys.modules[f"fedlas.{name}"] for name in ("losses", "features", "metrics", "calibrators")
                              if f"fedlas.{name}" in sys.modules)):  # fmt: skip
        assert len(set(package.__all__)) == len(package.__all__)
        for name in package.__all__:
            assert getattr(package, name, None) is not None, f"{package.__name__}.{name}"


def test_only_one_module_removes_files():
    """There what is removed is checked to lie where the caller says."""
    words = (".unlink(", "rmtree(", "os.remove(", "os.unlink(", "os.removedirs(")
    found = {str(path.relative_to(SOURCE)) for path in MODULES if any(word in path.read_text() for word in words)}
    assert found == {"_core/files.py"}
