"""The README's three lines on a published ResNet-20: 5,000 test images of CIFAR-10 fit a temperature, 5,000 measure it.

    python benchmarks/three_lines.py --real FOLDER --data FOLDER

``--real`` holds the weights and ``--data`` the images, as for ``published_network.py``.
"""

import argparse
from pathlib import Path

import torch
from published_network import MEAN, STD, network

import fedlas
from fedlas.lab.data.sets.torchvision_sets import load_cifar10

BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    test = load_cifar10(str(options.data)).test
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    images = (test.images / 255 - mean) / std
    batches = list(zip(images.split(BATCH), test.target.split(BATCH), strict=True))
    half = len(batches) // 2
    calibrated = fedlas.calibrate(network(options.real, 20), batches[:half])
    print(calibrated.before_after(batches[half:]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
