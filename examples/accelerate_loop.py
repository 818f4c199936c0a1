"""A loop on accelerate: the objective is what is prepared, so that gate and NCI are one over all processes.

Run it with: python examples/accelerate_loop.py, or with accelerate launch for several processes.
"""

import tempfile

import torch
from accelerate import Accelerator
from noisy_digits import data_sets, network, show
from torch import nn
from torch.utils.data import DataLoader

import fedlas
from fedlas.losses import FedLAS
from fedlas.metrics import StreamingMetrics


def train(criterion, epochs=40):
    """Train with any criterion; returns the test part's metrics, added up over all processes."""
    accelerator = Accelerator(cpu=True)
    objective = fedlas.Objective(network(), criterion, head="4")
    optimizer = torch.optim.SGD(fedlas.param_groups(objective, weight_decay=5e-4), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    train_set, _, test_set = data_sets()
    train_loader = DataLoader(train_set, batch_size=50, shuffle=True)
    prepared = accelerator.prepare(objective, optimizer, train_loader, DataLoader(test_set, batch_size=256))
    objective, optimizer, train_loader, test_loader = prepared
    for _ in range(epochs):
        objective.train()
        for images, target in train_loader:
            loss, _ = objective(images, target)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        schedule.step()
    with tempfile.TemporaryDirectory() as folder:
        accelerator.save_state(folder)  # network, gate, NCI, optimizer and generators
        accelerator.load_state(folder)
    model = accelerator.unwrap_model(objective).model.eval()
    metrics = StreamingMetrics(num_classes=10, metrics=["accuracy", "ece"])
    with torch.no_grad():
        for images, target in test_loader:
            metrics.update(*accelerator.gather_for_metrics((model(images), target)))
    return metrics.compute()


if __name__ == "__main__":
    show("before: cross-entropy", train(nn.CrossEntropyLoss()))
    show("after:  FedLAS", train(FedLAS(num_classes=10)))
