"""Buffers that keep their dtype through conversions of the module."""

import copy

import pytest
import torch

from fedlas.losses import CRL, NormConfidenceIndicator


def holder():
    """Buffers: ``right`` and ``visits`` are counts that must stay exact, the class weights are not."""
    criterion = CRL(num_samples=2, weight=[1.0 / 3, 1.0])
    criterion.right.copy_(torch.tensor([1.0 / 3, 1000.1]))
    return criterion


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
def test_counts_keep_dtype_and_values(convert, other):
    before, after = holder(), convert(holder())
    assert after.right.equal(before.right)
    assert after.right.dtype == torch.float32
    assert after.weight.dtype == other
    assert list(dict(after.named_buffers())) == ["weight", "right", "visits"]


def test_whole_numbers_are_no_matter_of_precision():
    nci = NormConfidenceIndicator()
    nci.num_batches_tracked.fill_(70_001)
    assert nci.half().num_batches_tracked.item() == 70_001


def test_devices_are_followed():
    criterion = holder().to("meta")
    assert criterion.right.is_meta
    assert criterion.right.dtype == torch.float32
    assert criterion.half().to_empty(device="cpu").right.device.type == "cpu"
