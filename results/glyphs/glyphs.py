"""Letters and digits of Debian's fonts, a folder a class: ``python glyphs.py PACKAGES PHOTOS``.

``PACKAGES`` is a folder of unpacked packages: ``apt-get download $(cat packages.txt)``, and for each
``dpkg -x FILE.deb PACKAGES/NAME``. Each package gives at most three fonts, and each font the 62 letters and digits,
as gray images of 24 x 24 with the baseline at one height.
"""

import sys
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE, EM, BASELINE = 24, 20, 18
FONTS, TRAIN, TEST = 3, 15_000, 6_000
KINDS = {"digit": digits, "lower": ascii_lowercase, "upper": ascii_uppercase}
CLASSES = {f"{kind}-{sign}": sign for kind, signs in KINDS.items() for sign in signs}


def glyph(font: ImageFont.FreeTypeFont, sign: str) -> Image.Image:
    """A white sign on black, centered, with its baseline at row 18."""
    image = Image.new("L", (SIZE, SIZE))
    left, _, right, _ = font.getbbox(sign, anchor="ls")
    ImageDraw.Draw(image).text(
        ((SIZE - right - left) / 2, BASELINE), sign, fill=255, font=font, anchor="ls"
    )
    return image


def images(package: Path, rng: np.random.Generator) -> list[tuple[str, Image.Image]]:
    """Class and image of every sign of the package's fonts that draw at least 50 different signs."""
    files = sorted(path for path in package.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))
    chosen, results = rng.permutation(len(files)), []
    for place in chosen:
        try:
            font = ImageFont.truetype(files[place], EM)
            pictures = {name: glyph(font, sign) for name, sign in CLASSES.items()}
        except OSError:  # a font of bitmaps in other sizes
            continue
        if len({picture.tobytes() for picture in pictures.values()}) >= 50:
            results.append(pictures)
        if len(results) == FONTS:
            break
    return [item for pictures in results for item in pictures.items() if item[1].getbbox()]


rng = np.random.default_rng(0)
every = [item for package in sorted(Path(sys.argv[1]).iterdir()) for item in images(package, rng)]
samples = list(
    {(name, image.tobytes()): (name, image) for name, image in every}.values()
)  # fonts share signs
for number, place in enumerate(rng.permutation(len(samples))[: TRAIN + TEST]):
    name, image = samples[place]
    folder = Path(sys.argv[2], "test" if number < TEST else "train", name)
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{number}.png")
