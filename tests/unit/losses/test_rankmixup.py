import math

import pytest
import torch
import torch.nn.functional as F

from fedlas import Objective
from fedlas._core.check import InputError
from fedlas.losses import RankMixupMRL, RankMixupNDCG
from fedlas.losses.rankmixup import ndcg_penalty

LOGITS, MIXED = (
    torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1)),
)
TARGET = torch.tensor([0, 1, 2, 0])


def test_margin_ranking_by_hand():
    each = RankMixupMRL(alpha=0.3, margin=0.5, reduction="none")(LOGITS, TARGET, mixed=MIXED)
    for i in range(4):
        penalty = sum(max(0.0, float(MIXED[i, k].max() - LOGITS[i].max()) + 0.5) for k in range(2)) / 2
        assert math.isclose(float(each[i]), float(F.cross_entropy(LOGITS[i], TARGET[i])) + 0.3 * penalty, rel_tol=1e-5)


def test_ndcg_by_hand():
    found = ndcg_penalty(LOGITS, MIXED)
    for i in range(4):
        conf = [float(LOGITS[i].softmax(0).max()), *(float(MIXED[i, k].softmax(0).max()) for k in range(2))]
        dcg = sum(c / math.log2(j + 2) for j, c in enumerate(conf))
        ideal = sum(c / math.log2(j + 2) for j, c in enumerate(sorted(conf, reverse=True)))
        assert math.isclose(float(found[i]), 1 - dcg / ideal, abs_tol=1e-6)


def test_in_order_costs_nothing_and_out_of_order_pushes_the_right_way():
    raw = torch.tensor([[1.0, 0.0]], requires_grad=True)
    mixed = torch.tensor([[[2.0, 0.0]]], requires_grad=True)
    ndcg_penalty(raw, mixed).sum().backward()
    assert (
        raw.grad[0, 0] < 0 < mixed.grad[0, 0, 0]
    )  # descent raises the raw sample's confidence and lowers the mixed one's
    assert float(ndcg_penalty(torch.tensor([[3.0, 0.0]]), mixed.detach())) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("kind", [RankMixupMRL, RankMixupNDCG])
def test_through_the_objective(kind):
    torch.manual_seed(0)
    model, images = torch.nn.Linear(7, 3), torch.rand(4, 7)
    objective = Objective(model, kind(num_mixed=3))
    torch.manual_seed(5)
    loss, logits = objective(images, TARGET)
    torch.testing.assert_close(logits, model(images))
    torch.manual_seed(5)
    views = objective.criterion.mix(images, TARGET).views
    assert len(views) == 3
    stacked = torch.stack([model(view) for view in views], dim=1)
    torch.testing.assert_close(loss, objective.criterion(logits, TARGET, mixed=stacked))
    objective.eval()
    torch.testing.assert_close(objective(images, TARGET)[0], F.cross_entropy(model(images), TARGET))


def test_views_are_ordered_and_keep_their_own_sample_ahead():
    criterion = RankMixupNDCG(num_mixed=5)
    images = torch.eye(6)
    for seed in range(5):
        torch.manual_seed(seed)
        views = criterion.mix(images, TARGET).views
        own = [float(view.diagonal().min()) for view in views]  # the share, except for a sample that is its own partner
        assert own == sorted(own, reverse=True)
        assert min(own) >= 0.5
        for view in views:
            torch.testing.assert_close(view.sum(1), torch.ones(6))


def test_training_without_mixed_samples_is_an_error():
    with pytest.raises(TypeError, match=r"RankMixupMRL: mixed must be passed .*fedlas.Objective"):
        RankMixupMRL()(LOGITS, TARGET)
    assert torch.isfinite(RankMixupMRL().eval()(LOGITS, TARGET))


def test_integers_cannot_be_mixed():
    with pytest.raises(InputError, match="floating"):
        RankMixupMRL().mix(torch.ones(4, 7, dtype=torch.int64), TARGET)
