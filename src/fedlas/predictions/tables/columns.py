"""Column names: parsing of names and patterns that a user writes, and the columns that they match."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Container, Sequence
from fnmatch import fnmatchcase

from fedlas._core.check import Argument, InputError, describe, suggestion, truncated_list
from fedlas.predictions.tables.names import check_consecutive_numbers, wildcard_parts

_PLACE = re.compile(r"\[(\d+)\]", re.ASCII)
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Columns that pandas writes for the index of a frame."""

Names = str | Sequence[str] | None


ONE_CONFIDENCE = (
    "Name the column with the probability of the predicted class; for all classes use ",
    Argument("probs"),
    ".",
)


def to_dotted_path(path: str) -> str:
    """Return a JSON path with list indices behind dots: ``choices.0.text`` for ``choices[0].text``."""
    return _PLACE.sub(r".\1", path)


def join_arguments(names: Sequence[str], conjunction: str) -> list[str | Argument]:
    """Return arguments as a list in a sentence, joined by commas and a conjunction."""
    words: list[str | Argument] = []
    for name in names:
        words += [", ", Argument(name)]
    return [*words[1:-2], conjunction, words[-1]] if names[1:] else words[1:]


def split_names(text: Names, names: Sequence[str] = ()) -> list[str]:
    """Return the names and patterns in ``a,"b, c",p_*``; a text that is one of ``names`` is that single column.

    Raises:
        InputError: If it is neither text nor a sequence of texts.
    """
    if isinstance(text, str):
        if text in names:
            return [text]
        try:
            return [word.strip() for word in next(csv.reader([text], skipinitialspace=True), [""])]
        except csv.Error:  # a name with a line break
            return [text]
    if text is None or (
        isinstance(text, list | tuple) and all(isinstance(name, str) for name in text)
    ):
        return list(text or ())
    raise InputError(
        "names of columns and classes must be text",
        describe(text),
        "Pass 'a,b,c' or ['a', 'b', 'c'].",
    )


def join_names(names: Sequence[str]) -> str | list[str]:
    """Return names as the text that :func:`split_names` splits into them; a list if no text does."""
    text = ",".join(names)
    return text if split_names(text) == list(names) else list(names)


def match_columns(
    patterns: Sequence[str],
    names: Sequence[str],
    used: Container[str],
    option: str,
    where: str,
    min_count: int = 2,
) -> tuple[list[str], list[str]]:
    """Return the columns that ``patterns`` match and their class names; wildcards skip ``used`` columns."""
    columns: list[str] = []
    parts: list[str] = []
    for pattern in patterns:
        if pattern in names or not set(pattern) & set("*?["):
            check_column_exists(pattern, names, option, where)
            matches = matched = [pattern]
        else:
            matches = [name for name in names if fnmatchcase(name, pattern) and name not in used]
            matches = [name for name in matches if not _INDEX.fullmatch(name)]
            if len(matches) < min_count:
                got = f"{len(matches)} of {truncated_list(names)} in {where}"
                fix = "Name the columns"
                fix += "; a single column is the positive class of two." if min_count > 1 else "."
                count = "at least two columns" if min_count > 1 else "a column"
                raise InputError((Argument(option, pattern), f" must match {count}"), got, fix)
            matched = wildcard_parts(pattern, matches)
            if min_count > 1:  # classes
                check_consecutive_numbers(matched, pattern, where)
        columns += matches
        parts += matched
    return columns, parts


def check_column_exists(name: str, names: Sequence[str], option: str, where: str) -> None:
    """Raise InputError if a name is not a column of the table."""
    if name not in names:
        raise InputError(
            f"must name a column of {where}", repr(name), suggestion(name, names), argument=option
        )


def check_unique(names: Sequence[str], expected: str, fix: str) -> None:
    """Raise InputError if a name occurs twice."""
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise InputError(expected, f"{name!r} {times} times", fix)
