"""Problems of fine-tuning from CIFAR-100: ``python problems.py CIFAR100.npz FOLDER``.

Writes ``FOLDER/SUPERCLASS.npz`` for each of the 20 superclasses (five classes that look alike; 200 images a class to
train and validate on, 400 to test on) and ``FOLDER/all.npz`` (100 classes; 100 images a class to train and validate on,
the first 40 test images a class). The published networks of CIFAR-10 have seen none of them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

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
POOL, ALL_POOL, ALL_TEST = 200, 100, 40


def write(
    path: Path,
    arrays: dict[str, np.ndarray],
    classes: Sequence[int],
    pool: int,
    test: int,
    names: list[str],
    *,
    add_unused: bool,
) -> None:
    """Write the images of ``classes``: the first ``pool`` training images of each, ``test`` test images of each."""
    parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for label, number in enumerate(classes):
        of_class = {key: np.flatnonzero(arrays[f"{key}_target"] == number) for key in parts}
        train, unused = np.split(of_class["train"], [pool])
        chosen = [("train", "train", train), ("test", "test", of_class["test"][:test])]
        chosen += [("test", "train", unused)] if add_unused else []
        for part, source, rows in chosen:
            labels = np.full(len(rows), label, dtype=np.int64)
            parts[part].append((arrays[f"{source}_images"][rows], labels))
    content = {}
    for part, pairs in parts.items():
        images, target = map(np.concatenate, zip(*pairs, strict=True))
        content |= {f"{part}_images": images, f"{part}_target": target}
    np.savez(path, classes=np.array([names[number] for number in classes]), **content)


with np.load(sys.argv[1]) as archive:
    arrays = {
        f"{part}_{kind}": archive[f"{part}_{kind}"]
        for part in ("train", "test")
        for kind in ("images", "target")
    }
    names = archive["classes"].tolist()
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
for name, classes in SUPERCLASSES.items():
    numbers = [names.index(one) for one in classes.split()]
    write(folder / f"{name}.npz", arrays, numbers, POOL, 100, names, add_unused=True)
write(folder / "all.npz", arrays, range(100), ALL_POOL, ALL_TEST, names, add_unused=False)
