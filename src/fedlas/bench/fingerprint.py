"""Tells data sets apart by what is in them: the same images are the same data wherever they lie."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from fedlas.data import Images, Source, Splits


def source_fingerprint(source: Source) -> dict[str, Any]:
    """Size, shape and SHA-256 of the training and the test part; plain values for ``data.json``.

    Example:
        >>> from fedlas.data import load_dataset
        >>> small = {"num_train": 300, "num_test": 10}
        >>> found = source_fingerprint(load_dataset("synthetic", **small))
        >>> found["train"]["samples"], found == source_fingerprint(load_dataset("synthetic", **small))
        (300, True)
    """
    return {name: _part(part) for name, part in (("train", source.train), ("test", source.test))}


def split_fingerprint(splits: Splits) -> str:
    """SHA-256 of which images a seed put into which part."""
    digest = sha256()
    for name in ("train", "val", "test"):
        indices = splits.indices[name]
        digest.update(f"{name} {len(indices)} ".encode())
        digest.update(indices.tobytes())
    return digest.hexdigest()


def _part(part: Images) -> dict[str, Any]:
    digest = sha256()
    for tensor in (part.images, part.target, part.label_probs):
        if tensor is not None:
            digest.update(tensor.cpu().contiguous().numpy().data)
    return {"samples": len(part), "shape": list(part.images.shape[1:]), "sha256": digest.hexdigest()}
