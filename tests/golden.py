"""The weights and batches of the golden cases; see tests/data/golden/README.md."""

import pathlib

import keras
import numpy as np

FOLDER = pathlib.Path(__file__).parent / "data" / "golden"


def load(case: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"case_{case}.npz") as stored:
        return dict(stored)


def tensor(
    index: int, kind: str, shape: tuple[int, ...], inference: bool
) -> np.ndarray:
    rng = np.random.default_rng(1000 + index)
    if kind in ("kernel", "depthwise"):
        fan_in = 9 if kind == "depthwise" else np.prod(shape[:-1])
        value = rng.normal(0, np.sqrt(2 / fan_in), shape)
    elif kind == "gamma":
        value = rng.uniform(0.5, 1.5, shape)
    elif kind == "beta":
        value = rng.normal(0, 0.1, shape)
    elif kind == "moving_mean":
        value = rng.normal(0, 0.1, shape) if inference else np.zeros(shape)
    elif kind == "moving_variance":
        value = rng.uniform(0.5, 1.5, shape) if inference else np.ones(shape)
    else:
        value = np.zeros(shape)
    return value.astype("float32")


def set_weights(
    model: keras.Model, golden: dict[str, np.ndarray], inference: bool
) -> None:
    kinds = [str(kind) for kind in golden["kinds"]]
    assert len(kinds) == len(model.weights)
    model.set_weights(
        [
            tensor(index, kind, tuple(variable.shape), inference)
            for index, (kind, variable) in enumerate(
                zip(kinds, model.weights, strict=True)
            )
        ]
    )


def images(step: int, resolution: int) -> np.ndarray:
    rng = np.random.default_rng(10 + step)
    return rng.uniform(-1, 1, (8, resolution, resolution, 3)).astype("float32")


def labels(step: int, classes: int) -> np.ndarray:
    return np.random.default_rng(500 + step).integers(0, classes, 8)


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference relative to the largest golden value."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def norms(tensors: list) -> np.ndarray:
    return np.array([np.linalg.norm(np.asarray(t, "float64")) for t in tensors])
