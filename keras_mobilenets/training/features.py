"""Features that are computed once, where the body gives the same in every epoch.

So it does while all of it is frozen and the images are not distorted. They are kept,
and the classifier trains on them: the same model, optimizer, order of examples and
callbacks, with the body left out of the step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.data import Splits
from keras_mobilenets.data.parts import MEMORY_BUDGET
from keras_mobilenets.recipe import Recipe
from keras_mobilenets.settings import Settings
from keras_mobilenets.training.counting import counting
from keras_mobilenets.training.distribution import is_asynchronous, is_multi_worker
from keras_mobilenets.training.measuring import make_measure
from keras_mobilenets.training.outputs import backwards

Forward = Callable[..., tf.Tensor]  # (images or features, training) -> outputs


def resting_epochs(recipe: Recipe) -> int:
    """First so many epochs in which the whole body is frozen."""
    return recipe.epochs if recipe.freeze == "body" else recipe.head_epochs


def cut(model: keras.Model) -> tuple[keras.Model, Forward]:
    """A network in two: from images to features, and from features to outputs.

    The cut is before the classifier's dropout, so the first half gives the same at any
    time. Both share the model's layers and variables.
    """
    behind: list[Any] = []
    for layer in backwards(model):
        classified = any(part.weights for part in behind)
        if classified and not isinstance(layer, keras.layers.Dropout):
            break
        behind.append(layer)
    behind.reverse()

    def classify(features: tf.Tensor, training: bool) -> tf.Tensor:
        x = features
        for layer in behind:
            drops = isinstance(layer, keras.layers.Dropout)
            x = layer(x, training=training) if drops else layer(x)
        return x

    return keras.Model(model.inputs[0], behind[0].input), classify


class Features(NamedTuple):
    """What the steps of a resting body are taken on, and what they are measured by."""

    forward: Forward
    batches: tf.data.Dataset
    measure: Callable[[], dict[str, float]]

    @contextlib.contextmanager
    def replacing_images(self, model: keras.Model) -> Iterator[None]:
        """Within the block the steps of a bound model are taken on features."""
        step = model.train_step
        step.forward, model.train_function = self.forward, None  # to trace it anew
        try:
            yield
        finally:
            step.forward, model.train_function = model, None


def keep_features(
    model: keras.Model, settings: Settings, splits: Splits
) -> tuple[Features | None, str]:
    """The features of all images, where they can be kept, and what to say of them.

    Training begins where `splits.set_position` says when it begins.
    """
    body, classify = cut(model)
    images = splits.num_train + splits.num_validation
    size = images * body.output_shape[-1] * np.dtype("float32").itemsize
    reason = _why_not(model, settings, splits, size)
    images_as = [tf.TensorSpec(body.input_shape, tf.float32)]
    forward = tf.function(
        lambda images: body(images, training=False), images_as, autograph=False
    )
    if reason is None:
        train = _compute(forward, splits.undistorted())
        if len(train[0]) < splits.num_train:  # and others would stand in for them
            reason = "some images have broken since they were found good"
    if reason is not None:
        return None, f"the frozen layers run in every epoch: {reason}"
    held = tf.data.Dataset.from_tensor_slices(_compute(forward, splits.validation))
    held = held.batch(splits.batch_size)
    measure = make_measure(model, counting(splits.multi_label), classify)
    features = Features(classify, splits.endless(rows=train), lambda: measure(held))
    return features, (
        f"the features of {images:,} images were computed once ({size / 1e6:,.1f} MB): "
        "the classifier trains on them"
    )


def _why_not(
    model: keras.Model, settings: Settings, splits: Splits, size: int
) -> str | None:
    """What stands against keeping features of `size` bytes, if anything does."""
    recipe, strategy = settings.recipe, model.distribute_strategy
    shared = strategy.num_replicas_in_sync > 1 or (
        is_multi_worker(strategy) or is_asynchronous(strategy)
    )
    distorts = {
        "crop_area": recipe.crop_area is not None,
        "flip": recipe.flip,
        "color": recipe.color is not None,
    }
    distorting = ", ".join(name for name, does in distorts.items() if does)
    budget = settings.data_options.get("memory_budget", MEMORY_BUDGET)
    reasons = {
        f"the recipe distorts images ({distorting})": bool(distorting),
        "replicas or workers share the steps": shared,
        "the data is read from its files in turn": not splits.numbered,
        f"features take {size:,} bytes, and memory_budget is {budget:,}": size > budget,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _compute(
    forward: Callable[[tf.Tensor], tf.Tensor], batches: tf.data.Dataset
) -> tuple[np.ndarray, ...]:
    """Features [n, channels] in the place of images, and what else comes with them."""

    def rows() -> Iterator[list[np.ndarray]]:
        for images, *rest in batches:
            yield [np.array(forward(images)), *(np.array(part) for part in rest)]

    return tuple(np.concatenate(column) for column in zip(*rows(), strict=True))
