"""Pairs of CIFAR's classes for asymmetric label noise: a class and the one it is mistaken for."""

from __future__ import annotations

_SUPERCLASSES = """
beaver dolphin otter seal whale
aquarium_fish flatfish ray shark trout
orchid poppy rose sunflower tulip
bottle bowl can cup plate
apple mushroom orange pear sweet_pepper
clock keyboard lamp telephone television
bed chair couch table wardrobe
bee beetle butterfly caterpillar cockroach
bear leopard lion tiger wolf
bridge castle house road skyscraper
cloud forest mountain plain sea
camel cattle chimpanzee elephant kangaroo
fox porcupine possum raccoon skunk
crab lobster snail spider worm
baby boy girl man woman
crocodile dinosaur lizard snake turtle
hamster mouse rabbit shrew squirrel
maple_tree oak_tree palm_tree pine_tree willow_tree
bicycle bus motorcycle pickup_truck train
lawn_mower rocket streetcar tank tractor
"""

CIFAR10_MISTAKEN = (
    ("truck", "automobile"),
    ("bird", "airplane"),
    ("deer", "horse"),
    ("cat", "dog"),
    ("dog", "cat"),
)
"""Pairs of CIFAR-10 (Patrini et al. 2017, section 5); the other classes keep their labels."""

CIFAR100_MISTAKEN = tuple(
    pair
    for names in (line.split() for line in _SUPERCLASSES.strip().splitlines())
    for pair in zip(names, names[1:] + names[:1], strict=True)
)
"""Each class of CIFAR-100 with the next one of its superclass, cyclically (the same section)."""
