"""Public names of a package that are imported at their first use."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def at_first_use(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package, so that importing one of its modules does not import all.

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
