"""Two processes under Lightning: the callback's diagrams are the main one's, its collectives are everyone's."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("lightning")

SCRIPT = """
import sys

import lightning as L
import torch
from torch import nn

import fedlas
from fedlas.integrations.lightning import CalibrationCallback
from fedlas.losses import FedLAS


class Classifier(L.LightningModule):
    def __init__(self):
        super().__init__()
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.objective = fedlas.Objective(model, FedLAS(num_classes=10), head="3")

    def training_step(self, batch, _):
        return self.objective(*batch)[0]

    def validation_step(self, batch, _):
        self.objective(*batch)

    def configure_optimizers(self):
        return torch.optim.SGD(fedlas.param_groups(self.objective), lr=0.1)


if __name__ == "__main__":
    data = torch.utils.data.TensorDataset(torch.rand(64, 8, 8), torch.randint(10, (64,)))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    trainer = L.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", logger=False, max_epochs=2, enable_checkpointing=False,
        enable_progress_bar=False, default_root_dir=sys.argv[1], callbacks=[CalibrationCallback()],
    )
    trainer.fit(Classifier(), loader, loader)
"""


@pytest.mark.system
@pytest.mark.long
def test_without_a_logger_no_process_waits_for_another(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
