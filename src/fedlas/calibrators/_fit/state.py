"""The numbers of a fitted map as plain values, and their one checked reading from a file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from fedlas._core.check import InputError
from fedlas._core.files import read_json

T = TypeVar("T")


def fitted(parameters: T | None) -> T:
    """Return ``parameters``, which are None before a fit.

    Raises:
        InputError: If they are None.
    """
    if parameters is None:
        raise InputError(
            "the calibrator must be fitted first", "an unfitted one", "Call fit(val) before."
        )
    return parameters


def must(condition: object, text: str) -> None:
    """Raise a ``ValueError`` with the text unless the condition is true; for the ``check`` of a map."""
    if not condition:
        raise ValueError(text)


zeros = partial(torch.zeros, dtype=torch.float64, device="cpu")
ones = partial(torch.ones, dtype=torch.float64, device="cpu")
doubles = partial(torch.tensor, dtype=torch.float64, device="cpu")
"""As those of torch: float64 on the CPU, whatever the defaults are; not every accelerator has float64."""


class Numbers(nn.Module):
    """A module whose state is buffers.

    Attributes:
        shapes: Class attribute: a letter for each dimension of each buffer, ``C`` for that of the classes.
    """

    shapes: ClassVar[dict[str, str]]
    if TYPE_CHECKING:  # every buffer, without naming each again

        def __getattr__(self, name: str) -> Tensor: ...

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__()
        if sorted(numbers) != sorted(self.shapes):
            raise TypeError(f"numbers must be {', '.join(self.shapes)}")
        for name in self.shapes:
            self.register_buffer(name, numbers[name])

    def check(self, classes: int) -> None:
        """Refuse buffers of other shapes."""
        sizes = {"C": classes}
        for name, letters in self.shapes.items():
            shape = getattr(self, name).shape
            pairs = zip(letters, shape, strict=False)
            fits = [sizes.setdefault(letter, size) == size for letter, size in pairs]
            must(len(shape) == len(letters) and all(fits), f"{name} has the shape {tuple(shape)}")


def numbers_of(row_map: nn.Module) -> dict[str, Any]:
    """Return the persistent buffers of a map as nested lists by name."""
    return {name: value.tolist() for name, value in row_map.state_dict().items()}


def load_map(
    kind: Any,
    state: Any,
    classes: int,
    features: int | None = None,
    parts: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Return the map of that kind that :func:`numbers_of` described.

    Args:
        kind: Its constructor takes the buffers by name, and modules by the names of the parts. Its method
            ``check(classes)``, if it has one, raises a ``ValueError`` for numbers that a fit cannot give.
        state: The plain values.
        classes: ``C`` of the logits it must map.
        features: ``D`` of the features that it must take too, or None.
        parts: Kinds of the parts; None: those of its attribute ``parts``.

    Raises:
        ValueError, TypeError: If they are not that, or the map does not map ``(n, C)`` to ``(n, C)``.
    """
    must(kind is not None and isinstance(state, dict), "the state must be that of a map")
    numbers = {name: read_array(state, name) for name in state}
    columns = [classes] if features is None else [classes, features]
    probe = [zeros(2, each) for each in columns]
    try:
        # Numbers are checked before it is called: hostile shapes could take gigabytes.
        row_map = _built(kind, numbers, classes, parts)
        must(row_map.state_dict().keys() == state.keys(), f"a map holds no {', '.join(state)}")
        with torch.no_grad():
            fits = row_map(*probe).shape == probe[0].shape
    except (RuntimeError, IndexError) as error:
        raise ValueError(str(error)) from error
    must(fits, "the buffers must make a map of the classes")
    return row_map


def _built(
    kind: Any, numbers: Mapping[str, Tensor], classes: int, parts: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return a module of these buffers, checked; those of a part have its name and a dot in front."""
    arguments: dict[str, Any] = {name: value for name, value in numbers.items() if "." not in name}
    for part, part_kind in (parts or getattr(kind, "parts", {})).items():
        inside = {
            name.removeprefix(f"{part}."): value
            for name, value in numbers.items()
            if name.startswith(f"{part}.")
        }
        if inside:
            arguments[part] = _built(part_kind, inside, classes)
    module: nn.Module = kind(**arguments)
    check = getattr(module, "check", None)
    if check is not None:
        check(classes)
    return module


def read_saved(path: str | Path, writer: str) -> Any:
    """Return the plain values of a file that the ``save`` of a class wrote."""
    try:
        return read_json(path)
    except FileNotFoundError as error:
        raise InputError("the file must exist", path, "Check the path.") from error
    except (OSError, ValueError) as error:
        expected = f"the file must be JSON written by {writer}.save"
        raise InputError(expected, f"{path} ({error})", "Save it again.") from error


def read_array(state: Mapping[str, Any], name: str) -> Tensor:
    """Return the tensor that ``state[name]`` lists: int64 of whole numbers, else float64.

    Raises:
        ValueError: If it is anything but nested lists of finite numbers.
    """
    try:
        numbers = torch.tensor(state[name], device="cpu")
        must(numbers.dtype != torch.bool, "a truth value")
        if numbers.dtype != torch.int64:
            numbers = doubles(state[name])
    except (TypeError, RuntimeError, OverflowError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error
    must(numbers.isfinite().all(), f"{name} must be finite numbers")
    return numbers
