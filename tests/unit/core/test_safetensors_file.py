import json

import pytest
import torch

from fedlas._core.safetensors_file import from_safetensors, to_safetensors

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


def test_tensors_come_back_and_the_package_agrees():
    content = to_safetensors(TENSORS, {"said": "grün"})
    found, metadata = from_safetensors(content)
    assert metadata == {"said": "grün"}
    package = pytest.importorskip("safetensors.torch")
    for read in (
        found,
        package.load(content),
        from_safetensors(package.save({**TENSORS, **{k: v.contiguous() for k, v in TENSORS.items()}}))[0],
    ):
        assert read.keys() == TENSORS.keys()
        for name, value in TENSORS.items():
            assert read[name].dtype == value.dtype
            assert torch.equal(read[name], value), name
    found["weight"].add_(1)  # writable


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
    with pytest.raises(ValueError, match=r"it|its|the"):
        from_safetensors(content)


def test_dtypes_without_a_name():
    with pytest.raises(ValueError, match=r"w has dtype torch\.complex64"):
        to_safetensors({"w": torch.zeros(2, dtype=torch.complex64)}, {})
