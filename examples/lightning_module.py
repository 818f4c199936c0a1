"""Lightning: an objective in the module and one callback. Run it with: python examples/lightning_module.py."""

import logging
import tempfile

import lightning as L
import torch
from noisy_digits import data_sets, network, show
from torch import nn
from torch.utils.data import DataLoader

import fedlas
from fedlas.integrations.lightning import CalibrationCallback
from fedlas.losses import FedLAS


class Digits(L.LightningModule):
    """The usual module; only the objective is new."""

    def __init__(self, criterion, epochs):
        super().__init__()
        self.objective = fedlas.Objective(network(), criterion, head="4")
        self.epochs = epochs

    def training_step(self, batch, _):
        """Loss of a batch."""
        return self.objective(*batch)[0]

    def validation_step(self, batch, _):
        """Call the objective; the callback listens."""
        self.objective(*batch)

    test_step = validation_step

    def configure_optimizers(self):
        """The gate has a group of its own, without decay."""
        optimizer = torch.optim.SGD(fedlas.param_groups(self.objective, weight_decay=5e-4), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)]


def train(criterion, folder, epochs=40):
    """Train half of the epochs, go on from Lightning's own checkpoint in new objects, and test."""
    parts = data_sets()
    loaders = [DataLoader(parts[0], 50, shuffle=True), DataLoader(parts[1], 400), DataLoader(parts[2], 797)]
    options = {"accelerator": "cpu", "default_root_dir": folder, "logger": False, "check_val_every_n_epoch": 10}
    options |= {f"enable_{name}": False for name in ("progress_bar", "model_summary", "checkpointing")}
    half = L.Trainer(max_epochs=epochs // 2, callbacks=[CalibrationCallback()], **options)
    half.fit(Digits(criterion(), epochs), loaders[0], loaders[1])
    half.save_checkpoint(f"{folder}/half.ckpt")  # network, gate, NCI, optimizer, and what the monitor remembers
    trainer = L.Trainer(max_epochs=epochs, callbacks=[CalibrationCallback()], **options)
    module = Digits(criterion(), epochs)
    trainer.fit(module, loaders[0], loaders[1], ckpt_path=f"{folder}/half.ckpt")
    return trainer.test(module, loaders[2], verbose=False)[0]


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for name, criterion in {
        "before: cross-entropy": nn.CrossEntropyLoss,
        "after:  FedLAS": lambda: FedLAS(num_classes=10),
    }.items():
        with tempfile.TemporaryDirectory() as folder:
            show(name, {key.removeprefix("test_"): value for key, value in train(criterion, folder).items()})
