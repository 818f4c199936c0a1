"""Which bin a number lies in, in operations that every exporter knows (``searchsorted`` is not among those of ONNX)."""

from __future__ import annotations

import torch
from torch import Tensor


def padded_edges(edges: Tensor) -> Tensor:
    """Ascending edges ``(B, C)`` as ``(2^k - 1, C)``, filled up with infinity, as :func:`edges_below` takes them."""
    count = 2 ** len(edges).bit_length() - 1
    return torch.cat([edges, edges.new_full((count - len(edges), edges.shape[1]), torch.inf)])


def edges_below(edges: Tensor, values: Tensor) -> Tensor:
    """How many edges of its column lie below each value, int64 ``(n, C)``: a binary search.

    Args:
        edges: What :func:`padded_edges` returned.
        values: ``(n, C)``.

    Example:
        >>> edges = padded_edges(torch.tensor([[0.2], [0.5]]))
        >>> edges_below(edges, torch.tensor([[0.1], [0.2], [0.3], [0.9]])).flatten().tolist()
        [0, 0, 1, 2]
    """
    found = torch.zeros_like(values, dtype=torch.int64)
    step = (len(edges) + 1) // 2
    while step:
        found = found + step * (edges.gather(0, found + (step - 1)) < values).to(torch.int64)
        step //= 2
    return found
