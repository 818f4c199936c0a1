"""A first recipe for a folder of images: everything chosen by what the images are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from fedlas.lab.data.splits import FEWEST_VALIDATION
from fedlas.lab.data.survey import Survey
from fedlas.lab.train.config import TrainConfig

_LARGEST = 64
"""Pixels a side: larger images are made smaller, so that a first run takes minutes on a CPU."""
_IN_MEMORY = 2 * 2**30
"""Bytes of images that are read into memory; more are read when needed."""
_STEPS = 1500
"""Steps in which a small network learns: few images take more epochs."""


@dataclass(frozen=True)
class Starter:
    """Settings of the new recipe.

    Attributes:
        streamed: Whether images are read when needed, by the data set ``image-folder``, or once, by ``folder``.
        size: Height and width of the model's input.
        width: Width of the model.
        test: Number of test images.
        val: Number of validation images.
        train: Number of training images.
        epochs: Passes over them.
        batch: Samples of a step.
    """

    streamed: bool
    size: int
    width: int
    test: int
    val: int
    train: int
    epochs: int
    batch: int


def choose_settings(contents: Survey) -> Starter:
    """Choose the settings for a folder of images."""
    size = min(max(contents.shorter_side, 8), _LARGEST)
    streamed = contents.nested or contents.images * contents.channels * size**2 > _IN_MEMORY
    # The parts as the loaders divide them: the last is the test part, or a fifth of all.
    *_, last = contents.counts.values()
    test = sum(last.values()) if len(contents.counts) > 1 else round(contents.images / 5)
    rest = contents.images - test
    val = max(round(rest / 10), min(FEWEST_VALIDATION, rest // 4), 1)
    train = rest - val
    # Few images: small steps, or an epoch has hardly any.
    batch = 128 if train >= 10_000 else 64 if train >= 1000 else 32
    epochs = min(max(round(_STEPS * batch / train), 10), 60)
    return Starter(streamed, size, 32 if size <= 32 else 16, test, val, train, epochs, batch)


def starter_recipe(contents: Survey, chosen: Starter) -> str:
    """Return the recipe as YAML, with a comment at each choice."""
    parts = ", ".join(
        f"{part} {sum(by_class.values()):,}" for part, by_class in contents.counts.items() if part
    )
    data = [
        (
            "root",
            _quoted(str(contents.root)),
            f"{contents.images:,} images{f': {parts}' if parts else ''}",
        ),
        (
            "channels",
            str(contents.channels),
            "gray" if contents.channels == 1 else "color; 1 for gray",
        ),
        (
            "val_size",
            str(chosen.val),
            "of the training images, drawn by the seed: chooses epoch and temperature",
        ),
        ("flip", "false", "true if a mirrored image keeps its class"),
    ]
    if chosen.streamed:
        data[:0] = [("name", "image-folder", "reads images when they are needed")]
        data[2:2] = [
            ("resize", str(round(chosen.size * 8 / 7)), "shorter side in pixels"),
            ("crop", str(chosen.size), "what the model gets; larger shows more and takes longer"),
            ("train_crop", "random", "or random-resized, which zooms, too"),
        ]
    else:
        data[:0] = [("name", "folder", "reads all images into memory once")]
        data[2:2] = [("image_size", str(chosen.size), "shorter side in pixels")]
        data += [("crop_padding", "0", "4 moves training images by up to 4 pixels")]
    tested = "its own part" if parts else "a fifth of the images, the same for every seed"
    train = [
        ("epochs", str(chosen.epochs), f"of {chosen.train:,} images to train on"),
        ("batch_size", str(chosen.batch), ""),
        (
            "precision",
            TrainConfig().precision,
            "bf16 is faster where the GPU or processor computes it",
        ),
        ("select", "accuracy", "on validation images: which epoch is kept"),
    ]
    return f"""\
# A start, written by fedlas init. Every line may be changed.
title: {_quoted(contents.root.name or "images")}
data:
{_lines(data)}
  # Test part: {chosen.test:,} images, {tested}.
# A small network, quick on a CPU. Others: fedlas list models.
model: {{name: resnet8, width: {chosen.width}}}
# A bench compares these. With fewer than five seeds no method is called best.
methods: [ce, ls, fedlas]
seeds: [0, 1, 2, 3, 4]
losses:
  ls: {{alpha: 0.05}}
  fedlas: {{alpha: 0.05, beta: 4}}
optimizer: {{name: sgd, lr: {0.1 if chosen.batch > 32 else 0.05}, momentum: 0.9, weight_decay: 0.0005}}
schedule: {{name: milestones, milestones: [0.5, 0.75], factor: 0.1}}
train:
{_lines(train)}
"""


def _lines(entries: list[tuple[str, str, str]]) -> str:
    """Return keys, values and aligned comments; a long value does not push the others' comments away."""
    texts = [(f"  {key}: {value}", comment) for key, value, comment in entries]
    width = max(len(text) for text, _ in texts if len(text) < 30)
    return "\n".join(
        f"{text:<{width}}  # {comment}" if comment else text for text, comment in texts
    )


def _quoted(text: str) -> str:
    """As a YAML string: every JSON string is one."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
