"""Tells data sets apart by what is in them: the same images are the same data wherever they lie."""

from __future__ import annotations

from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import torch

from fedlas._core.check import InputError
from fedlas.lab.data import Images, Source, Splits
from fedlas.lab.data.base import Part
from fedlas.lab.runs.folder import RunFolder


def source_fingerprint(source: Source) -> dict[str, Any]:
    """Size, shape and SHA-256 of the training and the test part; plain values for ``data.json``.

    Example:
        >>> from fedlas.lab.data import load_dataset
        >>> small = {"num_train": 300, "num_test": 10}
        >>> found = source_fingerprint(load_dataset("synthetic", **small))
        >>> found["train"]["samples"], found == source_fingerprint(load_dataset("synthetic", **small))
        (300, True)
    """
    return {name: _part(part) for name, part in (("train", source.train), ("test", source.test))}


def outputs_fingerprint(folder: Path, part: Part) -> dict[str, Any]:
    """What outputs of a run's model on some images were made of: the images (not their labels), and its weights.

    Raises:
        InputError: If the checkpoint cannot be read.
    """
    path = RunFolder(folder).checkpoint_path
    try:
        with path.open("rb") as file:
            weights = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError("run", "its checkpoint must be readable", f"{path} ({error})", "Train it again.") from error
    unlabeled = part.with_target(torch.zeros_like(part.target))
    return {"images": _part(unlabeled), "weights": weights}


def split_fingerprint(splits: Splits) -> str:
    """SHA-256 of which images a seed put into which part."""
    digest = sha256()
    for name in ("train", "val", "test"):
        indices = splits.indices[name]
        digest.update(f"{name} {len(indices)} ".encode())
        digest.update(indices.tobytes())
    if splits.clean_target is not None:
        digest.update(splits.train.target.cpu().numpy().tobytes())
    return digest.hexdigest()


def _part(part: Part) -> dict[str, Any]:
    digest = sha256()
    if not isinstance(part, Images):  # reading ImageNet would take an hour: names and sizes instead
        for array in (part.names, part.sizes(), part.target.cpu().numpy()):
            digest.update(array.tobytes())
        return {
            "samples": len(part),
            "shape": list(part.shape),
            "sha256 of names, sizes, labels": digest.hexdigest(),
        }
    for tensor in (part.images, part.target, part.label_probs):
        if tensor is not None:
            digest.update(tensor.cpu().contiguous().numpy().data)
    return {"samples": len(part), "shape": list(part.images.shape[1:]), "sha256": digest.hexdigest()}
