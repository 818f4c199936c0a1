"""Words of confidence with their probabilities, as a user gives them: ``high=.9,medium=.7,low=.4``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fedlas._core.check import InputError, describe
from fedlas._core.text import truncate
from fedlas.predictions.tables.columns import split_names

Words = str | Sequence[str] | Mapping[str, float] | None

_MAX_WORDS = 256
_LONGEST = 100
_FIX = "Write high=.9,medium=.7,low=.4."


def parse_words(words: Words) -> dict[str, float]:
    """Return the probability of each word, by the word in lower case; empty if there are none.

    Args:
        words: ``"high=.9,low=40%"``, a list of such texts, or a mapping from words to probabilities. Characters of a
            word have no special meaning.

    Raises:
        InputError: If it is something else, a word is empty or stands twice, or a number is no probability.

    Example:
        >>> parse_words("High=.9, very low=10%")
        {'high': 0.9, 'very low': 0.1}
    """
    if words is None:
        return {}
    pairs: list[tuple[str, Any]]
    if isinstance(words, Mapping):
        pairs = [*words.items()]
    else:
        texts = [words] if isinstance(words, str) else split_names(words)
        pairs = [_split_pair(pair) for text in texts for pair in split_names(text) or [""]]
    result: dict[str, float] = {}
    for word, share in pairs:
        key = normalize_word(word)
        if key in result:
            raise InputError(
                "must name each word once, in upper or lower case",
                f"{truncate(repr(key), 60)} twice",
                "Keep one of them.",
                argument="words",
            )
        result[key] = _check_share(word, share)
    if len(result) > _MAX_WORDS:
        raise InputError(
            f"must give at most {_MAX_WORDS} words a probability",
            f"{len(result):,}",
            _FIX,
            argument="words",
        )
    return result


def normalize_word(word: object) -> str:
    """Return a word in lower case with single spaces.

    Raises:
        InputError: If it is no text, empty, or longer than 100 characters.
    """
    key = " ".join(word.lower().split()) if isinstance(word, str) else ""
    if not key or len(key) > _LONGEST:
        raise InputError(
            f"must hold words of 1 to {_LONGEST} characters",
            truncate(describe(word), 60),
            _FIX,
            argument="words",
        )
    return key


def _split_pair(pair: str) -> tuple[str, Any]:
    """Return the word and the probability in ``word=probability``; the last ``=`` separates them."""
    word, sign, number = pair.rpartition("=")
    if not sign:
        raise InputError(
            "must give each word a probability as WORD=X",
            truncate(repr(pair), 60),
            _FIX,
            argument="words",
        )
    with suppress(ValueError):
        number = number.strip()
        return word, float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    return word, number


def _check_share(word: str, share: Any) -> float:
    """Return a probability; raise InputError for anything else."""
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 <= share <= 1:
        raise InputError(
            "must hold probabilities from 0 to 1",
            f"{truncate(repr(share), 60)} for {truncate(repr(word), 60)}",
            _FIX,
            argument="words",
        )
    return float(share)
