"""Images of a data set as they stand on a page: small PNGs inside the HTML."""

from __future__ import annotations

import base64
import io

from fedlas._core.extras import require
from fedlas.lab.data import Files
from fedlas.lab.data.base import Part
from fedlas.lab.data.disk import open_image

LONGEST_SIDE = 96
"""Pixels; larger images are reduced, so that a page stays small."""


def thumbnail(part: Part, row: int) -> str:
    """The image at a position of a part, as the model sees it, as a data URI.

    Args:
        part: In memory or in files.
        row: Position, from 0.

    Returns:
        A PNG; of two or more than three channels the first is shown.

    Raises:
        InputError: If its file is gone or broken.
    """
    if isinstance(part, Files):
        view = part.view.pipeline(augment=False, flip=False)
        image = view(open_image("report", part.path(row), channels=part.channels))
    else:
        image = part.images[row].cpu()
    pixels = (image if len(image) == 3 else image[:1]).permute(1, 2, 0).numpy()
    picture = require("PIL.Image", extra="data").fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
