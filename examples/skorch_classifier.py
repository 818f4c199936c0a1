"""skorch: a scikit-learn classifier trained with FedLAS. Run it with: python examples/skorch_classifier.py."""

import numpy as np
import torch
from noisy_digits import data_sets, network, show
from sklearn.model_selection import cross_val_score
from skorch.callbacks import LRScheduler
from torch import nn

import fedlas
from fedlas.integrations.skorch import CriterionClassifier
from fedlas.losses import FedLAS

EPOCHS = 40


def train(criterion, **options):
    """Fit as any estimator of scikit-learn's, and evaluate the logits that ``forward`` returns."""
    (images, target), _, (test_images, test_target) = (part.tensors for part in data_sets())
    net = CriterionClassifier(
        network,  # not network(): each fold's copy starts from new weights
        criterion=criterion,
        head="4",
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__weight_decay=5e-4,
        lr=0.1,
        batch_size=50,
        max_epochs=EPOCHS,
        callbacks=[LRScheduler(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=EPOCHS)],
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        **options,
    )
    net.fit(images.numpy(), target.numpy())
    # net.save_params(f_params=..., f_optimizer=..., f_criterion=...): gate and NCI are in the last one.
    folds = cross_val_score(net, images.numpy(), target.numpy(), cv=2)
    print(f"  accuracy in two folds of the training part: {np.mean(folds):.4f}")
    return fedlas.evaluate(fedlas.Predictions(net.forward(test_images.numpy()), test_target))


if __name__ == "__main__":
    show("before: cross-entropy", train(nn.CrossEntropyLoss))
    show("after:  FedLAS", train(FedLAS, criterion__num_classes=10))
