"""Token fields of texts as one array, for batching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError, describe

TOKEN_FIELDS = ("input_ids", "attention_mask", "token_type_ids")
"""Token fields in the order of the array, named as by a tokenizer."""


def token_array(tokens: Mapping[str, Any], count: int | None = None) -> NDArray[np.float32]:
    """Return token fields stacked into one float32 array ``(N, K, L)`` of whole numbers.

    Args:
        tokens: Output of a tokenizer: ``input_ids (N, L)``, ``attention_mask`` (all ones if it is missing) and, for
            models that have it, ``token_type_ids``.
        count: ``N``; None for any.

    Raises:
        InputError: For other fields, lengths that differ, or ids that float32 does not hold.
    """
    try:
        ids = np.asarray(tokens[TOKEN_FIELDS[0]])
        fields = {TOKEN_FIELDS[1]: np.ones_like(ids), **tokens}
        array = np.stack([fields.pop(name) for name in TOKEN_FIELDS if name in fields], axis=1)
        if fields or array.dtype.kind not in "iu" or not 0 <= array.min() <= array.max() < 2**24:
            raise ValueError("unknown fields, or values that are not token ids")
        if array.ndim != 3 or count not in (None, len(array)):
            raise ValueError(f"{describe(ids)}, for {count} texts")
    except (KeyError, TypeError, ValueError) as error:  # rows of several lengths are a ValueError
        raise InputError(
            f"tokens must be {', '.join(TOKEN_FIELDS)}, each (N, L)",
            f"{', '.join(tokens) if isinstance(tokens, Mapping) else describe(tokens)} ({error})",
            "Return the output of a transformers tokenizer, with padding=True and truncation=True.",
        ) from error
    return array.astype(np.float32)
