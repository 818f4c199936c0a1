"""MMCE by hand, by the paper's sums, and in blocks."""

import math

import pytest
import torch
import torch.nn.functional as F

from batches import penalty_of
from fedlas.errors import InputError
from fedlas.losses import MMCE, WeightedMMCE

FORMS = [
    {"balanced": balanced, "variant": variant}
    for balanced in (False, True)
    for variant in ("paper", "reference")
]


def predictions(count=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    confidence = 0.5 + 0.5 * torch.rand(count, generator=generator, dtype=torch.float64)
    return confidence.requires_grad_(), torch.rand(count, generator=generator) < 0.6


def kernel_calibration_error(confidence, correct, *, valid=None, balanced=False, **options):
    """The penalty on a binary classifier with these confidences."""
    logits = torch.stack((confidence.logit(), torch.zeros_like(confidence)), dim=1)
    target = (~correct).long()
    if valid is not None:
        target = target.masked_fill(~valid, -100)
    return penalty_of((WeightedMMCE if balanced else MMCE)(**options), logits, target)


def paper_square(confidence, correct, width=0.4):
    """Equation by equation, one pair at a time."""
    total = 0.0
    for r, c in zip(confidence, correct.double(), strict=True):
        for s, d in zip(confidence, correct.double(), strict=True):
            total = total + (c - r) * (d - s) * torch.exp(-(r - s).abs() / width)
    return total / len(confidence) ** 2


def paper_weighted_square(confidence, correct, width=0.4, power=2):
    """The three sums over wrong pairs, right pairs and mixed pairs; the paper's counts have power 2."""
    right, wrong = confidence[correct], confidence[~correct]

    def kernel(a, b):
        return torch.exp(-(a[:, None] - b[None, :]).abs() / width)

    both_wrong = (wrong[:, None] * wrong * kernel(wrong, wrong)).sum() / max(len(wrong), 1) ** power
    both_right = ((1 - right)[:, None] * (1 - right) * kernel(right, right)).sum() / max(
        len(right), 1
    ) ** power
    mixed = ((1 - right)[:, None] * wrong * kernel(right, wrong)).sum() / max(
        len(right) * len(wrong), 1
    ) ** (power / 2)
    return both_wrong + both_right - 2 * mixed


def test_by_hand():
    # Residuals 0.1 and -0.7, kernel exp(-0.2 / 0.4); the weighted form divides each by 1, the plain one by 2.
    confidence, correct = torch.tensor([0.9, 0.7]), torch.tensor([True, False])
    square = 0.1**2 + 0.7**2 - 2 * 0.07 * math.exp(-0.5)
    assert kernel_calibration_error(confidence, correct).item() == pytest.approx(
        math.sqrt(square) / 2, rel=1e-6
    )
    assert kernel_calibration_error(
        confidence, correct, variant="reference"
    ).item() == pytest.approx(square / 4)
    weighted = kernel_calibration_error(confidence, correct, balanced=True)
    assert weighted.item() == pytest.approx(math.sqrt(square), rel=1e-6)


def test_the_papers_sums():
    confidence, correct = predictions()
    for width in (0.4, 0.1):
        root = kernel_calibration_error(confidence, correct, width=width)
        torch.testing.assert_close(root, paper_square(confidence, correct, width).sqrt())
        root = kernel_calibration_error(confidence, correct, width=width, balanced=True)
        torch.testing.assert_close(root, paper_weighted_square(confidence, correct, width).sqrt())


def test_popular_code():
    confidence, correct = predictions()
    value = kernel_calibration_error(confidence, correct, variant="reference")
    torch.testing.assert_close(value, paper_square(confidence, correct))
    value = kernel_calibration_error(confidence, correct, balanced=True, variant="reference")
    torch.testing.assert_close(value, paper_weighted_square(confidence, correct, power=4).sqrt())


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_derivatives(form):
    confidence, correct = predictions(6)

    def function(r):
        return kernel_calibration_error(r, correct, valid=torch.arange(6) != 2, **form)

    assert torch.autograd.gradcheck(function, (confidence,))
    assert torch.autograd.gradgradcheck(function, (confidence,))


@pytest.mark.parametrize("balanced", [False, True])
def test_blocks_change_nothing(balanced):
    """A block has 2^22 pairs: two for these samples, against the paper's sums of all pairs at once."""
    confidence, correct = predictions(2500)
    if balanced:
        square = paper_weighted_square(confidence, correct)
    else:
        residual = correct.double() - confidence
        kernel = torch.exp(-(confidence[:, None] - confidence).abs() / 0.4)
        square = (residual @ kernel @ residual) / 2500**2
    value = kernel_calibration_error(confidence, correct, balanced=balanced)
    torch.testing.assert_close(value, square.sqrt())
    ours, theirs = (torch.autograd.grad(each, confidence)[0] for each in (value, square.sqrt()))
    torch.testing.assert_close(ours, theirs)


def test_no_tensor_exceeds_a_block(largest_tensor):
    logits, target = torch.randn(2500, 4, requires_grad=True), torch.randint(4, (2500,))
    with largest_tensor() as seen:
        MMCE()(logits, target).backward()
    assert 2**21 < seen.numel <= 2**22  # the whole kernel has 6,250,000


@pytest.mark.parametrize("kind", [MMCE, WeightedMMCE])
@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_finite_where_the_root_is_0(kind, variant):
    # confidence 1/2, one right: no error at all
    logits = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    value = kind(variant=variant)(logits, torch.tensor([0, 1]))
    value.backward()
    assert value.item() == pytest.approx(math.log(2), abs=1e-4)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", [MMCE, WeightedMMCE])
def test_one_sample(kind):
    """The error is then |c - r|."""
    logits = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    for target, error in ((0, 0.25), (1, 0.75)):
        value = kind(alpha=1)(logits, torch.tensor([target]))
        expected = F.cross_entropy(logits, torch.tensor([target])) + error
        torch.testing.assert_close(value, expected)
        assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_only_right_or_wrong_prediction_is_ignored(form, right):
    confidence, correct = torch.tensor([0.9, 0.6, 0.7]), torch.tensor([right, not right, not right])
    value = kernel_calibration_error(
        confidence, correct, valid=torch.tensor([False, True, True]), **form
    )
    torch.testing.assert_close(value, kernel_calibration_error(confidence[1:], correct[1:], **form))


@pytest.mark.parametrize("right", [True, False])
def test_only_right_or_only_wrong_predictions(right):
    confidence = torch.tensor([0.9, 0.6, 0.7], dtype=torch.float64)
    correct = torch.full((3,), right)
    plain, weighted = (
        kernel_calibration_error(confidence, correct, balanced=b) for b in (False, True)
    )
    torch.testing.assert_close(weighted, plain)
    assert kernel_calibration_error(confidence, correct, balanced=True, variant="reference") == 0


def test_equally_confident_predictions_are_treated_alike():
    confidence = torch.tensor([0.6, 0.6, 0.6, 0.9], dtype=torch.float64, requires_grad=True)
    kernel_calibration_error(confidence, torch.tensor([True, True, True, False])).backward()
    assert confidence.grad[0] == confidence.grad[1] == confidence.grad[2]


def test_class_uses_its_options():
    logits, target = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 3
    confidence, top = logits.softmax(1).max(1)
    correct = top == target
    for criterion, term in (
        (MMCE(alpha=4, width=0.2), paper_square(confidence, correct, 0.2).sqrt()),
        (MMCE(alpha=4, width=0.2, variant="reference"), paper_square(confidence, correct, 0.2)),
        (WeightedMMCE(alpha=4, width=0.2), paper_weighted_square(confidence, correct, 0.2).sqrt()),
    ):
        value = criterion(logits, target)
        torch.testing.assert_close(value, F.cross_entropy(logits, target) + 4 * term)


@pytest.mark.parametrize("options", [{"alpha": -1.0}, {"width": 0.0}, {"variant": "papre"}])
@pytest.mark.parametrize("kind", [MMCE, WeightedMMCE])
def test_invalid_mmce_arguments_raise(kind, options):
    with pytest.raises(InputError, match=f"{kind.__name__}: {next(iter(options))}"):
        kind(**options)
