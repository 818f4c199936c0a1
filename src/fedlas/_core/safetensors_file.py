"""The safetensors format: tensors by name and a few lines of text, and nothing that could run.

It is written and read here because the core needs it without the package of that name: eight bytes with the length of
a JSON header, the header, then the tensors one after the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fedlas._core.files import parse_json

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_METADATA = "__metadata__"
_MOST_HEADER = 100_000_000  # as in the package


def to_safetensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a file.

    Raises:
        ValueError: For a tensor that the format has no dtype for.
    """
    header: dict[str, Any] = {_METADATA: dict(metadata)}
    parts, end = [], 0
    for name, value in tensors.items():
        if value.dtype not in _NAMES:
            raise ValueError(f"{name} has dtype {value.dtype}")
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        span = [end, end := end + len(data)]
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": span}
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors lie where memory wants them
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def from_safetensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file, on the CPU.

    Raises:
        ValueError: If it is no such file, or is damaged.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, _MOST_HEADER):
        raise ValueError("it does not begin with the length of a header")
    header = parse_json(content[8 : 8 + size].decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is no mapping")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no text")
    data = bytearray(memoryview(content)[8 + size :])  # writable, as tensors are
    return {name: _tensor(name, entry, data) for name, entry in header.items()}, metadata


def _tensor(name: str, entry: Any, data: bytearray) -> Tensor:
    try:
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"the entry of {name} is none of the format") from error
    if not whole or end > len(data) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the bytes of {name} are not those of a tensor {shape}")
    try:
        if end == start:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=start).reshape(shape)
    except (OverflowError, RuntimeError, TypeError) as error:  # [0, 10**30] has no bytes, and no tensor is so large
        raise ValueError(f"the shape of {name} is one that no tensor has") from error
