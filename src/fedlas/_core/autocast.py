"""Context manager that disables autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# Asked once: to ask inside torch.compile breaks the graph up to PyTorch 2.6.
_WITH_AUTOCAST = frozenset(
    kind for kind in ("cpu", "cuda", "mps", "xpu", "hpu") if torch.amp.is_autocast_available(kind)
)


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Return a context manager that disables autocast on a device type such as ``"cuda"``."""
    if device in _WITH_AUTOCAST and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()
