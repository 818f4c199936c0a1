"""Image corruptions: noise, blur, weather and digital artifacts."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedlas._core.extras import require
from fedlas.lab.data.shift.base import CORRUPTIONS, PAPER_METADATA, Pixels


def convolve(image: Pixels, kernel: NDArray[np.float64]) -> Pixels:
    """Return ``image`` convolved per channel with an odd-sized ``kernel``, mirrored at the border."""
    signal: Any = require("scipy.signal", extra="bench")
    rows = kernel.shape[0] // 2
    columns = kernel.shape[1] // 2
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    blurred: Pixels = signal.fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
    return blurred


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """Return ``image`` blurred per channel by a Gaussian of ``sigma`` pixels."""
    blurred: Pixels = require("scipy.ndimage", extra="bench").gaussian_filter(
        image, (sigma, sigma, 0), mode="nearest"
    )
    return blurred


def disk_kernel(radius: float, softness: float) -> NDArray[np.float64]:
    """Return the kernel of a disk of ``radius`` pixels with an edge softened over ``softness`` pixels; sums to 1."""
    reach = int(np.ceil(radius)) + 2
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    soft: NDArray[np.float64] = require("scipy.ndimage", extra="bench").gaussian_filter(
        inside, softness, truncate=3.0
    )
    return soft / soft.sum()


def motion_kernel(radius: float, sigma: float, degrees: float) -> NDArray[np.float64]:
    """Return a motion blur kernel: a half Gaussian along a line from the center; sums to 1.

    Args:
        radius: Half the length of the line in pixels.
        sigma: Standard deviation along the line in pixels.
        degrees: Direction; 0 is to the right, 90 down.
    """
    steps = np.arange(2 * int(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    reach = 2 * int(radius) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    angle = np.deg2rad(degrees)
    places = reach + steps * np.sin(angle), reach + steps * np.cos(angle)
    corner = tuple(np.floor(place).astype(int) for place in places)
    for down in (0, 1):  # bilinear: each point is divided among the four pixels around it
        for right in (0, 1):
            part = np.abs(1 - down - (places[0] - corner[0])) * np.abs(
                1 - right - (places[1] - corner[1])
            )
            np.add.at(kernel, (corner[0] + down, corner[1] + right), weights * part)
    return kernel / kernel.sum()


def plasma_fractal(size: int, decay: float, random: np.random.RandomState) -> NDArray[np.float64]:
    """Return a random plasma fractal by midpoint displacement (the diamond-square algorithm).

    Args:
        size: Height and width.
        decay: Factor by which the displacement shrinks when the grid is halved; a larger one is smoother.
        random: Draws the displacements.

    Returns:
        ``(size, size)`` in [0, 1], one corner of a field whose minimum is 0 and maximum 1.

    Source:
        Fournier, Fussell and Carpenter, "Computer rendering of stochastic models", 1982.
    """
    whole = 1 << max(1, (size - 1).bit_length())
    field = np.zeros((whole, whole))
    step = whole
    reach = 1.0
    while step > 1:
        half = step // 2
        # Square step: the center of each cell is the mean of its four corners, plus noise.
        corners = field[::step, ::step]
        square = corners + np.roll(corners, -1, 0)
        square = square + np.roll(square, -1, 1)
        field[half::step, half::step] = square / 4 + random.uniform(-reach, reach, corners.shape)
        # Diamond step: the middle of each edge is the mean of its two ends and the two centers next to it, plus noise.
        middles = field[half::step, half::step]
        across = corners + np.roll(corners, -1, 1) + middles + np.roll(middles, 1, 0)
        down = corners + np.roll(corners, -1, 0) + middles + np.roll(middles, 1, 1)
        field[::step, half::step] = across / 4 + random.uniform(-reach, reach, corners.shape)
        field[half::step, ::step] = down / 4 + random.uniform(-reach, reach, corners.shape)
        step = half
        reach = reach / decay
    field -= field.min()
    return field[:size, :size] / max(float(field.max()), np.finfo(np.float64).tiny)


@CORRUPTIONS.register(
    "gaussian-noise",
    small=(0.04, 0.06, 0.08, 0.09, 0.10),
    large=(0.08, 0.12, 0.18, 0.26, 0.38),
    **PAPER_METADATA,
)
def gaussian_noise(image: Pixels, std: float, random: np.random.RandomState) -> Pixels:
    """Normal noise of the given standard deviation (white is 1) on every channel of every pixel."""
    return image + random.normal(scale=std, size=image.shape)


@CORRUPTIONS.register(
    "shot-noise", small=(500, 250, 100, 75, 50), large=(60, 25, 12, 5, 3), **PAPER_METADATA
)
def shot_noise(image: Pixels, photons: float, random: np.random.RandomState) -> Pixels:
    """Poisson noise of a sensor that counts ``photons`` where the image is white."""
    return random.poisson(image * photons) / photons


@CORRUPTIONS.register(
    "impulse-noise",
    small=(0.01, 0.02, 0.03, 0.05, 0.07),
    large=(0.03, 0.06, 0.09, 0.17, 0.27),
    **PAPER_METADATA,
)
def impulse_noise(image: Pixels, rate: float, random: np.random.RandomState) -> Pixels:
    """Salt and pepper: a share of the values becomes 0 or 1, each with probability 1/2."""
    hit = random.random_sample(image.shape) < rate
    return np.where(hit, (random.random_sample(image.shape) < 0.5).astype(np.float64), image)


@CORRUPTIONS.register(
    "defocus-blur",
    small=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    large=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    **PAPER_METADATA,
)
def defocus_blur(
    image: Pixels,
    strength: tuple[float, float],
    random: np.random.RandomState,  # noqa: ARG001
) -> Pixels:  # one signature for all
    """Lens out of focus: each point becomes a disk; ``strength`` is its radius and softness in pixels."""
    return convolve(image, disk_kernel(*strength))


@CORRUPTIONS.register(
    "glass-blur",
    small=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    large=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    **PAPER_METADATA,
)
def glass_blur(
    image: Pixels, strength: tuple[float, int, int], random: np.random.RandomState
) -> Pixels:
    """Frosted glass: pixels are swapped with pixels nearby, between two Gaussian blurs.

    ``strength`` is the sigma of the blurs, the largest distance, and how often each pixel is swapped.
    """
    sigma, distance, rounds = strength
    height, width, channels = image.shape
    # a list, since access to single elements of an array is slow
    source = list(range(height * width))
    rows = range(height - distance - 1, distance - 1, -1)
    columns = range(width - distance - 1, distance - 1, -1)
    for _ in range(rounds):
        shifts = random.randint(-distance, distance, (2, height, width))
        partner = (shifts[0] * width + shifts[1]).ravel().tolist()
        for row in rows:
            for position in range(row * width + columns.start, row * width + columns.stop, -1):
                other = position + partner[position]
                source[position], source[other] = source[other], source[position]
    # The paper blurs before and after the permutation.
    blurred = gaussian_blur(image, sigma).reshape(-1, channels)
    return gaussian_blur(blurred[np.array(source)].reshape(image.shape), sigma)


@CORRUPTIONS.register(
    "motion-blur",
    small=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    large=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    **PAPER_METADATA,
)
def motion_blur(
    image: Pixels, strength: tuple[float, float], random: np.random.RandomState
) -> Pixels:
    """Camera motion within 45 degrees of level; ``strength`` is half the length and sigma of its trace, in pixels."""
    return convolve(image, motion_kernel(*strength, degrees=random.uniform(-45, 45)))


@CORRUPTIONS.register(
    "zoom-blur",
    small=((1.05, 0.01), (1.10, 0.01), (1.15, 0.01), (1.20, 0.01), (1.25, 0.01)),
    large=((1.10, 0.01), (1.15, 0.01), (1.20, 0.02), (1.25, 0.02), (1.30, 0.03)),
    **PAPER_METADATA,
)
def zoom_blur(
    image: Pixels,
    strength: tuple[float, float],
    random: np.random.RandomState,  # noqa: ARG001
) -> Pixels:  # one signature for all
    """Camera that approaches: mean of the image and enlarged ones; ``strength`` is the largest factor and the step."""
    last, step = strength
    factors = np.arange(1, last + step / 2, step)
    return (image + sum(clipped_zoom(image, float(factor)) for factor in factors)) / (
        len(factors) + 1
    )


def clipped_zoom(image: Pixels, factor: float) -> Pixels:
    """Return ``image`` enlarged by ``factor`` around its center and cropped to its size."""
    ndimage: Any = require("scipy.ndimage", extra="bench")
    center = (np.array(image.shape) - 1) / 2
    scale = np.array([1 / factor, 1 / factor, 1])
    larger: Pixels = ndimage.affine_transform(
        image, scale, offset=center - scale * center, order=1, mode="nearest"
    )
    return larger


@CORRUPTIONS.register(
    "contrast",
    small=(0.75, 0.5, 0.4, 0.3, 0.15),
    large=(0.4, 0.3, 0.2, 0.1, 0.05),
    **PAPER_METADATA,
)
def contrast(image: Pixels, factor: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Lower contrast: the distance from each channel's mean shrinks to the share ``factor``."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


@CORRUPTIONS.register(
    "elastic-transform",
    small=(
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    large=(
        (2, 0.7, 0.1),
        (2, 0.08, 0.2),
        (0.05, 0.01, 0.02),
        (0.07, 0.01, 0.02),
        (0.12, 0.01, 0.02),
    ),
    **PAPER_METADATA,
)
def elastic_transform(
    image: Pixels, strength: tuple[float, float, float], random: np.random.RandomState
) -> Pixels:
    """Elastic deformation: a random affine map, then smooth random displacements.

    ``strength`` holds, as fractions of the image's height, the size of the displacements, the sigma that smooths them,
    and how far the affine map moves three points.
    """
    ndimage: Any = require("scipy.ndimage", extra="bench")
    height, width, channels = image.shape
    amount, sigma, reach = (height * value for value in strength)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    # Smoothed noise moves each pixel a little; the affine map below moves the whole image.
    for place in (rows, columns):
        place += amount * ndimage.gaussian_filter(
            random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3
        )
    center = np.array([height // 2, width // 2])
    arm = min(height, width) // 3
    points = center + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + random.uniform(-reach, reach, points.shape)
    # Resampling asks where each pixel of the result comes from, so this is the inverse affine map.
    inverse_map, *_ = np.linalg.lstsq(np.column_stack([moved, np.ones(3)]), points, rcond=None)
    flat = np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)], axis=1) @ inverse_map
    sampled = [
        ndimage.map_coordinates(image[:, :, channel], flat.T, order=1, mode="reflect")
        for channel in range(channels)
    ]
    return np.stack(sampled, axis=1).reshape(image.shape)


@CORRUPTIONS.register(
    "pixelate",
    small=(0.95, 0.9, 0.85, 0.75, 0.65),
    large=(0.6, 0.5, 0.4, 0.3, 0.25),
    **PAPER_METADATA,
)
def pixelate(image: Pixels, factor: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Lower resolution: height and width are reduced to ``factor`` by averaging and enlarged again."""
    box = require("PIL.Image", extra="bench").Resampling.BOX
    height, width = image.shape[:2]
    reduced = _to_pil(image).resize(
        (max(1, int(width * factor)), max(1, int(height * factor))), box
    )
    return _from_pil(reduced.resize((width, height), box), image)


@CORRUPTIONS.register(
    "jpeg-compression", small=(80, 65, 58, 50, 40), large=(25, 18, 15, 10, 7), **PAPER_METADATA
)
def jpeg_compression(image: Pixels, quality: int, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """JPEG compression of the given quality, 1 to 95."""
    buffer = BytesIO()
    _to_pil(image).save(buffer, "JPEG", quality=quality)
    with require("PIL.Image", extra="bench").open(buffer) as decoded:
        return _from_pil(decoded, image)


def _to_pil(image: Pixels) -> Any:
    values = np.rint(image * 255).astype(np.uint8)
    return require("PIL.Image", extra="bench").fromarray(
        values[:, :, 0] if image.shape[2] == 1 else values
    )


def _from_pil(decoded: object, like: Pixels) -> Pixels:
    return np.asarray(decoded, dtype=np.float64).reshape(like.shape) / 255


_GRAY = np.array([0.299, 0.587, 0.114])
_ICE = np.array([0.86, 0.93, 1.0])


@CORRUPTIONS.register(
    "snow",
    small=(
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    large=(
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    **PAPER_METADATA,
)
def snow(image: Pixels, strength: tuple[float, ...], random: np.random.RandomState) -> Pixels:
    """Snowflakes driven by wind in front of a pale scene.

    ``strength`` holds mean and standard deviation of the flakes' brightness, their enlargement, the brightness below
    which there is no flake, half the length and sigma of their trace in pixels, and the share of color that is kept.
    """
    mean, deviation, enlargement, level, radius, sigma, keep = strength
    flakes = clipped_zoom(random.normal(mean, deviation, image.shape[:2])[:, :, None], enlargement)
    flakes = np.clip(np.where(flakes < level, 0, flakes), 0, 1)
    flakes = convolve(flakes, motion_kernel(radius, sigma, degrees=random.uniform(-135, -45)))
    # A pale scene behind the flakes; the flakes are added twice, the second time turned by 180 degrees.
    gray = image @ _GRAY[:, None] if image.shape[2] == 3 else image
    pale = keep * image + (1 - keep) * np.maximum(image, gray * 1.5 + 0.5)
    return pale + flakes + np.rot90(flakes, 2)


@CORRUPTIONS.register(
    "frost",
    small=((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    large=((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    **PAPER_METADATA,
)
def frost(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:
    """Ice crystals on a window; ``strength`` holds the weights of scene and ice.

    The paper overlays photographs of frost. Here the ice is computed, so that nothing needs to be downloaded: bluish
    white ridges of two random fields, with a thickness that varies.
    """
    size = max(image.shape[:2])
    ridges = 1 - np.abs(2 * plasma_fractal(size, 1.6, random) - 1)
    needles = 1 - np.abs(2 * plasma_fractal(size, 1.25, random) - 1)
    cover = plasma_fractal(size, 2.5, random)
    ice = np.clip(0.55 * ridges**4 + 0.45 * needles**3 + 0.5 * cover, 0, 1)[
        : image.shape[0], : image.shape[1], None
    ]
    tint = _ICE if image.shape[2] == 3 else np.array([_ICE @ _GRAY])
    weight, ice_weight = strength
    return weight * image + ice_weight * ice * tint


@CORRUPTIONS.register(
    "fog",
    small=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    large=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    **PAPER_METADATA,
)
def fog(image: Pixels, strength: tuple[float, float], random: np.random.RandomState) -> Pixels:
    """Fog: a random field is added and the brightness kept; ``strength`` is its amount and smoothness."""
    amount, decay = strength
    # The last factor keeps the result within the brightness of the scene.
    brightest = float(image.max())
    field = plasma_fractal(max(image.shape[:2]), decay, random)[
        : image.shape[0], : image.shape[1], None
    ]
    return (image + amount * field) * brightest / (brightest + amount)


@CORRUPTIONS.register(
    "brightness",
    small=(0.05, 0.1, 0.15, 0.2, 0.3),
    large=(0.1, 0.2, 0.3, 0.4, 0.5),
    **PAPER_METADATA,
)
def brightness(image: Pixels, increase: float, random: np.random.RandomState) -> Pixels:  # noqa: ARG001  # one signature for all
    """Brightness: the value in HSV (the largest channel) rises by ``increase``; hue and saturation stay."""
    value = image.max(axis=2, keepdims=True)
    lighter = np.minimum(value + increase, 1)
    return np.where(value > 0, image * lighter / np.where(value > 0, value, 1), lighter)
