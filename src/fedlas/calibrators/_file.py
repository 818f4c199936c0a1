"""The file of a calibrator: JSON, whose outer fields are checked here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import read_json

FORMAT = "fedlas.calibrator/1"


def read_content(owner: str, path: Path) -> Any:
    """What is in the file.

    Raises:
        InputError: If it is missing, or is no JSON.
    """
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise InputError(owner, "the file must exist", path, "Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            owner, "the file must be JSON written by Calibrator.save", f"{path} ({error})", "Save it again."
        ) from error


def check_outside(owner: str, content: Any, source: object) -> None:
    """Refuse what lacks the outer fields of a calibrator.

    Raises:
        InputError: If it does.
    """
    kinds = {"calibrator": str, "num_classes": int, "options": dict, "state": dict}
    if (
        not isinstance(content, dict)
        or content.get("format") != FORMAT
        or not all(isinstance(content.get(name), kind) for name, kind in kinds.items())
        or content["num_classes"] < 1
    ):
        raise InputError(
            owner,
            f"the file must have format {FORMAT!r} with {', '.join(kinds)}",
            f"{source} without",
            "Write it with Calibrator.save of this version.",
        )
