"""A packed study: the small files of a bench's runs in one zip, ``runs.zip``, in place of the run folders.

It holds ``RUN/FILE`` as they lie in the run folders, so any program reads it.
:class:`~fedlas.lab.runs.folder.RunFolder` reads them as if the folders were there, and :mod:`fedlas.lab.runs.pack`
writes them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import check_name, is_file, write_atomically

RUNS = "runs.zip"
_MARK = b"fedlas runs 1"
"""Comment of the zip: a file of another kind is not refused but ignored."""
_MOST_BYTES = 2**26
"""Of a file: a line of a log is a kilobyte, and a stranger's zip may grow a thousandfold."""
_FIX = f"Restore {RUNS} from where it came, or remove it."


def packed_names(bench: Path) -> list[str]:
    """Return the names of the runs that are packed in a bench folder; none if it has no pack.

    Raises:
        InputError: If its pack cannot be read.
    """
    return list(dict.fromkeys(run for run, _ in _entries(bench)))


def packed_text(folder: Path, file: str) -> str | None:
    """Return the text of a file of a run from the pack of its bench; None if it is not packed.

    Args:
        folder: The run folder, which need not exist.
        file: Name of the file.

    Raises:
        InputError: If the pack cannot be read.
    """
    path, key = folder.parent / RUNS, (folder.name, file)
    if key not in _entries(folder.parent):
        return None
    archive, entries = _read(path, *_version(path))
    if entries[key].file_size > _MOST_BYTES:
        raise InputError("pack", f"a file must have at most {_MOST_BYTES:,} bytes", f"{'/'.join(key)} in {path}", _FIX)
    try:
        return archive.read(entries[key]).decode()
    except Exception as error:  # the decompressors raise anything for damaged bytes
        raise InputError("pack", "it must be a whole zip", f"{path}: {'/'.join(key)} ({error})", _FIX) from error


def write_pack(bench: Path, runs: Mapping[str, Mapping[str, str]]) -> Path:
    """Write ``runs.zip`` atomically: the same texts give the same bytes.

    Args:
        bench: The bench folder.
        runs: For each run the text of its files, by name of the file.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.comment = _MARK
        for run, files in runs.items():
            for name, text in files.items():
                about = zipfile.ZipInfo(f"{run}/{name}")  # without the time of today
                about.external_attr = 0o644 << 16
                archive.writestr(about, text, zipfile.ZIP_DEFLATED, 9)
    return write_atomically(bench / RUNS, lambda file: file.write(buffer.getvalue()))


Entries = Mapping[tuple[str, str], zipfile.ZipInfo]


def _entries(bench: Path) -> Entries:
    path = bench / RUNS
    return _read(path, *_version(path))[1] if is_file(path) else {}


def _version(path: Path) -> tuple[int, int]:
    """Changes when the file does: the archive in memory counts until then."""
    about = path.stat()
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=16)
def _read(path: Path, *_version: int) -> tuple[zipfile.ZipFile, Entries]:
    """The archive and its files by run and name; empty if it is somebody else's ``runs.zip``."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InputError("pack", "it must be a readable zip", f"{path} ({error})", _FIX) from error
    entries: dict[tuple[str, str], zipfile.ZipInfo] = {}
    for about in archive.infolist() if archive.comment == _MARK else ():
        run, _, file = about.filename.partition("/")
        # Names become parts of paths, so a file from elsewhere must not choose them freely.
        names = check_name("pack", "the name of a run", run, _FIX), check_name("pack", "the name of a file", file, _FIX)
        if names in entries:
            raise InputError("pack", "each file must be in it once", f"{about.filename} twice in {path}", _FIX)
        entries[names] = about
    return archive, entries
