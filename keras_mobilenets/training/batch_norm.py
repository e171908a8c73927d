"""Batch normalisation as slim computes it, on plain Keras layers.

Keras 3 computes batch norm from elementary operations; TensorFlow's fused kernel
is two to three times faster, and it feeds the *unbiased* batch variance into the
moving variance, as slim's did. `use_fused` changes how the layers of a model
compute, not what they are: they stay `keras.layers.BatchNormalization` and save
and load as such.
"""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.errors import UsageError

FUSED_DTYPES = ("float16", "bfloat16", "float32")  # of FusedBatchNormV3
PIXELS_A_ROW = 16  # times any number of channels fills vectors of 16


def _batch_norms(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _move(average: keras.Variable, value: tf.Tensor, momentum: float) -> None:
    """average -= (average - value) * (1 - momentum), as slim's moving averages."""
    old = tf.convert_to_tensor(average)
    average.assign(old - (old - tf.cast(value, old.dtype)) * (1.0 - momentum))


def _move_statistics(
    layer: keras.layers.BatchNormalization,
    mean: tf.Tensor,
    variance: tf.Tensor,
    count: tf.Tensor,
) -> None:
    """Move the layer's statistics; `variance` is biased, and moves it unbiased."""
    unbiased = variance * count / tf.maximum(count - 1, 1)
    _move(layer.moving_mean, mean, layer.momentum)
    _move(layer.moving_variance, unbiased, layer.momentum)


@tf.function  # traced once a shape, not once a layer: a third off the first step
@tf.custom_gradient
def _normalize_batch(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], Any]:
    """x normalised by its own statistics, with its mean and biased variance.

    Seen as rows of up to sixteen pixels (which needs no copy), an odd number of
    channels fills the processor's vectors too.
    """
    _, height, width, channels = x.shape
    wide = math.gcd((height or 1) * (width or 1), PIXELS_A_ROW)
    shape = tf.shape(x)
    count = tf.cast(tf.reduce_prod(shape[:3]), x.dtype)
    rows = tf.reshape(x, [-1, wide * channels])

    ones = tf.ones([1, tf.shape(rows)[0]], x.dtype)

    def mean_of(t: tf.Tensor) -> tf.Tensor:
        by_column = tf.reshape(ones @ t, [wide, channels])  # quicker than reduce_sum
        return tf.reduce_sum(by_column, axis=0) / count

    def spread(per_channel: tf.Tensor) -> tf.Tensor:
        return tf.tile(per_channel, [wide])

    mean = mean_of(rows)
    wide_mean = spread(mean)
    centred = rows - wide_mean
    variance = mean_of(tf.square(centred))
    inverse = tf.math.rsqrt(variance + epsilon)
    scale = spread(inverse * gamma)
    y = centred * scale + spread(beta)

    def gradient(dy: tf.Tensor, *unused: tf.Tensor) -> tuple[Any, ...]:
        # Ioffe and Szegedy 2015, arXiv:1502.03167, section 3.
        dy = tf.reshape(dy, [-1, wide * channels])
        centred = rows - wide_mean  # again: keeping it would double the memory
        mean_dy = mean_of(dy)
        mean_dy_normal = mean_of(dy * centred) * inverse
        dx = dy - spread(mean_dy) - centred * spread(mean_dy_normal * inverse)
        dx = tf.reshape(dx * scale, shape)
        return dx, mean_dy_normal * count, mean_dy * count, None

    return (tf.reshape(y, shape), mean, variance), gradient


def _all_replicas_statistics(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Mean, biased variance and number of pixels over the batches of all replicas."""
    moments = tf.nn.moments(x, [0, 1, 2])
    mean, variance = (tf.cast(moment, tf.float64) for moment in moments)
    count = tf.cast(tf.size(x[..., 0]), tf.float64)
    all_of_them = _over_replicas(mean, variance, count)
    return tuple(tf.cast(value, x.dtype) for value in all_of_them)


def _over_replicas(
    mean: tf.Tensor, variance: tf.Tensor, count: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The moments of all replicas' batches from those of each, in float64.

    There the difference of two large squares does no harm.
    """
    sums = [count, count * mean, count * (variance + tf.square(mean))]
    context = tf.distribute.get_replica_context()
    count, total, squares = context.all_reduce("sum", sums)
    mean = total / count
    return mean, tf.maximum(squares / count - tf.square(mean), 0), count


def _fused(
    layer: keras.layers.BatchNormalization, x: tf.Tensor, training: bool
) -> tf.Tensor:
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


def _fused_together(layer: keras.layers.BatchNormalization, x: tf.Tensor) -> tf.Tensor:
    """The fused kernels, with the statistics of the batches of all replicas.

    Elementary operations would move the map through memory twice as often.
    """
    gamma, beta = (tf.convert_to_tensor(v) for v in (layer.gamma, layer.beta))
    none = tf.zeros([0], gamma.dtype)
    kernel = tf.raw_ops.FusedBatchNormV3
    settings = {"epsilon": layer.epsilon, "is_training": False}
    context = tf.distribute.get_replica_context()

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor):
        zeros, ones = tf.zeros_like(gamma), tf.ones_like(gamma)
        own = kernel(
            x=x, scale=ones, offset=zeros, mean=none, variance=none,
            epsilon=layer.epsilon, is_training=True,
        )  # fmt: skip
        # The kernel's variance is the unbiased one.
        size = tf.cast(tf.size(x[..., 0]), tf.float64)
        biased = tf.cast(own.batch_variance, tf.float64) * (size - 1) / size
        mean, variance, count = _over_replicas(
            tf.cast(own.batch_mean, tf.float64), biased, size
        )
        mean, variance, count = (
            tf.cast(value, gamma.dtype) for value in (mean, variance, count)
        )
        y = kernel(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, **settings
        ).y

        def gradient(dy: tf.Tensor, *_: Any) -> tuple[tf.Tensor, ...]:
            # As if the statistics were constants; then what flows through them.
            straight = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy, x=x, scale=gamma, reserve_space_1=mean,
                reserve_space_2=variance, reserve_space_3=none, **settings,
            )  # fmt: skip
            dgamma, dbeta = straight.scale_backprop, straight.offset_backprop
            sums = [tf.cast(d, tf.float64) for d in (dbeta, dgamma)]
            sums = context.all_reduce("sum", sums)
            by_beta, by_gamma = (tf.cast(d, gamma.dtype) / count for d in sums)
            inverse = tf.math.rsqrt(variance + layer.epsilon)
            slope = -gamma * tf.square(inverse) * by_gamma
            shift = -gamma * inverse * by_beta - slope * mean
            through = tf.cast(slope, x.dtype) * x + tf.cast(shift, x.dtype)
            return straight.x_backprop + through, dgamma, dbeta

        return (y, mean, variance, count), gradient

    y, mean, variance, count = normalize(x, gamma, beta)
    _move_statistics(layer, mean, variance, count)
    return y


def _elementary(
    layer: keras.layers.BatchNormalization, x: tf.Tensor, training: bool
) -> tf.Tensor:
    """What the fused kernel computes, where it does not reach or is slow."""
    gamma, beta = (tf.cast(v, x.dtype) for v in (layer.gamma, layer.beta))
    mean, variance = layer.moving_mean, layer.moving_variance
    if not training or (layer.synchronized and _replicas() > 1):
        if training:
            mean, variance, count = _all_replicas_statistics(x)
        y = tf.nn.batch_normalization(
            x,
            tf.cast(mean, x.dtype),
            tf.cast(variance, x.dtype),
            beta,
            gamma,
            layer.epsilon,
        )
    else:
        epsilon = tf.constant(layer.epsilon, x.dtype)
        y, mean, variance = _normalize_batch(x, gamma, beta, epsilon)
        y = tf.ensure_shape(y, x.shape)
        count = tf.cast(tf.size(x[..., 0]), x.dtype)
    if training:
        _move_statistics(layer, mean, variance, count)
    return y


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: Any = None,
) -> tf.Tensor:
    training = bool(training) and layer.trainable
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if dtype not in FUSED_DTYPES:
        return _elementary(layer, inputs, training)
    synchronized = layer.synchronized and _replicas() > 1
    # On CPUs the fused kernel is slow where channels do not fill a vector of four.
    ragged = inputs.shape[-1] % 4 and not tf.config.list_physical_devices("GPU")
    if training and synchronized:
        return _fused_together(layer, inputs)
    if training and ragged:
        outputs = _elementary(layer, tf.cast(inputs, "float32"), training)
        return tf.cast(outputs, layer.compute_dtype)
    return _fused(layer, inputs, training)


def _fusable(layer: keras.layers.BatchNormalization) -> bool:
    return (
        layer.scale
        and layer.center
        and not layer.renorm
        and layer.input_spec is not None
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
    )


def use_fused(
    model: keras.Model, momentum: float | None = None, synchronized: bool = False
) -> None:
    """Let the model's batch norms compute with TensorFlow's fused kernel.

    `momentum` (None keeps it) and `synchronized` (batch statistics over all
    replicas of a strategy) are set on every layer.
    """
    for layer in _batch_norms(model):
        if momentum is not None:
            layer.momentum = float(momentum)
        layer.synchronized = synchronized
        if _fusable(layer):
            # Bound to the instance, so the class, config and file format stay Keras'.
            layer.call = types.MethodType(_call, layer)


def share_moving_statistics(model: keras.Model) -> None:
    """Let replicas whose batches have each their own statistics keep one average.

    After every training step the moving statistics of all become the mean of theirs,
    in one message, so that replicas stay copies of each other.
    """
    if not _batch_norms(model):
        return
    inner = model.train_step

    def train_step(data: Any) -> dict[str, tf.Tensor]:
        logs = inner(data)
        moving = [
            statistic
            for layer in _batch_norms(model)
            for statistic in (layer.moving_mean, layer.moving_variance)
        ]
        flat = tf.concat([tf.convert_to_tensor(v) for v in moving], axis=0)
        mean = tf.distribute.get_replica_context().all_reduce("mean", flat)
        parts = tf.split(mean, [v.shape[0] for v in moving])
        for statistic, part in zip(moving, parts, strict=True):
            statistic.assign(part)
        return logs

    model.train_step = train_step


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


def recalibrate(
    model: keras.Model, dataset: Iterable[Any], batches: int = 100
) -> keras.Model:
    """Recompute all moving statistics from up to `batches` batches of `dataset`.

    For runs too short for their batch-norm momentum and for fine-tuning. The mean
    and variance become those of all images seen, at the current weights; weights
    do not change. `dataset` yields images or (images, labels).

    Raises:
        ValueError: the dataset is empty, or batches is below 1.
    """
    if batches < 1:
        raise UsageError(f"batches must be at least 1; got {batches!r}")
    layers = [layer for layer in _batch_norms(model) if layer.trainable]
    kept = [layer.momentum for layer in layers]
    forward = tf.function(lambda images: model(images, training=True))
    count, means, squares = 0, 0.0, 0.0
    try:
        for layer in layers:
            layer.momentum = 0.0  # moving statistics become the batch's own
        for batch in dataset:
            forward(batch[0] if isinstance(batch, (tuple, list)) else batch)
            mean = _stacked(layers, "moving_mean")
            means = means + mean
            squares = squares + _stacked(layers, "moving_variance") + mean**2
            count += 1
            if count == batches:
                break
    finally:
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
    if not count:
        raise UsageError("dataset must yield at least one batch; it is empty")
    mean, square = means / count, squares / count
    start = 0
    for layer in layers:
        part = slice(start, start + layer.moving_mean.shape[0])
        layer.moving_mean.assign(mean[part])
        layer.moving_variance.assign(np.maximum(square[part] - mean[part] ** 2, 0))
        start = part.stop
    return model


def _stacked(
    layers: list[keras.layers.BatchNormalization], statistic: str
) -> np.ndarray:
    return np.concatenate(
        [np.asarray(getattr(layer, statistic), "float64") for layer in layers]
    )
