"""Images of a data set as they stand on a page: small PNGs inside the HTML."""

from __future__ import annotations

import base64
import io
from typing import Any

from fedlas._core.extras import require
from fedlas.data.base import Images, Part

LONGEST_SIDE = 96
"""Pixels; larger images are reduced, smaller ones stay as they are."""


def thumbnail(part: Part, row: int) -> str:
    """The image at a position of a part as a data URI.

    Args:
        part: In memory or in files.
        row: Position, from 0.

    Raises:
        OSError: If its file is gone or broken.
    """
    images = require("PIL.Image", extra="data")
    if isinstance(part, Images):
        pixels = part.images[row].cpu().permute(1, 2, 0).numpy()
        image: Any = images.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels[:, :, :3])
    else:
        with images.open(part.path(row)) as opened:
            image = opened.convert("RGB")
    if max(image.size) > LONGEST_SIDE:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
