"""WordNet's synsets, which name the classes of ImageNet and its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlas.lab.data.readers.unreadable import read_table


def synset_words(owner: str, path: Path, *, separator: str | None) -> dict[str, str]:
    """Synset to words, from lines ``n01440764<separator>tench, Tinca tinca``.

    Raises:
        InputError: If the file cannot be read or holds other lines.
    """
    return {row[0]: row[1] for row in read_table(owner, path, 2, separator=separator)}


def synset_names(synsets: Sequence[str], words: Mapping[str, str]) -> tuple[str, ...]:
    """A name for each synset: its first word, with the synset if two share it, or the synset alone without words.

    Example:
        >>> synset_names(["n1", "n2", "n3"], {"n1": "crane", "n2": "crane, hoist"})
        ('crane (n1)', 'crane (n2)', 'n3')
    """
    first = [words.get(synset, synset).split(",")[0].strip() for synset in synsets]
    return tuple(
        f"{name} ({synset})" if first.count(name) > 1 else name for synset, name in zip(synsets, first, strict=True)
    )
