"""Everything that one call writes, checked before its work: against what it reads, and against each other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedlas._core.outputs import Kind, check_place, is_of_kind, not_replaced
from fedlas.predictions.tables.files import (
    Name,
    address_of,
    check_apart,
    local_address,
    stored_copy,
)


@dataclass(frozen=True)
class Output:
    """A file that a call writes.

    Attributes:
        option: The option that names it, for messages.
        place: The file, or its address in a store; None where none is written.
        kind: What is written, which alone it may replace.
    """

    option: str
    place: str | Path | None
    kind: Kind


def check_outputs(outputs: Iterable[Output], read: Sequence[Name | None]) -> None:
    """Check all files that a call writes: each replaces at most one of its kind, and none that the call uses.

    Args:
        outputs: What is written.
        read: What is read: files, folders, patterns and addresses; None for those that are not there.

    Raises:
        InputError: If one cannot be written, or would replace something else.

    Example:
        >>> from fedlas._core.outputs import new_kind
        >>> check_outputs([Output("--page", "a.html", new_kind()), Output("--out", "./a.html", new_kind())], ["b.csv"])
        Traceback (most recent call last):
        fedlas._core.errors.InputError: --out must be another file than --page; got ./a.html. Name it elsewhere.
    """
    earlier: list[Output] = []
    for output in outputs:
        if output.place is None:
            continue
        # What is read is named first: its kind says less.
        check_apart(output.option, output.place, read)
        for other in earlier:
            check_apart(output.option, output.place, [other.place], other.option)
        earlier.append(output)
    for output in earlier:
        address = address_of(output.place)
        here = output.place if address is None else local_address(address)
        if here is not None:
            check_place(output.option, here, output.kind)
        elif address is not None:
            _check_stored(output.option, address, output.kind)


def check_report(folder: Path, page: str, kind: Kind, others: Sequence[str]) -> None:
    """Check the files of a report in a folder: a page, and others that are only replaced next to such a page."""
    beside = replace(kind, is_one=lambda _: is_of_kind(folder / page, kind), suffixes=())
    places = [Output(f"the file {page}", folder / page, kind)]
    places += [Output(f"the file {name}", folder / name, beside) for name in others]
    check_outputs(places, ())


def _check_stored(option: str, address: str, kind: Kind) -> None:
    """Check that what is at an address, if anything, may be replaced."""
    with tempfile.TemporaryDirectory(prefix="fedlas-") as folder:
        copy = stored_copy(address, Path(folder))
        if copy is None or is_of_kind(copy, kind):
            return
    raise not_replaced(option, address, kind)
