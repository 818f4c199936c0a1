"""A packed study: the runs of a bench folder in two text files, in place of six files for each run.

``runs.jsonl`` has a line for its format, then one for each run: its name, and what each of its small files holds, under
the name of that file. ``epochs.csv`` has a row for each epoch of a log: a column for each number, written as JSON, and
empty where the log has none. Both can be read without fedlas. :class:`~fedlas.lab.runs.folder.RunFolder` reads them as
if the files were there, and :mod:`fedlas.lab.runs.pack` writes them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedlas._core.check import InputError
from fedlas._core.files import check_name, is_file, parse_json, write_text
from fedlas._core.yaml_text import dump_yaml
from fedlas.lab.train.log import LOG

RUNS = "runs.jsonl"
EPOCHS = "epochs.csv"
_HEAD = {"packed": "fedlas runs", "format": 1}
_FIX = f"Restore {RUNS} and {EPOCHS} from where they came, or remove both."

Record = Mapping[str, Any]


def packed_names(bench: Path) -> list[str]:
    """Names of the runs that are packed in a bench folder; none if it has no pack.

    Raises:
        InputError: If its pack cannot be read.
    """
    return list(_entries(bench))


def packed_text(folder: Path, file: str) -> str | None:
    """What a file of a run would hold, from the pack of its bench; None if it is not packed.

    Args:
        folder: The run folder, which need not exist.
        file: Name of the file.

    Raises:
        InputError: If the pack cannot be read.
    """
    entry = _entries(folder.parent).get(folder.name)
    if entry is None:
        return None
    if file == LOG:
        return "".join(json.dumps(_nested(row)) + "\n" for row in _epochs(folder.parent).get(folder.name, ()))
    if file not in entry:
        return None
    if file.endswith(".yaml"):
        return dump_yaml(entry[file], sort_keys=False)
    return json.dumps(entry[file], indent=2) + "\n"


def write_pack(bench: Path, runs: Mapping[str, Record], logs: Mapping[str, Sequence[Record]]) -> tuple[Path, Path]:
    """Write ``runs.jsonl`` and ``epochs.csv``, each atomically, once it is known that they read back equal.

    Args:
        bench: The bench folder.
        runs: For each run what its files hold, by name of the file.
        logs: For each run the records of its log.

    Raises:
        InputError: If something cannot be written as JSON, or a key of a log has a dot in it.
    """
    lines = [_HEAD, *({"run": name, **content} for name, content in runs.items())]
    try:
        entries = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    except TypeError as error:
        raise InputError("fedlas pack", "what a run's files hold must be plain values", error, "Edit it.") from error
    epochs = _csv(logs)
    restored = _rows(epochs, bench / EPOCHS)
    for name, records in logs.items():
        again = [_nested(row) for row in restored.get(name, ())]
        if json.dumps(again, sort_keys=True) != json.dumps(list(records), sort_keys=True):
            fix = "Rename the keys, or keep the folder of this run."
            raise InputError("fedlas pack", "the keys of a log must have no dots", f"another one in {name}", fix)
    # A kill between the two leaves epochs of runs that are not packed yet, which nobody asks for.
    written = write_text(bench / EPOCHS, epochs)
    return write_text(bench / RUNS, entries), written


def _csv(logs: Mapping[str, Sequence[Record]]) -> str:
    rows = [(name, dict(_flat(record))) for name, records in logs.items() for record in records]
    columns = list(dict.fromkeys(key for _, row in rows for key in row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", *columns])
    writer.writerows([name, *(row.get(column, "") for column in columns)] for name, row in rows)
    return file.getvalue()


def _flat(record: Record, prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value)


def _nested(row: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for column, cell in row.items():
        *groups, key = column.split(".")
        place = record
        for group in groups:
            inner = place.setdefault(group, {})
            place = inner if isinstance(inner, dict) else {}
        place[key] = parse_json(cell, finite=False)
    return record


def _entries(bench: Path) -> Mapping[str, Record]:
    path = bench / RUNS
    return _read_entries(path, *_version(path)) if is_file(path) else {}


def _epochs(bench: Path) -> Mapping[str, Sequence[Mapping[str, str]]]:
    path = bench / EPOCHS
    return _read_epochs(path, *_version(path)) if is_file(path) else {}


def _version(path: Path) -> tuple[int, int]:
    """Changes when the file does: what was read is kept until then."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=16)
def _read_entries(path: Path, *_version: int) -> Mapping[str, Record]:
    """The runs of a pack; none if the file is somebody else's ``runs.jsonl``."""
    found: dict[str, Record] = {}
    for number, line in enumerate(_text(path).rstrip("\n").split("\n")):
        try:
            entry = parse_json(line, finite=False)
        except ValueError:
            entry = None
        if number == 0:
            # A file with another head was not made by packing, so it is not refused but ignored.
            if not isinstance(entry, dict) or entry.get("packed") != _HEAD["packed"]:
                return {}
            if entry != _HEAD:
                raise InputError("pack", f"it must be of format {_HEAD['format']}", f"{path}: {line[:80]}", _FIX)
            continue
        name = entry.pop("run", None) if isinstance(entry, dict) else None
        if name is None or name in list(found):
            got = f"line {number + 1} of {path}, which is damaged or names a run twice"
            raise InputError("pack", "each line must hold one run", got, _FIX)
        # The name becomes part of a path, so a file from elsewhere must not choose it freely.
        found[check_name("pack", "the name of a run", name, _FIX)] = entry
    return found


@lru_cache(maxsize=16)
def _read_epochs(path: Path, *_version: int) -> Mapping[str, Sequence[Mapping[str, str]]]:
    return _rows(_text(path), path)


def _rows(text: str, path: Path) -> dict[str, list[dict[str, str]]]:
    """For each run the filled cells of its rows, by column."""
    rows = csv.reader(io.StringIO(text))
    head = next(rows, ["run"])
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        try:
            if len(row) != len(head):
                raise ValueError(f"{len(row)} cells under {len(head)} heads")
            for cell in filter(None, row[1:]):
                parse_json(cell, finite=False)
        except ValueError as error:
            raise InputError(
                "pack", "each cell must hold JSON", f"line {rows.line_num} of {path}: {error}", _FIX
            ) from error
        found.setdefault(row[0], []).append({key: cell for key, cell in zip(head[1:], row[1:], strict=True) if cell})
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError("pack", "it must be readable text", f"{path} ({error})", _FIX) from error
