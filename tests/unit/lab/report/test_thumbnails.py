import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fedlas.lab.data import Images
from fedlas.lab.report.diagnosis import thumbnail


def decoded(uri):
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("channels", [1, 3])
def test_small_images_keep_every_pixel(channels):
    images = torch.randint(256, (3, channels, 8, 8), dtype=torch.uint8)
    shown = decoded(thumbnail(Images(images, torch.zeros(3, dtype=torch.int64)), 1))
    pixels = torch.from_numpy(np.array(shown)).reshape(8, 8, channels).permute(2, 0, 1)
    assert torch.equal(pixels.to(torch.uint8), images[1])


def test_large_images_are_reduced():
    images = torch.zeros(1, 3, 300, 150, dtype=torch.uint8)
    assert decoded(thumbnail(Images(images, torch.zeros(1, dtype=torch.int64)), 0)).size == (48, 96)
