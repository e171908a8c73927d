"""Batch normalisation as slim computes it, on plain Keras layers.

Keras 3 computes batch norm from elementary operations; TensorFlow's fused kernel is
two to three times faster, and it feeds the *unbiased* batch variance into the moving
variance, as slim's did.

`make_call` gives what a layer of a bound model calls instead of its own `call` (see
step.py). Other frameworks exchange the layers of a network for synchronised ones;
`compile` gives back the model that it got, whose graph holds its layers for good, so
here a layer keeps its class, configuration and file format, and only computes
otherwise while a recipe trains it. There are three ways: the kernel alone; the kernel
with statistics that are put together from several parts; and plain operations in
float64, which the kernel does not know.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from keras_mobilenets.training.outputs import all_layers

KERNEL_DTYPES = ("float16", "bfloat16", "float32")  # of FusedBatchNormV3
PIXELS_A_ROW = 16  # times any number of channels fills vectors of 16

BatchNorm: TypeAlias = keras.layers.BatchNormalization


def batch_norms(model: keras.Model) -> list[BatchNorm]:
    """The batch-norm layers of a model, and of the models in it."""
    return [
        layer
        for layer in all_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def make_call(layer: BatchNorm, synchronized: bool) -> Callable[..., tf.Tensor]:
    """What `layer` computes under a recipe, in the place of `layer.call`.

    `synchronized`: batch statistics are those of all replicas, not of each.
    """
    fusable = (
        layer.scale
        and layer.center
        and not layer.renorm
        and layer.input_spec is not None
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
    )
    of_keras = functools.partial(
        _call_of_keras, layer, synchronized, layer.synchronized
    )
    return functools.partial(_normalize, layer, synchronized) if fusable else of_keras


def _call_of_keras(
    layer: BatchNorm, synchronized: bool, kept: bool, *args: Any, **kwargs: Any
) -> tf.Tensor:
    """For layers that the kernel does not fit."""
    # Only meanwhile: a file that says so is refused by Keras on JAX and PyTorch.
    layer.synchronized = synchronized
    try:
        return type(layer).call(layer, *args, **kwargs)
    finally:  # not what it was at the start: replicas are threads that take turns
        layer.synchronized = kept


def _normalize(
    layer: BatchNorm,
    synchronized: bool,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: Any = None,  # of sequences, not of images
) -> tf.Tensor:
    training = bool(training) and layer.trainable
    together = training and synchronized and _replicas() > 1
    if keras.backend.standardize_dtype(inputs.dtype) not in KERNEL_DTYPES:
        return _elementary(layer, inputs, training, together)
    wide = _pixels_a_row(inputs.shape) if training else 1
    if together or wide > 1:
        return _kernel_in_parts(layer, inputs, wide, together)
    return _kernel_alone(layer, inputs, training)


def _pixels_a_row(shape: tf.TensorShape) -> int:
    """How many pixels to take for one, so that channels fill the CPU's vectors.

    The kernel is slow there where channels are no multiple of four. Seen as rows of
    pixels, which needs no copy, they are.
    """
    _, height, width, channels = shape
    if channels % 4 == 0 or tf.config.list_physical_devices("GPU"):
        return 1
    return math.gcd((height or 1) * (width or 1), PIXELS_A_ROW)


def _kernel_alone(layer: BatchNorm, x: tf.Tensor, training: bool) -> tf.Tensor:
    # The kernel moves the statistics it is given, the variance by the unbiased one.
    outputs = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=tf.convert_to_tensor(layer.gamma),
        offset=tf.convert_to_tensor(layer.beta),
        mean=tf.convert_to_tensor(layer.moving_mean),
        variance=tf.convert_to_tensor(layer.moving_variance),
        epsilon=layer.epsilon,
        exponential_avg_factor=1.0 - layer.momentum,
        is_training=training,
    )
    if training:
        layer.moving_mean.assign(outputs.batch_mean)
        layer.moving_variance.assign(outputs.batch_variance)
    return outputs.y


def _kernel_in_parts(
    layer: BatchNorm, x: tf.Tensor, wide: int, together: bool
) -> tf.Tensor:
    """The kernel, with one set of statistics from those of several parts.

    Parts are the batches of all replicas (`together`), and the `wide` pixels of a
    row. Elementary operations would move the map through memory more often.
    """
    gamma, beta = (tf.convert_to_tensor(v) for v in (layer.gamma, layer.beta))
    channels, none = x.shape[-1], tf.zeros([0], gamma.dtype)
    kernel = functools.partial(tf.raw_ops.FusedBatchNormV3, epsilon=layer.epsilon)
    shape, static = tf.shape(x), x.shape

    def spread(per_channel: tf.Tensor) -> tf.Tensor:
        return tf.tile(per_channel, [wide])

    def parts(per_column: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.reshape(per_column, [wide, channels]), tf.float64)

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        if wide > 1:
            x = tf.reshape(x, [-1, 1, 1, wide * channels])
        ones = spread(tf.ones_like(gamma))
        own = kernel(
            x=x, scale=ones, offset=ones, mean=none, variance=none, is_training=True
        )
        # The kernel's variance is the unbiased one.
        size = tf.cast(tf.size(x[..., 0]), tf.float64)
        biased = parts(own.batch_variance) * (size - 1) / size
        moments = _pool(parts(own.batch_mean), biased, size, together)
        mean, variance, count = (tf.cast(m, gamma.dtype) for m in moments)
        y = kernel(
            x=x,
            scale=spread(gamma),
            offset=spread(beta),
            mean=spread(mean),
            variance=spread(variance),
            is_training=False,
        ).y

        def gradient(dy: tf.Tensor, *_: Any) -> tuple[tf.Tensor, ...]:
            # As if the statistics were constants; then what flows through them. In
            # float32, and rounded once: half precision would lose the difference.
            dy, wide_x = (tf.cast(t, gamma.dtype) for t in (dy, x))
            straight = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=tf.reshape(dy, tf.shape(x)),
                x=wide_x,
                scale=spread(gamma),
                reserve_space_1=spread(mean),
                reserve_space_2=spread(variance),
                reserve_space_3=none,
                epsilon=layer.epsilon,
                is_training=False,
            )
            own = [
                tf.reduce_sum(parts(d), axis=0)
                for d in (straight.scale_backprop, straight.offset_backprop)
            ]
            sums = _over_replicas(own) if together else own
            by_gamma, by_beta = (tf.cast(d, gamma.dtype) / count for d in sums)
            inverse = tf.math.rsqrt(variance + layer.epsilon)
            slope = -gamma * tf.square(inverse) * by_gamma
            shift = -gamma * inverse * by_beta - slope * mean
            dx = straight.x_backprop + (spread(slope) * wide_x + spread(shift))
            dx = tf.reshape(tf.cast(dx, x.dtype), shape)
            return dx, *(tf.cast(d, gamma.dtype) for d in own)

        return (tf.reshape(y, shape), mean, variance, count), gradient

    y, mean, variance, count = normalize(x, gamma, beta)
    _move_statistics(layer, mean, variance, count)
    return tf.ensure_shape(y, static)


def _elementary(
    layer: BatchNorm, x: tf.Tensor, training: bool, together: bool
) -> tf.Tensor:
    mean, variance = layer.moving_mean, layer.moving_variance
    if training:
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        size = tf.cast(tf.size(x[..., 0]), x.dtype)
        mean, variance, count = _pool(mean[None], variance[None], size, together)
        _move_statistics(layer, mean, variance, count)
    mean, variance, beta, gamma = (
        tf.cast(value, x.dtype) for value in (mean, variance, layer.beta, layer.gamma)
    )
    return tf.nn.batch_normalization(x, mean, variance, beta, gamma, layer.epsilon)


def _over_replicas(sums: list[tf.Tensor]) -> list[tf.Tensor]:
    return tf.distribute.get_replica_context().all_reduce("sum", sums)


def _pool(
    means: tf.Tensor, variances: tf.Tensor, size: tf.Tensor, together: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean, biased variance and count of parts [parts, channels] of `size` each.

    In float64, where the difference of two large squares does no harm.
    """
    count = size * tf.cast(tf.shape(means)[0], size.dtype)
    total = size * tf.reduce_sum(means, axis=0)
    squares = size * tf.reduce_sum(variances + tf.square(means), axis=0)
    if together:
        count, total, squares = _over_replicas([count, total, squares])
    mean = total / count
    return mean, tf.maximum(squares / count - tf.square(mean), 0), count


def _move_statistics(
    layer: BatchNorm, mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor
) -> None:
    """average -= (average - value) * (1 - momentum), as slim; unbiased variance."""
    unbiased = variance * count / tf.maximum(count - 1, 1)
    for average, value in (
        (layer.moving_mean, mean),
        (layer.moving_variance, unbiased),
    ):
        old = tf.convert_to_tensor(average)
        average.assign(old - (old - tf.cast(value, old.dtype)) * (1 - layer.momentum))


def average_statistics(layers: list[BatchNorm]) -> None:
    """Within a replica: the moving statistics become the mean of all replicas'.

    In one message. Replicas that keep statistics of their own batches stay copies of
    each other so.
    """
    moving = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    if not moving:
        return
    flat = tf.concat([tf.convert_to_tensor(v) for v in moving], axis=0)
    mean = tf.distribute.get_replica_context().all_reduce("mean", flat)
    parts = tf.split(mean, [v.shape[0] for v in moving])
    for statistic, part in zip(moving, parts, strict=True):
        statistic.assign(part)


def warn_if_short(momentum: float, steps: int) -> None:
    """Warn where moving statistics cannot settle within a run of `steps`."""
    needed = 3 / (1 - momentum)  # by then 5 % of the initial values are left
    if steps < needed:
        warnings.warn(
            f"batch_norm_momentum={momentum:g} needs about {needed:.0f} steps to "
            f"forget its initial values, and this run has {steps}: inference will be "
            f"worse than training. Lower it (the quick recipe has 0.9) or call "
            "keras_mobilenets.recalibrate(model, dataset) after training.",
            stacklevel=3,
        )
