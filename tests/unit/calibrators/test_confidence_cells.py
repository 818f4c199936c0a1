"""Cells of confidence, and the log-odds that they predict."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedlas.calibrators._fit.confidence_cells import (
    Cells,
    Update,
    select_update_count,
    set_top_class_log_odds,
    top_class_log_odds,
)
from fedlas.resample.folds import Folds

CELLS = Cells(num_levels=10, alpha=0.02, min_size=5)
EVERYONE = 0


def draw(samples=2000, seed=0, flaw=lambda log_odds, _: log_odds, groups=2):
    """Log-odds, what happens, and random groups beside everyone; true log-odds are ``flaw`` of them."""
    random = torch.Generator().manual_seed(seed)
    log_odds = 1.5 * torch.randn(samples, generator=random, dtype=torch.float64)
    member = torch.rand(samples, groups, generator=random) < 0.4
    member[:, EVERYONE] = True
    right = flaw(log_odds, member).sigmoid()
    correct = (torch.rand(samples, generator=random, dtype=torch.float64) < right).double()
    return log_odds, correct, member


def replayed(cells, log_odds, members, path):
    for update in path:
        log_odds = cells.apply(log_odds, members, update)
    return log_odds


def errors(cells, log_odds, correct, groups):
    """Share of hits less mean confidence, by group and level, with sizes; the slow way."""
    confidence = log_odds.sigmoid()
    for group in range(groups.shape[1]):
        for level in range(cells.num_levels):
            low, high = level / cells.num_levels, (level + 1) / cells.num_levels
            inside = groups[:, group] & (confidence >= low) & ((confidence < high) | (high == 1))
            if inside.any():
                yield (
                    group,
                    level,
                    int(inside.sum()),
                    float(correct[inside].mean() - confidence[inside].mean()),
                )


@pytest.mark.parametrize("alpha", [0.01, 0.05])
@pytest.mark.parametrize("min_size", [20, 100])
def test_large_cells_end_within_alpha(alpha, min_size):
    cells = Cells(10, alpha, min_size)
    log_odds, correct, groups = draw(
        flaw=lambda z, member: z - 0.8 * member[:, 1].double(), groups=4
    )
    assert any(
        n >= min_size and abs(e) > alpha for *_, n, e in errors(cells, log_odds, correct, groups)
    )
    path = list(cells.path(log_odds, correct, groups.nonzero(), 500))
    after = replayed(cells, log_odds, groups.nonzero(), path)
    assert 0 < len(path) < 500
    for *_, size, error in errors(cells, after, correct, groups):
        assert size < min_size or abs(error) <= alpha + 0.5 / size + 1e-12


def test_every_step_makes_the_labels_likelier():
    log_odds, correct, groups = draw(flaw=lambda z, member: z - 0.8 * member[:, 1].double())
    members = groups.nonzero()

    def loss(z):
        return float(torch.nn.functional.binary_cross_entropy_with_logits(z, correct))

    last = loss(log_odds)
    for update in CELLS.path(log_odds, correct, members, 500):
        log_odds = CELLS.apply(log_odds, members, update)
        assert loss(log_odds) < last
        last = loss(log_odds)


def test_a_step_moves_one_cell_to_its_share():
    log_odds = torch.tensor([0.2, 0.3, 0.35, 0.25, 0.3, 2.0, -2.0], dtype=torch.float64)
    correct = torch.tensor([1, 0, 0, 0, 0, 1, 0], dtype=torch.float64)
    members = torch.ones(7, 1).nonzero()
    update = CELLS.worst(log_odds, correct, members)
    assert (update.group, update.level) == (0, 5)
    after = CELLS.apply(log_odds, members, update)
    assert float(after[:5].sigmoid().mean()) == pytest.approx(0.2)
    torch.testing.assert_close(
        after[:5] - log_odds[:5], torch.full((5,), update.shift, dtype=torch.float64)
    )
    assert torch.equal(after[5:], log_odds[5:])
    assert CELLS.worst(log_odds, correct, members[:4]) is None  # four are too few


def test_overlapping_groups_are_corrected_in_turn():
    log_odds, correct, groups = draw(
        samples=20_000, flaw=lambda z, m: z + m[:, 1].double() - 1.0 * m[:, 2].double(), groups=3
    )
    cells = Cells(10, 0.02, 200)
    path = list(cells.path(log_odds, correct, groups.nonzero(), 500))
    after = replayed(cells, log_odds, groups.nonzero(), path)
    right = log_odds + groups[:, 1].double() - groups[:, 2].double()
    before_error, after_error = (
        (z.sigmoid() - right.sigmoid()).abs().mean() for z in (log_odds, after)
    )
    assert after_error < 0.5 * before_error


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_cells_stop_half_a_sample_short(value):
    log_odds = torch.full((20,), 0.3, dtype=torch.float64)
    members = torch.ones(20, 1).nonzero()
    path = list(
        Cells(10, 0.001, 5).path(
            log_odds, torch.full((20,), value, dtype=torch.float64), members, 50
        )
    )
    after = replayed(Cells(10, 0.001, 5), log_odds, members, path)
    assert len(path) < 5
    torch.testing.assert_close(
        after.sigmoid(), torch.full((20,), abs(value - 0.025), dtype=torch.float64)
    )


def test_confidences_of_zero_and_one_have_a_level():
    log_odds = torch.tensor([800.0, 750.0, -800.0, -760.0], dtype=torch.float64)
    correct = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    cells = Cells(10, 0.02, 2)
    members = torch.ones(4, 1).nonzero()
    path = list(cells.path(log_odds, correct, members, 50))
    after = replayed(cells, log_odds, members, path)
    assert torch.isfinite(after).all()
    assert {update.level for update in path} == {0, 9}
    assert abs(float(after[:2].sigmoid().mean()) - 0.5) <= 0.02


@pytest.mark.parametrize("most", [0, 3])
def test_at_most_so_many(most):
    log_odds, correct, groups = draw(flaw=lambda z, _: z - 1.0)
    path = list(CELLS.path(log_odds, correct, groups.nonzero(), most))
    assert len(path) == most
    assert path == list(CELLS.path(log_odds, correct, groups.nonzero(), 500))[:most]


def test_held_out_samples_confirm_flaws_but_not_noise():
    folds = Folds(torch.arange(2000) % 5)
    cells = Cells(10, 0.02, 60)
    for seed in range(3):
        log_odds, correct, groups = draw(2000, seed=seed, groups=4)
        # there is chance to run after
        assert len(list(cells.path(log_odds, correct, groups.nonzero(), 500))) > 10
        length = select_update_count(cells, log_odds, correct, groups, folds, 500)
        assert length <= 2, seed
        log_odds, correct, groups = draw(
            2000, seed=seed, flaw=lambda z, m: z - 1.5 * m[:, 1].double(), groups=4
        )
        assert select_update_count(cells, log_odds, correct, groups, folds, 500) >= 3, seed


def test_an_update_is_what_it_says():
    cells = Cells(4, 0.02, 1)
    log_odds = torch.tensor([0.1, 0.1, 3.0], dtype=torch.float64)
    members = torch.tensor([[0, 0], [1, 1], [2, 0]])
    assert cells.apply(log_odds, members, Update(0, 2, 1.0)).tolist() == [1.1, 0.1, 3.0]
    assert cells.apply(log_odds, members, Update(0, 3, -1.0)).tolist() == [0.1, 0.1, 2.0]


def rows(samples=200, classes=6, scale=3.0, seed=0):
    return scale * torch.randn(
        samples, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_log_odds_are_those_of_the_confidence(temperature):
    logits = rows()
    confidence = (logits / temperature).softmax(1).amax(1)
    torch.testing.assert_close(
        top_class_log_odds(logits, temperature), (confidence / (1 - confidence)).log()
    )


def test_log_odds_of_confidence_one_and_single_class():
    assert top_class_log_odds(torch.tensor([[900.0, 0.0, -900.0]]), 1.0).item() == pytest.approx(
        900
    )
    assert top_class_log_odds(torch.tensor([[3.0]]), 1.0).item() == math.inf


@given(
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.sampled_from([0.1, 1.0, 10.0, 300.0]),
    st.floats(-4, 4),
)
def test_confidence_is_set_and_prediction_stays(seed, classes, scale, change):
    logits = rows(20, classes, scale, seed)
    before = top_class_log_odds(logits, 1.0)
    after = before + change
    found = set_top_class_log_odds(logits, before, after)
    assert torch.isfinite(found).all()
    assert torch.equal(found.argmax(1), logits.argmax(1))
    least = -math.log(classes - 1)
    torch.testing.assert_close(
        top_class_log_odds(found, 1.0), after.clamp(min=least), atol=1e-4 * scale, rtol=1e-6
    )


def test_raised_in_proportion_lowered_by_a_temperature():
    logits = rows()
    before = top_class_log_odds(logits, 1.0)
    top = logits.argmax(1, keepdim=True)
    others = torch.ones_like(logits).scatter(1, top, 0).bool()
    raised = set_top_class_log_odds(logits, before, before + 0.5).softmax(1)
    ratio = raised / logits.softmax(1)
    assert ratio[others].view(200, 5).std(dim=1).max() < 1e-12
    lowered = set_top_class_log_odds(logits, before, before - 0.2)
    scale = (lowered - lowered.mean(1, keepdim=True)) / (logits - logits.mean(1, keepdim=True))
    assert scale.std(dim=1).max() < 1e-9
    assert (scale < 1).all()


def test_two_equal_logits_on_top():
    logits = torch.tensor([[2.0, 2.0, 0.0]], dtype=torch.float64)
    before = top_class_log_odds(logits, 1.0)
    raised, lowered = (
        set_top_class_log_odds(logits, before, before + change) for change in (1.0, -0.3)
    )
    torch.testing.assert_close(top_class_log_odds(raised, 1.0), before + 1)
    torch.testing.assert_close(top_class_log_odds(lowered, 1.0), before - 0.3)
    assert lowered.argmax() == 0


def test_equal_logits_cannot_be_flattened():
    logits = torch.ones(1, 4, dtype=torch.float64)
    before = top_class_log_odds(logits, 1.0)
    assert torch.isfinite(set_top_class_log_odds(logits, before, before - 1)).all()
