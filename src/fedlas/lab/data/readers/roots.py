"""Path of a data set's files."""

from __future__ import annotations

import os
from pathlib import Path

from fedlas._core.check import InputError

ENVIRONMENT = "FEDLAS_DATA"


def data_folder(root: str | None) -> Path | None:
    """``root`` if given, else ``$FEDLAS_DATA`` if set and not empty, else None; ``~`` is expanded."""
    place = root if root is not None else os.environ.get(ENVIRONMENT)
    return Path(place).expanduser() if place else None


def required_root(owner: str, root: str | None, what: str) -> Path:
    """``root`` as a path that exists.

    Args:
        owner: Data set, named in errors.
        root: Path from the user.
        what: What the path must lead to, e.g. ``"an .npz file"``.

    Raises:
        InputError: If ``root`` is None or does not exist.
    """
    if root is None:
        raise InputError(
            owner,
            f"root must be the path of {what}",
            "no root",
            f"Pass root=PATH of {what} (--data PATH on the command line).",
        )
    path = Path(root).expanduser()
    try:
        problem = "" if path.exists() else ", which does not exist"
    except OSError as error:  # a folder on the way cannot be entered
        problem = f" ({error.strerror})"
    if problem:
        raise InputError(owner, f"root must be the path of {what}", f"{path}{problem}", "Check the path.")
    return path
