"""Registry of models, ``build_model``, and the classifier that several models share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fedlas._core.check import InputError, check_count, check_number
from fedlas._core.registry import Registry

Builder = Callable[..., nn.Module]
"""``build(num_classes, in_channels, *, image_size=32, option=default, ...) -> nn.Module``. The classifier of the module
is one ``nn.Linear`` called ``fc``, whose input is the features ``(N, D)``. If the module has a method
``fit_inputs(images)``, it gets normalized training images ``(N, C, H, W)`` once, before training."""

MODELS: Registry[Builder] = Registry("model", rows=False, tokens=False)
"""Models by name; each family is registered by its own module. Metadata ``rows`` is true of those that take rows of
features ``(N, D)``, with ``in_channels`` D and ``image_size`` 1; ``tokens`` of those that take ``(N, K, L)`` of
:func:`fedlas.lab.data.tokens.token_array`."""

LIBRARIES: Registry[Callable[[str], Builder]] = Registry("model library")
"""Models of other libraries: ``LIBRARIES["timm"]`` builds ``"timm:NAME"``. :func:`fedlas.features.find_head` finds the
classifier."""


def find_builder(name: str) -> Builder:
    """Return the builder of a model by its name in :data:`MODELS`, or by ``LIBRARY:NAME``.

    Raises:
        InputError: For an unknown name; the message names the closest one.
    """
    library, colon, model = str(name).partition(":")
    return LIBRARIES[library].value(model) if colon else MODELS[name].value


def check_input_shape(name: str, shape: Sequence[int]) -> None:
    """Raise InputError if inputs are rows of features and the model takes only images.

    Raises:
        InputError: If inputs of this shape are rows of features, which the model does not take.
    """
    row_models = [entry.name for entry in MODELS.entries() if entry.metadata["rows"]]
    if len(shape) == 1 and name not in row_models:
        raise InputError(
            f"the model must accept rows of {shape[0]} features",
            name,
            f"Choose one of: {', '.join(row_models)}.",
        )


def build_model(
    name: str, *, num_classes: int, in_channels: int, image_size: int = 32, **options: Any
) -> nn.Module:
    """Return a new model, initialized from torch's global generator.

    Args:
        name: A name in :data:`MODELS`, or ``timm:NAME`` for a model of timm.
        num_classes: ``C``, columns of the logits.
        in_channels: Channels of an image.
        image_size: Height and width of an image in pixels; only models without global pooling depend on it.
        options: Options of that model, such as ``width`` of ``resnet8``.

    Returns:
        A module from images ``(N, in_channels, image_size, image_size)`` to logits ``(N, num_classes)``.

    Raises:
        InputError: For an unknown name or option (the message names the closest one), or numbers out of range.

    Example:
        >>> build_model("mlp", num_classes=3, in_channels=1, image_size=8, hidden=(16,)).fc
        Linear(in_features=16, out_features=3, bias=True)
    """
    size = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for argument, value in size.items():
        check_count(argument, value)
    registry: Registry[Builder] = Registry("model")
    registry.add(str(name).lower(), find_builder(name))
    build = registry.builder(str(name).lower(), options, **size)
    model: nn.Module = build()
    return model


def check_dropout(dropout: object, *, option: str = "dropout") -> float:
    """Return ``dropout`` as a float, checked to be in [0, 1).

    Raises:
        InputError: If it is not a number in this range.
    """
    return check_number(option, dropout, low=0, high=1, high_open=True)


class GlobalMean(nn.Module):
    """Global average pooling, as a module so that hooks can read its input."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return the mean ``(N, D)`` over the positions of ``maps (N, D, H, W)``."""
        return maps.mean((2, 3))


class PooledClassifier(nn.Module):
    """Convolutional features, then ReLU, global average pooling, dropout and the classifier ``fc``.

    Args:
        features: From images to a map ``(N, D, H, W)``.
        width: ``D``.
        num_classes: ``C``.
        dropout: Rate of dropout on the pooled features.
    """

    def __init__(
        self, features: nn.Module, width: int, num_classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.features = features
        self.pool = GlobalMean()
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(N, C)`` of ``images (N, channels, H, W)``."""
        logits: Tensor = self.fc(self.dropout(self.pool(F.relu(self.features(images)))))
        return logits
