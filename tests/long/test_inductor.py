"""Losses through the real compiler: needs a C++ compiler and a minute."""

import copy
import shutil

import pytest
import torch

from fedlas.losses import LOSSES

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler"),
]
N, C, D = 32, 10, 16


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_inductor_equals_eager(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = LOSSES.build(name, {}, num_classes=C, num_samples=N, num_epochs=100)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True)
    for step in range(3):
        torch.manual_seed(step)
        given = {"target": torch.randint(C, (N,))}
        given["target"][::5] = -100
        if "features" in eager.needs:
            given["features"] = torch.rand(N, D)
        if "index" in eager.needs:
            given["index"] = torch.arange(N)
        if "mixed" in eager.needs:
            given["mixed"] = 5 * torch.randn(N, 2, C)
            given["mixed_share"] = torch.rand(N, 2)
        if "head_weight" in eager.needs:
            given["head_weight"] = torch.randn(C, D)
        first, second = (5 * torch.randn(1, N, C)).expand(2, -1, -1).clone().unbind()
        runs = []
        for function, owner, logits in ((eager, eager, first), (compiled, twin, second)):
            owner.zero_grad()
            logits = logits.clone().requires_grad_()
            loss = function(logits, **given)
            loss.backward()
            runs.append(
                (loss, logits.grad, [p.grad for p in owner.parameters()], dict(owner.state_dict()))
            )
        torch.testing.assert_close(runs[0], runs[1], rtol=1e-4, atol=1e-5)
