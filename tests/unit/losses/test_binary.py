import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import fedlas
from fedlas.errors import InputError
from fedlas.losses import CrossEntropy, FedLAS, LabelSmoothing, MbLS, OneLogit, to_two_logits


def data(samples=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(samples, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 2, (samples,), generator=generator)


@given(st.floats(-50, 50))
def test_the_softmax_of_the_pair_is_the_sigmoid(value):
    z = torch.tensor([value], dtype=torch.float64)
    pair = to_two_logits(z)
    torch.testing.assert_close(pair.softmax(1)[0, 1], torch.sigmoid(z)[0])
    assert float(pair.sum()) == 0  # neither logit is constant


@pytest.mark.parametrize("shape", [(12,), (12, 1), (3, 1, 4), (3, 1, 2, 2)])
def test_cross_entropy_is_the_binary_one(shape):
    logits, target = data()
    criterion = OneLogit(CrossEntropy())
    expected = F.binary_cross_entropy_with_logits(logits, target.double())
    for given_target in (target, target.bool(), target.double()):
        found = criterion(logits.reshape(shape), given_target.reshape(shape))
        torch.testing.assert_close(found, expected)
    if len(shape) > 1:
        axisless = target.reshape(shape).squeeze(1)
        torch.testing.assert_close(criterion(logits.reshape(shape), axisless), expected)


def test_label_smoothing_with_hard_and_soft_targets():
    logits, target = data()
    expected = F.binary_cross_entropy_with_logits(logits, target.double() * 0.8 + 0.1)
    torch.testing.assert_close(OneLogit(LabelSmoothing(alpha=0.2))(logits, target), expected)
    torch.testing.assert_close(
        OneLogit(CrossEntropy())(logits, target.double() * 0.8 + 0.1), expected
    )


def test_class_weights_and_ignored_positions():
    logits, target = data()
    weights = torch.tensor([1.0, 3.0], dtype=torch.float64)
    found = OneLogit(CrossEntropy(weight=[1.0, 3.0], reduction="sum"))(logits, target)
    expected = F.binary_cross_entropy_with_logits(
        logits, target.double(), pos_weight=weights[1], reduction="sum"
    )
    torch.testing.assert_close(found, expected)
    target[3:] = -100
    found = OneLogit(CrossEntropy())(logits, target)
    torch.testing.assert_close(
        found, F.binary_cross_entropy_with_logits(logits[:3], target[:3].double())
    )


def test_one_logit_fedlas_equals_two_logit_objective():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))
    criterion = FedLAS(num_classes=2, alpha=0.2)
    objective = fedlas.Objective(model, OneLogit(criterion))  # finds the head, which has one output
    images, target = torch.randn(12, 6), data()[1]
    loss, logits = objective(images, target)
    loss.backward()
    assert logits.shape == (12, 1)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in criterion.gate.parameters())
    assert int(criterion.nci.num_batches_tracked) == 1
    features = model[:2](images)
    again = FedLAS(num_classes=2, alpha=0.2)
    again.load_state_dict(criterion.state_dict())
    strength = again.eval().smoothing(to_two_logits(logits), features)
    expected = F.binary_cross_entropy_with_logits(
        logits[:, 0], target * (1 - strength) + strength / 2, reduction="none"
    ).mean()
    torch.testing.assert_close(loss, expected)


def test_gradients_and_margins():
    logits, target = data(5)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: OneLogit(MbLS(alpha=0.1, margin=1.0))(z, target), logits
    )


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="loss for two classes"):
        OneLogit(FedLAS(num_classes=3))
    with pytest.raises(ValueError, match=r"logits .*floating .*\(N,\), \(N, 1\)"):
        OneLogit(CrossEntropy())(torch.zeros(4, 2), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"target must have shape \(4,\)"):
        OneLogit(CrossEntropy())(torch.zeros(4), torch.zeros(5).long())
    with pytest.raises(TypeError, match="features must be passed"):
        OneLogit(FedLAS(num_classes=2))(torch.zeros(4), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"target must be in \[0, 2\)"):
        OneLogit(CrossEntropy())(torch.zeros(4), torch.full((4,), 2))


def test_single_output_error_names_one_logit():
    model, inputs = torch.nn.Linear(4, 1), torch.randn(8, 4)
    for target in (torch.ones(8), torch.ones(8, dtype=torch.long)):
        with pytest.raises(InputError, match="OneLogit"):
            LabelSmoothing()(model(inputs), target)
    with pytest.raises(InputError, match="OneLogit"):
        fedlas.Objective(model, FedLAS(num_classes=2))
