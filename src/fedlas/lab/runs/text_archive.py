"""Zips of small text files from strangers: size, names and duplicates are checked before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fedlas._core.check import InputError
from fedlas._core.files import check_path_component, require_no_device

_MAX_FILE_BYTES = 2**21
"""Largest file: a line of a log is a kilobyte, and a stranger's zip may grow a thousandfold."""
_UNCHECKED_BYTES = 2**22
_MAX_RATIO = 10
"""All files together may be larger than the zip by this factor, or ``_UNCHECKED_BYTES``; text shrinks to a third."""


class TextArchive:
    """The text files of a zip, in one folder per run; empty if the comment of the zip is not ``mark``.

    Args:
        path: The zip.
        mark: Comment that the zip must have.

    Raises:
        InputError: If the zip cannot be read, a name could not be part of a path, a file occurs twice, or the files
            are much larger than the zip.
    """

    def __init__(self, path: Path, mark: bytes) -> None:
        self.path = path
        self._fix = f"Restore {path.name} from where it came, or remove it."
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(require_no_device(path).read_bytes()))
        # zipfile raises NotImplementedError for encryption and compressions that it does not know.
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise InputError(
                "the pack must be a readable zip", f"{path} ({error})", self._fix
            ) from error
        self._files: dict[tuple[str, str], zipfile.ZipInfo] = {}
        for about in self._zip.infolist() if self._zip.comment == mark else ():
            folder, _, file = about.filename.partition("/")
            # Names become parts of paths, so a file from elsewhere must not choose them freely.
            names = (
                check_path_component("the name of a run", folder, self._fix),
                check_path_component("the name of a file", file, self._fix),
            )
            if names in self._files:
                raise InputError(
                    "file names in the pack must be unique",
                    f"{about.filename} twice in {path}",
                    self._fix,
                )
            self._files[names] = about
        total = sum(about.file_size for about in self._files.values())
        size = path.stat().st_size
        if total > max(_UNCHECKED_BYTES, _MAX_RATIO * size):
            raise InputError(
                f"the compression ratio of the pack must be at most {_MAX_RATIO}",
                f"{total:,} bytes from {size:,} in {path}",
                self._fix,
            )

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the folders, each once."""
        return iter(dict.fromkeys(folder for folder, _ in self._files))

    def text(self, folder: str, file: str) -> str | None:
        """Return the content of a UTF-8 file, or None if it is not in the zip.

        Raises:
            InputError: If the file is damaged or larger than two megabytes.
        """
        about = self._files.get((folder, file))
        if about is None:
            return None
        got = f"{folder}/{file} in {self.path}"
        if about.file_size > _MAX_FILE_BYTES:
            raise InputError(f"a file must have at most {_MAX_FILE_BYTES:,} bytes", got, self._fix)
        try:
            return self._zip.read(about).decode()
        except Exception as error:  # the decompressors raise anything for damaged bytes
            raise InputError(
                "the pack must be an undamaged zip", f"{got} ({error})", self._fix
            ) from error
