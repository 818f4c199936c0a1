import json
import math

import pytest
import torch

from fedlas.diagnose import gate_report
from fedlas.diagnose.gate import DirectionRecorder, flipped_share


def test_report_by_hand():
    psi = torch.tensor([1.0, 1.0, -1.0, 0.0])
    alpha_i = torch.tensor([0.0, 0.2, 0.1, 0.1])
    correct = torch.tensor([True, False, True, True])
    found = gate_report(psi, alpha_i, correct, alpha=0.1)
    assert (found.plus, found.minus, found.zero) == (0.5, 0.25, 0.25)
    assert found.alpha == pytest.approx(0.1)
    assert found.alpha_correct == pytest.approx(0.2 / 3)
    assert found.alpha_wrong == pytest.approx(0.2)
    assert found.saturated == 0.5
    assert found.correlation == pytest.approx(
        torch.corrcoef(torch.stack((alpha_i, correct.float())))[0, 1].item()
    )
    assert found.alpha_quantiles[2] == pytest.approx(0.1)


def test_constant_values_have_null_correlation():
    found = gate_report(
        torch.ones(3), torch.full((3,), 0.1), torch.ones(3, dtype=torch.bool), alpha=0.1
    )
    assert math.isnan(found.correlation)
    assert math.isnan(found.alpha_wrong)
    text = json.dumps(found.as_dict(), allow_nan=False)
    assert json.loads(text)["alpha_wrong"] is None


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"must have one shape \(N,\)"):
        gate_report(torch.ones(3), torch.ones(2), torch.ones(3, dtype=torch.bool), alpha=0.1)
    with pytest.raises(ValueError, match=r"must have one shape \(N,\)"):
        gate_report(torch.ones(0), torch.ones(0), torch.ones(0, dtype=torch.bool), alpha=0.1)


def test_flips_leave_out_samples_that_were_not_seen():
    before = torch.tensor([1, -1, 2, 1], dtype=torch.int8)
    after = torch.tensor([1, 1, 1, 2], dtype=torch.int8)
    assert flipped_share(before, after) == 0.5
    assert math.isnan(flipped_share(before[2:], after[2:]))


def test_decisions_count_flips_per_epoch_in_any_order():
    kept = DirectionRecorder()
    kept.record(torch.tensor([1.0, -1.0]), torch.tensor([3, 0]))
    kept.record(torch.tensor([1.0, 1.0]), torch.tensor([1, 2]))
    assert math.isnan(kept.end_epoch())
    kept.record(torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([0, 1, 2, 3]))
    assert kept.end_epoch() == 0.5


def test_decisions_of_two_processes_are_those_of_one():
    index, first, second = (
        torch.arange(6),
        torch.tensor([1, 1, -1, -1, 1, 0]),
        torch.tensor([1, -1, -1, 1, 1, 0]),
    )
    whole, parts = DirectionRecorder(), [DirectionRecorder(), DirectionRecorder()]
    flips = []
    for psi, order in ((first, [[0, 2, 4], [1, 3, 5]]), (second, [[5, 1, 2], [0, 3, 4]])):
        whole.record(psi.float(), index)
        for part, rows in zip(parts, order, strict=True):
            part.record(psi[rows].float(), index[rows])
        seen = [part.pop_directions() for part in parts]
        flips.append((whole.end_epoch(), *(part.end_epoch(seen) for part in parts)))
    assert all(map(math.isnan, flips[0]))
    assert flips[1] == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_decisions_survive_a_checkpoint():
    kept, again = DirectionRecorder(), DirectionRecorder()
    kept.record(torch.tensor([1.0, -1.0]), torch.tensor([0, 1]))
    kept.end_epoch()
    again.load_state_dict(kept.state_dict())
    again.record(torch.tensor([1.0, 1.0]), torch.tensor([0, 1]))
    assert again.end_epoch() == 0.5
