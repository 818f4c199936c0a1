"""Buffers that keep their dtype through conversions of the module."""

import copy

import pytest
import torch

from fedlas.losses._base import PreciseBuffers


class Holder(PreciseBuffers):
    precise = ("kept",)

    def __init__(self):
        super().__init__()
        self.register_buffer("kept", torch.tensor([1.0 / 3, 1000.1]))
        self.register_buffer("other", torch.tensor([1.0 / 3]))
        self.register_buffer("count", torch.tensor(70_001))


@pytest.mark.parametrize(
    ("convert", "other"),
    [
        (lambda m: m.half(), torch.float16),
        (lambda m: m.bfloat16(), torch.bfloat16),
        (lambda m: m.double(), torch.float64),
        (lambda m: m.to(torch.float16), torch.float16),
        (lambda m: torch.nn.Sequential(m).half().double()[0], torch.float64),
        (lambda m: copy.deepcopy(m.half()), torch.float16),
    ],
)
def test_named_buffers_keep_dtype_and_values(convert, other):
    before = Holder()
    after = convert(Holder())
    assert after.kept.equal(before.kept)
    assert after.kept.dtype == torch.float32
    assert after.other.dtype == other
    assert after.count.equal(before.count)
    assert list(dict(after.named_buffers())) == ["kept", "other", "count"]


def test_devices_are_followed():
    holder = Holder().to("meta")
    assert holder.kept.is_meta
    assert holder.kept.dtype == torch.float32
    assert holder.half().to_empty(device="cpu").kept.device.type == "cpu"
