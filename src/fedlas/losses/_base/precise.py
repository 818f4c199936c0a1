"""Buffers that keep their precision when their module is converted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

from torch import nn


class PreciseBuffers(nn.Module):
    """A module whose buffers in ``precise`` keep their dtype through ``.half()``, ``.bfloat16()`` and ``.double()``.

    An average or a count in half precision would stop moving. The buffers still follow the module to other devices.
    """

    precise: ClassVar[tuple[str, ...]] = ()
    """Names of those buffers; one may be None."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        before = {name: buffer for name in self.precise if (buffer := getattr(self, name)) is not None}
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            converted = getattr(self, name)
            if converted.dtype != buffer.dtype:
                setattr(self, name, buffer.to(converted.device))
        return self
