"""MaxSup by hand, and compared with label smoothing."""

import pytest
import torch
import torch.nn.functional as F

from batches import penalty_of
from fedlas.errors import InputError
from fedlas.losses import LabelSmoothing, MaxSup


def test_by_hand():
    logits = torch.tensor([[4.0, 1.0, -2.0], [0.0, 6.0, 0.0]])
    target = torch.tensor([1, 1])
    assert penalty_of(MaxSup(), logits, target).tolist() == [3.0, 4.0]
    torch.testing.assert_close(
        MaxSup(alpha=0.2)(logits, target), F.cross_entropy(logits, target) + 0.2 * 3.5
    )


def test_is_label_smoothing_where_the_prediction_is_right():
    """Label smoothing lowers z_y: the same for right predictions, alpha (z_max - z_y) less for wrong ones."""
    logits = 3 * torch.randn(20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    top, right = logits.max(1)
    target = torch.where(torch.arange(20) < 10, right, (right + 1) % 5)
    ours = MaxSup(alpha=0.3, reduction="none")(logits, target)
    theirs = LabelSmoothing(alpha=0.3, reduction="none")(logits, target)
    own = logits.gather(1, target[:, None]).squeeze(1)
    torch.testing.assert_close(ours[:10], theirs[:10])
    torch.testing.assert_close(ours, theirs + 0.3 * (top - own))


def test_gradient():
    logits = torch.tensor([[4.0, 1.0, -2.0], [5.0, 5.0, 2.0]], requires_grad=True)
    penalty_of(MaxSup(), logits, torch.tensor([1, 1])).sum().backward()
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]) - 1 / 3  # equal maxima share
    torch.testing.assert_close(logits.grad, expected)


def test_class_weights_weigh_the_penalty_by_the_target():
    logits, target, weight = (
        torch.randn(6, 3),
        torch.tensor([0, 1, 2, 2, 0, 1]),
        torch.tensor([1.0, 2.0, 0.5]),
    )
    each = MaxSup(reduction="none")(logits, target)
    value = MaxSup(weight=weight)(logits, target)
    torch.testing.assert_close(value, (each * weight[target]).sum() / weight[target].sum())


def test_a_schedule_may_set_alpha():
    criterion, logits, target = MaxSup(), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    criterion.alpha = 0.2
    torch.testing.assert_close(criterion(logits, target), MaxSup(alpha=0.2)(logits, target))


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"alpha": "1"}])
def test_invalid_maxsup_arguments_raise(options):
    with pytest.raises(InputError, match="MaxSup: alpha"):
        MaxSup(**options)
