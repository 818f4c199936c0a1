"""Imports of optional packages, with an error that names the extra to install."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

TELEMETRY = {
    "mlflow": ("MLFLOW_DISABLE_TELEMETRY", "true"),  # usage, to config.mlflow-telemetry.io
    "wandb": ("WANDB_ERROR_REPORTING", "false"),  # errors and usage, offline too
    "ray": ("RAY_USAGE_STATS_ENABLED", "0"),
    **dict.fromkeys(
        ("accelerate", "huggingface_hub", "timm", "trackio", "transformers"),
        ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ),
    # onnxruntime reports each model that it loads, from 1.29 on; the others import it.
    **dict.fromkeys(
        ("onnx", "onnxmltools", "onnxruntime", "onnxscript", "skl2onnx"),
        ("ORT_DISABLE_TELEMETRY", "1"),
    ),
}
"""By package: the environment variable that turns its usage reports off, and the value that does so."""


INSTALL_SOURCE = "."
"""What pip installs fedlas from: ``"."``, a checkout, until it is published, and ``"fedlas"`` from that day on.

Messages and the test of the pages (``tests/unit/core/test_extras.py``) read it; RELEASING.md says when it changes.
"""


class MissingExtraError(ImportError):
    """An optional package is needed but not installed; the message holds the command that installs it.

    Example:
        >>> try:
        ...     require("no_such_package", extra="tables")
        ... except MissingExtraError as error:
        ...     print(error)
        fedlas[tables]: this needs the package 'no_such_package'; it is not installed. Install it with: ...
    """


def require(package: str, *, extra: str) -> ModuleType:
    """Import an optional package and return it, with its telemetry turned off.

    Args:
        package: Dotted name of the module, e.g. ``"matplotlib.figure"``.
        extra: The extra of this project that installs it.

    Raises:
        MissingExtraError: If it is not installed; the message holds the command that installs it.

    State:
        Sets the package's variable of :data:`TELEMETRY` in ``os.environ`` unless the user has set it. Packages read it
        on import, so one that was imported before keeps its setting.

    Example:
        >>> require("math", extra="tables").sqrt(4)
        2.0
    """
    root = package.split(".")[0]
    if root in TELEMETRY:
        os.environ.setdefault(*TELEMETRY[root])
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        # A module missing *inside* the package is a broken installation of that package, not a missing extra.
        if error.name is None or error.name.split(".")[0] != root:
            raise
        raise MissingExtraError(
            f"fedlas[{extra}]: this needs the package {root!r}; it is not installed. Install it with: "
            f"{install_command(extra)}"
        ) from error


def require_all(*packages: tuple[str, str]) -> None:
    """Raise MissingExtraError if any of several optional packages is not installed.

    Args:
        *packages: Dotted name and extra of each.

    Raises:
        MissingExtraError: If some are not installed; the message names all of them, and one command.
    """
    missing: list[tuple[str, str]] = []
    for package, extra in packages:
        try:
            require(package, extra=extra)
        except MissingExtraError:
            missing.append((package.split(".")[0], extra))
    if missing:
        extras = ",".join(dict.fromkeys(extra for _, extra in missing))
        names = ", ".join(repr(name) for name, _ in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            f"fedlas[{extras}]: this needs {names}, which {verb} not installed. Install with: {install_command(extras)}"
        )


def install_command(extras: str) -> str:
    """Return the pip command that installs the extras, and where to run it if that is a checkout."""
    place = " (in a checkout of fedlas)" if INSTALL_SOURCE == "." else ""
    return f"pip install '{INSTALL_SOURCE}[{extras}]'{place}"
