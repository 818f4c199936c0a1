"""Remote file systems of addresses, opened by fsspec: which are asked, and how far what they send may grow."""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from fedlas._core.check import InputError, error_reason
from fedlas._core.extras import require
from fedlas.predictions.tables.formats.compression import SizeLimit, limit_size

_STORES = (
    *(
        "abfs",
        "abfss",
        "adl",
        "az",
        "dbfs",
        "file",
        "ftp",
        "gcs",
        "gs",
        "hdfs",
        "hf",
        "http",
        "https",
        "local",
    ),
    *(
        "memory",
        "oci",
        "oss",
        "s3",
        "s3a",
        "sftp",
        "smb",
        "ssh",
        "tar",
        "tos",
        "webdav",
        "webhdfs",
        "zip",
    ),
)
"""Protocols of addresses. Others may lead elsewhere than the address says: ``reference`` reads hosts that a file names,
``filecache`` writes copies that stay."""
_HTTP = ("http", "https")
_ARCHIVES = ("zip", "tar")
"""Protocols whose files are members of another file, which may unpack to far more than its size."""


def open_store(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path there.

    Raises:
        InputError: If a protocol in the address is none of ``_STORES``, or the address leads through two archives.
            The file system raises it where an HTTP server leads to another host.
    """
    fsspec: Any = require("fsspec", extra="tables")
    for link in address.split("::"):
        protocol, is_named, _ = link.partition("://")
        # fsspec takes a link without a protocol for one, if it is the name of one or a single word; else for a path.
        if not is_named and not (
            link in fsspec.available_protocols() or re.fullmatch("[a-z]*", link)
        ):
            protocol = "file"
        if protocol not in _STORES:
            raise InputError(
                f"the protocol of an address must be one of {', '.join(_STORES)}",
                f"{protocol!r} in {address}",
                "Copy the files to this machine, and name the copies.",
            )
    head, is_chain, base = address.partition("::")
    if (is_chain and not _is_in_archive(address)) or "::" in base:
        raise InputError(
            "an address must lead through at most one archive, zip:// or tar://",
            address,
            "Unpack the outer one: what archives within archives grow to has no bound.",
        )
    protocol, _, path = head.partition("://")
    options = {}
    if is_chain:
        options["fo"] = _open_archive(base, protocol)
    elif protocol in _HTTP:
        options["client_kwargs"] = _client_options(address)
    store, path = fsspec.core.url_to_fs(f"{protocol}://{path}", **options)
    return store, path


def _open_archive(address: str, protocol: str) -> Any:
    """Open an archive for reading; a tar file is decompressed if its name says that it is packed.

    Reading raises an InputError where it unpacks to more than :class:`SizeLimit` allows.
    """
    fsspec: Any = require("fsspec", extra="tables")
    store, path = open_store(address)
    file = store.open(path, "rb")
    packed = fsspec.utils.infer_compression(path)
    if protocol != "tar" or packed in (None, "zip"):
        return file
    limit = SizeLimit(store.size(path), posixpath.basename(path))
    return limit_size(fsspec.compression.compr[packed](file), limit)


def _client_options(address: str) -> dict[str, Any]:
    """Return the user's options of an HTTP client, by which it asks no host but that of the address.

    It also decompresses nothing: a server could let a few bytes grow to any size.
    """
    fsspec: Any = require("fsspec", extra="tables")
    options: dict[str, Any] = {}
    for protocol in _HTTP:
        options |= fsspec.config.conf.get(protocol, {}).get("client_kwargs", {})
    traces = [*options.get("trace_configs", ()), _trace_host(address)]
    headers = {**options.get("headers", {}), "Accept-Encoding": "identity"}
    return options | {"headers": headers, "trace_configs": traces, "auto_decompress": False}


def _trace_host(address: str) -> Any:
    """Return a trace that raises InputError before a client asks a host other than that of an address."""
    url: Any = importlib.import_module("yarl").URL(address)
    return _trace_origin(url.scheme, url.host, url.port)


@lru_cache(maxsize=16)  # one trace, so that file systems of one host are equal
def _trace_origin(*named: Any) -> Any:
    trace: Any = importlib.import_module("aiohttp").TraceConfig()

    async def check_request(*about: Any) -> None:
        _check_host(named, about[-1].url)

    async def check_redirect(*about: Any) -> None:
        headers, url = about[-1].response.headers, about[-1].url
        target = headers.get("Location") or headers.get("URI") or ""
        _check_host(named, url.join(type(url)(target)))

    trace.on_request_start.append(check_request)
    trace.on_request_redirect.append(check_redirect)
    return trace


def _check_host(named: tuple[Any, ...], url: Any) -> None:
    """Raise InputError if a URL has another host name, port or scheme than those named.

    Only the encrypted port of the same host name is no other host: ``http://example.org`` may lead to ``https://``.
    """
    scheme, host, port = named
    allowed = {named, ("https", host, 443)} if (scheme, port) == ("http", 80) else {named}
    if (url.scheme, url.host, url.port) not in allowed:
        raise InputError(
            "a store must not lead to another host",
            f"{url} from {scheme}://{host}:{port}",
            "Name that address yourself if you trust it.",
        )


@contextmanager
def translate_store_errors(address: str, expected: str) -> Iterator[None]:
    """Translate errors of a remote file system into InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # stores raise many kinds
        if isinstance(error.__cause__, InputError):  # fsspec says of it that there is no such file
            raise error.__cause__ from error
        fix = "Check the address and your access to it."
        if isinstance(error, ImportError):
            fix = "Install the missing package."
        raise InputError(expected, f"{address} ({error_reason(error)})", fix) from error


def limit_growth(address: str) -> dict[str, Any]:
    """Return the options of ``get_file`` that limit how many bytes the members of an archive become on the disk."""
    if not _is_in_archive(address):
        return {}
    callback: Any = require("fsspec", extra="tables").Callback
    store, path = open_store(address.partition("::")[2])
    limit = SizeLimit(store.size(path), posixpath.basename(path))

    class Growth(callback):
        """Count of the bytes of all members: several may be the same bytes of the archive."""

        copied = 0

        def relative_update(self, inc: int = 1) -> None:
            self.copied += inc
            limit.check(self.copied)

    return {"callback": Growth()}


def _is_in_archive(address: str) -> bool:
    """Return whether an address names members of an archive."""
    head, is_member, _ = address.partition("::")
    return bool(is_member) and head.partition("://")[0] in _ARCHIVES
