import math

import pytest
import torch
import torch.nn.functional as F

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.losses import RankMixupMRL, RankMixupNDCG

LOGITS, MIXED = (
    torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(1)),
)
TARGET = torch.tensor([0, 1, 2, 0])
SHARE = torch.tensor([[0.6, 0.9], [0.9, 0.6], [1.0, 0.6], [1.0, 1.0]])


def test_margin_ranking_by_hand():
    each = RankMixupMRL(alpha=0.3, margin=0.5, reduction="none")(
        LOGITS, TARGET, mixed=MIXED, mixed_share=SHARE
    )
    for i in range(4):
        costs = [max(0.0, float(MIXED[i, k].max() - LOGITS[i].max()) + 0.5) for k in range(2)]
        penalty = sum(cost for cost, share in zip(costs, SHARE[i], strict=True) if share < 1) / 2
        assert math.isclose(
            float(each[i]),
            float(F.cross_entropy(LOGITS[i], TARGET[i])) + 0.3 * penalty,
            rel_tol=1e-5,
        )


def test_ndcg_by_hand():
    found = RankMixupNDCG().penalty(LOGITS, MIXED, SHARE)
    for i in range(4):
        raw = float(LOGITS[i].softmax(0).max())
        views = sorted(
            zip(SHARE[i].tolist(), MIXED[i].softmax(1).amax(1).tolist(), strict=True),
            key=lambda v: -v[0],
        )
        dcg = raw + sum(confidence / math.log2(j + 3) for j, (_, confidence) in enumerate(views))
        ideal = 1 + sum(share / math.log2(j + 3) for j, (share, _) in enumerate(views))
        assert math.isclose(float(found[i]), 1 - min(dcg / ideal, ideal / dcg), abs_tol=1e-6)


def test_ndcg_in_numbers():
    """Confidences 0.8 (raw) and 0.6, share 0.9: 1 - (0.8 + 0.6 / log2 3) / (1 + 0.9 / log2 3), computed by hand."""
    raw, mixed = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[[0.6, 0.4]]]).log()
    torch.testing.assert_close(
        RankMixupNDCG().penalty(raw, mixed, torch.tensor([[0.9]])), torch.tensor([0.248291])
    )


@pytest.mark.parametrize(("share", "pull"), [(0.9, "up"), (0.5, "down")])
def test_confidences_are_pulled_toward_the_shares(share, pull):
    """Also where their order is right: both views here are less confident than the raw sample."""
    raw = torch.tensor([[9.0, 0.0]], requires_grad=True)
    mixed = torch.tensor([[[0.7, 0.0], [0.6, 0.0]]], requires_grad=True)
    RankMixupNDCG().penalty(raw, mixed, torch.full((1, 2), share)).sum().backward()
    slopes = mixed.grad[0, :, 0]
    assert (slopes < 0).all() if pull == "up" else (slopes > 0).all()


def test_confidences_that_are_the_shares_cost_nothing():
    raw, mixed = torch.tensor([[1e4, 0.0]]), torch.tensor([[[0.6, 0.4], [0.9, 0.1]]]).log()
    torch.testing.assert_close(
        RankMixupNDCG().penalty(raw, mixed, torch.tensor([[0.6, 0.9]])), torch.zeros(1)
    )


@pytest.mark.parametrize("kind", [RankMixupMRL, RankMixupNDCG])
def test_through_the_objective(kind):
    torch.manual_seed(0)
    model, images = torch.nn.Linear(7, 3), torch.rand(4, 7)
    objective = Objective(model, kind(num_mixed=3))
    torch.manual_seed(5)
    loss, logits = objective(images, TARGET)
    torch.testing.assert_close(logits, model(images))
    torch.manual_seed(5)
    mixed = objective.criterion.mix(images, TARGET)
    assert len(mixed.views) == 3
    stacked = torch.stack([model(view) for view in mixed.views], dim=1)
    torch.testing.assert_close(
        loss, objective.criterion(logits, TARGET, mixed=stacked, mixed_share=mixed.shares)
    )
    objective.eval()
    torch.testing.assert_close(objective(images, TARGET)[0], F.cross_entropy(model(images), TARGET))


@pytest.mark.parametrize("soft", [False, True])
def test_shares_are_those_of_the_main_class(soft):
    images, target = torch.eye(6), torch.tensor([0, 1, 2, 0, 1, 2])
    given = F.one_hot(target).float() if soft else target
    for seed in range(5):
        torch.manual_seed(seed)
        mixed = RankMixupNDCG(num_mixed=5).mix(images, given)
        assert mixed.shares.shape == (6, 5)
        for view, share in zip(mixed.views, mixed.shares.T, strict=True):
            classes = view @ F.one_hot(target).float()  # what of each mixture is of each class
            torch.testing.assert_close(classes.amax(1), share)


def test_dense_targets_have_a_share_at_each_position():
    images, target = torch.rand(2, 1, 3), torch.tensor([[0, 1, 2], [0, 2, 2]])
    torch.manual_seed(1)
    shares = RankMixupMRL().mix(images, target).shares
    assert shares.shape == (2, 1, 3)
    assert (shares[:, :, [0, 2]] == 1).all()
    assert ((shares[:, :, 1] < 1) | (shares[:, :, 1] == shares[:, :, 1].amax())).all()
    logits, mixed = torch.randn(2, 3, 3), torch.randn(2, 1, 3, 3)
    each = RankMixupMRL(reduction="none")(logits, target, mixed=mixed, mixed_share=shares)
    # one class
    torch.testing.assert_close(each[:, 0], F.cross_entropy(logits, target, reduction="none")[:, 0])


def test_training_without_mixed_samples_is_an_error():
    with pytest.raises(TypeError, match=r"RankMixupMRL: mixed .*fedlas\.Objective"):
        RankMixupMRL()(LOGITS, TARGET)
    with pytest.raises(TypeError, match=r"RankMixupMRL: mixed_share .*fedlas\.Objective"):
        RankMixupMRL()(LOGITS, TARGET, mixed=MIXED)
    assert torch.isfinite(RankMixupMRL().eval()(LOGITS, TARGET))


def test_integers_cannot_be_mixed():
    with pytest.raises(InputError, match="floating"):
        RankMixupMRL().mix(torch.ones(4, 7, dtype=torch.int64), TARGET)
    with pytest.raises(InputError, match="one row per target"):
        RankMixupMRL().mix(torch.ones(3, 7), TARGET)
