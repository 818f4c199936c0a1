"""Files that are no text in UTF-8, though their names say so: UTF-16, archives, Parquet."""

from __future__ import annotations

from pathlib import Path

from fedlas._core.check import InputError

_BEGINNINGS = (
    (b"\xff\xfe", "text in UTF-16", "Save it as UTF-8."),
    (b"\xfe\xff", "text in UTF-16", "Save it as UTF-8."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it."),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "Unpack it, or save the sheet as CSV."),
    (b"PAR1", "a Parquet file", "Name it .parquet."),
)
"""First bytes of files that are no UTF-8, what they are, and the remedy."""


def check_text(path: Path) -> None:
    """Refuse a file whose first bytes are those of another form.

    Raises:
        InputError: Then; it says which, and what to do.
    """
    try:
        with path.open("rb") as file:
            first = file.read(64)
    except OSError:
        return  # reading it says why
    forms = [form for form in _BEGINNINGS if first.startswith(form[0])]
    if b"\0" in first:
        forms.append(_BEGINNINGS[0])  # without a mark
    for _, what, fix in forms[:1]:
        raise InputError(f"a {path.suffix} file must be text in UTF-8", f"{what}, {path}", fix)
