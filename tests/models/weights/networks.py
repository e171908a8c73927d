"""Networks with weights under which a wrong one gives visibly wrong logits."""

import keras
import numpy as np


def value(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    if kind == "kernel":
        depthwise = len(shape) == 4 and shape[-1] == 1
        fan_in = 9 if depthwise else np.prod(shape[:-1])
        return rng.normal(0, np.sqrt(2 / fan_in), shape).astype("float32")
    return rng.normal(0, 0.2, shape).astype("float32")


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(value(variable.name, tuple(variable.shape), rng))
    return model


def images(resolution: int, count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(1)
    shape = (count, resolution, resolution, 3)
    return rng.uniform(-1, 1, shape).astype("float32")


def outputs(model: keras.Model) -> np.ndarray:
    return np.array(model(images(model.input_shape[1]), training=False))


def assert_same_outputs(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Within 1e-5 of the largest; and they do depend on the image."""
    assert theirs.std(axis=0).mean() > 1e-3
    assert np.abs(ours - theirs).max() < 1e-5 * max(1, np.abs(theirs).max())
