"""A network in Keras that computes what its file in 8 bits will compute.

Wherever LiteRT rounds what goes from layer to layer there is a `FakeQuantize` (Jacob et
al. 2017, arXiv:1712.05877, section 3); kernels lie on the steps that a file has of them
already, so that all else are plain layers. The converter takes its ranges from these
layers, and needs no images.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.deploy.correction import in_order, is_fused, is_relu
from keras_mobilenets.errors import UsageError

BITS = 8
BATCH = 32  # images that go through at once
LEAST = 1e-6  # the width of a range: one of nothing has no steps

# Operations of Keras by the names of their classes: what has a range of its own in a
# file, and what moves numbers that are on steps already.
RANGED = {
    *("Conv2D", "DepthwiseConv2D", "Dense", "ReLU", "Activation", "Add"),
    "GlobalAveragePooling2D",
}
MOVING = {"ZeroPadding2D"}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class FakeQuantize(keras.layers.Layer):
    """Numbers between `low` and `high`, rounded to 256 steps, one of which is zero.

    Backwards, rounding does nothing: what lies within passes its gradient on, and what
    is cut off moves the end of the range that cut it.
    """

    def __init__(self, **options: Any):
        super().__init__(**{**options, "dtype": "float32"})

    def build(self, shape: Any) -> None:
        """Two variables, which keep zero between them."""
        self.low = self.add_weight(
            name="low",
            shape=(),
            initializer=keras.initializers.Constant(-1.0),
            constraint=lambda low: keras.ops.minimum(low, 0.0),
        )
        self.high = self.add_weight(
            name="high",
            shape=(),
            initializer=keras.initializers.Constant(1.0),
            constraint=lambda high: keras.ops.maximum(high, LEAST),
        )

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The same shape, rounded."""
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        rounded = tf.quantization.fake_quant_with_min_max_vars(
            inputs, low, high, num_bits=BITS
        )
        if not training:
            return rounded
        # Not the gradient of that operation, which a GPU has no deterministic one of.
        within = tf.clip_by_value(inputs, low, high)
        return within + tf.stop_gradient(rounded - within)

    def compute_output_shape(self, shape: Any) -> Any:
        """That of the input."""
        return shape


def is_fake_quantized(model: keras.Model) -> bool:
    """Whether a model was made by `fake_quantize`."""
    return any(isinstance(layer, FakeQuantize) for layer in model.layers)


def fake_quantize(network: keras.Model, images: np.ndarray) -> keras.Model:
    """A copy of a folded network, which rounds what goes from layer to layer.

    Ranges are those of `images` [n, height, width, channels]. Kernels stay as they are.

    Raises:
        UsageError: the network has a layer of which it is not known what LiteRT makes.
    """
    nodes = in_order(network)
    for node in nodes:
        _check_known(node.operation)
    calls: Counter[str] = Counter()
    places: list[tuple[FakeQuantize, Any]] = []
    copies: dict[int, Any] = {}

    def rounded(name: str, like: Any, tensor: Any) -> Any:
        calls[name] += 1
        again = f"_{calls[name]}" if calls[name] > 1 else ""
        layer = FakeQuantize(name=f"{name}_steps{again}")
        places.append((layer, like))
        return layer(tensor)

    (given,) = network.inputs
    image = keras.Input(given.shape[1:], name=given.name, dtype="float32")
    values = {id(given): rounded("image", given, image)}
    for node in nodes:
        operation, (output,) = node.operation, node.output_tensors
        if id(operation) not in copies:
            copies[id(operation)] = _copy(operation)
        arguments, options = node.arguments.fill_in(values)
        tensor = copies[id(operation)](*arguments, **options)
        if type(operation).__name__ in RANGED and not is_fused(node):
            tensor = rounded(operation.name, output, tensor)
        values[id(output)] = tensor
    for layer in network.layers:
        if id(layer) in copies:
            copies[id(layer)].set_weights(layer.get_weights())
    _measure_ranges(network, places, images)
    return keras.Model(image, values[id(network.outputs[0])], name=network.name)


def _check_known(operation: Any) -> None:
    kind = type(operation).__name__
    activation = getattr(operation, "activation", keras.activations.linear)
    if kind == "Activation" and not is_relu(operation):
        activation = None  # which is no operation in a file, or one of its own
    known = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)
    if kind in RANGED | MOVING and activation in known:
        return
    raise UsageError(
        f"model must be of {', '.join(sorted(RANGED | MOVING))}, with no activations "
        f"but relu and relu6, to be quantised while it is trained; its "
        f"{operation.name!r} is another {kind}: export it with calibration"
    )


def _copy(operation: Any) -> Any:
    if not isinstance(operation, keras.layers.Layer):
        return operation  # of keras.ops: no weights
    # Trainable, also where it was frozen: it has to be moved to the steps.
    return type(operation).from_config({**operation.get_config(), "trainable": True})


def _measure_ranges(
    network: keras.Model,
    places: list[tuple[FakeQuantize, Any]],
    images: np.ndarray,
) -> None:
    """Give each layer the range that the network has in its place."""
    inner = keras.Model(network.inputs[0], [tensor for _, tensor in places])

    @tf.function(autograph=False, reduce_retracing=True)
    def ends(some: tf.Tensor) -> tf.Tensor:
        outputs = inner(some, training=False)
        return tf.stack([[tf.reduce_min(y), tf.reduce_max(y)] for y in outputs])

    parts = range(0, len(images), BATCH)
    found = np.stack([ends(images[at : at + BATCH]).numpy() for at in parts])
    lows, highs = found[..., 0].min(axis=0), found[..., 1].max(axis=0)
    for (layer, _), low, high in zip(places, lows, highs, strict=True):
        layer.low.assign(min(low, 0.0))
        layer.high.assign(max(high, LEAST))
