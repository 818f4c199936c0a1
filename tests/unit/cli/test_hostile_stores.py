"""Stores of strangers: what one lists stays in the temporary folder, and what one says leads to no other host."""

import gzip
import html
import http.server
import io
import json
import shutil
import tarfile
import tempfile
import threading
import zipfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

import fedlas
from fedlas.cli import main
from fedlas.errors import InputError

fsspec = pytest.importorskip("fsspec")
asked = []
"""Paths that servers of :func:`http_page` were asked for."""
CSV = b"p,y\n" + b"0.9,1\n0.8,1\n0.2,0\n0.4,1\n0.6,0\n" * 20


@contextmanager
def zip_store(folder, names):
    with zipfile.ZipFile(folder / "e.zip", "w") as archive:
        for name in names:
            archive.writestr(name, CSV)
    yield f"zip://**::file://{folder}/e.zip"


@contextmanager
def tar_store(folder, names):
    with tarfile.open(folder / "e.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(CSV)
            archive.addfile(member, io.BytesIO(CSV))
    yield f"tar://**::file://{folder}/e.tar"


@contextmanager
def bucket(folder, names):
    """A bucket, whose keys are any text, as those of S3."""
    store = fsspec.filesystem("memory")
    for name in names:
        store.pipe_file(f"/bucket/{name}", CSV)
    try:
        yield "memory://bucket/**"
    finally:
        store.store.clear()


@contextmanager
def http_server(answer):
    """A server whose answer to a path is a status, headers and content; yield its address."""

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(f"{self.command} {self.headers['Host']}{self.path}")
            status, headers, content = answer(self.path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else content)

        do_HEAD = do_POST = do_GET  # noqa: N815 - the names that the server calls

        def log_message(self, *words):
            pass

    pytest.importorskip("aiohttp")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def http_page(folder, names):
    """A page of links, and a table at each of them."""
    links = "".join(f'<a href="{html.escape(name)}">table</a>' for name in names).encode()

    def answer(path):
        is_page = path.endswith("/tables/")
        kind = {"Content-Type": "text/html" if is_page else "text/csv"}
        return 200, kind, links if is_page else CSV

    with http_server(answer) as address:
        yield f"{address}/tables/**"


STORES = {"zip": zip_store, "tar": tar_store, "bucket": bucket, "http": http_page}


@pytest.fixture
def calibration(tmp_path):
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    fitted = fedlas.calibrate(frame, probs="p", target="y", method="temperature")
    return str(fitted.save(tmp_path / "cal.json"))


@pytest.mark.parametrize("kind", STORES)
def test_a_store_without_tricks_is_read(kind, tmp_path, calibration):
    out = tmp_path / "out.csv"
    with STORES[kind](tmp_path, ["a.csv", "b.csv"]) as store:
        assert main(["apply", calibration, store, "--out", str(out)]) == 0
    assert out.read_bytes().count(b"\n") == 201


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("name", ["x.csv", ".profile"])
def test_store_names_stay_within_temporary_folder(kind, name, tmp_path, calibration, capsys):
    """A member of a zip replaced the user's ``.profile``, status 0."""
    home = tmp_path / "home"
    home.mkdir()
    (home / name).write_text("precious")
    out = tmp_path / "out.csv"
    columns = ["--probs", "p", "--target", "y"]
    with STORES[kind](tmp_path, ["a.csv", f"{'../' * 12}{home}/{name}"]) as store:
        files, pattern = fsspec.core.url_to_fs(store)
        # Of some stores fsspec says so from 2026.3 on.
        listed = any(".." in path and files.isfile(path) for path in files.glob(pattern))
        for words in (
            ["apply", calibration, store, "--out", str(out)],
            ["calibrate", store, *columns, "--out", str(tmp_path / "new.json")],
            ["evaluate", store, *columns, "--replicates", "0"],
        ):
            status = main(words)
            error = " ".join(capsys.readouterr().err.split())
            assert not listed or (status == 2 and f"{home}/{name}"[-20:] in error)
        with pytest.raises(InputError, match=name) if listed else nullcontext():
            fedlas.read_predictions(store, probs="p", target="y")
    assert not (listed and (out.exists() or (tmp_path / "new.json").exists()))
    assert (home / name).read_text() == "precious"
    assert [path.name for path in home.iterdir()] == [name]


def test_two_names_of_a_store_are_two_files(tmp_path, calibration, capsys):
    """The rows of the first were lost."""
    with bucket(tmp_path, ["a/b.csv", "a//b.csv"]) as store:
        assert main(["apply", calibration, store, "--out", str(tmp_path / "out.csv")]) == 2
    assert "bucket/a" in capsys.readouterr().err


MIB = 2**20
GROWN = CSV + b"0.5,1\n0.7,0\n" * (20 * MIB // 12)
"""20 MiB of a table, which pack to 1/200 or less."""


def zip_with_growing_member(path, names):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, GROWN)


def tar_with_growing_member(path, names):
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(GROWN)
            archive.addfile(member, io.BytesIO(GROWN))


def tar_with_sparse_member(path, names):
    """As GNU tar writes files with holes: one block, of a file of a tebibyte."""
    sparse = tarfile.TarInfo(names[0])
    sparse.type = tarfile.GNUTYPE_SPARSE
    sparse.size = len(CSV)
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(CSV))
    header[483:495] = b"%011o\0" % 2**32
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(bytes(header) + CSV.ljust(-len(CSV) // 512 * -512, b"\0") + bytes(1024))


def tar_with_long_header(path, names):
    """The header that names a member has 24 MiB, which Python reads at once."""
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(names[0])
        member.pax_headers = {"comment": "a" * (24 * MIB)}
        archive.addfile(member)


GROWING = {
    "zip": ("e.zip", zip_with_growing_member, ["a.csv"]),
    "zip of two members": ("e.zip", zip_with_growing_member, ["b.csv", "a.csv"]),
    "gzip": ("e.tar.gz", tar_with_growing_member, ["a.csv"]),
    "gzip, another member": ("e.tar.gz", tar_with_growing_member, ["a.bin", "a.csv"]),
    "xz": ("e.tar.xz", tar_with_growing_member, ["a.csv"]),
    "hole": ("e.tar", tar_with_sparse_member, ["a.csv"]),
    "header": ("e.tar.gz", tar_with_long_header, ["a.csv"]),
}


@pytest.mark.parametrize("case", GROWING)
def test_a_member_that_grows_is_refused(case, tmp_path, calibration, capsys, monkeypatch):
    """2 MB became 2 GB in the place for temporary files; packed alone the same bytes were refused."""
    name, make, names = GROWING[case]
    make(tmp_path / name, names)
    assert (tmp_path / name).stat().st_size < len(GROWN) / 100
    member = "*.csv" if "two" in case else "a.csv"
    address = f"{name.split('.')[1]}://{member}::file://{tmp_path}/{name}"
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    most = []
    remove_folder = shutil.rmtree

    def remove_and_measure(folder, *args, **options):
        most.append(sum(path.stat().st_size for path in Path(folder).rglob("*")))
        remove_folder(folder, *args, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_and_measure)
    assert main(["apply", calibration, address, "--out", str(tmp_path / "out.csv")]) == 2
    assert "ratio of a file must be at most 100" in " ".join(capsys.readouterr().err.split())
    assert max(most, default=0) < 24 * MIB


def test_archive_within_an_archive_is_refused(tmp_path, calibration, capsys):
    """Each of them may grow a hundredfold, and to skip in the inner one is to unpack it."""
    with zip_store(tmp_path, ["a.csv"]), zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "e.zip", "e.zip")
    out = str(tmp_path / "out.csv")
    for inner in ("zip://e.zip::", "zip::"):
        address = f"zip://a.csv::{inner}file://{tmp_path}/outer.zip"
        assert main(["apply", calibration, address, "--out", out]) == 2
        assert "must lead through at most one archive" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("end", ["gz", "bz2", "xz"])
def test_packed_tar_of_common_size_is_read(end, tmp_path, calibration):
    with tarfile.open(tmp_path / f"e.tar.{end}", f"w:{end}") as archive:
        member = tarfile.TarInfo("a.csv")
        member.size = len(CSV)
        archive.addfile(member, io.BytesIO(CSV))
    out = tmp_path / "out.csv"
    address = f"tar://a.csv::file://{tmp_path}/e.tar.{end}"
    assert main(["apply", calibration, address, "--out", str(out)]) == 0
    assert out.read_bytes().count(b"\n") == 101


@pytest.mark.parametrize("kind", ["zip", "tar", "bucket"])
def test_only_tables_of_a_store_are_copied(kind, tmp_path, calibration, capsys, monkeypatch):
    copied = []
    with STORES[kind](tmp_path, ["a.csv", "big.iso"]) as store:
        protocol = store.partition(":")[0]
        store_class = fsspec.get_filesystem_class(protocol)
        monkeypatch.setattr(store_class, "get_file", lambda self, *names: copied.append(names))
        assert main(["apply", calibration, store, "--out", str(tmp_path / "out.csv")]) == 2
    assert "the file name must end in .csv, .tsv" in " ".join(capsys.readouterr().err.split())
    assert not copied


@pytest.mark.parametrize(
    "address",
    [
        "reference://a.csv::file://{folder}/ref.json",
        "reference://**::{folder}/ref.json",
        "zip://a.csv::simplecache::reference://e.zip::file://{folder}/ref.json",
        "zip://a.csv::reference://e.zip::file://{folder}/ref.json",
        "zip://a.csv::reference::{folder}/ref.json",
        "generic://{folder}/a.csv",
        "nostore://bucket/a.csv",
    ],
)
def test_only_stores_that_the_user_names_are_asked(address, tmp_path, calibration, capsys):
    """A stranger's JSON named hosts, which ``reference://`` read."""
    with http_page(tmp_path, []) as page:
        target = page.removesuffix("**") + "a.csv"
        refs = {"version": 1, "refs": {"a.csv": [target], "e.zip": [target]}}
        (tmp_path / "ref.json").write_text(json.dumps(refs))
        asked.clear()
        named = address.format(folder=tmp_path)
        out = str(tmp_path / "out.csv")
        assert main(["apply", calibration, named, "--out", out]) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert main(["apply", calibration, str(tmp_path / "ref.json"), "--out", named]) == 2
    assert not asked
    protocol = next(name for name in ("reference", "generic", "nostore") if name in address)
    assert "the protocol of an address must be one of abfs, " in error
    assert protocol in error or "simplecache" in error


REDIRECTS = {
    "port": "{other}/a.csv",
    "name": "http://localhost:{port}/a.csv",
    "encrypted": "https://127.0.0.1:{port}/a.csv",
    "user": "http://127.0.0.1:{port}@{other_host}/a.csv",
    "no scheme": "//{other_host}/a.csv",
    "capitals": "HTTP://LOCALHOST:{port}/a.csv",
}


@pytest.mark.parametrize("kind", REDIRECTS)
def test_store_that_leads_to_another_host_is_refused(kind, tmp_path, calibration, capsys):
    """A page asked for on one host was read from, and an output compared with, another."""

    def lead_away(path):
        host = other.removeprefix("http://")
        target = REDIRECTS[kind].format(other=other, other_host=host, port=port)
        return 302, {"Location": target}, b""

    with http_server(lambda path: (200, {}, CSV)) as other, http_server(lead_away) as address:
        port = address.rpartition(":")[2]
        asked.clear()
        (tmp_path / "live.csv").write_bytes(CSV)
        out = ["--out", str(tmp_path / "out.csv")]
        for words in (
            [f"{address}/a.csv", *out],
            [f"{address}/x/*.csv", *out],
            [f"zip://a.csv::{address}/a.zip", *out],
            [str(tmp_path / "live.csv"), "--out", f"{address}/b.csv"],
        ):
            assert main(["apply", calibration, *words]) == 2
            error = " ".join(capsys.readouterr().err.split())
            assert "a store must not lead to another host" in error
            assert f"from {address}" in error
        assert asked
        assert {line.split(" ")[1].partition("/")[0] for line in asked} == {address[7:]}
    assert not (tmp_path / "out.csv").exists()


def test_link_of_a_page_leads_to_no_other_host(tmp_path, calibration):
    """A link that begins as the page's address does: what stands before ``@`` is a user of another host."""
    links = []
    with (
        http_server(lambda path: (200, {}, CSV)) as other,
        http_server(lambda path: (200, {"Content-Type": "text/html"}, links[0])) as page,
    ):
        links.append(f'<a href="{page}@{other[7:]}/x/">'.encode())
        asked.clear()
        assert main(["apply", calibration, f"{page}/**", "--out", str(tmp_path / "o.csv")]) == 2
    assert {line.split(" ")[1].partition("/")[0] for line in asked} == {page[7:]}


def test_redirect_on_the_same_host_is_followed(tmp_path, calibration):
    def answer(path):
        if path == "/a.csv":
            return 302, {"Location": "/moved/b.csv"}, b""
        return 200, {"Content-Type": "text/csv"}, CSV

    out = tmp_path / "out.csv"
    with http_server(answer) as address:
        assert main(["apply", calibration, f"{address}/a.csv", "--out", str(out)]) == 0
    assert out.read_bytes().count(b"\n") == 101


def test_packed_transfer_of_a_server_is_not_unpacked(tmp_path, calibration, capsys):
    """`Content-Encoding: gzip` let 100 kB become any size on the disk."""

    def answer(path):
        return 200, {"Content-Type": "text/csv", "Content-Encoding": "gzip"}, gzip.compress(CSV)

    with http_server(answer) as address:
        words = ["apply", calibration, f"{address}/a.csv", "--out", str(tmp_path / "out.csv")]
        assert main(words) == 2
    assert "a gzip archive" in " ".join(capsys.readouterr().err.split())
