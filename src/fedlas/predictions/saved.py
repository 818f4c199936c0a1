"""Predictions as files: an ``.npz`` with an array for each field that is there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fedlas._core.files import write_atomically
from fedlas.predictions.covariates import Covariates, covariates_of
from fedlas.predictions.tables.npz import load_arrays


def write_fields(path: str | Path, fields: Mapping[str, Any]) -> Path:
    """Write ``path`` (``.npz``) atomically and return it: a reader never sees half a file.

    Raises:
        InputError: If the folder cannot be written to.
    """
    arrays: dict[str, Any] = {name: _array(value) for name, value in fields.items()}
    return write_atomically(path, lambda file: np.savez(file, **arrays))


def read_fields(
    path: str | Path, names: Sequence[str], needed: Collection[str], fix: str
) -> dict[str, Any]:
    """Return the fields of a file that have one of ``names``.

    Raises:
        InputError: If the file is missing or damaged, or lacks one that is ``needed``.
    """
    fields: dict[str, Any] = load_arrays(path, names, needed, fix)
    if "covariates" in fields:
        fields["covariates"] = covariates_of(fields["covariates"], path)
    return fields


def _array(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu().numpy()
    return np.asarray(json.dumps(value.plain()) if isinstance(value, Covariates) else value)
