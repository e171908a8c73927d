"""The format of `.safetensors` files, read with JSON and NumPy alone.

From huggingface/safetensors: eight bytes, the length of the header; the header, JSON:
{name: {"dtype", "shape", "data_offsets": [begin, end]}}; behind it the raw numbers,
little-endian, at those offsets.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mobilenets.errors import UsageError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
LONGEST_HEADER = 100_000_000  # bytes, as the format's own reader has it


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file by their names.

    Raises:
        UsageError: it is cut off, or not of this format.
    """
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    data = content[8 + length :]
    if len(content) < 8 or length > min(LONGEST_HEADER, len(content) - 8):
        raise UsageError("it is no safetensors file, or cut off")
    header = json.loads(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise UsageError("its header is no mapping")
    return {
        name: _tensor(name, entry, data)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _tensor(name: str, entry: Mapping[str, Any], data: bytes) -> np.ndarray:
    kind, shape = entry["dtype"], entry["shape"]
    begin, end = entry["data_offsets"]
    if kind not in DTYPES:
        raise UsageError(f"{name} is of {kind}; {', '.join(DTYPES)} are read")
    if not all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end)):
        raise UsageError(f"the place of {name} is no whole numbers")
    size = math.prod(shape) * np.dtype(DTYPES[kind]).itemsize
    if end - begin != size or end > len(data):
        raise UsageError(f"{name} is not where its header says; the file is cut off")
    value = np.frombuffer(data[begin:end], DTYPES[kind]).reshape(shape)
    if kind == "BF16":  # the upper half of a float32
        value = (value.astype("<u4") << 16).view("<f4")
    return value
