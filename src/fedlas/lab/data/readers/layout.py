"""Folder of a published data set: where it is, and what is wrong if it is not as published."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedlas._core.check import InputError
from fedlas.lab.data.readers.roots import ENVIRONMENT, data_folder

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z")
_UNPACK = {".zip": "unzip -q {} -d {}", ".7z": "7z x {} -o{}"}


@dataclass(frozen=True)
class Layout:
    """Files and folders of a published data set.

    Args:
        owner: Registry name, for errors.
        marks: What its folder must hold: files, or folders that are not empty.
        names: Usual names of the folder below a root, the published one first.
        words: Lower-case prefixes by which its archive is recognized.
        source: Where to get it, as a full sentence.
    """

    owner: str
    marks: tuple[str, ...]
    names: tuple[str, ...]
    words: tuple[str, ...]
    source: str

    def locate(self, root: str | None) -> Path:
        """The folder of the data set: ``root`` (None: ``$FEDLAS_DATA``) or one of the usual names below it.

        Raises:
            InputError: If it is not there. The message says whether it is a level higher or deeper, incomplete or still
                an archive, and what to do.
        """
        folder = data_folder(root)
        if folder is None:
            got = f"no root, and ${ENVIRONMENT} is not set"
            raise self._error(got, f"Pass root=FOLDER or set {ENVIRONMENT}. {self.source}")
        try:
            return self._locate(folder)
        except OSError as error:
            raise InputError(self.owner, "the folder must be readable", error, "Change its permissions.") from error

    def _locate(self, folder: Path) -> Path:
        if folder.is_file():
            raise self._error(*(_archived(folder) if _ending(folder) else (f"the file {folder}", self.source)))
        places = [folder, *(folder / name for name in self.names)]
        for place in places:
            if not self._missing(place):
                return place
        if not folder.is_dir():
            raise self._error(f"{folder}, which does not exist", f"Check the path. {self.source}")
        # Not there: is it near, incomplete, or still an archive?
        best = min(places, key=lambda place: len(self._missing(place)))
        near = misplaced(folder, lambda place: not self._missing(place), ())
        if near is None and len(missing := self._missing(best)) < len(self.marks):
            fix = "The archive was extracted only in part: extract it again."
            raise self._error(f"{best} without {', '.join(missing)}", f"{fix} {self.source}")
        near = near or misplaced(folder, lambda place: not self._missing(place), self.words)
        raise self._error(*(near or (f"none of them in {folder}", f"Check the path. {self.source}")))

    def _error(self, got: str, fix: str) -> InputError:
        return InputError(self.owner, f"its folder must hold {', '.join(self.marks)}", got, fix)

    def _missing(self, place: Path) -> list[str]:
        return [mark for mark in self.marks if not _holds_something(place / mark)]


def misplaced(folder: Path, holds: Callable[[Path], bool], words: tuple[str, ...]) -> tuple[str, str] | None:
    """Why a data set is not in ``folder``: it is in a folder near it, or still an archive.

    Args:
        folder: Where it should be.
        holds: Whether a folder is the right one.
        words: Lower-case prefixes by which its archive is recognized; empty looks for no archive.

    Returns:
        What is there and what to do; None if neither is the case.
    """
    if not folder.is_dir():
        return None
    for place in _around(folder):
        if holds(place):
            way = "deeper" if folder.resolve() in place.resolve().parents else "higher"
            return f"{folder}; it lies {way}, in {place}", f"Pass {place} instead."
    for path in sorted(folder.iterdir()):
        if words and _ending(path) and path.is_file() and path.name.lower().startswith(words):
            return _archived(path)
    return None


def _archived(archive: Path) -> tuple[str, str]:
    command = _UNPACK.get(_ending(archive), "tar -xf {} -C {}").format(archive, archive.parent)
    return f"the archive {archive}, not extracted yet", f"Extract it: {command}"


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    return path.is_file()


def _around(folder: Path) -> Iterator[Path]:
    """Folders up to three levels above and two below, nearest first."""
    yield from [folder.resolve(), *folder.resolve().parents][1:4]
    below = [path for path in sorted(folder.iterdir()) if path.is_dir()][:100]
    yield from below
    for path in below:
        yield from [inner for inner in sorted(path.iterdir())[:100] if inner.is_dir()]


def _ending(path: Path) -> str:
    return next((ending for ending in _ARCHIVES if path.name.lower().endswith(ending)), "")


def require_listed(owner: str, folder: Path, names: list[str], listing: str) -> None:
    """Check that every image that a data set lists exists.

    Args:
        owner: Data set, named in errors.
        folder: What the names are relative to.
        names: Relative paths, ``/`` between their parts.
        listing: Name of the list.

    Raises:
        InputError: If some are missing; the first is named and they are counted.
    """
    held: dict[str, set[str]] = {}
    missing = []
    for name in names:
        parent, _, last = name.rpartition("/")
        if parent not in held:
            place = folder / parent
            held[parent] = set(os.listdir(place)) if place.is_dir() else set()  # noqa: PTH208  # names are all it needs
        if last not in held[parent]:
            missing.append(name)
    if missing:
        raise InputError(
            owner,
            f"every image that {listing} lists must be there",
            f"{len(missing)} of {len(names)} missing in {folder}, the first {missing[0]}",
            "The archive was extracted only in part, or images were moved: extract it again.",
        )
