"""Backbones by name, and the one function that builds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.registry import Registry

Builder = Callable[..., nn.Module]
"""``build(num_classes, in_channels, *, image_size=32, option=default, ...) -> nn.Module``. The classifier of what it
builds is one ``nn.Linear`` called ``fc``, whose input is the features ``(N, D)``."""

MODELS: Registry[Builder] = Registry("model")
"""Models by name. One small module per family registers itself here."""

LIBRARIES: Registry[Callable[[str], Builder]] = Registry("model library")
"""Other libraries' models: ``"timm:NAME"`` is what ``LIBRARIES["timm"]`` builds of ``NAME``. Where their classifier is,
:func:`fedlas.features.find_head` finds out."""


def builder_of(name: str) -> Builder:
    """What builds the model ``name``: a name in :data:`MODELS`, or ``LIBRARY:NAME``.

    Raises:
        InputError: For an unknown name; the nearest one is named.
    """
    library, colon, model = str(name).partition(":")
    return LIBRARIES[library].value(model) if colon else MODELS[name].value


def build_model(name: str, *, num_classes: int, in_channels: int, image_size: int = 32, **options: Any) -> nn.Module:
    """A new model, initialised from torch's global generator.

    Args:
        name: A name in :data:`MODELS`, or ``timm:NAME`` for one of timm's.
        num_classes: ``C``, columns of the logits.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels; only models without global pooling depend on it.
        options: Options of that model, such as ``width`` of ``resnet8``.

    Returns:
        A module from images ``(N, in_channels, image_size, image_size)`` to logits ``(N, num_classes)``.

    Raises:
        InputError: For an unknown name or option (the nearest one is named), or numbers out of range.

    Example:
        >>> build_model("mlp", num_classes=3, in_channels=1, image_size=8, hidden=(16,)).fc
        Linear(in_features=16, out_features=3, bias=True)
    """
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        check_count(name, argument, value)
    registry: Registry[Builder] = MODELS
    if name not in MODELS and ":" in name:
        registry = Registry("model")
        registry.add(name.lower(), builder_of(name))
    model: nn.Module = registry.build(
        name.lower(), options, num_classes=num_classes, in_channels=in_channels, image_size=image_size
    )
    return model


def check_dropout(name: str, dropout: object, *, option: str = "dropout") -> float:
    """Return ``dropout`` if it is a rate in [0, 1).

    Raises:
        InputError: Otherwise; at 1 nothing would be left.
    """
    rate = check_number(name, option, dropout, low=0, high=1)
    if rate == 1:
        raise InputError(name, f"{option} must be below 1", rate, "Choose a rate such as 0.2.")
    return rate
