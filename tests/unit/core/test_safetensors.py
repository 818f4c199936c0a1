import json

import pytest
import torch

from fedlas._core.arrays import from_safetensors, to_safetensors

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
