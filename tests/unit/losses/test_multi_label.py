import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fedlas
from fedlas import Predictions, evaluate
from fedlas.losses import MultiLabelFedLAS, MultiLabelLoss, labels_as_two_classes

L = 4


def data(samples=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, L, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 2, (samples, L), generator=generator)


def fedlas_loss(**options):
    torch.manual_seed(0)
    return MultiLabelFedLAS(num_labels=L, base={"name": "ls", "alpha": 0.2}, **options).double()


def features(samples=9):
    return torch.rand(samples, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_pytorchs_own(reduction, weighted):
    logits, target = data()
    weights = {"weight": torch.rand(L), "pos_weight": 1 + torch.rand(L)} if weighted else {}
    criterion = MultiLabelLoss(num_labels=L, base="ce", reduction=reduction, **weights)
    expected = F.binary_cross_entropy_with_logits(
        logits,
        target.double(),
        reduction=reduction,
        **{name: w.double() for name, w in weights.items()},
    )
    torch.testing.assert_close(criterion(logits, target), expected)
    torch.testing.assert_close(criterion(logits, target.double()), expected)
    torch.testing.assert_close(
        criterion(logits.half().float(), target), expected.float(), atol=0.02, rtol=0.02
    )


def test_smoothing_and_soft_targets():
    logits, target = data()
    soft = target.double() * 0.8 + 0.1
    expected = F.binary_cross_entropy_with_logits(logits, soft)
    torch.testing.assert_close(
        MultiLabelLoss(num_labels=L, base={"name": "ls", "alpha": 0.2})(logits, target), expected
    )
    torch.testing.assert_close(MultiLabelLoss(num_labels=L, base="ce")(logits, soft), expected)


@pytest.mark.parametrize("floats", [False, True])
def test_unknown_labels_have_no_effect(floats):
    logits, target = data()
    known = torch.rand(target.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    known[0] = False
    masked = torch.where(known, target, -100)
    masked = masked.double() if floats else masked
    expected = F.binary_cross_entropy_with_logits(logits[known], target[known].double())
    torch.testing.assert_close(MultiLabelLoss(num_labels=L, base="ce")(logits, masked), expected)
    criterion, reference = fedlas_loss(), fedlas_loss()
    found = criterion(logits, masked, features=features())
    others, poisoned = logits.clone(), features()
    others[0], poisoned[0] = 77.0, 1e6  # a sample without a known label
    torch.testing.assert_close(reference(others, masked, features=poisoned), found)
    assert torch.equal(criterion.nci.mean, reference.nci.mean)


def test_fedlas_by_hand():
    logits, target = data()
    criterion = fedlas_loss(beta=2.0)
    loss = criterion(logits, target, features=features())
    norms = features().float().abs().sum(1)
    z = (norms - norms.mean()) / (norms.std() + 1e-3)
    two = criterion.gate.out(F.leaky_relu(criterion.gate.hidden(logits.detach()), 0.01))
    psi = torch.sign(two.softmax(1)[:, 1] - two.softmax(1)[:, 0])
    alpha = 0.4 * torch.sigmoid(2.0 * psi * z)
    soft = target * (1 - alpha[:, None]) + alpha[:, None] / 2
    torch.testing.assert_close(
        loss, F.binary_cross_entropy_with_logits(logits, soft), atol=1e-7, rtol=1e-6
    )
    strength = criterion.eval().smoothing(logits, features())
    torch.testing.assert_close(strength, alpha, atol=1e-7, rtol=1e-6, check_dtype=False)


def test_in_an_objective_the_gate_learns():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, L))
    criterion = MultiLabelFedLAS(num_labels=L, base="mbls")
    objective = fedlas.Objective(model, criterion)
    loss, logits = objective(torch.randn(9, 6), data()[1])
    loss.backward()
    assert logits.shape == (9, L)
    assert all(p.grad is not None for p in criterion.gate.parameters())
    assert len(fedlas.param_groups(objective)) == 2


def test_gradients():
    logits, target = data(3)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: MultiLabelLoss(num_labels=L, pos_weight=[1.0, 2, 3, 4])(z, target), logits
    )


def test_pairs_for_metrics():
    logits, target = data(60)
    target[0] = -100
    rows, labels = labels_as_two_classes(logits, target)
    assert len(rows) == 59 * L
    found = evaluate(Predictions(rows, labels))
    right = ((logits[1:] > 0) == target[1:].bool()).double().mean()
    assert found["accuracy"] == pytest.approx(right.item())
    assert found["nll"] == pytest.approx(
        F.binary_cross_entropy_with_logits(logits[1:], target[1:].double()).item()
    )


def test_nonsense_is_refused_and_moves_nothing():
    logits, target = data()
    with pytest.raises(ValueError, match=r"only logits and target.*MultiLabelFedLAS"):
        MultiLabelLoss(num_labels=L, base={"name": "fedlas"})
    with pytest.raises(ValueError, match=r"logits and target .*both have shape \(N"):
        MultiLabelLoss(num_labels=L)(logits, target[:, 0])
    with pytest.raises(ValueError, match=r"both have shape \(N, 4\)"):
        MultiLabelLoss(num_labels=L)(logits[:, :3], target[:, :3])
    with pytest.raises(ValueError, match=r"weight must have shape \(4,\)"):
        MultiLabelLoss(num_labels=L, pos_weight=[1.0])
    with pytest.raises(ValueError, match="finite, non-negative"):
        MultiLabelLoss(num_labels=L, pos_weight=[1.0, -1, 1, 1])
    with pytest.raises(ValueError, match=r"target .*0, 1 or ignore_index"):
        labels_as_two_classes(logits, target + 0.5)
    with pytest.raises(ValueError, match="logits must be finite"):
        MultiLabelLoss(num_labels=L)(logits.index_fill(0, torch.tensor(0), float("-inf")), target)
    criterion = fedlas_loss()
    for wrong in (target + 1, torch.full_like(target, -100), target * float("nan")):
        with pytest.raises(ValueError, match=r"target must be in \[0, 1\]"):
            criterion(logits, wrong, features=features())
    with pytest.raises(TypeError, match="features must be passed"):
        criterion(logits, target)
    assert int(criterion.nci.num_batches_tracked) == 0
