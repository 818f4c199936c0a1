"""The public interface as text: every public name with its signature, read from the source without importing it.

``python tests/api.py`` writes it to ``tests/api.txt``; ``tests/unit/test_api.py`` compares the two.
"""

import ast
import copy
from pathlib import Path

import sources

SOURCE = Path(__file__).parents[1] / "src"
LISTED = Path(__file__).with_name("api.txt")


def path_of(name):
    """File of a dotted module name; None if there is no such module."""
    stem = SOURCE.joinpath(*name.split("."))
    return next(
        (path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None
    )


def tree_of(name):
    return sources.tree_of(path_of(name))


def public_modules():
    """Every package without a leading underscore, the facades, and each integration: a module for another package."""
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        is_package, parent = parts[-1] == "__init__", parts[:-1]
        if not any(part.startswith("_") for part in parent) and (
            is_package
            or (
                parent in {("fedlas",), ("fedlas", "integrations")}
                and not parts[-1].startswith("_")
            )
        ):
            yield ".".join(parent if is_package else parts)


def assignments(name):
    """``(target, node)`` of every assignment at the top of a module."""
    for node in tree_of(name).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield ast.unparse(target), node


def exported(name):
    """The names in ``__all__`` of a module; none without it."""
    found = dict(assignments(name)).get("__all__")
    return [] if found is None else sorted(ast.literal_eval(found.value))


def definition(module, name):
    """``(module, node)`` where a name is defined: imports within the package are followed. None if it is not ours."""
    nodes = tree_of(module).body
    for node in (
        *nodes,
        *(each for block in nodes if isinstance(block, ast.If) for each in block.body),
    ):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "fedlas":
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    inner = f"{node.module}.{alias.name}"
                    return (
                        (inner, tree_of(inner))
                        if path_of(inner)
                        else definition(node.module, alias.name)
                    )
    found = dict(assignments(module)).get(name)
    return None if found is None else (module, found)


TAKE_ARRAYS = {"METRICS.register", "accept_arrays", "event_measure", "measure_of_classes"}
"""Decorators by which a function of predictions takes two arrays, too."""


def with_target(node):
    """A copy of a function whose second parameter is ``target``."""
    node = copy.deepcopy(node)
    arguments = node.args
    arguments.args.insert(1, ast.arg("target", ast.Name("Any")))
    arguments.defaults.insert(0, ast.Constant(None))
    return node


def call_of(node, module):
    """``__call__`` of the protocol that a factory in the same module returns, without ``self``; None if it is none."""
    if not isinstance(node.value, ast.Call):
        return None
    factory = definition(module, ast.unparse(node.value.func))
    if factory is None or not getattr(factory[1], "returns", None):
        return None
    found = definition(factory[0], ast.unparse(factory[1].returns))
    for item in getattr(found[1], "body", ()) if found else ():
        if isinstance(item, ast.FunctionDef) and item.name == "__call__":
            item = copy.deepcopy(item)
            del item.args.args[0]
            return item
    return None


def signature(node):
    """``(arguments) -> result`` of a function, as written."""
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){result}"


def default_of(value):
    """The default of a field, as written; that of ``role(kind, text, default)``, None if it is left out."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "role":
        value = value.args[2] if len(value.args) > 2 else ast.Constant(None)
    return ast.unparse(value)


def described(name, node, module, public):
    """The lines for a name: its signature, and those of a class's public members, inherited from private ones too."""
    if isinstance(node, ast.Module):
        yield f"{name}: module"
    elif isinstance(node, ast.Assign) and (call := call_of(node, module)) is not None:
        yield f"{name}{signature(call)}"
    elif isinstance(node, ast.Assign):
        yield name
    elif isinstance(node, ast.AnnAssign):
        yield f"{name}: {ast.unparse(node.annotation)}" + (
            f" = {default_of(node.value)}" if node.value else ""
        )
    elif isinstance(node, ast.FunctionDef):
        kinds = {ast.unparse(kind) for kind in node.decorator_list}
        if any(kind.split("(")[0] in TAKE_ARRAYS for kind in kinds):
            node = with_target(node)
        kinds &= {"property", "cached_property", "classmethod", "staticmethod"}
        yield f"{name}{signature(node)}{''.join(f'  # {kind}' for kind in kinds)}"
    else:
        yield f"{name}({', '.join(map(ast.unparse, node.bases))})  # class"
        for own, (where, item) in members(node, module, public).items():
            yield from described(f"{name}.{own}", item, where, public)


def members(node, module, public):
    """``name: (module, node)`` of a class's public methods and annotated attributes."""
    found = {}
    for base in reversed(node.bases):
        above = definition(module, ast.unparse(base).split("[")[0])
        if above is not None and (above[0], above[1].name) not in public:
            found |= members(above[1], above[0], public)
    for item in node.body:
        named = item.target if isinstance(item, ast.AnnAssign) else item
        own = getattr(named, "name", getattr(named, "id", "_"))
        if own in {"__init__", "__call__"} or not own.startswith("_"):
            found[own] = module, item
    return found


def public_interface():
    """The whole text, one name a line."""
    places = {}  # (module, name) of each definition: the public names for it, the deepest first
    for module in sorted(public_modules(), key=lambda name: (-name.count("."), name)):
        for name in exported(module):
            found = definition(module, name)
            assert found is not None, f"{module}.__all__ names {name!r}, which is not defined there"
            places.setdefault((found[0], getattr(found[1], "name", name)), []).append(
                (f"{module}.{name}", found[1])
            )
    lines = []
    for (where, _), ((home, node), *others) in places.items():
        lines += described(home, node, where, places)
        lines += [f"{name} = {home}" for name, _ in others]
    return "\n".join(sorted(lines)) + "\n"


if __name__ == "__main__":
    LISTED.write_text(public_interface(), encoding="utf-8")
    print(f"{LISTED}: {len(public_interface().splitlines())} lines")
