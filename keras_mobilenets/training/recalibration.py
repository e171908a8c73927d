"""`recalibrate`: the statistics of batch norm from data, instead of moving ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.architecture.arguments import check_integer
from keras_mobilenets.errors import UsageError
from keras_mobilenets.training.averaging import (
    averaged_weights,
    get_averages,
    set_averages,
)
from keras_mobilenets.training.batch_norm import BatchNorm, batch_norms
from keras_mobilenets.training.step import is_bound


class _Statistics:
    """Count, mean and biased variance of each layer's inputs, over batches."""

    def __init__(self, model: keras.Model, layers: list[BatchNorm]):
        self.layers = layers
        self.sums: list[list[Any]] = []  # arrays, of a layer: count, values, squares

        @tf.function(autograph=False, reduce_retracing=True)
        def forward(images: tf.Tensor) -> list[list[tf.Tensor]]:
            found: dict[int, list[list[tf.Tensor]]] = {id(la): [] for la in layers}
            kept = [vars(layer).get("call") for layer in layers]
            try:
                for layer in layers:
                    layer.call = _recording(layer, found[id(layer)])
                model(images, training=False)
            finally:
                for layer, call in zip(layers, kept, strict=True):
                    if call is None:
                        del layer.call
                    else:
                        layer.call = call
            # A layer that a model calls several times has several.
            return [
                [tf.add_n(values) for values in zip(*found[id(la)], strict=True)]
                for la in layers
            ]

        self.forward = forward

    def add(self, images: Any) -> None:
        new = [[np.array(s) for s in sums] for sums in self.forward(images)]
        old = self.sums or [[0, 0, 0]] * len(new)
        self.sums = [
            [a + b for a, b in zip(one, other, strict=True)]
            for one, other in zip(old, new, strict=True)
        ]

    def results(self) -> list[tuple[keras.Variable, np.ndarray]]:
        """Every statistic with its value; variances unbiased, as slim's moving ones."""
        pairs = []
        for layer, (count, values, squares) in zip(self.layers, self.sums, strict=True):
            mean = values / count
            variance = np.maximum(squares / count - mean**2, 0)
            unbiased = variance * count / max(count - 1, 1)
            pairs += [(layer.moving_mean, mean), (layer.moving_variance, unbiased)]
        return pairs


def _recording(layer: BatchNorm, found: list[list[tf.Tensor]]) -> Any:
    """A `call` that normalises by the batch's own statistics, and notes them."""

    def call(inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        rank, axis = len(inputs.shape), layer.axis % len(inputs.shape)
        axes = [a for a in range(rank) if a != axis]
        mean, variance = tf.nn.moments(x, axes, keepdims=True)
        count = tf.cast(tf.size(x) / tf.shape(x)[axis], tf.float64)
        flat = [tf.cast(tf.reshape(t, [-1]), tf.float64) for t in (mean, variance)]
        found.append([count, count * flat[0], count * (flat[1] + flat[0] ** 2)])
        shape = [1] * rank
        shape[axis] = -1
        beta, gamma = (
            None if v is None else tf.reshape(tf.cast(v, x.dtype), shape)
            for v in (layer.beta, layer.gamma)
        )
        y = tf.nn.batch_normalization(x, mean, variance, beta, gamma, layer.epsilon)
        return tf.cast(y, layer.compute_dtype)

    return call


def _check_images(model: keras.Model, images: Any) -> None:
    """A batch has the shape of the model's inputs."""
    expected = tuple(model.input_shape)
    shape = np.shape(images) if isinstance(images, (np.ndarray, tf.Tensor)) else None
    if (
        shape is None
        or len(shape) != len(expected)
        or any(
            theirs not in (None, ours)
            for ours, theirs in zip(shape, expected, strict=True)
        )
    ):
        raise UsageError(
            f"dataset must yield images of shape {expected}; got "
            + (f"{type(images).__name__}" if shape is None else f"{tuple(shape)}")
        )


def recalibrate(
    model: keras.Model, dataset: Iterable[Any], batches: int = 100
) -> keras.Model:
    """Recompute all moving statistics from up to `batches` batches of `dataset`.

    For runs too short for their batch-norm momentum and for fine-tuning. The mean and
    (unbiased) variance become those of all images seen, each image counted once,
    whatever the size of its batch; dropout is off. Weights do not change, and nothing
    does where it fails. Where a recipe keeps averages, theirs are recomputed too, at
    the averaged weights. Layers that are not trainable, or that a recipe freezes, keep
    theirs.

    Args:
        model: compiled or not.
        dataset: yields images, (images, labels) or (images, labels, weights).
        batches: how many to look at, at least 1.

    Raises:
        UsageError: the dataset is empty, its images have another shape than the model's
            inputs, or an impossible argument.

    Example:
        km.recalibrate(model, splits.train)
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"model must be a keras.Model; got {model!r}")
    batches = check_integer("batches", batches, low=1)
    scalar = isinstance(dataset, (tf.Tensor, np.ndarray)) and not np.ndim(dataset)
    text = isinstance(dataset, (str, bytes))
    if not isinstance(dataset, Iterable) or text or scalar:
        raise UsageError(
            "dataset must yield batches of images, or of (images, labels); got "
            f"{dataset!r}"
        )
    with model.train_step.resting if is_bound(model) else contextlib.nullcontext():
        layers = [layer for layer in batch_norms(model) if layer.trainable]
    averages = get_averages(model)
    own, averaged = _Statistics(model, layers), _Statistics(model, layers)
    averaged.forward = own.forward
    seen = 0
    for batch in dataset:
        images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        _check_images(model, images)
        own.add(images)
        if averages is not None:
            with averaged_weights(model):
                averaged.add(images)
        seen += 1
        if seen == batches:
            break
    if not seen:
        raise UsageError("dataset must yield at least one batch; it is empty")
    if averages is not None:
        place = {id(variable): n for n, variable in enumerate(model.weights)}
        for variable, value in averaged.results():
            averages[place[id(variable)]] = value
        set_averages(model, averages)
    for variable, value in own.results():
        variable.assign(value)
    return model
