"""Matlab files, the format of some older data sets."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

from fedlas._core.extras import require
from fedlas.lab.data.readers.unreadable import unreadable


def read_mat(owner: str, path: Path, names: tuple[str, ...], fix: str) -> list[Any]:
    """Variables of a Matlab file, without dimensions of length 1.

    Args:
        owner: Data set, named in errors.
        path: The file.
        names: Names of the variables.
        fix: What to do if the file is damaged.

    Raises:
        InputError: If the file cannot be read or lacks one of them.
    """
    scipy_io: Any = require("scipy.io", extra="data")
    try:
        # A damaged file can raise nearly anything in here.
        content = scipy_io.loadmat(path, squeeze_me=True, variable_names=names)
        return [content[name] for name in names]
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        OverflowError,
        NotImplementedError,  # scipy does not read Matlab 7.3
        struct.error,
        zlib.error,
        scipy_io.matlab.MatReadError,
    ) as error:
        raise unreadable(owner, f"{path.name} must be the published Matlab file", path, error, fix) from error
