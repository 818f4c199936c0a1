"""Text files that are compressed by gzip or Zstandard: read and written as a stream, never as a whole."""

from __future__ import annotations

import codecs
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fedlas._core.check import InputError
from fedlas._core.extras import require

_KINDS = {".gz": "gzip", ".zst": "zstd"}
"""Compression of a file, by the end of its name."""
TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Formats that may be compressed."""
_FREE = 2**24
_MOST_RATIO = 100
"""Bytes that a file may always unpack to, and the largest ratio of a larger one. Scores shrink to a third."""


def suffix_of(path: Path) -> str:
    """Return the format of a file as the end of its name in lower case: ``.csv`` for ``a.csv`` and ``a.csv.gz``."""
    ends = [end.lower() for end in path.suffixes[-2:]]
    packed = len(ends) == 2 and ends[1] in _KINDS and ends[0] in TEXTS
    return ends[0] if packed else path.suffix.lower()


def whole_suffix(path: Path) -> str:
    """Return the end of a name with that of its compression: ``.csv.gz``."""
    return path.name[-len(suffix_of(path) + path.suffix) :] if is_packed(path) else path.suffix


def stem_of(path: Path) -> str:
    """Return the name of a file without its end and that of its compression: ``a`` for ``a.csv`` and ``a.csv.gz``."""
    return path.with_suffix("").stem if is_packed(path) else path.stem


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed text, by its name."""
    return suffix_of(path) != path.suffix.lower()


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file to read what it holds once it is unpacked; reading fails where a stream ends too early.

    Reading raises an InputError where a file unpacks to more than 100 times its size, beyond 16 MiB.
    """
    if not is_packed(path):
        return path.open("rb")
    stream: Any = require("pyarrow", extra="tables").input_stream(
        str(path), compression=_KINDS[path.suffix.lower()]
    )
    return io.BufferedReader(_Counted(stream, path))


class _Counted(io.RawIOBase):
    """A stream of unpacked bytes that ends in an error after too many."""

    def __init__(self, stream: Any, path: Path) -> None:
        self._stream = stream
        self._path = path
        self._size = path.stat().st_size
        self._left = max(_FREE, _MOST_RATIO * self._size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise InputError(
                f"a packed file must unpack to at most {_MOST_RATIO} times its size",
                f"more from the {self._size:,} bytes of {self._path.name}",
                "Unpack it, if its content is right.",
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def content_digest(path: Path) -> str:
    """Return a digest of what a file holds: text unpacked, without its mark, each line with the same end.

    A copy that is packed, or was saved by another system, has the digest of the original.
    """
    digest = hashlib.sha256()
    if suffix_of(path) not in TEXTS:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    lines = 0  # that ended since the last other byte: the file may end with them
    with open_bytes(path) as file:
        head = file.read(3).removeprefix(codecs.BOM_UTF8)
        while chunk := head or file.read(1 << 20):
            head = b""
            while chunk.endswith(b"\r") and (more := file.read(1)):
                chunk += more
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if body := chunk.rstrip(b"\n"):
                digest.update(b"\n" * lines + body)
                lines = 0
            lines += len(chunk) - len(body)
    digest.update(b"\n")
    return digest.hexdigest()[:16]


@contextmanager
def packed_as(path: Path | None, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give a file that compresses what is written to another one, if a name says so."""
    if path is None or not is_packed(path):
        yield file
        return
    arrow: Any = require("pyarrow", extra="tables")
    outer = arrow.PythonFile(_Open(file), "w")
    with arrow.CompressedOutputStream(outer, _KINDS[path.suffix.lower()]) as packed:
        yield packed


class _Open:
    """A file that stays open when a writer closes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write
        self.flush = file.flush
        self.closed = False

    def close(self) -> None:
        self.closed = True
