"""Tokens of texts as one array, and models that take them by name, as those of transformers do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedlas._core.check import InputError, describe

FIELDS = ("input_ids", "attention_mask", "token_type_ids")
"""Fields of tokens, by the names that a tokenizer gives them, in the order of their array."""


def token_array(tokens: Mapping[str, Any], count: int | None = None) -> NDArray[np.float32]:
    """Return tokens as one array ``(N, K, L)``, which holds whole numbers.

    Args:
        tokens: Output of a tokenizer: ``input_ids (N, L)``, ``attention_mask`` (all ones if it is missing) and, for
            models that have it, ``token_type_ids``.
        count: ``N``; None for any.

    Raises:
        InputError: For other fields, lengths that differ, or ids that float32 does not hold.
    """
    try:
        ids = np.asarray(tokens[FIELDS[0]])
        fields = {FIELDS[1]: np.ones_like(ids), **tokens}
        array = np.stack([fields.pop(name) for name in FIELDS if name in fields], axis=1)
        if fields or array.dtype.kind not in "iu" or not 0 <= array.min() <= array.max() < 2**24:
            raise ValueError("other fields, or numbers that are no ids")
        if array.ndim != 3 or count not in (None, len(array)):
            raise ValueError(f"{describe(ids)}, for {count} texts")
    except (KeyError, TypeError, ValueError) as error:  # rows of several lengths are a ValueError
        got = f"{', '.join(map(str, tokens))} ({error})"
        fix = "Return what a tokenizer of transformers does, with padding=True and truncation=True."
        raise InputError(f"tokens must be {', '.join(FIELDS)}, each (N, L)", got, fix) from error
    return array.astype(np.float32)


def take_tokens(model: nn.Module) -> nn.Module:
    """Return the model, which from now on takes an array ``(N, K, L)`` of :func:`token_array` in place of fields.

    State:
        Adds a hook to the model that passes the fields by their names.
    """
    model.register_forward_pre_hook(_by_name, with_kwargs=True)
    return model


def _by_name(
    model: nn.Module, inputs: tuple[Tensor], _: Any
) -> tuple[tuple[()], dict[str, Tensor]]:
    fields = inputs[0].long()
    if bool((fields != inputs[0]).any()):
        fix = "Leave out losses that mix inputs, and studies that add noise to them."
        raise InputError("tokens must be whole numbers", "tokens that were changed", fix)
    words = getattr(getattr(model, "config", None), "vocab_size", None)
    if words is not None and bool((fields[:, 0] >= words).any()):
        fix = "Use the tokenizer of the checkpoint."
        largest = int(fields[:, 0].max())
        raise InputError(f"ids must be below the {words:,} of the model", largest, fix)
    return (), dict(zip(FIELDS, fields.unbind(1), strict=False))
