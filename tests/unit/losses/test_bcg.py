"""The gate: values, the straight-through gradient, and no gradient to the model."""

import pytest
import torch
import torch.nn.functional as F

from fedlas.errors import InputError
from fedlas.losses import BidirectionalCalibrationGate, FedLAS, TopLogitsGate


def by_hand(gate, logits):
    two = F.linear(F.leaky_relu(F.linear(logits, gate.hidden.weight, gate.hidden.bias), 0.01), gate.out.weight,
                   gate.out.bias)  # fmt: skip
    probs = two.softmax(1)
    return probs[:, 1] - probs[:, 0]


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_layers_and_values(classes):
    gate = BidirectionalCalibrationGate(classes)
    assert (gate.hidden.in_features, gate.hidden.out_features) == (classes, max(classes // 2, 1))
    assert (gate.out.in_features, gate.out.out_features) == (max(classes // 2, 1), 2)
    logits = torch.randn(200, classes) * 5
    psi = gate(logits)
    assert psi.shape == (200,)
    assert set(psi.tolist()) <= {-1.0, 0.0, 1.0}
    torch.testing.assert_close(psi, by_hand(gate, logits).sign())


def test_a_tie_is_zero():
    gate = BidirectionalCalibrationGate(4)
    for parameter in gate.parameters():
        torch.nn.init.zeros_(parameter)
    psi = gate(torch.randn(3, 4))
    assert psi.tolist() == [0.0, 0.0, 0.0]
    psi.sum().backward()  # the gradient is still that of u, so the gate can leave the tie
    torch.testing.assert_close(gate.out.bias.grad, torch.tensor([-1.5, 1.5]))


def test_straight_through_gradient():
    """d psi / d u := 1, so the parameters' gradient is that of u itself."""
    gate = BidirectionalCalibrationGate(6).double()
    logits, up = torch.randn(9, 6, dtype=torch.float64), torch.randn(9, dtype=torch.float64)
    ours = torch.autograd.grad(gate(logits), list(gate.parameters()), up)
    torch.testing.assert_close(
        ours, torch.autograd.grad(by_hand(gate, logits), list(gate.parameters()), up)
    )


def test_no_gradient_to_the_logits():
    logits = torch.randn(5, 3, requires_grad=True)
    BidirectionalCalibrationGate(3)(logits).sum().backward()
    assert logits.grad is None


@pytest.mark.parametrize("value", [1e4, -1e4, 1e30])
def test_huge_logits(value):
    gate = BidirectionalCalibrationGate(3)
    psi = gate(torch.full((2, 3), value))
    psi.sum().backward()
    assert psi.abs().tolist() == [1.0, 1.0]
    assert all(torch.isfinite(p.grad).all() for p in gate.parameters())


@pytest.mark.parametrize("classes", [0, -1, 2.0, "3", None, True])
def test_invalid_gate_arguments_raise(classes):
    with pytest.raises(InputError, match="BidirectionalCalibrationGate: num_classes"):
        BidirectionalCalibrationGate(classes)


def test_top_logits_gate_ignores_order_and_shift():
    torch.manual_seed(0)
    gate = TopLogitsGate(1000, top=4)
    logits = torch.randn(64, 1000)
    u = gate(logits)
    assert set(u.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert torch.equal(gate(logits[:, torch.randperm(1000)]), u)
    assert torch.equal(gate(logits + 2.0), u)
    assert sum(p.numel() for p in gate.parameters()) < 100
    assert FedLAS(num_classes=3, gate_top=8).gate.top == 3
    with pytest.raises(InputError, match="top"):
        FedLAS(num_classes=3, gate_top=0)
