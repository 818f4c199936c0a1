import math

import pytest
import torch
import torch.nn.functional as F

from fedlas import Objective
from fedlas.errors import InputError
from fedlas.losses import LOSSES, CutMix, FedLAS, Mixup

IMAGES = torch.rand(6, 2, 8, 8)
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])


def test_mixup_by_the_generators_numbers():
    torch.manual_seed(3)
    mixed = Mixup(num_classes=5, alpha=0.7).mix(IMAGES, TARGET)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.7, 0.7).sample())
    partner = torch.randperm(6)
    one_hot = torch.eye(5)[TARGET]
    torch.testing.assert_close(mixed.inputs, share * IMAGES + (1 - share) * IMAGES[partner])
    torch.testing.assert_close(mixed.target, share * one_hot + (1 - share) * one_hot[partner])
    assert mixed.views == ()


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_targets_follow_the_pixels(seed):
    """Images of one color each: the share of foreign pixels is the share of the foreign target."""
    torch.manual_seed(seed)
    images = torch.arange(6.0)[:, None, None, None].expand(6, 1, 9, 7)
    mixed = CutMix(num_classes=6).mix(images, torch.arange(6))
    for i in range(6):
        for color in range(6):
            pixels = float((mixed.inputs[i] == color).float().mean())
            assert math.isclose(pixels, float(mixed.target[i, color]), abs_tol=1e-6)
    # unchanged
    assert torch.equal(images, torch.arange(6.0)[:, None, None, None].expand(6, 1, 9, 7))


def test_cutmix_boxes_have_expected_size_and_random_position():
    torch.manual_seed(0)
    images = torch.zeros(2, 1, 32, 32)
    images[1] = 1
    kept, covered = [], torch.zeros(32, 32)
    while len(kept) < 400:
        mixed = CutMix(num_classes=2).mix(images, torch.tensor([0, 1])).inputs[0, 0]
        covered += mixed
        kept.append(float((mixed == 0).float().mean()))
    assert min(covered[0, 0], covered[31, 31], covered[16, 16]) > 0
    # Beta(1, 1): half of the area on average, less what the borders cut off, and in half of all cases no real partner.
    assert 0.75 < sum(kept) / len(kept) < 0.95


def test_shares_follow_the_beta_distribution():
    torch.manual_seed(0)
    # The diagonal is the share of each sample, or 1 where it is its own partner.
    samples, target, criterion = torch.eye(8), torch.arange(8), Mixup(num_classes=8, alpha=0.2)
    drawn = torch.stack(
        [criterion.mix(samples, target).inputs.diagonal().min() for _ in range(4000)]
    )
    assert abs(float(drawn.mean()) - 0.5) < 0.02
    assert abs(float(drawn.var()) - 1 / (4 * 1.4)) < 0.01  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_soft_and_dense_targets_are_mixed_too():
    soft = torch.rand(6, 5).softmax(1)
    torch.manual_seed(0)
    mixed = Mixup(num_classes=5).mix(IMAGES, soft)
    torch.testing.assert_close(mixed.target.sum(1), torch.ones(6))
    dense = torch.randint(5, (6, 8, 8))
    assert Mixup(num_classes=5).mix(IMAGES, dense).target.shape == (6, 5, 8, 8)


def test_without_an_objective_it_is_the_base():
    logits = torch.randn(6, 5)
    for criterion in (Mixup(num_classes=5), CutMix(num_classes=5)):
        torch.testing.assert_close(criterion(logits, TARGET), F.cross_entropy(logits, TARGET))


def test_any_base_through_the_objective():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(128, 4), torch.nn.ReLU(), torch.nn.Linear(4, 5)
    )
    objective = Objective(
        model, Mixup(num_classes=5, base={"name": "fedlas", "alpha": 0.1}), head="3"
    )
    assert objective.needs == {"features"}
    assert isinstance(objective.criterion.base, FedLAS)
    torch.manual_seed(1)
    loss, logits = objective(IMAGES, TARGET)
    torch.manual_seed(1)
    mixed = objective.criterion.mix(IMAGES, TARGET)
    torch.testing.assert_close(logits, model(mixed.inputs))
    loss.backward()
    assert objective.criterion.base.gate.out.weight.grad is not None
    objective.eval()
    torch.testing.assert_close(objective(IMAGES, TARGET)[1], model(IMAGES))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize("base", ["ce", "fedlas", "own-average", "vmf", "tempered"])
def test_every_loss_takes_mixed_targets(kind, base):
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(128, 4), torch.nn.ReLU(), torch.nn.Linear(4, 5)
    )
    objective = Objective(
        model, kind(num_classes=5, base=base, num_samples=6, num_epochs=9), head="3"
    )
    assert objective.needs == LOSSES[base].value.needs
    for _ in range(2):
        loss, logits = objective(IMAGES, TARGET, index=torch.arange(6))
        loss.backward()
        assert torch.isfinite(loss)
        assert not torch.isclose(
            loss, objective.criterion(logits, TARGET, **extras(objective, model))
        )
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def extras(objective, model):
    """The criterion's needs for the unmixed batch."""
    given = {
        "features": model[:3](IMAGES),
        "index": torch.arange(6),
        "head_weight": model[3].weight,
    }
    return {key: value for key, value in given.items() if key in objective.needs}


@pytest.mark.parametrize("kind", [Mixup, CutMix])
@pytest.mark.parametrize(
    ("inputs", "target", "message"),
    [
        (IMAGES, TARGET - 1, r"target must be in \[0, 5\).*got values from -1 to 3"),
        (IMAGES, torch.where(TARGET == 0, -100, TARGET), "ignored samples cannot be mixed"),
        (IMAGES.long(), TARGET, "must be a floating tensor"),
        (IMAGES[:5], TARGET, "one row per target"),
        ("images", TARGET, "must be a floating tensor"),
    ],
)
def test_a_refused_batch_draws_nothing(kind, inputs, target, message):
    before = torch.get_rng_state()
    with pytest.raises(InputError, match=message):
        kind(num_classes=5).mix(inputs, target)
    assert torch.equal(torch.get_rng_state(), before)


def test_cutmix_refuses_other_inputs_than_images():
    with pytest.raises(InputError, match="must be images"):
        CutMix(num_classes=5).mix(torch.rand(6, 10), TARGET)
    with pytest.raises(InputError, match="must be images"):
        CutMix(num_classes=5).mix(IMAGES, torch.zeros(6, 8, 8, dtype=torch.int64))


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_options(kind):
    with pytest.raises(InputError, match=r"alpha .*finite .*\(0"):
        kind(num_classes=5, alpha=0.0)
    with pytest.raises(InputError, match="num_classes"):
        kind(num_classes=0)
