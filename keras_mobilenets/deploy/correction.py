"""Kernels rounded to 8 bits, and biases that make up for what rounding shifts.

Rounding a kernel moves the mean of each channel it makes; of a depthwise kernel, nine
numbers a channel, by much. The mean that is missing, over images for calibration, is
added to the bias, layer by layer, each seeing what the corrected and quantised layers
before it give (Nagel et al. 2019, arXiv:1906.04721, section 4.2, with data).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

INT8 = 127  # largest stored number of a kernel, which is symmetric about zero
BITS_8 = 255  # steps of a quantised activation
ACTIVATIONS = 2**28  # bytes of one layer's, while biases are corrected
RELUS = (keras.activations.relu, keras.activations.relu6)
ROUNDED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def round_kernel(layer: keras.layers.Layer, kernel: Any = None) -> tf.Tensor:
    """The kernel of a layer as LiteRT's 8 bits hold it: a scale for each channel.

    Or another `kernel` that it could have.

    >>> np.unique(round_kernel(layer)[..., 0]).size <= 255
    True
    """
    kernel = tf.cast(layer.kernel if kernel is None else kernel, tf.float64)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    axes = list(range(len(kernel.shape) - (2 if depthwise else 1)))
    largest = tf.reduce_max(tf.abs(kernel), axis=axes, keepdims=True)
    scale = tf.where(largest > 0, largest, 1) / INT8
    return tf.cast(tf.round(kernel / scale) * scale, tf.float32)


def corrected(network: keras.Model, images: np.ndarray, bits: int = 8) -> keras.Model:
    """A copy of a folded network with rounded kernels and the biases that go with them.

    By as many of the images as there is room for.
    """
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    largest = max(4 * int(np.prod(layer.output.shape[1:])) for layer in copy.layers)
    count = max(1, min(len(images), ACTIVATIONS // largest))
    some = np.linspace(0, len(images) - 1, count).round().astype(int)
    correct(copy, images[some], bits)
    return copy


def correct(network: keras.Model, images: np.ndarray, bits: int = 8) -> None:
    """Round all kernels of a folded network, and correct its biases.

    `images`, float32 [n, height, width, channels], go through it twice at once: as it
    was, and as it will be. With `bits` of 16 activations are not rounded.

    >>> correct(fuse(model), images)
    """
    nodes = in_order(network)
    uses = Counter(id(t) for node in nodes for t in node.input_tensors)
    uses.update(id(t) for t in network.outputs)
    x = tf.constant(images)
    given = id(network.inputs[0])
    exact, rounded = {given: x}, {given: _quantized(x, x, bits)}
    for node in nodes:
        layer = node.operation
        y = _called(node, exact)
        if isinstance(layer, ROUNDED):
            layer.kernel.assign(round_kernel(layer))
        z = _called(node, rounded)
        if isinstance(layer, ROUNDED) and layer.use_bias:
            missing = tf.reduce_mean(y - z, axis=list(range(len(y.shape) - 1)))
            layer.bias.assign_add(missing)
            z += missing
        (output,) = node.output_tensors
        exact[id(output)] = y
        rounded[id(output)] = z if is_fused(node) else _quantized(z, y, bits)
        for tensor in node.input_tensors:  # what is read no more makes room
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                del exact[id(tensor)], rounded[id(tensor)]


def _called(node: Any, values: dict[int, tf.Tensor]) -> tf.Tensor:
    """The output of a call of a layer, for these values of its inputs."""
    arguments, options = node.arguments.fill_in(values)
    return node.operation(*arguments, **options)


def in_order(network: keras.Model) -> list[Any]:
    """The calls of layers, each after those that it depends on."""
    depths = sorted(network._nodes_by_depth.items(), reverse=True)
    return [node for _, nodes in depths for node in nodes if not node.is_input]


def is_fused(node: Any) -> bool:
    """Whether LiteRT never rounds this output: the ReLU behind is the same step."""
    following = node.operation._outbound_nodes
    return len(following) == 1 and is_relu(following[0].operation)


def is_relu(operation: Any) -> bool:
    """Whether this is a ReLU, in either way that Keras has."""
    if isinstance(operation, keras.layers.Activation):
        return operation.activation in RELUS
    return isinstance(operation, keras.layers.ReLU)


def _quantized(z: tf.Tensor, like: tf.Tensor, bits: int) -> tf.Tensor:
    """`z` in as many steps as 8 bits have over the range of `like`."""
    if bits != 8:
        return z
    low = tf.minimum(tf.reduce_min(like), 0.0)
    high = tf.maximum(tf.reduce_max(like), 0.0)
    scale = tf.maximum((high - low) / BITS_8, 1e-12)
    low = tf.round(low / scale) * scale  # zero is a step
    steps = tf.clip_by_value(tf.round((z - low) / scale), 0, BITS_8)
    return steps * scale + low
