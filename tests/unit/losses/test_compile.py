"""Under torch.compile a loss is one graph, which serves every later batch, whatever the size of the last one."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import fedlas
from fedlas.losses import LOSSES
from fedlas.predictions import Predictions

pytestmark = pytest.mark.system

STEPS, SAMPLES, CLASSES = 1000, 64, 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from PyTorch's tracing
@pytest.mark.parametrize("name", ["ls", "fedlas", "tempered-past"])
def test_steps_compile_once_for_each_kind_of_size(name):
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, CLASSES))
    criterion = LOSSES.build(name, {}, num_classes=CLASSES, num_samples=SAMPLES, num_epochs=100)
    objective = fedlas.Objective(model, criterion, head="2")
    counter = CompileCounter()
    compiled = torch.compile(objective, fullgraph=True, backend=counter)
    inputs, target = torch.randn(SAMPLES, 4), torch.randint(CLASSES, (SAMPLES,))
    for step in range(STEPS):
        # each fifth batch is a last one
        index = torch.arange(6 if step % 5 == 4 else 16) + 3 * (step % 10)
        loss, logits = compiled(inputs[index], target[index], index=index)
        loss.backward()
        if step % 100 == 50 and hasattr(criterion, "update_from_validation"):
            criterion.update_from_validation(Predictions(logits.detach(), target[index]))
    assert counter.frame_count <= 2  # one for the first size, one for all sizes
