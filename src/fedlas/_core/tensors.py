"""Files of ``torch.save``, read without trust: no code runs, and a small file cannot become a large one."""

from __future__ import annotations

import mmap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["load_tensors"]


def load_tensors(path: Path) -> Any:
    """The content of a file of ``torch.save``, on the CPU: tensors and plain values.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, holds anything else, or would grow: ``torch.save`` compresses nothing.
    """
    try:
        _check_growth(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about foreign files, which the error explains
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the readers of archive and pickle raise anything for bytes that are neither
        reason = (str(error).split("\n")[0] or "it is damaged")[:120]
        raise ValueError(reason if type(error) is ValueError else f"{type(error).__name__}: {reason}") from error


def _check_growth(path: Path) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        # Of all that torch lets a pickle call, only this takes memory of any size. State dicts have none.
        if content.find(b"bytearray") >= 0:
            raise ValueError("it holds a bytearray")
        if content[:2] != b"PK":
            return
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("a part of it is compressed")
