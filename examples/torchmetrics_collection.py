"""torchmetrics: calibration in a MetricCollection, beside its own metrics, batch by batch.

Run it with: python examples/torchmetrics_collection.py.
"""

import torch
from noisy_digits import data_sets, network, show
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

import fedlas
from fedlas.integrations.torchmetrics import CalibrationMetric
from fedlas.losses import FedLAS


def train(criterion, epochs=40):
    """The loop of plain PyTorch; the test part is measured by a collection."""
    train_set, _, test_set = data_sets()
    loader = DataLoader(train_set, batch_size=50, shuffle=True)
    objective = fedlas.Objective(network(), criterion, head="4")
    optimizer = torch.optim.SGD(fedlas.param_groups(objective, weight_decay=5e-4), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for images, target in loader:
            loss, _ = objective(images, target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    own = {name: CalibrationMetric(name, num_classes=10) for name in ("accuracy", "ece", "nll", "brier")}
    collection = MetricCollection(own | {"f1": MulticlassF1Score(num_classes=10)})
    objective.eval()
    with torch.no_grad():
        for images, target in DataLoader(test_set, batch_size=100):
            collection.update(objective.model(images), target)
    return {name: value.item() for name, value in collection.compute().items()}


if __name__ == "__main__":
    for name, criterion in (
        ("before: cross-entropy", nn.CrossEntropyLoss()),
        ("after:  FedLAS", FedLAS(num_classes=10)),
    ):
        found = train(criterion)
        show(name, found)
        print(f"  f1 {found['f1']:.4f}  nll {found['nll']:.4f}  brier {found['brier']:.4f}")
