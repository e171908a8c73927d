"""Batch normalisation as slim computes it, on plain Keras layers.

Keras 3 computes batch norm from elementary operations; TensorFlow's fused kernel
is two to three times faster, and it feeds the *unbiased* batch variance into the
moving variance, as slim's did. `use_fused` changes how the layers of a model
compute, not what they are: they stay `keras.layers.BatchNormalization` and save
and load as such.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

FUSED_DTYPES = ("float16", "bfloat16", "float32")  # of FusedBatchNormV3


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


def _normalize_elementary(
    layer: keras.layers.BatchNormalization, x: tf.Tensor, training: bool
) -> tf.Tensor:
    """Where the fused kernel does not reach: float64, statistics of all replicas."""
    mean, variance = layer.moving_mean, layer.moving_variance
    if training:
        mean = tf.reduce_mean(x, axis=[0, 1, 2])
        square = tf.reduce_mean(tf.square(x), axis=[0, 1, 2])
        count = tf.cast(tf.size(x[..., 0]), x.dtype)
        if layer.synchronized and _replicas() > 1:
            context = tf.distribute.get_replica_context()
            weighted = [count, mean * count, square * count]
            count, mean, square = context.all_reduce("sum", weighted)
            mean, square = mean / count, square / count
            variance = square - tf.square(mean)
        else:
            variance = tf.reduce_mean(tf.math.squared_difference(x, mean), [0, 1, 2])
        unbiased = variance * count / tf.maximum(count - 1, 1)
        _move(layer.moving_mean, mean, layer.momentum)
        _move(layer.moving_variance, unbiased, layer.momentum)
    return tf.nn.batch_normalization(
        x,
        tf.cast(mean, x.dtype),
        tf.cast(variance, x.dtype),
        tf.cast(layer.beta, x.dtype),
        tf.cast(layer.gamma, x.dtype),
        layer.epsilon,
    )


def _call(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool | None = None,
    mask: Any = None,
) -> tf.Tensor:
    training = bool(training) and layer.trainable
    synchronized = training and layer.synchronized and _replicas() > 1
    if keras.backend.standardize_dtype(inputs.dtype) not in FUSED_DTYPES:
        return _normalize_elementary(layer, inputs, training)
    if synchronized:
        outputs = _normalize_elementary(layer, tf.cast(inputs, "float32"), training)
        return tf.cast(outputs, layer.compute_dtype)
    # The kernel moves the statistics it is given, the variance by the unbiased one.
    outputs = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
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
        raise ValueError(f"batches must be at least 1; got {batches!r}")
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
        raise ValueError("dataset must yield at least one batch; it is empty")
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
