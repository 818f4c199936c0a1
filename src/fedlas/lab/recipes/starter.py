"""Starter recipe for a folder of images, with settings chosen from a survey of the images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from fedlas._core.extras import require
from fedlas._core.text import comment_line
from fedlas.lab.data.splits import MIN_VALIDATION_SAMPLES
from fedlas.lab.data.survey import Survey

_MAX_IMAGE_SIZE = 64
"""Pixels per side; larger images are resized, so that a first run takes minutes on a CPU."""
_MAX_BYTES_IN_MEMORY = 2 * 2**30
"""Most bytes of images to read into memory; more are read on demand."""
_TARGET_STEPS = 1500
"""Training steps to aim for; fewer images get more epochs."""


@dataclass(frozen=True)
class StarterSettings:
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


def choose_starter_settings(survey: Survey) -> StarterSettings:
    """Return the settings of a starter recipe for a folder of images."""
    size = min(max(survey.shorter_side, 8), _MAX_IMAGE_SIZE)
    streamed = survey.nested or survey.images * survey.channels * size**2 > _MAX_BYTES_IN_MEMORY
    # As in the loaders, the last part is the test part; without parts it is a fifth of the images.
    *_, last = survey.counts.values()
    test = sum(last.values()) if len(survey.counts) > 1 else round(survey.images / 5)
    rest = survey.images - test
    val = max(round(rest / 10), min(MIN_VALIDATION_SAMPLES, rest // 4), 1)
    train = rest - val
    # Few images get small batches, so that an epoch has enough steps.
    batch = 128 if train >= 10_000 else 64 if train >= 1000 else 32
    epochs = min(max(round(_TARGET_STEPS * batch / train), 10), 60)
    return StarterSettings(
        streamed, size, 32 if size <= 32 else 16, test, val, train, epochs, batch
    )


def render_starter_recipe(survey: Survey, settings: StarterSettings) -> str:
    """Return the starter recipe as YAML, with a comment at each setting."""
    jinja = require("jinja2", extra="bench")
    text = (files("fedlas.lab.recipes") / "starter.yaml.j2").read_text(encoding="utf-8")
    counts = {part: sum(by_class.values()) for part, by_class in survey.counts.items() if part}
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    return jinja.Template(text, trim_blocks=True, keep_trailing_newline=True).render(
        contents=survey,
        chosen=settings,
        parts=parts,
        quoted=_to_yaml_string,
        comment=comment_line,
    )


def _to_yaml_string(text: str) -> str:
    """Return text as a YAML string on one line."""
    # a JSON string is one, except for pairs of surrogates, which YAML reads as two characters
    return "".join(
        char if char.isprintable() else f"\\U{ord(char):08x}"
        for char in json.dumps(text, ensure_ascii=False)
    )
