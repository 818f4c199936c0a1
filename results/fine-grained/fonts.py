"""Which family is this font of? ``python fonts.py PACKAGES FOLDER`` writes ``fonts-before.npz`` and ``fonts.npz``.

``PACKAGES`` is a folder of unpacked Debian packages, as for ``results/glyphs/glyphs.py``. Half of the packages give the
100 families on which a network is trained before, the other half the 100 that are held back: at most five a package, so
that families of one foundry are among each other. A sample is a pair of letters, 24 x 24 pixels, in any file of the
family (bold, italic), at any of five sizes, sheared, and with noise.
"""

import sys
from collections import defaultdict
from pathlib import Path
from string import ascii_letters

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE, EMS, FAMILIES, A_PACKAGE = 24, (12, 13, 14, 15, 16), 100, 5
PARTS = {
    "fonts-before": {"train": 60, "test": 10},
    "fonts": {"train": 15, "test": 20},
}


def families(package: Path) -> dict[str, list[Path]]:
    """Return the files of each family of a package that draws 52 different letters."""
    files = defaultdict(list)
    for path in sorted(package.rglob("*")):
        if path.suffix.lower() not in (".ttf", ".otf") or path.is_symlink():
            continue
        try:
            font = ImageFont.truetype(path, EMS[-1])
            signs = {bytes(font.getmask(sign)) for sign in ascii_letters}
        except OSError:  # a font of bitmaps in other sizes
            continue
        if len(signs) >= 45 and all(any(sign) for sign in signs):
            files[font.getname()[0]].append(path)
    return files


def pair_of_letters(files: list[Path], rng: np.random.Generator) -> np.ndarray:
    """Return two letters, white on black with noise: uint8 ``(24, 24)``."""
    font = ImageFont.truetype(files[rng.integers(len(files))], int(rng.choice(EMS)))
    text = "".join(rng.choice(list(ascii_letters), 2))
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (SIZE, SIZE))
    corner = ((SIZE - right - left) / 2, (SIZE - bottom - top) / 2)
    ImageDraw.Draw(image).text(corner, text, fill=int(rng.integers(160, 256)), font=font)
    shear = rng.uniform(-0.15, 0.15)
    image = image.transform(
        image.size, Image.Transform.AFFINE, (1, shear, -shear * SIZE / 2, 0, 1, 0), Image.BILINEAR
    )
    noisy = np.asarray(image) + rng.normal(0, 12, (SIZE, SIZE))
    return noisy.clip(0, 255).astype(np.uint8)


def write(path: Path, chosen: dict[str, list[Path]], counts: dict[str, int], seed: int) -> None:
    """Write a problem with so many samples a family in each part."""
    rng, content = np.random.default_rng(seed), {"classes": np.array(list(chosen))}
    for part, count in counts.items():
        content[f"{part}_images"] = np.stack(
            [pair_of_letters(files, rng) for files in chosen.values() for _ in range(count)]
        )
        content[f"{part}_target"] = np.repeat(np.arange(len(chosen)), count)
    np.savez_compressed(path, **content)


packages = sorted(Path(sys.argv[1]).iterdir())
order = np.random.default_rng(0).permutation(len(packages))
for half, (name, counts) in enumerate(PARTS.items()):
    rng, chosen = np.random.default_rng(half), {}
    for place in order[half::2]:
        members = families(packages[place])
        names = sorted(members.keys() - chosen)
        for number in rng.permutation(len(names))[:A_PACKAGE]:
            chosen[names[number]] = members[names[number]]
    names = [list(chosen)[number] for number in rng.permutation(len(chosen))[:FAMILIES]]
    write(Path(sys.argv[2], f"{name}.npz"), {one: chosen[one] for one in names}, counts, half)
