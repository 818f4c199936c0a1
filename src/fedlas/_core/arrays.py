"""Readers and writers of arrays in untrusted files: ``.npz`` archives, safetensors and ``torch.save``.

Sizes are checked before memory is taken, and no code in a file runs.
"""

from __future__ import annotations

import math
import mmap
import os
import threading
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.check import InputError
from fedlas._core.extras import require
from fedlas._core.files import parse_json, require_no_device, write_atomically
from fedlas._core.threads import ignore_warnings

if TYPE_CHECKING:
    from torch import Tensor

_RATIO_EXEMPT_BYTES = 2**26
"""Bytes up to which an array may be compressed to anything: labels in order shrink to almost nothing."""
_MAX_RATIO = 100
"""Most that a larger array may be compressed. Scores hardly shrink at all; a zip bomb shrinks a thousandfold."""

_HEADERS = threading.Lock()
"""Held while a header is parsed: ``ast.parse`` fails in two threads at once in Python 3.11 before 3.11.8."""

_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class ArrayFile:
    """An open file with the values of one array of an archive, positioned after the header.

    Attributes:
        file: The values, uncompressed.
        shape: Its shape, which fits the size of the file.
        dtype: Its dtype; never objects.
        by_column: Whether values lie column by column (``fortran_order``).
    """

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_column: bool


class ArrayArchive:
    """The arrays in an open archive, by name."""

    def __init__(self, archive: zipfile.ZipFile, files: ExitStack) -> None:
        self._archive = archive
        self._files = files
        self.names = [name.removesuffix(".npy") for name in archive.namelist()]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a whole array.

        Raises:
            ValueError: As :meth:`open`; or if it does not fit into memory.
        """
        array = self.open(name)
        require_memory(math.prod(array.shape) * array.dtype.itemsize, f"array {name!r}")
        with _HEADERS, self._archive.open(self._info(name)) as file:
            values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return values

    def open(self, name: str) -> ArrayFile:
        """Open the array ``name`` for reading in chunks, with its shape and dtype.

        Raises:
            KeyError: If there is none of that name.
            ValueError: If it holds objects, is compressed a hundredfold, or its header claims more
                than the file holds.
        """
        info = self._info(name)
        if info.file_size > max(_RATIO_EXEMPT_BYTES, _MAX_RATIO * info.compress_size):
            ratio = f"{info.file_size:,} bytes in {info.compress_size:,}"
            raise ValueError(
                f"array {name!r} is compressed over {_MAX_RATIO} times, {ratio}: save it with np.savez"
            )
        file = self._files.enter_context(self._archive.open(info))
        with _HEADERS, ignore_warnings:  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            if version > (2, 0):  # only for names of fields
                raise ValueError(f"array {name!r} has a structured dtype")
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, by_column, dtype = header(file)
        if dtype.hasobject or dtype.names or not dtype.itemsize:
            raise ValueError(
                f"array {name!r} has dtype {dtype}; only numbers, booleans and text are read"
            )
        # The header is only a claim: the size must be there before memory of that size is taken.
        claimed = math.prod(shape) * dtype.itemsize
        size = info.file_size - file.tell()
        if min(shape, default=1) < 0 or claimed > size:
            raise ValueError(
                f"the header of array {name!r} claims shape {shape}, {claimed:,} bytes; the file has {size:,}"
            )
        return ArrayFile(file, shape, dtype, by_column)

    def check_all(self) -> None:
        """Raise ValueError if any array of the archive is unsafe to read or has an unsafe name.

        Raises:
            ValueError: As :meth:`open`; or if a name leads out of a folder, or all arrays together are compressed a
                hundredfold.
        """
        members = self._archive.infolist()
        packed = sum(info.compress_size for info in members)
        whole = sum(info.file_size for info in members)
        if whole > max(_RATIO_EXEMPT_BYTES, _MAX_RATIO * packed):
            raise ValueError(
                f"the archive has a compression ratio above {_MAX_RATIO}: {whole:,} bytes in {packed:,}"
            )
        for name in self.names:
            if ".." in name.split("/") or name.startswith("/") or "\\" in name or ":" in name:
                raise ValueError(f"array name {name!r} is not a relative path without '..'")
            self.open(name)

    def _info(self, name: str) -> zipfile.ZipInfo:
        members = self._archive.NameToInfo
        return members[f"{name}.npy" if f"{name}.npy" in members else name]


@contextmanager
def open_arrays(path: Path) -> Iterator[ArrayArchive]:
    """Open an ``.npz`` archive and yield its arrays by name.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is no archive, or an array in it is damaged; also for what is read in the ``with`` block. Its
            message says what is wrong.
    """
    try:
        # The archive's own file closes only after all that was opened in it.
        with zipfile.ZipFile(require_no_device(path)) as archive, ExitStack() as files:
            yield ArrayArchive(archive, files)
    except (InputError, OSError):
        raise
    except (
        Exception
    ) as error:  # zip, its decompressors and NumPy's headers raise anything for damaged bytes
        raise ValueError(
            str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        ) from error


def write_arrays(
    path: str | Path,
    arrays: Mapping[str, Any],
    noun: str,
    accepts_names: Callable[[Collection[str]], bool],
) -> Path:
    """Write an ``.npz`` file atomically and return its path; only an existing file of the same kind is replaced.

    Args:
        path: The file.
        arrays: Its arrays by name.
        noun: Name of one, with its article, for messages.
        accepts_names: Return whether a file with arrays of these names is of that kind.

    Raises:
        InputError: If another file is there, or the folder cannot be written to.
    """
    # Imported here: two tensors need no rule of places.
    from fedlas._core.outputs import FileKind, check_output_path

    def is_one(existing: Path) -> bool:
        with open_arrays(existing) as archive:
            return accepts_names(archive.names)

    place = check_output_path("path", path, FileKind(noun, is_one))
    content: dict[str, Any] = dict(arrays)
    return write_atomically(place, lambda file: np.savez(file, **content))


def load_tensors(path: Path) -> Any:
    """Return the tensors and plain values that ``torch.save`` wrote to a file, on the CPU.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged (a byte that differs from its checksum suffices), holds anything else, or would
            grow: ``torch.save`` compresses nothing.
    """
    import torch

    try:
        _check_tensor_archive(path)
        with ignore_warnings:  # torch warns about foreign files, which the error explains
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # the readers of archive and pickle raise anything for bytes that are neither
        reason = (str(error).split("\n")[0] or "it is damaged")[:120]
        raise ValueError(
            reason if type(error) is ValueError else f"{type(error).__name__}: {reason}"
        ) from error


def _check_tensor_archive(path: Path) -> None:
    with (
        require_no_device(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        # Among the calls that torch allows in a pickle, only this takes memory of any size. State dicts have none.
        if content.find(b"bytearray") >= 0:
            raise ValueError("the pickle contains a bytearray, which no state dict does")
        if content[:2] != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("the archive is compressed, which torch.save never does")
        # torch compares no checksums, and would load weights of which a byte has changed.
        if damaged := archive.testzip():
            raise ValueError(
                f"the checksum of its member {damaged!r} does not match: the file is damaged"
            )


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return tensors and metadata serialized as the bytes of a safetensors file.

    Raises:
        ValueError: For a tensor of a dtype or layout that the format lacks.
    """
    # The package refuses tensors that share memory, such as tied weights.
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        content: bytes = require("safetensors.torch", extra="onnx").save(copies, dict(metadata))
    except Exception as error:  # the package raises errors of several kinds
        raise ValueError(str(error)) from error
    return content


def from_safetensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors (on the CPU) and the metadata stored in the bytes of a safetensors file.

    Raises:
        ValueError: If it is no such file, or is damaged.
    """
    try:
        tensors = require("safetensors.torch", extra="onnx").load(content)
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
    except (
        Exception
    ) as error:  # the package and torch raise errors of several kinds for damaged bytes
        raise ValueError(f"it is not a readable safetensors file: {error}") from error
    return dict(sorted(tensors.items())), header.get("__metadata__", {})


def available_memory() -> int | None:
    """Return the number of bytes of memory that are available, or None if the system does not report them."""
    limits = []
    with suppress(OSError, ValueError):  # of a container; "max" where there is none
        limits.append(int(_CGROUP.read_text()))
    with suppress(OSError, ValueError, StopIteration):
        line = next(
            line for line in _MEMINFO.read_text().splitlines() if line.startswith("MemAvailable:")
        )
        limits.append(1024 * int(line.split()[1]))
    with suppress(OSError, ValueError, AttributeError):  # elsewhere: all that the machine has
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min(limits, default=None)


def require_memory(num_bytes: int, what: str) -> None:
    """Raise ValueError if ``num_bytes`` bytes exceed the available memory, before they are allocated.

    Raises:
        ValueError: If ``num_bytes`` is more than :func:`available_memory`; ``what`` names what would take them.
    """
    free = available_memory()
    if free is not None and num_bytes > free:
        raise ValueError(
            f"{what} needs {num_bytes / 2**30:,.1f} GiB of memory; {free / 2**30:,.1f} GiB are available"
        )
