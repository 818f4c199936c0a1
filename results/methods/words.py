"""The data of words.yaml: of which of ten languages is a word? ``python words.py words.npz``.

The words are those of Debian's packages wamerican, wdanish, wdutch, wfrench, wngerman, witalian, wpolish, wportuguese,
wspanish and wswedish: 2,500 a language, of 4 to 12 letters in lower case, without accents. A word that several
languages share may come from each of them. A word is an image of 18 x 18: one of 27 signs in each of 12 places.
"""

import sys
import unicodedata
from pathlib import Path
from string import ascii_lowercase

import numpy as np

LANGUAGES = (
    "american-english", "danish", "dutch", "french", "ngerman", "italian", "polish", "portuguese", "spanish", "swedish",
)  # fmt: skip
EACH, TEST = 2500, 10_000
PLACES, SIGNS = 12, ascii_lowercase + " "


def words(language: str) -> list[str]:
    """The words of a language that are a to z in lower case once accents are off: no German nouns."""
    encoding = "latin-1" if language == "swedish" else "utf-8"
    lines = Path("/usr/share/dict", language).read_text(encoding=encoding).splitlines()
    plain = {
        "".join(
            sign for sign in unicodedata.normalize("NFKD", line) if not unicodedata.combining(sign)
        )
        for line in lines
    }
    return sorted(
        word for word in plain if 4 <= len(word) <= PLACES and set(word) <= set(ascii_lowercase)
    )


def image(word: str) -> np.ndarray:
    """One of 27 signs in each of 12 places, uint8 (18, 18)."""
    places = np.zeros((PLACES, len(SIGNS)), dtype=np.uint8)
    places[range(PLACES), [SIGNS.index(sign) for sign in word.ljust(PLACES)]] = 255
    return places.reshape(18, 18)


rng = np.random.default_rng(0)
drawn = [
    (word, label)
    for label, language in enumerate(LANGUAGES)
    for word in rng.choice(words(language), EACH, replace=False)
]
order = rng.permutation(len(drawn))
images = np.stack([image(drawn[place][0]) for place in order])
target = np.array([drawn[place][1] for place in order])
np.savez_compressed(
    sys.argv[1],
    train_images=images[TEST:],
    train_target=target[TEST:],
    test_images=images[:TEST],
    test_target=target[:TEST],
    classes=np.array(LANGUAGES),
)
