"""Plain PyTorch: three changed lines put FedLAS into a training loop. Run it with: python examples/plain_pytorch.py."""

import torch
from noisy_digits import data_sets, network, show
from torch import nn
from torch.utils.data import DataLoader

import fedlas
from fedlas.losses import FedLAS


def train(criterion, epochs=40):
    """Train with any criterion; returns what ``fedlas.evaluate`` says of the test part."""
    model = network()
    train_set, _, test_set = data_sets()
    loader = DataLoader(train_set, batch_size=50, shuffle=True)
    objective = fedlas.Objective(model, criterion, head="4")  # 1: model and loss in one module
    groups = fedlas.param_groups(objective, weight_decay=5e-4)  # 2: the gate learns too, without decay
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        objective.train()
        for images, target in loader:
            loss, _ = objective(images, target)  # 3: in place of criterion(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    # objective.state_dict() holds network, gate and NCI: save it to go on. model.state_dict() has your own keys.
    return fedlas.evaluate(fedlas.predict(model, DataLoader(test_set, batch_size=256)))


if __name__ == "__main__":
    show("before: cross-entropy", train(nn.CrossEntropyLoss()))
    show("after:  FedLAS", train(FedLAS(num_classes=10)))
