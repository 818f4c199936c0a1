"""Conversion of fitted maps to lists of numbers, and their validated loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from fedlas._core.check import InputError
from fedlas._core.files import read_json

if TYPE_CHECKING:
    from torch import Tensor, nn

T = TypeVar("T")


def require_fitted(parameters: T | None) -> T:
    """Return ``parameters``; raise InputError if they are None, before a fit.

    Raises:
        InputError: If they are None.
    """
    if parameters is None:
        raise InputError(
            "the calibrator must be fitted first", "an unfitted calibrator", "Call fit(val)."
        )
    return parameters


def require_valid(condition: object, text: str) -> None:
    """Raise ValueError with the given text unless the condition is true."""
    if not condition:
        raise ValueError(text)


def buffers_to_dict(row_map: nn.Module) -> dict[str, Any]:
    """Return the persistent buffers of a map as nested lists, by name."""
    return {name: value.tolist() for name, value in row_map.state_dict().items()}


def load_map(
    map_type: Any,
    state: Any,
    classes: int,
    features: int | None = None,
    part_types: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the map of the given type whose buffers were written by :func:`buffers_to_dict`.

    Args:
        map_type: Type of the map. Its constructor takes buffers, and submodules by the names of ``part_types``. Its
            method ``check(classes)``, if it has one, raises a ``ValueError`` for numbers that a fit cannot give.
        state: Nested lists by name.
        classes: ``C`` of the logits.
        features: ``D`` of the features that the map takes, or None.
        part_types: Types of the submodules by name; None: the attribute ``part_types`` of ``map_type``.

    Raises:
        ValueError, TypeError: If the state is invalid, or the map does not map ``(n, C)`` to ``(n, C)``.
    """
    import torch

    require_valid(
        map_type is not None and isinstance(state, dict), "state must map names to numbers"
    )
    numbers = {name: read_array(state, name) for name in state}
    widths = [classes] if features is None else [classes, features]
    probe = [torch.zeros(2, each, dtype=torch.float64, device="cpu") for each in widths]
    try:
        # Buffers are checked before the map is called: shapes in an untrusted file could take gigabytes.
        row_map = _build_module(map_type, numbers, classes, part_types)
        require_valid(
            row_map.state_dict().keys() == state.keys(),
            f"unknown names in the state: {', '.join(state)}",
        )
        with torch.no_grad():
            fits = row_map(*probe).shape == probe[0].shape
    except (RuntimeError, IndexError) as error:
        raise ValueError(str(error)) from error
    require_valid(fits, "the map must return one column per class")
    return row_map


def _build_module(
    module_type: Any,
    numbers: Mapping[str, Tensor],
    classes: int,
    part_types: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return a checked module of the given buffers; buffers of a submodule have its name and a dot as prefix."""
    arguments: dict[str, Any] = {name: value for name, value in numbers.items() if "." not in name}
    for part, part_kind in (part_types or getattr(module_type, "parts", {})).items():
        part_numbers = {
            name.removeprefix(f"{part}."): value
            for name, value in numbers.items()
            if name.startswith(f"{part}.")
        }
        if part_numbers:
            arguments[part] = _build_module(part_kind, part_numbers, classes)
    module: nn.Module = module_type(**arguments)
    check = getattr(module, "check", None)
    if check is not None:
        check(classes)
    return module


def read_saved_json(path: str | Path, writer: str) -> Any:
    """Return the content of a JSON file that the ``save`` method of ``writer`` wrote."""
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise InputError(
            f"the file of {writer}.save must exist", path, "Check the path."
        ) from error
    except (OSError, ValueError) as error:
        expected = f"the file must be JSON written by {writer}.save"
        raise InputError(
            expected, f"{path} ({error})", f"Write the file with {writer}.save."
        ) from error


def read_array(state: Mapping[str, Any], name: str) -> Tensor:
    """Return ``state[name]`` as a tensor: int64 if all numbers are whole, else float64.

    Raises:
        ValueError: If it is anything but nested lists of finite numbers.
    """
    import torch

    try:
        numbers = torch.tensor(state[name], device="cpu")
        require_valid(numbers.dtype != torch.bool, "must be numbers, not booleans")
        if numbers.dtype != torch.int64:
            numbers = torch.tensor(state[name], dtype=torch.float64, device="cpu")
    except (TypeError, RuntimeError, OverflowError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    require_valid(numbers.isfinite().all(), f"{name} must be finite numbers")
    return numbers
