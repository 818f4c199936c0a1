"""Files of predictions: an ``.npz`` with one array per field."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.arrays import ArrayArchive, open_arrays, write_arrays
from fedlas._core.check import InputError, is_tensor
from fedlas._core.files import to_path


def write_fields(
    path: str | Path, fields: Mapping[str, Any], names: Collection[str], noun: str
) -> Path:
    """Write fields to ``path`` (``.npz``) atomically and return ``path``.

    Args:
        path: The file.
        fields: Those that are there, the first in every file of its kind.
        names: All that a file of this kind may have: others are somebody else's, and are not replaced.
        noun: Name of such a file, with its article.

    Raises:
        InputError: If another file is there, or the folder cannot be written to.
    """
    arrays = {name: _to_array(value) for name, value in fields.items()}
    first = next(iter(fields))
    return write_arrays(path, arrays, noun, lambda found: first in found and {*found} <= {*names})


def read_fields(
    path: str | Path, names: Sequence[str], needed: Collection[str], fix: str
) -> dict[str, Any]:
    """Return the fields of a file whose names are in ``names``.

    Raises:
        InputError: If the file is missing or damaged, or lacks one that is ``needed``.
    """
    fields: dict[str, Any] = load_arrays(path, names, needed, fix)
    if "covariates" in fields:
        from fedlas.predictions.covariates import covariates_from_json

        fields["covariates"] = covariates_from_json(fields["covariates"], path)
    return fields


@contextmanager
def open_archive(path: Path) -> Iterator[ArrayArchive]:
    """Open an ``.npz`` of predictions for reading.

    Raises:
        InputError: If it is missing, is no archive of plain arrays, or is damaged; also for reading in the block.
    """
    try:
        with open_arrays(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise InputError("the file must exist", path, "Check the path.") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            "the file must be an .npz of plain arrays",
            f"{path} ({error})",
            "Write it with Predictions.save or numpy.savez; pickled objects are refused for safety.",
        ) from error


def load_arrays(
    path: str | Path, names: Sequence[str], needed: Collection[str], fix: str
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an ``.npz`` whose names are in ``names``.

    Raises:
        InputError: As :func:`open_archive`, or if one that is ``needed`` is not there.
    """
    with open_archive(to_path(path)) as archive:
        if not {*needed} <= {*archive.names}:
            raise InputError(
                f"the file must have arrays named {' and '.join(map(repr, needed))}",
                f"{path} with arrays {sorted(archive.names)}",
                fix,
            )
        return {name: archive[name] for name in names if name in archive}


def _to_array(value: object) -> Any:

    if is_tensor(value):
        return value.cpu().numpy()
    return np.asarray(json.dumps(value.to_dict()) if hasattr(value, "to_dict") else value)
