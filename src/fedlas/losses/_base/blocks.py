"""Functions of all pairs, some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_blocks(function: Callable[..., Tensor], rows: int, *tensors: Tensor) -> Tensor:
    """Call ``function`` on at most ``rows`` rows of ``tensors`` at a time, and concatenate the results.

    Several blocks are computed again in backward, so that one of them is in memory at a time.
    """
    blocks = list(zip(*(tensor.split(rows) for tensor in tensors), strict=True))
    if len(blocks) == 1:
        return function(*tensors)
    return torch.cat(
        [
            checkpoint(function, *block, use_reentrant=False, preserve_rng_state=False)
            for block in blocks
        ]
    )
