"""Atomic writes, JSON, checks of paths, and the only function of the package that removes files."""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from fedlas._core.check import InputError
from fedlas._core.text import truncate

_PART = re.compile(r"\..+\.[0-9a-f]{8}\.fedlas\.part")
_SUBMISSION = re.compile(r"\.submission_file_[0-9a-f]{32}\.sh")
"""Link that submitit leaves in its folder, to the script ``JOB_submission.sh`` next to it."""
_HARMLESS = re.compile(r"\.gitkeep|\.gitignore|\.DS_Store|lost\+found|.*\.(?:log|out|err)")
"""Names allowed in a new folder: placeholders, and files into which a shell redirects the command's output."""
_MAY_BE_HUGE = re.compile(r"[eE]\+?\d{3}|\d{200}")
"""In every JSON text with a number beyond float64: two digits of an exponent and 199 of a number stay below it."""
MAX_JSON = 2**28
"""Most bytes of a JSON file that is read: parsing takes several times as much memory."""


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Write a temporary file next to ``path``, and rename it to ``path`` once it is complete and on the disk.

    Args:
        path: Where the file goes; missing folders are made.
        write: Called with the open binary file.

    Returns:
        The path.

    Raises:
        InputError: If the folder cannot be written to, the disk is full, or a folder, device or pipe has that name.
            The previous file at ``path`` is then unchanged.

    Note:
        A file that is replaced keeps its permissions, such as those of a private file.
        A process that is killed while it writes leaves a hidden ``.fedlas.part`` file next to ``path``. Nothing reads
        it; the next writer of the same path removes it, and :func:`remove_stale_temporaries` all of a folder.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> write_atomically(folder / "a.txt", lambda file: file.write(b"whole")).read_text()
        'whole'
    """
    path = to_path(path)
    try:
        require_no_device(path)  # a rename would replace it: root would have no /dev/null afterward
    except OSError as error:
        raise not_writable_error(path, error) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_temporaries(path)
        temporary, handle = _create_locked_temporary(path)
        _copy_mode(path, handle)
    except OSError as error:
        raise not_writable_error(path.parent, error) from error
    # Write and sync the temporary file, then rename it: a reader sees the old file or the new one.
    raw = _ErrorKeepingFile(handle, "wb")
    try:
        with io.BufferedWriter(raw) as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix":
                # still locked: once it is closed another writer may take it for a stale one
                temporary.replace(path)
        if os.name != "posix":  # Windows renames no open file, and has no such locks
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else raw.error
        if cause is None or not isinstance(error, Exception):
            raise
        raise not_writable_error(path, cause) from error
    return path


def _create_locked_temporary(path: Path) -> tuple[Path, int]:
    """Create a locked temporary file next to ``path``; return its path and file descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.fedlas.part")
        handle = os.open(temporary, flags, 0o666)
        # A writer that takes it for a stale one holds its lock for a moment, and removes it.
        lock_file(handle, wait=True)
        if os.path.lexists(temporary):
            return temporary, handle
        os.close(handle)


def _copy_mode(path: Path, handle: int) -> None:
    """Give an open file the permissions of the file at ``path``: one that is private stays private when replaced."""
    with suppress(FileNotFoundError):
        mode = os.lstat(path).st_mode
        if os.name == "posix" and stat.S_ISREG(mode):
            os.fchmod(handle, mode & 0o777)


def _remove_stale_temporaries(path: Path) -> None:
    """Remove the temporary files of ``path`` that no running process has locked."""
    for name in os.listdir(path.parent):  # noqa: PTH208 - names are all that is needed
        if name.startswith(f".{path.name}.") and _PART.fullmatch(name):
            with suppress(OSError):
                handle = os.open(path.parent / name, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    if _is_own_file(os.fstat(handle)) and lock_file(handle):
                        remove(path.parent / name, inside=path.parent)
                finally:
                    os.close(handle)


def lock_file(handle: int, *, wait: bool = False) -> bool:
    """Acquire the exclusive lock of an open file; return False if it is taken or locks are not supported."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


class _ErrorKeepingFile(io.FileIO):
    """A file that records its write error, which torch.save would hide behind an error about its archive."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def is_same_file(path: str | Path, other: str | Path) -> bool:
    """Return whether two paths refer to the same file, with links resolved; the file need not exist."""
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    with suppress(OSError):
        return os.path.samefile(path, other)  # noqa: PTH121 - names
    return False


def check_writable(folder: Path, option: str = "") -> None:
    """Raise InputError if no file can be created in an existing folder; ``option`` names the folder in the message."""
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise not_writable_error(folder, error, option) from error


def remove_stale_temporaries(*folders: Path) -> None:
    """Remove leftover temporary files directly inside ``folders``; missing folders are skipped.

    Note:
        Call it only while no other process writes there, e.g. under the folder's lock: the files of killed and running
        writers look the same. Only files of :func:`write_atomically` have such names; links, folders, and files of
        other users stay.
    """
    for folder in folders:
        for name in os.listdir(folder) if folder.is_dir() else ():  # noqa: PTH208 - names are all that is needed
            if _PART.fullmatch(name) and _is_own_file(os.lstat(folder / name)):
                remove(folder / name, inside=folder)


def _is_own_file(status: os.stat_result) -> bool:
    """Return whether a status is that of a file of this user: no link, no folder, and no second name elsewhere."""
    is_own = os.name != "posix" or status.st_uid == os.geteuid()
    return is_own and stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def require_inside(folder: Path, path: Path) -> Path:
    """Return ``path``, or raise InputError if it is not below ``folder`` or a link between them leads elsewhere.

    Args:
        folder: The folder that the command names; it may itself be reached by a link.
        path: A path strictly below it, perhaps with names from untrusted files. If its last part is a link, the link
            itself is meant: :func:`write_atomically` replaces it. To write into a folder, check the file in it.

    Raises:
        InputError: If ``path`` is not below ``folder``, has ``..`` there, or has a link between the two.

    Example:
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> require_inside(folder, folder / "predictions" / "test.npz").name
        'test.npz'
    """
    # A name alone does not say where a path leads: a link in an untrusted folder may lead anywhere.
    inner = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    if (
        inner
        and ".." not in inner
        and path.parent.resolve() == folder.resolve().joinpath(*inner[:-1])
    ):
        return path
    raise InputError(
        f"the path must be below {folder}, without links between",
        path,
        "Check the folder for links that lead elsewhere.",
    )


def require_no_links(folder: Path, below: Path) -> Path:
    """Return the folder ``below``, or raise InputError if it is a link or contains one.

    The link that submitit leaves, to a script next to it, is accepted.

    Raises:
        InputError: If one is, or ``below`` does not lead into ``folder``, as :func:`require_inside`.
    """
    require_inside(folder, below / "file")
    for path in below.rglob("*"):
        if path.is_symlink() and not _is_submitit_link(path):
            require_inside(folder, path / "file")
    return below


def _is_submitit_link(link: Path) -> bool:
    """Return whether a link is the one that submitit creates to its submission script."""
    script = Path(os.path.realpath(link))
    beside = script.parent == link.parent.resolve() and script.name.endswith("_submission.sh")
    return beside and bool(_SUBMISSION.fullmatch(link.name))


def remove(path: Path, *, inside: Path) -> None:
    """Remove a file, or a folder with its content. No other function of the package removes anything.

    Args:
        path: The file or folder; a missing one is no error. If it is a link, the link itself is removed.
        inside: A folder above it.

    Raises:
        InputError: If ``path`` does not lead into that folder, as :func:`require_inside`, or cannot be removed.
    """
    require_inside(inside, path)
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise not_writable_error(path, error) from error


def check_path_component(what: str, value: object, fix: str) -> str:
    """Return ``value``, or raise InputError if it is not a safe path component (no separator, no leading dot).

    Args:
        what: Use of the name, e.g. ``"a run's name"``.
        value: The name; it may come from an untrusted file.
        fix: Remedy for an invalid one.

    Raises:
        InputError: If it is not, has more than 200 characters, or has characters that cannot be printed.
    """
    if (
        isinstance(value, str)
        and value.isprintable()
        and re.fullmatch(r"[^./\\][^/\\]{0,199}", value)
    ):
        return value
    raise InputError(
        f"{what} must be a plain name, without / or a leading dot", repr(value)[:200], fix
    )


def is_file(path: Path) -> bool:
    """Return ``path.is_file()``, or False instead of an error if the folder may not be searched."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises there


def require_no_device(path: Path) -> Path:
    """Return ``path``, or raise OSError if it is a device or a pipe, from which a read might never return.

    Raises:
        OSError: If it is one, perhaps through a link.
    """
    # In /dev even a link to a file, as stdout may be, belongs to the system.
    in_dev = path.parent == Path("/dev")
    exists = os.path.exists(path)  # noqa: PTH110 - Path.exists may raise
    if in_dev or (exists and not is_file(path) and not path.is_dir()):
        raise OSError("it is a device or a pipe, not a file")
    return path


def unexpected_names(folder: Path, allowed: Collection[str] = ()) -> list[str]:
    """Return the unexpected names in a folder; empty for a missing, empty or new folder.

    Args:
        folder: The folder.
        allowed: Names that are allowed.

    Raises:
        OSError: If it is a file or cannot be read.
    """
    names = sorted(os.listdir(folder)) if os.path.lexists(folder) else []  # noqa: PTH208 - names; links too
    return [
        name
        for name in names
        if name not in allowed and not _PART.fullmatch(name) and not _HARMLESS.fullmatch(name)
    ]


def parse_path(text: str) -> Path:
    """Return a local path parsed from a command-line argument; ``file:///a`` addresses are accepted.

    Raises:
        argparse.ArgumentTypeError: For empty text, or an address such as ``s3://bucket/a.csv``.
    """
    text = parse_file_name(text)
    if "://" in text:  # a path would become a folder of that name
        raise argparse.ArgumentTypeError(
            f"it must be a path on this machine; got {text!r}. Name one, and copy the file from there"
        )
    return Path(text)


def parse_file_name(text: str) -> str:
    """Return a file name or address parsed from a command-line argument, as text that keeps ``hdfs:///a.csv`` intact.

    Raises:
        argparse.ArgumentTypeError: For ``""``, to which an unset variable expands.

    Example:
        >>> parse_file_name("hdfs:///a.csv"), parse_file_name("file:///tmp/a.csv")
        ('hdfs:///a.csv', '/tmp/a.csv')
    """
    if not text.strip():
        raise argparse.ArgumentTypeError(
            f"it must name a path; got {text!r}. Name one, or leave the option out"
        )
    return re.sub("^file:(?://)?(?=/(?!/))", "", text)


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: str | Path, value: object) -> Path:
    """Write ``value`` as indented JSON atomically; NaN and infinities raise ValueError."""
    return write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Return the content of a UTF-8 JSON file.

    Raises:
        OSError: If the file cannot be read, or is a device or a pipe.
        ValueError: If it is not JSON, or has more than :data:`MAX_JSON` bytes, as a sparse file of nothing may. NaN and
            infinities are refused too: comparisons with NaN are false, so range checks of the content would miss it.
    """
    place = require_no_device(to_path(path))
    size = place.stat().st_size
    if size > MAX_JSON:
        raise ValueError(f"it has {size:,} bytes, and a JSON file of fedlas at most {MAX_JSON:,}")
    return parse_json(place.read_text(encoding="utf-8"))


def to_path(path: object) -> Path:
    """Return ``path`` as a :class:`~pathlib.Path`, or raise InputError if it is neither text nor a path.

    Raises:
        InputError: If it is neither text nor a path.
    """
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else b""
    if isinstance(name, bytes) or "\0" in name:
        raise InputError(
            "a path must be a str or a Path without null characters",
            f"{type(path).__name__} {truncate(repr(path), 200)}",
            "Pass the name of a file.",
        )
    return Path(name)


def ensure_name(path: Path) -> Path:
    """Return the path, resolved if it has no name, as ``.`` and ``..``.

    Raises:
        InputError: If it is the root of the file system, which has none.
    """
    named = path.resolve() if path.name in ("", "..") else path
    if not named.name:
        raise InputError("a path must have a name", path, "Name a file or a folder.")
    return named


def parse_json(text: str | bytes, *, finite: bool = True) -> Any:
    """Return the values parsed from JSON text; duplicate keys raise ValueError.

    Args:
        text: The text.
        finite: Refuse NaN, infinities, and numbers beyond float64: ``1e999``, an integer of 400 digits.

    Raises:
        ValueError: If it is not JSON, names a key twice, is nested too deeply, or has a number of thousands of digits.
    """
    kinds: dict[str, Any] = {"parse_constant": _reject_constant} if finite else {}
    # Numbers are looked at one by one only where one of them may be too large.
    if finite and (isinstance(text, bytes) or _MAY_BE_HUGE.search(text)):
        kinds["parse_float"] = _parse_finite_float
        kinds["parse_int"] = _parse_finite_int
    try:
        return json.loads(text, object_pairs_hook=_dict_without_duplicates, **kinds)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _dict_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {truncate(repr(twice), 60)} occurs twice")
    return content


def _reject_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _parse_finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits:.20} is not a finite number")
    return number


def _parse_finite_int(digits: str) -> int:
    _parse_finite_float(digits)  # who reads the number may convert it
    return int(digits)


def not_writable_error(path: Path, error: OSError, option: str = "") -> InputError:
    """Return the InputError for an output path that cannot be written; ``option`` names the path in the message."""
    what = f"the folder of {option}" if option else "the output folder"
    named = "" if option else " (--out on the command line)"
    return InputError(
        f"{what} must be writable",
        f"{path} ({error.strerror or error})",
        f"Choose another folder{named}, free some space, or change its permissions.",
    )
