"""Models of timm as ``timm:NAME``."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from fedlas._core.check import InputError, suggestion
from fedlas._core.extras import require
from fedlas.lab.models.base import LIBRARIES, Builder, check_dropout


@LIBRARIES.register("timm", url="https://huggingface.co/docs/timm")
def timm_builder(name: str) -> Builder:
    """Any model of timm by its name; untrained, unless ``model.weights`` names a file.

    Args:
        name: Name in timm, e.g. ``vit_base_patch16_384``, with an optional ``.TAG`` of pre-trained weights.

    Raises:
        InputError: If timm has no such model; the message names the closest one.
    """
    _checked_name(name)

    def build(
        num_classes: int,
        in_channels: int,
        *,
        image_size: int = 224,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        global_pool: str | None = None,
    ) -> nn.Module:
        """Return a model of timm.

        Args:
            num_classes: ``C``.
            in_channels: Channels of an image.
            image_size: Height and width of an image; some models accept no other after they are built.
            dropout: Rate of dropout on the features, before the classifier, in [0, 1).
            drop_path: Rate at which residual branches are skipped in training, in [0, 1).
            global_pool: Pooling of the last map or the tokens, e.g. ``avg`` or ``token``; null is the model's own.
        """
        # drop_path, global_pool and img_size are passed only if needed, since many models lack them.
        options: dict[str, Any] = {"drop_rate": check_dropout(dropout)}
        if drop_path:
            options["drop_path_rate"] = check_dropout(drop_path, option="drop_path")
        if global_pool is not None:
            options["global_pool"] = global_pool
        timm = require("timm", extra="timm")
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        if config is not None and config.fixed_input_size:
            options["img_size"] = image_size
        try:
            model: nn.Module = timm.create_model(
                name, pretrained=False, num_classes=num_classes, in_chans=in_channels, **options
            )
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            expected = f"timm must accept in_chans={in_channels}, {', '.join(f'{k}={v}' for k, v in options.items())}"
            raise InputError(
                expected, reason, "Choose another image_size or leave the option out."
            ) from error
        return model

    return build


def _checked_name(name: str) -> str:
    timm = require("timm", extra="timm")
    model, dot, _ = name.partition(".")
    if timm.is_model(model) and (not dot or name in timm.list_pretrained(f"{model}.*")):
        return name
    # timm has over a thousand names, so only those with the same first part are suggested.
    names = timm.list_pretrained(f"{model}*") if dot else timm.list_models()
    head = re.split(r"[_.]", name)[0]
    near = [each for each in names if each.startswith(head)] or names
    raise InputError(
        "timm must have a model of that name", repr(f"timm:{name}"), suggestion(name, near)
    )
