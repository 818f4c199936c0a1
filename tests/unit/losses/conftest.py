"""Fixture of the loss tests: the size of the largest tensor."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns, backward included."""

    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def __enter__(self):
        super().__enter__()
        return self.seen

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor):
                self.seen.numel = max(
                    self.seen.numel, each.untyped_storage().nbytes() // each.element_size()
                )
        return out


@pytest.fixture
def largest_tensor():
    """``with largest_tensor() as seen``: afterward ``seen.numel`` is the size of the largest tensor made."""
    return lambda: _LargestTensor(SimpleNamespace(numel=0))
