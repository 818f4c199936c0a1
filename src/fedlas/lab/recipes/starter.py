"""Starter recipe for a folder of images, with settings chosen from a survey of the images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from fedlas._core.extras import require
from fedlas.lab.data.splits import FEWEST_VALIDATION
from fedlas.lab.data.survey import Survey

_LARGEST = 64
"""Pixels per side; larger images are resized, so that a first run takes minutes on a CPU."""
_IN_MEMORY = 2 * 2**30
"""Most bytes of images to read into memory; more are read on demand."""
_STEPS = 1500
"""Training steps to aim for; fewer images get more epochs."""


@dataclass(frozen=True)
class Starter:
    """Settings of a starter recipe.

    Attributes:
        streamed: Whether images are read when needed, by the data set ``image-folder``, or once, by ``folder``.
        size: Height and width of the model's input.
        width: Width of the model.
        test: Number of test images.
        val: Number of validation images.
        train: Number of training images.
        epochs: Number of epochs.
        batch: Batch size.
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
    """Return the settings of a starter recipe for a folder of images."""
    size = min(max(contents.shorter_side, 8), _LARGEST)
    streamed = contents.nested or contents.images * contents.channels * size**2 > _IN_MEMORY
    # As in the loaders, the last part is the test part; without parts it is a fifth of the images.
    *_, last = contents.counts.values()
    test = sum(last.values()) if len(contents.counts) > 1 else round(contents.images / 5)
    rest = contents.images - test
    val = max(round(rest / 10), min(FEWEST_VALIDATION, rest // 4), 1)
    train = rest - val
    # Few images get small batches, so that an epoch has enough steps.
    batch = 128 if train >= 10_000 else 64 if train >= 1000 else 32
    epochs = min(max(round(_STEPS * batch / train), 10), 60)
    return Starter(streamed, size, 32 if size <= 32 else 16, test, val, train, epochs, batch)


def starter_recipe(contents: Survey, chosen: Starter) -> str:
    """Return the starter recipe as YAML, with a comment at each setting."""
    jinja = require("jinja2", extra="bench")
    text = (files("fedlas.lab.recipes") / "starter.yaml.j2").read_text(encoding="utf-8")
    counts = {part: sum(by_class.values()) for part, by_class in contents.counts.items() if part}
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    return jinja.Template(text, trim_blocks=True, keep_trailing_newline=True).render(
        contents=contents,
        chosen=chosen,
        parts=parts,
        quoted=_quoted,
    )


def _quoted(text: str) -> str:
    """Return text as a YAML string; every JSON string is one."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
