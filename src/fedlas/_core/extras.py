"""Optional packages: imported where they are used, with an error that says which extra brings them."""

from __future__ import annotations

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """A package outside the core is needed and not installed."""


def require(package: str, *, extra: str) -> ModuleType:
    """Import and return ``package``.

    Args:
        package: Dotted name of the module, e.g. ``"matplotlib.figure"``.
        extra: The extra of this project that installs it.

    Raises:
        MissingExtraError: If it is not installed; the message holds the command that installs it.

    Example:
        >>> require("math", extra="plots").sqrt(4)
        2.0
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        # A module missing *inside* the package is a broken installation of that package, not a missing extra.
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise
        root = package.split(".")[0]
        raise MissingExtraError(
            f"fedlas[{extra}]: this needs the package {root!r}; it is not installed. "
            f"Install it with: pip install 'fedlas[{extra}]'"
        ) from error
