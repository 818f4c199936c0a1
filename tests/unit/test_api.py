"""The public interface changes on purpose only."""

import ast
import difflib
import importlib

import pytest

from api import LISTED, exported, path_of, public_interface, public_modules
from sources import tree_of


def test_the_public_interface_is_the_listed_one():
    listed, now = LISTED.read_text(encoding="utf-8").splitlines(), public_interface().splitlines()
    changed = list(difflib.unified_diff(listed, now, "listed", "now", n=0, lineterm=""))
    assert not changed, "\n".join(
        ["run 'make api' if this is meant, and say it in CHANGELOG.md:", *changed]
    )


@pytest.mark.parametrize(
    "module", [name for name in public_modules() if not name.startswith("fedlas.integrations.")]
)
def test_exported_names_exist_once(module):
    """Those of the integrations, which import other libraries, are checked with them."""
    names = exported(module)
    assert len(set(names)) == len(names)
    loaded = importlib.import_module(module)
    assert [name for name in names if getattr(loaded, name, None) is None] == []
    assert set(names) == set(getattr(loaded, "__all__", ()))


def test_no_name_of_first_use_is_that_of_a_module():
    """Python puts an imported module in place of the name, which would then be a function or the module, by chance."""
    lazy = [
        name
        for name in public_modules()
        if "lazy_getattr(" in path_of(name).read_text(encoding="utf-8")
    ]
    assert {"fedlas.lab.runs", "fedlas.predictions"} <= set(lazy)
    at_once = {
        f"{room}.{each.name}"
        for room in lazy
        for node in tree_of(path_of(room)).body
        if isinstance(node, ast.ImportFrom)
        for each in node.names
    }
    assert [
        f"{room}.{name}"
        for room in lazy
        for name in exported(room)
        if path_of(f"{room}.{name}") and f"{room}.{name}" not in at_once
    ] == []
