"""Cross-entropy and label smoothing against PyTorch's, and against autograd on the plain formula."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import CrossEntropy, LabelSmoothing, smoothed_cross_entropy

N, C = 7, 5
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


def logits(*dense, seed=0):
    torch.manual_seed(seed)
    return (3 * torch.randn(N, C, *dense, dtype=torch.float64)).requires_grad_()


def hard(*dense):
    torch.manual_seed(1)
    return torch.randint(C, (N, *dense))


def soft(*dense):
    torch.manual_seed(2)
    return torch.rand(N, C, *dense, dtype=torch.float64).softmax(1)


def naive(logits, target, alpha, weight=None):
    """The definition, differentiated by autograd: per-sample values of a flat batch."""
    log_probs = logits.log_softmax(1)
    if target.ndim == 1:
        target = F.one_hot(target, C).to(logits.dtype)
    mass = (1 - alpha)[:, None] * target + alpha[:, None] / C
    return -(mass * log_probs * (1 if weight is None else weight)).sum(1)


@pytest.mark.parametrize("dense", [(), (2, 3)])
@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_equals_torch(dense, kind, weight, reduction, alpha):
    ours, theirs = logits(*dense), logits(*dense)
    target = soft(*dense) if kind == "soft" else hard(*dense)
    if kind == "ignored":
        target.view(-1)[::3] = -100
    given = {"weight": weight, "reduction": reduction}
    expected = F.cross_entropy(theirs, target, label_smoothing=alpha, **given)
    value = smoothed_cross_entropy(ours, target, alpha=alpha, **given)
    torch.testing.assert_close(value, expected)
    up = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, ours, up), torch.autograd.grad(expected, theirs, up)
    )


@pytest.mark.parametrize("kind", ["hard", "ignored", "soft"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("module", ["ce", "ls"])
def test_modules_equal_torch(kind, reduction, module):
    ignore = 3
    options = {"weight": WEIGHT.float(), "reduction": reduction, "ignore_index": ignore}
    ours = LabelSmoothing(alpha=0.2, **options) if module == "ls" else CrossEntropy(**options)
    theirs = torch.nn.CrossEntropyLoss(label_smoothing=0.2 if module == "ls" else 0.0, **options)
    target = soft().float() if kind == "soft" else hard()
    if kind == "soft":  # torch refuses another ignore_index than -100 for soft targets
        theirs.ignore_index = -100
    if kind == "ignored":
        target[:2] = ignore
    z = logits().float()
    torch.testing.assert_close(ours(z, target), theirs(z, target))


def test_float_and_tensor_strengths_agree():
    for alpha in (0.0, 0.3, 1.0):
        whole = smoothed_cross_entropy(logits(), hard(), alpha=alpha, reduction="none")
        for tensor in (
            torch.tensor(alpha),
            torch.full((N,), alpha),
            torch.full((1,), alpha).half().double(),
        ):
            each = smoothed_cross_entropy(logits(), hard(), alpha=tensor, reduction="none")
            torch.testing.assert_close(each, whole, rtol=1e-3, atol=1e-3)


def test_strength_of_a_dense_batch_broadcasts():
    alpha = torch.rand(N, 1, 3, dtype=torch.float64)
    value = smoothed_cross_entropy(logits(2, 3), hard(2, 3), alpha=alpha, reduction="none")
    flat = smoothed_cross_entropy(
        logits(2, 3).movedim(1, -1).reshape(-1, C), hard(2, 3).reshape(-1),
        alpha=alpha.expand(N, 2, 3).reshape(-1), reduction="none",
    )  # fmt: skip
    torch.testing.assert_close(value.reshape(-1), flat)


CASES = list(itertools.product(["hard", "soft"], [None, WEIGHT]))
IDS = [f"{kind}-{'plain' if weight is None else 'weighted'}" for kind, weight in CASES]


def variables(kind):
    torch.manual_seed(3)
    target = soft().requires_grad_() if kind == "soft" else hard()
    alpha = torch.rand(N, dtype=torch.float64).requires_grad_()
    z = logits()
    return z, target, alpha, [v for v in (z, target, alpha) if v.requires_grad]


@pytest.mark.parametrize(("kind", "weight"), CASES, ids=IDS)
def test_gradients_equal_autograd_on_the_definition(kind, weight):
    """First and second derivatives for logits, soft targets and strengths, with an uneven upstream gradient."""
    z, target, alpha, wanted = variables(kind)
    up = torch.randn(N, dtype=torch.float64)
    ours = smoothed_cross_entropy(z, target, alpha=alpha, weight=weight, reduction="none")
    theirs = naive(z, target, alpha, weight)
    torch.testing.assert_close(ours, theirs)
    # Without create_graph the backward pass computes the gradient in another way; both must agree.
    plain = torch.autograd.grad(ours, wanted, up, retain_graph=True)
    first = torch.autograd.grad(ours, wanted, up, create_graph=True)
    expected = torch.autograd.grad(theirs, wanted, up, create_graph=True)
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(first, expected)
    directions = [torch.randn_like(v) for v in wanted]
    second, expected_second = (
        torch.autograd.grad(
            sum((g * d).sum() for g, d in zip(gradients, directions, strict=True)), wanted
        )
        for gradients in (first, expected)
    )
    torch.testing.assert_close(second, expected_second)


@pytest.mark.parametrize(("kind", "weight"), CASES, ids=IDS)
def test_gradcheck(kind, weight):
    z, target, alpha, wanted = variables(kind)

    def function(*values):
        given = dict(zip([id(v) for v in wanted], values, strict=True))
        return smoothed_cross_entropy(
            given.get(id(z), z), given.get(id(target), target), alpha=given.get(id(alpha), alpha), weight=weight,
            reduction="none",
        )  # fmt: skip

    assert torch.autograd.gradcheck(function, wanted)
    assert torch.autograd.gradgradcheck(function, wanted)


def test_gradient_of_the_strength_is_the_logit_distance():
    """METHOD: the partition function cancels, d l_i / d alpha_i = z_y - mean_k z_k."""
    z, target, alpha, _ = variables("hard")
    smoothed_cross_entropy(z, target, alpha=alpha, reduction="sum").backward()
    torch.testing.assert_close(alpha.grad, z.gather(1, target[:, None]).squeeze(1) - z.mean(1))


@pytest.mark.parametrize("alone", ["logits", "target", "alpha"])
def test_one_input_alone_may_need_the_gradient(alone):
    z, target, alpha, _ = variables("soft")
    given = {"logits": z, "target": target, "alpha": alpha}
    given = {name: value.detach().requires_grad_(name == alone) for name, value in given.items()}
    up = torch.randn(N, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(value, given[alone], up)
        for value in (smoothed_cross_entropy(**given, reduction="none"), naive(*given.values()))
    )
    torch.testing.assert_close(found, expected)


def test_backward_twice_through_a_kept_graph():
    z, target, alpha, _ = variables("hard")
    value = smoothed_cross_entropy(z, target, alpha=alpha)
    first = torch.autograd.grad(value, (z, alpha), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(value, (z, alpha)), first, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rows", "alpha", "copies"),
    [(64, 0.0, 1), (64, 0.1, 1), (64, "tensor", 1), (2**19 + 1, 0.1, 1), (2**19 + 1, "tensor", 0)],
)  # one strength for all is F.cross_entropy itself
def test_backward_stores_one_copy_of_logits(rows, alpha, copies):
    """Large are more than 2^24 elements."""
    alpha = torch.full((rows,), 0.1).requires_grad_() if alpha == "tensor" else alpha
    z, target, kept = torch.randn(rows, 32, requires_grad=True), torch.arange(rows) % 32, []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        value = smoothed_cross_entropy(z, target, alpha=alpha)
    storages = {t.untyped_storage().data_ptr() for t in kept if t.numel() >= z.numel()}
    assert len(storages - {z.untyped_storage().data_ptr()}) == copies
    (gradient,) = torch.autograd.grad(value, z)
    smoothing = alpha if isinstance(alpha, float) else 0.1
    expected = F.cross_entropy(z, target, label_smoothing=smoothing)
    torch.testing.assert_close(
        rows * gradient, rows * torch.autograd.grad(expected, z)[0], rtol=1e-5, atol=1e-6
    )


def test_minus_infinity_marks_impossible_classes():
    """A masked class has logit -inf; cross-entropy of the others stays finite, as in PyTorch."""
    ours = torch.tensor([[1.0, float("-inf"), 0.0]], requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    value, expected = (
        CrossEntropy()(ours, torch.tensor([0])),
        F.cross_entropy(theirs, torch.tensor([0])),
    )
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_nan_is_not_hidden():
    assert torch.isnan(
        smoothed_cross_entropy(torch.full((2, 3), float("nan")), torch.tensor([0, 1]), alpha=0.1)
    )


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": "0.1"}, "alpha"),
        ({"alpha": None}, "alpha"),
        ({"alpha": torch.rand(N + 1)}, rf"alpha must broadcast to \({N},\)"),
        ({"alpha": torch.rand(N, 1)}, rf"alpha must broadcast to \({N},\)"),
        ({"alpha": 0.1, "reduction": "avg"}, "reduction"),
        ({"alpha": 0.1, "weight": torch.rand(C + 1)}, rf"weights must have shape \({C},\)"),
        ({"alpha": 0.1, "weight": torch.tensor(1.0)}, rf"weights must have shape \({C},\)"),
        ({"alpha": 0.1, "weight": [1.0] * C}, rf"weights must have shape \({C},\)"),
    ],
)
def test_invalid_label_smoothing_arguments_raise(options, match):
    with pytest.raises(InputError, match=match) as caught:
        smoothed_cross_entropy(logits(), hard(), **options)
    assert caught.value.owner == "smoothed_cross_entropy"


@pytest.mark.parametrize("alpha", [-1e-9, 1.0001, float("nan"), "a", None, True])
def test_label_smoothing_refuses_strengths_outside_0_1(alpha):
    with pytest.raises(InputError, match="LabelSmoothing: alpha"):
        LabelSmoothing(alpha=alpha)


def test_repr_names_the_settings():
    assert repr(LabelSmoothing(alpha=0.2, reduction="sum", ignore_index=255)) == (
        "LabelSmoothing(alpha=0.2, reduction='sum', ignore_index=255)"
    )


def test_gradient_by_torch_func():
    z, target = logits().detach(), hard()
    gradient = torch.func.grad(lambda values: LabelSmoothing(alpha=0.1)(values, target))(z)
    wanted = torch.func.grad(lambda values: F.cross_entropy(values, target, label_smoothing=0.1))(z)
    torch.testing.assert_close(gradient, wanted)
