"""Files that say what the columns of a table mean: TOML, or the JSON of a calibration of ``fedlas calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import parse_json, require_no_device, to_path

_FIX = 'Write lines such as probs = "p_*" and target = "y", or name a file of fedlas calibrate.'
_CALIBRATION = "fedlas.table/"
"""Beginning of the ``format`` of a file of ``fedlas calibrate``."""


def parse_columns_file(path: str | Path) -> dict[str, Any]:
    """Return the roles in a file, by name; neither names nor values are checked.

    Args:
        path: TOML, or a ``.json`` file of ``fedlas calibrate``.

    Raises:
        InputError: If it cannot be read, or is something else.
    """
    import tomllib

    try:
        text = require_no_device(to_path(path)).read_text(encoding="utf-8")
        if Path(path).suffix.lower() != ".json":
            return tomllib.loads(text)
        content = parse_json(text)
        if not str(content["format"]).startswith(_CALIBRATION):
            raise ValueError(f"its format is {content['format']!r}")
        return dict(content["columns"])
    except FileNotFoundError as error:
        raise InputError("the file of columns must exist", path, "Check the path.") from error
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            "the file of columns must be TOML, or JSON of fedlas calibrate",
            f"{path} ({type(error).__name__}: {error})",
            _FIX,
        ) from error
