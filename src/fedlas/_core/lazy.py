"""Lazy imports of the public names of a package."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_getattr(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module-level ``__getattr__`` that imports each public name of a package at its first use.

    Args:
        package: Dotted name of the package.
        homes: The public names of each module, separated by spaces. No name may be that of a module: Python puts an
            imported module in place of the name.
    """
    modules = {name: module for module, names in homes.items() for name in names.split()}

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"{package} has no {name!r}.")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return attribute
