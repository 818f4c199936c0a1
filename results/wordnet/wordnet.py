"""Which of 45 topics does WordNet file a definition under? ``python wordnet.py wordnet.npz``.

The definitions are those of Debian's package wordnet-base: the text of a gloss before its first example. A definition
is an image of 48 x 48: its words, hashed to one of 2,304 places each.
"""

import re
import sys
import zlib
from pathlib import Path

import numpy as np

TRAIN, TEST, SIDE = 30_000, 10_000, 48


def definitions(part: str) -> dict[str, int]:
    """Topic (the number of WordNet's lexicographer file) of each definition in ``data.PART``."""
    lines = Path("/usr/share/wordnet", f"data.{part}").read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ") for line in lines if not line.startswith("  ")]
    return {gloss.split('; "')[0].strip(): int(fields.split()[1]) for fields, gloss in rows}


def image(text: str) -> np.ndarray:
    """255 in the place of each word, uint8 (48, 48)."""
    places = np.zeros(SIDE * SIDE, dtype=np.uint8)
    places[
        [zlib.crc32(word.encode()) % len(places) for word in re.findall(r"[a-z]+", text.lower())]
    ] = 255
    return places.reshape(SIDE, SIDE)


rng = np.random.default_rng(0)
samples = {
    text: topic
    for part in ("noun", "verb", "adj", "adv")
    for text, topic in definitions(part).items()
}
texts = list(samples)
order = rng.permutation(len(texts))[: TRAIN + TEST]
images = np.stack([image(texts[place]) for place in order])
topics, target = np.unique([samples[texts[place]] for place in order], return_inverse=True)
np.savez_compressed(
    sys.argv[1],
    train_images=images[TEST:],
    train_target=target[TEST:],
    test_images=images[:TEST],
    test_target=target[:TEST],
    classes=np.array([f"topic {topic}" for topic in topics]),
)
