"""Compressed text files (gzip, Zstandard), read and written as streams."""

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
_MAX_RATIO = 100
"""Size to which any file may decompress, and the maximum ratio beyond it; scores compress to a third."""


def data_suffix(path: Path) -> str:
    """Return the lower-case format suffix of a file name: ``.csv`` for ``a.csv`` and ``a.csv.gz``."""
    ends = [end.lower() for end in path.suffixes[-2:]]
    packed = len(ends) == 2 and ends[1] in _KINDS and ends[0] in TEXTS
    return ends[0] if packed else path.suffix.lower()


def full_suffix(path: Path) -> str:
    """Return the suffix of a file name with its compression: ``.csv.gz``."""
    return (
        path.name[-len(data_suffix(path) + path.suffix) :] if is_compressed(path) else path.suffix
    )


def data_stem(path: Path) -> str:
    """Return a file name without format and compression suffixes: ``a`` for ``a.csv.gz``."""
    return path.with_suffix("").stem if is_compressed(path) else path.stem


def is_compressed(path: Path) -> bool:
    """Return whether a file is compressed text, by its name."""
    return data_suffix(path) != path.suffix.lower()


def open_decompressed(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed; a truncated stream raises an error while it is read.

    Reading raises an InputError where a file unpacks to more than 100 times its size, beyond 16 MiB.
    """
    if not is_compressed(path):
        return path.open("rb")
    stream: Any = require("pyarrow", extra="tables").input_stream(
        str(path), compression=_KINDS[path.suffix.lower()]
    )
    return limit_size(stream, SizeLimit(path.stat().st_size, path.name))


class SizeLimit:
    """Maximum size of what a packed file unpacks to: 100 times its own size, and 16 MiB at least.

    Args:
        size: Size of the packed file in bytes.
        name: Its name, for messages.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._limit = max(_FREE, _MAX_RATIO * size)

    def check(self, unpacked: int) -> None:
        """Raise InputError if ``unpacked`` bytes exceed the limit.

        Raises:
            InputError: If they do.
        """
        if unpacked > self._limit:
            raise InputError(
                f"the compression ratio of a file must be at most {_MAX_RATIO}",
                f"a higher one for the {self._size:,} bytes of {self._name}",
                "Decompress the file yourself if you trust it.",
            )


def limit_size(stream: Any, limit: SizeLimit) -> IO[bytes]:
    """Return a decompressed stream that raises InputError where it is read, or skipped, beyond its limit."""
    return io.BufferedReader(_SizeLimitedStream(stream, limit))


class _SizeLimitedStream(io.RawIOBase):
    """Decompressed stream that raises InputError beyond a maximum size."""

    def __init__(self, stream: Any, limit: SizeLimit) -> None:
        self._stream = stream
        self._limit = limit
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only places from the beginning")
        self._limit.check(offset)  # first: to skip is to unpack
        self._position = self._stream.seek(offset)
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        count: int = self._stream.readinto(buffer)
        self._position += count
        self._limit.check(self._position)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def content_digest(path: Path) -> str:
    """Return a digest of the decompressed content; byte-order mark and line ends do not matter.

    A copy that is packed, or was saved by another system, has the digest of the original.
    """
    digest = hashlib.sha256()
    if data_suffix(path) not in TEXTS:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    lines = 0  # that ended since the last other byte: the file may end with them
    with open_decompressed(path) as file:
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
def compressed_writer(path: Path | None, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a stream that compresses to ``file`` if ``path`` has a compression suffix; else ``file`` itself."""
    if path is None or not is_compressed(path):
        yield file
        return
    arrow: Any = require("pyarrow", extra="tables")
    outer = arrow.PythonFile(_UnclosableFile(file), "w")
    with arrow.CompressedOutputStream(outer, _KINDS[path.suffix.lower()]) as packed:
        yield packed


class _UnclosableFile:
    """Wrapper of a file that stays open when pyarrow closes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write
        self.flush = file.flush
        self.closed = False

    def close(self) -> None:
        self.closed = True
