"""Data of a run: the data set of its recipe, split by its seed, and the fingerprints that identify it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedlas._core.check import InputError
from fedlas._core.files import require_no_device
from fedlas._core.pixels import is_valid_normalization
from fedlas._core.streams import derive_seed
from fedlas.lab.data import DATASETS, Images, Source, Splits, load_dataset, split
from fedlas.lab.data.base import Part
from fedlas.lab.data.disk import data_folder
from fedlas.lab.data.files import DatasetItems
from fedlas.lab.data.shift.variants import (
    OpenSet,
    add_label_noise,
    corrupt_part,
    make_long_tailed,
    make_open_set,
)
from fedlas.lab.data.splits import small_validation_warning
from fedlas.lab.models.weights import weights_digest
from fedlas.lab.recipes.planning import Run
from fedlas.lab.runs.folder import RunFolder
from fedlas.lab.train.log import warn_once

HELD_OUT = "held-out"
"""Label of the images of held-out classes, in place of the name of an OOD data set."""


def prepare_data(run: Run) -> Splits:
    """Return the train, validation and test parts of a run's data, split by its seed or ``data.split_seed``."""
    data = run.recipe.data
    seed = run.seed if data.split_seed is None else data.split_seed
    splits = split(
        load_source(run),
        seed=derive_seed(seed, "split"),
        val_size=data.val_size,
        train_size=data.train_size,
        test_size=data.test_size,
    )
    # Each may have a seed of its own, so that one can change while the others stay.
    if data.long_tail is not None:
        tail = seed if data.long_tail_seed is None else data.long_tail_seed
        splits = make_long_tailed(splits, data.long_tail, seed=derive_seed(tail, "long tail"))
    if data.label_noise is not None:
        noise = seed if data.label_noise.seed is None else data.label_noise.seed
        splits = add_label_noise(splits, data.label_noise, seed=derive_seed(noise, "label noise"))
    if data.corruption is not None:
        splits = replace(splits, test=corrupt_part(splits.test, data.corruption))
    return replace(splits, workers=data.workers)


def warn_if_validation_small(samples: int) -> None:
    """Warn if the validation part is too small, once per size and process."""
    if warning := small_validation_warning(samples):
        warn_once(warning)


def data_root(run: Run) -> Path | None:
    """Return the absolute path of a run's data, or None if it reads no files or searches for them."""
    if run.recipe.objects is not None or "files" not in DATASETS[run.recipe.data.name].metadata:
        return None
    place = data_folder(run.recipe.data.root)
    return None if place is None else place.absolute()


def load_source(run: Run) -> Source:
    """Return the data set of a run before it is split."""
    if run.recipe.objects is not None:
        passed: Source = run.recipe.objects.source
        return passed
    if run.recipe.data.options.get("python"):
        raise InputError(
            "the data of the run must be passed again, because it was trained on Python objects",
            run.folder,
            "Rerun the program that trained it.",
        )
    source = _load_open_set(*_source_arguments(run))
    return source.known if isinstance(source, OpenSet) else source


def data_fingerprint(run: Run) -> dict[str, Any]:
    """Return the fingerprint of a run's data set, which does not depend on the seed."""
    return source_fingerprint(load_source(run))


def held_out_parts(run: Run, splits: Splits) -> tuple[tuple[Splits, Part], tuple[Splits, Part]]:
    """Return the validation and the test part, each with the splits that hold its normalization.

    Every prediction on held-out data must use these splits, because the test part may be normalized differently, see
    :func:`with_test_normalization`.
    """
    return (splits, splits.val), (with_test_normalization(run, splits), splits.test)


def with_test_normalization(run: Run, splits: Splits) -> Splits:
    """Return the splits with the recipe's normalization for the test part, or unchanged if it has none.

    Raises:
        InputError: If the normalization does not fit the images.
    """
    mean = run.recipe.data.test_mean
    std = run.recipe.data.test_std
    if mean is None or std is None:
        return splits
    if not is_valid_normalization(mean, std, splits.in_channels):
        raise InputError(
            f"test_mean and test_std must each hold {splits.in_channels} finite numbers, std above 0",
            f"{mean} and {std}",
            "Give one per channel.",
        )
    return replace(splits, mean=tuple(mean), std=tuple(std))


@lru_cache(maxsize=1)
def _load_open_set(name: str, root: str | None, options: str, held_out: str) -> OpenSet | Source:
    """Return a data set without its held-out classes, cached because reading can take longer than an epoch."""
    source = load_dataset(name, root, **json.loads(options))
    classes = json.loads(held_out)
    return make_open_set(source, classes) if classes else source


def held_out_class_images(run: Run) -> Part:
    """Return the test images of the classes that the run holds out.

    Raises:
        InputError: If the run holds out no classes.
    """
    source = _load_open_set(*_source_arguments(run))
    if isinstance(source, OpenSet):
        return source.unknown
    raise InputError(
        "the run must hold out classes",
        run.name,
        "Train one with --set data.hold_out_classes=[...].",
    )


def run_fingerprint(run: Run, splits: Splits) -> dict[str, Any]:
    """Return the fingerprints of data set, split and initial weights, which must match when a run resumes."""
    weights = run.recipe.model.weights
    start = {} if weights is None else {"weights": weights_digest(weights)}
    return {**data_fingerprint(run), "split": split_fingerprint(splits), **start}


def _source_arguments(run: Run) -> tuple[str, str | None, str, str]:
    data = run.recipe.data
    return (
        data.name,
        data.root,
        json.dumps(data.options, sort_keys=True),
        json.dumps(data.hold_out_classes),
    )


@lru_cache(maxsize=1)
def source_fingerprint(source: Source) -> dict[str, Any]:
    """Return the size, shape and SHA-256 of each part of a data set, as plain values for ``data.json``.

    Example:
        >>> from fedlas.lab.data import load_dataset
        >>> small = {"num_train": 300, "num_test": 10}
        >>> first = source_fingerprint(load_dataset("synthetic", **small))
        >>> first["train"]["samples"], first == source_fingerprint(load_dataset("synthetic", **small))
        (300, True)
    """
    return {name: _part_fingerprint(part) for name, part in source.parts.items()}


def outputs_fingerprint(folder: Path, part: Part) -> dict[str, Any]:
    """Return the fingerprints of the images and the checkpoint that model outputs were computed from.

    Raises:
        InputError: If the checkpoint cannot be read.
    """
    path = RunFolder(folder).checkpoint_path
    try:
        with require_no_device(path).open("rb") as file:
            weights = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            "the checkpoint of the run must be readable", f"{path} ({error})", "Train it again."
        ) from error
    unlabeled = part.with_target(torch.zeros_like(part.target))
    return {"images": _part_fingerprint(unlabeled), "weights": weights}


def split_fingerprint(splits: Splits) -> str:
    """Return the SHA-256 of the sample indices of all parts, and of the training labels if they have noise."""
    digest = sha256()
    for name in ("train", "val", "test"):
        indices = splits.indices[name]
        digest.update(f"{name} {len(indices)} ".encode())
        digest.update(indices.tobytes())
    if splits.clean_target is not None:
        digest.update(splits.train.target.cpu().numpy().tobytes())
    return digest.hexdigest()


def _part_fingerprint(part: Part) -> dict[str, Any]:
    target = part.target.cpu().numpy()
    if isinstance(
        part, DatasetItems
    ):  # a Dataset may augment its inputs, so only labels are the same
        key = "sha256 of labels"
        arrays = [target]
    elif isinstance(part, Images):
        key = "sha256"
        probs = [] if part.label_probs is None else [part.label_probs.cpu().numpy()]
        arrays = [part.images.cpu().numpy(), target, *probs]
    else:  # reading ImageNet would take an hour: names and sizes instead
        key = "sha256 of names, sizes, labels"
        arrays = [part.names, part.sizes(), target]
    digest = sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return {"samples": len(part), "shape": list(part.shape), key: digest.hexdigest()}
