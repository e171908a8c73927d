"""Networks whose batch norms all do something, and which stay well-conditioned."""

import keras
import numpy as np

import keras_mobilenets as km


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights and statistics that keep the size of what goes through, as training does.

    A kernel in front of a ReLU gets twice the variance (He et al. 2015); with that in
    linear ones too, float32 alone moves V2's logits by 1e-5 of the largest.
    """
    rng = np.random.default_rng(seed)
    names = {layer.name for layer in model.layers}
    for layer in model.layers:
        gain = 2 if f"{layer.name}_relu" in names else 0.5
        for variable in layer.weights:
            shape = tuple(variable.shape)
            if variable.name in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, shape)
            elif variable.name == "kernel":
                depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
                fan_in = 9 if depthwise else np.prod(shape[:-1])
                value = rng.normal(0, np.sqrt(gain / fan_in), shape)
            else:
                value = rng.normal(0, 0.1, shape)
            variable.assign(value.astype("float32"))
    return model


def images(model: keras.Model, count: int = 4, seed: int = 1) -> np.ndarray:
    """Noise in [-1, 1], of the shape that the model takes."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, *model.input_shape[1:])).astype("float32")


def outputs(model: keras.Model, x: np.ndarray) -> np.ndarray:
    return np.array(model(x, training=False), "float64")


def in_float64(model: keras.Model, name: str, **network) -> keras.Model:
    """The same network, of such arguments to `km.build`, as it is without rounding."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        exact = km.build(name, **network)
    finally:
        keras.config.set_dtype_policy(before)
    exact.set_weights(model.get_weights())
    return exact
