"""Selection of files by the date in their names, for jobs that recalibrate every month."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

from fedlas._core.check import InputError, truncated_list
from fedlas.predictions.tables.files import (
    Name,
    TableFile,
    add_folder_labels,
    find_files,
    partitioned_file,
)

# A month or a day of one digit needs a separator before it, the same in both places: 2026-5-1, but not 202651.
_DATE = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)"
    r"(?:[-_.]?[Qq](?P<quarter>[1-4])"
    r"|(?P<mark>[-_.]?)(?P<month>0[1-9]|1[0-2]|(?<=[-_.])[1-9])"
    r"(?:(?P=mark)(?P<day>0[1-9]|[12]\d|3[01]|(?<=[-_.])[1-9]))?)?(?!\d)"
)
_PARTITION = re.compile(
    r"year=(?P<year>\d{4})(?:[/\\]month=(?P<month>\d{1,2})(?:[/\\]day=(?P<day>\d{1,2}))?)?(?!\d)"
)


class Dates(NamedTuple):
    """First and last day of the period in a file's name: a year, a quarter, a month or a day."""

    first: date
    last: date


def parse_dates(text: str) -> Dates | None:
    """Return the date range of the most precise date in a path, or None if the path has no valid date.

    Partitions such as ``year=2026/month=3`` come first, then the name of the file, then those of its folders.

    Example:
        >>> str(parse_dates("scored/2026_9.csv").first), str(parse_dates("year=2026/month=3/part-0.parquet").last)
        ('2026-09-01', '2026-03-31')
        >>> str(parse_dates("2026Q4.csv").first), parse_dates("2026-02-30.csv"), parse_dates("val.csv")
        ('2026-10-01', None, None)
    """
    folders = _PARTITION.search(text)
    names = reversed(Path(text).parts)
    matches = (max(_DATE.finditer(name), key=_exactness, default=None) for name in names)
    name = next((match for match in matches if match), None)
    outer, inner = (None if match is None else _dates(match) for match in (folders, name))
    if folders is None or outer is None:
        return inner if folders is None else None
    # Within its partition a name may be more exact; another date there is when the file was written.
    is_within = inner is not None and outer.first <= inner.first and inner.last <= outer.last
    return inner if is_within else outer


def files_since(names: Sequence[Name], since: str) -> list[TableFile]:
    """Return the files with a date of ``since`` or later in their names; folders and patterns are expanded.

    Args:
        names: Paths and patterns; of a folder, all files in it.
        since: A year, quarter, month or day, such as ``2026-05``.

    Raises:
        InputError: If ``since`` is no date, a file has none in its name or one within which ``since`` lies, or no file
            is as late.
    """
    match = _DATE.fullmatch(since)
    start = None if match is None else _dates(match)
    if start is None:
        raise InputError(
            "--since must be a valid year, quarter, month or day",
            repr(since),
            "Write it as 2026-05.",
        )
    files = _dated_files(names)
    unclear = [
        file.name for file, dates in files.items() if dates.first < start.first <= dates.last
    ]
    if unclear:
        raise InputError(
            "with --since the date in every file's name must be as precise as --since",
            f"{truncated_list(unclear, 6)}, whose period contains {since}",
            "Rename it, such as 2026-05.csv, or use an earlier --since.",
        )
    late = [file for file, dates in files.items() if dates.first >= start.first]
    if not late:
        every = [file.name for file in files]
        raise InputError(
            f"at least one file must have a date of {since} or later",
            truncated_list(every, 6),
            "Choose an earlier date.",
        )
    return late


def _dated_files(names: Sequence[Name]) -> dict[TableFile, Dates]:
    """Return the date range of each file; raise InputError for a file without a date in its name."""
    files: list[TableFile] = []
    for name in names:
        # A folder may hold other files than Parquet here.
        if isinstance(name, str | Path) and Path(name).is_dir():
            files += map(partitioned_file, _inside(Path(name)))
        else:
            files += find_files([name])
    result: dict[TableFile, Dates] = {}
    for file in add_folder_labels(files):
        dates = parse_dates(str(file.path))
        if dates is None:
            raise InputError(
                "with --since every file must have a valid date in its name, such as 2026-05",
                file.path,
                "Rename the file, or list the files to calibrate on.",
            )
        result[file] = dates
    return result


def _exactness(match: re.Match[str]) -> int:
    """Return the number of parts (year, quarter, month, day) of a matched date."""
    return sum(value is not None for part, value in match.groupdict().items() if part != "mark")


def _dates(match: re.Match[str]) -> Dates | None:
    """Return the date range of a matched date, or None if the calendar has no such date."""
    parts = {
        part: int(value) for part, value in match.groupdict().items() if (value or "").isdigit()
    }
    year, quarter = parts["year"], parts.get("quarter")
    first_month = parts.get("month", 1) if quarter is None else 3 * quarter - 2
    last_month = first_month + 2 if quarter else first_month if "month" in parts else 12
    with suppress(ValueError):
        first = date(year, first_month, parts.get("day", 1))
        after = date(year + last_month // 12, last_month % 12 + 1, 1)
        return Dates(first, first if "day" in parts else after - timedelta(days=1))
    return None


def _inside(folder: Path) -> list[Path]:
    """Return all files in a folder and its subfolders, without hidden files."""
    paths = folder.rglob("*")
    return sorted(path for path in paths if path.is_file() and path.name[:1] not in "._")
