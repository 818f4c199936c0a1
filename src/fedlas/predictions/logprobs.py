"""Log-probabilities of tokens as OpenAI's API, vLLM and others write them in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

_INSIDE = ("choices", "outputs", "logprobs", "content", "token_logprobs")
"""Keys of an object that hold its log-probabilities, the outermost first."""
_SIDES = ({"true", "yes"}, {"false", "no"})


def token_logprobs(value: Any) -> list[float] | None:
    """Return the log-probability of each token of an answer; None if there are none.

    Args:
        value: A list of numbers, of ``{"token": ..., "logprob": ...}`` (OpenAI) or of ``{token_id: {"logprob": ...}}``
            (vLLM); or an object that holds one: a response, a choice, an output.

    Raises:
        ValueError: If it is something else, or does not say which of several tokens is the answer's.
    """
    if isinstance(value, Mapping):
        if "token_ids" in value and isinstance(value.get("logprobs"), list):
            ids = value["token_ids"]
            return [
                _logprob(each, token) for each, token in zip(value["logprobs"], ids, strict=True)
            ]
        if "logprob" in value:
            return [_number(value["logprob"])]
        key = next((key for key in _INSIDE if key in value), None)
        if key is None:
            raise ValueError(f"an object without {', '.join(_INSIDE)}")
        inside = value[key]
        if key in ("choices", "outputs") and isinstance(inside, list):
            inside = inside[0] if inside else None
        return token_logprobs(inside)
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    if value is None:
        return None
    if not isinstance(value, list | tuple):
        raise ValueError(f"{type(value).__name__} in place of a list")
    # choices
    if (
        value
        and isinstance(value[0], Mapping)
        and ("logprobs" in value[0] or "message" in value[0])
    ):
        return token_logprobs(value[0])
    tokens = value[1:] if value and value[0] is None else value  # the first of a prompt has none
    return [_logprob(token) for token in tokens] or None


def true_false_logprobs(value: Any) -> tuple[float, float] | None:
    """Return the log-probabilities of True and False as the first token; None where one of them is not there.

    Raises:
        ValueError: If it is neither two numbers nor an object with the alternatives of the first token.
    """
    if isinstance(value, np.ndarray | Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) == 2 and not isinstance(value[0], Mapping):
        return _number(value[0]), _number(value[1])
    alternatives = _alternatives(value)
    if alternatives is None:
        return None
    sums = [0.0, 0.0]
    for token, logprob in alternatives:
        for side, texts in enumerate(_SIDES):
            if token.strip(" \n\"'().*").lower() in texts:
                sums[side] += math.exp(min(logprob, 0.0))
    return (math.log(sums[0]), math.log(sums[1])) if min(sums) > 0 else None


def _alternatives(value: Any) -> list[tuple[str, float]] | None:
    """Return the most likely first tokens and their log-probabilities."""
    if value is None or value == []:
        return None
    if isinstance(value, list | tuple):
        return _alternatives(value[0])
    if not isinstance(value, Mapping):
        raise ValueError(f"{type(value).__name__} in place of alternatives")
    key = next(
        (
            key
            for key in ("choices", "outputs", "logprobs", "content", "top_logprobs")
            if key in value
        ),
        None,
    )
    if key is not None:
        inside = value[key]
        if key == "top_logprobs" and isinstance(inside, list) and inside and "logprob" in inside[0]:
            return [(str(each["token"]), _number(each["logprob"])) for each in inside]
        return _alternatives(inside)
    if all(isinstance(each, Mapping) for each in value.values()):  # vLLM
        return [
            (str(each.get("decoded_token", token)), _number(each["logprob"]))
            for token, each in value.items()
        ]
    return [(str(token), _number(logprob)) for token, logprob in value.items()]


def _logprob(token: Any, token_id: Any = None) -> float:
    if not isinstance(token, Mapping):
        return _number(token)
    if "logprob" in token:
        return _number(token["logprob"])
    if token_id is not None:
        token = {token_id: token[token_id] if token_id in token else token[str(token_id)]}
    if len(token) != 1:
        raise ValueError(
            f"no word which of {len(token)} tokens is the answer's; name the object that has token_ids too"
        )
    (only,) = token.values()
    return _logprob(only)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"{type(value).__name__} in place of a number")
    return float(value)
