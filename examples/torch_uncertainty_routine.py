"""torch-uncertainty: its classification routine with FedLAS as the loss.

Run it with: python examples/torch_uncertainty_routine.py.
"""

import logging
import tempfile
import warnings

import torch
from noisy_digits import data_sets, network, show
from torch import nn
from torch.utils.data import DataLoader
from torch_uncertainty import TUTrainer
from torch_uncertainty.routines import ClassificationRoutine

from fedlas.integrations.drop_in import DropInLoss
from fedlas.losses import FedLAS

EPOCHS = 40


def train(criterion, folder):
    """The routine's own loop, metrics and checkpoints: gate and NCI are in its state, under ``loss.criterion``."""
    train_set, _, test_set = data_sets()
    model = network()
    loss = DropInLoss(model, criterion, head="4")
    optimizer = torch.optim.SGD(loss.param_groups(weight_decay=5e-4), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    routine = ClassificationRoutine(
        model, num_classes=10, loss=loss, optim_recipe={"optimizer": optimizer, "lr_scheduler": schedule}
    )
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = TUTrainer(max_epochs=EPOCHS, accelerator="cpu", default_root_dir=folder, logger=False, **options)
    trainer.fit(routine, DataLoader(train_set, batch_size=50, shuffle=True))
    return trainer.test(routine, DataLoader(test_set, batch_size=256), verbose=False)[0]


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings(
        "ignore", ".*(LeafSpec|many workers|val_dataloader|log_every_n_steps|validation_step|no logger)"
    )
    for name, criterion in (
        ("before: cross-entropy", nn.CrossEntropyLoss()),
        ("after:  FedLAS", FedLAS(num_classes=10)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            found = train(criterion, folder)
        show(name, {"accuracy": found["test/cls/Acc"], "ece": found["test/cal/ECE"]})
