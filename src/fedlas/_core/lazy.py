"""Lazy imports of the public names of a package."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
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


def alias_old_modules(package: str, homes: Mapping[str, Mapping[str, str]]) -> None:
    """Register modules under their old names, so that older pickles can be loaded.

    Args:
        package: Dotted name of the package.
        homes: By old module, its names as for :func:`lazy_getattr`; nothing else is in it.
    """
    for old, names in homes.items():
        module = ModuleType(f"{package}.{old}")
        vars(module)["__getattr__"] = lazy_getattr(package, names)
        sys.modules[module.__name__] = module
