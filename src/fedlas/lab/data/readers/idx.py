"""IDX, the file format of MNIST and its successors: big-endian sizes, then bytes; often gzipped."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas.lab.data.readers.unreadable import damage

_FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_target": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_target": "t10k-labels-idx1-ubyte",
}


def idx_places(places: Sequence[Path]) -> Iterator[dict[str, Path]]:
    """For each place that has all four files of a data set, raw or gzipped: their paths by content."""
    for place in places:
        found = {}
        for key, name in _FILES.items():
            candidates = (place / name, place / f"{name}.gz", place / name.replace("-idx", ".idx"))
            if (path := next((path for path in candidates if path.is_file()), None)) is not None:
                found[key] = path
        if len(found) == len(_FILES):
            yield found


def read_idx(owner: str, path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Args:
        owner: Data set, named in errors.
        path: The file.
        dimensions: Number of dimensions: 3 for images, 1 for labels.

    Raises:
        InputError: If the file cannot be read, is truncated, or holds something else.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            owner, "the file must be readable", f"{path} ({type(error).__name__}: {error})", "Fetch it again."
        ) from error
    # Magic number: two zero bytes, 8 (unsigned bytes), the number of dimensions. Each size follows in four bytes.
    start = 4 + 4 * dimensions
    shape = tuple(int(size) for size in np.frombuffer(data[4:start], dtype=">u4")) if len(data) >= start else ()
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != start + math.prod(shape):
        what, fix = damage(path)
        raise InputError(
            owner,
            f"the file must be IDX of unsigned bytes with {dimensions} dimension{'s' * (dimensions > 1)}",
            f"{path} with {len(data)} bytes that begin {data[:4].hex(' ')} and announce shape {shape}"
            f"{f' ({what})' if what else ''}",
            fix or "The file is truncated or a different one; fetch it again.",
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape).copy()  # torch needs a writable array
