"""Confidences of language models from their token log-probabilities, or P(True)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedlas._core.check import InputError, as_numbers, check_choice, describe, reason
from fedlas._core.files import parse_json
from fedlas.predictions.cells import OWNER, TableChunk
from fedlas.predictions.stated import stated_confidence

Reduce = Literal["sum", "mean", "min"]


def token_confidence(logprobs: Sequence[Sequence[float]], reduce: Reduce = "mean") -> NDArray[np.float64]:
    """Return one confidence an answer ``(N,)`` from the log-probabilities of its tokens.

    Args:
        logprobs: Natural logarithms, at most 0, of the tokens of each answer; lengths may differ.
        reduce: ``"sum"`` is the probability of the whole answer, which falls with its length; ``"mean"`` that of a
            token, the geometric mean; ``"min"`` that of the least likely token.

    Raises:
        InputError: For an answer without tokens, or a number that is no log-probability.

    Example:
        >>> token_confidence([[-0.1, -0.3], [-2.0]], "sum").round(3).tolist()
        [0.67, 0.135]
    """
    check_choice("token_confidence", "reduce", reduce, ["sum", "mean", "min"])
    if not isinstance(logprobs, list | tuple | np.ndarray) or getattr(logprobs, "ndim", 2) < 1:
        fix = "Pass a list of lists."
        raise InputError("token_confidence", "logprobs must be a sequence of sequences", describe(logprobs), fix)
    confidence = []
    for number, tokens in enumerate(logprobs, 1):
        values = as_numbers(tokens)
        if values.ndim != 1 or not len(values) or not (values <= 1e-6).all() or not np.isfinite(values).all():
            fix = "Pass natural logarithms of the tokens' probabilities."
            got = f"{describe(tokens)} in answer {number}"
            raise InputError("token_confidence", "log-probabilities must be finite and at most 0", got, fix)
        confidence.append(math.exp(min(0.0, float(getattr(values, reduce)()))))
    return np.array(confidence)


def p_true(logprobs: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Return P(True) of each answer ``(N,)``, where a model was asked whether its answer is true.

    Args:
        logprobs: Log-probabilities of the answers "True" and "False" ``(N, 2)``; other answers are left out.

    Raises:
        InputError: If there are not two finite numbers for each answer.

    Source:
        S. Kadavath et al., "Language Models (Mostly) Know What They Know", arXiv 2207.05221.

    Example:
        >>> p_true([[-0.2, -1.8]]).round(3).tolist()
        [0.832]
    """
    values = as_numbers(logprobs)
    if values.ndim != 2 or values.shape[1] != 2 or not np.isfinite(values).all():
        fix = "Pass [[log p(True), log p(False)], ...]."
        raise InputError("p_true", "log-probabilities must be finite, two an answer", describe(logprobs), fix)
    margin: NDArray[np.float64] = values[:, 1] - values[:, 0]
    return 1 / (1 + np.exp(margin.clip(-700, 700)))


def confidences_as(form: str, chunk: TableChunk, column: str) -> Tensor:
    """Return confidences ``(n, 1)`` from a column of texts, or of lists of log-probabilities, in JSON perhaps.

    Raises:
        InputError: If a cell holds something else.
    """
    cells = chunk.each(column, lambda value, _: value)
    if form == "words":
        values = stated_confidence(cells)
        for row in np.flatnonzero(np.isnan(values))[:1]:
            fix = "Remove the row, or write a number, a percentage or a word such as 'likely'."
            expected, got = f"column {column!r} must state a confidence", f"none in {chunk.where(row)} of {chunk.file}"
            raise InputError(OWNER, expected, got, fix)
        return torch.from_numpy(values).unsqueeze(1)
    try:
        lists = [parse_json(cell) if isinstance(cell, str) else cell for cell in cells]
        read = p_true(lists) if form == "p-true" else token_confidence(lists, form)  # type: ignore[arg-type]  # checked
    except ValueError as error:
        got = f"{reason(error)} among the rows from {chunk.rows[0]} of {chunk.file}"
        fix = "Write lists such as [-0.1, -0.3]."
        raise InputError(OWNER, f"column {column!r} must hold lists of log-probabilities", got, fix) from error
    return torch.from_numpy(read).unsqueeze(1)
