"""Files of a date or later, by the date in their names: what a monthly job calibrates on again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fedlas._core.check import InputError, few
from fedlas.predictions.tables.files import Name, TableFile, dataset_file, files_of

_MONTH = r"(0[1-9]|1[0-2])"
_DATE = re.compile(rf"(?<!\d)((?:19|20)\d\d)(?:-?{_MONTH}(?:-?(0[1-9]|[12]\d|3[01]))?)?(?!\d)")
_PARTITION = re.compile(r"year=(\d{4})(?:[/\\]month=(\d{1,2}))?(?:[/\\]day=(\d{1,2}))?")


def date_of(text: str) -> tuple[int, ...] | None:
    """Return year, month and day of a name, as far as it holds them; None without a year.

    Example:
        >>> date_of("scored/2026-11.csv"), date_of("year=2026/month=3/part-0.parquet"), date_of("val.csv")
        ((2026, 11), (2026, 3), None)
    """
    match = _PARTITION.search(text)
    for name in reversed(Path(text).parts):
        if match is None:  # of dates in one name, the most exact
            matches = list(_DATE.finditer(name))
            match = max(matches, key=lambda each: sum(map(bool, each.groups())), default=None)
    return None if match is None else tuple(int(number) for number in match.groups() if number)


def files_since(names: Sequence[Name], since: str) -> list[TableFile]:
    """Return the files of names, patterns and folders whose date is ``since`` or later.

    Args:
        names: Paths and patterns; of a folder, all files in it.
        since: A year, month or day, such as ``2026-05``.

    Raises:
        InputError: If ``since`` is no date, a file has none in its name, or no file is as late.
    """
    first = date_of(since)
    if first is None or _DATE.fullmatch(since) is None:
        raise InputError(
            "--since must be a year, a month or a day", repr(since), "Write it as 2026-05."
        )
    dates: dict[TableFile, tuple[int, ...]] = {}
    for name in names:
        # A folder may hold other files than Parquet here.
        if isinstance(name, str | Path) and Path(name).is_dir():
            files = [*map(dataset_file, _inside(Path(name)))]
        else:
            files = files_of([name])
        for file in files:
            date = date_of(str(file.path))
            if date is None:
                raise InputError(
                    "with --since every file must have a date in its name, such as 2026-05",
                    file.path,
                    "Rename it, or name the files to calibrate on.",
                )
            dates[file] = date
    late = [file for file, date in dates.items() if date >= first]
    if not late:
        paths = [str(file.path) for file in dates]
        raise InputError(
            f"a file must be of {since} or later", few(paths, 6), "Choose an earlier date."
        )
    return late


def _inside(folder: Path) -> list[Path]:
    """Return the files of a folder and of those below it, without hidden ones."""
    paths = folder.rglob("*")
    return sorted(path for path in paths if path.is_file() and path.name[:1] not in "._")
