"""Files that a stranger may leave where fedlas reads, and things that may lie where it writes."""

import gzip
import io
import os
import tarfile
import zipfile

LARGE = 2**29
"""Bytes that a sparse file claims: more than a line, or a JSON file, may have."""


def _zipped(content):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner.csv", content)
    return packed.getvalue()


def _taken_into_tar(content):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("../../outside.csv")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _write(change):
    return lambda path, content: path.write_bytes(change(content))


def _link(target):
    return lambda path, _: path.symlink_to(target)


def _sparse(path, _):
    with path.open("wb") as file:
        file.truncate(LARGE)


FILES = {
    "empty": _write(lambda _: b""),
    "blank": _write(lambda _: b" \n\r\n\t\n"),
    "half": _write(lambda content: content[: len(content) // 2]),
    "half of a character": _write(lambda content: content + b"\xc3"),
    "zeros": _write(lambda content: content.replace(b"1", b"\0")),
    "wide characters": _write(lambda content: b"\xff\xfe" + content.decode().encode("utf-16-le")),
    "packed": _write(gzip.compress),
    "packed twice": _write(lambda content: gzip.compress(gzip.compress(content))),
    "archive": _write(_zipped),
    "archive within an archive": _write(lambda content: _zipped(_zipped(content))),
    "archive that leads out": _write(_taken_into_tar),
    "picture": _write(lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9),
    "program": _write(lambda _: b"\x7fELF\x02\x01\x01" + bytes(900)),
    "pickle": _write(lambda _: b"cos\nsystem\n(S'touch PWNED'\ntR."),
    "other content": _write(lambda _: b'{"format": "fedlas.card/1", "p": [1, {"y": null}]}'),
    "deep": _write(lambda _: b"[" * 100_000),
    "long line": _write(lambda content: content + b"9" * 5_000_000),
    "sparse": _sparse,
    "lost link": _link("nowhere"),
    "link to itself": lambda path, _: path.symlink_to(path.name),
    "endless device": _link("/dev/zero"),
    "pipe": lambda path, _: os.mkfifo(path),
    "folder": lambda path, _: path.mkdir(),
}
"""Makers of a file at a path, given the content that belongs there."""
PLACES = {
    "file": lambda path: path.write_text("mine"),
    "empty json": lambda path: path.write_text("{}"),
    "another kind": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60)),
    "link": lambda path: path.symlink_to("precious.txt"),
    "lost link": lambda path: path.symlink_to("nowhere.txt"),
    "device": lambda path: path.symlink_to("/dev/full"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
}
"""Makers of what lies at the path of an output, and which no command may replace."""
