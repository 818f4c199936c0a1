"""ACLS by hand, in both variants."""

import pytest
import torch
import torch.nn.functional as F

from batches import penalty_of
from fedlas.errors import InputError
from fedlas.losses import ACLS

LOGITS = torch.tensor([[9.0, 4.0, -1.0]])
TARGET = torch.tensor([2])
OPTIONS = {"margin": 3.0, "lambda1": 1.0, "lambda2": 0.5}


def test_by_hand():
    # Paper: pull down (9 - (-1) - 3)^2 = 49; pull up mean(relu(5 - 3)^2, relu(10 - 3)^2) = (4 + 49) / 2 = 26.5.
    assert penalty_of(ACLS(**OPTIONS), LOGITS, TARGET).tolist() == [49 + 0.5 * 26.5]
    published = ACLS(**OPTIONS, variant="reference")
    # Published code's arg-max term lacks the smallest logit: (9 - 3)^2 = 36.
    assert penalty_of(published, LOGITS, TARGET).tolist() == [36 + 0.5 * 26.5]
    value = ACLS(alpha=0.2, **OPTIONS)(LOGITS, TARGET)
    torch.testing.assert_close(value, F.cross_entropy(LOGITS, TARGET) + 0.2 * (49 + 0.5 * 26.5))


def test_second_term_has_no_gradient_at_top_logit():
    logits = LOGITS.clone().requires_grad_()
    criterion = ACLS(margin=3.0, lambda1=0.0, lambda2=1.0)
    penalty_of(criterion, logits, TARGET).sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, -2.0, -7.0]]))


def test_only_the_paper_variant_ignores_a_shift():
    target = torch.tensor([0])
    for variant, same in (("paper", True), ("reference", False)):
        criterion = ACLS(margin=3.0, variant=variant)
        moved = torch.isclose(criterion(LOGITS, target), criterion(LOGITS + 5, target))
        assert bool(moved) is same


@pytest.mark.parametrize(
    "options",
    [{"alpha": -1.0}, {"margin": -1.0}, {"lambda1": -1.0}, {"lambda2": -1.0}, {"variant": "papre"}],
)
def test_invalid_acls_arguments_raise(options):
    with pytest.raises(InputError, match=f"ACLS: {next(iter(options))}"):
        ACLS(**options)
