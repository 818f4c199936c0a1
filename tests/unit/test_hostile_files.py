"""Files of strangers that are no files, or grow far beyond their size: each is refused in a line."""

import gzip
import json
import os
import zipfile

import numpy as np
import pytest
import torch

import fedlas
from fedlas import CalibratedModel
from fedlas._core.arrays import load_tensors
from fedlas.calibrated import TableCalibration
from fedlas.calibrators import Calibrator, MultiLabelCalibration
from fedlas.cli import main
from fedlas.deploy import Card, Monitor
from fedlas.deploy.monitor.state import read_state
from fedlas.errors import InputError
from fedlas.lab.data.sets.mnist import load_mnist
from fedlas.lab.recipes import load_recipe
from fedlas.lab.runs import RunFolder, collect_runs
from fedlas.lab.runs.folder import PACK_MARK

READERS = {
    "calibrator.json": Calibrator.load,
    "labels.json": MultiLabelCalibration.load,
    "card.json": Card.read,
    "monitor.json": Monitor,
    "state.json": lambda path: read_state(path, {}, {}),
    "recipe.yaml": lambda path: load_recipe(str(path)),
    "m.safetensors": lambda path: CalibratedModel.load(path, None),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_or_an_endless_device_is_no_file(name, make, tmp_path):
    make(tmp_path / name)
    with pytest.raises((InputError, OSError), match=r"a device or a pipe|must exist"):
        READERS[name](tmp_path / name)


def test_a_file_of_a_few_bytes_cannot_name_a_hundred_million_classes(tmp_path):
    """Reading applies a map to two rows: 800 bytes took 3.3 GB."""
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    table = fedlas.calibrate(frame, probs="p", target="y", method="temperature").to_dict()
    table["calibrator"]["num_classes"] = 10**8
    table["scores"] = ["p"]
    many = {**table["calibrator"], "num_features": 10**8, "calibrator": "auto", "options": {}}
    many["num_classes"] = 3
    for name, content, read in (
        ("cal.json", table, TableCalibration.load),
        ("calibrator.json", table["calibrator"], Calibrator.load),
        ("auto.json", many, Calibrator.load),
    ):
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(InputError, match=r"1,000,000"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../up.npy", np.zeros(3)),
        ("/up.npy", np.zeros(3)),
        ("objects.npy", np.array([{}], dtype=object)),
        *((f"{number}.npy", np.zeros(2**22)) for number in (3,)),
    ],
)
def test_what_nobody_reads_in_an_archive_is_not_copied_unseen(tmp_path, name, content):
    """2.9 MB became 3.0 GB on disk; pickles and names that lead elsewhere were handed on."""
    frame = {"p": [0.9, 0.8, 0.2, 0.4] * 50, "y": [1, 0, 0, 1] * 50}
    cal = fedlas.calibrate(frame, probs="p", target="y", method="temperature").save(
        tmp_path / "cal.json"
    )
    np.savez(tmp_path / "live.npz", p=np.full(5, 0.5))
    with zipfile.ZipFile(tmp_path / "live.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        for copy in range(3):  # each is small enough alone
            with archive.open(f"{copy}{name}" if name[0].isdigit() else name, "w") as member:
                np.lib.format.write_array(member, content, allow_pickle=True)
            if not name[0].isdigit():
                break
    assert (
        main(["apply", str(cal), str(tmp_path / "live.npz"), "--out", str(tmp_path / "o.npz")]) == 2
    )
    assert not (tmp_path / "o.npz").exists()


def write_pack(bench, files):
    bench.mkdir()
    with zipfile.ZipFile(bench / "runs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = PACK_MARK
        for name, content in files.items():
            archive.writestr(name, content)
    return bench


def test_a_changed_byte_is_noticed_where_there_is_a_check_sum(tmp_path):
    """SECURITY.md says where: a digit of a text file outside of a pack is not."""
    config = 'recipe: "A long name of a recipe"'
    pack = write_pack(
        tmp_path / "packed", {"ce-s0/config.yaml": config, "ce-s0/metrics.json": "{}"}
    )
    predictions = fedlas.Predictions(torch.ones(300, 2), torch.ones(300)).save(tmp_path / "a.npz")
    torch.save({"weight": torch.ones(600)}, tmp_path / "checkpoint.pt")
    one = np.ones(300, np.float32).tobytes()
    read = {
        predictions: (one, fedlas.Predictions.load),
        tmp_path / "checkpoint.pt": (one, load_tensors),
        pack / "runs.zip": (b"config.yaml", lambda path: RunFolder(path.parent / "ce-s0").config),
    }
    for path, (part, reader) in read.items():
        reader(path)
        content = bytearray(path.read_bytes())
        content[content.index(part) + len(part) + 3] ^= 1
        path.write_bytes(content)
        with pytest.raises((InputError, ValueError), match=r"CRC|checksum|decompress"):
            reader(path)
    metrics = tmp_path / "run" / "metrics.json"
    metrics.parent.mkdir()
    metrics.write_text('{"parameters": 1}')
    metrics.write_text('{"parameters": 2}')
    assert RunFolder(metrics.parent).metrics == {"parameters": 2}


LOG = json.dumps({"epoch": 1}) + "\n"
PACKS = {
    "a log of many lines": {"ce-s0/config.yaml": "recipe: x", "ce-s0/log.jsonl": LOG * 2**19},
    "one long number": {"ce-s0/metrics.json": "1" * (2**22 + 1)},
    "lists in lists": {"ce-s0/intervals.json": "[" * 2**22 + "]" * 2**22},
    "many files": {f"ce-s{seed}/config.yaml": f"a{seed}: {'x ' * 100_000}" for seed in range(40)},
}


@pytest.mark.parametrize("content", PACKS)
def test_a_pack_that_grows_is_refused_before_it_is_unpacked(content, tmp_path):
    bench = write_pack(tmp_path / "bench", PACKS[content])
    assert (bench / "runs.zip").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"at most"):
        collect_runs(bench)


@pytest.mark.parametrize("claimed", [1, 2**12, 2**31])
def test_an_idx_file_is_read_as_far_as_its_header_says(claimed, tmp_path):
    for name in ("train-images", "t10k-images", "train-labels", "t10k-labels"):
        dimensions = 3 if "images" in name else 1
        sizes = [claimed, *[28] * (dimensions - 1)]
        head = bytes((0, 0, 8, dimensions)) + b"".join(size.to_bytes(4, "big") for size in sizes)
        with gzip.open(
            tmp_path / f"{name}-idx{dimensions}-ubyte.gz", "wb", compresslevel=1
        ) as file:
            file.write(head + bytes(2**27 if name == "train-images" else 8))
    with pytest.raises(InputError, match=r"must be the published IDX file"):
        load_mnist(str(tmp_path))


def mutated(content, seed):
    """A few bits flipped, bytes taken out or put in, or the end cut off."""
    random = np.random.default_rng(seed)
    changed = bytearray(content)
    place = int(random.integers(len(changed)))
    kind = seed % 4
    if kind == 0:
        for at in random.integers(len(changed), size=3):
            changed[at] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del changed[place:]
    elif kind == 2:
        del changed[place : place + 4]
    else:
        changed[place:place] = random.bytes(4)
    return bytes(changed)


def test_a_damaged_onnx_file_is_refused_in_silence(tmp_path, capfd):
    helper = pytest.importorskip("onnx.helper")
    pytest.importorskip("onnxruntime")
    ends = [helper.make_tensor_value_info(name, 1, ["n", 3]) for name in ("scores", "logits")]
    node = helper.make_node("Mul", ["scores", "scale"], ["logits"])
    scale = helper.make_tensor("scale", 1, [3], [1.0, 2.0, 3.0])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [scale])
    version = [helper.make_opsetid("", 18)]
    whole = helper.make_model(graph, opset_imports=version, ir_version=10).SerializeToString()
    path = tmp_path / "m.onnx"
    refused = 0
    for content in (
        whole.replace(b"scores", b"sc\xffres"),
        *(mutated(whole, s) for s in range(60)),
    ):
        path.write_bytes(content)
        try:
            fedlas.predict(path, [(torch.eye(3), torch.arange(3))])
        except InputError:
            refused += 1
    assert refused > 30
    assert capfd.readouterr() == ("", "")
