"""Archives and safetensors: what a header claims is checked before memory is taken, whichever way a file is read."""

import gc
import io
import json
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from fedlas._core import arrays
from fedlas._core.arrays import from_safetensors, open_arrays, to_safetensors
from fedlas.errors import InputError
from fedlas.lab.data.sets.folders import read_npz
from fedlas.lab.runs.folder import RunFolder
from fedlas.predictions import Columns, Predictions, open_table, read_predictions
from fedlas.zoo.ood import Outputs

NAMES = ["logits", "target", "features", "about", "train", "val", "test"]
NAMES += [f"{part}_{what}" for part in ("train", "test") for what in ("images", "target")]


def npy(shape, descr="'<f4'", body=b"", *, by_column=False, version=b"\1\0"):
    header = f"{{'descr': {descr}, 'fortran_order': {by_column}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header + body


def archive(member, method=zipfile.ZIP_DEFLATED):
    """An archive with this member under every name that is read."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name in NAMES:
            file.writestr(f"{name}.npy", member)
    return out.getvalue()


def marked(content, offset, value):
    """The archive with two bytes of each entry replaced, in both of its tables."""
    content = bytearray(content)
    for mark, start in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + start + offset : place + start + offset + 2] = value.to_bytes(
                2, "little"
            )
            place = content.find(mark, place + 4)
    return bytes(content)


NUMBERS = npy((4, 2), body=np.zeros(8, "<f4").tobytes())
HOSTILE = {
    "a header of 36 TiB": (
        archive(npy((10**13, 1), body=b"x" * 100)),
        r"claims shape \(10000000000000, 1\)",
    ),
    "the same by column": (
        archive(npy((10**13, 1), body=b"x" * 100, by_column=True)),
        "claims shape",
    ),
    "a negative shape": (archive(npy((-4, 2), body=b"x" * 100)), "claims shape"),
    "objects": (archive(npy((4,), "'|O'", b"\x80\x04K\x01.")), "dtype object"),
    "fields": (archive(npy((4,), "[('a', '<f4')]", bytes(16))), "only numbers"),
    "text of no width": (archive(npy((2**60, 2), "'<U0'")), "only numbers"),
    "a nested header": (
        archive(b"\x93NUMPY\1\0" + (9000).to_bytes(2, "little") + b"(" * 9000),
        "Error",
    ),
    "a dtype that is none": (archive(npy((4,), "'nonsense'")), "not a valid dtype"),
    "a later format": (archive(npy((4, 2), version=b"\3\0")), "structured dtype"),
    "encrypted": (marked(archive(NUMBERS), 0, 1), "encrypted"),
    "compressed in an unknown way": (marked(archive(NUMBERS), 2, 97), "compression method"),
    "one array, no archive": (NUMBERS, "not a zip file"),
    "a pickle": (b"\x80\x04K\x01.", "not a zip file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_every_reader_refuses(tmp_path, kind):
    path, (content, message) = tmp_path / "splits.npz", HOSTILE[kind]
    path.write_bytes(content)
    readers = [
        lambda: Predictions.load(path),
        lambda: read_predictions(path, Columns(logits="logits", target="target")),
        lambda: Outputs.load(path),
        lambda: read_npz("npz", path),
        lambda: RunFolder(tmp_path).splits,
    ]
    for read in readers:
        with pytest.raises(InputError, match=message):
            read()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_RATIO_EXEMPT_BYTES", 2**16)
    path = tmp_path / "bomb.npz"
    path.write_bytes(archive(npy((2**17, 2), body=bytes(2**20))))
    for columns in (None, Columns(logits="logits", target="target")):
        with pytest.raises(InputError, match=r"over 100 times, 1,048,\d{3} bytes"):
            read_predictions(path, columns)


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "available_memory", lambda: 1000)
    path = tmp_path / "large.npz"
    np.savez(path, logits=np.zeros((40, 10), "f4"), target=np.zeros(40, "i8"))
    for columns in (None, Columns(logits="logits", target="target")):
        with pytest.raises(InputError, match=r"'logits' needs .* GiB"):
            read_predictions(path, columns)


def test_table_larger_than_memory_is_read_in_chunks(tmp_path, monkeypatch):
    path = tmp_path / "large.npz"
    logits = np.random.default_rng(0).normal(size=(9000, 10)).astype("f4")
    np.savez(path, logits=logits, target=np.zeros(9000, "i8"))
    monkeypatch.setattr(arrays, "available_memory", lambda: 9000 * 10 * 4 - 1)
    table = open_table(path, Columns(logits="logits", target="target"))
    parts = [part for part, _ in table.blocks()]
    assert len(parts) == 2
    np.testing.assert_array_equal(np.concat(parts), logits)


def test_rows_that_hold_nothing_end_at_once(tmp_path):
    path = tmp_path / "empty.npz"
    path.write_bytes(archive(npy((2**60, 0))))
    with pytest.raises(InputError, match="at least one number per row"):
        read_predictions(path, Columns(logits="logits", target="target"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_whole_archives_are_read_as_numpy_reads_them(tmp_path, save):
    kept = {
        "rows": np.arange(12.0).reshape(4, 3), "columns": np.asfortranarray(np.arange(12).reshape(4, 3)),
        "text": np.array(["a", "bcd"]), "scalar": np.array("{}"), "none": np.zeros((0, 3)), "bits": np.array([True]),
        "same": np.zeros(10**6, "i8"),
    }  # fmt: skip
    save(tmp_path / "kept.npz", **kept)
    with open_arrays(tmp_path / "kept.npz") as found:
        assert found.names == list(kept)
        assert "rows" in found
        assert "other" not in found
        for name, values in kept.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype


def test_memory_that_is_left():
    left = arrays.available_memory()
    assert left is None or left > 2**20
    arrays.require_memory(2**10, "a little")
    if left is not None:
        with pytest.raises(ValueError, match="all of it needs"):
            arrays.require_memory(2**60, "all of it")


def test_headers_are_parsed_by_one_thread(tmp_path, collector_that_switches_threads):
    """Python 3.11 before 3.11.8 raises SystemError where ``ast.parse`` runs in two threads at once."""
    np.savez(tmp_path / "a.npz", a=np.zeros((5, 3)), b=np.arange(4))

    def read(_):
        with open_arrays(tmp_path / "a.npz") as opened:
            return [opened["a"].shape + opened["b"].shape for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [[(5, 3, 4)] * 20] * 8


@pytest.fixture
def collector_that_switches_threads():
    threshold = gc.get_threshold()
    interval = sys.getswitchinterval()

    def run_python(phase, info):
        for _ in range(50):
            pass

    gc.callbacks.append(run_python)
    gc.set_threshold(20)
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)
    gc.set_threshold(*threshold)
    gc.callbacks.remove(run_python)


TENSORS = {
    "weight": torch.randn(3, 5),
    "half": torch.randn(7).half(),
    "brain": torch.randn(2, 2).bfloat16(),
    "count": torch.tensor(5),
    "none": torch.empty(0, 4),
    "flags": torch.tensor([True, False]),
    "turned": torch.randn(4, 3, dtype=torch.float64).T,
    "conv": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
}


def test_tensors_come_back():
    tied = {**TENSORS, "tied": TENSORS["weight"]}
    tensors, metadata = from_safetensors(to_safetensors(tied, {"note": "grün"}))
    assert metadata == {"note": "grün"}
    assert tensors.keys() == tied.keys()
    for name, value in tied.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value), name
    tensors["weight"].add_(1)  # writable


def damaged(change):
    content = to_safetensors({"w": torch.zeros(4)}, {})
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 20,
        (5).to_bytes(8, "little") + b"[1,2]",
        damaged(lambda header: header["w"].update(shape=[5])),
        damaged(lambda header: header["w"].update(shape=[0, 10**30], data_offsets=[0, 0])),
        damaged(lambda header: header["w"].update(shape=[0, 2**62, 2**62], data_offsets=[0, 0])),
        damaged(lambda header: header["w"].update(shape=[-4])),
        damaged(lambda header: header["w"].update(shape=[2.0, 2])),
        damaged(lambda header: header["w"].update(shape="four")),
        damaged(lambda header: header["w"].update(dtype="OBJECT")),
        damaged(lambda header: header["w"].update(data_offsets=[0, 99])),
        damaged(lambda header: header["w"].update(data_offsets=[16, 0])),
        damaged(lambda header: header["w"].update(data_offsets=[-16, 0])),
        damaged(lambda header: header.update(w=[])),
        damaged(lambda header: header.update(__metadata__={"a": 1})),
    ],
)
def test_damaged(content):
    with pytest.raises(ValueError, match="safetensors"):
        from_safetensors(content)
