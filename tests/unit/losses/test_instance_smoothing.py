"""The targets of Maher and Kull 2021, by hand."""

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import CrossEntropy, InstanceSmoothing, LabelSmoothing

TEACHER = torch.tensor([[0.6, 0.3, 0.1], [0.25, 0.5, 0.25]])
LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, -1.0, 3.0]])
TARGET = torch.tensor([0, 2])


def built(**options):
    criterion = InstanceSmoothing(num_samples=2, num_classes=3, **options)
    criterion.set_targets(TEACHER)
    return criterion


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("classes", [[0.8, 0.15, 0.05], [0.2 / 3, 0.4 / 3, 0.8]]),
        ("amount", [[1 - 0.2 * 0.6, 0.06, 0.06], [0.025, 0.025, 1 - 0.2 * 0.25]]),
    ],
)
def test_targets(form, expected):
    loss = built(alpha=0.2, form=form)(LOGITS, TARGET, index=torch.arange(2))
    by_hand = -(torch.tensor(expected) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, by_hand, atol=2e-4, rtol=0)  # half precision of the teacher


@pytest.mark.parametrize("form", ["classes", "amount"])
def test_soft_target_mixes_class_targets(form):
    criterion = built(alpha=0.3, form=form)
    label = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    mixture = sum(
        label[:, [k]]
        * criterion.mix_targets(TEACHER, F.one_hot(torch.tensor([k, k]), 3).float(), 0.3)
        for k in range(3)
    )
    found = criterion.mix_targets(TEACHER, label, 0.3)
    torch.testing.assert_close(found, mixture)
    torch.testing.assert_close(found.sum(1), torch.ones(2))


def test_a_hot_teacher_divides_alike():
    """Label smoothing with the label's own share of alpha given back."""
    loss = built(alpha=0.2, temperature=1e6)(LOGITS, TARGET, index=torch.arange(2))
    torch.testing.assert_close(loss, LabelSmoothing(alpha=0.3)(LOGITS, TARGET), atol=1e-5, rtol=0)


def test_certain_teacher_spreads_mass_evenly():
    criterion = built()
    found = criterion.mix_targets(
        torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), 0.1
    )
    torch.testing.assert_close(found, torch.tensor([[0.9, 0.05, 0.05]]), atol=1e-4, rtol=0)


def test_a_sample_without_a_teacher_has_its_label():
    criterion = InstanceSmoothing(num_samples=2, num_classes=3, alpha=0.5)
    torch.testing.assert_close(
        criterion(LOGITS, TARGET, index=torch.arange(2)), CrossEntropy()(LOGITS, TARGET)
    )


def test_teacher_with_rounding_errors_is_accepted():
    rounded = torch.tensor([[0.9, 0.1 + 1e-17, -1e-17], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64)
    criterion = built(alpha=0.2)
    criterion.set_targets(rounded)
    assert torch.isfinite(criterion(LOGITS, TARGET, index=torch.arange(2)))
    for wrong in (rounded - 0.01, LOGITS, rounded[:1], rounded * 100, rounded.tolist()):
        with pytest.raises(InputError, match="prob"):
            criterion.set_targets(wrong)
