import logging
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedlas import Objective, param_groups
from fedlas.integrations.drop_in import DropInLoss
from fedlas.losses import FedLAS

pytest.importorskip("torch_uncertainty")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_uncertainty import TUTrainer
    from torch_uncertainty.routines import ClassificationRoutine

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{text}")
    for text in (
        "LeafSpec",
        "many workers",
        "val_dataloader",
        "log_every_n_steps",
        "validation_step",
        "no logger",
    )
]
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def test_routine_trains_like_objective_and_saves_state(tmp_path):
    images = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, images[:, :3].argmax(1)), batch_size=20)
    model = network()
    loss = DropInLoss(model, FedLAS(num_classes=3, alpha=0.2), head="2")
    objective = Objective(network(), FedLAS(num_classes=3, alpha=0.2), head="2")
    objective.criterion.load_state_dict(loss.criterion.state_dict())
    recipe = torch.optim.SGD(loss.param_groups(weight_decay=0.1), lr=0.1)
    routine = ClassificationRoutine(model, num_classes=3, loss=loss, optim_recipe=recipe)
    options = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = TUTrainer(
        max_epochs=2, accelerator="cpu", default_root_dir=tmp_path, logger=False, **options
    )
    trainer.fit(routine, loader)

    optimizer = torch.optim.SGD(param_groups(objective, weight_decay=0.1), lr=0.1)
    for _ in range(2):
        for part, target in loader:
            optimizer.zero_grad()
            objective(part, target)[0].backward()
            optimizer.step()
    state = routine.state_dict()
    for name, value in objective.model.state_dict().items():
        assert torch.equal(state[f"model.{name}"], value), name
    for name, value in objective.criterion.state_dict().items():
        assert torch.equal(state[f"loss.criterion.{name}"], value), name
