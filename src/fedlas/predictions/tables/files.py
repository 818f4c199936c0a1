"""Files of a table: paths, patterns, folders of Parquet, standard input, and remote addresses read by fsspec."""

from __future__ import annotations

import os
import posixpath
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from glob import glob, has_magic
from pathlib import Path
from typing import IO, Any

from fedlas._core.check import InputError
from fedlas._core.files import require_inside, require_no_device, write_atomically
from fedlas._core.outputs import STANDARD_STREAM
from fedlas._core.temporary import private_folder, remove_stale_folders
from fedlas._core.terminal import standard_input
from fedlas.predictions.tables.formats.compression import data_suffix
from fedlas.predictions.tables.stores import limit_growth, open_store, translate_store_errors

FORMATS = {
    ".csv": "delimited.Delimited",
    ".tsv": "delimited.Delimited",
    ".jsonl": "json_lines.JsonLines",
    ".ndjson": "json_lines.JsonLines",
    ".parquet": "parquet.Parquet",
    ".npz": "npz.Archive",
}
"""What reads a file, by the end of its name: a class in a module of this package, imported when it is needed, since
``--help`` names all formats. The class of this name and ``Writer`` writes its rows again with more columns."""
_SHEET = "Save it as CSV (File, Save As), or read it with pandas and pass the frame to Predictions.from_frame."
_PICKLE = "Save the arrays with numpy.savez; pickles can run code."
_OTHERS = dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET) | dict.fromkeys(
    (".pkl", ".pt", ".pth"), _PICKLE
)
_OTHERS |= {".json": "Write one object per line, and name the file .jsonl."}
_OTHERS |= dict.fromkeys((".zip", ".bz2", ".xz"), "Unpack it.")
_OTHERS |= dict.fromkeys(
    (".gz", ".zst"), "Name it .csv.gz or .jsonl.gz if it holds CSV or JSON lines."
)
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(/?)(?=[^/])", re.ASCII)
_MAGIC = {b"PAR1": ".parquet", b"PK\x03\x04": ".npz"}
_HEAD = 1 << 20
"""Bytes of a text that hold its names."""
READS = "the address must be a file, folder or pattern that fsspec can read"
WRITES = "the address must be a file that fsspec can write"
_PARTITION = re.compile(r"([A-Za-z_]\w*)=(.*)", re.ASCII)


@dataclass(frozen=True)
class TableFile:
    """A file of a table, with the partition columns in its folder names, such as ``year=2026``.

    Only files of a folder or of a pattern have such columns: the path of a single file says nothing about its rows.
    """

    path: Path
    partition: Mapping[str, str] = field(default_factory=dict, hash=False)
    # Name in messages if files of several folders share a name; if empty, the name of the file.
    label: str = ""

    @property
    def name(self) -> str:
        """Name of the file in messages."""
        return self.label or self.path.name


Name = str | Path | TableFile
"""A path, a pattern, a folder or an address; or a file that one of them names."""


def format_suffix(path: Path) -> str:
    """Return the suffix that names the format of a table's file, a key of :data:`FORMATS`.

    Raises:
        InputError: If no format has such a name.
    """
    suffix = data_suffix(path)
    if suffix not in FORMATS:
        raise InputError(
            f"the file name must end in {', '.join(FORMATS)}",
            path.name,
            _OTHERS.get(suffix, "Rename or convert the file."),
        )
    return suffix


def store_address(name: object) -> str | None:
    """Return the remote address in a name, such as ``s3://bucket/a.csv``, or None for a local path.

    Example:
        >>> store_address("s3://bucket/a.csv"), store_address(Path("s3://bucket/a.csv")), store_address("a.csv")
        ('s3://bucket/a.csv', 's3://bucket/a.csv', None)
        >>> store_address("hdfs:///data/a.csv"), store_address(Path("file:///data/a.csv"))
        ('hdfs:///data/a.csv', 'file:///data/a.csv')
    """
    # A Path has one slash of the two.
    text = str(name) if isinstance(name, str | Path) else ""
    match = _ADDRESS.match(text)
    if match is None or os.path.lexists(text):
        return None
    if text.startswith("file:/") and text[6] != "/":
        return f"file:///{text[6:]}"  # it names no machine
    return f"{match[1]}://{match[2]}{text[match.end() :]}"


@contextmanager
def local_copies(names: Sequence[Name]) -> Iterator[list[Name]]:
    """Open names as local ones: standard input and remote files are copied to a temporary folder.

    Raises:
        InputError: If a store cannot be read.
    """
    remove_stale_folders()
    if not any(str(name) == STANDARD_STREAM or store_address(name) for name in names):
        yield [*names]
        return
    with private_folder() as folder:
        yield [_copy_to_local(name, folder / str(place)) for place, name in enumerate(names)]


@contextmanager
def local_table_files(names: Sequence[Name]) -> Iterator[list[TableFile]]:
    """Open the files of names; standard input and remote files are copied to a temporary folder.

    Raises:
        InputError: If a pattern matches none, or a store cannot be read.
    """
    with local_copies(names) as here:
        files = find_files(here)
        for file in files:
            require_no_device(file.path)
        yield files


def find_files(names: Sequence[Name]) -> list[TableFile]:
    """Return the files of paths, of patterns with ``*``, ``?`` or ``[``, and of folders.

    Raises:
        InputError: If a pattern matches none, or a folder holds no Parquet file.
    """
    files: list[TableFile] = []
    for name in names:
        if isinstance(name, TableFile):
            files.append(name)
        elif (address := store_address(name)) is not None:
            raise InputError("the file must be local", address, "Copy it to this machine.")
        elif os.path.isdir(name):  # noqa: PTH112 - Path.is_dir may raise
            files += map(partitioned_file, _find_parquet_files(Path(name)))
        elif not has_magic(str(name)) or os.path.lexists(name):
            files.append(TableFile(Path(name)))
        else:
            paths = sorted(glob(str(name)))  # noqa: PTH207 (it may be absolute)
            if not paths:
                raise _no_match_error(name)
            files += map(partitioned_file, map(Path, paths))
    return add_folder_labels(files)


def add_folder_labels(files: list[TableFile]) -> list[TableFile]:
    """Return the files with their folders in their labels, if several files share a name."""
    if len({file.path.name for file in files}) == len(files):
        return files
    folders = [os.path.abspath(file.path.parent) for file in files]  # noqa: PTH100 - links stay
    common = os.path.commonpath(folders)
    return [
        replace(file, label=Path(os.path.relpath(folder, common), file.path.name).as_posix())
        for file, folder in zip(files, folders, strict=True)
    ]


def resolve_store_path(name: str | Path, expected: str) -> tuple[Any, str]:
    """Return the remote file system of a file (None if local) and its normalized path there."""
    address = store_address(name)
    if address is None:
        return None, Path(os.path.realpath(name)).as_posix()
    with translate_store_errors(address, expected):
        store, path = open_store(address)
    if "file" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,)):
        return None, Path(os.path.realpath(path)).as_posix()
    return store, posixpath.normpath(path)


def partitioned_file(path: Path) -> TableFile:
    """Return a file of a folder or pattern, with the partition columns in its folder names."""
    folders = map(_PARTITION.fullmatch, path.parts[:-1])
    return TableFile(path, {match[1]: match[2] for match in folders if match})


def has_parquet_files(folder: Path) -> bool:
    """Return whether a path is a folder with Parquet files."""
    with suppress(InputError):
        return folder.is_dir() and bool(_find_parquet_files(folder))
    return False


def _find_parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder and its subfolders, sorted, without hidden ones.

    Raises:
        InputError: If there are none.
    """
    files = sorted(
        file
        for file in folder.rglob("*.parquet")
        if not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    )
    if not files:
        raise _no_parquet_error(folder)
    return files


def _no_match_error(pattern: Name) -> InputError:
    return InputError(
        "the pattern must match at least one file",
        repr(str(pattern)),
        "Check the pattern, and put it in quotes.",
    )


def _no_parquet_error(folder: str | Path) -> InputError:
    fix = "Name files of other formats by a pattern, such as '*.csv'."
    return InputError("a folder must hold Parquet files", folder, fix)


def _copy_to_local(name: Name, folder: Path) -> Name:
    """Return the name of a local copy in a folder; a local name is returned unchanged."""
    if str(name) == STANDARD_STREAM:
        return _save_standard_input(folder)
    address = None if isinstance(name, TableFile) else store_address(name)
    if address is None:
        return name
    with translate_store_errors(address, READS):
        store, root = open_store(address)
        paths = [root]
        error = _no_match_error(address)
        if has_magic(root):
            paths = [path for path in store.glob(root) if store.isfile(path)]
        elif store.isdir(root):
            paths = [path for path in store.find(root) if path.endswith(".parquet")]
            error = _no_parquet_error(address)
        elif data_suffix(Path(root)) not in FORMATS:
            store.info(root)  # a missing file is refused as that, not for its name
    if not paths:
        raise error
    # All names are checked before the first file is copied: a store may be a stranger's.
    copies: dict[Path, str] = {}
    for path in paths:
        copy = _copy_path(path, folder, address)
        format_suffix(copy)
        if copy in copies:
            raise InputError(
                "remote files must have different names",
                f"{copies[copy]} and {path} in {address}",
                "Name only one of them.",
            )
        copies[copy] = path
    with translate_store_errors(address, READS):
        options = limit_growth(address)
        for copy, path in copies.items():
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.touch(0o600)
            store.get_file(path, str(copy), **options)
    return folder / root.lstrip("/")


def _copy_path(path: str, folder: Path, address: str) -> Path:
    """Return the path in ``folder`` to which the remote file ``path`` is copied.

    Raises:
        InputError: If it leads out of that folder.
    """
    try:
        return require_inside(folder, folder / path.lstrip("/"))
    except InputError as error:
        raise InputError(
            "paths of remote files must stay inside the address",
            f"{path} in {address}",
            "Name the files that you want: such a path could overwrite local files.",
        ) from error


def _save_standard_input(folder: Path) -> Path:
    """Write standard input to a file named by its format, and return the path."""
    stream = standard_input()
    head = stream.read(1 << 16)
    suffix = _MAGIC.get(head[:4]) or (".jsonl" if head.lstrip()[:1] == b"{" else ".csv")
    folder.mkdir()
    path = folder / f"standard-input{suffix}"
    path.touch(0o600)
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(stream, file, 1 << 20)
    return path


def write_local_or_remote(out: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a local or remote file under a temporary name and rename it once it is complete.

    Raises:
        InputError: If it cannot be written; what was there before is then unchanged.
    """
    address = store_address(out)
    if address is None:
        write_atomically(out, write)
        return
    with private_folder() as folder:
        local = write_atomically(folder / "table", write)
        with translate_store_errors(address, WRITES):
            store, path = open_store(address)
            head, slash, tail = path.rpartition("/")
            part = f"{head}{slash}.{tail}.{secrets.token_hex(4)}.fedlas.part"
            try:
                store.put_file(str(local), part)
                store.mv(part, path)
            except BaseException:
                with suppress(Exception):
                    store.rm_file(part)
                raise


def to_local_path(address: str) -> Path | None:
    """Return the local path of an address on this machine, or None for a remote one."""
    store, path = resolve_store_path(address, WRITES)
    return Path(path) if store is None else None


def fetch_remote_copy(address: str, folder: Path) -> Path | None:
    """Return a local copy of the remote file, cut to its header or footer if large; None if there is no file.

    Texts have them in their first part, Parquet and ``.npz`` in their last, where more than a MiB of them is no table.

    Raises:
        InputError: If the store cannot be read, or a folder is there.
    """
    with translate_store_errors(address, WRITES):
        store, path = open_store(address)
        if not store.exists(path):
            return None
        copy = folder / f"stored{''.join(Path(path).suffixes[-2:])}"
        size = store.size(path) or 0
        with copy.open("wb") as file:
            file.write(store.cat_file(path, start=0, end=_HEAD))
            if size > _HEAD and Path(path).suffix.lower() in (".parquet", ".npz"):
                start = max(size - _HEAD, _HEAD)
                file.seek(start)  # places in the file are counted from its beginning
                file.write(store.cat_file(path, start=start, end=size))
    return copy
