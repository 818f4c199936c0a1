"""Problems of fine-tuning: ``python problems.py CIFAR100.npz resnet20-cifar10.safetensors FOLDER [KIND PROBLEM...]``.

A published network of CIFAR-10 is frozen up to its last stage. Since what is frozen says the same in every epoch, its
output is computed once: ``FOLDER/PROBLEM.npz`` holds maps of 16 x 16 with 32 channels in place of images, and
``FOLDER/last-stage.safetensors`` the weights of the stage and head that are trained. Problems are the 20 superclasses
of CIFAR-100, each of five classes that look alike (200 images a class to draw training and validation from, 400 to test
on), and ``all``, its 100 classes (10 images a class to draw from, 40 to test on). The network has seen none of them.

``KIND`` is ``maps``, or ``features`` (the input of the head, 64 numbers, as rows), or ``images`` (nothing is computed).
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn.functional import relu

from fedlas.lab.models import build_model
from fedlas.lab.models.weights import load_weights

SUPERCLASSES = {
    "aquatic-mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "containers": "bottle bowl can cup plate",
    "fruit": "apple mushroom orange pear sweet_pepper",
    "devices": "clock keyboard lamp telephone television",
    "furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "carnivores": "bear leopard lion tiger wolf",
    "buildings": "bridge castle house road skyscraper",
    "landscapes": "cloud forest mountain plain sea",
    "herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-mammals": "fox porcupine possum raccoon skunk",
    "invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small-mammals": "hamster mouse rabbit shrew squirrel",
    "vehicles-1": "bicycle bus motorcycle pickup_truck train",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles-2": "lawn_mower rocket streetcar tank tractor",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # those of the published network

cifar, weights, folder = map(Path, sys.argv[1:4])
kind, *chosen = sys.argv[4:] or ["maps"]
network = build_model(weights.name.partition("-")[0], num_classes=10, in_channels=3)
load_weights(network, weights)
network.eval()


@torch.inference_mode()
def inputs_of(images: np.ndarray) -> np.ndarray:
    """Return what the frozen part makes of uint8 images ``(N, 32, 32, 3)``: float16 maps or features."""
    if kind == "images":
        return images
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    maps = []
    for chunk in torch.from_numpy(images).movedim(-1, 1).split(100):
        stem = relu(network.bn1(network.conv1((chunk / 255 - mean) / std)))
        inner = network.stages[1](network.stages[0](stem))
        features = kind == "features"
        last = network.pool(network.stages[2](inner)) if features else inner.movedim(1, -1)
        maps.append(last.half())
    return torch.cat(maps).numpy()


def write(name: str, classes: Sequence[int], *, pool: int, tested: int, unused: int) -> None:
    """Write a problem: of each class ``pool`` training images; to test on, ``tested`` and ``unused`` of training."""
    parts: dict[str, list[tuple[np.ndarray, int]]] = {"train": [], "test": []}
    for label, number in enumerate(classes):
        train, test = (np.flatnonzero(targets == number) for targets in (train_target, test_target))
        parts["train"].append((train_images[train[:pool]], label))
        parts["test"].append((test_images[test[:tested]], label))
        parts["test"].append((train_images[train[pool : pool + unused]], label))
    content = {"classes": names[list(classes)]}
    for part, groups in parts.items():
        content[f"{part}_images"] = inputs_of(np.concatenate([images for images, _ in groups]))
        content[f"{part}_target"] = np.repeat(
            [label for _, label in groups], [len(images) for images, _ in groups]
        )
    np.savez(folder / f"{name}.npz", **content)


with np.load(cifar) as archive:
    train_images, train_target = archive["train_images"], archive["train_target"]
    test_images, test_target = archive["test_images"], archive["test_target"]
    names = archive["classes"]
folder.mkdir(parents=True, exist_ok=True)
state = {
    key: value.contiguous()
    for key, value in network.state_dict().items()
    if key.startswith(("stages.2.", "fc."))
}
save_file(state, folder / "last-stage.safetensors")
for name, classes in SUPERCLASSES.items():
    if chosen and name not in chosen:
        continue
    numbers = [names.tolist().index(one) for one in classes.split()]
    write(name, numbers, pool=200, tested=100, unused=300)
if not chosen or "all" in chosen:
    write("all", range(100), pool=10, tested=40, unused=0)
