import copy

import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import FedLAS, FedLASAblation, LabelSmoothing

torch.manual_seed(0)
LOGITS, TARGET, FEATURES = 4 * torch.randn(16, 5), torch.randint(5, (16,)), torch.rand(16, 7)


def strengths(**options):
    torch.manual_seed(1)
    criterion = FedLASAblation(num_classes=5, alpha=0.1, **options)
    criterion(LOGITS, TARGET, features=FEATURES)
    return criterion, criterion.smoothing(LOGITS, FEATURES)


def scores():
    norms = FEATURES.sum(1)
    return (norms - norms.mean()) / (norms.std() + 1e-3)


def test_nothing_replaced_is_fedlas():
    torch.manual_seed(1)
    ours = FedLAS(num_classes=5, alpha=0.1)
    torch.manual_seed(1)
    same = FedLASAblation(num_classes=5, alpha=0.1)
    for _ in range(2):
        first, second = (c(LOGITS, TARGET, features=FEATURES) for c in (ours, same))
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        first.backward(), second.backward()
        for mine, theirs in zip(ours.gate.parameters(), same.gate.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=0)


@pytest.mark.parametrize(("direction", "sign"), [("plus", 1), ("minus", -1), ("zero", 0)])
def test_fixed_directions(direction, sign):
    criterion, found = strengths(direction=direction)
    torch.testing.assert_close(found, 0.2 * torch.sigmoid(4.0 * sign * scores()))
    assert not list(criterion.parameters())


def test_against_never_smooths_more_than_alpha():
    _, found = strengths(direction="against")
    torch.testing.assert_close(found, 0.2 * torch.sigmoid(-4.0 * scores().abs()))
    assert (found <= 0.1).all()


def test_zero_is_label_smoothing():
    criterion, _ = strengths(direction="zero")
    torch.testing.assert_close(
        criterion(LOGITS, TARGET, features=FEATURES), LabelSmoothing(alpha=0.1)(LOGITS, TARGET)
    )


def test_a_frozen_gate_decides_but_does_not_learn():
    frozen, found = strengths(direction="frozen")
    _, trained = strengths()
    torch.testing.assert_close(found, trained)
    assert not any(p.requires_grad for p in frozen.gate.parameters())
    assert len(frozen.state_dict()) == len(FedLAS(num_classes=5).state_dict())


def test_constant_score():
    criterion, found = strengths(score="constant")
    psi = criterion.gate(LOGITS)
    torch.testing.assert_close(found, (0.2 * torch.sigmoid(4.0 * psi)).detach())


def test_noise_score_is_normal_and_independent_of_norm():
    features = torch.rand(20000, 16)
    criterion = FedLASAblation(num_classes=5, score="noise")
    noise = criterion.nci(features)
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03
    for other in (features.sum(1), features[:, 0], noise.roll(1)):
        assert abs(float(torch.corrcoef(torch.stack((noise, other)))[0, 1])) < 0.03
    order = torch.randperm(20000)
    torch.testing.assert_close(criterion.nci(features[order]), noise[order], rtol=0, atol=0)


def test_mean_spread():
    _, own = strengths(direction="plus")
    _, mean = strengths(direction="plus", spread="mean")
    torch.testing.assert_close(mean, own.mean().expand(16))
    criterion = FedLASAblation(
        num_classes=5, alpha=0.1, direction="plus", spread="mean", reduction="none"
    )
    twin = copy.deepcopy(criterion)
    ignoring = torch.where(torch.arange(16) < 4, -100, TARGET)
    found = criterion(LOGITS, ignoring, features=FEATURES)
    torch.testing.assert_close(found[4:], twin(LOGITS[4:], TARGET[4:], features=FEATURES[4:]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "upward"}, "direction must be one of trained, frozen, plus"),
        ({"score": "nose"}, "Did you mean 'noise'"),
        ({"spread": 1}, "spread must be one of own, mean"),
    ],
)
def test_unknown_parts(options, message):
    with pytest.raises(InputError, match=message):
        FedLASAblation(num_classes=5, **options)


@pytest.mark.parametrize("direction", ["plus", "against"])
def test_ranks_are_summed_over_in_training_only(monkeypatch, direction):
    """Elsewhere a single rank may call it, or for more batches than the others: a collective would wait forever."""
    calls = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", calls.append)
    criterion = FedLASAblation(num_classes=5, direction=direction, spread="mean", score="constant")
    criterion(LOGITS, TARGET, features=FEATURES)
    assert len(calls) == 1
    criterion.smoothing(LOGITS, FEATURES)
    with torch.no_grad():
        criterion(LOGITS, TARGET, features=FEATURES)
    criterion.eval()(LOGITS, TARGET, features=FEATURES)
    assert len(calls) == 1
