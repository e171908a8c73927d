"""The weights and images of tests/data/pytorch: functions of names and shapes."""

from __future__ import annotations

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "data" / "pytorch"


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values under which logits tell images apart, from the name alone."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(1000, "int64")
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype("float32")
    if name.endswith(("running_var", "weight")):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    return rng.normal(0, 0.2, shape).astype("float32")


def images(resolution: int) -> np.ndarray:
    """Four images, [4, height, width, 3]."""
    shape = (4, resolution, resolution, 3)
    return np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")


def load(case: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The state of a network and its logits."""
    stored = json.loads((FOLDER / f"{case}.json").read_text())
    state = {name: tensor(name, tuple(shape)) for name, shape in stored["state"]}
    return state, np.array(stored["logits"], "float32")


def save_safetensors(path: pathlib.Path, state: dict[str, np.ndarray]) -> None:
    kinds = {"float32": "F32", "int64": "I64"}
    header, content, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in state.items():
        data = value.tobytes()
        header[name] = {
            "dtype": kinds[str(value.dtype)],
            "shape": list(value.shape),
            "data_offsets": [end, end := end + len(data)],
        }
        content.append(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content))
