"""``fedlas compare FILES --with FILES``: pairs the files of two methods by the seed in their names."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from fedlas._core.check import InputError, truncated_list
from fedlas.cli.arguments import parse_columns
from fedlas.predictions.tables.files import TableFile, add_folder_labels, local_table_files

if TYPE_CHECKING:
    from fedlas.predictions.any_predictions import PredictionTable

SeedNumbers = tuple[int, ...]
"""Numbers of a file's name that differ within its method."""


def read_seeds(args: argparse.Namespace) -> tuple[list[list[PredictionTable]], list[str]]:
    """Read the predictions of both methods, paired by seed; return them with the names of all files."""
    from fedlas.predictions import read_predictions

    columns = parse_columns(args)
    with local_table_files(args.names) as first, local_table_files(args.others) as second:
        # Files of one name are labeled by their folders, which may name the method, too.
        all_files = add_folder_labels([*first, *second])
        sides = (all_files[: len(first)], all_files[len(first) :])
        methods = [files_by_seed(side) for side in sides]
        _check_same_seeds(*methods)
        files = [by_seed[seed] for by_seed in methods for seed in sorted(methods[0])]
        tables: list[PredictionTable] = []
        for file in files:
            like = tables[0] if tables else None
            tables.append(read_predictions(str(file.path), columns, like=like))
    half = len(tables) // 2
    return [tables[:half], tables[half:]], [file.name for file in files]


def files_by_seed(files: Sequence[TableFile]) -> dict[SeedNumbers, TableFile]:
    """Return the files of a method by seed: the numbers in which the file names differ.

    Raises:
        InputError: For a single file, names that differ in more than numbers, or two files of one seed.

    Example:
        >>> from pathlib import Path
        >>> sorted(files_by_seed([TableFile(Path(f"cifar10-ls-s{seed}.npz")) for seed in (2, 11)]))
        [(2,), (11,)]
    """
    if len(files) < 2:
        raise InputError(
            "--with requires at least two files per method, one per seed",
            f"one file, {files[0].name}",
            "Name the files of all seeds; to compare two models, omit --with.",
        )
    if len({_mask_numbers(file.name) for file in files}) > 1:
        raise InputError(
            "file names of a method must differ only in numbers",
            truncated_list([file.name for file in files]),
            "Name one method before --with and the other after it: 'ls-*.npz' --with 'ce-*.npz'.",
        )
    places = _varying_number_indices([file.name for file in files])
    by_seed = {tuple(_numbers(file.name)[place] for place in places): file for file in files}
    if len(by_seed) < len(files):
        raise InputError(
            "each seed must have exactly one file",
            truncated_list([file.name for file in files]),
            "Name each file once.",
        )
    return by_seed


def common_pattern(names: Sequence[str]) -> str:
    """Return a pattern that matches all names, with ``*`` for the numbers that differ.

    Example:
        >>> common_pattern([f"cifar10-ls-s{seed}.npz" for seed in (2, 11)])
        'cifar10-ls-s*.npz'
    """
    places = iter(range(len(names[0])))
    varying = _varying_number_indices(names)
    return re.sub("[0-9]+", lambda found: "*" if next(places) in varying else found[0], names[0])


def methods_and_data(first: str, second: str) -> tuple[tuple[str, str], str]:
    """Return short names of two methods, and what their files have in common: usually the data.

    The words of a name that the other shares at the beginning are the data; numbers of seeds, endings and words that
    both share at the end are left out. Where nothing would remain, the names stay.

    Example:
        >>> methods_and_data("cifar10-ls-s*.npz", "cifar10-ce-s*.npz")
        (('ls', 'ce'), 'cifar10')
        >>> methods_and_data("ls/seed-*/test.npz", "ce/seed-*/test.npz")
        (('ls', 'ce'), '')
        >>> methods_and_data("new.csv", "old.csv")
        (('new', 'old'), '')
    """
    one, other = (re.split(r"[-_/\\. ]+", name) for name in (first, second))
    start, end = (
        sum(
            1
            for _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(one[::way], other[::way], strict=False)
            )
        )
        for way in (1, -1)
    )
    names = tuple(" ".join(words[start : len(words) - end]) for words in (one, other))
    data = " ".join(word for word in one[:start] if "*" not in word)
    if not all(names) or any("*" in name for name in names):
        return (first, second), ""
    return (names[0], names[1]), data


def _check_same_seeds(
    one: dict[SeedNumbers, TableFile], other: dict[SeedNumbers, TableFile]
) -> None:
    """Raise InputError if the methods have different seeds or share a file."""
    paths = [file.path.resolve() for files in (one, other) for file in files.values()]
    if len(set(paths)) < len(paths):
        twice = next(path.name for path in paths if paths.count(path) > 1)
        raise InputError(
            "the methods must not share a file",
            f"{twice} in both",
            "Name only the second method's files after --with.",
        )
    if one.keys() == other.keys():
        return
    sides = [
        f"{common_pattern([file.name for file in files.values()])} has "
        f"{truncated_list(['-'.join(map(str, seed)) for seed in sorted(files)])}"
        for files in (one, other)
    ]
    raise InputError(
        "both methods must have the same seeds (the numbers that vary in the file names)",
        " and ".join(sides),
        "Omit the seeds that one method lacks, or rename the files, as ls-0.npz and ce-0.npz.",
    )


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", name)]


def _mask_numbers(name: str) -> str:
    return re.sub("[0-9]+", "0", name)


def _varying_number_indices(names: Sequence[str]) -> list[int]:
    """Return the indices of the numbers in the names that are not equal in all names."""
    columns = zip(*map(_numbers, names), strict=True)
    return [place for place, column in enumerate(columns) if len(set(column)) > 1]
