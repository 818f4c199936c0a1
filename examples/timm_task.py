"""timm: FedLAS as a task of its training script, or as a loss alone. Run it with: python examples/timm_task.py."""

import timm
import torch
from noisy_digits import data_sets, show
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader

import fedlas
from fedlas.integrations.timm import CriterionTask, DropInLoss
from fedlas.losses import FedLAS

EPOCHS = 20


def parts():
    """A small ResNet of timm's, not pre-trained, and the data; 8 x 8 pixels, so that its first layer keeps the size."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=10, in_chans=1)
    train_set, _, test_set = data_sets(shape=(1, 8, 8))
    return model, DataLoader(train_set, 50, shuffle=True), DataLoader(test_set, 256)


def train_task(criterion):
    """As timm's train.py does it; its checkpoint is ``task.get_checkpoint_state()``, gate and NCI in ``task_state``."""
    model, loader, test_loader = parts()
    task = CriterionTask(model, criterion)
    optimizer = task.create_optimizer("sgd", lr=0.05, weight_decay=5e-4)
    run(lambda images, target: task(images, target)["loss"], task, optimizer, loader)
    return fedlas.evaluate(fedlas.predict(task.get_eval_model(), test_loader))


def train_script(criterion):
    """As a script of before tasks does it: ``loss = train_loss_fn(model(images), target)``."""
    model, loader, test_loader = parts()
    train_loss_fn = DropInLoss(model, criterion)
    optimizer = timm.optim.create_optimizer_v2(model, opt="sgd", lr=0.05, weight_decay=5e-4)
    train_loss_fn.add_to_optimizer(optimizer)  # the gate learns too
    run(lambda images, target: train_loss_fn(model(images), target), model, optimizer, loader)
    return fedlas.evaluate(fedlas.predict(model, test_loader))


def run(loss_of, module, optimizer, loader):
    """The loop of both."""
    schedule = CosineLRScheduler(optimizer, t_initial=EPOCHS)
    for epoch in range(EPOCHS):
        module.train()
        for images, target in loader:
            optimizer.zero_grad()
            loss_of(images, target).backward()
            optimizer.step()
        schedule.step(epoch + 1)


if __name__ == "__main__":
    show("before: cross-entropy", train_task(nn.CrossEntropyLoss()))
    show("after:  FedLAS, task", train_task(FedLAS(num_classes=10)))
    show("after:  FedLAS, loss", train_script(FedLAS(num_classes=10)))
