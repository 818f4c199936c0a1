"""Base of modules that hold buffers alone, and factories of their tensors."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from fedlas.calibrators._fit.state import require_valid

zeros = partial(torch.zeros, dtype=torch.float64, device="cpu")
ones = partial(torch.ones, dtype=torch.float64, device="cpu")
float64_tensor = partial(torch.tensor, dtype=torch.float64, device="cpu")
"""Tensor factories for float64 on the CPU, independent of torch defaults; not every accelerator has float64."""


class BufferModule(nn.Module):
    """Base of modules whose whole state is buffers with declared shapes.

    Attributes:
        shapes: Class attribute: one letter per dimension of each buffer; ``C`` is the number of classes.
    """

    shapes: ClassVar[dict[str, str]]
    if TYPE_CHECKING:  # every buffer, without naming each again

        def __getattr__(self, name: str) -> Tensor: ...

    def __init__(self, **numbers: Tensor) -> None:
        super().__init__()
        if sorted(numbers) != sorted(self.shapes):
            raise TypeError(
                f"the buffers must be {', '.join(self.shapes)}; got {', '.join(numbers)}"
            )
        for name in self.shapes:
            self.register_buffer(name, numbers[name])

    def check(self, classes: int) -> None:
        """Raise ValueError for buffers of wrong shapes."""
        sizes = {"C": classes}
        for name, letters in self.shapes.items():
            shape = getattr(self, name).shape
            pairs = zip(letters, shape, strict=False)
            fits = [sizes.setdefault(letter, size) == size for letter, size in pairs]
            require_valid(
                len(shape) == len(letters) and all(fits), f"{name} has the shape {tuple(shape)}"
            )
