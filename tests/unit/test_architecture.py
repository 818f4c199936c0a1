"""Who may import whom, what `import fedlas` costs, and the size of the rooms."""

import ast
import functools
import graphlib
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import fedlas
from fedlas.cli import parsers
from sources import GAUGES, nodes_of, text_of, tree_of

SOURCE = Path(fedlas.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
LAYERS = [  # each may import only from later lines, and itself; docs/architecture.md shows them
    {"cli"},
    {"lab.tune"},
    {"lab.benches"},
    {"lab.report"},
    {"lab.results"},
    {"lab.studies"},
    {"lab.runs"},
    {"lab.recipes"},
    {"lab.train"},
    {"lab.models"},
    {"lab.data"},
    {"present"},
    {"integrations"},
    {"deploy"},
    {"calibrated.tables"},
    {"predictions.language"},
    {"predictions.tables"},
    {"zoo", "calibrated"},
    {"objective", "calibrators", "diagnose", "plots"},
    {"binary"},
    {"stats"},
    {"losses", "metrics", "features"},
    {"resample"},
    {"predictions"},
    {"_core"},
]
# they pass on names of packages, as the package itself does
FACADES = {"__main__", "checks", "errors"}
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LOOKUPS = {
    ("fedlas.predictions", "predictions.tables"),  # its public names
    ("fedlas.predictions", "predictions.language"),
    ("fedlas.predictions.predictions", "predictions.tables"),  # from_frame
    ("fedlas.predictions.tables.table", "predictions.language"),  # confidences in text
    ("fedlas.predictions.tables.read", "predictions.language"),  # logs of lm-evaluation-harness
    ("fedlas.calibrated", "calibrated.tables"),  # its public names
    ("fedlas.calibrated.fit_model", "calibrated.tables"),  # calibrate, given a table
    ("fedlas.calibrated.fit_model", "predictions.tables"),
}
"""Modules that may look up a higher room, at first use."""
EVERYWHERE = {"torch", "numpy"} | set(sys.stdlib_module_names)
MOST_SHARE = 0.12
MOST_LINES = 500  # the longest today; beyond 300 a file may hold two thoughts


def offenders(check):
    """Every module that breaks a rule, with what ``check(path)`` finds wrong about it."""
    return [f"{path.relative_to(SOURCE)}: {fault}" for path in MODULES for fault in check(path)]


def name_of(path):
    """Dotted name of a module."""
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def room_of(name):
    """The package of a dotted name, one within another as ``lab.data``; None for the facades."""
    parts = name.split(".")[1:]
    if ".".join(parts[:2]) in LEVEL:
        return ".".join(parts[:2])
    if parts[:1] == ["lab"]:
        return ".".join(parts[:2]) if len(parts) > 1 else None
    return None if not parts or parts[0] in FACADES else parts[0]


def room(path):
    return room_of(name_of(path))


def code_lines(path):
    """How many lines are neither blank, nor comment, nor docstring."""
    return len(GAUGES["code_lines"](path))


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
            elif not at_import_time or isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
            ):
                continue
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit(node.orelse)
            elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
                # no expression holds an import
                yield from visit(ast.iter_child_nodes(node))

    yield from visit(tree_of(path).body if at_import_time else nodes_of(path)[1:])


@functools.cache
def names_in(path):
    """``(module, name)`` of every import; the name is empty for ``import module``."""
    names = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.module, alias.name) for alias in node.names]
    return names


HOMES = {
    (package, name): module
    for package in ("fedlas.predictions", "fedlas.calibrated")
    for module, name in names_in(NAMES[package])
}
"""Where a public name of a package with inner rooms is, so that its import is one from that room."""


def test_there_is_something_to_check():
    assert len(MODULES) > 30
    assert "torch" in set(imports(SOURCE / "objective" / "objective.py", at_import_time=True))


def test_every_room_has_its_line():
    assert {room(path) for path in MODULES} - {None} <= LEVEL.keys(), (
        "add the new room to docs/architecture.md"
    )


def test_imports_point_downwards():
    """Imports for type checking and inside functions count too: they are dependencies all the same."""

    def upward(path):
        here = room(path)
        public = {HOMES.get(pair, "") for pair in names_in(path)}
        for name in (*imports(path, at_import_time=False), *public) if here else ():
            there = room_of(name) if name.startswith("fedlas") else None
            # what the facade exports reaches that high
            if name == "fedlas" and LEVEL[here] >= LEVEL["objective"]:
                yield "import the package itself, not the facade"
            elif name in {"fedlas.checks", "fedlas.errors"}:
                yield f"import fedlas._core, not {name}"
            elif (
                there
                and LEVEL.get(there, -1) <= LEVEL[here]
                and there != here
                and (name_of(path), there) not in LOOKUPS
            ):
                yield f"{here} imports {name}"

    assert offenders(upward) == []


def test_lookups_of_higher_rooms_are_at_first_use():
    for module, there in LOOKUPS:
        now, ever = (
            {room_of(name) for name in imports(NAMES[module], at_import_time=only)}
            for only in (True, False)
        )
        assert there in ever, f"{module} looks up {there} no more: take it off the list"
        assert there not in now, f"{module} imports {there} when it is imported"


def test_the_rule_is_the_documented_one():
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    shown = [re.split(r" {2,}", line)[0] for line in page.split("```")[1].strip().splitlines()]
    assert [set(rooms.split(" · ")) for rooms in shown if rooms and not rooms.isupper()] == LAYERS


def test_no_two_modules_import_each_other():
    """Nor any longer circle: a module can be understood, moved and tested without those that use it."""
    graph = {}
    for name, path in NAMES.items():
        found = {
            f"{module}.{item}" if f"{module}.{item}" in NAMES else module
            for module, item in names_in(path)
        }
        # A package's __init__ gathers what is below it, and importing from a package is importing that.
        graph[name] = {
            other
            for other in found & NAMES.keys()
            if other != name
            and not name.startswith(f"{other}.")
            and (name, room_of(other)) not in LOOKUPS
        }
    sorter = graphlib.TopologicalSorter(graph)
    sorter.prepare()  # raises CycleError, with the circle


def test_a_class_name_is_used_once():
    """A search for it then has one answer."""
    homes = defaultdict(list)
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(name_of(path))
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}


def test_optional_packages_are_imported_where_they_are_used():
    def imported_too_soon(path):
        found = (
            {name.split(".")[0] for name in imports(path, at_import_time=True)}
            - EVERYWHERE
            - {"fedlas"}
        )
        # a module there is named after its package, and imported by who uses both
        if room(path) == "integrations":
            found -= {path.stem}
        return sorted(found)

    assert offenders(imported_too_soon) == [], (
        "import it inside the function, through fedlas._core.extras.require"
    )


def test_one_module_alone_writes_to_the_terminal():
    """All others go through it, so that no name from a file can hold a command for the terminal."""
    allowed = {SOURCE / "_core" / "terminal.py", SOURCE / "cli" / "main.py"}

    def written(path):
        for node in nodes_of(path) if path not in allowed else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                what = node.func.id
                first = (
                    node.args[0].value
                    if node.args and isinstance(node.args[0], ast.Constant)
                    else ""
                )
                if what == "print" or (what == "require" and str(first).startswith("rich")):
                    yield f"line {node.lineno}: {what}({first})"

    assert offenders(written) == [], "fedlas._core.terminal has it"


def test_one_function_builds_comments():
    """What follows a line break of a name would be run, or read, as a line of its own."""
    begins = re.compile(r"\s*(#+!?|--|//|%|<!--|/\*)\s")
    # headings in Markdown, and what a notebook shows of an object
    allowed = {"lab/report/report.py", "calibrated/model.py", "calibrators/temperature.py"}

    def built(path):
        nodes = () if str(path.relative_to(SOURCE)) in allowed else nodes_of(path)
        for node in nodes:
            first = None
            if isinstance(node, ast.JoinedStr):
                first = node.values[0]
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                first = node.left
            text = getattr(first, "value", None)
            if isinstance(text, str) and begins.match(text):
                yield f"line {node.lineno}: {text}"

    assert offenders(built) == [], "comment_line of fedlas._core.text has it"


def test_files_are_small():
    long = offenders(lambda path: [n for n in [len(text_of(path).splitlines())] if n > MOST_LINES])
    assert long == [], "move one of its thoughts into a file of its own"


def test_every_room_has_a_folder_of_tests():
    """CONTRIBUTING.md names it: ``tests/unit/ROOM``."""
    rooms = {room(path) for path in MODULES} - {None}
    folders = {
        f"tests/unit/{(name.split('.')[0] if name.startswith('lab.') else name.replace('.', '/')).lstrip('_')}"
        for name in rooms
    }
    assert [name for name in sorted(folders) if not (SOURCE.parents[1] / name).is_dir()] == []


MOST_FUNCTION_LINES = (
    70  # without docstring and comments; a call of long names has an argument a line
)


def functions():
    """``(place, node, path)`` of every function."""
    for path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE).as_posix()}:{node.name}", node, path


def test_functions_are_short():
    long, lines_of = {}, functools.cache(lambda path: text_of(path).splitlines())
    for place, node, path in functions():
        body = node.body[bool(ast.get_docstring(node)) :]
        lines = lines_of(path)[body[0].lineno - 1 : node.end_lineno] if body else []
        count = sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines)
        if count > MOST_FUNCTION_LINES:
            long[place] = count
    assert long == {}, "give a part of it a name"


VAGUE = {
    "asked", "drawn", "found", "given", "heard", "held", "kept", "known", "left", "made", "own", "said", "seen",
    "taken", "told", "wanted",
}  # fmt: skip


def test_local_names_say_what_they_hold():
    def is_vague(node):
        return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in VAGUE

    files_with_vague_names = {path for path in MODULES if any(map(is_vague, nodes_of(path)))}
    vague = {
        f"{place}: {name.id}"
        for place, node, path in functions()
        if path in files_with_vague_names
        for name in ast.walk(node)
        if is_vague(name)
    }
    assert not vague, "a name of VAGUE does not say what it holds"


def test_packages_are_small():
    """By lines that hold code: neither blank, nor comment, nor docstring."""
    lines = Counter()
    for path in MODULES:
        lines[room(path)] += code_lines(path)
    total = sum(lines.values())
    assert {name: n / total for name, n in lines.items() if n > MOST_SHARE * total} == {}


BOUNDS = {
    "_core": 12_860,
    "binary": 21_090,
    "calibrated": 5_450,
    "calibrated.tables": 8_180,
    "calibrators": 43_400,
    "cli of files": 17_400,
    "cli of runs": 7_290,
    "deploy": 25_990,
    "diagnose": 3_990,
    "features": 2_370,
    "integrations": 12_200,
    "lab": 79_200,
    "losses": 21_300,
    "metrics": 15_510,
    "objective": 7_600,
    "plots": 10_940,
    "predictions": 11_310,
    "predictions.language": 9_070,
    "predictions.tables": 27_240,
    "present": 31_900,
    "resample": 2_650,
    "stats": 29_310,
    "the package itself": 940,
    "zoo": 14_500,
}
"""Nodes of the syntax tree of each room: its size when it was last set, and 3 % or 600 nodes for a contribution."""
MOST_FILES, MOST_CHARACTERS, MOST_TUPLES = 531, 42, 6  # characters a code line, tuples in 1,000


def test_the_package_stays_within_its_gauges():
    """``python tools/gauges.py`` shows them. A room that needs more says why in the commit that raises its bound."""
    gauges = GAUGES["measure"](SOURCE)
    assert gauges.nodes.keys() <= BOUNDS.keys(), "a new room needs a bound"
    over = {name: n - BOUNDS[name] for name, n in gauges.nodes.items() if n > BOUNDS[name]}
    assert not over, (
        f"nodes over the bound of their room: {over}. Set BOUNDS to the size that `python tools/gauges.py` shows and "
        "3 %, at least 600 nodes, and say in the commit what needs it"
    )
    assert sum(gauges.files.values()) <= MOST_FILES, "set MOST_FILES to their number and 3 %"
    assert gauges.characters <= MOST_CHARACTERS
    assert gauges.tuples <= MOST_TUPLES


REACH = {
    "import fedlas; fedlas.Predictions": 13_300,
    "from fedlas.metrics import ece": 20_900,
    "from fedlas.losses import FedLAS": 24_800,
    "import fedlas; fedlas.Objective": 24_400,
    "from fedlas.calibrators import AutoCalibration": 56_200,
    "import fedlas; fedlas.calibrate": 72_800,
}
"""Nodes of the modules that an import loads, which no bound of a room limits."""


@pytest.mark.system
def test_imports_load_little_else():
    """In a fresh process. Two tensors need no reader of tables; 5 % are for a contribution."""
    program = """
import sys
for statement in sys.argv[1:]:
    for name in [name for name in sys.modules if name.split(".")[0] == "fedlas"]:
        del sys.modules[name]
    exec(statement, {})
    print(*sorted(name for name in sys.modules if name.split(".")[0] == "fedlas"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *REACH], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reached = {
        statement: sum(GAUGES["count_nodes"](NAMES[name]) for name in line.split() if name in NAMES)
        for statement, line in zip(REACH, done.stdout.splitlines(), strict=True)
    }
    assert {name: n for name, n in reached.items() if n > 1.05 * REACH[name]} == {}, (
        "import it at its first use, or move what is needed of it to a lower room"
    )


MOST_FILES_OF_PRIVATE_NAMES = 117
"""Five of them are of ``present``, whose tables and pages have no public names; one called a command line before."""


def test_few_test_files_import_private_names():
    """Each name that a test imports cannot move or change without it; CONTRIBUTING.md says which are public."""
    private = {path: names for path, names in GAUGES["private_names_of_tests"]().items() if names}
    assert len(private) <= MOST_FILES_OF_PRIVATE_NAMES, (
        "import public names in your test; " + "\n".join(map(str, private.items()))
    )


@pytest.mark.parametrize(
    "command", ["evaluate", "compare", "card", "export", "monitor", "listing", "main"]
)
def test_commands_of_files_never_import_the_laboratory(command):
    """A run folder is resolved by ``cli.arguments.import_from_lab``, which imports it for that folder alone."""
    seen, todo = set(), [f"fedlas.cli.{command}"]
    while todo:
        name = todo.pop()
        if name not in seen and name in NAMES:
            seen.add(name)
            for module, item in names_in(NAMES[name]):
                inner = f"{module}.{item}"
                todo.append(inner if inner in NAMES else module)
    assert len(seen) > 3
    assert not [name for name in seen if name.startswith("fedlas.lab")]


def test_no_other_room_names_a_format_of_tables():
    """Between a file and a fit stand ``ScoreTable`` and ``Predictions``: no other room knows who holds cells."""
    inner = {"predictions.tables", "predictions.language"}
    formats = {
        node.name
        for path in (SOURCE / "predictions").rglob("*.py")
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef)
        and {ast.unparse(base) for base in node.bases} & {"Format", "ArrowFile", "Frame", "Writer"}
    }
    assert {"Parquet", "Frame", "SampleLog", "ArchiveWriter"} <= formats

    formats |= {"TableChunk", "Labels"}

    def named(path):
        may = room(path) in inner or (name_of(path), "predictions.tables") in LOOKUPS
        return () if may else formats & {name for _, name in names_in(path)}

    assert offenders(named) == []


def test_no_rooms_for_leftovers():
    leftovers = {"utils", "util", "common", "helpers", "misc"}
    assert (
        offenders(lambda path: leftovers & {part.removesuffix(".py") for part in path.parts}) == []
    )


def test_everything_public_is_documented():
    def undocumented(nodes, prefix=""):
        for node in nodes:
            if (
                isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name[0] != "_"
            ):
                if not ast.get_docstring(node) and "overload" not in map(
                    ast.unparse, node.decorator_list
                ):
                    yield prefix + node.name
                if isinstance(node, ast.ClassDef):
                    yield from undocumented(node.body, f"{prefix}{node.name}.")

    def of_module(path):
        if not ast.get_docstring(tree_of(path)):
            yield "the module"
        yield from undocumented(tree_of(path).body)

    assert offenders(of_module) == []


def test_no_name_and_no_class_of_a_loss_decides_anything():
    """A new loss is one new file: nothing outside ``losses`` may ask which one it has."""
    from fedlas.losses import LOSSES

    names, classes = set(LOSSES), {entry.value.__name__ for entry in LOSSES.entries()}

    def asks(path):
        if room(path) == "losses":
            return
        for node in nodes_of(path):
            if isinstance(node, ast.Compare):
                compared = {getattr(part, "value", None) for part in (node.left, *node.comparators)}
                if any(isinstance(value, str) and value in names for value in compared):
                    yield ast.unparse(node)
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "isinstance"
                and classes & {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            ):
                yield ast.unparse(node)

    assert offenders(asks) == []


@pytest.mark.system
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
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["fedlas", ""]


@pytest.mark.system
def test_everything_public_is_there_at_first_use():
    """In a fresh process: ``import fedlas`` brings neither torch nor numpy, nor does ``fedlas --help``."""
    program = """
import sys, fedlas
from contextlib import suppress
from fedlas.cli import main
with suppress(SystemExit):
    main(["--help"])
print("loaded", *sorted({"torch", "numpy", "rich"} & set(sys.modules)))
print("wrong", *[name for name in dir(fedlas) if getattr(fedlas, name, None) is None])
print("missing", *sorted(set(fedlas.__all__) - set(dir(fedlas))))
optional = {"accelerate", "rich", "scipy", "matplotlib", "sklearn", "torchvision", "torchmetrics", "transformers"}
print("optional", *sorted(optional & set(sys.modules)))
print(fedlas.calibrators.TemperatureScaling())
try:
    fedlas.calibrator
except AttributeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *shown, loaded, wrong, missing, optional, calibrator, error = done.stdout.splitlines()
    assert any("evaluate" in line for line in shown)
    assert [loaded, wrong, missing, optional] == ["loaded", "wrong", "missing", "optional"]
    assert calibrator.startswith("TemperatureScaling(")
    assert error == "fedlas has no 'calibrator'. Did you mean 'calibrators'?"


@pytest.mark.system
def test_no_help_imports_torch():
    """In a fresh process: the help of every subcommand is shown in the time of a shell's command."""
    program = """
import sys
from contextlib import suppress
from fedlas.cli import main, parsers
for name in parsers()[1]:
    with suppress(SystemExit):
        main([name, "--help"])
    print("after", name, *sorted({"torch", "numpy", "rich"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "show this help message" in done.stdout
    after = [line for line in done.stdout.splitlines() if line.startswith("after ")]
    assert after == [f"after {name}" for name in parsers()[1]]


def test_the_package_offers_every_public_room():
    public = {
        name.split(".")[1]
        for name in NAMES
        if name.count(".") == 1 and name.split(".")[1][0] != "_"
    }
    # their names are at the top level
    private = {"calibrated", "cli", "lab", "objective", "predictions", "present", "resample"}
    assert public - private == set(dir(fedlas)) - set(fedlas.__all__) | {"checks", "errors"}


def test_only_one_module_removes_files():
    """There what is removed is checked to lie where the caller says."""
    words = (".unlink(", "rmtree(", "os.remove(", "os.unlink(", "os.removedirs(")
    found = {
        str(path.relative_to(SOURCE))
        for path in MODULES
        if any(word in text_of(path) for word in words)
    }
    assert found == {"_core/files.py"}


def test_the_map_names_files_that_exist():
    root = SOURCE.parents[1]
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)*\w+\.py)`", text)
    files = [f"/{path.as_posix()}" for path in root.glob("[!.]*/**/*.py")]
    assert named
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []
