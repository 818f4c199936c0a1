import pytest
import torch

from fedlas.errors import InputError
from fedlas.losses import (
    ACLS,
    LOSSES,
    EntropyPenalty,
    FedLAS,
    FedLASAblation,
    FedLASPlus,
    FocalLoss,
    LabelSmoothing,
    MbLS,
    Mixup,
    Modulated,
    adaptive_strength,
)

BASES = [
    entry.name
    for entry in LOSSES.entries()
    if entry.value.strength is not None and "index" not in entry.value.needs
]


def batch(seed=0, samples=12, classes=5):
    torch.manual_seed(seed)
    return (
        4 * torch.randn(samples, classes),
        torch.randint(classes, (samples,)),
        3 * torch.rand(samples, 7),
    )


def twin(criterion, like):
    criterion.gate.load_state_dict(like.gate.state_dict())
    return criterion


def test_the_documented_bases_have_a_strength():
    assert {"ls", "mbls", "acls", "entropy-penalty", "focal"} <= set(BASES)


def test_registered_name_and_published_defaults():
    assert LOSSES["modulated"].value is Modulated
    criterion = Modulated(num_classes=5)
    assert isinstance(criterion.base, ACLS)
    assert (criterion.beta, criterion.nci.momentum, criterion.nci.norm_p) == (4.0, 0.95, 1)


def test_gate_decides_unless_subclass_overrides():
    assert Modulated(num_classes=5).gate_decides
    assert not FedLASAblation(num_classes=5, direction="against").gate_decides


@pytest.mark.parametrize("name", BASES)
def test_each_sample_gets_its_own_strength(name):
    logits, target, features = batch()
    criterion = Modulated(num_classes=5, base=name, beta=2.0, reduction="none")
    criterion(logits, target, features=features)  # moves the indicator
    criterion.eval()
    strengths = criterion.smoothing(logits, features)
    expected = adaptive_strength(
        criterion.nci(features), criterion.gate(logits), alpha=criterion.alpha, beta=2.0
    ).detach()
    torch.testing.assert_close(strengths, expected)
    values = criterion(logits, target, features=features)
    option = type(criterion.base).strength
    assert len(set(strengths.tolist())) > 2
    for i, strength in enumerate(strengths.tolist()):
        same_for_all = LOSSES.build(name, {option: strength, "reduction": "none"}, num_classes=5)
        torch.testing.assert_close(values[i], same_for_all(logits, target)[i], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_beta_zero_is_the_base_with_any_gate(name):
    logits, target, features = batch()
    criterion = Modulated(num_classes=5, base=name, beta=0.0)
    plain = LOSSES.build(name, num_classes=5)
    torch.testing.assert_close(criterion(logits, target, features=features), plain(logits, target))


@pytest.mark.parametrize("name", BASES)
def test_the_gate_learns(name):
    logits, target, features = batch()
    criterion = Modulated(num_classes=5, base=name, beta=2.0)
    criterion(logits, target, features=features).backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in criterion.gate.out.parameters()
    )


def test_a_base_with_a_memory():
    logits, target, features = batch()
    criterion = Modulated(num_classes=5, num_samples=12, base="own-average", beta=2.0)
    assert criterion.needs == {"features", "index"}
    for _ in range(2):  # at the first visit there is nothing to mix with
        criterion.zero_grad()
        criterion(logits, target, features=features, index=torch.arange(12)).backward()
    assert all(p.grad.abs().sum() > 0 for p in criterion.gate.out.parameters())


def test_fedlas_and_fedlas_plus_are_instances_of_it():
    logits, target, features = batch()
    for ours, base in (
        (FedLAS(num_classes=5, alpha=0.1, beta=3.0), LabelSmoothing(alpha=0.1)),
        (
            FedLASPlus(num_classes=5, alpha=0.2, beta=3.0, margin=2.0),
            MbLS(alpha=0.2, margin=2.0, form="convex"),
        ),
    ):
        general = twin(Modulated(num_classes=5, base=base, beta=3.0), ours)
        for _ in range(2):
            torch.testing.assert_close(
                ours(logits, target, features=features),
                general(logits, target, features=features),
                rtol=0,
                atol=0,
            )
        assert isinstance(ours, Modulated)
        assert ours.state_dict().keys() == general.state_dict().keys()


def test_needs_include_those_of_the_base():
    class NeedsIndex(LabelSmoothing):
        """Label smoothing that needs the index."""

        needs = frozenset({"index"})

    assert Modulated(num_classes=5, base=NeedsIndex()).needs == {"features", "index"}
    assert Modulated(num_classes=5, base="ls").needs == {"features"}
    assert Modulated.needs == {"features"}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (
            "ce",
            r"base must be a loss with a strength option; got CrossEntropy\(\)\. Choose one of: ls, ",
        ),
        ("acsl", "Did you mean 'acls'"),
        ({"name": "focal", "gama": 1.0}, "Did you mean 'gamma'"),
        ({"gamma": 1.0}, "base must be a loss, a registry name, or a mapping with a 'name'"),
        (None, "base must be a loss, a registry name, or a mapping with a 'name'"),
        (LabelSmoothing(alpha=0.6), r"alpha of the base must be a finite number in \[0, 0.5\]"),
        (
            MbLS(alpha=0.6, form="convex"),
            r"alpha of the base must be a finite number in \[0, 0.5\]",
        ),
        (ACLS(reduction="sum"), "base must have default reduction"),
        (FocalLoss(weight=[1.0] * 5), "base must have default reduction"),
        (EntropyPenalty(ignore_index=3), "base must have default reduction"),
        (Mixup(num_classes=5), "and no mix method"),
    ],
    ids=str,
)
def test_unsuitable_bases(base, message):
    with pytest.raises(InputError, match=message):
        Modulated(num_classes=5, base=base)


def test_a_loss_without_a_strength_raises():
    with pytest.raises(TypeError, match="CrossEntropy has no strength"):
        LOSSES.build("ce").with_strength(None, 0.1)
