import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas import Predictions, evaluate
from fedlas.integrations.positions import valid_positions
from fedlas.metrics import StreamingMetrics


@given(st.integers(1, 4), st.lists(st.integers(1, 3), max_size=2), st.integers(0, 99))
def test_every_position_that_counts_and_no_other(samples, dense, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, 3, *dense, generator=generator)
    target = torch.randint(-1, 3, (samples, *dense), generator=generator)
    rows, labels = valid_positions(logits, target, ignore_index=-1)
    expected = [
        (logits[(at[0], slice(None), *at[1:])], target[tuple(at)])
        for at in torch.ones_like(target).nonzero().tolist()
        if target[tuple(at)] != -1
    ]
    assert len(rows) == len(labels) == len(expected)
    for row, label, (z, y) in zip(rows, labels, expected, strict=True):
        assert torch.equal(row, z)
        assert label == y


def test_streamed_pixels_match_all_pixels_at_once():
    generator = torch.Generator().manual_seed(0)
    logits, target = (
        torch.randn(6, 4, 5, 7, generator=generator),
        torch.randint(0, 4, (6, 5, 7), generator=generator),
    )
    target[:, :2] = 255
    streaming = StreamingMetrics(4, metrics=["accuracy", "ece", "nll"])
    for part in range(6):
        streaming.update(
            *valid_positions(logits[part : part + 1], target[part : part + 1], ignore_index=255)
        )
    held = sum(tensor.numel() for tensor in streaming.state_dict().values())
    expected = evaluate(Predictions(*valid_positions(logits, target, ignore_index=255)))
    assert streaming.num_samples == 6 * 3 * 7
    assert streaming.compute() == {name: expected[name] for name in ("accuracy", "ece", "nll")}
    streaming.update(*valid_positions(logits, target, ignore_index=255))
    assert sum(tensor.numel() for tensor in streaming.state_dict().values()) == held


@pytest.mark.parametrize(
    "target", [torch.zeros(2, 5), torch.zeros(2, 3).long(), [0, 1], torch.zeros(2, 5, 3)]
)
def test_other_targets_are_refused(target):
    with pytest.raises(ValueError, match=r"valid_positions: target .*\(2, 5\)"):
        valid_positions(torch.zeros(2, 3, 5), target)
