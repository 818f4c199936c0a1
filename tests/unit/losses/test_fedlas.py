"""FedLAS and FedLAS+: the formula by hand, the ablations, replaced parts, and what must not change."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fedlas.errors import InputError
from fedlas.losses import (
    BidirectionalCalibrationGate,
    FedLAS,
    FedLASPlus,
    LabelSmoothing,
    MbLS,
    NormConfidenceIndicator,
    adaptive_strength,
)

N, C, D = 12, 5, 7
BOTH = pytest.mark.parametrize("cls", [FedLAS, FedLASPlus])


def batch(*dense, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        3 * torch.randn(N, C, *dense, generator=generator),
        torch.randint(C, (N, *dense), generator=generator),
        torch.rand(N, D, generator=generator) * 4,
    )


def margin_penalty(logits, margin):
    return (logits.amax(1, keepdim=True) - logits - margin).relu().mean(1)


def state(criterion):
    return copy.deepcopy(criterion.state_dict())


def assert_same(first, second):
    torch.testing.assert_close(first, second, rtol=0, atol=0)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, given, valid=None):
        return torch.full((given.shape[0],), self.value)


@BOTH
def test_formula_by_hand(cls):
    criterion = cls(num_classes=C, alpha=0.1, beta=2.0)
    for seed in range(3):
        logits, target, features = batch(seed=seed)
        value = criterion(logits, target, features=features)
        norms = features.abs().sum(1)
        z = (norms - criterion.nci.mean) / (criterion.nci.std + 1e-3)
        alpha = 2 * 0.1 * torch.sigmoid(2.0 * criterion.gate(logits) * z)
        ce, log_probs = F.cross_entropy(logits, target, reduction="none"), logits.log_softmax(1)
        other = -log_probs.mean(1) if cls is FedLAS else margin_penalty(logits, 6.0)
        torch.testing.assert_close(value, ((1 - alpha) * ce + alpha * other).mean())


def test_plain_without_modulation():
    """With beta = 0, or a gate that returns 0, it is plain label smoothing."""
    logits, target, features = batch()
    expected = LabelSmoothing(alpha=0.07)(logits, target)
    torch.testing.assert_close(
        FedLAS(num_classes=C, alpha=0.07, beta=0.0)(logits, target, features=features), expected
    )
    torch.testing.assert_close(
        FedLAS(num_classes=C, alpha=0.07, gate=Constant(0.0))(logits, target, features=features),
        expected,
    )
    torch.testing.assert_close(
        FedLAS(num_classes=C, alpha=0.07, nci=Constant(0.0))(logits, target, features=features),
        expected,
    )


def test_fedlas_plus_without_modulation():
    logits, target, features = batch()
    value = FedLASPlus(num_classes=C, alpha=0.2, beta=0.0, margin=1.0)(
        logits, target, features=features
    )
    expected = 0.8 * F.cross_entropy(logits, target) + 0.2 * margin_penalty(logits, 1.0).mean()
    torch.testing.assert_close(value, expected)
    # CE is weighed by 1 - alpha here
    assert not torch.isclose(value, MbLS(alpha=0.2, margin=1.0)(logits, target))


@BOTH
@pytest.mark.parametrize("psi", [-1.0, 0.0, 1.0])
def test_shift_of_the_logits_with_a_fixed_gate(cls, psi):
    logits, target, features = batch()
    value, shifted = (
        cls(num_classes=C, gate=Constant(psi))(given, target, features=features)
        for given in (logits, logits + 20)
    )
    torch.testing.assert_close(value, shifted, rtol=1e-5, atol=1e-5)


@BOTH
def test_strength_is_between_0_and_twice_alpha(cls):
    criterion = cls(num_classes=C, alpha=0.3)
    logits, target, features = batch()
    criterion(logits, target, features=features)
    alpha = criterion.smoothing(logits, features)
    assert ((alpha > 0) & (alpha < 0.6)).all()
    psi, scores = criterion.gate(logits), criterion.eval().nci(features)
    assert torch.equal(alpha > 0.3, psi * scores > 0)


def test_adaptive_strength_at_its_limits():
    strength = adaptive_strength(torch.tensor([-1e6, 0.0, 1e6]), torch.ones(3), alpha=0.5, beta=4.0)
    torch.testing.assert_close(strength, torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(TypeError, match="positional argument"):
        adaptive_strength(torch.zeros(3), torch.ones(3), 0.5, 4.0)


@BOTH
def test_smoothing_changes_nothing(cls):
    criterion = cls(num_classes=C)
    logits, target, features = batch()
    criterion(logits, target, features=features)
    before = state(criterion)
    criterion.train()
    strength = criterion.smoothing(logits.requires_grad_(), features * 100)
    assert_same(state(criterion), before)
    assert criterion.training
    assert criterion.nci.training
    assert not strength.requires_grad
    assert logits.grad is None
    assert_same(strength, criterion.eval().smoothing(logits, features * 100))


@BOTH
def test_smoothing_is_what_the_loss_used(cls):
    criterion = cls(num_classes=C, reduction="none").eval()
    criterion.nci.mean.fill_(14.0)
    criterion.nci.num_batches_tracked.fill_(1)
    logits, target, features = batch()
    alpha = criterion.smoothing(logits, features)
    ce = F.cross_entropy(logits, target, reduction="none")
    other = -logits.log_softmax(1).mean(1) if cls is FedLAS else margin_penalty(logits, 6.0)
    torch.testing.assert_close(
        criterion(logits, target, features=features), (1 - alpha) * ce + alpha * other
    )


@pytest.mark.parametrize(
    ("dense", "features", "shape"),
    [
        ((), (N, D), (N,)),
        ((3,), (N, D), (N,)),
        ((3,), (N, D, 3), (N, 3)),
        ((2, 3), (N, D), (N,)),
        ((2, 3), (N, D, 2, 3), (N, 2, 3)),
        ((1,), (N, D, 1), (N, 1)),
        ((1,), (N, D), (N,)),
    ],
)
def test_shape_of_smoothing(dense, features, shape):
    assert FedLAS(num_classes=C).smoothing(batch(*dense)[0], torch.rand(features)).shape == shape


@BOTH
def test_smoothing_refuses_nonsense(cls):
    logits, _, features = batch()
    for bad_logits, bad_features in (
        (logits, features[:-1]),
        (logits, features[:, :, None, None]),
        (logits, None),
        (logits.long(), features),
        (logits.tolist(), features),
        (logits[:, :-1], features),
    ):
        with pytest.raises(
            (InputError, TypeError), match=rf"{cls.__name__}\.smoothing: (features|logits)"
        ):
            cls(num_classes=C).smoothing(bad_logits, bad_features)


@BOTH
def test_features_and_gate_are_detached_from_model(cls):
    criterion = cls(num_classes=C)
    logits, target, features = batch()
    features.requires_grad_()
    criterion(logits.requires_grad_(), target, features=features).backward()
    assert features.grad is None
    # The logits' gradient is that of the loss with a fixed strength.
    alpha = criterion.smoothing(logits, features)
    fixed = logits.detach().clone().requires_grad_()
    ce = F.cross_entropy(fixed, target, reduction="none")
    other = -fixed.log_softmax(1).mean(1) if cls is FedLAS else margin_penalty(fixed, 6.0)
    ((1 - alpha) * ce + alpha * other).mean().backward()
    torch.testing.assert_close(logits.grad, fixed.grad)


@BOTH
def test_gradient_of_the_gate_by_hand(cls):
    criterion = cls(num_classes=C, alpha=0.1, beta=2.0)
    logits, target, features = batch()
    criterion(logits, target, features=features).backward()
    z = criterion.eval().nci(features)
    psi = criterion.gate(logits)
    s = torch.sigmoid(2.0 * psi.detach() * z)
    ce = F.cross_entropy(logits, target, reduction="none")
    other = -logits.log_softmax(1).mean(1) if cls is FedLAS else margin_penalty(logits, 6.0)
    d_psi = (other - ce) * 2 * 0.1 * s * (1 - s) * 2.0 * z / N
    expected = torch.autograd.grad(psi, list(criterion.gate.parameters()), d_psi)
    torch.testing.assert_close([p.grad for p in criterion.gate.parameters()], list(expected))


@BOTH
def test_frozen_gate(cls):
    criterion = cls(num_classes=C)
    criterion.gate.requires_grad_(False)
    logits, target, features = batch()
    criterion(logits.requires_grad_(), target, features=features).backward()
    assert all(p.grad is None for p in criterion.gate.parameters())
    assert logits.grad.abs().sum() > 0


@BOTH
def test_replaced_parts(cls):
    """Modules (which are then part of the state) and plain functions with the same call can replace a part."""
    logits, target, features = batch()
    seen = {}

    def gate(given):
        seen["gate"] = given.shape
        return torch.ones(given.shape[0])

    def nci(given, *, valid=None):
        seen["nci"] = (given.shape, None if valid is None else valid.tolist())
        return torch.zeros(given.shape[0])

    criterion = cls(num_classes=C, nci=nci, gate=gate)
    target[0] = -100
    criterion(logits, target, features=features)
    assert seen == {"gate": (N, C), "nci": ((N, D), [False] + [True] * (N - 1))}
    assert criterion.nci is nci
    assert not list(criterion.parameters())
    modules = cls(
        num_classes=C, nci=NormConfidenceIndicator(0.1), gate=BidirectionalCalibrationGate(C)
    )
    assert set(modules.state_dict()) == set(cls(num_classes=C).state_dict())
    swapped = cls(num_classes=C)
    swapped.gate = Constant(1.0)
    swapped(logits, target, features=features)


@BOTH
def test_reference_starts_from_the_published_moments(cls):
    criterion = cls(num_classes=C, variant="reference", momentum=0.5, norm_p=2, alpha=0.1)
    assert (criterion.nci.mean.item(), criterion.nci.std.item()) == (20.0, 100.0)
    assert (criterion.nci.momentum, criterion.nci.norm_p, criterion.alpha) == (0.5, 2, 0.1)
    replaced = NormConfidenceIndicator(0.3)
    assert cls(num_classes=C, variant="reference", nci=replaced).nci is replaced
    logits, target, features = batch()
    # here a first batch of one sample is valid
    criterion(logits[:1], target[:1], features=features[:1])


@BOTH
def test_a_first_batch_of_one_is_refused(cls):
    criterion = cls(num_classes=C)
    before = state(criterion)
    logits, target, features = batch()
    with pytest.raises(InputError, match="at least two samples"):
        criterion(logits[:1], target[:1], features=features[:1])
    assert_same(state(criterion), before)


def test_dense_images_share_one_strength():
    criterion = FedLAS(num_classes=C, reduction="none")
    logits, target, features = batch(2, 3)
    target[0, 0, 0] = -100
    target[1] = -100
    value = criterion(logits, target, features=features)
    logits_of_images = logits.flatten(2).mean(2)
    logits_of_images[0] = logits.flatten(2)[0, :, 1:].mean(1)
    kept = torch.arange(N) != 1
    norms = features.abs().sum(1)
    assert criterion.nci.mean.item() == pytest.approx(norms[kept].mean().item())
    assert criterion.nci.std.item() == pytest.approx(norms[kept].std().item())
    z = (norms - criterion.nci.mean) / (criterion.nci.std + 1e-3)
    alpha = (2 * 0.05 * torch.sigmoid(4.0 * criterion.gate(logits_of_images) * z))[:, None, None]
    log_probs = logits.log_softmax(1)
    ce = F.cross_entropy(logits, target, reduction="none")
    expected = torch.where(target == -100, 0.0, (1 - alpha) * ce - alpha * log_probs.mean(1))
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("what", ["features", "logits"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@BOTH
def test_non_finite_ignored_samples_do_not_affect_gate(cls, what, bad):
    torch.manual_seed(0)
    criterion = cls(num_classes=C)
    clean = copy.deepcopy(criterion)
    logits, target, features = batch()
    target[0] = -100
    given = {"logits": logits.clone(), "features": features.clone()}
    given[what][0] = bad
    value = criterion(given["logits"], target, features=given["features"])
    expected = clean(logits[1:], target[1:], features=features[1:])
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for ours, theirs in zip(criterion.gate.parameters(), clean.gate.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert_same(
        state(criterion)["nci.num_batches_tracked"], state(clean)["nci.num_batches_tracked"]
    )


@BOTH
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_classes": 0}, "num_classes"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"alpha": -0.01}, "alpha"),
        ({"alpha": 0.51}, "alpha"),
        ({"beta": -1}, "beta"),
        ({"beta": float("inf")}, "beta"),
        ({"momentum": 0}, "momentum"),
        ({"momentum": 2}, "momentum"),
        ({"norm_p": 0}, "norm_p"),
        ({"nci": 3}, "nci must be"),
        ({"gate": "sign"}, "gate must be"),
    ],
    ids=str,
)
def test_invalid_fedlas_arguments_raise(cls, options, match):
    with pytest.raises(InputError, match=match):
        cls(**{"num_classes": C, **options})


def test_negative_margin():
    with pytest.raises(InputError, match="FedLASPlus: margin"):
        FedLASPlus(num_classes=C, margin=-1)


def test_repr_names_the_settings():
    assert "num_classes=5" in repr(FedLAS(num_classes=C))
    assert "margin=6.0" in repr(FedLASPlus(num_classes=C))


@pytest.mark.parametrize("part", ["nci", "gate"])
def test_wrong_replacement_shape_raises_and_keeps_state(part):
    column = torch.nn.Linear(5, 1)
    replacement = {
        "nci": lambda features, valid=None: features.sum(dim=1, keepdim=True),
        "gate": lambda logits: column(logits).tanh(),
    }[part]
    criterion = FedLAS(num_classes=5, **{part: replacement})
    logits, target, features = torch.randn(8, 5), torch.arange(8) % 5, torch.rand(8, 6)
    with pytest.raises(
        ValueError, match=rf"FedLAS: {part} must return a tensor \(8,\); got \(8, 1\)"
    ):
        criterion(logits, target, features=features)
    if part == "gate":
        assert criterion.nci.num_batches_tracked == 0


def test_smoothing_is_the_same_under_autocast():
    torch.manual_seed(0)
    criterion = FedLAS(num_classes=5)
    logits, features = torch.randn(2000, 5) * 0.1, torch.rand(2000, 6)
    criterion(logits, torch.zeros(2000, dtype=torch.int64), features=features)
    with torch.autocast("cpu", torch.bfloat16):
        inside = criterion.smoothing(logits, features)
    assert torch.equal(inside, criterion.smoothing(logits, features))
