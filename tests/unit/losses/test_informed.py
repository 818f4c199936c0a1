"""Losses whose targets know the sample, by hand."""

import pytest
import torch
import torch.nn.functional as F

from batches import batch_of
from fedlas.errors import InputError
from fedlas.losses import LOSSES, PSKD, BayesianSelfDistillation, OnlineLabelSmoothing, OwnAverage
from fedlas.predictions import Predictions

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]], dtype=torch.float64)
LATER = torch.tensor([[0.5, 0.0, 0.2], [-1.0, 1.0, 0.0]], dtype=torch.float64)
TARGET, INDEX = torch.tensor([0, 2]), torch.tensor([3, 1])
MEMORIES = {"ps-kd": {}, "own-average": {}, "bsd": {}}


def mixed(logits, q, alpha):
    target = (1 - alpha) * F.one_hot(TARGET, 3) + alpha * q
    return F.cross_entropy(logits, target)


def test_own_average_moves_with_every_visit():
    criterion = OwnAverage(num_samples=5, num_classes=3, alpha=0.4, keep=0.75).double()
    torch.testing.assert_close(
        criterion(LOGITS, TARGET, index=INDEX), F.cross_entropy(LOGITS, TARGET)
    )
    q = LOGITS.softmax(1)
    torch.testing.assert_close(
        criterion(LATER, TARGET, index=INDEX), mixed(LATER, q, 0.4), rtol=1e-3, atol=1e-3
    )
    moved = 0.75 * q + 0.25 * LATER.softmax(1)
    torch.testing.assert_close(criterion.memory.rows[INDEX].double(), moved, rtol=2e-3, atol=1e-3)
    assert criterion.memory.visits.tolist() == [0, 2, 0, 2, 0]


def test_an_average_that_keeps_everything_never_moves():
    for kind, options in ((OwnAverage, {}), (PSKD, {"num_epochs": 2})):
        with pytest.raises(InputError, match=r"keep must be .*\[0, 1\)"):
            kind(num_samples=5, num_classes=3, keep=1.0, **options)


@pytest.mark.parametrize("strength", [0.4, torch.tensor([0.1, 0.7], dtype=torch.float64)])
def test_own_average_weight_uses_mixed_target_distance(strength):
    criteria = [
        OwnAverage(num_samples=5, num_classes=3, gamma=gamma, reduction="none").double()
        for gamma in (0, 0.5)
    ]
    q, alpha = LOGITS.softmax(1), torch.as_tensor(strength).reshape(-1, 1)
    gap = (1 - alpha) * F.one_hot(TARGET, 3) + alpha * q - LATER.softmax(1)
    gradients = []
    for criterion in criteria:
        criterion(LOGITS, TARGET, index=INDEX)
        logits = LATER.clone().requires_grad_()
        batch = batch_of(logits, TARGET, index=INDEX)
        criterion.with_strength(batch, strength).sum().backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(gradients[0], -gap, rtol=1e-3, atol=1e-3)
    weight = torch.linalg.vector_norm(gap, dim=1, keepdim=True) ** 0.5
    torch.testing.assert_close(gradients[1], weight * gradients[0], rtol=1e-3, atol=1e-3)


def test_ps_kd_weight_grows_over_epochs():
    criterion = PSKD(num_samples=5, num_classes=3, num_epochs=4, alpha=0.8).double()
    criterion(LOGITS, TARGET, index=INDEX)
    for epoch, (logits, before) in enumerate(
        [(LATER, LOGITS), (LOGITS, LATER), (LATER, LOGITS), (LOGITS, LATER)], 2
    ):
        expected = mixed(logits, before.softmax(1), 0.8 * min(epoch / 4, 1))
        torch.testing.assert_close(
            criterion(logits, TARGET, index=INDEX), expected, rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_bsd_keeps_the_counts_of_a_dirichlet_distribution(discount):
    criterion = BayesianSelfDistillation(
        num_samples=5, num_classes=3, prior=2.0, discount=discount
    ).double()
    counts = 2.0 * F.one_hot(TARGET, 3).double()
    for logits in (LOGITS, LATER, LATER, LOGITS):
        expected = mixed(logits, counts / counts.sum(1, keepdim=True), 1.0)
        torch.testing.assert_close(
            criterion(logits, TARGET, index=INDEX), expected, rtol=1e-3, atol=1e-3
        )
        counts = discount * counts + logits.softmax(1)


def test_online_label_smoothing_averages_correct_predictions():
    criterion = OnlineLabelSmoothing(num_classes=3, alpha=0.5).double()
    uniform = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(criterion(LOGITS, TARGET), mixed(LOGITS, uniform, 0.5))
    criterion(LATER, TARGET)  # sample 0 is right both times, sample 1 never
    # until the epoch ends
    torch.testing.assert_close(criterion(LOGITS, TARGET), mixed(LOGITS, uniform, 0.5))
    criterion.update_from_validation(Predictions(LOGITS, TARGET))
    right = torch.stack((LOGITS[0], LATER[0], LOGITS[0])).softmax(1).mean(0)
    torch.testing.assert_close(criterion.soft_labels.double()[0], right, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(criterion.soft_labels[1:], torch.full((2, 3), 1 / 3))
    assert not criterion.sums.any()


@pytest.mark.parametrize("name", MEMORIES)
def test_memory_updates_only_in_training_without_ignored_samples(name):
    criterion = LOSSES.build(name, {}, num_classes=3, num_samples=5, num_epochs=2)
    criterion(LOGITS, torch.tensor([0, -100]), index=INDEX)
    assert criterion.memory.visits.tolist() == [0, 0, 0, 1, 0]
    assert not criterion.memory.rows[1].any()
    with torch.no_grad():
        criterion(LOGITS, TARGET, index=INDEX)
    criterion.eval()(LOGITS, TARGET, index=INDEX)
    assert criterion.memory.visits.sum() == 1


@pytest.mark.parametrize("name", MEMORIES)
def test_index_outside_training_set_raises(name):
    criterion = LOSSES.build(name, {}, num_classes=3, num_samples=5, num_epochs=2)
    with pytest.raises(InputError, match=r"index .*\[0, 5\).*no fixed position"):
        criterion(LOGITS, TARGET, index=torch.tensor([0, 5]))
    assert not criterion.memory.visits.any()
